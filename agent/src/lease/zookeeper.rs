//! What the lease thread does in ZooKeeper: renewals, and readings of the record.
//!
//! A renewal is one transaction: the generation's node exists, the record has the version that was read, and the lease node, which still
//! has the version that the sender knows, gets its new content. So one that was sent earlier and not answered can never be stored after one
//! that is known to be.

use std::time::Duration;

use zookeeper_client::{Error as ZkError, MultiWriteError, MultiWriteResult};

use super::ground::{Ground, Holder};
use super::term::{Event, Outcome};
use crate::record::{Lease, Paths, Record};
use crate::zk::{self, Keeper};

/// Longest wait for the outcome of one renewal.
const LIMIT: Duration = Duration::from_secs(10);

/// What came of a renewal.
#[derive(Debug)]
pub(super) struct Renewed {
    pub outcome: Outcome,
    /// Version of the lease node, when it is known.
    pub version: Option<i32>,
    /// Why it was not stored; empty when it was.
    pub trouble: String,
}

impl Renewed {
    fn not(outcome: Outcome, trouble: impl Into<String>) -> Renewed {
        Renewed { outcome, version: None, trouble: trouble.into() }
    }
}

/// Sends a renewal and waits for its outcome. `known` is the version of the lease node, looked up when absent.
pub(super) async fn renew(keeper: &Keeper, paths: &Paths, lease: &Lease, known: Option<i32>) -> Renewed {
    let client = match keeper.client() {
        Ok(client) => client,
        Err(error) => return Renewed::not(Outcome::NotApplied, error.to_string()),
    };
    let node = paths.lease();
    let version = match known {
        Some(version) => version,
        None => match zk::call("look at", &node, client.check_stat(&node)).await {
            Ok(Some(stat)) => stat.version,
            Ok(None) => return Renewed::not(Outcome::NotApplied, absent(&node)),
            Err(error) => return Renewed::not(Outcome::NotApplied, crate::causes::chain(&error)),
        },
    };
    let mut writer = client.new_multi_writer();
    let content = serde_json::to_vec(lease).expect("a lease is plain data");
    let generation = paths.generation(&lease.generation);
    let added = writer
        .add_check_version(&generation, -1)
        .and_then(|()| writer.add_check_version(&paths.record(), lease.record_version))
        .and_then(|()| writer.add_set_data(&node, &content, Some(version)));
    if let Err(error) = added {
        return Renewed::not(Outcome::NotApplied, error.to_string());
    }
    // A long limit: an answer that comes late is waited for, while promises are asked for.
    match tokio::time::timeout(LIMIT, writer.commit()).await {
        Err(_) => Renewed::not(Outcome::Unknown, format!("a renewal of the lease was not answered within {LIMIT:?}")),
        Ok(Err(error)) => judge_failure(error, &[&generation, &paths.record(), &node]),
        Ok(Ok(results)) => {
            let version = results.into_iter().find_map(|result| match result {
                MultiWriteResult::SetData { stat } => Some(stat.version),
                _ => None,
            });
            Renewed { outcome: Outcome::Committed, version, trouble: String::new() }
        }
    }
}

fn judge_failure(error: MultiWriteError, nodes: &[&str; 3]) -> Renewed {
    match error {
        MultiWriteError::OperationFailed { index: 1, source: ZkError::BadVersion } => {
            Renewed::not(Outcome::CheckFailed, "the record has changed")
        }
        MultiWriteError::OperationFailed { index, source: ZkError::NoNode } => {
            Renewed::not(Outcome::NotApplied, absent(nodes.get(index).copied().unwrap_or("")))
        }
        MultiWriteError::OperationFailed { index, source } => {
            let node = nodes.get(index).copied().unwrap_or("");
            Renewed::not(Outcome::NotApplied, format!("ZooKeeper refuses a renewal of the lease at {node}: {source}"))
        }
        MultiWriteError::RequestFailed { source } => {
            Renewed::not(Outcome::Unknown, format!("a renewal of the lease was not answered: {source}"))
        }
    }
}

fn absent(node: &str) -> String {
    format!("node {node} is absent: the leading controller makes it")
}

/// Reads the record from a server that has caught up.
pub(super) async fn read_record(keeper: &Keeper, paths: &Paths, holder: &Holder, ground: &Ground) -> Event {
    let path = paths.record();
    let read = async {
        let client = keeper.client()?;
        zk::call("sync", &path, client.sync(&path)).await?;
        zk::read(&client, &path).await
    };
    match read.await {
        Ok(Some(node)) => judge(&node, &path, holder, ground),
        Ok(None) | Err(_) => Event::Unreadable,
    }
}

/// What a node with the record means for the holder of a lease that stands on `ground`. Content that is none means nothing.
pub(super) fn judge(node: &zk::Node, path: &str, holder: &Holder, ground: &Ground) -> Event {
    match node.json::<Record>(path, "cluster record") {
        Ok(record) => ground.judge(&record, node.version, holder),
        Err(_) => Event::Unreadable,
    }
}
