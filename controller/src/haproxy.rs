//! HAProxy as a door: a configuration whose health checks ask the agents who is master and who may be read from, and a follower that
//! keeps its server slots filled from Aurora's serverset through the runtime API.
//!
//! Whom clients reach is decided by the health checks alone; the slots only say who is asked. Called by the command line.

mod config;
mod follow;
mod runtime;
mod slots;

pub use config::{Options, render};
pub use follow::{Error, Follower};
pub use runtime::Runtime;

/// Backend whose checks pass on the master only.
pub const MASTER_BACKEND: &str = "redis_master";
/// Backend whose checks pass on replicas that are close enough.
pub const REPLICAS_BACKEND: &str = "redis_replicas";
