//! The scheduler's API: each call, answered from the books in the words of the real scheduler.
//!
//! [`super::http`] decodes a call, asks [`answer`] and encodes the reply. Nothing here waits.

use std::collections::{BTreeMap, BTreeSet};

use aurora::types::{
    AssignedTask, InstanceKey, JobConfiguration, JobKey, Payload, Response, ResponseCode, ResponseDetail, RoleSummary,
    ScheduledTask, ServerInfo, TaskQuery,
};
use aurora::wire::Call;

use super::config;
use super::scheduler::Scheduler;
use super::state::{Refusal, State, Task};

/// Who calls, without authentication.
const USER: &str = "UNSECURE";

/// What a call comes to, before it is wrapped into a response.
struct Outcome {
    code: ResponseCode,
    result: Option<Payload>,
    details: Vec<String>,
}

impl Outcome {
    fn ok(result: Option<Payload>) -> Self {
        Self { code: ResponseCode::OK, result, details: Vec::new() }
    }

    fn refused(code: ResponseCode, text: impl Into<String>) -> Self {
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
        Call::GetRoleSummary => Outcome::ok(Some(Payload::Roles(scheduler.read(roles)))),
        Call::GetTasksStatus { query } => Outcome::ok(Some(Payload::Tasks(tasks(scheduler, &query)))),
        Call::GetTasksWithoutConfigs { query } => {
            let mut tasks = tasks(scheduler, &query);
            tasks.iter_mut().for_each(strip_data);
            Outcome::ok(Some(Payload::Tasks(tasks)))
        }
        // Updates are refused, so there never is one.
        Call::GetJobUpdateSummaries { .. } => Outcome::ok(Some(Payload::JobUpdates(Vec::new()))),
        Call::AddInstances { key, count } => add_instances(scheduler, &key, count),
        Call::KillTasks { job, instances, message } => kill_tasks(scheduler, &job, instances, message.as_deref()),
        Call::RestartShards { job, shard_ids } => restart_shards(scheduler, &job, &shard_ids),
        other => Outcome::refused(ResponseCode::ERROR, format!("{} is not served by this scheduler", other.method())),
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
    match config::accept(description) {
        Err(text) => Outcome::refused(ResponseCode::INVALID_REQUEST, text),
        Ok((job, program)) => scheduler.change(|state, now_ms| (state.create(job, program, now_ms), Vec::new())).into(),
    }
}

fn add_instances(scheduler: &Scheduler, key: &InstanceKey, count: i32) -> Outcome {
    if let Some(refused) = bad_key(&key.job_key) {
        return refused;
    }
    let change = |state: &mut State, now_ms| state.add_instances(&key.job_key, key.instance_id, count, now_ms);
    scheduler.change(|state, now_ms| (change(state, now_ms), Vec::new())).into()
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
    if scheduler.change(|state, now_ms| state.kill(job, instances.as_deref(), &text, now_ms)) {
        Outcome::ok(None)
    } else {
        Outcome::refused(ResponseCode::OK, "No tasks to kill.")
    }
}

fn restart_shards(scheduler: &Scheduler, job: &JobKey, instances: &[i32]) -> Outcome {
    if let Some(refused) = bad_key(job) {
        return refused;
    }
    if instances.is_empty() {
        return Outcome::refused(ResponseCode::ERROR, "Instances to restart must be given.");
    }
    let text = format!("Restarted by {USER}");
    let restarted = scheduler.change(|state, now_ms| match state.restart(job, instances, &text, now_ms) {
        Ok(effects) => (Ok(()), effects),
        Err(refusal) => (Err(refusal), Vec::new()),
    });
    restarted.into()
}

/// A key that is none fails inside the real scheduler.
fn bad_key(job: &JobKey) -> Option<Outcome> {
    let good = [&job.role, &job.environment, &job.name].into_iter().all(|part| config::is_identifier(part));
    let text = || format!("Invalid job key: {}", job.to_string().chars().take(800).collect::<String>());
    (!good).then(|| Outcome::refused(ResponseCode::ERROR, text()))
}

/// Jobs with active tasks; the configuration is that of the task changed last.
fn jobs(scheduler: &Scheduler, role: Option<&str>) -> Vec<JobConfiguration> {
    let role = role.filter(|role| !role.trim().is_empty());
    let changed_ms = |task: &&Task| task.events.last().map(|event| event.timestamp);
    scheduler.read(|state| {
        let mut by_job: BTreeMap<&JobKey, Vec<&Task>> = BTreeMap::new();
        for task in state.tasks().into_iter().filter(|task| task.status.is_active()) {
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
    scheduler.read(|state| {
        let found = state.tasks().into_iter().filter(|task| matches(query, task));
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

fn scheduled(task: &Task) -> ScheduledTask {
    let place = task.assigned_place();
    let ports = place.map(|place| place.ports.iter().map(|(name, port)| (name.clone(), i32::from(*port))).collect());
    ScheduledTask {
        assigned_task: AssignedTask {
            task_id: task.id.clone(),
            slave_id: place.map(|place| place.host.clone()),
            slave_host: place.map(|place| place.address.clone()),
            task: (*task.config).clone(),
            assigned_ports: ports.unwrap_or_default(),
            instance_id: task.instance,
        },
        status: task.status,
        failure_count: task.failures,
        task_events: task.events.clone(),
        ancestor_id: task.ancestor.clone(),
        times_partitioned: 0,
    }
}

fn strip_data(task: &mut ScheduledTask) {
    if let Some(executor) = &mut task.assigned_task.task.executor_config {
        executor.data = None;
    }
}
