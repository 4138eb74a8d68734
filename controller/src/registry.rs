//! The cluster's own nodes in ZooKeeper: election, record, operation, spec, history.
//!
//! Every write carries a check of the leader's election node, so that a deposed leader's late write fails; the record changes by
//! compare-and-set. Nothing is created inside a multi, for ZooKeeper 3.4 cannot: nodes that a multi sets are made before.

use agent::record::{Paths, Record};
use agent::zk::{self, Keeper, call, persistent};
use zookeeper_client as zookeeper;

use crate::model::{HistoryChange, Spec};
use crate::view::{HistoryEntry, Operation};

/// History entries shown: the newest ones.
const MAX_HISTORY: usize = 200;

/// A check of this version asks only whether the node is there.
const ANY_VERSION: i32 = -1;

/// The versions that a change of the record was decided on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// Of the record.
    pub record: i32,
    /// Of the lease node, where no renewal may come between.
    pub lease: Option<i32>,
}

/// Access to the nodes.
#[derive(Clone, Debug)]
pub struct Registry {
    keeper: Keeper,
    paths: Paths,
}

/// The right to write, while the election node exists. Dropping it resigns.
#[derive(Debug)]
pub struct Leadership {
    lock: zookeeper::OwnedLockClient,
    /// The election node itself: somebody may have deleted it.
    node: tokio::sync::watch::Receiver<zk::Watched>,
}

impl Leadership {
    /// Whether the session that holds the election node is alive and connected, and the node is there.
    pub fn stands(&self) -> bool {
        self.lock.client().state() == zookeeper::SessionState::SyncConnected && !self.is_deleted()
    }

    /// Whether the session or the node is gone for good.
    pub fn is_over(&self) -> bool {
        self.lock.client().state().is_terminated() || self.is_deleted()
    }

    fn is_deleted(&self) -> bool {
        let seen = self.node.borrow();
        seen.read && seen.node.is_none() && seen.problem.is_none()
    }
}

/// What can go wrong with a write.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// ZooKeeper failed or refused.
    #[error(transparent)]
    Zk(#[from] zk::Error),
    /// The election node is gone: another controller may lead.
    #[error("the election node is gone: another controller may lead; nothing was written")]
    NotLeading,
    /// Somebody else changed the node since it was read.
    #[error("{path} was changed by somebody else since it was read; nothing was written")]
    Conflict {
        /// Node.
        path: String,
    },
}

impl Error {
    /// Whether certainly nothing was written.
    pub fn is_definite(&self) -> bool {
        match self {
            Error::Zk(error) => error.is_definite(),
            Error::NotLeading | Error::Conflict { .. } => true,
        }
    }
}

impl Registry {
    /// The nodes of `paths` through `keeper`'s session.
    pub fn new(keeper: Keeper, paths: Paths) -> Registry {
        Registry { keeper, paths }
    }

    /// Where the nodes are.
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// Waits to be elected, as long as it takes; `url` is what others find in the election node.
    pub async fn lead(&self, url: &str) -> Result<Leadership, Error> {
        let client = self.keeper.client()?;
        for path in [self.paths.controllers(), self.paths.history(), self.paths.operation(), self.paths.lease()] {
            zk::ensure(&client, &path).await?;
        }
        let directory = self.paths.controllers();
        let failed = |source| zk::Error::Call { what: "be elected in", path: directory.clone(), source };
        let prefix = zookeeper::LockPrefix::new_curator(&directory, "controller-").map_err(failed)?;
        let lock = client.lock(prefix, url.as_bytes(), zookeeper::Acls::anyone_all()).await.map_err(failed)?;
        let node = zk::watch_node(&self.keeper, lock.lock_path());
        Ok(Leadership { lock: lock.into_owned(), node })
    }

    /// Makes the node of a generation, which every transaction of its time checks. Repeating it changes nothing.
    pub async fn begin_generation(&self, lead: &Leadership, generation: &str) -> Result<(), Error> {
        Ok(zk::ensure(lead.lock.client(), &self.paths.generation(generation)).await?)
    }

    /// Makes the record node, after the node of its generation; refused when there is one.
    pub async fn create_record(&self, lead: &Leadership, record: &Record) -> Result<(), Error> {
        self.begin_generation(lead, &record.generation).await?;
        let path = self.paths.record();
        match call("make", &path, lead.lock.create(&path, &json(record), &persistent())).await {
            Ok(_) => Ok(()),
            Err(zk::Error::Call { source: zookeeper::Error::NodeExists, .. }) => Err(Error::Conflict { path }),
            // Inside a multi a create fails on ZooKeeper 3.4; there a check of our own must do.
            Err(zk::Error::Call { source: zookeeper::Error::MarshallingError, .. }) => self.create_unchecked(lead, record).await,
            Err(error) => Err(leading(error)),
        }
    }

    async fn create_unchecked(&self, lead: &Leadership, record: &Record) -> Result<(), Error> {
        let path = self.paths.record();
        let client = lead.lock.client();
        let node = lead.lock.lock_path();
        call("check", node, client.check_stat(node)).await?.ok_or(Error::NotLeading)?;
        match call("make", &path, client.create(&path, &json(record), &persistent())).await {
            Ok(_) => Ok(()),
            Err(zk::Error::Call { source: zookeeper::Error::NodeExists, .. }) => Err(Error::Conflict { path }),
            Err(error) => Err(error.into()),
        }
    }

    /// Replaces the record at the versions it was decided on, with the operation in the same multi if one is given.
    pub async fn commit(&self, lead: &Leadership, record: &Record, at: At, operation: Option<&Operation>) -> Result<(), Error> {
        let mut writer = lead.lock.new_check_writer();
        let mut paths = vec![self.paths.record()];
        let failed = |what, path: &str, source| zk::Error::Call { what, path: path.into(), source };
        writer.add_set_data(&paths[0], &json(record), Some(at.record)).map_err(|e| failed("write", &paths[0], e))?;
        if let Some(operation) = operation {
            let path = self.paths.operation();
            writer.add_set_data(&path, &json(operation), None).map_err(|e| failed("write", &path, e))?;
            paths.push(path);
        }
        let checks = [(self.paths.generation(&record.generation), Some(ANY_VERSION)), (self.paths.lease(), at.lease)];
        for (path, version) in checks.into_iter().filter_map(|(path, version)| Some((path, version?))) {
            writer.add_check_version(&path, version).map_err(|e| failed("check", &path, e))?;
            paths.push(path);
        }
        written(&paths, tokio::time::timeout(zk::CALL_TIMEOUT, writer.commit()).await)
    }

    /// Replaces the operation.
    pub async fn set_operation(&self, lead: &Leadership, operation: &Operation) -> Result<(), Error> {
        let path = self.paths.operation();
        call("write", &path, lead.lock.set_data(&path, &json(operation), None)).await.map(drop).map_err(leading)
    }

    /// Replaces the spec at `version`.
    pub async fn set_spec(&self, lead: &Leadership, spec: &Spec, version: i32) -> Result<(), Error> {
        let path = self.paths.spec();
        match call("write", &path, lead.lock.set_data(&path, &json(spec), Some(version))).await {
            Err(zk::Error::Call { source: zookeeper::Error::BadVersion, .. }) => Err(Error::Conflict { path }),
            other => other.map(drop).map_err(leading),
        }
    }

    /// Adds or completes a history entry. Repeating it changes nothing. An entry that was spoilt is written again as it is `known`.
    pub async fn change_history(&self, lead: &Leadership, change: &HistoryChange, known: &[HistoryEntry]) -> Result<(), Error> {
        let client = lead.lock.client();
        match change {
            HistoryChange::Add(entry) => {
                let path = self.history_node(entry.epoch);
                match call("make", &path, client.create(&path, &json(entry.as_ref()), &persistent())).await {
                    Ok(_) | Err(zk::Error::Call { source: zookeeper::Error::NodeExists, .. }) => Ok(()),
                    Err(error) => Err(error.into()),
                }
            }
            HistoryChange::Complete { epoch, pause_ms, steps } => {
                let complete = |entry: &mut HistoryEntry| {
                    entry.pause_ms = entry.pause_ms.or(*pause_ms);
                    if entry.steps.is_empty() {
                        entry.steps.clone_from(steps);
                    }
                };
                self.amend_history(client, *epoch, known, complete).await
            }
            HistoryChange::Measured { epoch, lost_bytes } => {
                self.amend_history(client, *epoch, known, |entry| entry.lost_bytes = Some(*lost_bytes)).await
            }
        }
    }

    async fn amend_history(
        &self,
        client: &zookeeper::Client,
        epoch: u64,
        known: &[HistoryEntry],
        amend: impl FnOnce(&mut HistoryEntry),
    ) -> Result<(), Error> {
        let path = self.history_node(epoch);
        let Some(node) = zk::read(client, &path).await? else { return Ok(()) };
        let spoilt = |error| known.iter().find(|entry| entry.epoch == epoch).cloned().ok_or(error);
        let mut entry: HistoryEntry = node.json(&path, "history entry").or_else(spoilt)?;
        amend(&mut entry);
        call("write", &path, client.set_data(&path, &json(&entry), Some(node.version))).await?;
        Ok(())
    }

    fn history_node(&self, epoch: u64) -> String {
        format!("{}/{epoch:010}", self.paths.history())
    }

    /// The newest history entries, newest first; one that cannot be understood is as it is `known`, or left out.
    pub async fn history(&self, known: &[HistoryEntry]) -> Result<Vec<HistoryEntry>, Error> {
        let client = self.keeper.client()?;
        let directory = self.paths.history();
        let mut names = match call("list", &directory, client.list_children(&directory)).await {
            Ok(names) => names,
            Err(zk::Error::Call { source: zookeeper::Error::NoNode, .. }) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        names.sort_unstable_by(|a, b| b.cmp(a));
        let mut entries = Vec::new();
        for name in names.into_iter().take(MAX_HISTORY) {
            let path = format!("{directory}/{name}");
            if let Some(node) = zk::read(&client, &path).await? {
                let read = node.json::<HistoryEntry>(&path, "history entry").ok();
                entries.extend(read.or_else(|| known.iter().find(|entry| self.history_node(entry.epoch) == path).cloned()));
            }
        }
        Ok(entries)
    }
}

fn json<T: serde::Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("our own types turn into JSON")
}

/// A write through the lock that found it gone.
fn leading(error: zk::Error) -> Error {
    match error {
        zk::Error::Call { source: zookeeper::Error::RuntimeInconsistent, .. } => Error::NotLeading,
        other => Error::Zk(other),
    }
}

type Committed = Result<Vec<zookeeper::MultiWriteResult>, zookeeper::CheckWriteError>;

/// What a transaction over `paths` came to, in their order; the record is the first.
fn written(paths: &[String], result: Result<Committed, tokio::time::error::Elapsed>) -> Result<(), Error> {
    use zookeeper::CheckWriteError as Failed;
    let failed = |path: &str, source| zk::Error::Call { what: "write", path: path.into(), source };
    match result {
        Err(_) => Err(zk::Error::Timeout { what: "write", path: paths[0].clone() }.into()),
        Ok(Ok(_)) => Ok(()),
        Ok(Err(Failed::CheckFailed { .. })) => Err(Error::NotLeading),
        Ok(Err(Failed::OperationFailed { source, index })) => {
            let path = paths.get(index).unwrap_or(&paths[0]);
            match source {
                zookeeper::Error::BadVersion => Err(Error::Conflict { path: path.clone() }),
                source => Err(failed(path, source).into()),
            }
        }
        Ok(Err(Failed::RequestFailed { source })) => Err(failed(&paths[0], source).into()),
    }
}
