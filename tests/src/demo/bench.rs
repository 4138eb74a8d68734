//! `make bench`: the figures of `docs/benchmark.md`, measured on this machine. First looks, not limits: nothing here fails on a number.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::table::say;
use crate::harness::Bench;
use crate::harness::cluster::{Cluster, LIMIT, Options};

/// Failovers measured.
const ROUNDS: usize = 10;
/// Time without any change before memory is read.
const IDLE: Duration = Duration::from_secs(20);

/// Brings up three instances and one controller, measures and prints.
pub async fn run(bench: Arc<Bench>) -> Result<()> {
    say("starting a cluster of 3 with one controller, files as the store");
    let cluster = Cluster::start(&bench, Options::default()).await?;
    say(&format!("idle for {} s", IDLE.as_secs()));
    tokio::time::sleep(IDLE).await;
    let controller = resident_mb(cluster.controller_pid(0)?)?;
    let mut agents = Vec::new();
    for task in cluster.tasks().await? {
        agents.push(resident_mb(cluster.agent_state(task.instance).await?.agent.pid)?);
    }
    let mut pauses = Vec::new();
    for round in 1..=ROUNDS {
        let pause = failover(&cluster, round).await?;
        say(&format!("failover {round}: {} ms", pause.as_millis()));
        pauses.push(pause);
    }
    pauses.sort();
    agents.sort_by(f64::total_cmp);
    println!();
    println!("resident memory, idle controller            {controller:.1} MB");
    println!("resident memory, idle agent (largest of 3)  {:.1} MB", agents.last().copied().unwrap_or_default());
    println!(
        "pause of a writer around a kill -9 of the server, {ROUNDS} times: median {} ms, best {} ms, worst {} ms",
        pauses[pauses.len() / 2].as_millis(),
        pauses[0].as_millis(),
        pauses[pauses.len() - 1].as_millis()
    );
    Ok(())
}

/// The writer's pause around a kill -9 of the master's server: from the last write that it acknowledged to the first that its successor does.
async fn failover(cluster: &Cluster, round: usize) -> Result<Duration> {
    let before = cluster.wait_stable().await?;
    let writer = cluster.writer(&format!("bench{round}"));
    writer.progress(100, LIMIT).await?;
    let pid = cluster.server_pid(before.master.context("no master")?.instance).await?;
    let killed = Instant::now();
    crate::harness::process::send(pid, rustix::process::Signal::KILL);
    cluster.wait_new_master(before.epoch).await?;
    writer.progress(10, LIMIT).await?;
    writer.stop().await?.longest_pause_after(killed).context("no write after the kill")
}

/// Resident set of a process, MB of 10^6 bytes.
fn resident_mb(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid}"))?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024.0 / 1e6)
}
