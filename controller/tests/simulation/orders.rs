//! Commands: the real gate, one at a time, then the steps of each as the agent takes them.

use std::rc::Rc;

use agent::api::*;
use agent::gate;
use agent::lease::term::Event;
use agent::lineage::is_ahead;
use agent::timing;
use std::time::Duration;

use super::agents::Tag;
use super::data::{Dump, EMPTY, Head};
use super::mutation::Mutation;
use super::server::{A, Exec, Link, Server};
use super::world::{What, World};
use super::zookeeper::Message;
use controller::model::Outcome;

/// Longest wait for a change of role.
const ROLE_TIMEOUT: u64 = 4_000_000;

/// Who asked, to be answered.
pub(super) type Asker = Option<(usize, u64)>;

pub(super) struct Job {
    pub id: u64,
    command: Rc<Command>,
    from: Asker,
    key: Rc<str>,
    step: Step,
}

#[derive(Clone, PartialEq, Debug)]
enum Step {
    Queued,
    Reading,
    Launching,
    Office,
    NoOne,
    Opening,
    Proving,
    CuttingForAside,
    SavingAside,
    Following,
    OpeningReplica,
    Cutting,
    Holding(u64),
    CatchingUp(u64),
    /// What the server holds is being saved; then it ends.
    Ending,
    Stopping,
}

fn refused(reason: &str) -> Outcome {
    Outcome::Refused(reason.into())
}

impl World {
    /// A command arrives; it waits for its turn.
    pub fn commanded(&mut self, a: A, from: Asker, key: Rc<str>, command: Rc<Command>) {
        if !self.agents[a].alive || self.agents[a].jobs.len() > 20 {
            return;
        }
        self.numbers += 1;
        let job = Job { id: self.numbers, command, from, key, step: Step::Queued };
        self.agents[a].jobs.push_back(job);
        self.next_job(a);
    }

    fn next_job(&mut self, a: A) {
        if self.agents[a].job.is_some() {
            return;
        }
        let Some(mut job) = self.agents[a].jobs.pop_front() else { return };
        let reads = gate::needs_reading(&job.command, &self.known(a));
        let id = job.id;
        job.step = Step::Reading;
        self.agents[a].job = Some(job);
        if reads && self.agents[a].connected {
            self.read_for_job(a, id);
        } else {
            self.job_goes_on(a, id, true);
        }
    }

    fn end_job(&mut self, a: A, outcome: Outcome) {
        let Some(job) = self.agents[a].job.take() else { return };
        self.trace(|| format!("agent {a} {} for epoch {}: {outcome:?}", job.command.order.verb(), job.command.stamp.epoch));
        if let Some((to, leadership)) = job.from {
            let answer = Message::Answered { to, leadership, key: job.key, outcome };
            self.send(self.node_of(a), 1 + to, answer);
        }
        self.touch(a);
        let (incarnation, now) = (self.agents[a].incarnation, self.now);
        self.at(now + 1, What::NextJob(a, incarnation));
    }

    pub fn take_next_job(&mut self, a: A) {
        self.next_job(a);
        self.obey_record(a);
    }

    fn step(&mut self, a: A, step: Step) {
        if let Some(job) = &mut self.agents[a].job {
            job.step = step;
        }
    }

    /// What the job under way was waiting for has come, or has not.
    pub fn job_goes_on(&mut self, a: A, id: u64, done: bool) {
        let Some(job) = self.agents[a].job.as_ref().filter(|j| j.id == id) else { return };
        let (step, command) = (job.step.clone(), job.command.clone());
        let gone = self.agents[a].server.is_none()
            && !matches!(step, Step::Reading | Step::Launching | Step::Ending | Step::Stopping | Step::Cutting);
        if gone {
            return self.end_job(a, Outcome::Unknown("the server is gone".into()));
        }
        match step {
            Step::Queued => (),
            Step::Reading => self.admit_job(a, &command),
            Step::Launching => self.launched(a, &command),
            Step::Office if done => self.tell_in_office(a, id, Step::NoOne, Exec::Role(None, 0)),
            Step::NoOne if done => self.tell_in_office(a, id, Step::Opening, Exec::Open),
            Step::Opening if done => {
                self.step(a, Step::Proving);
                self.tell(a, 0, Exec::Ping, Some(Tag::Job(id)), ROLE_TIMEOUT);
            }
            Step::Proving if done => self.promoted(a, command.stamp.epoch),
            Step::CuttingForAside if done => self.save_aside(a, id),
            Step::SavingAside => self.start_following(a, id, &command),
            Step::Following if done => {
                self.lay_down(a, true);
                self.step(a, Step::OpeningReplica);
                self.tell(a, 0, Exec::Open, Some(Tag::Job(id)), ROLE_TIMEOUT);
            }
            Step::OpeningReplica if done => self.following(a, command.stamp.epoch),
            Step::Cutting => self.cut(a, id, command.stamp.epoch, done),
            Step::Holding(until) => self.holding(a, id, until),
            Step::CatchingUp(until) => self.catching_up(a, id, until, &command),
            Step::Ending => self.end_server(a, id),
            Step::Stopping => self.stopped(a, id),
            Step::Office => self.end_job(a, refused("no-lease")),
            // No answer in time to what changes the role: the server is killed.
            _ => {
                self.kill_server(a);
                self.end_job(a, Outcome::Unknown("no answer of the server".into()));
            }
        }
    }

    fn admit_job(&mut self, a: A, command: &Command) {
        let admitted = if self.mutated(Mutation::GateOff) { Ok(()) } else { gate::admit(command, &self.known(a)) };
        if let Err(refusal) = admitted {
            return self.end_job(a, refused(refusal.reason));
        }
        let (stamp, x) = (&command.stamp, &mut self.agents[a]);
        x.epoch = x.epoch.max(stamp.epoch);
        x.record_version = x.record_version.max(stamp.record_version);
        let id = x.job.as_ref().map_or(0, |j| j.id);
        let starts = matches!(command.order, Order::Start { .. } | Order::Restore { .. });
        if x.server.is_none() && !starts && command.order != Order::Stop {
            return self.end_job(a, refused("no-server"));
        }
        self.dispatch(a, id, command);
    }

    fn dispatch(&mut self, a: A, id: u64, command: &Command) {
        let now = self.now;
        match &command.order {
            Order::Start { source } => self.start(a, id, command.stamp.epoch, source),
            Order::Restore { snapshot } => self.restore(a, command.stamp.epoch, &snapshot.to_string()),
            Order::Prepare { request_id, snapshot } => {
                let (late, incarnation) = (self.dice.between(50_000, 500_000), self.agents[a].incarnation);
                self.at(self.now + late, What::Prepared(a, incarnation, request_id.clone(), snapshot.clone()));
                self.end_job(a, Outcome::Done);
            }
            Order::Promote { asks } => self.promote(a, id, command.stamp.epoch, asks.clone()),
            Order::Follow { master, fork } => self.follow(a, id, command, master, fork.as_ref()),
            Order::Fence => self.fence(a, id, command.stamp.epoch),
            Order::Configure { settings } => {
                self.agents[a].duty.settings = settings.clone();
                self.end_job(a, Outcome::Done);
            }
            Order::Backup { request_id, .. } => {
                let (late, incarnation) = (self.dice.between(50_000, 500_000), self.agents[a].incarnation);
                self.at(now + late, What::BackedUp(a, incarnation, request_id.clone()));
                self.end_job(a, Outcome::Done);
            }
            Order::Stop => {
                let whole = self.agents[a].server.as_ref().is_some_and(|s| s.complete && s.head != EMPTY);
                if whole && !self.mutated(Mutation::NothingSetAside) {
                    self.dump_now(a);
                }
                self.step(a, Step::Ending);
                let late = self.dice.between(1_000, 100_000);
                self.wait_for(a, id, late);
            }
            Order::Hold { for_ms } => {
                let until = self.local(a) + Duration::from_millis(*for_ms);
                let Some(office) = &mut self.agents[a].office else { return self.end_job(a, refused("no-office")) };
                office.holding = Some(command.stamp.epoch);
                self.step(a, Step::Holding(now + 1_000_000));
                self.on_term(a, Event::Hold(until));
                self.wait_for(a, id, 500);
            }
            Order::Release => {
                self.on_term(a, Event::Release);
                self.end_job(a, Outcome::Done);
            }
            // No migration is simulated.
            Order::FollowOrigin { .. } | Order::CloseOrigin { .. } | Order::OpenOrigin { .. } => {
                self.end_job(a, refused("no-origin"));
            }
            Order::CatchUp { within_ms, .. } => {
                self.step(a, Step::CatchingUp(now + within_ms * 1000));
                self.wait_for(a, id, 1);
            }
        }
    }

    /// The job goes on by itself after a while.
    fn wait_for(&mut self, a: A, id: u64, micros: u64) {
        let incarnation = self.agents[a].incarnation;
        self.at(self.now + micros, What::JobGoesOn(a, incarnation, id));
    }

    fn start(&mut self, a: A, id: u64, epoch: u64, source: &Source) {
        let label = match source {
            Source::Empty => "empty".to_owned(),
            Source::Local { sha256 } => format!("local:{sha256}"),
            Source::ReplicaOf { .. } => "replica".to_owned(),
        };
        let x = &self.agents[a];
        if let Some(server) = &x.server {
            let same = server.source == label && server.started_epoch == epoch;
            return self.end_job(a, if same { Outcome::Done } else { refused("server-running") });
        }
        let wrong = matches!(source, Source::Local { sha256 } if x.dump.as_ref().is_none_or(|d| d.name != *sha256));
        if x.restoring.is_some() || wrong {
            return self.end_job(a, refused("other-dump"));
        }
        self.step(a, Step::Launching);
        let late = self.dice.between(10_000, 150_000);
        self.wait_for(a, id, late);
    }

    fn launched(&mut self, a: A, command: &Command) {
        let Order::Start { source } = &command.order else { return };
        let dump = self.agents[a].dump.clone();
        match source {
            Source::Empty => {
                self.set_aside_dump(a);
                self.agents[a].dump = None;
                self.launch(a, command.stamp.epoch, "empty".into(), None, true);
            }
            Source::Local { sha256 } => self.launch(a, command.stamp.epoch, format!("local:{sha256}"), dump, true),
            Source::ReplicaOf { master, fork } => {
                let record = self.agents[a].seen.as_ref().map(|(r, _)| r.clone());
                if dump.as_ref().is_some_and(|d| is_ahead(&d.replid, d.offset, fork.as_ref(), record.as_deref())) {
                    self.set_aside_dump(a);
                }
                let complete = dump.is_some();
                self.launch(a, command.stamp.epoch, "replica".into(), dump, complete);
                if self.mutated(Mutation::NoAdmission) {
                    self.tell(a, 0, Exec::Role(Some(master.clone()), 0), None, 0);
                }
            }
        }
        self.end_job(a, Outcome::Done);
    }

    fn set_aside_dump(&mut self, a: A) {
        if let Some(dump) = &self.agents[a].dump {
            self.asides.push(dump.head);
        }
    }

    /// A server starts, closed.
    pub fn launch(&mut self, a: A, epoch: u64, source: String, dump: Option<Dump>, complete: bool) {
        let replica = source == "replica";
        let (fresh, run) = (self.fresh_replid(), self.next_number());
        let (replid, replid2, head) = match dump {
            Some(d) if replica => (d.replid, None, d.head),
            Some(d) => (fresh, Some((d.replid, d.offset + 1)), d.head),
            None => (fresh, None, EMPTY),
        };
        let dead = Address { host: "127.0.0.1".into(), port: 1 };
        self.trace(|| format!("agent {a} starts run-{run} from {source}"));
        self.agents[a].duty = super::agents::Duty::default();
        self.agents[a].server_note = None;
        self.agents[a].server = Some(Server {
            run,
            run_id: format!("run-{run}"),
            replid,
            replid2,
            head,
            master: !replica,
            open: false,
            paused: false,
            following: replica.then_some(dead),
            credential: 0,
            link: if replica { Link::Connecting } else { Link::None },
            complete,
            hung_until: 0,
            hung_since: 0,
            users: Vec::new(),
            users_epoch: 0,
            attached: Default::default(),
            waiting: Vec::new(),
            source,
            started_epoch: epoch,
            busy: [0, 0],
        });
    }

    fn restore(&mut self, a: A, epoch: u64, id: &str) {
        let x = &self.agents[a];
        if let Some(server) = &x.server {
            let same = server.source == format!("snapshot:{id}") && server.started_epoch == epoch;
            return self.end_job(a, if same { Outcome::Done } else { refused("server-running") });
        }
        if x.restoring.is_none() && self.store.iter().any(|s| s.row.id.to_string() == id) {
            let (incarnation, late) = (x.incarnation, self.dice.between(100_000, 800_000));
            self.agents[a].restoring = Some(id.to_owned());
            self.at(self.now + late, What::Restored(a, incarnation, id.to_owned(), epoch));
        }
        self.end_job(a, Outcome::Done);
    }

    pub fn restored(&mut self, a: A, id: &str, epoch: u64) {
        self.agents[a].restoring = None;
        let stored = self.store.iter().find(|s| s.row.id.to_string() == id).map(|s| s.dump.clone());
        if let Some(dump) = stored.filter(|_| self.agents[a].server.is_none() && self.agents[a].epoch == epoch) {
            self.set_aside_dump(a);
            self.agents[a].dump = Some(dump.clone());
            self.launch(a, epoch, format!("snapshot:{id}"), Some(dump), true);
        }
        self.touch(a);
    }

    fn promote(&mut self, a: A, id: u64, epoch: u64, asks: Vec<agent::record::Peer>) {
        let x = &self.agents[a];
        let Some(server) = &x.server else { return };
        let serving = server.master && server.open && x.duty.master && x.duty.fenced.is_none() && x.duty.epoch == epoch;
        if serving && x.office.as_ref().is_some_and(|o| o.run_id == server.run_id) {
            return self.end_job(a, Outcome::Done);
        }
        if server.loading() || !server.complete {
            return self.end_job(a, refused("incomplete-copy"));
        }
        self.step(a, Step::Office);
        if !self.take_office(a, id, asks) {
            self.end_job(a, refused("no-lease"));
        }
    }

    /// What makes the server writable is sent only while the lease has more left than the bound of its answer.
    fn tell_in_office(&mut self, a: A, id: u64, step: Step, exec: Exec) {
        let now = self.local(a);
        let fits = self.agents[a].office.as_ref().filter(|o| o.term.reason().is_none());
        let bound = fits.map(|o| (timing::office_bound(o.term.ground().lease), o.term.end()));
        match bound.filter(|(bound, end)| now + *bound < *end) {
            Some((bound, _)) => {
                self.step(a, step);
                self.tell(a, 0, exec, Some(Tag::Job(id)), bound.as_micros() as u64);
            }
            None => self.end_job(a, Outcome::Unknown("too little is left of the lease".into())),
        }
    }

    fn promoted(&mut self, a: A, epoch: u64) {
        let duty = &mut self.agents[a].duty;
        (duty.master, duty.assigned, duty.epoch, duty.fenced) = (true, true, epoch, None);
        self.end_job(a, Outcome::Done);
    }

    fn follow(&mut self, a: A, id: u64, command: &Command, master: &Address, fork: Option<&Position>) {
        let epoch = command.stamp.epoch;
        let x = &self.agents[a];
        let Some(server) = &x.server else { return };
        let follows = !server.master && server.following.as_ref() == Some(master);
        let assigned = x.duty.assigned && !x.duty.master && x.duty.epoch == epoch && x.duty.fenced.is_none();
        if *master == x.redis {
            return self.end_job(a, refused("own-address"));
        }
        if follows && server.open && assigned {
            return self.end_job(a, Outcome::Done);
        }
        if server.loading() {
            return self.end_job(a, refused("loading"));
        }
        let record = x.seen.as_ref().map(|(record, _)| record.clone());
        let offset = self.tree.depth(server.head);
        let worth = offset > 0 && server.complete && !(follows && assigned);
        self.trace(|| format!("agent {a} at {}:{offset} is to follow {master}, fork {fork:?}", server.replid));
        if worth && is_ahead(&server.replid, offset, fork, record.as_deref()) && !self.mutated(Mutation::NothingSetAside) {
            self.step(a, Step::CuttingForAside);
            let dead = Exec::Role(Some(Address { host: "127.0.0.1".into(), port: 1 }), 0);
            self.tell(a, 0, dead, Some(Tag::Job(id)), ROLE_TIMEOUT);
        } else {
            self.start_following(a, id, command);
        }
    }

    fn save_aside(&mut self, a: A, id: u64) {
        let head = self.dump_now(a);
        self.asides.extend(head);
        self.step(a, Step::SavingAside);
        let late = self.dice.between(5_000, 100_000);
        self.wait_for(a, id, late);
    }

    fn dump_now(&mut self, a: A) -> Option<Head> {
        let x = &self.agents[a];
        let server = x.server.as_ref()?;
        let (head, replid, epoch) = (server.head, server.replid.clone(), x.duty.epoch);
        let (offset, name) = (self.tree.depth(head), self.name("dump-"));
        self.agents[a].dump = Some(Dump { head, replid, offset, epoch, name });
        Some(head)
    }

    fn start_following(&mut self, a: A, id: u64, command: &Command) {
        let Order::Follow { master, .. } = &command.order else { return };
        self.step(a, Step::Following);
        let exec = Exec::Role(Some(master.clone()), command.stamp.epoch);
        self.tell(a, 0, exec, Some(Tag::Job(id)), ROLE_TIMEOUT);
    }

    fn following(&mut self, a: A, epoch: u64) {
        let duty = &mut self.agents[a].duty;
        (duty.master, duty.assigned, duty.epoch, duty.fenced) = (false, true, epoch, None);
        self.end_job(a, Outcome::Done);
    }

    fn fence(&mut self, a: A, id: u64, epoch: u64) {
        if self.agents[a].duty.fenced == Some(epoch) {
            return self.end_job(a, Outcome::Done);
        }
        self.step(a, Step::Cutting);
        let master = self.agents[a].server.as_ref().is_some_and(|s| s.master);
        let off = self.mutated(if master { Mutation::FenceOff } else { Mutation::NoCut });
        let dead = Exec::Role(Some(Address { host: "127.0.0.1".into(), port: 1 }), 0);
        self.tell(a, 0, if off { Exec::Ping } else { dead }, Some(Tag::Job(id)), ROLE_TIMEOUT);
    }

    /// A fence that is not answered is a kill.
    fn cut(&mut self, a: A, id: u64, epoch: u64, done: bool) {
        if self.agents[a].server.is_none() {
            return self.end_job(a, Outcome::Done);
        }
        if !done {
            let loading = self.agents[a].server.as_ref().is_some_and(Server::loading);
            if loading {
                return self.end_job(a, refused("loading"));
            }
            self.kill_server(a);
            return self.wait_for(a, id, 60_000);
        }
        self.lay_down(a, true);
        self.agents[a].duty.fenced = Some(epoch);
        self.end_job(a, Outcome::Done);
    }

    fn holding(&mut self, a: A, id: u64, until: u64) {
        if self.held(a).is_some() {
            self.end_job(a, Outcome::Done);
        } else if self.now >= until || self.agents[a].office.is_none() {
            self.end_job(a, Outcome::Unknown("not held".into()));
        } else {
            self.wait_for(a, id, 500);
        }
    }

    fn catching_up(&mut self, a: A, id: u64, until: u64, command: &Command) {
        let Order::CatchUp { position, .. } = &command.order else { return };
        let here = self.agents[a].server.as_ref().map(|s| self.position(s));
        if here.is_some_and(|p| p.replid == position.replid && p.offset >= position.offset) {
            self.end_job(a, Outcome::Done);
        } else if self.now >= until {
            self.end_job(a, refused("behind"));
        } else {
            self.wait_for(a, id, 2_000);
        }
    }

    /// Whatever the server holds must lie in the dump by now: it is not looked at again.
    fn end_server(&mut self, a: A, id: u64) {
        if let Some(old) = self.agents[a].server.as_ref().filter(|s| s.complete).map(|s| s.head) {
            let saved = self.agents[a].dump.as_ref().map_or(EMPTY, |dump| dump.head);
            self.overwritten(a, old, saved);
        }
        self.step(a, Step::Stopping);
        self.kill_server(a);
        self.wait_for(a, id, 50_000);
    }

    fn stopped(&mut self, a: A, id: u64) {
        match self.agents[a].server.is_none() {
            true => self.end_job(a, Outcome::Done),
            false => self.wait_for(a, id, 10_000),
        }
    }

    /// The snapshot has been fetched ahead; now and then it turns out to be of no use here.
    pub fn prepared(&mut self, a: A, request_id: String, snapshot: agent::snapshot::SnapshotId) {
        let problem = self.dice.one_in(10).then(|| "too little memory".to_owned());
        self.agents[a].prepared = Some(agent::api::Prepared { request_id, snapshot, problem });
        self.touch(a);
    }

    /// The dump is in the store.
    pub fn backed_up(&mut self, a: A, request: String) {
        let whole = self.agents[a].server.as_ref().is_some_and(|s| s.complete && !s.loading());
        if !whole {
            self.agents[a].uploads.failed_request = Some((request, "no whole copy".into()));
        } else if self.dump_now(a).is_some() {
            let id = self.store_dump(a);
            self.agents[a].uploads.last.clone_from(&id);
            self.agents[a].uploads.last_request_snapshot = id;
            self.agents[a].uploads.last_request_id = Some(request);
        }
        self.touch(a);
    }
}
