//! Birth, growth and shrinking of a cluster, and its commands.

use anyhow::{Context, ensure};
use tests::harness::Bench;
use tests::harness::cluster::{Cluster, LIMIT, Options, stable};

#[test]
fn three_instances_are_born_grow_and_shrink_around_the_master() {
    Bench::run("life", async |bench| {
        let cluster = Cluster::start(&bench, Options::default()).await?;
        let born = cluster.status().await?;
        let master = born.master.clone().context("no master")?;
        let writer = cluster.writer("w");
        writer.progress(100, LIMIT).await?;
        for wanted in [5_u32, 2] {
            cluster.cli(&["scale", "--yes", &wanted.to_string()]).await?;
            cluster
                .wait_status(&format!("{wanted} instances are stable"), LIMIT, |status| {
                    ensure!(status.desired_instances == wanted, "{} are wanted", status.desired_instances);
                    stable(status)
                })
                .await?;
            let now = cluster.status().await?;
            ensure!(now.master.as_ref() == Some(&master) && now.epoch == born.epoch, "the master changed: {:?}", now.master);
        }
        let log = writer.stop().await?;
        ensure!(log.missing(&mut cluster.connect_master().await?).await?.is_empty(), "writes are gone");
        let again = cluster.cli_output(&["create", &cluster.cluster_file()]).await?;
        ensure!(!again.status.success(), "a second create was accepted");
        let tasks = cluster.tasks().await?;
        ensure!(tasks.len() == 2 && tasks.iter().any(|t| t.instance == master.instance), "{tasks:?}");
        Ok(())
    });
}

#[test]
fn the_command_line_shows_and_doctor_is_content() {
    Bench::run("commands", async |bench| {
        let cluster = Cluster::start(&bench, Options { instances: 2, hosts: 1, ..Options::default() }).await?;
        let status = cluster.status().await?;
        let address = status.master.context("no master")?.address.to_string();
        ensure!(cluster.cli(&["status"]).await?.contains(&address), "status does not name the master");
        let json: serde_json::Value = serde_json::from_str(&cluster.cli(&["status", "--output", "json"]).await?)?;
        ensure!(json["cluster_id"].as_str() == status.cluster_id.as_deref(), "{json}");
        cluster.cli(&["backup"]).await?;
        let id = cluster.wait_snapshots(1).await?[0].id.to_string();
        ensure!(cluster.cli(&["snapshots", "list"]).await?.contains(&id), "snapshots list does not name {id}");
        ensure!(cluster.cli(&["snapshots", "show", &id]).await?.contains("sha256"), "snapshots show tells no checksum");
        cluster.cli(&["history"]).await?;
        cluster.cli(&["doctor"]).await.map(|_| ())
    });
}
