//! Steps of the controllers: every change of the record, and what counts as evidence.

use super::state::{Lease, NOBODY, Phase, Record, Stamp, State};
use super::{Model, Rule};
use crate::set::Set;

impl Model {
    /// Whether controller `c`, which sees the master deposed, may name a winner.
    pub(super) fn has_evidence(&self, s: &State, c: u8) -> bool {
        let me = &s.controllers[c as usize];
        let lease_over = me.waited >= self.promise_time();
        let by_witness = lease_over && (me.witnessed || !self.keeps(Rule::Witness));
        let failsafe_over = self.bounds.failsafe_max.is_some_and(|max| me.waited >= max + self.promise_time());
        me.confirmed || by_witness || failsafe_over || s.record(me.version).released
    }

    /// The deposing commit: what it pins of the lease, and what evidence is carried on.
    pub(super) fn depose(&self, s: &mut State, c: u8) {
        let record = s.record(s.controllers[c as usize].version);
        let saw = s.controllers[c as usize].saw;
        let in_office = |lease: Option<Lease>| {
            lease.filter(|l| {
                let renewed = s.record(l.version);
                l.holder == record.master && renewed.master == record.master && renewed.stamp == record.stamp
            })
        };
        let pinned = in_office(s.lease);
        let seen_before = in_office(saw.map_or(s.lease, |(lease, _)| lease));
        let witnesses = if !self.keeps(Rule::WitnessesFromLease) {
            record.members
        } else {
            let lease = if self.keeps(Rule::PinWitnesses) { pinned } else { seen_before };
            lease.map_or(Set::NONE, |l| l.asks)
        };
        let holder = if self.keeps(Rule::PinHolder) { pinned } else { seen_before };
        let released = if !self.keeps(Rule::EvidenceCleared) {
            record.released
        } else {
            holder.is_none() && self.keeps(Rule::NeverInOffice) && (record.released || !self.keeps(Rule::EvidenceCarried))
        };
        let waited = saw.map_or(0, |(_, age)| age);
        let stamp = Stamp { epoch: record.stamp.epoch + 1, ..record.stamp };
        let number = s.record(s.last()).number + 1;
        self.commit(s, c, Record { stamp, number, phase: Phase::Deposing, witnesses, released, ..record });
        s.controllers[c as usize].waited = waited;
        s.lease = None;
    }

    /// The commit that names a winner. Everybody else is listed: those that cannot answer as well.
    pub(super) fn promote(&self, s: &mut State, c: u8, winner: u8) {
        let record = s.record(s.controllers[c as usize].version);
        self.name(s, c, record.stamp, winner, true);
    }

    /// Takes a winner's naming back within its epoch, which no rule allows.
    pub(super) fn undo(&self, s: &mut State, c: u8) {
        let record = s.record(s.controllers[c as usize].version);
        let first = s.record(0).master;
        self.name(s, c, record.stamp, first, true);
    }

    /// Adopts a live master into a record made anew. Nothing is known about masters before it, so nothing is released.
    pub(super) fn adopt(&self, s: &mut State, c: u8, master: u8) {
        let record = s.record(s.controllers[c as usize].version);
        self.name(s, c, record.stamp, master, false);
    }

    fn name(&self, s: &mut State, c: u8, stamp: Stamp, master: u8, released: bool) {
        let number = s.record(s.last()).number + 1;
        let members = Set::first(NOBODY).without(master);
        self.commit(s, c, Record { stamp, number, phase: Phase::Named, master, members, witnesses: Set::NONE, released });
    }

    /// Changes the list of members.
    pub(super) fn relist(&self, s: &mut State, c: u8, change: impl Fn(Set) -> Set) {
        let record = s.record(s.controllers[c as usize].version);
        let number = s.record(s.last()).number + 1;
        let saw = s.controllers[c as usize].saw;
        self.commit(s, c, Record { number, members: change(record.members), ..record });
        s.controllers[c as usize].saw = saw;
    }

    /// Makes the record anew after ZooKeeper lost it: nobody is named, every agent is a possible member.
    pub(super) fn remake(&self, s: &mut State, c: u8, highest: u8) -> Option<()> {
        let epoch = s.agents[highest as usize].stamp.epoch + 1;
        if epoch > self.bounds.epochs {
            return None;
        }
        let generation = s.record(s.last()).stamp.generation + 1;
        s.emptied = false;
        let record = Record {
            stamp: Stamp { generation, epoch },
            number: 0,
            phase: Phase::Deposing,
            master: NOBODY,
            members: Set::first(NOBODY),
            witnesses: Set::NONE,
            released: !self.keeps(Rule::RemadeRecordWaits),
        };
        self.commit(s, c, record);
        Some(())
    }

    /// A controller reads the record. What it had learnt about another version is worth nothing; what it saw of the lease counts on.
    pub(super) fn read(&self, s: &mut State, c: u8) {
        let version = s.last();
        let deposing = s.record(version).phase == Phase::Deposing;
        let me = &mut s.controllers[c as usize];
        let saw = me.saw;
        *me = super::state::Controller { version, ..Default::default() };
        match saw {
            Some((_, age)) if deposing => me.waited = age,
            saw => me.saw = saw,
        }
    }

    fn commit(&self, s: &mut State, c: u8, record: Record) {
        s.records.push(record);
        s.controllers[c as usize] = super::state::Controller { version: s.last(), ..Default::default() };
    }
}
