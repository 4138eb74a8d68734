//! Writers for a cluster of the harness.

use std::time::Duration;

use anyhow::{Context, Result};

use super::door::Door;
use super::writer::{Plan, Writers};
use crate::harness::Host;
use crate::harness::cluster::Cluster;

/// Which clients a cluster gets.
#[derive(Clone, Debug)]
pub struct Load {
    /// Writers that follow the master's node in ZooKeeper.
    pub plain: usize,
    /// The same, that wait for `acks` replicas after each write.
    pub waiting: usize,
    /// Replicas that those wait for.
    pub acks: u32,
    /// One writer per instance that stays with it and tries again and again: whoever accepts writes is found out.
    pub stubborn: bool,
    /// Most writes per second and writer; absent: unpaced.
    pub rate: Option<u32>,
    /// Longest wait for an answer.
    pub answer: Duration,
    /// Where the clients live; absent: outside the hosts.
    pub host: Option<Host>,
}

impl Default for Load {
    /// One writer of some hundred writes a second, so that logs stay small and the machine free.
    fn default() -> Load {
        Load { plain: 1, waiting: 0, acks: 1, stubborn: false, rate: Some(300), answer: Duration::from_secs(1), host: None }
    }
}

impl Load {
    /// What a fault test needs: writers of both kinds that follow the door, and one that stays with each instance.
    pub fn witnesses() -> Load {
        Load { plain: 2, waiting: 2, stubborn: true, rate: Some(150), ..Load::default() }
    }
}

impl Cluster {
    /// One writer that finds the master through its node in ZooKeeper.
    pub fn writer(&self, name: &str) -> Writers {
        self.following(name, &Load::default(), Vec::new())
    }

    /// Writers as `load` says.
    pub async fn writers(&self, name: &str, load: &Load) -> Result<Writers> {
        let mut stubborn = Vec::new();
        if load.stubborn {
            stubborn = self.servers().await?.into_iter().map(|server| (Door::Fixed(vec![server]), 0)).collect();
        }
        Ok(self.following(name, load, stubborn))
    }

    /// The servers of all active tasks, `host:port`.
    pub async fn servers(&self) -> Result<Vec<String>> {
        let tasks = self.tasks().await?;
        let server = |task: crate::harness::local_aurora::Task| Some(format!("{}:{}", task.address, task.ports.get("redis")?));
        tasks.into_iter().map(|task| server(task).context("a task without ports")).collect()
    }

    fn following(&self, name: &str, load: &Load, mut writers: Vec<(Door, u32)>) -> Writers {
        let door = Door::ZooKeeper { connect: self.zookeeper.connect_string(), node: self.paths().master() };
        writers.extend(vec![(door.clone(), 0); load.plain]);
        writers.extend(vec![(door, load.acks); load.waiting]);
        Writers::start(Plan { name: name.into(), writers, rate: load.rate, answer: load.answer, host: load.host.clone() })
    }
}
