//! What there is: the versions of the record, the lease, three agents with their servers, two controllers.

use crate::set::Set;

/// Instances of the cluster.
pub const INSTANCES: u8 = 3;
/// Nobody, where an instance is expected.
pub const NOBODY: u8 = INSTANCES;

/// What agents compare before they obey: generation of the record, then epoch.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Stamp {
    /// Grows when the record is made anew.
    pub generation: u8,
    /// Grows with every change of master.
    pub epoch: u8,
}

/// Whether the record says that somebody may write.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Phase {
    /// The master is named. Whether it has been seen to serve makes no difference to safety.
    Named,
    /// The master of the epoch before is deposed; nobody is named yet.
    Deposing,
}

/// One version of the record.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Record {
    /// Generation and epoch.
    pub stamp: Stamp,
    /// Its number within its generation.
    pub number: u8,
    /// Phase.
    pub phase: Phase,
    /// The master named, or deposed.
    pub master: u8,
    /// The replicas listed.
    pub members: Set,
    /// While deposing: who may be a witness, as pinned by the deposing commit.
    pub witnesses: Set,
    /// It stands in the record that nobody before the named master can write any more; while deposing: that promotion needs nothing else.
    pub released: bool,
}

/// The lease as it stands in ZooKeeper. Its time runs at its holder.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Lease {
    /// Who renewed it last.
    pub holder: u8,
    /// The version of the record it was renewed against.
    pub version: u8,
    /// Whom the holder would ask in failsafe.
    pub asks: Set,
}

/// What a server does with a client's write, and why.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// Refuses it: a replica, fenced, closed or dead.
    Quiet,
    /// Refuses it: named as master, not opened yet.
    Winner,
    /// Opened as master: accepts it unless paused.
    Master,
}

/// What became of a renewal on its way. One whose check failed is forgotten at once: its sender may give up at any time anyway.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fate {
    /// It has not arrived.
    Sent,
    /// ZooKeeper has committed it.
    Committed,
}

/// A renewal whose answer the agent waits for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Renewal {
    /// The version of the record it checks.
    pub version: u8,
    /// Whom its sender would ask in failsafe.
    pub asks: Set,
    /// Ticks since it was sent, by the sender's clock.
    pub age: u8,
    /// What became of it.
    pub fate: Fate,
}

/// A round of failsafe questions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Round {
    /// Ticks since it was sent, by the sender's clock.
    pub age: u8,
    /// Who answered, as far as the master heard.
    pub heard: Set,
}

/// An agent and its server.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Agent {
    /// The highest stamp it has seen.
    pub stamp: Stamp,
    /// Ticks for which it bears no witness.
    pub promise: u8,
    /// It is gone for ever.
    pub gone: bool,
    /// What its server does with writes.
    pub role: Role,
    /// Everything else, which only a winner or master has.
    pub office: Office,
}

/// What an agent knows and holds as winner or master.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
pub struct Office {
    /// The version of the record it obeys.
    pub version: u8,
    /// Ticks left of its lease.
    pub lease: u8,
    /// Writes are held.
    pub paused: bool,
    /// A planned change is a reason to hold them.
    pub held: bool,
    /// The lease has ended and the stop is not proven yet (only without [`super::Rule::StopBeforeEnd`]).
    pub overdue: bool,
    /// A renewal is known to be committed.
    pub committed: bool,
    /// The members of the last renewal known to be committed.
    pub committed_asks: Set,
    /// The members of all renewals sent since.
    pub sent_asks: Set,
    /// The renewal under way.
    pub renewal: Option<Renewal>,
    /// An earlier one that was given up and may still arrive: its version and members.
    pub stray: Option<(u8, Set)>,
    /// The round of failsafe under way.
    pub round: Option<Round>,
    /// Who promised to this master; the answers may still be on their way.
    pub promised: Set,
    /// Ticks left of failsafe.
    pub failsafe: u8,
}

/// What a controller knows. Everything else it can ask again at any time.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Controller {
    /// The version of the record it read last, or wrote. One that is not the last any more counts as 0: nothing can be done on it.
    pub version: u8,
    /// Ticks that count as waited, while it sees the master deposed.
    pub waited: u8,
    /// A witness has acknowledged the epoch.
    pub witnessed: bool,
    /// The old master's agent has confirmed that it cannot write.
    pub confirmed: bool,
    /// The lease it saw while a master was named, if there was one, and ticks since.
    pub saw: Option<(Option<Lease>, u8)>,
}

/// How much of each bounded fault has been used up.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
pub struct Spent {
    /// Restarts.
    pub restarts: u8,
    /// Missed ticks.
    pub skips: u8,
    /// Planned changes.
    pub holds: u8,
    /// Losses of ZooKeeper's data.
    pub losses: u8,
    /// Agents gone.
    pub deaths: u8,
}

/// The whole.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct State {
    /// Every version of the record ever committed; messages about any of them may be under way.
    pub records: Vec<Record>,
    /// ZooKeeper was emptied and no record has been made since.
    pub emptied: bool,
    /// The lease in ZooKeeper.
    pub lease: Option<Lease>,
    /// The agents.
    pub agents: [Agent; INSTANCES as usize],
    /// The controllers. Both may act at any time: that a controller checks its election node is not even needed here.
    /// They are interchangeable and kept in order, so that which of them is called 0 may change from step to step.
    pub controllers: [Controller; 2],
    /// The highest stamp under which a write was ever accepted.
    pub newest_writer: Stamp,
    /// A write was accepted under a lower stamp after that.
    pub went_back: bool,
    /// Faults used up.
    pub spent: Spent,
}

impl State {
    /// The last version of the record.
    pub fn last(&self) -> u8 {
        self.records.len() as u8 - 1
    }

    /// A version of the record.
    pub fn record(&self, version: u8) -> Record {
        self.records[version as usize]
    }

    /// Who accepts writes.
    pub fn writers(&self) -> impl Iterator<Item = &Agent> {
        self.agents.iter().filter(|a| a.writes())
    }
}

impl Agent {
    /// Whether its server accepts writes.
    pub fn writes(&self) -> bool {
        self.role == Role::Master && !self.office.paused
    }

    /// Its server accepts no writes any more, proven; of its office nothing is left.
    pub fn fence(&mut self) {
        self.role = Role::Quiet;
        self.office = Office::default();
    }

    /// A command shows a stamp: whatever it held under a lower one ends.
    pub fn sees(&mut self, stamp: Stamp) {
        if stamp > self.stamp {
            self.stamp = stamp;
            self.fence();
        }
    }
}
