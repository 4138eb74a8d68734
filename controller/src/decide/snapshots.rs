//! The latest good snapshot stands in the record, and a backup that somebody asked for, or the clock, is made.

use agent::api::{Order, State};
use agent::record::Record;

use super::{Recorded, View, clock, replicas};
use crate::model::{Action, Plan, Reason};
use crate::view::{Operation, OperationKind};

/// Keeps the record's snapshot and the backup in flight.
pub fn keep(view: View<'_>, record: Recorded<'_>, plan: &mut Plan) {
    report_unusable(view, plan);
    report_suspicious(view, plan);
    clock::back_up(view, record, plan);
    clock::examine(view, plan);
    back_up(view, record, plan);
    let latest = view.seen.store.snapshots.iter().flatten().find(|row| row.good).map(|row| row.id.clone());
    let busy = plan.actions.iter().any(|p| !matches!(p.action, Action::VerifySnapshot { .. } | Action::Rehearse { .. }));
    if !busy && latest.is_some() && latest != record.record.snapshot {
        let because = format!("snapshot {} is the latest good one", latest.as_ref().map(ToString::to_string).unwrap_or_default());
        plan.act(record.commit(Record { snapshot: latest, ..record.record.clone() }), because);
    }
}

fn report_unusable(view: View<'_>, plan: &mut Plan) {
    for row in view.seen.store.snapshots.iter().flatten().filter(|row| !row.can_be_named()) {
        let problem = row.problem.as_deref().unwrap_or("unknown");
        plan.wait(Reason::SnapshotUnusable, format!("snapshot {}: {problem}; the one before it would be used", row.id));
    }
}

/// What holds so little that it is not used by itself: the best of them, and how to go on.
pub fn report_suspicious(view: View<'_>, plan: &mut Plan) {
    let mut suspicious = view.seen.store.snapshots.iter().flatten().filter(|row| row.suspicious);
    let Some(row) = suspicious.next() else { return };
    let more = match suspicious.count() {
        0 => String::new(),
        n => format!(" ({n} more are)"),
    };
    let problem = row.problem.as_deref().unwrap_or("suspicious");
    let message = format!(
        "snapshot {}: {problem}{more}; the last one before it is used instead. If the data is meant to be like this: aurora-redis snapshots accept {}",
        row.id, row.id
    );
    plan.wait(Reason::SnapshotSuspicious, message);
}

/// Has the backup source make the dump, and ends the operation when the snapshot is committed, or cannot be.
fn back_up(view: View<'_>, record: Recorded<'_>, plan: &mut Plan) {
    let Some(operation) = view.seen.operation.as_ref().filter(|o| o.outcome.is_none()) else { return };
    let OperationKind::Backup { how } = operation.kind else { return };
    let end = |outcome: String, because: &str, plan: &mut Plan| {
        let operation = Operation { outcome: Some(outcome), step: "ended".into(), ..operation.clone() };
        plan.act(Action::SetOperation { operation: Box::new(operation) }, because);
    };
    let answered = record.agents(view).map(|(_, s)| s).find(|s| s.uploads.last_request_id.as_ref() == Some(&operation.id));
    if let Some(state) = answered {
        let id = state.uploads.last_request_snapshot.as_ref().map(ToString::to_string).unwrap_or_default();
        return end(format!("done: snapshot {id}"), "the snapshot is committed", plan);
    }
    let failure = |s: &State| s.uploads.failed_request.clone().filter(|(id, _)| *id == operation.id).map(|(_, why)| why);
    if let Some(why) = record.agents(view).find_map(|(_, s)| failure(s)) {
        return end(format!("failed: {why}"), "the agent could not make it", plan);
    }
    if view.seen.wall_ms > operation.deadline_ms {
        return end("failed: not committed within its time; see the upload errors in status".into(), "its time is over", plan);
    }
    let Some(master) = record.serving_master(view) else { return };
    let source = replicas::backup_source(view, record, master);
    if let Some((agent, state)) = record.agents(view).find(|(_, s)| s.task_id == source && s.redis.is_some()) {
        let order = Order::Backup { request_id: operation.id.clone(), how };
        plan.act(record.command(agent, state, order), format!("{} asked for a backup", operation.owner));
    }
}
