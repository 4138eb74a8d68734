//! Our cluster as the benchmark sees it: brought up by the harness, its clients follow the node in ZooKeeper.

use std::sync::Arc;
use std::time::{Duration, Instant};

use agent::zk::Keeper;
use anyhow::{Context, Result};
use rustix::process::Signal;

use super::commits::Commits;
use super::door;
use super::steps::Steps;
use super::subject::Master;
use crate::checker::Told;
use crate::harness::cluster::{Cluster, LIMIT, Options};
use crate::harness::{Bench, process};

/// Session of the clients with ZooKeeper.
const SESSION: Duration = Duration::from_secs(10);

/// A cluster.
#[derive(Debug)]
pub struct Ours {
    /// Its parts.
    pub cluster: Cluster,
    /// The ZooKeeper's time for a commit.
    pub commits: Commits,
    /// Where the time of its failovers went.
    pub steps: Steps,
    door: Told,
}

impl Ours {
    /// Starts one of `instances` with one controller, one ZooKeeper server and files as the store.
    pub async fn start(bench: &Arc<Bench>, instances: u32) -> Result<Ours> {
        let options = Options { instances, hosts: instances as usize, ..Options::default() };
        let cluster = Cluster::start(bench, options).await?;
        let keeper = Keeper::start(&cluster.zookeeper.connect_string(), SESSION);
        keeper.ready(LIMIT).await?;
        let door = door::zookeeper(&keeper, &cluster.paths().master());
        let mut commits = Commits::new(cluster.zookeeper.client().await?).await?;
        commits.warm_up().await?;
        Ok(Ours { cluster, commits, steps: Steps::default(), door })
    }

    /// How its clients find the master.
    pub fn door(&self) -> Told {
        self.door.clone()
    }

    /// Waits until all replicas are proven and the clients hear of the master.
    pub async fn settle(&self) -> Result<Master> {
        let master = self.cluster.wait_stable().await?.master.context("no master")?;
        let address = master.address.to_string();
        door::wait(&self.door, &address, LIMIT).await?;
        let task = self.cluster.task(master.instance).await?;
        let host = self.cluster.hosts().iter().find(|h| h.name == task.host).context("the master's host is unknown")?;
        Ok(Master { address, host: host.clone(), pid: self.cluster.server_pid(master.instance).await? })
    }

    /// SIGTERM to the main process of the master's task; answers when.
    pub async fn terminate(&self) -> Result<Instant> {
        let task = self.cluster.task(self.cluster.master().await?).await?;
        let pid = task.pid.context("the master's task has no process")?;
        let start = Instant::now();
        process::send(pid, Signal::TERM);
        Ok(start)
    }

    /// `aurora-redis switchover`; answers when it was called, or nothing when there is no such verb.
    pub async fn switch_over(&self) -> Result<Option<Instant>> {
        let help = self.cluster.cli_output(&["switchover", "--help"]).await?;
        if !help.status.success() {
            return Ok(None);
        }
        // The question is for people.
        let yes: &[&str] = if String::from_utf8_lossy(&help.stdout).contains("--yes") { &["--yes"] } else { &[] };
        let start = Instant::now();
        self.cluster.cli(&[&["switchover"], yes].concat()).await?;
        Ok(Some(start))
    }
}
