//! The world: time, what is on its way, and who it comes to.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::rc::Rc;
use std::time::Duration;

use super::agents::{Agent, Tag};
use super::ambush::Ambush;
use super::controllers::Controller;
use super::data::{Dump, Head, Tree};
use super::dice::Dice;
use super::faults::Fault;
use super::mutation::Mutation;
use super::network::Network;
use super::properties::Checks;
use super::server::{A, Exec, Run};
use super::zookeeper::{Client, Message, ZooKeeper};
use controller::model::{Outcome, Spec, Timing};
use controller::view::SnapshotRow;

/// What the seed's world is like.
#[derive(Clone, Copy)]
pub(super) struct Setup {
    pub acks: u32,
    pub instances: u32,
    /// Most instances that are asked for.
    pub most: u32,
    pub lease_ms: u64,
    pub failsafe_ms: u64,
    /// One thing is lost at a time.
    pub single: bool,
    /// A new master's first renewal is made to meet the commit that deposes it.
    pub ambush: bool,
    pub mutation: Option<Mutation>,
}

/// A machine with a clock of its own.
pub(super) struct Host {
    pub offset: u64,
    /// How fast its clock runs, in millionths.
    pub ppm: i64,
    pub boot: u32,
}

/// A snapshot in the store.
pub(super) struct Stored {
    pub row: SnapshotRow,
    pub dump: Dump,
    pub cluster_id: String,
}

/// What happens at a time.
pub(super) enum What {
    Fault,
    Cut(usize, usize, u64),
    Ends(Fault),
    Elect,
    Write,
    Begin(A),
    EndTask(A),
    Beat(A, u32),
    Due(A, u32, u64),
    PromiseOver(A, u32),
    Exec(A, Run, Box<Exec>, u32, u64),
    Replied(A, u32, u64, bool),
    Told(A, u32, Tag),
    LatePause(A, u32, u64),
    KeeperTimeout(A, u32, u64),
    JobGoesOn(A, u32, u64),
    NextJob(A, u32),
    Restored(A, u32, String, u64),
    BackedUp(A, u32, String),
    Prepared(A, u32, String, agent::snapshot::SnapshotId),
    Noticed(A, u32, String),
    Die(A, Run),
    Sync(A, Run),
    Notice(Client),
    Watch(Client),
    Cycle(usize, u64),
    CommandTimeout(usize, u64, Rc<str>),
    CommitTimeout(usize, u64),
    Distrust(usize),
    Deliver(usize, usize, Message),
}

/// What is still to happen, in order of time, then of its coming up. The heap moves only keys about.
#[derive(Default)]
struct Queue {
    heap: BinaryHeap<Reverse<(u64, u64, usize)>>,
    entries: u64,
    slots: Vec<Option<What>>,
    free: Vec<usize>,
}

impl Queue {
    fn push(&mut self, at: u64, what: What) {
        self.entries += 1;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[slot] = Some(what);
        self.heap.push(Reverse((at, self.entries, slot)));
    }

    fn next_at(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }

    fn pop(&mut self) -> Option<(u64, What)> {
        let Reverse((at, _, slot)) = self.heap.pop()?;
        self.free.push(slot);
        Some((at, self.slots[slot].take()?))
    }
}

/// Everything. Times in microseconds since it began, on a clock that nobody in it can read.
pub(super) struct World {
    pub setup: Setup,
    pub timing: Timing,
    pub dice: Dice,
    pub now: u64,
    queue: Queue,
    pub numbers: u64,
    pub links: u64,
    pub tree: Tree,
    pub net: Network,
    pub zk: ZooKeeper,
    pub ambush: Option<Ambush>,
    pub hosts: Vec<Host>,
    pub agents: Vec<Agent>,
    /// Active tasks, as the scheduler has them.
    pub tasks: Vec<(u32, A)>,
    pub killing: BTreeSet<A>,
    /// Tasks whose processes are gone for good, since when.
    pub ended: BTreeMap<A, u64>,
    pub controllers: [Controller; 2],
    pub store: Vec<Stored>,
    /// Copies that were set aside.
    pub asides: Vec<Head>,
    pub checks: Checks,
    pub faults_on: bool,
    pub last_fault: u64,
    /// Somebody took the responsibility for a loss.
    pub consented: bool,
    pub consents: u64,
    /// Refusals of what was asked for.
    pub answers: Vec<String>,
    pub tracing: bool,
}

impl World {
    pub fn new(seed: u64, setup: Setup) -> World {
        let spec = Spec {
            instances: setup.instances,
            save: "60 1".into(),
            lease_ms: setup.lease_ms,
            failsafe_max_ms: setup.failsafe_ms,
            durability: agent::record::Durability { acks: setup.acks },
            ..Spec::default()
        };
        let timing = Timing {
            bootstrap_wait: Duration::from_secs(15),
            cooldown: Duration::from_secs(5),
            promote_wait: Duration::from_secs(5),
            zombie_after: Duration::from_secs(20),
            ..Timing::default()
        };
        let mut world = World {
            setup,
            timing,
            dice: Dice(seed),
            now: 1_000_000,
            queue: Queue::default(),
            numbers: 0,
            links: 0,
            tree: Tree::new(),
            net: Network::default(),
            zk: ZooKeeper::new(spec),
            ambush: None,
            hosts: Vec::new(),
            agents: Vec::new(),
            tasks: Vec::new(),
            killing: BTreeSet::new(),
            ended: BTreeMap::new(),
            controllers: Default::default(),
            store: Vec::new(),
            asides: Vec::new(),
            checks: Checks::default(),
            faults_on: false,
            last_fault: 0,
            consented: false,
            consents: 0,
            answers: Vec::new(),
            tracing: std::env::var_os("AURORA_REDIS_SIM_TRACE").is_some(),
        };
        for instance in 0..setup.instances {
            let host = world.new_host();
            let a = world.new_task(instance, host);
            world.tasks.push((instance, a));
        }
        for c in 0..2 {
            world.controllers[c].ppm = world.dice.roll(1000) as i64 - 500;
            world.at(world.now + 1_000, What::Cycle(c, 0));
            world.controllers[c].connected = true;
            world.wake(c);
        }
        world.at(world.now, What::Elect);
        world.at(world.now, What::Write);
        world
    }

    pub fn new_host(&mut self) -> usize {
        let (offset, ppm) = (self.dice.between(10_000_000, 90_000_000), self.dice.roll(1000) as i64 - 500);
        self.hosts.push(Host { offset, ppm, boot: 0 });
        self.hosts.len() - 1
    }

    pub fn at(&mut self, at: u64, what: What) {
        self.queue.push(at.max(self.now), what);
    }

    pub fn name(&mut self, what: &str) -> String {
        format!("{what}{}", self.next_number())
    }

    pub fn next_number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    pub fn fresh_replid(&mut self) -> Rc<str> {
        Rc::from(self.name("replid-"))
    }

    pub fn trace(&self, what: impl FnOnce() -> String) {
        if self.tracing {
            eprintln!("{:>10.3} {}", self.now as f64 / 1000.0, what());
        }
    }

    /// How everything stands, for whoever looks for a fault.
    pub fn trace_everything(&self) {
        self.trace(|| format!("record {:?}, operation {:?}", self.zk.nodes.record, self.zk.nodes.operation));
        for (a, x) in self.agents.iter().enumerate().filter(|(_, x)| x.alive) {
            let state = self.render(a);
            let active = self.active().contains(&a);
            self.trace(|| format!("agent {a}, active {active}, job {}, queue {}: {state:?}", x.job.is_some(), x.jobs.len()));
        }
    }

    /// Puts the dump of an agent into the store.
    pub fn store_dump(&mut self, a: A) -> Option<agent::snapshot::SnapshotId> {
        let dump = self.agents[a].dump.clone()?;
        let id = agent::snapshot::SnapshotId::new(dump.epoch, self.now / 1000, dump.offset);
        let position = Some(agent::api::Position { replid: dump.replid.to_string(), offset: dump.offset });
        let cluster_id = self.agents[a].cluster_id.clone()?;
        let row = SnapshotRow {
            id: id.clone(),
            good: true,
            problem: None,
            bytes: 1,
            epoch: dump.epoch,
            position,
            created_ms: self.now / 1000,
            keys: None,
            server: "7.0.15".into(),
            rdb: String::new(),
            instance: self.agents[a].instance,
            suspicious: false,
            request_id: None,
            pin: None,
            verification: None,
            accepted: None,
            rehearsal: None,
            imported: None,
        };
        self.store.push(Stored { row, dump, cluster_id });
        Some(id)
    }

    /// Lets things happen until then, or until something broke.
    pub fn run_until(&mut self, until: u64) {
        while self.checks.broken.is_none() {
            let Some(next) = self.queue.next_at() else { return };
            if next > until {
                self.now = until;
                return;
            }
            let Some((at, what)) = self.queue.pop() else { return };
            self.now = self.now.max(at);
            self.happens(what);
            self.check();
        }
    }

    /// The agent is that process, and runs; what comes while it is frozen waits.
    fn runs(&self, a: A, incarnation: u32) -> bool {
        self.agents[a].alive && self.agents[a].incarnation == incarnation
    }

    fn happens(&mut self, what: What) {
        if let Some(later) = self.waits_for(&what) {
            return self.at(later, what);
        }
        match what {
            What::Fault => self.harm(),
            What::Cut(from, to, until) => self.cut_way(from, to, until),
            What::Ends(fault) => self.ends(&fault),
            What::Elect => self.elect(),
            What::Write => self.write(),
            What::Begin(a) => self.begin_agent(a),
            What::EndTask(a) => self.end_task(a),
            What::Exec(a, run, exec, incarnation, number) => {
                let running = self.server(a, run).is_some();
                if running {
                    let done = self.execute(a, run, *exec);
                    self.at(self.now, What::Replied(a, incarnation, number, done));
                    self.touch(a);
                }
            }
            What::Die(a, run) => self.server_dies(a, run),
            What::Sync(a, run) => self.sync(a, run),
            What::Notice(client) => match client {
                Client::Agent(a, i) if self.runs(a, i) => self.notice(a),
                Client::Agent(..) => (),
                Client::Controller(c, _) => self.controller_notice(c),
            },
            What::Watch(client) => self.watch(client),
            What::Cycle(c, at) => self.cycle(c, at),
            What::CommandTimeout(c, leadership, key) if self.controllers[c].leadership == leadership => {
                self.acted(c, &key, Outcome::Unknown("no answer".into()));
            }
            What::CommitTimeout(c, id) => self.committed(c, id, None),
            What::CommandTimeout(..) => (),
            What::Distrust(c) => self.distrust(c),
            What::Deliver(from, to, message) if self.net.passes(from, to) => self.deliver(message),
            What::Deliver(..) => (),
            of_agent => self.happens_to_agent(of_agent),
        }
    }

    fn happens_to_agent(&mut self, what: What) {
        match what {
            What::Beat(a, i) if self.runs(a, i) => self.beat(a),
            What::Due(a, i, due) if self.runs(a, i) && self.agents[a].due_at == Some(due) => {
                self.agents[a].due_at = None;
                self.on_term(a, agent::lease::term::Event::Tick);
            }
            What::PromiseOver(a, i) if self.runs(a, i) => self.touch(a),
            What::Replied(a, i, number, done) if self.runs(a, i) => self.replied(a, number, done),
            What::Told(a, i, tag) if self.runs(a, i) => self.term_told(a, tag, true),
            What::LatePause(a, i, number) if self.runs(a, i) => self.late_pause(a, number),
            What::KeeperTimeout(a, i, id) if self.runs(a, i) => self.keeper_replied(a, id, None),
            What::JobGoesOn(a, i, id) if self.runs(a, i) => self.job_goes_on(a, id, true),
            What::NextJob(a, i) if self.runs(a, i) => self.take_next_job(a),
            What::Restored(a, i, id, epoch) if self.runs(a, i) => self.restored(a, &id, epoch),
            What::BackedUp(a, i, request) if self.runs(a, i) => self.backed_up(a, request),
            What::Prepared(a, i, request, snapshot) if self.runs(a, i) => self.prepared(a, request, snapshot),
            What::Noticed(a, i, run_id) if self.runs(a, i) => self.noticed(a, run_id),
            What::Noticed(a, _, run_id) => self.agents[a].server_note = Some(run_id),
            _ => (),
        }
    }

    /// Until when something has to wait because whom it comes to stands still.
    fn waits_for(&self, what: &What) -> Option<u64> {
        let until = match what {
            What::Beat(a, _)
            | What::Due(a, ..)
            | What::PromiseOver(a, _)
            | What::Replied(a, ..)
            | What::Told(a, ..)
            | What::LatePause(a, ..)
            | What::KeeperTimeout(a, ..)
            | What::JobGoesOn(a, ..)
            | What::NextJob(a, _)
            | What::Restored(a, ..)
            | What::BackedUp(a, ..)
            | What::Prepared(a, ..)
            | What::Noticed(a, ..)
            | What::Notice(Client::Agent(a, _)) => self.agents[*a].frozen_until,
            What::Exec(a, run, ..) => self.agents[*a].server.as_ref().filter(|s| s.run == *run)?.hung_until,
            What::Cycle(c, _) | What::CommitTimeout(c, _) | What::CommandTimeout(c, ..) => self.controllers[*c].stalled_until,
            What::Deliver(_, _, message) => match message {
                Message::Command { to, .. } | Message::Ask { to, .. } | Message::Promised { to, .. } => {
                    self.agents[*to].frozen_until
                }
                Message::Reply { to: Client::Agent(a, _), .. } | Message::Watch { to: Client::Agent(a, _), .. } => {
                    self.agents[*a].frozen_until
                }
                Message::Reply { to: Client::Controller(c, _), .. } | Message::Watch { to: Client::Controller(c, _), .. } => {
                    self.controllers[*c].stalled_until
                }
                Message::State { to, .. } | Message::Answered { to, .. } => self.controllers[*to].stalled_until,
                _ => return None,
            },
            _ => return None,
        };
        (until > self.now).then_some(until)
    }

    fn deliver(&mut self, message: Message) {
        match message {
            Message::State { to, from, number, state } => self.heard_agent(to, from, number, state),
            Message::Command { to, from, key, command } => self.commanded(to, from, key, command),
            Message::Answered { to, leadership, key, outcome } => {
                if self.controllers[to].leadership == leadership {
                    self.acted(to, &key, outcome);
                }
            }
            Message::Ask { to, from, incarnation, term, request } if self.agents[to].alive => {
                self.asked_to_promise(to, from, incarnation, term, &request);
            }
            Message::Promised { to, incarnation, term, round, probe, peer } if self.runs(to, incarnation) => {
                self.promised(to, term, round, probe, peer);
            }
            Message::Ask { .. } | Message::Promised { .. } => (),
            Message::Stream { to, from, number, head } => self.streamed(to, from, number, head),
            Message::Ack { to, run, number, offset } => self.acknowledged(to, &run, number, offset),
            Message::Request { from, id, request } => self.requested(from, id, request),
            Message::Reply { to: Client::Agent(a, i), id, reply } if self.runs(a, i) => self.keeper_replied(a, id, Some(reply)),
            Message::Reply { to: Client::Agent(..), .. } => (),
            Message::Reply { to: Client::Controller(c, _), id, reply } => self.committed(c, id, Some(reply)),
            Message::Watch { to: Client::Agent(a, i), nodes } if self.runs(a, i) => self.saw_nodes(a, &nodes),
            Message::Watch { to: Client::Agent(..), .. } => (),
            Message::Watch { to: Client::Controller(c, _), nodes } => self.controller_saw(c, nodes),
        }
    }
}
