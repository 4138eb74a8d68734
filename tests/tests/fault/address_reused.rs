//! The dead master's ip:port is taken by another server within milliseconds: an empty one, one of another cluster. While nobody is there to cut the
//! replicas off from that address, they must not take its data for their master's.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use tests::checker::Load;
use tests::harness::cluster::{Cluster, LIMIT, Options};
use tests::harness::process::Process;
use tests::harness::redis::{Server, connect};
use tests::harness::{Bench, Host, wait};

/// How long a server may take to answer or to give up.
const ANSWER: Duration = Duration::from_secs(8);

/// A server with nothing but one foreign key at `address`, as soon as the port is free.
async fn squat(bench: &Bench, host: &Host, address: &str) -> Result<Process> {
    let (ip, port) = address.rsplit_once(':').context("an address")?;
    wait::until("the port is taken again", LIMIT, async || {
        let mut command = bench.command(host, Server::Debian.path()?);
        command.args(["--port", port, "--bind", ip, "--protected-mode", "no", "--save", "", "--repl-diskless-sync-delay", "0"]);
        command.arg("--dir").arg(bench.subdir("squatter")?);
        let process = bench.start("squatter", command)?;
        // It is ours, or it ends because somebody else has the port: either may take longer than the first look.
        let mut connection = wait::until("it answers", ANSWER, async || {
            if let Some(status) = process.exited() {
                return Ok(Err(anyhow!("somebody else has it: it ended with {status:?}")));
            }
            let connection = connect(address).await?;
            anyhow::Ok(Ok(connection))
        })
        .await??;
        ensure!(process.exited().is_none(), "somebody else has it");
        redis::cmd("SET").arg("foreign").arg(1).query_async::<()>(&mut connection).await?;
        Ok(process)
    })
    .await
}

#[test]
fn replicas_do_not_take_the_data_of_a_foreign_server_for_their_masters() {
    Bench::run("address-reused", async |bench| {
        let cluster = Cluster::start(&bench, Options { instances: 3, hosts: 3, ..Options::default() }).await?;
        let before = cluster.status().await?;
        let old = before.master.clone().context("no master")?;
        let host = cluster.host_of(old.instance).await?;
        let writer = cluster.writers("w", &Load { plain: 1, waiting: 1, ..Load::default() }).await?;
        writer.progress(300, LIMIT).await?;
        let log = writer.stop().await?;
        let fault = Instant::now();
        // Nobody who could cut them off: the controller is stopped.
        let frozen = cluster.freeze_controller(0)?;
        cluster.kill_server(old.instance).await?;
        let squatter = squat(&bench, &host, &old.address.to_string()).await?;
        let replicas: Vec<u32> = before.instances.iter().map(|i| i.instance).filter(|i| *i != old.instance).collect();
        wait::holds("the replicas keep what they have", Duration::from_secs(5), async || {
            for replica in &replicas {
                let mut connection = cluster.connect(*replica).await?;
                let info: String = redis::cmd("INFO").arg("keyspace").query_async(&mut connection).await?;
                let foreign: Option<u32> = redis::cmd("GET").arg("foreign").query_async(&mut connection).await?;
                ensure!(foreign.is_none() && info.contains("keys="), "instance {replica} has taken the foreign data: {info}");
            }
            anyhow::Ok(())
        })
        .await?;
        drop(frozen);
        cluster.wait_new_master(before.epoch).await?;
        drop(squatter);
        cluster.wait_stable().await?;
        let verdict = log.verdict(&mut cluster.connect_master().await?, fault).await?;
        verdict.one_writer()?.nothing_lost()?;
        Ok(())
    });
}
