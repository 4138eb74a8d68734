//! DataNodes that die or hang while a dump goes in or comes out.

use agent::store::Stage;
use anyhow::Context;

use super::*;

#[test]
fn datanodes_die_and_hang() {
    Bench::run("hdfs-datanode", async |bench| {
        let mut hdfs = Hdfs::start(&bench, 3).await?;
        let store = store(&hdfs)?;
        dies_during_an_upload(&bench, &mut hdfs, &store).await?;
        two_copies_are_enough_to_read(&bench, &mut hdfs, &store).await?;
        read_on_where_it_broke(&bench, &mut hdfs, &store).await?;
        all_dead(&bench, &mut hdfs, &store).await
    });
}

/// Killed in mid-block, and a new upload while the NameNode still hands the dead one out.
async fn dies_during_an_upload(bench: &Arc<Bench>, hdfs: &mut Hdfs, store: &Store) -> Result<()> {
    let path = dump(bench, "dump.rdb", 48 << 20)?;
    let progress = report();
    let mut seen = progress.subscribe();
    let begun = Instant::now();
    let put = store.put(&path, manifest(&path, 1)?, &progress);
    let kill = async {
        seen.wait_for(|p| p.stage == Stage::Uploading && p.done_bytes > 8 << 20).await?;
        hdfs.kill_datanode(0);
        anyhow::Ok(())
    };
    let (id, killed) = tokio::join!(put, kill);
    killed?;
    println!("upload with a DataNode killed in mid-block: {:?}, attempts {}", begun.elapsed(), progress.borrow().attempt);
    check_got(bench, store, &id?, &path).await?;

    let small = dump(bench, "after.rdb", 300_000)?;
    let progress = report();
    let begun = Instant::now();
    let id = store.put(&small, manifest(&small, 2)?, &progress).await?;
    println!("upload just after: {:?}, attempts {}", begun.elapsed(), progress.borrow().attempt);
    ensure!(progress.borrow().error.is_none(), "an error of the past is still shown");
    check_got(bench, store, &id, &small).await?;
    hdfs.restart_datanode(0)?;
    hdfs.wait_writable(3).await
}

async fn two_copies_are_enough_to_read(bench: &Arc<Bench>, hdfs: &mut Hdfs, store: &Store) -> Result<()> {
    let path = dump(bench, "read.rdb", 8 << 20)?;
    let id = store.put(&path, manifest(&path, 3)?, &report()).await?;
    hdfs.freeze_datanode(1);
    let begun = Instant::now();
    check_got(bench, store, &id, &path).await?;
    println!("read with a DataNode hung: {:?}", begun.elapsed());
    hdfs.thaw_datanode(1);
    Ok(())
}

/// All of them die while a dump is handed out piece by piece, and come back.
async fn read_on_where_it_broke(bench: &Arc<Bench>, hdfs: &mut Hdfs, store: &Store) -> Result<()> {
    let path = dump(bench, "pieces.rdb", 48 << 20)?;
    let manifest = manifest(&path, 4)?;
    let id = store.put(&path, manifest.clone(), &report()).await?;
    let (taker, mut pieces) = tokio::sync::mpsc::channel(1);
    let progress = report();
    let mut seen = progress.subscribe();
    let begun = Instant::now();
    let read = store.pieces(&id, &manifest, taker, &progress);
    let take = async {
        let mut all = Vec::new();
        for _ in 0..3 {
            all.extend_from_slice(&pieces.recv().await.context("no piece")?);
        }
        (0..3).for_each(|i| hdfs.kill_datanode(i));
        loop {
            tokio::select! {
                piece = pieces.recv() => all.extend_from_slice(&piece.context("it ended")?),
                failed = seen.wait_for(|p| p.error.is_some()) => break drop(failed?),
            }
        }
        ensure!(all.len() < 48 << 20, "all of it had been read");
        (0..3).try_for_each(|i| hdfs.restart_datanode(i))?;
        while let Some(piece) = pieces.recv().await {
            all.extend_from_slice(&piece);
        }
        anyhow::Ok(all)
    };
    let (read, all) = tokio::join!(read, take);
    println!("pieces read on after every DataNode was dead: {:?}", begun.elapsed());
    let all = all?;
    read?;
    ensure!(all == std::fs::read(&path)?, "other bytes came");
    hdfs.wait_writable(3).await
}

async fn all_dead(bench: &Arc<Bench>, hdfs: &mut Hdfs, store: &Store) -> Result<()> {
    (0..3).for_each(|i| hdfs.kill_datanode(i));
    let path = dump(bench, "stuck.rdb", 1000)?;
    let impatient = Options { put_patience: Duration::from_secs(3), ..options(hdfs) };
    let impatient = Store::open(&format!("{}/aurora", hdfs.uri()), CLUSTER, impatient)?;
    let before = store.list().await?.len();
    let error = fails(Duration::from_secs(90), impatient.put(&path, manifest(&path, 9)?, &report())).await?;
    println!("every DataNode dead: {}", agent::store::one_line(&error));
    ensure!(matches!(error, Error::GaveUp { .. }), "{error}");
    ensure!(store.list().await?.len() == before, "half an upload is a snapshot");
    Ok(())
}
