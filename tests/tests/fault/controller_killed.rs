//! kill -9 of the leading controller: in peace, and in the middle of a failover.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::harness::cluster::{Cluster, LIMIT, Options};
use tests::harness::{Bench, wait};

/// Waits until another controller than `of` leads, and which.
pub async fn successor(cluster: &Cluster, of: usize) -> Result<usize> {
    wait::until("another controller leads", LIMIT, async || {
        let leader = cluster.leader().await?;
        ensure!(leader != of, "the dead one is still elected");
        Ok(leader)
    })
    .await
}

#[test]
fn a_standby_succeeds_without_disturbing_the_master_and_finishes_a_failover() {
    Bench::run("controller-killed", async |bench| {
        let mut cluster = Cluster::start(&bench, Options { controllers: 2, ..Options::default() }).await?;
        let before = cluster.status().await?;
        let writer = cluster.writer("w");
        writer.progress(100, LIMIT).await?;
        let first = cluster.leader().await?;
        cluster.kill_controller(first);
        let second = successor(&cluster, first).await?;
        let after = cluster.wait_stable().await?;
        ensure!(after.epoch == before.epoch && after.master == before.master, "the master changed: {:?}", after.master);
        writer.progress(100, LIMIT).await?;
        let log = writer.stop().await?;
        ensure!(log.longest_pause() < Duration::from_secs(2), "writes stopped for {:?}", log.longest_pause());
        ensure!(log.missing(&mut cluster.connect_master().await?).await?.is_empty(), "writes are gone");
        // Master's server and controller at once: the failover is begun, or wholly done, by the one that is left.
        cluster.start_controller(first)?;
        cluster.wait_standby(first).await?;
        let epoch = after.epoch;
        cluster.kill_server(cluster.master().await?).await?;
        cluster.kill_controller(second);
        successor(&cluster, second).await?;
        cluster.wait_new_master(epoch).await?;
        cluster.wait_stable().await?;
        ensure!(log.missing(&mut cluster.connect_master().await?).await?.is_empty(), "old writes are gone");
        Ok(())
    });
}

#[test]
fn leaders_whose_election_nodes_were_deleted_are_elected_anew() {
    Bench::run("election-nodes-deleted", async |bench| {
        let cluster = Cluster::start(&bench, Options { instances: 2, controllers: 2, ..Options::default() }).await?;
        let client = cluster.zookeeper.client().await?;
        let directory = cluster.paths().controllers();
        let nodes = client.list_children(&directory).await?;
        ensure!(nodes.len() == 2, "not two candidates: {nodes:?}");
        // Asked before: a new leader knows no master until it has heard the agents.
        let (epoch, master) = (cluster.status().await?.epoch, cluster.master().await?);
        for node in &nodes {
            client.delete(&format!("{directory}/{node}"), None).await?;
        }
        cluster.kill_server(master).await?;
        cluster.wait_new_master(epoch).await?;
        Ok(())
    });
}
