//! One HTTP request to one scheduler.

use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE, LOCATION};
use reqwest::{Response, Url};
use tokio::time::Instant;

use super::{Options, leader};
use crate::error::{Error, excerpt};
use crate::wire::{self, Call};

/// Largest answer accepted. 4,000 tasks, the most a job can have, with 10 kB of configuration each make 40 MB.
const MAX_BODY: usize = 64 << 20;

/// What a scheduler answers.
pub(super) enum Answer {
    /// A thrift message, unread.
    Message(Vec<u8>),
    /// "Ask that one."
    Elsewhere(Url),
}

/// Sends requests; each has a connection of its own, so that "could not connect" means "was not asked".
#[derive(Clone, Debug)]
pub(super) struct Http {
    client: reqwest::Client,
    options: Options,
}

impl Http {
    pub(super) fn new(options: Options) -> Http {
        let client = reqwest::Client::builder()
            .user_agent(concat!("aurora-redis/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(options.connect)
            .pool_max_idle_per_host(0)
            .no_proxy()
            .build()
            .expect("nothing that depends on the machine is configured");
        Http { client, options }
    }

    /// Sends the message of `call` to `url`. Redirects are not followed here: clients that do drop the credentials.
    pub(super) async fn post(&self, url: &Url, call: &Call, message: Vec<u8>, deadline: Instant) -> Result<Answer, Error> {
        let method = call.method();
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let mut request = self
            .client
            .post(url.clone())
            .header(CONTENT_TYPE, wire::CONTENT_TYPE)
            .header(ACCEPT, wire::CONTENT_TYPE)
            .timeout(self.options.attempt.min(left))
            .body(message);
        if let Some(credentials) = self.options.credentials.as_ref().filter(|_| !call.is_read()) {
            request = request.basic_auth(&credentials.user, Some(&credentials.password));
        }
        let response = request.send().await.map_err(|error| lost(method, url, error))?;
        match response.status().as_u16() {
            200 => read_message(method, url, response).await.map(Answer::Message),
            307 | 308 => elsewhere(method, url, &response).map(Answer::Elsewhere),
            401 | 403 => Err(Error::Unauthorized { method, url: url.to_string(), status: response.status().as_u16() }),
            503 => Err(Error::NotLeading { url: url.to_string() }),
            status => Err(Error::Status { method, url: url.to_string(), status, text: read_text(response).await }),
        }
    }
}

/// Without a connection nothing was asked; after it, nobody knows.
fn lost(method: &'static str, url: &Url, error: reqwest::Error) -> Error {
    let (url, source) = (url.to_string(), error.without_url());
    match source.is_connect() {
        true => Error::Connect { url, source },
        false => Error::NoAnswer { method, url, source },
    }
}

/// The scheduler that a redirect names.
fn elsewhere(method: &'static str, url: &Url, response: &Response) -> Result<Url, Error> {
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    match location.and_then(|location| url.join(location).ok()) {
        Some(other) => leader::without_tls(other),
        None => {
            let status = response.status().as_u16();
            Err(Error::Status { method, url: url.to_string(), status, text: "without a valid Location".to_owned() })
        }
    }
}

/// The body of an answer that should be a thrift message.
async fn read_message(method: &'static str, url: &Url, response: Response) -> Result<Vec<u8>, Error> {
    let not_thrift = |problem: String| Error::NotThrift { method, url: url.to_string(), problem };
    let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !content_type.eq_ignore_ascii_case(wire::CONTENT_TYPE) {
        return Err(not_thrift(format!("content of type `{}`", excerpt(content_type))));
    }
    let (body, whole) = read_body(response, MAX_BODY).await.map_err(|error| lost(method, url, error))?;
    whole.then_some(body).ok_or_else(|| not_thrift(format!("more than {MAX_BODY} bytes")))
}

/// The beginning of a body, for an error's text.
async fn read_text(response: Response) -> String {
    let (body, _) = read_body(response, 4096).await.unwrap_or_default();
    excerpt(&String::from_utf8_lossy(&body))
}

/// At least the first `limit` bytes of a body, and whether that is all of it.
async fn read_body(mut response: Response, limit: usize) -> Result<(Vec<u8>, bool), reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() > limit {
            return Ok((body, false));
        }
    }
    Ok((body, true))
}
