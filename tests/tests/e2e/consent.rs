//! What only a person can decide: going on without evidence, or without those who may hold confirmed writes.

use std::time::Instant;

use agent::record::Phase;
use anyhow::{Context, Result, ensure};
use tests::checker::Load;
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

#[test]
fn without_consent_it_comes_back_once_no_promise_can_carry_the_last_master() {
    Bench::run("restore-failsafe", async |bench| {
        let options = Options { held: true, instances: 2, cluster_config: "failsafe.max = '8s'".into(), ..Options::default() };
        let cluster = Cluster::start(&bench, options).await?;
        let mut master = cluster.connect_master().await?;
        redis::cmd("SET").arg("k").arg("v").query_async::<()>(&mut master).await?;
        cluster.cli(&["backup"]).await?;
        cluster.wait_snapshots(1).await?;
        let before = cluster.status().await?;
        for task in cluster.tasks().await? {
            cluster.rehost(task.instance, &format!("another-{}", task.instance))?;
            cluster.destroy(&task)?;
        }
        cluster.wait_condition("no-evidence", LIMIT).await?;
        cluster.wait_new_master(before.epoch).await?;
        let value: Option<String> = redis::cmd("GET").arg("k").query_async(&mut cluster.connect_master().await?).await?;
        ensure!(value.as_deref() == Some("v"), "k is {value:?}");
        let history = cluster.history().await?;
        let entry = history.first().context("no history")?;
        ensure!(entry.kind == "restore" && entry.evidence.contains("longer than any promise"), "{entry:?}");
        Ok(())
    });
}

#[test]
fn a_failover_without_a_quorum_of_the_members_needs_consent() {
    Bench::run_on_hosts("failover-consent", 3, async |bench| {
        let options = Options { cluster_config: "durability.acks = 1".into(), ..Options::default() };
        let cluster = Cluster::start(&bench, options).await?;
        let before = cluster.status().await?;
        let master = before.master.clone().context("no master")?;
        let replicas = cluster.replicas().await?;
        let writers = cluster.writers("w", &Load::witnesses()).await?;
        writers.progress(300, LIMIT).await?;
        let epoch = before.epoch.to_string();
        refused(&cluster, &["failover", "--consent", &epoch, "--yes"], &["serves as master", "aurora-redis switchover"]).await?;

        // With the master goes one of its two replicas: what only that one had confirmed would be missed.
        let fault = Instant::now();
        for instance in [master.instance, replicas[0]] {
            bench.network().isolate(&cluster.host_of(instance).await?)?;
        }
        let survivor = format!("instance {}", replicas[1]);
        cluster.wait_condition("no-quorum", LIMIT).await?;
        let waiting = cluster.status().await?;
        ensure!(waiting.epoch == before.epoch + 1 && waiting.phase == Some(Phase::Deposing), "{waiting:?}");
        let now = waiting.epoch.to_string();
        let known = ["Evidence: the lease of server run", "bears witness", &survivor, "1 of 2 members answered", "--consent"];
        refused(&cluster, &["failover", "--yes"], &[&known[..], &[&now]].concat()).await?;
        refused(&cluster, &["failover", "--consent", &epoch, "--yes"], &["consent was given for epoch", &now]).await?;
        cluster.cli(&["failover", "--consent", &now, "--dry-run"]).await?;
        ensure!(cluster.status().await?.phase == Some(Phase::Deposing), "a dry run changed something");

        let said = cluster.cli(&["failover", "--consent", &now, "--yes"]).await?;
        ensure!(said.contains("failover done"), "{said}");
        let after = cluster.wait_new_master(before.epoch).await?;
        ensure!(after.master.is_some_and(|m| m.instance == replicas[1]), "another one leads than the survivor");
        writers.progress(300, LIMIT).await?;
        bench.network().heal()?;
        cluster.wait_stable().await?;
        let log = writers.stop().await?;
        log.verdict(&mut cluster.connect_master().await?, fault).await?.one_writer()?;
        Ok(())
    });
}
