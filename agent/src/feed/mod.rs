//! A server of ours is given a dump by a master that is none: by this agent, on the loopback, once.
//!
//! The server connects as a replica does. It must know a credential made for this one connection, and behind it the door is closed. It gets the position, the
//! length, and the bytes as they come; a pause is a pause, for nothing may stand between them. What does not come whole is never whole in the server
//! either: a load that is cut leaves it empty.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::api::Position;

mod greeting;

use greeting::Greeting;

/// Longest greeting.
const GREETING_TIMEOUT: Duration = Duration::from_secs(10);
/// Callers that are listened to at the same time.
const MAX_CALLERS: usize = 8;
/// How often a server that waits for the beginning is told to go on waiting.
const PATIENCE_EVERY: Duration = Duration::from_secs(1);
/// Longest time that a server may take for one piece.
const PIECE_TIMEOUT: Duration = Duration::from_secs(300);

/// The place where one server is waited for.
pub(crate) struct Door {
    listener: TcpListener,
    /// Where it listens, on the loopback.
    pub port: u16,
    pub user: String,
    pub password: String,
}

impl Door {
    /// Opens it.
    pub async fn open() -> std::io::Result<Door> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        Ok(Door { listener, port, user: "feed".into(), password: Uuid::new_v4().simple().to_string() })
    }

    /// Waits for the server that knows the credential, and closes the door: nobody comes twice.
    pub async fn guest(self, limit: Duration) -> Result<Guest, String> {
        let mut callers = JoinSet::new();
        let mut over = std::pin::pin!(tokio::time::sleep(limit));
        let mut last = "nobody came".to_owned();
        loop {
            tokio::select! {
                Ok((caller, _)) = self.listener.accept(), if callers.len() < MAX_CALLERS => {
                    callers.spawn(greet(caller, Greeting::new(&self.user, &self.password)));
                }
                Some(done) = callers.join_next() => match done {
                    Ok(Ok(caller)) => return Ok(Guest::new(caller)),
                    Ok(Err(why)) => last = why,
                    Err(error) => last = error.to_string(),
                },
                () = &mut over => return Err(format!("the server did not ask for its copy within {limit:?}: {last}")),
            }
        }
    }
}

/// Answers a caller until it asks for a copy.
async fn greet(mut caller: TcpStream, greeting: Greeting) -> Result<TcpStream, String> {
    match tokio::time::timeout(GREETING_TIMEOUT, converse(&mut caller, greeting)).await {
        Ok(Ok(())) => Ok(caller),
        Ok(Err(why)) => Err(why),
        Err(_) => Err(format!("a caller did not come to its point within {GREETING_TIMEOUT:?}")),
    }
}

async fn converse(caller: &mut TcpStream, mut greeting: Greeting) -> Result<(), String> {
    let broke = |error: std::io::Error| format!("a caller hung up: {error}");
    let mut buffer = vec![0; 4096];
    loop {
        let n = caller.read(&mut buffer).await.map_err(broke)?;
        if n == 0 {
            return Err("a caller hung up".into());
        }
        match greeting.feed(&buffer[..n]) {
            Ok(answers) => {
                caller.write_all(&answers.bytes).await.map_err(broke)?;
                if answers.asks {
                    return Ok(());
                }
            }
            Err(error) => {
                let _ = caller.write_all(b"-NOPERM this is not for you\r\n").await;
                return Err(format!("a caller was sent away: {error}"));
            }
        }
    }
}

/// The server, which has asked for a copy. The link stands as long as this is kept.
pub(crate) struct Guest {
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
}

impl Guest {
    fn new(stream: TcpStream) -> Guest {
        let (from, to) = stream.into_split();
        Guest { from, to }
    }

    /// Gives it a dump of `bytes` bytes that stands at `position`. Waits for ever for the next piece: whoever makes them knows when there is none.
    pub async fn give(&mut self, position: &Position, bytes: u64, mut pieces: mpsc::Receiver<Bytes>) -> Result<(), String> {
        let Guest { from, to } = self;
        let giving = async {
            let begin = format!("+FULLRESYNC {} {}\r\n", position.replid, position.offset);
            send(to, begin.as_bytes()).await?;
            let mut piece = first(to, &mut pieces).await?;
            send(to, format!("${bytes}\r\n").as_bytes()).await?;
            let mut left = bytes;
            loop {
                send(to, &piece).await?;
                left = left.saturating_sub(piece.len() as u64);
                if left == 0 {
                    return Ok(());
                }
                piece = next(&mut pieces).await;
            }
        };
        tokio::select! {
            given = giving => given,
            why = listened(from) => Err(why),
        }
    }

    /// Listens to the server until it hangs up; why it did.
    pub async fn hangs_up(&mut self) -> String {
        listened(&mut self.from).await
    }
}

/// The first piece; the server is told to wait for it.
async fn first(to: &mut OwnedWriteHalf, pieces: &mut mpsc::Receiver<Bytes>) -> Result<Bytes, String> {
    loop {
        match tokio::time::timeout(PATIENCE_EVERY, next(pieces)).await {
            Ok(piece) => return Ok(piece),
            Err(_) => send(to, b"\n").await?,
        }
    }
}

async fn next(pieces: &mut mpsc::Receiver<Bytes>) -> Bytes {
    match pieces.recv().await {
        Some(piece) => piece,
        // Whoever makes them has the reason.
        None => std::future::pending().await,
    }
}

async fn send(to: &mut OwnedWriteHalf, bytes: &[u8]) -> Result<(), String> {
    match tokio::time::timeout(PIECE_TIMEOUT, to.write_all(bytes)).await {
        Ok(sent) => sent.map_err(|error| format!("the server hung up: {error}")),
        Err(_) => Err(format!("the server took nothing for {PIECE_TIMEOUT:?}")),
    }
}

/// Reads what the server says on the way (line feeds, acknowledgements), which is of no interest, until its end.
async fn listened(from: &mut OwnedReadHalf) -> String {
    let mut buffer = vec![0; 4096];
    loop {
        match from.read(&mut buffer).await {
            Ok(0) => return "the server hung up".into(),
            Ok(_) => {}
            Err(error) => return format!("the server hung up: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn caller(door: &Door, words: &str) -> TcpStream {
        let mut stream = TcpStream::connect(("127.0.0.1", door.port)).await.unwrap();
        stream.write_all(words.as_bytes()).await.unwrap();
        stream
    }

    /// One that knows the credential, and asks for a copy.
    async fn replica(door: &Door) -> TcpStream {
        let auth = format!("*3\r\n$4\r\nAUTH\r\n$4\r\nfeed\r\n$32\r\n{}\r\n", door.password);
        caller(door, &format!("{auth}*1\r\n$5\r\nPSYNC\r\n")).await
    }

    #[tokio::test]
    async fn a_stranger_is_sent_away_and_nobody_comes_is_told() {
        let door = Door::open().await.unwrap();
        let mut stranger = caller(&door, "*3\r\n$5\r\nPSYNC\r\n$1\r\n?\r\n$2\r\n-1\r\n").await;
        let _silent = caller(&door, "").await;
        let why = door.guest(Duration::from_millis(300)).await.err().unwrap();
        assert!(why.contains("a caller was sent away: it does not know the credential"), "{why}");
        let mut answer = String::new();
        stranger.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("-NOPERM"), "{answer}");
    }

    #[tokio::test]
    async fn the_guest_gets_position_length_and_bytes_and_the_door_is_shut() {
        let door = Door::open().await.unwrap();
        let (port, mut replica) = (door.port, replica(&door).await);
        let mut guest = door.guest(GREETING_TIMEOUT).await.unwrap_or_else(|why| panic!("{why}"));
        assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err(), "nobody comes twice");
        let (pieces, taken) = mpsc::channel(1);
        let position = Position { replid: "a".repeat(40), offset: 7 };
        let give = guest.give(&position, 6, taken);
        let make = async {
            // Whoever is late has the server wait, and says nothing in the middle.
            tokio::time::sleep(PATIENCE_EVERY * 3 / 2).await;
            pieces.send(Bytes::from_static(b"REDIS")).await.unwrap();
            pieces.send(Bytes::from_static(b"!")).await.unwrap();
        };
        let (given, ()) = tokio::join!(give, make);
        given.unwrap();
        drop(guest);
        let mut got = String::new();
        replica.read_to_string(&mut got).await.unwrap();
        let begin = format!("+OK\r\n+FULLRESYNC {} 7\r\n\n", "a".repeat(40));
        let between = got.strip_prefix(&begin).and_then(|rest| rest.strip_suffix("$6\r\nREDIS!"));
        assert!(between.is_some_and(|between| between.bytes().all(|b| b == b'\n')), "{got:?}");
    }

    #[tokio::test]
    async fn a_guest_that_goes_is_noticed_though_nothing_is_given() {
        let door = Door::open().await.unwrap();
        let replica = replica(&door).await;
        let mut guest = door.guest(GREETING_TIMEOUT).await.unwrap_or_else(|why| panic!("{why}"));
        let (_pieces, taken) = mpsc::channel(1);
        let position = Position { replid: "a".repeat(40), offset: 7 };
        drop(replica);
        let why = guest.give(&position, 6, taken).await.unwrap_err();
        assert!(why.contains("hung up"), "{why}");
    }
}
