//! Everybody else follows the master, and one of them makes the dumps.

use agent::api::{Order, Position, Settings, Source, State};

use super::{Recorded, View, members, migrate};
use crate::model::{Plan, Reason};

/// Has every other instance follow the master.
pub fn follow(view: View<'_>, record: Recorded<'_>, master: &State, plan: &mut Plan) {
    let Some(address) = master.redis.as_ref().and_then(|r| r.address.clone()) else { return };
    let fork = fork(master);
    let free = |s: &State| !record.is_master(s) && !s.stopping && !migrate::is_lent(view, record, s);
    for (agent, state) in record.agents(view).filter(|(_, s)| free(s)) {
        let Some(redis) = &state.redis else {
            if state.activity.is_none() {
                let source = Source::ReplicaOf { master: address.clone(), fork: fork.clone() };
                plan.act(record.command(agent, state, Order::Start { source }), "an instance without a server becomes a replica");
            }
            continue;
        };
        if redis.run_id.is_empty() || redis.loading || !redis.answering {
            continue;
        }
        if !members::may_follow(record, master, &redis.run_id) {
            plan.wait(Reason::ReplicasNotInSync, format!("instance {} is being admitted as a replica", state.instance));
            continue;
        }
        let strays = redis.following.as_ref() != Some(&address);
        let unassigned = state.assigned_epoch != record.record.epoch || state.fenced_epoch.is_some();
        if strays || unassigned || !redis.open {
            let order = Order::Follow { master: address.clone(), fork: fork.clone() };
            plan.act(record.command(agent, state, order), "it does not follow this epoch's master yet");
        }
    }
    report_unsynced(view, record, plan);
}

/// Where the master's history began.
fn fork(master: &State) -> Option<Position> {
    let redis = master.redis.as_ref()?;
    let offset = redis.replid2_end?.saturating_sub(1);
    Some(Position { replid: redis.replid2.clone()?, offset })
}

fn report_unsynced(view: View<'_>, record: Recorded<'_>, plan: &mut Plan) {
    let wanted = view.spec.instances.saturating_sub(1) as usize;
    let linked = replicas(view, record).filter(|s| s.redis.as_ref().is_some_and(|r| r.link == Some(true))).count();
    if linked < wanted {
        plan.wait(Reason::ReplicasNotInSync, format!("{linked} of {wanted} replicas are linked to the master"));
    }
}

fn replicas<'a>(view: View<'a>, record: Recorded<'a>) -> impl Iterator<Item = &'a State> {
    record.agents(view).map(|(_, s)| s).filter(move |s| !record.is_master(s) && s.assigned_epoch == record.record.epoch)
}

/// Adapts run-time settings: the backup source makes the dumps, and the master's second belt fits the live replicas.
pub fn configure(view: View<'_>, record: Recorded<'_>, master: &State, plan: &mut Plan) {
    let source = backup_source(view, record, master);
    let proven = replicas(view, record).filter(|s| is_proven(view, s)).count();
    for (agent, state) in
        record.agents(view).filter(|(_, s)| s.redis.as_ref().is_some_and(|r| r.answering && r.open && !r.loading))
    {
        if state.assigned_epoch != record.record.epoch {
            continue;
        }
        let wanted = Settings {
            save: if state.task_id == source { view.spec.save.clone() } else { String::new() },
            min_replicas_to_write: u32::from(record.is_master(state) && proven >= 2),
        };
        if state.settings != wanted {
            let because = format!("save points '{}', min-replicas-to-write {}", wanted.save, wanted.min_replicas_to_write);
            plan.act(record.command(agent, state, Order::Configure { settings: wanted }), because);
        }
    }
}

/// Whether a replica has applied a byte that was written after it attached.
pub fn is_proven(view: View<'_>, state: &State) -> bool {
    state.redis.as_ref().is_some_and(|r| r.link == Some(true) && !r.syncing && view.seen.proven.contains(&r.run_id))
}

/// Task of the instance that makes the dumps: the one that does so already while it is in sync, else the lowest replica in sync, else a
/// replica that is on its way there, else the master, for it is alone.
pub fn backup_source(view: View<'_>, record: Recorded<'_>, master: &State) -> String {
    let usable: Vec<&State> = replicas(view, record)
        .filter(|s| !s.stopping && s.redis.as_ref().is_some_and(|r| r.answering && r.link == Some(true) && !r.syncing))
        .collect();
    let coming = record.agents(view).map(|(_, s)| s).filter(|s| {
        let lent = migrate::is_lent(view, record, s);
        !record.is_master(s) && !s.stopping && !lent && s.redis.is_some()
    });
    usable
        .iter()
        .find(|s| !s.settings.save.is_empty())
        .or_else(|| usable.iter().min_by_key(|s| s.instance))
        .copied()
        .or_else(|| coming.min_by_key(|s| s.instance))
        .map_or_else(|| master.task_id.clone(), |s| s.task_id.clone())
}
