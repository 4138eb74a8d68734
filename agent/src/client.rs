//! Typed client of an agent's HTTP API ([`crate::api`]); the controller and the test tools use it.

use std::time::Duration;

use futures_util::{Stream, StreamExt};
use serde::de::DeserializeOwned;

use crate::api::{Address, Answer, Command, Examined, Origin, Promise, PromiseRequest, Question, State, Verdict};

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

    /// `POST /promise`.
    pub async fn promise(&self, address: &Address, request: &PromiseRequest, limit: Duration) -> Result<Promise, Error> {
        let request = self.request(reqwest::Method::POST, address, "/promise").timeout(limit).json(request);
        body(send(request, address).await?, address, "/promise").await
    }

    /// `POST /examine`.
    pub async fn examine(&self, address: &Address, origin: &Origin, limit: Duration) -> Result<Examined, Error> {
        let request = self.request(reqwest::Method::POST, address, "/examine").timeout(limit).json(origin);
        body(send(request, address).await?, address, "/examine").await
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::api::{Order, Stamp};
    use crate::record::Member;

    const LIMIT: Duration = Duration::from_secs(5);

    /// What an agent's address can answer instead of what the contract says.
    fn damaged() -> Vec<(&'static str, Vec<u8>)> {
        vec![
            ("bytes", vec![0xff, 0x00, 0xfe, b'\n']),
            ("wrong JSON", b"{\"task_id\": [1, {}], \"epoch\": \"x\"}\n".to_vec()),
            ("another value", b"7\n".to_vec()),
            ("half of it", b"{\"task_id\": \"t\", \"instance\"\n".to_vec()),
            ("over 1 MiB", vec![b'x'; (1 << 20) + 4096]),
        ]
    }

    /// Answers one request with `body`, as an agent of a status of 200, and closes.
    async fn answering(body: Vec<u8>) -> Address {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = [0; 8192];
            assert!(socket.read(&mut request).await.unwrap() > 0, "a request comes first");
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            socket.write_all(head.as_bytes()).await.unwrap();
            // The client may hang up in the middle of too much.
            let _ = socket.write_all(&body).await;
            let _ = socket.read(&mut request).await;
        });
        Address { host: "127.0.0.1".into(), port }
    }

    fn fence() -> Command {
        let stamp = Stamp {
            cluster_id: "c".into(),
            generation: "g".into(),
            epoch: 1,
            record_version: 1,
            task_id: "t".into(),
            run_id: Some("r".into()),
        };
        Command { stamp, order: Order::Fence }
    }

    #[tokio::test]
    async fn damaged_answers_are_named_and_count_as_perhaps_done() {
        let client = Client::new(None);
        for (what, body) in damaged() {
            let state = client.state(&answering(body.clone()).await, LIMIT).await.expect_err(what);
            let command = client.command(&answering(body.clone()).await, &fence(), LIMIT).await.expect_err(what);
            let question = Question { member: Member::default() };
            let verdict = client.testify(&answering(body.clone()).await, &question, LIMIT).await.expect_err(what);
            for error in [state, command, verdict] {
                assert!(matches!(error, Error::BadAnswer { .. }), "{what}: {error}");
                assert!(!error.is_definite(), "{what}");
                assert!(error.to_string().len() < 1000, "{what}: the answer is quoted in part only");
            }
        }
    }

    #[tokio::test]
    async fn a_stream_names_damaged_lines_and_ends_with_its_connection() {
        let client = Client::new(None);
        for (what, body) in damaged() {
            let mut stream = Box::pin(client.watch(&answering(body).await).await.unwrap());
            let first = tokio::time::timeout(LIMIT, stream.next()).await.expect(what).expect(what);
            assert!(matches!(first, Err(Error::BadAnswer { .. })), "{what}: {first:?}");
            let rest = tokio::time::timeout(LIMIT, async { while stream.next().await.is_some() {} }).await;
            assert!(rest.is_ok(), "{what}: the stream does not end");
        }
    }

    #[tokio::test]
    async fn nobody_there_is_definite_and_silence_is_not() {
        let client = Client::new(None);
        // Bound and not listening: the port stays ours and refuses.
        let gone = tokio::net::TcpSocket::new_v4().unwrap();
        gone.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = Address { host: "127.0.0.1".into(), port: gone.local_addr().unwrap().port() };
        let error = client.command(&address, &fence(), LIMIT).await.expect_err("nobody listens");
        assert!(matches!(error, Error::Unreachable { .. }) && error.is_definite(), "{error}");
        let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address { host: "127.0.0.1".into(), port: mute.local_addr().unwrap().port() };
        let error = client.command(&address, &fence(), Duration::from_millis(300)).await.expect_err("nobody answers");
        assert!(matches!(error, Error::NoAnswer { .. }) && !error.is_definite(), "{error}");
    }
}
