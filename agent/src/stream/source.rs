//! The server's side of a stream: connects like a replica that wants a copy and no more, and puts what comes into the spool.
//!
//! Invariant: nothing is ever acknowledged and `rdb-only` is asked for, so the server never counts this connection as a replica that holds
//! anything: neither `WAIT` nor `min-replicas-to-write` is satisfied by it. It hangs up after the last byte.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::framing::Framing;
use super::spool::Spool;
use crate::api::Position;
use crate::redis::conf::{ADMIN, BACKUP};

/// Longest wait for the answer to one word of the handshake.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time without a byte: a server that prepares a copy sends a line feed every few seconds.
const SILENCE: Duration = Duration::from_secs(60);
/// Longest preparation: a save that runs already is waited for.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(3600);
/// How often is looked whether anybody still wants it.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How much is read at once.
const READ_BYTES: usize = 256 << 10;
/// No answer of the handshake is longer.
const MAX_REPLY: usize = 512;

/// What became known of a copy on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// Where it stands: the server has begun.
    Began(Position),
    /// Its size, if the server tells it before.
    Size(u64),
}

/// Connects, authenticates and asks for a copy. Blocking.
pub(crate) fn ask(socket: &Path, password: &str) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    expect(&mut stream, &format!("AUTH {ADMIN} {password}"))?;
    expect(&mut stream, &format!("CLIENT SETNAME {BACKUP}"))?;
    expect(&mut stream, "REPLCONF listening-port 0")?;
    expect(&mut stream, &format!("REPLCONF ip-address {BACKUP}"))?;
    expect(&mut stream, "REPLCONF capa eof capa psync2")?;
    expect(&mut stream, "REPLCONF rdb-only 1")?;
    stream.write_all(b"PSYNC ? -1\r\n")?;
    stream.set_read_timeout(Some(LOOK_EVERY))?;
    Ok(stream)
}

fn expect(stream: &mut UnixStream, command: &str) -> io::Result<()> {
    stream.write_all(format!("{command}\r\n").as_bytes())?;
    let mut line = Vec::new();
    while line.len() < MAX_REPLY && line.last() != Some(&b'\n') {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        line.extend(byte);
    }
    let verb = command.split(' ').next().unwrap_or_default();
    match line.starts_with(b"+OK") {
        true => Ok(()),
        false => Err(io::Error::other(format!("redis answered {} to {verb}", line.trim_ascii().escape_ascii()))),
    }
}

/// Reads the copy to its end into the spool. Blocking; where it stands, or why it did not come whole.
pub(crate) fn copy(mut stream: impl Read, spool: &Spool, mut tell: impl FnMut(News)) -> Result<Position, String> {
    let (begun, mut heard) = (Instant::now(), Instant::now());
    let (mut framing, mut buffer) = (Framing::default(), vec![0; READ_BYTES]);
    let (mut told, mut sized) = (false, false);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Err("the server ended the connection before the end of the copy".into()),
            Ok(n) => {
                heard = Instant::now();
                let mut dump = Vec::with_capacity(n);
                framing.feed(&buffer[..n], &mut dump).map_err(|e| e.to_string())?;
                if let Some(position) = framing.position().filter(|_| !told) {
                    told = true;
                    tell(News::Began(position.clone()));
                }
                if let Some(total) = framing.total().filter(|_| !sized) {
                    sized = true;
                    tell(News::Size(total));
                }
                if !dump.is_empty() {
                    spool.push(Bytes::from(dump)).map_err(|e| e.to_string())?;
                }
            }
            Err(error) if is_pause(&error) => {}
            Err(error) => return Err(format!("the connection to the server broke: {error}")),
        }
        if framing.is_ended() {
            return framing.position().cloned().ok_or_else(|| "the copy has no position".into());
        }
        if spool.is_abandoned() {
            return Err("nobody takes it any more".into());
        }
        if heard.elapsed() > SILENCE {
            return Err(format!("nothing came from the server for {SILENCE:?}"));
        }
        if !framing.has_begun() && begun.elapsed() > PREPARE_TIMEOUT {
            return Err(format!("the server did not begin within {PREPARE_TIMEOUT:?}"));
        }
    }
}

fn is_pause(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}
