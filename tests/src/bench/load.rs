//! The clients of the benchmark: writers that keep a log of every acknowledged write. They live on a thread and a runtime of their own, on any host.
//!
//! A number is used once: a write whose fate is unknown is never repeated under its key, so a key that is there says that this very write was kept.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::door::Door;
use crate::harness::{Host, wait};

/// Writers of one load.
pub const WRITERS: usize = 4;
/// Time between two writes of one of them: together about 3,000 a second.
pub const PACE: Duration = Duration::from_micros(1333);
/// Longest wait for an acknowledgement; afterwards the connection is given up.
const ANSWER: Duration = Duration::from_secs(1);
/// Pause before a server that could not be reached is tried again.
const AGAIN: Duration = Duration::from_millis(1);

/// One acknowledged write.
#[derive(Clone, Debug)]
pub struct Ack {
    /// Its number: key `<writer>:<n>` holds `n`.
    pub n: u64,
    /// When the acknowledgement arrived.
    pub at: Instant,
    /// Who acknowledged it.
    pub by: Arc<str>,
}

/// The log of one writer, in order.
#[derive(Clone, Debug)]
pub struct Log {
    /// Beginning of its keys.
    pub writer: String,
    /// The acknowledged writes.
    pub acks: Vec<Ack>,
}

/// Whom a writer writes to.
#[derive(Clone, Debug)]
pub enum Way {
    /// Whom the door names.
    Door(Door),
    /// One server whatever happens, and without giving up on an answer: a client that never hears of a change.
    Only(String),
}

impl Way {
    fn server(&self) -> Option<Arc<str>> {
        match self {
            Way::Door(door) => door.server(),
            Way::Only(server) => Some(server.as_str().into()),
        }
    }

    /// Returns once the door names somebody else than `server`.
    async fn changed(&self, server: &str) {
        match self {
            Way::Door(door) => door.changed(server).await,
            Way::Only(_) => std::future::pending().await,
        }
    }

    fn lost(&self, server: &str) {
        if let Way::Door(door) = self {
            door.lost(server);
        }
    }

    fn patience(&self) -> Duration {
        match self {
            Way::Door(_) => ANSWER,
            Way::Only(_) => Duration::from_secs(120),
        }
    }
}

/// Writers at work.
#[derive(Debug)]
pub struct Clients {
    logs: Vec<Arc<Mutex<Log>>>,
    stop: watch::Sender<bool>,
    thread: std::thread::JoinHandle<Result<()>>,
}

impl Clients {
    /// Starts `count` writers on `host`, each with `pace` between two writes; without pace the next write follows the answer.
    pub fn start(host: &Host, name: &str, count: usize, pace: Option<Duration>, way: Way) -> Result<Clients> {
        let (stop, stopped) = watch::channel(false);
        let log = |i| Arc::new(Mutex::new(Log { writer: format!("{name}-{i}"), acks: Vec::new() }));
        let logs: Vec<Arc<Mutex<Log>>> = (1..=count).map(log).collect();
        let (host, mine) = (host.clone(), logs.clone());
        let work = move || {
            host.inside(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(async {
                    let tasks: Vec<_> =
                        mine.into_iter().map(|log| tokio::spawn(write(log, pace, way.clone(), stopped.clone()))).collect();
                    for task in tasks {
                        task.await.context("a writer panicked")?;
                    }
                    Ok(())
                })
            })
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work).context("starting the clients")?;
        Ok(Clients { logs, stop, thread })
    }

    /// How many writes have been acknowledged.
    pub fn count(&self) -> usize {
        self.logs.iter().map(|log| log.lock().expect("nobody panics while logging").acks.len()).sum()
    }

    /// Whether the last write of one of them was acknowledged by another than `server`.
    pub fn elsewhere(&self, server: &str) -> bool {
        let last = |log: &Mutex<Log>| log.lock().expect("nobody panics while logging").acks.last().map(|ack| ack.by.clone());
        self.logs.iter().filter_map(|log| last(log)).any(|by| &*by != server)
    }

    /// Waits until `more` further writes have been acknowledged.
    pub async fn progress(&self, more: usize, limit: Duration) -> Result<()> {
        let goal = self.count() + more;
        wait::until_now(&format!("{more} more writes are acknowledged"), limit, || {
            let count = self.count();
            ensure!(count >= goal, "{} missing", goal - count);
            Ok(())
        })
        .await
    }

    /// Ends them and hands out their logs.
    pub async fn stop(self) -> Result<Vec<Log>> {
        self.stop.send(true).ok();
        let thread = self.thread;
        let ended = tokio::task::spawn_blocking(move || thread.join()).await.context("waiting for the clients")?;
        ended.map_err(|_| anyhow::anyhow!("the clients panicked"))??;
        Ok(self.logs.iter().map(|log| log.lock().expect("nobody panics while logging").clone()).collect())
    }
}

/// One writer, until it is stopped.
async fn write(log: Arc<Mutex<Log>>, pace: Option<Duration>, way: Way, mut stopped: watch::Receiver<bool>) {
    let name = log.lock().expect("nobody panics while logging").writer.clone();
    tokio::select! {
        _ = stopped.wait_for(|stop| *stop) => {}
        () = write_on(&name, &log, pace, &way) => {}
    }
}

async fn write_on(name: &str, log: &Mutex<Log>, pace: Option<Duration>, way: &Way) {
    let mut n = 0;
    let mut due = Instant::now();
    loop {
        let Some(server) = way.server() else {
            way.changed("").await;
            continue;
        };
        let connected = tokio::select! {
            connected = tokio::time::timeout(ANSWER, Link::open(&server)) => connected,
            () = way.changed(&server) => continue,
        };
        if let Ok(Ok(mut link)) = connected {
            loop {
                if let Some(pace) = pace {
                    // Kept on average; a pause is not made good by a burst.
                    let now = Instant::now();
                    due = (due + pace).max(now.checked_sub(pace).unwrap_or(now));
                    tokio::time::sleep_until(due.into()).await;
                }
                n += 1;
                let answer = tokio::select! {
                    answer = tokio::time::timeout(way.patience(), link.set(name, n)) => answer,
                    () = way.changed(&server) => break,
                };
                match answer {
                    Ok(Ok(())) => {
                        let ack = Ack { n, at: Instant::now(), by: server.clone() };
                        log.lock().expect("nobody panics while logging").acks.push(ack);
                    }
                    _ => break,
                }
            }
        }
        way.lost(&server);
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            () = way.changed(&server) => {}
        }
    }
}

/// A connection that can set a key, with next to nothing between the caller and the socket.
struct Link {
    stream: TcpStream,
    line: Vec<u8>,
}

impl Link {
    async fn open(server: &str) -> Result<Link> {
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        Ok(Link { stream, line: Vec::with_capacity(64) })
    }

    /// `SET <name>:<n> <n>`, as an inline command.
    async fn set(&mut self, name: &str, n: u64) -> Result<()> {
        self.stream.write_all(format!("SET {name}:{n} {n}\r\n").as_bytes()).await?;
        self.line.clear();
        while !self.line.ends_with(b"\n") {
            ensure!(self.stream.read_buf(&mut self.line).await? > 0, "the server closed the connection");
        }
        if self.line != b"+OK\r\n" {
            bail!("{}", String::from_utf8_lossy(&self.line).trim());
        }
        Ok(())
    }
}
