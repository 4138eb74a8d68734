//! What there is: three servers with their copies, the record, and what the controller has heard while it chooses.

use crate::set::Set;

/// Instances of the cluster.
pub const INSTANCES: usize = 3;

/// The writes a server holds, in order.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
pub struct Log {
    /// How many; what Redis calls the offset.
    pub len: u8,
    writes: [u8; 3],
}

impl Log {
    /// With one write more.
    pub fn push(&mut self, write: u8) {
        self.writes[self.len as usize] = write;
        self.len += 1;
    }

    /// Its writes.
    pub fn writes(&self) -> &[u8] {
        &self.writes[..self.len as usize]
    }

    /// Whether it holds a write.
    pub fn holds(&self, write: u8) -> bool {
        self.writes().contains(&write)
    }

    /// Whether the other begins with it.
    pub fn begins(&self, other: &Log) -> bool {
        other.writes().starts_with(self.writes())
    }
}

/// What a server does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// Accepts writes.
    Master,
    /// Follows, or would.
    Replica,
}

/// A server.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Server {
    /// It runs.
    pub up: bool,
    /// Its host is silent for ever: nobody can prove anything about it.
    pub silent: bool,
    /// How often it was started before: the run id.
    pub run: u8,
    /// Its role.
    pub role: Role,
    /// It replicates from the master.
    pub linked: bool,
    /// Its copy.
    pub log: Log,
    /// The copy that is being loaded; until then `log` is empty.
    pub loading: Option<Log>,
    /// It has held a complete copy since it started.
    pub complete: bool,
    /// It was cut from the master of this epoch.
    pub cut: bool,
}

/// One run of one server: instance, and starts before.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Member {
    /// Instance.
    pub instance: u8,
    /// Starts before.
    pub run: u8,
}

/// What a survivor said about its copy.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Answer {
    /// The run that said it.
    pub run: u8,
    /// Its copy.
    pub log: Log,
    /// The copy is complete.
    pub complete: bool,
    /// It has completed no copy since it started, and so confirmed nothing.
    pub confirmed_nothing: bool,
    /// It is loading a copy that may still become complete.
    pub loading: bool,
}

/// Whether there is a master.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Phase {
    /// Named.
    Named,
    /// Deposed; somebody is being chosen.
    Deposing {
        /// The change was planned, with the old master's help.
        planned: bool,
    },
}

/// How much of each bounded event has been used up.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
pub struct Spent {
    /// Faults.
    pub faults: u8,
    /// Broken links.
    pub flaps: u8,
    /// Planned changes.
    pub switches: u8,
    /// Removals begun.
    pub removals: u8,
}

/// The whole.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct State {
    /// The servers.
    pub servers: [Server; INSTANCES],
    /// The record: epoch.
    pub epoch: u8,
    /// The record: phase.
    pub phase: Phase,
    /// The record: the master, or the deposed one.
    pub master: Member,
    /// The record: members, by number: instance, or instance + 3 once restarted.
    pub members: Set,
    /// The record: members marked for removal.
    pub removing: Set,
    /// The record: how long the winner's copy was when each epoch began.
    pub begins: [u8; 4],
    /// Members of the record that the master's last committed renewal checked.
    pub renewed_members: Set,
    /// Its marks.
    pub renewed_removing: Set,
    /// Marked members whose mark the master has renewed against since it was set.
    pub mark_seen: Set,
    /// What the master confirmed: the member it cut, what was written up to then, and whether that was for the mark as it stands.
    pub cut_off: Option<(u8, u8, bool)>,
    /// Answers in this epoch.
    pub answers: [Option<Answer>; INSTANCES],
    /// Agents that the controller cannot reach.
    pub unreachable: Set,
    /// Writes so far.
    pub written: u8,
    /// The epoch each was written in.
    pub written_in: [u8; 4],
    /// Writes confirmed to their client.
    pub confirmed: Set,
    /// Replicas that must hold a write before it is confirmed.
    pub acks: u8,
    /// The fewest in force since all members last held everything.
    pub fewest_acks: u8,
    /// A planned change has lost a write that the old master, alive, held.
    pub lost_by_plan: bool,
    /// Used up.
    pub spent: Spent,
}

impl State {
    /// The instance that serves as master, if its server runs and was not fenced.
    pub fn serving(&self) -> Option<usize> {
        let i = self.master.instance as usize;
        let server = &self.servers[i];
        (server.up && server.run == self.master.run && server.role == Role::Master).then_some(i)
    }

    /// Whether a server replicates from a living master and holds a complete copy.
    pub fn follows(&self, i: usize) -> bool {
        self.linked(i) && self.servers[i].loading.is_none()
    }

    /// Whether a server is linked to a living master.
    pub fn linked(&self, i: usize) -> bool {
        let server = &self.servers[i];
        server.up && server.linked && self.serving().is_some_and(|m| m != i)
    }

    /// Whether the controller can ask an instance.
    pub fn answers_us(&self, i: usize) -> bool {
        self.servers[i].up && !self.unreachable.has(i as u8)
    }

    /// Whether somebody is being chosen.
    pub fn choosing(&self) -> bool {
        self.phase != Phase::Named
    }
}
