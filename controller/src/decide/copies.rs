//! Copies of the dataset and their order: which one is the newest.
//!
//! Offsets compare only within one history (replid). The record's lineage gives each history its epoch, so the order is: epoch of the
//! history, then offset within it, then (equal data) what needs the least work, then who has not just failed to open, then time.

use agent::api::{ORIGIN, Position, State};
use agent::record::{Member, Phase, Record};
use agent::snapshot::SnapshotId;

use super::{Recorded, View, choose, migrate};
use crate::model::{Copy, Holder, Observed, member};
use crate::view::OperationKind;

/// Every complete copy that can be used, best first.
pub fn ranked(view: View<'_>, record: Recorded<'_>) -> Vec<Copy> {
    let mut copies = live(view, record);
    copies.extend(local(view, record));
    copies.extend(stored(view.seen, record.record));
    let unfit = |member: &Member| view.seen.unfit.contains(&member.run_id) || barred(view, record, member).is_some();
    let fit = |holder: &Holder| !matches!(holder, Holder::Live { member } if unfit(member));
    let planned = |holder: &Holder| match (choose::planned(view), holder) {
        (Some(to), Holder::Live { member }) => is_wanted(record, to, member),
        _ => false,
    };
    copies.sort_by_key(|c| {
        let (holder, place) = (&c.holder, (c.epoch, c.offset));
        std::cmp::Reverse((place, effort(holder), fit(holder), planned(holder), c.created_ms, preference(holder)))
    });
    copies
}

/// Why this member's agent would not have it lead; absent when nothing speaks against it.
pub fn barred(view: View<'_>, record: Recorded<'_>, member: &Member) -> Option<String> {
    record.agents(view).map(|(_, s)| s).find(|s| s.task_id == member.task_id)?.cannot_lead.clone()
}

/// Whether a member is the target of a planned change: the one named, else whoever has not led before.
fn is_wanted(record: Recorded<'_>, to: Option<u32>, member: &Member) -> bool {
    let deposed = record.record.master.as_ref().is_some_and(|m| m.run_id == member.run_id);
    to.map_or(!deposed, |wanted| wanted == member.instance)
}

/// Of equal data, what is running beats what must be loaded, and that beats what must be fetched.
fn effort(holder: &Holder) -> u8 {
    match holder {
        Holder::Live { .. } => 2,
        Holder::Local { .. } => 1,
        Holder::Snapshot { .. } => 0,
    }
}

/// Of equal servers, the lowest instance.
fn preference(holder: &Holder) -> u32 {
    match holder {
        Holder::Live { member } => u32::MAX - member.instance,
        Holder::Local { instance, .. } => u32::MAX - instance,
        Holder::Snapshot { .. } => 0,
    }
}

/// Servers that hold a complete copy: cut off for this epoch, or started closed for it.
fn live(view: View<'_>, record: Recorded<'_>) -> Vec<Copy> {
    record
        .agents(view)
        .filter_map(|(_, state)| {
            let redis = state.redis.as_ref()?;
            let cut = state.fenced_epoch == Some(record.record.epoch);
            if !redis.answering
                || redis.loading
                || redis.syncing
                || state.stopping
                || !(cut || is_started_for(state, record.record))
            {
                return None;
            }
            let (epoch, offset) = place(state, record.record)?;
            Some(Copy { holder: Holder::Live { member: Box::new(member(state)?) }, epoch, offset, created_ms: 0 })
        })
        .collect()
}

/// Whether a server was started closed for the present epoch from a chosen source, and not assigned since.
pub fn is_started_for(state: &State, record: &Record) -> bool {
    state.redis.as_ref().is_some_and(|r| {
        let chosen = !r.source.is_empty() && r.source != "replica" && !r.source.starts_with(ORIGIN);
        r.started_epoch == record.epoch && chosen && state.assigned_epoch < record.epoch
    })
}

/// Where a server's data stands in the lineage: (epoch of its history, offset in it); absent for a foreign history, and for what was replaced by a
/// snapshot, unless it was started from it on purpose.
pub fn place(state: &State, record: &Record) -> Option<(u64, u64)> {
    let redis = state.redis.as_ref().filter(|_| !migrate::is_copy(state, record))?;
    let (replid, offset) = match (&redis.replid2, redis.replid2_end) {
        (Some(replid2), Some(end)) if record.history_at(&redis.replid, redis.offset).is_none() => {
            (replid2, end.saturating_sub(1))
        }
        _ => (&redis.replid, redis.offset),
    };
    let place = placed(state, record)?;
    // Started again from what the present data began with.
    let begun = record
        .restored
        .as_ref()
        .filter(|restored| redis.source == format!("snapshot:{}", restored.snapshot) && redis.started_epoch >= restored.epoch);
    if let Some(restored) = begun.filter(|restored| place.0 < restored.epoch) {
        return Some((restored.epoch, 0));
    }
    let replaced = record.is_replaced(Some((replid, offset)), place.0) && !is_started_for(state, record);
    (!replaced).then_some(place)
}

fn placed(state: &State, record: &Record) -> Option<(u64, u64)> {
    let redis = state.redis.as_ref()?;
    if let Some(at) = record.history_at(&redis.replid, redis.offset) {
        return Some((record.histories[at].epoch, redis.offset));
    }
    // A server that was promoted, or started from a dump, carries its origin as the second history.
    if let (Some(replid2), Some(end)) = (&redis.replid2, redis.replid2_end)
        && let Some(epoch) = record.epoch_of(replid2)
    {
        return Some((epoch, end.saturating_sub(1)));
    }
    // A record made anew knows no history: the epoch of a server's last assignment says whose data it holds.
    let anew = record.histories.is_empty() && !is_started_for(state, record);
    if anew && state.assigned_epoch > 0 && redis.keys > 0 && redis.offset > 0 {
        return Some((state.assigned_epoch, redis.offset));
    }
    // Nor does it know a server that was started from a copy for an earlier epoch and assigned to nothing: it comes after all that is known.
    if anew && redis.keys > 0 && redis.offset > 0 {
        return Some((0, redis.offset));
    }
    // Started for this epoch from a history that the lineage does not know (its master died before it was settled): it stands where its
    // source stood when it was chosen.
    is_started_for(state, record).then(|| match redis.source.strip_prefix("snapshot:").map(str::parse::<SnapshotId>) {
        Some(Ok(id)) => (id.epoch(), id.offset()),
        _ if redis.source == "empty" => (0, 0),
        _ => (record.epoch.saturating_sub(1), redis.offset),
    })
}

/// Dumps in the sandboxes of idle agents.
fn local(view: View<'_>, record: Recorded<'_>) -> Vec<Copy> {
    record
        .agents(view)
        .filter(|(_, state)| state.redis.is_none() && !state.stopping)
        .filter_map(|(agent, state)| {
            let dump = state.local.as_ref()?;
            if view.seen.unusable.contains(&format!("local:{}", dump.sha256)) {
                return None;
            }
            let (epoch, offset) = origin(dump.position.as_ref(), dump.epoch, record.record);
            if is_replaced(dump.position.as_ref(), epoch, record.record) {
                return None;
            }
            let holder = Holder::Local { agent: agent.address.clone(), instance: state.instance, sha256: dump.sha256.clone() };
            Some(Copy { holder, epoch, offset, created_ms: dump.created_s * 1000 })
        })
        .collect()
}

/// Good snapshots in the store; one that is suspicious or was imported, if somebody named it. What was imported is also what a cluster may begin with.
fn stored(seen: &Observed, record: &Record) -> Vec<Copy> {
    let named = seen.operation.as_ref().filter(|o| o.outcome.is_none()).and_then(|o| match &o.kind {
        OperationKind::Restore { snapshot, .. } => snapshot.as_ref(),
        OperationKind::Replace { snapshot, .. } => Some(snapshot),
        _ => None,
    });
    let base = record.restored.as_ref();
    seen.store
        .snapshots
        .iter()
        .flatten()
        .filter(|row| {
            row.good || (row.can_be_named() && named == Some(&row.id)) || (row.is_import() && begins_with(record, &row.id))
        })
        .filter(|row| !seen.unusable.contains(&format!("snapshot:{}", row.id)))
        .filter_map(|row| {
            let (epoch, offset) = origin(row.position.as_ref(), row.epoch, record);
            // What the present data began with stands at its beginning.
            let begun = base.filter(|restored| restored.snapshot == row.id).map(|restored| (restored.epoch, 0));
            let replaced = is_replaced(row.position.as_ref(), epoch, record) && named != Some(&row.id);
            let (epoch, offset) = begun.or((!replaced).then_some((epoch, offset)))?;
            let created_ms = row.imported.as_ref().map_or(row.created_ms, |imported| imported.at_ms);
            Some(Copy { holder: Holder::Snapshot { id: row.id.clone() }, epoch, offset, created_ms })
        })
        .collect()
}

/// Whether a cluster that has no data of its own may begin with this imported snapshot: it has had no master yet, or began with it before.
pub fn begins_with(record: &Record, snapshot: &SnapshotId) -> bool {
    !record.initialised || record.restored.as_ref().is_some_and(|restored| restored.snapshot == *snapshot)
}

fn is_replaced(position: Option<&Position>, epoch: u64, record: &Record) -> bool {
    record.is_replaced(position.map(|p| (p.replid.as_str(), p.offset)), epoch)
}

/// The lineage's word on a history, else what the copy says of itself.
fn origin(position: Option<&Position>, own_epoch: u64, record: &Record) -> (u64, u64) {
    match position {
        Some(p) => {
            let known = record.history_at(&p.replid, p.offset).map(|at| record.histories[at].epoch);
            (known.unwrap_or(own_epoch), p.offset)
        }
        None => (own_epoch, 0),
    }
}

/// Who would take over if the master died now, and how many bytes behind it is; absent without a replica in sync.
pub fn forecast(view: View<'_>, record: Recorded<'_>) -> Option<(u32, u64)> {
    if record.record.phase != Phase::Stable {
        return None;
    }
    let master = record.serving_master(view)?.redis.as_ref()?;
    record
        .agents(view)
        .filter(|(_, s)| !record.is_master(s))
        .filter_map(|(_, s)| s.redis.as_ref().map(|r| (s.instance, r)))
        .filter(|(_, r)| r.answering && !r.loading && !r.syncing && r.replid == master.replid)
        .min_by_key(|(instance, r)| (std::cmp::Reverse(r.offset), *instance))
        .map(|(instance, r)| (instance, master.offset.saturating_sub(r.offset)))
}
