//! What can happen next. Any message about any version of the record may arrive at any time, once, often or never: that is how loss,
//! delay, repetition and reordering are modelled. An answer to a controller needs no delay of its own: it only allows the controller to
//! act, and the controller may wait.

use super::state::{Fate, NOBODY, Phase, Role, State};
use super::{Model, Rule};
use crate::set::Set;
use std::fmt;

/// One step. Controllers and agents are named by number, versions of the record by position.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Action {
    /// Time passes; the clock of the lease holder named, if any, misses it.
    Tick(Option<u8>),
    /// Controller reads the last version of the record. An older one, read from a server that lags, would allow it nothing.
    Read(u8),
    /// Controller sees the lease.
    See(u8),
    /// Controller deposes the master.
    Depose(u8),
    /// Controller names a winner.
    Promote(u8, u8),
    /// Controller lists an instance as a member.
    Add(u8, u8),
    /// Controller removes a member.
    Remove(u8, u8),
    /// Controller names the first master again, in the same epoch (only without [`Rule::UndoIsNewEpoch`]).
    Undo(u8),
    /// ZooKeeper loses everything.
    Emptied,
    /// Controller makes the record anew; the highest epoch it found is that of this agent.
    Remake(u8, u8),
    /// Controller adopts a live master into a record made anew.
    Adopt(u8, u8),
    /// The fence of a deposing version reaches the old master's agent.
    Fence(u8),
    /// The question of a deposing version reaches a witness.
    Witness(u8, u8),
    /// The assignment of a version reaches the winner's agent.
    Assign(u8),
    /// Agent holds writes for a planned change.
    Hold(u8),
    /// Agent is told that the planned change was given up.
    Resume(u8),
    /// Agent reads a later version of the record, perhaps not the last.
    AgentReads(u8, u8),
    /// Agent renews by reading (only without [`Rule::RenewalCommits`]).
    RenewByReading(u8),
    /// Agent sends a renewal that names whom it would ask.
    Renew(u8, Set),
    /// The renewal reaches ZooKeeper.
    RenewalArrives(u8),
    /// Its answer reaches the agent.
    RenewalAnswered(u8),
    /// The agent gives the renewal up.
    RenewalGivenUp(u8),
    /// A renewal that was given up reaches ZooKeeper.
    StrayArrives(u8),
    /// The winner's server is opened for writes.
    Open(u8),
    /// Agent begins a round of failsafe.
    AskPromises(u8),
    /// A member promises to a master.
    Promise(u8, u8),
    /// The master hears the promise of a member.
    HearPromise(u8, u8),
    /// Agent and server restart, with their data.
    Restart(u8),
    /// Agent and server are gone for ever.
    Die(u8),
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Action::Tick(None) => write!(f, "a tick passes"),
            Action::Tick(Some(i)) => write!(f, "a tick passes that agent {i}'s clock misses"),
            Action::Read(c) => write!(f, "controller {c} reads the record"),
            Action::See(c) => write!(f, "controller {c} sees the lease"),
            Action::Depose(c) => write!(f, "controller {c} deposes the master"),
            Action::Promote(c, i) => write!(f, "controller {c} names {i} as winner"),
            Action::Add(c, i) => write!(f, "controller {c} lists {i} as a member"),
            Action::Remove(c, i) => write!(f, "controller {c} removes member {i}"),
            Action::Undo(c) => write!(f, "controller {c} names the first master again, in the same epoch"),
            Action::Emptied => write!(f, "ZooKeeper loses everything"),
            Action::Remake(c, i) => write!(f, "controller {c} makes the record anew, above the epoch of agent {i}"),
            Action::Adopt(c, i) => write!(f, "controller {c} adopts master {i}"),
            Action::Fence(v) => write!(f, "the fence of version {v} is obeyed and confirmed"),
            Action::Witness(v, i) => write!(f, "agent {i} acknowledges version {v} as a witness"),
            Action::Assign(v) => write!(f, "the assignment of version {v} reaches its winner"),
            Action::Hold(i) => write!(f, "agent {i} holds writes for a planned change"),
            Action::Resume(i) => write!(f, "agent {i} hears that the planned change was given up"),
            Action::AgentReads(i, v) => write!(f, "agent {i} reads version {v}"),
            Action::RenewByReading(i) => write!(f, "agent {i} reads that it is master and takes that for a lease"),
            Action::Renew(i, asks) => write!(f, "agent {i} sends a renewal, would ask {asks:?}"),
            Action::RenewalArrives(i) => write!(f, "the renewal of agent {i} reaches ZooKeeper"),
            Action::RenewalAnswered(i) => write!(f, "agent {i} has the answer to its renewal"),
            Action::RenewalGivenUp(i) => write!(f, "agent {i} gives its renewal up"),
            Action::StrayArrives(i) => write!(f, "the renewal that agent {i} gave up reaches ZooKeeper"),
            Action::Open(i) => write!(f, "agent {i} opens its server for writes"),
            Action::AskPromises(i) => write!(f, "agent {i} asks for promises"),
            Action::Promise(i, k) => write!(f, "agent {k} promises to {i}"),
            Action::HearPromise(i, k) => write!(f, "agent {i} hears the promise of {k}"),
            Action::Restart(i) => write!(f, "agent {i} restarts with its data"),
            Action::Die(i) => write!(f, "agent {i} is gone for ever"),
        }
    }
}

impl Model {
    /// Everything that can happen in a state. What changes nothing is filtered out by the step.
    pub(super) fn possible(&self, s: &State, out: &mut Vec<Action>) {
        out.push(Action::Tick(None));
        for c in 0..self.bounds.controllers {
            self.controller_may(s, c, out);
        }
        self.messages(s, out);
        for i in 0..NOBODY {
            let agent = &s.agents[i as usize];
            if agent.gone {
                continue;
            }
            if agent.role != Role::Quiet {
                self.office_may(s, i, out);
            }
            if s.spent.restarts < self.bounds.restarts {
                out.push(Action::Restart(i));
            }
            if s.spent.deaths < self.bounds.deaths {
                out.push(Action::Die(i));
            }
        }
        if s.spent.losses < self.bounds.losses && !s.emptied {
            out.push(Action::Emptied);
        }
    }

    fn controller_may(&self, s: &State, c: u8, out: &mut Vec<Action>) {
        let last = s.last();
        let me = &s.controllers[c as usize];
        if me.version < last && !s.emptied {
            out.push(Action::Read(c));
        }
        if s.emptied {
            if self.room(s) {
                out.extend((0..NOBODY).filter(|i| !s.agents[*i as usize].gone).map(|i| Action::Remake(c, i)));
            }
            return;
        }
        if self.bounds.watching && s.record(last).phase == Phase::Named {
            out.push(Action::See(c));
        }
        if (me.version == last || !self.keeps(Rule::CompareAndSet)) && self.room(s) {
            match s.record(me.version).phase {
                Phase::Named => self.named_may(s, c, out),
                Phase::Deposing => self.deposing_may(s, c, out),
            }
        }
    }

    fn named_may(&self, s: &State, c: u8, out: &mut Vec<Action>) {
        let record = s.record(s.controllers[c as usize].version);
        if record.stamp.epoch < self.bounds.epochs {
            out.push(Action::Depose(c));
        }
        for i in (0..NOBODY).filter(|i| *i != record.master) {
            if self.bounds.adding && !record.members.has(i) {
                out.push(Action::Add(c, i));
            }
            if self.bounds.removing && record.members.has(i) {
                out.push(Action::Remove(c, i));
            }
        }
        if !self.keeps(Rule::UndoIsNewEpoch) && record.master != s.record(0).master {
            out.push(Action::Undo(c));
        }
    }

    fn deposing_may(&self, s: &State, c: u8, out: &mut Vec<Action>) {
        let record = s.record(s.controllers[c as usize].version);
        for i in 0..NOBODY {
            let agent = &s.agents[i as usize];
            let adoptable = agent.writes() || agent.role == Role::Master && !self.keeps(Rule::AdoptOnlyWriter);
            if record.master == NOBODY && adoptable {
                out.push(Action::Adopt(c, i));
            }
            if self.has_evidence(s, c) && !agent.gone {
                out.push(Action::Promote(c, i));
            }
        }
    }

    fn messages(&self, s: &State, out: &mut Vec<Action>) {
        for (version, record) in s.records.iter().enumerate() {
            let version = version as u8;
            match record.phase {
                Phase::Deposing => {
                    if record.master != NOBODY {
                        out.push(Action::Fence(version));
                    }
                    out.extend(record.witnesses.without(record.master).iter().map(|k| Action::Witness(version, k)));
                }
                Phase::Named if version > 0 => out.push(Action::Assign(version)),
                Phase::Named => {}
            }
        }
    }

    fn office_may(&self, s: &State, i: u8, out: &mut Vec<Action>) {
        let agent = &s.agents[i as usize];
        let office = &agent.office;
        out.extend((office.version + 1..=s.last()).filter(|_| !s.emptied).map(|v| Action::AgentReads(i, v)));
        self.renewal_may(s, i, out);
        if agent.role == Role::Winner {
            if office.committed && (office.lease > 0 || !self.keeps(Rule::OpenUnderLease)) {
                out.push(Action::Open(i));
            }
            return;
        }
        if s.spent.holds < self.bounds.holds && !office.held {
            out.push(Action::Hold(i));
        }
        if self.bounds.holds > 0 {
            out.push(Action::Resume(i));
        }
        match office.round {
            None if office.failsafe > 0 || self.failsafe_is_endless() => out.push(Action::AskPromises(i)),
            None => {}
            Some(round) => {
                for k in self.asked(office).without(i).iter() {
                    if !office.promised.has(k) && !s.agents[k as usize].gone {
                        out.push(Action::Promise(i, k));
                    } else if office.promised.has(k) && !round.heard.has(k) {
                        out.push(Action::HearPromise(i, k));
                    }
                }
            }
        }
    }

    fn renewal_may(&self, s: &State, i: u8, out: &mut Vec<Action>) {
        let office = &s.agents[i as usize].office;
        match office.renewal.map(|r| r.fate) {
            None => {
                let members = s.record(office.version).members.without(i);
                // One that fails its check only adds to those who must promise: it need not be sent.
                let useful = self.stands(s, office.version) || !self.keeps(Rule::GenerationChecked);
                if useful && self.bounds.choosing {
                    out.extend(members.subsets().map(|asks| Action::Renew(i, asks)));
                } else if useful {
                    out.push(Action::Renew(i, members));
                }
                if !self.keeps(Rule::RenewalCommits) {
                    out.push(Action::RenewByReading(i));
                }
            }
            Some(Fate::Sent) => out.extend([Action::RenewalArrives(i), Action::RenewalGivenUp(i)]),
            Some(Fate::Committed) => out.extend([Action::RenewalAnswered(i), Action::RenewalGivenUp(i)]),
        }
        if office.stray.is_some() {
            out.push(Action::StrayArrives(i));
        }
    }

    fn room(&self, s: &State) -> bool {
        s.records.len() < self.bounds.versions as usize
    }
}
