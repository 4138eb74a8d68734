//! Observing: everything the decision may look at, gathered from ZooKeeper, agents, scheduler and store into one [`Observed`].
//!
//! Called once per cycle by `reconcile`; reads only what its watchers have received, so it never waits. What cannot be read keeps its
//! last value and is named as a problem.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent::api::Address;
use agent::client::Client;
use agent::clock::unix_ms;
use agent::record::{Lease, Member, Paths, Pinned, Record};
use agent::zk::{self, Children, Keeper, Watched};
use tokio::sync::{Notify, watch};

use crate::model::{LeaseView, Observed, Reason, SchedulerView, Spec, StoreView, Wait};
use crate::view::Operation;

mod agents;
pub mod catalogue;
pub mod memory;
pub mod tasks;
mod testimony;

/// What a poller saw last.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Polled<T> {
    /// The view; kept from before while the source is away.
    pub view: T,
    /// Why it cannot be read now; absent when all is well.
    pub problem: Option<String>,
}

/// Where the world is watched from.
#[derive(Debug)]
pub struct Sources {
    /// The zero of all times.
    pub start: Instant,
    /// ZooKeeper.
    pub keeper: Keeper,
    /// The cluster's nodes.
    pub paths: Paths,
    /// Node under which Aurora announces the job's tasks.
    pub serverset: String,
    /// Client for the agents.
    pub agents: Client,
    /// The scheduler, polled.
    pub scheduler: watch::Receiver<Polled<SchedulerView>>,
    /// The store, polled.
    pub store: watch::Receiver<Polled<StoreView>>,
    /// An agent not heard for this long is silent.
    pub silent_after: Duration,
}

/// The watched world of one leadership.
#[derive(Debug)]
pub struct World {
    start: Instant,
    keeper: Keeper,
    paths: Paths,
    record: watch::Receiver<Watched>,
    operation: watch::Receiver<Watched>,
    lease: watch::Receiver<Watched>,
    spec: watch::Receiver<Watched>,
    serverset: watch::Receiver<Children>,
    serverset_path: String,
    scheduler: watch::Receiver<Polled<SchedulerView>>,
    store: watch::Receiver<Polled<StoreView>>,
    agents: agents::Agents,
    witnesses: testimony::Witnesses,
    memory: memory::Memory,
    silent_after: Duration,
    last_cycle: Option<Duration>,
    /// The record as we replaced it last: it counts until the watch shows the same or a later one.
    own: Option<(Record, i32)>,
    /// The same for the operation: nobody but us writes it, so its version is known.
    own_operation: Option<(Operation, i32)>,
    last_spec: Option<(Spec, i32)>,
}

/// What a cycle works on.
#[derive(Clone, Debug)]
pub struct Sight {
    /// What is wanted, with its ZooKeeper version; the reason why there is none otherwise.
    pub spec: Result<(Spec, i32), Wait>,
    /// What was seen; the reason why nothing can be decided on it otherwise.
    pub seen: Result<Observed, Wait>,
    /// Now, on the clock of the observations.
    pub now: Duration,
}

impl World {
    /// Starts watching; `wake` is notified whenever something has changed.
    pub fn watch(sources: Sources, wake: &Arc<Notify>) -> World {
        let start = sources.start;
        let (keeper, paths) = (sources.keeper, sources.paths);
        let world = World {
            start,
            record: zk::watch_node(&keeper, &paths.record()),
            operation: zk::watch_node(&keeper, &paths.operation()),
            lease: zk::watch_node(&keeper, &paths.lease()),
            spec: zk::watch_node(&keeper, &paths.spec()),
            serverset: zk::watch_children(&keeper, &sources.serverset),
            serverset_path: sources.serverset,
            scheduler: sources.scheduler,
            store: sources.store,
            agents: agents::Agents::new(sources.agents.clone(), start, wake.clone()),
            witnesses: testimony::Witnesses::new(sources.agents, wake.clone()),
            memory: memory::Memory::default(),
            silent_after: sources.silent_after,
            last_cycle: None,
            own: None,
            own_operation: None,
            last_spec: None,
            keeper,
            paths,
        };
        for node in [&world.record, &world.operation, &world.lease, &world.spec] {
            wake_on_change(node.clone(), wake);
        }
        wake_on_change(world.serverset.clone(), wake);
        wake_on_change(world.scheduler.clone(), wake);
        wake_on_change(world.store.clone(), wake);
        world
    }

    /// Now, on the clock of the observations.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Takes a record as read that we have committed with this version, so that nobody waits for the watch.
    pub fn assume(&mut self, record: &Record, version: i32) {
        self.own = Some((record.clone(), version));
    }

    /// The same for the operation: a step that we have written is not decided again on the view before it.
    pub fn assume_operation(&mut self, operation: &Operation) {
        let seen = self.operation.borrow().node.as_ref().map_or(0, |node| node.version);
        let own = self.own_operation.as_ref().map_or(0, |(_, version)| *version);
        self.own_operation = Some((operation.clone(), seen.max(own) + 1));
    }

    /// Gathers what is known now.
    pub fn observe(&mut self) -> Sight {
        let now = self.start.elapsed();
        // After a stall of our own longer than an agent may be silent, old words say nothing about now.
        if self.last_cycle.is_some_and(|last| now - last > self.silent_after.max(Duration::from_secs(1)) * 3) {
            self.agents.distrust();
        }
        self.last_cycle = Some(now);
        let mut seen = self.gather(now);
        let spec = match self.read_spec() {
            Ok(spec) => {
                self.last_spec = Some(spec.clone());
                Ok(spec)
            }
            // What was wanted last stays wanted while the node is spoilt: a failover must not wait for its repair.
            Err(wait) => {
                self.last_spec.clone().inspect(|_| seen.iter_mut().for_each(|s| s.problems.push(wait.clone()))).ok_or(wait)
            }
        };
        Sight { spec, seen, now }
    }

    fn read_spec(&self) -> Result<(Spec, i32), Wait> {
        let path = self.paths.spec();
        let watched = self.spec.borrow();
        let missing = || Wait {
            reason: Reason::SpecMissing,
            message: format!("node {path} does not exist: create the cluster with aurora-redis create FILE"),
        };
        match &watched.node {
            None if !watched.read => Err(self.unreachable(watched.problem.as_deref())),
            None => Err(missing()),
            Some(node) => match node.json::<Spec>(&path, "spec") {
                Ok(spec) if spec.instances >= 1 => Ok((spec, node.version)),
                Ok(_) => Err(Wait {
                    reason: Reason::SpecInvalid,
                    message: format!("node {path}: instances is 0, at least 1 is needed"),
                }),
                Err(error) => Err(Wait { reason: Reason::SpecInvalid, message: error.to_string() }),
            },
        }
    }

    fn unreachable(&self, problem: Option<&str>) -> Wait {
        let message = format!("ZooKeeper {}: {}", self.keeper.ensemble(), problem.unwrap_or("not connected"));
        Wait { reason: Reason::ZookeeperUnreachable, message }
    }

    fn record(&self) -> Result<Option<(Record, i32)>, Wait> {
        let watched = self.record.borrow();
        if !watched.read || !self.keeper.connected() {
            return Err(self.unreachable(watched.problem.as_deref()));
        }
        let Some(node) = &watched.node else { return Ok(None) };
        let read: Record = node
            .json(&self.paths.record(), "cluster record")
            .map_err(|error| Wait { reason: Reason::RecordInvalid, message: error.to_string() })?;
        match &self.own {
            Some((own, version)) if own.generation == read.generation && *version > node.version => {
                Ok(Some((own.clone(), *version)))
            }
            _ => Ok(Some((read, node.version))),
        }
    }

    /// The operation; the node is empty before the first.
    fn operation(&self) -> Result<Option<Operation>, Wait> {
        let watched = self.operation.borrow();
        let Some(node) = watched.node.as_ref() else { return Ok(None) };
        if let Some((own, _)) = self.own_operation.as_ref().filter(|(_, version)| node.version < *version) {
            return Ok(Some(own.clone()));
        }
        if node.data.is_empty() {
            return Ok(None);
        }
        node.json(&self.paths.operation(), "operation")
            .map(Some)
            .map_err(|error| Wait { reason: Reason::OperationInvalid, message: error.to_string() })
    }

    /// The lease node; absent before it was read.
    fn lease(&self, seen: &mut Observed) {
        let watched = self.lease.borrow();
        let Some(node) = &watched.node else { return };
        let pinned = |lease, unreadable| Pinned { version: node.version, lease, unreadable };
        let pinned = match node.data.is_empty() {
            true => pinned(None, false),
            false => match node.json::<Lease>(&self.paths.lease(), "lease") {
                Ok(lease) => pinned(Some(lease), false),
                Err(error) => {
                    seen.problems.push(Wait { reason: Reason::LeaseInvalid, message: error.to_string() });
                    pinned(None, true)
                }
            },
        };
        seen.lease = Some(LeaseView { node: pinned, seen: Duration::ZERO });
    }

    fn gather(&mut self, now: Duration) -> Result<Observed, Wait> {
        let mut seen = Observed { wall_ms: unix_ms(), record: self.record()?, ..Observed::default() };
        seen.fresh_ids = (uuid::Uuid::new_v4().to_string(), uuid::Uuid::new_v4().to_string());
        match self.operation() {
            Ok(operation) => seen.operation = operation,
            Err(wait) => seen.problems.push(wait),
        }
        self.lease(&mut seen);
        self.gather_agents(&mut seen);
        self.gather_polled(&mut seen);
        self.ask_witnesses(&mut seen, now);
        self.memory.recall(&mut seen, now);
        Ok(seen)
    }

    fn gather_agents(&mut self, seen: &mut Observed) {
        let children = self.serverset.borrow().clone();
        if let Some(problem) = &children.problem {
            seen.problems.push(self.unreachable(Some(problem)));
        }
        let mut addresses = BTreeMap::new();
        for (name, data) in &children.nodes {
            match health_endpoint(name, data) {
                None => (),
                Some(Ok((address, shard))) => drop(addresses.insert(address, shard)),
                Some(Err(message)) => seen
                    .problems
                    .push(Wait { reason: Reason::BadMember, message: format!("node {}/{name}: {message}", self.serverset_path) }),
            }
        }
        self.agents.watch(&addresses);
        seen.agents = self.agents.views();
        seen.agents.sort_by_key(|a| (a.state.as_ref().map_or(a.shard, |s| Some(s.instance)), a.address.clone()));
        seen.agents.retain(|a| !self.agents.has_left(&a.address) || a.state.is_some());
    }

    fn gather_polled(&self, seen: &mut Observed) {
        let scheduler = self.scheduler.borrow();
        seen.scheduler = scheduler.view.clone();
        if let Some(problem) = &scheduler.problem {
            seen.problems.push(Wait { reason: Reason::SchedulerUnreachable, message: problem.clone() });
        }
        let store = self.store.borrow();
        seen.store = store.view.clone();
        if let Some(problem) = &store.problem {
            seen.problems.push(Wait { reason: Reason::StoreUnreachable, message: problem.clone() });
        }
    }

    /// Witnesses are needed while the master's own task does not speak for itself.
    fn ask_witnesses(&mut self, seen: &mut Observed, now: Duration) {
        let Some(master) = seen.record.as_ref().and_then(|(r, _)| r.master.clone()) else { return };
        let speaks = |m: &Member| {
            let own = seen.agents.iter().filter_map(|a| a.fresh(now, self.silent_after));
            own.filter(|s| s.task_id == m.task_id).any(|s| s.redis.as_ref().is_some_and(|r| r.run_id == m.run_id))
        };
        if !speaks(&master) {
            self.witnesses.ask(&master, &seen.agents, now, self.silent_after);
            seen.testimonies = self.witnesses.answers();
        }
    }
}

fn wake_on_change<T: Send + Sync + 'static>(mut rx: watch::Receiver<T>, wake: &Arc<Notify>) {
    let wake = Arc::downgrade(wake);
    tokio::spawn(async move {
        while rx.changed().await.is_ok() {
            let Some(wake) = wake.upgrade() else { return };
            wake.notify_one();
        }
    });
}

/// The agent's address in a serverset member; `None` for nodes that are no members.
fn health_endpoint(name: &str, data: &[u8]) -> Option<Result<(Address, Option<u32>), String>> {
    aurora::serverset::sequence(name)?;
    let member = match aurora::serverset::Member::parse(data) {
        Ok(member) => member,
        Err(error) => return Some(Err(error.to_string())),
    };
    let Some(endpoint) = member.additional_endpoints.get("health") else {
        return Some(Err("it has no endpoint named 'health': is it a task of our job?".into()));
    };
    let address = Address { host: endpoint.host.clone(), port: endpoint.port };
    Some(Ok((address, member.shard)))
}
