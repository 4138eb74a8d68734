//! What only a person can decide: going on without evidence, or without those who may hold confirmed writes.

use anyhow::{Context, Result, ensure};
use tests::harness::Bench;
use tests::harness::cluster::{Cluster, LIMIT, Options};
use tests::harness::data::{self, Content};

/// Runs a command that must be refused, with every one of `parts` in what it says.
async fn refused(cluster: &Cluster, arguments: &[&str], parts: &[&str]) -> Result<()> {
    let output = cluster.cli_output(arguments).await?;
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    let said = String::from_utf8_lossy(&said);
    let words = arguments.join(" ");
    ensure!(!output.status.success(), "aurora-redis {words} was accepted:\n{said}");
    for part in parts.iter().chain(&["refused: "]) {
        ensure!(said.contains(part), "aurora-redis {words} does not say '{part}':\n{said}");
    }
    Ok(())
}

#[test]
fn a_cluster_whose_hosts_are_all_gone_comes_back_from_its_snapshot_by_consent() {
    Bench::run("restore-consent", async |bench| {
        let cluster = Cluster::start(&bench, Options { held: true, ..Options::default() }).await?;
        let mut master = cluster.connect_master().await?;
        data::load(&data::packages()?[..1000], &mut master).await?;
        cluster.cli(&["backup"]).await?;
        redis::cmd("SET").arg("second").arg(2).query_async::<()>(&mut master).await?;
        cluster.cli(&["backup"]).await?;
        let newest = cluster.wait_snapshots(2).await?[0].id.to_string();
        let content = Content::read(&mut master).await?;
        redis::cmd("SET").arg("third").arg(3).query_async::<()>(&mut master).await?;
        let before = cluster.status().await?;
        refused(&cluster, &["restore", "--consent", "--yes"], &["serves as master", "replace live data"]).await?;
        let leader = before.master.clone().context("no master")?.instance.to_string();
        for task in cluster.tasks().await? {
            cluster.rehost(task.instance, &format!("another-{}", task.instance))?;
            cluster.destroy(&task)?;
        }
        cluster.wait_condition("no-evidence", LIMIT).await?;
        cluster
            .wait_status("all new instances are idle", LIMIT, |status| {
                let idle = status.instances.iter().filter(|i| i.state == "idle").count();
                ensure!(idle == 3, "{idle} are: {:?}", status.instances.iter().map(|i| &i.state).collect::<Vec<_>>());
                Ok(())
            })
            .await?;
        let known = [&format!("instance {leader}")[..], "nothing proves", &newest, "writes after it are lost", "--consent"];
        refused(&cluster, &["restore", "--yes"], &known).await?;
        let waiting = cluster.status().await?;
        ensure!(waiting.master.is_none() || waiting.epoch == before.epoch, "it went on: {}", waiting.summary);

        let said = cluster.cli(&["restore", "--consent", "--yes"]).await?;
        ensure!(said.contains("restore done"), "{said}");
        cluster.wait_new_master(before.epoch).await?;
        cluster.wait_stable().await?;
        let differences = content.differences(&Content::read(&mut cluster.connect_master().await?).await?);
        ensure!(differences.is_empty(), "{differences:?}");
        let history = cluster.history().await?;
        let entry = history.first().context("no history")?;
        ensure!(entry.kind == "restore" && entry.evidence.contains("consented"), "{entry:?}");
        ensure!(entry.snapshot.as_ref().is_some_and(|id| id.to_string() == newest), "restored {:?}", entry.snapshot);
        Ok(())
    });
}
