//! SIGSTOP of the master's redis-server, with and without SIGCONT.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tests::checker::Load;
use tests::harness::cluster::{Cluster, LIMIT, Options};
use tests::harness::{Bench, process};

#[test]
fn a_hung_master_is_killed_before_another_one_leads() {
    Bench::run("server-frozen", async |bench| {
        let cluster = Cluster::start(&bench, Options::default()).await?;
        let before = cluster.status().await?;
        let old = before.master.clone().context("no master")?;
        let writers = cluster.writers("w", &Load::witnesses()).await?;
        writers.progress(300, LIMIT).await?;
        let server = cluster.server_pid(old.instance).await?;
        let fault = Instant::now();
        let frozen = cluster.freeze_server(old.instance).await?;
        let after = cluster.wait_new_master(before.epoch).await?;
        ensure!(!process::runs(server), "the old server is still there beside {:?}", after.master);
        // What would wake it comes too late.
        drop(frozen);
        writers.progress(300, LIMIT).await?;
        let log = writers.stop().await?;
        cluster.wait_stable().await?;
        let verdict = log.verdict(&mut cluster.connect_master().await?, fault).await?;
        verdict.one_writer()?.confirmed_kept()?.lost_only_within(Duration::from_secs(2))?;
        ensure!(verdict.reigns.len() == 2, "nobody changed\n{verdict}");
        Ok(())
    });
}

#[test]
fn a_short_stop_changes_nothing() {
    Bench::run("server-paused", async |bench| {
        let cluster = Cluster::start(&bench, Options::default()).await?;
        let before = cluster.status().await?;
        let master = cluster.master().await?;
        let writers = cluster.writers("w", &Load::witnesses()).await?;
        writers.progress(300, LIMIT).await?;
        let fault = Instant::now();
        for _ in 0..3 {
            let frozen = cluster.freeze_server(master).await?;
            // The fault is that long.
            tokio::time::sleep(Duration::from_millis(300)).await;
            drop(frozen);
            writers.progress(100, LIMIT).await?;
        }
        let log = writers.stop().await?;
        let after = cluster.wait_stable().await?;
        ensure!(after.epoch == before.epoch && after.master == before.master, "the master changed: {:?}", after.master);
        let verdict = log.verdict(&mut cluster.connect_master().await?, fault).await?;
        verdict.one_writer()?.nothing_lost()?.one_server()?;
        Ok(())
    });
}
