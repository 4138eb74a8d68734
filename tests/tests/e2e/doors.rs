//! How clients find the master: HAProxy with our checks, and the page in a real browser.

use anyhow::{Context, Result, ensure};
use tests::harness::cluster::{Cluster, LIMIT, Options};
use tests::harness::{Bench, browser, redis as server, wait};

#[test]
fn haproxy_follows_the_master_and_the_page_shows_it() {
    Bench::run("doors", async |bench| {
        let cluster = Cluster::start(&bench, Options::default()).await?;
        let balancer = cluster.haproxy().await?;
        let set = async |value: u32| -> Result<()> {
            let mut client = server::connect(&balancer.writes).await?;
            Ok(redis::cmd("SET").arg("k").arg(value).query_async(&mut client).await?)
        };
        wait::until("a write goes through HAProxy", LIMIT, async || set(1).await).await?;
        let before = cluster.status().await?;
        cluster.kill_server(cluster.master().await?).await?;
        let after = cluster.wait_new_master(before.epoch).await?;
        wait::until("a write goes through HAProxy to the new master", LIMIT, async || set(2).await).await?;
        let value: Option<u32> = redis::cmd("GET").arg("k").query_async(&mut cluster.connect_master().await?).await?;
        ensure!(value == Some(2), "the new master has {value:?}");
        let master = after.master.context("no master")?;
        let dom = browser::dom(&bench, &cluster.page()?).await?;
        ensure!(dom.contains(&master.address.to_string()), "the page does not show {}:\n{dom}", master.address);
        let picture = browser::screenshot(&bench, &cluster.page()?).await?;
        ensure!(std::fs::metadata(&picture)?.len() > 10_000, "the picture of the page is empty");
        Ok(())
    });
}
