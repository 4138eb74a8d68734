//! Writers: clients that append growing numbers to lists of their own and log what came of each write.
//!
//! A group of writers lives on a thread of its own with its own runtime, so that the test's own work does not delay them, and, where asked, inside a
//! host's network namespace. A number is used once: a write whose fate is unknown is never repeated.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use redis::aio::MultiplexedConnection;

use super::door::{Door, Seeker};
use super::log::{Ack, Failure, Log, Server};
use crate::harness::{Host, redis as server, wait};

/// What a paced writer makes up for at once when it is late: the clock of the runtime is that coarse. Never the time of a pause.
const COARSE: Duration = Duration::from_millis(4);

/// What a group of writers does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Beginning of the keys: writer `i` appends to `<name>:<i>`.
    pub name: String,
    /// The doors, one writer for each, with the number of replicas that it waits for (`WAIT`) after each write; 0: it does not wait.
    pub writers: Vec<(Door, u32)>,
    /// Most writes per second and writer; absent: each as soon as the one before is answered.
    pub rate: Option<u32>,
    /// Longest wait for an answer. Afterwards the write counts as not answered, and the master is looked up again.
    pub answer: Duration,
    /// Where they live; absent: where the caller does.
    pub host: Option<Host>,
}

/// Writers at work. They end when this is dropped.
#[derive(Debug)]
pub struct Writers {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<()>>>,
}

#[derive(Debug)]
struct Shared {
    log: Mutex<Log>,
    stopped: AtomicBool,
}

impl Shared {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writers {
    /// Starts them.
    pub fn start(plan: Plan) -> Writers {
        let log = Log {
            origin: Instant::now(),
            keys: (0..plan.writers.len()).map(|i| format!("{}:{i}", plan.name)).collect(),
            servers: Vec::new(),
            acks: Vec::new(),
            failures: Vec::new(),
            unreached: 0,
        };
        let shared = Arc::new(Shared { log: Mutex::new(log), stopped: AtomicBool::new(false) });
        let mine = shared.clone();
        let thread = std::thread::Builder::new().name(plan.name.clone()).spawn(move || live(plan, mine));
        Writers { shared, thread: Some(thread.expect("a thread can be started")) }
    }

    /// How many writes have been acknowledged.
    pub fn count(&self) -> usize {
        self.shared.log().acks.len()
    }

    /// Waits until `more` further writes have been acknowledged.
    pub async fn progress(&self, more: usize, limit: Duration) -> Result<()> {
        let goal = self.count() + more;
        wait::until_now(&format!("{more} more writes are acknowledged"), limit, || match self.count() {
            count if count >= goal => Ok(()),
            count => Err(format!("{} missing{}", goal - count, self.last_failure())),
        })
        .await
    }

    /// Waits until the server at `address` has acknowledged `more` further writes.
    pub async fn progress_at(&self, address: &str, more: usize, limit: Duration) -> Result<()> {
        let start = self.count();
        wait::until_now(&format!("{address} acknowledges {more} more writes"), limit, || {
            let log = self.shared.log();
            match log.acks[start..].iter().filter(|ack| log.servers[ack.server].address == address).count() {
                count if count >= more => Ok(()),
                count => Err(format!("{count} of them so far")),
            }
        })
        .await
    }

    /// Ends them, each after the answer to its last write, and hands out their log.
    pub async fn stop(mut self) -> Result<Log> {
        self.shared.stopped.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let ended = tokio::task::spawn_blocking(move || thread.join()).await?;
            ended.map_err(|_| anyhow::anyhow!("a writer panicked"))??;
        }
        let log = self.shared.log().clone();
        Ok(log)
    }

    fn last_failure(&self) -> String {
        let log = self.shared.log();
        let code = |f: &Failure| f.refused.clone().unwrap_or_else(|| "not answered".into());
        let last = log.failures.last().map(|f| format!(", last failure: {} by {}", code(f), log.servers[f.server].address));
        format!("{}, {} times no connection", last.unwrap_or_default(), log.unreached)
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
    }
}

fn live(plan: Plan, shared: Arc<Shared>) -> Result<()> {
    if let Some(host) = &plan.host {
        host.enter();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("a runtime for writers")?;
    runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for (index, (door, acks)) in plan.writers.iter().enumerate() {
            let seeker = door.open()?;
            let key = shared.log().keys[index].clone();
            let writer =
                Writer { index, key, acks: *acks, seeker, answer: plan.answer, rate: plan.rate, shared: shared.clone(), n: 0 };
            tasks.spawn(writer.work());
        }
        while let Some(ended) = tasks.join_next().await {
            ended.context("a writer panicked")?;
        }
        Ok(())
    })
}

struct Writer {
    index: usize,
    key: String,
    acks: u32,
    seeker: Seeker,
    answer: Duration,
    rate: Option<u32>,
    shared: Arc<Shared>,
    n: u64,
}

/// A connection, and the run of the server at its other end.
struct Open {
    connection: MultiplexedConnection,
    server: usize,
}

impl Writer {
    async fn work(mut self) {
        let mut open: Option<Open> = None;
        let mut due = Instant::now();
        while !self.shared.stopped.load(Ordering::Relaxed) {
            open = match open {
                Some(open) => {
                    if let Some(rate) = self.rate {
                        tokio::time::sleep_until(due.into()).await;
                        due = (due + Duration::from_secs(1) / rate.max(1)).max(Instant::now() - COARSE);
                    }
                    self.write(open).await
                }
                None => self.connect().await,
            };
            if open.is_none() {
                self.seeker.pause().await;
            }
        }
    }

    /// Asks the door and connects; none when there is nobody.
    async fn connect(&mut self) -> Option<Open> {
        let (seeker, shared) = (&mut self.seeker, &self.shared);
        let attempt = async {
            let address = seeker.ask().await?;
            tokio::select! {
                opened = Writer::open(address) => opened,
                () = seeker.moved() => anyhow::bail!("another master is named"),
            }
        };
        let Ok(Ok((connection, server))) = tokio::time::timeout(self.answer, attempt).await else {
            shared.log().unreached += 1;
            return None;
        };
        let mut log = shared.log();
        let known = log.servers.iter().position(|known| *known == server);
        let server = known.unwrap_or_else(|| {
            log.servers.push(server);
            log.servers.len() - 1
        });
        Some(Open { connection, server })
    }

    /// A connection, and the run of the server at its other end.
    async fn open(address: String) -> Result<(MultiplexedConnection, Server)> {
        let mut connection = server::connect(&address).await?;
        let info: String = redis::cmd("INFO").arg("server").query_async(&mut connection).await?;
        let run_id = info.lines().find_map(|line| line.strip_prefix("run_id:")).context("no run id")?.trim().to_owned();
        Ok((connection, Server { address, run_id }))
    }

    /// One write, logged. Gives the connection back when it may be used again.
    async fn write(&mut self, mut open: Open) -> Option<Open> {
        self.n += 1;
        let (n, writer, server) = (self.n, self.index, open.server);
        let mut push = redis::cmd("RPUSH");
        push.arg(&self.key).arg(n);
        let start = Instant::now();
        let answer = async {
            tokio::select! {
                answer = push.query_async::<u64>(&mut open.connection) => Some(answer),
                () = self.seeker.moved() => None,
            }
        };
        let outcome = tokio::time::timeout(self.answer, answer).await.ok().flatten();
        let end = Instant::now();
        let place = {
            let mut log = self.shared.log();
            let (sent, at) = (log.time(start), log.time(end));
            let refused = match outcome {
                Some(Ok(length)) => {
                    log.acks.push(Ack { writer, n, length, server, sent, acked: at, confirmed: false });
                    None
                }
                Some(Err(e)) => Some(e.code().map(str::to_owned)),
                None => Some(None),
            };
            if let Some(refused) = refused {
                log.failures.push(Failure { writer, n, server, sent, at, refused });
                return None;
            }
            log.acks.len() - 1
        };
        match self.acks {
            0 => Some(open),
            acks => self.confirm(open, acks, place).await,
        }
    }

    /// `WAIT`, and its outcome noted at the acknowledgement at `place`.
    async fn confirm(&self, mut open: Open, acks: u32, place: usize) -> Option<Open> {
        let mut ask = redis::cmd("WAIT");
        ask.arg(acks).arg(self.answer.as_millis() as u64 / 2);
        let outcome = tokio::time::timeout(self.answer, ask.query_async::<u32>(&mut open.connection)).await;
        let Ok(Ok(count)) = outcome else {
            return None;
        };
        self.shared.log().acks[place].confirmed = count >= acks;
        Some(open)
    }
}
