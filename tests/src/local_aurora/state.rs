//! The scheduler's books: every task with its status, and what follows from each event. Pure: time and ids are arguments.
//!
//! [`super::books`] holds one, feeds it calls and executors' reports, tells the updates of each [`Change`] and hands on the
//! [`Effect`]s. Invariant: an instance has at most one active task. A new task is made when the old one has ended, never before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use aurora::types::{JobConfiguration, JobKey, ScheduleStatus, TaskConfig, TaskEvent};

use super::hosts::Host;
use super::maintenance::Maintenance;
use super::placement::{self, Occupant};
use super::sla::Question;
use super::thermos::Job;

/// A task that ended sooner than this after its last active event is flapping.
const FLAPPING_THRESHOLD_MS: i64 = 300_000;

/// Ended tasks kept per job.
const HISTORY: usize = 100;

/// After a host could not take a task, it waits this long for the next attempt.
const PLACEMENT_PENALTY_MS: i64 = 1_000;

/// Where a task runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Name of the host.
    pub host: String,
    /// Its address.
    pub address: String,
    /// Ports by name; empty while they are being chosen.
    pub ports: BTreeMap<String, u16>,
}

/// One run of an instance.
#[derive(Clone, Debug)]
pub struct Task {
    /// Unique.
    pub id: String,
    /// Its job.
    pub job: JobKey,
    /// Its instance.
    pub instance: i32,
    /// As stored.
    pub config: Arc<TaskConfig>,
    /// What its executor runs.
    pub program: Arc<Job>,
    /// Where it stands.
    pub status: ScheduleStatus,
    /// Chronological, the last one is the present status.
    pub events: Vec<TaskEvent>,
    /// Failures of this instance so far.
    pub failures: i32,
    /// The task that this one replaces.
    pub ancestor: Option<String>,
    /// Set as soon as a host is chosen, which is before ASSIGNED.
    pub place: Option<Place>,
    /// Not placed, or not taken out of THROTTLED, before this time.
    not_before_ms: i64,
    /// Order of creation.
    number: u64,
}

impl Task {
    /// Where it runs or ran; absent while a host is only being prepared, and for tasks that never had one.
    pub fn assigned_place(&self) -> Option<&Place> {
        let waits = [ScheduleStatus::PENDING, ScheduleStatus::THROTTLED].contains(&self.status);
        self.place.as_ref().filter(|_| !waits)
    }

    /// Whether it can be told to end.
    pub fn is_killable(&self) -> bool {
        self.status.is_active() && self.status != ScheduleStatus::KILLING
    }
}

/// The task of an instance has a new status, or is no longer kept.
#[derive(Clone, Debug)]
pub struct Change {
    /// Its job.
    pub job: JobKey,
    /// Its instance.
    pub instance: i32,
    /// The task as it was then; `None`: it was dropped before it had a host.
    pub task: Option<Task>,
}

/// What the caller has to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Choose ports on the host and call [`State::assigned`] or [`State::not_placed`].
    Place {
        /// Id of the task.
        task: String,
        /// Name of the host.
        host: String,
    },
    /// End the task in good order.
    Kill(String),
    /// Ask a coordinator whether the task may be ended, and call [`super::books::Books::allowed`] if so.
    Ask(Question),
    /// The task is no longer kept: its files may go.
    Forget(String),
}

/// A call that was refused: the text for INVALID_REQUEST.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(pub String);

/// All tasks.
pub struct State {
    tasks: BTreeMap<String, Task>,
    flapping_delay_ms: i64,
    name: String,
    new_id: Box<dyn FnMut() -> String + Send>,
    created: u64,
    changes: Vec<Change>,
    /// Of the hosts.
    pub maintenance: Maintenance,
}

impl State {
    /// Empty books. `name` stands in events, `flapping_delay_ms` is the penalty for flapping, `new_id` gives the unique
    /// part of task ids.
    pub fn new(name: String, flapping_delay_ms: i64, new_id: Box<dyn FnMut() -> String + Send>) -> Self {
        let (tasks, changes, maintenance) = (BTreeMap::new(), Vec::new(), Maintenance::default());
        Self { tasks, flapping_delay_ms, name, new_id, created: 0, changes, maintenance }
    }

    /// Changes the penalty for flapping.
    #[cfg(test)]
    pub fn set_flapping_delay_ms(&mut self, delay_ms: i64) {
        self.flapping_delay_ms = delay_ms;
    }

    /// Every task, also ended ones, in the order of their creation.
    pub fn tasks(&self) -> Vec<&Task> {
        let mut tasks: Vec<&Task> = self.tasks.values().collect();
        tasks.sort_by_key(|task| task.number);
        tasks
    }

    /// One task.
    pub fn task(&self, id: &str) -> Option<&Task> {
        self.tasks.get(id)
    }

    /// What has changed since the last call.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// Whether [`State::take_changes`] would give any.
    pub fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    /// A new unique id.
    pub fn new_id(&mut self) -> String {
        (self.new_id)()
    }

    /// The active task of an instance.
    pub fn active_task(&self, job: &JobKey, instance: i32) -> Option<&Task> {
        self.tasks.values().find(|task| task.instance == instance && task.status.is_active() && task.job == *job)
    }

    /// Active tasks by instance.
    pub fn active(&self, job: &JobKey) -> BTreeMap<i32, &Task> {
        let tasks = self.tasks.values();
        tasks.filter(|t| t.job == *job && t.status.is_active()).map(|t| (t.instance, t)).collect()
    }

    /// Starts all instances of a new job.
    pub fn create(&mut self, job: JobConfiguration, program: Job, now_ms: i64) -> Result<(), Refusal> {
        if !self.active(&job.key).is_empty() {
            return Err(Refusal(format!("Job {} already exists", job.key)));
        }
        let (config, program) = (Arc::new(job.task_config), Arc::new(program));
        for instance in 0..job.instance_count {
            self.add(&job.key, instance, &config, &program, now_ms);
        }
        Ok(())
    }

    /// Starts `count` more instances like the active `instance`, above the highest active one: gaps stay.
    pub fn add_instances(&mut self, job: &JobKey, instance: i32, count: i32, now_ms: i64) -> Result<(), Refusal> {
        let active = self.active(job);
        let Some(template) = active.get(&instance) else {
            return Err(Refusal("No active task found for a given instance ID.".to_owned()));
        };
        if count <= 0 {
            return Err(Refusal("Instance count must be positive.".to_owned()));
        }
        let (config, program) = (Arc::clone(&template.config), Arc::clone(&template.program));
        let total = i64::try_from(active.len()).unwrap_or(i64::MAX).saturating_add(i64::from(count));
        if total > i64::from(super::config::MAX_INSTANCES) {
            return Err(Refusal(format!("Instance count must be between 1 and {} inclusive.", super::config::MAX_INSTANCES)));
        }
        let first = active.last_key_value().map_or(0, |(highest, _)| highest + 1);
        for instance in first..first + count {
            self.add(job, instance, &config, &program, now_ms);
        }
        Ok(())
    }

    /// Ends instances for good; `None` means all of them. False: there was nothing to end.
    pub fn kill(&mut self, job: &JobKey, instances: Option<&[i32]>, message: &str, now_ms: i64) -> (bool, Vec<Effect>) {
        let chosen = |id: &i32| instances.is_none_or(|instances| instances.contains(id));
        let killable = self.active(job).into_iter().filter(|(id, t)| chosen(id) && t.status != ScheduleStatus::KILLING);
        let ids: Vec<String> = killable.map(|(_, task)| task.id.clone()).collect();
        let effects = ids.iter().flat_map(|id| self.kill_task(id, message, now_ms)).collect();
        (!ids.is_empty(), effects)
    }

    /// Ends one task for good, if it can be told to. One that has no host yet is dropped.
    pub fn kill_task(&mut self, id: &str, message: &str, now_ms: i64) -> Option<Effect> {
        let task = self.tasks.get(id).filter(|task| task.is_killable())?;
        if [ScheduleStatus::PENDING, ScheduleStatus::THROTTLED].contains(&task.status) {
            self.changes.push(Change { job: task.job.clone(), instance: task.instance, task: None });
            self.tasks.remove(id);
            return Some(Effect::Forget(id.to_owned()));
        }
        self.set(id, ScheduleStatus::KILLING, Some(message), now_ms);
        Some(Effect::Kill(id.to_owned()))
    }

    /// Ends one task because of its host; a replacement follows elsewhere. Tasks on their way out are left alone.
    pub fn drain(&mut self, id: &str, message: &str, now_ms: i64) -> Option<Effect> {
        let drainable = [ScheduleStatus::ASSIGNED, ScheduleStatus::STARTING, ScheduleStatus::RUNNING];
        self.tasks.get(id).filter(|task| drainable.contains(&task.status))?;
        self.set(id, ScheduleStatus::DRAINING, Some(message), now_ms);
        Some(Effect::Kill(id.to_owned()))
    }

    /// Active tasks on the host with this address.
    pub fn on_host(&self, address: &str) -> Vec<&Task> {
        let here = |task: &&Task| task.status.is_active() && task.assigned_place().is_some_and(|p| p.address == address);
        self.tasks().into_iter().filter(here).collect()
    }

    /// Ends instances, to be started anew. Instances that wait for a host or are on their way out are left alone.
    pub fn restart(&mut self, job: &JobKey, instances: &[i32], message: &str, now_ms: i64) -> Result<Vec<Effect>, Refusal> {
        let active = self.active(job);
        if !instances.iter().all(|id| active.contains_key(id)) {
            return Err(Refusal("Not all requested shards are active.".to_owned()));
        }
        let restartable = [ScheduleStatus::ASSIGNED, ScheduleStatus::STARTING, ScheduleStatus::RUNNING];
        let chosen = instances.iter().map(|id| active[id]).filter(|task| restartable.contains(&task.status));
        let ids: BTreeSet<String> = chosen.map(|task| task.id.clone()).collect();
        for id in &ids {
            self.set(id, ScheduleStatus::RESTARTING, Some(message), now_ms);
        }
        Ok(ids.into_iter().map(Effect::Kill).collect())
    }

    /// Takes tasks out of THROTTLED and chooses hosts for those that wait.
    pub fn advance(&mut self, hosts: &[Host], now_ms: i64) -> Vec<Effect> {
        let due = |task: &&Task| task.not_before_ms <= now_ms;
        let throttled = self.tasks.values().filter(|t| t.status == ScheduleStatus::THROTTLED).filter(due);
        for id in throttled.map(|task| task.id.clone()).collect::<Vec<_>>() {
            self.set(&id, ScheduleStatus::PENDING, None, now_ms);
        }
        let waiting = self.tasks().into_iter().filter(|t| t.status == ScheduleStatus::PENDING && t.place.is_none());
        let waiting: Vec<String> = waiting.filter(due).map(|task| task.id.clone()).collect();
        let mut effects = Vec::new();
        for id in waiting {
            if let Ok(host) = self.host_for(&id, hosts) {
                effects.push(Effect::Place { task: id.clone(), host: host.name.clone() });
                let place = Place { host: host.name.clone(), address: host.address.to_string(), ports: BTreeMap::new() };
                if let Some(task) = self.tasks.get_mut(&id) {
                    task.place = Some(place);
                }
            }
        }
        effects
    }

    /// When [`State::advance`] has something to do by time alone.
    pub fn next_due_ms(&self, now_ms: i64) -> Option<i64> {
        let waits = |task: &&Task| match task.status {
            ScheduleStatus::THROTTLED => true,
            ScheduleStatus::PENDING => task.place.is_none() && task.not_before_ms > now_ms,
            _ => false,
        };
        self.tasks.values().filter(waits).map(|task| task.not_before_ms).min()
    }

    /// Why each task that waits for a host does so; empty for one that is just being placed.
    pub fn pending(&self, hosts: &[Host]) -> Vec<(&Task, String)> {
        let waiting = self.tasks().into_iter().filter(|task| task.status == ScheduleStatus::PENDING);
        waiting.map(|task| (task, self.host_for(&task.id, hosts).err().unwrap_or_default())).collect()
    }

    fn host_for<'h>(&self, id: &str, hosts: &'h [Host]) -> Result<&'h Host, String> {
        let task = &self.tasks[id];
        let active = self.tasks.values().filter(|t| t.status.is_active());
        let occupants: Vec<Occupant<'_>> =
            active.filter_map(|t| Some(Occupant { host: t.place.as_ref()?.host.as_str(), job: &t.job })).collect();
        let ancestor = task.ancestor.as_ref().and_then(|id| self.tasks.get(id)).and_then(|t| t.place.as_ref());
        let ancestor = ancestor.map(|place| place.host.as_str());
        placement::choose(&task.job, &task.config.constraints, ancestor, hosts, &occupants, &self.maintenance)
    }

    /// The ports are chosen. False: the task is gone, or no longer waits for them.
    pub fn assigned(&mut self, id: &str, ports: BTreeMap<String, u16>, now_ms: i64) -> bool {
        let Some(task) = self.tasks.get_mut(id).filter(|task| task.status == ScheduleStatus::PENDING) else {
            return false;
        };
        let Some(place) = &mut task.place else {
            return false;
        };
        place.ports = ports;
        self.set(id, ScheduleStatus::ASSIGNED, None, now_ms);
        true
    }

    /// The host could not take the task: it waits for another attempt.
    pub fn not_placed(&mut self, id: &str, now_ms: i64) {
        if let Some(task) = self.tasks.get_mut(id)
            && task.status == ScheduleStatus::PENDING
        {
            task.place = None;
            task.not_before_ms = now_ms + PLACEMENT_PENALTY_MS;
        }
    }

    /// An executor's report. What does not fit the present status is ignored: a task on its way out stays there until
    /// it has ended.
    pub fn report(&mut self, id: &str, status: ScheduleStatus, message: &str, now_ms: i64) -> Vec<Effect> {
        let Some(task) = self.tasks.get(id) else {
            return Vec::new();
        };
        let expected = match status {
            ScheduleStatus::STARTING => task.status == ScheduleStatus::ASSIGNED,
            ScheduleStatus::RUNNING => task.status == ScheduleStatus::STARTING,
            terminal => terminal.is_terminal() && task.status.is_active(),
        };
        if !expected {
            return Vec::new();
        }
        let before = task.status;
        self.set(id, status, Some(message), now_ms);
        if !status.is_terminal() {
            return Vec::new();
        }
        if status == ScheduleStatus::FAILED
            && let Some(task) = self.tasks.get_mut(id)
        {
            task.failures += 1;
        }
        if self.is_rescheduled(id, before) {
            self.reschedule(id, now_ms);
        }
        self.prune(id)
    }

    fn is_rescheduled(&self, id: &str, before: ScheduleStatus) -> bool {
        let task = &self.tasks[id];
        match (before, task.status) {
            (ScheduleStatus::KILLING, _) => false,
            (ScheduleStatus::RESTARTING | ScheduleStatus::DRAINING, _) | (_, ScheduleStatus::LOST | ScheduleStatus::KILLED) => {
                true
            }
            (_, ScheduleStatus::FINISHED) => task.config.is_service,
            _ => {
                let most = task.config.max_task_failures;
                task.config.is_service || most == -1 || task.failures < most
            }
        }
    }

    fn reschedule(&mut self, id: &str, now_ms: i64) {
        let old = self.tasks[id].clone();
        let penalty_ms = self.flapping_penalty_ms(&old);
        let new_id = self.add(&old.job, old.instance, &old.config, &old.program, now_ms);
        let scheduler = self.name.clone();
        let Some(task) = self.tasks.get_mut(&new_id) else {
            return;
        };
        task.ancestor = Some(old.id);
        task.failures = old.failures;
        task.not_before_ms = now_ms + penalty_ms;
        let (status, message) = if penalty_ms > 0 {
            let text = format!("Rescheduled, penalized for {penalty_ms} ms for flapping");
            (ScheduleStatus::THROTTLED, text)
        } else {
            (ScheduleStatus::PENDING, "Rescheduled".to_owned())
        };
        task.status = status;
        task.events = vec![TaskEvent { timestamp: now_ms, status, message: Some(message), scheduler: Some(scheduler) }];
        let change = Change { job: task.job.clone(), instance: task.instance, task: Some(task.clone()) };
        self.changes.push(change);
    }

    /// The ancestor of the task that ended is judged, not the task itself: the first quick end has no penalty.
    fn flapping_penalty_ms(&self, ended: &Task) -> i64 {
        let ancestor = ended.ancestor.as_ref().and_then(|id| self.tasks.get(id));
        if ancestor.is_some_and(is_flapping) { self.flapping_delay_ms } else { 0 }
    }

    /// Starts a task of an instance that has none.
    pub fn add(&mut self, job: &JobKey, instance: i32, config: &Arc<TaskConfig>, program: &Arc<Job>, now_ms: i64) -> String {
        let unique = (self.new_id)();
        let text = format!("{}-{}-{}-{instance}-{unique}", job.role, job.environment, job.name);
        let id: String = text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '-' }).collect();
        self.created += 1;
        let task = Task {
            id: id.clone(),
            job: job.clone(),
            instance,
            config: Arc::clone(config),
            program: Arc::clone(program),
            status: ScheduleStatus::PENDING,
            events: Vec::new(),
            failures: 0,
            ancestor: None,
            place: None,
            not_before_ms: now_ms,
            number: self.created,
        };
        self.tasks.insert(id.clone(), task);
        self.set(&id, ScheduleStatus::PENDING, None, now_ms);
        id
    }

    fn set(&mut self, id: &str, status: ScheduleStatus, message: Option<&str>, now_ms: i64) {
        let scheduler = Some(self.name.clone());
        if let Some(task) = self.tasks.get_mut(id) {
            task.status = status;
            let message = message.map(str::to_owned);
            task.events.push(TaskEvent { timestamp: now_ms, status, message, scheduler });
            self.changes.push(Change { job: task.job.clone(), instance: task.instance, task: Some(task.clone()) });
        }
    }

    /// Keeps the newest [`HISTORY`] ended tasks of the job of `id`.
    fn prune(&mut self, id: &str) -> Vec<Effect> {
        let Some(job) = self.tasks.get(id).map(|task| task.job.clone()) else {
            return Vec::new();
        };
        let ended: Vec<String> =
            self.tasks().into_iter().filter(|t| t.job == job && t.status.is_terminal()).map(|task| task.id.clone()).collect();
        let surplus = ended.len().saturating_sub(HISTORY);
        let old = ended.into_iter().take(surplus);
        old.inspect(|id| drop(self.tasks.remove(id))).map(Effect::Forget).collect()
    }
}

/// Whether the task ended by itself soon after its last active event.
fn is_flapping(task: &Task) -> bool {
    let interrupted = [ScheduleStatus::RESTARTING, ScheduleStatus::KILLING, ScheduleStatus::DRAINING];
    if !task.status.is_terminal() || task.events.iter().any(|event| interrupted.contains(&event.status)) {
        return false;
    }
    let end_ms = task.events.last().map_or(0, |event| event.timestamp);
    let active = task.events.iter().rev().find(|event| event.status.is_active());
    active.is_some_and(|event| end_ms - event.timestamp < FLAPPING_THRESHOLD_MS)
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
