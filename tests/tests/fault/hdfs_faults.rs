//! What an HDFS with a pair of NameNodes and two DataNodes does to a cluster that keeps making dumps: each fault in the middle of an upload.
//! The cluster serves on, the status says why nothing is stored, nothing half becomes a snapshot, and dumps get through when it is over.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tests::harness::cluster::{Cluster, LIMIT, Options, Store};
use tests::harness::hdfs::{ADMIN, Hdfs};
use tests::harness::{Bench, wait};

use super::hdfs_secured::{newer_snapshot, uploads_fail_with};

const ROOT: &str = "/aurora-redis";

#[test]
fn dumps_get_through_whatever_hdfs_does() {
    Bench::run("hdfs-faults", async |bench| {
        let options = Options { instances: 2, hosts: 2, store: Store::Pair(2), save: "1 1".into(), ..Options::default() };
        let mut cluster = Cluster::start(&bench, options).await?;
        let before = cluster.status().await?;
        let mut master = cluster.connect_master().await?;
        for key in 0..16 {
            let value: Vec<u8> = (0..1u64 << 20).map(|i| (i.wrapping_mul(2_654_435_761 + key) >> 13) as u8).collect();
            redis::cmd("SET").arg(format!("big{key}")).arg(value).query_async::<()>(&mut master).await?;
        }
        let writer = cluster.writer("w");
        writer.progress(100, LIMIT).await?;
        newer_snapshot(&cluster).await?;

        handed_over(&mut cluster).await?;
        refusals(&cluster).await?;
        the_active_one_is_killed(&mut cluster).await?;
        the_writer_is_killed(&cluster).await?;
        a_datanode_hangs(&cluster).await?;
        the_active_one_hangs(&mut cluster).await?;

        cluster.wait_no_condition("upload-failing", LIMIT).await?;
        let after = cluster.wait_stable().await?;
        ensure!(after.epoch == before.epoch && after.master == before.master, "the master changed: {:?}", after.master);
        let log = writer.stop().await?;
        ensure!(log.longest_pause() < Duration::from_secs(2), "writes stopped for {:?}", log.longest_pause());
        a_copy_is_damaged(&cluster).await
    });
}

async fn handed_over(cluster: &mut Cluster) -> anyhow::Result<()> {
    uploading(cluster).await?;
    let begun = Instant::now();
    hdfs_of(cluster)?.activate(1).await?;
    newer_snapshot(cluster).await?;
    println!("NameNode handed over: {:?}", begun.elapsed());
    Ok(())
}

/// Killed in the middle of an upload; the other one takes over by force. The killed one comes back as a standby.
async fn the_active_one_is_killed(cluster: &mut Cluster) -> anyhow::Result<()> {
    uploading(cluster).await?;
    let begun = Instant::now();
    let hdfs = hdfs_of(cluster)?;
    hdfs.kill_namenode();
    hdfs.activate(0).await?;
    hdfs.restart_standby()?;
    newer_snapshot(cluster).await?;
    println!("active NameNode killed: {:?}", begun.elapsed());
    Ok(())
}

/// Frozen in the middle of an upload; the other one takes over. Whoever asks the hung one first finds the other one, new commands too.
async fn the_active_one_hangs(cluster: &mut Cluster) -> anyhow::Result<()> {
    uploading(cluster).await?;
    let begun = Instant::now();
    let hdfs = hdfs_of(cluster)?;
    let (hung, other) = (hdfs.active(), 1 - hdfs.active());
    hdfs.freeze_namenode();
    hdfs.activate(other).await?;
    newer_snapshot(cluster).await?;
    println!("active NameNode {hung} hung: {:?}", begun.elapsed());
    every_snapshot_is_whole(cluster).await?;
    println!("and what is stored is verified: {:?}", begun.elapsed());
    hdfs_of(cluster)?.kill_other_namenode();
    Ok(())
}

/// What the NameNode refuses, one after the other: each is told in the status, and over when it is put right.
async fn refusals(cluster: &Cluster) -> anyhow::Result<()> {
    let hdfs = cluster.hdfs.as_ref().context("no HDFS")?;
    let faults: [(&str, &[&str], &[&str]); 2] = [
        ("Name node is in safe mode", &["-safemode", "enter"], &["-safemode", "leave"]),
        ("DiskSpace quota", &["-setSpaceQuota", "1m", ROOT], &["-clrSpaceQuota", ROOT]),
    ];
    for (reason, break_it, mend_it) in faults {
        let begun = Instant::now();
        hdfs.tool(ADMIN, break_it).await?;
        uploads_fail_with(cluster, reason).await?;
        hdfs.tool(ADMIN, mend_it).await?;
        newer_snapshot(cluster).await?;
        println!("{reason}: {:?}", begun.elapsed());
    }
    Ok(())
}

/// The agent is killed in the middle of an upload: its file stays open in HDFS, its lease with it, and nobody minds.
async fn the_writer_is_killed(cluster: &Cluster) -> anyhow::Result<()> {
    let instance = uploading(cluster).await?;
    let begun = Instant::now();
    if Some(instance) != cluster.status().await?.master.map(|m| m.instance) {
        cluster.kill_agent(instance).await?;
    }
    newer_snapshot(cluster).await?;
    println!("writer killed: {:?}", begun.elapsed());
    Ok(())
}

async fn a_datanode_hangs(cluster: &Cluster) -> anyhow::Result<()> {
    uploading(cluster).await?;
    let begun = Instant::now();
    let hdfs = cluster.hdfs.as_ref().context("no HDFS")?;
    hdfs.freeze_datanode(0);
    newer_snapshot(cluster).await?;
    println!("DataNode hung: {:?}", begun.elapsed());
    hdfs.thaw_datanode(0);
    Ok(())
}

/// What is listed as good is good: read back, and loaded by a server.
async fn every_snapshot_is_whole(cluster: &Cluster) -> anyhow::Result<()> {
    let rows = cluster.snapshots().await?;
    ensure!(rows.iter().all(|row| row.good), "{rows:?}");
    cluster.cli(&["snapshots", "verify"]).await.map(|_| ())
}

/// A flipped bit in one of two copies harms nobody: the other one is read.
async fn a_copy_is_damaged(cluster: &Cluster) -> anyhow::Result<()> {
    let rows = cluster.snapshots().await?;
    let newest = rows.iter().max_by_key(|row| row.id.to_string()).context("no snapshot")?.id.clone();
    let bytes = cluster.stored_bytes(&newest).await?;
    let hdfs = cluster.hdfs.as_ref().context("no HDFS")?;
    // An upload in bad times begins with one copy; HDFS makes the other one in the background.
    let copies = wait::until_now("DataNode 0 has a copy", LIMIT, || {
        let mut blocks = hdfs.blocks(0);
        blocks.retain(|(_, size)| *size == bytes);
        if blocks.is_empty() { Err("none") } else { Ok(blocks) }
    })
    .await?;
    for (file, _) in copies {
        let mut content = std::fs::read(&file)?;
        content[1 << 20] ^= 1;
        std::fs::write(&file, content)?;
    }
    cluster.cli(&["snapshots", "verify", &newest.to_string()]).await.map(|_| ())
}

fn hdfs_of(cluster: &mut Cluster) -> anyhow::Result<&mut Hdfs> {
    cluster.hdfs.as_mut().context("no HDFS")
}

/// Waits until some agent is uploading: which instance.
async fn uploading(cluster: &Cluster) -> anyhow::Result<u32> {
    wait::until("an upload is under way", LIMIT, async || {
        for instance in [0, 1] {
            let state = cluster.agent_state(instance).await?;
            if state.activity.as_ref().is_some_and(|a| a.what == "uploading" && a.done_bytes > 0) {
                return Ok(instance);
            }
        }
        anyhow::bail!("none")
    })
    .await
}
