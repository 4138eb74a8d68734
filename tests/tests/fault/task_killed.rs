//! kill -9 of the master's whole task, its sandbox gone.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tests::checker::Load;
use tests::harness::Bench;
use tests::harness::cluster::{Cluster, LIMIT, Options};

#[test]
fn testimony_of_the_host_lets_a_replica_take_over() {
    Bench::run("task-killed", async |bench| {
        // Two instances on one host: the other one is the witness.
        let cluster = Cluster::start(&bench, Options { instances: 4, hosts: 2, ..Options::default() }).await?;
        let before = cluster.status().await?;
        let old = before.master.clone().context("no master")?;
        let writer = cluster.writers("w", &Load::witnesses()).await?;
        writer.progress(200, LIMIT).await?;
        let killed = Instant::now();
        cluster.kill_task(old.instance).await?;
        let after = cluster.wait_new_master(before.epoch).await?;
        ensure!(after.master.as_ref().is_some_and(|m| m.task_id != old.task_id), "the dead task leads");
        writer.progress(200, LIMIT).await?;
        let log = writer.stop().await?;
        let status = cluster.wait_stable().await?;
        log.verdict(&mut cluster.connect_master().await?, killed)
            .await?
            .one_writer()?
            .confirmed_kept()?
            .lost_only_within(Duration::from_secs(2))?;
        let back = status.instances.iter().find(|i| i.instance == old.instance).context("the instance is gone")?;
        ensure!(back.task_id.as_ref().is_some_and(|id| *id != old.task_id), "no new task: {back:?}");
        Ok(())
    });
}
