//! Bytes, wrong JSON and 1 MiB in every node that the programs read: nothing panics, nothing is done by it, and the true content heals it.

use std::time::Duration;

use agent::record::Lease;
use anyhow::{Context, Result, anyhow, ensure};
use aurora::serverset::Member;
use controller::view::{ClusterView, HistoryEntry};
use tests::harness::cluster::{CLUSTER, Cluster, LIMIT, Options};
use tests::harness::{Bench, wait};
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

#[test]
fn a_spoilt_lease_node_is_named_and_the_next_renewal_overwrites_it() {
    Bench::run("garbage-in-lease", async |bench| {
        let mut cluster = Cluster::start(&bench, Options { instances: 2, hosts: 1, ..Options::default() }).await?;
        let before = cluster.status().await?;
        let client = cluster.zookeeper.client().await?;
        let (node, writer) = (cluster.paths().lease(), cluster.writer("w"));
        writer.progress(50, LIMIT).await?;
        // An empty node is how it looks before the first renewal.
        for (what, bytes) in garbage().into_iter().filter(|(_, bytes)| !bytes.is_empty()) {
            // The next renewal may be faster than we look: then once more.
            let named = async || {
                client.set_data(&node, &bytes, None).await?;
                let named = |status: &ClusterView| {
                    status.conditions.iter().any(|c| c.reason == "lease-invalid" && c.message.contains(&node))
                };
                let shown = async || if named(&cluster.status().await?) { Ok(()) } else { Err(anyhow!("it does not")) };
                wait::until("the status says lease-invalid", Duration::from_secs(1), shown).await
            };
            wait::until("a spoilt lease is seen", LIMIT, named).await.with_context(|| what.to_owned())?;
            let renewed = async || Ok::<_, anyhow::Error>(serde_json::from_slice::<Lease>(&client.get_data(&node).await?.0)?);
            let lease = wait::until("the lease is renewed over it", LIMIT, renewed).await.with_context(|| what.to_owned())?;
            ensure!(before.master.as_ref().is_some_and(|m| m.task_id == lease.task_id), "{what}: {lease:?}");
            cluster.wait_no_condition("lease-invalid", LIMIT).await?;
            still_there(&mut cluster).await?;
        }
        let status = cluster.wait_stable().await?;
        ensure!(status.master == before.master && status.epoch == before.epoch, "the master changed: {:?}", status.master);
        let log = writer.stop().await?;
        ensure!(log.longest_pause() < Duration::from_secs(2), "writes stopped for {:?}", log.longest_pause());
        Ok(())
    });
}

#[test]
fn a_spoilt_history_entry_is_listed_and_written_again() {
    Bench::run("garbage-in-history", async |bench| {
        let mut cluster = Cluster::start(&bench, Options { instances: 2, hosts: 1, ..Options::default() }).await?;
        let client = cluster.zookeeper.client().await?;
        for (what, bytes) in garbage() {
            let before = cluster.wait_stable().await?;
            cluster.kill_server(cluster.master().await?).await?;
            let directory = cluster.paths().history();
            let epoch =
                spoil_before_completion(&client, &directory, before.epoch, &bytes).await.with_context(|| what.to_owned())?;
            let node = format!("{directory}/{epoch:010}");
            let completed = async || {
                let history = cluster.history().await?;
                let entry = history.into_iter().find(|entry| entry.epoch == epoch).context("no such entry")?;
                ensure!(entry.pause_ms.is_some() && !entry.steps.is_empty(), "{entry:?}");
                let written: HistoryEntry = serde_json::from_slice(&client.get_data(&node).await?.0)?;
                ensure!(written.pause_ms == entry.pause_ms && written.to == entry.to, "{written:?}");
                Ok(())
            };
            wait::until("the entry is complete", LIMIT, completed).await.with_context(|| what.to_owned())?;
            // Spoilt afterwards, it is still known to whoever leads, and the others are there.
            client.set_data(&node, &bytes, None).await?;
            still_there(&mut cluster).await?;
        }
        let epochs: Vec<u64> = cluster.history().await?.iter().map(|entry| entry.epoch).collect();
        ensure!(epochs.len() == garbage().len() + 1, "the history has epochs {epochs:?}");
        let said = cluster.cli(&["history"]).await?;
        ensure!(said.lines().count() > garbage().len(), "{said}");
        Ok(())
    });
}

/// Waits for the history entry of an epoch above `last` (not always the next number: a commit that was refused leaves a gap), puts `bytes`
/// in its place before the controller has completed it, and gives its epoch.
async fn spoil_before_completion(client: &Client, directory: &str, last: u64, bytes: &[u8]) -> Result<u64> {
    let made = async {
        loop {
            let (names, changed) = client.list_and_watch_children(directory).await?;
            match names.iter().filter_map(|name| name.parse().ok()).filter(|epoch| *epoch > last).max() {
                Some(epoch) => break Ok::<u64, zookeeper_client::Error>(epoch),
                None => drop(changed.changed().await),
            }
        }
    };
    let epoch = tokio::time::timeout(LIMIT, made).await.with_context(|| format!("no entry above epoch {last}"))??;
    let node = format!("{directory}/{epoch:010}");
    client.set_data(&node, bytes, Some(0)).await.map(|_| epoch).context("spoiling it: was it completed already?")
}

#[test]
fn a_spoilt_node_of_the_scheduler_is_named_and_nothing_waits_for_it() {
    Bench::run("garbage-in-scheduler", async |bench| {
        let mut cluster = Cluster::start(&bench, Options { instances: 2, hosts: 1, ..Options::default() }).await?;
        let before = cluster.status().await?;
        let client = cluster.zookeeper.client().await?;
        let directory = "/aurora/scheduler";
        let names = client.list_children(directory).await?;
        let node = names.into_iter().find(|name| name.starts_with("member_")).context("the scheduler is not announced")?;
        let node = format!("{directory}/{node}");
        let last = garbage().len() - 1;
        for (i, (what, bytes)) in garbage().into_iter().enumerate() {
            let (content, _) = client.get_data(&node).await?;
            client.set_data(&node, &bytes, None).await?;
            let named = |status: &ClusterView| {
                let condition =
                    status.conditions.iter().find(|c| c.reason == "scheduler-unreachable").context("it is not named")?;
                ensure!(condition.message.contains(&node), "{}", condition.message);
                Ok(())
            };
            cluster.wait_status("scheduler-unreachable names the node", LIMIT, named).await.with_context(|| what.to_owned())?;
            still_there(&mut cluster).await?;
            if i == last {
                cluster.kill_server(cluster.master().await?).await?;
                cluster.wait_new_master(before.epoch).await.context("a failover waits for the scheduler")?;
            }
            client.set_data(&node, &content, None).await?;
            cluster.wait_no_condition("scheduler-unreachable", LIMIT).await?;
        }
        cluster.wait_stable().await.map(drop)
    });
}

#[test]
fn spoilt_doors_are_made_again_and_a_failover_does_not_stumble_over_them() {
    Bench::run("garbage-in-doors", async |bench| {
        let mut cluster = Cluster::start(&bench, Options { instances: 2, hosts: 1, ..Options::default() }).await?;
        let before = cluster.status().await?;
        let client = cluster.zookeeper.client().await?;
        let paths = cluster.paths();
        let anyone = CreateMode::Persistent.with_acls(Acls::anyone_all());
        doors_stand(&cluster, &client).await?;
        for (i, (what, bytes)) in garbage().into_iter().enumerate() {
            client.set_data(&paths.master(), &bytes, None).await?;
            for directory in [paths.master_serverset(), paths.replicas_serverset()] {
                for member in client.list_children(&directory).await? {
                    // A node of an earlier round, or one of ours; it may be gone by now.
                    let _ = client.set_data(&format!("{directory}/{member}"), &bytes, None).await;
                }
                client.create(&format!("{directory}/member_{:010}", i + 900), &bytes, &anyone).await?;
            }
            if i == 1 {
                cluster.kill_server(cluster.master().await?).await?;
                cluster.wait_new_master(before.epoch).await?;
                cluster.wait_stable().await?;
            }
            if i == 2 {
                // Somebody else's node in its place does not go with the master's session.
                client.delete(&paths.master(), None).await?;
                client.create(&paths.master(), &bytes, &anyone).await?;
            }
            doors_stand(&cluster, &client).await.with_context(|| what.to_owned())?;
            still_there(&mut cluster).await?;
        }
        let status = cluster.wait_stable().await?;
        ensure!(status.epoch == before.epoch + 1, "epoch {}", status.epoch);
        Ok(())
    });
}

/// Waits until the original node and the serversets name the master and the replica, and the master's set nobody else.
async fn doors_stand(cluster: &Cluster, client: &Client) -> Result<()> {
    let paths = cluster.paths();
    let members = async |directory: String| -> Result<Vec<Option<String>>> {
        let mut found = Vec::new();
        for name in client.list_children(&directory).await? {
            let (data, _) = client.get_data(&format!("{directory}/{name}")).await?;
            found.push(Member::parse(&data).ok().map(|member| member.service_endpoint.to_string()));
        }
        Ok(found)
    };
    wait::until("the doors name master and replica", LIMIT, async || {
        let status = cluster.status().await?;
        let master = status.master.as_ref().context("no master")?.address.to_string();
        let replica = cluster.replicas().await?.first().copied().context("no replica")?;
        let task = cluster.task(replica).await?;
        let replica = format!("{}:{}", task.address, task.ports["redis"]);
        let (data, stat) = client.get_data(&paths.master()).await?;
        ensure!(data == master.as_bytes() && stat.ephemeral_owner != 0, "{} holds {} bytes", paths.master(), data.len());
        let (masters, replicas) = (members(paths.master_serverset()).await?, members(paths.replicas_serverset()).await?);
        ensure!(masters.iter().flatten().eq([&master]), "masters: {masters:?}");
        ensure!(replicas.iter().flatten().eq([&replica]), "replicas: {replicas:?}");
        Ok(())
    })
    .await
}
