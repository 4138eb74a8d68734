//! The agent: supervises one redis-server inside one Aurora instance and carries out the controller's commands.

pub mod api;
pub mod client;
pub mod layers;
pub mod rdb;
pub mod record;
pub mod secret;
pub mod snapshot;
pub mod store;
pub mod zk;
