//! The master's whole host is lost, nobody on it but the master: cut off, or without power. Its lease ends, another one leads, and it has acknowledged
//! nothing that was sent after its successor's first write. (With clients on it: `host_cut_off`.)

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::checker::Load;
use tests::harness::Bench;
use tests::harness::cluster::{Cluster, LIMIT, Options};

/// What happens to the host.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Loss {
    CutOff,
    Power,
}

async fn lose(bench: Arc<Bench>, loss: Loss) -> Result<()> {
    let cluster = Cluster::start(&bench, Options::default()).await?;
    let before = cluster.status().await?;
    let old = before.master.clone().context("no master")?;
    let host = cluster.host_of(old.instance).await?;
    // Short answers: a client that waits for a lost host for long says nothing about the cluster.
    let load = Load { answer: Duration::from_millis(500), ..Load::witnesses() };
    let writers = cluster.writers("w", &load).await?;
    writers.progress(300, LIMIT).await?;
    let fault = Instant::now();
    if loss == Loss::Power {
        bench.network().power_off(&host)?
    } else {
        bench.network().isolate(&host)?
    }
    let after = cluster.wait_new_master(before.epoch).await?;
    let new = after.master.context("no master")?;
    ensure!(new.instance != old.instance, "the lost one leads");
    writers.progress(300, LIMIT).await?;
    bench.network().heal()?;
    cluster.wait_stable().await?;
    writers.progress(100, LIMIT).await?;
    let log = writers.stop().await?;
    let verdict = log.verdict(&mut cluster.connect_master().await?, fault).await?;
    verdict.one_writer()?.confirmed_kept()?;
    ensure!(verdict.reigns.len() == 2, "more than one change\n{verdict}");
    Ok(())
}

#[test]
fn cut_off() {
    Bench::run_on_hosts("host-lost", 3, async |bench| lose(bench, Loss::CutOff).await);
}

#[test]
fn without_power() {
    Bench::run_on_hosts("host-lost-power", 3, async |bench| lose(bench, Loss::Power).await);
}
