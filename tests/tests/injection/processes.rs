//! Processes of a cluster, stopped and killed.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::harness::cluster::{Cluster, LIMIT, Options};
use tests::harness::{Bench, wait};

/// State of a process as the kernel has it: `S`, `R`, `T` (stopped), …
fn state(pid: u32) -> Result<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    stat.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next()).context("no state")
}

async fn is_stopped(pid: u32, stopped: bool) -> Result<()> {
    wait::until_now("a signal has its effect", LIMIT, || {
        ensure!((state(pid)? == 'T') == stopped, "process {pid} is {}", state(pid)?);
        anyhow::Ok(())
    })
    .await
}

#[test]
fn signals_hit_the_processes_they_are_for() {
    Bench::run("injection-processes", async |bench| {
        let options = Options { instances: 2, held: true, ..Options::default() };
        let cluster = Cluster::start(&bench, options).await?;
        let replica = cluster.replicas().await?[0];
        let (agent, server) = (cluster.agent_pid(replica).await?, cluster.server_pid(replica).await?);
        let controller = cluster.controller_pid(0)?;
        let all = async |expected: [bool; 3]| {
            for (pid, stopped) in [agent, server, controller].into_iter().zip(expected) {
                is_stopped(pid, stopped).await?;
            }
            anyhow::Ok(())
        };
        all([false; 3]).await?;
        let frozen = cluster.freeze_server(replica).await?;
        all([false, true, false]).await?;
        drop(frozen);
        let frozen = cluster.freeze_agent(replica).await?;
        all([true, false, false]).await?;
        drop(frozen);
        let frozen = cluster.freeze_task(replica).await?;
        all([true, true, false]).await?;
        drop(frozen);
        let frozen = cluster.freeze_controller(0)?;
        all([false, false, true]).await?;
        drop(frozen);
        all([false; 3]).await?;
        // Killed, and held back: its successor in the task starts when it is released and not before.
        cluster.hold(replica)?;
        cluster.kill_agent(replica).await?;
        cluster.wait_gone(server).await?;
        wait::until("the task runs again", LIMIT, async || {
            ensure!(cluster.agent_pid(replica).await? != agent, "the old one");
            anyhow::Ok(())
        })
        .await?;
        wait::holds("no agent answers", Duration::from_secs(1), async || {
            ensure!(cluster.agent_state(replica).await.is_err(), "it answers");
            anyhow::Ok(())
        })
        .await?;
        cluster.release(replica)?;
        cluster.wait_stable().await?;
        Ok(())
    });
}
