//! Five hosts in network namespaces, a ZooKeeper ensemble of three, two controllers: a failover across a real network.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tests::harness::Bench;
use tests::harness::cluster::{Cluster, LIMIT, Options};

#[test]
fn a_cluster_on_five_hosts_survives_a_server_a_zookeeper_and_a_controller() {
    Bench::run_on_hosts("five-hosts", 5, async |bench| {
        let options = Options { instances: 5, controllers: 2, zookeepers: 3, ..Options::default() };
        let mut cluster = Cluster::start(&bench, options).await?;
        let before = cluster.status().await?;
        let hosts: std::collections::BTreeSet<String> = cluster.tasks().await?.into_iter().map(|t| t.address).collect();
        ensure!(hosts.len() == 5, "the instances are on {hosts:?}");
        let writer = cluster.writer("w");
        writer.progress(200, LIMIT).await?;
        let killed = Instant::now();
        cluster.kill_server(cluster.master().await?).await?;
        let after = cluster.wait_new_master(before.epoch).await?;
        writer.progress(200, LIMIT).await?;
        cluster.wait_stable().await?;
        let leader = cluster.zookeeper.leader().await?;
        cluster.zookeeper.kill(leader);
        let controller = cluster.leader().await?;
        cluster.kill_controller(controller);
        writer.progress(200, LIMIT).await?;
        let stable = cluster.wait_stable().await?;
        ensure!(stable.master == after.master && stable.epoch == after.epoch, "the master changed: {:?}", stable.master);
        let log = writer.stop().await?;
        log.verdict(&mut cluster.connect_master().await?, killed)
            .await?
            .one_writer()?
            .lost_only_within(Duration::from_secs(2))?;
        let master = stable.master.context("no master")?;
        ensure!(master.address.host.starts_with("198.18.0."), "the master is at {}", master.address);
        Ok(())
    });
}
