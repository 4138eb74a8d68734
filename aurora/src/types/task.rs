//! Tasks: the runs of a job's instances.

use std::collections::BTreeMap;

use super::{ScheduleStatus, TaskConfig};

/// One run of an instance, with its history.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScheduledTask {
    /// Who it is and where it runs.
    pub assigned_task: AssignedTask,
    /// Where it stands now.
    pub status: ScheduleStatus,
    /// Failures of this instance so far, earlier runs included.
    pub failure_count: i32,
    /// How it came here, oldest first.
    pub task_events: Vec<TaskEvent>,
    /// The task that this one replaces; absent for the first of its instance.
    pub ancestor_id: Option<String>,
    /// How often its host was unreachable.
    pub times_partitioned: i32,
}

/// The identity of a task, and its place once it has one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AssignedTask {
    /// Opaque and unique: a replacement has another one.
    pub task_id: String,
    /// Mesos' id of the host; absent before ASSIGNED.
    pub slave_id: Option<String>,
    /// Host name as Mesos knows it; absent before ASSIGNED.
    pub slave_host: Option<String>,
    /// The config that this task runs with.
    pub task: TaskConfig,
    /// Port by name; empty before ASSIGNED. A replacement gets other ports.
    pub assigned_ports: BTreeMap<String, i32>,
    /// The instance of the job, from 0.
    pub instance_id: i32,
}

/// One change of a task's status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskEvent {
    /// Unix time in milliseconds.
    pub timestamp: i64,
    /// The new status.
    pub status: ScheduleStatus,
    /// Why, when somebody said so.
    pub message: Option<String>,
    /// Host name of the scheduler that wrote the event.
    pub scheduler: Option<String>,
}
