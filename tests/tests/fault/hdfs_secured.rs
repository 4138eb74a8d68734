//! A secured HDFS whose tickets live for ten seconds: logins by keytab, renewed by themselves; the KDC away, and a keytab that is good for
//! nothing. The cluster serves on through all of it, and what is wrong is said with what to look at. A secured pair of NameNodes.

use std::time::Duration;

use anyhow::{Context, ensure};
use tests::harness::cluster::{Cluster, LIMIT, Options, Store};
use tests::harness::hdfs::{FS_SHELL, TICKETS};
use tests::harness::kdc::Kdc;
use tests::harness::{Bench, wait};

use super::hdfs_down::HDFS_LIMIT;

#[test]
fn tickets_are_renewed_and_every_failed_login_says_why() {
    Bench::run("hdfs-secured", async |bench| {
        let options = Options { instances: 2, hosts: 2, store: Store::Secured, save: "1 1".into(), ..Options::default() };
        let mut cluster = Cluster::start(&bench, options).await?;
        let before = cluster.status().await?;
        let writer = cluster.writer("w");
        writer.progress(100, LIMIT).await?;
        cluster.wait_snapshots_within(1, HDFS_LIMIT).await?;
        cluster.cli(&["snapshots", "verify"]).await?;

        tickets_expire(&mut cluster).await?;
        the_kdc_is_away(&mut cluster).await?;
        the_keytab_is_no_good(&mut cluster).await?;
        not_permitted(&cluster).await?;

        cluster.wait_no_condition("upload-failing", HDFS_LIMIT).await?;
        let after = cluster.wait_stable().await?;
        ensure!(after.epoch == before.epoch && after.master == before.master, "the master changed: {:?}", after.master);
        let log = writer.stop().await?;
        ensure!(log.longest_pause() < Duration::from_secs(2), "writes stopped for {:?}", log.longest_pause());
        comes_back_from_it(&cluster).await
    });
}

/// Both NameNodes want logins, and every byte is encrypted: the other one takes over, and what was stored comes back.
#[test]
fn the_other_namenode_of_a_secured_pair_takes_over() {
    Bench::run("hdfs-secured-pair", async |bench| {
        let options = Options { instances: 2, hosts: 2, store: Store::SecuredPair, save: "1 1".into(), ..Options::default() };
        let mut cluster = Cluster::start(&bench, options).await?;
        let writer = cluster.writer("w");
        writer.progress(100, LIMIT).await?;
        cluster.wait_snapshots_within(1, HDFS_LIMIT).await?;
        cluster.cli(&["snapshots", "verify"]).await?;
        let hdfs = cluster.hdfs.as_mut().context("no HDFS")?;
        hdfs.kill_namenode();
        hdfs.activate(1).await?;
        // The tickets of before are over by now, or soon: the logins at the other one are new.
        newer_snapshot(&cluster).await?;
        cluster.cli(&["snapshots", "verify"]).await?;
        writer.stop().await?;
        comes_back_from_it(&cluster).await
    });
}

/// New logins after the first tickets have expired: of a new connection to the NameNode, from agents and controller that went on running.
async fn tickets_expire(cluster: &mut Cluster) -> anyhow::Result<()> {
    tokio::time::sleep(TICKETS + Duration::from_secs(2)).await;
    let hdfs = cluster.hdfs.as_mut().context("no HDFS")?;
    hdfs.kill_namenode();
    hdfs.restart_namenode().await?;
    newer_snapshot(cluster).await
}

async fn the_kdc_is_away(cluster: &mut Cluster) -> anyhow::Result<()> {
    kdc(cluster)?.freeze();
    refused(cluster, &["no answer within 20 s", "KDC", "KRB5_CONFIG"]).await?;
    kdc(cluster)?.kill();
    refused(cluster, &["Cannot contact any KDC", "KRB5_CONFIG"]).await?;
    // A fresh agent has no ticket yet; the one that uploads is a replica's.
    let replica = cluster.replicas().await?[0];
    cluster.kill_agent(replica).await?;
    uploads_fail_with(cluster, "Cannot contact any KDC").await?;
    kdc(cluster)?.restart().await?;
    newer_snapshot(cluster).await
}

async fn the_keytab_is_no_good(cluster: &mut Cluster) -> anyhow::Result<()> {
    kdc(cluster)?.change_key("aurora")?;
    refused(cluster, &["logged in as hdfs.principal aurora", "clients.keytab"]).await?;
    let replica = cluster.replicas().await?[0];
    cluster.kill_agent(replica).await?;
    uploads_fail_with(cluster, "clients.keytab").await?;
    kdc(cluster)?.forget("aurora")?;
    refused(cluster, &["not found in Kerberos database", "hdfs.principal aurora"]).await?;
    // Somebody puts it right: the same file, other keys in it.
    kdc(cluster)?.keytab("clients.keytab", &["aurora"], TICKETS)?;
    newer_snapshot(cluster).await
}

/// The directory belongs to somebody else.
async fn not_permitted(cluster: &Cluster) -> anyhow::Result<()> {
    let hdfs = cluster.hdfs.as_ref().context("no HDFS")?;
    hdfs.tool(FS_SHELL, &["-chmod", "-R", "0500", "/aurora-redis"]).await?;
    uploads_fail_with(cluster, "Permission denied: user=aurora").await?;
    hdfs.tool(FS_SHELL, &["-chmod", "-R", "0750", "/aurora-redis"]).await?;
    newer_snapshot(cluster).await
}

/// Everything but the store is lost.
async fn comes_back_from_it(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.cli(&["backup"]).await?;
    let epoch = cluster.status().await?.epoch;
    let keys: u64 = redis::cmd("DBSIZE").query_async(&mut cluster.connect_master().await?).await?;
    for task in cluster.tasks().await? {
        cluster.destroy(&task)?;
    }
    cluster.wait_new_master(epoch).await?;
    let found: u64 = redis::cmd("DBSIZE").query_async(&mut cluster.connect_master().await?).await?;
    ensure!(found == keys, "{found} keys came back of {keys}");
    Ok(())
}

fn kdc(cluster: &mut Cluster) -> anyhow::Result<&mut Kdc> {
    cluster.hdfs.as_mut().and_then(|hdfs| hdfs.kdc.as_mut()).context("no KDC")
}

/// What a new process is told: in time, in one line, with these words.
async fn refused(cluster: &Cluster, words: &[&str]) -> anyhow::Result<()> {
    let begun = std::time::Instant::now();
    let output = cluster.cli_output(&["snapshots", "verify"]).await?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    println!("{:?}: {}", begun.elapsed(), said.trim());
    ensure!(!output.status.success() && begun.elapsed() < Duration::from_secs(60), "{:?} after {:?}", output, begun.elapsed());
    ensure!(words.iter().all(|word| said.contains(word)), "no {words:?} in: {said}");
    Ok(())
}

/// An agent says on `/state` why its dumps are not stored, and the status has it.
pub async fn uploads_fail_with(cluster: &Cluster, word: &str) -> anyhow::Result<()> {
    wait::until(&format!("an upload fails with {word}"), HDFS_LIMIT, async || {
        let mut said = Vec::new();
        for instance in [0, 1] {
            said.push(cluster.agent_state(instance).await.map(|state| state.uploads.error));
        }
        let found = said.iter().any(|s| s.as_ref().is_ok_and(|e| e.as_ref().is_some_and(|e| e.contains(word))));
        if found { Ok(()) } else { Err(format!("{said:?}")) }
    })
    .await?;
    cluster.wait_condition("upload-failing", LIMIT).await
}

pub async fn newer_snapshot(cluster: &Cluster) -> anyhow::Result<()> {
    let newest = |rows: &[controller::view::SnapshotRow]| rows.iter().map(|row| row.id.to_string()).max();
    let before = newest(&cluster.snapshots().await?);
    wait::until("a newer snapshot is stored", HDFS_LIMIT, async || {
        let now = newest(&cluster.snapshots().await?);
        if now > before { Ok(()) } else { Err(anyhow::anyhow!("the newest is {now:?}")) }
    })
    .await
}
