//! `executorConfig.data` of a Thermos job: parsed and checked, templates still in place. Pure.
//!
//! [`super::api`] refuses a job whose data [`parse`] refuses; [`super::executor`] runs what [`Job::bind`] makes of it.
//! Invariant: what would run differently here than under the real executor (unknown fields, rotated logs, a serverset
//! path of its own) is refused by name, never silently ignored. Fields that the real executor does not look at either
//! (`instances`, `update_config`, scheduler constraints, ...) may hold anything.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::template::{self, Binding};
use super::thermos_fields;

/// Why the executor data of a job was refused. The text names the field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not JSON, a missing field, a value of the wrong kind.
    #[error("executorConfig.data is not the JSON of a Thermos job: {0}")]
    Parse(String),
    /// A field that is not known, or whose value is not supported or does not fit the rest.
    #[error("executorConfig.data, field {field}: {problem}")]
    Field {
        /// Path of the field, such as `task.processes[0].cmdline`.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
}

pub(super) fn bad<T>(field: impl Into<String>, problem: impl Into<String>) -> Result<T, Error> {
    Err(Error::Field { field: field.into(), problem: problem.into() })
}

/// A Thermos job.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Job {
    role: Option<String>,
    environment: Option<String>,
    name: Option<String>,
    /// What runs.
    pub task: Task,
    /// Absent: the task is not announced.
    pub announce: Option<Announce>,
    /// How health is checked, if the task has a port named `health`.
    #[serde(default)]
    pub health_check_config: HealthConfig,
    #[serde(default)]
    lifecycle: Lifecycle,
}

/// The processes of a task and when it has failed.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Task {
    /// In the order of the job.
    pub processes: Vec<Process>,
    #[serde(default)]
    constraints: Vec<Order>,
    /// Failed processes that fail the task; 0: it never fails.
    #[serde(default = "one")]
    pub max_failures: u32,
    /// Processes that may run at once; 0: any number.
    #[serde(default)]
    pub max_concurrency: u32,
    #[serde(default = "thirty")]
    finalization_wait: f64,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Order {
    #[serde(default)]
    order: Vec<String>,
}

/// One process of a task, run as `/bin/bash -c cmdline`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Process {
    /// Unique within the task; name of its log directory.
    pub name: String,
    /// Shell text.
    pub cmdline: String,
    /// Failed runs until the process has failed; 0: no limit.
    #[serde(default = "one")]
    pub max_failures: u32,
    /// Run again after a success too.
    #[serde(default)]
    pub daemon: bool,
    /// Does not count when the end of the task is judged.
    #[serde(default)]
    pub ephemeral: bool,
    #[serde(default = "five")]
    min_duration: f64,
    /// Runs only after all others have ended.
    #[serde(default, rename = "final")]
    pub is_final: bool,
}

/// What is published in ZooKeeper.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Announce {
    /// Name of the port published as service endpoint.
    #[serde(default = "http")]
    pub primary_port: String,
    /// Further names: a number, the name of another port, or a template. Absent: `aurora` names the primary port.
    pub portmap: Option<BTreeMap<String, Value>>,
}

/// Timing and kind of the health checks.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct HealthConfig {
    initial_interval_secs: f64,
    interval_secs: f64,
    timeout_secs: f64,
    /// Failures in a row that are still forgiven.
    pub max_consecutive_failures: u32,
    /// Successes in a row until the task is RUNNING.
    pub min_consecutive_successes: u32,
    health_checker: Checker,
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self {
            initial_interval_secs: 15.0,
            interval_secs: 10.0,
            timeout_secs: 1.0,
            max_consecutive_failures: 0,
            min_consecutive_successes: 1,
            health_checker: Checker::default(),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Checker {
    http: HttpChecker,
    shell: Option<ShellChecker>,
}

/// `GET` on the port `health`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct HttpChecker {
    /// Path.
    pub endpoint: String,
    /// Whole body, compared trimmed and in lower case; empty: any.
    pub expected_response: String,
    /// Status code; 0: any.
    pub expected_response_code: u16,
}

impl Default for HttpChecker {
    fn default() -> Self {
        Self { endpoint: "/health".to_owned(), expected_response: "ok".to_owned(), expected_response_code: 0 }
    }
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct ShellChecker {
    shell_command: String,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Lifecycle {
    http: Option<HttpLifecycle>,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self { http: Some(HttpLifecycle::default()) }
    }
}

/// The HTTP calls made before a task is killed.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct HttpLifecycle {
    /// Name of the port.
    pub port: String,
    /// Path of the first call.
    pub graceful_shutdown_endpoint: String,
    /// Path of the second call.
    pub shutdown_endpoint: String,
    graceful_shutdown_wait_secs: f64,
    shutdown_wait_secs: f64,
}

impl Default for HttpLifecycle {
    fn default() -> Self {
        Self {
            port: "health".to_owned(),
            graceful_shutdown_endpoint: "/quitquitquit".to_owned(),
            shutdown_endpoint: "/abortabortabort".to_owned(),
            graceful_shutdown_wait_secs: 5.0,
            shutdown_wait_secs: 5.0,
        }
    }
}

fn one() -> u32 {
    1
}

fn five() -> f64 {
    5.0
}

fn thirty() -> f64 {
    30.0
}

fn http() -> String {
    "http".to_owned()
}

/// How one health check is made.
#[derive(Clone, Debug, PartialEq)]
pub enum HealthCheck {
    /// By HTTP on the task's loopback.
    Http(HttpChecker),
    /// By a command that exits with 0.
    Shell(String),
}

impl Process {
    /// Least time between the end of a run and the start of the next.
    pub fn min_duration(&self) -> Duration {
        seconds(self.min_duration)
    }
}

impl Task {
    /// Time that processes and final processes get at a natural end of the task.
    pub fn finalization_wait(&self) -> Duration {
        seconds(self.finalization_wait)
    }

    /// Names that must have succeeded before the process `name` runs.
    pub fn predecessors(&self, name: &str) -> BTreeSet<&str> {
        let mut found = BTreeSet::new();
        for constraint in &self.constraints {
            for pair in constraint.order.windows(2) {
                if pair[1] == name {
                    found.insert(pair[0].as_str());
                }
            }
        }
        found
    }
}

impl HealthConfig {
    /// Time in which failures are forgiven.
    pub fn initial_interval(&self) -> Duration {
        seconds(self.initial_interval_secs)
    }

    /// Time between checks.
    pub fn interval(&self) -> Duration {
        seconds(self.interval_secs)
    }

    /// Limit for one check.
    pub fn timeout(&self) -> Duration {
        seconds(self.timeout_secs)
    }

    /// Kind of check.
    pub fn check(&self) -> HealthCheck {
        match &self.health_checker.shell {
            Some(shell) => HealthCheck::Shell(shell.shell_command.clone()),
            None => HealthCheck::Http(self.health_checker.http.clone()),
        }
    }
}

impl HttpLifecycle {
    /// Wait after the first call, if it was answered.
    pub fn graceful_shutdown_wait(&self) -> Duration {
        seconds(self.graceful_shutdown_wait_secs)
    }

    /// Wait after the second call, if it was answered.
    pub fn shutdown_wait(&self) -> Duration {
        seconds(self.shutdown_wait_secs)
    }
}

impl Announce {
    /// Every published name with its port: `assigned` first, then what the portmap adds.
    /// A name that resolves to nothing is left out, as the real announcer does.
    pub fn endpoints(&self, assigned: &BTreeMap<String, u16>) -> BTreeMap<String, u16> {
        let default = BTreeMap::from([("aurora".to_owned(), Value::from(&*self.primary_port))]);
        let mut names: BTreeMap<String, Value> = self.portmap.clone().unwrap_or(default);
        names.extend(assigned.iter().map(|(name, port)| (name.clone(), Value::from(*port))));
        names.keys().filter_map(|name| Some((name.clone(), resolve(&names, name)?))).collect()
    }
}

/// Follows aliases to a number; at most as many steps as there are names, so that a cycle ends.
fn resolve(names: &BTreeMap<String, Value>, name: &str) -> Option<u16> {
    let mut value = names.get(name)?;
    for _ in 0..=names.len() {
        if let Some(number) = value.as_u64() {
            return u16::try_from(number).ok();
        }
        let text = value.as_str()?;
        if let Ok(number) = text.parse() {
            return Some(number);
        }
        value = names.get(text)?;
    }
    None
}

impl Job {
    /// Ports by name as health checks and lifecycle calls see them: the assigned ones and those of the announcer.
    pub fn resolved_ports(&self, assigned: &BTreeMap<String, u16>) -> BTreeMap<String, u16> {
        self.announce.as_ref().map_or_else(|| assigned.clone(), |announce| announce.endpoints(assigned))
    }

    /// The lifecycle calls, unless they are turned off.
    pub fn lifecycle(&self) -> Option<&HttpLifecycle> {
        self.lifecycle.http.as_ref()
    }

    /// The job with every template filled in. Errors name the field and the reference that has no value.
    pub fn bind(&self, binding: &Binding) -> Result<Job, Error> {
        let mut bound = self.clone();
        for (index, process) in bound.task.processes.iter_mut().enumerate() {
            let field = format!("task.processes[{index}].cmdline");
            process.cmdline = fill(&field, &process.cmdline, binding)?;
        }
        if let Some(shell) = &mut bound.health_check_config.health_checker.shell {
            let field = "health_check_config.health_checker.shell.shell_command";
            shell.shell_command = fill(field, &shell.shell_command, binding)?;
        }
        if let Some(announce) = &mut bound.announce {
            announce.primary_port = fill("announce.primary_port", &announce.primary_port, binding)?;
            for (name, value) in announce.portmap.iter_mut().flatten() {
                if let Some(text) = value.as_str() {
                    *value = Value::from(fill(&format!("announce.portmap.{name}"), text, binding)?);
                }
            }
        }
        Ok(bound)
    }
}

fn fill(field: &str, text: &str, binding: &Binding) -> Result<String, Error> {
    template::fill(text, binding).or_else(|unknown| bad(field, format!("the template {{{{{unknown}}}}} has no value here")))
}

/// Parses and checks executor data; see [`Error`].
pub fn parse(data: &str) -> Result<Job, Error> {
    let value: Value = serde_json::from_str(data).map_err(|error| Error::Parse(error.to_string()))?;
    thermos_fields::check(&value)?;
    let job: Job = serde_json::from_value(value).map_err(|e| Error::Parse(e.to_string()))?;
    check_processes(&job.task)?;
    check_times(&job)?;
    Ok(job)
}

impl Job {
    /// Refuses data that names another job than the one it was sent for.
    pub fn check_belongs_to(&self, role: &str, environment: &str, name: &str) -> Result<(), Error> {
        let pairs = [("role", &self.role, role), ("environment", &self.environment, environment), ("name", &self.name, name)];
        for (field, given, expected) in pairs {
            if given.as_deref().is_some_and(|given| given != expected) {
                return bad(field, format!("is {given:?}, but the job key says {expected:?}"));
            }
        }
        Ok(())
    }
}

fn check_processes(task: &Task) -> Result<(), Error> {
    if task.processes.is_empty() {
        return bad("task.processes", "is empty");
    }
    let mut by_name = BTreeMap::new();
    for (index, process) in task.processes.iter().enumerate() {
        let name = &process.name;
        let field = format!("task.processes[{index}].name");
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
            return bad(field, format!("{name:?} is not usable as a directory name"));
        }
        if by_name.insert(name.as_str(), process).is_some() {
            return bad(field, format!("{name:?} is used twice"));
        }
    }
    for (index, constraint) in task.constraints.iter().enumerate() {
        let field = format!("task.constraints[{index}].order");
        for name in &constraint.order {
            if !by_name.contains_key(name.as_str()) {
                return bad(field, format!("there is no process {name:?}"));
            }
        }
        for pair in constraint.order.windows(2) {
            let (before, after) = (by_name[&*pair[0]], by_name[&*pair[1]]);
            if before.daemon {
                return bad(field, format!("{:?} is a daemon and never ends", pair[0]));
            }
            if before.is_final != after.is_final {
                return bad(field, "final and other processes cannot be ordered");
            }
        }
    }
    check_cycles(task)
}

/// Removes processes without predecessors until none is left; what stays waits for itself.
fn check_cycles(task: &Task) -> Result<(), Error> {
    let mut left: BTreeSet<&str> = task.processes.iter().map(|p| p.name.as_str()).collect();
    loop {
        let free: Vec<&str> = left.iter().copied().filter(|name| task.predecessors(name).is_disjoint(&left)).collect();
        if free.is_empty() {
            break;
        }
        for name in free {
            left.remove(name);
        }
    }
    if left.is_empty() { Ok(()) } else { bad("task.constraints", format!("these processes wait for each other: {left:?}")) }
}

fn check_times(job: &Job) -> Result<(), Error> {
    let health = &job.health_check_config;
    if health.interval_secs <= 0.0 {
        return bad("health_check_config.interval_secs", "must be above 0");
    }
    let mut times = vec![
        ("health_check_config.initial_interval_secs", health.initial_interval_secs),
        ("health_check_config.interval_secs", health.interval_secs),
        ("health_check_config.timeout_secs", health.timeout_secs),
        ("task.finalization_wait", job.task.finalization_wait),
    ];
    if let Some(lifecycle) = job.lifecycle() {
        times.push(("lifecycle.http.graceful_shutdown_wait_secs", lifecycle.graceful_shutdown_wait_secs));
        times.push(("lifecycle.http.shutdown_wait_secs", lifecycle.shutdown_wait_secs));
    }
    let durations = job.task.processes.iter().map(|p| p.min_duration);
    times.extend(durations.map(|secs| ("task.processes[].min_duration", secs)));
    for (field, secs) in times {
        if !(0.0..=1e9).contains(&secs) {
            return bad(field, format!("{secs} is not a sensible number of seconds"));
        }
    }
    Ok(())
}

/// Checked by [`check_times`] before anything asks.
fn seconds(value: f64) -> Duration {
    Duration::from_secs_f64(value.clamp(0.0, 1e9))
}

#[cfg(test)]
#[path = "thermos_tests.rs"]
mod tests;
