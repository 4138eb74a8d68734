//! SIGSTOP of the master's agent, its server alive beside it; and of both. Whatever the cluster does then, there is one writer.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::checker::Load;
use tests::harness::Bench;
use tests::harness::cluster::{Cluster, Frozen, LIMIT, Options};

/// How long they stay stopped: longer than sessions in ZooKeeper and every silence that is forgiven.
const STOPPED: Duration = Duration::from_secs(10);

async fn freeze(bench: std::sync::Arc<Bench>, both: bool) -> Result<()> {
    let cluster = Cluster::start(&bench, Options::default()).await?;
    let old = cluster.status().await?.master.context("no master")?;
    let writers = cluster.writers("w", &Load::witnesses()).await?;
    writers.progress(300, LIMIT).await?;
    let fault = Instant::now();
    let frozen: Frozen = if both { cluster.freeze_task(old.instance).await? } else { cluster.freeze_agent(old.instance).await? };
    tokio::time::sleep(STOPPED).await;
    drop(frozen);
    writers.progress(300, LIMIT).await?;
    cluster.wait_stable().await?;
    writers.progress(300, LIMIT).await?;
    let log = writers.stop().await?;
    cluster.wait_stable().await?;
    let verdict = log.verdict(&mut cluster.connect_master().await?, fault).await?;
    verdict.one_writer()?.confirmed_kept()?.lost_only_within(Duration::from_secs(2))?;
    ensure!(verdict.acknowledged > 900, "hardly any write\n{verdict}");
    Ok(())
}

#[test]
fn a_stopped_agent_beside_a_live_server_makes_no_second_writer() {
    Bench::run("agent-frozen", async |bench| freeze(bench, false).await);
}

#[test]
fn a_stopped_task_that_wakes_is_no_second_writer() {
    Bench::run("task-frozen", async |bench| freeze(bench, true).await);
}
