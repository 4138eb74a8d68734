//! Passes a request that a standby got on to the leader, and the answer back. Once only: a request that was passed on already is
//! refused, so two controllers that take each other for the leader do not play ball.

use std::sync::OnceLock;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::{Doors, MAX_BODY, problem};

const FORWARDED: HeaderName = HeaderName::from_static("x-aurora-redis-forwarded");
/// Longest silence of the leader: longer than it takes to answer an ask.
const READ_TIMEOUT: Duration = Duration::from_secs(20);

pub(super) async fn forward(doors: &Doors, request: Request) -> Response {
    let unavailable = |error: String| problem(StatusCode::SERVICE_UNAVAILABLE, error);
    let Some(leader) = doors.leader.url() else {
        let why = doors.leader.problem().map(|problem| format!(" ({problem})")).unwrap_or_default();
        return unavailable(format!(
            "this controller stands by and no other one leads at the moment{why}; try again in a few seconds"
        ));
    };
    if request.headers().contains_key(FORWARDED) {
        return unavailable("the lead is just changing; try again in a few seconds".into());
    }
    match pass_on(&leader, request).await {
        Ok(answer) => answer,
        Err(message) => unavailable(format!("this controller stands by and the leader {leader} cannot be asked: {message}")),
    }
}

async fn pass_on(leader: &str, request: Request) -> Result<Response, String> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let mut sent = http().request(request.method().clone(), format!("{leader}{path}")).header(FORWARDED, "1");
    for name in [header::AUTHORIZATION, header::CONTENT_TYPE] {
        if let Some(value) = request.headers().get(&name) {
            sent = sent.header(name, value);
        }
    }
    let body = to_bytes(request.into_body(), MAX_BODY).await.map_err(|_| format!("the body is longer than {MAX_BODY} bytes"))?;
    let answer = sent.body(body).send().await.map_err(|error| agent::causes::chain(&error.without_url()))?;
    let mut headers = HeaderMap::new();
    if let Some(kind) = answer.headers().get(header::CONTENT_TYPE) {
        headers.insert(header::CONTENT_TYPE, kind.clone());
    }
    Ok((answer.status(), headers, Body::from_stream(answer.bytes_stream())).into_response())
}

fn http() -> &'static reqwest::Client {
    static HTTP: OnceLock<reqwest::Client> = OnceLock::new();
    HTTP.get_or_init(|| {
        let builder = reqwest::Client::builder().connect_timeout(Duration::from_secs(2)).read_timeout(READ_TIMEOUT);
        builder.redirect(reqwest::redirect::Policy::none()).build().expect("without TLS there is nothing to fail")
    })
}
