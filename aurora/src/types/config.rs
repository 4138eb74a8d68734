//! Jobs and the configuration of their tasks.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::{CronCollisionPolicy, VolumeMode};

/// The name of a job, written `role/environment/name`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobKey {
    /// Account that the tasks run as.
    pub role: String,
    /// By default one of prod, devel, test or staging followed by digits.
    pub environment: String,
    /// Unique within role and environment.
    pub name: String,
}

impl JobKey {
    /// The key of these three parts, unchecked: the scheduler refuses what it does not like.
    pub fn new(role: impl Into<String>, environment: impl Into<String>, name: impl Into<String>) -> JobKey {
        JobKey { role: role.into(), environment: environment.into(), name: name.into() }
    }
}

impl fmt::Display for JobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.role, self.environment, self.name)
    }
}

/// A text is not a job key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a job key: want role/environment/name, each 1 to 255 letters, digits, `_`, `-` or `.`")]
pub struct ParseJobKeyError {
    /// The text given.
    pub text: String,
}

impl FromStr for JobKey {
    type Err = ParseJobKeyError;

    /// Parses `role/environment/name` under the scheduler's rule for identifiers.
    fn from_str(text: &str) -> Result<JobKey, ParseJobKeyError> {
        let parts: Vec<&str> = text.split('/').collect();
        match parts[..] {
            [role, environment, name] if parts.iter().all(|part| is_identifier(part)) => Ok(JobKey::new(role, environment, name)),
            _ => Err(ParseJobKeyError { text: text.chars().take(800).collect() }),
        }
    }
}

fn is_identifier(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    (1..=255).contains(&text.len()) && text.chars().all(allowed)
}

/// A job to create, or one that exists.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JobConfiguration {
    /// Absent for services.
    pub cron_schedule: Option<String>,
    /// Only of interest with a schedule, yet clients send it always; absent in what the scheduler returns for services.
    pub cron_collision_policy: Option<CronCollisionPolicy>,
    /// What each instance runs.
    pub task_config: TaskConfig,
    /// Deprecated by the scheduler in favour of `key.role`.
    pub owner: Option<Identity>,
    /// Number of instances, at least 1.
    pub instance_count: i32,
    /// Name of the job.
    pub key: JobKey,
}

impl JobConfiguration {
    /// The service of `instance_count` instances that each run `task_config`, under the job key stated in it.
    pub fn service(task_config: TaskConfig, instance_count: i32) -> JobConfiguration {
        JobConfiguration {
            cron_schedule: None,
            cron_collision_policy: Some(CronCollisionPolicy::KILL_EXISTING),
            owner: task_config.owner.clone(),
            instance_count,
            key: task_config.job.clone(),
            task_config: TaskConfig { is_service: true, ..task_config },
        }
    }
}

/// What one instance runs and needs. The scheduler fills in `production`, `tier` and links: what it returns differs from what
/// was sent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskConfig {
    /// Restarted for ever when it ends.
    pub is_service: bool,
    /// Order within the role when resources are short, higher first.
    pub priority: i32,
    /// Failures allowed, -1 for any number; ignored for services.
    pub max_task_failures: i32,
    /// Deprecated by the scheduler in favour of `job.role`.
    pub owner: Option<Identity>,
    /// Set by the scheduler from the tier.
    pub production: Option<bool>,
    /// Where it may run.
    pub constraints: Vec<Constraint>,
    /// Links shown on the scheduler's page.
    pub task_links: Option<BTreeMap<String, String>>,
    /// Whom to tell.
    pub contact_email: Option<String>,
    /// The program; absent only for plain Docker tasks.
    pub executor_config: Option<ExecutorConfig>,
    /// Labels.
    pub metadata: Option<Vec<Metadata>>,
    /// The job it belongs to.
    pub job: JobKey,
    /// What it runs in.
    pub container: Container,
    /// Name of the tier; the scheduler's default (preemptible) when absent.
    pub tier: Option<String>,
    /// What it needs: cpu, ram and disk once each, a named port any number of times.
    pub resources: Vec<Resource>,
    /// Files that Mesos fetches; refused by default.
    pub mesos_fetcher_uris: Option<Vec<FetcherUri>>,
    /// What happens when its host is unreachable.
    pub partition_policy: Option<PartitionPolicy>,
    /// When it may be taken down for maintenance.
    pub sla_policy: Option<SlaPolicy>,
}

/// A user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Name of the user.
    pub user: String,
}

/// A label.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Name of the label.
    pub key: String,
    /// Its text.
    pub value: String,
}

/// The program that runs a task, and its configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecutorConfig {
    /// `AuroraExecutor` for Thermos.
    pub name: String,
    /// JSON for the executor, compared byte by byte on updates; absent in answers of `getTasksWithoutConfigs`.
    pub data: Option<String>,
}

/// A file that Mesos fetches into the sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FetcherUri {
    /// The URI.
    pub value: String,
    /// Unpack it.
    pub extract: Option<bool>,
    /// Keep it on the host for the next task.
    pub cache: Option<bool>,
    /// Name in the sandbox.
    pub output_file: Option<String>,
}

/// A condition on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Constraint {
    /// Attribute of the host, such as `host` or `rack`.
    pub name: String,
    /// What must hold of it.
    pub constraint: TaskConstraint,
}

/// What must hold of an attribute of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskConstraint {
    /// It has, or has not, one of these values.
    Value(ValueConstraint),
    /// At most this many instances share a value of it.
    Limit(i32),
    /// A kind we do not know; the union's field id, 0 when it was empty. It cannot be written.
    Unknown(i16),
}

impl Default for TaskConstraint {
    fn default() -> TaskConstraint {
        TaskConstraint::Unknown(0)
    }
}

/// Values that an attribute must, or must not, have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ValueConstraint {
    /// Must not have them.
    pub negated: bool,
    /// The values.
    pub values: Vec<String>,
}

/// One thing that a task needs.
#[derive(Clone, Debug, PartialEq)]
pub enum Resource {
    /// Cores.
    NumCpus(f64),
    /// Memory in MiB.
    RamMb(i64),
    /// Disk in MiB.
    DiskMb(i64),
    /// A port under this name.
    NamedPort(String),
    /// Graphics processors.
    NumGpus(i64),
    /// IP addresses.
    IpAddr(i64),
    /// A kind we do not know; the union's field id, 0 when it was empty. It cannot be written.
    Unknown(i16),
}

/// What a task runs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Container {
    /// Mesos' own isolation, the default.
    Mesos(MesosContainer),
    /// Docker.
    Docker(DockerContainer),
    /// A kind we do not know; the union's field id, 0 when it was empty. It cannot be written.
    Unknown(i16),
}

impl Default for Container {
    fn default() -> Container {
        Container::Mesos(MesosContainer::default())
    }
}

/// Mesos' own isolation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MesosContainer {
    /// Root file system; the host's when absent.
    pub image: Option<Image>,
    /// Directories of the host.
    pub volumes: Option<Vec<Volume>>,
}

/// A root file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Image {
    /// A Docker image.
    Docker(DockerImage),
    /// An AppC image.
    Appc(AppcImage),
    /// A kind we do not know; the union's field id, 0 when it was empty. It cannot be written.
    Unknown(i16),
}

/// A Docker image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DockerImage {
    /// Name.
    pub name: String,
    /// Tag.
    pub tag: String,
}

/// An AppC image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppcImage {
    /// Name.
    pub name: String,
    /// Hash.
    pub image_id: String,
}

/// A directory of the host, mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// Where in the container.
    pub container_path: String,
    /// Where on the host.
    pub host_path: String,
    /// Read only or not.
    pub mode: VolumeMode,
}

/// A Docker container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DockerContainer {
    /// Image with its tag.
    pub image: String,
    /// Arguments of `docker run`.
    pub parameters: Option<Vec<DockerParameter>>,
}

/// One argument of `docker run`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DockerParameter {
    /// Name without dashes.
    pub name: String,
    /// Value.
    pub value: String,
}

/// What happens when the host of a task is unreachable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionPolicy {
    /// Start a replacement elsewhere.
    pub reschedule: bool,
    /// After this many seconds.
    pub delay_secs: Option<i64>,
}

/// When a task may be taken down for maintenance.
#[derive(Clone, Debug, PartialEq)]
pub enum SlaPolicy {
    /// While enough per cent of the others run.
    Percentage(PercentageSlaPolicy),
    /// While enough others run.
    Count(CountSlaPolicy),
    /// When a coordinator says yes.
    Coordinator(CoordinatorSlaPolicy),
    /// A kind we do not know; the union's field id, 0 when it was empty. It cannot be written.
    Unknown(i16),
}

/// While enough per cent of the others run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PercentageSlaPolicy {
    /// Per cent.
    pub percentage: f64,
    /// Window in seconds.
    pub duration_secs: i64,
}

/// While enough others run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CountSlaPolicy {
    /// How many.
    pub count: i64,
    /// Window in seconds.
    pub duration_secs: i64,
}

/// When a coordinator says yes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CoordinatorSlaPolicy {
    /// Whom to ask.
    pub coordinator_url: String,
    /// Key of the answer's JSON object.
    pub status_key: String,
}
