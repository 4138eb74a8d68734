//! One direction of the master's network is lost: what it sends does not arrive, or what is sent to it. Whatever the cluster does then, there is one
//! writer, and afterwards all is well.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tests::checker::Load;
use tests::harness::cluster::{Cluster, LIMIT, Options};
use tests::harness::{Bench, Host};

async fn lose(bench: std::sync::Arc<Bench>, mute: bool) -> Result<()> {
    let cluster = Cluster::start(&bench, Options::default()).await?;
    let old = cluster.status().await?.master.context("no master")?;
    let host: Host = cluster.host_of(old.instance).await?;
    let writers = cluster.writers("w", &Load::witnesses()).await?;
    // Clients on the lost host itself reach the old master all the time.
    let inside = Load { plain: 0, stubborn: true, host: Some(host.clone()), ..Load::default() };
    let inside = cluster.writers("inside", &inside).await?;
    writers.progress(300, LIMIT).await?;
    let fault = Instant::now();
    if mute {
        bench.network().mute(&host)?
    } else {
        bench.network().deafen(&host)?
    }
    tokio::time::sleep(Duration::from_secs(8)).await;
    bench.network().heal()?;
    writers.progress(300, LIMIT).await?;
    cluster.wait_stable().await?;
    writers.progress(300, LIMIT).await?;
    let log = writers.stop().await?.and(inside.stop().await?);
    cluster.wait_stable().await?;
    let verdict = log.verdict(&mut cluster.connect_master().await?, fault).await?;
    verdict.one_writer()?.confirmed_kept()?;
    Ok(())
}

#[test]
fn nothing_it_sends_arrives() {
    Bench::run_on_hosts("one-way-mute", 3, async |bench| lose(bench, true).await);
}

#[test]
fn nothing_arrives_at_it() {
    Bench::run_on_hosts("one-way-deaf", 3, async |bench| lose(bench, false).await);
}
