//! ZooKeeper is gone, hung or dead, for longer than every session: no write is refused, nobody else leads, and all is well again afterwards.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::checker::Load;
use tests::harness::Bench;
use tests::harness::cluster::{Cluster, LIMIT, Options};

/// How ZooKeeper is away.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Away {
    Hung,
    Dead,
}

async fn away(bench: std::sync::Arc<Bench>, how: Away, time: Duration) -> Result<()> {
    let mut cluster = Cluster::start(&bench, Options { controllers: 2, ..Options::default() }).await?;
    let before = cluster.status().await?;
    let load = Load { plain: 2, waiting: 1, rate: Some(100), ..Load::default() };
    let writers = cluster.writers("w", &load).await?;
    let stubborn = cluster.writers("s", &Load { plain: 0, stubborn: true, rate: Some(20), ..load }).await?;
    writers.progress(100, LIMIT).await?;
    let fault = Instant::now();
    if how == Away::Hung {
        cluster.zookeeper.freeze(0)
    } else {
        cluster.zookeeper.kill(0)
    }
    tokio::time::sleep(time).await;
    if how == Away::Hung {
        cluster.zookeeper.thaw(0)
    } else {
        cluster.zookeeper.restart(0).await?
    }
    let after = cluster.wait_stable().await?;
    ensure!(after.epoch == before.epoch && after.master == before.master, "the master changed: {:?}", after.master);
    writers.progress(100, LIMIT).await?;
    let log = writers.stop().await?;
    let mut master = cluster.connect_master().await?;
    log.verdict(&mut master, fault).await?.none_refused()?.pause_within(Duration::from_secs(1))?;
    let all = log.and(stubborn.stop().await?);
    all.verdict(&mut master, fault).await?.one_writer()?.nothing_lost()?.one_server()?;
    // And it can still fail over.
    cluster.kill_server(cluster.master().await?).await?;
    cluster.wait_new_master(after.epoch).await.context("after ZooKeeper was back")?;
    cluster.wait_stable().await?;
    Ok(())
}

#[test]
fn hung_for_ten_seconds() {
    Bench::run("zookeeper-hung", async |bench| away(bench, Away::Hung, Duration::from_secs(10)).await);
}

#[test]
fn dead_for_a_minute() {
    Bench::run("zookeeper-dead", async |bench| away(bench, Away::Dead, Duration::from_secs(60)).await);
}
