//! All instances killed at once; they come back one after the other, in different orders. The best copy that any of them has leads, whoever comes first.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tests::checker::Load;
use tests::harness::cluster::{Cluster, LIMIT, Options};
use tests::harness::{Bench, process, wait};

/// The instance whose sandbox has the newest dump.
async fn best(cluster: &Cluster) -> Result<u32> {
    let dumps = cluster.tasks().await?.into_iter().filter_map(|task| {
        let dump = std::fs::metadata(task.sandbox.join("redis/dump.rdb")).ok()?;
        Some((dump.modified().ok()?, task.instance))
    });
    dumps.max().map(|(_, instance)| instance).context("nobody has a dump")
}

/// Writes, has one instance save, kills all, and lets them come back: the one with the best copy as the `place`th, the others lowest first, or
/// highest first.
async fn round(cluster: &Cluster, place: usize, lowest_first: bool) -> Result<()> {
    let before = cluster.wait_stable().await?;
    let name = format!("round{}", before.epoch);
    let writers = cluster.writers(&name, &Load { waiting: 1, acks: 2, ..Load::default() }).await?;
    writers.progress(200, LIMIT).await?;
    let log = writers.stop().await?;
    let snapshots = cluster.snapshots().await?.len();
    cluster.cli(&["backup"]).await?;
    cluster.wait_snapshots(snapshots + 1).await?;
    let best = best(cluster).await?;
    let mut order: Vec<u32> = (0..3).filter(|instance| *instance != best).collect();
    if !lowest_first {
        order.reverse();
    }
    order.insert(place, best);
    let fault = Instant::now();
    for instance in &order {
        cluster.hold(*instance)?;
    }
    cluster.tasks().await?.iter().filter_map(|task| task.pid).for_each(|pid| process::send(pid, Signal::KILL));
    for instance in &order {
        cluster.release(*instance)?;
        wait::until(&format!("instance {instance} is back"), LIMIT, || cluster.agent_state(*instance)).await?;
    }
    let after = cluster.wait_new_master(before.epoch).await?;
    let verdict = log.verdict(&mut cluster.connect_master().await?, fault).await?;
    println!("back in the order {order:?}, instance {best} has the best copy, {:?} leads", after.master.map(|m| m.instance));
    verdict.one_writer()?.nothing_lost()?;
    Ok(())
}

#[test]
fn the_best_copy_leads_in_every_order_of_return() {
    Bench::run("all-killed", async |bench| {
        let cluster = Cluster::start(&bench, Options { held: true, ..Options::default() }).await?;
        for (place, lowest_first) in [(0, true), (2, true), (1, true), (0, false), (2, false), (1, false)] {
            let what = || format!("the best copy comes back after {place} others");
            round(&cluster, place, lowest_first).await.with_context(what)?;
        }
        ensure!(cluster.wait_stable().await?.master.is_some(), "no master");
        Ok(())
    });
}
