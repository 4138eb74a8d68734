//! One job update: what it does on commands, pulses, changes of tasks and with time.
//!
//! Pure: it looks at the tasks, writes its own history and returns [`Order`]s, which [`super::super::books`] carries out. An
//! update that is not rolling (paused, waiting for a pulse, ended) has no [`Roll`] and gives no orders. As in the real
//! scheduler, missing pulses are noticed only when there is something to evaluate.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use aurora::types::{
    InstanceTaskConfig, JobInstanceUpdateEvent, JobUpdate, JobUpdateAction, JobUpdateDetails, JobUpdateEvent,
    JobUpdateInstructions, JobUpdateKey, JobUpdatePulseStatus, JobUpdateSettings, JobUpdateState, JobUpdateStatus,
    JobUpdateStrategy, JobUpdateSummary, Metadata, SlaPolicy,
};

use super::super::state::{Refusal, State, Task};
use super::diff::{Diff, Program, initial_state, ranges};
use super::machine;
use super::roll::{Action, Outcome, Roll, Stage, Step};
use super::strategy;

/// What to do with an instance.
#[derive(Clone, Debug)]
pub enum Order {
    /// Start a task, unless there is one.
    Add(i32, Program),
    /// End this task.
    Kill(String),
    /// End this task of the instance when the policy allows it.
    KillIf(i32, String, SlaPolicy),
}

/// Who asks for something, and why.
#[derive(Clone, Debug, Default)]
pub struct By {
    /// The user; absent when the scheduler does it by itself.
    pub user: Option<String>,
    /// Why.
    pub message: Option<String>,
}

impl By {
    /// The scheduler itself.
    fn itself(message: Option<&str>) -> By {
        By { user: None, message: message.map(str::to_owned) }
    }
}

/// A job update with its history.
pub struct Update {
    key: JobUpdateKey,
    user: String,
    metadata: Vec<Metadata>,
    settings: JobUpdateSettings,
    /// What instances ran before, of those to change or end.
    initial: BTreeMap<i32, Program>,
    /// What the instances to change or start are to run; absent when there are none.
    desired: Option<(Program, BTreeSet<i32>)>,
    events: Vec<JobUpdateEvent>,
    instance_events: Vec<JobInstanceUpdateEvent>,
    /// 0: never.
    last_pulse_ms: i64,
    /// A pulse came while it waited for one.
    unblock: bool,
    roll: Option<Roll>,
    /// Instances taken up so far, when it pauses after each group.
    seen: Option<BTreeSet<i32>>,
    /// When to look at which instance again.
    watches: BTreeSet<(i64, i32)>,
}

impl Update {
    /// An update that has not begun.
    pub fn new(
        key: JobUpdateKey,
        user: &str,
        metadata: Vec<Metadata>,
        settings: JobUpdateSettings,
        diff: Diff,
        to: Program,
    ) -> Update {
        let Diff { replaced, replacements, .. } = diff;
        Update {
            key,
            user: user.to_owned(),
            metadata,
            settings,
            initial: replaced,
            desired: Some((to, replacements)).filter(|(_, instances)| !instances.is_empty()),
            events: Vec::new(),
            instance_events: Vec::new(),
            last_pulse_ms: 0,
            unblock: false,
            roll: None,
            seen: None,
            watches: BTreeSet::new(),
        }
    }

    /// Its key.
    pub fn key(&self) -> &JobUpdateKey {
        &self.key
    }

    /// Its user.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Where it stands.
    pub fn status(&self) -> JobUpdateStatus {
        self.events.last().map_or(JobUpdateStatus::ROLLING_FORWARD, |event| event.status)
    }

    /// Without a state, as the answer to a start has it.
    pub fn stateless_summary(&self) -> JobUpdateSummary {
        let metadata = Some(self.metadata.clone());
        JobUpdateSummary { user: Some(self.user.clone()), state: None, key: self.key.clone(), metadata }
    }

    /// As queries show it.
    pub fn summary(&self) -> JobUpdateSummary {
        let state = JobUpdateState {
            status: self.status(),
            created_timestamp_ms: self.events.first().map_or(0, |event| event.timestamp_ms),
            last_modified_timestamp_ms: self.modified_ms(),
        };
        JobUpdateSummary { state: Some(state), ..self.stateless_summary() }
    }

    /// When something happened last.
    pub fn modified_ms(&self) -> i64 {
        let instances = self.instance_events.iter().map(|event| event.timestamp_ms);
        self.events.iter().map(|event| event.timestamp_ms).chain(instances).max().unwrap_or(0)
    }

    /// With instructions and history.
    pub fn details(&self) -> JobUpdateDetails {
        let desired_state = self.desired.as_ref().map(|(program, instances)| InstanceTaskConfig {
            task: (*program.config).clone(),
            instances: ranges(instances.iter().copied()),
        });
        let initial_state = initial_state(&self.initial);
        let instructions = JobUpdateInstructions { initial_state, desired_state, settings: self.settings.clone() };
        JobUpdateDetails {
            update: JobUpdate { summary: self.summary(), instructions },
            update_events: self.events.clone(),
            instance_events: self.instance_events.clone(),
        }
    }

    /// Begins it.
    pub fn start(&mut self, by: By, tasks: &State, now_ms: i64) -> Vec<Order> {
        let status =
            if self.is_coordinated() { JobUpdateStatus::ROLL_FORWARD_AWAITING_PULSE } else { JobUpdateStatus::ROLLING_FORWARD };
        self.enter(status, by, tasks, now_ms)
    }

    /// Stops it where it is.
    pub fn pause(&mut self, by: By, tasks: &State, now_ms: i64) -> Result<Vec<Order>, Refusal> {
        self.go(machine::paused(self.status()), by, tasks, now_ms)
    }

    /// Lets it go on, or wait for a pulse when that has expired.
    pub fn resume(&mut self, by: By, tasks: &State, now_ms: i64) -> Result<Vec<Order>, Refusal> {
        self.go(machine::resumed(self.status(), self.is_pulse_expired(now_ms)), by, tasks, now_ms)
    }

    /// Ends it.
    pub fn abort(&mut self, by: By, tasks: &State, now_ms: i64) -> Result<Vec<Order>, Refusal> {
        self.go(Some(JobUpdateStatus::ABORTED), by, tasks, now_ms)
    }

    /// Turns it round.
    pub fn rollback(&mut self, by: By, tasks: &State, now_ms: i64) -> Result<Vec<Order>, Refusal> {
        self.go(Some(JobUpdateStatus::ROLLING_BACK), by, tasks, now_ms)
    }

    /// A sign of life of the coordinator; an update that waits for it goes on with the next [`Update::advance`].
    pub fn pulse(&mut self, now_ms: i64) -> JobUpdatePulseStatus {
        if !self.status().is_active() || !self.is_coordinated() {
            return JobUpdatePulseStatus::FINISHED;
        }
        self.last_pulse_ms = now_ms;
        self.unblock |= machine::is_blocked(self.status());
        JobUpdatePulseStatus::OK
    }

    /// The task of an instance has changed; `None`: it is no longer kept.
    pub fn changed(&mut self, instance: i32, task: Option<&Task>, tasks: &State, now_ms: i64) -> Vec<Order> {
        let ours = self.initial.contains_key(&instance)
            || self.desired.as_ref().is_some_and(|(_, instances)| instances.contains(&instance));
        match self.roll {
            Some(_) if ours => self.evaluate(Some((instance, task)), tasks, now_ms),
            _ => Vec::new(),
        }
    }

    /// Does what is due.
    pub fn advance(&mut self, tasks: &State, now_ms: i64) -> Vec<Order> {
        let mut orders = Vec::new();
        if std::mem::take(&mut self.unblock) && machine::is_blocked(self.status()) {
            orders.extend(self.enter(machine::unblocked(self.status()), By::default(), tasks, now_ms));
        }
        while let Some((due_ms, instance)) = self.watches.first().copied().filter(|(due_ms, _)| *due_ms <= now_ms) {
            self.watches.remove(&(due_ms, instance));
            if self.roll.is_some() {
                let task = tasks.active_task(&self.key.job, instance);
                orders.extend(self.evaluate(Some((instance, task)), tasks, now_ms));
            }
        }
        orders
    }

    /// When [`Update::advance`] has something to do.
    pub fn next_due_ms(&self) -> Option<i64> {
        let watch = self.watches.first().map(|(due_ms, _)| *due_ms);
        if self.unblock { Some(0) } else { watch }
    }

    /// Notes something about an instance; with `once` only if it was not noted before.
    pub fn note(&mut self, instance: i32, message: &str, once: bool, now_ms: i64) {
        let action = self.action(Stage::Working);
        let message = Some(message.to_owned());
        let same = |e: &JobInstanceUpdateEvent| (e.instance_id, e.action, &e.message) == (instance, action, &message);
        if !once || !self.instance_events.iter().any(same) {
            let event = JobInstanceUpdateEvent { instance_id: instance, timestamp_ms: now_ms, action, message };
            self.instance_events.push(event);
        }
    }

    fn is_coordinated(&self) -> bool {
        self.settings.block_if_no_pulses_after_ms > Some(0)
    }

    fn is_pulse_expired(&self, now_ms: i64) -> bool {
        let limit_ms = i64::from(self.settings.block_if_no_pulses_after_ms.unwrap_or(0));
        self.is_coordinated() && now_ms - self.last_pulse_ms >= limit_ms
    }

    fn go(&mut self, to: Option<JobUpdateStatus>, by: By, tasks: &State, now_ms: i64) -> Result<Vec<Order>, Refusal> {
        let from = self.status();
        match to {
            Some(to) if to == from => Ok(Vec::new()),
            Some(to) if machine::may_follow(from, to) => Ok(self.enter(to, by, tasks, now_ms)),
            Some(to) => Err(Refusal(format!("Cannot transition update from {from} to {to}"))),
            None => Err(Refusal(format!("Cannot transition update from {from} to null"))),
        }
    }

    fn enter(&mut self, status: JobUpdateStatus, by: By, tasks: &State, now_ms: i64) -> Vec<Order> {
        let By { user, message } = by;
        self.events.push(JobUpdateEvent { status, timestamp_ms: now_ms, user, message });
        tracing::info!(job = %self.key.job, update = self.key.id, %status, "update");
        self.roll = machine::is_rolling(status).then(|| self.new_roll(status));
        match self.roll {
            Some(_) => self.evaluate(None, tasks, now_ms),
            None => Vec::new(),
        }
    }

    fn new_roll(&self, status: JobUpdateStatus) -> Roll {
        let forward = status == JobUpdateStatus::ROLLING_FORWARD;
        let none = BTreeSet::new();
        let wanted = self.desired.as_ref().map_or(&none, |(_, instances)| instances);
        let all: BTreeSet<i32> = self.initial.keys().chain(wanted).copied().collect();
        let desired = |id: i32| {
            let program = self.program(id, forward);
            (id, program.map(|program| Arc::clone(&program.config)))
        };
        // First those to start, then those to change, then those to end.
        let class = |id: &i32| (!wanted.contains(id), self.initial.contains_key(id), *id);
        let mut order: Vec<i32> = all.iter().copied().collect();
        order.sort_by_key(class);
        if !forward {
            order.reverse();
        }
        let given_up = if forward { JobUpdateAction::INSTANCE_UPDATE_FAILED } else { JobUpdateAction::INSTANCE_ROLLBACK_FAILED };
        let failed = self.instance_events.iter().filter(|event| event.action == given_up).map(|event| event.instance_id);
        Roll::new(all.iter().copied().map(desired).collect(), order, &self.settings, forward, &failed.collect())
    }

    /// What an instance should run.
    fn program(&self, instance: i32, forward: bool) -> Option<&Program> {
        match &self.desired {
            Some((program, instances)) if forward => instances.contains(&instance).then_some(program),
            None if forward => None,
            _ => self.initial.get(&instance),
        }
    }

    fn evaluate(&mut self, changed: Option<(i32, Option<&Task>)>, tasks: &State, now_ms: i64) -> Vec<Order> {
        let status = self.status();
        if self.is_pulse_expired(now_ms) {
            let by = By::itself(Some("Pulses from external service have timed out."));
            return self.enter(machine::blocked(status), by, tasks, now_ms);
        }
        let job = self.key.job.clone();
        let Some(roll) = &mut self.roll else {
            return Vec::new();
        };
        let (outcome, mut steps) = roll.evaluate(changed, |id| tasks.active_task(&job, id), now_ms);
        let pauses = self.is_group_done(status, outcome, &steps);
        if pauses {
            // What the next group would begin with is left for after the pause.
            steps.retain(|step| step.stages.iter().any(|stage| [Stage::Succeeded, Stage::Failed].contains(stage)));
        }
        for step in &steps {
            self.record(step, now_ms);
        }
        match outcome {
            Outcome::Working if pauses => {
                let paused = machine::paused(status).unwrap_or(status);
                self.enter(paused, By::itself(Some("Update auto paused")), tasks, now_ms)
            }
            Outcome::Working => steps.iter().filter_map(|step| self.order(step, tasks, now_ms)).collect(),
            Outcome::Succeeded => self.enter(self.end(true), By::default(), tasks, now_ms),
            Outcome::Failed => {
                let culprit = steps.iter().find(|step| step.stages.contains(&Stage::Failed));
                let message = culprit.map(|step| format!("Latest failure: instance {} exited.", step.instance));
                self.enter(self.end(false), By::itself(message.as_deref()), tasks, now_ms)
            }
        }
    }

    /// Where the present direction ends.
    fn end(&self, succeeded: bool) -> JobUpdateStatus {
        let forward = self.is_forward();
        match (succeeded, forward) {
            (true, true) => JobUpdateStatus::ROLLED_FORWARD,
            (true, false) => JobUpdateStatus::ROLLED_BACK,
            (false, true) if self.settings.rollback_on_failure => JobUpdateStatus::ROLLING_BACK,
            (false, _) => JobUpdateStatus::FAILED,
        }
    }

    fn is_forward(&self) -> bool {
        self.status() == JobUpdateStatus::ROLLING_FORWARD
    }

    /// Whether it pauses now, because instances are taken up that were not before.
    fn is_group_done(&mut self, status: JobUpdateStatus, outcome: Outcome, steps: &[Step]) -> bool {
        let strategy = self.settings.update_strategy.as_ref().unwrap_or(&JobUpdateStrategy::Queue(1));
        if status != JobUpdateStatus::ROLLING_FORWARD || outcome != Outcome::Working || !strategy::pauses(strategy) {
            return false;
        }
        let touched: BTreeSet<i32> = steps.iter().map(|step| step.instance).collect();
        match &mut self.seen {
            Some(seen) if touched.is_subset(seen) => false,
            Some(seen) => {
                seen.extend(touched);
                true
            }
            None => {
                self.seen = Some(touched);
                false
            }
        }
    }

    fn record(&mut self, step: &Step, now_ms: i64) {
        let already: BTreeSet<JobUpdateAction> =
            self.instance_events.iter().filter(|e| e.instance_id == step.instance).map(|event| event.action).collect();
        // An instance that was as it should be from the beginning is not worth a word.
        if already.is_empty() && step.stages == [Stage::Working, Stage::Succeeded] {
            return;
        }
        for action in step.stages.iter().map(|stage| self.action(*stage)).collect::<Vec<_>>() {
            if !already.contains(&action) {
                let event = JobInstanceUpdateEvent { instance_id: step.instance, timestamp_ms: now_ms, action, message: None };
                self.instance_events.push(event);
            }
        }
    }

    fn action(&self, stage: Stage) -> JobUpdateAction {
        match (stage, self.is_forward()) {
            (Stage::Idle | Stage::Working, true) => JobUpdateAction::INSTANCE_UPDATING,
            (Stage::Idle | Stage::Working, false) => JobUpdateAction::INSTANCE_ROLLING_BACK,
            (Stage::Succeeded, true) => JobUpdateAction::INSTANCE_UPDATED,
            (Stage::Succeeded, false) => JobUpdateAction::INSTANCE_ROLLED_BACK,
            (Stage::Failed, true) => JobUpdateAction::INSTANCE_UPDATE_FAILED,
            (Stage::Failed, false) => JobUpdateAction::INSTANCE_ROLLBACK_FAILED,
        }
    }

    fn order(&mut self, step: &Step, tasks: &State, now_ms: i64) -> Option<Order> {
        let forward = self.is_forward();
        match step.action? {
            Action::Wait => None,
            Action::Watch => {
                let wait_ms = i64::from(self.settings.min_wait_in_instance_running_ms);
                self.watches.insert((now_ms + wait_ms, step.instance));
                None
            }
            Action::Add => Some(Order::Add(step.instance, self.program(step.instance, forward)?.clone())),
            Action::Kill => {
                let task = tasks.active_task(&self.key.job, step.instance)?.id.clone();
                let policy = self.policy(step.instance, forward).filter(|_| self.settings.sla_aware == Some(true));
                Some(match policy {
                    Some(policy) => Order::KillIf(step.instance, task, policy),
                    None => Order::Kill(task),
                })
            }
        }
    }

    /// Whom to ask: forward the new configuration, back the one that the instance had before.
    fn policy(&self, instance: i32, forward: bool) -> Option<SlaPolicy> {
        let program = match forward {
            true => self.desired.as_ref().map(|(program, _)| program),
            false => self.initial.get(&instance),
        };
        program?.config.sla_policy.clone()
    }
}
