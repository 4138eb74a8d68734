//! A restore into a cluster that serves: its data is saved, then replaced by what a snapshot holds.
//!
//! One instance fetches and judges the snapshot while the master serves ([`advance`]). Then the master is deposed and fenced, so that nothing more
//! is written, and its own copy, which holds everything that was ever acknowledged, is saved to the store ([`hold_back`]). Only then that
//! instance loads the snapshot, closed ([`start`]), and [`super::choose`] names it; with that commit the record says that whatever was before is
//! replaced, and no copy of it can lead any more. Until that commit everything that goes wrong calls the restore off, and the best
//! copy, which is the present data, leads again.

use agent::api::{Order, Redis, State};
use agent::record::{History, Record, Restored};
use agent::snapshot::{How, SnapshotId};

use super::{Recorded, View, choose, copies, depose};
use crate::model::{Action, AgentView, Observed, Plan, Reason};
use crate::view::{Operation, OperationKind, Step};

/// Longest time of the whole operation, milliseconds.
pub const WITHIN_MS: u64 = 6 * 3_600_000;
/// Longest time that saving may take, while nobody can write, milliseconds.
const SAVE_WITHIN_MS: u64 = 3_600_000;
/// Longest time that loading may take, while nobody can write, milliseconds.
const LOAD_WITHIN_MS: u64 = 2 * 3_600_000;
/// How often the server that loads may die. The one that made room for it counts as well.
const DEATHS: usize = 3;
/// What the operation's step is called that notes where the present data is saved.
const SAVED: &str = "saved";

/// The operation in flight.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    operation: &'a Operation,
    /// What the data is to be.
    pub snapshot: &'a SnapshotId,
    loader: u32,
    saved: Option<&'a SnapshotId>,
}

/// The restore in flight; none when there is none, or when it has come to where there is no way back.
pub fn wish<'a>(seen: &'a Observed, record: &Record) -> Option<Wish<'a>> {
    let wish = running(seen)?;
    let named = record.restored.as_ref().is_some_and(|restored| restored.epoch > wish.operation.epoch);
    (!named).then_some(wish)
}

fn running(seen: &Observed) -> Option<Wish<'_>> {
    let operation = seen.operation.as_ref().filter(|o| o.outcome.is_none())?;
    match &operation.kind {
        OperationKind::Replace { snapshot, loader, saved } => {
            Some(Wish { operation, snapshot, loader: *loader, saved: saved.as_ref() })
        }
        _ => None,
    }
}

impl Wish<'_> {
    fn source(self) -> String {
        format!("snapshot:{}", self.snapshot)
    }

    fn is_late(self, view: View<'_>, step: &str, within_ms: u64) -> bool {
        let since = self.operation.steps.iter().rev().find(|s| s.name == step).map_or(self.operation.started_ms, |s| s.at_ms);
        let now = view.seen.wall_ms;
        now > since.saturating_add(within_ms) || now > self.operation.deadline_ms
    }
}

/// While the master serves: has the snapshot fetched and judged where it is to be loaded, and then deposes the master. Says whether it did.
pub fn advance(view: View<'_>, record: Recorded<'_>, master: &State, plan: &mut Plan) -> bool {
    let Some(wish) = running(view.seen) else { return false };
    let Wish { operation, snapshot, loader, .. } = wish;
    // The change was made, or another one came first: that is noted with the record, and only not seen yet.
    if operation.epoch < record.record.epoch {
        if view.seen.wall_ms > operation.deadline_ms {
            end(wish, "its end was never noted".into(), plan);
        }
        return false;
    }
    let outcome = match record.agents(view).find(|(_, s)| s.instance == loader) {
        _ if view.seen.wall_ms > operation.deadline_ms => Err("it took too long".to_owned()),
        _ if master.stopping => Err(format!("the master, instance {}, was asked to end", master.instance)),
        None => Err(format!("instance {loader}, which was to load it, is not heard")),
        Some((_, state)) if state.stopping || state.redis.is_none() => {
            Err(format!("instance {loader}, which was to load it, has no server any more or was asked to end"))
        }
        Some((agent, state)) => prepared(wish, record, agent, state, plan),
    };
    match outcome {
        Ok(false) => false,
        Ok(true) => {
            let because = format!(
                "{} asked for snapshot {snapshot}: instance {loader} has it, and nothing speaks against it",
                operation.owner
            );
            depose::depose(view, record, None, because, plan);
            true
        }
        Err(why) => {
            call_off(view, wish, why, plan);
            false
        }
    }
}

/// Whether the loader has the snapshot; if it only has not got it yet, it is told to.
fn prepared(wish: Wish<'_>, record: Recorded<'_>, agent: &AgentView, state: &State, plan: &mut Plan) -> Result<bool, String> {
    let Wish { operation, snapshot, loader, .. } = wish;
    let answer = state.prepared.as_ref().filter(|p| p.request_id == operation.id && p.snapshot == *snapshot);
    match answer.map(|p| &p.problem) {
        Some(None) => Ok(true),
        Some(Some(why)) => Err(format!("instance {loader}: {why}")),
        None => {
            let at_it = state.activity.as_ref().is_some_and(|a| a.what == "restoring" && a.subject == snapshot.as_str());
            if !at_it {
                let order = Order::Prepare { request_id: operation.id.clone(), snapshot: snapshot.clone() };
                plan.act(
                    record.command(agent, state, order),
                    "whatever speaks against the snapshot must show before anything is touched",
                );
            }
            Ok(false)
        }
    }
}

/// While nobody may write: has the present data saved, and calls the restore off when something went wrong. Says whether the choice of a
/// master has to wait for that.
pub fn hold_back(view: View<'_>, record: Recorded<'_>, plan: &mut Plan) -> bool {
    let Some(wish) = wish(view.seen, record.record) else { return false };
    let trouble = match wish.saved {
        Some(_) => trouble_while_loading(view, record, wish),
        None => save(view, record, wish, plan),
    };
    if let Some(why) = trouble {
        call_off(view, wish, why, plan);
        return true;
    }
    wish.saved.is_none()
}

/// Has the master's own copy saved, which was cut off; says why that cannot be.
fn save(view: View<'_>, record: Recorded<'_>, wish: Wish<'_>, plan: &mut Plan) -> Option<String> {
    let Wish { operation, snapshot, loader, .. } = wish;
    if let Some(saved) = saved_as(view, record, &operation.id) {
        let step = format!("the present data is saved as snapshot {saved}; instance {loader} loads snapshot {snapshot}");
        let mut steps = operation.steps.clone();
        steps.push(Step { name: SAVED.into(), at_ms: view.seen.wall_ms });
        let kind = OperationKind::Replace { snapshot: snapshot.clone(), loader, saved: Some(saved) };
        let next = Operation { kind, step: step.clone(), steps, ..operation.clone() };
        plan.act(Action::SetOperation { operation: Box::new(next) }, step);
        return None;
    }
    if wish.is_late(view, "deposing", SAVE_WITHIN_MS) {
        return Some("the present data was not saved in time".into());
    }
    save_present(view, record, &operation.id, &format!("snapshot {snapshot}"), plan).err()
}

/// Has the copy saved of the master that was deposed, which was cut off: it holds everything that was ever acknowledged. `what` takes its place.
///
/// # Errors
/// Why that cannot be.
pub fn save_present(view: View<'_>, record: Recorded<'_>, request: &str, what: &str, plan: &mut Plan) -> Result<(), String> {
    let cut =
        |s: &State| s.fenced_epoch == Some(record.record.epoch) && s.redis.as_ref().is_some_and(|r| r.answering && !r.loading);
    let Some((agent, state)) = record.agents(view).find(|(_, s)| record.is_master(s) && cut(s) && !s.stopping) else {
        return Err("the master was lost before its data was saved, so nobody knows whether another copy holds all of it".into());
    };
    let failure = state.uploads.failed_request.as_ref().filter(|(id, _)| *id == request).map(|(_, why)| why);
    if let Some(why) = failure.or(state.uploads.error.as_ref()) {
        return Err(format!("the present data could not be saved: {why}"));
    }
    let order = Order::Backup { request_id: request.into(), how: How::Dump };
    let message = format!("instance {} saves the present data before {what} takes its place", state.instance);
    plan.act(record.command(agent, state, order), message.clone());
    plan.summary.clone_from(&message);
    plan.wait(Reason::WaitingForStart, message);
    Ok(())
}

/// The snapshot of the present data, once it is in the store.
pub fn saved_as(view: View<'_>, record: Recorded<'_>, request: &str) -> Option<SnapshotId> {
    let told = record.agents(view).map(|(_, s)| &s.uploads).find(|u| u.last_request_id.as_deref() == Some(request));
    let listed = || {
        let mut rows = view.seen.store.snapshots.iter().flatten();
        rows.find(|row| row.request_id.as_deref() == Some(request) && row.can_be_named()).map(|row| row.id.clone())
    };
    told.and_then(|u| u.last_request_snapshot.clone()).or_else(listed)
}

/// Why the snapshot will not be loaded; none as long as it may.
fn trouble_while_loading(view: View<'_>, record: Recorded<'_>, wish: Wish<'_>) -> Option<String> {
    let source = wish.source();
    if view.seen.unusable.contains(&source) {
        return Some("an instance found that it cannot be used".into());
    }
    if wish.is_late(view, SAVED, LOAD_WITHIN_MS) {
        return Some("it was not loaded in time".into());
    }
    let since = wish.operation.steps.iter().rev().find(|s| s.name == SAVED).map_or(0, |s| s.at_ms);
    record.agents(view).map(|(_, s)| s).find_map(|s| {
        let who = s.instance;
        let idle = s.redis.is_none() && s.activity.is_none() && s.epoch == record.record.epoch;
        let loaded = s.redis.as_ref().is_some_and(|r| r.source == source) && copies::is_started_for(s, record.record);
        let failed = s.failed_source.as_ref().filter(|f| idle && f.source == source).map(|f| &f.why);
        let barred = s.cannot_lead.as_ref().filter(|_| loaded);
        let deaths = s.deaths.iter().filter(|d| d.at_ms >= since && since > 0).count();
        let told = failed.map(|why| format!("instance {who}: {why}"));
        told.or_else(|| barred.map(|why| format!("instance {who} loaded it and cannot lead: {why}")))
            .or_else(|| (deaths > DEATHS).then(|| format!("the server of instance {who} died {DEATHS} times while it loaded it")))
    })
}

/// Has the snapshot loaded: by the instance that has fetched it, whose server makes room for it, or by another one.
pub fn start(view: View<'_>, record: Recorded<'_>, wish: Wish<'_>, plan: &mut Plan) {
    if let Some(busy) = choose::starting(view, record) {
        plan.summary = format!("snapshot {} is being loaded; the data before it is saved", wish.snapshot);
        plan.wait(Reason::WaitingForStart, busy);
        return;
    }
    let order = |s: &State| (s.instance != wish.loader, record.is_master(s), std::cmp::Reverse(s.instance));
    let present = || record.agents(view).filter(|(_, s)| !s.stopping);
    let idle = present().filter(|(_, s)| s.redis.is_none() && s.activity.is_none()).min_by_key(|(_, s)| order(s));
    let cut = |s: &State| s.fenced_epoch == Some(record.record.epoch) || copies::is_started_for(s, record.record);
    let whole = |s: &State| s.redis.as_ref().is_some_and(|r| r.answering && !r.loading && !r.run_id.is_empty());
    let running = present().filter(|(_, s)| cut(s) && whole(s)).min_by_key(|(_, s)| order(s));
    let waits = present().any(|(_, s)| s.instance == wish.loader && s.redis.is_none());
    match (idle, running) {
        (Some((agent, state)), _) if state.instance == wish.loader || !waits => {
            let order = Order::Restore { snapshot: wish.snapshot.clone() };
            plan.act(
                record.command(agent, state, order),
                format!("{} asked for snapshot {}", wish.operation.owner, wish.snapshot),
            );
        }
        (None, Some((agent, state))) if !waits => {
            let because = format!("it makes room for snapshot {}: what it holds is kept in its sandbox as well", wish.snapshot);
            plan.act(record.command(agent, state, Order::Stop), because);
        }
        _ => {}
    }
    plan.wait(Reason::WaitingForStart, format!("an instance is to load snapshot {}", wish.snapshot));
}

/// What the record says from the naming of the winner on: its data has taken the place of what was before.
pub fn named(record: Record, wish: Wish<'_>, winner: &State) -> Record {
    let Some(redis) = &winner.redis else { return record };
    let histories = begun_by(&record, redis);
    let restored = Some(Restored { epoch: record.epoch, snapshot: wish.snapshot.clone() });
    Record { histories, restored, ..record }
}

/// The lineage, with what the winner holds as the beginning of the epoch.
pub fn begun_by(record: &Record, winner: &Redis) -> Vec<History> {
    let mut histories = record.histories.clone();
    histories.retain(|h| h.replid != winner.replid);
    let from = winner.replid2_end.unwrap_or(winner.offset);
    histories.push(History { epoch: record.epoch, replid: winner.replid.clone(), from, to: None, next: None });
    histories
}

/// How an operation ends with a master that serves: a restore that did not come to its end has failed.
pub fn outcome(seen: &Observed, record: &Record, done: String) -> String {
    let Some(Wish { snapshot, saved, .. }) = running(seen) else { return done };
    match (wish(seen, record), saved) {
        (None, Some(saved)) => format!("{done}, with the data of snapshot {snapshot}; what it replaced is snapshot {saved}"),
        _ => "failed: another change of master came first; nothing was replaced".into(),
    }
}

/// Ends the operation; what is there stays, or leads again. The next good snapshot is named, and never taken by itself.
fn call_off(view: View<'_>, wish: Wish<'_>, why: String, plan: &mut Plan) {
    let next = view
        .seen
        .store
        .snapshots
        .iter()
        .flatten()
        .find(|row| row.good && row.id != *wish.snapshot && Some(&row.id) != wish.saved);
    let next = next.map(|row| format!("; the next good one is {}", row.id)).unwrap_or_default();
    end(wish, format!("{why}. The present data stays{next}"), plan);
}

fn end(wish: Wish<'_>, why: String, plan: &mut Plan) {
    let because = format!("the restore of snapshot {} is called off: {why}", wish.snapshot);
    plan.summary.clone_from(&because);
    let ended = Operation { step: "called off".into(), outcome: Some(format!("failed: {why}")), ..wish.operation.clone() };
    plan.act(Action::SetOperation { operation: Box::new(ended) }, because);
}
