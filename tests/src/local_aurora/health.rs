//! Health checks of one task: when it counts as running and when as failed. The judgement is pure ([`Judge`]).
//!
//! [`super::executor`] runs [`watch`] beside the task's processes. The calls go to `localhost`, made on the task's host.

use std::path::Path;
use std::time::Duration;

use tokio::sync::mpsc;

use super::on_host::{Answer, Method, OnHost};
use super::process::Family;
use super::runner::Place;
use super::thermos::{HealthCheck, HealthConfig, HttpChecker};

/// What the checks say of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// For the first time there were enough successes in a row.
    Running,
    /// The task has failed, with the reason of the last failure.
    Failed(String),
}

/// Counts results and judges.
#[derive(Clone, Debug)]
pub struct Judge {
    forgiven_attempts: u32,
    max_failures: u32,
    min_successes: u32,
    attempts: u32,
    failures: u32,
    successes: u32,
    running: bool,
}

impl Judge {
    /// Nothing checked yet.
    pub fn new(config: &HealthConfig) -> Self {
        let ratio = config.initial_interval().as_secs_f64() / config.interval().as_secs_f64();
        Self {
            // Small enough to be exact: both times were checked to be sensible.
            forgiven_attempts: ratio.ceil().clamp(0.0, 1e9) as u32,
            max_failures: config.max_consecutive_failures,
            min_successes: config.min_consecutive_successes.max(1),
            attempts: 0,
            failures: 0,
            successes: 0,
            running: false,
        }
    }

    /// Notes one result. `None`: nothing changes by it.
    pub fn judge(&mut self, result: Result<(), String>) -> Option<Verdict> {
        self.attempts = self.attempts.saturating_add(1);
        let reason = match result {
            Ok(()) => {
                self.failures = 0;
                self.successes += 1;
                String::new()
            }
            Err(reason) => {
                self.successes = 0;
                self.failures += 1;
                reason
            }
        };
        let failed = || Some(Verdict::Failed(format!("Failed health check! {reason}")));
        if self.running {
            return (self.failures > self.max_failures).then(failed)?;
        }
        if self.successes >= self.min_successes {
            self.running = true;
            return Some(Verdict::Running);
        }
        let most = self.forgiven_attempts + self.max_failures + self.min_successes;
        (self.attempts >= most).then(failed)?
    }
}

/// Whether an answer is a good one. A status other than 2xx counts as an empty body.
pub fn examine(checker: &HttpChecker, answer: &Answer) -> Result<(), String> {
    let body = match answer.status {
        200..=299 => answer.body.trim().to_lowercase(),
        _ => String::new(),
    };
    let expected = checker.expected_response.trim().to_lowercase();
    if !expected.is_empty() && body != expected {
        let shown: String = body.chars().take(100).collect();
        return Err(format!(
            "Response differs from expected response (expected {expected:?}, got {shown:?}, status {})",
            answer.status
        ));
    }
    match checker.expected_response_code {
        0 => Ok(()),
        code if code == answer.status => Ok(()),
        code => Err(format!("Response code differs from expected response (expected {code}, got {})", answer.status)),
    }
}

/// Checks until the task has failed or the receiver is gone: at once, then in every interval.
pub async fn watch(config: HealthConfig, port: Option<u16>, place: Place, on_host: OnHost, verdicts: mpsc::Sender<Verdict>) {
    let mut judge = Judge::new(&config);
    let mut ticks = tokio::time::interval(config.interval());
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let result = check(&config, port, &place, &on_host).await;
        if let Err(reason) = &result {
            tracing::debug!(sandbox = %place.sandbox.display(), reason, "health check failed");
        }
        if let Some(verdict) = judge.judge(result) {
            let last = matches!(verdict, Verdict::Failed(_));
            if verdicts.send(verdict).await.is_err() || last {
                return;
            }
        }
    }
}

async fn check(config: &HealthConfig, port: Option<u16>, place: &Place, on_host: &OnHost) -> Result<(), String> {
    if snoozed(&place.sandbox) {
        return Ok(());
    }
    match (config.check(), port) {
        (HealthCheck::Shell(text), _) => shell(&text, config.timeout(), place, on_host).await,
        (HealthCheck::Http(checker), Some(port)) => {
            let (path, timeout) = (&checker.endpoint, config.timeout());
            let call = on_host.http(&place.host, Method::Get, port, path, timeout);
            let answer = call.await.map_err(|error| error.to_string())?;
            examine(&checker, &answer)
        }
        (HealthCheck::Http(_), None) => Ok(()),
    }
}

fn snoozed(sandbox: &Path) -> bool {
    sandbox.join(".healthchecksnooze").exists()
}

async fn shell(text: &str, timeout: Duration, place: &Place, on_host: &OnHost) -> Result<(), String> {
    let mut command = place.shell(text);
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let child = on_host.spawner.spawn(command).await;
    let mut child = child.map_err(|error| format!("health check did not start: {error}"))?;
    let leader = child.id();
    match tokio::time::timeout(timeout, child.wait()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("{text:?} ended with {status}")),
        Ok(Err(error)) => Err(format!("{text:?} was lost: {error}")),
        Err(_) => {
            let family = Family { leaders: leader.into_iter().collect(), home: "/nonexistent".into() };
            let _ = tokio::task::spawn_blocking(move || family.kill()).await;
            let _ = child.wait().await;
            Err(format!("{text:?} did not end within {timeout:?}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn config(value: Value) -> HealthConfig {
        serde_json::from_value(value).unwrap()
    }

    fn verdicts(config: &HealthConfig, results: &str) -> Vec<Option<Verdict>> {
        let mut judge = Judge::new(config);
        let result = |c| if c == '+' { Ok(()) } else { Err("no".to_owned()) };
        results.chars().map(|c| judge.judge(result(c))).collect()
    }

    fn failed() -> Option<Verdict> {
        Some(Verdict::Failed("Failed health check! no".to_owned()))
    }

    #[test]
    fn the_first_success_makes_it_running_once() {
        let found = verdicts(&config(json!({})), "+++");
        assert_eq!(found, [Some(Verdict::Running), None, None]);
    }

    #[test]
    fn failures_are_forgiven_at_first_but_not_for_ever() {
        // ceil(15/10) + 0 + 1 = 3 attempts.
        assert_eq!(verdicts(&config(json!({})), "--+"), [None, None, Some(Verdict::Running)]);
        assert_eq!(verdicts(&config(json!({})), "---"), [None, None, failed()]);
    }

    #[test]
    fn by_default_one_failure_kills_a_running_task() {
        assert_eq!(verdicts(&config(json!({})), "+-")[1], failed());
    }

    #[test]
    fn only_failures_in_a_row_count() {
        let config = config(json!({"max_consecutive_failures": 2}));
        let found = verdicts(&config, "+--+---");
        assert_eq!(found[..6], [Some(Verdict::Running), None, None, None, None, None]);
        assert_eq!(found[6], failed());
    }

    #[test]
    fn successes_have_to_be_in_a_row_too() {
        let config = config(json!({"min_consecutive_successes": 2, "initial_interval_secs": 60}));
        let found = verdicts(&config, "+-++");
        assert_eq!(found, [None, None, None, Some(Verdict::Running)]);
    }

    #[test]
    fn answers_are_compared_whole_trimmed_and_in_lower_case() {
        let checker = HttpChecker::default();
        let answer = |status, body: &str| Answer { status, body: body.to_owned() };
        assert!(examine(&checker, &answer(200, " OK\n")).is_ok());
        assert!(examine(&checker, &answer(200, "ok then")).is_err());
        assert!(examine(&checker, &answer(500, "ok")).is_err());
        let code = HttpChecker { expected_response: String::new(), expected_response_code: 204, ..HttpChecker::default() };
        assert!(examine(&code, &answer(204, "anything")).is_ok());
        assert!(examine(&code, &answer(200, "anything")).is_err());
    }
}
