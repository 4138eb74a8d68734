//! A cluster's processes, broken from outside.

use anyhow::{Context, Result};
use rustix::process::Signal;

use super::Cluster;
use crate::harness::local_aurora::Task;
use crate::harness::{Host, process};

impl Cluster {
    /// Pid of an instance's redis-server.
    pub async fn server_pid(&self, instance: u32) -> Result<u32> {
        Ok(self.agent_state(instance).await?.redis.with_context(|| format!("instance {instance} has no server"))?.pid)
    }

    /// kill -9 of an instance's redis-server.
    pub async fn kill_server(&self, instance: u32) -> Result<()> {
        process::send(self.server_pid(instance).await?, Signal::KILL);
        Ok(())
    }

    /// SIGSTOP of an instance's redis-server; answers how to resume it.
    pub async fn freeze_server(&self, instance: u32) -> Result<Frozen> {
        Ok(Frozen::all(&[self.server_pid(instance).await?]))
    }

    /// SIGSTOP of an instance's agent; its server runs on beside it.
    pub async fn freeze_agent(&self, instance: u32) -> Result<Frozen> {
        Ok(Frozen::all(&[self.agent_pid(instance).await?]))
    }

    /// SIGSTOP of an instance's agent and server.
    pub async fn freeze_task(&self, instance: u32) -> Result<Frozen> {
        let server = self.server_pid(instance).await?;
        Ok(Frozen::all(&[self.agent_pid(instance).await?, server]))
    }

    /// SIGSTOP of controller `i`.
    pub fn freeze_controller(&self, i: usize) -> Result<Frozen> {
        Ok(Frozen::all(&[self.controller_pid(i)?]))
    }

    /// Pid of an instance's agent.
    pub async fn agent_pid(&self, instance: u32) -> Result<u32> {
        self.task(instance).await?.pid.with_context(|| format!("instance {instance} has no process"))
    }

    /// kill -9 of an instance's agent; its server dies with it.
    pub async fn kill_agent(&self, instance: u32) -> Result<()> {
        process::send(self.agent_pid(instance).await?, Signal::KILL);
        Ok(())
    }

    /// kill -9 of an instance's whole task: agent and server at once, and the sandbox with all data gone, as when a host's disk dies.
    /// The scheduler makes a new task.
    pub async fn kill_task(&self, instance: u32) -> Result<()> {
        self.destroy(&self.task(instance).await?)
    }

    /// As [`Cluster::kill_task`], for a task already looked up.
    pub fn destroy(&self, task: &Task) -> Result<()> {
        // Moved first: an agent that is started again in the same task must not find its dump.
        let gone = task.sandbox.with_extension("gone");
        std::fs::rename(&task.sandbox, &gone).with_context(|| format!("sandbox {}", task.sandbox.display()))?;
        process::send(task.pid.with_context(|| format!("task {} has no process", task.task_id))?, Signal::KILL);
        std::fs::remove_dir_all(&gone).with_context(|| format!("removing {}", gone.display()))
    }

    /// The host an instance runs on.
    pub async fn host_of(&self, instance: u32) -> Result<Host> {
        let name = self.task(instance).await?.host;
        self.hosts.iter().find(|host| host.name == name).cloned().with_context(|| format!("unknown host {name}"))
    }

    /// Cuts a host off from ZooKeeper, and from nothing else.
    pub fn cut_from_zookeeper(&self, host: &Host) -> Result<()> {
        self.zookeeper.connect_string().split(',').try_for_each(|server| self.bench.network().cut_service(host, server))
    }

    /// An instance's agent is not started (again) before [`Cluster::release`]; for clusters whose agents are `held` ([`super::Options`]).
    pub fn hold(&self, instance: u32) -> Result<()> {
        std::fs::write(self.gate(instance), "").context("holding an agent back")
    }

    /// Lets an instance's agent start.
    pub fn release(&self, instance: u32) -> Result<()> {
        std::fs::remove_file(self.gate(instance)).context("releasing an agent")
    }

    /// An instance's agent believes itself on the host `id` from its next start on, as if its machine had been replaced; for clusters whose
    /// agents are `held` ([`super::Options`]).
    pub fn rehost(&self, instance: u32, id: &str) -> Result<()> {
        std::fs::write(self.bench.dir().join(format!("host-{instance}")), id).context("giving an agent another host id")
    }

    fn gate(&self, instance: u32) -> std::path::PathBuf {
        self.bench.dir().join(format!("held-{instance}"))
    }

    /// kill -9 of controller `i`.
    pub fn kill_controller(&mut self, i: usize) {
        self.controllers[i].process = None;
    }
}

/// Stopped processes; resumed when this is dropped.
#[derive(Debug)]
pub struct Frozen(Vec<u32>);

impl Frozen {
    /// SIGSTOP of those processes, in that order.
    pub fn all(pids: &[u32]) -> Frozen {
        pids.iter().for_each(|pid| process::send(*pid, Signal::STOP));
        Frozen(pids.to_vec())
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.0.iter().rev().for_each(|pid| process::send(*pid, Signal::CONT));
    }
}
