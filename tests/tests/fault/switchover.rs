//! Planned changes of master under writers without pause: there and back again, and by the end of the master's task. Nothing is lost.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::process::Signal;
use tests::checker::{About, Load, judge};
use tests::harness::cluster::{Cluster, LIMIT, Options};
use tests::harness::{Bench, process};

/// Unpaced clients; beside each instance one that tries again and again.
fn unpaced() -> Load {
    Load { rate: None, ..Load::witnesses() }
}

#[test]
fn there_and_back_nothing_is_lost() {
    Bench::run("switchover", async |bench| {
        let cluster = Cluster::start(&bench, Options::default()).await?;
        let first = cluster.master().await?;
        let second = cluster.replicas().await?[0];
        let writers = cluster.writers("w", &unpaced()).await?;
        writers.progress(500, LIMIT).await?;
        // The run ids in the order in which they lead.
        let mut reigns = vec![cluster.agent_state(first).await?.redis.context("no server")?.run_id];
        let fault = Instant::now();
        for to in [second, first] {
            let before = cluster.wait_stable().await?;
            cluster.cli(&["switchover", "--yes", "--to", &to.to_string()]).await?;
            let after = cluster.wait_new_master(before.epoch).await?;
            ensure!(after.master.is_some_and(|m| m.instance == to), "another one leads than asked for");
            reigns.push(cluster.agent_state(to).await?.redis.context("no server")?.run_id);
            writers.progress(500, LIMIT).await?;
        }
        let log = writers.stop().await?;
        cluster.wait_stable().await?;
        let data = log.read(&mut cluster.connect_master().await?).await?;
        let verdict = judge(&log, &data, &About { fault: Some(log.time(fault)), reigns });
        println!("{verdict}");
        verdict.one_writer()?.nothing_lost()?;
        Ok(())
    });
}

#[test]
fn a_master_that_is_asked_to_end_hands_over_first() {
    Bench::run("task-terminated", async |bench| {
        let cluster = Cluster::start(&bench, Options::default()).await?;
        let before = cluster.status().await?;
        let old = before.master.clone().context("no master")?;
        let writers = cluster.writers("w", &unpaced()).await?;
        writers.progress(500, LIMIT).await?;
        let fault = Instant::now();
        process::send(cluster.agent_pid(old.instance).await?, Signal::TERM);
        cluster.wait_new_master(before.epoch).await?;
        writers.progress(500, LIMIT).await?;
        let log = writers.stop().await?;
        cluster.wait_stable().await?;
        let verdict = log.verdict(&mut cluster.connect_master().await?, fault).await?;
        verdict.one_writer()?.nothing_lost()?.pause_within(Duration::from_secs(10))?;
        ensure!(verdict.reigns.len() == 2, "nobody took over\n{verdict}");
        Ok(())
    });
}
