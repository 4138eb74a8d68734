//! Gives a master its replication backlog before any replica comes.
//!
//! Without one a master counts no writes, and takes a new replid when its first replica attaches: the history noted at its promotion would be
//! none. A backlog begins with the first request for a full sync, so the agent makes one and hangs up at the first word of the answer; the
//! server gives the copy up.

use std::io;
use std::path::Path;
use std::time::Duration;

use redis::FromRedisValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::redis::conf::ADMIN;

/// Longest wait for the whole conversation.
const LIMIT: Duration = Duration::from_secs(4);
/// No answer to one of these commands is longer.
const MAX_REPLY: usize = 512;

/// Whether there is one, by the section `replication` of `INFO`.
pub(crate) fn has_begun(replication: Option<&redis::Value>) -> bool {
    let text = replication.and_then(|value| String::from_redis_value_ref(value).ok());
    text.is_some_and(|text| text.lines().any(|line| line.trim_end() == "repl_backlog_active:1"))
}

/// Makes it begin.
pub(crate) async fn begin(socket: &Path, password: &str) -> io::Result<()> {
    let limited = tokio::time::timeout(LIMIT, converse(socket, password)).await;
    limited.unwrap_or_else(|_| Err(io::Error::other(format!("no answer to PSYNC within {LIMIT:?}"))))
}

async fn converse(socket: &Path, password: &str) -> io::Result<()> {
    let mut stream = UnixStream::connect(socket).await?;
    expect(&mut stream, &format!("AUTH {ADMIN} {password}"), "+OK").await?;
    expect(&mut stream, "REPLCONF capa eof", "+OK").await?;
    // An empty copy where the server knows how (7.0 and later): else an error, which does not matter.
    stream.write_all(b"REPLCONF rdb-filter-only \"\"\r\n").await?;
    line(&mut stream).await?;
    expect(&mut stream, "PSYNC ? -1", "+FULLRESYNC").await
}

async fn expect(stream: &mut UnixStream, command: &str, answer: &str) -> io::Result<()> {
    stream.write_all(format!("{command}\r\n").as_bytes()).await?;
    let line = line(stream).await?;
    let verb = command.split(' ').next().unwrap_or_default();
    if line.starts_with(answer) { Ok(()) } else { Err(io::Error::other(format!("redis answered {line:?} to {verb}"))) }
}

/// One line; the empty ones that a server sends to keep a connection alive are skipped.
async fn line(stream: &mut UnixStream) -> io::Result<String> {
    let mut line = Vec::new();
    while line.len() < MAX_REPLY {
        match stream.read_u8().await? {
            b'\n' if line.iter().all(|b| *b == b'\r') => line.clear(),
            b'\n' => break,
            byte => line.push(byte),
        }
    }
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}
