//! Requests recorded from the real scheduler get the answers that it gave.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aurora::types::{JobConfiguration, Payload, Response, ScheduleStatus, ScheduledTask, TaskConfig};
use aurora::wire::decode_reply;

use super::super::guard::Guard;
use super::super::hosts::{self, Host};
use super::super::on_host::OnHost;
use super::super::process::Spawner;
use super::super::state::Effect;
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
    let scheduler = Scheduler::new(hosts(), PathBuf::new(), executor, Duration::ZERO, "vm".to_owned());
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
    scheduler.change(|state, now_ms| {
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
async fn there_is_never_an_update() {
    let response = response("getJobUpdateSummaries", &ask(&context(), "130-summaries-awaiting-pulse"));
    assert_eq!(response.result, Some(Payload::JobUpdates(Vec::new())));
}

#[tokio::test]
async fn a_scheduler_that_does_not_lead_answers_nothing() {
    let context = context();
    let bytes = reply(&context, false, &recorded("027-createJob.req")).unwrap();
    assert_eq!(response("createJob", &bytes).message(), "Storage is not READY");
    same(&context, "001-getRoleSummary-empty-bin");
}
