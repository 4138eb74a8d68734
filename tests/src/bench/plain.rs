//! Plain servers without an agent, for Sentinel and for the bare limits: one master and its replicas.
//!
//! They get the settings that our agents give where these bear on replication, and no save points, so that no fork falls into a measurement.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::harness::ports::Port;
use crate::harness::process::Process;
use crate::harness::{Bench, Host, binaries, redis as server, wait};

/// Longest wait until replicas are in sync.
const LIMIT: Duration = Duration::from_secs(60);

const SETTINGS: &str = "repl-backlog-size 64mb\nrepl-diskless-sync yes\nrepl-diskless-sync-delay 0\nrepl-timeout 15\nrepl-ping-replica-period 3\n\
                        client-output-buffer-limit replica 512mb 256mb 60\nprotected-mode no\nsave \"\"\nappendonly no\ndaemonize no\n";

/// One server.
#[derive(Debug)]
pub struct Server {
    /// `host:port`.
    pub address: String,
    /// Its host.
    pub host: Host,
    name: String,
    port: Port,
    process: Option<Process>,
}

impl Server {
    /// Its pid; absent while it does not run.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().filter(|p| p.exited().is_none()).map(Process::pid)
    }
}

/// A master and its replicas.
#[derive(Debug)]
pub struct Servers {
    bench: Arc<Bench>,
    /// All of them, dead ones too.
    pub list: Vec<Server>,
}

impl Servers {
    /// Starts one per host, the first as master, and waits until the others follow it.
    pub async fn start(bench: &Arc<Bench>, hosts: &[Host]) -> Result<Servers> {
        let mut list = Vec::new();
        for (i, host) in hosts.iter().enumerate() {
            let port = bench.port(host)?;
            let address = format!("{}:{}", host.address, port.number());
            list.push(Server { address, host: host.clone(), name: format!("redis{}", i + 1), port, process: None });
        }
        let mut servers = Servers { bench: bench.clone(), list };
        let master = servers.list[0].address.clone();
        for i in 0..servers.list.len() {
            servers.launch(i, (i > 0).then_some(master.as_str()))?;
        }
        servers.wait_whole(&master).await?;
        Ok(servers)
    }

    /// Starts every dead one as a replica of `master`, as whoever looks after the machine would do.
    pub fn revive(&mut self, master: &str) -> Result<()> {
        let dead: Vec<usize> = (0..self.list.len()).filter(|i| self.list[*i].pid().is_none()).collect();
        dead.into_iter().try_for_each(|i| self.launch(i, Some(master)))
    }

    fn launch(&mut self, i: usize, master: Option<&str>) -> Result<()> {
        let server = &mut self.list[i];
        let dir = self.bench.subdir(&server.name)?;
        let of = master.map_or_else(String::new, |m| format!("replicaof {}\n", m.replace(':', " ")));
        let place = format!("bind {}\nport {}\ndir {}\n", server.host.address, server.port.number(), dir.display());
        let config = dir.join("redis.conf");
        std::fs::write(&config, format!("{SETTINGS}{place}{of}"))?;
        let mut command = self.bench.command(&server.host, binaries::tool("redis-server")?);
        command.arg(config);
        server.process = None;
        server.process = Some(self.bench.start(&server.name, command)?);
        Ok(())
    }

    /// The server at `address`.
    pub fn at(&self, address: &str) -> Result<&Server> {
        self.list.iter().find(|s| s.address == address).with_context(|| format!("no server at {address}"))
    }

    /// Waits until every server but `master` follows it and has acknowledged a write made after that.
    pub async fn wait_whole(&self, master: &str) -> Result<()> {
        let replicas = self.list.len() - 1;
        wait::until(&format!("{replicas} replicas of {master} are proven"), LIMIT, async || {
            let mut connection = server::connect(master).await?;
            redis::cmd("SET").arg("proof").arg(1).query_async::<()>(&mut connection).await?;
            let acks: usize = redis::cmd("WAIT").arg(replicas).arg(500).query_async(&mut connection).await?;
            ensure!(acks == replicas, "{acks} acknowledge");
            Ok(())
        })
        .await
    }
}
