//! Calls: what a client writes and a scheduler reads.

use thrift::protocol::{TInputProtocol, TMessageIdentifier, TMessageType, TOutputProtocol, TType};

use super::Error;
use super::io::{
    Maybe, Plain, Reader, Set, Slot, Wire, Writer, read_fields, slot_type, wire_struct, write_field, write_fields, writer,
};
use super::structs::Wrapped;
use crate::types::{InstanceKey, JobConfiguration, JobKey, JobUpdateKey, JobUpdateQuery, JobUpdateRequest, SlaPolicy, TaskQuery};

/// One call of the API with its arguments.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    /// `createJob`: start all instances of a job that does not exist.
    CreateJob {
        /// The job.
        description: Box<JobConfiguration>,
    },
    /// `getJobs`: jobs with active tasks.
    GetJobs {
        /// Of this role, or of all.
        owner_role: Option<String>,
    },
    /// `getRoleSummary`: roles and how many jobs they have.
    GetRoleSummary,
    /// `getTasksStatus`: tasks with all of their configuration.
    GetTasksStatus {
        /// Which tasks.
        query: TaskQuery,
    },
    /// `getTasksWithoutConfigs`: tasks without the executor's data.
    GetTasksWithoutConfigs {
        /// Which tasks.
        query: TaskQuery,
    },
    /// `getJobUpdateSummaries`: job updates.
    GetJobUpdateSummaries {
        /// Which updates.
        query: JobUpdateQuery,
    },
    /// `addInstances`: start more instances like an active one.
    AddInstances {
        /// The active instance to copy.
        key: InstanceKey,
        /// How many to start.
        count: i32,
    },
    /// `killTasks`: end instances for good.
    KillTasks {
        /// The job.
        job: JobKey,
        /// Which instances. **`None` and an empty set both mean the whole job.** They are here for those who read calls;
        /// [`crate::Client`] never writes them.
        instances: Option<Vec<i32>>,
        /// Why, for the task's history.
        message: Option<String>,
    },
    /// `restartShards`: end instances and start them anew.
    RestartShards {
        /// The job.
        job: JobKey,
        /// Which instances; the scheduler refuses an empty set.
        shard_ids: Vec<i32>,
    },
    /// `populateJobConfig`: how the scheduler would store a job's configuration.
    PopulateJobConfig {
        /// The job.
        description: Box<JobConfiguration>,
    },
    /// `getJobUpdateDetails`: job updates with their instructions and history.
    GetJobUpdateDetails {
        /// Which updates.
        query: JobUpdateQuery,
    },
    /// `getJobUpdateDiff`: what an update would do.
    GetJobUpdateDiff {
        /// The update.
        request: Box<JobUpdateRequest>,
    },
    /// `startJobUpdate`: change a job, instance by instance.
    StartJobUpdate {
        /// What it is to become.
        request: Box<JobUpdateRequest>,
        /// Why, for the update's history.
        message: Option<String>,
    },
    /// `pauseJobUpdate`: stop where it is.
    PauseJobUpdate {
        /// Which update.
        key: JobUpdateKey,
        /// Why, for the update's history.
        message: Option<String>,
    },
    /// `resumeJobUpdate`: go on after a pause.
    ResumeJobUpdate {
        /// Which update.
        key: JobUpdateKey,
        /// Why, for the update's history.
        message: Option<String>,
    },
    /// `abortJobUpdate`: end it, leaving the instances as they are.
    AbortJobUpdate {
        /// Which update.
        key: JobUpdateKey,
        /// Why, for the update's history.
        message: Option<String>,
    },
    /// `rollbackJobUpdate`: turn round.
    RollbackJobUpdate {
        /// Which update.
        key: JobUpdateKey,
        /// Why, for the update's history.
        message: Option<String>,
    },
    /// `pulseJobUpdate`: a sign of life of the update's coordinator.
    PulseJobUpdate {
        /// Which update.
        key: JobUpdateKey,
    },
    /// `startMaintenance`: prefer other hosts for new tasks.
    StartMaintenance {
        /// Which hosts.
        hosts: Vec<String>,
    },
    /// `drainHosts`: end every task there at once.
    DrainHosts {
        /// Which hosts.
        hosts: Vec<String>,
    },
    /// `slaDrainHosts`: end every task there as its SLA policy allows.
    SlaDrainHosts {
        /// Which hosts.
        hosts: Vec<String>,
        /// For tasks without a policy of their own.
        default_sla_policy: Option<SlaPolicy>,
        /// After this time the policies no longer count.
        timeout_secs: i64,
    },
    /// `maintenanceStatus`: where the maintenance of hosts stands.
    MaintenanceStatus {
        /// Which hosts.
        hosts: Vec<String>,
    },
    /// `endMaintenance`: use the hosts again.
    EndMaintenance {
        /// Which hosts.
        hosts: Vec<String>,
    },
}

impl Call {
    /// The method's name in the IDL.
    pub fn method(&self) -> &'static str {
        match self {
            Call::CreateJob { .. } => "createJob",
            Call::GetJobs { .. } => "getJobs",
            Call::GetRoleSummary => "getRoleSummary",
            Call::GetTasksStatus { .. } => "getTasksStatus",
            Call::GetTasksWithoutConfigs { .. } => "getTasksWithoutConfigs",
            Call::GetJobUpdateSummaries { .. } => "getJobUpdateSummaries",
            Call::AddInstances { .. } => "addInstances",
            Call::KillTasks { .. } => "killTasks",
            Call::RestartShards { .. } => "restartShards",
            Call::PopulateJobConfig { .. } => "populateJobConfig",
            Call::GetJobUpdateDetails { .. } => "getJobUpdateDetails",
            Call::GetJobUpdateDiff { .. } => "getJobUpdateDiff",
            Call::StartJobUpdate { .. } => "startJobUpdate",
            Call::PauseJobUpdate { .. } => "pauseJobUpdate",
            Call::ResumeJobUpdate { .. } => "resumeJobUpdate",
            Call::AbortJobUpdate { .. } => "abortJobUpdate",
            Call::RollbackJobUpdate { .. } => "rollbackJobUpdate",
            Call::PulseJobUpdate { .. } => "pulseJobUpdate",
            Call::StartMaintenance { .. } => "startMaintenance",
            Call::DrainHosts { .. } => "drainHosts",
            Call::SlaDrainHosts { .. } => "slaDrainHosts",
            Call::MaintenanceStatus { .. } => "maintenanceStatus",
            Call::EndMaintenance { .. } => "endMaintenance",
        }
    }

    /// Whether the call changes nothing and needs no credentials. (`maintenanceStatus` changes nothing but needs them.)
    pub fn is_read(&self) -> bool {
        matches!(
            self,
            Call::GetJobs { .. }
                | Call::GetRoleSummary
                | Call::GetTasksStatus { .. }
                | Call::GetTasksWithoutConfigs { .. }
                | Call::GetJobUpdateSummaries { .. }
                | Call::PopulateJobConfig { .. }
                | Call::GetJobUpdateDetails { .. }
                | Call::GetJobUpdateDiff { .. }
        )
    }

    /// Whether the call may be made again when it is unknown what became of it. True for reads, and for changes of which the
    /// second does nothing more than the first and is not refused because of it. Not so for `resumeJobUpdate` and
    /// `rollbackJobUpdate`: the update may have ended in between, and the refusal would seem to say that nothing was done.
    pub fn is_repeatable(&self) -> bool {
        self.is_read()
            || matches!(
                self,
                Call::PauseJobUpdate { .. }
                    | Call::AbortJobUpdate { .. }
                    | Call::PulseJobUpdate { .. }
                    | Call::StartMaintenance { .. }
                    | Call::DrainHosts { .. }
                    | Call::SlaDrainHosts { .. }
                    | Call::MaintenanceStatus { .. }
                    | Call::EndMaintenance { .. }
            )
    }

    /// Writes the arguments as the IDL numbers them.
    fn write_args(&self, writer: &mut Writer) -> Result<(), Error> {
        match self.clone() {
            Call::CreateJob { description } => JobArgs { description: Some(*description) }.write(writer),
            Call::GetJobs { owner_role } => RoleArgs { owner_role }.write(writer),
            Call::GetRoleSummary => write_fields(writer, |_| Ok(())),
            Call::GetTasksStatus { query } | Call::GetTasksWithoutConfigs { query } => {
                TaskQueryArgs { query: Some(query) }.write(writer)
            }
            Call::GetJobUpdateSummaries { query } => UpdateQueryArgs { query: Some(query) }.write(writer),
            Call::AddInstances { key, count } => AddArgs { key: Some(key), count }.write(writer),
            Call::KillTasks { job, instances, message } => KillArgs { job: Some(job), instances, message }.write(writer),
            Call::RestartShards { job, shard_ids } => RestartArgs { shard_ids: Some(shard_ids), job: Some(job) }.write(writer),
            Call::PopulateJobConfig { description } => JobArgs { description: Some(*description) }.write(writer),
            Call::GetJobUpdateDetails { query } => DetailsArgs { query: Some(query) }.write(writer),
            Call::GetJobUpdateDiff { request } => StartArgs { request: Some(*request), message: None }.write(writer),
            Call::StartJobUpdate { request, message } => StartArgs { request: Some(*request), message }.write(writer),
            Call::PauseJobUpdate { key, message }
            | Call::ResumeJobUpdate { key, message }
            | Call::AbortJobUpdate { key, message } => UpdateArgs { key: Some(key), message }.write(writer),
            Call::RollbackJobUpdate { key, message } => RollbackArgs { key: Some(key), message }.write(writer),
            Call::PulseJobUpdate { key } => UpdateArgs { key: Some(key), message: None }.write(writer),
            Call::StartMaintenance { hosts }
            | Call::DrainHosts { hosts }
            | Call::MaintenanceStatus { hosts }
            | Call::EndMaintenance { hosts } => HostsArgs { hosts: Some(hosts) }.write(writer),
            Call::SlaDrainHosts { hosts, default_sla_policy, timeout_secs } => {
                SlaDrainArgs { hosts: Some(hosts), default_sla_policy, timeout_secs }.write(writer)
            }
        }
    }
}

macro_rules! args {
    ($name:ident { $($id:literal => $field:ident: $slot:ty = $type:ty,)* }) => {
        #[derive(Default)]
        struct $name { $($field: $type),* }
        wire_struct!($name { $($id => $field: $slot,)* });
    };
}

args!(JobArgs { 1 => description: Maybe<Plain> = Option<JobConfiguration>, });
args!(RoleArgs { 1 => owner_role: Maybe<Plain> = Option<String>, });
args!(TaskQueryArgs { 1 => query: Maybe<Plain> = Option<TaskQuery>, });
args!(UpdateQueryArgs { 1 => query: Maybe<Plain> = Option<JobUpdateQuery>, });
args!(AddArgs { 3 => key: Maybe<Plain> = Option<InstanceKey>, 4 => count: Plain = i32, });
args!(KillArgs {
    4 => job: Maybe<Plain> = Option<JobKey>,
    5 => instances: Maybe<Set> = Option<Vec<i32>>,
    6 => message: Maybe<Plain> = Option<String>,
});
args!(DetailsArgs { 2 => query: Maybe<Plain> = Option<JobUpdateQuery>, });
args!(StartArgs { 1 => request: Maybe<Plain> = Option<JobUpdateRequest>, 3 => message: Maybe<Plain> = Option<String>, });
args!(UpdateArgs { 1 => key: Maybe<Plain> = Option<JobUpdateKey>, 3 => message: Maybe<Plain> = Option<String>, });
args!(RollbackArgs { 1 => key: Maybe<Plain> = Option<JobUpdateKey>, 2 => message: Maybe<Plain> = Option<String>, });
args!(HostsArgs { 1 => hosts: Maybe<Wrapped<Set>> = Option<Vec<String>>, });
args!(SlaDrainArgs {
    1 => hosts: Maybe<Wrapped<Set>> = Option<Vec<String>>,
    2 => default_sla_policy: Maybe<Plain> = Option<SlaPolicy>,
    3 => timeout_secs: Plain = i64,
});
args!(RestartArgs { 3 => shard_ids: Maybe<Set> = Option<Vec<i32>>, 5 => job: Maybe<Plain> = Option<JobKey>, });

/// The message of a call. The reply will carry the same `seqid`.
///
/// # Errors
/// Only [`Error::Unwritable`]: a union that was read with a kind we do not know.
pub fn encode_call(call: &Call, seqid: i32) -> Result<Vec<u8>, Error> {
    let mut writer = writer();
    writer.write_message_begin(&TMessageIdentifier::new(call.method(), TMessageType::Call, seqid))?;
    call.write_args(&mut writer)?;
    writer.write_message_end()?;
    Ok(writer.transport)
}

/// The `seqid` and the call of a message. Like the scheduler it also takes the header of old clients, ignores the message's
/// type and what follows its end, and skips arguments of an unknown number or a wrong type.
///
/// # Errors
/// [`Error::UnknownMethod`] and [`Error::MissingArgument`] for a well-formed message; the others when it is not.
pub fn decode_call(bytes: &[u8]) -> Result<(i32, Call), Error> {
    let mut reader = Reader::new(bytes);
    let header = reader.input.read_message_begin()?;
    let call = read_call(&mut reader, &header.name, header.sequence_number)?;
    Ok((header.sequence_number, call))
}

fn read_call(reader: &mut Reader<'_>, method: &str, seqid: i32) -> Result<Call, Error> {
    Ok(match method {
        "createJob" => {
            let description = need(JobArgs::read(reader)?.description, "createJob", seqid, "description")?;
            Call::CreateJob { description: Box::new(description) }
        }
        "getJobs" => Call::GetJobs { owner_role: RoleArgs::read(reader)?.owner_role },
        "getRoleSummary" => {
            read_fields(reader, |_, _, _| Ok(false))?;
            Call::GetRoleSummary
        }
        "getTasksStatus" => {
            Call::GetTasksStatus { query: need(TaskQueryArgs::read(reader)?.query, "getTasksStatus", seqid, "query")? }
        }
        "getTasksWithoutConfigs" => {
            let query = need(TaskQueryArgs::read(reader)?.query, "getTasksWithoutConfigs", seqid, "query")?;
            Call::GetTasksWithoutConfigs { query }
        }
        "getJobUpdateSummaries" => {
            let query = need(UpdateQueryArgs::read(reader)?.query, "getJobUpdateSummaries", seqid, "jobUpdateQuery")?;
            Call::GetJobUpdateSummaries { query }
        }
        "addInstances" => {
            let args = AddArgs::read(reader)?;
            Call::AddInstances { key: need(args.key, "addInstances", seqid, "key")?, count: args.count }
        }
        "killTasks" => {
            let KillArgs { job, instances, message } = KillArgs::read(reader)?;
            Call::KillTasks { job: need(job, "killTasks", seqid, "job")?, instances, message }
        }
        "restartShards" => {
            let RestartArgs { shard_ids, job } = RestartArgs::read(reader)?;
            let job = need(job, "restartShards", seqid, "job")?;
            Call::RestartShards { job, shard_ids: shard_ids.unwrap_or_default() }
        }
        "populateJobConfig" => {
            let description = need(JobArgs::read(reader)?.description, "populateJobConfig", seqid, "description")?;
            Call::PopulateJobConfig { description: Box::new(description) }
        }
        other => return read_update_call(reader, other, seqid),
    })
}

fn read_update_call(reader: &mut Reader<'_>, method: &str, seqid: i32) -> Result<Call, Error> {
    Ok(match method {
        "getJobUpdateDetails" => {
            Call::GetJobUpdateDetails { query: need(DetailsArgs::read(reader)?.query, "getJobUpdateDetails", seqid, "query")? }
        }
        "getJobUpdateDiff" => {
            let request = need(StartArgs::read(reader)?.request, "getJobUpdateDiff", seqid, "request")?;
            Call::GetJobUpdateDiff { request: Box::new(request) }
        }
        "startJobUpdate" => {
            let StartArgs { request, message } = StartArgs::read(reader)?;
            Call::StartJobUpdate { request: Box::new(need(request, "startJobUpdate", seqid, "request")?), message }
        }
        "pauseJobUpdate" => {
            let UpdateArgs { key, message } = UpdateArgs::read(reader)?;
            Call::PauseJobUpdate { key: need(key, "pauseJobUpdate", seqid, "key")?, message }
        }
        "resumeJobUpdate" => {
            let UpdateArgs { key, message } = UpdateArgs::read(reader)?;
            Call::ResumeJobUpdate { key: need(key, "resumeJobUpdate", seqid, "key")?, message }
        }
        "abortJobUpdate" => {
            let UpdateArgs { key, message } = UpdateArgs::read(reader)?;
            Call::AbortJobUpdate { key: need(key, "abortJobUpdate", seqid, "key")?, message }
        }
        "rollbackJobUpdate" => {
            let RollbackArgs { key, message } = RollbackArgs::read(reader)?;
            Call::RollbackJobUpdate { key: need(key, "rollbackJobUpdate", seqid, "key")?, message }
        }
        "pulseJobUpdate" => Call::PulseJobUpdate { key: need(UpdateArgs::read(reader)?.key, "pulseJobUpdate", seqid, "key")? },
        other => return read_maintenance_call(reader, other, seqid),
    })
}

fn read_maintenance_call(reader: &mut Reader<'_>, method: &str, seqid: i32) -> Result<Call, Error> {
    let mut hosts = |method| need(HostsArgs::read(reader)?.hosts, method, seqid, "hosts");
    Ok(match method {
        "startMaintenance" => Call::StartMaintenance { hosts: hosts("startMaintenance")? },
        "drainHosts" => Call::DrainHosts { hosts: hosts("drainHosts")? },
        "maintenanceStatus" => Call::MaintenanceStatus { hosts: hosts("maintenanceStatus")? },
        "endMaintenance" => Call::EndMaintenance { hosts: hosts("endMaintenance")? },
        "slaDrainHosts" => {
            let SlaDrainArgs { hosts, default_sla_policy, timeout_secs } = SlaDrainArgs::read(reader)?;
            Call::SlaDrainHosts { hosts: need(hosts, "slaDrainHosts", seqid, "hosts")?, default_sla_policy, timeout_secs }
        }
        other => {
            return Err(Error::UnknownMethod { method: other.chars().take(100).collect(), seqid });
        }
    })
}

fn need<T>(argument: Option<T>, method: &'static str, seqid: i32, name: &'static str) -> Result<T, Error> {
    argument.ok_or(Error::MissingArgument { method, seqid, argument: name })
}
