//! Conditions of a cluster that tests wait for.

use std::time::Duration;

use agent::record::Phase;
use anyhow::{Context, Result, ensure};
use controller::view::{ClusterView, InstanceView, SnapshotRow};

use super::{Cluster, LIMIT};
use crate::harness::process::{self, Process};
use crate::harness::wait;

impl Cluster {
    /// Waits until `look` is content with the status; the failure text has its last reason and the summary.
    pub async fn wait_status<T>(&self, what: &str, limit: Duration, look: impl Fn(&ClusterView) -> Result<T>) -> Result<T> {
        let outcome = wait::until(what, limit, async || {
            let status = self.status().await?;
            let conditions: Vec<&str> = status.conditions.iter().map(|c| c.reason.as_str()).collect();
            look(&status).with_context(|| format!("status: {} {conditions:?}", status.summary))
        });
        let outcome = outcome.await;
        if outcome.is_err() {
            self.explain().await;
        }
        outcome
    }

    /// Waits until one master serves and every other wanted instance follows it, proven.
    pub async fn wait_stable(&self) -> Result<ClusterView> {
        self.wait_status("the cluster is stable", LIMIT, |status| stable(status).map(|()| status.clone())).await
    }

    /// Waits until a master serves at an epoch above `epoch`.
    pub async fn wait_new_master(&self, epoch: u64) -> Result<ClusterView> {
        let what = format!("a master serves at an epoch above {epoch}");
        self.wait_status(&what, LIMIT, |status| {
            ensure!(status.epoch > epoch, "epoch {}", status.epoch);
            ensure!(status.phase == Some(Phase::Stable) && status.master.is_some(), "phase {:?}", status.phase);
            Ok(status.clone())
        })
        .await
    }

    /// Waits until the status names `reason` as a condition.
    pub async fn wait_condition(&self, reason: &str, limit: Duration) -> Result<()> {
        self.wait_status(&format!("the status says {reason}"), limit, |status| {
            ensure!(status.conditions.iter().any(|c| c.reason == reason && !c.message.is_empty()), "it does not");
            Ok(())
        })
        .await
    }

    /// Waits until the status names `reason` no more.
    pub async fn wait_no_condition(&self, reason: &str, limit: Duration) -> Result<()> {
        self.wait_status(&format!("the status says {reason} no more"), limit, |status| {
            ensure!(status.conditions.iter().all(|c| c.reason != reason), "it does");
            Ok(())
        })
        .await
    }

    /// Waits until the catalogue has at least `count` good snapshots; best first.
    pub async fn wait_snapshots(&self, count: usize) -> Result<Vec<SnapshotRow>> {
        self.wait_snapshots_within(count, LIMIT).await
    }

    /// As [`Cluster::wait_snapshots`], with a limit of its own.
    pub async fn wait_snapshots_within(&self, count: usize, limit: Duration) -> Result<Vec<SnapshotRow>> {
        wait::until(&format!("{count} good snapshots are listed"), limit, async || {
            let mut snapshots = self.snapshots().await?;
            snapshots.retain(|s| s.good);
            ensure!(snapshots.len() >= count, "{} are", snapshots.len());
            Ok(snapshots)
        })
        .await
    }

    /// Waits until an instance has a server of another pid than `pid`.
    pub async fn wait_server_other_than(&self, instance: u32, pid: u32) -> Result<()> {
        wait::until(&format!("instance {instance} has a new server"), LIMIT, async || {
            let now = self.server_pid(instance).await?;
            ensure!(now != pid, "it is still {pid}");
            Ok(())
        })
        .await
    }

    /// Waits until an instance runs in another task than `task_id`.
    pub async fn wait_task_other_than(&self, instance: u32, task_id: &str) -> Result<()> {
        wait::until(&format!("instance {instance} has a new task"), LIMIT, async || {
            let now = self.task(instance).await?;
            ensure!(now.task_id != task_id, "it is still {task_id}");
            Ok(())
        })
        .await
    }

    /// Waits until no process of that id runs.
    pub async fn wait_gone(&self, pid: u32) -> Result<()> {
        wait::until_now(&format!("process {pid} is gone"), LIMIT, || if process::runs(pid) { Err("it runs") } else { Ok(()) })
            .await
    }

    /// Waits until controller `i` stands by: it is among the candidates and passes questions on.
    pub async fn wait_standby(&self, i: usize) -> Result<()> {
        wait::until(&format!("controller {} stands by", i + 1), LIMIT, || {
            self.get_from::<ClusterView>(&self.controllers[i], "/api/v1/cluster")
        })
        .await
        .map(|_| ())
    }

    /// Fails when a controller or the scheduler has ended by itself.
    pub fn check_processes(&self) -> Result<()> {
        self.controllers.iter().filter_map(|c| c.process.as_ref()).try_for_each(Process::check_alive)?;
        self.aurora.check_alive()
    }
}

/// Why the cluster is not yet as wanted: one serving master, and every other instance a proven replica of it.
pub fn stable(status: &ClusterView) -> Result<()> {
    ensure!(status.phase == Some(Phase::Stable), "phase {:?}", status.phase);
    let master = status.master.as_ref().context("no master")?;
    ensure!(status.instances.len() as u32 == status.desired_instances, "{} instances", status.instances.len());
    for instance in status.instances.iter().filter(|i| i.instance != master.instance) {
        ensure!(
            follows(instance),
            "instance {} is {} ({:?}, proven: {})",
            instance.instance,
            instance.state,
            instance.role,
            instance.proven
        );
    }
    Ok(())
}

fn follows(instance: &InstanceView) -> bool {
    instance.role == agent::api::Role::Replica && instance.state == "serving" && instance.proven
}
