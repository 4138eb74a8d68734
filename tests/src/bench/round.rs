//! One round: writers at work, the fault, the end of its consequences, and the judgement over every acknowledged write.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use redis::aio::MultiplexedConnection;

use super::load::{Ack, Clients, Log, PACE, WRITERS, Way};
use super::subject::{Fault, Master, Struck, Subject};
use crate::harness::{process, redis as server, wait};

/// Writes before the fault.
const BEFORE: usize = 2000;
/// Writes after the new master's first.
const AFTER: usize = 2000;
/// Longest wait for a new master; stock Sentinel needs 31 s.
pub const LIMIT: Duration = Duration::from_secs(60);
/// How long a hung server or a cut off host stays so after the new master's first write.
const OUT_OF_REACH: Duration = Duration::from_secs(5);
/// How long a returned master is given to stop acknowledging.
const RETURNED: Duration = Duration::from_secs(20);
/// Commits of ZooKeeper measured in a round.
const COMMITS: usize = 25;
/// Any wait for something ordinary.
const ORDINARY: Duration = Duration::from_secs(30);

/// What one round showed.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// From the fault to the acknowledgement of the new master's first write; absent when there was none within [`LIMIT`].
    pub back: Option<Duration>,
    /// The longest time that one of the writers who look for the master was without acknowledgement.
    pub pause: Duration,
    /// Acknowledged writes.
    pub acknowledged: usize,
    /// Acknowledged writes that are gone in the end.
    pub lost: usize,
    /// Writes that the old master acknowledged after the new one's first.
    pub late: usize,
}

/// A sample, or why there cannot be one.
#[derive(Clone, Copy, Debug)]
pub enum Outcome {
    /// It was measured.
    Measured(Sample),
    /// The system has nothing for it.
    NotOffered(&'static str),
}

/// Everything of one round.
pub async fn run(subject: &mut Subject, fault: Fault) -> Result<Outcome> {
    let before = subject.settle().await.context("before the fault")?;
    let mut admin = server::connect(&before.address).await?;
    redis::cmd("FLUSHALL").query_async::<()>(&mut admin).await?;
    let pace = (fault != Fault::SwitchoverUnpaced).then_some(PACE);
    let here = subject.bench().here();
    let clients = Clients::start(&here, "writer", WRITERS, pace, Way::Door(subject.door()))?;
    let stayed = match fault.leaves_the_old_one() {
        true => Some(Clients::start(&before.host, "stayed", 1, pace, Way::Only(before.address.clone()))?),
        false => None,
    };
    clients.progress(BEFORE, ORDINARY).await?;
    if let Some(ours) = subject.ours() {
        ours.commits.measure(COMMITS).await?;
    }
    let ticks = process::start_ticks(before.pid);
    let struck = match subject.strike(fault, &before).await? {
        Struck::At(start) => start,
        Struck::NotOffered(why) => return Ok(Outcome::NotOffered(why)),
    };
    let taken_over = wait::until_now("another master acknowledges", LIMIT, || match clients.elsewhere(&before.address) {
        true => Ok(()),
        false => Err("none does"),
    })
    .await
    .is_ok();
    if let (Some(_), true) = (&stayed, taken_over) {
        tokio::time::sleep(OUT_OF_REACH).await;
    }
    subject.relent(fault, &before, ticks)?;
    clients.progress(AFTER, LIMIT).await?;
    if let (Some(stayed), true) = (&stayed, taken_over) {
        silent(stayed).await;
    }
    let logs = clients.stop().await?;
    let others = match stayed {
        Some(stayed) => stayed.stop().await?,
        None => Vec::new(),
    };
    let after = subject.settle().await.context("after the fault")?;
    let mut sample = judge(struck, &before, &logs, &others);
    let mut connection = server::connect(&after.address).await?;
    for log in logs.iter().chain(&others) {
        sample.lost += missing(log, &mut connection).await?;
    }
    Ok(Outcome::Measured(sample))
}

/// Waits until nothing has been acknowledged for a second, for a while.
async fn silent(clients: &Clients) {
    let start = Instant::now();
    let mut count = clients.count();
    while start.elapsed() < RETURNED {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = clients.count();
        if std::mem::replace(&mut count, now) == now {
            return;
        }
    }
}

fn judge(struck: Instant, before: &Master, logs: &[Log], others: &[Log]) -> Sample {
    let all = || logs.iter().chain(others).flat_map(|log| &log.acks);
    let old = |ack: &&Ack| *ack.by == *before.address;
    let first = all().filter(|ack| ack.at > struck && !old(ack)).map(|ack| ack.at).min();
    let late = first.map_or(0, |first| all().filter(|ack| old(ack) && ack.at > first).count());
    let pause = logs.iter().filter_map(|log| longest_pause(&log.acks, struck)).max().unwrap_or(LIMIT);
    Sample { back: first.map(|at| at - struck), pause, acknowledged: all().count(), lost: 0, late }
}

/// The longest time between two acknowledgements of which the second came after `struck`.
fn longest_pause(acks: &[Ack], struck: Instant) -> Option<Duration> {
    acks.windows(2).filter(|pair| pair[1].at > struck).map(|pair| pair[1].at - pair[0].at).max()
}

/// How many acknowledged writes the server does not hold.
async fn missing(log: &Log, connection: &mut MultiplexedConnection) -> Result<usize> {
    let mut missing = 0;
    for chunk in log.acks.chunks(1000) {
        let mut get = redis::cmd("MGET");
        chunk.iter().for_each(|ack| {
            get.arg(format!("{}:{}", log.writer, ack.n));
        });
        let values: Vec<Option<u64>> = get.query_async(connection).await.context("reading the writes back")?;
        missing += chunk.iter().zip(values).filter(|(ack, value)| *value != Some(ack.n)).count();
    }
    Ok(missing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::Host;

    fn ack(n: u64, at: Instant, ms: u64, by: &str) -> Ack {
        Ack { n, at: at + Duration::from_millis(ms), by: by.into() }
    }

    #[test]
    fn the_times_are_taken_from_the_fault_on_and_late_writes_of_the_old_master_are_counted() {
        let t = Instant::now();
        let struck = t + Duration::from_millis(100);
        let acks =
            vec![ack(1, t, 0, "a:1"), ack(2, t, 90, "a:1"), ack(3, t, 101, "a:1"), ack(4, t, 131, "b:1"), ack(5, t, 140, "b:1")];
        let other = vec![ack(1, t, 99, "a:1"), ack(2, t, 130, "a:1"), ack(3, t, 135, "a:1")];
        let before = Master { address: "a:1".into(), host: Host::loopback(), pid: 1 };
        let log = |writer: &str, acks| Log { writer: writer.into(), acks };
        let sample = judge(struck, &before, &[log("w", acks)], &[log("s", other)]);
        assert_eq!(sample.back, Some(Duration::from_millis(31)));
        assert_eq!(sample.pause, Duration::from_millis(30));
        assert_eq!((sample.acknowledged, sample.late), (8, 1));
    }

    #[test]
    fn without_a_new_master_there_is_no_time() {
        let t = Instant::now();
        let before = Master { address: "a:1".into(), host: Host::loopback(), pid: 1 };
        let log = Log { writer: "w".into(), acks: vec![ack(1, t, 0, "a:1")] };
        let sample = judge(t, &before, &[log], &[]);
        assert_eq!((sample.back, sample.pause, sample.late), (None, LIMIT, 0));
    }
}
