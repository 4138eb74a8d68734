//! What a change of master loses: estimated before, held against the budget, measured when the old master's copy is seen again.

use agent::record::{Member, Phase};

use super::{Recorded, View, copies, quorum};
use crate::model::{HistoryChange, Reason};
use crate::view::HistoryEntry;

/// Bytes of the stream that the master's last word was ahead of the winner; absent when they cannot be compared.
pub fn loss_bytes(view: View<'_>, record: Recorded<'_>, winner: &Member) -> Option<u64> {
    let word = view.seen.last_word.as_ref().filter(|w| record.record.master.as_ref().is_some_and(|m| m.run_id == w.run_id))?;
    let redis = record.agents(view).find(|(_, s)| s.task_id == winner.task_id).and_then(|(_, s)| s.redis.as_ref())?;
    (redis.replid == word.position.replid).then(|| word.position.offset.saturating_sub(redis.offset))
}

/// A loss beyond the budget waits for consent.
pub fn too_much_lost(view: View<'_>, record: Recorded<'_>, winner: &Member) -> Option<(Reason, String)> {
    let deposed = record.record.phase == Phase::Deposing && record.record.master.is_some();
    if !deposed || quorum::has_consent(view, record) {
        return None;
    }
    let budget = &view.spec.failover;
    let bytes = loss_bytes(view, record, winner).unwrap_or(0);
    let seconds = view.seen.current_as_of.get(&winner.run_id).map_or(0, |at| view.seen.phase_since.saturating_sub(*at).as_secs());
    let over = |limit: Option<u64>, loss: u64| limit.is_some_and(|limit| loss > limit);
    if !over(budget.max_loss_bytes, bytes) && !over(budget.max_loss_seconds, seconds) {
        return None;
    }
    let best = copies::ranked(view, record).first().map(super::choose::describe).unwrap_or_default();
    let message = format!(
        "the best copy is the {best}: {bytes} bytes and {seconds} s of writes would be lost, the budget is {} bytes and {} s. \
         To accept the loss: aurora-redis failover --consent {}",
        limit(budget.max_loss_bytes),
        limit(budget.max_loss_seconds),
        record.record.epoch
    );
    Some((Reason::LossBudget, message))
}

fn limit(limit: Option<u64>) -> String {
    limit.map_or_else(|| "any".into(), |limit| limit.to_string())
}

/// The loss of the last failover, once the same server that was deposed is seen again: it holds what its clients were told it holds.
pub fn measured(view: View<'_>, record: Recorded<'_>, history: &[HistoryEntry]) -> Option<HistoryChange> {
    let last = history.first().filter(|entry| entry.lost_bytes.is_none() && entry.epoch == record.record.epoch)?;
    let (from, position) = (last.from.as_ref()?, last.position.as_ref()?);
    let old = record.agents(view).map(|(_, s)| s).find(|s| s.task_id == from.task_id && !record.is_master(s))?;
    let redis = old.redis.as_ref().filter(|r| r.replid == position.replid && r.source != "replica" && r.answering)?;
    // Only a server that has not followed anybody since it led shows what it acknowledged.
    let untouched = old.assigned_epoch < record.record.epoch && !redis.syncing;
    untouched.then(|| HistoryChange::Measured { epoch: last.epoch, lost_bytes: redis.offset.saturating_sub(position.offset) })
}
