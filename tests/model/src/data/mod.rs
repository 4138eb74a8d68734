//! What is kept: lineage, members, confirmations, and the choice of a winner. That there is one writer is taken from [`crate::lease`].

mod actions;
mod bounds;
mod choose;
mod members;
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
use state::{INSTANCES, Log, Member, Phase, Role, Server, Spent};

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

    fn first_state(&self) -> State {
        let replica = Server {
            up: true,
            silent: false,
            run: 0,
            role: Role::Replica,
            linked: true,
            log: Log::default(),
            loading: None,
            complete: true,
            cut: false,
        };
        let master = Server { role: Role::Master, linked: false, ..replica };
        let members = Set(0b110);
        State {
            servers: [master, replica, replica],
            epoch: 1,
            phase: Phase::Named,
            master: Member { instance: 0, run: 0 },
            members,
            removing: Set::NONE,
            begins: [0; 4],
            renewed_members: members,
            renewed_removing: Set::NONE,
            mark_seen: Set::NONE,
            cut_off: None,
            answers: [None; INSTANCES],
            unreachable: Set::NONE,
            written: 0,
            written_in: [0; 4],
            confirmed: Set::NONE,
            acks: self.bounds.acks,
            fewest_acks: self.bounds.acks,
            lost_by_plan: false,
            spent: Spent::default(),
        }
    }

    fn apply(&self, s: &mut State, action: Action) -> Option<()> {
        match action {
            Action::Write => self.write(s)?,
            Action::Replicate(i) => {
                let next = s.servers[s.serving()?].log.writes()[s.servers[i].log.len as usize];
                s.servers[i].log.push(next);
            }
            Action::Confirm(x) => s.confirmed = s.confirmed.with(x),
            Action::RaiseAcks => s.acks += 1,
            Action::AllHoldAll => s.fewest_acks = s.acks,
            Action::Link(i) => self.link(s, i)?,
            Action::Flap(i) => {
                s.spent.flaps += 1;
                self.full_copy(s, i)?;
            }
            Action::Loaded(i) => {
                let server = &mut s.servers[i];
                server.log = server.loading.take()?;
                server.complete = true;
            }
            Action::Crash(i) | Action::Vanish(i) => self.crash(s, i, matches!(action, Action::Vanish(_))),
            Action::Restart(i) => {
                let server = &mut s.servers[i];
                (server.up, server.run) = (true, server.run + 1);
            }
            Action::CutOff(i) => {
                s.spent.faults += 1;
                s.unreachable = s.unreachable.with(i as u8);
            }
            Action::Heal(i) => s.unreachable = s.unreachable.without(i as u8),
            Action::Add(i) => s.members = s.members.with(self.bit(s, i)),
            Action::Renew => {
                (s.renewed_members, s.renewed_removing) = (s.members, s.removing);
                s.mark_seen = s.removing;
            }
            Action::Mark(m) => {
                s.spent.removals += 1;
                s.removing = s.removing.with(m);
                s.mark_seen = s.mark_seen.without(m);
                s.cut_off = s.cut_off.map(|(member, upto, valid)| (member, upto, valid && member != m));
            }
            Action::CutMember(m) => self.cut_member(s, m)?,
            Action::Remove(m) => {
                s.spent.removals += u8::from(!self.keeps(Rule::CutBeforeRemoval));
                (s.members, s.removing, s.cut_off) = (s.members.without(m), s.removing.without(m), None);
                s.mark_seen = s.mark_seen.without(m);
            }
            Action::Depose | Action::Switch => self.depose(s, action == Action::Switch),
            Action::Stop => s.servers[s.serving()?].role = Role::Replica,
            Action::Ask(i) => self.ask(s, i),
            Action::CatchUp(i) => {
                s.servers[i].log = s.answers[self.bounds.unfit? as usize]?.log;
                s.answers[i] = Some(self.answer(s, i));
            }
            Action::Promote(i) => self.promote(s, i),
            Action::AssignAgain => self.assign_again(s),
        }
        Some(())
    }

    /// Forgets what cannot matter any more, so that states that differ in nothing else are one.
    fn settle(&self, s: &mut State) {
        if s.choosing() {
            (s.removing, s.mark_seen, s.cut_off) = (Set::NONE, Set::NONE, None);
            if s.serving().is_none() {
                (s.renewed_members, s.renewed_removing) = (Set::NONE, Set::NONE);
                for server in &mut s.servers {
                    server.linked = false;
                }
            }
        }
    }

    fn write(&self, s: &mut State) -> Option<()> {
        let master = s.serving()?;
        s.written += 1;
        s.written_in[s.written as usize] = s.epoch_served();
        s.servers[master].log.push(s.written);
        Some(())
    }

    /// A server links: it goes on where it stands if its copy begins the master's, else it takes a full copy.
    fn link(&self, s: &mut State, i: usize) -> Option<()> {
        let held = s.servers[s.serving()?].log;
        let server = &mut s.servers[i];
        server.linked = true;
        if server.log.begins(&held) && server.complete && server.loading.is_none() {
            return Some(());
        }
        self.full_copy(s, i)
    }

    fn full_copy(&self, s: &mut State, i: usize) -> Option<()> {
        let held = s.servers[s.serving()?].log;
        let server = &mut s.servers[i];
        server.log = Log::default();
        server.loading = Some(held);
        Some(())
    }

    /// A server dies with all it holds. An answer ends with its process.
    fn crash(&self, s: &mut State, i: usize, silent: bool) {
        s.spent.faults += 1;
        if self.keeps(Rule::AnswerEndsWithProcess) {
            s.answers[i] = None;
        }
        let server = &mut s.servers[i];
        *server = Server {
            up: false,
            silent,
            role: Role::Replica,
            linked: false,
            log: Log::default(),
            loading: None,
            complete: false,
            ..*server
        };
    }

    fn cut_member(&self, s: &mut State, member: u8) -> Option<()> {
        s.spent.removals += u8::from(!self.keeps(Rule::MarkBeforeRemoval));
        let upto = s.servers[s.serving()?].log.len;
        for i in 0..INSTANCES {
            s.servers[i].linked &= self.bit(s, i) != member;
        }
        s.cut_off = Some((member, upto, s.mark_seen.has(member)));
        Some(())
    }

    fn depose(&self, s: &mut State, planned: bool) {
        s.spent.switches += u8::from(planned);
        s.epoch += 1;
        s.phase = Phase::Deposing { planned };
        s.cut_off = None;
    }

    /// A survivor is cut from the master of the epoch before, then asked.
    fn ask(&self, s: &mut State, i: usize) {
        if self.keeps(Rule::CutThenAsk) {
            let server = &mut s.servers[i];
            server.linked = false;
            server.cut = true;
        }
        s.answers[i] = Some(self.answer(s, i));
    }

    fn promote(&self, s: &mut State, i: usize) {
        let old = &s.servers[s.master.instance as usize];
        let held = if old.up && old.run == s.master.run { old.log } else { Log::default() };
        s.lost_by_plan |= s.phase == Phase::Deposing { planned: true } && !held.begins(&s.servers[i].log);
        let (deposed, winner) = (self.member(s.master.instance, s.master.run), self.bit(s, i));
        s.members = if self.keeps(Rule::ListIsCarriedOn) { s.members.with(deposed).without(winner) } else { Set::NONE };
        (s.removing, s.renewed_removing, s.renewed_members) = (Set::NONE, Set::NONE, s.members);
        s.mark_seen = Set::NONE;
        s.answers = [None; INSTANCES];
        // Epochs of which the winner holds nothing have no part in the history from here on.
        let log = s.servers[i].log;
        let newest = log.writes().last().map_or(0, |write| s.written_in[*write as usize]);
        for epoch in newest + 1..=s.epoch {
            s.begins[epoch as usize] = log.len;
        }
        s.phase = Phase::Named;
        self.open(s, i);
    }

    fn assign_again(&self, s: &mut State) {
        self.open(s, s.master.instance as usize);
    }

    /// A server opens as master; everybody else must link anew.
    fn open(&self, s: &mut State, i: usize) {
        for server in &mut s.servers {
            (server.linked, server.cut) = (false, false);
        }
        let server = &mut s.servers[i];
        (server.role, server.loading, server.complete) = (Role::Master, None, true);
        s.master = Member { instance: i as u8, run: server.run };
    }
}

impl State {
    /// The epoch of the master named last.
    fn epoch_served(&self) -> u8 {
        self.epoch - u8::from(self.choosing())
    }
}

impl Protocol for Model {
    type Bounds = Bounds;
    type Rule = Rule;

    const NAME: &'static str = "data";
    const SOUND: &'static [Sound<Bounds>] = runs::SOUND;
    const REMOVALS: &'static [Removal<Rule, Bounds>] = runs::REMOVALS;

    fn sound(bounds: Bounds) -> Model {
        Model { bounds, dropped: None }
    }

    fn without(rule: Rule, bounds: Bounds) -> Model {
        Model { bounds, dropped: Some(rule) }
    }

    fn view(s: &State) -> String {
        let copy = |server: &Server| match (server.up, server.loading) {
            (false, _) => "-".to_owned(),
            (true, Some(_)) => "loading".to_owned(),
            (true, None) => format!("{:?}", server.log.writes()),
        };
        s.servers.iter().map(copy).collect::<Vec<_>>().join(" ")
    }
}

impl stateright::Model for Model {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.first_state()]
    }

    fn actions(&self, s: &State, out: &mut Vec<Action>) {
        self.possible(s, out);
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut after = before.clone();
        self.apply(&mut after, action)?;
        self.settle(&mut after);
        (after != *before).then_some(after)
    }

    fn properties(&self) -> Vec<stateright::Property<Self>> {
        properties::of(self)
    }
}
