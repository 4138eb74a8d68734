//! The master's host is cut off from the replicas' hosts alone: it keeps its office, for it reaches ZooKeeper and its clients. It takes no write that
//! no replica would get (`min-replicas-to-write`) until one is back.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tests::checker::Load;
use tests::harness::Bench;
use tests::harness::cluster::{Cluster, LIMIT, Options};

#[test]
fn the_master_keeps_its_office_and_the_replicas_come_back() {
    Bench::run_on_hosts("cut-from-replicas", 3, async |bench| {
        let cluster = Cluster::start(&bench, Options::default()).await?;
        let before = cluster.status().await?;
        let old = before.master.clone().context("no master")?;
        let host = cluster.host_of(old.instance).await?;
        let writers = cluster.writers("w", &Load { plain: 2, ..Load::default() }).await?;
        let stubborn = cluster.writers("s", &Load { plain: 0, stubborn: true, ..Load::default() }).await?;
        writers.progress(300, LIMIT).await?;
        let fault = Instant::now();
        bench.network().cut_from_hosts(&host)?;
        tokio::time::sleep(Duration::from_secs(10)).await;
        let status = cluster.status().await?;
        ensure!(status.epoch == before.epoch, "epoch {} became {}", before.epoch, status.epoch);
        bench.network().heal()?;
        let after = cluster.wait_stable().await?;
        ensure!(after.epoch == before.epoch && after.master == before.master, "the master changed: {:?}", after.master);
        writers.progress(300, LIMIT).await?;
        let log = writers.stop().await?.and(stubborn.stop().await?);
        let verdict = log.verdict(&mut cluster.connect_master().await?, fault).await?;
        verdict.one_writer()?.nothing_lost()?.one_server()?;
        let others =
            verdict.refused.iter().filter_map(|f| f.refused.as_deref()).find(|code| !["NOREPLICAS", "READONLY"].contains(code));
        ensure!(others.is_none() && verdict.unanswered.is_empty(), "writes failed for other reasons: {others:?}\n{verdict}");
        Ok(())
    });
}
