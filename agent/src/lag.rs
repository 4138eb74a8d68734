//! How far a replica is behind: asks the master's agent, which the record names, for its offset each second.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::api::{Offset, Role, State};
use crate::client::Client;
use crate::node::Node;

const EVERY: Duration = Duration::from_secs(1);
/// An offset older than this says nothing.
const STALE_AFTER: Duration = Duration::from_secs(3);

/// The master's position as last heard.
#[derive(Debug, Default)]
pub(crate) struct MasterOffset {
    heard: Mutex<Option<Heard>>,
}

#[derive(Clone, Debug)]
struct Heard {
    at: Instant,
    replid: String,
    offset: Offset,
}

impl MasterOffset {
    /// Bytes that `state` is behind; absent when that is not known.
    pub fn lag(&self, state: &State) -> Option<u64> {
        let heard = self.heard.lock().expect("no panic while locked").clone()?;
        let redis = state.redis.as_ref()?;
        let comparable = heard.at.elapsed() < STALE_AFTER && heard.replid == redis.replid;
        comparable.then(|| heard.offset.saturating_sub(redis.offset))
    }

    fn hear(&self, replid: String, offset: Offset) {
        *self.heard.lock().expect("no panic while locked") = Some(Heard { at: Instant::now(), replid, offset });
    }
}

/// Runs for as long as the agent does.
pub(crate) async fn run(node: Arc<Node>) {
    let client = Client::new(None);
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let state = node.state();
        let master = node.records.get().and_then(|seen| seen.record.master.clone()).filter(|m| m.task_id != state.task_id);
        if !(state.serving && state.role == Role::Replica) {
            continue;
        }
        let Some(address) = master.and_then(|master| master.agent) else { continue };
        match client.state(&address, EVERY).await.map(|master| master.redis) {
            Ok(Some(redis)) => node.master_offset.hear(redis.replid, redis.offset),
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, "the master's offset is not known"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Redis;

    fn replica(replid: &str, offset: Offset) -> State {
        State { redis: Some(Redis { replid: replid.into(), offset, ..Redis::default() }), ..State::default() }
    }

    #[test]
    fn the_lag_is_known_only_within_one_history() {
        let master = MasterOffset::default();
        assert_eq!(master.lag(&replica("a", 5)), None);
        master.hear("a".into(), 9);
        assert_eq!(master.lag(&replica("a", 5)), Some(4));
        assert_eq!(master.lag(&replica("a", 10)), Some(0));
        assert_eq!(master.lag(&replica("b", 5)), None);
    }
}
