//! An agent of another cluster in this cluster's serverset: refused, and shown as foreign.

use agent::slots::{Found, Slots};
use anyhow::{Context, bail, ensure};
use rustix::process::Signal;
use tests::harness::cluster::{CLUSTER, Cluster, LIMIT, Options};
use tests::harness::{Bench, process, wait};
use zookeeper_client::{Acls, CreateMode};

#[test]
fn instances_of_another_cluster_are_refused() {
    Bench::run("foreign-cluster", async |bench| {
        let cluster = Cluster::start(&bench, Options { instances: 2, hosts: 1, ..Options::default() }).await?;
        let other_bench = std::sync::Arc::new(Bench::new("foreign-other", 0)?);
        let other = Cluster::start(&other_bench, Options { instances: 1, hosts: 1, ..Options::default() }).await?;
        let foreign = other.task(0).await?;
        let other_id = other.status().await?.cluster_id;
        let member = serde_json::json!({
            "serviceEndpoint": {"host": foreign.address, "port": foreign.ports["redis"]},
            "additionalEndpoints": {"health": {"host": foreign.address, "port": foreign.ports["health"]}},
            "status": "ALIVE",
            "shard": 5,
        });
        let client = cluster.zookeeper.client().await?;
        let path = format!("/aurora/{CLUSTER}/member_0000000999");
        client.create(&path, member.to_string().as_bytes(), &CreateMode::Ephemeral.with_acls(Acls::anyone_all())).await?;
        let seen = async || {
            let status = cluster.status().await?;
            let row =
                status.instances.iter().find(|i| i.task_id.as_deref() == Some(&foreign.task_id)).context("it is not shown")?;
            ensure!(row.state == "foreign", "it is shown as {}", row.state);
            Ok::<_, anyhow::Error>(())
        };
        wait::until("the foreign instance is shown as such", LIMIT, seen).await?;
        let state = other.agent_state(0).await?;
        ensure!(state.cluster_id == other_id && state.serving, "the other cluster was touched: {state:?}");
        let before = cluster.status().await?;
        cluster.kill_server(cluster.master().await?).await?;
        let after = cluster.wait_new_master(before.epoch).await?;
        ensure!(after.master.is_some_and(|m| m.task_id != foreign.task_id), "the foreign instance leads");
        ensure!(other.agent_state(0).await?.serving, "the other cluster does not serve any more");
        Ok(())
    });
}

#[test]
fn an_instance_that_remembers_another_cluster_is_named_and_gets_no_command() {
    Bench::run("foreign-memory", async |bench| {
        let cluster = Cluster::start(&bench, Options { instances: 2, hosts: 1, ..Options::default() }).await?;
        let before = cluster.status().await?;
        let id = before.cluster_id.clone().context("no cluster id")?;
        let task = cluster.task(cluster.replicas().await?[0]).await?;
        let agent = task.pid.context("no agent")?;
        // Stopped first, so that it cannot write its memory again before it dies.
        process::send(agent, Signal::STOP);
        let (mut memory, found) = Slots::open(&task.sandbox.join("agent.memory"))?;
        let Found::Content(json) = found else { bail!("no memory: {found:?}") };
        memory.write(&json.replace(&id, "another-cluster"))?;
        process::send(agent, Signal::KILL);
        cluster.wait_condition("foreign-cluster", LIMIT).await?;
        let after = cluster.status().await?;
        ensure!(after.master == before.master && after.epoch == before.epoch, "the master changed: {:?}", after.master);
        let state = cluster.agent_state(task.instance).await?;
        ensure!(state.redis.is_none() && state.cluster_id.as_deref() == Some("another-cluster"), "it was given work: {state:?}");
        Ok(())
    });
}
