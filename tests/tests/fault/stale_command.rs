//! Commands that are not from now or not for this server: refused with 409 and a reason; without a token 401; nothing is done.

use std::time::Duration;

use agent::api::{AnswerKind, Command, Order, Stamp};
use anyhow::{Context, Result, ensure};
use tests::harness::Bench;
use tests::harness::cluster::{Cluster, Options};

const ANSWER: Duration = Duration::from_secs(10);

#[test]
fn an_agent_refuses_what_is_stale_foreign_or_unsigned() {
    Bench::run("stale-command", async |bench| {
        let cluster = Cluster::start(&bench, Options { instances: 2, hosts: 1, ..Options::default() }).await?;
        let before = cluster.status().await?;
        let master = cluster.master().await?;
        let address = cluster.agent_address(master).await?;
        let state = cluster.agent_state(master).await?;
        let (record, version) = cluster.record().await?;
        let good = Stamp {
            cluster_id: record.cluster_id.clone(),
            generation: record.generation.clone(),
            epoch: record.epoch,
            record_version: version,
            task_id: state.task_id.clone(),
            run_id: state.redis.as_ref().map(|r| r.run_id.clone()),
        };
        let wrong = [
            ("epoch", Stamp { epoch: record.epoch - 1, ..good.clone() }),
            ("record version", Stamp { record_version: version - 1, ..good.clone() }),
            ("cluster", Stamp { cluster_id: "another".into(), ..good.clone() }),
            ("generation", Stamp { generation: "another".into(), ..good.clone() }),
            ("task", Stamp { task_id: "another".into(), ..good.clone() }),
            ("run", Stamp { run_id: Some("0".repeat(40)), ..good.clone() }),
        ];
        for (what, stamp) in wrong {
            for order in [Order::Fence, Order::Stop] {
                let command = Command { stamp: stamp.clone(), order };
                let answer = cluster.agents().command(&address, &command, ANSWER).await?;
                ensure!(answer.outcome == AnswerKind::Refused, "another {what}: {answer:?}");
                ensure!(!answer.reason.is_empty() && !answer.message.is_empty(), "no reason for another {what}: {answer:?}");
            }
        }
        for token in [None, Some("wrong")] {
            let body = Command { stamp: good.clone(), order: Order::Stop };
            let status = post(&format!("http://{address}/command/stop"), token, &body).await?;
            ensure!(status == 401, "stop with token {token:?}: {status}");
            let url = format!("{}api/v1/operations", cluster.page()?);
            let status = post(&url, token, &serde_json::json!({"kind": "scale", "owner": "x", "instances": 1})).await?;
            ensure!(status == 401, "scale with token {token:?}: {status}");
        }
        let status = post(&format!("http://{address}/command/stop"), Some(cluster.token()), &"no command").await?;
        ensure!((400..500).contains(&status), "nonsense: {status}");
        let after = cluster.wait_stable().await?;
        ensure!(after.epoch == before.epoch && after.master == before.master, "something was done: {after:?}");
        let now = cluster.agent_state(master).await?.redis.context("no server")?;
        ensure!(Some(&now.run_id) == good.run_id.as_ref(), "the server was restarted");
        Ok(())
    });
}

async fn post(url: &str, token: Option<&str>, body: &impl serde::Serialize) -> Result<u16> {
    let mut request = reqwest::Client::new().post(url).json(body).timeout(ANSWER);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    Ok(request.send().await?.status().as_u16())
}
