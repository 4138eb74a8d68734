//! Data from elsewhere: a new cluster is born from the original system's layout in HDFS, a second one beside it from its snapshot; another dump
//! comes in later, and counts for nothing until somebody names it.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use controller::view::SnapshotRow;
use tests::harness::cluster::{CLUSTER, Cluster, LIMIT, Options, Store};
use tests::harness::data::{self, Content, Package};
use tests::harness::hdfs::FS_SHELL;
use tests::harness::redis::Plain;
use tests::harness::{Bench, wait};

/// A server that nobody supervises, as its users had it before.
struct Before {
    bench: Arc<Bench>,
    server: Plain,
}

impl Before {
    async fn start(bench: &Arc<Bench>) -> Result<Before> {
        Ok(Before { bench: bench.clone(), server: Plain::start(bench, "before", &bench.here()).await? })
    }

    /// Its dump with these packages alone, as `<name>/dump.rdb`; that directory, and what the dump holds.
    async fn dump(&self, name: &str, packages: &[Package]) -> Result<(PathBuf, Content)> {
        let mut connection = self.server.connect().await?;
        redis::cmd("FLUSHALL").query_async::<()>(&mut connection).await?;
        data::load(packages, &mut connection).await?;
        redis::cmd("SAVE").query_async::<()>(&mut connection).await?;
        let dir = self.bench.subdir(name)?;
        std::fs::copy(self.bench.dir().join("before/dump.rdb"), dir.join("dump.rdb"))?;
        Ok((dir, Content::read(&mut connection).await?))
    }
}

/// Whether every instance holds exactly this.
async fn hold(cluster: &Cluster, expected: &Content) -> Result<()> {
    for instance in cluster.wait_stable().await?.instances {
        let there = Content::read(&mut cluster.connect(instance.instance).await?).await?;
        let differences = expected.differences(&there);
        ensure!(differences.is_empty(), "instance {}: {differences:?}", instance.instance);
    }
    Ok(())
}

/// `create --from`, after a look; what the cluster was born from is the only snapshot there is, and the first thing in its history.
async fn create_from(cluster: &Cluster, source: &str) -> Result<()> {
    let file = cluster.cluster_file();
    let look: serde_json::Value = serde_json::from_str(&cluster.cli(&["create", &file, "--from", source, "--dry-run"]).await?)?;
    ensure!(look["from"]["address"].as_str().is_some_and(|at| at.starts_with(source)), "{look}");
    ensure!(look["from"]["imported"].is_null() && look["key"].is_string(), "{look}");
    let said = cluster.cli(&["create", &file, "--from", source, "--output", "json"]).await?;
    let created: serde_json::Value = serde_json::from_str(&said)?;
    let born = created["snapshot"].as_str().context("it tells no snapshot")?;
    cluster.wait_stable().await?;
    let entry = cluster.history().await?.pop().context("no history")?;
    ensure!(entry.snapshot.is_some_and(|id| id.to_string() == born), "it was not born from {born}");
    let again = cluster.cli_failure(&["create", &file, "--from", source]).await?;
    ensure!(again.contains("is no new cluster") && again.contains("nothing was imported"), "{again}");
    Ok(())
}

/// A second cluster, from the best snapshot of the first one, which is not touched by it.
async fn beside(cluster: &Cluster, best: &str, expected: &Content) -> Result<()> {
    let hdfs = cluster.hdfs.as_ref().context("no HDFS")?;
    let job = format!("{}/aurora-redis/{CLUSTER}", hdfs.uri());
    let listing = async || hdfs.tool(FS_SHELL, &["-ls", "-R", &job]).await;
    let (before, status) = (listing().await?, cluster.status().await?);
    let bench = Arc::new(Bench::new("imports-beside", 0)?);
    let options = Options { instances: 1, hosts: 1, save: "none".into(), ..Options::default() };
    let second = Cluster::start_parts(&bench, options).await?;
    create_from(&second, &job).await?;
    hold(&second, expected).await?;
    let rows = second.snapshots().await?;
    let from = rows.first().and_then(|row| row.imported.as_ref()).map(|imported| imported.from.as_str());
    ensure!(from == Some(format!("{job}/snapshots/{best}").as_str()), "{rows:?}");

    let (there, here) = (second.status().await?, cluster.status().await?);
    ensure!(there.cluster_id.is_some() && there.cluster_id != status.cluster_id, "{:?}", there.cluster_id);
    redis::cmd("SET").arg("only").arg("here").query_async::<()>(&mut second.connect_master().await?).await?;
    ensure!((here.epoch, &here.master) == (status.epoch, &status.master), "{}", here.summary);
    ensure!(listing().await? == before, "the first cluster's store was changed: before it was {before}");
    hold(cluster, expected).await
}

/// The row of an imported snapshot, once the controller lists it.
async fn listed(cluster: &Cluster, id: &str) -> Result<SnapshotRow> {
    wait::until(&format!("{id} is listed"), LIMIT, async || {
        let rows = cluster.snapshots().await?;
        rows.into_iter().find(|row| row.id.to_string() == id).context("it is not")
    })
    .await
}

/// The name that an import has got, as the command tells it.
fn name_in(said: &str) -> Result<String> {
    let name = said.split(": imported").next().context("it tells no name")?;
    Ok(name.trim().to_owned())
}

#[test]
fn clusters_are_born_from_the_original_layout_and_from_another_cluster_and_an_import_waits_until_it_is_named() {
    Bench::run("imports", async |bench| {
        let packages = data::packages()?;
        let before = Before::start(&bench).await?;
        let (layout, original) = before.dump("redis", &packages[..400]).await?;
        let options = Options { instances: 2, hosts: 1, store: Store::Hdfs(1), save: "none".into(), ..Options::default() };
        let cluster = Cluster::start_parts(&bench, options).await?;
        let hdfs = cluster.hdfs.as_ref().context("no HDFS")?;
        hdfs.tool(FS_SHELL, &["-put", &layout.display().to_string(), "/"]).await?;

        create_from(&cluster, &format!("{}/redis", hdfs.uri())).await?;
        hold(&cluster, &original).await?;
        ensure!(cluster.status().await?.snapshot.is_none(), "an imported snapshot counts as a backup");

        // A newer dump with other data: it is there, and nothing else.
        cluster.cli(&["backup"]).await?;
        let own = cluster.wait_snapshots(1).await?[0].id.to_string();
        beside(&cluster, &own, &original).await?;
        let (other, foreign) = before.dump("other", &packages[1000..1300]).await?;
        let said = cluster.cli(&["snapshots", "import", &other.join("dump.rdb").display().to_string()]).await?;
        let id = name_in(&said)?;
        let row = listed(&cluster, &id).await?;
        ensure!(!row.good && row.is_import() && row.keys == Some(foreign.keys.len() as u64), "{row:?}");
        let status = cluster.status().await?;
        ensure!(status.snapshot.is_some_and(|latest| latest.id.to_string() == own), "{id} is the latest");
        ensure!(status.conditions.iter().all(|c| !c.reason.starts_with("snapshot-")), "{:?}", status.conditions);
        let shown = cluster.cli(&["restore", "latest", "--dry-run"]).await?;
        ensure!(shown.contains(&own) && !shown.contains(&id), "{shown}");

        // Not even when everything is lost.
        for task in cluster.tasks().await? {
            cluster.destroy(&task)?;
        }
        cluster.wait_new_master(status.epoch).await?;
        hold(&cluster, &original).await?;

        let epoch = cluster.status().await?.epoch;
        let said = cluster.cli(&["restore", &id, "--consent", &epoch.to_string(), "--yes"]).await?;
        ensure!(said.contains("restore done"), "{said}");
        cluster.wait_new_master(epoch).await?;
        hold(&cluster, &foreign).await
    });
}
