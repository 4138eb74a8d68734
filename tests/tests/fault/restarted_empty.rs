//! The master's agent and server die, their dump is gone, and the scheduler has the agent back within milliseconds: it comes back empty on the same
//! address, and nobody follows it.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tests::checker::Load;
use tests::harness::Bench;
use tests::harness::cluster::{Cluster, LIMIT, Options};

#[test]
fn an_emptied_master_is_not_followed() {
    Bench::run("restarted-empty", async |bench| {
        let cluster = Cluster::start(&bench, Options::default()).await?;
        let writers = cluster.writers("w", &Load::witnesses()).await?;
        let began = Instant::now();
        let mut faults = Vec::new();
        for _ in 0..2 {
            let before = cluster.wait_stable().await?;
            let old = before.master.clone().context("no master")?;
            writers.progress(200, LIMIT).await?;
            let task = cluster.task(old.instance).await?;
            let server = cluster.server_pid(old.instance).await?;
            faults.push(Instant::now());
            let _ = std::fs::remove_file(task.sandbox.join("redis/dump.rdb"));
            cluster.kill_agent(old.instance).await?;
            let after = cluster.wait_new_master(before.epoch).await?;
            ensure!(after.master.as_ref().is_some_and(|m| m.instance != old.instance), "the emptied one leads");
            cluster.wait_gone(server).await?;
            ensure!(cluster.task(old.instance).await?.task_id == task.task_id, "it came back as another task");
            writers.progress(200, LIMIT).await?;
        }
        cluster.wait_stable().await?;
        let log = writers.stop().await?;
        let verdict = log.verdict(&mut cluster.connect_master().await?, began).await?;
        verdict.one_writer()?.confirmed_kept()?;
        let ages = verdict.lost.iter().filter(|ack| {
            let near = |fault: &Instant| log.time(*fault).abs_diff(ack.acked) < Duration::from_secs(1);
            !faults.iter().any(near)
        });
        ensure!(ages.count() == 0, "writes are lost that were acknowledged long before\n{verdict}");
        Ok(())
    });
}
