//! What clients of the master see of a backup from a replica, and of a dump that the master itself makes; and the agent's memory meanwhile.
//!
//! Hosts of their own are imitated by processors: the master's server and its clients have one, everything else (the replica, the agents, HDFS) the
//! other one; a child that the master forks goes to the other one too, as if its host had one to spare.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use agent::api::{AnswerKind, Command, Order, Stamp};
use agent::snapshot::How;
use anyhow::{Context, Result, ensure};
use redis::aio::MultiplexedConnection;
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};

use super::upload::{Noise, VALUE};
use super::{Figures, ORDINARY, SnapshotWishes, forget_peak, told, uploads_are_done};
use crate::bench::memory::{Kind, resident_mb};
use crate::demo::table::say;
use crate::harness::cluster::{CLUSTER, Cluster};
use crate::harness::hdfs::FS_SHELL;
use crate::harness::wait;

/// What is compared, in the order of a round.
pub const PHASES: [&str; 4] =
    ["without", "without, again", "a backup from the replica (`--how stream`)", "the master makes a dump (`BGSAVE`)"];
/// Length of a phase in which nothing happens.
const QUIET: Duration = Duration::from_secs(8);
/// Writers, and the writes a second of each.
const WRITERS: u64 = 4;
const RATE: f64 = 1000.0;
/// Bytes that one write replaces somewhere in a value.
const WRITE: usize = 1024;
/// Keys filled at once.
const BATCH: usize = 64;

/// Latencies of one phase.
#[derive(Clone, Copy, Debug, Default)]
pub struct Phase {
    pub writes: usize,
    pub median_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub worst_ms: f64,
}

impl Phase {
    fn of(mut ms: Vec<f64>) -> Result<Phase> {
        ensure!(!ms.is_empty(), "nothing was written");
        ms.sort_by(f64::total_cmp);
        let at = |part: f64| ms[((ms.len() - 1) as f64 * part) as usize];
        Ok(Phase { writes: ms.len(), median_ms: at(0.5), p99_ms: at(0.99), p999_ms: at(0.999), worst_ms: at(1.0) })
    }
}

/// Measures as many rounds as are wished.
pub async fn measure(cluster: &Cluster, wishes: &SnapshotWishes, figures: &mut Figures) -> Result<()> {
    let master = cluster.master().await?;
    let replica = cluster.replicas().await?[0];
    let mut connection = cluster.connect_master().await?;
    let keys = fill(&mut connection, wishes.mib).await?;
    let (agent, server) = (cluster.agent_pid(replica).await?, cluster.server_pid(master).await?);
    forget_peak(agent)?;
    figures.idle_mb = resident_mb(agent, Kind::Now)?;
    apart(cluster, server)?;
    let load = Load::start(&cluster.status().await?.master.context("no master")?.address.to_string(), keys)?;
    for number in 0..wishes.rounds {
        load.take();
        let mut round = [Phase::default(); PHASES.len()];
        for quiet in &mut round[..2] {
            tokio::time::sleep(QUIET).await;
            *quiet = Phase::of(load.take())?;
        }
        forget_peak(agent)?;
        cluster.cli(&["backup", "--how", "stream"]).await?;
        round[2] = Phase::of(load.take())?;
        figures.streaming_mb.push(resident_mb(agent, Kind::Peak)?);
        uploads_are_done(cluster).await?;
        load.take();
        dump(cluster, master, server).await?;
        round[3] = Phase::of(load.take())?;
        uploads_are_done(cluster).await?;
        told("latency", number, wishes.rounds, &format!("p99 {:.3?} ms", round.map(|phase| phase.p99_ms)));
        figures.latencies.push(round);
        empty(cluster).await?;
    }
    load.end()?;
    forget_peak(agent)?;
    cluster.cli(&["backup", "--how", "dump"]).await?;
    figures.uploading_mb.push(resident_mb(agent, Kind::Peak)?);
    Ok(())
}

/// Fills the master, no faster than the replica follows. How many keys there are.
async fn fill(connection: &mut MultiplexedConnection, mib: usize) -> Result<usize> {
    say(&format!("filling the cluster with {mib} MiB"));
    let keys = mib * (1 << 20) / VALUE;
    let (mut noise, mut value) = (Noise::new(2), vec![0; VALUE]);
    for first in (0..keys).step_by(BATCH) {
        let mut pipeline = redis::Pipeline::new();
        for key in first..keys.min(first + BATCH) {
            noise.fill(&mut value);
            pipeline.cmd("SET").arg(format!("key:{key:08}")).arg(&value[..]).ignore();
        }
        pipeline.cmd("WAIT").arg(1).arg(10_000);
        let (followed,): (u32,) = pipeline.query_async(connection).await?;
        ensure!(followed > 0, "the replica does not follow");
    }
    Ok(keys)
}

/// Gives the master's server and us one processor, all else another one.
fn apart(cluster: &Cluster, master: u32) -> Result<()> {
    for pid in cluster.bench.processes().into_iter().filter(|pid| *pid != master) {
        bind(pid, 1)?;
    }
    bind(master, 0)?;
    bind(std::process::id(), 0)
}

/// Binds all threads of a process.
fn bind(pid: u32, processor: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(processor);
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("process {pid}"))? {
        let thread = task?.file_name().to_string_lossy().parse().ok().and_then(Pid::from_raw);
        // It may have ended meanwhile.
        let _ = sched_setaffinity(Some(thread.context("a thread's number")?), &set);
    }
    Ok(())
}

/// Has the master's agent make its server dump, until that is done. What becomes of the dump is not waited for.
async fn dump(cluster: &Cluster, master: u32, server: u32) -> Result<()> {
    let (record, record_version) = cluster.record().await?;
    let state = cluster.agent_state(master).await?;
    let stamp = Stamp {
        cluster_id: record.cluster_id,
        generation: record.generation,
        epoch: record.epoch,
        record_version,
        task_id: state.task_id,
        run_id: state.redis.map(|r| r.run_id),
    };
    let order = Order::Backup { request_id: uuid::Uuid::new_v4().to_string(), how: How::Dump };
    let address = cluster.agent_address(master).await?;
    let answer = cluster.agents().command(&address, &Command { stamp, order }, ORDINARY).await?;
    ensure!(answer.outcome != AnswerKind::Refused, "{answer:?}");
    let children = format!("/proc/{server}/task/{server}/children");
    let forked = wait::until_now("the server has forked", ORDINARY, || {
        let children = std::fs::read_to_string(&children)?;
        children.split_whitespace().next().context("no child")?.parse::<u32>().context("a pid")
    })
    .await?;
    bind(forked, 1)?;
    cluster.wait_gone(forked).await
}

/// Takes all snapshots out of the store: the disk is not endless.
async fn empty(cluster: &Cluster) -> Result<()> {
    let all = format!("/aurora-redis/{CLUSTER}/snapshots/*");
    cluster.hdfs.as_ref().context("no HDFS")?.tool(FS_SHELL, &["-rm", "-r", "-skipTrash", &all]).await.map(|_| ())
}

/// Clients that write at a steady pace.
struct Load {
    writers: Vec<std::thread::JoinHandle<Result<()>>>,
    latencies: Arc<Mutex<Vec<f64>>>,
    over: Arc<AtomicBool>,
}

impl Load {
    fn start(address: &str, keys: usize) -> Result<Load> {
        let (latencies, over) = (Arc::<Mutex<Vec<f64>>>::default(), Arc::<AtomicBool>::default());
        let client = redis::Client::open(format!("redis://{address}/"))?;
        let mut writers = Vec::new();
        for number in 0..WRITERS {
            let connection = client.get_connection()?;
            let (latencies, over) = (latencies.clone(), over.clone());
            writers.push(std::thread::spawn(move || write(connection, number, keys, &latencies, &over)));
        }
        Ok(Load { writers, latencies, over })
    }

    /// Latencies since the last call, ms.
    fn take(&self) -> Vec<f64> {
        std::mem::take(&mut self.latencies.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn end(self) -> Result<()> {
        self.over.store(true, Ordering::Relaxed);
        self.writers.into_iter().try_for_each(|writer| writer.join().ok().context("a writer panicked")?)
    }
}

/// Writes until it is over. A write that had to wait for the one before it counts from when it was due.
fn write(
    mut connection: redis::Connection,
    number: u64,
    keys: usize,
    latencies: &Mutex<Vec<f64>>,
    over: &AtomicBool,
) -> Result<()> {
    let (mut noise, mut bytes) = (Noise::new(100 + number), vec![0; WRITE]);
    let mut due = Instant::now();
    while !over.load(Ordering::Relaxed) {
        due += Duration::from_secs_f64(1.0 / RATE);
        noise.fill(&mut bytes);
        let key = format!("key:{:08}", noise.next() % keys as u64);
        let place = noise.next() % (VALUE - WRITE) as u64;
        let begun = match due.checked_duration_since(Instant::now()) {
            Some(early) => {
                std::thread::sleep(early);
                Instant::now()
            }
            None => due,
        };
        redis::cmd("SETRANGE").arg(key).arg(place).arg(&bytes[..]).query::<u64>(&mut connection)?;
        let ms = begun.elapsed().as_secs_f64() * 1e3;
        latencies.lock().unwrap_or_else(PoisonError::into_inner).push(ms);
    }
    Ok(())
}
