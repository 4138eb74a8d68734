//! Typed client of an agent's HTTP API ([`crate::api`]); the controller and the test tools use it.

use std::time::Duration;

use futures_util::{Stream, StreamExt};
use serde::de::DeserializeOwned;

use crate::api::{Address, Answer, Command, Question, State, Verdict};

/// Largest body accepted from an agent, bytes: a state is a few KiB.
const MAX_BODY: usize = 1 << 20;

/// Speaks to agents; cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    token: Option<String>,
}

/// What went wrong with one request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection: certainly nothing was done.
    #[error("agent {address} cannot be reached: {message}")]
    Unreachable {
        /// The agent.
        address: Address,
        /// Why.
        message: String,
    },
    /// Sent, and no whole answer came: perhaps done.
    #[error("agent {address} did not answer: {message}")]
    NoAnswer {
        /// The agent.
        address: Address,
        /// Why.
        message: String,
    },
    /// The token was not accepted: nothing was done.
    #[error("agent {address} refuses the token: its secret file differs from ours")]
    Unauthorized {
        /// The agent.
        address: Address,
    },
    /// It answered something that is not in the contract.
    #[error("agent {address} answered {path} with something unexpected: {message}")]
    BadAnswer {
        /// The agent.
        address: Address,
        /// What was asked.
        path: String,
        /// What came, shortened.
        message: String,
    },
}

impl Error {
    /// Whether certainly nothing was done.
    pub fn is_definite(&self) -> bool {
        matches!(self, Error::Unreachable { .. } | Error::Unauthorized { .. })
    }
}

impl Client {
    /// A client that presents `token` (none where no secret file is used).
    pub fn new(token: Option<String>) -> Client {
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(1))
            .redirect(reqwest::redirect::Policy::none())
            .tcp_nodelay(true)
            .build()
            .expect("without TLS there is nothing to fail");
        Client { http, token }
    }

    fn request(&self, method: reqwest::Method, address: &Address, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("http://{address}{path}"));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// `GET /state`.
    pub async fn state(&self, address: &Address, limit: Duration) -> Result<State, Error> {
        let response = send(self.request(reqwest::Method::GET, address, "/state").timeout(limit), address).await?;
        body(response, address, "/state").await
    }

    /// `POST /command/<verb>`; refusals come back as an [`Answer`], not as an error.
    pub async fn command(&self, address: &Address, command: &Command, limit: Duration) -> Result<Answer, Error> {
        let path = format!("/command/{}", command.order.verb());
        let response = send(self.request(reqwest::Method::POST, address, &path).timeout(limit).json(command), address).await?;
        body(response, address, &path).await
    }

    /// `POST /testify`.
    pub async fn testify(&self, address: &Address, question: &Question, limit: Duration) -> Result<Verdict, Error> {
        let request = self.request(reqwest::Method::POST, address, "/testify").timeout(limit).json(question);
        body(send(request, address).await?, address, "/testify").await
    }

    /// `GET /watch`: the agent's state at each change and heartbeat, until the stream breaks. The stream itself has no deadline:
    /// whoever reads it judges the silence.
    pub async fn watch(&self, address: &Address) -> Result<impl Stream<Item = Result<State, Error>> + use<>, Error> {
        let response = send(self.request(reqwest::Method::GET, address, "/watch"), address).await?;
        if !response.status().is_success() {
            return Err(bad(address, "/watch", format!("status {}", response.status())));
        }
        let lines = Lines { buffer: Vec::new(), address: address.clone() };
        Ok(futures_util::stream::unfold((Box::pin(response.bytes_stream()), lines), |(mut bytes, mut lines)| async move {
            loop {
                if let Some(state) = lines.next_state() {
                    return Some((state, (bytes, lines)));
                }
                match bytes.next().await {
                    Some(Ok(chunk)) => lines.buffer.extend_from_slice(&chunk),
                    Some(Err(e)) => {
                        let error = Error::NoAnswer { address: lines.address.clone(), message: root_cause(&e) };
                        return Some((Err(error), (bytes, lines)));
                    }
                    None => return None,
                }
                if lines.buffer.len() > MAX_BODY {
                    lines.buffer.clear();
                    return Some((Err(bad(&lines.address, "/watch", "a line of over 1 MiB".into())), (bytes, lines)));
                }
            }
        }))
    }
}

struct Lines {
    buffer: Vec<u8>,
    address: Address,
}

impl Lines {
    fn next_state(&mut self) -> Option<Result<State, Error>> {
        let end = self.buffer.iter().position(|b| *b == b'\n')?;
        let line: Vec<u8> = self.buffer.drain(..=end).collect();
        Some(serde_json::from_slice(&line).map_err(|e| bad(&self.address, "/watch", e.to_string())))
    }
}

async fn send(request: reqwest::RequestBuilder, address: &Address) -> Result<reqwest::Response, Error> {
    let response = request.send().await.map_err(|e| {
        let message = root_cause(&e);
        match e.is_connect() {
            true => Error::Unreachable { address: address.clone(), message },
            false => Error::NoAnswer { address: address.clone(), message },
        }
    })?;
    match response.status() {
        reqwest::StatusCode::UNAUTHORIZED => Err(Error::Unauthorized { address: address.clone() }),
        _ => Ok(response),
    }
}

async fn body<T: DeserializeOwned>(mut response: reqwest::Response, address: &Address, path: &str) -> Result<T, Error> {
    let status = response.status();
    let mut data = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => data.extend_from_slice(&chunk),
            Ok(None) => break,
            Err(e) => return Err(Error::NoAnswer { address: address.clone(), message: root_cause(&e) }),
        }
        if data.len() > MAX_BODY {
            return Err(bad(address, path, "a body of over 1 MiB".into()));
        }
    }
    serde_json::from_slice(&data).map_err(|e| {
        let text: String = String::from_utf8_lossy(&data).chars().take(200).collect();
        bad(address, path, format!("status {status}, {e}: {text}"))
    })
}

fn bad(address: &Address, path: &str, message: String) -> Error {
    Error::BadAnswer { address: address.clone(), path: path.into(), message }
}

/// The innermost cause: reqwest's own text names the URL but hides the reason.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
