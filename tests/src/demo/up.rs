//! `make up` and `make down`: the demo's cluster left running by a process of its own, and its end.
//!
//! The cluster's processes die with the program that started them, so `up` starts a second one that stays, waits until it reports the page's
//! address in a state file, and leaves. `down` asks that process to end and waits until it is gone.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::steps;
use crate::harness::cluster::Cluster;
use crate::harness::{Bench, binaries, process, wait};

/// What `up` leaves for `down`.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct State {
    /// The process that holds the cluster.
    pid: u32,
    /// Its start time, so that no other process of that pid is taken for it.
    start_ticks: u64,
    /// Absent until the cluster is stable.
    ready: Option<Ready>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Ready {
    page: String,
    cli: String,
    master: String,
    dir: PathBuf,
}

fn directory() -> PathBuf {
    binaries::cache().join("up")
}

fn read() -> Option<State> {
    let state: State = serde_json::from_slice(&std::fs::read(directory().join("state.json")).ok()?).ok()?;
    (process::start_ticks(state.pid) == Some(state.start_ticks)).then_some(state)
}

fn write(state: &State) -> Result<()> {
    let (path, new) = (directory().join("state.json"), directory().join("state.new"));
    std::fs::write(&new, serde_json::to_vec_pretty(state)?)?;
    std::fs::rename(new, path).context("state.json")
}

/// Starts the cluster and returns when it is stable.
pub async fn up() -> Result<()> {
    if let Some(Ready { page, .. }) = read().and_then(|s| s.ready) {
        println!("it is up already: {page} (make down ends it)");
        return Ok(());
    }
    ensure!(read().is_none(), "it is being started or ended by another process; make down ends it");
    std::fs::create_dir_all(directory())?;
    let log = std::fs::File::create(directory().join("log"))?;
    let mut serve = Command::new(binaries::tool("setsid")?);
    serve.arg(std::env::current_exe()?).arg("serve").stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let mut child = serve.spawn().context("starting the process that stays")?;
    println!("starting ZooKeeper, HDFS, local-aurora, two controllers and a cluster of 5 …");
    let started = wait::until_now("the cluster is up", Duration::from_secs(240), || match (child.try_wait(), read()) {
        (Ok(Some(status)), _) => Ok(Err(anyhow::anyhow!("it ended ({status}): {}", last_words()))),
        (_, Some(State { ready: Some(ready), .. })) => Ok(Ok(ready)),
        _ => Err("not yet"),
    });
    tokio::select! {
        started = started => {
            let Ready { page, cli, master, dir } = started??;
            println!("\npage      {page}\nmaster    {master}\ncommands  {cli} status\nlogs      {}\nend it    make down", dir.display());
            Ok(())
        }
        _ = tokio::signal::ctrl_c() => {
            down().await?;
            bail!("interrupted; everything has been ended")
        }
    }
}

fn last_words() -> String {
    let text = std::fs::read_to_string(directory().join("log")).unwrap_or_default();
    text.lines().rev().take(15).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
}

/// Holds the cluster until SIGTERM or SIGINT. Started by [`up`] only.
pub async fn serve(bench: Arc<Bench>) -> Result<()> {
    let pid = std::process::id();
    let mut state = State { pid, start_ticks: process::start_ticks(pid).context("own start time")?, ready: None };
    write(&state)?;
    let cluster = Cluster::start(&bench, steps::options()).await?;
    let master = cluster.status().await?.master.context("no master")?.address.to_string();
    state.ready = Some(Ready { page: cluster.page()?, cli: cluster.cli_words()?, master, dir: bench.dir().to_path_buf() });
    write(&state)?;
    std::future::pending().await
}

/// Ends it; fine when nothing is up.
pub async fn down() -> Result<()> {
    if let Some(state) = read() {
        process::send(state.pid, rustix::process::Signal::TERM);
        wait::until_now("the cluster's process has ended", Duration::from_secs(90), || match process::runs(state.pid) {
            true => Err(format!("pid {} is still there", state.pid)),
            false => Ok(()),
        })
        .await?;
        println!("ended");
    } else {
        println!("nothing is up");
    }
    match std::fs::remove_dir_all(directory()) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).context("removing the state of up"),
        _ => Ok(()),
    }
}
