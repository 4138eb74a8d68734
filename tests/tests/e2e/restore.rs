//! A snapshot is restored into a cluster that serves: what is shown, what is asked for, what is there afterwards, and the way back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};
use controller::view::RestorePlan;
use tests::harness::Bench;
use tests::harness::cluster::{Cluster, Options};
use tests::harness::data::{self, Content};

/// Writes one number after the other until the first error, as one client does that must know what was acknowledged.
async fn write_until_cut(cluster: &Cluster, acknowledged: Arc<AtomicU64>) -> Result<tokio::task::JoinHandle<()>> {
    let mut connection = cluster.connect_master().await?;
    Ok(tokio::spawn(async move {
        for n in 1.. {
            let written = redis::cmd("SET").arg(format!("w:{n}")).arg(n).query_async::<()>(&mut connection).await;
            if written.is_err() {
                return;
            }
            acknowledged.store(n, Ordering::SeqCst);
        }
    }))
}

#[test]
fn the_data_is_saved_then_replaced_and_comes_back_when_asked_for() {
    Bench::run("restore-living", async |bench| {
        let cluster = Cluster::start(&bench, Options::default()).await?;
        let mut master = cluster.connect_master().await?;
        data::load(&data::packages()?[..1000], &mut master).await?;
        cluster.cli(&["backup"]).await?;
        let wanted = cluster.wait_snapshots(1).await?[0].id.to_string();
        let then = Content::read(&mut master).await?;
        redis::cmd("SET").arg("since").arg("then").query_async::<()>(&mut master).await?;
        redis::cmd("DEL").arg("w:0").query_async::<()>(&mut master).await?;
        let before = cluster.wait_stable().await?;

        let plan = cluster.cli(&["restore", &wanted, "--dry-run", "--output", "json"]).await?;
        let plan: RestorePlan = serde_json::from_str(&plan)?;
        ensure!(plan.objections.is_empty() && plan.epoch == before.epoch && plan.loader.is_some(), "{plan:?}");
        let shown = cluster.cli(&["restore", "latest", "--dry-run"]).await?;
        ensure!(shown.contains(&wanted) && shown.contains("writes stop") && shown.contains(&plan.command), "{shown}");
        let told = cluster.cli_failure(&["restore", &wanted, "--yes"]).await?;
        ensure!(told.contains("nothing was done") && told.contains(&plan.command), "{told}");
        let now = cluster.status().await?;
        ensure!(now.epoch == before.epoch && now.master == before.master, "something was changed: {}", now.summary);

        let acknowledged = Arc::new(AtomicU64::new(0));
        let writer = write_until_cut(&cluster, acknowledged.clone()).await?;
        let epoch = before.epoch.to_string();
        let said = cluster.cli(&["restore", &wanted, "--consent", &epoch, "--yes"]).await?;
        ensure!(said.contains("restore done"), "{said}");
        writer.await?;
        let last = acknowledged.load(Ordering::SeqCst);
        ensure!(last > 0, "nothing was written before the cut");
        cluster.wait_new_master(before.epoch).await?;
        let after = cluster.wait_stable().await?;
        for instance in 0..3 {
            let there = Content::read(&mut cluster.connect(instance).await?).await?;
            let differences = then.differences(&there);
            ensure!(differences.is_empty(), "instance {instance}: {differences:?}");
        }
        let history = cluster.history().await?;
        let entry = history.first().context("no history")?;
        ensure!(entry.kind == "restore" && entry.snapshot.as_ref().is_some_and(|s| s.to_string() == wanted), "{entry:?}");
        for replica in cluster.replicas().await? {
            let aside = cluster.task(replica).await?.sandbox.join("aside");
            ensure!(std::fs::read_dir(&aside)?.count() > 0, "instance {replica} has nothing aside");
        }

        // Everything that was ever acknowledged lies in the snapshot that was taken before.
        let saved = said.rsplit(' ').next().context("it does not tell what it replaced")?.trim().to_owned();
        let consent = after.epoch.to_string();
        let said = cluster.cli(&["restore", &saved, "--consent", &consent, "--yes"]).await?;
        ensure!(said.contains("restore done"), "{said}");
        cluster.wait_new_master(after.epoch).await?;
        let mut master = cluster.connect_master().await?;
        let since: Option<String> = redis::cmd("GET").arg("since").query_async(&mut master).await?;
        ensure!(since.as_deref() == Some("then"), "since is {since:?}");
        for n in 1..=last {
            let there: Option<u64> = redis::cmd("GET").arg(format!("w:{n}")).query_async(&mut master).await?;
            ensure!(there == Some(n), "the acknowledged write {n} of {last} is not in what was saved");
        }
        cluster.wait_stable().await?;
        Ok(())
    });
}

#[test]
fn a_master_that_is_alone_makes_room_itself() {
    Bench::run("restore-alone", async |bench| {
        let cluster = Cluster::start(&bench, Options { instances: 1, hosts: 1, ..Options::default() }).await?;
        let mut master = cluster.connect_master().await?;
        for value in ["first", "second"] {
            redis::cmd("SET").arg("k").arg(value).query_async::<()>(&mut master).await?;
            if value == "first" {
                cluster.cli(&["backup"]).await?;
            }
        }
        let wanted = cluster.wait_snapshots(1).await?[0].id.to_string();
        let before = cluster.status().await?;
        let said = cluster.cli(&["restore", &wanted, "--consent", &before.epoch.to_string(), "--yes"]).await?;
        ensure!(said.contains("restore done"), "{said}");
        cluster.wait_new_master(before.epoch).await?;
        let value: Option<String> = redis::cmd("GET").arg("k").query_async(&mut cluster.connect_master().await?).await?;
        ensure!(value.as_deref() == Some("first"), "k is {value:?}");
        Ok(())
    });
}

#[test]
fn past_the_disk_a_cluster_comes_back_and_is_replaced() {
    Bench::run("restore-fed", async |bench| {
        let options = Options {
            instances: 2,
            hosts: 2,
            save: "none".into(),
            agent_config: "snapshots.restore_how = 'stream'\n".into(),
            ..Options::default()
        };
        let cluster = Cluster::start(&bench, options).await?;
        let mut master = cluster.connect_master().await?;
        data::load(&data::packages()?[..1000], &mut master).await?;
        cluster.cli(&["backup"]).await?;
        let wanted = cluster.wait_snapshots(1).await?[0].id.to_string();
        let then = Content::read(&mut master).await?;
        let before = cluster.status().await?;
        for task in cluster.tasks().await? {
            cluster.destroy(&task)?;
        }
        cluster.wait_new_master(before.epoch).await?;
        let back = cluster.wait_stable().await?;
        for instance in 0..2 {
            let differences = then.differences(&Content::read(&mut cluster.connect(instance).await?).await?);
            ensure!(differences.is_empty(), "instance {instance}: {differences:?}");
        }
        let untouched = async |instance| {
            let sandbox = cluster.task(instance).await?.sandbox;
            ensure!(!sandbox.join("incoming").exists() && !sandbox.join("held").exists(), "{}", sandbox.display());
            Ok(sandbox.join("redis/dump.rdb").exists())
        };
        ensure!(!untouched(cluster.master().await?).await?, "the master has a dump");

        let mut master = cluster.connect_master().await?;
        redis::cmd("SET").arg("since").arg("then").query_async::<()>(&mut master).await?;
        let said = cluster.cli(&["restore", &wanted, "--consent", &back.epoch.to_string(), "--yes"]).await?;
        ensure!(said.contains("restore done"), "{said}");
        cluster.wait_new_master(back.epoch).await?;
        cluster.wait_stable().await?;
        for instance in 0..2 {
            let differences = then.differences(&Content::read(&mut cluster.connect(instance).await?).await?);
            ensure!(differences.is_empty(), "instance {instance}: {differences:?}");
        }
        ensure!(!untouched(cluster.master().await?).await?, "the master has a dump");
        Ok(())
    });
}
