//! A planned change of master by the command line: what it shows, what it refuses, what it leaves behind, and one that is undone.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::checker::{Load, Writers};
use tests::harness::Bench;
use tests::harness::cluster::{Cluster, LIMIT, Options};

/// Writers at their own pace and as fast as they can, and one that stays with each instance.
async fn load(cluster: &Cluster) -> Result<[Writers; 2]> {
    let paced = cluster.writers("paced", &Load::witnesses()).await?;
    let fast = cluster.writers("fast", &Load { rate: None, ..Load::default() }).await?;
    paced.progress(300, LIMIT).await?;
    fast.progress(300, LIMIT).await?;
    Ok([paced, fast])
}

/// The number under `name` in `INFO stats` of an instance's server.
async fn stat(cluster: &Cluster, instance: u32, name: &str) -> Result<u64> {
    let info: String = redis::cmd("INFO").arg("stats").query_async(&mut cluster.connect(instance).await?).await?;
    let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).with_context(|| format!("no {name}"))?;
    Ok(line.trim().parse()?)
}

#[test]
fn it_is_shown_refused_and_done_without_a_loss() {
    Bench::run("planned", async |bench| {
        let cluster = Cluster::start(&bench, Options::default()).await?;
        let before = cluster.status().await?;
        let old = before.master.clone().context("no master")?;
        let to = cluster.replicas().await?[1];
        let [paced, fast] = load(&cluster).await?;
        for (instance, why) in [(9, "there is no instance 9 that could lead"), (old.instance, "is the master already")] {
            let said = cluster.cli_failure(&["switchover", "--to", &instance.to_string(), "--yes"]).await?;
            ensure!(said.contains("refused: ") && said.contains(why), "{said}");
        }
        let plan = cluster.cli(&["switchover", "--to", &to.to_string(), "--dry-run"]).await?;
        ensure!(plan.contains(&format!("instance {to} gets the last bytes")) && plan.contains("nothing is lost"), "{plan}");
        let now = cluster.status().await?;
        ensure!(now.master == before.master && now.epoch == before.epoch, "a dry run changed the master");

        let begun = Instant::now();
        let said = cluster.cli(&["switchover", "--to", &to.to_string(), "--yes"]).await?;
        ensure!(said.contains("switchover done"), "{said}");
        let after = cluster.wait_new_master(before.epoch).await?;
        ensure!(after.epoch == before.epoch + 1 && after.master.as_ref().is_some_and(|m| m.instance == to), "{:?}", after.master);
        paced.progress(300, LIMIT).await?;
        fast.progress(300, LIMIT).await?;
        cluster.wait_stable().await?;
        let log = paced.stop().await?.and(fast.stop().await?);
        let verdict = log.verdict(&mut cluster.connect_master().await?, begun).await?;
        verdict.one_writer()?.nothing_lost()?;
        let (full, partial) = (stat(&cluster, to, "sync_full").await?, stat(&cluster, to, "sync_partial_ok").await?);
        ensure!(full == 0 && partial >= 2, "the others needed {full} full syncs, {partial} partial ones");
        let history = cluster.history().await?;
        let entry = history.first().context("no history")?;
        ensure!(
            entry.kind == "switchover" && entry.evidence.contains("fenced") && entry.from.as_ref() == Some(&old),
            "{entry:?}"
        );
        Ok(())
    });
}

#[test]
fn a_target_that_hangs_is_refused_and_one_that_hangs_too_late_to_see_undoes_it() {
    Bench::run("planned-undone", async |bench| {
        let cluster = Cluster::start(&bench, Options::default()).await?;
        let before = cluster.status().await?;
        let to = cluster.replicas().await?[0];
        let arguments = ["switchover", "--to", &to.to_string(), "--yes"];
        let writers = load(&cluster).await?;
        let begun = Instant::now();
        // Its agent has not noticed yet when the command comes.
        let frozen = cluster.freeze_server(to).await?;
        let undone = cluster.cli_failure(&arguments).await?;
        println!("{undone}");
        ensure!(undone.contains("switchover failed: ") && undone.contains(&format!("instance {to}")), "{undone}");
        let operation: serde_json::Value = cluster.get("/api/v1/cluster").await?;
        ensure!(operation["operation"]["outcome"].as_str().is_some_and(|outcome| outcome.starts_with("failed: ")), "{operation}");
        for writers in &writers {
            writers.progress(300, LIMIT).await?;
        }
        let refused = cluster.cli_failure(&arguments).await?;
        println!("{refused}");
        ensure!(refused.contains("refused: ") && refused.contains(&format!("instance {to} ")), "{refused}");
        drop(frozen);
        let after = cluster.wait_stable().await?;
        ensure!(after.master == before.master && after.epoch == before.epoch, "the master changed: {:?}", after.master);
        let [paced, fast] = writers;
        let log = paced.stop().await?.and(fast.stop().await?);
        let verdict = log.verdict(&mut cluster.connect_master().await?, begun).await?;
        verdict.one_writer()?.nothing_lost()?.one_server()?.pause_within(Duration::from_secs(4))?;
        // Nothing of it is left: the same change works now.
        let said = cluster.cli(&arguments).await?;
        ensure!(said.contains("switchover done"), "{said}");
        Ok(())
    });
}
