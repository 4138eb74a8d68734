//! HDFS hangs, then dies: the cluster serves on, the status says so, a dump made meanwhile arrives when it is back.

use std::time::Duration;

use anyhow::{Context, ensure};
use tests::harness::Bench;
use tests::harness::cluster::{Cluster, LIMIT, Options, Store};

/// The product's own deadlines on HDFS are longer than those of the rest.
pub const HDFS_LIMIT: Duration = Duration::from_secs(180);

#[test]
fn the_dump_arrives_when_hdfs_is_back() {
    Bench::run("hdfs-down", async |bench| {
        let mut cluster =
            Cluster::start(&bench, Options { store: Store::Hdfs(1), save: "1 1".into(), ..Options::default() }).await?;
        let before = cluster.status().await?;
        let writer = cluster.writer("w");
        writer.progress(100, LIMIT).await?;
        let hdfs = cluster.hdfs.as_mut().context("no HDFS")?;
        hdfs.freeze_namenode();
        cluster.wait_condition("store-unreachable", HDFS_LIMIT).await?;
        let hdfs = cluster.hdfs.as_mut().context("no HDFS")?;
        hdfs.kill_namenode();
        writer.progress(100, LIMIT).await?;
        let hdfs = cluster.hdfs.as_mut().context("no HDFS")?;
        hdfs.restart_namenode().await?;
        cluster.wait_snapshots_within(1, HDFS_LIMIT).await?;
        cluster.wait_no_condition("store-unreachable", HDFS_LIMIT).await?;
        let after = cluster.wait_stable().await?;
        ensure!(after.epoch == before.epoch && after.master == before.master, "the master changed: {:?}", after.master);
        let log = writer.stop().await?;
        ensure!(log.longest_pause() < Duration::from_secs(2), "writes stopped for {:?}", log.longest_pause());
        Ok(())
    });
}
