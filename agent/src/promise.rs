//! Promises to bear no witness: what a replica's agent gives to a master that cannot renew its lease.
//!
//! Invariants: a promise is given only by the task that is asked and only for exactly the epoch that this agent knows, which is the highest
//! it has read or obeyed. A promise and a higher epoch cannot pass each other unseen: the end of the promise is noted before the epoch is
//! looked at, and whoever tells the epoch has noted it before the promise is looked at. An agent that starts again acts, for the longest
//! promise there can be, as if it had just given one: so none needs to be kept on disk.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::api::{Promise, PromiseRequest};
use crate::clock::since_boot;
use crate::memory::Memory;
use crate::node::Node;
use crate::timing;

/// Longest promise given: far longer than any lease.
const LONGEST: Duration = Duration::from_secs(600);

/// The promise that binds this agent, if one does.
#[derive(Debug)]
pub(crate) struct Promises {
    /// Its end, time since boot.
    until: watch::Sender<Duration>,
}

impl Promises {
    /// At the start of an agent; `again` when there was one before it in this sandbox.
    pub fn begin(again: bool, memory: &Memory) -> Promises {
        // Where the memory was lost, the longest there can be.
        let lease = memory.lease_ms.map_or(timing::LONGEST_LEASE, Duration::from_millis);
        let until = if again { since_boot() + timing::with_margin(lease) } else { Duration::ZERO };
        Promises { until: watch::channel(until).0 }
    }

    /// Whether one binds at the moment.
    pub fn bind(&self) -> bool {
        *self.until.borrow() > since_boot()
    }
}

/// Answers a request. With no time asked for, nothing is promised; the answer says whether it would be.
pub(crate) fn answer(node: &Node, asked: &PromiseRequest) -> Promise {
    let length = Duration::from_millis(asked.for_ms);
    let mut reason = String::new();
    // No closure of another lock waits for this one: the memory's is held for the time of a copy.
    node.promises.until.send_if_modified(|until| {
        let before = *until;
        if !length.is_zero() {
            *until = before.max(since_boot() + length.min(LONGEST));
        }
        if let Some(why) = refusal(&node.config.task_id, &node.notebook.get(), asked) {
            (*until, reason) = (before, why);
        }
        *until != before
    });
    if reason.is_empty() && !length.is_zero() {
        node.change(|_| {});
    }
    Promise { task_id: asked.task_id.clone(), epoch: asked.epoch, round: asked.round, promised: reason.is_empty(), reason }
}

/// Why no promise is given.
fn refusal(task_id: &str, known: &Memory, asked: &PromiseRequest) -> Option<String> {
    if asked.task_id != task_id {
        return Some(format!("task {} is asked, this is {task_id}", asked.task_id));
    }
    if known.cluster_id.as_ref() != Some(&asked.cluster_id) || known.generation.as_ref() != Some(&asked.generation) {
        return Some("this agent knows another cluster, or another generation of its record".into());
    }
    if known.epoch != asked.epoch {
        return Some(format!("a promise for epoch {} is asked, this agent knows epoch {}", asked.epoch, known.epoch));
    }
    let length = Duration::from_millis(asked.for_ms);
    (length > LONGEST).then(|| format!("a promise for {length:?} is asked, {LONGEST:?} is the longest"))
}

/// Says at once when a promise ends, for as long as the agent runs.
pub(crate) async fn watch(node: Arc<Node>) {
    let mut until = node.promises.until.subscribe();
    loop {
        let left = until.borrow_and_update().saturating_sub(since_boot());
        node.change(|_| {});
        let ended = async {
            match left.is_zero() {
                true => std::future::pending().await,
                false => tokio::time::sleep(left).await,
            }
        };
        tokio::select! {
            () = ended => {}
            changed = until.changed() => if changed.is_err() { return },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut PromiseRequest)) -> Option<String> {
        let known = Memory { cluster_id: Some("c".into()), generation: Some("g".into()), epoch: 4, ..Memory::default() };
        let mut asked = PromiseRequest {
            cluster_id: "c".into(),
            generation: "g".into(),
            epoch: 4,
            task_id: "t".into(),
            round: 7,
            for_ms: 2000,
        };
        change(&mut asked);
        refusal("t", &known, &asked)
    }

    #[test]
    fn only_exactly_what_this_agent_knows_is_promised() {
        assert_eq!(refused(|_| {}), None);
        assert!(refused(|a| a.task_id = "u".into()).unwrap().contains("task u"));
        assert!(refused(|a| a.cluster_id = "d".into()).unwrap().contains("another cluster"));
        assert!(refused(|a| a.generation = "h".into()).unwrap().contains("generation"));
        assert!(refused(|a| a.epoch = 3).unwrap().contains("knows epoch 4"));
        assert!(refused(|a| a.epoch = 5).unwrap().contains("knows epoch 4"));
        assert!(refused(|a| a.for_ms = u64::MAX).unwrap().contains("longest"));
    }

    #[test]
    fn an_agent_that_starts_again_acts_as_if_it_had_promised() {
        let memory = Memory { lease_ms: Some(50_000), ..Memory::default() };
        assert!(!Promises::begin(false, &memory).bind());
        let again = Promises::begin(true, &memory);
        assert!(again.bind() && *again.until.borrow() > since_boot() + Duration::from_secs(50));
        let unknown = Promises::begin(true, &Memory::default());
        assert!(*unknown.until.borrow() > since_boot() + timing::LONGEST_LEASE, "the length is not known");
    }
}
