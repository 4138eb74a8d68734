//! A DataNode whose disk fills up in the middle of a block.

use agent::store::Stage;
use tests::harness::hdfs::Plan;

use super::*;

/// The DataNode's disk, MiB. After each attempt that failed HDFS keeps room for its block, for minutes: a small disk has none left then.
const DISK_MIB: u32 = 1000;
/// Of it taken by others from the beginning.
const TAKEN: usize = 740 << 20;

#[test]
fn the_upload_is_through_when_there_is_room_again() {
    Bench::run("hdfs-disk", async |bench| {
        let hdfs = Hdfs::start_as(&bench, Plan { datanodes: 1, disk_mib: Some(DISK_MIB), ..Plan::default() }).await?;
        let store = store(&hdfs)?;
        let path = dump(&bench, "dump.rdb", 96 << 20)?;
        let disk = hdfs.disk(0)?;
        let fill = |name: &str, bytes: usize| {
            let file = disk.join(name);
            tokio::task::spawn_blocking(move || std::fs::write(file, vec![1; bytes]))
        };
        fill("taken", TAKEN).await??;
        let progress = report();
        let (mut seen, mut failed) = (progress.subscribe(), progress.subscribe());
        let begun = Instant::now();
        let put = store.put(&path, manifest(&path, 1)?, &progress);
        let full = async {
            seen.wait_for(|p| p.stage == Stage::Uploading && p.done_bytes > 8 << 20).await?;
            ensure!(fill("the-rest", 300 << 20).await?.is_err(), "the disk has more room than it should");
            let error = failed.wait_for(|p| p.error.is_some()).await?.error.clone().unwrap_or_default();
            println!("disk full: {error}");
            ensure!(store.list().await?.is_empty(), "half an upload is a snapshot");
            for name in ["taken", "the-rest"] {
                std::fs::remove_file(disk.join(name))?;
            }
            anyhow::Ok(())
        };
        let (id, full) = tokio::join!(put, full);
        full?;
        println!("through after {:?}, attempts {}", begun.elapsed(), progress.borrow().attempt);
        check_got(&bench, &store, &id?, &path).await
    });
}
