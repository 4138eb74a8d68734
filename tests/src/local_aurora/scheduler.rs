//! The scheduler at work: holds the [`Books`], carries out what follows from them, runs the executors, asks coordinators.
//!
//! [`super::api`] calls [`Scheduler::change`] and [`Scheduler::read`]; executors report back here. Lock order: books
//! before executors; neither is held across an await.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aurora::types::ScheduleStatus;
use serde::Serialize;
use tokio::sync::{Notify, watch};

use super::books::Books;
use super::config::port_names;
use super::coordinator::Coordinators;
use super::executor::{self, Assignment, Report, Settings};
use super::hosts::Host;
use super::runner::{Pids, Stop};
use super::sla::Question;
use super::state::{Effect, Task};

struct Executor {
    stop: watch::Sender<Stop>,
    pids: Option<Pids>,
}

/// The scheduler. Cheap to clone.
#[derive(Clone)]
pub struct Scheduler {
    inner: Arc<Inner>,
}

struct Inner {
    hosts: Vec<Host>,
    work_dir: PathBuf,
    executor: Settings,
    books: Mutex<Books>,
    coordinators: Coordinators,
    executors: Mutex<BTreeMap<String, Executor>>,
    /// Ports of tasks that have not ended, on any host: without wrappers all hosts share one loopback.
    ports: tokio::sync::Mutex<BTreeSet<u16>>,
    changed: Notify,
    running: watch::Sender<usize>,
    /// Set at the end: nothing is started any more. Read and written under the lock of the books.
    stopping: AtomicBool,
}

/// One entry of `GET /local/tasks`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TaskView {
    /// `role/environment/name`.
    pub job: String,
    /// Instance.
    pub instance: i32,
    /// Id of the task.
    pub task_id: String,
    /// Name of the host; null while the task waits for one.
    pub host: Option<String>,
    /// Address of the host.
    pub address: Option<String>,
    /// Status in Aurora's words.
    pub state: String,
    /// Ports by name.
    pub ports: BTreeMap<String, u16>,
    /// Main process, the one started last that is not final; null while none runs.
    pub pid: Option<u32>,
    /// Directory that the task's processes run in.
    pub sandbox: Option<PathBuf>,
}

/// One entry of `GET /pendingtasks`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PendingView {
    /// `role/environment/name`.
    pub name: String,
    /// The task.
    pub task_ids: Vec<String>,
    /// What no host satisfies, comma-joined; empty for a task that is just being placed.
    pub reason: String,
}

impl Scheduler {
    /// A scheduler that starts with these books; [`Scheduler::drive`] makes it work.
    pub fn new(hosts: Vec<Host>, work_dir: PathBuf, executor: Settings, books: Books, coordinators: Coordinators) -> Self {
        let inner = Inner {
            hosts,
            work_dir,
            executor,
            books: Mutex::new(books),
            coordinators,
            executors: Mutex::default(),
            ports: tokio::sync::Mutex::default(),
            changed: Notify::new(),
            running: watch::Sender::new(0),
            stopping: AtomicBool::new(false),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Looks at the books.
    pub fn read<T>(&self, look: impl FnOnce(&Books) -> T) -> T {
        look(&self.books())
    }

    /// Changes the books and carries out what follows, for the updates too.
    pub fn change<T>(&self, change: impl FnOnce(&mut Books, i64) -> (T, Vec<Effect>)) -> T {
        let (result, effects) = {
            let mut books = self.books();
            let now_ms = now_ms();
            let (result, mut effects) = change(&mut books, now_ms);
            effects.extend(books.settle(now_ms));
            (result, effects)
        };
        for effect in effects {
            self.carry_out(effect);
        }
        self.inner.changed.notify_one();
        result
    }

    /// Addresses of the hosts.
    pub fn addresses(&self) -> BTreeSet<String> {
        self.inner.hosts.iter().map(|host| host.address.to_string()).collect()
    }

    /// Does what is due, for ever: places tasks, lets updates go on, drains hosts.
    pub async fn drive(self) {
        loop {
            let hosts = &self.inner.hosts;
            let (effects, due_ms) = {
                let mut books = self.books();
                let now_ms = now_ms();
                (books.advance(hosts, now_ms), books.next_due_ms(now_ms))
            };
            for effect in effects {
                self.carry_out(effect);
            }
            let changed = self.inner.changed.notified();
            match due_ms {
                None => changed.await,
                Some(due_ms) => {
                    let wait = u64::try_from(due_ms - now_ms()).unwrap_or(0);
                    let _ = tokio::time::timeout(Duration::from_millis(wait), changed).await;
                }
            }
        }
    }

    /// Kills every task at once and waits until nothing of them is left, at most `limit`. True: nothing is left.
    pub async fn stop(&self, limit: Duration) -> bool {
        let books = self.books();
        self.inner.stopping.store(true, Ordering::Relaxed);
        for executor in self.executors().values() {
            executor.stop.send_replace(Stop::Now);
        }
        drop(books);
        let mut running = self.inner.running.subscribe();
        tokio::time::timeout(limit, running.wait_for(|count| *count == 0)).await.is_ok()
    }

    /// Active tasks, as test tools see them.
    pub fn tasks(&self) -> Vec<TaskView> {
        let books = self.books();
        let executors = self.executors();
        let active = books.state.tasks().into_iter().filter(|task| task.status.is_active());
        let pid = |task: &Task| executors.get(&task.id).and_then(|executor| executor.pids.as_ref()?.main());
        active.map(|task| self.view(task, pid(task))).collect()
    }

    /// Tasks that wait for a host.
    pub fn pending(&self) -> Vec<PendingView> {
        let books = self.books();
        let view =
            |(task, reason): (&Task, String)| PendingView { name: task.job.to_string(), task_ids: vec![task.id.clone()], reason };
        books.state.pending(&self.inner.hosts).into_iter().map(view).collect()
    }

    fn view(&self, task: &Task, pid: Option<u32>) -> TaskView {
        let place = task.assigned_place();
        TaskView {
            job: task.job.to_string(),
            instance: task.instance,
            task_id: task.id.clone(),
            host: place.map(|place| place.host.clone()),
            address: place.map(|place| place.address.clone()),
            state: task.status.to_string(),
            ports: place.map(|place| place.ports.clone()).unwrap_or_default(),
            pid,
            sandbox: place.map(|_| self.sandbox(&task.id)),
        }
    }

    fn sandbox(&self, task: &str) -> PathBuf {
        self.inner.work_dir.join(task).join("sandbox")
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.inner.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn executors(&self) -> MutexGuard<'_, BTreeMap<String, Executor>> {
        self.inner.executors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn carry_out(&self, effect: Effect) {
        match effect {
            Effect::Place { task, host } => {
                let scheduler = self.clone();
                tokio::spawn(async move { scheduler.place(task, host).await });
            }
            Effect::Kill(task) => {
                if let Some(executor) = self.executors().get(&task) {
                    executor.stop.send_if_modified(|wish| {
                        let weaker = *wish < Stop::Orderly;
                        *wish = (*wish).max(Stop::Orderly);
                        weaker
                    });
                }
            }
            Effect::Ask(question) => {
                let scheduler = self.clone();
                tokio::spawn(async move { scheduler.ask(question).await });
            }
            Effect::Forget(task) => {
                let directory = self.inner.work_dir.join(task);
                tokio::task::spawn_blocking(move || std::fs::remove_dir_all(directory));
            }
        }
    }

    /// Asks a coordinator, and acts on a yes before anybody else can ask it.
    async fn ask(&self, question: Question) {
        let (task, url) = (&question.task.assigned_task.task_id, &question.policy.coordinator_url);
        match self.inner.coordinators.ask(&question).await {
            Ok(turn) => {
                tracing::info!(task, url, "the coordinator says yes");
                self.change(|books, now_ms| ((), books.allowed(&question, now_ms)));
                drop(turn);
            }
            Err(refused) => tracing::info!(task, url, error = chain(&refused), "not allowed by the coordinator"),
        }
    }

    /// Chooses ports for a task on its host and starts its executor.
    async fn place(&self, task: String, host: String) {
        let Some(host) = self.inner.hosts.iter().find(|h| h.name == host).cloned() else {
            return;
        };
        let names = self.read(|books| books.state.task(&task).map(|task| port_names(&task.config.resources)));
        let Some(names) = names else {
            return;
        };
        let ports = match self.choose_ports(&host, &names).await {
            Ok(ports) => ports,
            Err(error) => {
                tracing::warn!(task, host = host.name, error = chain(&error), "the host cannot take the task");
                self.change(|books, now_ms| (books.state.not_placed(&task, now_ms), Vec::new()));
                return;
            }
        };
        match self.assign(&task, host, ports.clone()) {
            Some((assignment, stop)) => self.execute(assignment, stop).await,
            None => tracing::info!(task, "the task was killed before it had a host"),
        }
        let mut taken = self.inner.ports.lock().await;
        for port in ports.values() {
            taken.remove(port);
        }
    }

    async fn choose_ports(&self, host: &Host, names: &[String]) -> Result<BTreeMap<String, u16>, super::on_host::Error> {
        // Held while ports are tested, so that two tasks never choose the same.
        let mut taken = self.inner.ports.lock().await;
        let ports = self.inner.executor.on_host.free_ports(host, names.len(), &taken).await?;
        taken.extend(&ports);
        Ok(names.iter().cloned().zip(ports).collect())
    }

    fn assign(&self, task: &str, host: Host, ports: BTreeMap<String, u16>) -> Option<(Assignment, watch::Receiver<Stop>)> {
        let mut books = self.books();
        if self.inner.stopping.load(Ordering::Relaxed) || !books.state.assigned(task, ports.clone(), now_ms()) {
            return None;
        }
        let task = books.state.task(task)?;
        let (stop, wish) = watch::channel(Stop::No);
        // Before the books are unlocked: from then on the task can be killed.
        self.executors().insert(task.id.clone(), Executor { stop, pids: None });
        self.inner.running.send_modify(|count| *count += 1);
        let assignment = Assignment {
            task_id: task.id.clone(),
            job: task.job.clone(),
            instance: task.instance,
            program: Arc::clone(&task.program),
            host,
            ports,
            sandbox: self.sandbox(&task.id),
        };
        Some((assignment, wish))
    }

    async fn execute(&self, assignment: Assignment, stop: watch::Receiver<Stop>) {
        let task = assignment.task_id.clone();
        let report = |report| self.report(&task, report);
        executor::run(assignment, self.inner.executor.clone(), stop, report).await;
        self.executors().remove(&task);
        self.inner.running.send_modify(|count| *count -= 1);
    }

    fn report(&self, task: &str, report: Report) {
        let (status, message): (ScheduleStatus, &str) = match &report {
            Report::Pids(pids) => {
                if let Some(executor) = self.executors().get_mut(task) {
                    executor.pids = Some(pids.clone());
                }
                return;
            }
            Report::Status(status, message) => (*status, message),
            Report::Ended(status, message) => (*status, message),
        };
        tracing::info!(task, %status, message, "task reports");
        self.change(|books, now_ms| ((), books.state.report(task, status, message, now_ms)));
    }
}

/// An error with everything behind it, for the log.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}

/// Milliseconds since 1970.
fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
