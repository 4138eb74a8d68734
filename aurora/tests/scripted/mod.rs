//! A scheduler that answers as a test tells it, over real connections: one request each, answered by the next line of its
//! script. What was asked is kept.

use std::sync::{Arc, Mutex};

use aurora::types::{Response, ResponseCode, ResponseDetail, ServerInfo};
use aurora::wire::{self, ApplicationException, Call, Reply};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// One answer.
#[derive(Clone, Debug)]
pub enum Answer {
    /// A thrift response.
    Response(Response),
    /// A thrift exception.
    Exception(ApplicationException),
    /// Any HTTP status, header lines and body.
    Http(u16, String, Vec<u8>),
    /// None: the connection closes once the request has been read.
    Lost,
    /// None: the connection stays open.
    Hang,
    /// Headers and half of the body, then the connection stays open.
    Half,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The request line and headers, in lower case.
    pub head: String,
    /// The call.
    pub call: Call,
}

/// The scheduler; its task ends with the test's runtime.
pub struct Scheduler {
    /// Where it listens.
    pub url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Scheduler {
    /// Starts a scheduler with a script; the last answer is repeated for ever.
    pub async fn start(script: impl IntoIterator<Item = Answer>) -> Scheduler {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        tokio::spawn(serve(listener, script.into_iter().collect(), Arc::clone(&asked)));
        Scheduler { url, asked }
    }

    /// What it was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("no panic while locked").clone()
    }
}

/// A response with this code and explanation.
pub fn response(code: ResponseCode, message: &str) -> Response {
    Response {
        response_code: code,
        result: None,
        server_info: Some(ServerInfo { cluster_name: "test".to_owned(), stats_url_prefix: None }),
        details: vec![ResponseDetail { message: Some(message.to_owned()).filter(|message| !message.is_empty()) }],
    }
}

async fn serve(listener: TcpListener, script: Vec<Answer>, asked: Arc<Mutex<Vec<Asked>>>) {
    for turn in 0.. {
        let Ok((stream, _)) = listener.accept().await else { return };
        let answer = script[turn.min(script.len() - 1)].clone();
        tokio::spawn(converse(stream, answer, Arc::clone(&asked)));
    }
}

async fn converse(mut stream: TcpStream, answer: Answer, asked: Arc<Mutex<Vec<Asked>>>) {
    let (head, body) = read_request(&mut stream).await;
    let (seqid, call) = wire::decode_call(&body).expect("the client writes calls");
    let method = call.method();
    asked.lock().expect("no panic while locked").push(Asked { head, call });
    let binary = format!("Content-Type: {}\r\n", wire::CONTENT_TYPE);
    let thrift = |reply: Reply| wire::encode_reply(method, seqid, &reply).expect("known kinds only");
    let (status, headers, body) = match answer {
        Answer::Response(response) => (200, binary, thrift(Reply::Response(response))),
        Answer::Exception(exception) => (200, binary, thrift(Reply::Exception(exception))),
        Answer::Http(status, headers, body) => (status, headers, body),
        Answer::Lost => return,
        Answer::Hang => return std::future::pending().await,
        Answer::Half => {
            let half = format!("HTTP/1.1 200 OK\r\n{binary}Content-Length: 100\r\n\r\nhalf");
            stream.write_all(half.as_bytes()).await.expect("the client reads");
            return std::future::pending().await;
        }
    };
    let head = format!("HTTP/1.1 {status} Scripted\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    // A client that has seen enough may be gone.
    let _ = stream.write_all(head.as_bytes()).await;
    let _ = stream.write_all(&body).await;
}

/// The head in lower case, and the body.
async fn read_request(stream: &mut TcpStream) -> (String, Vec<u8>) {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.and_then(|length| length.parse().ok()).expect("a body of known length");
            if bytes.len() >= end + 4 + length {
                return (head, bytes.split_off(end + 4));
            }
        }
        assert_ne!(stream.read_buf(&mut bytes).await.expect("a whole request"), 0, "request cut short");
    }
}
