//! The demo: a cluster's whole life on real parts, each step verified.
//!
//! `tests/src/bin/demo.rs` parses the command line and calls [`run`] or [`up`]. A `Step` does something to the cluster and returns the
//! rows of the closing table; every row is computed from a check that fails the step. The first failing step ends the demo.

pub mod steps;
pub mod table;
pub mod up;

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::harness::Bench;
use crate::harness::cluster::Cluster;
use steps::{STEPS, Stage};
use table::Table;

/// A command of the outside to run just before a step: `STEP=COMMAND`, for seeing that the step's check can fail.
#[derive(Clone, Debug)]
pub struct Before {
    step: String,
    command: String,
}

impl std::str::FromStr for Before {
    type Err = String;
    fn from_str(text: &str) -> Result<Before, String> {
        let (step, command) = text.split_once('=').ok_or("STEP=COMMAND is wanted")?;
        Ok(Before { step: step_name(step)?, command: command.into() })
    }
}

/// Checks the name of a step.
pub fn step_name(name: &str) -> Result<String, String> {
    let names: Vec<&str> = STEPS.iter().map(|s| s.name).collect();
    if names.contains(&name) { Ok(name.into()) } else { Err(format!("there is no step '{name}': {}", names.join(", "))) }
}

/// Which steps to run, and what to do to them.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// Names of steps; all when empty.
    pub steps: Vec<String>,
    /// Disturbances from outside.
    pub before: Vec<Before>,
}

/// Runs the steps. `Ok` only if each was verified.
pub async fn run(bench: Arc<Bench>, wishes: Wishes) -> Result<()> {
    let start = Instant::now();
    let mut table = Table::default();
    let outcome = walk(&bench, &wishes, &mut table).await;
    table.print();
    println!("\n{} in {:.0} s", if outcome.is_ok() { "all steps verified" } else { "FAILED" }, start.elapsed().as_secs_f64());
    outcome
}

async fn walk(bench: &Arc<Bench>, wishes: &Wishes, table: &mut Table) -> Result<()> {
    table::say("starting ZooKeeper, HDFS, local-aurora and two controllers");
    let mut stage = Stage::new(Cluster::start_parts(bench, steps::options()).await.context("step 'parts'")?);
    let wished = |name: &str| wishes.steps.is_empty() || wishes.steps.iter().any(|s| s == name);
    for step in STEPS.iter().filter(|s| wished(s.name)) {
        table::heading(step.name, step.title);
        for sabotage in wishes.before.iter().filter(|b| b.step == step.name) {
            disturb(&stage.cluster, &sabotage.command).await?;
        }
        let start = Instant::now();
        match steps::run(step.name, &mut stage).await {
            Ok(rows) => table.add(step.name, rows, start.elapsed()),
            Err(e) => {
                table.fail(step.name, &e, start.elapsed());
                stage.cluster.explain().await;
                return Err(e.context(format!("step '{}'", step.name)));
            }
        }
    }
    Ok(())
}

/// Runs a shell command that knows where the cluster is, from its environment.
async fn disturb(cluster: &Cluster, command: &str) -> Result<()> {
    table::say(&format!("from outside: {command}"));
    let mut shell = tokio::process::Command::new("sh");
    shell.args(["-c", command]).stdin(Stdio::null()).kill_on_drop(true);
    shell.env("ZOOKEEPER", cluster.zookeeper.connect_string()).env("DIR", cluster.bench.dir());
    if let Ok(Some(master)) = cluster.status().await.map(|s| s.master) {
        shell.env("MASTER_HOST", master.address.host).env("MASTER_PORT", master.address.port.to_string());
    }
    let status =
        tokio::time::timeout(Duration::from_secs(60), shell.status()).await.context("the command took over a minute")??;
    ensure!(status.success(), "{command}: {status}");
    Ok(())
}
