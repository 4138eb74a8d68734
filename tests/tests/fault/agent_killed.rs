//! kill -9 of the master's agent: its server dies with it, its successor in the same task says so.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tests::checker::Load;
use tests::harness::Bench;
use tests::harness::cluster::{Cluster, LIMIT, Options};

#[test]
fn the_server_dies_with_its_agent_and_another_takes_over() {
    Bench::run("agent-killed", async |bench| {
        let cluster = Cluster::start(&bench, Options::default()).await?;
        let before = cluster.status().await?;
        let old = before.master.clone().context("no master")?;
        let writer = cluster.writers("w", &Load::witnesses()).await?;
        writer.progress(200, LIMIT).await?;
        let server = cluster.server_pid(old.instance).await?;
        let killed = Instant::now();
        cluster.kill_agent(old.instance).await?;
        cluster.wait_gone(server).await?;
        cluster.wait_new_master(before.epoch).await?;
        writer.progress(200, LIMIT).await?;
        let log = writer.stop().await?;
        cluster.wait_stable().await?;
        let verdict = log.verdict(&mut cluster.connect_master().await?, killed).await?;
        let lost = verdict.one_writer()?.confirmed_kept()?.lost_only_within(Duration::from_secs(2))?.lost.len();
        ensure!(lost < log.acks.len() / 2, "{lost} of {} are gone", log.acks.len());
        Ok(())
    });
}
