//! What is compared, and what is done to it: the systems and the faults.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::ValueEnum;
use rustix::process::Signal;

use super::bare::{Bare, Script};
use super::ours::Ours;
use super::sentinel::Sentinel;
use crate::checker::Told;
use crate::harness::{Bench, Host, process};

/// A system, in the order of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum System {
    /// Our cluster, three instances.
    Ours3,
    /// Our cluster, five instances.
    Ours5,
    /// Redis Sentinel with down-after-milliseconds 1000.
    Sentinel,
    /// Redis Sentinel as it comes: down-after-milliseconds 30000.
    SentinelStock,
    /// The servers alone, with a script.
    Bare,
}

impl System {
    /// As the tables call it.
    pub fn title(self) -> &'static str {
        match self {
            System::Ours3 => "Aurora Redis, 3 instances",
            System::Ours5 => "Aurora Redis, 5 instances",
            System::Sentinel => "Sentinel, down-after 1000",
            System::SentinelStock => "Sentinel, stock",
            System::Bare => "bare limits",
        }
    }

    /// How many hosts it has.
    pub fn hosts(self) -> usize {
        if self == System::Ours5 { 5 } else { 3 }
    }
}

/// What is done to the master.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Fault {
    /// kill -9 of the server.
    Kill,
    /// SIGTERM of the server; ours: of the task.
    Term,
    /// A planned change of master.
    Switchover,
    /// A planned change of master under writers without pause.
    SwitchoverUnpaced,
    /// SIGSTOP of the server, SIGCONT later.
    Hang,
    /// The host cut off the network, clients on both sides.
    Partition,
}

impl Fault {
    /// As the tables call it.
    pub fn title(self) -> &'static str {
        match self {
            Fault::Kill => "kill -9 of the master's server",
            Fault::Term => "SIGTERM of the master (ours: of its task)",
            Fault::Switchover => "planned change of master",
            Fault::SwitchoverUnpaced => "planned change of master, writers without pause",
            Fault::Hang => "the master's server hangs (SIGSTOP), and goes on later (SIGCONT)",
            Fault::Partition => "the master's host is cut off the network, with clients on both sides, and comes back",
        }
    }

    /// Whether the old master lives on, out of reach, so that what it does afterwards is of interest.
    pub fn leaves_the_old_one(self) -> bool {
        matches!(self, Fault::Hang | Fault::Partition)
    }
}

/// Who is master.
#[derive(Clone, Debug)]
pub struct Master {
    /// `host:port`.
    pub address: String,
    /// Its host.
    pub host: Host,
    /// Its server's pid.
    pub pid: u32,
}

/// What became of the wish to do something to a system.
#[derive(Debug)]
pub enum Struck {
    /// Done, begun at that moment.
    At(Instant),
    /// The system has nothing for it; why.
    NotOffered(&'static str),
}

/// A running system on a bench of its own.
#[derive(Debug)]
pub struct Subject {
    /// Which.
    pub system: System,
    bench: Arc<Bench>,
    kind: Kind,
    script: Option<Script>,
}

#[derive(Debug)]
enum Kind {
    Ours(Box<Ours>),
    Sentinel(Sentinel),
    Bare(Bare),
}

impl Subject {
    /// Starts it.
    pub async fn start(bench: &Arc<Bench>, system: System) -> Result<Subject> {
        let hosts = match bench.hosts() {
            [] => vec![Host::loopback(); system.hosts()],
            hosts => hosts.to_vec(),
        };
        let kind = match system {
            System::Ours3 | System::Ours5 => Kind::Ours(Box::new(Ours::start(bench, hosts.len() as u32).await?)),
            System::Sentinel => Kind::Sentinel(Sentinel::start(bench, &hosts, Some(1000)).await?),
            System::SentinelStock => Kind::Sentinel(Sentinel::start(bench, &hosts, None).await?),
            System::Bare => Kind::Bare(Bare::start(bench, &hosts).await?),
        };
        Ok(Subject { system, bench: bench.clone(), kind, script: None })
    }

    /// Its bench.
    pub fn bench(&self) -> &Arc<Bench> {
        &self.bench
    }

    /// Our cluster, if it is one.
    pub fn ours(&mut self) -> Option<&mut Ours> {
        match &mut self.kind {
            Kind::Ours(ours) => Some(ours),
            _ => None,
        }
    }

    /// How its clients find the master.
    pub fn door(&self) -> Told {
        match &self.kind {
            Kind::Ours(ours) => ours.door(),
            Kind::Sentinel(sentinel) => sentinel.door(),
            Kind::Bare(bare) => bare.door(),
        }
    }

    /// Waits until it is whole again, dead servers started anew, and answers who is master.
    pub async fn settle(&mut self) -> Result<Master> {
        match &mut self.kind {
            Kind::Ours(ours) => ours.settle().await,
            Kind::Sentinel(sentinel) => sentinel.settle().await,
            Kind::Bare(bare) => bare.settle().await,
        }
    }

    /// Does it to `master`.
    pub async fn strike(&mut self, fault: Fault, master: &Master) -> Result<Struck> {
        if let (Kind::Bare(bare), Fault::Kill | Fault::Term) = (&self.kind, fault) {
            self.script = Some(bare.watch_master(master.pid)?);
        }
        let start = Instant::now();
        match fault {
            Fault::Kill => process::send(master.pid, Signal::KILL),
            Fault::Hang | Fault::Partition if self.system == System::Bare => {
                return Ok(Struck::NotOffered("it sees nothing but a death"));
            }
            Fault::Hang => process::send(master.pid, Signal::STOP),
            Fault::Partition => self.bench.network().isolate(&master.host)?,
            Fault::Term => match &self.kind {
                Kind::Ours(ours) => return Ok(Struck::At(ours.terminate().await?)),
                _ => process::send(master.pid, Signal::TERM),
            },
            Fault::Switchover | Fault::SwitchoverUnpaced => return self.switch_over().await,
        }
        Ok(Struck::At(start))
    }

    async fn switch_over(&mut self) -> Result<Struck> {
        match &self.kind {
            Kind::Ours(ours) => {
                let missing = Struck::NotOffered("not yet: `aurora-redis` has no verb `switchover`");
                Ok(ours.switch_over().await?.map_or(missing, Struck::At))
            }
            Kind::Sentinel(sentinel) => Ok(Struck::At(sentinel.failover().await?)),
            Kind::Bare(bare) => Ok(Struck::At(bare.switch_over().await?)),
        }
    }

    /// Takes back what can be taken back.
    pub fn relent(&mut self, fault: Fault, master: &Master, ticks: Option<u64>) -> Result<()> {
        match fault {
            // A pid may have got another owner meanwhile.
            Fault::Hang if ticks.is_some() && process::start_ticks(master.pid) == ticks => {
                process::send(master.pid, Signal::CONT)
            }
            Fault::Partition => self.bench.network().heal()?,
            _ => {}
        }
        self.script.take().map_or(Ok(()), Script::end)
    }

    /// Ends it. Fails when a process outlived its owner.
    pub fn end(self) -> Result<()> {
        let Subject { bench, kind, .. } = self;
        drop(kind);
        if let Ok(bench) = Arc::try_unwrap(bench) {
            let left = bench.close();
            if !left.is_empty() {
                bail!("processes were left behind and had to be killed: {left:?}");
            }
        }
        Ok(())
    }
}
