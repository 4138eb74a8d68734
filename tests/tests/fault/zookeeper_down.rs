//! ZooKeeper gone for longer than every session: the master keeps serving, and all is well again afterwards.

use std::time::Duration;

use anyhow::ensure;
use tests::harness::cluster::{Cluster, LIMIT, Options};
use tests::harness::{Bench, wait};

#[test]
fn the_master_serves_on_and_everybody_comes_back() {
    Bench::run("zookeeper-down", async |bench| {
        let mut cluster = Cluster::start(&bench, Options { controllers: 2, ..Options::default() }).await?;
        let before = cluster.status().await?;
        let writer = cluster.writer("w");
        writer.progress(100, LIMIT).await?;
        cluster.zookeeper.kill(0);
        // Sessions of 6 s expire by their clients' own word after 8.4 s.
        wait::holds("writes go on without ZooKeeper", Duration::from_secs(15), async || {
            writer.progress(1, Duration::from_secs(3)).await
        })
        .await?;
        cluster.zookeeper.restart(0).await?;
        let after = cluster.wait_stable().await?;
        ensure!(after.epoch == before.epoch && after.master == before.master, "the master changed: {:?}", after.master);
        writer.progress(100, LIMIT).await?;
        let log = writer.stop().await?;
        ensure!(log.missing(&mut cluster.connect_master().await?).await?.is_empty(), "writes are gone");
        ensure!(log.longest_pause() < Duration::from_secs(2), "writes stopped for {:?}", log.longest_pause());
        // And it can still fail over.
        cluster.kill_server(cluster.master().await?).await?;
        cluster.wait_new_master(after.epoch).await?;
        cluster.wait_stable().await?;
        Ok(())
    });
}
