//! The snapshot store on a real HDFS: what goes in comes out, and every fault ends in an error that says why, or goes through.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent::rdb;
use agent::snapshot::{Manifest, Origin};
use agent::store::{Access, Deadlines, Error, Options, Progress, Report, Store};
use anyhow::{Result, ensure};
use tests::harness::Bench;
use tests::harness::hdfs::Hdfs;

#[path = "hdfs/content.rs"]
mod content;
#[path = "hdfs/datanode.rs"]
mod datanode;
#[path = "hdfs/disk.rs"]
mod disk;
#[path = "hdfs/namenode.rs"]
mod namenode;

const CLUSTER: &str = "role/test/redis";
/// Deadline of a call.
const CALL: Duration = Duration::from_secs(4);
const SMALL: &[u8] = include_bytes!("../../agent/testdata/small.rdb");

/// The store below `/aurora`, with little patience.
fn store(hdfs: &Hdfs) -> Result<Store> {
    Ok(Store::open(&format!("{}/aurora", hdfs.uri()), CLUSTER, options(hdfs))?)
}

fn options(hdfs: &Hdfs) -> Options {
    let seconds = Duration::from_secs;
    Options {
        access: Access { conf_dir: Some(hdfs.conf_dir().into()), kerberos: None },
        deadlines: Deadlines { call: CALL, ..Deadlines::default() },
        put_patience: seconds(60),
        get_patience: seconds(60),
        first_pause: Duration::from_millis(200),
        longest_pause: seconds(2),
        ..Options::default()
    }
}

/// Where the cluster's snapshots are, as a path in HDFS.
fn snapshots() -> String {
    format!("/aurora/{CLUSTER}/snapshots")
}

fn report() -> Report {
    Report::new(Progress::default())
}

/// A dump of `bytes` bytes and a bit: a real one with a key more, of a pattern. Without checksum, as `rdbchecksum no` makes them.
fn dump(bench: &Arc<Bench>, name: &str, bytes: usize) -> Result<PathBuf> {
    let path = bench.dir().join(name);
    let mut dump = SMALL[..SMALL.len() - 9].to_vec();
    dump.extend(b"\x00\x03big\x80");
    dump.extend(u32::try_from(bytes)?.to_be_bytes());
    dump.extend((0..bytes).map(|i| (i * 31 % 251) as u8));
    dump.extend([0xff, 0, 0, 0, 0, 0, 0, 0, 0]);
    std::fs::write(&path, dump)?;
    Ok(path)
}

fn manifest(dump: &Path, epoch: u64) -> Result<Manifest> {
    let checked = rdb::check_file(dump)??;
    let origin = Origin { cluster_id: "c1".into(), epoch, created_ms: 1_800_000_000_000, ..Origin::default() };
    Ok(Manifest::new(origin, &checked))
}

/// The error of what must fail, and that it came within `limit`.
async fn fails<T>(limit: Duration, work: impl Future<Output = Result<T, Error>>) -> Result<Error> {
    let begun = Instant::now();
    let error = work.await.err().ok_or_else(|| anyhow::anyhow!("it went through"))?;
    ensure!(begun.elapsed() < limit, "it took {:?} to fail: {error}", begun.elapsed());
    ensure!(!error.to_string().contains('\n'), "more than a line: {error}");
    Ok(error)
}

/// Whether snapshot `id` comes back as `dump`.
async fn check_got(bench: &Arc<Bench>, store: &Store, id: &agent::snapshot::SnapshotId, dump: &Path) -> Result<()> {
    let dest = bench.dir().join(format!("got-{id}"));
    store.get(id, &dest, &report()).await?;
    ensure!(std::fs::read(&dest)? == std::fs::read(dump)?, "{id} came back with other bytes");
    Ok(std::fs::remove_file(&dest)?)
}
