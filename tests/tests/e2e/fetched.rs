//! Agents that fetch their redis-server from a store, held to its checksum.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tests::harness::Bench;
use tests::harness::cluster::{Cluster, LIMIT, Options};
use tests::harness::redis::Server;

/// A copy of the server program in a store of its own, and its SHA-256 as another program computes it.
fn stored(bench: &Bench) -> Result<(PathBuf, String)> {
    let program = bench.subdir("programs")?.join("redis-server");
    std::fs::copy(Server::Debian.path()?, &program)?;
    let said = Command::new("sha256sum").arg(&program).output().context("sha256sum")?;
    let sum = String::from_utf8(said.stdout)?.split(' ').next().unwrap_or_default().to_owned();
    ensure!(sum.len() == 64, "sha256sum says '{sum}'");
    Ok((program, sum))
}

fn options(program: &Path, sha256: &str) -> Options {
    let cluster_config = format!("redis.server_uri = 'file://{}'\nredis.server_sha256 = '{sha256}'", program.display());
    Options { instances: 2, hosts: 1, cluster_config, ..Options::default() }
}

#[test]
fn servers_run_from_the_program_that_was_fetched() {
    Bench::run("fetched", async |bench| {
        let (program, sum) = stored(&bench)?;
        let cluster = Cluster::start(&bench, options(&program, &sum)).await?;
        for task in cluster.tasks().await? {
            let pid = cluster.server_pid(task.instance).await?;
            let runs = std::fs::read_link(format!("/proc/{pid}/exe"))?;
            ensure!(runs.starts_with(task.sandbox.join("bin")), "instance {} runs {}", task.instance, runs.display());
        }
        Ok(())
    });
}

#[test]
fn a_program_with_another_checksum_is_named_and_never_runs() {
    Bench::run("fetched-wrong", async |bench| {
        let (program, sum) = stored(&bench)?;
        // As when somebody replaces the program in the store.
        let bytes = std::fs::read(&program)?;
        std::fs::write(&program, [&bytes[..], b"#"].concat())?;
        let cluster = Cluster::start_parts(&bench, options(&program, &sum)).await?;
        cluster.create().await?;
        let named = |instance: u32| format!("instance {instance}: ");
        cluster
            .wait_status("both instances name the program and its checksum", LIMIT, |status| {
                for instance in [0, 1] {
                    let problem =
                        status.conditions.iter().find(|c| c.reason == "agent-problem" && c.message.starts_with(&named(instance)));
                    let message = &problem.with_context(|| format!("instance {instance} names none"))?.message;
                    ensure!(message.contains("programs/redis-server") && message.contains(&sum), "{message}");
                }
                ensure!(status.master.is_none(), "{:?} leads", status.master);
                Ok(())
            })
            .await?;
        let said = cluster.cli(&["status"]).await?;
        ensure!(said.contains(&sum), "status does not say it:\n{said}");
        for task in cluster.tasks().await? {
            ensure!(cluster.agent_state(task.instance).await?.redis.is_none(), "instance {} has a server", task.instance);
            let programs = std::fs::read_dir(task.sandbox.join("bin"))?.count();
            ensure!(programs == 0, "{programs} files are left in the directory for programs");
        }
        // The right program heals it.
        std::fs::write(&program, bytes)?;
        cluster.wait_stable().await.map(drop)
    });
}
