//! A NameNode that is dead, hangs, or comes back.

use agent::snapshot::SnapshotId;
use agent::store::Stage;

use super::*;

#[test]
fn the_namenode_dies_hangs_and_comes_back() {
    Bench::run("hdfs-namenode", async |bench| {
        let mut hdfs = Hdfs::start(&bench, 1).await?;
        let store = store(&hdfs)?;
        let path = dump(&bench, "dump.rdb", 2 << 20)?;
        let first = store.put(&path, manifest(&path, 1)?, &report()).await?;

        dead(&bench, &mut hdfs, &store, &path).await?;
        hdfs.restart_namenode().await?;
        check_got(&bench, &store, &first, &path).await?;

        hung(&hdfs, &store).await?;
        the_first_of_two_hangs(&bench, &hdfs, &first, &path).await?;
        check_got(&bench, &store, &first, &path).await?;

        dies_during_an_upload(&bench, &mut hdfs, &store).await?;
        hangs_at_the_commit(&bench, &hdfs, &store).await
    });
}

async fn dead(bench: &Arc<Bench>, hdfs: &mut Hdfs, store: &Store, path: &Path) -> Result<()> {
    hdfs.kill_namenode();
    fails(CALL + Duration::from_secs(2), store.list()).await?;
    let (limit, second) = (Duration::from_secs(15), Duration::from_secs(1));
    // With the usual deadlines the connection's refusal is seen; a second attempt would take longer than there is patience.
    let usual = Options { deadlines: Deadlines::default(), put_patience: second, get_patience: second, ..options(hdfs) };
    let store = Store::open(&format!("{}/aurora", hdfs.uri()), CLUSTER, Options { first_pause: second * 2, ..usual })?;
    let error = fails(limit, store.list()).await?;
    ensure!(error.kind() == "unreachable" && error.is_retryable(), "{error}");
    println!("NameNode dead: {error}");
    let progress = report();
    let error = fails(limit, store.put(path, manifest(path, 2)?, &progress)).await?;
    ensure!(matches!(error, Error::GaveUp { .. }) && !error.blames_snapshot(), "{error}");
    let shown = progress.borrow().error.clone().unwrap_or_default();
    ensure!(shown.contains("mkdirs") && shown.contains("refused"), "the report says {shown:?}");
    let id = manifest(path, 1)?.id();
    let error = fails(limit, store.get(&id, &bench.dir().join("none"), &report())).await?;
    ensure!(matches!(error, Error::GaveUp { .. }) && !error.blames_snapshot(), "an outage is not the snapshot's fault: {error}");
    Ok(())
}

async fn hung(hdfs: &Hdfs, store: &Store) -> Result<()> {
    hdfs.freeze_namenode();
    let error = fails(CALL + Duration::from_secs(2), store.list()).await?;
    ensure!(error.kind() == "timeout", "{error}");
    println!("NameNode hung: {error}");
    let error = fails(CALL + Duration::from_secs(2), store.check_writable()).await?;
    ensure!(error.kind() == "timeout", "{error}");
    hdfs.thaw_namenode();
    // The connection that let a call pass is not used again: the first call must go through.
    ensure!(store.list().await?.len() == 1);
    Ok(())
}

/// A nameservice whose first NameNode accepts connections and says nothing: the second one is found.
async fn the_first_of_two_hangs(bench: &Arc<Bench>, hdfs: &Hdfs, id: &SnapshotId, path: &Path) -> Result<()> {
    let silent = std::net::TcpListener::bind("127.0.0.1:0")?;
    let conf = bench.subdir("two-namenodes")?;
    let property = |name: &str, value: &str| format!("<property><name>{name}</name><value>{value}</value></property>");
    let site = [
        property("dfs.nameservices", "two"),
        property("dfs.ha.namenodes.two", "nn1,nn2"),
        property("dfs.namenode.rpc-address.two.nn1", &silent.local_addr()?.to_string()),
        property("dfs.namenode.rpc-address.two.nn2", hdfs.uri().trim_start_matches("hdfs://")),
    ];
    std::fs::write(conf.join("core-site.xml"), "<configuration></configuration>")?;
    std::fs::write(conf.join("hdfs-site.xml"), format!("<configuration>{}</configuration>", site.concat()))?;
    let deadlines = Deadlines { call: Duration::from_secs(1), ..Deadlines::default() };
    let options = Options { access: Access { conf_dir: Some(conf), kerberos: None }, deadlines, ..options(hdfs) };
    let store = Store::open("hdfs://two/aurora", CLUSTER, options)?;
    ensure!(store.list().await?.len() == 1);
    let begun = Instant::now();
    ensure!(store.list().await?.len() == 1 && begun.elapsed() < deadlines.call, "the first one is asked again");
    check_got(bench, &store, id, path).await
}

async fn dies_during_an_upload(bench: &Arc<Bench>, hdfs: &mut Hdfs, store: &Store) -> Result<()> {
    let path = dump(bench, "interrupted.rdb", 32 << 20)?;
    let progress = report();
    let mut seen = progress.subscribe();
    let put = store.put(&path, manifest(&path, 3)?, &progress);
    let kill = async {
        seen.wait_for(|p| p.stage == Stage::Uploading && p.done_bytes > 8 << 20).await?;
        hdfs.kill_namenode();
        tokio::time::sleep(Duration::from_secs(1)).await;
        hdfs.restart_namenode().await
    };
    let (id, killed) = tokio::join!(put, kill);
    killed?;
    check_got(bench, store, &id?, &path).await
}

/// The rename's outcome is unknown to the client; whatever it was, in the end there is one snapshot, whole.
async fn hangs_at_the_commit(bench: &Arc<Bench>, hdfs: &Hdfs, store: &Store) -> Result<()> {
    let path = dump(bench, "commit.rdb", 1 << 20)?;
    let made = manifest(&path, 4)?;
    let progress = report();
    let mut seen = progress.subscribe();
    let put = store.put(&path, made.clone(), &progress);
    let hang = async {
        seen.wait_for(|p| p.stage == Stage::ReadingBack && p.done_bytes == made.bytes).await?;
        hdfs.freeze_namenode();
        // Longer than a call's deadline: the client has given up on its rename when it is carried out.
        tokio::time::sleep(CALL + Duration::from_secs(1)).await;
        hdfs.thaw_namenode();
        anyhow::Ok(())
    };
    let (id, hung) = tokio::join!(put, hang);
    hung?;
    let id = id?;
    check_got(bench, store, &id, &path).await?;
    let entries = store.list().await?;
    let same = entries.iter().filter(|e| e.usable(None).is_ok_and(|(id, _)| id.epoch() == 4)).count();
    ensure!(same == 1 && id == made.id(), "{same} snapshots of one dump, the last named {id}");
    Ok(())
}
