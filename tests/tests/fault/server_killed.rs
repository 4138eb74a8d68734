//! kill -9 of the master's redis-server.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::checker::Load;
use tests::harness::Bench;
use tests::harness::cluster::{Cluster, LIMIT, Options};

/// Fills the master with more than the sockets to a stopped replica take, so that it stays behind.
pub async fn hold_back(cluster: &Cluster, acks: u32) -> Result<()> {
    let mut master = cluster.connect_master().await?;
    for _ in 0..40 {
        redis::cmd("SET").arg("flood").arg(vec![b'x'; 1 << 20]).query_async::<()>(&mut master).await?;
    }
    let confirmed: u32 = redis::cmd("WAIT").arg(acks).arg(4000).query_async(&mut master).await?;
    ensure!(confirmed >= acks, "{confirmed} replicas have confirmed, wanted {acks}");
    Ok(())
}

#[test]
fn the_most_advanced_replica_takes_over_and_nothing_old_is_lost() {
    Bench::run("server-killed", async |bench| {
        let cluster = Cluster::start(&bench, Options { instances: 4, ..Options::default() }).await?;
        let before = cluster.status().await?;
        let old = before.master.clone().context("no master")?;
        let held = cluster.replicas().await?[0];
        let writer = cluster.writers("w", &Load::witnesses()).await?;
        writer.progress(200, LIMIT).await?;
        let frozen = cluster.freeze_server(held).await?;
        hold_back(&cluster, 2).await?;
        let behind = cluster.agent_state(held).await?.redis.context("the held server")?.offset;
        let killed = Instant::now();
        cluster.kill_server(old.instance).await?;
        drop(frozen);
        let after = cluster.wait_new_master(before.epoch).await?;
        let new = after.master.context("no master")?;
        ensure!(new.instance != held && new.instance != old.instance, "instance {} leads", new.instance);
        writer.progress(200, LIMIT).await?;
        let log = writer.stop().await?;
        cluster.wait_stable().await?;
        let mut master = cluster.connect_master().await?;
        log.verdict(&mut master, killed).await?.one_writer()?.confirmed_kept()?.lost_only_within(Duration::from_secs(2))?;
        let entry = cluster.history().await?.into_iter().find(|h| h.epoch == after.epoch).context("no entry in the history")?;
        ensure!(
            entry.position.as_ref().is_some_and(|p| p.offset > behind),
            "left at {:?}, held back at {behind}",
            entry.position
        );
        ensure!(entry.kind == "failover" && !entry.evidence.is_empty(), "{entry:?}");
        let stats: String = redis::cmd("INFO").arg("stats").query_async(&mut master).await?;
        ensure!(!stats.contains("sync_partial_ok:0"), "nobody resynced partially: {stats}");
        Ok(())
    });
}

#[test]
fn a_lone_master_comes_back_with_its_last_dump_or_waits_with_a_reason() {
    Bench::run("server-lone", async |bench| {
        let cluster = Cluster::start(&bench, Options { instances: 1, hosts: 1, ..Options::default() }).await?;
        let before = cluster.status().await?;
        let mut master = cluster.connect_master().await?;
        redis::cmd("SET").arg("k").arg("v").query_async::<()>(&mut master).await?;
        cluster.cli(&["backup"]).await?;
        cluster.wait_snapshots(1).await?;
        cluster.kill_server(0).await?;
        cluster.wait_new_master(before.epoch).await?;
        let value: Option<String> = redis::cmd("GET").arg("k").query_async(&mut cluster.connect_master().await?).await?;
        ensure!(value.as_deref() == Some("v"), "k is {value:?}");
        Ok(())
    });
}
