//! The end of a master: when it is proven dead, or silent in every way there is to hear it, the next epoch begins; when it is only missing,
//! that is said.

use agent::api::{Order, State};
use agent::record::{Evidence, Phase, Record};

use super::{Recorded, View, choose, copies, evidence, migrate};
use crate::model::{Action, Plan, Reason};
use crate::view::{Operation, OperationKind, Step};

/// Deposes the master of a stable cluster if there is evidence against it, or an agent has seen a higher epoch than the record's.
/// Says whether it did.
pub fn depose_if_due(view: View<'_>, record: Recorded<'_>, plan: &mut Plan) -> bool {
    let evidence = evidence::against_master(view, record);
    let because = match (&evidence, record.is_outrun(view)) {
        (Some(evidence), _) => evidence::describe(evidence),
        (None, true) => "an agent has seen a higher epoch than the record's".to_owned(),
        (None, false) => return false,
    };
    depose(view, record, evidence, because, plan);
    true
}

/// Begins the next epoch: the record's master is out of office, and its last renewal is pinned, for the commit checks the lease node.
pub fn depose(view: View<'_>, record: Recorded<'_>, evidence: Option<Evidence>, because: String, plan: &mut Plan) {
    let epoch = record.next_epoch(view);
    plan.summary = format!("deposing the master of epoch {}: {because}", record.record.epoch);
    let Some(lease) = &view.seen.lease else {
        plan.wait(
            Reason::ZookeeperUnreachable,
            "the lease node has not been read yet: nobody is deposed without its last renewal",
        );
        return;
    };
    // One that never led needs no evidence; what was proven of its predecessor still holds.
    let carried = || record.record.evidence.clone().filter(|_| !record.has_led(&lease.node));
    let evidence = evidence.or_else(carried);
    if matches!(evidence, Some(Evidence::Dead { .. } | Evidence::Testimony { .. })) {
        cut_ahead(view, record, epoch, plan);
    }
    let next = Record {
        epoch,
        phase: Phase::Deposing,
        master_epoch: record.record.master_epoch(),
        evidence,
        pinned: Some(lease.node.clone()),
        ..record.record.clone()
    };
    plan.act(
        Action::CommitRecord {
            record: Box::new(next),
            version: record.version,
            lease_version: Some(lease.node.version),
            operation: Some(Box::new(operation(view, record, epoch, &because))),
            history: None,
        },
        because,
    );
}

/// The process is dead, so survivors can be cut beside the commit: their offsets are in when it is through.
fn cut_ahead(view: View<'_>, record: Recorded<'_>, epoch: u64, plan: &mut Plan) {
    let survivor = |s: &State| choose::can_be_cut(s) && !record.is_master(s) && !migrate::is_apart(s, record.record);
    for (agent, state) in record.agents(view).filter(|(_, s)| survivor(s)) {
        let order = record.command_at(epoch, agent, state, Order::Fence);
        plan.act(order, "its offset counts only once it is cut off from the old master, whose server is dead");
    }
}

/// The change in flight; one that somebody asked for goes on as what it is.
fn operation(view: View<'_>, record: Recorded<'_>, epoch: u64, because: &str) -> Operation {
    let done = Step { name: "deposing".into(), at_ms: view.seen.wall_ms };
    let step = format!("deposing; epoch {epoch} has begun");
    if let Some(running) = &view.seen.operation
        && running.outcome.is_none()
        && !matches!(running.kind, OperationKind::Bootstrap | OperationKind::Backup { .. })
    {
        let mut steps = running.steps.clone();
        steps.push(done);
        let cause = if running.cause.is_empty() { because.to_owned() } else { running.cause.clone() };
        return Operation { step, steps, cause, ..running.clone() };
    }
    Operation {
        id: format!("failover-{epoch}"),
        kind: OperationKind::Failover { consent_epoch: None },
        owner: "controller".into(),
        epoch: record.record.epoch,
        step,
        started_ms: view.seen.wall_ms,
        deadline_ms: view.seen.wall_ms + 600_000,
        outcome: None,
        cause: because.into(),
        steps: vec![done],
    }
}

/// Says why a master that does not serve is not replaced, or replaces one that is silent in every way.
pub fn explain(view: View<'_>, record: Recorded<'_>, plan: &mut Plan) {
    let Some(master) = &record.record.master else { return };
    let who = format!("master instance {} (task {})", master.instance, master.task_id);
    if let Some((_, state)) = record.agents(view).find(|(_, s)| s.task_id == master.task_id) {
        not_serving(view, record, state, &who, plan);
        return;
    }
    plan.summary = format!("{who} on host {} is silent and nothing proves that it stopped", master.host.name);
    match keeps_office(view, record) {
        None => {
            let because = format!("{who} is silent, and its lease is not renewed any more");
            depose(view, record, None, because, plan);
        }
        Some((reason, why)) => plan.wait(reason, format!("{}: {why}. {}", plan.summary, choose::way_out(view, record))),
    }
}

/// The master's agent speaks, and its server does not serve.
fn not_serving(view: View<'_>, record: Recorded<'_>, state: &State, who: &str, plan: &mut Plan) {
    let answering = state.redis.as_ref().is_some_and(|r| r.answering);
    let what = if answering { "does not serve" } else { "does not answer its agent" };
    plan.summary = format!("{who} {what}");
    plan.wait(Reason::MasterNotAnswering, format!("{who} {what}; its agent watches it, and ends it if it hangs"));
    if answering && let Some((agent, state)) = record.agents(view).find(|(_, s)| record.is_master(s)) {
        let order = Order::Promote { asks: choose::asks(view, record, &state.task_id) };
        plan.act(record.command(agent, state, order), "the record names it as master and it does not serve");
    }
}

/// Why a silent master is left in office; none when both views of it, its agent's stream and its lease, have ended, and somebody could follow.
fn keeps_office(view: View<'_>, record: Recorded<'_>) -> Option<(Reason, String)> {
    let fresh_copy = |s: &State| s.redis.as_ref().is_some_and(|r| r.answering && !r.loading && !r.syncing) && !s.stopping;
    let heir = record.agents(view).any(|(_, s)| fresh_copy(s) && copies::place(s, record.record).is_some());
    let Some(lease) = &view.seen.lease else {
        return Some((Reason::NoEvidence, "the lease node has not been read yet".into()));
    };
    let quiet = view.now.saturating_sub(lease.seen);
    // Nobody to take over is no reason any more once nothing can carry the lease: then the data comes from a dump.
    let left = evidence::failsafe_wait(record).saturating_sub(quiet);
    if !heir && !left.is_zero() {
        let message = format!(
            "no replica is heard that could take over, and promises may carry its lease for {} s more",
            left.as_secs() + 1
        );
        return Some((Reason::NoEvidence, message));
    }
    if record.has_led(&lease.node) && quiet < view.timing.silent_after {
        return Some((
            Reason::AgentSilent,
            format!("its agent renewed the lease {} ms ago: it is only we who do not hear it", quiet.as_millis()),
        ));
    }
    cooling(view).map(|left_ms| {
        let message = format!(
            "the last failover was less than {} s ago; the next one by itself may come in {} s",
            view.timing.cooldown.as_secs(),
            left_ms.div_ceil(1000)
        );
        (Reason::Cooldown, message)
    })
}

/// Milliseconds until a failover that rests on silence may follow the last one.
fn cooling(view: View<'_>) -> Option<u64> {
    let last = view.seen.operation.as_ref().filter(|o| matches!(o.kind, OperationKind::Failover { .. }))?;
    let until = last.started_ms.saturating_add(view.timing.cooldown.as_millis() as u64);
    until.checked_sub(view.seen.wall_ms).filter(|left| *left > 0)
}
