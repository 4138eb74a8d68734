//! Two controllers that both believe they lead: the leader is stopped in the middle of its work until another has been elected and has finished that
//! work, and is then woken.

use std::time::{Duration, Instant};

use anyhow::ensure;
use tests::checker::Load;
use tests::harness::cluster::{Cluster, LIMIT, Options, stable};
use tests::harness::{Bench, wait};

#[test]
fn a_leader_that_wakes_after_its_time_changes_nothing() {
    Bench::run("two-leaders", async |bench| {
        let options = Options {
            instances: 4,
            controllers: 2,
            controller_config: "zookeeper_session = '2s'\n".into(),
            ..Options::default()
        };
        let cluster = Cluster::start(&bench, options).await?;
        let writers = cluster.writers("w", &Load { rate: Some(60), ..Load::witnesses() }).await?;
        let began = Instant::now();
        // Later and later in its failover: before the first step, between steps, after the last.
        for delay in [0, 4, 12, 40] {
            let before = cluster.wait_stable().await?;
            writers.progress(100, LIMIT).await?;
            let (leader, master) = (cluster.leader().await?, cluster.master().await?);
            cluster.kill_server(master).await?;
            tokio::time::sleep(Duration::from_millis(delay)).await;
            let frozen = cluster.freeze_controller(leader)?;
            super::controller_killed::successor(&cluster, leader).await?;
            let after = cluster.wait_new_master(before.epoch).await?;
            writers.progress(100, LIMIT).await?;
            drop(frozen);
            // Woken, it may show for a moment what it knew last; what counts is the record, and that all agree on it again.
            cluster.wait_standby(leader).await?;
            let agreed = async || {
                let status = cluster.status().await?;
                ensure!(status.epoch == after.epoch && status.master == after.master, "it says epoch {}", status.epoch);
                stable(&status)
            };
            wait::until(&format!("all agree on epoch {}, stopped after {delay} ms", after.epoch), LIMIT, agreed).await?;
            let (record, _) = cluster.record().await?;
            ensure!(record.epoch == after.epoch, "stopped after {delay} ms: the record is at epoch {}", record.epoch);
        }
        let log = writers.stop().await?;
        let verdict = log.verdict(&mut cluster.connect_master().await?, began).await?;
        verdict.one_writer()?.confirmed_kept()?;
        Ok(())
    });
}
