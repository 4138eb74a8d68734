//! Exactly one named server may open: have it do so, and once it serves, the change of master is over.

use agent::api::{Order, State};
use agent::record::{History, Phase, Record};

use super::{Recorded, View, choose, depose, evidence, migrate, replace};
use crate::model::{Action, HistoryChange, Plan, Reason};
use crate::view::{Operation, Step};

/// Lineage kept in the record: with 64 changes of master nothing older can still be a candidate.
const MAX_HISTORIES: usize = 64;

/// Has the named winner open, and ends the change once it serves. A winner that dies or does not open is followed by another epoch.
pub fn promote(view: View<'_>, record: Recorded<'_>, plan: &mut Plan) {
    let Some(master) = &record.record.master else { return };
    plan.summary = format!("instance {} is opening as master of epoch {}", master.instance, record.record.epoch);
    if record.is_outrun(view) {
        let because = "an agent has seen a higher epoch than the record's".to_owned();
        depose::depose(view, record, evidence::against_master(view, record), because, plan);
        return;
    }
    if let Some(found) = evidence::against_master(view, record) {
        let because = evidence::describe(&found);
        depose::depose(view, record, Some(found), because, plan);
        return;
    }
    match record.agents(view).find(|(_, s)| record.is_master(s)) {
        Some((_, state)) if record.serves(state) => settle(view, record, state, plan),
        Some((agent, state)) => {
            if view.now.saturating_sub(view.seen.phase_since) >= view.timing.promote_wait {
                depose::depose(view, record, None, format!("instance {} did not open in time", master.instance), plan);
                return;
            }
            let order = Order::Promote { asks: choose::asks(view, record, &state.task_id) };
            plan.act(record.command(agent, state, order), "the record names it");
            plan.wait(Reason::WaitingForPromotion, plan.summary.clone());
        }
        None => silent(view, record, plan),
    }
}

/// The winner's agent does not speak: with its time over it is deposed, which needs evidence only if it has led.
fn silent(view: View<'_>, record: Recorded<'_>, plan: &mut Plan) {
    if view.now.saturating_sub(view.seen.phase_since) >= view.timing.silent_after {
        depose::explain(view, record, plan);
    } else {
        plan.wait(Reason::WaitingForPromotion, plan.summary.clone());
    }
}

/// The winner serves: the record says so, with the new history.
fn settle(view: View<'_>, record: Recorded<'_>, state: &State, plan: &mut Plan) {
    let Some(redis) = &state.redis else { return };
    let mut histories = record.record.histories.clone();
    if let (Some(replid2), Some(end)) = (&redis.replid2, redis.replid2_end)
        && let Some(old) = histories.iter_mut().rev().find(|h| h.replid == *replid2)
    {
        old.to = Some(end.saturating_sub(1));
        old.next = Some(redis.replid.clone());
    }
    let from = redis.replid2_end.unwrap_or(redis.offset);
    histories.retain(|h| h.replid != redis.replid);
    histories.push(History { epoch: record.record.epoch, replid: redis.replid.clone(), from, to: None, next: None });
    let excess = histories.len().saturating_sub(MAX_HISTORIES);
    histories.drain(..excess);
    let next = Record {
        phase: Phase::Stable,
        pinned: None,
        initialised: true,
        master_replid: Some(redis.replid.clone()),
        histories,
        ..record.record.clone()
    };
    let running = view.seen.operation.as_ref().filter(|o| o.outcome.is_none());
    let begun_ms = running.map(|o| o.steps.first().map_or(o.started_ms, |step| step.at_ms));
    let pause_ms = begun_ms.map(|begun| view.seen.wall_ms.saturating_sub(begun));
    let done = format!("done: instance {} is master of epoch {}", state.instance, record.record.epoch);
    let done = replace::outcome(view.seen, record.record, done);
    let steps = running.map_or_else(Vec::new, |o| o.steps.clone());
    let steps: Vec<Step> = steps.into_iter().chain([Step { name: "stable".into(), at_ms: view.seen.wall_ms }]).collect();
    let migrated = migrate::settled(view, record.record, state, &done);
    let operation = migrated.map(Box::new).or_else(|| {
        running.map(|o| {
            Box::new(Operation { step: "stable".into(), outcome: Some(done.clone()), steps: steps.clone(), ..o.clone() })
        })
    });
    plan.act(
        Action::CommitRecord {
            record: Box::new(next),
            version: record.version,
            lease_version: None,
            operation,
            history: Some(HistoryChange::Complete { epoch: record.record.epoch, pause_ms, steps }),
        },
        format!("instance {} took a write", state.instance),
    );
}
