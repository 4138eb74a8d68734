//! A task as the API and coordinators see it.

use aurora::types::{AssignedTask, ScheduledTask};

use super::state::Task;

/// The task with its history.
pub fn scheduled(task: &Task) -> ScheduledTask {
    let place = task.assigned_place();
    let ports = place.map(|place| place.ports.iter().map(|(name, port)| (name.clone(), i32::from(*port))).collect());
    ScheduledTask {
        assigned_task: AssignedTask {
            task_id: task.id.clone(),
            slave_id: place.map(|place| place.host.clone()),
            slave_host: place.map(|place| place.address.clone()),
            task: (*task.config).clone(),
            assigned_ports: ports.unwrap_or_default(),
            instance_id: task.instance,
        },
        status: task.status,
        failure_count: task.failures,
        task_events: task.events.clone(),
        ancestor_id: task.ancestor.clone(),
        times_partitioned: 0,
    }
}
