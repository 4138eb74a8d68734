//! The real term of office in the simulated world: its effects carried out, what comes of them handed back. What the agent's lease thread
//! does with real connections, this does with messages.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use agent::api::{Held, LeaseState, PromiseRequest};
use agent::lease::ground::{Ground, Holder};
use agent::lease::term::{Effect, Event, Outcome, Reason, Term};
use agent::record::{Lease, Peer};
use agent::timing::{PAUSE_BOUND, PROBE_EVERY, STOP_BOUND};

use super::agents::{Pending, Tag};
use super::mutation::Mutation;
use super::server::{A, Admission, Exec};
use super::world::{What, World};
use super::zookeeper::{Client, Message, Reply, Request};

/// A term and what belongs to it.
pub(super) struct Office {
    pub number: u64,
    pub term: Term,
    pub run_id: String,
    /// Version of the lease node, when it is known.
    node: Option<i32>,
    /// A promotion waits for it until then.
    waiting: Option<(Duration, u64)>,
    /// The server may have been taking writes when the term began.
    open: bool,
    pinging: bool,
    next_ping: Duration,
    /// Epoch of the hold asked for.
    pub holding: Option<u64>,
}

/// What came of waiting for an office.
enum Settled {
    Not,
    Done(u64),
    Failed(u64, bool),
}

impl Office {
    fn settle(&mut self, now: Duration) -> Settled {
        let Some((deadline, job)) = self.waiting else { return Settled::Not };
        let rests = self.term.committed_version() == Some(self.term.ground().record_version);
        if self.term.is_open() && rests && self.term.end() > now {
            self.waiting = None;
            return Settled::Done(job);
        }
        if self.term.reason() == Some(Reason::Deposed) || now >= deadline {
            self.waiting = None;
            return Settled::Failed(job, self.term.committed_version().is_none() && !self.open);
        }
        Settled::Not
    }
}

impl World {
    /// Takes office for the running server, for a promotion that waits. Says whether it can begin.
    pub fn take_office(&mut self, a: A, job: u64, asks: Vec<Peer>) -> bool {
        let now = self.local(a);
        let x = &mut self.agents[a];
        let (Some((record, version)), Some(server)) = (x.seen.clone(), &x.server) else { return false };
        if !record.has_in_office(&x.task_id, &server.run_id) {
            return false;
        }
        let ground = Ground::of(&record, version, &x.task_id);
        let waiting = Some((now + ground.lease / 2, job));
        let open = x.duty.master && x.duty.fenced.is_none();
        let same = |o: &Office| {
            let stands = o.term.ground();
            let standing = stands.epoch == ground.epoch && stands.generation == ground.generation;
            standing && o.term.reason() != Some(Reason::Deposed) && o.run_id == server.run_id
        };
        let before = x.office.take().filter(same);
        x.office = Some(match before {
            Some(office) => Office { waiting, ..office },
            None => {
                x.terms += 1;
                let term = Term::begin(now, ground.clone(), asks, open);
                let run_id = server.run_id.clone();
                Office { number: x.terms, term, run_id, node: None, waiting, open, pinging: false, next_ping: now, holding: None }
            }
        });
        self.on_term(a, Event::Stands(ground));
        true
    }

    /// The term ends. With `lift` a stop of writes is taken back: for a server that cannot take any now.
    pub fn lay_down(&mut self, a: A, lift: bool) {
        let office = self.agents[a].office.take();
        if office.is_some_and(|o| lift && !o.term.is_open()) {
            self.tell(a, 1, Exec::Unpause, None, 0);
        }
        self.agents[a].admission = None;
    }

    /// Hands an event to the term and carries out what it wants, until it wants nothing more.
    pub fn on_term(&mut self, a: A, event: Event) {
        if self.agents[a].office.is_none() {
            return;
        }
        let now = self.local(a);
        let before = self.shown(a);
        let mut events = VecDeque::from([Event::Connected(self.agents[a].connected), event]);
        events.extend(self.life(a, now));
        while let Some(event) = events.pop_front() {
            let Some(office) = &mut self.agents[a].office else { return };
            let effects = office.term.on(now, event);
            for effect in effects {
                self.carry_out(a, effect);
            }
        }
        let settled = self.agents[a].office.as_mut().map_or(Settled::Not, |o| o.settle(now));
        match settled {
            Settled::Not => (),
            Settled::Done(job) => self.job_goes_on(a, job, true),
            Settled::Failed(job, end) => {
                if end {
                    self.agents[a].office = None;
                }
                self.job_goes_on(a, job, false);
            }
        }
        self.schedule_term(a, now);
        if self.shown(a) != before {
            self.touch(a);
        }
    }

    fn shown(&self, a: A) -> Option<(Option<i32>, Option<Reason>, bool, bool)> {
        let term = &self.agents[a].office.as_ref()?.term;
        Some((term.committed_version(), term.reason(), term.on_promises(), term.is_paused()))
    }

    fn schedule_term(&mut self, a: A, now: Duration) {
        let Some(office) = &self.agents[a].office else { return };
        let mut due = office.term.due(now).min(office.next_ping.max(now));
        if let Some((deadline, _)) = office.waiting {
            due = due.min(deadline);
        }
        let due = self.global(a, due).max(self.now + 20);
        if self.agents[a].due_at.is_none_or(|at| at > due || at <= self.now) {
            self.agents[a].due_at = Some(due);
            let incarnation = self.agents[a].incarnation;
            self.at(due, What::Due(a, incarnation, due));
        }
    }

    /// Asks the server for a sign of life when that is due.
    fn life(&mut self, a: A, now: Duration) -> Option<Event> {
        let office = self.agents[a].office.as_mut()?;
        if now < office.next_ping {
            return None;
        }
        office.next_ping = now + PROBE_EVERY;
        if std::mem::replace(&mut office.pinging, true) {
            return Some(Event::Silent { running: false });
        }
        let number = office.number;
        self.tell(a, 1, Exec::Ping, Some(Tag::Ping(number)), 60_000_000);
        None
    }

    fn carry_out(&mut self, a: A, effect: Effect) {
        let Some(office) = &self.agents[a].office else { return };
        let number = office.number;
        let limit = PAUSE_BOUND.as_micros() as u64;
        match effect {
            Effect::Renew { number: renewal, asks } => match office.node {
                Some(version) => self.renew(a, renewal, asks, version),
                None => self.ask_keeper(a, Pending::TermStat(number, renewal, asks), Request::LeaseVersion),
            },
            Effect::Probe(peers) => self.ask_peers(a, 0, peers, Duration::ZERO),
            Effect::Ask { round, peers, length } => self.ask_peers(a, round, peers, length),
            Effect::ReadRecord => self.ask_keeper(a, Pending::TermRead(number), Request::Read),
            Effect::Pause | Effect::Kill if self.mutated(Mutation::LeaseOff) => {
                if effect == Effect::Pause {
                    self.at(self.now, What::Told(a, self.agents[a].incarnation, Tag::Pause(number)));
                }
            }
            Effect::Pause if self.mutated(Mutation::PauseAtTheEnd) => {
                let incarnation = self.agents[a].incarnation;
                self.at(self.now + STOP_BOUND.as_micros() as u64 * 2, What::LatePause(a, incarnation, number));
            }
            Effect::Pause => self.tell(a, 1, Exec::Pause, Some(Tag::Pause(number)), limit),
            Effect::Unpause => self.tell(a, 1, Exec::Unpause, Some(Tag::Unpause(number)), limit),
            Effect::Kill => self.kill_server(a),
        }
    }

    /// Only in a mutated world: the stop goes out when the lease is over.
    pub fn late_pause(&mut self, a: A, number: u64) {
        self.tell(a, 1, Exec::Pause, Some(Tag::Pause(number)), PAUSE_BOUND.as_micros() as u64);
    }

    fn ask_keeper(&mut self, a: A, pending: Pending, request: Request) {
        self.numbers += 1;
        let (id, incarnation) = (self.numbers, self.agents[a].incarnation);
        self.agents[a].pending.insert(id, pending);
        self.at(self.now + 10_000_000, What::KeeperTimeout(a, incarnation, id));
        self.request(Client::Agent(a, incarnation), id, request);
    }

    /// Reads the record for a command.
    pub fn read_for_job(&mut self, a: A, job: u64) {
        self.ask_keeper(a, Pending::Job(job), Request::Read);
    }

    fn renew(&mut self, a: A, renewal: u64, asks: Vec<Peer>, version: i32) {
        let x = &self.agents[a];
        let Some(office) = &x.office else { return };
        let ground = office.term.ground();
        let lease = Lease {
            task_id: x.task_id.clone(),
            run_id: office.run_id.clone(),
            generation: ground.generation.clone(),
            epoch: ground.epoch,
            record_version: ground.record_version,
            asks,
            guarded: false,
        };
        let number = office.number;
        self.ask_keeper(a, Pending::TermRenew(number, renewal), Request::Renew { lease, version });
    }

    fn ask_peers(&mut self, a: A, round: u64, peers: Vec<Peer>, length: Duration) {
        let x = &self.agents[a];
        let Some(office) = &x.office else { return };
        let (term, ground) = (office.number, office.term.ground());
        let request = |task_id: String| PromiseRequest {
            cluster_id: x.cluster_id.clone().unwrap_or_default(),
            generation: ground.generation.clone(),
            epoch: ground.epoch,
            task_id,
            round,
            for_ms: length.as_millis() as u64,
        };
        let asked: Vec<(A, PromiseRequest)> = peers
            .into_iter()
            .filter_map(|peer| {
                let to = self.agents.iter().position(|y| y.http == peer.agent)?;
                Some((to, request(peer.task_id)))
            })
            .collect();
        let (from, incarnation) = (self.node_of(a), x.incarnation);
        for (to, request) in asked {
            let ask = Message::Ask { to, from: a, incarnation, term, request: Rc::new(request) };
            self.send(from, self.node_of(to), ask);
        }
    }

    /// A member promised, or said that it would.
    pub fn promised(&mut self, a: A, term: u64, round: u64, probe: bool, peer: Peer) {
        if self.agents[a].office.as_ref().is_some_and(|o| o.number == term) {
            self.on_term(a, if probe { Event::Probed(peer) } else { Event::Promised(round, peer) });
        }
    }

    /// What ZooKeeper answered to the term; none when the answer is lost.
    pub fn term_replied(&mut self, a: A, pending: Pending, reply: Option<Reply>) {
        let number = match &pending {
            Pending::TermRead(n) | Pending::TermStat(n, ..) | Pending::TermRenew(n, _) => *n,
            Pending::Job(_) => return,
        };
        let Some(office) = self.agents[a].office.as_mut().filter(|o| o.number == number) else { return };
        match (pending, reply) {
            (Pending::TermRead(_), Some(Reply::Read(nodes))) if nodes.record.is_some() => self.record_for_term(a),
            (Pending::TermRead(_), _) => self.on_term(a, Event::Unreadable),
            (Pending::TermStat(_, renewal, asks), Some(Reply::LeaseVersion(version))) => self.renew(a, renewal, asks, version),
            (Pending::TermStat(_, renewal, _), _) => self.on_term(a, Event::Renewed(renewal, Outcome::NotApplied)),
            (Pending::TermRenew(_, renewal), reply) => {
                let (node, outcome) = match reply {
                    Some(Reply::Done(version)) => (Some(version), Outcome::Committed),
                    Some(Reply::CheckFailed) => (None, Outcome::CheckFailed),
                    Some(_) => (None, Outcome::NotApplied),
                    None => (None, Outcome::Unknown),
                };
                office.node = node;
                self.on_term(a, Event::Renewed(renewal, outcome));
                self.admit(a);
            }
            (Pending::Job(_), _) => (),
        }
    }

    /// What the server answered to the term.
    pub fn term_told(&mut self, a: A, tag: Tag, done: bool) {
        let (Tag::Pause(number) | Tag::Unpause(number) | Tag::Ping(number)) = tag else { return };
        let Some(office) = self.agents[a].office.as_mut().filter(|o| o.number == number) else { return };
        let event = match tag {
            Tag::Pause(_) => Event::Paused(done),
            Tag::Unpause(_) => Event::Unpaused(done),
            _ => {
                office.pinging = false;
                if done { Event::Answered } else { Event::Silent { running: false } }
            }
        };
        self.on_term(a, event);
    }

    /// The record as it was last seen, for the term.
    pub fn record_for_term(&mut self, a: A) {
        let x = &self.agents[a];
        let (Some(office), Some((record, version))) = (&x.office, &x.seen) else { return };
        let holder = Holder {
            cluster_id: x.cluster_id.clone().unwrap_or_default(),
            task_id: x.task_id.clone(),
            run_id: office.run_id.clone(),
        };
        let event = office.term.ground().judge(record, *version, &holder);
        self.on_term(a, event);
        self.admit(a);
    }

    /// Users for the members of the record that the last committed renewal stands on.
    fn admit(&mut self, a: A) {
        let x = &self.agents[a];
        let (Some(office), Some((record, version))) = (&x.office, &x.seen) else { return };
        let done =
            x.admission.as_ref().is_some_and(|(admission, _)| admission.version == *version && admission.epoch == record.epoch);
        if done || office.term.committed_version() != Some(*version) || office.term.ground().epoch != record.epoch {
            return;
        }
        let runs = |removing: bool| -> Vec<String> {
            record.known_replicas.iter().filter(|m| m.removing == removing).map(|m| m.run_id.clone()).collect()
        };
        let admission = Admission { epoch: record.epoch, version: *version, admitted: runs(false), removed: runs(true) };
        self.tell(a, 0, Exec::Admit(Rc::new(admission)), None, 0);
    }

    pub fn lease_state(&self, a: A) -> Option<LeaseState> {
        let x = &self.agents[a];
        let term = x.office.as_ref().map(|o| &o.term).filter(|t| t.reason() != Some(Reason::Deposed))?;
        let record_version = term.committed_version()?;
        let admission = x.admission.as_ref().filter(|(admission, _)| admission.epoch == term.ground().epoch);
        Some(LeaseState {
            record_version,
            admitted: admission.map(|(x, _)| x.admitted.clone()).unwrap_or_default(),
            removed: admission.map(|(x, _)| x.removed.clone()).unwrap_or_default(),
            removed_at: admission.filter(|(x, _)| !x.removed.is_empty()).map(|(_, at)| *at),
            failsafe: term.on_promises(),
        })
    }

    /// Writes held back for a planned change.
    pub fn held(&self, a: A) -> Option<Held> {
        let x = &self.agents[a];
        let office = x.office.as_ref()?;
        let epoch = office.holding.filter(|_| office.term.is_paused() && office.term.reason() == Some(Reason::Planned))?;
        Some(Held { epoch, position: self.position(x.server.as_ref()?) })
    }
}
