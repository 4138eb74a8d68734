//! What is done by the clock: backups, verifications, rehearsals, each for the last slot of its schedule that has passed.
//!
//! Nothing is remembered here: what was done shows in the snapshots, in the agents and in the operation. So a controller that takes over does
//! nothing twice and leaves nothing out, and slots that were missed, however many, are made good by one.

use agent::snapshot::SnapshotId;

use super::{Recorded, View};
use crate::model::{Action, Plan, Reason};
use crate::operations::BACKUP_WITHIN_MS;
use crate::view::{Operation, OperationKind, SnapshotRow};

/// Who asks for what is due, and how the id of its backups begins; then come the slot (Unix time, milliseconds), `-`, and the try.
pub const OWNER: &str = "schedule";
/// Pause before a backup that failed is tried again, milliseconds.
const RETRY_MS: u64 = 600_000;
/// So long after its slot a verification or a rehearsal is overdue, milliseconds.
const OVERDUE_MS: u64 = 6 * 3_600_000;

/// Begins the backup that is due, when nothing else is in flight.
pub fn back_up(view: View<'_>, record: Recorded<'_>, plan: &mut Plan) {
    let Some(schedule) = &view.policy.backup else { return };
    let Some(rows) = &view.seen.store.snapshots else { return };
    let (now_ms, last) = (view.seen.wall_ms, view.seen.operation.as_ref());
    if last.is_some_and(|o| o.outcome.is_none() && o.deadline_ms > now_ms) {
        return;
    }
    let answered = record.agents(view).filter_map(|(_, s)| s.uploads.last_request_id.as_deref());
    let noted = last.filter(|o| o.outcome.as_ref().is_some_and(|outcome| outcome.starts_with("done"))).map(|o| o.id.as_str());
    let ids = rows.iter().filter_map(|row| row.request_id.as_deref()).chain(answered).chain(noted);
    let Some(slot) = schedule.due(now_ms, ids.filter_map(parse).map(|(slot, _)| slot)) else { return };
    let failed = record.agents(view).filter_map(|(_, s)| s.uploads.failed_request.as_ref().map(|(id, _)| id.as_str()));
    let tries = failed.chain(last.map(|o| o.id.as_str())).filter_map(parse).filter(|(of, _)| *of == slot);
    let tries = tries.map(|(_, n)| n).max().unwrap_or(0);
    if let Some(failed) = last.filter(|o| parse(&o.id).is_some_and(|(of, _)| of == slot)) {
        let outcome = failed.outcome.as_deref().unwrap_or("its time was over");
        plan.wait(Reason::BackupFailed, format!("the backup that schedule '{schedule}' asked for: {outcome}; it is tried again"));
        if now_ms < failed.started_ms.saturating_add(RETRY_MS) {
            return;
        }
    }
    let operation = Operation {
        id: format!("{OWNER}-{slot}-{}", tries.saturating_add(1)),
        kind: OperationKind::Backup { how: view.spec.snapshots_how },
        owner: OWNER.into(),
        epoch: record.record.epoch,
        step: "begun".into(),
        started_ms: now_ms,
        deadline_ms: now_ms.saturating_add(BACKUP_WITHIN_MS),
        outcome: None,
        cause: String::new(),
        steps: Vec::new(),
    };
    let because = format!("a backup is due by the schedule '{schedule}', for {}", agent::snapshot::utc_text(slot));
    plan.act(Action::SetOperation { operation: Box::new(operation) }, because);
}

/// Slot and try of a scheduled backup's id; none for any other.
fn parse(id: &str) -> Option<(u64, u32)> {
    let (slot, n) = id.strip_prefix(OWNER)?.strip_prefix('-')?.split_once('-')?;
    Some((slot.parse().ok()?, n.parse().ok()?))
}

/// Has the newest snapshot verified, or a restore rehearsed, when that is due; says so when it has not come about for long.
pub fn examine(view: View<'_>, plan: &mut Plan) {
    let Some(rows) = &view.seen.store.snapshots else { return };
    let good: Vec<&SnapshotRow> = rows.iter().filter(|row| row.good).collect();
    let Some(best) = good.first() else { return };
    let now_ms = view.seen.wall_ms;
    // One that was found bad is no success: the next best one is looked at then.
    let at = |of: fn(&SnapshotRow) -> Option<u64>| rows.iter().filter_map(of);
    let verified = at(|row| row.verification.as_ref().filter(|v| v.problem.is_none()).map(|v| v.at_ms));
    let rehearsed = at(|row| row.rehearsal.as_ref().map(|v| v.at_ms));
    if let Some(schedule) = &view.policy.verify
        && let Some(slot) = schedule.due(now_ms, verified)
    {
        overdue("verified", slot, now_ms, Reason::VerificationOverdue, plan);
        plan.act(Action::VerifySnapshot { id: best.id.clone() }, format!("a verification is due by the schedule '{schedule}'"));
    }
    if let Some(schedule) = &view.policy.rehearse
        && let Some(slot) = schedule.due(now_ms, rehearsed)
    {
        overdue("restored in a rehearsal", slot, now_ms, Reason::RehearsalOverdue, plan);
        let order: Vec<SnapshotId> = good.iter().map(|row| row.id.clone()).collect();
        plan.act(Action::Rehearse { order }, format!("a rehearsal is due by the schedule '{schedule}'"));
    }
}

fn overdue(what: &str, slot: u64, now_ms: u64, reason: Reason, plan: &mut Plan) {
    if now_ms.saturating_sub(slot) >= OVERDUE_MS {
        let since = agent::snapshot::utc_text(slot);
        plan.wait(reason, format!("no snapshot has been {what} since {since}, when it was due; the events tell why"));
    }
}
