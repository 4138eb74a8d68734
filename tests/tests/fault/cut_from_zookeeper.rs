//! The master's host is cut off from ZooKeeper alone, for longer than its session: clients and replicas reach it, so nobody else has to lead.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tests::checker::Load;
use tests::harness::Bench;
use tests::harness::cluster::{Cluster, LIMIT, Options};

#[test]
fn the_master_serves_on_and_no_write_is_refused() {
    Bench::run_on_hosts("cut-from-zookeeper", 3, async |bench| {
        let cluster = Cluster::start(&bench, Options::default()).await?;
        let before = cluster.status().await?;
        let old = before.master.clone().context("no master")?;
        let host = cluster.host_of(old.instance).await?;
        let writers = cluster.writers("w", &Load { plain: 2, waiting: 1, ..Load::default() }).await?;
        let stubborn = cluster.writers("s", &Load { plain: 0, stubborn: true, ..Load::default() }).await?;
        writers.progress(300, LIMIT).await?;
        let fault = Instant::now();
        cluster.cut_from_zookeeper(&host)?;
        // Its session of 6 s is over then, and its nodes are gone.
        tokio::time::sleep(Duration::from_secs(10)).await;
        let status = cluster.status().await?;
        ensure!(status.epoch == before.epoch, "epoch {} became {}", before.epoch, status.epoch);
        bench.network().heal()?;
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
