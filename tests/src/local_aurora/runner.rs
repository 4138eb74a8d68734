//! Runs the processes of one task in its sandbox, as the Thermos runner does: [`super::runs`] decides, this does it.
//!
//! [`super::executor`] starts one per task and stops it. Ends in good order: SIGTERM to each process, a wait, then the
//! final processes, then SIGKILL to everything the task ever started. Invariant: when [`Handle::ended`] answers, no
//! process of the task is left.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};

use super::guard::Guard;
use super::hosts::Host;
use super::on_host::wrapped;
use super::process::{Family, Spawner, session_is_empty, signal};
use super::runs::{Ended, Runs};
use super::thermos::{Process, Task};

/// How a task should end, in rising order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// It should go on.
    #[default]
    No,
    /// With SIGTERM, time to end, and final processes.
    Orderly,
    /// With SIGKILL.
    Now,
}

/// How a task ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// All processes that count have succeeded.
    Finished,
    /// Processes failed, or one could not be started.
    Failed(String),
    /// It was stopped.
    Stopped,
}

/// What the processes of a task run in.
#[derive(Clone, Debug)]
pub struct Place {
    /// Where.
    pub host: Host,
    /// Working directory and `HOME`. It exists.
    pub sandbox: PathBuf,
    /// `USER` and `LOGNAME`: the role.
    pub user: String,
    /// Time from SIGTERM to SIGKILL when the task is stopped.
    pub preemption_wait: Duration,
}

impl Place {
    /// `/bin/bash -c text` on the host, in the sandbox, with nothing but Thermos' environment.
    pub fn shell(&self, text: &str) -> Command {
        let mut command = wrapped(&self.host, "/bin/bash");
        command
            .args(["-c", text])
            .current_dir(&self.sandbox)
            .stdin(Stdio::null())
            .env_clear()
            .env("HOME", &self.sandbox)
            .env("LOGNAME", &self.user)
            .env("USER", &self.user)
            .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()));
        let profile = self.sandbox.join(".thermos_profile");
        if profile.exists() {
            command.env("BASH_ENV", profile);
        }
        if let Some(id) = &self.host.host_id {
            command.env("AURORA_REDIS_HOST_ID", id);
        }
        command
    }
}

#[derive(Debug, Default)]
struct Running {
    /// Pid and whether it is a final process, in the order of their starts.
    processes: Vec<(u32, bool)>,
    leaders: BTreeSet<u32>,
}

/// Ends when the wish is at least `level`, or when nobody is left who could wish.
pub async fn wished(wish: &mut watch::Receiver<Stop>, level: Stop) {
    let _ = wish.wait_for(|wish| *wish >= level).await;
}

/// A task that runs. Dropping it stops the task at once.
pub struct Handle {
    stop: watch::Sender<Stop>,
    end: watch::Receiver<Option<End>>,
    running: Arc<Mutex<Running>>,
}

impl Handle {
    /// Pid of the main process: the one started last that is not final. `None` while none runs.
    pub fn pids(&self) -> Pids {
        Pids(Arc::clone(&self.running))
    }

    /// Asks for the end of the task; a weaker wish than before changes nothing.
    pub fn stop(&self, how: Stop) {
        self.stop.send_if_modified(|wish| {
            let stronger = how > *wish;
            *wish = how.max(*wish);
            stronger
        });
    }

    /// How the task ended, once it has.
    pub fn end(&self) -> Option<End> {
        self.end.borrow().clone()
    }

    /// Waits for the end.
    pub async fn ended(&mut self) -> End {
        match self.end.wait_for(Option::is_some).await {
            Ok(end) => end.clone().unwrap_or(End::Stopped),
            Err(_) => End::Failed("the runner ended without a result".to_owned()),
        }
    }
}

/// Looks up the main process of a task.
#[derive(Clone, Debug)]
pub struct Pids(Arc<Mutex<Running>>);

impl Pids {
    /// Pid of the running main process, the non-final one started last. `None`: none runs at the moment.
    pub fn main(&self) -> Option<u32> {
        let running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut newest_first = running.processes.iter().rev();
        newest_first.find(|(_, is_final)| !is_final).map(|(pid, _)| *pid)
    }
}

/// Starts running `task` in the background.
pub fn start(task: Task, place: Place, spawner: Spawner, guard: Guard) -> Handle {
    let (stop, wish) = watch::channel(Stop::No);
    let (result, end) = watch::channel(None);
    let running = Arc::default();
    let (exit, exits) = mpsc::unbounded_channel();
    let runner = Runner { task, place, spawner, guard, wish, exit, exits, running: Arc::clone(&running) };
    tokio::spawn(async move {
        let end = runner.run().await;
        result.send_replace(Some(end));
    });
    Handle { stop, end, running }
}

struct Exit {
    name: String,
    pid: u32,
    status: std::io::Result<ExitStatus>,
}

struct Runner {
    task: Task,
    place: Place,
    spawner: Spawner,
    guard: Guard,
    wish: watch::Receiver<Stop>,
    exit: mpsc::UnboundedSender<Exit>,
    exits: mpsc::UnboundedReceiver<Exit>,
    running: Arc<Mutex<Running>>,
}

impl Runner {
    async fn run(mut self) -> End {
        let mut runs = Runs::new(&self.task, false, Instant::now());
        let end = self.stage(&mut runs, Stop::Orderly, None).await;
        let wait = match end {
            End::Stopped => self.place.preemption_wait,
            _ => self.task.finalization_wait(),
        };
        let deadline = Instant::now() + wait;
        self.terminate(&mut runs, deadline).await;
        if self.place.sandbox.is_dir() {
            let mut last = Runs::new(&self.task, true, Instant::now());
            self.stage(&mut last, Stop::Now, Some(deadline)).await;
        }
        self.kill_all().await;
        end
    }

    /// Starts processes and notes their ends until the stage is over, the wish to stop has reached `level`, or the
    /// deadline is.
    async fn stage(&mut self, runs: &mut Runs, level: Stop, deadline: Option<Instant>) -> End {
        loop {
            if runs.is_over() {
                return if runs.is_healthy() { End::Finished } else { End::Failed("Task failed.".to_owned()) };
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return End::Stopped;
            }
            for process in runs.ready(Instant::now()) {
                let run = runs.started(&process.name);
                if let Err(problem) = self.start(&process, run).await {
                    return End::Failed(problem);
                }
            }
            tokio::select! {
                Some(exit) = self.exits.recv() => self.note(runs, exit),
                () = sleep_until(runs.next_ready()) => {}
                () = sleep_until(deadline) => return End::Stopped,
                () = wished(&mut self.wish, level) => return End::Stopped,
            }
        }
    }

    fn note(&mut self, runs: &mut Runs, exit: Exit) {
        self.running().processes.retain(|(pid, _)| *pid != exit.pid);
        if session_is_empty(exit.pid) {
            self.running().leaders.remove(&exit.pid);
            self.guard.ended(exit.pid, &self.place.sandbox);
        }
        let ended = match exit.status.as_ref().map(ExitStatus::code) {
            Ok(Some(0)) => Ended::Success,
            Ok(Some(_)) => Ended::Failure,
            Ok(None) | Err(_) => Ended::Lost,
        };
        tracing::info!(process = exit.name, pid = exit.pid, status = ?exit.status, "process ended");
        runs.ended(&exit.name, ended, Instant::now());
    }

    /// Starts one run. The error is the reason for which the task has failed.
    async fn start(&mut self, process: &Process, run: u32) -> Result<(), String> {
        let sandbox = &self.place.sandbox;
        if !sandbox.is_dir() {
            return Err(format!(
                "The sandbox {} has vanished, process {} cannot be started again.",
                sandbox.display(),
                process.name
            ));
        }
        let failed =
            |error: std::io::Error| format!("Process {} could not be started on {}: {error}", process.name, self.place.host.name);
        let mut command = self.place.shell(&process.cmdline);
        let logs = sandbox.join(".logs").join(&process.name).join(run.to_string());
        let (stdout, stderr) = open_logs(&logs).map_err(failed)?;
        command.stdout(stdout).stderr(stderr);
        let child = self.spawner.spawn(command).await.map_err(failed)?;
        let pid = child.id().unwrap_or_default();
        self.guard.watch(pid, sandbox);
        tracing::info!(process = process.name, run, pid, host = self.place.host.name, "process started");
        let mut running = self.running();
        running.processes.push((pid, process.is_final));
        running.leaders.insert(pid);
        drop(running);
        tokio::spawn(wait(child, process.name.clone(), pid, self.exit.clone()));
        Ok(())
    }

    /// SIGTERM to each process that runs, then a wait for their ends.
    async fn terminate(&mut self, runs: &mut Runs, deadline: Instant) {
        for (pid, _) in &self.running().processes {
            signal(*pid, Signal::TERM);
        }
        while !self.running().processes.is_empty() {
            tokio::select! {
                Some(exit) = self.exits.recv() => self.note(runs, exit),
                () = sleep_until(Some(deadline)) => return,
                () = wished(&mut self.wish, Stop::Now) => return,
            }
        }
    }

    async fn kill_all(&mut self) {
        let family = Family { leaders: self.running().leaders.clone(), home: self.place.sandbox.clone() };
        let killed = tokio::task::spawn_blocking(move || family.kill()).await;
        self.guard.forget(&self.place.sandbox);
        tracing::debug!(?killed, "task cleaned up");
        self.running().processes.clear();
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn wait(mut child: Child, name: String, pid: u32, exit: mpsc::UnboundedSender<Exit>) {
    let status = child.wait().await;
    // The runner is gone only when the whole program ends.
    let _ = exit.send(Exit { name, pid, status });
}

fn open_logs(directory: &Path) -> std::io::Result<(std::fs::File, std::fs::File)> {
    std::fs::create_dir_all(directory)?;
    let create = |name| std::fs::File::create(directory.join(name));
    Ok((create("stdout")?, create("stderr")?))
}

/// Never, when there is no time to wait for.
async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}
