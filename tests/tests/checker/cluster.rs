//! On a whole cluster: with its lease or its fence taken away from outside, the checker finds two writers. So where fault tests find none, it is
//! these that prevent it.
//!
//! Both are carried out by the master's agent, so stopping the agent takes them away. Two instances: with more, `min-replicas-to-write` would refuse
//! what is written after the replicas have left.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use tests::checker::Load;
use tests::harness::Bench;
use tests::harness::cluster::{Cluster, LIMIT, Options};

/// What is taken away.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Without {
    /// The agent is stopped, so that nobody holds writes back when the lease ends.
    Lease,
    /// Agent and server are stopped while the lease ends, and the server alone wakes: nobody fences it.
    Fence,
}

async fn two_writers(bench: Arc<Bench>, without: Without) -> Result<()> {
    let cluster = Cluster::start(&bench, Options { instances: 2, ..Options::default() }).await?;
    let before = cluster.status().await?;
    let old = before.master.clone().context("no master")?;
    let writers = cluster.writers("w", &Load::witnesses()).await?;
    writers.progress(300, LIMIT).await?;
    let fault = Instant::now();
    let server = match without {
        Without::Lease => None,
        Without::Fence => Some(cluster.freeze_server(old.instance).await?),
    };
    let agent = cluster.freeze_agent(old.instance).await?;
    let after = cluster.wait_new_master(before.epoch).await?;
    let new = after.master.context("no master")?;
    ensure!(new.instance != old.instance, "nobody else leads");
    drop(server);
    writers.progress_at(&new.address.to_string(), 50, LIMIT).await?;
    writers.progress_at(&old.address.to_string(), 50, LIMIT).await?;
    let log = writers.stop().await?;
    let verdict = log.verdict(&mut cluster.connect_master().await?, fault).await?;
    ensure!(verdict.one_writer().is_err() && !verdict.overlapping.is_empty(), "two writers are not found out\n{verdict}");
    drop(agent);
    Ok(())
}

#[test]
fn two_writers_are_found_out_without_the_lease() {
    Bench::run("checker-lease-off", async |bench| two_writers(bench, Without::Lease).await);
}

#[test]
fn two_writers_are_found_out_without_the_fence() {
    Bench::run("checker-fence-off", async |bench| two_writers(bench, Without::Fence).await);
}
