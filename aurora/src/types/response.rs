//! The one struct that every call answers with.

use super::{
    HostStatus, JobConfiguration, JobUpdateDetails, JobUpdateDiff, JobUpdatePulseStatus, JobUpdateSummary, ResponseCode,
    ScheduledTask, StartedJobUpdate, TaskConfig,
};

/// The scheduler's answer to any call.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Response {
    /// Whether it did what was asked. Anything but OK is a failure, although HTTP says 200.
    pub response_code: ResponseCode,
    /// What a read call returns; absent for the others and mostly when it failed.
    pub result: Option<Payload>,
    /// Which scheduler answered.
    pub server_info: Option<ServerInfo>,
    /// Explanations; an OK may carry some too.
    pub details: Vec<ResponseDetail>,
}

impl Response {
    /// The texts of `details` in one line. A rejected job may be echoed in them whole: bound it before showing it.
    pub fn message(&self) -> String {
        let texts: Vec<&str> = self.details.iter().filter_map(|detail| detail.message.as_deref()).collect();
        texts.join(", ")
    }
}

/// What a read call returns.
#[derive(Clone, Debug, PartialEq)]
pub enum Payload {
    /// Answer of `getTasksStatus` and `getTasksWithoutConfigs`, in no particular order.
    Tasks(Vec<ScheduledTask>),
    /// Answer of `getJobs`: jobs with at least one active task.
    Jobs(Vec<JobConfiguration>),
    /// Answer of `getRoleSummary`.
    Roles(Vec<RoleSummary>),
    /// Answer of `getJobUpdateSummaries`, newest first.
    JobUpdates(Vec<JobUpdateSummary>),
    /// Answer of `populateJobConfig`: a configuration as the scheduler would store it.
    Populated(Box<TaskConfig>),
    /// Answer of `startJobUpdate`; with INVALID_REQUEST it is the active update that is in the way.
    StartedUpdate(Box<StartedJobUpdate>),
    /// Answer of `getJobUpdateDetails`, newest first.
    UpdateDetails(Vec<JobUpdateDetails>),
    /// Answer of `pulseJobUpdate`.
    Pulse(JobUpdatePulseStatus),
    /// Answer of `getJobUpdateDiff`.
    UpdateDiff(JobUpdateDiff),
    /// Answer of `startMaintenance`: the hosts that the scheduler knows.
    MaintenanceStarted(Vec<HostStatus>),
    /// Answer of `drainHosts` and `slaDrainHosts`: the hosts that the scheduler knows.
    HostsDrained(Vec<HostStatus>),
    /// Answer of `maintenanceStatus`: the hosts that the scheduler knows.
    MaintenanceStatus(Vec<HostStatus>),
    /// Answer of `endMaintenance`: the hosts that the scheduler knows.
    MaintenanceEnded(Vec<HostStatus>),
    /// Answer of a call that we do not make; the union's field id, 0 when it was empty. It cannot be written.
    Unknown(i16),
}

/// Which scheduler answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerInfo {
    /// Name of the Aurora cluster.
    pub cluster_name: String,
    /// Prefix of its statistics page, often empty.
    pub stats_url_prefix: Option<String>,
}

/// One explanation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseDetail {
    /// Absent for exceptions without a text.
    pub message: Option<String>,
}

/// How many jobs a role has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoleSummary {
    /// The role.
    pub role: String,
    /// Jobs that are not cron jobs, those with only ended tasks included.
    pub job_count: i32,
    /// Cron jobs.
    pub cron_job_count: i32,
}
