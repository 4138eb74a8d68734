//! A replica in its first sync: killed in it, and passed over when the master dies in it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::checker::Load;
use tests::harness::cluster::{Cluster, LIMIT, Options};
use tests::harness::{Bench, wait};

/// Every dump, and so a full sync, takes a millisecond per key: the server's own setting for tests.
fn options() -> Options {
    Options { instances: 2, redis_config: "rdb-key-save-delay = '1000'\n".into(), ..Options::default() }
}

/// Scales up, and waits until the newcomer is in its first sync; its instance number.
async fn newcomer(cluster: &Cluster, instance: u32) -> Result<u32> {
    cluster.cli(&["scale", "--yes", &(instance + 1).to_string()]).await?;
    let what = format!("instance {instance} is in its first sync");
    wait::until(&what, LIMIT, async || {
        let mut master = cluster.connect_master().await?;
        let info: String = redis::cmd("INFO").arg("replication").query_async(&mut master).await?;
        let syncing =
            info.lines().any(|line| line.starts_with("slave") && line.contains("state=") && !line.contains("state=online"));
        ensure!(syncing && cluster.agent_state(instance).await?.redis.is_some(), "nobody syncs: {info}");
        anyhow::Ok(instance)
    })
    .await
}

#[test]
fn a_replica_killed_in_its_first_sync_begins_again() {
    Bench::run("first-sync-killed", async |bench| {
        let cluster = Cluster::start(&bench, options()).await?;
        let before = cluster.status().await?;
        fill(&cluster).await?;
        let writers = cluster.writers("w", &Load::witnesses()).await?;
        writers.progress(200, LIMIT).await?;
        let fresh = newcomer(&cluster, 2).await?;
        let fault = Instant::now();
        let server = cluster.server_pid(fresh).await?;
        cluster.kill_server(fresh).await?;
        cluster.wait_server_other_than(fresh, server).await?;
        let after = cluster.wait_stable().await?;
        ensure!(after.master == before.master && after.epoch == before.epoch, "the master changed: {:?}", after.master);
        let log = writers.stop().await?;
        let verdict = log.verdict(&mut cluster.connect_master().await?, fault).await?;
        verdict.one_writer()?.nothing_lost()?.one_server()?;
        Ok(())
    });
}

#[test]
fn one_that_is_in_its_first_sync_does_not_lead() {
    Bench::run("first-sync-failover", async |bench| {
        let cluster = Cluster::start(&bench, options()).await?;
        let before = cluster.status().await?;
        let old = before.master.clone().context("no master")?;
        fill(&cluster).await?;
        let writers = cluster.writers("w", &Load::witnesses()).await?;
        writers.progress(200, LIMIT).await?;
        let fresh = newcomer(&cluster, 2).await?;
        let fault = Instant::now();
        cluster.kill_server(old.instance).await?;
        let after = cluster.wait_new_master(before.epoch).await?;
        let new = after.master.context("no master")?.instance;
        ensure!(new != fresh && new != old.instance, "instance {new} leads");
        writers.progress(200, LIMIT).await?;
        cluster.wait_stable().await?;
        let log = writers.stop().await?;
        let verdict = log.verdict(&mut cluster.connect_master().await?, fault).await?;
        verdict.one_writer()?.confirmed_kept()?.lost_only_within(Duration::from_secs(2))?;
        Ok(())
    });
}

/// Some thousand keys, so that a slow dump takes seconds.
async fn fill(cluster: &Cluster) -> Result<()> {
    let mut master = cluster.connect_master().await?;
    let mut pipe = redis::pipe();
    (0..3000).for_each(|i| {
        pipe.cmd("SET").arg(format!("key:{i}")).arg(i).ignore();
    });
    pipe.query_async(&mut master).await.context("filling the master")
}
