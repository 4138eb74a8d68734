//! One round: writers at work, the fault, the end of its consequences, and the judgement over every acknowledged write.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::subject::{Fault, Struck, Subject, System};
use crate::checker::{Door, Log, Plan, Server, Writers};
use crate::demo::table::say;
use crate::harness::{Host, process, redis as server, wait};

/// Writers of one load, and the writes a second of each: together about 3,000.
const WRITERS: usize = 4;
const RATE: u32 = 750;
/// Longest wait for an acknowledgement by those who look for the master, and by the one who stays where it is.
const ANSWER: Duration = Duration::from_secs(1);
const STAYS: Duration = Duration::from_secs(120);
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
    let rate = (fault != Fault::SwitchoverUnpaced).then_some(RATE);
    let clients = writers("writer", &subject.bench().here(), WRITERS, Door::Told(subject.door()), rate, ANSWER);
    let stays = || writers("stays", &before.host, 1, Door::Fixed(vec![before.address.clone()]), rate, STAYS);
    let stayed = fault.leaves_the_old_one().then(stays);
    clients.progress(BEFORE, ORDINARY).await?;
    if let Some(ours) = subject.ours() {
        ours.commits.measure(COMMITS).await?;
    }
    let ticks = process::start_ticks(before.pid);
    let struck = match subject.strike(fault, &before).await? {
        Struck::At(start) => start,
        Struck::NotOffered(why) => return Ok(Outcome::NotOffered(why)),
    };
    let taken_over = wait::until_now("another master is named", LIMIT, || match subject.door().master() {
        Some(master) if master != before.address => Ok(()),
        _ => Err("nobody is named"),
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
        Some(stayed) => Some(stayed.stop().await?),
        None => None,
    };
    let after = subject.settle().await.context("after the fault")?;
    let mut sample = judge(struck, &logs, others.as_ref());
    note_steps(subject, fault, struck, &sample)?;
    let mut connection = server::connect(&after.address).await?;
    for log in std::iter::once(&logs).chain(&others) {
        sample.lost += log.missing(&mut connection).await?.len();
    }
    Ok(Outcome::Measured(sample))
}

/// Where the time went, for our cluster of three and the plainest fault.
fn note_steps(subject: &mut Subject, fault: Fault, struck: Instant, sample: &Sample) -> Result<()> {
    let dir = subject.bench().dir().to_owned();
    if let (Fault::Kill, System::Ours3, Some(back)) = (fault, subject.system, sample.back)
        && let Some(ours) = subject.ours()
        && !ours.steps.note(&dir, struck, back)?
    {
        say("the logs do not tell all steps of this one");
    }
    Ok(())
}

fn writers(name: &str, host: &Host, count: usize, door: Door, rate: Option<u32>, answer: Duration) -> Writers {
    Writers::start(Plan { name: name.into(), writers: vec![(door, 0); count], rate, answer, host: Some(host.clone()) })
}

/// Waits until nothing has been acknowledged for a second, for a while.
async fn silent(clients: &Writers) {
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

/// One acknowledged write, in times that all logs share.
struct Write<'a> {
    writer: usize,
    by: &'a Server,
    sent: Instant,
    acked: Instant,
}

fn writes(log: &Log) -> impl Iterator<Item = Write<'_>> {
    log.acks.iter().map(|ack| Write {
        writer: ack.writer,
        by: &log.servers[ack.server],
        sent: log.origin + ack.sent,
        acked: log.origin + ack.acked,
    })
}

/// `logs` are of those who look for the master, `others` of who stayed. What is lost only the data can tell.
fn judge(struck: Instant, logs: &Log, others: Option<&Log>) -> Sample {
    let all = || std::iter::once(logs).chain(others).flat_map(writes);
    let old: Vec<&Server> = logs.servers.iter().filter(|s| writes(logs).any(|w| w.by == *s && w.acked < struck)).collect();
    let first = all().filter(|w| !old.contains(&w.by)).map(|w| w.acked).min();
    // Sent after the new one's first was acknowledged: what was sent before may only have been read late.
    let late = first.map_or(0, |first| all().filter(|w| old.contains(&w.by) && w.sent > first).count());
    let pauses = (0..logs.keys.len()).filter_map(|writer| longest_pause(logs, writer, struck));
    let pause = pauses.max().unwrap_or(LIMIT);
    Sample { back: first.map(|at| at - struck), pause, acknowledged: all().count(), lost: 0, late }
}

/// The longest time between two acknowledgements of a writer of which the second came after `struck`.
fn longest_pause(log: &Log, writer: usize, struck: Instant) -> Option<Duration> {
    let acked: Vec<Instant> = writes(log).filter(|w| w.writer == writer).map(|w| w.acked).collect();
    acked.windows(2).filter(|pair| pair[1] > struck).map(|pair| pair[1] - pair[0]).max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::Ack;

    /// Acknowledgements as (writer, milliseconds of sending and of the answer, server).
    fn log(origin: Instant, acks: &[(usize, u64, u64, usize)]) -> Log {
        let ms = Duration::from_millis;
        let ack = |(n, (writer, sent, acked, server)): (usize, &(usize, u64, u64, usize))| {
            let (n, server) = (n as u64, *server);
            Ack { writer: *writer, n, length: n, server, sent: ms(*sent), acked: ms(*acked), confirmed: false }
        };
        let server = |name: &str| Server { address: format!("{name}:1"), run_id: name.into() };
        Log {
            origin,
            keys: vec!["w:0".into(), "w:1".into()],
            servers: vec![server("old"), server("new")],
            acks: acks.iter().enumerate().map(ack).collect(),
            failures: Vec::new(),
            unreached: 0,
        }
    }

    #[test]
    fn the_times_are_taken_from_the_fault_on_and_late_writes_of_the_old_master_are_counted() {
        let t = Instant::now();
        let struck = t + Duration::from_millis(100);
        let clients = log(t, &[(0, 0, 1, 0), (0, 89, 90, 0), (1, 98, 101, 0), (0, 130, 131, 1), (1, 140, 145, 1)]);
        let stayed = log(t, &[(0, 98, 99, 0), (0, 130, 132, 0), (0, 135, 136, 0)]);
        let sample = judge(struck, &clients, Some(&stayed));
        assert_eq!(sample.back, Some(Duration::from_millis(31)));
        assert_eq!(sample.pause, Duration::from_millis(44));
        assert_eq!((sample.acknowledged, sample.late), (8, 1));
    }

    #[test]
    fn without_a_new_master_there_is_no_time() {
        let t = Instant::now();
        let sample = judge(t + Duration::from_millis(5), &log(t, &[(0, 0, 1, 0)]), None);
        assert_eq!((sample.back, sample.pause, sample.late), (None, LIMIT, 0));
    }
}
