//! Whether a task may be ended under its SLA policy: yes, no, or a coordinator has to be asked. Pure.
//!
//! Called by [`super::books`] before a kill of an update that is aware of policies, and for tasks on hosts that are drained.

use aurora::types::{CoordinatorSlaPolicy, JobUpdateKey, JobUpdateStatus, ScheduleStatus, ScheduledTask, SlaPolicy};

use super::config::MIN_SLA_INSTANCES;
use super::state::{State, Task};

/// What a task is to be ended for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// An update in this status.
    Update {
        /// Which one.
        key: JobUpdateKey,
        /// Its status when the question was put.
        status: JobUpdateStatus,
    },
    /// Maintenance of its host.
    Drain {
        /// Time left until the task is ended anyway.
        countdown_ms: i64,
    },
}

/// A question for a coordinator.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// The task to be ended.
    pub task: Box<ScheduledTask>,
    /// Whom to ask.
    pub policy: CoordinatorSlaPolicy,
    /// What for.
    pub purpose: Purpose,
}

/// The answer of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may be ended.
    Yes,
    /// Not now.
    No,
    /// This coordinator decides.
    Ask(CoordinatorSlaPolicy),
}

/// Judges a task under a policy.
pub fn judge(task: &Task, policy: Option<&SlaPolicy>, state: &State, now_ms: i64) -> Verdict {
    let duration_secs = match policy {
        Some(SlaPolicy::Coordinator(coordinator)) => return Verdict::Ask(coordinator.clone()),
        Some(SlaPolicy::Count(policy)) => policy.duration_secs,
        Some(SlaPolicy::Percentage(policy)) => policy.duration_secs,
        Some(SlaPolicy::Unknown(_)) | None => return Verdict::No,
    };
    let active = state.active(&task.job);
    let count = i32::try_from(active.len()).unwrap_or(i32::MAX);
    if task.config.production != Some(true) || count < MIN_SLA_INSTANCES {
        return Verdict::Yes;
    }
    let others = active.values().filter(|other| other.id != task.id && runs_since(other, now_ms, duration_secs)).count();
    let needed = policy.map_or(0.0, |policy| wanted_running(policy, f64::from(count)));
    let others = f64::from(i32::try_from(others).unwrap_or(i32::MAX));
    if others >= needed { Verdict::Yes } else { Verdict::No }
}

/// How many of `total` have to run; one may always be missing.
fn wanted_running(policy: &SlaPolicy, total: f64) -> f64 {
    let wanted = match policy {
        SlaPolicy::Count(policy) => policy.count as f64,
        SlaPolicy::Percentage(policy) => policy.percentage / 100.0 * total,
        SlaPolicy::Coordinator(_) | SlaPolicy::Unknown(_) => 0.0,
    };
    wanted.min(total - 1.0)
}

fn runs_since(task: &Task, now_ms: i64, duration_secs: i64) -> bool {
    let began = task.events.iter().filter(|event| event.status == ScheduleStatus::RUNNING).map(|event| event.timestamp).max();
    let runs = task.status == ScheduleStatus::RUNNING;
    runs && began.is_some_and(|began_ms| now_ms - began_ms > duration_secs.saturating_mul(1000))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::sync::Arc;

    use aurora::types::{CountSlaPolicy, JobKey, PercentageSlaPolicy, TaskConfig};

    use super::*;

    /// A job whose first `running` instances have run for ten seconds at the time 20,000.
    fn books(instances: i32, running: i32, production: bool) -> State {
        let mut next = 0;
        let ids = move || {
            next += 1;
            format!("u{next}")
        };
        let mut state = State::new("me".to_owned(), 0, Box::new(ids));
        let key = JobKey::new("redis", "prod", "cache");
        let program = super::super::thermos::parse(r#"{"task":{"processes":[{"name":"a","cmdline":"b"}]}}"#).expect("valid");
        let config = Arc::new(TaskConfig { production: Some(production), ..TaskConfig::default() });
        let program = Arc::new(program);
        for instance in 0..instances {
            let id = state.add(&key, instance, &config, &program, 0);
            if instance < running {
                run(&mut state, &id, 10_000);
            }
        }
        state
    }

    fn run(state: &mut State, id: &str, now_ms: i64) {
        let hosts =
            super::super::hosts::parse(Path::new("hosts"), "[[host]]\nname = \"a\"\naddress = \"127.0.0.1\"\n").expect("valid");
        state.advance(&hosts, now_ms);
        assert!(state.assigned(id, BTreeMap::new(), now_ms));
        state.report(id, ScheduleStatus::STARTING, "", now_ms);
        state.report(id, ScheduleStatus::RUNNING, "", now_ms);
    }

    fn verdict(state: &State, policy: SlaPolicy) -> Verdict {
        let tasks = state.tasks();
        judge(tasks[0], Some(&policy), state, 20_000)
    }

    fn count(count: i64, duration_secs: i64) -> SlaPolicy {
        SlaPolicy::Count(CountSlaPolicy { count, duration_secs })
    }

    fn percentage(percentage: f64) -> SlaPolicy {
        SlaPolicy::Percentage(PercentageSlaPolicy { percentage, duration_secs: 5 })
    }

    #[test]
    fn counts_and_percentages_protect_large_jobs_of_production() {
        let large = books(20, 16, true);
        let table = [
            (count(15, 5), Verdict::Yes),
            (count(16, 5), Verdict::No),
            (count(15, 10), Verdict::No),
            (percentage(75.0), Verdict::Yes),
            (percentage(80.0), Verdict::No),
        ];
        for (policy, expected) in table {
            assert_eq!(verdict(&large, policy.clone()), expected, "{policy:?}");
        }
        // One may always be missing.
        assert_eq!(verdict(&books(20, 20, true), count(20, 5)), Verdict::Yes);
        assert_eq!(verdict(&books(19, 0, true), count(19, 5)), Verdict::Yes);
        assert_eq!(verdict(&books(20, 0, false), count(19, 5)), Verdict::Yes);
    }

    #[test]
    fn coordinators_are_asked_whatever_the_job() {
        let policy = CoordinatorSlaPolicy { coordinator_url: "http://c".to_owned(), status_key: "drain".to_owned() };
        assert_eq!(verdict(&books(1, 0, false), SlaPolicy::Coordinator(policy.clone())), Verdict::Ask(policy));
        let state = books(1, 1, true);
        assert_eq!(judge(state.tasks()[0], None, &state, 0), Verdict::No);
    }
}
