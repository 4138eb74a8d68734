//! An agent: what it remembers, what it says of itself, what it promises, and its beginning and end.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use agent::api::*;
use agent::gate;
use agent::record::{Peer, Phase, Record};
use agent::timing;

use super::data::Dump;
use super::mutation::Mutation;
use super::office::Office;
use super::orders::Job;
use super::server::{A, Admission, Exec, Link, Run, Server};
use super::world::{What, World};
use super::zookeeper::{Client, Message, Nodes, Reply};

/// What a reply of the server is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Tag {
    Job(u64),
    Pause(u64),
    Unpause(u64),
    Ping(u64),
}

/// What an answer of ZooKeeper is waited for.
#[derive(Clone)]
pub(super) enum Pending {
    Job(u64),
    TermRead(u64),
    TermStat(u64, u64, Vec<Peer>),
    TermRenew(u64, u64),
}

/// What the running server was assigned to.
#[derive(Default)]
pub(super) struct Duty {
    pub master: bool,
    pub assigned: bool,
    pub epoch: u64,
    pub fenced: Option<u64>,
    pub settings: Settings,
}

/// One agent in one task.
pub(super) struct Agent {
    pub instance: u32,
    pub task_id: String,
    pub host: usize,
    pub redis: Address,
    pub http: Address,
    pub pid_ns: String,
    pub alive: bool,
    pub incarnation: u32,
    pub frozen_until: u64,
    // On disk.
    pub cluster_id: Option<String>,
    pub generation: Option<String>,
    pub record_version: i32,
    pub epoch: u64,
    pub deaths: Vec<Death>,
    pub dump: Option<Dump>,
    pub lease: Duration,
    /// A server ran when the agent was last there.
    pub server_note: Option<String>,
    // In memory.
    pub seen: Option<(Rc<Record>, i32)>,
    pub zxid: u64,
    pub connected: bool,
    pub pending: BTreeMap<u64, Pending>,
    pub server: Option<Server>,
    pub duty: Duty,
    /// What was last carried out of a renewal, and the offset then.
    pub admission: Option<(Rc<Admission>, u64)>,
    pub office: Option<Office>,
    pub terms: u64,
    pub promise_until: Duration,
    pub jobs: VecDeque<Job>,
    pub job: Option<Job>,
    pub tags: BTreeMap<u64, Tag>,
    pub restoring: Option<String>,
    /// What came of the last order to fetch a snapshot ahead.
    pub prepared: Option<agent::api::Prepared>,
    pub uploads: Uploads,
    pub failed_source: Option<FailedSource>,
    pub stopping: Option<u64>,
    pub number: u64,
    pub due_at: Option<u64>,
}

impl World {
    /// A task begins on a host.
    pub fn new_task(&mut self, instance: u32, host: usize) -> A {
        let a = self.agents.len();
        let name = format!("a{a}");
        let address = |port| Address { host: name.clone(), port };
        self.agents.push(Agent {
            instance,
            task_id: format!("task-{a}"),
            host,
            redis: address(6379),
            http: address(8080),
            pid_ns: "ns".into(),
            alive: false,
            incarnation: 0,
            frozen_until: 0,
            cluster_id: None,
            generation: None,
            record_version: 0,
            epoch: 0,
            deaths: Vec::new(),
            dump: None,
            lease: timing::LEASE,
            server_note: None,
            seen: None,
            zxid: 0,
            connected: false,
            pending: BTreeMap::new(),
            server: None,
            duty: Duty::default(),
            admission: None,
            office: None,
            terms: 0,
            promise_until: Duration::ZERO,
            jobs: VecDeque::new(),
            job: None,
            tags: BTreeMap::new(),
            restoring: None,
            prepared: None,
            uploads: Uploads::default(),
            failed_source: None,
            stopping: None,
            number: 0,
            due_at: None,
        });
        let late = self.dice.between(5_000, 300_000);
        self.at(self.now + late, What::Begin(a));
        a
    }

    pub fn node_of(&self, a: A) -> usize {
        super::network::FIRST_HOST + self.agents[a].host
    }

    /// Time since boot on the host of an agent.
    pub fn local(&self, a: A) -> Duration {
        let host = &self.hosts[self.agents[a].host];
        Duration::from_micros((host.offset + self.now).saturating_add_signed(self.now as i64 * host.ppm / 1_000_000))
    }

    /// When that time comes, or has come.
    pub fn global(&self, a: A, local: Duration) -> u64 {
        let host = &self.hosts[self.agents[a].host];
        let since = (local.as_micros() as u64).saturating_sub(host.offset) as i64;
        (since - since * host.ppm / (1_000_000 + host.ppm)) as u64 + 1
    }

    /// The agent process begins, again perhaps: with data it behaves as if it had just promised.
    pub fn begin_agent(&mut self, a: A) {
        let (now, early) = (self.local(a), self.mutated(Mutation::RestartForgetsPromises));
        let x = &mut self.agents[a];
        if x.alive || self.ended.contains_key(&a) {
            return;
        }
        x.alive = true;
        x.incarnation += 1;
        (x.seen, x.zxid, x.connected, x.job, x.office, x.due_at) = (None, 0, true, None, None, None);
        (x.admission, x.restoring, x.failed_source, x.stopping) = (None, None, None, None);
        x.prepared = None;
        x.pending.clear();
        x.jobs.clear();
        x.tags.clear();
        x.duty = Duty::default();
        x.number += 1_000_000;
        let with_data = x.dump.is_some() || x.server_note.is_some();
        x.promise_until = if with_data && !early { now + timing::with_margin(x.lease) } else { Duration::ZERO };
        if let Some(run_id) = x.server_note.take() {
            x.deaths.push(Death { run_id, proof: "process gone".into(), at_ms: 0 });
        }
        let (incarnation, until) = (x.incarnation, x.promise_until);
        let over = self.global(a, until);
        self.at(over, What::PromiseOver(a, incarnation));
        self.at(self.now + 1_000, What::Notice(Client::Agent(a, incarnation)));
        self.at(self.now + 1_000, What::Beat(a, incarnation));
    }

    /// A sign of life, a look at the server, and now and then a dump.
    pub fn beat(&mut self, a: A) {
        let now = self.now;
        let (epoch, incarnation) = (self.agents[a].duty.epoch, self.agents[a].incarnation);
        if let Some(server) = &self.agents[a].server {
            let saves = !self.agents[a].duty.settings.save.is_empty() && server.complete && !server.loading();
            let hung = now < server.hung_until && now > server.hung_since + 1_000_000;
            let (head, replid) = (server.head, server.replid.clone());
            if saves && self.dice.one_in(12) {
                let (offset, name) = (self.tree.depth(head), self.name("dump-"));
                self.agents[a].dump = Some(Dump { head, replid, offset, epoch, name });
            }
            if hung {
                self.kill_server(a);
            }
        }
        if self.agents[a].stopping.is_some() {
            self.go_on_stopping(a);
        }
        self.obey_record(a);
        self.touch(a);
        self.at(now + 250_000, What::Beat(a, incarnation));
    }

    /// Says to everybody how it is.
    pub fn touch(&mut self, a: A) {
        let x = &self.agents[a];
        if !x.alive || self.now < x.frozen_until {
            return;
        }
        let state = Rc::new(self.render(a));
        self.agents[a].number += 1;
        let (number, from) = (self.agents[a].number, self.node_of(a));
        for to in 0..2 {
            self.line(from, 1 + to, Message::State { to, from: a, number, state: state.clone() });
        }
    }

    pub fn render(&self, a: A) -> State {
        let x = &self.agents[a];
        let host = &self.hosts[x.host];
        let held = self.held(a);
        let role = x.server.as_ref().map_or(Role::None, |s| if s.master { Role::Master } else { Role::Replica });
        let serving = x.server.as_ref().is_some_and(|s| {
            let as_assigned = x.duty.assigned && x.duty.master == s.master;
            as_assigned && s.open && x.duty.fenced.is_none() && !s.loading() && s.complete
        });
        let dump = |d: &Dump| LocalDump {
            sha256: d.name.clone(),
            bytes: 1,
            position: Some(Position { replid: d.replid.to_string(), offset: d.offset }),
            epoch: d.epoch,
            created_s: self.now / 1_000_000,
        };
        State {
            cluster_id: x.cluster_id.clone(),
            generation: x.generation.clone(),
            instance: x.instance,
            task_id: x.task_id.clone(),
            epoch: x.epoch,
            record_version: x.record_version,
            assigned_epoch: if x.server.is_some() && x.duty.assigned { x.duty.epoch } else { 0 },
            role,
            serving,
            lease: self.lease_state(a),
            promised: self.local(a) < x.promise_until && !self.mutated(Mutation::PromisesIgnored),
            held,
            redis: x.server.as_ref().map(|s| self.render_server(x, s)),
            agent: agent::api::Agent { address: Some(x.http.clone()), ..Default::default() },
            host: Host {
                host_id: format!("host-{}", x.host),
                name: format!("h{}", x.host),
                boot_id: format!("boot-{}", host.boot),
                pid_ns: x.pid_ns.clone(),
            },
            fenced_epoch: x.server.as_ref().and(x.duty.fenced),
            deaths: x.deaths.clone(),
            local: if x.server.is_some() || x.restoring.is_some() { None } else { x.dump.as_ref().map(dump) },
            activity: x.restoring.as_ref().map(|subject| Activity {
                what: "restoring".into(),
                subject: subject.clone(),
                ..Activity::default()
            }),
            uploads: x.uploads.clone(),
            settings: x.duty.settings.clone(),
            failed_source: x.failed_source.clone(),
            prepared: x.prepared.clone(),
            stopping: x.stopping.is_some(),
            ..State::default()
        }
    }

    fn render_server(&self, x: &Agent, s: &Server) -> Redis {
        let offset = self.tree.depth(s.head);
        Redis {
            address: Some(x.redis.clone()),
            pid: s.run as u32,
            start_ticks: s.run,
            run_id: s.run_id.clone(),
            replid: s.replid.to_string(),
            replid2: s.replid2.as_ref().map(|(replid, _)| replid.to_string()),
            replid2_end: s.replid2.as_ref().map(|(_, end)| *end),
            offset,
            link: (!s.master).then(|| s.is_up()),
            following: s.following.clone(),
            loading: s.loading(),
            syncing: matches!(s.link, Link::Transfer { .. } | Link::Loading { .. }),
            open: s.open,
            keys: u64::from(offset > 0),
            source: s.source.clone(),
            started_epoch: s.started_epoch,
            answering: self.now >= s.hung_until,
            ..Redis::default()
        }
    }

    /// What the gate is told.
    pub fn known(&self, a: A) -> gate::Known {
        let x = &self.agents[a];
        let read = |(record, version): &(Rc<Record>, i32)| gate::Read {
            cluster_id: record.cluster_id.clone(),
            generation: record.generation.clone(),
            version: *version,
        };
        gate::Known {
            record: x.seen.as_ref().map(read),
            task_id: x.task_id.clone(),
            epoch: x.epoch,
            record_version: x.record_version,
            run_id: x.server.as_ref().map(|s| s.run_id.clone()),
            dead: x.deaths.iter().map(|d| d.run_id.clone()).collect(),
            stopping: x.stopping.is_some(),
        }
    }

    /// The nodes were seen, by a watch or a reading.
    pub fn saw_nodes(&mut self, a: A, nodes: &Nodes) {
        let x = &mut self.agents[a];
        let Some((record, version)) = nodes.record.clone() else { return };
        let older = nodes.zxid < x.zxid
            || x.seen.as_ref().is_some_and(|(r, v)| r.generation == record.generation && *v > version)
            || x.cluster_id.as_ref().is_some_and(|id| *id != record.cluster_id);
        if older {
            return;
        }
        x.zxid = nodes.zxid;
        let same = x.generation.as_ref() == Some(&record.generation);
        x.record_version = if same { x.record_version.max(version) } else { version };
        x.generation = Some(record.generation.clone());
        x.cluster_id = Some(record.cluster_id.clone());
        let news = record.epoch > x.epoch;
        x.epoch = x.epoch.max(record.epoch);
        x.lease = Duration::from_millis(record.lease_ms);
        x.seen = Some((record, version));
        self.record_for_term(a);
        self.obey_record(a);
        if news {
            self.touch(a);
        }
    }

    /// An answer of ZooKeeper; none when it can no longer come.
    pub fn keeper_replied(&mut self, a: A, id: u64, reply: Option<Reply>) {
        let Some(pending) = self.agents[a].pending.remove(&id) else { return };
        if let Some(Reply::Read(nodes)) = &reply {
            self.saw_nodes(a, nodes);
        }
        match pending {
            Pending::Job(job) => self.job_goes_on(a, job, true),
            other => self.term_replied(a, other, reply),
        }
    }

    /// Finds out whether ZooKeeper can be spoken to.
    pub fn notice(&mut self, a: A) {
        let place = self.node_of(a);
        let connected = self.reaches_keeper(place);
        let was = std::mem::replace(&mut self.agents[a].connected, connected);
        if !connected {
            let lost: Vec<u64> = self.agents[a].pending.keys().copied().collect();
            lost.into_iter().for_each(|id| self.keeper_replied(a, id, None));
        }
        if connected {
            if !was {
                self.net.forget(place);
            }
            self.watch(Client::Agent(a, self.agents[a].incarnation));
        }
        if was != connected {
            self.on_term(a, agent::lease::term::Event::Tick);
        }
    }

    /// A request for a promise: only for this task, and exactly the epoch that is known.
    pub fn asked_to_promise(&mut self, a: A, from: A, incarnation: u32, term: u64, request: &PromiseRequest) {
        let until = self.local(a) + Duration::from_millis(request.for_ms);
        let x = &mut self.agents[a];
        let fits = x.cluster_id.as_ref() == Some(&request.cluster_id)
            && x.generation.as_ref() == Some(&request.generation)
            && x.epoch == request.epoch
            && x.task_id == request.task_id;
        if !fits {
            return;
        }
        let probe = request.for_ms == 0;
        let peer = Peer { task_id: x.task_id.clone(), agent: x.http.clone() };
        if !probe {
            x.promise_until = x.promise_until.max(until);
            let incarnation = x.incarnation;
            let over = self.global(a, until);
            self.at(over, What::PromiseOver(a, incarnation));
            self.touch(a);
        }
        let answer = Message::Promised { to: from, incarnation, term, round: request.round, probe, peer };
        self.send(self.node_of(a), self.node_of(from), answer);
    }

    /// A master whose record names another one, or none, fences itself.
    pub fn obey_record(&mut self, a: A) {
        let x = &self.agents[a];
        let (Some((record, version)), Some(server)) = (&x.seen, &x.server) else { return };
        let named = matches!(record.phase, Phase::Promoting | Phase::Stable)
            && record.master.as_ref().is_some_and(|m| m.task_id == x.task_id && m.run_id == server.run_id);
        let over = server.open && server.master && x.duty.fenced.is_none() && x.duty.epoch < record.epoch;
        if !over || named || x.job.is_some() || !x.jobs.is_empty() {
            return;
        }
        let stamp = Stamp {
            cluster_id: record.cluster_id.clone(),
            generation: record.generation.clone(),
            epoch: record.epoch,
            record_version: *version,
            task_id: x.task_id.clone(),
            run_id: Some(server.run_id.clone()),
        };
        self.commanded(a, None, Rc::from(""), Rc::new(Command { stamp, order: Order::Fence }));
    }

    /// Tells the server something over one of the two connections; the answer, or none within `limit`, comes back with the tag.
    pub fn tell(&mut self, a: A, connection: usize, exec: Exec, tag: Option<Tag>, limit: u64) {
        let Some(run) = self.agents[a].server.as_ref().map(|s| s.run) else { return };
        let slow = self.faults_on && self.dice.one_in(40);
        // With one fault at a time none is so slow that its server is killed for it.
        let slowest = if self.setup.single { 100_000 } else { 600_000 };
        let work = if slow { self.dice.between(10_000, slowest) } else { self.dice.between(50, 900) };
        let now = self.now;
        let server = self.agents[a].server.as_mut().unwrap();
        let done = (now + work).max(server.busy[connection] + 1);
        server.busy[connection] = done;
        self.numbers += 1;
        let (number, incarnation) = (self.numbers, self.agents[a].incarnation);
        self.at(done, What::Exec(a, run, Box::new(exec), incarnation, number));
        if let Some(tag) = tag {
            self.agents[a].tags.insert(number, tag);
            self.at(now + limit, What::Replied(a, incarnation, number, false));
        }
    }

    /// The server answered, or did not in time.
    pub fn replied(&mut self, a: A, number: u64, done: bool) {
        match self.agents[a].tags.remove(&number) {
            Some(Tag::Job(job)) => self.job_goes_on(a, job, done),
            Some(tag) => self.term_told(a, tag, done),
            None => (),
        }
    }

    /// SIGKILL: over within the time that the protocol reckons with.
    pub fn kill_server(&mut self, a: A) {
        if let Some(run) = self.agents[a].server.as_ref().map(|s| s.run) {
            let late = self.dice.between(500, 45_000);
            self.at(self.now + late, What::Die(a, run));
        }
    }

    /// The process is gone.
    pub fn server_dies(&mut self, a: A, run: Run) {
        let Some(server) = self.agents[a].server.take_if(|s| s.run == run) else { return };
        self.trace(|| format!("server {} of agent {a} dies", server.run_id));
        let x = &mut self.agents[a];
        if x.alive {
            self.at(self.now, What::Noticed(a, self.agents[a].incarnation, server.run_id));
        } else {
            x.server_note = Some(server.run_id);
        }
    }

    /// The agent sees that its server is gone.
    pub fn noticed(&mut self, a: A, run_id: String) {
        let at_ms = self.now / 1000;
        let x = &mut self.agents[a];
        x.deaths.push(Death { run_id, proof: "signal 9".into(), at_ms });
        let excess = x.deaths.len().saturating_sub(8);
        x.deaths.drain(..excess);
        x.duty = Duty::default();
        (x.office, x.admission) = (None, None);
        x.tags.clear();
        let job = x.job.as_ref().map(|j| j.id);
        if let Some(job) = job {
            self.job_goes_on(a, job, false);
        }
        self.touch(a);
    }

    /// The agent process dies, and its server with it, in a moment.
    pub fn agent_dies(&mut self, a: A) {
        let x = &mut self.agents[a];
        if !x.alive {
            return;
        }
        x.alive = false;
        x.frozen_until = 0;
        x.office = None;
        x.tags.clear();
        if let Some(run) = x.server.as_ref().map(|s| s.run) {
            let late = self.dice.between(500, 10_000);
            self.at(self.now + late, What::Die(a, run));
        }
    }
}
