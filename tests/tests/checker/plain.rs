//! Without any cluster: plain servers, promoted well and badly by hand.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rustix::process::Signal;
use tests::checker::{Door, Plan, Writers};
use tests::harness::Bench;
use tests::harness::redis::Plain;

const LIMIT: Duration = Duration::from_secs(30);

/// Three servers, the last two follow the first.
async fn trio(bench: &Arc<Bench>) -> Result<[Plain; 3]> {
    let here = bench.here();
    let servers =
        [Plain::start(bench, "a", &here).await?, Plain::start(bench, "b", &here).await?, Plain::start(bench, "c", &here).await?];
    servers[1].follow(&servers[0]).await?;
    servers[2].follow(&servers[0]).await?;
    Ok(servers)
}

/// One writer at each server, and one that goes from one to the next, waiting for one replica.
fn writers(servers: &[Plain]) -> Writers {
    let addresses: Vec<String> = servers.iter().map(|s| s.address.clone()).collect();
    let mut writers: Vec<(Door, u32)> = addresses.iter().map(|a| (Door::Fixed(vec![a.clone()]), 0)).collect();
    writers.push((Door::Fixed(addresses), 1));
    Writers::start(Plan { name: "w".into(), writers, rate: Some(500), answer: Duration::from_secs(1), host: None })
}

#[test]
fn a_clean_switchover_is_acquitted() {
    Bench::run("checker-clean", async |bench| {
        let servers = trio(&bench).await?;
        let writers = writers(&servers);
        writers.progress(300, LIMIT).await?;
        let fault = Instant::now();
        let mut old = servers[0].connect().await?;
        redis::cmd("CLIENT").arg("PAUSE").arg(5000).arg("WRITE").query_async::<()>(&mut old).await?;
        let confirmed: u32 = redis::cmd("WAIT").arg(2).arg(3000).query_async(&mut old).await?;
        ensure!(confirmed == 2, "{confirmed} replicas are equal");
        // A dead port: it writes no more from here, whatever clients it has.
        redis::cmd("REPLICAOF").arg("127.0.0.1").arg(1).query_async::<()>(&mut old).await?;
        servers[1].promote().await?;
        servers[2].follow(&servers[1]).await?;
        writers.progress(300, LIMIT).await?;
        let log = writers.stop().await?;
        let verdict = log.verdict(&mut servers[1].connect().await?, fault).await?;
        verdict.one_writer()?.nothing_lost()?.confirmed_kept()?;
        ensure!(verdict.reigns.len() == 2 && verdict.first_by_successor.is_some(), "nobody changed\n{verdict}");
        ensure!(verdict.confirmed > 0, "nothing was confirmed\n{verdict}");
        Ok(())
    });
}

#[test]
fn two_masters_at_once_are_found_out() {
    Bench::run("checker-two-masters", async |bench| {
        let servers = trio(&bench).await?;
        let writers = writers(&servers);
        writers.progress(300, LIMIT).await?;
        let fault = Instant::now();
        servers[1].promote().await?;
        writers.progress(300, LIMIT).await?;
        let log = writers.stop().await?;
        let verdict = log.verdict(&mut servers[1].connect().await?, fault).await?;
        ensure!(verdict.one_writer().is_err() && !verdict.overlapping.is_empty(), "not found out\n{verdict}");
        ensure!(verdict.nothing_lost().is_err(), "what the old one wrote is not missed\n{verdict}");
        Ok(())
    });
}

#[test]
fn a_stale_replica_that_is_promoted_is_found_out() {
    Bench::run("checker-stale", async |bench| {
        let servers = trio(&bench).await?;
        let writers = writers(&servers);
        writers.progress(100, LIMIT).await?;
        // What is confirmed from here on, the other replica alone confirms.
        redis::cmd("REPLICAOF").arg("127.0.0.1").arg(1).query_async::<()>(&mut servers[2].connect().await?).await?;
        writers.progress(300, LIMIT).await?;
        let fault = Instant::now();
        servers[0].process.kill();
        servers[1].process.signal(Signal::STOP);
        servers[2].promote().await?;
        writers.progress(100, LIMIT).await?;
        let log = writers.stop().await?;
        let verdict = log.verdict(&mut servers[2].connect().await?, fault).await?;
        ensure!(verdict.nothing_lost().is_err() && verdict.confirmed_kept().is_err(), "not found out\n{verdict}");
        ensure!(verdict.overlapping.is_empty(), "the dead one is accused of too much\n{verdict}");
        Ok(())
    });
}

#[test]
fn a_master_that_sleeps_and_wakes_beside_its_successor_is_found_out() {
    Bench::run("checker-sleeper", async |bench| {
        let servers = trio(&bench).await?;
        let writers = writers(&servers);
        writers.progress(100, LIMIT).await?;
        let fault = Instant::now();
        servers[0].process.signal(Signal::STOP);
        servers[1].promote().await?;
        writers.progress(100, LIMIT).await?;
        servers[0].process.signal(Signal::CONT);
        writers.progress_at(&servers[0].address, 20, LIMIT).await?;
        let log = writers.stop().await?;
        let verdict = log.verdict(&mut servers[1].connect().await?, fault).await?;
        ensure!(verdict.one_writer().is_err(), "not found out\n{verdict}");
        Ok(())
    });
}
