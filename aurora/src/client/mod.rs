//! [`Client`]: one method per call of the scheduler's API. The controller and the command line use it.
//!
//! `mod.rs` (jobs and tasks), `updates` and `maintenance` say what each call returns, `call` holds deadline and retry, `http`
//! makes one attempt, `leader` finds whom to ask. Invariant: a call is repeated only if a second one adds nothing to the first,
//! or if the first was certainly not applied; so `addInstances` never adds twice.

mod call;
mod http;
mod leader;
mod maintenance;
mod updates;

use std::time::Duration;

pub use leader::{Endpoint, Sessions};
pub use updates::Started;

use crate::error::Error;
use crate::types::{
    InstanceKey, InstanceSet, JobConfiguration, JobKey, Payload, Response, RoleSummary, ScheduledTask, ServerInfo, TaskConfig,
    TaskQuery,
};
use crate::wire::Call;

/// How long to wait and who we are.
#[derive(Clone, Debug)]
pub struct Options {
    /// For one call with all its attempts; 30 s by default. Leaders change daily, and that takes 15 s to a minute.
    pub deadline: Duration,
    /// For one attempt; 10 s by default.
    pub attempt: Duration,
    /// For one connection; 3 s by default. Keep it below `attempt`: only a failed connection is certain.
    pub connect: Duration,
    /// Sent with calls that change something; reads need none.
    pub credentials: Option<Credentials>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            deadline: Duration::from_secs(30),
            attempt: Duration::from_secs(10),
            connect: Duration::from_secs(3),
            credentials: None,
        }
    }
}

/// User and password for HTTP basic authentication.
#[derive(Clone)]
pub struct Credentials {
    /// The user.
    pub user: String,
    /// The password; it is not shown by `Debug`.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// The scheduler took a call that changes something. That proves no effect: the scheduler acts later, and OK may also mean that
/// there was nothing to do. Look at the tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// What it had to say, mostly nothing.
    pub message: String,
}

/// Client of one Aurora cluster's scheduler. Cheap to clone; calls may run at the same time.
#[derive(Clone, Debug)]
pub struct Client {
    caller: call::Caller,
}

impl Client {
    /// A client of the scheduler at `endpoint`. Connects only when called.
    pub fn new(endpoint: Endpoint, options: Options) -> Client {
        Client { caller: call::Caller::new(endpoint, options) }
    }

    /// Whom this client asks: a URL, or a path of ZooKeeper.
    pub fn endpoint(&self) -> &Endpoint {
        self.caller.endpoint()
    }

    /// Creates a job and starts all its instances at once. After an indefinite failure look for its tasks first: a second call
    /// is refused as INVALID_REQUEST "already exists" when the first one was applied.
    pub async fn create_job(&self, job: &JobConfiguration) -> Result<Accepted, Error> {
        self.change(Call::CreateJob { description: Box::new(job.clone()) }).await
    }

    /// The jobs with active tasks, of `role` or of all roles.
    pub async fn jobs(&self, role: Option<&str>) -> Result<Vec<JobConfiguration>, Error> {
        let call = Call::GetJobs { owner_role: role.map(str::to_owned) };
        let take = |payload| if let Payload::Jobs(jobs) = payload { Some(jobs) } else { None };
        self.read(call, take).await
    }

    /// The tasks that match, without the executor's data.
    pub async fn tasks(&self, query: &TaskQuery) -> Result<Vec<ScheduledTask>, Error> {
        self.read(Call::GetTasksWithoutConfigs { query: query.clone() }, take_tasks).await
    }

    /// The tasks that match, with all of their configuration.
    pub async fn tasks_with_configs(&self, query: &TaskQuery) -> Result<Vec<ScheduledTask>, Error> {
        self.read(Call::GetTasksStatus { query: query.clone() }, take_tasks).await
    }

    /// How the scheduler would store a job's configuration. It compares updates with this, not with what was sent.
    pub async fn populate(&self, job: &JobConfiguration) -> Result<TaskConfig, Error> {
        let call = Call::PopulateJobConfig { description: Box::new(job.clone()) };
        let take = |payload| if let Payload::Populated(config) = payload { Some(*config) } else { None };
        self.read(call, take).await
    }

    /// The roles that have jobs.
    pub async fn roles(&self) -> Result<Vec<RoleSummary>, Error> {
        let take = |payload| if let Payload::Roles(roles) = payload { Some(roles) } else { None };
        self.read(Call::GetRoleSummary, take).await
    }

    /// Which scheduler answers, through a call that every scheduler serves and that changes nothing.
    pub async fn ping(&self) -> Result<ServerInfo, Error> {
        let response = self.caller.call(&Call::GetRoleSummary).await?;
        response.server_info.ok_or(Error::NoResult { method: "getRoleSummary" })
    }

    /// Starts `count` more instances with the configuration of the active instance `template`. They get the ids after the
    /// highest active one; gaps stay. After an indefinite failure count the instances before calling again.
    pub async fn add_instances(&self, job: &JobKey, template: u32, count: u32) -> Result<Accepted, Error> {
        let key = InstanceKey { job_key: job.clone(), instance_id: clamp(template) };
        self.change(Call::AddInstances { key, count: clamp(count) }).await
    }

    /// Ends these instances for good; `message` goes into the tasks' history. OK also when there are none.
    pub async fn kill_tasks(&self, job: &JobKey, instances: &InstanceSet, message: &str) -> Result<Accepted, Error> {
        let call = Call::KillTasks {
            job: job.clone(),
            instances: Some(instances.ids().to_vec()),
            message: Some(message.to_owned()).filter(|message| !message.is_empty()),
        };
        self.change(call).await
    }

    /// Ends these instances and starts them anew; refused unless each has an active task. OK also when the scheduler does
    /// nothing, because a task is pending or ending: compare the task ids. After an indefinite failure too: a second call
    /// would restart the new tasks.
    pub async fn restart_shards(&self, job: &JobKey, instances: &InstanceSet) -> Result<Accepted, Error> {
        self.change(Call::RestartShards { job: job.clone(), shard_ids: instances.ids().to_vec() }).await
    }

    async fn change(&self, call: Call) -> Result<Accepted, Error> {
        let response = self.caller.call(&call).await?;
        Ok(Accepted { message: crate::error::excerpt(&response.message()) })
    }

    async fn read<T>(&self, call: Call, take: impl FnOnce(Payload) -> Option<T>) -> Result<T, Error> {
        let Response { result, .. } = self.caller.call(&call).await?;
        result.and_then(take).ok_or(Error::NoResult { method: call.method() })
    }
}

fn take_tasks(payload: Payload) -> Option<Vec<ScheduledTask>> {
    if let Payload::Tasks(tasks) = payload { Some(tasks) } else { None }
}

fn clamp(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
