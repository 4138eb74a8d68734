//! One task from its start to its end, as Thermos' executor does it.
//!
//! [`super::scheduler`] starts one per assigned task and gets its [`Report`]s. Order at the start: sandbox, processes,
//! announcer, health checks. Order at the end, whatever the cause: announcer and health checks stop, lifecycle calls,
//! SIGTERM, SIGKILL. Invariant: [`Report::Ended`] is the last report, and when it is sent nothing of the task runs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aurora::types::{JobKey, ScheduleStatus};
use tokio::sync::{mpsc, watch};

use super::announcer::{self, Announcer};
use super::guard::Guard;
use super::health::{self, Verdict};
use super::hosts::Host;
use super::lifecycle;
use super::on_host::OnHost;
use super::runner::{self, End, Handle, Pids, Place, Stop, wished};
use super::template::Binding;
use super::thermos::Job;

/// What a task reports.
#[derive(Clone, Debug)]
pub enum Report {
    /// STARTING or RUNNING.
    Status(ScheduleStatus, &'static str),
    /// The processes are under way; where to look up their pids.
    Pids(Pids),
    /// FINISHED, FAILED or KILLED, with a reason.
    Ended(ScheduleStatus, String),
}

/// A task with everything that placement decided for it.
#[derive(Clone, Debug)]
pub struct Assignment {
    /// Id of the task.
    pub task_id: String,
    /// Its job.
    pub job: JobKey,
    /// Its instance.
    pub instance: i32,
    /// What it runs.
    pub program: Arc<Job>,
    /// Where it runs.
    pub host: Host,
    /// Ports by name.
    pub ports: BTreeMap<String, u16>,
    /// Working directory; made here.
    pub sandbox: PathBuf,
}

/// What all executors share.
#[derive(Clone)]
pub struct Settings {
    /// Runs things on hosts.
    pub on_host: OnHost,
    /// Kills what tasks leave when this program is killed.
    pub guard: Guard,
    /// Where tasks are announced.
    pub announcer: announcer::Settings,
    /// Time from SIGTERM to SIGKILL.
    pub preemption_wait: Duration,
    /// Limit for the whole end of a task.
    pub stop_timeout: Duration,
}

enum Cause {
    Ended(End),
    Stop,
    Failed(String),
}

/// Runs the task; `stop` ends it early. Every report goes to `report`.
pub async fn run(assignment: Assignment, settings: Settings, mut stop: watch::Receiver<Stop>, report: impl Fn(Report)) {
    report(Report::Status(ScheduleStatus::STARTING, "Initializing sandbox."));
    let (status, message) = match start(&assignment, &settings) {
        Err(problem) => (ScheduleStatus::FAILED, problem),
        Ok(mut parts) => {
            report(Report::Pids(parts.runner.pids()));
            let cause = parts.watch(&mut stop, &report).await;
            parts.finish(&assignment, &settings, cause, &mut stop).await
        }
    };
    report(Report::Ended(status, message));
}

struct Parts {
    job: Job,
    runner: Handle,
    announcer: Option<Announcer>,
    verdicts: Option<mpsc::Receiver<Verdict>>,
}

fn start(assignment: &Assignment, settings: &Settings) -> Result<Parts, String> {
    let binding = Binding {
        ports: assignment.ports.clone(),
        task_id: assignment.task_id.clone(),
        user: assignment.job.role.clone(),
        instance: assignment.instance,
        hostname: assignment.host.address.to_string(),
    };
    let job = assignment.program.bind(&binding).map_err(|error| error.to_string())?;
    make_sandbox(&assignment.sandbox)?;
    let place = Place {
        host: assignment.host.clone(),
        sandbox: assignment.sandbox.clone(),
        user: assignment.job.role.clone(),
        preemption_wait: settings.preemption_wait,
    };
    let runner = runner::start(job.task.clone(), place.clone(), settings.on_host.spawner.clone(), settings.guard.clone());
    let announcer = job.announce.as_ref().map(|announce| {
        let data = announcer::member(announce, &assignment.ports, assignment.host.address, assignment.instance);
        Announcer::start(&settings.announcer, &assignment.job, &assignment.host, &settings.on_host, data)
    });
    let verdicts = watch_health(&job, assignment, place, &settings.on_host);
    Ok(Parts { job, runner, announcer, verdicts })
}

fn make_sandbox(sandbox: &std::path::Path) -> Result<(), String> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(sandbox)
        .map_err(|error| format!("cannot make the sandbox {}: {error}", sandbox.display()))
}

/// `None`: nothing to check.
fn watch_health(job: &Job, assignment: &Assignment, place: Place, on_host: &OnHost) -> Option<mpsc::Receiver<Verdict>> {
    let config = job.health_check_config.clone();
    let port = job.resolved_ports(&assignment.ports).get("health").copied();
    if port.is_none() && matches!(config.check(), super::thermos::HealthCheck::Http(_)) {
        return None;
    }
    let (sender, verdicts) = mpsc::channel(1);
    let on_host = on_host.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = health::watch(config, port, place, on_host, sender.clone()) => {}
            () = sender.closed() => {}
        }
    });
    Some(verdicts)
}

impl Parts {
    /// Waits for a reason to end the task.
    async fn watch(&mut self, stop: &mut watch::Receiver<Stop>, report: &impl Fn(Report)) -> Cause {
        if self.verdicts.is_none() {
            let message = "No health-check defined, task is assumed healthy.";
            report(Report::Status(ScheduleStatus::RUNNING, message));
        }
        loop {
            tokio::select! {
                end = self.runner.ended() => return Cause::Ended(end),
                () = wished(stop, Stop::Orderly) => return Cause::Stop,
                Some(verdict) = next(&mut self.verdicts) => match verdict {
                    Verdict::Running => {
                        report(Report::Status(ScheduleStatus::RUNNING, "Task is healthy."));
                    }
                    Verdict::Failed(reason) => return Cause::Failed(reason),
                },
                problem = announcer::failed(&mut self.announcer) => return Cause::Failed(problem),
            }
        }
    }

    /// Ends what still runs and says how the task ended.
    async fn finish(
        mut self,
        assignment: &Assignment,
        settings: &Settings,
        cause: Cause,
        stop: &mut watch::Receiver<Stop>,
    ) -> (ScheduleStatus, String) {
        let leaving = self.announcer.take().map(Announcer::leave);
        self.verdicts = None;
        let orderly = self.end_orderly(assignment, settings);
        tokio::select! {
            _ = tokio::time::timeout(settings.stop_timeout, orderly) => {}
            () = wished(stop, Stop::Now) => {}
        }
        self.runner.stop(Stop::Now);
        self.runner.ended().await;
        if let Some(leaving) = leaving {
            // Bounded by the calls' own limits.
            let _ = leaving.await;
        }
        match cause {
            Cause::Ended(End::Finished) => (ScheduleStatus::FINISHED, "Task finished.".to_owned()),
            Cause::Ended(End::Failed(reason)) | Cause::Failed(reason) => (ScheduleStatus::FAILED, reason),
            Cause::Ended(End::Stopped) | Cause::Stop => (ScheduleStatus::KILLED, "Task killed.".to_owned()),
        }
    }

    async fn end_orderly(&mut self, assignment: &Assignment, settings: &Settings) {
        if let Some(lifecycle) = self.job.lifecycle()
            && let Some(port) = self.job.resolved_ports(&assignment.ports).get(&lifecycle.port)
        {
            let (host, on_host) = (&assignment.host, &settings.on_host);
            lifecycle::announce_end(lifecycle, *port, host, on_host, &mut self.runner).await;
        }
        self.runner.stop(Stop::Orderly);
        self.runner.ended().await;
    }
}

/// Never, when nothing is checked or the checks have ended.
async fn next(verdicts: &mut Option<mpsc::Receiver<Verdict>>) -> Option<Verdict> {
    match verdicts {
        Some(receiver) => receiver.recv().await,
        None => std::future::pending().await,
    }
}
