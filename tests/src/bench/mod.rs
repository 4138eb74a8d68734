//! `make bench`: what clients see of faults, our cluster beside Redis Sentinel and beside what the servers alone allow; and the memory of our programs.
//!
//! All systems run at the same time and every repeat goes through all of them, so that a machine that is slower for a while is so for all. Nothing fails
//! on a number; a round that cannot be finished is a failure.

mod bare;
mod commits;
mod door;
mod memory;
mod module_cost;
mod ours;
mod plain;
mod report;
mod round;
mod sentinel;
mod snapshots;
mod steps;
mod subject;

use std::path::PathBuf;

use anyhow::{Context, Result};

pub use module_cost::{CostWishes, measure as module_cost};
pub use report::Report;
pub use snapshots::{SnapshotWishes, measure as snapshots};
pub use subject::{Fault, System};

use crate::demo::table::say;
use crate::harness::Bench;
use round::Outcome;
use subject::Subject;

/// Repeats of each fault.
const REPEATS: usize = 10;
/// Repeats where each takes half a minute: a server that hangs.
const SOME: usize = 5;
/// Repeats where each takes a minute: stock Sentinel, a host cut off.
const FEW: usize = 2;

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Wishes {
    /// Three repeats, and neither five instances nor stock Sentinel.
    #[arg(long)]
    pub quick: bool,
    /// Repeats of each fault [default: 10; hung servers at most 5, cut off hosts and stock Sentinel at most 2].
    #[arg(long, value_name = "N")]
    pub repeats: Option<usize>,
    /// Only these faults; by default all.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub faults: Vec<Fault>,
    /// Only these systems; by default all.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub systems: Vec<System>,
    /// Put the tables into this file, between its markers.
    #[arg(long, value_name = "FILE")]
    pub write: Option<PathBuf>,
}

impl Wishes {
    fn systems(&self) -> Vec<System> {
        let all = <System as clap::ValueEnum>::value_variants().iter().copied();
        let left_out = |s: &System| self.quick && matches!(s, System::Ours5 | System::SentinelStock);
        all.filter(|s| if self.systems.is_empty() { !left_out(s) } else { self.systems.contains(s) }).collect()
    }

    fn wants(&self, fault: Fault) -> bool {
        self.faults.is_empty() || self.faults.contains(&fault)
    }

    /// Faults of the first part, which runs on loopback.
    fn local_faults(&self) -> Vec<Fault> {
        let all = <Fault as clap::ValueEnum>::value_variants().iter().copied();
        all.filter(|f| *f != Fault::Partition && self.wants(*f)).collect()
    }

    /// Rounds of the second part by system. Each is a system of its own, on hosts of its own: one that has just replaced a silent master is
    /// meant to wait (`failover.cooldown`) before it does so again.
    pub fn to_cut_off(&self) -> Vec<System> {
        if !self.wants(Fault::Partition) {
            return Vec::new();
        }
        let able = self.systems().into_iter().filter(|s| !matches!(s, System::Bare | System::Ours5));
        able.flat_map(|system| vec![system; self.repeats(Fault::Partition, system)]).collect()
    }

    fn repeats(&self, fault: Fault, system: System) -> usize {
        let repeats = self.repeats.unwrap_or(if self.quick { 3 } else { REPEATS });
        match (fault, system) {
            // Nobody waits for anything to be down.
            (Fault::Switchover | Fault::SwitchoverUnpaced, System::SentinelStock) => 0,
            (_, System::SentinelStock) | (Fault::Partition, _) => repeats.min(FEW),
            (Fault::Hang, _) => repeats.min(SOME),
            _ => repeats,
        }
    }
}

/// The first part: memory, and all faults for which loopback is enough, round by round through all systems.
pub async fn side_by_side(wishes: &Wishes, report: &mut Report) -> Result<()> {
    let faults = wishes.local_faults();
    if faults.is_empty() {
        return Ok(());
    }
    let mut subjects = Vec::new();
    for system in wishes.systems() {
        subjects.push(start(system, 0).await?);
    }
    if wishes.faults.is_empty() && wishes.systems.is_empty() {
        for subject in &mut subjects {
            if let (System::Ours3, Some(ours)) = (subject.system, subject.ours()) {
                report.memory = Some(memory::measure(&ours.cluster).await?);
            }
        }
    }
    for fault in faults {
        say(&format!("== {}", fault.title()));
        for repeat in 0..wishes.repeats.unwrap_or(REPEATS) {
            for subject in &mut subjects {
                if repeat < wishes.repeats(fault, subject.system) && !report.is_refused(fault, subject.system) {
                    measure(subject, fault, report).await?;
                }
            }
        }
    }
    subjects.into_iter().try_for_each(|subject| end(subject, report))
}

/// One round of the second part, on hosts that can be cut off.
pub async fn cut_off(bench: std::sync::Arc<Bench>, system: System, report: &mut Report) -> Result<()> {
    say(&format!("== {}: {}", Fault::Partition.title(), system.title()));
    let mut subject = Subject::start(&bench, system).await.with_context(|| system.title())?;
    if let Err(e) = take(&mut subject, Fault::Partition, report).await {
        say(&format!("FAILED: {}: {e:#}", system.title()));
        report.fail(Fault::Partition, system);
    }
    end(subject, report)
}

async fn start(system: System, hosts: usize) -> Result<Subject> {
    say(&format!("starting {}", system.title()));
    let bench = std::sync::Arc::new(Bench::new("system", hosts)?);
    Subject::start(&bench, system).await.with_context(|| system.title())
}

fn end(mut subject: Subject, report: &mut Report) -> Result<()> {
    if let Some(ours) = subject.ours() {
        report.commits.append(&mut ours.commits.times);
        report.steps.append(&mut ours.steps);
    }
    subject.end()
}

/// One round; after one that failed the system is started anew.
async fn measure(subject: &mut Subject, fault: Fault, report: &mut Report) -> Result<()> {
    if let Err(e) = take(subject, fault, report).await {
        say(&format!("FAILED: {}: {e:#}", subject.system.title()));
        report.fail(fault, subject.system);
        let old = std::mem::replace(subject, start(subject.system, 0).await?);
        end(old, report)?;
    }
    Ok(())
}

async fn take(subject: &mut Subject, fault: Fault, report: &mut Report) -> Result<()> {
    let outcome = round::run(subject, fault).await?;
    match &outcome {
        Outcome::Measured(sample) => say(&format!("{}: {}", subject.system.title(), report::one_line(sample))),
        Outcome::NotOffered(why) => say(&format!("{}: {why}", subject.system.title())),
    }
    report.add(fault, subject.system, outcome);
    Ok(())
}
