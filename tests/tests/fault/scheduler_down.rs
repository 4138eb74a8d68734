//! The scheduler hangs: the status says so, failover works all the same, and scaling happens when it is back.

use anyhow::ensure;
use tests::harness::Bench;
use tests::harness::cluster::{Cluster, LIMIT, Options, stable};

#[test]
fn failover_needs_no_scheduler_and_the_reason_is_visible() {
    Bench::run("scheduler-down", async |bench| {
        let cluster = Cluster::start(&bench, Options::default()).await?;
        let before = cluster.status().await?;
        cluster.aurora.freeze();
        cluster.wait_condition("scheduler-unreachable", LIMIT).await?;
        cluster.cli(&["scale", "--yes", "4"]).await?;
        // The outside sources for tests need the scheduler too, so the master's server is found before.
        let master = before
            .instances
            .iter()
            .find(|i| Some(i.instance) == before.master.as_ref().map(|m| m.instance))
            .and_then(|i| i.agent.clone());
        let address = master.ok_or_else(|| anyhow::anyhow!("the master has no agent"))?;
        let state = cluster.agents().state(&address, LIMIT).await?;
        tests::harness::process::send(state.redis.map_or(0, |r| r.pid), rustix::process::Signal::KILL);
        let after = cluster.wait_new_master(before.epoch).await?;
        ensure!(after.instances.len() == 3, "{} instances", after.instances.len());
        cluster.aurora.thaw();
        let what = "four instances are stable";
        cluster
            .wait_status(what, LIMIT, |status| {
                ensure!(status.instances.len() == 4, "{} instances", status.instances.len());
                stable(status)
            })
            .await?;
        cluster.wait_no_condition("scheduler-unreachable", LIMIT).await
    });
}
