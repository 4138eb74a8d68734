//! When an action may be repeated: not while it runs, not before its effect can be seen, and after a failure only when its back-off has
//! ended or its inputs have changed. Pure.

use std::time::Duration;

use crate::model::{Action, Attempt, Attempts, Outcome};

/// After success, the view must show the effect within this time; else the action is due again.
const SETTLE: Duration = Duration::from_secs(1);
/// Back-off after the first failure; doubles.
const FIRST_BACKOFF: Duration = Duration::from_millis(200);
/// Longest back-off.
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);
/// Every action has a shorter deadline of its own; one that has not ended by then broke off.
const LONGEST_RUN: Duration = Duration::from_secs(60);
/// Attempts older than this are forgotten.
const FORGET: Duration = Duration::from_secs(600);
/// How long a verification or a rehearsal that could not be done rests.
const EXAMINE_AGAIN: Duration = Duration::from_secs(900);

/// What makes two actions the same: the effect with all its inputs. Changes of the number of instances are all the same.
pub fn key(action: &Action) -> String {
    match action {
        Action::CreateRecord { .. } => "create-record".into(),
        // Whatever it says: until one commit on a version is through or refused, another one cannot succeed.
        Action::CommitRecord { version, lease_version, .. } => format!("commit {version} {lease_version:?}"),
        Action::SetOperation { operation } => format!("operation {} {} {:?}", operation.id, operation.step, operation.outcome),
        Action::Command { agent, command, .. } => format!("{agent} {} {:?}", command.order.verb(), command),
        Action::AddInstances { .. } | Action::KillInstances { .. } => "scale".into(),
        Action::RestartInstance { instance, .. } => format!("restart {instance}"),
        Action::VerifySnapshot { .. } | Action::Rehearse { .. } => action.kind().into(),
    }
}

/// Whether the action may be carried out now.
pub fn is_due(action: &Action, attempts: &Attempts, now: Duration) -> bool {
    let Some(attempt) = attempts.get(&key(action)) else { return true };
    let waited = now.saturating_sub(attempt.at);
    let examines = matches!(action, Action::VerifySnapshot { .. } | Action::Rehearse { .. });
    let longest = if examines { crate::examine::WITHIN } else { LONGEST_RUN };
    let Some(outcome) = &attempt.outcome else { return waited >= longest };
    match (action, outcome) {
        // Not idempotent: only on a view that was asked for after the last try ended.
        (Action::AddInstances { seen, .. } | Action::KillInstances { seen, .. } | Action::RestartInstance { seen, .. }, _) => {
            *seen > attempt.at && waited >= backoff(attempt.failures)
        }
        // It shows in the next listing of the store.
        (_, Outcome::Done) if examines => waited >= LONGEST_RUN,
        (_, _) if examines => waited >= EXAMINE_AGAIN,
        (_, Outcome::Done) => waited >= SETTLE,
        _ => waited >= backoff(attempt.failures),
    }
}

fn backoff(failures: u32) -> Duration {
    match failures {
        0 => Duration::ZERO,
        n => (FIRST_BACKOFF * 2u32.pow((n - 1).min(10))).min(LONGEST_BACKOFF),
    }
}

/// Notes that an action begins.
pub fn begin(action: &Action, attempts: &mut Attempts, now: Duration) {
    attempts.retain(|_, a| a.outcome.is_none() || now.saturating_sub(a.at) < FORGET.max(EXAMINE_AGAIN));
    let failures = attempts.get(&key(action)).map_or(0, |a| a.failures);
    attempts.insert(key(action), Attempt { at: now, failures, outcome: None });
}

/// Notes what came of it.
pub fn end(key: &str, outcome: Outcome, attempts: &mut Attempts, now: Duration) {
    if let Some(attempt) = attempts.get_mut(key) {
        attempt.failures = if outcome == Outcome::Done { 0 } else { attempt.failures.saturating_add(1) };
        attempt.at = now;
        attempt.outcome = Some(outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(seen_ms: u64) -> Action {
        Action::AddInstances { template: 0, count: 1, seen: Duration::from_millis(seen_ms) }
    }

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn adding_instances_waits_for_a_view_asked_for_after_the_last_try() {
        let mut attempts = Attempts::new();
        assert!(is_due(&add(10), &attempts, at(20)));
        begin(&add(10), &mut attempts, at(20));
        assert!(!is_due(&add(30), &attempts, at(40)), "while it runs");
        end("scale", Outcome::Unknown("lost answer".into()), &mut attempts, at(50));
        assert!(!is_due(&add(45), &attempts, at(900)), "the view is older than the answer");
        assert!(is_due(&add(60), &attempts, at(900)));
    }

    #[test]
    fn failures_back_off_and_success_resets() {
        let action = Action::KillInstances { instances: vec![1], seen: at(1_000_000) };
        let mut attempts = Attempts::new();
        let mut now = at(0);
        for expected in [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000] {
            begin(&action, &mut attempts, now);
            end("scale", Outcome::Failed("x".into()), &mut attempts, now);
            assert!(!is_due(&action, &attempts, now + at(expected - 1)), "{expected}");
            assert!(is_due(&action, &attempts, now + at(expected)), "{expected}");
            now += at(expected);
        }
        begin(&action, &mut attempts, now);
        end("scale", Outcome::Done, &mut attempts, now);
        assert_eq!(attempts["scale"].failures, 0);
    }
}
