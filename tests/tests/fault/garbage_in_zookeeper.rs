//! Bytes, wrong JSON and 1 MiB in every node that the programs read: nothing panics, nothing is done by it, and the true content heals it.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use controller::view::ClusterView;
use tests::harness::Bench;
use tests::harness::cluster::{CLUSTER, Cluster, LIMIT, Options};
use zookeeper_client::{Acls, Client, CreateMode};

/// What a node can hold that it should not. A little under ZooKeeper's own limit of 1 MiB for a request.
fn garbage() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("nothing", Vec::new()),
        ("bytes", vec![0xff, 0x00, 0xfe, 0x80, b'\n', 0x1b]),
        ("wrong JSON", b"{\"serviceEndpoint\": [1, {}], \"epoch\": \"x\", \"cluster_id\": 7}".to_vec()),
        ("no object", b"[[[[]]]]".to_vec()),
        ("1 MiB", vec![b'x'; (1 << 20) - 1000]),
    ]
}

#[test]
fn no_node_content_breaks_a_program() {
    Bench::run("garbage-in-zookeeper", async |bench| {
        let mut cluster =
            Cluster::start(&bench, Options { instances: 2, hosts: 1, controllers: 2, ..Options::default() }).await?;
        let before = cluster.status().await?;
        let client = cluster.zookeeper.client().await?;
        let (paths, writer) = (cluster.paths(), cluster.writer("w"));
        writer.progress(50, LIMIT).await?;
        let nodes =
            [(paths.record(), "record-invalid"), (paths.spec(), "spec-invalid"), (paths.operation(), "operation-invalid")];
        for (node, reason) in nodes {
            for (what, bytes) in garbage() {
                // An empty operation is how it looks before the first one.
                let reason = Some(reason).filter(|reason| !bytes.is_empty() || *reason != "operation-invalid");
                spoil(&cluster, &client, &node, bytes, reason).await.with_context(|| format!("{what} in {node}"))?;
                still_there(&mut cluster).await.with_context(|| format!("{what} in {node}"))?;
            }
            let status = cluster.wait_stable().await.with_context(|| format!("after {node} got its content back"))?;
            ensure!(
                status.master == before.master && status.epoch == before.epoch,
                "{node}: the master changed: {:?}",
                status.master
            );
        }
        for directory in [paths.controllers(), format!("/aurora/{CLUSTER}"), paths.history()] {
            for (i, (what, bytes)) in garbage().into_iter().enumerate() {
                let name = if directory.starts_with("/aurora/") {
                    format!("member_{:010}", i + 900)
                } else {
                    format!("garbage-{:010}", i + 900_000_000)
                };
                client
                    .create(&format!("{directory}/{name}"), &bytes, &CreateMode::Persistent.with_acls(Acls::anyone_all()))
                    .await
                    .with_context(|| format!("{what} in {directory}"))?;
            }
            still_there(&mut cluster).await.with_context(|| format!("garbage in {directory}"))?;
            if directory.starts_with("/aurora/") {
                let named = |status: &ClusterView| match status.conditions.iter().any(|c| c.reason == "bad-member") {
                    true => Ok(()),
                    false => Err(anyhow!("conditions: {:?}", status.conditions)),
                };
                cluster.wait_status("bad-member names the members", LIMIT, named).await?;
            }
        }
        let status = cluster.wait_stable().await?;
        ensure!(status.master == before.master && status.epoch == before.epoch, "the master changed: {:?}", status.master);
        let log = writer.stop().await?;
        ensure!(log.longest_pause() < Duration::from_secs(2), "writes stopped for {:?}", log.longest_pause());
        Ok(())
    });
}

/// Puts `bytes` into a node until status gives `reason`, and its content back.
async fn spoil(cluster: &Cluster, client: &Client, node: &str, bytes: Vec<u8>, reason: Option<&str>) -> Result<()> {
    let content = match client.get_data(node).await {
        Ok((content, _)) => content,
        Err(e) => return Err(e.into()),
    };
    client.set_data(node, &bytes, None).await?;
    if let Some(reason) = reason {
        let named = |status: &ClusterView| match status.conditions.iter().find(|c| c.reason == reason) {
            Some(condition) if condition.message.contains(node) => Ok(()),
            _ => Err(anyhow!("conditions: {:?}", status.conditions)),
        };
        cluster.wait_status(&format!("{reason} names {node}"), LIMIT, named).await?;
    }
    client.set_data(node, &content, None).await.map(drop).context("putting it back")
}

/// All programs run, and the controllers answer.
async fn still_there(cluster: &mut Cluster) -> Result<()> {
    cluster.check_processes()?;
    cluster.wait_status("the controller answers", LIMIT, |_| Ok(())).await?;
    for task in cluster.tasks().await? {
        cluster.agent_state(task.instance).await?;
    }
    Ok(())
}
