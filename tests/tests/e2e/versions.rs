//! Smoke runs on other servers and on the oldest ZooKeeper: birth, a write, a dump, a failover, and a start from the dump.

use anyhow::{Result, ensure};
use tests::harness::Bench;
use tests::harness::cluster::{Cluster, Options};
use tests::harness::redis::Server;
use tests::harness::zookeeper::Version;

fn smoke(name: &'static str, options: Options) {
    Bench::run(name, async move |bench| life(&Cluster::start(&bench, options).await?).await);
}

async fn life(cluster: &Cluster) -> Result<()> {
    let mut master = cluster.connect_master().await?;
    redis::cmd("SET").arg("k").arg("v").query_async::<()>(&mut master).await?;
    cluster.cli(&["backup"]).await?;
    cluster.wait_snapshots(1).await?;
    let epoch = cluster.status().await?.epoch;
    cluster.kill_server(cluster.master().await?).await?;
    let epoch = cluster.wait_new_master(epoch).await?.epoch;
    cluster.wait_stable().await?;
    for task in cluster.tasks().await? {
        cluster.destroy(&task)?;
    }
    cluster.wait_new_master(epoch).await?;
    let value: Option<String> = redis::cmd("GET").arg("k").query_async(&mut cluster.connect_master().await?).await?;
    ensure!(value.as_deref() == Some("v"), "k is {value:?}");
    Ok(())
}

fn small() -> Options {
    Options { instances: 2, hosts: 1, ..Options::default() }
}

#[test]
fn redis_8() {
    smoke("redis-8", Options { server: Server::Redis8, ..small() });
}

#[test]
fn valkey_9() {
    smoke("valkey-9", Options { server: Server::Valkey9, ..small() });
}

#[test]
fn zookeeper_3_4() {
    smoke("zookeeper-3-4", Options { zookeeper: Version::V3_4, ..small() });
}
