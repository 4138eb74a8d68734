//! One direction of an update: which instance is how far, and what to do with it next. Pure.
//!
//! [`super::update`] makes one for the way forward and one for the way back, and a new one after each pause: instances that
//! are already what they should be are recognised and passed over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use aurora::types::{JobUpdateSettings, JobUpdateStrategy, ScheduleStatus, TaskConfig};

use super::super::state::Task;
use super::diff::same_config;
use super::strategy::{Progress, next_group};

/// How far an instance is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Not taken up yet.
    Idle,
    /// In work.
    Working,
    /// As it should be.
    Succeeded,
    /// Given up.
    Failed,
}

/// What to do with an instance in work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing until its task changes.
    Wait,
    /// End its task.
    Kill,
    /// Start a task.
    Add,
    /// Look again when it has run long enough.
    Watch,
}

/// What an evaluation found about one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The instance.
    pub instance: i32,
    /// Absent when it is done with.
    pub action: Option<Action>,
    /// The stages it came to just now.
    pub stages: Vec<Stage>,
}

/// Where the direction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There is more to do.
    Working,
    /// Every instance is done with.
    Succeeded,
    /// Too many have failed.
    Failed,
}

struct Instance {
    /// What it should run; `None`: nothing.
    desired: Option<Arc<TaskConfig>>,
    stage: Stage,
    failures: i32,
}

/// One direction of an update.
pub struct Roll {
    instances: BTreeMap<i32, Instance>,
    /// Ids in the order of work.
    order: Vec<i32>,
    strategy: JobUpdateStrategy,
    settings: JobUpdateSettings,
    forward: bool,
    /// Instances there were to take up at first; absent before that.
    total: Option<usize>,
}

impl Roll {
    /// `desired` says for each instance what it should run, `order` in which order they are taken up, `failed` which of them
    /// were given up before.
    pub fn new(
        desired: BTreeMap<i32, Option<Arc<TaskConfig>>>,
        order: Vec<i32>,
        settings: &JobUpdateSettings,
        forward: bool,
        failed: &BTreeSet<i32>,
    ) -> Roll {
        let instance = |(id, desired): (i32, Option<Arc<TaskConfig>>)| {
            let stage = if failed.contains(&id) { Stage::Failed } else { Stage::Idle };
            (id, Instance { desired, stage, failures: 0 })
        };
        Roll {
            instances: desired.into_iter().map(instance).collect(),
            order,
            strategy: settings.update_strategy.clone().unwrap_or(JobUpdateStrategy::Queue(1)),
            settings: settings.clone(),
            forward,
            total: None,
        }
    }

    /// Looks at the instance that `changed` (with its task, when one is left), then takes up more. `look` gives the active task
    /// of an instance.
    pub fn evaluate<'t>(
        &mut self,
        changed: Option<(i32, Option<&Task>)>,
        look: impl Fn(i32) -> Option<&'t Task>,
        now_ms: i64,
    ) -> (Outcome, Vec<Step>) {
        let mut steps = Vec::new();
        if let Some((id, task)) = changed
            && self.instances.get(&id).is_some_and(|instance| instance.stage == Stage::Working)
        {
            steps.extend(self.step(id, task, now_ms));
        }
        while self.outcome() == Outcome::Working {
            let working = self.count(Stage::Working);
            let idle = self.idle();
            let total = *self.total.get_or_insert(idle.len());
            let group = next_group(&self.strategy, &idle, Progress { working, total, forward: self.forward });
            let taken: Vec<Step> = group.iter().filter_map(|id| self.step(*id, look(*id), now_ms)).collect();
            let acts = taken.iter().any(|step| step.action.is_some());
            steps.extend(taken);
            // Only a group without anything to do, and nothing else in work, makes room for the next one at once.
            if group.is_empty() || working > 0 || acts {
                break;
            }
        }
        (self.outcome(), steps)
    }

    fn idle(&self) -> Vec<i32> {
        self.order.iter().copied().filter(|id| self.instances.get(id).is_some_and(|i| i.stage == Stage::Idle)).collect()
    }

    fn count(&self, stage: Stage) -> usize {
        self.instances.values().filter(|instance| instance.stage == stage).count()
    }

    fn outcome(&self) -> Outcome {
        let tolerated = usize::try_from(self.settings.max_failed_instances).unwrap_or(0);
        if self.count(Stage::Failed) > tolerated {
            Outcome::Failed
        } else if self.count(Stage::Working) + self.count(Stage::Idle) == 0 {
            Outcome::Succeeded
        } else {
            Outcome::Working
        }
    }

    fn step(&mut self, id: i32, task: Option<&Task>, now_ms: i64) -> Option<Step> {
        let min_running_ms = i64::from(self.settings.min_wait_in_instance_running_ms);
        let tolerated = self.settings.max_per_instance_failures;
        let instance = self.instances.get_mut(&id)?;
        let mut stages = Vec::new();
        if instance.stage == Stage::Idle {
            instance.stage = Stage::Working;
            stages.push(Stage::Working);
        }
        let end = match judge(instance.desired.as_deref(), task, min_running_ms, now_ms) {
            Judgement::Do(action) => return Some(Step { instance: id, action: Some(action), stages }),
            Judgement::Ended => {
                instance.failures += 1;
                if instance.failures <= tolerated {
                    return Some(Step { instance: id, action: Some(Action::Wait), stages });
                }
                Stage::Failed
            }
            Judgement::Done => Stage::Succeeded,
        };
        instance.stage = end;
        stages.push(end);
        Some(Step { instance: id, action: None, stages })
    }
}

enum Judgement {
    Do(Action),
    /// As it should be.
    Done,
    /// The new task has ended by itself.
    Ended,
}

fn judge(desired: Option<&TaskConfig>, task: Option<&Task>, min_running_ms: i64, now_ms: i64) -> Judgement {
    // A task that was told to end and has ended is as good as none: the next one may be started.
    let task = task.filter(|task| {
        let told = task.events.iter().any(|event| event.status == ScheduleStatus::KILLING);
        !told || task.status == ScheduleStatus::KILLING
    });
    let (desired, task) = match (desired, task) {
        (None, None) => return Judgement::Done,
        (Some(_), None) => return Judgement::Do(Action::Add),
        (None, Some(task)) => return Judgement::Do(if task.is_killable() { Action::Kill } else { Action::Wait }),
        (Some(desired), Some(task)) => (desired, task),
    };
    if !same_config(desired, &task.config) {
        return Judgement::Do(if task.is_killable() { Action::Kill } else { Action::Wait });
    }
    let since_ms = task.events.last().map_or(now_ms, |event| event.timestamp);
    match task.status {
        ScheduleStatus::RUNNING if now_ms - since_ms >= min_running_ms => Judgement::Done,
        ScheduleStatus::RUNNING => Judgement::Do(Action::Watch),
        status if status.is_terminal() => Judgement::Ended,
        _ => Judgement::Do(Action::Wait),
    }
}
