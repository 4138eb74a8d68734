//! What writers log, and the final data it is held against.
//!
//! All times are measured on CLOCK_MONOTONIC (`Instant`) from the log's `origin`, so that writers, faults and reasoning share one clock that no jump of
//! the wall clock touches.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use redis::aio::MultiplexedConnection;

use super::judge::{About, judge};
use super::verdict::Verdict;

/// Elements read back per command.
const CHUNK: isize = 20_000;

/// One run of one server, as a client knows it: read on the very connection that was written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// `host:port` the client connected to.
    pub address: String,
    /// Redis' own name for this run of the process.
    pub run_id: String,
}

/// One acknowledged write: the value `n` was appended to the writer's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Index of the writer.
    pub writer: usize,
    /// The value, unique and growing per writer.
    pub n: u64,
    /// Length of the list after the write, from the reply: what this server held of this writer.
    pub length: u64,
    /// Index of the server in [`Log::servers`].
    pub server: usize,
    /// Just before the write was sent. It was executed later than this.
    pub sent: Duration,
    /// Just after the reply was read. It was executed earlier than this.
    pub acked: Duration,
    /// `WAIT` answered with at least as many replicas as this writer asks for.
    pub confirmed: bool,
}

/// A write that was sent and not acknowledged. Its number is never used again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Index of the writer.
    pub writer: usize,
    /// The value.
    pub n: u64,
    /// Index of the server in [`Log::servers`].
    pub server: usize,
    /// When it was sent.
    pub sent: Duration,
    /// When that was known.
    pub at: Duration,
    /// The server's error code (`READONLY`, `NOREPLICAS`, …): certainly not executed. Absent: no answer, perhaps executed.
    pub refused: Option<String>,
}

/// Everything that the writers of one group saw.
#[derive(Clone, Debug)]
pub struct Log {
    /// Zero of all times.
    pub origin: Instant,
    /// The key of each writer's list.
    pub keys: Vec<String>,
    /// Runs of servers that were written to.
    pub servers: Vec<Server>,
    /// Acknowledged writes, in the order in which their acknowledgements arrived.
    pub acks: Vec<Ack>,
    /// Writes without one.
    pub failures: Vec<Failure>,
    /// How often no connection could be made.
    pub unreached: u64,
}

/// The writers' lists as one server holds them, in the order of [`Log::keys`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Data(pub Vec<Vec<u64>>);

impl Log {
    /// A moment in the log's time; zero for what was before its beginning.
    pub fn time(&self, moment: Instant) -> Duration {
        moment.saturating_duration_since(self.origin)
    }

    /// Both logs as one, for writers in different places.
    pub fn and(mut self, other: Log) -> Log {
        // Times are told from the earlier beginning, so that none is before it.
        let origin = self.origin.min(other.origin);
        let (mine, its) = (self.origin - origin, other.origin - origin);
        let writers = self.keys.len();
        let server = |servers: &mut Vec<Server>, server: &Server| {
            let known = servers.iter().position(|known| known == server);
            known.unwrap_or_else(|| {
                servers.push(server.clone());
                servers.len() - 1
            })
        };
        let servers: Vec<usize> = other.servers.iter().map(|its| server(&mut self.servers, its)).collect();
        for ack in &mut self.acks {
            (ack.sent, ack.acked) = (ack.sent + mine, ack.acked + mine);
        }
        for failure in &mut self.failures {
            (failure.sent, failure.at) = (failure.sent + mine, failure.at + mine);
        }
        self.acks.extend(other.acks.into_iter().map(|ack| Ack {
            writer: ack.writer + writers,
            server: servers[ack.server],
            sent: ack.sent + its,
            acked: ack.acked + its,
            ..ack
        }));
        self.failures.extend(other.failures.into_iter().map(|failure| Failure {
            writer: failure.writer + writers,
            server: servers[failure.server],
            sent: failure.sent + its,
            at: failure.at + its,
            ..failure
        }));
        self.acks.sort_by_key(|ack| ack.acked);
        self.keys.extend(other.keys);
        self.unreached += other.unreached;
        self.origin = origin;
        self
    }

    /// Reads every writer's list from the server behind `connection`.
    pub async fn read(&self, connection: &mut MultiplexedConnection) -> Result<Data> {
        let mut data = Data::default();
        for key in &self.keys {
            let mut list: Vec<u64> = Vec::new();
            loop {
                let from = list.len() as isize;
                let mut range = redis::cmd("LRANGE");
                range.arg(key).arg(from).arg(from + CHUNK - 1);
                let chunk: Vec<u64> = range.query_async(connection).await.with_context(|| format!("reading {key} back"))?;
                let last = (chunk.len() as isize) < CHUNK;
                list.extend(chunk);
                if last {
                    break;
                }
            }
            data.0.push(list);
        }
        Ok(data)
    }

    /// The verdict over what the server behind `connection` holds, after a fault at `fault`.
    pub async fn judged(&self, connection: &mut MultiplexedConnection, fault: Instant) -> Result<Verdict> {
        let about = About { fault: Some(self.time(fault)), ..About::default() };
        Ok(judge(self, &self.read(connection).await?, &about))
    }

    /// As [`Log::judged`], printed for the reader of the test's output.
    pub async fn verdict(&self, connection: &mut MultiplexedConnection, fault: Instant) -> Result<Verdict> {
        let verdict = self.judged(connection, fault).await?;
        println!("{verdict}");
        Ok(verdict)
    }

    /// The acknowledged writes that the server behind `connection` does not hold.
    pub async fn missing(&self, connection: &mut MultiplexedConnection) -> Result<Vec<Ack>> {
        Ok(judge(self, &self.read(connection).await?, &About::default()).lost)
    }

    /// The longest time between two acknowledgements.
    pub fn longest_pause(&self) -> Duration {
        self.pauses().map(|(from, to)| to - from).max().unwrap_or_default()
    }

    /// The longest time between two acknowledgements of which the second came after `moment`; absent when none came.
    pub fn longest_pause_after(&self, moment: Instant) -> Option<Duration> {
        let moment = self.time(moment);
        self.pauses().filter(|(_, to)| *to > moment).map(|(from, to)| to - from).max()
    }

    /// Times without any acknowledgement, from one to the next.
    pub(super) fn pauses(&self) -> impl Iterator<Item = (Duration, Duration)> {
        let mut times: Vec<Duration> = self.acks.iter().map(|ack| ack.acked).collect();
        times.sort_unstable();
        let later = times.iter().skip(1).copied().collect::<Vec<_>>();
        times.into_iter().zip(later)
    }
}
