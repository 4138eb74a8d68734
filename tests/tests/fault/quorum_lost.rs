//! Two of three ZooKeeper servers die: no write is refused and nobody else leads; with the quorum back, all is well.

use std::time::{Duration, Instant};

use anyhow::ensure;
use tests::checker::Load;
use tests::harness::Bench;
use tests::harness::cluster::{Cluster, LIMIT, Options};

#[test]
fn the_master_serves_on_without_a_quorum() {
    Bench::run("quorum-lost", async |bench| {
        let mut cluster = Cluster::start(&bench, Options { zookeepers: 3, ..Options::default() }).await?;
        let before = cluster.status().await?;
        let writers = cluster.writers("w", &Load { plain: 2, waiting: 1, ..Load::default() }).await?;
        let stubborn = cluster.writers("s", &Load { plain: 0, stubborn: true, ..Load::default() }).await?;
        writers.progress(300, LIMIT).await?;
        let fault = Instant::now();
        cluster.zookeeper.kill(0);
        cluster.zookeeper.kill(1);
        tokio::time::sleep(Duration::from_secs(10)).await;
        cluster.zookeeper.launch(0)?;
        cluster.zookeeper.restart(1).await?;
        let after = cluster.wait_stable().await?;
        ensure!(after.epoch == before.epoch && after.master == before.master, "the master changed: {:?}", after.master);
        let log = writers.stop().await?;
        let mut master = cluster.connect_master().await?;
        log.verdict(&mut master, fault).await?.none_refused()?.pause_within(Duration::from_secs(1))?;
        let all = log.and(stubborn.stop().await?);
        all.verdict(&mut master, fault).await?.one_writer()?.nothing_lost()?.one_server()?;
        Ok(())
    });
}
