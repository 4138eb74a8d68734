//! A snapshot out of HDFS into a server: from a file, and as it comes, beside both halves of it alone.
//!
//! Two agents of their own, one for each way, obey the record of a cluster whose controller is stopped. So nothing is measured but the restore: from the
//! command until the server answers, closed, with all keys. The halves alone: the dump is read from HDFS and judged, and let go; a server is
//! started with it on the disk.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use agent::api::{Address, AnswerKind, Command, Order, Stamp, State};
use agent::rdb;
use agent::snapshot::{Manifest, Origin, SnapshotId};
use agent::store::{Access, Options, Progress, Report, Store};
use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::upload::write_dump;
use super::{Figures, ORDINARY, SnapshotWishes, forget_peak, told};
use crate::bench::memory::{Kind, resident_mb};
use crate::harness::cluster::{CLUSTER, Cluster};
use crate::harness::ports::Port;
use crate::harness::process::{self, Process};
use crate::harness::redis::{Server, connect};
use crate::harness::{binaries, wait};

/// Bytes of one value: what loading costs is a matter of the keys.
const VALUE: usize = 1000;
/// How often is looked whether it is done.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// One round: all four, in an order that changes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Round {
    /// The dump read from HDFS and judged, nothing kept.
    pub download: Duration,
    /// A server started with it on the disk.
    pub load: Duration,
    /// A restore from a file.
    pub file: Duration,
    /// A restore from the stream.
    pub stream: Duration,
    /// Largest resident memory of the agent during either, MB of 10^6 bytes.
    pub file_mb: f64,
    pub stream_mb: f64,
}

impl Round {
    /// How much longer a restore took than the longer half of it.
    pub fn ratio(&self, whole: Duration) -> f64 {
        whole.as_secs_f64() / self.download.max(self.load).as_secs_f64()
    }
}

/// What is restored, and where it lies.
struct Subject {
    store: Store,
    id: SnapshotId,
    manifest: Manifest,
    keys: u64,
    /// Where a server starts from it.
    place: PathBuf,
}

/// Measures as many rounds as are wished.
pub async fn measure(cluster: &Cluster, wishes: &SnapshotWishes, figures: &mut Figures) -> Result<()> {
    let subject = prepare(cluster, wishes.mib).await?;
    let _stopped = cluster.freeze_controller(0)?;
    let (file, stream) = (Lone::start(cluster, 0, "file").await?, Lone::start(cluster, 1, "stream").await?);
    for number in 0..wishes.rounds {
        let mut round = Round::default();
        for turn in 0..4 {
            match (turn + number) % 4 {
                0 => round.download = download(&subject).await?,
                1 => round.load = load(cluster, &subject).await?,
                2 => (round.file, round.file_mb) = file.restore(cluster, &subject).await?,
                _ => (round.stream, round.stream_mb) = stream.restore(cluster, &subject).await?,
            }
        }
        told("restore", number, wishes.rounds, &format!("{round:.2?}, ratio {:.2}", round.ratio(round.stream)));
        figures.restores.push(round);
    }
    std::fs::remove_dir_all(&subject.place).context("the dump")
}

/// Stores the dump as a snapshot of the cluster.
async fn prepare(cluster: &Cluster, mib: usize) -> Result<Subject> {
    let hdfs = cluster.hdfs.as_ref().context("no HDFS")?;
    let place = cluster.bench.subdir("loaded")?;
    let path = place.join("dump.rdb");
    let keys = write_dump(&path, mib, VALUE)? as u64;
    let options = Options {
        access: Access { conf_dir: Some(hdfs.conf_dir().into()), kerberos: None },
        replication: 1,
        ..Options::default()
    };
    let store = Store::open(cluster.store_uri(), CLUSTER, options)?;
    let file = path.clone();
    let checked = tokio::task::spawn_blocking(move || rdb::check_file(&file)).await???;
    let (record, _) = cluster.record().await?;
    let origin = Origin { cluster_id: record.cluster_id, epoch: record.epoch, ..Origin::default() };
    let manifest = Manifest::new(origin, &checked);
    let id = store.put(&path, manifest.clone(), &report()).await?;
    Ok(Subject { store, id, manifest, keys, place })
}

fn report() -> Report {
    Report::new(Progress::default())
}

async fn download(subject: &Subject) -> Result<Duration> {
    let (taker, mut pieces) = tokio::sync::mpsc::channel(1);
    let report = report();
    let begun = Instant::now();
    let read = subject.store.pieces(&subject.id, &subject.manifest, taker, &report);
    let let_go = async {
        let mut bytes = 0;
        while let Some(piece) = pieces.recv().await {
            bytes += piece.len() as u64;
        }
        bytes
    };
    let (read, bytes) = tokio::join!(read, let_go);
    read?;
    ensure!(bytes == subject.manifest.bytes, "{bytes} bytes came");
    Ok(begun.elapsed())
}

async fn load(cluster: &Cluster, subject: &Subject) -> Result<Duration> {
    let here = cluster.bench.here();
    let port = cluster.bench.port(&here)?;
    let mut command = cluster.bench.command(&here, Server::Debian.path()?);
    command.args(["--port", &port.number().to_string(), "--bind", &here.address, "--save", "", "--dir"]).arg(&subject.place);
    let begun = Instant::now();
    let server = cluster.bench.start("loads", command)?;
    let address = format!("{}:{}", here.address, port.number());
    patiently("the dump is loaded", async || {
        server.check_alive()?;
        let keys: u64 = redis::cmd("DBSIZE").query_async(&mut connect(&address).await?).await?;
        ensure!(keys == subject.keys, "{keys} keys");
        Ok(())
    })
    .await?;
    let took = begun.elapsed();
    server.kill();
    Ok(took)
}

/// Looks often: what is waited for is measured.
async fn patiently<T>(what: &str, mut look: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let begun = Instant::now();
    loop {
        match look().await {
            Ok(found) => return Ok(found),
            Err(error) if begun.elapsed() > ORDINARY * 5 => return Err(error.context(format!("not in time: {what}"))),
            Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

/// An agent that nobody but us commands.
struct Lone {
    _process: Process,
    sandbox: PathBuf,
    address: Address,
    _ports: [Port; 2],
}

impl Lone {
    async fn start(cluster: &Cluster, number: u32, how: &str) -> Result<Lone> {
        let (bench, here) = (&cluster.bench, cluster.bench.here());
        let ports = [bench.port(&here)?, bench.port(&here)?];
        let name = format!("restores-by-{how}");
        let sandbox = bench.subdir(&name)?;
        let mut command = bench.command(&here, binaries::ours("aurora-redis-agent")?);
        command.arg("--config").arg(cluster.agent_config()).arg("--secret-file").arg(bench.dir().join("secret"));
        command.args(["--zookeeper", &cluster.zookeeper.connect_string(), "--cluster", CLUSTER, "--host-id", "lone"]);
        command.args(["--instance", &(90 + number).to_string(), "--task-id", &name, "--snapshots-restore-how", how]);
        command.args(["--redis-port", &ports[0].number().to_string(), "--http-port", &ports[1].number().to_string()]);
        command.args(["--snapshots-uri", cluster.store_uri(), "--sandbox"]).arg(&sandbox);
        let process = bench.start(&name, command)?;
        let address = Address { host: here.address, port: ports[1].number() };
        let lone = Lone { _process: process, sandbox, address, _ports: ports };
        wait::until("the agent has read the record", ORDINARY, async || lone.state(cluster).await?.cluster_id.context("not yet"))
            .await?;
        Ok(lone)
    }

    async fn state(&self, cluster: &Cluster) -> Result<State> {
        Ok(cluster.agents().state(&self.address, Duration::from_secs(2)).await?)
    }

    /// Restores it; how long that took, and the agent's largest memory meanwhile. Its server is ended afterwards.
    async fn restore(&self, cluster: &Cluster, subject: &Subject) -> Result<(Duration, f64)> {
        let state = self.state(cluster).await?;
        forget_peak(state.agent.pid)?;
        let (record, record_version) = cluster.record().await?;
        let stamp = Stamp {
            cluster_id: record.cluster_id,
            generation: record.generation,
            epoch: record.epoch,
            record_version,
            task_id: state.task_id,
            run_id: None,
        };
        let order = Order::Restore { snapshot: subject.id.clone() };
        let begun = Instant::now();
        let answer = cluster.agents().command(&self.address, &Command { stamp, order }, ORDINARY).await?;
        ensure!(answer.outcome == AnswerKind::Accepted, "{answer:?}");
        let server = patiently("the snapshot is restored", async || {
            let state = self.state(cluster).await?;
            ensure!(state.failed_source.is_none(), "{:?}", state.failed_source);
            let redis = state.redis.context("no server")?;
            ensure!(redis.answering && !redis.loading && redis.keys == subject.keys, "{} keys", redis.keys);
            Ok(redis.pid)
        })
        .await?;
        let took = begun.elapsed();
        let peak = resident_mb(state.agent.pid, Kind::Peak)?;
        process::send(server, Signal::KILL);
        wait::until("the server is gone", ORDINARY, async || {
            let state = self.state(cluster).await?;
            ensure!(state.redis.is_none() && state.activity.is_none(), "{:?}", state.activity);
            Ok(())
        })
        .await?;
        forget_files(&self.sandbox)?;
        Ok((took, peak))
    }
}

/// What earlier rounds left: the disk is not endless.
fn forget_files(sandbox: &Path) -> Result<()> {
    for left in ["aside", "incoming"].map(|name| sandbox.join(name)) {
        if left.exists() {
            std::fs::remove_dir_all(&left).with_context(|| left.display().to_string())?;
        }
    }
    Ok(())
}
