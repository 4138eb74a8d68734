//! The number of instances follows the spec, through the scheduler. The master is never removed, and a job that is gone is never made again.

use agent::record::Phase;

use super::{Recorded, View};
use crate::model::{Action, Plan, Reason, TaskView};

/// Adds or removes instances.
pub fn scale(view: View<'_>, record: Recorded<'_>, plan: &mut Plan) {
    let Some(tasks) = &view.seen.scheduler.tasks else { return };
    let (have, want) = (tasks.len(), view.spec.instances as usize);
    if tasks.is_empty() {
        plan.wait(Reason::JobGone, "the job has no active task; the controller never makes it again: aurora-redis create");
        return;
    }
    let pending = tasks.iter().filter(|t| matches!(t.status.as_str(), "PENDING" | "THROTTLED")).count();
    if pending > 0 {
        plan.wait(Reason::InstancesPending, format!("{pending} instance(s) wait for a place: aurora's pending reason tells why"));
    }
    restart_zombie(view, record, tasks, plan);
    if have == want || record.record.phase != Phase::Stable {
        return;
    }
    if view.seen.scheduler.updating {
        plan.wait(Reason::JobUpdating, format!("{have} instances, {want} wanted; an active job update locks changes out"));
        return;
    }
    let seen = view.seen.scheduler.asked;
    if have < want {
        let template = tasks.iter().find(|t| t.status == "RUNNING").unwrap_or(&tasks[0]).instance;
        let count = (want - have) as u32;
        plan.act(Action::AddInstances { template, count, seen }, format!("{have} instances, {want} wanted"));
        return;
    }
    let master = record.record.master.as_ref().map(|m| m.instance);
    let mut removable: Vec<u32> = tasks.iter().filter(|t| t.status != "KILLING").map(|t| t.instance).collect();
    let killing = have - removable.len();
    removable.retain(|i| Some(*i) != master);
    removable.sort_unstable_by(|a, b| b.cmp(a));
    removable.truncate((have - want).saturating_sub(killing));
    if !removable.is_empty() {
        plan.act(
            Action::KillInstances { instances: removable, seen },
            format!("{have} instances, {want} wanted: the highest that are not the master go"),
        );
    }
}

/// A running task whose agent has long been silent is restarted, one at a time. Not while nobody is heard: then it is we who are cut off.
fn restart_zombie(view: View<'_>, record: Recorded<'_>, tasks: &[TaskView], plan: &mut Plan) {
    if record.agents(view).next().is_none() {
        return;
    }
    let silent_for = |task: &TaskView| view.seen.silent_since.get(&task.task_id).map(|since| view.now.saturating_sub(*since));
    let zombie = tasks
        .iter()
        .filter(|t| t.status == "RUNNING")
        .find(|t| silent_for(t).is_some_and(|silence| silence >= view.timing.zombie_after));
    if let Some(task) = zombie {
        plan.act(
            Action::RestartInstance { instance: task.instance, seen: view.seen.scheduler.asked },
            format!("task {} runs and its agent has been silent for {:?}", task.task_id, silent_for(task).unwrap_or_default()),
        );
    }
}
