//! The end of a master: when it is proven dead, the next epoch begins; when it is only missing, that is said.

use agent::record::{Evidence, Phase, Record};

use super::{Recorded, View, choose, copies, evidence};
use crate::model::{Action, Plan, Reason};
use crate::view::{Operation, OperationKind};

/// Deposes the master of a stable cluster if there is evidence against it, or an agent has seen a higher epoch than the record's.
/// Says whether it did.
pub fn depose_if_due(view: View<'_>, record: Recorded<'_>, plan: &mut Plan) -> bool {
    let higher = record.agents(view).map(|(_, s)| s.epoch).max().is_some_and(|e| e > record.record.epoch);
    let evidence = evidence::against_master(view, record);
    let because = match (&evidence, higher) {
        (Some(evidence), _) => evidence::describe(evidence),
        (None, true) => "an agent has seen a higher epoch than the record's".to_owned(),
        (None, false) => return false,
    };
    depose(view, record, evidence, because, plan);
    true
}

/// Begins the next epoch: the record's master is out of office.
pub fn depose(view: View<'_>, record: Recorded<'_>, evidence: Option<Evidence>, because: String, plan: &mut Plan) {
    let epoch = record.next_epoch(view);
    let next = Record { epoch, phase: Phase::Deposing, evidence, ..record.record.clone() };
    plan.summary = format!("deposing the master of epoch {}: {because}", record.record.epoch);
    plan.act(
        Action::CommitRecord {
            record: Box::new(next),
            version: record.version,
            operation: Some(Box::new(operation(view, record, epoch))),
            history: None,
        },
        because,
    );
}

/// The failover in flight; a restore that somebody asked for goes on as what it is.
fn operation(view: View<'_>, record: Recorded<'_>, epoch: u64) -> Operation {
    let step = format!("deposing; epoch {epoch} has begun");
    if let Some(running) = &view.seen.operation
        && running.outcome.is_none()
        && matches!(running.kind, OperationKind::Restore { .. })
    {
        return Operation { step, ..running.clone() };
    }
    Operation {
        id: format!("failover-{epoch}"),
        kind: OperationKind::Failover,
        owner: "controller".into(),
        epoch: record.record.epoch,
        step,
        started_ms: view.seen.wall_ms,
        deadline_ms: view.seen.wall_ms + 600_000,
        outcome: None,
    }
}

/// Says why a master that does not serve is not replaced.
pub fn explain(view: View<'_>, record: Recorded<'_>, plan: &mut Plan) {
    let Some(master) = &record.record.master else { return };
    let who = format!("master instance {} (task {})", master.instance, master.task_id);
    if let Some((_, state)) = record.agents(view).find(|(_, s)| s.task_id == master.task_id) {
        let answering = state.redis.as_ref().is_some_and(|r| r.answering);
        let what = if answering { "does not serve" } else { "does not answer its agent" };
        plan.summary = format!("{who} {what}");
        plan.wait(Reason::MasterNotAnswering, format!("{who} {what}; its agent watches it, and ends it if it hangs"));
        if answering && let Some((agent, state)) = record.agents(view).find(|(_, s)| record.is_master(s)) {
            let order = agent::api::Order::Promote { asks: Vec::new() };
            plan.act(record.command(agent, state, order), "the record names it as master and it does not serve");
        }
        return;
    }
    let loss = match copies::ranked(view, record).first() {
        Some(copy) => format!("the best copy otherwise is the {}", choose::describe(copy)),
        None => "the replicas have not been asked".into(),
    };
    plan.summary = format!("{who} is silent and nothing proves that it stopped");
    plan.wait(
        Reason::NoEvidence,
        format!(
            "{who} on host {} is silent, and no agent of its host testifies that its server is gone: it may still take writes. \
             {loss}. If you know that it is gone: aurora-redis restore --consent (epoch {})",
            master.host.name, record.record.epoch
        ),
    );
}
