//! Room for a start from a copy: every agent runs a server, none of them is the best copy, so one server ends.
//!
//! Called by [`super::choose`]. Nothing is lost by it: the agent has the server save what it holds before it ends, and sets that dump aside
//! before another copy takes its place. What may be the newest copy of anything is never stopped, unless a person asked for the restore.

use agent::api::{Order, State};

use super::{Recorded, View, copies};
use crate::model::{AgentView, Copy, Holder, Plan, Reason};
use crate::view::OperationKind;

/// Every agent has a server, and one holds nothing (its first sync never ended): it makes room at once. Says whether there is one.
pub fn free_empty(view: View<'_>, record: Recorded<'_>, plan: &mut Plan) -> bool {
    let empty = record.agents(view).filter(|(_, s)| {
        let holds_nothing = s.redis.as_ref().is_some_and(|r| r.keys == 0 && r.answering && !r.run_id.is_empty());
        holds_nothing && s.fenced_epoch == Some(record.record.epoch) && copies::place(s, record.record).is_none()
    });
    let Some((agent, state)) = empty.min_by_key(|(_, s)| s.instance) else { return false };
    let because = "its server holds no data, and an instance is needed to start from a copy";
    plan.act(record.command(agent, state, Order::Stop), because);
    plan.wait(Reason::WaitingForInstances, format!("instance {} makes room for a start from a copy", state.instance));
    true
}

/// The worst copy makes room for a better one that must be started from: first one that the better one continues, then one that diverged.
pub fn free(view: View<'_>, record: Recorded<'_>, best: Option<&Copy>, plan: &mut Plan) {
    let candidates = record.agents(view).filter_map(|(agent, state)| Some((rank(view, record, state, best)?, agent, state)));
    let worst: Option<(_, &AgentView, &State)> = candidates.min_by_key(|(rank, _, s)| (*rank, std::cmp::Reverse(s.instance)));
    let source = best.map_or_else(|| "an empty start".into(), super::choose::describe);
    match worst {
        Some((_, agent, state)) => {
            let because = format!("every instance runs a server, and it makes room for {source}: its data is saved first");
            plan.wait(Reason::WaitingForInstances, format!("instance {} makes room for {source}", state.instance));
            plan.act(record.command(agent, state, Order::Stop), because);
        }
        None => plan.wait(
            Reason::WaitingForInstances,
            format!(
                "{source} is to be started from, and every instance runs a server whose data may be newer, or of a history that \
                 nobody knows: none is stopped by itself. To have one make room (what it holds is kept in its sandbox): aurora-redis restore"
            ),
        ),
    }
}

/// How little is given up by stopping a server, least first; absent for one that must stay.
fn rank(view: View<'_>, record: Recorded<'_>, state: &State, best: Option<&Copy>) -> Option<(u8, (u64, u64))> {
    let redis = state.redis.as_ref().filter(|r| r.answering && !r.loading && !r.syncing && !r.run_id.is_empty())?;
    let cut = state.fenced_epoch == Some(record.record.epoch) || copies::is_started_for(state, record.record);
    if state.stopping || !cut {
        return None;
    }
    let place = copies::place(state, record.record);
    let below = |best: &Copy| place.is_some_and(|place| place < (best.epoch, best.offset));
    match best {
        Some(Copy { holder: Holder::Local { .. }, .. }) => None,
        Some(best) if below(best) => Some((u8::from(has_diverged(record, &redis.replid, redis.offset)), place?)),
        _ if restore_is_asked(view) => Some((2, place.unwrap_or_default())),
        _ => None,
    }
}

/// Whether a copy goes beyond the end of its history: then later ones do not hold all of it.
fn has_diverged(record: Recorded<'_>, replid: &str, offset: u64) -> bool {
    let at = record.record.history_at(replid, offset).map(|at| &record.record.histories[at]);
    at.is_none_or(|history| history.to.is_some_and(|end| offset > end))
}

fn restore_is_asked(view: View<'_>) -> bool {
    let running = view.seen.operation.as_ref().filter(|o| o.outcome.is_none());
    running.is_some_and(|o| matches!(o.kind, OperationKind::Restore { .. }))
}
