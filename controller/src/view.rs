//! What the controller shows: the JSON of `/api/v1/…`, as plain types. Filled once per cycle by `publish`, only read by `http`,
//! by the command line and by test tools.

use std::collections::VecDeque;

use agent::api::{Activity, Address, Door, Epoch, Examined, Offset, Origin, Position, Role};
use agent::record::Phase;
use agent::snapshot::{Acceptance, How, Imported, Pin, SnapshotId, Verification};
use serde::{Deserialize, Serialize};

/// Everything the last cycle published.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Published {
    /// Whether this controller leads; a standby's other fields are empty.
    pub leading: bool,
    /// `/api/v1/cluster`.
    pub cluster: ClusterView,
    /// `/api/v1/plan`.
    pub plan: PlanView,
    /// `/api/v1/events`, oldest first, at most 500.
    pub events: VecDeque<Event>,
    /// `/api/v1/history`, newest first.
    pub history: Vec<HistoryEntry>,
    /// `/api/v1/snapshots`, best first.
    pub snapshots: Vec<SnapshotRow>,
    /// The operation in flight or last ended; absent before the first.
    pub operation: Option<Operation>,
    /// Unix time in milliseconds of the last successful cycle; 0 before.
    pub last_success_ms: u64,
}

/// `/api/v1/cluster`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClusterView {
    /// `role/env/job`.
    pub cluster: String,
    /// Absent before bootstrap.
    pub cluster_id: Option<String>,
    /// Present epoch; 0 before bootstrap.
    pub epoch: Epoch,
    /// Absent before bootstrap.
    pub phase: Option<Phase>,
    /// The serving master; absent while there is none.
    pub master: Option<MasterView>,
    /// One row per instance known from the serverset or the scheduler, by instance number.
    pub instances: Vec<InstanceView>,
    /// Instances wanted (spec).
    pub desired_instances: u32,
    /// Latest good snapshot.
    pub snapshot: Option<SnapshotRow>,
    /// The newest good snapshot that was verified and found good; absent when none was.
    #[serde(default)]
    pub verified: Option<SnapshotRow>,
    /// The newest good snapshot that a rehearsal restored; absent when none was.
    #[serde(default)]
    pub rehearsed: Option<SnapshotRow>,
    /// Named facts that a person should know of, each with a reason: unreachable parts, refusals, waits.
    pub conditions: Vec<Condition>,
    /// One sentence: how the cluster is and what happens next.
    pub summary: String,
    /// Who would take over if the master died now, and what would be lost.
    pub if_master_died: Option<Forecast>,
}

/// The serving master.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MasterView {
    /// Aurora instance number.
    pub instance: u32,
    /// Aurora task id.
    pub task_id: String,
    /// Redis address.
    pub address: Address,
}

/// One instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InstanceView {
    /// Aurora instance number.
    pub instance: u32,
    /// Aurora task id; absent while only the serverset knows the instance.
    pub task_id: Option<String>,
    /// Redis address.
    pub address: Option<Address>,
    /// Agent's HTTP address.
    pub agent: Option<Address>,
    /// Role as Redis reports it.
    pub role: Role,
    /// One word: `serving`, `closed`, `connecting` (open, and its link to the master is not up), `syncing`, `loading`, `not-answering` (its
    /// agent gets no answer from it), `fenced`, `idle` (agent without server), `silent` (no news from the agent), `pending` (scheduler has
    /// not placed it), `foreign` (answers for another cluster).
    pub state: String,
    /// History it holds.
    pub replid: Option<String>,
    /// Offset within it.
    pub offset: Option<Offset>,
    /// Bytes behind the master; absent when not comparable.
    pub lag_bytes: Option<u64>,
    /// Whether a write made after its attach is known to have reached it.
    pub proven: bool,
    /// Milliseconds since its agent was last heard; absent when never.
    pub age_ms: Option<u64>,
    /// Long work under way, in words with progress; absent when none.
    pub activity: Option<String>,
    /// The same in numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Activity>,
    /// Latest problem the agent reports.
    pub problem: Option<String>,
}

/// A fact with a reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// Stable name from the closed list in the runbook, e.g. `scheduler-unreachable`.
    pub reason: String,
    /// What, where, and the next step.
    pub message: String,
}

/// Answer to "if the master died now".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forecast {
    /// Instance that would take over.
    pub instance: u32,
    /// Bytes of the stream that would be lost, as known now.
    pub loss_bytes: u64,
    /// How long it would take if its server died, milliseconds: the median of the last failovers; absent before the first.
    #[serde(default)]
    pub server_dies_ms: Option<u64>,
    /// How long it would take at least if its host were lost, milliseconds: until its lease is over.
    #[serde(default)]
    pub host_lost_ms: u64,
}

/// `/api/v1/plan`: the last decision.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PlanView {
    /// Cycle number since this controller started to lead.
    pub cycle: u64,
    /// One sentence.
    pub summary: String,
    /// Actions of the cycle in words, each with its outcome.
    pub actions: Vec<ActionView>,
    /// What is being waited for, with reasons.
    pub waits: Vec<Condition>,
    /// Invariants the plan would have broken; it was not run if there is any.
    pub violations: Vec<String>,
}

/// One action of the last plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ActionView {
    /// What, e.g. `promote instance 2`.
    pub action: String,
    /// Why.
    pub because: String,
    /// `done`, `refused: …`, `failed: …`, `unknown: …`, or `running`.
    pub outcome: String,
}

/// One line of `/api/v1/events`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Increases by one per event of this controller.
    pub seq: u64,
    /// Unix time, milliseconds.
    pub at_ms: u64,
    /// Present epoch then.
    pub epoch: Epoch,
    /// The kind of action carried out (`promote`, `commit-record`, …; with `-refused`, `-failed`, `-unknown` when it did not go through),
    /// the reason of a wait that began (`no-evidence`, …) or ended (`no-evidence-ended`), or `asked`.
    pub kind: String,
    /// For people.
    pub message: String,
}

/// One change of master, a node in `history/`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// The new epoch.
    pub epoch: Epoch,
    /// `bootstrap`, `failover`, `switchover`, `restart` (same instance again), `restore` or `migrate`.
    pub kind: String,
    /// What began it.
    #[serde(default)]
    pub cause: String,
    /// Instance and task that led before; absent at bootstrap.
    pub from: Option<MasterView>,
    /// Instance and task that lead now.
    pub to: MasterView,
    /// Where the old history was left: the winner's copy.
    pub position: Option<Position>,
    /// Snapshot started from, if any.
    pub snapshot: Option<SnapshotId>,
    /// Evidence against the old master, in words.
    pub evidence: String,
    /// Candidates asked, in words: instance, replid, offset, and why chosen or not.
    pub candidates: Vec<String>,
    /// Why the winner was chosen.
    #[serde(default)]
    pub because: String,
    /// The steps with their times.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// Milliseconds from noticing the loss to the new master's first proven write.
    pub pause_ms: Option<u64>,
    /// Bytes of stream lost, as far as the last word of the old master tells; absent when unknown.
    pub loss_bytes: Option<u64>,
    /// The same, measured on the old master's copy when it came back; absent until then.
    #[serde(default)]
    pub lost_bytes: Option<u64>,
    /// Unix time, milliseconds.
    pub at_ms: u64,
}

/// One snapshot in the catalogue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SnapshotRow {
    /// Its name.
    pub id: SnapshotId,
    /// Whether it may be used; otherwise `problem` says why not.
    pub good: bool,
    /// Why it is not used; absent for a good one, and for one that was imported and can be used.
    pub problem: Option<String>,
    /// Whether nothing is wrong with it but that it holds so little against the one before it: it is used only when somebody names it.
    #[serde(default)]
    pub suspicious: bool,
    /// Size of the dump in bytes; 0 when the manifest could not be read.
    pub bytes: u64,
    /// Epoch.
    pub epoch: Epoch,
    /// Position it carries.
    pub position: Option<Position>,
    /// Unix time, milliseconds.
    pub created_ms: u64,
    /// Keys in all databases.
    pub keys: Option<u64>,
    /// Server version that wrote it.
    pub server: String,
    /// Format of the dump, e.g. `REDIS0010`; empty when not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub rdb: String,
    /// Instance that wrote it.
    pub instance: u32,
    /// The backup request it answers; absent for a dump that Redis made by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Who wants it kept, and why; absent when it is not pinned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<Pin>,
    /// The last time it was read back as a whole and judged; absent when it never was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<Verification>,
    /// Who takes it for right although it holds little; absent when nobody has said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<Acceptance>,
    /// The last time a rehearsal restored it; absent when none did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearsal: Option<Verification>,
    /// Where it was imported from: it is no good one, for it is none of this cluster's data, and is used only when somebody names it. Absent for
    /// one that the cluster made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imported: Option<Imported>,
}

impl SnapshotRow {
    /// Whether it can be restored by name: a suspicious one can, and an imported one.
    pub fn can_be_named(&self) -> bool {
        self.good || self.suspicious || self.is_import()
    }

    /// Whether it was imported, and nothing is wrong with it.
    pub fn is_import(&self) -> bool {
        self.imported.is_some() && self.problem.is_none()
    }
}

/// What is known to be usable, beyond what manifests say.
#[derive(Clone, Copy, Debug, Default)]
pub struct Proof<'a> {
    /// The newest good snapshot that was verified and found good.
    pub verified: Option<&'a SnapshotRow>,
    /// The newest good snapshot that a rehearsal restored.
    pub restored: Option<&'a SnapshotRow>,
    /// The last rehearsal.
    pub rehearsal: Option<&'a Verification>,
}

impl<'a> Proof<'a> {
    /// What these snapshots show.
    pub fn of(snapshots: &'a [SnapshotRow]) -> Proof<'a> {
        let good = || snapshots.iter().filter(|s| s.good);
        let verified = good().filter(|s| s.verification.as_ref().is_some_and(|v| v.problem.is_none()));
        let restored = good().filter(|s| s.rehearsal.is_some());
        Proof {
            verified: verified.max_by_key(|s| s.created_ms),
            restored: restored.max_by_key(|s| s.created_ms),
            rehearsal: snapshots.iter().filter_map(|s| s.rehearsal.as_ref()).max_by_key(|r| r.at_ms),
        }
    }
}

/// What was asked of the controller and runs on over several cycles: node `operation`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Operation {
    /// Random id.
    pub id: String,
    /// What.
    pub kind: OperationKind,
    /// Who asked.
    pub owner: String,
    /// Epoch when it began.
    pub epoch: Epoch,
    /// Present step, in words.
    pub step: String,
    /// Unix time in milliseconds of its start.
    pub started_ms: u64,
    /// Unix time in milliseconds after which it is given up.
    pub deadline_ms: u64,
    /// Absent while it runs; then `done: …` or `failed: …`.
    pub outcome: Option<String>,
    /// What began it, for a change of master; empty otherwise.
    #[serde(default)]
    pub cause: String,
    /// Steps of a change of master that are through, in order.
    #[serde(default)]
    pub steps: Vec<Step>,
}

/// A step of a change of master.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// `deposing`, `promoting` or `stable`: the phase that was committed.
    pub name: String,
    /// When it was decided, Unix time in milliseconds.
    pub at_ms: u64,
}

/// Kinds of [`Operation`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum OperationKind {
    /// First master of a new cluster.
    Bootstrap,
    /// Unplanned change of master.
    Failover {
        /// Consent to what cannot be proven or would be lost: the epoch it was given for. Absent for one by itself.
        #[serde(default)]
        consent_epoch: Option<Epoch>,
    },
    /// Planned change of master: writes are held, nothing is lost, and it is undone when a step overruns its bound.
    Switchover {
        /// Instance that is to lead; absent for the best replica.
        to: Option<u32>,
    },
    /// A snapshot on demand.
    Backup {
        /// From a dump file, or from the replication stream.
        #[serde(default)]
        how: How,
    },
    /// A cluster that serves has its data saved, and replaced by what a snapshot holds.
    Replace {
        /// Which.
        snapshot: SnapshotId,
        /// The instance that fetches and loads it.
        loader: u32,
        /// The snapshot of the data that is replaced; absent until it is in the store.
        #[serde(default)]
        saved: Option<SnapshotId>,
    },
    /// The data of a server outside of the cluster takes the place of the cluster's own.
    Migrate(Migration),
    /// Start from the store (or the best local copy) with nobody left, with consent to what cannot be proven.
    Restore {
        /// Named snapshot; absent for the best one.
        snapshot: Option<SnapshotId>,
        /// Consent to go on without evidence about the last master: the epoch it was given for.
        consent_epoch: Option<Epoch>,
        /// Consent to start without any data.
        #[serde(default)]
        empty: bool,
    },
}

/// Where a migration stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Migration {
    /// The server that data is migrated from. Its password is sealed, and gone once the operation has ended.
    pub origin: Origin,
    /// The instance that follows it, and is to lead.
    pub follower: u32,
    /// Whether that is the only one: nobody serves while it follows.
    #[serde(default)]
    pub alone: bool,
    /// Whether the cut-over was asked for.
    #[serde(default)]
    pub cut_over: bool,
    /// Who cancelled it; absent when nobody did.
    #[serde(default)]
    pub cancelled: Option<String>,
    /// The snapshot of the data that is replaced; absent until it is in the store.
    #[serde(default)]
    pub saved: Option<SnapshotId>,
    /// The origin's own settings, noted before it is had to refuse writes; absent before.
    #[serde(default)]
    pub door: Option<Door>,
    /// Why it was called off after that: the origin is to take writes again.
    #[serde(default)]
    pub called_off: Option<String>,
}

/// Body of `POST /api/v1/operations`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Ask {
    /// Take a snapshot now.
    Backup {
        /// Who asks.
        owner: String,
        /// From a dump file, or from the replication stream; absent for what the cluster was created with.
        #[serde(default)]
        how: Option<How>,
    },
    /// Restore, see [`OperationKind::Restore`].
    Restore {
        /// Who asks.
        owner: String,
        /// Named snapshot; absent for the best one.
        snapshot: Option<SnapshotId>,
        /// Present epoch, stated as consent.
        consent_epoch: Option<Epoch>,
        /// Start without any data, where no copy is left; needs consent.
        #[serde(default)]
        empty: bool,
        /// Only say what would happen.
        #[serde(default)]
        dry_run: bool,
    },
    /// Another master, planned: writes are held for a moment and nothing is lost.
    Switchover {
        /// Who asks.
        owner: String,
        /// Instance that is to lead; absent for the best replica.
        #[serde(default)]
        to: Option<u32>,
        /// Only say what would happen.
        #[serde(default)]
        dry_run: bool,
    },
    /// Another master although something cannot be proven or would be lost.
    Failover {
        /// Who asks.
        owner: String,
        /// Present epoch, stated as consent.
        #[serde(default)]
        consent_epoch: Option<Epoch>,
        /// Only say what would happen.
        #[serde(default)]
        dry_run: bool,
    },
    /// Replace the data by that of a server outside of the cluster: begins to follow it.
    Migrate {
        /// Who asks.
        owner: String,
        /// Whom to follow.
        origin: Origin,
        /// Present epoch, stated as consent.
        #[serde(default)]
        consent_epoch: Option<Epoch>,
        /// Only say what would happen.
        #[serde(default)]
        dry_run: bool,
        /// What an agent found the origin to be; the controller has it looked at.
        #[serde(skip)]
        examined: Option<Box<Examined>>,
    },
    /// Have the migration under way come to its end: the data that was followed leads.
    CutOver {
        /// Who asks.
        owner: String,
    },
    /// End the migration under way; the present data stays.
    CancelMigration {
        /// Who asks.
        owner: String,
    },
    /// Change the number of instances.
    Scale {
        /// Who asks.
        owner: String,
        /// Wanted number, at least 1.
        instances: u32,
    },
}

impl Ask {
    /// Its kind in one word: a closed set.
    pub fn kind(&self) -> &'static str {
        match self {
            Ask::Backup { .. } => "backup",
            Ask::Restore { .. } => "restore",
            Ask::Switchover { .. } => "switchover",
            Ask::Failover { .. } => "failover",
            Ask::Migrate { .. } => "migrate",
            Ask::CutOver { .. } => "cut-over",
            Ask::CancelMigration { .. } => "cancel-migration",
            Ask::Scale { .. } => "scale",
        }
    }

    /// Who asks.
    pub fn owner(&self) -> &str {
        match self {
            Ask::Backup { owner, .. }
            | Ask::Restore { owner, .. }
            | Ask::Switchover { owner, .. }
            | Ask::Failover { owner, .. }
            | Ask::Migrate { owner, .. }
            | Ask::CutOver { owner }
            | Ask::CancelMigration { owner }
            | Ask::Scale { owner, .. } => owner,
        }
    }
}

/// Answer to an [`Ask`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// Whether it was taken on.
    pub accepted: bool,
    /// Id to look for in `/api/v1/cluster`'s operation; empty for a refusal and for a scale.
    pub operation_id: String,
    /// Refusal: why, the evidence and what would be accepted. Otherwise what will happen.
    pub message: String,
    /// What a restore into a cluster that serves would do; absent for everything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Box<RestorePlan>>,
    /// What a migration would do; absent for everything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration: Option<Box<MigrationPlan>>,
}

impl Reply {
    /// A refusal.
    pub fn refused(message: impl Into<String>) -> Reply {
        Reply { accepted: false, message: message.into(), ..Reply::default() }
    }
    /// Taken on as this operation; empty where nothing goes on.
    pub fn accepted(operation_id: impl Into<String>, message: impl Into<String>) -> Reply {
        Reply { accepted: true, operation_id: operation_id.into(), message: message.into(), ..Reply::default() }
    }
}

/// What a migration would do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MigrationPlan {
    /// The server that data is migrated from.
    pub origin: Address,
    /// What it is.
    pub examined: Examined,
    /// Present epoch: the one to consent to.
    pub epoch: Epoch,
    /// The master in office.
    pub master: u32,
    /// Keys of the data that would be replaced.
    pub present_keys: u64,
    /// The instance that would follow it, and then lead.
    pub follower: u32,
    /// The other instances.
    pub others: Vec<u32>,
    /// What would happen, in order.
    pub steps: Vec<String>,
    /// What speaks against it: with any of these it is refused.
    pub objections: Vec<String>,
    /// The command that begins it.
    pub command: String,
}

/// What a restore into a cluster that serves would do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RestorePlan {
    /// The snapshot.
    pub snapshot: SnapshotRow,
    /// Its age, milliseconds.
    pub age_ms: u64,
    /// Present epoch: the one to consent to.
    pub epoch: Epoch,
    /// The master in office.
    pub master: u32,
    /// Keys of the data that would be replaced.
    pub present_keys: u64,
    /// The instance that would fetch and load the snapshot; absent when none could.
    pub loader: Option<u32>,
    /// The other instances: what they hold is set aside, then they get the restored data.
    pub others: Vec<u32>,
    /// What would happen, in order.
    pub steps: Vec<String>,
    /// What speaks against it: with any of these it is refused.
    pub objections: Vec<String>,
    /// The command that has it done.
    pub command: String,
}
