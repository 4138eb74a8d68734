//! The master's host is cut off from everything, with clients on it: its lease runs out, another master leads without anybody's help, and not one
//! write is accepted by the old one after the new one's first.

use std::time::Instant;

use anyhow::{Context, ensure};
use tests::checker::Load;
use tests::harness::Bench;
use tests::harness::cluster::{Cluster, LIMIT, Options};

#[test]
fn another_leads_once_the_lease_is_over() {
    Bench::run_on_hosts("host-cut-off", 3, async |bench| {
        let cluster = Cluster::start(&bench, Options::default()).await?;
        let before = cluster.status().await?;
        let master = before.master.clone().context("no master")?;
        let host = cluster.host_of(master.instance).await?;
        let writers = cluster.writers("outside", &Load::witnesses()).await?;
        let inside = Load { plain: 0, stubborn: true, host: Some(host.clone()), ..Load::default() };
        let inside = cluster.writers("inside", &inside).await?;
        writers.progress(300, LIMIT).await?;
        let fault = Instant::now();
        bench.network().isolate(&host)?;
        cluster.wait_new_master(before.epoch).await?;
        writers.progress(300, LIMIT).await?;
        let history = cluster.history().await?;
        let evidence = &history.first().context("no history")?.evidence;
        ensure!(evidence.contains("lease") && evidence.contains("bears witness"), "{evidence}");
        bench.network().heal()?;
        cluster.wait_stable().await?;
        writers.progress(300, LIMIT).await?;
        let log = writers.stop().await?.and(inside.stop().await?);
        cluster.wait_stable().await?;
        let verdict = log.verdict(&mut cluster.connect_master().await?, fault).await?;
        verdict.one_writer()?;
        Ok(())
    });
}
