//! The data of a server outside of the cluster is migrated into it: followed, cut over without a loss, cancelled, and what befalls it meanwhile.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use controller::view::MigrationPlan;
use redis::aio::MultiplexedConnection;
use tests::harness::cluster::{Cluster, Frozen, LIMIT, Options};
use tests::harness::redis::{Plain, Server};
use tests::harness::{Bench, wait};

const PASSWORD: &str = "a secret, with blanks";

/// Writes one number after the other until it is refused, and tells when the last one was acknowledged.
fn write_until_refused(
    mut connection: MultiplexedConnection,
    acknowledged: Arc<AtomicU64>,
) -> tokio::task::JoinHandle<(Instant, String)> {
    tokio::spawn(async move {
        let mut last = Instant::now();
        for n in 1.. {
            match redis::cmd("SET").arg(format!("w:{n}")).arg(n).query_async::<()>(&mut connection).await {
                Ok(()) => (last, _) = (Instant::now(), acknowledged.store(n, Ordering::SeqCst)),
                Err(error) => return (last, error.to_string()),
            }
        }
        unreachable!("it writes until it is refused")
    })
}

/// Tries to write to the new master's door until it takes one, and tells when it did.
async fn first_write(cluster: &Cluster, epoch: u64) -> Result<Instant> {
    let paths = cluster.paths();
    let client = cluster.zookeeper.client().await?;
    let (before, _) = client.get_data(&paths.master()).await?;
    let limit = Instant::now() + LIMIT;
    loop {
        ensure!(Instant::now() < limit, "no write since epoch {epoch}");
        if let Ok((door, _)) = client.get_data(&paths.master()).await
            && door != before
            && let Ok(mut master) = tests::harness::redis::connect(&String::from_utf8(door)?).await
            && redis::cmd("SET").arg("first").arg(1).query_async::<()>(&mut master).await.is_ok()
        {
            return Ok(Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn get(connection: &mut MultiplexedConnection, key: &str) -> Result<Option<String>> {
    Ok(redis::cmd("GET").arg(key).query_async(connection).await?)
}

/// Waits until an instance follows the origin and holds what it has.
async fn followed(cluster: &Cluster) -> Result<u32> {
    let what = |status: &controller::view::ClusterView| {
        let found = status.instances.iter().find(|i| i.activity.as_ref().is_some_and(|a| a.contains("link up")));
        found.map(|i| i.instance).context("no instance follows it")
    };
    cluster.wait_status("the origin is followed", LIMIT, what).await
}

#[test]
fn the_data_of_a_foreign_server_leads_with_everything_it_acknowledged() {
    Bench::run("migrate", async |bench| {
        let cluster = Cluster::start(&bench, Options::default()).await?;
        let mut master = cluster.connect_master().await?;
        redis::cmd("SET").arg("own").arg("data").query_async::<()>(&mut master).await?;
        let before = cluster.wait_stable().await?;
        let foreign = Plain::start_as(&bench, "foreign", &bench.here(), Server::Redis6, &["--requirepass", PASSWORD]).await?;
        let file = bench.dir().join("password");
        std::fs::write(&file, format!("{PASSWORD}\n"))?;
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600))?;
        let file = file.display().to_string();

        let refused = cluster.cli_failure(&["migrate", &foreign.address, "--dry-run"]).await?;
        ensure!(refused.contains("NOAUTH") && refused.contains("against it"), "{refused}");
        let named = ["migrate", &foreign.address, "--password-file", &file];
        let plan = cluster.cli(&[&named[..], &["--dry-run", "--output", "json"]].concat()).await?;
        let plan: MigrationPlan = serde_json::from_str(&plan)?;
        ensure!(plan.objections.is_empty() && plan.examined.version == "6.2.14", "{plan:?}");
        let told = cluster.cli_failure(&[&named[..], &["--yes"]].concat()).await?;
        ensure!(told.contains("nothing was done") && told.contains("--consent"), "{told}");
        let own = cluster.cli_failure(&["migrate", &before.master.clone().context("no master")?.address.to_string()]).await?;
        ensure!(own.contains("against it"), "{own}");

        let acknowledged = Arc::new(AtomicU64::new(0));
        let client = tests::harness::redis::connect_as(&foreign.address, Some(PASSWORD)).await?;
        let writer = write_until_refused(client, acknowledged.clone());
        let consent = before.epoch.to_string();
        let said = cluster.cli(&[&named[..], &["--consent", &consent, "--yes"]].concat()).await?;
        ensure!(said.contains("--cut-over"), "{said}");
        let follower = followed(&cluster).await?;
        ensure!(follower == plan.follower && Some(follower) != before.master.as_ref().map(|m| m.instance));
        let node = cluster.zookeeper.client().await?.get_data(&cluster.paths().operation()).await?.0;
        ensure!(!String::from_utf8_lossy(&node).contains(PASSWORD), "the password lies open in ZooKeeper");
        ensure!(
            get(&mut cluster.connect_master().await?, "own").await?.as_deref() == Some("data"),
            "the master does not serve on"
        );
        redis::cmd("SET").arg("meanwhile").arg("x").query_async::<()>(&mut cluster.connect_master().await?).await?;

        let (opened, said) = tokio::join!(first_write(&cluster, before.epoch), cluster.cli(&["migrate", "--cut-over", "--yes"]));
        let ((last, refusal), said) = (writer.await?, said?);
        ensure!(refusal.contains("NOREPLICAS"), "{refusal}");
        ensure!(said.contains("migrate done") && said.contains("CONFIG SET min-replicas-to-write 0"), "{said}");
        let pause = opened?.duration_since(last);
        println!("from the last write there to the first one here: {pause:?}");
        ensure!(pause < Duration::from_secs(2), "the pause was {pause:?}");
        cluster.wait_new_master(before.epoch).await?;
        cluster.wait_stable().await?;
        ensure!(cluster.master().await? == follower, "another instance leads");
        let count = acknowledged.load(Ordering::SeqCst);
        ensure!(count > 100, "only {count} writes");
        for instance in 0..3 {
            let mut connection = cluster.connect(instance).await?;
            for n in 1..=count {
                let there = get(&mut connection, &format!("w:{n}")).await?;
                ensure!(
                    there == Some(n.to_string()),
                    "instance {instance}: write {n} of {count} was acknowledged and is not here"
                );
            }
            ensure!(get(&mut connection, "own").await?.is_none(), "what was replaced is still there");
        }
        let entry = cluster.history().await?.into_iter().next().context("no history")?;
        ensure!(entry.kind == "migrate", "{entry:?}");

        // What it replaced is a snapshot, and the foreign server takes writes again as the command tells.
        let saved =
            said.split("what it replaced is snapshot ").nth(1).and_then(|rest| rest.split(". ").next()).context("no snapshot")?;
        let epoch = cluster.status().await?.epoch.to_string();
        cluster.cli(&["restore", saved, "--consent", &epoch, "--yes"]).await?;
        let mut master = cluster.connect_master().await?;
        ensure!(get(&mut master, "own").await?.as_deref() == Some("data") && get(&mut master, "meanwhile").await?.is_some());
        let mut client = tests::harness::redis::connect_as(&foreign.address, Some(PASSWORD)).await?;
        redis::cmd("CONFIG").arg("SET").arg("min-replicas-to-write").arg(0).query_async::<()>(&mut client).await?;
        redis::cmd("SET").arg("again").arg(1).query_async::<()>(&mut client).await?;
        Ok(())
    });
}

#[test]
fn whatever_dies_meanwhile_the_present_data_serves_and_a_cancel_leaves_all_as_it_was() {
    Bench::run("migrate-faults", async |bench| {
        let mut cluster = Cluster::start(&bench, Options { controllers: 2, ..Options::default() }).await?;
        redis::cmd("SET").arg("own").arg("data").query_async::<()>(&mut cluster.connect_master().await?).await?;
        let before = cluster.wait_stable().await?;
        let foreign = Plain::start(&bench, "foreign", &bench.here()).await?;
        redis::cmd("SET").arg("theirs").arg("x").query_async::<()>(&mut foreign.connect().await?).await?;
        cluster.cli(&["migrate", &foreign.address, "--consent", &before.epoch.to_string(), "--yes"]).await?;
        let follower = followed(&cluster).await?;

        // The follower's server, and then its agent.
        let pid = cluster.server_pid(follower).await?;
        cluster.kill_server(follower).await?;
        cluster.wait_server_other_than(follower, pid).await?;
        ensure!(followed(&cluster).await? == follower, "another instance follows");
        let pid = cluster.server_pid(follower).await?;
        cluster.kill_agent(follower).await?;
        cluster.wait_server_other_than(follower, pid).await?;
        followed(&cluster).await?;
        // The leading controller.
        let first = cluster.leader().await?;
        cluster.kill_controller(first);
        wait::until("another controller leads", LIMIT, async || {
            ensure!(cluster.leader().await? != first, "the dead one is still elected");
            Ok::<_, anyhow::Error>(())
        })
        .await?;
        followed(&cluster).await?;
        // The master: another instance takes over, and the origin is followed on.
        let old = cluster.master().await?;
        cluster.kill_server(old).await?;
        let now = cluster.wait_new_master(before.epoch).await?;
        ensure!(now.master.as_ref().is_some_and(|m| m.instance != follower), "what was copied from elsewhere leads");
        followed(&cluster).await?;
        // The foreign server: it is told, and nothing happens by itself.
        drop(foreign);
        let lost = |status: &controller::view::ClusterView| {
            let row = status.instances.iter().find(|i| i.instance == follower).context("the follower is gone")?;
            let text = row.activity.clone().unwrap_or_default();
            if text.contains("no link") { Ok(()) } else { bail!("{text}") }
        };
        cluster.wait_status("the loss of the origin shows", LIMIT, lost).await?;
        let told = cluster.cli_failure(&["migrate", "--cut-over", "--yes"]).await?;
        ensure!(told.contains("does not hold the data"), "{told}");
        let said = cluster.cli(&["migrate", "--cancel"]).await?;
        ensure!(said.contains("cancelled it") && said.contains("The present data stays"), "{said}");
        let after = cluster.wait_stable().await?;
        ensure!(after.epoch == now.epoch && after.master == now.master, "the master changed");
        for instance in 0..3 {
            let mut connection = cluster.connect(instance).await?;
            ensure!(get(&mut connection, "own").await?.as_deref() == Some("data"), "instance {instance} has lost its data");
            ensure!(get(&mut connection, "theirs").await?.is_none(), "instance {instance} has foreign data");
        }
        ensure!(!cluster.task(follower).await?.sandbox.join("origin").exists(), "the copy is still there");
        Ok(())
    });
}

#[test]
fn a_cut_over_that_fails_is_undone_here_and_there_and_one_whose_controller_dies_comes_to_its_end() {
    Bench::run("migrate-undone", async |bench| {
        let mut cluster =
            Cluster::start(&bench, Options { instances: 2, hosts: 1, controllers: 2, ..Options::default() }).await?;
        redis::cmd("SET").arg("own").arg("data").query_async::<()>(&mut cluster.connect_master().await?).await?;
        let before = cluster.wait_stable().await?;
        let foreign = Plain::start(&bench, "foreign", &bench.here()).await?;
        redis::cmd("SET").arg("theirs").arg("x").query_async::<()>(&mut foreign.connect().await?).await?;
        let begin = async |epoch: u64| {
            cluster.cli(&["migrate", &foreign.address, "--consent", &epoch.to_string(), "--yes"]).await?;
            followed(&cluster).await
        };
        // It hangs when it is to be closed: nobody can know whether it obeyed.
        begin(before.epoch).await?;
        let frozen = Frozen::all(&[foreign.process.pid()]);
        cluster.cli(&["migrate", "--cut-over", "--yes", "--no-wait"]).await?;
        let again = cluster.wait_new_master(before.epoch).await?;
        ensure!(again.master.as_ref().map(|m| m.instance) == before.master.as_ref().map(|m| m.instance), "another one leads");
        ensure!(
            get(&mut cluster.connect_master().await?, "own").await?.as_deref() == Some("data"),
            "the present data does not lead"
        );
        drop(frozen);
        let operation = async || {
            let operation: Option<controller::view::Operation> = cluster.get("/api/v1/operations").await?;
            operation.and_then(|o| o.outcome).context("it has not ended")
        };
        let outcome = wait::until("it is called off", LIMIT, operation).await?;
        ensure!(outcome.starts_with("failed: ") && outcome.contains("takes writes again"), "{outcome}");
        redis::cmd("SET").arg("theirs").arg("y").query_async::<()>(&mut foreign.connect().await?).await?;
        cluster.wait_stable().await?;

        begin(again.epoch).await?;
        cluster.cli(&["migrate", "--cut-over", "--yes", "--no-wait"]).await?;
        let leader = cluster.leader().await?;
        cluster.kill_controller(leader);
        let after = cluster.wait_new_master(again.epoch).await?;
        ensure!(after.epoch == again.epoch + 1, "{}", after.summary);
        let mut master = cluster.connect_master().await?;
        ensure!(get(&mut master, "theirs").await?.as_deref() == Some("y") && get(&mut master, "own").await?.is_none());
        let refused = redis::cmd("SET").arg("late").arg(1).query_async::<()>(&mut foreign.connect().await?).await;
        ensure!(refused.is_err_and(|e| e.to_string().contains("NOREPLICAS")), "the foreign server takes writes");
        Ok(())
    });
}

#[test]
fn a_master_that_is_alone_follows_after_it_was_saved() {
    Bench::run("migrate-alone", async |bench| {
        let cluster = Cluster::start(&bench, Options { instances: 1, hosts: 1, ..Options::default() }).await?;
        redis::cmd("SET").arg("own").arg("data").query_async::<()>(&mut cluster.connect_master().await?).await?;
        let foreign = Plain::start(&bench, "foreign", &bench.here()).await?;
        redis::cmd("SET").arg("theirs").arg("x").query_async::<()>(&mut foreign.connect().await?).await?;
        for cut_over in [false, true] {
            let before = cluster.wait_stable().await?;
            let consent = before.epoch.to_string();
            let said = cluster.cli(&["migrate", &foreign.address, "--consent", &consent, "--yes"]).await?;
            ensure!(said.contains("nobody serves until the cut-over"), "{said}");
            followed(&cluster).await?;
            let verb = if cut_over { "--cut-over" } else { "--cancel" };
            cluster.cli(&["migrate", verb, "--yes"]).await?;
            cluster.wait_new_master(before.epoch).await?;
            let mut master = cluster.connect_master().await?;
            let (own, theirs) = (get(&mut master, "own").await?, get(&mut master, "theirs").await?);
            ensure!((own.is_none(), theirs.is_some()) == (cut_over, cut_over), "{verb}: own {own:?}, theirs {theirs:?}");
        }
        Ok(())
    });
}
