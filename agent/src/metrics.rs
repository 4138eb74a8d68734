//! The agent's metrics, in one table. Values are taken from the state when somebody asks.

use prometheus::core::Collector;
use prometheus::{IntGauge, Opts, Registry, TextEncoder};

use crate::api::{Role, State};

/// One gauge: its name after `aurora_redis_agent_`, its help, its value (absent: not exposed now).
#[derive(Clone, Copy, Debug)]
pub struct Declared {
    /// Name without `aurora_redis_agent_`.
    pub name: &'static str,
    /// For people.
    pub help: &'static str,
    value: fn(&State) -> Option<i64>,
}

const fn gauge(name: &'static str, help: &'static str, value: fn(&State) -> Option<i64>) -> Declared {
    Declared { name, help, value }
}

/// Every metric of the agent, beside those of its process. Alerts and documents are compared with it.
pub const DECLARED: &[Declared] = &[
    gauge("up", "1 while the agent answers.", |_| Some(1)),
    gauge("epoch", "Highest epoch seen.", |s| Some(s.epoch as i64)),
    gauge("assigned_epoch", "Epoch of the running server's assignment; 0 without one.", |s| Some(s.assigned_epoch as i64)),
    gauge("serving", "1 while clients are served in the assigned role.", |s| Some(i64::from(s.serving))),
    gauge("is_master", "1 while Redis reports the role of a master.", |s| Some(i64::from(s.role == Role::Master))),
    gauge("is_replica", "1 while Redis reports the role of a replica.", |s| Some(i64::from(s.role == Role::Replica))),
    gauge("fenced", "1 while the server is cut off.", |s| Some(i64::from(s.fenced_epoch.is_some()))),
    gauge("stopping", "1 once the instance was asked to end.", |s| Some(i64::from(s.stopping))),
    gauge("problem", "1 while the state names a problem.", |s| Some(i64::from(s.problem.is_some()))),
    gauge("server_deaths", "Servers of this task proven dead, at most the newest 8.", |s| Some(s.deaths.len() as i64)),
    gauge("server_running", "1 while a server runs.", |s| Some(i64::from(s.redis.is_some()))),
    gauge("server_answering", "1 while the server answers its probe.", |s| Some(i64::from(s.redis.as_ref()?.answering))),
    gauge("server_lease_module", "1 while the server refuses writes beyond its lease by itself.", |s| {
        Some(i64::from(s.redis.as_ref()?.lease_module))
    }),
    gauge("server_loading", "1 while the server loads a dataset.", |s| Some(i64::from(s.redis.as_ref()?.loading))),
    gauge("server_syncing", "1 while a full sync is under way.", |s| Some(i64::from(s.redis.as_ref()?.syncing))),
    gauge("server_link_up", "1 while a replica's link to its master is up.", |s| Some(i64::from(s.redis.as_ref()?.link?))),
    gauge("server_replication_offset_bytes", "Replication offset.", |s| Some(s.redis.as_ref()?.offset as i64)),
    gauge("server_connected_replicas", "Replicas online at the master.", |s| Some(s.redis.as_ref()?.connected_replicas.into())),
    gauge("server_keys", "Keys in all databases.", |s| Some(s.redis.as_ref()?.keys as i64)),
    gauge("server_used_memory_bytes", "Memory used by the dataset.", |s| Some(s.redis.as_ref()?.used_memory as i64)),
    gauge("uploads_pending", "Dumps waiting for the store or being copied.", |s| Some(s.uploads.pending.into())),
    gauge("uploads_superseded", "Dumps given up for a newer one since the agent started.", |s| Some(s.uploads.superseded as i64)),
    gauge("uploads_failing", "1 while the present dump cannot be stored.", |s| Some(i64::from(s.uploads.error.is_some()))),
    gauge("last_snapshot_timestamp_seconds", "Time in the name of the last snapshot stored by this agent.", |s| {
        Some(s.uploads.last.as_ref()?.created_s() as i64)
    }),
];

/// The text of `/metrics`.
pub(crate) fn render(state: &State) -> String {
    let registry = Registry::new();
    for declared in DECLARED {
        if let Some(value) = (declared.value)(state) {
            let gauge = IntGauge::with_opts(Opts::new(format!("aurora_redis_agent_{}", declared.name), declared.help));
            let gauge = gauge.expect("the names in the table are valid");
            gauge.set(value);
            register(&registry, gauge);
        }
    }
    register(&registry, prometheus::process_collector::ProcessCollector::for_self());
    TextEncoder::new().encode_to_string(&registry.gather()).unwrap_or_default()
}

fn register(registry: &Registry, collector: impl Collector + 'static) {
    registry.register(Box::new(collector)).expect("the names in the table are distinct");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Redis;

    #[test]
    fn everything_declared_is_exposed_for_a_replica_with_a_server() {
        let redis = Redis { link: Some(true), ..Redis::default() };
        let mut state = State { redis: Some(redis), role: Role::Replica, ..State::default() };
        state.uploads.last = Some(crate::snapshot::SnapshotId::new(1, 0, 0));
        let text = render(&state);
        for declared in DECLARED {
            assert!(text.contains(&format!("\naurora_redis_agent_{} ", declared.name)), "{}", declared.name);
        }
        assert!(text.contains("process_resident_memory_bytes"));
        assert!(!render(&State::default()).contains("server_answering"));
    }
}
