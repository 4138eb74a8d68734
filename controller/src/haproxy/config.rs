//! `haproxy config`: a whole `haproxy.cfg`. Pure.

use super::{MASTER_BACKEND, REPLICAS_BACKEND};

/// What of the file can be chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `role/env/job`, named in a comment.
    pub cluster: String,
    /// Address both frontends bind to; `*` for all.
    pub bind: String,
    /// Port for writers.
    pub writers_port: u16,
    /// Port for readers.
    pub readers_port: u16,
    /// Slots per backend: at least as many as the cluster will ever have instances.
    pub slots: u32,
    /// Readers see no replica that is farther behind than this.
    pub max_lag_bytes: u64,
    /// Path of the stats socket that `haproxy follow` writes to.
    pub socket: String,
}

/// The file. `haproxy -c` accepts it from version 2.4 on.
pub fn render(options: &Options) -> String {
    let Options { cluster, bind, writers_port, readers_port, slots, max_lag_bytes, socket } = options;
    format!(
        "# Redis cluster {cluster}: writers on {bind}:{writers_port}, readers on {bind}:{readers_port}.
# Printed by `aurora-redis haproxy config`; `aurora-redis haproxy follow --socket {socket}` fills the slots.
global
    stats socket {socket} mode 600 level admin

defaults
    mode tcp
    # Redis connections stay open and may be quiet for long; TCP keep-alive finds the dead ones.
    option clitcpka
    option srvtcpka
    timeout connect 2s
    timeout client 24h
    timeout server 24h
    timeout check 1s
    # A server that leaves takes its connections along: clients must not stay with an old master.
    default-server inter 500ms fastinter 200ms downinter 300ms fall 2 rise 1 on-marked-down shutdown-sessions

frontend redis_writers
    bind {bind}:{writers_port}
    default_backend {MASTER_BACKEND}

frontend redis_readers
    bind {bind}:{readers_port}
    # With no replica close enough the master serves readers as well.
    use_backend {MASTER_BACKEND} if {{ nbsrv({REPLICAS_BACKEND}) lt 1 }}
    default_backend {REPLICAS_BACKEND}

# The checks go to the agent's port of each instance (check-port, set at run time), which answers 200 or 503.
backend {MASTER_BACKEND}
    option httpchk GET /master
    http-check expect status 200
    server-template slot {slots} 127.0.0.1:1 check disabled

backend {REPLICAS_BACKEND}
    balance leastconn
    option httpchk GET /replica?max_lag_bytes={max_lag_bytes}
    http-check expect status 200
    server-template slot {slots} 127.0.0.1:1 check disabled
"
    )
}
