//! Redis Sentinel as Debian ships it: three Sentinels, one master, two replicas; as it comes, or with a short `down-after-milliseconds`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use redis::aio::MultiplexedConnection;

use super::door::{self, SENTINEL_MASTER};
use super::plain::Servers;
use super::subject::Master;
use crate::checker::Told;
use crate::harness::ports::Port;
use crate::harness::process::Process;
use crate::harness::{Bench, Host, binaries, redis as server, wait};

/// Longest wait until all Sentinels agree that all is well: a replica that came back is configured only after some ten seconds.
const LIMIT: Duration = Duration::from_secs(120);

/// The Sentinels with their servers.
#[derive(Debug)]
pub struct Sentinel {
    /// The data servers.
    pub servers: Servers,
    door: Told,
    watchers: Vec<Watcher>,
}

#[derive(Debug)]
struct Watcher {
    address: String,
    process: Process,
    _port: Port,
}

impl Sentinel {
    /// Starts everything, one server and one Sentinel per host. Without `down_after_ms` with Sentinel's own defaults.
    pub async fn start(bench: &Arc<Bench>, hosts: &[Host], down_after_ms: Option<u32>) -> Result<Sentinel> {
        let servers = Servers::start(bench, hosts).await?;
        let mut watchers = Vec::new();
        for (i, host) in hosts.iter().enumerate() {
            watchers.push(Watcher::start(bench, host, i + 1, &servers.list[0].address, down_after_ms)?);
        }
        let first = &servers.list[0].address;
        for watcher in &watchers {
            wait::until("a Sentinel answers", LIMIT, async || {
                watcher.process.check_alive()?;
                watcher.healthy(first, hosts.len()).await
            })
            .await?;
        }
        let addresses: Vec<String> = watchers.iter().map(|w| w.address.clone()).collect();
        let door = door::sentinels(&addresses).await?;
        Ok(Sentinel { servers, door, watchers })
    }

    /// How its clients find the master.
    pub fn door(&self) -> Told {
        self.door.clone()
    }

    /// Waits until all Sentinels agree on a master, see its replicas and each other, and the replicas are proven.
    pub async fn settle(&mut self) -> Result<Master> {
        let told = self.door.master().context("the Sentinels name nobody")?;
        self.servers.revive(&told)?;
        let master = wait::until("the Sentinels agree that all is well", LIMIT, async || {
            let master = self.watchers[0].master().await?;
            for watcher in &self.watchers {
                watcher.process.check_alive()?;
                watcher.healthy(&master, self.watchers.len()).await?;
            }
            Ok::<_, anyhow::Error>(master)
        })
        .await?;
        self.servers.wait_whole(&master).await?;
        let server = self.servers.at(&master)?;
        Ok(Master { address: master.clone(), host: server.host.clone(), pid: server.pid().context("the master is gone")? })
    }

    /// `SENTINEL FAILOVER`; answers when it was asked for.
    pub async fn failover(&self) -> Result<Instant> {
        let mut connection = server::connect(&self.watchers[0].address).await?;
        let start = Instant::now();
        redis::cmd("SENTINEL").arg("FAILOVER").arg(SENTINEL_MASTER).query_async::<()>(&mut connection).await?;
        Ok(start)
    }
}

impl Watcher {
    fn start(bench: &Arc<Bench>, host: &Host, number: usize, master: &str, down_after_ms: Option<u32>) -> Result<Watcher> {
        let port = bench.port(host)?;
        let name = format!("sentinel{number}");
        let dir = bench.subdir(&name)?;
        let mut config = format!(
            "bind {}\nport {}\ndir {}\nprotected-mode no\nsentinel monitor {SENTINEL_MASTER} {} 2\n",
            host.address,
            port.number(),
            dir.display(),
            master.replace(':', " ")
        );
        if let Some(ms) = down_after_ms {
            config.push_str(&format!("sentinel down-after-milliseconds {SENTINEL_MASTER} {ms}\n"));
        }
        let file = dir.join("sentinel.conf");
        std::fs::write(&file, config)?;
        let mut command = bench.command(host, binaries::tool("redis-sentinel")?);
        command.arg(file);
        let process = bench.start(&name, command)?;
        Ok(Watcher { address: format!("{}:{}", host.address, port.number()), process, _port: port })
    }

    async fn ask<T: redis::FromRedisValue>(&self, what: &str) -> Result<T> {
        let mut connection: MultiplexedConnection = server::connect(&self.address).await?;
        let answer = redis::cmd("SENTINEL").arg(what).arg(SENTINEL_MASTER).query_async(&mut connection).await;
        answer.with_context(|| format!("SENTINEL {what} of {}", self.address))
    }

    async fn master(&self) -> Result<String> {
        let (ip, port): (String, String) = self.ask("get-master-addr-by-name").await?;
        Ok(format!("{ip}:{port}"))
    }

    /// Fails when it sees anything but `master` alive with all its replicas and all other Sentinels, nothing in progress.
    async fn healthy(&self, master: &str, members: usize) -> Result<()> {
        let view: HashMap<String, String> = self.ask("master").await?;
        let field = |name: &str| view.get(name).map(String::as_str).unwrap_or_default();
        let seen = format!("{}:{}", field("ip"), field("port"));
        ensure!(seen == master, "{} says that {seen} is master, not {master}", self.address);
        ensure!(field("flags") == "master", "{seen} is {}", field("flags"));
        ensure!(field("num-other-sentinels") == (members - 1).to_string(), "{} other Sentinels", field("num-other-sentinels"));
        let replicas: Vec<HashMap<String, String>> = self.ask("replicas").await?;
        let well = |r: &&HashMap<String, String>| {
            r.get("flags").is_some_and(|f| f == "slave") && r.get("master-link-status").is_some_and(|s| s == "ok")
        };
        let count = replicas.iter().filter(well).count();
        ensure!(count == members - 1, "{count} replicas are well in the eyes of {}", self.address);
        Ok(())
    }
}
