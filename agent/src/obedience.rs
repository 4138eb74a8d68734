//! A master that the record no longer names takes no more writes: it fences itself as soon as it reads so, without waiting for a command.
//!
//! A master that was cut off while others went on (with consent, or with evidence that was wrong) is so writable only until it can read
//! the record again. The fence is the one of [`crate::ops`], stamped with what the record says.

use std::sync::Arc;
use std::time::Duration;

use crate::api::{AnswerKind, Command, Order, Role, Stamp, State};
use crate::node::Node;
use crate::ops;
use crate::records::{self, Seen};

/// Pause before a fence that did not go through is tried again.
const AGAIN: Duration = Duration::from_millis(200);

/// Obeys for as long as the agent runs.
pub(crate) async fn run(node: Arc<Node>) {
    let (mut records, mut states) = (node.records.subscribe(), node.subscribe());
    loop {
        let seen = records.borrow_and_update().clone();
        let state = states.borrow_and_update().clone();
        if let Some(fence) = seen.and_then(|seen| due(&seen, &state)) {
            tracing::warn!(epoch = fence.stamp.epoch, "the record names another master, or none: fencing this one");
            if ops::execute(node.clone(), fence).await.outcome != AnswerKind::Done {
                tokio::time::sleep(AGAIN).await;
            }
            continue;
        }
        let changed = tokio::select! {
            changed = records.changed() => changed,
            changed = states.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

/// The fence that is due: an open master of an epoch that is over, which the record does not name.
fn due(seen: &Seen, state: &State) -> Option<Command> {
    let redis = state.redis.as_ref().filter(|r| r.open && !r.run_id.is_empty())?;
    let record = &seen.record;
    let over = state.role == Role::Master && state.fenced_epoch.is_none() && state.assigned_epoch < record.epoch;
    if !over || records::names(Some(seen), &state.task_id, &redis.run_id) {
        return None;
    }
    let stamp = Stamp {
        cluster_id: record.cluster_id.clone(),
        generation: record.generation.clone(),
        epoch: record.epoch,
        record_version: seen.version,
        task_id: state.task_id.clone(),
        run_id: Some(redis.run_id.clone()),
    };
    Some(Command { stamp, order: Order::Fence })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Redis;
    use crate::record::{Member, Phase, Record};

    fn seen(epoch: u64, phase: Phase, run_id: &str) -> Seen {
        let master = Member { task_id: "t".into(), run_id: run_id.into(), ..Member::default() };
        let record: Record = serde_json::from_value(serde_json::json!({
            "cluster_id": "c", "generation": "g", "initialised": true, "epoch": epoch, "phase": phase, "master": master,
            "known_replicas": [], "evidence": null, "lease_ms": 2000, "durability": {"acks": 0}, "histories": [], "snapshot": null
        }))
        .unwrap();
        Seen { record, version: 9 }
    }

    fn state(role: Role, assigned_epoch: u64, open: bool) -> State {
        let redis = Some(Redis { run_id: "r".into(), open, ..Redis::default() });
        State { task_id: "t".into(), role, assigned_epoch, redis, ..State::default() }
    }

    #[test]
    fn a_master_of_an_epoch_that_is_over_is_fenced() {
        for (phase, named) in [(Phase::Deposing, "r"), (Phase::Promoting, "other"), (Phase::Stable, "other")] {
            let fence = due(&seen(5, phase, named), &state(Role::Master, 4, true)).unwrap();
            assert_eq!((fence.stamp.epoch, fence.stamp.record_version, fence.order), (5, 9, Order::Fence), "{phase:?}");
        }
    }

    #[test]
    fn a_master_in_office_a_replica_and_a_closed_server_are_left_alone() {
        assert_eq!(due(&seen(5, Phase::Stable, "r"), &state(Role::Master, 4, true)), None, "adopted by a record made anew");
        assert_eq!(due(&seen(4, Phase::Stable, "r"), &state(Role::Master, 4, true)), None);
        assert_eq!(due(&seen(5, Phase::Stable, "other"), &state(Role::Replica, 4, true)), None);
        assert_eq!(due(&seen(5, Phase::Deposing, "other"), &state(Role::Master, 0, false)), None);
        let fenced = State { fenced_epoch: Some(5), ..state(Role::Master, 4, true) };
        assert_eq!(due(&seen(5, Phase::Deposing, "r"), &fenced), None);
    }
}
