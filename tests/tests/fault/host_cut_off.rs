//! The master's host is cut off from the rest: without proof that it has stopped nobody takes over, and the reason is shown.

use std::time::Duration;

use anyhow::{Context, ensure};
use tests::harness::Bench;
use tests::harness::cluster::{Cluster, LIMIT, Options};

#[test]
fn without_evidence_it_waits_and_goes_on_after_healing() {
    Bench::run_on_hosts("host-cut-off", 3, async |bench| {
        let cluster = Cluster::start(&bench, Options::default()).await?;
        let before = cluster.status().await?;
        let master = before.master.clone().context("no master")?;
        let name = cluster.task(master.instance).await?.host;
        let host = bench.hosts().iter().find(|h| h.name == name).context("unknown host")?;
        bench.network().isolate(host)?;
        let what = "the status says why nobody takes over";
        cluster
            .wait_status(what, LIMIT, |status| {
                ensure!(status.epoch == before.epoch || status.master.is_none(), "epoch {}", status.epoch);
                ensure!(!status.conditions.is_empty(), "no condition");
                ensure!(status.conditions.iter().any(|c| c.reason.contains("evidence")), "{:?}", status.conditions);
                Ok(())
            })
            .await?;
        tests::harness::wait::holds("nobody else opens as a master", Duration::from_secs(5), async || {
            for task in cluster.tasks().await?.iter().filter(|t| t.instance != master.instance) {
                let state = cluster.agent_state(task.instance).await?;
                ensure!(!(state.serving && state.role == agent::api::Role::Master), "instance {} leads too", task.instance);
            }
            Ok::<_, anyhow::Error>(())
        })
        .await?;
        bench.network().heal()?;
        cluster.wait_stable().await?;
        Ok(())
    });
}
