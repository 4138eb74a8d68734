//! Judging asks for another master: planned, without loss, or by hand after a failure, with evidence or consent.

use agent::api::Epoch;

use super::{Judgement, in_flight, kind, operation};
use crate::decide::{Recorded, View, choose, copies, evidence, quorum, switchover};
use crate::view::OperationKind;

/// How long a failover by hand stays in force, milliseconds.
const FAILOVER_WITHIN_MS: u64 = 600_000;

/// A planned change to the instance `to`, or to the best replica.
pub(super) fn switchover(owner: &str, to: Option<u32>, dry_run: bool, view: View<'_>, id: String) -> Judgement {
    let Some(recorded) = recorded(view) else { return no_record() };
    if let Some(running) = in_flight(view) {
        return Judgement::Refuse(format!("operation {} ({}) is in flight: {}", running.id, kind(running), running.step));
    }
    let Some(master) = recorded.serving_master(view) else {
        return Judgement::Refuse(format!(
            "no master serves, so nothing can be handed over without a loss; aurora-redis failover shows what can be done (epoch {})",
            recorded.record.epoch
        ));
    };
    let state = match switchover::target(view, recorded, to) {
        Ok((_, state)) => state,
        Err(why) => return Judgement::Refuse(format!("{why}. The master stays at instance {}", master.instance)),
    };
    let behind = match (&master.redis, &state.redis) {
        (Some(m), Some(r)) => m.offset.saturating_sub(r.offset),
        _ => 0,
    };
    let plan = format!(
        "writes are held on instance {} (for {} ms at most), instance {} gets the last bytes ({behind} behind at the moment), leads epoch {} \
         and the others follow it; nothing is lost, and a step that overruns its bound undoes it",
        master.instance,
        switchover::HOLD_MS,
        state.instance,
        recorded.record.epoch + 1
    );
    if dry_run {
        return Judgement::Plan(plan);
    }
    // The target is fixed now: what was shown is what happens.
    let to = Some(state.instance);
    let begun = operation(id, OperationKind::Switchover { to }, owner, recorded.record.epoch, view, switchover::WITHIN_MS);
    Judgement::Begin(begun, plan)
}

/// A failover by hand: only without a serving master, and with consent where something cannot be proven or too much would be lost.
pub(super) fn failover(owner: &str, consent: Option<Epoch>, dry_run: bool, view: View<'_>, id: String) -> Judgement {
    let Some(recorded) = recorded(view) else { return no_record() };
    let epoch = recorded.record.epoch;
    if let Some(master) = recorded.serving_master(view) {
        return Judgement::Refuse(format!(
            "instance {} serves as master of epoch {epoch}: another one would lose writes. aurora-redis switchover changes it without a loss",
            master.instance
        ));
    }
    if let Some(stated) = consent.filter(|stated| *stated != epoch) {
        return Judgement::Refuse(format!(
            "consent was given for epoch {stated}, present is epoch {epoch}: look at status again"
        ));
    }
    let known = situation(view, recorded);
    if consent.is_none() {
        return Judgement::Refuse(format!("{known} To take the responsibility: aurora-redis failover --consent {epoch}"));
    }
    let plan = format!("{known} With consent the most advanced copy that answers leads the next epoch");
    if dry_run {
        return Judgement::Plan(plan);
    }
    let kind = OperationKind::Failover { consent_epoch: consent };
    Judgement::Begin(operation(id, kind, owner, epoch, view, FAILOVER_WITHIN_MS), plan)
}

/// Evidence, candidates and expected loss, as known now.
fn situation(view: View<'_>, record: Recorded<'_>) -> String {
    let evidence = record.record.evidence.clone().filter(|_| record.record.phase == agent::record::Phase::Deposing);
    let evidence = match evidence.or_else(|| evidence::against_master(view, record)) {
        Some(found) => format!("Evidence: {}.", evidence::describe(&found)),
        None => "Nothing proves that the last master writes no more.".into(),
    };
    let copies = copies::ranked(view, record);
    let best = copies.first().map_or("No copy has answered.".into(), |c| format!("Best copy: {}.", choose::describe(c)));
    let missing = quorum::missing(view, record).map(|(_, why)| format!(" {why}.")).unwrap_or_default();
    format!("{evidence} {best}{missing}")
}

fn recorded(view: View<'_>) -> Option<Recorded<'_>> {
    view.seen.record.as_ref().map(|(record, version)| Recorded { record, version: *version })
}

fn no_record() -> Judgement {
    Judgement::Refuse("the cluster has no record yet: it has not had a master".into())
}
