//! What can happen next: clients and replication, faults, membership, and a change of master.

use super::state::{INSTANCES, Role, State};
use super::{Model, Rule};
use std::fmt;

/// One step. Servers are named by instance, members by number: instance, or instance + 3 for a restarted server.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Action {
    /// The master accepts a write.
    Write,
    /// A replica receives the next write.
    Replicate(usize),
    /// A write is confirmed to its client.
    Confirm(u8),
    /// The number of confirmations is raised.
    RaiseAcks,
    /// All members are seen to hold everything.
    AllHoldAll,
    /// A server links to the master.
    Link(usize),
    /// A link breaks, and a full copy begins again.
    Flap(usize),
    /// A full copy is loaded.
    Loaded(usize),
    /// A server crashes; its agent lives and can prove it.
    Crash(usize),
    /// It starts again, empty.
    Restart(usize),
    /// A host goes silent for ever.
    Vanish(usize),
    /// The controller cannot reach an agent any more.
    CutOff(usize),
    /// It can again.
    Heal(usize),
    /// A server is listed.
    Add(usize),
    /// The master's renewal is committed against the record as it stands.
    Renew,
    /// A member is marked for removal.
    Mark(u8),
    /// The master cuts a member and confirms that.
    CutMember(u8),
    /// A member is removed.
    Remove(u8),
    /// The master is deposed.
    Depose,
    /// The master is deposed for a planned change.
    Switch,
    /// The old master stops accepting writes: fenced, or at the end of its lease.
    Stop,
    /// A survivor is cut and asked.
    Ask(usize),
    /// A candidate that may lead takes over the longest copy, closed.
    CatchUp(usize),
    /// The winner is named and opens.
    Promote(usize),
    /// The assignment reaches the winner's instance again (only without [`Rule::AssignmentForOneRun`]).
    AssignAgain,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Action::Write => write!(f, "the master accepts a write"),
            Action::Replicate(i) => write!(f, "replica {i} receives the next write"),
            Action::Confirm(x) => write!(f, "write {x} is confirmed"),
            Action::RaiseAcks => write!(f, "one confirmation more is asked for from now on"),
            Action::AllHoldAll => write!(f, "all members are seen to hold everything"),
            Action::Link(i) => write!(f, "server {i} links to the master"),
            Action::Flap(i) => write!(f, "the link of {i} breaks; it begins a full copy"),
            Action::Loaded(i) => write!(f, "server {i} has loaded its copy"),
            Action::Crash(i) => write!(f, "server {i} crashes"),
            Action::Restart(i) => write!(f, "server {i} starts again, empty"),
            Action::Vanish(i) => write!(f, "host {i} goes silent for ever"),
            Action::CutOff(i) => write!(f, "agent {i} is cut off from the controller"),
            Action::Heal(i) => write!(f, "agent {i} can be reached again"),
            Action::Add(i) => write!(f, "server {i} is listed as a member"),
            Action::Renew => write!(f, "the master renews against the record as it stands"),
            Action::Mark(m) => write!(f, "member {m} is marked for removal"),
            Action::CutMember(m) => write!(f, "the master cuts member {m}"),
            Action::Remove(m) => write!(f, "member {m} is removed"),
            Action::Depose => write!(f, "the master is deposed"),
            Action::Switch => write!(f, "a planned change begins: the master is deposed"),
            Action::Stop => write!(f, "the old master stops"),
            Action::Ask(i) => write!(f, "server {i} is asked"),
            Action::CatchUp(i) => write!(f, "server {i} takes over the longest copy"),
            Action::Promote(i) => write!(f, "server {i} is promoted"),
            Action::AssignAgain => write!(f, "the assignment reaches the winner's instance again"),
        }
    }
}

impl Model {
    /// Everything that can happen in a state.
    pub(super) fn possible(&self, s: &State, out: &mut Vec<Action>) {
        self.traffic(s, out);
        self.faults(s, out);
        if s.choosing() {
            self.choosing_may(s, out);
        } else {
            self.named_may(s, out);
        }
    }

    fn traffic(&self, s: &State, out: &mut Vec<Action>) {
        for i in 0..INSTANCES {
            let server = &s.servers[i];
            if server.up && server.loading.is_some() && (!self.bounds.diskless || s.linked(i)) {
                out.push(Action::Loaded(i));
            }
        }
        let Some(master) = s.serving() else { return };
        let held = s.servers[master].log;
        if s.written < self.bounds.writes {
            out.push(Action::Write);
        }
        let open = held.writes().iter().filter(|x| !s.confirmed.has(**x));
        out.extend(open.filter(|x| self.enough_hold(s, **x)).map(|x| Action::Confirm(*x)));
        for i in (0..INSTANCES).filter(|i| *i != master && s.servers[*i].up) {
            if s.follows(i) && s.servers[i].log.len < held.len {
                out.push(Action::Replicate(i));
            }
            if s.linked(i) && s.spent.flaps < self.bounds.flaps {
                out.push(Action::Flap(i));
            }
            if !s.servers[i].linked && s.servers[i].role == Role::Replica && self.may_link(s, i) {
                out.push(Action::Link(i));
            }
        }
    }

    fn faults(&self, s: &State, out: &mut Vec<Action>) {
        let more = s.spent.faults < self.bounds.faults;
        for i in 0..INSTANCES {
            let server = &s.servers[i];
            if more && server.up {
                out.extend([Action::Crash(i), Action::Vanish(i)]);
                if !s.unreachable.has(i as u8) {
                    out.push(Action::CutOff(i));
                }
            }
            if s.unreachable.has(i as u8) && server.up {
                out.push(Action::Heal(i));
            }
            if !server.up && !server.silent && server.run == 0 {
                out.push(Action::Restart(i));
            }
        }
    }

    fn named_may(&self, s: &State, out: &mut Vec<Action>) {
        let master = s.serving();
        let known = s.members.union(s.removing);
        for i in 0..INSTANCES {
            if s.answers_us(i) && i != s.master.instance as usize && !known.has(self.bit(s, i)) {
                out.push(Action::Add(i));
            }
        }
        if master.is_some_and(|m| !s.unreachable.has(m as u8)) {
            if (s.renewed_members, s.renewed_removing) != (s.members, s.removing) {
                out.push(Action::Renew);
            }
            self.removal(s, out);
        }
        if s.epoch < self.bounds.epochs {
            out.push(Action::Depose);
            if s.spent.switches < self.bounds.switches && master.is_some() {
                out.push(Action::Switch);
            }
        }
        if self.bounds.raise && s.acks == self.bounds.acks {
            out.push(Action::RaiseAcks);
        }
        if s.fewest_acks < s.acks && self.all_hold_all(s) {
            out.push(Action::AllHoldAll);
        }
        if !self.keeps(Rule::AssignmentForOneRun) && self.restarted_winner(s) {
            out.push(Action::AssignAgain);
        }
    }

    fn choosing_may(&self, s: &State, out: &mut Vec<Action>) {
        let stopped = s.serving().is_none();
        if !stopped {
            out.push(Action::Stop);
        }
        for i in 0..INSTANCES {
            let still_master = !stopped && i == s.master.instance as usize;
            if s.answers_us(i) && !still_master && self.worth_asking(s, i) {
                out.push(Action::Ask(i));
            }
            if stopped && self.may_lead(s, i) {
                out.push(Action::Promote(i));
            }
            if stopped && self.may_catch_up(s, i) {
                out.push(Action::CatchUp(i));
            }
        }
    }
}
