//! Steps of the agents: commands obeyed or refused, renewal, opening, failsafe, restarts.

use super::state::{Agent, Fate, Lease, Office, Phase, Renewal, Role, Round, State};
use super::{Model, Rule};
use crate::set::Set;

impl Model {
    /// A fence for a deposing version: obeyed unless the agent knows better.
    pub(super) fn fence(&self, s: &mut State, version: u8) -> Option<()> {
        let record = s.record(version);
        let agent = &mut s.agents[record.master as usize];
        let knows_later = agent.stamp == record.stamp && agent.office.version > version;
        if agent.gone || agent.stamp > record.stamp || knows_later {
            return None;
        }
        agent.stamp = record.stamp;
        agent.fence();
        for c in s.controllers.iter_mut().filter(|c| c.version == version) {
            c.confirmed = true;
        }
        Some(())
    }

    /// The question to a witness. It learns the epoch in any case; it speaks when no promise runs.
    pub(super) fn witness(&self, s: &mut State, version: u8, k: u8) -> Option<()> {
        let stamp = s.record(version).stamp;
        let agent = &mut s.agents[k as usize];
        if agent.gone || agent.stamp > stamp {
            return None;
        }
        agent.sees(stamp);
        if agent.promise == 0 || !self.keeps(Rule::WitnessFreeOfPromises) {
            for c in s.controllers.iter_mut().filter(|c| c.version == version) {
                c.witnessed = true;
            }
        }
        Some(())
    }

    /// The assignment of a winner: it starts closed, and renews before it opens.
    pub(super) fn assign(&self, s: &mut State, version: u8) -> Option<()> {
        let record = s.record(version);
        let lease = self.bounds.lease;
        let failsafe = self.failsafe_length();
        let agent = &mut s.agents[record.master as usize];
        let known = agent.stamp == record.stamp && agent.office.version >= version;
        if agent.gone || agent.stamp > record.stamp || known {
            return None;
        }
        agent.fence();
        agent.stamp = record.stamp;
        agent.role = Role::Winner;
        agent.office.version = version;
        if !self.keeps(Rule::RenewBeforeOpening) {
            agent.role = Role::Master;
            agent.office = Office { version, lease, failsafe, committed: true, committed_asks: record.members, ..agent.office };
        }
        Some(())
    }

    /// An agent in office reads the record: it goes on if it is still named, in place when a record made anew adopts it.
    pub(super) fn agent_reads(&self, s: &mut State, i: u8, version: u8) {
        let record = s.record(version);
        let agent = &mut s.agents[i as usize];
        let same = record.stamp == agent.stamp;
        let adopted = agent.role == Role::Master && record.stamp.generation > agent.stamp.generation;
        if record.phase == Phase::Named && record.master == i && (same || adopted) {
            agent.stamp = record.stamp;
            agent.office.version = version;
        } else {
            agent.fence();
            agent.stamp = agent.stamp.max(record.stamp);
        }
    }

    /// Sends a renewal.
    pub(super) fn renew(&self, s: &mut State, i: u8, asks: Set) {
        let office = &mut s.agents[i as usize].office;
        office.renewal = Some(Renewal { version: office.version, asks, age: 0, fate: Fate::Sent });
        office.sent_asks = office.sent_asks.union(asks);
    }

    /// A renewal reaches ZooKeeper, which commits it if the record still stands.
    pub(super) fn renewal_arrives(&self, s: &mut State, i: u8) -> Option<()> {
        let renewal = s.agents[i as usize].office.renewal.filter(|r| self.stands(s, r.version))?;
        let office = &mut s.agents[i as usize].office;
        office.renewal = Some(Renewal { fate: Fate::Committed, ..renewal });
        if self.keeps(Rule::RenewalsInOrder) {
            office.stray = None;
        }
        self.set_lease(s, Lease { holder: i, version: renewal.version, asks: renewal.asks });
        Some(())
    }

    /// A renewal that its sender gave up reaches ZooKeeper.
    pub(super) fn stray_arrives(&self, s: &mut State, i: u8) -> Option<()> {
        let (version, asks) = s.agents[i as usize].office.stray.take()?;
        if self.stands(s, version) {
            self.set_lease(s, Lease { holder: i, version, asks });
        }
        Some(())
    }

    /// Whether a renewal against a version passes its checks.
    pub(super) fn stands(&self, s: &State, version: u8) -> bool {
        let (mine, last) = (s.record(version), s.record(s.last()));
        let same_generation = mine.stamp.generation == last.stamp.generation || !self.keeps(Rule::GenerationChecked);
        !s.emptied && mine.number == last.number && same_generation
    }

    fn set_lease(&self, s: &mut State, lease: Lease) {
        s.lease = Some(lease);
        let pins = [Rule::PinWitnesses, Rule::PinHolder, Rule::PinCount];
        for c in &mut s.controllers {
            // What was seen is not the last renewal any more: a deposing commit that checks it would fail.
            if pins.iter().all(|pin| self.keeps(*pin)) {
                c.saw = None;
            } else if let Some((_, age)) = c.saw.as_mut().filter(|_| self.keeps(Rule::PinCount)) {
                *age = 0;
            }
        }
    }

    /// The answer to a renewal. A lease runs from when the renewal was sent.
    pub(super) fn renewal_answered(&self, s: &mut State, i: u8) -> Option<()> {
        let full = self.failsafe_length();
        let agent = &mut s.agents[i as usize];
        let renewal = agent.office.renewal.take()?;
        agent.office.committed = true;
        agent.office.committed_asks = renewal.asks;
        agent.office.sent_asks = Set::NONE;
        agent.office.failsafe = full.saturating_sub(renewal.age);
        self.grant(agent, renewal.age);
        Some(())
    }

    /// The agent stops waiting for a renewal, whatever became of it.
    pub(super) fn renewal_given_up(&self, s: &mut State, i: u8) -> Option<()> {
        let office = &mut s.agents[i as usize].office;
        let renewal = office.renewal.take()?;
        if renewal.fate == Fate::Sent && self.bounds.strays {
            office.stray = Some((renewal.version, renewal.asks));
        }
        Some(())
    }

    /// The agent takes what it read for a lease, which no rule allows.
    pub(super) fn renew_by_reading(&self, s: &mut State, i: u8) {
        let agent = &mut s.agents[i as usize];
        agent.office.committed = true;
        self.grant(agent, 0);
    }

    /// Opens the winner's server.
    pub(super) fn open(&self, s: &mut State, i: u8) {
        s.agents[i as usize].role = Role::Master;
    }

    /// Writes are held for a planned change.
    pub(super) fn hold(&self, s: &mut State, i: u8) {
        s.spent.holds += 1;
        let office = &mut s.agents[i as usize].office;
        office.held = true;
        office.paused = true;
    }

    /// The planned change was given up.
    pub(super) fn resume(&self, s: &mut State, i: u8) {
        let office = &mut s.agents[i as usize].office;
        office.held = false;
        if office.lease > 0 || !self.keeps(Rule::ResumeUnderLease) {
            office.paused = false;
        }
    }

    /// Begins a round of failsafe. Who has nobody to ask goes on alone.
    pub(super) fn ask_promises(&self, s: &mut State, i: u8) {
        let agent = &mut s.agents[i as usize];
        if self.asked(&agent.office).without(i).is_empty() {
            self.grant(agent, 0);
        } else {
            agent.office.round = Some(Round { age: 0, heard: Set::NONE });
        }
    }

    /// Whom a master asks in failsafe.
    pub(super) fn asked(&self, office: &Office) -> Set {
        if self.keeps(Rule::AskUnion) { office.committed_asks.union(office.sent_asks) } else { office.committed_asks }
    }

    /// A member promises to bear no witness for the time of a lease and the margin.
    pub(super) fn promise(&self, s: &mut State, i: u8, k: u8) -> Option<()> {
        let stamp = s.agents[i as usize].stamp;
        let member = &mut s.agents[k as usize];
        if member.stamp > stamp && self.keeps(Rule::PromiseForKnownEpoch) {
            return None;
        }
        member.promise = self.promise_time();
        let office = &mut s.agents[i as usize].office;
        office.promised = office.promised.with(k);
        Some(())
    }

    /// The master hears a promise; when it has all, its lease runs on from when the round was sent.
    pub(super) fn hear_promise(&self, s: &mut State, i: u8, k: u8) -> Option<()> {
        let agent = &mut s.agents[i as usize];
        let mut round = agent.office.round.take()?;
        round.heard = round.heard.with(k);
        let enough = !self.keeps(Rule::EveryMemberPromises) || round.heard.covers(self.asked(&agent.office).without(i));
        if enough {
            self.grant(agent, round.age);
        } else {
            agent.office.round = Some(round);
        }
        Some(())
    }

    /// A lease from something sent `age` ticks ago.
    fn grant(&self, agent: &mut Agent, age: u8) {
        let office = &mut agent.office;
        office.lease = office.lease.max(self.bounds.lease.saturating_sub(age));
        if office.lease > 0 && !office.held {
            office.paused = false;
            office.overdue = false;
        }
    }

    /// Agent and server restart.
    pub(super) fn restart(&self, s: &mut State, i: u8) {
        s.spent.restarts += 1;
        let promise = if self.keeps(Rule::PromiseSurvivesRestart) { self.promise_time() } else { 0 };
        let agent = &mut s.agents[i as usize];
        agent.fence();
        agent.promise = promise;
        if !self.keeps(Rule::EpochSurvivesRestart) {
            agent.stamp = Default::default();
        }
    }

    /// Agent and server go for ever.
    pub(super) fn die(&self, s: &mut State, i: u8) {
        s.spent.deaths += 1;
        let agent = &mut s.agents[i as usize];
        agent.fence();
        agent.promise = 0;
        agent.gone = true;
    }

    /// One tick of an agent's own clock.
    pub(super) fn agent_tick(&self, agent: &mut Agent) {
        let office = &mut agent.office;
        office.failsafe = office.failsafe.saturating_sub(1);
        if office.overdue {
            office.overdue = false;
            office.paused |= office.lease == 0;
        }
        if office.lease > 0 {
            office.lease -= 1;
            if office.lease == 0 && agent.role == Role::Master && !office.paused {
                office.overdue = !self.keeps(Rule::StopBeforeEnd);
                office.paused = !office.overdue;
            }
        }
        if let Some(renewal) = office.renewal.as_mut() {
            renewal.age = (renewal.age + 1).min(self.bounds.failsafe_max.unwrap_or(self.bounds.lease));
        }
        if let Some(round) = office.round.as_mut() {
            round.age += 1;
            if round.age >= self.bounds.lease {
                office.round = None;
            }
        }
    }
}
