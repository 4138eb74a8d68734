//! A cluster's processes, broken from outside.

use anyhow::{Context, Result};
use rustix::process::Signal;

use super::Cluster;
use crate::harness::local_aurora::Task;
use crate::harness::process;

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
        let pid = self.server_pid(instance).await?;
        process::send(pid, Signal::STOP);
        Ok(Frozen(pid))
    }

    /// kill -9 of an instance's agent; its server dies with it.
    pub async fn kill_agent(&self, instance: u32) -> Result<()> {
        let pid = self.task(instance).await?.pid.with_context(|| format!("instance {instance} has no process"))?;
        process::send(pid, Signal::KILL);
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

    /// kill -9 of controller `i`.
    pub fn kill_controller(&mut self, i: usize) {
        self.controllers[i].process = None;
    }
}

/// A stopped process; resumed when this is dropped.
#[derive(Debug)]
pub struct Frozen(u32);

impl Drop for Frozen {
    fn drop(&mut self) {
        process::send(self.0, Signal::CONT);
    }
}
