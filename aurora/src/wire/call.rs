//! Calls: what a client writes and a scheduler reads.

use thrift::protocol::{TInputProtocol, TMessageIdentifier, TMessageType, TOutputProtocol, TType};

use super::Error;
use super::io::{
    Maybe, Plain, Reader, Set, Slot, Wire, Writer, read_fields, slot_type, wire_struct, write_field, write_fields, writer,
};
use crate::types::{InstanceKey, JobConfiguration, JobKey, JobUpdateQuery, TaskQuery};

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
        }
    }

    /// Whether the call changes nothing: it may be repeated, and needs no credentials.
    pub fn is_read(&self) -> bool {
        match self {
            Call::GetJobs { .. }
            | Call::GetRoleSummary
            | Call::GetTasksStatus { .. }
            | Call::GetTasksWithoutConfigs { .. }
            | Call::GetJobUpdateSummaries { .. } => true,
            Call::CreateJob { .. } | Call::AddInstances { .. } | Call::KillTasks { .. } | Call::RestartShards { .. } => false,
        }
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
        other => {
            return Err(Error::UnknownMethod { method: other.chars().take(100).collect(), seqid });
        }
    })
}

fn need<T>(argument: Option<T>, method: &'static str, seqid: i32, name: &'static str) -> Result<T, Error> {
    argument.ok_or(Error::MissingArgument { method, seqid, argument: name })
}
