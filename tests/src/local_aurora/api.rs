//! The scheduler's API: each call, answered from the books in the words of the real scheduler.
//!
//! [`super::http`] decodes a call, asks [`answer`] and encodes the reply. Nothing here waits.

use std::collections::{BTreeMap, BTreeSet};

use aurora::types::{
    InstanceKey, JobConfiguration, JobKey, Payload, Response, ResponseCode, ResponseDetail, RoleSummary, ScheduledTask,
    ServerInfo, TaskQuery,
};
use aurora::wire::Call;

use super::api_updates;
use super::books::Books;
use super::config;
use super::scheduler::Scheduler;
use super::state::{Effect, Refusal, State, Task};
use super::task_view::scheduled;

/// Who calls, without authentication.
pub(super) const USER: &str = "UNSECURE";

/// What a call comes to, before it is wrapped into a response.
pub(super) struct Outcome {
    pub(super) code: ResponseCode,
    pub(super) result: Option<Payload>,
    pub(super) details: Vec<String>,
}

impl Outcome {
    pub(super) fn ok(result: Option<Payload>) -> Self {
        Self { code: ResponseCode::OK, result, details: Vec::new() }
    }

    pub(super) fn refused(code: ResponseCode, text: impl Into<String>) -> Self {
        Self { code, result: None, details: vec![text.into()] }
    }
}

impl From<Result<(), Refusal>> for Outcome {
    fn from(result: Result<(), Refusal>) -> Self {
        match result {
            Ok(()) => Self::ok(None),
            Err(Refusal(text)) => Self::refused(ResponseCode::INVALID_REQUEST, text),
        }
    }
}

/// Answers one call.
pub fn answer(scheduler: &Scheduler, cluster: &str, call: Call) -> Response {
    let outcome = match call {
        Call::CreateJob { description } => create_job(scheduler, *description),
        Call::GetJobs { owner_role } => Outcome::ok(Some(Payload::Jobs(jobs(scheduler, owner_role.as_deref())))),
        Call::GetRoleSummary => Outcome::ok(Some(Payload::Roles(scheduler.read(|books| roles(&books.state))))),
        Call::GetTasksStatus { query } => Outcome::ok(Some(Payload::Tasks(tasks(scheduler, &query)))),
        Call::GetTasksWithoutConfigs { query } => {
            let mut tasks = tasks(scheduler, &query);
            tasks.iter_mut().for_each(strip_data);
            Outcome::ok(Some(Payload::Tasks(tasks)))
        }
        Call::AddInstances { key, count } => add_instances(scheduler, &key, count),
        Call::KillTasks { job, instances, message } => kill_tasks(scheduler, &job, instances, message.as_deref()),
        Call::RestartShards { job, shard_ids } => restart_shards(scheduler, &job, &shard_ids),
        Call::PopulateJobConfig { description } => match config::accept(*description) {
            Err(text) => Outcome::refused(ResponseCode::INVALID_REQUEST, text),
            Ok((job, _)) => Outcome::ok(Some(Payload::Populated(Box::new(job.task_config)))),
        },
        call => api_updates::answer(scheduler, call),
    };
    respond(cluster, outcome)
}

/// The answer of a scheduler that does not lead, when it was asked nevertheless.
pub fn not_ready(cluster: &str) -> Response {
    respond(cluster, Outcome::refused(ResponseCode::ERROR_TRANSIENT, "Storage is not READY"))
}

/// The answer to a call without an argument that it needs: the real one fails inside.
pub fn failed(cluster: &str) -> Response {
    respond(cluster, Outcome { code: ResponseCode::ERROR, result: None, details: Vec::new() })
}

fn respond(cluster: &str, outcome: Outcome) -> Response {
    let detail = |message| ResponseDetail { message: Some(message) };
    Response {
        response_code: outcome.code,
        result: outcome.result,
        server_info: Some(ServerInfo { cluster_name: cluster.to_owned(), stats_url_prefix: Some(String::new()) }),
        details: outcome.details.into_iter().map(detail).collect(),
    }
}

fn create_job(scheduler: &Scheduler, description: JobConfiguration) -> Outcome {
    let (job, program) = match config::accept(description) {
        Err(text) => return Outcome::refused(ResponseCode::INVALID_REQUEST, text),
        Ok(accepted) => accepted,
    };
    let key = job.key.clone();
    unless_updating(scheduler, &key, |state, now_ms| (state.create(job, program, now_ms).into(), Vec::new()))
}

/// Changes the tasks of a job, unless an update locks it.
fn unless_updating(
    scheduler: &Scheduler,
    job: &JobKey,
    change: impl FnOnce(&mut State, i64) -> (Outcome, Vec<Effect>),
) -> Outcome {
    scheduler.change(|books: &mut Books, now_ms| match books.is_updating(job) {
        true => (Outcome::refused(ResponseCode::JOB_UPDATING_ERROR, "Job is currently updating"), Vec::new()),
        false => change(&mut books.state, now_ms),
    })
}

fn add_instances(scheduler: &Scheduler, key: &InstanceKey, count: i32) -> Outcome {
    if let Some(refused) = bad_key(&key.job_key) {
        return refused;
    }
    unless_updating(scheduler, &key.job_key, |state, now_ms| {
        (state.add_instances(&key.job_key, key.instance_id, count, now_ms).into(), Vec::new())
    })
}

fn kill_tasks(scheduler: &Scheduler, job: &JobKey, instances: Option<Vec<i32>>, message: Option<&str>) -> Outcome {
    if let Some(refused) = bad_key(job) {
        return refused;
    }
    // As in reality: no instances and an empty set both mean the whole job.
    let instances = instances.filter(|instances| !instances.is_empty());
    let text = match message {
        Some(message) if !message.is_empty() => format!("Killed by {USER}.\n{message}"),
        _ => format!("Killed by {USER}"),
    };
    unless_updating(scheduler, job, |state, now_ms| match state.kill(job, instances.as_deref(), &text, now_ms) {
        (true, effects) => (Outcome::ok(None), effects),
        (false, effects) => (Outcome::refused(ResponseCode::OK, "No tasks to kill."), effects),
    })
}

fn restart_shards(scheduler: &Scheduler, job: &JobKey, instances: &[i32]) -> Outcome {
    if let Some(refused) = bad_key(job) {
        return refused;
    }
    if instances.is_empty() {
        return Outcome::refused(ResponseCode::ERROR, "Instances to restart must be given.");
    }
    let text = format!("Restarted by {USER}");
    unless_updating(scheduler, job, |state, now_ms| match state.restart(job, instances, &text, now_ms) {
        Ok(effects) => (Outcome::ok(None), effects),
        Err(refusal) => (Err(refusal).into(), Vec::new()),
    })
}

/// A key that is none fails inside the real scheduler.
pub(super) fn bad_key(job: &JobKey) -> Option<Outcome> {
    let good = [&job.role, &job.environment, &job.name].into_iter().all(|part| config::is_identifier(part));
    let text = || format!("Invalid job key: {}", job.to_string().chars().take(800).collect::<String>());
    (!good).then(|| Outcome::refused(ResponseCode::ERROR, text()))
}

/// Jobs with active tasks; the configuration is that of the task changed last.
fn jobs(scheduler: &Scheduler, role: Option<&str>) -> Vec<JobConfiguration> {
    let role = role.filter(|role| !role.trim().is_empty());
    let changed_ms = |task: &&Task| task.events.last().map(|event| event.timestamp);
    scheduler.read(|books| {
        let mut by_job: BTreeMap<&JobKey, Vec<&Task>> = BTreeMap::new();
        for task in books.state.tasks().into_iter().filter(|task| task.status.is_active()) {
            if role.is_none_or(|role| task.job.role == role) {
                by_job.entry(&task.job).or_default().push(task);
            }
        }
        let newest = |tasks: Vec<&Task>| {
            let task = tasks.iter().copied().max_by_key(changed_ms)?;
            Some(JobConfiguration {
                owner: task.config.owner.clone(),
                task_config: (*task.config).clone(),
                instance_count: i32::try_from(tasks.len()).unwrap_or(i32::MAX),
                key: task.job.clone(),
                ..JobConfiguration::default()
            })
        };
        by_job.into_values().filter_map(newest).collect()
    })
}

/// Roles with their number of jobs, also jobs that have only ended tasks.
fn roles(state: &State) -> Vec<RoleSummary> {
    let keys: BTreeSet<&JobKey> = state.tasks().into_iter().map(|task| &task.job).collect();
    let mut counts: BTreeMap<&str, i32> = BTreeMap::new();
    for key in keys {
        *counts.entry(&key.role).or_default() += 1;
    }
    let summary = |(role, job_count): (&str, i32)| RoleSummary { role: role.to_owned(), job_count, cron_job_count: 0 };
    counts.into_iter().map(summary).collect()
}

fn tasks(scheduler: &Scheduler, query: &TaskQuery) -> Vec<ScheduledTask> {
    let positive = |number: Option<i32>| number.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
    let skipped = positive(query.offset).unwrap_or(0);
    let most = positive(query.limit).unwrap_or(usize::MAX);
    scheduler.read(|books| {
        let found = books.state.tasks().into_iter().filter(|task| matches(query, task));
        found.skip(skipped).take(most).map(scheduled).collect()
    })
}

/// All given restrictions have to hold; an empty set restricts nothing.
fn matches(query: &TaskQuery, task: &Task) -> bool {
    fn within<T: PartialEq>(set: &[T], value: &T) -> bool {
        set.is_empty() || set.contains(value)
    }
    let is = |wanted: &Option<String>, value: &str| wanted.as_deref().is_none_or(|w| w.trim().is_empty() || w == value);
    let host = task.assigned_place().map(|place| place.address.clone()).unwrap_or_default();
    is(&query.role, &task.job.role)
        && is(&query.environment, &task.job.environment)
        && is(&query.job_name, &task.job.name)
        && within(&query.job_keys, &task.job)
        && within(&query.task_ids, &task.id)
        && within(&query.statuses, &task.status)
        && within(&query.instance_ids, &task.instance)
        && within(&query.slave_hosts, &host)
}

fn strip_data(task: &mut ScheduledTask) {
    if let Some(executor) = &mut task.assigned_task.task.executor_config {
        executor.data = None;
    }
}
