//! Load balancers' questions, answered by status code: 200 yes, 503 no, the reason in the body.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Query, State as Shared};
use axum::http::StatusCode;
use axum::routing::get;
use serde::Deserialize;

use crate::api::{Role, State};
use crate::node::Node;

type Reply = (StatusCode, String);

/// `/master`, `/replica`, `/read-only`, `/live`, `/ready`.
pub(super) fn router() -> Router<Arc<Node>> {
    Router::new()
        .route("/master", get(master))
        .route("/replica", get(replica))
        .route("/read-only", get(read_only))
        .route("/live", get(live))
        .route("/ready", get(ready))
}

/// Limits of `/replica` and `/read-only`.
#[derive(Debug, Deserialize)]
struct Limits {
    /// Most bytes behind the master; any known lag without it.
    max_lag_bytes: Option<u64>,
}

fn reply(yes: Result<String, String>) -> Reply {
    match yes {
        Ok(text) => (StatusCode::OK, text + "\n"),
        Err(text) => (StatusCode::SERVICE_UNAVAILABLE, text + "\n"),
    }
}

async fn master(Shared(node): Shared<Arc<Node>>) -> Reply {
    reply(is_master(&node))
}

async fn replica(Shared(node): Shared<Arc<Node>>, Query(limits): Query<Limits>) -> Reply {
    let state = node.state();
    reply(is_replica(&state, node.master_offset.lag(&state), limits.max_lag_bytes))
}

async fn read_only(Shared(node): Shared<Arc<Node>>, Query(limits): Query<Limits>) -> Reply {
    let state = node.state();
    let as_replica = || is_replica(&state, node.master_offset.lag(&state), limits.max_lag_bytes);
    reply(is_master(&node).or_else(|_| as_replica()))
}

async fn live(Shared(node): Shared<Arc<Node>>) -> Reply {
    reply(match node.state().redis {
        Some(redis) if !redis.answering && !redis.run_id.is_empty() => Err("redis-server does not answer".into()),
        Some(_) => Ok("redis-server answers".into()),
        None => Ok("the agent answers, no server runs".into()),
    })
}

async fn ready(Shared(node): Shared<Arc<Node>>) -> Reply {
    let state = node.state();
    reply(if state.serving { Ok(format!("serving in epoch {}", state.assigned_epoch)) } else { Err("not serving".into()) })
}

fn is_master(node: &Node) -> Result<String, String> {
    match node.in_office() {
        true => Ok(format!("master of epoch {}", node.state().assigned_epoch)),
        false => Err("not the master in office".into()),
    }
}

fn is_replica(state: &State, lag: Option<u64>, max: Option<u64>) -> Result<String, String> {
    if !state.serving || state.role != Role::Replica {
        return Err("not a serving replica".into());
    }
    if !state.redis.as_ref().is_some_and(|redis| redis.link == Some(true) && !redis.syncing) {
        return Err("the link to the master is down".into());
    }
    match (lag, max) {
        (None, _) => Err("lag unknown: the master's agent has not told its offset".into()),
        (Some(lag), Some(max)) if lag > max => Err(format!("{lag} bytes behind the master, {max} are allowed")),
        (Some(lag), _) => Ok(format!("{lag} bytes behind the master of epoch {}", state.assigned_epoch)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Redis;

    fn state(change: impl FnOnce(&mut State)) -> State {
        let redis = Redis { link: Some(true), ..Redis::default() };
        let mut state = State { serving: true, role: Role::Replica, redis: Some(redis), ..State::default() };
        change(&mut state);
        state
    }

    #[test]
    fn a_linked_replica_with_a_known_and_small_lag_is_one() {
        assert!(is_replica(&state(|_| {}), Some(7), None).is_ok());
        assert!(is_replica(&state(|_| {}), Some(7), Some(7)).is_ok());
    }

    #[test]
    fn anything_else_is_none() {
        assert!(is_replica(&state(|_| {}), Some(8), Some(7)).unwrap_err().contains("8 bytes behind"));
        assert!(is_replica(&state(|_| {}), None, None).unwrap_err().contains("unknown"));
        assert!(is_replica(&state(|s| s.serving = false), Some(0), None).is_err());
        assert!(is_replica(&state(|s| s.role = Role::Master), Some(0), None).is_err());
        assert!(is_replica(&state(|s| s.redis.as_mut().unwrap().link = Some(false)), Some(0), None).is_err());
        assert!(is_replica(&state(|s| s.redis.as_mut().unwrap().syncing = true), Some(0), None).is_err());
    }
}
