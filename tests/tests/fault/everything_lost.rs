//! All instances killed at once, their sandboxes gone: only the store has the data.

use anyhow::{Context, ensure};
use tests::harness::Bench;
use tests::harness::cluster::{Cluster, Options, Store};
use tests::harness::data::{self, Content};

#[test]
fn the_cluster_comes_back_from_the_latest_snapshot_in_hdfs() {
    Bench::run("everything-lost", async |bench| {
        let options = Options { hosts: 2, store: Store::Hdfs(1), ..Options::default() };
        let cluster = Cluster::start(&bench, options).await?;
        let mut master = cluster.connect_master().await?;
        data::load(&data::packages()?[..2000], &mut master).await?;
        cluster.cli(&["backup"]).await?;
        redis::cmd("SET").arg("second").arg(2).query_async::<()>(&mut master).await?;
        let said = cluster.cli(&["backup", "--how", "stream"]).await?;
        ensure!(said.contains("done: snapshot"), "{said}");
        let snapshots = cluster.wait_snapshots(2).await?;
        let content = Content::read(&mut master).await?;
        let before = cluster.status().await?;
        redis::cmd("SET").arg("third").arg(3).query_async::<()>(&mut master).await?;
        for task in cluster.tasks().await? {
            cluster.destroy(&task)?;
        }
        cluster.wait_new_master(before.epoch).await?;
        cluster.wait_stable().await?;
        let differences = content.differences(&Content::read(&mut cluster.connect_master().await?).await?);
        ensure!(differences.is_empty(), "{differences:?}");
        let history = cluster.history().await?;
        let entry = history.iter().find(|h| h.snapshot.is_some()).context("no restore in the history")?;
        ensure!(
            entry.snapshot.as_ref() == Some(&snapshots[0].id),
            "restored {:?}, the best was {}",
            entry.snapshot,
            snapshots[0].id
        );
        let after = cluster.status().await?;
        ensure!(after.cluster_id == before.cluster_id && after.epoch > before.epoch, "epoch {}", after.epoch);
        Ok(())
    });
}
