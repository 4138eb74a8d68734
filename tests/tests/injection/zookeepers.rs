//! ZooKeeper, hung, dead, and without a quorum.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::harness::cluster::LIMIT;
use tests::harness::zookeeper::{Version, ZooKeeper};
use tests::harness::{Bench, wait};

/// Longest wait for an answer of a server that is well.
const SOON: Duration = Duration::from_secs(2);

/// Whether the ensemble answers a question that its quorum has to answer.
async fn answers(client: &zookeeper_client::Client) -> bool {
    let asked = async {
        client.sync("/").await?;
        client.list_children("/").await
    };
    tokio::time::timeout(SOON, asked).await.is_ok_and(|answer| answer.is_ok())
}

/// Waits until a new session answers.
async fn again(zookeeper: &ZooKeeper) -> Result<zookeeper_client::Client> {
    wait::until("ZooKeeper answers", LIMIT, async || {
        let client = tokio::time::timeout(SOON, zookeeper.client()).await??;
        ensure!(answers(&client).await, "it does not");
        anyhow::Ok(client)
    })
    .await
}

#[test]
fn hung_and_dead_servers_do_not_answer_and_come_back() {
    Bench::run("injection-zookeeper", async |bench| {
        let mut zookeeper = ZooKeeper::single(&bench).await?;
        let client = again(&zookeeper).await?;
        zookeeper.freeze(0);
        ensure!(!answers(&client).await, "a hung server answers");
        zookeeper.thaw(0);
        let client = again(&zookeeper).await?;
        zookeeper.kill(0);
        ensure!(!answers(&client).await, "a dead server answers");
        zookeeper.restart(0).await?;
        again(&zookeeper).await?;
        Ok(())
    });
}

#[test]
fn two_of_three_are_a_quorum_and_one_is_not() {
    Bench::run("injection-quorum", async |bench| {
        let here = bench.here();
        let mut zookeeper = ZooKeeper::start(&bench, &[here.clone(), here.clone(), here], Version::Debian).await?;
        let leader = zookeeper.leader().await?;
        zookeeper.kill(leader);
        again(&zookeeper).await?;
        let second = zookeeper.leader().await?;
        zookeeper.kill(second);
        let lost = async || {
            let client = tokio::time::timeout(SOON, zookeeper.client()).await;
            let Ok(Ok(client)) = client else { return Ok(()) };
            ensure!(!answers(&client).await, "one of three answers");
            anyhow::Ok(())
        };
        wait::until("the last one has noticed", LIMIT, lost).await?;
        lost().await?;
        zookeeper.launch(second)?;
        again(&zookeeper).await?;
        Ok(())
    });
}
