//! Which process of a task runs next, and when the task is over: Thermos' rules. Pure.
//!
//! [`super::runner`] asks [`Runs::ready`], starts what it names and tells what ended. Time is an argument.
//! Invariant: no process gets more than [`MAX_RUNS`] runs, and none is running twice.

use std::collections::BTreeMap;
use std::time::Instant;

use super::thermos::{Process, Task};

/// Most runs of one process within one task, however they ended; after that it counts as failed.
pub const MAX_RUNS: u32 = 100;

/// How one run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Exit code 0.
    Success,
    /// Another exit code: counts against `max_failures`.
    Failure,
    /// Killed by a signal: run again without counting.
    Lost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Waiting { ready_at: Instant },
    Running,
    Succeeded,
    Failed,
}

#[derive(Clone, Debug)]
struct Record {
    process: Process,
    after: Vec<String>,
    runs: u32,
    failures: u32,
    status: Status,
}

/// The runs of either the normal or the final processes of one task.
#[derive(Clone, Debug)]
pub struct Runs {
    records: BTreeMap<String, Record>,
    order: Vec<String>,
    max_failures: u32,
    max_concurrency: u32,
}

impl Runs {
    /// Nothing has run yet; `is_final` chooses which processes of `task` this is about.
    pub fn new(task: &Task, is_final: bool, now: Instant) -> Self {
        let chosen = || task.processes.iter().filter(|p| p.is_final == is_final);
        let record = |process: &Process| Record {
            after: task.predecessors(&process.name).into_iter().map(str::to_owned).collect(),
            process: process.clone(),
            runs: 0,
            failures: 0,
            status: Status::Waiting { ready_at: now },
        };
        Self {
            records: chosen().map(|p| (p.name.clone(), record(p))).collect(),
            order: chosen().map(|p| p.name.clone()).collect(),
            max_failures: task.max_failures,
            max_concurrency: task.max_concurrency,
        }
    }

    /// Processes to start now, in the order of the job.
    pub fn ready(&self, now: Instant) -> Vec<Process> {
        let running = self.running_count();
        let free = match self.max_concurrency {
            0 => usize::MAX,
            most => (most as usize).saturating_sub(running),
        };
        self.order
            .iter()
            .map(|name| &self.records[name])
            .filter(|r| matches!(r.status, Status::Waiting { ready_at } if ready_at <= now))
            .filter(|r| self.is_unblocked(r))
            .take(free)
            .map(|r| r.process.clone())
            .collect()
    }

    /// When the next process becomes ready by time alone. `None`: only the end of another can make one ready.
    pub fn next_ready(&self) -> Option<Instant> {
        self.records
            .values()
            .filter(|r| self.is_unblocked(r))
            .filter_map(|r| match r.status {
                Status::Waiting { ready_at } => Some(ready_at),
                _ => None,
            })
            .min()
    }

    /// Notes a start; returns the number of this run, from 0.
    pub fn started(&mut self, name: &str) -> u32 {
        match self.records.get_mut(name) {
            None => 0,
            Some(record) => {
                record.status = Status::Running;
                record.runs += 1;
                record.runs - 1
            }
        }
    }

    /// Notes the end of the run under way.
    pub fn ended(&mut self, name: &str, ended: Ended, now: Instant) {
        let Some(record) = self.records.get_mut(name) else {
            return;
        };
        record.failures += u32::from(ended == Ended::Failure);
        let process = &record.process;
        let used_up = process.max_failures > 0 && record.failures >= process.max_failures;
        let failed =
            (ended == Ended::Failure && used_up) || (record.runs >= MAX_RUNS && (ended != Ended::Success || process.daemon));
        record.status = if failed && process.ephemeral {
            Status::Succeeded
        } else if failed {
            Status::Failed
        } else if ended == Ended::Success && !process.daemon {
            Status::Succeeded
        } else {
            Status::Waiting { ready_at: now + process.min_duration() }
        };
    }

    /// Whether the task has not failed: fewer failed processes than its `max_failures` (0: any number).
    pub fn is_healthy(&self) -> bool {
        let failed = self.records.values().filter(|r| r.status == Status::Failed);
        self.max_failures == 0 || failed.count() < self.max_failures as usize
    }

    /// Whether nothing is left to do: the task failed, or every process that counts has ended or never can start.
    pub fn is_over(&self) -> bool {
        let counts = |r: &&Record| !r.process.ephemeral;
        !self.is_healthy()
            || self.records.values().filter(counts).all(|r| match r.status {
                Status::Succeeded | Status::Failed => true,
                Status::Running => false,
                Status::Waiting { .. } => self.is_stuck(r),
            })
    }

    /// Number of processes running.
    pub fn running_count(&self) -> usize {
        let running = self.records.values();
        running.filter(|r| r.status == Status::Running).count()
    }

    fn is_unblocked(&self, record: &Record) -> bool {
        let succeeded = |name: &String| self.records.get(name).is_none_or(|r| r.status == Status::Succeeded);
        record.after.iter().all(succeeded)
    }

    /// Behind a failed process, directly or not. Orders have no cycles, so this ends.
    fn is_stuck(&self, record: &Record) -> bool {
        record
            .after
            .iter()
            .any(|name| self.records.get(name).is_some_and(|before| before.status == Status::Failed || self.is_stuck(before)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;

    fn runs(task: Value, is_final: bool) -> (Runs, Instant) {
        let now = Instant::now();
        let data = json!({ "task": task }).to_string();
        let job = super::super::thermos::parse(&data).unwrap();
        (Runs::new(&job.task, is_final, now), now)
    }

    fn names(runs: &Runs, now: Instant) -> Vec<String> {
        runs.ready(now).into_iter().map(|p| p.name).collect()
    }

    fn process(name: &str) -> Value {
        json!({"name": name, "cmdline": "true"})
    }

    #[test]
    fn an_order_is_kept_and_success_of_all_ends_the_task() {
        let (mut runs, now) =
            runs(json!({"processes": [process("b"), process("a")], "constraints": [{"order": ["a", "b"]}]}), false);
        assert_eq!(names(&runs, now), ["a"]);
        assert_eq!(runs.started("a"), 0);
        assert_eq!(names(&runs, now), Vec::<String>::new());
        runs.ended("a", Ended::Success, now);
        assert_eq!(names(&runs, now), ["b"]);
        runs.started("b");
        assert!(!runs.is_over());
        runs.ended("b", Ended::Success, now);
        assert!(runs.is_over() && runs.is_healthy());
    }

    #[test]
    fn a_failure_fails_the_task_by_default() {
        let (mut runs, now) = runs(json!({"processes": [process("a")]}), false);
        runs.started("a");
        runs.ended("a", Ended::Failure, now);
        assert!(runs.is_over() && !runs.is_healthy());
    }

    #[test]
    fn a_signal_does_not_count_as_failure_but_waits_min_duration() {
        let (mut runs, now) = runs(json!({"processes": [process("a")]}), false);
        runs.started("a");
        runs.ended("a", Ended::Lost, now);
        assert!(!runs.is_over());
        assert_eq!(names(&runs, now), Vec::<String>::new());
        let later = now + Duration::from_secs(5);
        assert_eq!(runs.next_ready(), Some(later));
        assert_eq!(names(&runs, later), ["a"]);
        assert_eq!(runs.started("a"), 1);
    }

    #[test]
    fn a_daemon_runs_again_after_success_up_to_the_cap() {
        let daemon = json!({"name": "d", "cmdline": "true", "daemon": true, "max_failures": 0, "min_duration": 0});
        let (mut runs, now) = runs(json!({"processes": [daemon]}), false);
        for run in 0..MAX_RUNS {
            assert_eq!(names(&runs, now), ["d"]);
            assert_eq!(runs.started("d"), run);
            let ended = [Ended::Success, Ended::Failure, Ended::Lost][run as usize % 3];
            runs.ended("d", ended, now);
        }
        assert!(runs.is_over() && !runs.is_healthy());
    }

    #[test]
    fn ephemeral_processes_neither_hold_up_nor_fail_the_task() {
        let helper = json!({"name": "e", "cmdline": "false", "ephemeral": true});
        let (mut runs, now) = runs(json!({"processes": [process("a"), helper]}), false);
        runs.started("a");
        runs.started("e");
        runs.ended("e", Ended::Failure, now);
        assert!(!runs.is_over() && runs.is_healthy());
        runs.ended("a", Ended::Success, now);
        assert!(runs.is_over() && runs.is_healthy());
    }

    #[test]
    fn what_waits_for_a_failed_process_never_starts() {
        let task = json!({"max_failures": 0, "processes": [process("a"), process("b"), process("c")],
                          "constraints": [{"order": ["a", "b", "c"]}]});
        let (mut runs, now) = runs(task, false);
        runs.started("a");
        runs.ended("a", Ended::Failure, now);
        assert!(runs.is_over() && runs.is_healthy());
        assert_eq!(runs.next_ready(), None);
    }

    #[test]
    fn concurrency_is_limited() {
        let task = json!({"max_concurrency": 1, "processes": [process("a"), process("b")]});
        let (mut runs, now) = runs(task, false);
        assert_eq!(names(&runs, now), ["a"]);
        runs.started("a");
        assert_eq!(names(&runs, now), Vec::<String>::new());
    }

    #[test]
    fn final_processes_are_a_set_of_their_own() {
        let last = json!({"name": "z", "cmdline": "true", "final": true});
        let task = json!({"processes": [process("a"), last]});
        let (normal, now) = runs(task.clone(), false);
        assert_eq!(names(&normal, now), ["a"]);
        let (last, now) = runs(task, true);
        assert_eq!(names(&last, now), ["z"]);
    }
}
