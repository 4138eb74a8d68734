//! The controller's HTTP server: what the last cycle published as JSON, one way to ask for something, the live page, metrics.
//!
//! `main` hands [`router`] an [`Intake`]; handlers only translate between HTTP and it. A standby passes `/api/…` on to the leader
//! (`forward`). Invariant: nothing that changes something happens without the bearer token of the cluster's secret, where there is one.

use std::sync::Arc;

use agent::client::Client;
use agent::clock::unix_ms;
use agent::layers::Effective;
use agent::secret::authorized;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use crate::intake::Intake;
use crate::metrics::Metrics;
use crate::operations::MAX_INSTANCES;
use crate::view::{Ask, ClusterView, Event, Operation, Published};

mod examine;
mod forward;
mod leader;

pub use leader::{Leader, leader_url};

/// A body larger than this is not an [`Ask`].
const MAX_BODY: usize = 64 << 10;
/// A leader whose last successful cycle is older is not ready, milliseconds.
const STALE_MS: u64 = 15_000;
/// Longest accepted name of who asks, characters.
const MAX_OWNER: usize = 200;

/// What the server holds.
#[derive(Clone, Debug)]
pub struct Doors {
    /// The way to the heart.
    pub intake: Intake,
    /// Bearer token for what changes something; absent where there is no secret file (then only loopback may be served).
    pub token: Option<String>,
    /// Client for the agents: one of them looks at what data is to be migrated from.
    pub agents: Client,
    /// `role/env/job`.
    pub cluster: String,
    /// Settings in force, for `/api/v1/config`.
    pub config: Effective,
    /// Counters.
    pub metrics: Metrics,
    /// Who leads.
    pub leader: Leader,
}

/// The body of `/api/v1/cluster`: the view, and what belongs to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterAnswer {
    /// The cluster.
    #[serde(flatten)]
    pub cluster: ClusterView,
    /// The operation in flight or last ended; absent before the first.
    pub operation: Option<Operation>,
    /// Unix time in milliseconds of the last successful cycle; 0 before.
    pub last_success_ms: u64,
    /// Unix time in milliseconds of this answer, by the controller's clock.
    pub now_ms: u64,
}

/// The body of every answer that is an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What is wrong, and what would be right.
    pub error: String,
}

fn problem(status: StatusCode, error: impl Into<String>) -> Response {
    (status, Json(Problem { error: error.into() })).into_response()
}

/// All routes.
pub fn router(doors: Doors) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/api/v1/cluster", view(cluster))
        .route("/api/v1/plan", view(|published| published.plan.clone()))
        .route("/api/v1/history", view(|published| published.history.clone()))
        .route("/api/v1/snapshots", view(|published| published.snapshots.clone()))
        .route("/api/v1/events", get(events))
        .route("/api/v1/config", get(|State(doors): State<Arc<Doors>>| async move { Json(doors.config.clone()) }))
        .route("/api/v1/operations", view(|published| published.operation.clone()).post(operations))
        .route("/metrics", get(metrics))
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .fallback(
            |uri: Uri| async move { problem(StatusCode::NOT_FOUND, format!("there is no {}; see /api/v1/cluster", uri.path())) },
        )
        .method_not_allowed_fallback(|uri: Uri| async move {
            problem(StatusCode::METHOD_NOT_ALLOWED, format!("{} does not take this method", uri.path()))
        })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(Arc::new(doors))
}

/// The page needs nothing from elsewhere and may load nothing from elsewhere.
async fn page() -> Response {
    const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; \
                          frame-ancestors 'none'; base-uri 'none'";
    ([(header::CONTENT_SECURITY_POLICY, POLICY), (header::CACHE_CONTROL, "no-cache")], Html(include_str!("page.html")))
        .into_response()
}

/// A GET that shows a part of what the leader published last.
fn view<T: Serialize + 'static>(pick: fn(&Published) -> T) -> MethodRouter<Arc<Doors>> {
    get(move |State(doors): State<Arc<Doors>>, request: Request| async move {
        let published = doors.intake.published.borrow().clone();
        if published.leading { Json(pick(&published)).into_response() } else { forward::forward(&doors, request).await }
    })
}

fn cluster(published: &Published) -> ClusterAnswer {
    ClusterAnswer {
        cluster: published.cluster.clone(),
        operation: published.operation.clone(),
        last_success_ms: published.last_success_ms,
        now_ms: unix_ms(),
    }
}

#[derive(Deserialize)]
struct EventsQuery {
    /// Only events of a higher number.
    #[serde(default)]
    after: u64,
    /// Stay connected and send each new event as a line of JSON.
    #[serde(default)]
    follow: bool,
}

async fn events(
    State(doors): State<Arc<Doors>>,
    query: Result<Query<EventsQuery>, axum::extract::rejection::QueryRejection>,
    request: Request,
) -> Response {
    let Ok(Query(query)) = query else {
        return problem(StatusCode::BAD_REQUEST, "events takes ?after=NUMBER and ?follow=true|false");
    };
    let published = doors.intake.published.borrow().clone();
    match (published.leading, query.follow) {
        (false, _) => forward::forward(&doors, request).await,
        (true, false) => Json(newer(&published, query.after)).into_response(),
        (true, true) => follow(doors.intake.published.clone(), query.after),
    }
}

fn newer(published: &Published, after: u64) -> Vec<Event> {
    published.events.iter().filter(|event| event.seq > after).cloned().collect()
}

/// One line of JSON per event, until this controller leads no more or the reader leaves.
fn follow(published: tokio::sync::watch::Receiver<Arc<Published>>, after: u64) -> Response {
    let lines = futures_util::stream::unfold((published, after), |(mut published, after)| async move {
        loop {
            let now = published.borrow_and_update().clone();
            let events = newer(&now, after);
            if let Some(last) = events.last() {
                let lines: String = events.iter().filter_map(|event| Some(serde_json::to_string(event).ok()? + "\n")).collect();
                return Some((Ok::<_, std::convert::Infallible>(Bytes::from(lines)), (published, last.seq)));
            }
            if !now.leading || published.changed().await.is_err() {
                return None;
            }
        }
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

async fn operations(State(doors): State<Arc<Doors>>, request: Request) -> Response {
    if !may(&doors, request.headers()) {
        let text = "this needs the bearer token that derives from the cluster's secret file; nothing was done";
        let mut answer = problem(StatusCode::UNAUTHORIZED, text);
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
        return answer;
    }
    if !doors.intake.published.borrow().leading {
        return forward::forward(&doors, request).await;
    }
    let ask = match read_ask(request).await {
        Ok(ask) => ask,
        Err(answer) => return answer,
    };
    let ask = examine::examined(&doors, ask).await;
    let kind = ask.kind();
    let reply = doors.intake.ask(ask).await;
    doors.metrics.count_ask(kind, reply.accepted);
    let status = if reply.accepted { StatusCode::ACCEPTED } else { StatusCode::CONFLICT };
    (status, Json(reply)).into_response()
}

fn may(doors: &Doors, headers: &HeaderMap) -> bool {
    let header = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    authorized(header, doors.token.as_deref())
}

async fn read_ask(request: Request) -> Result<Ask, Response> {
    let bad = |error: String| problem(StatusCode::BAD_REQUEST, error);
    // A form of a foreign web page cannot send this type, so a browser cannot be made to ask on somebody's behalf.
    let json = |value: &header::HeaderValue| value.to_str().is_ok_and(|kind| kind.starts_with("application/json"));
    if !request.headers().get(header::CONTENT_TYPE).is_some_and(json) {
        return Err(problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must be application/json"));
    }
    let body = axum::body::to_bytes(request.into_body(), MAX_BODY).await;
    let body = body.map_err(|_| problem(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is longer than {MAX_BODY} bytes")))?;
    let ask: Ask = serde_json::from_slice(&body).map_err(|error| {
        bad(format!(
            "the body is not understood: {error}; allowed is {{\"kind\": \"backup\"|\"restore\"|\"switchover\"|\"failover\"|\"migrate\"|\"cut-over\"|\"cancel-migration\"|\"scale\", \"owner\": \"…\", …}}"
        ))
    })?;
    let owner = ask.owner();
    if owner.trim().is_empty() || owner.chars().count() > MAX_OWNER || owner.chars().any(char::is_control) {
        return Err(bad(format!("owner says who asks: 1 to {MAX_OWNER} printable characters")));
    }
    match ask {
        Ask::Scale { instances, .. } if !(1..=MAX_INSTANCES).contains(&instances) => {
            Err(bad(format!("instances = {instances}: allowed is a whole number from 1 to {MAX_INSTANCES}")))
        }
        ask => Ok(ask),
    }
}

async fn metrics(State(doors): State<Arc<Doors>>) -> Response {
    let published = doors.intake.published.borrow().clone();
    let text = doors.metrics.render(&doors.cluster, &published, unix_ms());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

/// Ready is a leader whose cycles succeed, or a standby that knows its leader.
async fn ready(State(doors): State<Arc<Doors>>) -> Response {
    let published = doors.intake.published.borrow().clone();
    let age_ms = unix_ms().saturating_sub(published.last_success_ms);
    match (published.leading, doors.leader.url()) {
        (true, _) if age_ms <= STALE_MS => "leading\n".into_response(),
        (true, _) => {
            (StatusCode::SERVICE_UNAVAILABLE, "leading, but no cycle has succeeded lately; see /api/v1/plan\n").into_response()
        }
        (false, Some(url)) => format!("standing by, {url} leads\n").into_response(),
        (false, None) => (StatusCode::SERVICE_UNAVAILABLE, "standing by, and nobody leads\n").into_response(),
    }
}

#[cfg(test)]
mod tests;
