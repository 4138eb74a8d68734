//! The memory of our programs without work.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::demo::table::say;
use crate::harness::cluster::Cluster;

/// Time without any change before memory is read.
const IDLE: Duration = Duration::from_secs(20);

/// Resident memory, MB of 10^6 bytes.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// The controller.
    pub controller: f64,
    /// The largest agent.
    pub agent: f64,
}

/// Measures a cluster that nobody touches.
pub async fn measure(cluster: &Cluster) -> Result<Memory> {
    say(&format!("idle for {} s", IDLE.as_secs()));
    tokio::time::sleep(IDLE).await;
    let controller = resident_mb(cluster.controller_pid(0)?)?;
    let mut agent: f64 = 0.0;
    for task in cluster.tasks().await? {
        agent = agent.max(resident_mb(cluster.agent_state(task.instance).await?.agent.pid)?);
    }
    Ok(Memory { controller, agent })
}

fn resident_mb(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid}"))?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024.0 / 1e6)
}
