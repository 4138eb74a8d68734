//! All controllers dead: no write is refused; a master that dies meanwhile is replaced as soon as one controller is back.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tests::checker::Load;
use tests::harness::cluster::{Cluster, LIMIT, Options};
use tests::harness::{Bench, process};

#[test]
fn writes_go_on_and_the_failover_waits_for_one_of_them() {
    Bench::run("controllers-gone", async |bench| {
        let options = Options { controllers: 2, controller_config: "zookeeper_session = '2s'\n".into(), ..Options::default() };
        let mut cluster = Cluster::start(&bench, options).await?;
        let before = cluster.status().await?;
        let old = before.master.clone().context("no master")?;
        let server = cluster.server_pid(old.instance).await?;
        let writers = cluster.writers("w", &Load { plain: 2, waiting: 1, ..Load::default() }).await?;
        writers.progress(200, LIMIT).await?;
        let mut master = cluster.connect_master().await?;
        cluster.kill_controller(0);
        cluster.kill_controller(1);
        let gone = Instant::now();
        tokio::time::sleep(Duration::from_secs(10)).await;
        let log = writers.stop().await?;
        let verdict = log.verdict(&mut master, gone).await?;
        verdict.one_writer()?.nothing_lost()?.one_server()?.none_refused()?.pause_within(Duration::from_secs(1))?;
        let witnesses = cluster.writers("after", &Load::witnesses()).await?;
        witnesses.progress(200, LIMIT).await?;
        let fault = Instant::now();
        process::send(server, rustix::process::Signal::KILL);
        cluster.wait_gone(server).await?;
        cluster.start_controller(1)?;
        let after = cluster.wait_new_master(before.epoch).await?;
        ensure!(after.master.is_some_and(|m| m.instance != old.instance), "the dead one leads");
        witnesses.progress(200, LIMIT).await?;
        let log = witnesses.stop().await?;
        cluster.wait_stable().await?;
        let verdict = log.verdict(&mut cluster.connect_master().await?, fault).await?;
        verdict.one_writer()?.confirmed_kept()?.lost_only_within(Duration::from_secs(2))?;
        Ok(())
    });
}
