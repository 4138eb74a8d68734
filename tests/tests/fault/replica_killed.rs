//! kill -9 of a replica's server, then of its whole task: the master is not disturbed.

use std::time::Duration;

use anyhow::ensure;
use tests::harness::Bench;
use tests::harness::cluster::{Cluster, LIMIT, Options};

#[test]
fn the_master_serves_on_and_the_replica_comes_back() {
    Bench::run("replica-killed", async |bench| {
        let cluster = Cluster::start(&bench, Options::default()).await?;
        let before = cluster.status().await?;
        let replica = cluster.replicas().await?[0];
        let writer = cluster.writer("w");
        writer.progress(100, LIMIT).await?;
        let dead = cluster.server_pid(replica).await?;
        cluster.kill_server(replica).await?;
        cluster.wait_server_other_than(replica, dead).await?;
        cluster.wait_stable().await?;
        let task = cluster.task(replica).await?.task_id;
        cluster.kill_task(replica).await?;
        cluster.wait_task_other_than(replica, &task).await?;
        let after = cluster.wait_stable().await?;
        ensure!(after.epoch == before.epoch && after.master == before.master, "the master changed: {:?}", after.master);
        let log = writer.stop().await?;
        ensure!(log.missing(&mut cluster.connect_master().await?).await?.is_empty(), "writes are gone");
        ensure!(log.longest_pause() < Duration::from_secs(2), "writes stopped for {:?}", log.longest_pause());
        Ok(())
    });
}
