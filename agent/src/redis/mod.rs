//! Everything that knows how Redis and Valkey are configured and spoken to.

pub(crate) mod backlog;
pub(crate) mod conf;
pub(crate) mod connection;
pub(crate) mod info;
