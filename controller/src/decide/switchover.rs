//! A planned change of master, as long as the old one is in office: hold its writes, wait until the target holds everything, depose it. From there
//! [`super::choose`] goes on as after a failover, with the fence of the old master as evidence. Nothing is lost, and whatever overruns its
//! bound before the commit is undone by releasing the writes.

use agent::api::{Order, Position, State};

use super::{Recorded, View, depose, replicas};
use crate::model::{Action, AgentView, Plan};
use crate::view::{Operation, OperationKind};

/// Longest time that writes are held, milliseconds; the agent releases them by itself then.
pub const HOLD_MS: u64 = 3000;
/// Longest wait for the target to hold everything, milliseconds.
const CATCH_UP_MS: u64 = 1000;
/// Longest time of the whole operation, milliseconds.
pub const WITHIN_MS: u64 = 6000;

/// Goes one step on with a planned change, or begins one for a master that was asked to end. Says whether there is one.
pub fn advance(view: View<'_>, record: Recorded<'_>, master: &State, plan: &mut Plan) -> bool {
    let running = view.seen.operation.as_ref().filter(|o| o.outcome.is_none());
    let Some(operation) = running.filter(|o| matches!(o.kind, OperationKind::Switchover { .. })) else {
        return running.is_none() && hand_over(view, record, master, plan);
    };
    let OperationKind::Switchover { to } = operation.kind else { return false };
    // The change has been made: its end was committed with the record, and is only not seen yet.
    if operation.epoch < record.record.epoch && view.seen.wall_ms <= operation.deadline_ms {
        return false;
    }
    plan.summary = format!("instance {} hands the master over: {}", master.instance, operation.step);
    if view.seen.wall_ms > operation.deadline_ms {
        give_up(record, view, operation, master, "it took too long".into(), plan);
        return true;
    }
    match target(view, record, to) {
        Err(why) => give_up(record, view, operation, master, why, plan),
        Ok(target) => step(view, record, operation, master, target, plan),
    }
    true
}

/// A master that is to end hands over by itself, if somebody can take it.
fn hand_over(view: View<'_>, record: Recorded<'_>, master: &State, plan: &mut Plan) -> bool {
    if !master.stopping || target(view, record, None).is_err() {
        return false;
    }
    let operation = Operation {
        id: format!("handover-{}", record.record.epoch),
        kind: OperationKind::Switchover { to: None },
        owner: format!("agent of instance {}", master.instance),
        epoch: record.record.epoch,
        step: "begun".into(),
        started_ms: view.seen.wall_ms,
        deadline_ms: view.seen.wall_ms + WITHIN_MS,
        outcome: None,
        cause: String::new(),
        steps: Vec::new(),
    };
    plan.summary = format!("instance {} was asked to end: it hands the master over", master.instance);
    plan.act(Action::SetOperation { operation: Box::new(operation) }, plan.summary.clone());
    true
}

fn step(
    view: View<'_>,
    record: Recorded<'_>,
    operation: &Operation,
    master: &State,
    target: (&AgentView, &State),
    plan: &mut Plan,
) {
    let (agent, state) = target;
    let Some(held) = master.held.as_ref().filter(|held| held.epoch == record.record.epoch) else {
        // Writes are held once, not again and again.
        if view.seen.wall_ms.saturating_sub(operation.started_ms) >= HOLD_MS {
            let why = format!("instance {} did not get everything while writes were held, {HOLD_MS} ms at most", state.instance);
            give_up(record, view, operation, master, why, plan);
            return;
        }
        if let Some((agent, _)) = record.agents(view).find(|(_, s)| record.is_master(s)) {
            plan.act(
                record.command(agent, master, Order::Hold { for_ms: HOLD_MS }),
                "nothing shall be written that the target cannot get",
            );
        }
        return;
    };
    if holds(state, &held.position) {
        let because = format!("instance {} holds everything up to offset {}", state.instance, held.position.offset);
        depose::depose(view, record, None, because, plan);
        return;
    }
    let order = Order::CatchUp { position: held.position.clone(), within_ms: CATCH_UP_MS };
    plan.act(record.command(agent, state, order), "the target must hold everything before the master is deposed");
}

/// Whether a copy reaches up to a position of its own history.
pub fn holds(state: &State, position: &Position) -> bool {
    state.redis.as_ref().is_some_and(|r| r.replid == position.replid && r.offset >= position.offset)
}

/// Writes go on as before.
fn give_up(record: Recorded<'_>, view: View<'_>, operation: &Operation, master: &State, why: String, plan: &mut Plan) {
    plan.summary = format!("the planned change of master was given up: {why}");
    if let Some((agent, _)) = record.agents(view).find(|(_, s)| record.is_master(s) && s.held.is_some()) {
        plan.act(record.command(agent, master, Order::Release), "writes go on");
    }
    let ended = Operation { step: "given up".into(), outcome: Some(format!("failed: {why}")), ..operation.clone() };
    plan.act(Action::SetOperation { operation: Box::new(ended) }, why);
}

/// Who would take over: the instance asked for, else the best that can.
///
/// # Errors
/// Why nobody, or not that one, can take over without a loss.
pub fn target<'a>(view: View<'a>, record: Recorded<'a>, to: Option<u32>) -> Result<(&'a AgentView, &'a State), String> {
    if let Some(wanted) = to {
        let (agent, state) = record
            .agents(view)
            .find(|(_, s)| s.instance == wanted && !record.is_master(s))
            .ok_or_else(|| missing(view, record, wanted))?;
        return unfit(view, record, state).map_or(Ok((agent, state)), Err);
    }
    if let Some(absent) = unheard(view, record) {
        return Err(absent);
    }
    let others = || record.agents(view).filter(|(_, s)| !record.is_master(s));
    let fit = others().filter(|(_, s)| unfit(view, record, s).is_none());
    fit.max_by_key(|(_, s)| (s.redis.as_ref().map(|r| r.offset), std::cmp::Reverse(s.instance))).ok_or_else(|| {
        let why: Vec<String> = others().filter_map(|(_, s)| unfit(view, record, s)).collect();
        if why.is_empty() { "there is no replica".into() } else { format!("no replica can take over: {}", why.join("; ")) }
    })
}

fn missing(view: View<'_>, record: Recorded<'_>, wanted: u32) -> String {
    if record.serving_master(view).is_some_and(|m| m.instance == wanted) {
        return format!("instance {wanted} is the master already");
    }
    let others: Vec<String> =
        record.agents(view).filter(|(_, s)| !record.is_master(s)).map(|(_, s)| s.instance.to_string()).collect();
    format!("there is no instance {wanted} that could lead; there are: {}", others.join(", "))
}

/// With confirmed writes promised, a member that cannot answer could be missed if the master died in the middle.
fn unheard(view: View<'_>, record: Recorded<'_>) -> Option<String> {
    let heard = |task: &str| record.agents(view).any(|(_, s)| s.task_id == task);
    let mut silent = record.record.known_replicas.iter().filter(|m| !heard(&m.task_id));
    let member = silent.next().filter(|_| record.record.durability.acks > 0)?;
    Some(format!(
        "instance {} (task {}) is a member and cannot answer: it must come back or leave first",
        member.instance, member.task_id
    ))
}

/// Why an instance cannot take over without a loss; none when it can.
fn unfit(view: View<'_>, record: Recorded<'_>, state: &State) -> Option<String> {
    let who = format!("instance {}", state.instance);
    if state.stopping {
        return Some(format!("{who} was asked to end"));
    }
    if state.redis.as_ref().is_some_and(|r| !r.answering) {
        return Some(format!("{who} does not answer its agent"));
    }
    if let Some(why) = &state.cannot_lead {
        return Some(format!("{who} cannot lead: {why}"));
    }
    if view.seen.unfit.contains(state.redis.as_ref().map_or("", |r| r.run_id.as_str())) {
        return Some(format!("{who} was named lately and did not open"));
    }
    if !replicas::is_proven(view, state) || state.assigned_epoch != record.record.epoch {
        return Some(format!("{who} is not proven to be in sync: it lags, or has not acknowledged a write since it attached"));
    }
    unheard(view, record)
}
