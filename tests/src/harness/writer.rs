//! A client that writes without pause and keeps a log of every acknowledged write: what a failover may not lose is checked against it.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use redis::aio::MultiplexedConnection;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::redis as server;
use super::wait;

/// Pause between two writes: some hundred writes a second, so that logs stay small and the machine free.
const PACE: Duration = Duration::from_millis(3);
/// Longest wait for one acknowledgement; afterwards the write counts as not acknowledged and the master is looked up again.
const ANSWER: Duration = Duration::from_secs(1);

/// One acknowledged write: key `<name>:<n>` was set to `n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Number of the write.
    pub n: u64,
    /// When the acknowledgement arrived.
    pub at: Instant,
}

/// A writer at work.
#[derive(Debug)]
pub struct Writer {
    acks: Arc<Mutex<Vec<Ack>>>,
    name: String,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Writer {
    /// Starts to write keys `<name>:0`, `<name>:1`, … to whichever server `find` names (`host:port`), asked again after every failure.
    pub fn start<F, Fut>(name: &str, find: F) -> Writer
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<String>> + Send + 'static,
    {
        let acks = Arc::new(Mutex::new(Vec::new()));
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(work(name.to_owned(), find, acks.clone(), stopped));
        Writer { acks, name: name.into(), stop, task }
    }

    /// How many writes have been acknowledged.
    pub fn count(&self) -> usize {
        self.acks.lock().expect("nobody panics while logging").len()
    }

    /// Waits until `more` further writes have been acknowledged.
    pub async fn progress(&self, more: usize, limit: Duration) -> Result<()> {
        let goal = self.count() + more;
        wait::until_now(&format!("{more} more writes are acknowledged"), limit, || match self.count() {
            count if count >= goal => Ok(()),
            count => Err(format!("{} missing", goal - count)),
        })
        .await
    }

    /// Ends it and hands out its log.
    pub async fn stop(self) -> Result<Log> {
        self.stop.send(true).ok();
        self.task.await.context("the writer panicked")?;
        let acks = self.acks.lock().expect("nobody panics while logging").clone();
        Ok(Log { name: self.name, acks })
    }
}

async fn work<F, Fut>(name: String, find: F, acks: Arc<Mutex<Vec<Ack>>>, stopped: watch::Receiver<bool>)
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<String>>,
{
    let mut connection: Option<MultiplexedConnection> = None;
    let mut n = 0;
    while !*stopped.borrow() {
        if connection.is_none() {
            connection = match tokio::time::timeout(ANSWER, async { server::connect(&find().await?).await }).await {
                Ok(Ok(connection)) => Some(connection),
                _ => None,
            };
        }
        if let Some(open) = &mut connection {
            // A number is used once: a write whose fate is unknown is never repeated under its key.
            n += 1;
            let mut set = redis::cmd("SET");
            set.arg(format!("{name}:{n}")).arg(n);
            match tokio::time::timeout(ANSWER, set.query_async::<()>(open)).await {
                Ok(Ok(())) => acks.lock().expect("nobody panics while logging").push(Ack { n, at: Instant::now() }),
                _ => connection = None,
            }
        }
        tokio::time::sleep(PACE).await;
    }
}

/// Every acknowledged write of a writer, in order.
#[derive(Clone, Debug)]
pub struct Log {
    name: String,
    /// The acknowledgements.
    pub acks: Vec<Ack>,
}

impl Log {
    /// The acknowledged writes that the server behind `connection` does not hold.
    pub async fn missing(&self, connection: &mut MultiplexedConnection) -> Result<Vec<Ack>> {
        let mut missing = Vec::new();
        for chunk in self.acks.chunks(500) {
            let mut get = redis::cmd("MGET");
            chunk.iter().for_each(|ack| {
                get.arg(format!("{}:{}", self.name, ack.n));
            });
            let values: Vec<Option<u64>> = get.query_async(connection).await.context("reading the writes back")?;
            missing.extend(chunk.iter().zip(values).filter(|(ack, value)| *value != Some(ack.n)).map(|(ack, _)| *ack));
        }
        Ok(missing)
    }

    /// Fails when a write acknowledged before `moment` is not there. Returns how many later ones are gone.
    pub async fn check_before(&self, moment: Instant, connection: &mut MultiplexedConnection) -> Result<usize> {
        let missing = self.missing(connection).await?;
        let early: Vec<&Ack> = missing.iter().filter(|ack| ack.at < moment).collect();
        if let Some(first) = early.first() {
            let age = moment.duration_since(first.at).as_secs_f64();
            bail!(
                "{} of {} acknowledged writes are gone, the earliest {age:.2} s before the limit",
                early.len(),
                self.acks.len()
            );
        }
        Ok(missing.len())
    }

    /// The longest time between two acknowledgements.
    pub fn longest_pause(&self) -> Duration {
        self.acks.windows(2).map(|pair| pair[1].at - pair[0].at).max().unwrap_or_default()
    }

    /// The longest time between two acknowledgements of which the second came after `moment`; absent when none came.
    pub fn longest_pause_after(&self, moment: Instant) -> Option<Duration> {
        self.acks.windows(2).filter(|pair| pair[1].at > moment).map(|pair| pair[1].at - pair[0].at).max()
    }
}
