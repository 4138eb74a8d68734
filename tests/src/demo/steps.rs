//! The demo's steps. Each takes the [`Stage`] on, checks what it claims, and returns the rows it verified.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use controller::view::{ClusterView, SnapshotRow};
use redis::aio::MultiplexedConnection;

use super::table::{Row, row, say};
use crate::harness::cluster::{Cluster, LIMIT, Options, Store};
use crate::harness::data::{Content, packages};
use crate::harness::{data, redis as server, wait};

/// Writes acknowledged longer than this before a kill must survive it.
const SAFE_AGE: Duration = Duration::from_secs(2);
/// A save point of Redis' own (60 s after 10,000 changes), the dump and its upload.
const BY_ITSELF: Duration = Duration::from_secs(180);

/// Packages loaded: about three keys each.
const PACKAGES: usize = 45_000;

/// Name and title of a step.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Short name, for the table and `--before`.
    pub name: &'static str,
    /// What happens in it.
    pub title: &'static str,
}

/// All steps in order.
pub const STEPS: &[Step] = &[
    Step { name: "create", title: "aurora-redis create: a cluster of 5 is born" },
    Step { name: "load", title: "real data: Debian's package index in keys of every type" },
    Step { name: "doors", title: "the master is found through every door, and takes writes there" },
    Step { name: "dump", title: "a dump that Redis makes by itself reaches HDFS" },
    Step { name: "backup", title: "a dump on command" },
    Step { name: "server", title: "kill -9 of the master's server, one replica held back" },
    Step { name: "task", title: "kill -9 of the master's whole task, one replica held back" },
    Step { name: "scale", title: "6 instances, then 4" },
    Step { name: "controller", title: "kill -9 of the leading controller" },
    Step { name: "everything", title: "all instances and their sandboxes gone at once" },
];

/// How the demo's cluster looks.
pub fn options() -> Options {
    Options { instances: 5, hosts: 3, controllers: 2, store: Store::Hdfs(1), ..Options::default() }
}

/// The cluster and what later steps need from earlier ones.
#[derive(Debug)]
pub struct Stage {
    /// The cluster.
    pub cluster: Cluster,
}

impl Stage {
    /// With everything up but the job.
    pub fn new(cluster: Cluster) -> Stage {
        Stage { cluster }
    }
}

/// Runs the step of that name.
pub async fn run(name: &str, stage: &mut Stage) -> Result<Vec<Row>> {
    match name {
        "create" => create(stage).await,
        "load" => load(stage).await,
        "doors" => doors(stage).await,
        "dump" => dump(stage).await,
        "backup" => backup(stage).await,
        "server" => failover(stage, Victim::Server).await,
        "task" => failover(stage, Victim::Task).await,
        "scale" => scale(stage).await,
        "controller" => controller(stage).await,
        "everything" => everything(stage).await,
        other => bail!("there is no step '{other}'"),
    }
}

async fn create(stage: &mut Stage) -> Result<Vec<Row>> {
    let start = Instant::now();
    stage.cluster.create().await?;
    let status = stage.cluster.wait_stable().await?;
    ensure!(status.instances.len() == 5, "{} instances instead of 5", status.instances.len());
    let master = status.master.context("no master")?;
    say(&format!("page: {}", stage.cluster.page()?));
    let found = format!(
        "instance {} at {}, epoch {}, {:.1} s after create",
        master.instance,
        master.address,
        status.epoch,
        start.elapsed().as_secs_f64()
    );
    Ok(vec![row("1 master, 4 proven replicas", found)])
}

async fn load(stage: &mut Stage) -> Result<Vec<Row>> {
    let mut packages = packages()?;
    packages.truncate(PACKAGES);
    let mut master = stage.cluster.connect_master().await?;
    let start = Instant::now();
    let keys = data::load(&packages, &mut master).await?;
    say(&format!("{} packages loaded in {:.1} s", packages.len(), start.elapsed().as_secs_f64()));
    ensure!(keys >= 100_000, "only {keys} keys");
    let replicas: u32 = redis::cmd("WAIT").arg(4).arg(4000).query_async(&mut master).await?;
    ensure!(replicas == 4, "only {replicas} of 4 replicas have confirmed the data");
    let content = Content::read(&mut master).await?;
    let types: Vec<String> = content.types.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    ensure!(content.types.len() == 6, "not every type is there: {types:?}");
    let follower = *stage.cluster.replicas().await?.first().context("no replica")?;
    let copy = Content::read(&mut stage.cluster.connect(follower).await?).await?;
    same(&content, &copy)?;
    Ok(vec![
        row("keys loaded", format!("{} ({})", content.keys.len(), types.join(", "))),
        row("confirmed by", format!("{replicas} replicas; instance {follower} compared key by key")),
    ])
}

fn same(wanted: &Content, found: &Content) -> Result<()> {
    let differences = wanted.differences(found);
    ensure!(differences.is_empty(), "{} keys wanted, {} found: {}", wanted.keys.len(), found.keys.len(), differences.join(", "));
    Ok(())
}

// --- doors ---

async fn doors(stage: &mut Stage) -> Result<Vec<Row>> {
    let cluster = &stage.cluster;
    let status = cluster.status().await?;
    let master = status.master.clone().context("no master")?.address.to_string();
    let mut rows = Vec::new();
    let said = cluster.cli(&["status"]).await?;
    ensure!(said.contains(&master), "aurora-redis status does not name {master}:\n{said}");
    rows.push(row("aurora-redis status, /api/v1/cluster", master.clone()));
    rows.push(zookeeper_doors(cluster, &status, &master).await?);
    rows.push(agent_doors(&status).await?);
    rows.push(haproxy_door(cluster).await?);
    let page = reqwest::get(cluster.page()?).await?.text().await?;
    ensure!(page.contains("<html") && page.contains("/api/v1/"), "the page is no page: {page:.80}");
    rows.push(row("page", cluster.page()?));
    Ok(rows)
}

/// Sets a key through the server at `address` and reads it back.
async fn write_through(door: &str, address: &str) -> Result<()> {
    let mut connection = server::connect(address).await.with_context(|| format!("through {door}"))?;
    redis::cmd("SET")
        .arg(format!("door:{door}"))
        .arg("open")
        .query_async::<()>(&mut connection)
        .await
        .with_context(|| format!("writing through {door}"))
}

async fn zookeeper_doors(cluster: &Cluster, status: &ClusterView, master: &str) -> Result<Row> {
    let client = cluster.zookeeper.client().await?;
    let (node, _) = client.get_data(&cluster.paths().master()).await.context("the original node")?;
    ensure!(node == master.as_bytes(), "the original node says {}", String::from_utf8_lossy(&node));
    let masters = members(&client, &cluster.paths().master_serverset()).await?;
    ensure!(masters == BTreeSet::from([master.to_owned()]), "serversets/master has {masters:?}");
    let replicas = members(&client, &cluster.paths().replicas_serverset()).await?;
    let wanted: BTreeSet<String> =
        status.instances.iter().filter_map(|i| i.address.as_ref()).map(ToString::to_string).filter(|a| a != master).collect();
    ensure!(replicas == wanted, "serversets/replicas has {replicas:?}, wanted {wanted:?}");
    let all = members(&client, &format!("/aurora/{}", status.cluster)).await?;
    ensure!(all.len() == 5 && all.contains(master), "Aurora's serverset has {all:?}");
    write_through("zookeeper", &String::from_utf8(node)?).await?;
    Ok(row("ZooKeeper: node, 3 serversets", format!("master 1, replicas {}, all {}; wrote", replicas.len(), all.len())))
}

/// `host:port` of each member of a serverset.
async fn members(client: &zookeeper_client::Client, path: &str) -> Result<BTreeSet<String>> {
    let mut members = BTreeSet::new();
    for name in client.list_children(path).await.with_context(|| path.to_owned())? {
        let (data, _) = client.get_data(&format!("{path}/{name}")).await?;
        let member: serde_json::Value = serde_json::from_slice(&data).with_context(|| format!("{path}/{name}"))?;
        let endpoint = &member["serviceEndpoint"];
        members.insert(format!("{}:{}", endpoint["host"].as_str().context("a member without host")?, endpoint["port"]));
    }
    Ok(members)
}

async fn agent_doors(status: &ClusterView) -> Result<Row> {
    let master = status.master.as_ref().map(|m| m.instance);
    for instance in &status.instances {
        let agent = instance.agent.as_ref().context("an instance without agent")?;
        for (path, is) in [("master", Some(instance.instance) == master), ("replica", Some(instance.instance) != master)] {
            let code = reqwest::get(format!("http://{agent}/{path}")).await?.status().as_u16();
            ensure!((code == 200) == is, "instance {} answers /{path} with {code}", instance.instance);
        }
    }
    Ok(row("agents' /master and /replica", format!("200 exactly where true, {} agents", status.instances.len())))
}

async fn haproxy_door(cluster: &Cluster) -> Result<Row> {
    let balancer = cluster.haproxy().await?;
    wait::until("HAProxy lets a write through", LIMIT, async || write_through("haproxy", &balancer.writes).await).await?;
    let read = async || -> Result<()> {
        let mut connection = server::connect(&balancer.reads).await?;
        let value: Option<String> = redis::cmd("GET").arg("door:haproxy").query_async(&mut connection).await?;
        ensure!(value.as_deref() == Some("open"), "the readers' side says {value:?}");
        let error = redis::cmd("SET").arg("door:x").arg(1).query_async::<()>(&mut connection).await.err();
        ensure!(error.is_some_and(|e| e.code() == Some("READONLY")), "the readers' side takes writes");
        Ok(())
    };
    wait::until("HAProxy's readers' side answers", LIMIT, read).await?;
    Ok(row("HAProxy (haproxy config, follow)", format!("wrote at {}, read at {}", balancer.writes, balancer.reads)))
}

// --- snapshots ---

async fn dump(stage: &mut Stage) -> Result<Vec<Row>> {
    let keys = dbsize(&mut stage.cluster.connect_master().await?).await?;
    say("waiting for one of Redis' own save points (60 s after 10,000 changes)");
    let snapshot = wait::until("a dump that nobody asked for is in HDFS", BY_ITSELF, async || {
        let snapshots = stage.cluster.snapshots().await?;
        let whole = snapshots.into_iter().find(|s| s.good && s.keys.is_some_and(|k| k * 10 >= keys * 9));
        whole.with_context(|| format!("no snapshot with the {keys} keys loaded"))
    })
    .await?;
    in_hdfs(&stage.cluster, &snapshot).await?;
    Ok(vec![row("by itself, in HDFS", describe(&snapshot))])
}

fn describe(snapshot: &SnapshotRow) -> String {
    let keys = snapshot.keys.map_or("?".into(), |k| k.to_string());
    format!("{} ({keys} keys, {:.1} MB, from instance {})", snapshot.id, snapshot.bytes as f64 / 1e6, snapshot.instance)
}

async fn dbsize(connection: &mut MultiplexedConnection) -> Result<u64> {
    Ok(redis::cmd("DBSIZE").query_async(connection).await?)
}

/// HDFS itself has the file, of the size that the manifest says.
async fn in_hdfs(cluster: &Cluster, snapshot: &SnapshotRow) -> Result<()> {
    let bytes = cluster.stored_bytes(&snapshot.id).await?;
    let keys = snapshot.keys.unwrap_or_default();
    ensure!(bytes > keys * 20, "{bytes} bytes cannot hold {keys} keys");
    ensure!(bytes == snapshot.bytes, "HDFS has {bytes} bytes of {}, the manifest says {}", snapshot.id, snapshot.bytes);
    Ok(())
}

/// Asks for a backup and returns the snapshot it made.
async fn take_backup(cluster: &Cluster) -> Result<SnapshotRow> {
    let before: BTreeSet<_> = cluster.snapshots().await?.into_iter().map(|s| s.id).collect();
    let said = cluster.cli(&["backup"]).await?;
    say(said.trim());
    wait::until("the backup is in the catalogue", LIMIT, async || {
        let new = cluster.snapshots().await?.into_iter().find(|s| s.good && !before.contains(&s.id));
        new.context("no new snapshot")
    })
    .await
}

async fn backup(stage: &mut Stage) -> Result<Vec<Row>> {
    let keys = dbsize(&mut stage.cluster.connect_master().await?).await?;
    let snapshot = take_backup(&stage.cluster).await?;
    ensure!(snapshot.keys == Some(keys), "the snapshot has {:?} keys, the master {keys}", snapshot.keys);
    in_hdfs(&stage.cluster, &snapshot).await?;
    Ok(vec![row("on command, in HDFS", describe(&snapshot))])
}

// --- failovers ---

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Server,
    Task,
}

async fn failover(stage: &mut Stage, victim: Victim) -> Result<Vec<Row>> {
    let cluster = &stage.cluster;
    let before = cluster.wait_stable().await?;
    let old = before.master.clone().context("no master")?;
    let held = *cluster.replicas().await?.first().context("no replica")?;
    let name = format!("writes{}", before.epoch);
    let writer = cluster.writer(&name);
    writer.progress(300, LIMIT).await?;
    say(&format!("holding instance {held} back (SIGSTOP), then writing 48 MB that it does not get"));
    let frozen = cluster.freeze_server(held).await?;
    flood(&mut cluster.connect_master().await?, 3).await?;
    let behind = cluster.agent_state(held).await?.redis.context("the held replica's server")?.offset;
    say(&format!(
        "killing the master's {}: instance {}",
        if victim == Victim::Server { "server" } else { "whole task" },
        old.instance
    ));
    let killed = Instant::now();
    match victim {
        Victim::Server => cluster.kill_server(old.instance).await?,
        Victim::Task => cluster.kill_task(old.instance).await?,
    }
    drop(frozen);
    let after = cluster.wait_new_master(before.epoch).await?;
    let new = after.master.clone().context("no master")?;
    writer.progress(300, LIMIT).await?;
    let log = writer.stop().await?;
    let verdict = log.judged(&mut cluster.connect_master().await?, killed).await?;
    let lost = verdict.one_writer()?.lost_only_within(SAFE_AGE)?.lost.len();
    let mut rows = winner(cluster, (old.instance, held, behind), &after).await?;
    let pause = log.longest_pause_after(killed).context("no write was acknowledged after the kill")?;
    rows.push(row(
        "acknowledged writes",
        format!(
            "{} in all, none older than 2 s lost, {lost} younger lost; paused for {:.2} s",
            log.acks.len(),
            pause.as_secs_f64()
        ),
    ));
    cluster.wait_stable().await?;
    rows.push(row("all follow again", format!("instance {} leads, {} came back as a replica", new.instance, old.instance)));
    Ok(rows)
}

/// 48 MB of stream, more than the sockets between master and a stopped replica take, confirmed by `acks` replicas.
async fn flood(master: &mut MultiplexedConnection, acks: u32) -> Result<()> {
    let block = vec![b'x'; 1 << 20];
    for _ in 0..48 {
        redis::cmd("SET").arg("flood").arg(&block).query_async::<()>(master).await.context("flood")?;
    }
    let confirmed: u32 = redis::cmd("WAIT").arg(acks).arg(4000).query_async(master).await?;
    ensure!(confirmed >= acks, "{confirmed} replicas have confirmed, wanted {acks}");
    redis::cmd("DEL").arg("flood").query_async::<()>(master).await.context("flood")
}

/// The history has this failover, the winner was ahead of the one held back, and says so.
async fn winner(cluster: &Cluster, (old, held, behind): (u32, u32, u64), after: &ClusterView) -> Result<Vec<Row>> {
    let new = after.master.as_ref().context("no master")?.instance;
    let history = cluster.history().await?;
    let entry =
        history.iter().find(|h| h.epoch == after.epoch).with_context(|| format!("no history of epoch {}", after.epoch))?;
    ensure!(entry.from.as_ref().map(|m| m.instance) == Some(old), "the history says it left {:?}", entry.from);
    ensure!(new != held, "the replica that was held back leads");
    ensure!(new != old, "the killed one leads");
    let offset = entry.position.as_ref().context("history without a position")?.offset;
    ensure!(offset > behind, "the winner's offset {offset} is not above {behind}");
    entry.candidates.iter().for_each(|c| say(c));
    Ok(vec![
        row("most advanced wins", format!("instance {new} at offset {offset}; held back: instance {held} at {behind}")),
        row("evidence", entry.evidence.clone()),
    ])
}

// --- changes ---

async fn scale(stage: &mut Stage) -> Result<Vec<Row>> {
    let cluster = &stage.cluster;
    let before = cluster.wait_stable().await?;
    let mut rows = Vec::new();
    for wanted in [6_u32, 4] {
        cluster.cli(&["scale", "--yes", &wanted.to_string()]).await?;
        let what = format!("{wanted} instances are stable");
        let status = cluster.wait_status(&what, LIMIT, |status| {
            ensure!(status.desired_instances == wanted, "{} are wanted", status.desired_instances);
            crate::harness::cluster::stable(status).map(|()| status.clone())
        });
        let status = status.await?;
        let tasks = cluster.tasks().await?;
        ensure!(tasks.len() == wanted as usize, "the scheduler has {} tasks", tasks.len());
        ensure!(status.master == before.master && status.epoch == before.epoch, "the master changed: {:?}", status.master);
        rows.push(row(
            format!("{wanted} instances"),
            format!("same master (instance {}), same epoch {}", status.master.map_or(0, |m| m.instance), status.epoch),
        ));
    }
    Ok(rows)
}

async fn controller(stage: &mut Stage) -> Result<Vec<Row>> {
    let before = stage.cluster.wait_stable().await?;
    let leader = stage.cluster.leader().await?;
    let writer = stage.cluster.writer("headless");
    writer.progress(100, LIMIT).await?;
    let killed = Instant::now();
    stage.cluster.kill_controller(leader);
    let cluster = &stage.cluster;
    let successor = wait::until("another controller leads", LIMIT, async || {
        let now = cluster.leader().await?;
        ensure!(now != leader, "the dead one is still elected");
        cluster.status().await?;
        Ok::<_, anyhow::Error>(now)
    })
    .await?;
    let took = killed.elapsed();
    let after = cluster.wait_stable().await?;
    ensure!(after.master == before.master && after.epoch == before.epoch, "the master changed: {:?}", after.master);
    let log = writer.stop().await?;
    let lost = log.missing(&mut cluster.connect_master().await?).await?;
    ensure!(lost.is_empty(), "{} writes are gone", lost.len());
    ensure!(log.longest_pause() < Duration::from_secs(1), "writes stopped for {:.1} s", log.longest_pause().as_secs_f64());
    let snapshot = take_backup(cluster).await?;
    stage.cluster.start_controller(leader)?;
    Ok(vec![
        row(
            "succeeded",
            format!("controller {} by {} after {:.1} s, same master and epoch", leader + 1, successor + 1, took.as_secs_f64()),
        ),
        row("writes meanwhile", format!("{}, longest pause {} ms", log.acks.len(), log.longest_pause().as_millis())),
        row("the successor works", describe(&snapshot)),
    ])
}

async fn everything(stage: &mut Stage) -> Result<Vec<Row>> {
    let cluster = &stage.cluster;
    let before = cluster.wait_stable().await?;
    let snapshot = take_backup(cluster).await?;
    let mut master = cluster.connect_master().await?;
    let content = Content::read(&mut master).await?;
    redis::cmd("SET").arg("after-the-snapshot").arg(1).query_async::<()>(&mut master).await?;
    let killed = Instant::now();
    let tasks = cluster.tasks().await?;
    for task in &tasks {
        cluster.destroy(task)?;
    }
    say(&format!("{} tasks killed, their sandboxes removed", tasks.len()));
    let after = cluster.wait_new_master(before.epoch).await?;
    let leads = killed.elapsed();
    cluster.wait_stable().await?;
    let restored = Content::read(&mut cluster.connect_master().await?).await?;
    same(&content, &restored)?;
    let history = cluster.history().await?;
    let entry = history.iter().find(|h| h.snapshot.as_ref() == Some(&snapshot.id));
    let entry = entry.with_context(|| format!("no entry of the history names {}", snapshot.id))?;
    Ok(vec![
        row("back from HDFS", format!("{} at epoch {}, {:.1} s after the kill", snapshot.id, after.epoch, leads.as_secs_f64())),
        row("data of the snapshot", format!("{} keys equal, key by key; the one written after it is gone", restored.keys.len())),
        row("evidence", entry.evidence.clone()),
    ])
}
