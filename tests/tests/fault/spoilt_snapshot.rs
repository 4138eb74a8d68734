//! The newest snapshot is spoilt in the store: the one before is used, and the reason is shown.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use tests::harness::Bench;
use tests::harness::cluster::{CLUSTER, Cluster, LIMIT, Options};

fn snapshot_file(store: &Path, id: impl std::fmt::Display, file: &str) -> std::path::PathBuf {
    store.join(CLUSTER).join("snapshots").join(id.to_string()).join(file)
}

/// Flips a bit in the middle.
fn flip(path: &Path) -> Result<()> {
    let mut bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(path, bytes).with_context(|| path.display().to_string())
}

#[test]
fn the_one_before_is_used() {
    Bench::run("spoilt-snapshot", async |bench| {
        let cluster = Cluster::start(&bench, Options { instances: 2, hosts: 1, ..Options::default() }).await?;
        let mut master = cluster.connect_master().await?;
        for value in 1..=4 {
            redis::cmd("SET").arg("k").arg(value).query_async::<()>(&mut master).await?;
            cluster.cli(&["backup"]).await?;
            cluster.wait_snapshots(value).await?;
        }
        let snapshots = cluster.snapshots().await?;
        let store = bench.dir().join("store");
        flip(&snapshot_file(&store, &snapshots[0].id, "dump.rdb"))?;
        let cut = snapshot_file(&store, &snapshots[1].id, "dump.rdb");
        std::fs::write(&cut, &std::fs::read(&cut)?[..40])?;
        std::fs::write(snapshot_file(&store, &snapshots[2].id, "manifest.json"), "{\"no\": [manifest")?;
        let epoch = cluster.status().await?.epoch;
        for task in cluster.tasks().await? {
            cluster.destroy(&task)?;
        }
        cluster.wait_new_master(epoch).await?;
        let value: Option<u32> = redis::cmd("GET").arg("k").query_async(&mut cluster.connect_master().await?).await?;
        ensure!(value == Some(1), "k is {value:?} and not that of the only good snapshot");
        cluster.wait_condition("snapshot-unusable", LIMIT).await?;
        let listed = cluster.snapshots().await?;
        for spoilt in &snapshots[..3] {
            let row =
                listed.iter().find(|s| s.id == spoilt.id).with_context(|| format!("{} is not listed any more", spoilt.id))?;
            ensure!(!row.good && row.problem.is_some(), "{} counts as good", row.id);
        }
        Ok(())
    });
}
