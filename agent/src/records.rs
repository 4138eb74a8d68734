//! The cluster record as this agent sees it: watched all the time, read afresh when a command names a newer one.
//!
//! Invariants: within a generation the version seen never goes back; a record of another cluster, or content that is none, is reported
//! and changes nothing: what was read before stays in force, and the server goes on serving.

use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use crate::node::Node;
use crate::record::Record;
use crate::zk::{self, Keeper};

/// A record that was read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    pub record: Record,
    /// ZooKeeper's version of the node.
    pub version: i32,
}

/// The record's reader.
#[derive(Debug)]
pub(crate) struct Records {
    keeper: Keeper,
    path: String,
    seen: watch::Sender<Option<Arc<Seen>>>,
    /// One reading is taken in at a time.
    taking: Mutex<()>,
}

const SUBJECT: &str = "record";

impl Records {
    /// A reader that has read nothing yet.
    pub fn new(keeper: Keeper, path: String) -> Records {
        Records { keeper, path, seen: watch::channel(None).0, taking: Mutex::new(()) }
    }

    /// The record last read; absent before the first reading.
    pub fn get(&self) -> Option<Arc<Seen>> {
        self.seen.borrow().clone()
    }

    /// Follows it.
    pub fn subscribe(&self) -> watch::Receiver<Option<Arc<Seen>>> {
        self.seen.subscribe()
    }

    /// Reads it now; when what is looked for is `still` missing then, once more from a server that has caught up.
    pub async fn catch_up(&self, node: &Node, still: impl Fn() -> bool) -> Result<(), zk::Error> {
        let client = self.keeper.client()?;
        self.read(node, &client).await?;
        if still() {
            zk::call("sync", &self.path, client.sync(&self.path)).await?;
            self.read(node, &client).await?;
        }
        Ok(())
    }

    async fn read(&self, node: &Node, client: &zookeeper_client::Client) -> Result<(), zk::Error> {
        if let Some(read) = zk::read(client, &self.path).await? {
            self.take(node, &read);
        }
        Ok(())
    }

    /// Takes in what was read.
    fn take(&self, node: &Node, read: &zk::Node) {
        let _one_at_a_time = self.taking.lock().expect("no panic while locked");
        let taken = read.json::<Record>(&self.path, "cluster record").map_err(|e| e.to_string()).and_then(|record| {
            let memory = node.notebook.get();
            match memory.cluster_id.as_ref().filter(|known| **known != record.cluster_id) {
                Some(known) => Err(format!(
                    "node {} is the record of cluster {}, this agent has served {known}: it obeys nobody until that is resolved",
                    self.path, record.cluster_id
                )),
                None => self.advance(node, Seen { record, version: read.version }),
            }
        });
        match taken {
            Ok(()) => node.change(|parts| parts.solved(SUBJECT)),
            Err(problem) => node.change(|parts| parts.problem(SUBJECT, problem)),
        }
    }

    fn advance(&self, node: &Node, now: Seen) -> Result<(), String> {
        let older = |seen: &Arc<Seen>| seen.record.generation == now.record.generation && seen.version > now.version;
        if self.get().as_ref().is_some_and(older) {
            return Ok(());
        }
        let memory = node.notebook.get();
        let known = memory.generation.as_ref() == Some(&now.record.generation) && memory.epoch >= now.record.epoch;
        if known && memory.lease_ms == Some(now.record.lease_ms) {
            node.notebook.note_version(now.version);
            return self.show(now);
        }
        let noted = node.notebook.change(|memory| {
            let same = memory.generation.as_ref() == Some(&now.record.generation);
            memory.record_version = if same { memory.record_version.max(now.version) } else { now.version };
            memory.generation = Some(now.record.generation.clone());
            memory.lease_ms = Some(now.record.lease_ms);
            memory.cluster_id = Some(now.record.cluster_id.clone());
            memory.epoch = memory.epoch.max(now.record.epoch);
        });
        noted.map_err(|error| error.to_string())?;
        self.show(now)
    }

    fn show(&self, now: Seen) -> Result<(), String> {
        self.seen.send_if_modified(|seen| {
            let changed = seen.as_deref() != Some(&now);
            *seen = Some(Arc::new(now));
            changed
        });
        Ok(())
    }
}

/// Keeps the reader up to date for as long as the agent runs.
pub(crate) async fn follow(node: Arc<Node>) {
    let mut watched = zk::watch_node(&node.keeper, &node.records.path);
    let mut logged = None;
    loop {
        let now = watched.borrow_and_update().clone();
        if let (Some(read), None) = (&now.node, &now.problem) {
            node.records.take(&node, read);
        }
        if now.problem != logged {
            report(&node, now.problem.as_deref());
            logged = now.problem;
        }
        if watched.changed().await.is_err() {
            return;
        }
    }
}

fn report(node: &Node, problem: Option<&str>) {
    match problem {
        Some(problem) => {
            tracing::warn!(problem, "the record cannot be read now");
            node.change(|parts| parts.problem("zookeeper", problem.to_owned()));
        }
        None => {
            tracing::info!("the record can be read");
            node.change(|parts| parts.solved("zookeeper"));
        }
    }
}

/// Whether the record names the server `run_id` of `task_id` as the master in office.
pub(crate) fn names(seen: Option<&Seen>, task_id: &str, run_id: &str) -> bool {
    seen.is_some_and(|seen| seen.record.has_in_office(task_id, run_id))
}
