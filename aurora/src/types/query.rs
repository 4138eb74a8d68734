//! What the read calls ask for, and the key of an instance.

use super::{JobKey, JobUpdateKey, JobUpdateStatus, ScheduleStatus};

/// Which tasks to return. All restrictions given are ANDed; an empty one restricts nothing, so the default query means every
/// task of every job, ended ones included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskQuery {
    /// Job name alone.
    pub job_name: Option<String>,
    /// Any of these tasks.
    pub task_ids: Vec<String>,
    /// Any of these statuses.
    pub statuses: Vec<ScheduleStatus>,
    /// Any of these instances.
    pub instance_ids: Vec<i32>,
    /// Environment alone.
    pub environment: Option<String>,
    /// Any of these hosts.
    pub slave_hosts: Vec<String>,
    /// Any of these jobs.
    pub job_keys: Vec<JobKey>,
    /// Tasks to skip; applies above 0, in no stable order.
    pub offset: Option<i32>,
    /// Most tasks to return; applies above 0.
    pub limit: Option<i32>,
    /// Role alone.
    pub role: Option<String>,
}

impl TaskQuery {
    /// All tasks of one job, ended ones included.
    pub fn job(job: &JobKey) -> TaskQuery {
        TaskQuery { job_keys: vec![job.clone()], ..TaskQuery::default() }
    }

    /// The tasks of one job that exist now, from PENDING to KILLING.
    pub fn active(job: &JobKey) -> TaskQuery {
        TaskQuery { statuses: ScheduleStatus::ACTIVE.to_vec(), ..TaskQuery::job(job) }
    }
}

/// Which job updates to return; like [`TaskQuery`], what is not given does not restrict.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobUpdateQuery {
    /// Role of the job.
    pub role: Option<String>,
    /// The job.
    pub job_key: Option<JobKey>,
    /// Who started it.
    pub user: Option<String>,
    /// Any of these statuses.
    pub update_statuses: Vec<JobUpdateStatus>,
    /// Updates to skip, newest first.
    pub offset: Option<i32>,
    /// Most updates to return; 0 means all.
    pub limit: Option<i32>,
    /// One update.
    pub key: Option<JobUpdateKey>,
}

impl JobUpdateQuery {
    /// The updates that lock `job` now; the scheduler allows at most one.
    pub fn active(job: &JobKey) -> JobUpdateQuery {
        JobUpdateQuery {
            job_key: Some(job.clone()),
            update_statuses: JobUpdateStatus::ACTIVE.to_vec(),
            ..JobUpdateQuery::default()
        }
    }
}

/// One instance of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstanceKey {
    /// The job.
    pub job_key: JobKey,
    /// The instance, from 0.
    pub instance_id: i32,
}
