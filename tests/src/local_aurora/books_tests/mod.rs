//! The books with a clock, and executors that do at once what they are told.

mod recorded;
mod sla;
mod updates;

use std::collections::BTreeSet;
use std::path::Path;

use aurora::types::{JobConfiguration, JobUpdateSettings, JobUpdateStrategy, Range, ScheduleStatus, TaskConfig};

use super::super::{hosts, thermos};
use super::*;

/// One of the things that can be done to an update.
type Command = fn(&mut Update, By, &State, i64) -> Result<Vec<Order>, Refusal>;

struct World {
    books: Books,
    hosts: Vec<Host>,
    now_ms: i64,
    /// Versions whose tasks fail as soon as they run.
    sick: BTreeSet<i32>,
    /// Whether such a task fails before anybody has seen it run.
    unseen: bool,
    /// Whether tasks that are told to end do.
    obedient: bool,
    /// Tasks told to end that have not.
    ending: Vec<String>,
    /// What coordinators were asked.
    asked: Vec<Question>,
}

fn key() -> JobKey {
    JobKey::new("redis", "prod", "cache")
}

/// The configuration of a version of the job; the real ones differ in more than their priority.
fn config(version: i32) -> TaskConfig {
    TaskConfig { is_service: true, priority: version, production: Some(true), job: key(), ..TaskConfig::default() }
}

fn program() -> super::super::thermos::Job {
    thermos::parse(r#"{"task":{"processes":[{"name":"a","cmdline":"b"}]}}"#).expect("valid")
}

fn accepted(config: TaskConfig, count: i32, settings: JobUpdateSettings) -> Accepted {
    Accepted { config, job: program(), count, settings, metadata: Vec::new() }
}

fn queue(size: i32) -> JobUpdateSettings {
    JobUpdateSettings { update_strategy: Some(JobUpdateStrategy::Queue(size)), ..JobUpdateSettings::one_by_one() }
}

fn by(message: &str) -> By {
    By { user: Some("me".to_owned()), message: Some(message.to_owned()) }
}

impl World {
    /// A job of `instances` of version 1, all running.
    fn new(instances: i32) -> World {
        World::with(config(1), instances)
    }

    fn with(config: TaskConfig, instances: i32) -> World {
        let mut next = 0;
        let ids = move || {
            next += 1;
            format!("u{next}")
        };
        let host = |n: i32| format!("[[host]]\nname = \"h{n}\"\naddress = \"127.0.0.{n}\"\n");
        let hosts: String = (1..=8).map(host).collect();
        let delays = Delays { sla_retry_ms: 1_000, sla_retry_max_ms: 5_000, maintenance_poll_ms: 10_000 };
        let mut world = World {
            books: Books::new(State::new("me".to_owned(), 0, Box::new(ids)), delays),
            hosts: hosts::parse(Path::new("hosts"), &hosts).expect("valid"),
            now_ms: 1_000_000,
            sick: BTreeSet::new(),
            unseen: false,
            obedient: true,
            ending: Vec::new(),
            asked: Vec::new(),
        };
        if instances > 0 {
            let job = JobConfiguration { instance_count: instances, key: key(), task_config: config, ..Default::default() };
            world.books.state.create(job, program(), world.now_ms).expect("a new job");
            world.run();
        }
        world
    }

    /// Lets everything happen that can happen now.
    fn run(&mut self) {
        for _ in 0..200 {
            let mut effects = self.books.settle(self.now_ms);
            effects.extend(self.books.advance(&self.hosts, self.now_ms));
            if effects.is_empty() {
                return;
            }
            effects.into_iter().for_each(|effect| self.act(effect));
        }
        panic!("it does not come to rest");
    }

    fn act(&mut self, effect: Effect) {
        match effect {
            Effect::Place { task, .. } => self.start(&task),
            Effect::Kill(task) if self.obedient => self.report(&task, ScheduleStatus::KILLED),
            Effect::Kill(task) => self.ending.push(task),
            Effect::Ask(question) => self.asked.push(question),
            Effect::Forget(_) => {}
        }
    }

    fn start(&mut self, task: &str) {
        assert!(self.books.state.assigned(task, BTreeMap::new(), self.now_ms));
        self.report(task, ScheduleStatus::STARTING);
        self.report(task, ScheduleStatus::RUNNING);
        let version = self.books.state.task(task).map(|task| task.config.priority);
        if version.is_some_and(|version| self.sick.contains(&version)) {
            if !self.unseen {
                let effects = self.books.settle(self.now_ms);
                effects.into_iter().for_each(|effect| self.act(effect));
            }
            self.report(task, ScheduleStatus::FAILED);
        }
    }

    fn report(&mut self, task: &str, status: ScheduleStatus) {
        let effects = self.books.state.report(task, status, "", self.now_ms);
        effects.into_iter().for_each(|effect| self.act(effect));
    }

    /// The tasks that were told to end do.
    fn end_all(&mut self) {
        for task in std::mem::take(&mut self.ending) {
            self.report(&task, ScheduleStatus::KILLED);
        }
        self.run();
    }

    fn wait(&mut self, ms: i64) {
        self.now_ms += ms;
        self.run();
    }

    /// Starts an update to version 2 (or the configuration given), and lets happen what happens at once.
    fn update(&mut self, count: i32, settings: JobUpdateSettings) -> JobUpdateKey {
        self.update_to(config(2), count, settings)
    }

    fn update_to(&mut self, config: TaskConfig, count: i32, settings: JobUpdateSettings) -> JobUpdateKey {
        let (start, effects) = self.books.start(accepted(config, count, settings), by("v2"), self.now_ms);
        effects.into_iter().for_each(|effect| self.act(effect));
        self.run();
        match start {
            Start::Update(summary) => summary.key,
            other => panic!("{other:?}"),
        }
    }

    fn command(&mut self, key: &JobUpdateKey, command: Command) -> Result<(), String> {
        self.command_by(key, by("why"), command)
    }

    fn command_by(&mut self, key: &JobUpdateKey, by: By, command: Command) -> Result<(), String> {
        let now_ms = self.now_ms;
        let done = self.books.command(key, now_ms, |update, tasks| command(update, by, tasks, now_ms));
        let effects = done.map_err(|Refusal(text)| text)?;
        effects.into_iter().for_each(|effect| self.act(effect));
        self.run();
        Ok(())
    }

    fn pulse(&mut self, key: &JobUpdateKey) -> i32 {
        let status = self.books.pulse(key, self.now_ms);
        self.run();
        status.0
    }

    /// The statuses of an update, by number.
    fn statuses(&self, key: &JobUpdateKey) -> Vec<i32> {
        self.details(key).update_events.iter().map(|event| event.status.0).collect()
    }

    /// What it did with which instance, by number.
    fn steps(&self, key: &JobUpdateKey) -> Vec<(i32, i32)> {
        self.details(key).instance_events.iter().map(|event| (event.instance_id, event.action.0)).collect()
    }

    fn details(&self, key: &JobUpdateKey) -> aurora::types::JobUpdateDetails {
        self.books.updates.find(key).expect("an update").details()
    }

    /// The versions that instances run.
    fn versions(&self) -> Vec<(i32, i32)> {
        self.books.state.active(&key()).into_iter().map(|(id, task)| (id, task.config.priority)).collect()
    }

    fn task(&self, instance: i32) -> &Task {
        self.books.state.active_task(&key(), instance).expect("an active task")
    }
}

/// Only these instances.
fn only(first: i32, last: i32) -> JobUpdateSettings {
    JobUpdateSettings { update_only_these_instances: vec![Range { first, last }], ..queue(1) }
}
