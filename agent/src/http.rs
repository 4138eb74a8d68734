//! The agent's HTTP server: translates requests into calls and results into answers, nothing else.
//!
//! Who may: everybody reads on the bound address; whatever is asked by POST needs the cluster's token, but for Aurora's two lifecycle calls,
//! which only come from this host. Nothing here waits for Redis but the commands.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, Request, State as Shared};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use axum::{Json, Router};
use tokio::net::TcpListener;

use crate::api::{Answer, AnswerKind, Command, Origin, PromiseRequest, Question, RecordView, State};
use crate::node::Node;
use crate::{metrics, ops, run, secret, testimony};

mod questions;

/// Longest body accepted, bytes: a command is well below 2 KiB.
const MAX_BODY: usize = 64 << 10;
/// A watcher hears something at least this often.
const HEARTBEAT: Duration = Duration::from_millis(250);

/// The routes.
pub(crate) fn router(node: Arc<Node>) -> Router {
    let commands = Router::new()
        .route("/command/{verb}", post(command))
        .route("/testify", post(testify))
        .route("/promise", post(promise))
        .route("/examine", post(examine))
        .layer(axum::middleware::from_fn_with_state(node.clone(), only_with_token));
    let lifecycle = Router::new()
        .route("/quitquitquit", post(quit))
        .route("/abortabortabort", post(abort))
        .layer(axum::middleware::from_fn(only_from_this_host));
    Router::new()
        .route("/health", get(|| async { "ok" }))
        .route("/state", get(async |Shared(node): Shared<Arc<Node>>| Json(node.state())))
        .route("/watch", get(watch))
        .route("/record", get(record))
        .route("/config", get(async |Shared(node): Shared<Arc<Node>>| Json(node.config.effective.clone())))
        .route("/metrics", get(expose))
        .merge(questions::router())
        .merge(commands)
        .merge(lifecycle)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(node)
}

/// Serves on a listener until the process ends. What is said leaves at once: a change on a stream does not wait until the one before was received.
pub(crate) async fn serve(listener: TcpListener, node: Arc<Node>) {
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    let app = router(node).into_make_service_with_connect_info::<SocketAddr>();
    if let Err(error) = axum::serve(listener, app).await {
        tracing::error!(%error, "the HTTP server has ended");
    }
}

async fn only_with_token(Shared(node): Shared<Arc<Node>>, request: Request, next: Next) -> Response {
    let token = node.config.secret.as_ref().map(secret::Secret::agent_token);
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    match secret::authorized(given, token.as_deref()) {
        true => next.run(request).await,
        false => (StatusCode::UNAUTHORIZED, "the cluster's token is needed: Authorization: Bearer …\n").into_response(),
    }
}

async fn only_from_this_host(ConnectInfo(peer): ConnectInfo<SocketAddr>, request: Request, next: Next) -> Response {
    match peer.ip().to_canonical().is_loopback() {
        true => next.run(request).await,
        false => (StatusCode::FORBIDDEN, "only from the loopback address of this host\n").into_response(),
    }
}

/// `POST /command/<verb>`.
async fn command(Shared(node): Shared<Arc<Node>>, Path(verb): Path<String>, body: Bytes) -> Response {
    let command: Command = match serde_json::from_slice(&body) {
        Ok(command) => command,
        Err(error) if VERBS.contains(&verb.as_str()) => return not_understood(format!("not a command: {error}")),
        Err(_) => return unknown_verb(&verb),
    };
    if command.order.verb() != verb {
        return match VERBS.contains(&verb.as_str()) {
            true => not_understood(format!("the path says {verb}, the order {}", command.order.verb())),
            false => unknown_verb(&verb),
        };
    }
    let answer = ops::execute(node, command).await;
    let status = match answer.outcome {
        AnswerKind::Done => StatusCode::OK,
        AnswerKind::Accepted => StatusCode::ACCEPTED,
        AnswerKind::Refused => StatusCode::CONFLICT,
        AnswerKind::Failed => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, Json(answer)).into_response()
}

const VERBS: [&str; 15] = [
    "start",
    "restore",
    "prepare",
    "promote",
    "follow",
    "fence",
    "hold",
    "release",
    "catch-up",
    "configure",
    "backup",
    "stop",
    "follow-origin",
    "close-origin",
    "open-origin",
];

fn unknown_verb(verb: &str) -> Response {
    refuse(StatusCode::NOT_FOUND, "unknown-verb", format!("there is no command {verb:?}; there are {}", VERBS.join(", ")))
}

fn not_understood(message: String) -> Response {
    refuse(StatusCode::BAD_REQUEST, "not-understood", message)
}

fn refuse(status: StatusCode, reason: &str, message: String) -> Response {
    let answer = Answer { outcome: AnswerKind::Refused, reason: reason.into(), message, state: None };
    (status, Json(answer)).into_response()
}

/// `POST /testify`.
async fn testify(Shared(node): Shared<Arc<Node>>, body: Bytes) -> Response {
    match serde_json::from_slice::<Question>(&body) {
        Ok(question) => Json(testimony::testify(&question.member, &node.config.host)).into_response(),
        Err(error) => not_understood(format!("not a question: {error}")),
    }
}

/// `POST /promise`.
async fn promise(Shared(node): Shared<Arc<Node>>, body: Bytes) -> Response {
    match serde_json::from_slice::<PromiseRequest>(&body) {
        Ok(asked) => Json(crate::promise::answer(&node, &asked)).into_response(),
        Err(error) => not_understood(format!("not a request for a promise: {error}")),
    }
}

/// `POST /examine`.
async fn examine(Shared(node): Shared<Arc<Node>>, body: Bytes) -> Response {
    match serde_json::from_slice::<Origin>(&body) {
        Ok(origin) => Json(crate::origin::examine(&node, &origin).await).into_response(),
        Err(error) => not_understood(format!("not an origin: {error}")),
    }
}

/// `GET /watch`: a line at each change, and one at least every [`HEARTBEAT`].
async fn watch(Shared(node): Shared<Arc<Node>>) -> Response {
    let states = node.subscribe();
    let lines = futures_util::stream::unfold((node, states, true), |(node, mut states, first)| async move {
        if !first {
            let _ = tokio::time::timeout(HEARTBEAT, states.changed()).await;
        }
        let state = states.borrow_and_update().clone();
        let line = line(&node.timed(state));
        Some((Ok::<_, std::convert::Infallible>(line), (node, states, false)))
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

fn line(state: &State) -> Bytes {
    let mut line = serde_json::to_vec(state).expect("a state is plain data");
    line.push(b'\n');
    Bytes::from(line)
}

/// `GET /record`.
async fn record(Shared(node): Shared<Arc<Node>>) -> Response {
    match node.records.get() {
        Some(seen) => Json(RecordView { phase: seen.record.phase, master: seen.record.master.clone() }).into_response(),
        None => (StatusCode::NOT_FOUND, "the record has not been read yet\n").into_response(),
    }
}

async fn expose(Shared(node): Shared<Arc<Node>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], metrics::render(&node.state())).into_response()
}

/// `POST /quitquitquit`: says that the instance is to end, so that the controller hands the master over. The process stays: Aurora would
/// start it again.
async fn quit(Shared(node): Shared<Arc<Node>>, _: HeaderMap) -> &'static str {
    tracing::info!("asked to end (/quitquitquit)");
    node.change(|parts| parts.stopping = true);
    "stopping\n"
}

/// `POST /abortabortabort`: ends the server in good order; the process waits for its SIGTERM.
async fn abort(Shared(node): Shared<Arc<Node>>) -> &'static str {
    tracing::info!("asked to end now (/abortabortabort)");
    node.aborted.notify_waiters();
    tokio::spawn(async move { run::end_now(&node).await });
    "ending\n"
}
