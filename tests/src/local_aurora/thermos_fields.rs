//! Which fields each object of a Thermos job may have, so that a misspelt or unsupported one is refused with its path.
//! Pure; called by [`super::thermos::parse`] before the fields are read.

use serde_json::Value;

use super::thermos::{Error, bad};

const JOB: &[&str] = &[
    "announce",
    "cluster",
    "constraints",
    "contact",
    "container",
    "cron_collision_policy",
    "enable_hooks",
    "environment",
    "executor_config",
    "health_check_config",
    "instances",
    "lifecycle",
    "max_task_failures",
    "metadata",
    "name",
    "partition_policy",
    "priority",
    "production",
    "role",
    "service",
    "sla_policy",
    "task",
    "task_links",
    "tier",
    "update_config",
    "version",
];
const TASK: &[&str] =
    &["constraints", "finalization_wait", "max_concurrency", "max_failures", "name", "processes", "resources", "user"];
const PROCESS: &[&str] =
    &["cmdline", "daemon", "ephemeral", "final", "logger", "max_failures", "min_duration", "name", "resources"];
const HEALTH: &[&str] = &[
    "health_checker",
    "initial_interval_secs",
    "interval_secs",
    "max_consecutive_failures",
    "min_consecutive_successes",
    "timeout_secs",
];
const HTTP_CHECKER: &[&str] = &["endpoint", "expected_response", "expected_response_code"];
const LIFECYCLE: &[&str] =
    &["graceful_shutdown_endpoint", "graceful_shutdown_wait_secs", "port", "shutdown_endpoint", "shutdown_wait_secs"];

/// Walks the objects the executor reads.
pub fn check(job: &Value) -> Result<(), Error> {
    object("", job, JOB)?;
    each("task", job.get("task"), TASK)?;
    let task = job.get("task");
    list("task.processes", task, "processes", PROCESS)?;
    list("task.constraints", task, "constraints", &["order"])?;
    for (index, process) in items(task, "processes").enumerate() {
        logger(&format!("task.processes[{index}].logger"), process)?;
    }
    let announce = job.get("announce");
    if announce.and_then(|a| a.get("zk_path")).is_some() {
        return bad("announce.zk_path", "a serverset path of its own is not allowed by this executor");
    }
    each("announce", announce, &["portmap", "primary_port"])?;
    let health = job.get("health_check_config");
    each("health_check_config", health, HEALTH)?;
    let checker = health.and_then(|h| h.get("health_checker"));
    let path = "health_check_config.health_checker";
    each(path, checker, &["http", "shell"])?;
    let kind = |name| checker.and_then(|c| c.get(name));
    each(&format!("{path}.http"), kind("http"), HTTP_CHECKER)?;
    each(&format!("{path}.shell"), kind("shell"), &["shell_command"])?;
    let lifecycle = job.get("lifecycle");
    each("lifecycle", lifecycle, &["http"])?;
    each("lifecycle.http", lifecycle.and_then(|l| l.get("http")), LIFECYCLE)
}

/// Only plain log files are written here.
fn logger(path: &str, process: &Value) -> Result<(), Error> {
    let Some(logger) = process.get("logger") else {
        return Ok(());
    };
    object(path, logger, &["destination", "mode", "rotate"])?;
    for (field, only) in [("destination", "file"), ("mode", "standard")] {
        match logger.get(field).and_then(Value::as_str) {
            None => {}
            Some(value) if value == only => {}
            Some(value) => {
                return bad(format!("{path}.{field}"), format!("{value:?} is not supported, only {only:?}"));
            }
        }
    }
    Ok(())
}

fn items<'v>(parent: Option<&'v Value>, name: &str) -> impl Iterator<Item = &'v Value> {
    let list = parent.and_then(|p| p.get(name)).and_then(Value::as_array);
    list.into_iter().flatten()
}

fn list(path: &str, parent: Option<&Value>, name: &str, known: &[&str]) -> Result<(), Error> {
    for (index, item) in items(parent, name).enumerate() {
        object(&format!("{path}[{index}]"), item, known)?;
    }
    Ok(())
}

fn each(path: &str, value: Option<&Value>, known: &[&str]) -> Result<(), Error> {
    match value {
        None | Some(Value::Null) => Ok(()),
        Some(value) => object(path, value, known),
    }
}

fn object(path: &str, value: &Value, known: &[&str]) -> Result<(), Error> {
    let Some(object) = value.as_object() else {
        return bad(if path.is_empty() { "(top)" } else { path }, "is no object");
    };
    match object.keys().find(|key| !known.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => {
            let dot = if path.is_empty() { "" } else { "." };
            bad(format!("{path}{dot}{key}"), "is not known to this executor")
        }
    }
}
