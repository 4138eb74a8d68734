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
    let controller = resident_mb(cluster.controller_pid(0)?, Kind::Now)?;
    let mut agent: f64 = 0.0;
    for task in cluster.tasks().await? {
        agent = agent.max(resident_mb(cluster.agent_state(task.instance).await?.agent.pid, Kind::Now)?);
    }
    Ok(Memory { controller, agent })
}

/// Which resident memory.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Of this moment.
    Now,
    /// The largest since the process began, or since its peak was forgotten.
    Peak,
}

/// Resident memory of a process, MB of 10^6 bytes.
pub fn resident_mb(pid: u32, kind: Kind) -> Result<f64> {
    let name = match kind {
        Kind::Now => "VmRSS:",
        Kind::Peak => "VmHWM:",
    };
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid}"))?;
    let line = status.lines().find_map(|l| l.strip_prefix(name)).with_context(|| format!("no {name}"))?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024.0 / 1e6)
}
