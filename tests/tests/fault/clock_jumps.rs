//! Wall clocks jump, by hours, forward and back, on the master's host, on a replica's, on all: nothing happens, and a failover works as ever.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tests::checker::Load;
use tests::harness::cluster::{Cluster, LIMIT, Options};
use tests::harness::{Bench, Clock, Host};

#[test]
fn jumps_change_nothing_and_a_failover_works_among_them() {
    Bench::run("clock-jumps", async |bench| {
        let cluster = Cluster::start(&bench, Options { clocks: true, ..Options::default() }).await?;
        let before = cluster.status().await?;
        let old = before.master.clone().context("no master")?;
        let replica = cluster.replicas().await?[0];
        let masters = cluster.host_of(old.instance).await?;
        let replicas = cluster.host_of(replica).await?;
        let writers = cluster.writers("w", &Load::witnesses()).await?;
        writers.progress(300, LIMIT).await?;
        let fault = Instant::now();
        let jump = async |hosts: &[&Host], offset: &str| {
            hosts.iter().filter_map(|host| host.clock.as_ref()).try_for_each(|clock| clock.jump(offset))?;
            tokio::time::sleep(Clock::NOTICED + Duration::from_secs(1)).await;
            writers.progress(100, LIMIT).await
        };
        jump(&[&masters], "+7200").await?;
        jump(&[&masters, &replicas], "-7200").await?;
        let all: Vec<&Host> = cluster.hosts().iter().collect();
        jump(&all, "+86400").await?;
        let status = cluster.wait_stable().await?;
        ensure!(status.epoch == before.epoch && status.master == before.master, "the master changed: {:?}", status.master);
        cluster.kill_server(old.instance).await?;
        jump(&all, "-3600").await?;
        let after = cluster.wait_new_master(before.epoch).await?;
        ensure!(after.master.is_some_and(|m| m.instance != old.instance), "the dead one leads");
        jump(&all, "+0").await?;
        cluster.wait_stable().await?;
        writers.progress(100, LIMIT).await?;
        let log = writers.stop().await?;
        let verdict = log.verdict(&mut cluster.connect_master().await?, fault).await?;
        verdict.one_writer()?.confirmed_kept()?;
        Ok(())
    });
}
