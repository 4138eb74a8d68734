//! A day in the life of the snapshots, on a real HDFS: made by the clock, verified and rehearsed by it, listed, pinned, pruned, verified by hand.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use agent::snapshot::{Manifest, SnapshotId};
use anyhow::{Context, Result, ensure};
use controller::view::SnapshotRow;
use serde_json::Value;
use tests::harness::cluster::{CLUSTER, Cluster, LIMIT, Options, Store};
use tests::harness::data;
use tests::harness::hdfs::FS_SHELL;
use tests::harness::{Bench, wait};

const HOUR_MS: u64 = 3_600_000;

#[test]
fn made_verified_rehearsed_pinned_and_pruned() {
    Bench::run("snapshots-life", async |bench| {
        let controller_config =
            ["schedule", "verify_schedule", "rehearse_schedule"].map(|key| format!("snapshots.{key} = 'every 10s'\n")).concat();
        let options = Options { instances: 2, hosts: 2, store: Store::Hdfs(1), controller_config, ..Options::default() };
        let cluster = Cluster::start(&bench, options).await?;
        let keys = data::load(&data::packages()?[..2000], &mut cluster.connect_master().await?).await?;
        let best = by_the_clock(&cluster, keys).await?;
        by_hand(&cluster, &best.id, keys).await?;
        let aged = plant_older_ones(&cluster, &best.id).await?;
        pruning(&cluster, &aged).await
    });
}

/// The controller makes, verifies and rehearses without being asked; the newest that all of it was done for.
async fn by_the_clock(cluster: &Cluster, keys: u64) -> Result<SnapshotRow> {
    let row = wait::until("a snapshot of all keys is made, verified and rehearsed by the clock", LIMIT, async || {
        let rows = cluster.snapshots().await?;
        let whole = |row: &SnapshotRow| {
            let loaded = |v: &Option<agent::snapshot::Verification>| {
                v.as_ref().is_some_and(|v| v.problem.is_none() && v.loaded_by.is_some())
            };
            row.keys == Some(keys) && row.request_id.is_some() && loaded(&row.verification) && loaded(&row.rehearsal)
        };
        rows.iter().find(|row| whole(row)).cloned().with_context(|| format!("none of {} is: {rows:?}", rows.len()))
    })
    .await?;
    let found = row.verification.as_ref().and_then(|v| v.keys.as_ref()).context("a verification without keys")?;
    ensure!(found.values().sum::<u64>() == keys, "{found:?} keys were found, there are {keys}");
    let shown = |status: &controller::view::ClusterView| {
        status.verified.as_ref().zip(status.rehearsed.as_ref()).map(drop).context("the status does not show them")
    };
    cluster.wait_status("the status shows what was verified and rehearsed", LIMIT, shown).await?;
    let listed = cluster.cli(&["snapshots", "list"]).await?;
    let line = listed.lines().find(|line| line.starts_with(&row.id.to_string())).context("it is not listed")?;
    ensure!(line.contains("loaded") && line.contains(" good "), "{listed}");
    Ok(row)
}

/// `verify` and `rehearse` from the command line agree, and tell programs.
async fn by_hand(cluster: &Cluster, id: &SnapshotId, keys: u64) -> Result<()> {
    let found: Value = serde_json::from_str(&cluster.cli(&["snapshots", "verify", &id.to_string(), "--output", "json"]).await?)?;
    let counted = found[0]["keys"].as_object().with_context(|| format!("no keys: {found}"))?;
    ensure!(counted.values().filter_map(Value::as_u64).sum::<u64>() == keys, "{found}");
    let said = cluster.cli(&["snapshots", "rehearse"]).await?;
    ensure!(said.contains(&keys.to_string()), "{said}");
    Ok(())
}

/// Copies of `id`, as if made two, three and four hours ago: nothing younger than an hour is ever removed.
async fn plant_older_ones(cluster: &Cluster, id: &SnapshotId) -> Result<Vec<SnapshotId>> {
    let hdfs = cluster.hdfs.as_ref().context("no HDFS")?;
    let directory = format!("{}/aurora-redis/{CLUSTER}/snapshots", hdfs.uri());
    let here = cluster.bench.subdir("planted")?;
    hdfs.tool(FS_SHELL, &["-get", &format!("{directory}/{id}"), &here.display().to_string()]).await?;
    let original = here.join(id.to_string());
    let manifest: Manifest = serde_json::from_slice(&std::fs::read(original.join("manifest.json"))?)?;
    let aged: Vec<SnapshotId> = (2..5).map(|hours| plant(&here, &original, &manifest, hours)).collect::<Result<_>>()?;
    let paths: Vec<String> = aged.iter().map(|id| here.join(id.to_string()).display().to_string()).collect();
    let mut arguments: Vec<&str> = vec!["-put"];
    arguments.extend(paths.iter().map(String::as_str));
    arguments.push(&directory);
    hdfs.tool(FS_SHELL, &arguments).await?;
    Ok(aged)
}

fn plant(here: &Path, original: &Path, manifest: &Manifest, hours: u64) -> Result<SnapshotId> {
    let created_ms = manifest.created_ms - hours * HOUR_MS;
    let aged = Manifest { created_ms, created: agent::snapshot::utc_text(created_ms), request_id: None, ..manifest.clone() };
    let directory = here.join(aged.id().to_string());
    std::fs::create_dir(&directory)?;
    std::fs::copy(original.join("dump.rdb"), directory.join("dump.rdb"))?;
    std::fs::write(directory.join("manifest.json"), serde_json::to_vec(&aged)?)?;
    Ok(aged.id())
}

/// A pinned one stays, one that nothing keeps goes, a dry run changes nothing.
async fn pruning(cluster: &Cluster, aged: &[SnapshotId]) -> Result<()> {
    let [pinned, second, third] = aged else { anyhow::bail!("{aged:?}") };
    let names =
        async || Ok::<_, anyhow::Error>(cluster.snapshots().await?.into_iter().map(|row| row.id).collect::<BTreeSet<_>>());
    cluster.cli(&["snapshots", "pin", &pinned.to_string(), "--reason", "audit"]).await?;
    wait::until("all are listed, one of them pinned", LIMIT, async || {
        let rows = cluster.snapshots().await?;
        ensure!(aged.iter().all(|id| rows.iter().any(|row| row.id == *id && row.good)), "{rows:?}");
        ensure!(rows.iter().any(|row| row.id == *pinned && row.pin.as_ref().is_some_and(|pin| pin.reason == "audit")));
        Ok(())
    })
    .await?;
    let rule = ["snapshots", "prune", "--keep", "1", "--days", "0", "--weeks", "0", "--output", "json"];
    let fates: Value = serde_json::from_str(&cluster.cli(&[&rule[..], &["--dry-run"]].concat()).await?)?;
    let goes = |lines: &Value| -> BTreeSet<String> {
        let lines = lines.as_array().into_iter().flatten();
        lines.filter(|line| line["goes"] == true).filter_map(|line| Some(line["snapshot"].as_str()?.to_owned())).collect()
    };
    let expected: BTreeSet<String> = [second, third].map(ToString::to_string).into();
    ensure!(goes(&fates) == expected, "{fates}");
    ensure!(aged.iter().all(|id| fates.as_array().is_some_and(|all| all.iter().any(|line| line["snapshot"] == id.to_string()))));
    ensure!(names().await?.is_superset(&aged.iter().cloned().collect()), "a dry run removed something");
    // A scheduled backup may be in flight: then it says so, and removes nothing.
    let removed = wait::until("they are removed", LIMIT, async || {
        let said = cluster.cli(&[&rule[..], &["--yes"]].concat()).await?;
        anyhow::Ok(serde_json::from_str::<Value>(&said)?)
    })
    .await?;
    ensure!(goes(&removed) == expected, "{removed}");
    wait::until("the list shows it", Duration::from_secs(30), async || {
        let names = names().await?;
        ensure!(names.contains(pinned) && !names.contains(second) && !names.contains(third), "{names:?}");
        Ok(())
    })
    .await
}
