//! A restore into a cluster that serves goes wrong at every step: either the snapshot's data is there in the end, or nothing was touched.

use std::path::{Path, PathBuf};
use std::time::Duration;

use agent::snapshot::SnapshotId;
use anyhow::{Context, Result, ensure};
use controller::http::ClusterAnswer;
use controller::view::Operation;
use rustix::process::Signal;
use tests::harness::cluster::{CLUSTER, Cluster, LIMIT, Options};
use tests::harness::{Bench, process, wait};

/// A cluster whose key `k` is `old` in the only snapshot, and `new` at present.
async fn cluster(bench: &std::sync::Arc<Bench>, options: Options) -> Result<(Cluster, SnapshotId)> {
    let cluster = Cluster::start(bench, options).await?;
    set(&cluster, "old").await?;
    cluster.cli(&["backup"]).await?;
    let wanted = cluster.wait_snapshots(1).await?[0].id.clone();
    set(&cluster, "new").await?;
    cluster.wait_stable().await?;
    Ok((cluster, wanted))
}

async fn set(cluster: &Cluster, value: &str) -> Result<()> {
    Ok(redis::cmd("SET").arg("k").arg(value).query_async(&mut cluster.connect_master().await?).await?)
}

async fn value(cluster: &Cluster) -> Result<Option<String>> {
    Ok(redis::cmd("GET").arg("k").query_async(&mut cluster.connect_master().await?).await?)
}

async fn begin(cluster: &Cluster, wanted: &SnapshotId) -> Result<()> {
    let epoch = cluster.status().await?.epoch.to_string();
    cluster.cli(&["restore", wanted.as_str(), "--consent", &epoch, "--yes", "--no-wait"]).await.map(drop)
}

async fn operation(cluster: &Cluster) -> Result<Operation> {
    let answer: ClusterAnswer = cluster.get("/api/v1/cluster").await?;
    answer.operation.context("no operation")
}

/// How the restore ended.
async fn ended(cluster: &Cluster) -> Result<String> {
    let restore = |o: &Operation| serde_json::to_string(&o.kind).is_ok_and(|kind| kind.contains("replace"));
    wait::until("the restore has ended", LIMIT, async || {
        let operation = operation(cluster).await?;
        ensure!(restore(&operation), "it is {operation:?}");
        operation.outcome.with_context(|| format!("step {}", operation.step))
    })
    .await
}

/// The instance that is to load it, once it has fetched it.
async fn loader(cluster: &Cluster, wanted: &SnapshotId) -> Result<u32> {
    wait::until("an instance has fetched it", LIMIT, async || {
        for task in cluster.tasks().await? {
            let state = cluster.agent_state(task.instance).await?;
            if state.prepared.as_ref().is_some_and(|p| p.snapshot == *wanted && p.problem.is_none()) {
                return Ok(task.instance);
            }
        }
        anyhow::bail!("none has")
    })
    .await
}

fn flip(path: &Path) -> Result<()> {
    let mut bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(path, bytes).with_context(|| path.display().to_string())
}

fn stored(bench: &Bench, id: &SnapshotId) -> PathBuf {
    bench.dir().join("store").join(CLUSTER).join("snapshots").join(id.to_string()).join("dump.rdb")
}

#[test]
fn a_damaged_snapshot_leaves_the_cluster_undisturbed() {
    Bench::run("restore-damaged", async |bench| {
        let (cluster, wanted) = cluster(&bench, Options::default()).await?;
        flip(&stored(&bench, &wanted))?;
        let before = cluster.status().await?;
        let epoch = before.epoch.to_string();
        let output = cluster.cli_output(&["restore", wanted.as_str(), "--consent", &epoch, "--yes"]).await?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success() && said.contains("restore failed: ") && said.contains("present data stays"), "{said}");
        let after = cluster.wait_stable().await?;
        ensure!(after.epoch == before.epoch && after.master == before.master, "it was touched: {}", after.summary);
        ensure!(value(&cluster).await?.as_deref() == Some("new"), "k is {:?}", value(&cluster).await?);
        Ok(())
    });
}

#[test]
fn a_controller_that_dies_between_two_steps_is_followed_by_one_that_goes_on() {
    Bench::run("restore-leader-killed", async |bench| {
        let controller_config = "zookeeper_session = '2s'\n".into();
        let (mut cluster, wanted) = cluster(&bench, Options { controllers: 2, controller_config, ..Options::default() }).await?;
        // As soon as the record, or the operation, has changed so often.
        for (node, changes) in [("record", 1), ("record", 2), ("operation", 2), ("operation", 3)] {
            let before = cluster.wait_stable().await?;
            set(&cluster, "new").await?;
            let leader = cluster.leader().await?;
            let paths = cluster.paths();
            let path = if node == "record" { paths.record() } else { paths.operation() };
            let client = cluster.zookeeper.client().await?;
            let version = client.get_data(&path).await?.1.version;
            begin(&cluster, &wanted).await?;
            loop {
                let (_, stat, changed) = client.get_and_watch_data(&path).await?;
                if stat.version >= version + changes {
                    break;
                }
                tokio::time::timeout(LIMIT, changed.changed()).await.with_context(|| format!("{node} does not change"))?;
            }
            cluster.kill_controller(leader);
            let outcome = ended(&cluster).await.with_context(|| format!("killed after {changes} changes of the {node}"))?;
            ensure!(outcome.starts_with("done"), "{node} {changes}: {outcome}");
            cluster.wait_new_master(before.epoch).await?;
            ensure!(value(&cluster).await?.as_deref() == Some("old"), "{node} {changes}: k is {:?}", value(&cluster).await?);
            cluster.start_controller(leader)?;
            cluster.wait_standby(leader).await?;
        }
        cluster.wait_stable().await?;
        Ok(())
    });
}

#[test]
fn a_server_that_dies_while_it_loads_is_started_again() {
    Bench::run("restore-server-killed", async |bench| {
        let (cluster, wanted) = cluster(&bench, Options::default()).await?;
        let before = cluster.status().await?;
        begin(&cluster, &wanted).await?;
        let loader = loader(&cluster, &wanted).await?;
        let pid = wait::until("its server loads the snapshot", LIMIT, async || {
            let redis = cluster.agent_state(loader).await?.redis.context("no server")?;
            ensure!(redis.source == format!("snapshot:{wanted}") && redis.pid > 0, "it runs from {}", redis.source);
            Ok(redis.pid)
        })
        .await?;
        process::send(pid, Signal::KILL);
        cluster.wait_new_master(before.epoch).await?;
        let outcome = ended(&cluster).await?;
        ensure!(outcome.starts_with("done"), "{outcome}");
        cluster.wait_stable().await?;
        ensure!(value(&cluster).await?.as_deref() == Some("old"), "k is {:?}", value(&cluster).await?);
        Ok(())
    });
}

#[test]
fn a_snapshot_that_breaks_after_the_masters_end_brings_the_present_data_back() {
    Bench::run("restore-undone", async |bench| {
        let (cluster, wanted) = cluster(&bench, Options::default()).await?;
        let before = cluster.status().await?;
        begin(&cluster, &wanted).await?;
        let loader = loader(&cluster, &wanted).await?;
        // Nothing is loaded while no controller says so.
        let frozen = cluster.freeze_controller(0)?;
        flip(&cluster.task(loader).await?.sandbox.join("incoming").join(format!("{wanted}.rdb")))?;
        flip(&stored(&bench, &wanted))?;
        drop(frozen);
        let outcome = ended(&cluster).await?;
        ensure!(outcome.starts_with("failed: ") && outcome.contains("present data stays"), "{outcome}");
        cluster.wait_new_master(before.epoch).await?;
        cluster.wait_stable().await?;
        ensure!(value(&cluster).await?.as_deref() == Some("new"), "k is {:?}", value(&cluster).await?);
        tokio::time::timeout(Duration::from_secs(5), set(&cluster, "newer")).await.context("no write is taken")??;
        Ok(())
    });
}
