//! The cluster record and where things lie in ZooKeeper.
//!
//! The record is the one truth about who is master. The leading controller writes it by compare-and-set together with a check
//! of its own election node; agents read and watch it and obey nothing before they have read it once.

use serde::{Deserialize, Serialize};

use crate::api::{Address, Epoch, Host, Offset};
use crate::snapshot::SnapshotId;

/// Paths of one cluster below its root, by default `/aurora-redis/<role>/<env>/<job>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    root: String,
}

impl Paths {
    /// Paths below `prefix` for the job key `role/env/job`.
    pub fn new(prefix: &str, cluster: &str) -> Paths {
        Paths { root: format!("{}/{}", prefix.trim_end_matches('/'), cluster.trim_matches('/')) }
    }
    /// The cluster's root node.
    pub fn root(&self) -> &str {
        &self.root
    }
    /// Directory of the controllers' election nodes; a node's data is that controller's URL.
    pub fn controllers(&self) -> String {
        format!("{}/controllers", self.root)
    }
    /// The cluster record.
    pub fn record(&self) -> String {
        format!("{}/record", self.root)
    }
    /// The master's last lease renewal.
    pub fn lease(&self) -> String {
        format!("{}/lease", self.root)
    }
    /// A node that exists as long as the record of this generation is the cluster's: every transaction of its time checks it.
    pub fn generation(&self, generation: &str) -> String {
        format!("{}/generations/{generation}", self.root)
    }
    /// The operation in flight.
    pub fn operation(&self) -> String {
        format!("{}/operation", self.root)
    }
    /// The desired state.
    pub fn spec(&self) -> String {
        format!("{}/spec", self.root)
    }
    /// One node per change of master.
    pub fn history(&self) -> String {
        format!("{}/history", self.root)
    }
    /// The original `ip:port` node.
    pub fn master(&self) -> String {
        format!("{}/master", self.root)
    }
    /// Serverset with the master as its only member.
    pub fn master_serverset(&self) -> String {
        format!("{}/serversets/master", self.root)
    }
    /// Serverset of the replicas that readers may use.
    pub fn replicas_serverset(&self) -> String {
        format!("{}/serversets/replicas", self.root)
    }
}

/// Where a change of master stands: `deposing` (nobody may write), `promoting` (exactly one named server may), `stable` (it does).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Never had a master.
    #[default]
    Bootstrapping,
    /// The named master leads.
    Stable,
    /// The last master is out of office, its evidence is in the record; survivors are being cut and asked.
    Deposing,
    /// The named master has been chosen and may open.
    Promoting,
}

/// One server in one task: who may hold data, and how to find or outlive its processes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Aurora instance number.
    pub instance: u32,
    /// Aurora task id.
    pub task_id: String,
    /// Redis `run_id`.
    pub run_id: String,
    /// Redis address.
    pub redis: Option<Address>,
    /// Agent's HTTP address.
    pub agent: Option<Address>,
    /// Host identity.
    pub host: Host,
    /// Pid of the server.
    pub redis_pid: u32,
    /// Start time of the server, clock ticks since boot.
    pub redis_start_ticks: u64,
    /// Pid of the agent.
    pub agent_pid: u32,
    /// Start time of the agent, clock ticks since boot.
    pub agent_start_ticks: u64,
    /// Marked for removal: the master's agent cuts it off and never admits it again; then it leaves the list.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub removing: bool,
}

/// An agent that can be asked for a promise. For promises a member is its task: the agent remembers over restarts of the server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Peer {
    /// Aurora task id.
    pub task_id: String,
    /// Where its agent listens.
    pub agent: Address,
}

/// A renewal of the master's lease, node [`Paths::lease`]. Written only by the agent of the master in one transaction with a check of
/// generation and record version, so that each one that stands proves that the record still named its writer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Aurora task of the holder.
    pub task_id: String,
    /// Its server's run.
    pub run_id: String,
    /// Generation of the record.
    pub generation: String,
    /// Epoch it leads.
    pub epoch: Epoch,
    /// Version of the record it was renewed against.
    pub record_version: i32,
    /// Whom the holder asks to bear no witness when it cannot renew; only these can be witnesses against it.
    pub asks: Vec<Peer>,
    /// The holder's server itself refuses writes beyond the lease, whatever is frozen.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub guarded: bool,
}

/// The last renewal there can be of a deposed master: its node cannot change any more, for each renewal checks the record's version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pinned {
    /// ZooKeeper version of the lease node, checked by the commit that deposed.
    pub version: i32,
    /// What it held; absent when it was never renewed, or cannot be read.
    pub lease: Option<Lease>,
    /// Somebody wrote something else into it: then it says nothing about who holds the lease.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unreadable: bool,
}

/// Why it is certain that the last master no longer writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Evidence {
    /// (a) Its own agent (this task) says that the process of that run is dead.
    Dead {
        /// The run proven dead.
        run_id: String,
        /// How.
        proof: String,
    },
    /// (a) Its own agent confirmed the fence for this epoch.
    Fenced {
        /// The run fenced.
        run_id: String,
        /// For this epoch.
        epoch: Epoch,
    },
    /// (c) An agent of the same host says that its processes are gone.
    Testimony {
        /// The run testified about.
        run_id: String,
        /// Task of the witness.
        witness: String,
        /// What it found: `other-boot` or `process-gone`.
        verdict: String,
    },
    /// (b) Its lease is over, and a member that it would have had to ask bears witness: it has acknowledged the new epoch and is bound by
    /// no promise.
    Lease {
        /// The run whose lease is over; empty when no valid lease was found.
        run_id: String,
        /// For this epoch.
        epoch: Epoch,
        /// Task of the witness.
        witness: String,
        /// Milliseconds waited since its last renewal was first seen.
        waited_ms: u64,
        /// It ran with the lease module: even if it was frozen it acknowledges nothing when it wakes.
        #[serde(default)]
        guarded: bool,
    },
    /// (d) The longest time that promises can keep a lease running is over.
    Failsafe {
        /// The run whose time is over; empty when no valid lease was found.
        run_id: String,
        /// For this epoch.
        epoch: Epoch,
        /// Milliseconds waited since its last renewal was first seen.
        waited_ms: u64,
    },
    /// Somebody stated the epoch and took the responsibility.
    Consent {
        /// Who.
        by: String,
        /// Unix time, milliseconds.
        at_ms: u64,
    },
    /// There was no master before.
    NoneBefore,
}

/// One history of the dataset: the lineage is the chain of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Epoch whose master wrote it.
    pub epoch: Epoch,
    /// Replication id.
    pub replid: String,
    /// First offset of it.
    pub from: Offset,
    /// Last offset that the next history continues from; absent for the current one.
    #[serde(default)]
    pub to: Option<Offset>,
    /// The replid that continues it; absent for the current one.
    #[serde(default)]
    pub next: Option<String>,
}

/// What a confirmed write must survive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Durability {
    /// Replicas that acknowledge a write before it counts as confirmed (`WAIT`); 0 promises none.
    pub acks: u32,
}

/// The cluster record, node [`Paths::record`]. Its ZooKeeper version is part of every command's stamp.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Random, made once in a cluster's life.
    pub cluster_id: String,
    /// Random, made with this record node.
    pub generation: String,
    /// Whether the cluster has ever had a master: once true it never starts empty again.
    pub initialised: bool,
    /// Present epoch.
    #[serde(deserialize_with = "possible_epoch")]
    pub epoch: Epoch,
    /// Where the present change of master stands.
    pub phase: Phase,
    /// The master of `epoch` when promoting or stable; the one last in office otherwise.
    pub master: Option<Member>,
    /// Epoch for which `master` was named; 0 in a record of an older version, which means `epoch`.
    #[serde(default)]
    pub master_epoch: Epoch,
    /// While deposing and promoting: the last renewal there can be of the deposed master.
    #[serde(default)]
    pub pinned: Option<Pinned>,
    /// Its replid, once known.
    #[serde(default)]
    pub master_replid: Option<String>,
    /// Members that may hold confirmed writes.
    pub known_replicas: Vec<Member>,
    /// Evidence of the last change.
    pub evidence: Option<Evidence>,
    /// Lease length, milliseconds.
    pub lease_ms: u64,
    /// Longest time a master goes on by promises alone while ZooKeeper is away, milliseconds.
    #[serde(default = "default_failsafe_max_ms")]
    pub failsafe_max_ms: u64,
    /// What a confirmed write must survive.
    pub durability: Durability,
    /// The lineage, oldest first, at most 64.
    pub histories: Vec<History>,
    /// Latest good snapshot.
    pub snapshot: Option<SnapshotId>,
    /// The last time that the cluster's data was replaced, by a snapshot's or a migration; absent when it never was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<Restored>,
}

/// The data was replaced: from this epoch on it is what the snapshot held, and what was written to it since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// First epoch of the data.
    pub epoch: Epoch,
    /// What it began with. Data that was migrated from elsewhere began with none: then it is the name that a snapshot of that moment would have.
    pub snapshot: SnapshotId,
}

fn default_failsafe_max_ms() -> u64 {
    crate::timing::FAILSAFE_MAX.as_millis() as u64
}

/// Epochs grow by one, so none is ever larger, and JSON keeps integers exact up to here.
pub const MAX_EPOCH: Epoch = 1 << 53;

/// An epoch that cannot have come about would be kept by every agent that reads it, for ever.
fn possible_epoch<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Epoch, D::Error> {
    let epoch = Epoch::deserialize(from)?;
    match epoch <= MAX_EPOCH {
        true => Ok(epoch),
        false => Err(serde::de::Error::custom(format_args!("epoch {epoch} is beyond {MAX_EPOCH}, which no cluster reaches"))),
    }
}

impl Record {
    /// Epoch for which the master was named.
    pub fn master_epoch(&self) -> Epoch {
        if self.master_epoch == 0 { self.epoch } else { self.master_epoch }
    }
    /// Whether it has the server `run_id` of `task_id` in office as master.
    pub fn has_in_office(&self, task_id: &str, run_id: &str) -> bool {
        let in_office = matches!(self.phase, Phase::Promoting | Phase::Stable);
        in_office && self.master.as_ref().is_some_and(|master| master.task_id == task_id && master.run_id == run_id)
    }
    /// Which history of the lineage a place in `replid` belongs to: a replica that has gone over to a new history by a partial resync names
    /// that one although what it holds may end before the new one began. Absent for a foreign or forgotten history.
    pub fn history_at(&self, replid: &str, offset: Offset) -> Option<usize> {
        let mut at = self.histories.iter().rposition(|h| h.replid == replid)?;
        while at > 0 && self.histories[at].from > offset.saturating_add(1) {
            let earlier = &self.histories[..at];
            let continued = earlier.iter().rposition(|h| h.next.as_ref() == Some(&self.histories[at].replid));
            at = continued.unwrap_or(at - 1);
        }
        Some(at)
    }
    /// Whether a copy of an earlier epoch holds what was replaced by a snapshot: it goes beyond what its history shares with the present data, or is of
    /// a history that nobody knows. Such a copy is older than the snapshot, whatever its offset.
    pub fn is_replaced(&self, position: Option<(&str, Offset)>, epoch: Epoch) -> bool {
        if self.restored.as_ref().is_none_or(|restored| epoch >= restored.epoch) {
            return false;
        }
        let known = position.and_then(|(replid, offset)| Some((self.history_at(replid, offset)?, offset)));
        known.is_none_or(|(at, offset)| self.histories[at].to.is_some_and(|end| offset > end))
    }
    /// The epoch under which `replid` was written: the lineage tells; absent for a foreign or forgotten history.
    pub fn epoch_of(&self, replid: &str) -> Option<Epoch> {
        self.histories.iter().rev().find(|h| h.replid == replid).map(|h| h.epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_with_an_epoch_that_no_cluster_reaches_is_none() {
        let with = |epoch: u64| {
            serde_json::from_value::<Record>(serde_json::json!({
                "cluster_id": "c", "generation": "g", "initialised": true, "epoch": epoch, "phase": "stable", "master": null,
                "known_replicas": [], "evidence": null, "lease_ms": 2000, "durability": {"acks": 0}, "histories": [], "snapshot": null
            }))
        };
        assert_eq!(with(MAX_EPOCH).unwrap().epoch, MAX_EPOCH);
        assert!(with(u64::MAX).unwrap_err().to_string().contains("no cluster reaches"));
    }

    #[test]
    fn a_place_before_the_first_of_a_history_belongs_to_the_one_it_continues() {
        let history = |epoch, replid: &str, from, next: Option<&str>| History {
            epoch,
            replid: replid.into(),
            from,
            to: None,
            next: next.map(str::to_owned),
        };
        // `b` came to nothing: a winner further back took over, and `c` continues `a`.
        let histories = vec![history(1, "a", 1, Some("c")), history(2, "b", 41, None), history(3, "c", 51, None)];
        let record = Record {
            cluster_id: String::new(),
            generation: String::new(),
            initialised: true,
            epoch: 3,
            phase: Phase::Stable,
            master: None,
            master_epoch: 3,
            pinned: None,
            master_replid: None,
            known_replicas: Vec::new(),
            evidence: None,
            lease_ms: 1,
            failsafe_max_ms: 1,
            durability: Durability::default(),
            histories,
            snapshot: None,
            restored: None,
        };
        let cases =
            [("a", 9, Some(0)), ("a", 60, Some(0)), ("c", 80, Some(2)), ("c", 50, Some(2)), ("c", 49, Some(0)), ("z", 1, None)];
        for (replid, offset, expected) in cases {
            assert_eq!(record.history_at(replid, offset), expected, "{replid} {offset}");
        }
    }
}
