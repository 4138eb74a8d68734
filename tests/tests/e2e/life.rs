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
        // Repeating it changes nothing: the cluster file still says three.
        let again = cluster.cli(&["create", &cluster.cluster_file(), "--output", "json"]).await?;
        let again: serde_json::Value = serde_json::from_str(&again)?;
        ensure!(again["spec"] == "exists" && again["job"] == "exists", "{again}");
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
        let shown: serde_json::Value =
            serde_json::from_str(&cluster.cli(&["snapshots", "show", &id, "--output", "json"]).await?)?;
        ensure!(shown.to_string().contains(&id), "snapshots show: {shown}");
        cluster.cli(&["history"]).await?;
        // What it says of this very machine (overcommit, ulimits) may be a failure; what it reaches is not.
        let doctor = cluster.cli_output(&["doctor"]).await?;
        let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
        for part in ["zookeeper", "controller", "scheduler", "clock", "store", "secret"] {
            ensure!(said.lines().any(|l| l.starts_with("ok") && l.contains(part)), "{part} is not ok:\n{said}");
        }
        ensure!(doctor.status.success() != said.contains("FAIL"), "{}:\n{said}", doctor.status);
        Ok(())
    });
}
