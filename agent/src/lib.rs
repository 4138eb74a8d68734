//! The agent: supervises one redis-server inside one Aurora instance and carries out the controller's commands.

pub mod api;
pub mod record;
pub mod snapshot;
