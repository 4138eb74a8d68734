//! All that the scheduler knows: tasks ([`State`]), updates and the maintenance of hosts, and how one moves the other.
//!
//! Pure: time is an argument, and what is to be done outside comes back as [`Effect`]s. [`super::scheduler`] holds one behind a
//! lock. After each change, [`Books::settle`] tells the updates which tasks have changed, and carries out what they order,
//! until nothing changes any more.

use aurora::types::{
    HostStatus, JobKey, JobUpdateKey, JobUpdatePulseStatus, JobUpdateStatus, JobUpdateSummary, MaintenanceMode,
    PercentageSlaPolicy, SlaPolicy,
};
use std::collections::BTreeMap;
use std::sync::Arc;

use super::config;
use super::hosts::Host;
use super::maintenance::Request;
use super::sla::{self, Purpose, Question, Verdict};
use super::state::{Change, Effect, Refusal, State, Task};
use super::task_view::scheduled;
use super::updates::Updates;
use super::updates::diff::{Diff, Program};
use super::updates::request::Accepted;
use super::updates::update::{By, Order, Update};

/// How patient the scheduler is.
#[derive(Clone, Copy, Debug)]
pub struct Delays {
    /// First wait before a policy that said no is asked again; it doubles.
    pub sla_retry_ms: i64,
    /// Longest such wait.
    pub sla_retry_max_ms: i64,
    /// Between two looks at the tasks of hosts that are drained.
    pub maintenance_poll_ms: i64,
}

/// A kill that an update wants and a policy has to allow.
struct PendingKill {
    key: JobUpdateKey,
    /// Status of the update when it wanted it; in any other it is dropped.
    status: JobUpdateStatus,
    task: String,
    policy: SlaPolicy,
    due_ms: i64,
    /// Last wait, 0 before the first.
    wait_ms: i64,
}

/// What a start came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Start {
    /// An update.
    Update(JobUpdateSummary),
    /// Nothing to do.
    Unchanged,
    /// Another update is active.
    Conflict(JobUpdateSummary),
    /// The text for INVALID_REQUEST.
    Refused(String),
}

/// All that the scheduler knows.
pub struct Books {
    /// The tasks, and which hosts are in maintenance.
    pub state: State,
    /// The updates.
    pub updates: Updates,
    kills: Vec<PendingKill>,
    delays: Delays,
}

impl Books {
    /// Books with these tasks and without updates.
    pub fn new(state: State, delays: Delays) -> Books {
        Books { state, updates: Updates::default(), kills: Vec::new(), delays }
    }

    /// What an update of the job would change.
    pub fn diff(&self, accepted: &Accepted) -> Result<Diff, String> {
        config::check_count(accepted.count)?;
        let program = |task: &Task| Program { config: Arc::clone(&task.config), job: Arc::clone(&task.program) };
        let active = self.state.active(&accepted.config.job);
        let current: BTreeMap<i32, Program> = active.into_iter().map(|(id, task)| (id, program(task))).collect();
        let scope = &accepted.settings.update_only_these_instances;
        let diff = Diff::new(&current, &accepted.config, accepted.count, scope);
        match diff.strangers(scope) {
            Some(strangers) if strangers.is_empty() => Ok(diff),
            strangers => {
                let list = strangers.map_or("(too many)".to_owned(), |strangers| format!("{strangers:?}"));
                let text = "The update request attempted to update specific instances, but some are irrelevant to the update";
                Err(format!("{text} and current job state: {list}"))
            }
        }
    }

    /// Starts an update.
    pub fn start(&mut self, accepted: Accepted, by: By, now_ms: i64) -> (Start, Vec<Effect>) {
        let diff = match self.diff(&accepted) {
            Err(text) => return (Start::Refused(text), Vec::new()),
            Ok(diff) if diff.is_empty() => return (Start::Unchanged, Vec::new()),
            Ok(diff) => diff,
        };
        let Accepted { config, job, settings, metadata, .. } = accepted;
        if let Some(other) = self.updates.active(&config.job) {
            return (Start::Conflict(other.summary()), Vec::new());
        }
        let key = JobUpdateKey { job: config.job.clone(), id: self.state.new_id() };
        let program = Program { config: Arc::new(config), job: Arc::new(job) };
        let user = by.user.clone().unwrap_or_default();
        let mut update = Update::new(key.clone(), &user, metadata, settings, diff, program);
        let orders = update.start(by, &self.state, now_ms);
        let summary = update.stateless_summary();
        self.updates.insert(update);
        let effects = self.carry_out(&key, orders, now_ms);
        (Start::Update(summary), effects)
    }

    /// Does something to an update.
    pub fn command(
        &mut self,
        key: &JobUpdateKey,
        now_ms: i64,
        command: impl FnOnce(&mut Update, &State) -> Result<Vec<Order>, Refusal>,
    ) -> Result<Vec<Effect>, Refusal> {
        let unknown = || Refusal(format!("Update does not exist {} of {}", key.id, key.job));
        let update = self.updates.find_mut(key).ok_or_else(unknown)?;
        let orders = command(update, &self.state)?;
        Ok(self.carry_out(key, orders, now_ms))
    }

    /// A sign of life for an update; an unknown one has ended, as far as the scheduler can tell.
    pub fn pulse(&mut self, key: &JobUpdateKey, now_ms: i64) -> JobUpdatePulseStatus {
        self.updates.find_mut(key).map_or(JobUpdatePulseStatus::FINISHED, |update| update.pulse(now_ms))
    }

    /// Whether an update locks the job.
    pub fn is_updating(&self, job: &JobKey) -> bool {
        self.updates.active(job).is_some()
    }

    /// A coordinator has allowed what it was asked. It may have come too late: then nothing happens.
    pub fn allowed(&mut self, question: &Question, now_ms: i64) -> Vec<Effect> {
        let task = &question.task.assigned_task.task_id;
        match &question.purpose {
            Purpose::Update { key, status } => self.kill_for(key, *status, task, now_ms).into_iter().collect(),
            Purpose::Drain { .. } => self.state.drain(task, DRAINING, now_ms).into_iter().collect(),
        }
    }

    /// Lets the tasks of hosts leave: at once with the policies of old (`limit_ms` is `None`), or with `default` and time.
    pub fn drain(
        &mut self,
        hosts: &[String],
        default: Option<SlaPolicy>,
        limit_ms: Option<i64>,
        now_ms: i64,
    ) -> (Vec<HostStatus>, Vec<Effect>) {
        let none = SlaPolicy::Percentage(PercentageSlaPolicy { percentage: 0.0, duration_secs: 0 });
        let default = if limit_ms.is_none() { Some(none) } else { default };
        let request = Request { default, until_ms: now_ms.saturating_add(limit_ms.unwrap_or(0)) };
        let mut effects = Vec::new();
        for host in hosts {
            self.state.maintenance.drain(host, request.clone(), now_ms, self.delays.maintenance_poll_ms);
            if limit_ms.is_none() {
                effects.extend(self.look_at(host, now_ms));
            }
        }
        (self.modes(hosts), effects)
    }

    /// Sets the mode of hosts without moving anything.
    pub fn set_mode(&mut self, hosts: &[String], mode: MaintenanceMode) -> Vec<HostStatus> {
        for host in hosts {
            match mode {
                MaintenanceMode::NONE => self.state.maintenance.end(host),
                other => self.state.maintenance.set(host, other),
            }
        }
        self.modes(hosts)
    }

    /// Where hosts stand.
    pub fn modes(&self, hosts: &[String]) -> Vec<HostStatus> {
        let status = |host: &String| HostStatus { host: host.clone(), mode: self.state.maintenance.mode(host) };
        hosts.iter().map(status).collect()
    }

    /// Does what is due: places tasks, lets updates go on, asks policies again, drains hosts.
    pub fn advance(&mut self, hosts: &[Host], now_ms: i64) -> Vec<Effect> {
        let mut effects = Vec::new();
        let keys: Vec<JobUpdateKey> = self.updates.all_active().map(|update| update.key().clone()).collect();
        for key in keys {
            let orders = self.updates.find_mut(&key).map(|update| update.advance(&self.state, now_ms));
            effects.extend(self.carry_out(&key, orders.unwrap_or_default(), now_ms));
        }
        effects.extend(self.ask_again(now_ms));
        for host in self.state.maintenance.due(now_ms, self.delays.maintenance_poll_ms) {
            effects.extend(self.look_at(&host, now_ms));
        }
        // Last, for all of this makes tasks that want a place; what becomes of them may make more.
        loop {
            effects.extend(self.settle(now_ms));
            effects.extend(self.state.advance(hosts, now_ms));
            if !self.state.has_changes() {
                return effects;
            }
        }
    }

    /// When [`Books::advance`] has something to do by time alone.
    pub fn next_due_ms(&self, now_ms: i64) -> Option<i64> {
        let tasks = self.state.next_due_ms(now_ms).into_iter();
        let updates = self.updates.all_active().filter_map(Update::next_due_ms);
        let kills = self.kills.iter().map(|kill| kill.due_ms);
        tasks.chain(updates).chain(kills).chain(self.state.maintenance.next_due_ms()).min()
    }

    /// Tells the updates what has changed, until nothing changes any more.
    pub fn settle(&mut self, now_ms: i64) -> Vec<Effect> {
        let mut effects = Vec::new();
        loop {
            let changes = self.state.take_changes();
            if changes.is_empty() {
                return effects;
            }
            for change in changes {
                effects.extend(self.tell(&change, now_ms));
            }
        }
    }

    fn tell(&mut self, change: &Change, now_ms: i64) -> Vec<Effect> {
        let task = change.task.as_ref();
        if let Some(place) = task.filter(|task| task.status.is_terminal()).and_then(|task| task.place.as_ref())
            && self.state.on_host(&place.address).is_empty()
        {
            self.state.maintenance.emptied(&place.address);
        }
        // What is no longer so is not told: another change follows.
        let stale = |task: &Task| self.state.task(&task.id).is_none_or(|now| now.status != task.status);
        if task.is_some_and(stale) {
            return Vec::new();
        }
        let Some(key) = self.updates.active(&change.job).map(|update| update.key().clone()) else {
            return Vec::new();
        };
        let orders = self.updates.find_mut(&key).map(|update| update.changed(change.instance, task, &self.state, now_ms));
        self.carry_out(&key, orders.unwrap_or_default(), now_ms)
    }

    fn carry_out(&mut self, key: &JobUpdateKey, orders: Vec<Order>, now_ms: i64) -> Vec<Effect> {
        let mut effects = Vec::new();
        for order in orders {
            match order {
                Order::Add(instance, Program { config, job }) => {
                    if self.state.active_task(&key.job, instance).is_none() {
                        self.state.add(&key.job, instance, &config, &job, now_ms);
                    }
                }
                Order::Kill(task) => effects.extend(self.state.kill_task(&task, &killed_for(key), now_ms)),
                Order::KillIf(instance, task, policy) => {
                    let Some(update) = self.updates.find_mut(key) else {
                        continue;
                    };
                    update.note(instance, "Checking SLA before continuing.", true, now_ms);
                    let (key, status) = (key.clone(), update.status());
                    self.kills.push(PendingKill { key, status, task, policy, due_ms: now_ms, wait_ms: 0 });
                    effects.extend(self.ask_again(now_ms));
                }
            }
        }
        effects
    }

    /// Asks the policies of pending kills that are due. As in the real scheduler a kill stays pending until it is found to be
    /// done or in vain.
    fn ask_again(&mut self, now_ms: i64) -> Vec<Effect> {
        let (due, later) = std::mem::take(&mut self.kills).into_iter().partition(|kill| kill.due_ms <= now_ms);
        self.kills = later;
        let due: Vec<PendingKill> = due;
        let mut effects = Vec::new();
        for mut kill in due {
            let wanted = self.updates.find(&kill.key).is_some_and(|update| update.status() == kill.status);
            let Some(task) = self.state.task(&kill.task).filter(|task| wanted && task.is_killable()) else {
                continue;
            };
            let verdict = match task.assigned_place() {
                // Nobody misses a task that has no host yet.
                None => Verdict::Yes,
                Some(_) => sla::judge(task, Some(&kill.policy), &self.state, now_ms),
            };
            match verdict {
                Verdict::Yes => effects.extend(self.kill_for(&kill.key, kill.status, &kill.task, now_ms)),
                Verdict::Ask(policy) => {
                    let purpose = Purpose::Update { key: kill.key.clone(), status: kill.status };
                    effects.push(Effect::Ask(Question { task: Box::new(scheduled(task)), policy, purpose }));
                }
                Verdict::No => {}
            }
            kill.wait_ms = (kill.wait_ms * 2).clamp(self.delays.sla_retry_ms, self.delays.sla_retry_max_ms);
            kill.due_ms = now_ms + kill.wait_ms;
            self.kills.push(kill);
        }
        effects
    }

    fn kill_for(&mut self, key: &JobUpdateKey, status: JobUpdateStatus, task: &str, now_ms: i64) -> Option<Effect> {
        let instance = self.state.task(task)?.instance;
        let update = self.updates.find_mut(key).filter(|update| update.status() == status)?;
        update.note(instance, "SLA check passed, continuing.", false, now_ms);
        self.state.kill_task(task, &killed_for(key), now_ms)
    }

    /// Lets those tasks of a host leave that may.
    fn look_at(&mut self, host: &str, now_ms: i64) -> Vec<Effect> {
        let Some(request) = self.state.maintenance.request(host).cloned() else {
            return Vec::new();
        };
        let countdown_ms = request.until_ms - now_ms;
        let mut leaving = Vec::new();
        let mut effects = Vec::new();
        let tasks = self.state.on_host(host);
        for task in &tasks {
            let policy = task.config.sla_policy.as_ref().or(request.default.as_ref());
            let verdict = match countdown_ms {
                ..0 => Verdict::Yes,
                _ => sla::judge(task, policy, &self.state, now_ms),
            };
            match verdict {
                Verdict::Yes => leaving.push(task.id.clone()),
                Verdict::Ask(policy) => {
                    let purpose = Purpose::Drain { countdown_ms };
                    effects.push(Effect::Ask(Question { task: Box::new(scheduled(task)), policy, purpose }));
                }
                Verdict::No => {}
            }
        }
        if tasks.is_empty() {
            self.state.maintenance.emptied(host);
        }
        effects.extend(leaving.iter().filter_map(|task| self.state.drain(task, DRAINING, now_ms)));
        effects
    }
}

const DRAINING: &str = "Draining machine for maintenance.";

fn killed_for(key: &JobUpdateKey) -> String {
    format!("Killed for job update {}", key.id)
}

#[cfg(test)]
#[path = "books_tests/mod.rs"]
mod tests;
