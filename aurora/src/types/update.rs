//! Job updates: what to change, how fast, and where it stands.

use super::{JobKey, JobUpdateAction, JobUpdateStatus, Metadata, TaskConfig};

/// One update of one job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobUpdateKey {
    /// The job.
    pub job: JobKey,
    /// Opaque and unique.
    pub id: String,
}

/// Where an update stands, and since when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobUpdateState {
    /// Now.
    pub status: JobUpdateStatus,
    /// Unix time in milliseconds.
    pub created_timestamp_ms: i64,
    /// Unix time in milliseconds.
    pub last_modified_timestamp_ms: i64,
}

/// An update without its instructions and events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobUpdateSummary {
    /// Who started it; `UNSECURE` when the scheduler runs without authentication.
    pub user: Option<String>,
    /// Where it stands; absent in the answer to its own start.
    pub state: Option<JobUpdateState>,
    /// Which one it is.
    pub key: JobUpdateKey,
    /// Labels given at its start. The scheduler takes no other mark that tells ours from somebody else's.
    pub metadata: Option<Vec<Metadata>>,
}

/// Instances from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    /// The lowest.
    pub first: i32,
    /// The highest.
    pub last: i32,
}

/// How many instances change at the same time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobUpdateStrategy {
    /// Up to this many, the next as soon as one is done.
    Queue(i32),
    /// Groups of one size, each done before the next begins.
    Batch(BatchStrategy),
    /// Groups of several sizes.
    VariableBatch(VariableBatchStrategy),
    /// A kind we do not know; the union's field id, 0 when it was empty. It cannot be written.
    Unknown(i16),
}

impl Default for JobUpdateStrategy {
    fn default() -> JobUpdateStrategy {
        JobUpdateStrategy::Unknown(0)
    }
}

/// Groups of one size, each done before the next begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchStrategy {
    /// Instances per group, above 0.
    pub group_size: i32,
    /// Pause on the way forward after each group but the last.
    pub autopause_after_batch: bool,
}

/// Groups of several sizes; the last size repeats.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VariableBatchStrategy {
    /// Instances of each group, each above 0.
    pub group_sizes: Vec<i32>,
    /// Pause on the way forward after each group but the last.
    pub autopause_after_batch: bool,
}

/// How an update proceeds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobUpdateSettings {
    /// Deprecated: size of the groups when `update_strategy` is absent.
    pub update_group_size: i32,
    /// Failures of one instance that are tolerated before the instance counts as failed.
    pub max_per_instance_failures: i32,
    /// Failed instances that are tolerated before the update fails.
    pub max_failed_instances: i32,
    /// How long an instance must have been RUNNING to count as done.
    pub min_wait_in_instance_running_ms: i32,
    /// Whether an update that fails rolls back.
    pub rollback_on_failure: bool,
    /// Only these; all when empty.
    pub update_only_these_instances: Vec<Range>,
    /// Deprecated: groups of one size instead of a queue, when `update_strategy` is absent.
    pub wait_for_batch_completion: bool,
    /// Coordinated: the update stands still unless a pulse came within this time, rolling back too. Absent or 0: not coordinated.
    pub block_if_no_pulses_after_ms: Option<i32>,
    /// Ask the SLA policy of the new configuration before each kill.
    pub sla_aware: Option<bool>,
    /// How many at a time.
    pub update_strategy: Option<JobUpdateStrategy>,
}

impl JobUpdateSettings {
    /// One instance after the other, none may fail, back again if one does.
    pub fn one_by_one() -> JobUpdateSettings {
        JobUpdateSettings {
            update_group_size: 1,
            rollback_on_failure: true,
            update_strategy: Some(JobUpdateStrategy::Queue(1)),
            ..JobUpdateSettings::default()
        }
    }
}

/// What a job is to become.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JobUpdateRequest {
    /// What each instance runs afterwards; instances that run exactly this already are left alone.
    pub task_config: TaskConfig,
    /// How many instances the job has afterwards, also when only some of them are to change.
    pub instance_count: i32,
    /// How to proceed.
    pub settings: JobUpdateSettings,
    /// Labels that the update keeps.
    pub metadata: Option<Vec<Metadata>>,
}

/// One configuration and the instances that have it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InstanceTaskConfig {
    /// The configuration.
    pub task: TaskConfig,
    /// Its instances.
    pub instances: Vec<Range>,
}

/// What an update changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JobUpdateInstructions {
    /// The instances to change or end, as they were before.
    pub initial_state: Vec<InstanceTaskConfig>,
    /// The instances to change or start; absent when the update only ends some.
    pub desired_state: Option<InstanceTaskConfig>,
    /// How it proceeds.
    pub settings: JobUpdateSettings,
}

/// An update without its events.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JobUpdate {
    /// Which one, and where it stands.
    pub summary: JobUpdateSummary,
    /// What it changes.
    pub instructions: JobUpdateInstructions,
}

/// One change of an update's status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobUpdateEvent {
    /// The new status.
    pub status: JobUpdateStatus,
    /// Unix time in milliseconds.
    pub timestamp_ms: i64,
    /// Who asked for it; absent when the scheduler did it by itself.
    pub user: Option<String>,
    /// Why, when somebody said so.
    pub message: Option<String>,
}

/// One step of an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobInstanceUpdateEvent {
    /// The instance.
    pub instance_id: i32,
    /// Unix time in milliseconds.
    pub timestamp_ms: i64,
    /// What happened.
    pub action: JobUpdateAction,
    /// More about it.
    pub message: Option<String>,
}

/// An update with all of its history.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JobUpdateDetails {
    /// The update.
    pub update: JobUpdate,
    /// Its statuses, oldest first.
    pub update_events: Vec<JobUpdateEvent>,
    /// The steps of its instances, oldest first.
    pub instance_events: Vec<JobInstanceUpdateEvent>,
}

/// The update that a start has made, or the one that is in its way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StartedJobUpdate {
    /// Which one.
    pub key: JobUpdateKey,
    /// The same with its labels; without a state when it was just started.
    pub update_summary: Option<JobUpdateSummary>,
}

/// One configuration and the instances that have it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConfigGroup {
    /// The configuration.
    pub config: TaskConfig,
    /// Its instances.
    pub instances: Vec<Range>,
}

/// What an update would do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JobUpdateDiff {
    /// Started, with their new configuration.
    pub add: Vec<ConfigGroup>,
    /// Ended, with their present configuration.
    pub remove: Vec<ConfigGroup>,
    /// Changed, with their present configuration.
    pub update: Vec<ConfigGroup>,
    /// Left alone.
    pub unchanged: Vec<ConfigGroup>,
}
