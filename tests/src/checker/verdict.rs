//! What the judge found, readable, and what tests demand of it.

use std::fmt::{self, Display};
use std::time::Duration;

use anyhow::{Result, ensure};

use super::log::{Ack, Failure, Server};

/// An acknowledged write of a server that was sent after another had begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// The write.
    pub ack: Ack,
    /// Index of the server that had begun.
    pub other: usize,
    /// How long after the other's first acknowledgement the write was sent.
    pub late: Duration,
}

/// A time without acknowledged writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    /// The last acknowledgement before it.
    pub from: Duration,
    /// The first after it.
    pub to: Duration,
}

impl Pause {
    /// How long.
    pub fn length(&self) -> Duration {
        self.to - self.from
    }
}

/// One server's time as the writers saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reign {
    /// Which run of which server.
    pub server: Server,
    /// Writes it acknowledged.
    pub acknowledged: usize,
    /// Its first acknowledgement.
    pub first: Duration,
    /// Its last one.
    pub last: Duration,
    /// Of its writes, how many are lost.
    pub lost: usize,
}

/// What became of the acknowledged writes. Times are the log's.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// When the fault began, where the judge was told.
    pub fault: Option<Duration>,
    /// Acknowledged writes.
    pub acknowledged: usize,
    /// Of them, confirmed by `WAIT`.
    pub confirmed: usize,
    /// Writes refused with an error.
    pub refused: Vec<Failure>,
    /// Writes without an answer.
    pub unanswered: Vec<Failure>,
    /// Acknowledged and not there.
    pub lost: Vec<Ack>,
    /// Of the lost, those that `WAIT` had confirmed.
    pub lost_confirmed: Vec<Ack>,
    /// Provably executed while another server already wrote.
    pub overlapping: Vec<Overlap>,
    /// Writes that are there, but were not on a server that acknowledged a later one.
    pub hidden: Vec<(Ack, Ack)>,
    /// What no failover explains.
    pub strange: Vec<String>,
    /// The longest time without acknowledgements; absent with fewer than two.
    pub longest_pause: Option<Pause>,
    /// The same, of those that end after the fault.
    pub pause_after_fault: Option<Pause>,
    /// When the first write that was sent after the fault was acknowledged.
    pub first_after_fault: Option<Duration>,
    /// The same by a server that had acknowledged nothing before the fault.
    pub first_by_successor: Option<Duration>,
    /// The servers, in the order in which they led.
    pub reigns: Vec<Reign>,
}

impl Verdict {
    /// Fails when two servers wrote in overlapping time, or the data has more than one history.
    pub fn one_writer(&self) -> Result<&Verdict> {
        let overlap = self.overlapping.len();
        ensure!(overlap == 0, "two servers acknowledged writes in overlapping time, {overlap} are proven\n{self}");
        ensure!(self.hidden.is_empty(), "a server acknowledged writes without holding earlier ones\n{self}");
        ensure!(self.strange.is_empty(), "the data is not what was written\n{self}");
        Ok(self)
    }

    /// Fails when an acknowledged write is lost.
    pub fn nothing_lost(&self) -> Result<&Verdict> {
        ensure!(self.lost.is_empty(), "{} acknowledged writes are lost\n{self}", self.lost.len());
        Ok(self)
    }

    /// Fails when a write is lost that `WAIT` had confirmed.
    pub fn confirmed_kept(&self) -> Result<&Verdict> {
        ensure!(self.lost_confirmed.is_empty(), "{} confirmed writes are lost\n{self}", self.lost_confirmed.len());
        Ok(self)
    }

    /// Fails when a write is lost that was acknowledged more than `age` before the fault, or after it by a successor.
    pub fn lost_only_within(&self, age: Duration) -> Result<&Verdict> {
        let fault = self.fault.unwrap_or_default();
        let old = self.lost.iter().filter(|ack| ack.acked + age < fault).count();
        ensure!(old == 0, "{old} lost writes were acknowledged more than {} before the fault\n{self}", show(age));
        let late: usize = self.reigns.iter().skip_while(|r| r.first < fault).map(|r| r.lost).sum();
        ensure!(late == 0, "{late} writes that were acknowledged after the fault are lost\n{self}");
        Ok(self)
    }

    /// Fails when writes of the group stopped for longer than `limit`.
    pub fn pause_within(&self, limit: Duration) -> Result<&Verdict> {
        let pause = self.longest_pause.map(|p| p.length()).unwrap_or_default();
        ensure!(pause <= limit, "no write was acknowledged for {}, allowed are {}\n{self}", show(pause), show(limit));
        Ok(self)
    }

    /// Fails when any write was refused or not answered.
    pub fn none_refused(&self) -> Result<&Verdict> {
        ensure!(
            self.refused.is_empty() && self.unanswered.is_empty(),
            "{} writes were refused, {} not answered\n{self}",
            self.refused.len(),
            self.unanswered.len()
        );
        Ok(self)
    }

    /// Fails unless one server alone acknowledged all writes.
    pub fn one_server(&self) -> Result<&Verdict> {
        ensure!(self.reigns.len() == 1, "{} servers acknowledged writes\n{self}", self.reigns.len());
        Ok(self)
    }
}

impl Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "verdict: {} writes acknowledged, {} of them confirmed by WAIT; {} refused{}, {} not answered",
            self.acknowledged,
            self.confirmed,
            self.refused.len(),
            codes(&self.refused),
            self.unanswered.len()
        )?;
        for reign in &self.reigns {
            let Reign { server, acknowledged, first, last, lost } = reign;
            let run = server.run_id.get(..8).unwrap_or(&server.run_id);
            let span = format!("{} to {}", self.when(*first), self.when(*last));
            writeln!(f, "  {} run {run}: {acknowledged} acknowledged, {span}, {lost} lost", server.address)?;
        }
        let ages = |acks: &[Ack]| match (acks.iter().map(|a| a.acked).min(), acks.iter().map(|a| a.acked).max()) {
            (Some(first), Some(last)) => format!(", acknowledged {} to {}", self.when(first), self.when(last)),
            _ => String::new(),
        };
        writeln!(f, "  lost: {}{}", self.lost.len(), ages(&self.lost))?;
        writeln!(f, "  lost although confirmed by WAIT: {}{}", self.lost_confirmed.len(), ages(&self.lost_confirmed))?;
        let late = self.overlapping.iter().map(|o| o.late).max();
        let late = late.map_or(String::new(), |late| format!(", up to {} after the other server's first", show(late)));
        writeln!(f, "  acknowledged by two servers in overlapping time: {}{late}", self.overlapping.len())?;
        if !self.hidden.is_empty() {
            writeln!(f, "  acknowledged without holding earlier writes that are there now: {}", self.hidden.len())?;
        }
        self.strange.iter().try_for_each(|strange| writeln!(f, "  {strange}"))?;
        let pause = |pause: Option<Pause>| {
            pause.map_or("unknown".into(), |p| format!("{}, from {}", show(p.length()), self.when(p.from)))
        };
        write!(f, "  longest pause between acknowledged writes: {}", pause(self.longest_pause))?;
        if self.fault.is_some() {
            let first = |at: Option<Duration>| at.map_or("never".into(), |at| self.when(at));
            write!(f, "; ending after the fault: {}\n  first write sent after the fault: ", pause(self.pause_after_fault))?;
            write!(f, "{}; by a successor: {}", first(self.first_after_fault), first(self.first_by_successor))?;
        }
        Ok(())
    }
}

impl Verdict {
    /// A time, told from the fault where there is one.
    fn when(&self, at: Duration) -> String {
        match self.fault {
            Some(fault) if at >= fault => format!("+{}", show(at - fault)),
            Some(fault) => format!("-{}", show(fault - at)),
            None => show(at),
        }
    }
}

fn codes(refused: &[Failure]) -> String {
    let mut codes: Vec<&str> = refused.iter().filter_map(|f| f.refused.as_deref()).collect();
    codes.sort_unstable();
    codes.dedup();
    if codes.is_empty() { String::new() } else { format!(" ({})", codes.join(", ")) }
}

fn show(time: Duration) -> String {
    match time.as_millis() {
        0..100 => format!("{:.1} ms", time.as_secs_f64() * 1e3),
        100..10_000 => format!("{} ms", time.as_millis()),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}
