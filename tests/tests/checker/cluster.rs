//! On a whole cluster: with its lease or its fence taken away from outside, the checker finds two writers. So where fault tests find none, it is
//! these that prevent it. With the lease module the server keeps them by itself, and there is one writer.
//!
//! Both are carried out by the master's agent, so stopping the agent takes them away, unless the server has the module. Two instances: with more, `min-replicas-to-write` would refuse
//! what is written after the replicas have left.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use tests::checker::{Ack, Load, Verdict};
use tests::harness::cluster::{Cluster, LIMIT, Options};
use tests::harness::{Bench, redis as plain};

/// What is taken away.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Without {
    /// The agent is stopped, so that nobody holds writes back when the lease ends.
    Lease,
    /// Agent and server are stopped while the lease ends, and the server alone wakes: nobody fences it.
    Fence,
    /// Both are stopped while the lease ends, and both wake: what waits in the server's sockets is answered before anybody can fence it.
    Time,
}

/// The verdict, and how many writes the old master acknowledged after it woke, when the new one had long acknowledged its own. The judge may not
/// call those two writers that were sent before: their answers might only have been read late. Here the server was stopped in between.
async fn taken_away(bench: Arc<Bench>, without: Without, module: bool) -> Result<(Verdict, usize)> {
    let agent_config = format!("lease.module = '{}'\n", if module { "require" } else { "off" });
    let cluster = Cluster::start(&bench, Options { instances: 2, agent_config, ..Options::default() }).await?;
    let before = cluster.status().await?;
    let old = before.master.clone().context("no master")?;
    // Those whose writes wait in the sockets are still there when the server wakes.
    let answer = if without == Without::Time { LIMIT } else { Load::default().answer };
    let writers = cluster.writers("w", &Load { answer, ..Load::witnesses() }).await?;
    writers.progress(300, LIMIT).await?;
    let fault = Instant::now();
    let server = match without {
        Without::Lease => None,
        Without::Fence | Without::Time => Some(cluster.freeze_server(old.instance).await?),
    };
    let agent = cluster.freeze_agent(old.instance).await?;
    let after = cluster.wait_new_master(before.epoch).await?;
    let new = after.master.context("no master")?;
    ensure!(new.instance != old.instance, "nobody else leads");
    writers.progress_at(&new.address.to_string(), 50, LIMIT).await?;
    let woken = Instant::now();
    drop(server);
    let asleep = (without != Without::Time).then_some(agent);
    writers.progress_at(&new.address.to_string(), 50, LIMIT).await?;
    let address = old.address.to_string();
    if without == Without::Time {
        cluster.wait_stable().await?;
    } else if module {
        let mut awake = plain::connect(&address).await?;
        let written = redis::cmd("SET").arg("k").arg(1).query_async::<()>(&mut awake).await;
        ensure!(written.as_ref().is_err_and(|error| error.code() == Some("LEASEEXPIRED")), "the old master answers {written:?}");
    } else {
        writers.progress_at(&address, 50, LIMIT).await?;
    }
    let log = writers.stop().await?;
    let verdict = log.verdict(&mut cluster.connect_master().await?, fault).await?;
    drop(asleep);
    let old = |ack: &&Ack| log.servers[ack.server].address == address && ack.acked > log.time(woken);
    let late = if without == Without::Lease { 0 } else { log.acks.iter().filter(old).count() };
    Ok((verdict, late))
}

async fn two_writers(bench: Arc<Bench>, without: Without) -> Result<()> {
    let (verdict, late) = taken_away(bench, without, false).await?;
    match without {
        Without::Time => ensure!(late > 0, "nothing that waited in its sockets was acknowledged\n{verdict}"),
        _ => {
            ensure!(verdict.one_writer().is_err() && !verdict.overlapping.is_empty(), "two writers are not found out\n{verdict}")
        }
    }
    Ok(())
}

async fn one_writer(bench: Arc<Bench>, without: Without) -> Result<()> {
    let (verdict, late) = taken_away(bench, without, true).await?;
    verdict.one_writer()?;
    ensure!(late == 0, "{late} writes were acknowledged after it woke\n{verdict}");
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

#[test]
fn two_writers_are_found_out_when_an_instance_wakes() {
    Bench::run("checker-wakes-off", async |bench| two_writers(bench, Without::Time).await);
}

#[test]
fn an_instance_that_wakes_is_no_second_writer_with_the_lease_module() {
    Bench::run("checker-module-wakes", async |bench| one_writer(bench, Without::Time).await);
}

#[test]
fn a_frozen_agent_is_no_second_writer_with_the_lease_module() {
    Bench::run("checker-module-lease", async |bench| one_writer(bench, Without::Lease).await);
}

#[test]
fn a_server_that_wakes_alone_is_no_second_writer_with_the_lease_module() {
    Bench::run("checker-module-fence", async |bench| one_writer(bench, Without::Fence).await);
}
