//! Who may write: lease, evidence, failsafe, and the record made anew.

mod actions;
mod agent;
mod bounds;
mod controller;
mod properties;
mod rules;
mod runs;
mod state;

pub use actions::Action;
pub use bounds::Bounds;
pub use rules::Rule;
pub use state::State;

use crate::protocol::{Protocol, Removal, Sound};
use crate::set::Set;
use state::{Agent, Controller, Fate, Lease, NOBODY, Office, Phase, Record, Role, Spent, Stamp};

/// The protocol within bounds, whole or without one rule.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    bounds: Bounds,
    dropped: Option<Rule>,
}

impl Model {
    fn keeps(&self, rule: Rule) -> bool {
        self.dropped != Some(rule)
    }

    /// A lease and its margin: how long a promise lasts, and how long a controller waits.
    fn promise_time(&self) -> u8 {
        self.bounds.lease + if self.keeps(Rule::DriftMargin) { self.bounds.margin } else { 0 }
    }

    fn failsafe_length(&self) -> u8 {
        self.bounds.failsafe_max.unwrap_or(0)
    }

    fn failsafe_is_endless(&self) -> bool {
        self.bounds.failsafe_max.is_none() || !self.keeps(Rule::FailsafeEnds)
    }

    fn first_state(&self) -> State {
        let members = self.bounds.members;
        let stamp = Stamp { generation: 0, epoch: 1 };
        let replica = Agent { stamp, promise: 0, gone: false, role: Role::Quiet, office: Office::default() };
        let office =
            Office { lease: self.bounds.lease, committed_asks: members, failsafe: self.failsafe_length(), ..Office::default() };
        let master = Agent { role: Role::Master, office, ..replica };
        let record = Record { stamp, number: 0, phase: Phase::Named, master: 0, members, witnesses: Set::NONE, released: true };
        State {
            records: vec![record],
            emptied: false,
            lease: Some(Lease { holder: 0, version: 0, asks: members }),
            agents: [master, replica, replica],
            controllers: [Controller::default(); 2],
            newest_writer: stamp,
            went_back: false,
            spent: Spent::default(),
        }
    }

    fn apply(&self, s: &mut State, action: Action) -> Option<()> {
        match action {
            Action::Tick(slow) => self.tick(s, slow),
            Action::Read(c) => self.read(s, c),
            Action::See(c) => s.controllers[c as usize].saw = Some((s.lease, 0)),
            Action::Depose(c) => self.depose(s, c),
            Action::Promote(c, i) => self.promote(s, c, i),
            Action::Add(c, i) => self.relist(s, c, |members| members.with(i)),
            Action::Remove(c, i) => self.relist(s, c, |members| members.without(i)),
            Action::Undo(c) => self.undo(s, c),
            Action::Emptied => self.empty(s),
            Action::Remake(c, i) => self.remake(s, c, i)?,
            Action::Adopt(c, i) => self.adopt(s, c, i),
            Action::Fence(version) => self.fence(s, version)?,
            Action::Witness(version, k) => self.witness(s, version, k)?,
            Action::Assign(version) => self.assign(s, version)?,
            Action::Hold(i) => self.hold(s, i),
            Action::Resume(i) => self.resume(s, i),
            Action::AgentReads(i, version) => self.agent_reads(s, i, version),
            Action::RenewByReading(i) => self.renew_by_reading(s, i),
            Action::Renew(i, asks) => self.renew(s, i, asks),
            Action::RenewalArrives(i) => self.renewal_arrives(s, i)?,
            Action::RenewalAnswered(i) => self.renewal_answered(s, i)?,
            Action::RenewalGivenUp(i) => self.renewal_given_up(s, i)?,
            Action::StrayArrives(i) => self.stray_arrives(s, i)?,
            Action::Open(i) => self.open(s, i),
            Action::AskPromises(i) => self.ask_promises(s, i),
            Action::Promise(i, k) => self.promise(s, i, k)?,
            Action::HearPromise(i, k) => self.hear_promise(s, i, k)?,
            Action::Restart(i) => self.restart(s, i),
            Action::Die(i) => self.die(s, i),
        }
        self.settle(s);
        Some(())
    }

    /// A tick. Promises run on the promiser's clock; a clock that misses it is that of a lease holder.
    fn tick(&self, s: &mut State, slow: Option<u8>) {
        s.spent.skips += u8::from(slow.is_some());
        for (i, agent) in s.agents.iter_mut().enumerate() {
            agent.promise = agent.promise.saturating_sub(1);
            if slow != Some(i as u8) {
                self.agent_tick(agent);
            }
        }
        let longest = self.promise_time() + self.failsafe_length();
        for c in &mut s.controllers {
            c.waited = (c.waited + 1).min(longest);
            if let Some((_, age)) = c.saw.as_mut() {
                *age = (*age + 1).min(longest);
            }
        }
    }

    fn empty(&self, s: &mut State) {
        s.spent.losses += 1;
        s.emptied = true;
        s.lease = None;
        for c in &mut s.controllers {
            c.saw = None;
        }
    }

    /// Notes who writes, and forgets what cannot matter any more, so that states that differ in nothing else are one.
    fn settle(&self, s: &mut State) {
        for stamp in s.agents.iter().filter(|a| a.writes()).map(|a| a.stamp) {
            s.went_back |= stamp < s.newest_writer;
            s.newest_writer = s.newest_writer.max(stamp);
        }
        let last = s.last();
        if s.record(last).phase == Phase::Deposing {
            s.lease = None;
        }
        for c in 0..2 {
            self.settle_controller(s, c);
        }
        s.controllers.sort_unstable();
        for i in 0..NOBODY as usize {
            self.settle_office(s, i);
        }
    }

    fn settle_controller(&self, s: &mut State, c: usize) {
        let me = s.controllers[c];
        let current = me.version == s.last() && !s.emptied;
        let version = if current || !self.keeps(Rule::CompareAndSet) { me.version } else { 0 };
        let record = s.record(version);
        let nothing = Controller { version, saw: me.saw, ..Controller::default() };
        let no_use_in_waiting = record.witnesses.is_empty() && self.bounds.failsafe_max.is_none();
        s.controllers[c] = match record.phase {
            Phase::Named => nothing,
            Phase::Deposing if record.released => nothing,
            Phase::Deposing if me.confirmed => Controller { confirmed: true, ..nothing },
            Phase::Deposing if no_use_in_waiting && self.keeps(Rule::Witness) => nothing,
            Phase::Deposing => Controller { version, ..me },
        };
    }

    fn settle_office(&self, s: &mut State, i: usize) {
        let gone_by = |version| !self.stands(s, version) && self.keeps(Rule::GenerationChecked);
        let mut agent = s.agents[i];
        let office = &mut agent.office;
        office.renewal = office.renewal.filter(|r| r.fate == Fate::Committed || !gone_by(r.version));
        office.stray = office.stray.filter(|(version, _)| !gone_by(*version));
        if office.round.is_none() && self.keeps(Rule::PromiseForRound) {
            office.promised = Set::NONE;
        }
        // A winner whom the record does not name any more, without a lease or a commit to hear of, can never open.
        let same = s.record(s.last()).stamp == agent.stamp && !s.emptied;
        let hopeless = agent.role == Role::Winner && !same && office.lease == 0 && office.renewal.is_none();
        if hopeless && self.openings_are_sound() {
            agent.fence();
        }
        s.agents[i] = agent;
    }

    fn openings_are_sound(&self) -> bool {
        let rules =
            [Rule::RenewalCommits, Rule::OpenUnderLease, Rule::RenewBeforeOpening, Rule::GenerationChecked, Rule::CompareAndSet];
        rules.iter().all(|rule| self.keeps(*rule))
    }
}

impl Protocol for Model {
    type Bounds = Bounds;
    type Rule = Rule;

    const NAME: &'static str = "lease";
    const SOUND: &'static [Sound<Bounds>] = runs::SOUND;
    const REMOVALS: &'static [Removal<Rule, Bounds>] = runs::REMOVALS;

    fn sound(bounds: Bounds) -> Model {
        Model { bounds, dropped: None }
    }

    fn without(rule: Rule, bounds: Bounds) -> Model {
        Model { bounds, dropped: Some(rule) }
    }

    fn view(s: &State) -> String {
        let writers = s.agents.iter().enumerate().filter(|(_, a)| a.writes());
        let writers: Vec<_> = writers.map(|(i, a)| format!("{i} in epoch {}", a.stamp.epoch)).collect();
        if writers.is_empty() { "nobody writes".to_owned() } else { format!("writes: {}", writers.join(" and ")) }
    }
}

impl stateright::Model for Model {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.first_state()]
    }

    fn actions(&self, s: &State, out: &mut Vec<Action>) {
        for i in 0..NOBODY {
            if s.spent.skips < self.bounds.skips && s.agents[i as usize].office.lease > 0 {
                out.push(Action::Tick(Some(i)));
            }
        }
        self.possible(s, out);
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut after = before.clone();
        self.apply(&mut after, action)?;
        (after != *before).then_some(after)
    }

    fn properties(&self) -> Vec<stateright::Property<Self>> {
        properties::of(self)
    }
}
