//! Requests recorded from the real scheduler get the answers that it gave.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aurora::types::{
    JobConfiguration, JobUpdateDetails, Payload, Response, ResponseCode, ScheduleStatus, ScheduledTask, TaskConfig,
};
use aurora::wire::decode_reply;

use super::super::books::{Books, Delays};
use super::super::coordinator::Coordinators;
use super::super::guard::Guard;
use super::super::hosts::{self, Host};
use super::super::on_host::OnHost;
use super::super::process::Spawner;
use super::super::state::{Effect, State};
use super::super::{announcer, executor};
use super::*;

fn recorded(name: &str) -> Vec<u8> {
    let path = format!("{}/../aurora/tests/recorded/{name}.bin", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A scheduler whose executors nobody starts: the tests move its tasks by hand.
fn context() -> Context {
    let announcer = announcer::Settings {
        ensemble: String::new(),
        root: String::new(),
        session_timeout: Duration::ZERO,
        patience: Duration::ZERO,
    };
    let executor = executor::Settings {
        on_host: OnHost { spawner: Spawner::new().unwrap(), program: PathBuf::new(), reserved: std::sync::Arc::default() },
        guard: Guard::start(Path::new("/bin/true")).unwrap(),
        announcer,
        preemption_wait: Duration::ZERO,
        stop_timeout: Duration::ZERO,
    };
    let ids = Box::new(|| uuid::Uuid::new_v4().to_string());
    let delays = Delays { sla_retry_ms: 1000, sla_retry_max_ms: 5000, maintenance_poll_ms: 1000 };
    let books = Books::new(State::new("vm".to_owned(), 0, ids), delays);
    let coordinators = Coordinators::new(Duration::ZERO, "local".to_owned()).expect("a client");
    let scheduler = Scheduler::new(hosts(), PathBuf::new(), executor, books, coordinators);
    let (_, leading) = watch::channel(true);
    Context { scheduler, cluster: "local".to_owned(), leading }
}

fn hosts() -> Vec<Host> {
    let host = |n: u8| format!("[[host]]\nname = \"agent-{n}\"\naddress = \"127.0.0.{n}\"\n");
    hosts::parse(Path::new("hosts"), &[4, 3, 5].map(host).concat()).unwrap()
}

fn ask(context: &Context, name: &str) -> Vec<u8> {
    reply(context, true, &recorded(&format!("{name}.req"))).unwrap()
}

#[track_caller]
fn same(context: &Context, name: &str) {
    assert_eq!(ask(context, name), recorded(&format!("{name}.resp")), "{name}");
}

/// Places every task that waits and lets it run.
fn run_all(scheduler: &Scheduler) {
    scheduler.change(|books, now_ms| {
        let state = &mut books.state;
        for effect in state.advance(&hosts(), now_ms) {
            let Effect::Place { task, .. } = effect else { panic!("{effect:?}") };
            let ports = BTreeMap::from([("health".to_owned(), 41208), ("redis".to_owned(), 41213)]);
            assert!(state.assigned(&task, ports, now_ms));
            state.report(&task, ScheduleStatus::STARTING, "Initializing sandbox.", now_ms);
            state.report(&task, ScheduleStatus::RUNNING, "", now_ms);
        }
        ((), Vec::new())
    });
}

fn response(method: &'static str, bytes: &[u8]) -> Response {
    match decode_reply(method, 0, bytes).unwrap() {
        Reply::Response(response) => response,
        other => panic!("{other:?}"),
    }
}

fn tasks(method: &'static str, bytes: &[u8]) -> Vec<ScheduledTask> {
    match response(method, bytes).result {
        Some(Payload::Tasks(mut tasks)) => {
            tasks.sort_by_key(|task| task.assigned_task.instance_id);
            tasks
        }
        other => panic!("{other:?}"),
    }
}

/// Sets have no order on the wire.
fn sort(config: &mut TaskConfig) {
    config.resources.sort_by_key(|resource| format!("{resource:?}"));
}

/// What differs between two runs, made equal.
fn without_chance(mut task: ScheduledTask) -> ScheduledTask {
    let assigned = &mut task.assigned_task;
    sort(&mut assigned.task);
    assigned.task_id.truncate("redis-prod-cache-0-".len());
    assigned.slave_id = assigned.slave_id.as_ref().map(|id| id.chars().take("agent-".len()).collect());
    assigned.slave_host = assigned.slave_host.as_ref().map(|host| host.chars().take("127.0.0.".len()).collect());
    assigned.assigned_ports.values_mut().for_each(|port| *port = 0);
    for event in &mut task.task_events {
        event.timestamp = 0;
        // The simulated executor of the recording says nothing at RUNNING.
        event.message.take_if(|_| event.status == ScheduleStatus::RUNNING);
    }
    task
}

#[tokio::test]
async fn changes_are_answered_byte_for_byte() {
    let context = context();
    same(&context, "001-getRoleSummary-empty-bin");
    same(&context, "007-getTasksStatus-unknown-job");
    same(&context, "027-createJob");
    same(&context, "028-createJob-exists");
    run_all(&context.scheduler);
    same(&context, "042-restartShards-unknown-job");
    same(&context, "046-restartShards");
    same(&context, "048-killTasks-no-instance");
    same(&context, "049-killTasks");
    same(&context, "050-addInstances");
}

#[tokio::test]
async fn tasks_are_described_like_the_real_ones() {
    let context = context();
    ask(&context, "027-createJob");
    run_all(&context.scheduler);
    let pairs = [("getTasksStatus", "030-getTasksStatus-bin"), ("getTasksWithoutConfigs", "031-getTasksWithoutConfigs-bin")];
    for (method, name) in pairs {
        let ours = tasks(method, &ask(&context, name));
        let real = tasks(method, &recorded(&format!("{name}.resp")));
        assert_eq!(ours.len(), real.len());
        for (ours, real) in ours.into_iter().zip(real) {
            assert_eq!(without_chance(ours), without_chance(real), "{method}");
        }
    }
}

#[tokio::test]
async fn jobs_are_described_like_the_real_ones() {
    let context = context();
    ask(&context, "027-createJob");
    let jobs = |bytes: &[u8]| -> Vec<JobConfiguration> {
        match response("getJobs", bytes).result {
            Some(Payload::Jobs(jobs)) => jobs.into_iter().filter(|job| job.key.name == "cache").collect(),
            other => panic!("{other:?}"),
        }
    };
    let (mut ours, mut real) = (jobs(&ask(&context, "036-getJobs")), jobs(&recorded("036-getJobs.resp")));
    assert_eq!(ours.len(), 1);
    real[0].instance_count = ours[0].instance_count;
    real.iter_mut().chain(&mut ours).for_each(|job| sort(&mut job.task_config));
    assert_eq!(ours, real);
}

#[tokio::test]
async fn a_configuration_is_populated_like_the_real_one() {
    let populated = |bytes: &[u8]| match response("populateJobConfig", bytes).result {
        Some(Payload::Populated(mut config)) => {
            sort(&mut config);
            config
        }
        other => panic!("{other:?}"),
    };
    let ours = populated(&ask(&context(), "014-populateJobConfig"));
    assert_eq!(ours, populated(&recorded("014-populateJobConfig.resp")));
}

/// The request of a recording, with `id` in place of the id that the real scheduler gave an update.
fn ask_about(context: &Context, name: &str, real: &str, id: &str) -> Vec<u8> {
    reply(context, true, &replaced(&recorded(&format!("{name}.req")), real, id)).unwrap()
}

fn replaced(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = bytes.to_vec();
    for at in 0..=bytes.len() - from.len() {
        if bytes[at..].starts_with(from.as_bytes()) {
            bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        }
    }
    bytes
}

/// Starts the update of a recording, compares the answer byte for byte, and gives the id it has here.
fn start(context: &Context, name: &str) -> String {
    let id = |bytes: &[u8]| match response("startJobUpdate", bytes).result {
        Some(Payload::StartedUpdate(started)) => started.key.id,
        other => panic!("{other:?}"),
    };
    let (ours, real) = (ask(context, name), recorded(&format!("{name}.resp")));
    assert_eq!(replaced(&ours, &id(&ours), &id(&real)), real, "{name}");
    id(&ours)
}

fn details(bytes: &[u8]) -> JobUpdateDetails {
    match response("getJobUpdateDetails", bytes).result {
        Some(Payload::UpdateDetails(mut details)) if details.len() == 1 => details.remove(0),
        other => panic!("{other:?}"),
    }
}

/// What differs between two runs of an update, made equal.
fn update_without_chance(mut details: JobUpdateDetails) -> JobUpdateDetails {
    let state = details.update.summary.state.as_mut().unwrap();
    (state.created_timestamp_ms, state.last_modified_timestamp_ms) = (0, 0);
    details.update.summary.key.id.clear();
    let instructions = &mut details.update.instructions;
    instructions.initial_state.iter_mut().chain(&mut instructions.desired_state).for_each(|state| sort(&mut state.task));
    details.update_events.iter_mut().for_each(|event| event.timestamp_ms = 0);
    details.instance_events.iter_mut().for_each(|event| event.timestamp_ms = 0);
    details
}

#[tokio::test]
async fn an_update_that_creates_a_job_is_answered_like_the_real_one() {
    let context = context();
    let real = "93d1d4d4-b4f2-45a1-b5d8-222c071a4803";
    let id = start(&context, "112-startJobUpdate-create");
    let conflict = response("startJobUpdate", &ask(&context, "117-startJobUpdate-conflict"));
    let recorded_conflict = response("startJobUpdate", &recorded("117-startJobUpdate-conflict.resp"));
    assert_eq!((conflict.response_code, conflict.message()), (recorded_conflict.response_code, recorded_conflict.message()));
    let status = |response: Response| match response.result {
        Some(Payload::StartedUpdate(started)) => started.update_summary.unwrap().state.unwrap().status,
        other => panic!("{other:?}"),
    };
    assert_eq!(status(conflict), status(recorded_conflict));
    for _ in 0..2 {
        run_all(&context.scheduler);
    }
    let ours = details(&ask_about(&context, "118-getJobUpdateDetails-done", real, &id));
    let real = details(&recorded("118-getJobUpdateDetails-done.resp"));
    assert_eq!(update_without_chance(ours), update_without_chance(real));
    same(&context, "119-startJobUpdate-unchanged");
    start(&context, "125-startJobUpdate-rolling");
}

#[tokio::test]
async fn pulses_and_aborts_are_answered_like_the_real_ones() {
    let context = context();
    same(&context, "140-pulse-finished");
    let id = start(&context, "112-startJobUpdate-create");
    let aborted = ask_about(&context, "147-abort", "3def0c57-90d7-4252-b4e8-22db42f90584", &id);
    assert_eq!(aborted, recorded("147-abort.resp"));
    // Again: it is already what it should be.
    let again = ask_about(&context, "147-abort", "3def0c57-90d7-4252-b4e8-22db42f90584", &id);
    assert_eq!(again, recorded("147-abort.resp"));
    let unknown = response("abortJobUpdate", &ask(&context, "147-abort"));
    assert!(unknown.message().starts_with("Update does not exist"), "{}", unknown.message());
}

#[tokio::test]
async fn an_active_update_locks_its_job() {
    let context = context();
    start(&context, "112-startJobUpdate-create");
    run_all(&context.scheduler);
    let calls = [
        ("createJob", "027-createJob"),
        ("restartShards", "046-restartShards"),
        ("killTasks", "049-killTasks"),
        ("addInstances", "050-addInstances"),
    ];
    for (method, name) in calls {
        let refused = response(method, &ask(&context, name));
        assert_eq!(refused.response_code, ResponseCode::JOB_UPDATING_ERROR, "{method}");
        assert_eq!(refused.message(), "Job is currently updating", "{method}");
    }
}

#[tokio::test]
async fn a_scheduler_that_does_not_lead_answers_nothing() {
    let context = context();
    let bytes = reply(&context, false, &recorded("027-createJob.req")).unwrap();
    assert_eq!(response("createJob", &bytes).message(), "Storage is not READY");
    same(&context, "001-getRoleSummary-empty-bin");
}
