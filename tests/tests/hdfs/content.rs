//! What stands in the store: whole snapshots under names of their own, and how anything else that lies there is told.

use agent::snapshot::{Problem, SnapshotId, rank};
use agent::store::{Elsewhere, Stage, fetch_file};

use super::*;

#[test]
fn snapshots_go_in_and_come_out() {
    Bench::run("hdfs-content", async |bench| {
        let hdfs = Hdfs::start(&bench, 1).await?;
        let store = store(&hdfs)?;
        ensure!(store.list().await?.is_empty(), "nothing stored yet");
        store.check_writable().await?;
        round_trip(&bench, &hdfs, &store).await?;
        names_are_never_taken_over(&bench, &store).await?;
        dropped_upload(&bench, &store).await?;
        imports(&bench, &hdfs).await?;
        bad_entries(&bench, &hdfs).await?;
        damaged_block(&bench, &hdfs, &store).await
    });
}

async fn round_trip(bench: &Arc<Bench>, hdfs: &Hdfs, store: &Store) -> Result<()> {
    let path = dump(bench, "large.rdb", 20 << 20)?;
    let made = manifest(&path, 1)?;
    let begun = Instant::now();
    let id = store.put(&path, made.clone(), &report()).await?;
    println!("put of {} bytes, read back: {:?}", made.bytes, begun.elapsed());
    ensure!(id == made.id(), "it is named {id}");
    let entries = store.list().await?;
    ensure!(entries.len() == 1 && entries[0].usable(Some("c1"))? == (&id, &made), "{entries:?}");
    ensure!(matches!(entries[0].usable(Some("c2")), Err(Problem::Foreign { .. })));
    check_got(bench, store, &id, &path).await?;

    let uri = format!("{}{}/{id}/dump.rdb", hdfs.uri(), snapshots());
    let binary = bench.dir().join("binary");
    fetch_file(&uri, made.sha256, &binary, &options(hdfs), &report()).await?;
    ensure!(std::fs::read(&binary)? == std::fs::read(&path)?);
    let wrong = agent::snapshot::Sha256([1; 32]);
    let error = fails(Duration::from_secs(10), fetch_file(&uri, wrong, &binary, &options(hdfs), &report())).await?;
    ensure!(matches!(error, Error::OtherFile { .. }), "{error}");
    let missing = format!("{}/nothing/here", hdfs.uri());
    let error = fails(Duration::from_secs(10), fetch_file(&missing, wrong, &binary, &options(hdfs), &report())).await?;
    ensure!(error.kind() == "missing", "{error}");
    Ok(())
}

async fn names_are_never_taken_over(bench: &Arc<Bench>, store: &Store) -> Result<()> {
    let path = dump(bench, "twin.rdb", 1000)?;
    let first = manifest(&path, 2)?;
    let others: Vec<Manifest> = (1..4).map(|instance| Manifest { instance, ..first.clone() }).collect();
    let id = store.put(&path, first.clone(), &report()).await?;
    let report = report();
    let puts = others.iter().map(|m| store.put(&path, m.clone(), &report));
    let mut ids = futures_util::future::try_join_all(puts).await?;
    ensure!(store.put(&path, first.clone(), &report).await? == id, "the same again is there already");
    for (m, id) in others.iter().zip(&ids) {
        ensure!(store.manifest(id).await? == *m, "{id} is another's");
    }
    ids.push(id.clone());
    ids.sort();
    let expected: Vec<SnapshotId> = std::iter::successors(Some(id.clone()), |id| Some(id.later())).take(4).collect();
    ensure!(ids == expected, "{ids:?}");
    ensure!(store.manifest(&id).await? == first, "the first was overwritten");
    Ok(())
}

async fn dropped_upload(bench: &Arc<Bench>, store: &Store) -> Result<()> {
    let path = dump(bench, "dropped.rdb", 48 << 20)?;
    let (before, report) = (store.list().await?.len(), report());
    let mut progress = report.subscribe();
    let put = store.put(&path, manifest(&path, 3)?, &report);
    tokio::select! {
        done = put => anyhow::bail!("finished before it was dropped: {done:?}"),
        seen = progress.wait_for(|p| p.stage == Stage::Uploading && p.done_bytes > 8 << 20) => { seen?; }
    }
    ensure!(store.list().await?.len() == before, "an upload that was dropped is a snapshot");
    let later = 1000 * 3600 * 24 * 30 + u64::try_from(std::time::UNIX_EPOCH.elapsed()?.as_millis())?;
    ensure!(store.sweep(later).await? == 1, "the upload lies in incoming/ until it is swept");
    Ok(())
}

/// From directories that only their owner may read, as the original system left them.
async fn imports(bench: &Arc<Bench>, hdfs: &Hdfs) -> Result<()> {
    let local = bench.subdir("old")?;
    let original = dump(bench, "original.rdb", 5 << 20)?;
    let bytes = std::fs::read(&original)?;
    for (name, bytes) in [("good", &bytes[..]), ("cut", &bytes[..3 << 20]), ("empty", b"")] {
        std::fs::create_dir(local.join(name))?;
        std::fs::write(local.join(name).join("dump.rdb"), bytes)?;
    }
    let private = ["-D", "fs.permissions.umask-mode=077", "-put", &local.display().to_string(), "/"];
    hdfs.tool("org.apache.hadoop.fs.FsShell", &private).await?;
    let old = format!("{}/old", hdfs.uri());
    let store = Store::open(&format!("{}/aurora", hdfs.uri()), "role/test/imports", options(hdfs))?;
    let find = async |name: &str, options: Options| match Elsewhere::look(&format!("{old}{name}"), &options).await? {
        Elsewhere::Dump(dump) => Ok(dump),
        Elsewhere::Job(_) => panic!("{name} is taken for a job's directory"),
    };
    let id = store.import(&find("/good", options(hdfs)).await?, "ann", &report()).await?;
    check_got(bench, &store, &id, &original).await?;
    for (name, reason) in [("/cut", "truncated"), ("/empty/dump.rdb", "only 0 bytes"), ("", "a directory with nothing in it")] {
        let import = async { store.import(&find(name, options(hdfs)).await?, "ann", &report()).await };
        let error = fails(Duration::from_secs(10), import).await?;
        ensure!(error.to_string().contains(reason), "{name}: {error}");
    }
    let stranger = || Options { user: Some("stranger".into()), ..options(hdfs) };
    let error = fails(Duration::from_secs(10), find("/good", stranger())).await?;
    ensure!(error.kind() == "denied", "{error}");
    let left: Vec<String> = store.list().await?.into_iter().map(|entry| entry.name).collect();
    ensure!(left == [id.to_string()], "{left:?}");
    Ok(())
}

/// Everything that can be wrong with a directory, copied in by Hadoop's own shell.
async fn bad_entries(bench: &Arc<Bench>, hdfs: &Hdfs) -> Result<()> {
    let local = bench.subdir("other/snapshots")?;
    let small = manifest(&dump(bench, "small.rdb", 10)?, 4)?;
    let bytes = std::fs::read(bench.dir().join("small.rdb"))?;
    let mut reasons = Vec::new();
    let mut spoil = |n: u64, dump: Option<&[u8]>, json: Option<Vec<u8>>, reason: &'static str| -> Result<()> {
        let dir = local.join(SnapshotId::new(4, small.created_ms + n * 1000, 0).as_str());
        std::fs::create_dir(&dir)?;
        dump.map_or(Ok(()), |d| std::fs::write(dir.join("dump.rdb"), d))?;
        json.map_or(Ok(()), |j| std::fs::write(dir.join("manifest.json"), j))?;
        reasons.push(reason);
        Ok(())
    };
    let good = SnapshotId::new(4, small.created_ms + 20_000, 0);
    std::fs::create_dir(local.join(good.as_str()))?;
    std::fs::write(local.join(good.as_str()).join("dump.rdb"), &bytes)?;
    std::fs::write(local.join(good.as_str()).join("manifest.json"), small.to_json())?;
    spoil(1, Some(&bytes), None, "manifest.json is missing")?;
    spoil(2, None, Some(small.to_json()), "dump.rdb is missing")?;
    spoil(3, Some(&bytes), Some(b"{\"format\": 1}".to_vec()), "does not fit")?;
    spoil(4, Some(&bytes), Some(vec![0xff; 100]), "not JSON")?;
    spoil(5, Some(&bytes), Some(vec![b' '; 9 << 20]), "9437184 bytes, more than the 8388608")?;
    spoil(6, Some(&bytes[..50]), Some(small.to_json()), "dump.rdb has 50 bytes, its manifest says")?;
    spoil(7, Some(&bytes), Some(Manifest { epoch: 9, ..small.clone() }.to_json()), "lies under the name")?;
    spoil(8, Some(&bytes), Some(Manifest { cluster_id: "c9".into(), ..small.clone() }.to_json()), "belongs to cluster c9")?;
    spoil(9, Some(&bytes), Some(Manifest { format: 7, ..small.clone() }.to_json()), "format 7, newer than 1")?;
    std::fs::create_dir_all(local.join(SnapshotId::new(4, small.created_ms, 0).as_str()).join("manifest.json"))?;
    reasons.push("manifest.json is not a file");
    std::fs::write(local.join(SnapshotId::new(5, 0, 0).as_str()), "a file where a directory belongs")?;
    reasons.push("manifest.json is missing");
    for odd in ["two words", "a+b", "%41", "-", "dump.rdb", "0000000004-20270115T080000Z"] {
        std::fs::create_dir(local.join(odd))?;
        reasons.push("is not a snapshot name");
    }
    let (from, to) = (local.parent().expect("it has one").display().to_string(), "/aurora/role/test/");
    hdfs.tool("org.apache.hadoop.fs.FsShell", &["-put", &from, to]).await?;

    let store = Store::open(&format!("{}/aurora", hdfs.uri()), "role/test/other", options(hdfs))?;
    let entries = store.list().await?;
    let mut problems: Vec<String> = entries.iter().filter_map(|e| e.usable(Some("c1")).err()).map(|p| p.to_string()).collect();
    for reason in reasons {
        let Some(at) = problems.iter().position(|p| p.contains(reason)) else {
            anyhow::bail!("no {reason:?} in {problems:#?}");
        };
        problems.remove(at);
    }
    ensure!(problems.is_empty(), "{problems:#?}");
    let usable: Vec<_> = entries.iter().filter_map(|e| e.usable(Some("c1")).ok()).map(|(id, _)| id).collect();
    ensure!(usable == [&good], "usable: {usable:?}");
    let error = fails(
        Duration::from_secs(10),
        store.get(&SnapshotId::new(4, small.created_ms + 6000, 0), &bench.dir().join("none"), &report()),
    )
    .await?;
    ensure!(error.blames_snapshot(), "{error}");
    Ok(())
}

/// A flipped bit on the only DataNode: HDFS itself refuses, the snapshot is blamed, the next best one comes back.
async fn damaged_block(bench: &Arc<Bench>, hdfs: &Hdfs, store: &Store) -> Result<()> {
    let path = dump(bench, "spoilt.rdb", 3_333_333)?;
    let made = manifest(&path, 7)?;
    let id = store.put(&path, made.clone(), &report()).await?;
    let blocks = hdfs.blocks(0);
    let (file, _) = blocks.iter().find(|(_, size)| *size == made.bytes).expect("the dump is one block");
    let mut bytes = std::fs::read(file)?;
    bytes[2_000_000] ^= 1;
    std::fs::write(file, bytes)?;

    let impatient = Options { get_patience: Duration::from_secs(1), ..options(hdfs) };
    let impatient = Store::open(&format!("{}/aurora", hdfs.uri()), CLUSTER, impatient)?;
    let dest = bench.dir().join("spoilt");
    let error = fails(Duration::from_secs(30), impatient.get(&id, &dest, &report())).await?;
    ensure!(error.blames_snapshot(), "{}", agent::store::one_line(&error));
    ensure!(!dest.exists(), "a damaged dump was handed out");

    let entries = store.list().await?;
    let ranked = rank(entries.iter().filter_map(|e| e.usable(Some("c1")).ok()), |_| None);
    ensure!(ranked[0].0 == &id, "the damage shows only when it is read");
    check_got(bench, store, ranked[1].0, &bench.dir().join("twin.rdb")).await
}
