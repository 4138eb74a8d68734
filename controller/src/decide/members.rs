//! The record's list of members: whoever may hold confirmed writes is in it before it can, and leaves only after it no longer can.
//!
//! Added first, admitted then: the master's agent gives a run its credential only after a renewal against a record that lists it. Removed the other
//! way round: marked, cut off and seen gone by the master's agent, and only then taken off the list. Without a master nobody leaves.

use agent::api::{LeaseState, State};
use agent::record::{Member, Record};

use super::{Recorded, View, migrate, replicas};
use crate::model::{Plan, Reason, member};

/// Whether a run may replicate from this master: it is listed and admitted.
pub fn may_follow(record: Recorded<'_>, master: &State, run_id: &str) -> bool {
    let listed = record.record.known_replicas.iter().any(|m| m.run_id == run_id && !m.removing);
    listed && master.lease.as_ref().is_some_and(|lease| lease.admitted.iter().any(|run| run == run_id))
}

/// Adds runs that are to follow. Says whether it did: until it is through, nothing else is worth doing.
pub fn add(view: View<'_>, record: Recorded<'_>, plan: &mut Plan) -> bool {
    let listed = |m: &Member| record.record.known_replicas.iter().any(|known| known.run_id == m.run_id);
    let lent = |s: &State| migrate::is_lent(view, record, s);
    let ready = |s: &&State| {
        !lent(s) && s.redis.as_ref().is_some_and(|r| r.answering && !r.loading) && !s.stopping && !record.is_master(s)
    };
    let new: Vec<Member> = record.agents(view).map(|(_, s)| s).filter(ready).filter_map(member).filter(|m| !listed(m)).collect();
    if new.is_empty() {
        return false;
    }
    let who: Vec<String> = new.iter().map(|m| format!("instance {}", m.instance)).collect();
    let because = format!("{} is listed before it may hold confirmed writes", who.join(", "));
    plan.act(record.commit(with(record.record, |members| members.extend(new))), because);
    true
}

/// Marks members that are gone, and takes those off the list that the master's agent has cut off. Waits until nothing else is to do, for commands in
/// flight carry the version of the record.
pub fn remove(view: View<'_>, record: Recorded<'_>, master: &State, plan: &mut Plan) {
    if !plan.actions.is_empty() {
        return;
    }
    let known = &record.record.known_replicas;
    let gone: Vec<&Member> = known.iter().filter(|m| !m.removing && is_gone(view, record, m)).collect();
    if !gone.is_empty() {
        let runs: Vec<String> = gone.iter().map(|m| m.run_id.clone()).collect();
        let who: Vec<String> = gone.iter().map(|m| format!("instance {} ({})", m.instance, m.task_id)).collect();
        let marked = with(record.record, |members| {
            members.iter_mut().filter(|m| runs.contains(&m.run_id)).for_each(|m| m.removing = true);
        });
        plan.act(record.commit(marked), format!("{} is gone: marked for removal", who.join(", ")));
        return;
    }
    let cut: Vec<&Member> = known.iter().filter(|m| m.removing && is_cut_off(record, master, m)).collect();
    if cut.is_empty() {
        return;
    }
    let remaining: Vec<&Member> = known.iter().filter(|m| !cut.contains(m)).collect();
    if let Some(why) = would_lose(view, record, master, &remaining) {
        plan.wait(Reason::ReplicasNotInSync, why);
        return;
    }
    let runs: Vec<String> = cut.iter().map(|m| m.run_id.clone()).collect();
    let shorter = with(record.record, |members| members.retain(|m| !runs.contains(&m.run_id)));
    plan.act(record.commit(shorter), "the master's agent has cut them off: they can hold no confirmed write that others do not");
}

/// The record with another list, in order.
fn with(record: &Record, change: impl FnOnce(&mut Vec<Member>)) -> Record {
    let mut next = record.clone();
    change(&mut next.known_replicas);
    next.known_replicas.sort_by(|a, b| (a.instance, &a.task_id, &a.run_id).cmp(&(b.instance, &b.task_id, &b.run_id)));
    next
}

/// Whether a member will not come back: its run is over, or its task has ended.
fn is_gone(view: View<'_>, record: Recorded<'_>, member: &Member) -> bool {
    let heard = record.agents(view).map(|(_, s)| s).find(|s| s.task_id == member.task_id);
    if let Some(state) = heard {
        return state.redis.as_ref().is_none_or(|r| !r.run_id.is_empty() && r.run_id != member.run_id);
    }
    view.seen.scheduler.tasks.as_ref().is_some_and(|tasks| !tasks.iter().any(|t| t.task_id == member.task_id))
}

/// Whether the master's agent confirmed the mark as it stands: what it said of an earlier mark of the same run says nothing about this one.
fn is_cut_off(record: Recorded<'_>, master: &State, member: &Member) -> bool {
    let for_this_mark = |lease: &&LeaseState| lease.record_version == record.version;
    master.lease.as_ref().filter(for_this_mark).is_some_and(|lease| lease.removed.contains(&member.run_id))
}

/// Why the list must not shrink yet: with W acknowledgements asked for, W remaining members must hold everything that was written before the cut.
fn would_lose(view: View<'_>, record: Recorded<'_>, master: &State, remaining: &[&Member]) -> Option<String> {
    let acks = record.record.durability.acks as usize;
    let at = master.lease.as_ref().and_then(|lease| lease.removed_at);
    let holds = |m: &&&Member| {
        record.agents(view).map(|(_, s)| s).any(|s| {
            let run = s.redis.as_ref().filter(|r| r.run_id == m.run_id);
            run.is_some_and(|r| at.is_some_and(|at| r.offset >= at)) && replicas::is_proven(view, s)
        })
    };
    let holding = remaining.iter().filter(holds).count();
    (acks > 0 && holding < acks).then(|| {
        format!("{holding} of the members that stay hold everything that was written, durability.acks = {acks}: nobody leaves the list before")
    })
}
