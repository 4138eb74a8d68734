//! The scheduler's HTTP server: `/api` with the quirks of the real one, health pages, and `/local/tasks`.
//!
//! Differs from the real one in what it reads and writes: only thrift's binary protocol, no JSON.

use aurora::wire::{ApplicationException, CONTENT_TYPE, Error, Reply, decode_call, encode_reply};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use tokio::sync::watch;

use super::api;
use super::scheduler::{PendingView, Scheduler, TaskView};

/// Largest request read.
const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;

/// What the handlers need.
#[derive(Clone)]
pub struct Context {
    /// Answers the calls.
    pub scheduler: Scheduler,
    /// `serverInfo.clusterName` of every answer.
    pub cluster: String,
    /// Whether the leader's node is in ZooKeeper.
    pub leading: watch::Receiver<bool>,
}

/// All routes.
pub fn router(context: Context) -> Router {
    Router::new()
        .route("/api", any(api_call))
        .route("/health", get(|| async { "OK\n" }))
        .route("/leaderhealth", get(leader_health))
        .route("/vars", get(vars))
        .route("/pendingtasks", get(pending))
        .route("/local/tasks", get(tasks))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(context)
}

async fn tasks(State(context): State<Context>) -> axum::Json<Vec<TaskView>> {
    axum::Json(context.scheduler.tasks())
}

async fn pending(State(context): State<Context>) -> axum::Json<Vec<PendingView>> {
    axum::Json(context.scheduler.pending())
}

async fn leader_health(State(context): State<Context>) -> StatusCode {
    if *context.leading.borrow() { StatusCode::OK } else { StatusCode::BAD_GATEWAY }
}

async fn vars(State(context): State<Context>) -> String {
    let active = u8::from(*context.leading.borrow());
    format!("framework_registered {active}\nscheduler_lifecycle_ACTIVE {active}\n")
}

async fn api_call(State(context): State<Context>, method: Method, headers: HeaderMap, body: Bytes) -> Response {
    let bypass = headers.contains_key("Bypass-Leader-Redirect");
    let leading = *context.leading.borrow();
    if !leading && !bypass {
        return html(StatusCode::SERVICE_UNAVAILABLE, "No leading scheduler found.");
    }
    match method {
        Method::POST => {}
        Method::GET | Method::HEAD => return html(StatusCode::INTERNAL_SERVER_ERROR, "No message."),
        _ => return StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
    if let Some(refused) = refuse_headers(&headers) {
        return refused;
    }
    match reply(&context, leading, &body) {
        Ok(bytes) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], bytes).into_response(),
        Err(error) => html(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// The reply to a message. Errors: it is no call in the binary protocol.
fn reply(context: &Context, leading: bool, body: &[u8]) -> Result<Vec<u8>, Error> {
    let cluster = &context.cluster;
    let (method, seqid, reply) = match decode_call(body) {
        Ok((seqid, call)) => {
            let method = call.method().to_owned();
            let response = match leading {
                true => api::answer(&context.scheduler, cluster, call),
                false => api::not_ready(cluster),
            };
            (method, seqid, Reply::Response(response))
        }
        Err(Error::UnknownMethod { method, seqid }) => {
            let exception = ApplicationException::unknown_method(&method);
            (method, seqid, Reply::Exception(exception))
        }
        Err(Error::MissingArgument { method, seqid, .. }) => (method.to_owned(), seqid, Reply::Response(api::failed(cluster))),
        Err(error) => return Err(error),
    };
    encode_reply(&method, seqid, &reply)
}

/// The real scheduler decides by exact content types, ignoring case and spaces; it answers in JSON unless `Accept`
/// says exactly binary, which is refused here.
fn refuse_headers(headers: &HeaderMap) -> Option<Response> {
    let value = |name| {
        let value = headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        value.map(|value| value.replace(' ', "").to_lowercase())
    };
    match value(header::CONTENT_TYPE).as_deref() {
        Some(CONTENT_TYPE) => {}
        Some("") => return Some(html(StatusCode::INTERNAL_SERVER_ERROR, "Empty content type.")),
        other => {
            let text = format!("Unsupported Content-Type: {}", other.unwrap_or("(none: JSON, not spoken here)"));
            return Some((StatusCode::UNSUPPORTED_MEDIA_TYPE, text).into_response());
        }
    }
    match value(header::ACCEPT).as_deref() {
        Some(CONTENT_TYPE) => None,
        _ => {
            let text = format!("local-aurora answers only in {CONTENT_TYPE}: send exactly this as Accept");
            Some((StatusCode::NOT_ACCEPTABLE, text).into_response())
        }
    }
}

fn html(status: StatusCode, text: &str) -> Response {
    let page = format!("<html><body><h2>HTTP ERROR {}</h2><p>{text}</p></body></html>\n", status.as_u16());
    (status, axum::response::Html(page)).into_response()
}

#[cfg(test)]
#[path = "recorded_tests.rs"]
mod tests;
