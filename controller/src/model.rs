//! The data the heart works on: what is wanted, what was seen, what is decided. No behaviour beyond accessors, no IO.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use agent::api::{Address, Command, Epoch, Position, State, Verdict};
use agent::record::{Durability, Member, Pinned, Record};
use agent::snapshot::{How, SnapshotId};
use serde::{Deserialize, Serialize};

use crate::view::{HistoryEntry, Operation, SnapshotRow};

/// The desired state, node `spec`. Written first by `create`, then by the leading controller for its API.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Grows by one with each change.
    pub generation: u64,
    /// Instances of the job (servers in all: one master, the rest replicas), at least 1.
    pub instances: u32,
    /// Redis' `save` value, set on one instance at a time, the backup source; empty for none.
    pub save: String,
    /// How a backup is made that does not say how.
    #[serde(default)]
    pub snapshots_how: How,
    /// Lease length of the master, milliseconds.
    #[serde(default = "default_lease_ms")]
    pub lease_ms: u64,
    /// Longest time a master goes on by promises alone while ZooKeeper is away, milliseconds.
    #[serde(default = "default_failsafe_max_ms")]
    pub failsafe_max_ms: u64,
    /// What a confirmed write survives; fixed when the cluster is created.
    #[serde(default)]
    pub durability: Durability,
    /// Limits of a failover that happens by itself.
    #[serde(default)]
    pub failover: Budget,
    /// Who changed it last.
    pub changed_by: String,
    /// When, Unix time in milliseconds.
    pub changed_ms: u64,
}

impl Default for Spec {
    /// One instance, and the usual values for everything else.
    fn default() -> Spec {
        Spec {
            generation: 1,
            instances: 1,
            save: DEFAULT_SAVE.into(),
            snapshots_how: How::Dump,
            lease_ms: default_lease_ms(),
            failsafe_max_ms: default_failsafe_max_ms(),
            durability: Durability::default(),
            failover: Budget::default(),
            changed_by: String::new(),
            changed_ms: 0,
        }
    }
}

/// What a failover may lose without somebody's consent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Budget {
    /// Bytes of the replication stream; absent for any.
    pub max_loss_bytes: Option<u64>,
    /// Seconds that the winner was behind; absent for any.
    pub max_loss_seconds: Option<u64>,
}

fn default_lease_ms() -> u64 {
    agent::timing::LEASE.as_millis() as u64
}

fn default_failsafe_max_ms() -> u64 {
    agent::timing::FAILSAFE_MAX.as_millis() as u64
}

/// Redis' own default save points (7.0).
pub const DEFAULT_SAVE: &str = "3600 1 300 100 60 10000";

/// Timings of the decisions; all are lengths of waits, none is a safety bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// An agent not heard for this long is silent.
    pub silent_after: Duration,
    /// How long a cluster without a master waits for instances that have not reported, before it starts from what is there.
    pub bootstrap_wait: Duration,
    /// No second automatic failover within this time of the first, unless the master is proven dead.
    pub cooldown: Duration,
    /// How long a failover waits for survivors that answer but are not cut yet.
    pub cut_wait: Duration,
    /// How long a named winner may take to open before another epoch is begun.
    pub promote_wait: Duration,
    /// A running task whose agent is silent for so long is restarted through the scheduler.
    pub zombie_after: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            silent_after: Duration::from_secs(1),
            bootstrap_wait: Duration::from_secs(60),
            cooldown: Duration::from_secs(60),
            cut_wait: Duration::from_secs(1),
            promote_wait: Duration::from_secs(20),
            zombie_after: Duration::from_secs(120),
        }
    }
}

/// Everything seen, with its age. Times are since this controller's start, on a monotonic clock.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// The record and its ZooKeeper version; `None` when the node is absent.
    pub record: Option<(Record, i32)>,
    /// The lease node, with when this content was first seen; absent while it has not been read.
    pub lease: Option<LeaseView>,
    /// The operation in flight or last ended.
    pub operation: Option<Operation>,
    /// When the present phase of the present epoch was first seen.
    pub phase_since: Duration,
    /// By running task: since when no agent of it has been heard.
    pub silent_since: BTreeMap<String, Duration>,
    /// Runs that were named master lately and did not open.
    pub unfit: BTreeSet<String>,
    /// When the first agent was seen.
    pub first_agent: Option<Duration>,
    /// Agents of the job, by instance, newest member first.
    pub agents: Vec<AgentView>,
    /// What the scheduler says.
    pub scheduler: SchedulerView,
    /// What the store holds.
    pub store: StoreView,
    /// Answers about the processes of the record's master.
    pub testimonies: Vec<Testimony>,
    /// The last word of the present master.
    pub last_word: Option<LastWord>,
    /// Runs of replicas that have applied a byte written after they attached: only these protect data.
    pub proven: BTreeSet<String>,
    /// By replica run: the time as of which it is known to have held everything that the master held.
    pub current_as_of: BTreeMap<String, Duration>,
    /// Sources that agents found unusable in themselves, as in `Redis::source`.
    pub unusable: BTreeSet<String>,
    /// Random ids for a record made anew: cluster id and generation.
    pub fresh_ids: (String, String),
    /// What could not be observed, with reasons.
    pub problems: Vec<Wait>,
    /// Wall clock, Unix time in milliseconds: for people and deadlines, never for safety.
    pub wall_ms: u64,
}

impl Observed {
    /// Whether an agent's last words are of a task that the scheduler no longer has: they may be evidence, and nothing is expected of it.
    pub fn has_ended(&self, agent: &AgentView) -> bool {
        let task = agent.state.as_ref().map(|s| &s.task_id);
        self.scheduler.tasks.as_ref().is_some_and(|active| task.is_some_and(|task| !active.iter().any(|t| t.task_id == *task)))
    }

    /// Whether somebody has consented to a start without any data.
    pub fn may_start_empty(&self) -> bool {
        self.operation
            .as_ref()
            .filter(|o| o.outcome.is_none())
            .is_some_and(|o| matches!(o.kind, crate::view::OperationKind::Restore { empty: true, consent_epoch: Some(_), .. }))
    }
}

/// The lease node as last seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseView {
    /// Its version and content.
    pub node: Pinned,
    /// When this version was first seen: its lease ends at most its length, and a margin, after that.
    pub seen: Duration,
}

/// One agent as last heard.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentView {
    /// Its HTTP address.
    pub address: Address,
    /// Shard of the serverset member that led to it; absent in members of other writers.
    pub shard: Option<u32>,
    /// Its state as last heard; absent before the first word.
    pub state: Option<State>,
    /// When it was last heard.
    pub heard: Option<Duration>,
    /// Why it cannot be heard; absent when all is well.
    pub problem: Option<String>,
}

/// An agent that claims to be further ahead of the record than this is not believed: even a record from a backup is not so old.
pub const MAX_EPOCH_LEAD: u64 = 1 << 20;

impl AgentView {
    /// Its state, if it was heard within `limit`.
    pub fn fresh(&self, now: Duration, limit: Duration) -> Option<&State> {
        match (self.heard, &self.state) {
            (Some(heard), Some(state)) if now.saturating_sub(heard) < limit => Some(state),
            _ => None,
        }
    }
}

/// What the scheduler says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SchedulerView {
    /// Active tasks; `None` before the first answer.
    pub tasks: Option<Vec<TaskView>>,
    /// When that answer was asked for.
    pub asked: Duration,
    /// Whether a job update is active, which locks out adding and killing.
    pub updating: bool,
}

/// One active task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskView {
    /// Aurora instance number.
    pub instance: u32,
    /// Task id.
    pub task_id: String,
    /// Aurora's status word, e.g. `RUNNING`.
    pub status: String,
    /// Host it runs on; empty before it is placed.
    pub host: String,
}

/// What the store holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoreView {
    /// Whether a store is configured at all.
    pub configured: bool,
    /// The catalogue, best first; `None` before the first listing.
    pub snapshots: Option<Vec<SnapshotRow>>,
    /// When that listing began, since this controller's start; `None` before the first, and without a store.
    pub listed: Option<Duration>,
    /// Cluster id in the manifests, when they agree on one.
    pub cluster_id: Option<String>,
}

/// An agent's answer about the master's processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Testimony {
    /// The server run asked about.
    pub run_id: String,
    /// Task of the witness.
    pub witness: String,
    /// What it found.
    pub verdict: Verdict,
}

/// The last word of the present master: what a failover is measured against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastWord {
    /// Its server run.
    pub run_id: String,
    /// Where it was.
    pub position: Position,
}

/// The decision of one cycle.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// One sentence.
    pub summary: String,
    /// What to do now.
    pub actions: Vec<Planned>,
    /// What is waited for.
    pub waits: Vec<Wait>,
}

/// An action with the reason it is there.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// What to do.
    pub action: Action,
    /// Why.
    pub because: String,
}

/// What a commit changes in `history/`.
#[derive(Clone, Debug, PartialEq)]
pub enum HistoryChange {
    /// A winner is named: a new entry.
    Add(Box<HistoryEntry>),
    /// It has opened: its entry gets the pause.
    Complete {
        /// Which entry.
        epoch: Epoch,
        /// From noticing the loss to the first proven write, milliseconds; absent when the start is unknown.
        pause_ms: Option<u64>,
        /// The steps with their times.
        steps: Vec<crate::view::Step>,
    },
    /// The old master's copy was seen: what was lost is known.
    Measured {
        /// Which entry.
        epoch: Epoch,
        /// Bytes of the stream that it was ahead of the fork.
        lost_bytes: u64,
    },
}

/// One effect on the world.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Make the record node; refused when it is there.
    CreateRecord {
        /// Its content.
        record: Box<Record>,
    },
    /// Replace the record by compare-and-set, together with the operation if one is given; then add the history entry.
    CommitRecord {
        /// New content.
        record: Box<Record>,
        /// Version it was decided on.
        version: i32,
        /// Version of the lease node that must still stand, for a commit that deposes: then no renewal can come after it.
        lease_version: Option<i32>,
        /// New content of the operation node.
        operation: Option<Box<Operation>>,
        /// What changes in `history/`.
        history: Option<HistoryChange>,
    },
    /// Replace the operation node.
    SetOperation {
        /// New content.
        operation: Box<Operation>,
    },
    /// Command an agent.
    Command {
        /// Where it listens.
        agent: Address,
        /// Its instance, for people.
        instance: u32,
        /// What it is told.
        command: Box<Command>,
    },
    /// Ask the scheduler for `count` more instances like `template`.
    AddInstances {
        /// Instance whose configuration is copied.
        template: u32,
        /// How many.
        count: u32,
        /// When the view was taken that this rests on: never repeated on the same view, for the call is not idempotent.
        seen: Duration,
    },
    /// Ask the scheduler to end these instances for good; never empty.
    KillInstances {
        /// Which.
        instances: Vec<u32>,
        /// As in `AddInstances`.
        seen: Duration,
    },
    /// Read a snapshot back from the store, judge it, have a throw-away server load it, and note what was found.
    VerifySnapshot {
        /// Which.
        id: SnapshotId,
    },
    /// Restore into a throw-away server what a cluster that lost everything would start from, and note how long it took.
    Rehearse {
        /// The good ones, the best first: the next is tried when one cannot be restored.
        order: Vec<SnapshotId>,
    },
    /// Ask the scheduler to restart one instance: its task runs and its agent has long been silent.
    RestartInstance {
        /// Which.
        instance: u32,
        /// As in `AddInstances`.
        seen: Duration,
    },
}

impl Plan {
    /// Adds an action.
    pub fn act(&mut self, action: Action, because: impl Into<String>) {
        self.actions.push(Planned { action, because: because.into() });
    }

    /// Adds a wait.
    pub fn wait(&mut self, reason: Reason, message: impl Into<String>) {
        self.waits.push(Wait { reason, message: message.into() });
    }
}

impl Action {
    /// For people: `promote instance 2`.
    pub fn describe(&self) -> String {
        match self {
            Action::CreateRecord { record } => format!("create the record (epoch {})", record.epoch),
            Action::CommitRecord { record, .. } => {
                format!("commit epoch {} {}", record.epoch, format!("{:?}", record.phase).to_lowercase())
            }
            Action::SetOperation { operation } => format!("note operation: {}", operation.step),
            Action::Command { instance, command, .. } => format!("{} instance {instance}", command.order.verb()),
            Action::AddInstances { count, .. } => format!("add {count} instance(s)"),
            Action::KillInstances { instances, .. } => format!("remove instance(s) {instances:?}"),
            Action::RestartInstance { instance, .. } => format!("restart instance {instance}"),
            Action::VerifySnapshot { id } => format!("verify snapshot {id}"),
            Action::Rehearse { .. } => "rehearse a restore".into(),
        }
    }

    /// Word for metrics: a closed set.
    pub fn kind(&self) -> &'static str {
        match self {
            Action::CreateRecord { .. } => "create-record",
            Action::CommitRecord { .. } => "commit-record",
            Action::SetOperation { .. } => "set-operation",
            Action::Command { command, .. } => command.order.verb(),
            Action::AddInstances { .. } => "add-instances",
            Action::KillInstances { .. } => "kill-instances",
            Action::RestartInstance { .. } => "restart-instance",
            Action::VerifySnapshot { .. } => "verify-snapshot",
            Action::Rehearse { .. } => "rehearse",
        }
    }
}

/// What came of an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Carried out.
    Done,
    /// The other side declined; nothing changed.
    Refused(String),
    /// Certainly not carried out.
    Failed(String),
    /// Perhaps carried out: observe again.
    Unknown(String),
}

impl Outcome {
    /// Word for metrics: a closed set.
    pub fn kind(&self) -> &'static str {
        match self {
            Outcome::Done => "done",
            Outcome::Refused(_) => "refused",
            Outcome::Failed(_) => "failed",
            Outcome::Unknown(_) => "unknown",
        }
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Outcome::Done => f.write_str("done"),
            Outcome::Refused(why) | Outcome::Failed(why) | Outcome::Unknown(why) => write!(f, "{}: {why}", self.kind()),
        }
    }
}

/// Why nothing more happens, or what a person should know. Each has an entry in the runbook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// ZooKeeper does not answer.
    ZookeeperUnreachable,
    /// The record node holds no valid record.
    RecordInvalid,
    /// The spec node is absent: the cluster has not been created.
    SpecMissing,
    /// The spec node holds no valid spec.
    SpecInvalid,
    /// The lease node holds no valid lease.
    LeaseInvalid,
    /// The operation node holds no valid operation.
    OperationInvalid,
    /// The scheduler does not answer.
    SchedulerUnreachable,
    /// The store does not answer.
    StoreUnreachable,
    /// An agent is silent.
    AgentSilent,
    /// An agent answers for another cluster.
    ForeignCluster,
    /// A member of the serverset cannot be understood.
    BadMember,
    /// Instances have not reported yet.
    WaitingForInstances,
    /// Survivors are being cut off from the old master.
    WaitingForCuts,
    /// The named winner has not opened yet.
    WaitingForPromotion,
    /// A start or restore is under way.
    WaitingForStart,
    /// The master is gone and nothing proves that it writes no more.
    NoEvidence,
    /// A second failover shortly after the first waits, for the master is not proven dead.
    Cooldown,
    /// The failover would lose more than `failover.max_loss_bytes` or `failover.max_loss_seconds` allow.
    LossBudget,
    /// Too few members answered to be sure of every confirmed write.
    NoQuorum,
    /// The best copy is in an instance whose agent would not have it lead.
    CannotLead,
    /// The cluster was initialised, and no source of its data can be read.
    NoSource,
    /// The master answers its agent no more.
    MasterNotAnswering,
    /// Replicas are missing or not in sync.
    ReplicasNotInSync,
    /// The job has no active task: it is never made again by the controller.
    JobGone,
    /// A job update locks out changes of the number of instances.
    JobUpdating,
    /// The scheduler has instances that have not been placed.
    InstancesPending,
    /// A snapshot in the store cannot be used.
    SnapshotUnusable,
    /// A snapshot holds hardly anything of what the one before it held.
    SnapshotSuspicious,
    /// A backup that was due could not be made.
    BackupFailed,
    /// No snapshot has been verified for long after it was due.
    VerificationOverdue,
    /// No restore has been rehearsed for long after it was due.
    RehearsalOverdue,
    /// A dump does not get into the store.
    UploadFailing,
    /// An agent reports a problem of its own.
    AgentProblem,
    /// Agents claim different clusters.
    ClusterIdsDiffer,
    /// The plan broke an invariant and was not run.
    PlanVetoed,
}

impl Reason {
    /// All of them, for the runbook's test.
    pub const ALL: [Reason; 35] = [
        Reason::ZookeeperUnreachable,
        Reason::RecordInvalid,
        Reason::SpecMissing,
        Reason::SpecInvalid,
        Reason::LeaseInvalid,
        Reason::Cooldown,
        Reason::LossBudget,
        Reason::OperationInvalid,
        Reason::SchedulerUnreachable,
        Reason::StoreUnreachable,
        Reason::AgentSilent,
        Reason::ForeignCluster,
        Reason::BadMember,
        Reason::WaitingForInstances,
        Reason::WaitingForCuts,
        Reason::WaitingForPromotion,
        Reason::WaitingForStart,
        Reason::NoEvidence,
        Reason::NoQuorum,
        Reason::CannotLead,
        Reason::NoSource,
        Reason::MasterNotAnswering,
        Reason::ReplicasNotInSync,
        Reason::JobGone,
        Reason::JobUpdating,
        Reason::InstancesPending,
        Reason::SnapshotUnusable,
        Reason::SnapshotSuspicious,
        Reason::BackupFailed,
        Reason::VerificationOverdue,
        Reason::RehearsalOverdue,
        Reason::UploadFailing,
        Reason::AgentProblem,
        Reason::ClusterIdsDiffer,
        Reason::PlanVetoed,
    ];

    /// Its name in JSON, metrics and the runbook.
    pub fn name(self) -> &'static str {
        match self {
            Reason::ZookeeperUnreachable => "zookeeper-unreachable",
            Reason::RecordInvalid => "record-invalid",
            Reason::SpecMissing => "spec-missing",
            Reason::SpecInvalid => "spec-invalid",
            Reason::LeaseInvalid => "lease-invalid",
            Reason::Cooldown => "cooldown",
            Reason::LossBudget => "loss-budget",
            Reason::OperationInvalid => "operation-invalid",
            Reason::SchedulerUnreachable => "scheduler-unreachable",
            Reason::StoreUnreachable => "store-unreachable",
            Reason::AgentSilent => "agent-silent",
            Reason::ForeignCluster => "foreign-cluster",
            Reason::BadMember => "bad-member",
            Reason::WaitingForInstances => "waiting-for-instances",
            Reason::WaitingForCuts => "waiting-for-cuts",
            Reason::WaitingForPromotion => "waiting-for-promotion",
            Reason::WaitingForStart => "waiting-for-start",
            Reason::NoEvidence => "no-evidence",
            Reason::NoQuorum => "no-quorum",
            Reason::CannotLead => "cannot-lead",
            Reason::NoSource => "no-source",
            Reason::MasterNotAnswering => "master-not-answering",
            Reason::ReplicasNotInSync => "replicas-not-in-sync",
            Reason::JobGone => "job-gone",
            Reason::JobUpdating => "job-updating",
            Reason::InstancesPending => "instances-pending",
            Reason::SnapshotUnusable => "snapshot-unusable",
            Reason::SnapshotSuspicious => "snapshot-suspicious",
            Reason::BackupFailed => "backup-failed",
            Reason::VerificationOverdue => "verification-overdue",
            Reason::RehearsalOverdue => "rehearsal-overdue",
            Reason::UploadFailing => "upload-failing",
            Reason::AgentProblem => "agent-problem",
            Reason::ClusterIdsDiffer => "cluster-ids-differ",
            Reason::PlanVetoed => "plan-vetoed",
        }
    }
}

/// A reason with its particulars: what, where, and the next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Which kind.
    pub reason: Reason,
    /// Particulars.
    pub message: String,
}

/// What was done before, by action: paces repeats.
pub type Attempts = BTreeMap<String, Attempt>;

/// The last try of one action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// When it began.
    pub at: Duration,
    /// Tries in a row without success.
    pub failures: u32,
    /// What came of it; absent while it runs.
    pub outcome: Option<Outcome>,
}

/// The member that a state describes; absent while no server has answered.
pub fn member(state: &State) -> Option<Member> {
    let redis = state.redis.as_ref().filter(|r| !r.run_id.is_empty())?;
    Some(Member {
        instance: state.instance,
        task_id: state.task_id.clone(),
        run_id: redis.run_id.clone(),
        redis: redis.address.clone(),
        agent: state.agent.address.clone(),
        host: state.host.clone(),
        redis_pid: redis.pid,
        redis_start_ticks: redis.start_ticks,
        agent_pid: state.agent.pid,
        agent_start_ticks: state.agent.start_ticks,
        removing: false,
    })
}

/// A copy of the dataset that a master could start from.
#[derive(Clone, Debug, PartialEq)]
pub struct Copy {
    /// Where it is.
    pub holder: Holder,
    /// Epoch whose master wrote its last byte: the lineage decides, else what the copy says of itself.
    pub epoch: Epoch,
    /// Offset within that history; 0 when the copy carries none.
    pub offset: u64,
    /// When it was made, Unix time in milliseconds: breaks ties.
    pub created_ms: u64,
}

/// See [`struct@Copy`].
#[derive(Clone, Debug, PartialEq)]
pub enum Holder {
    /// In a running, cut-off or closed server.
    Live {
        /// The server.
        member: Box<Member>,
    },
    /// A dump in the sandbox of an idle agent.
    Local {
        /// The agent.
        agent: Address,
        /// Its instance.
        instance: u32,
        /// The dump's SHA-256.
        sha256: String,
    },
    /// A snapshot in the store.
    Snapshot {
        /// Its name.
        id: SnapshotId,
    },
}
