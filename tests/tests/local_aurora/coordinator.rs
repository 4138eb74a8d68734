//! Kills that a coordinator has to allow, for an update and for the maintenance of a host.

use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use aurora::types::{
    CoordinatorSlaPolicy, CountSlaPolicy, JobConfiguration, JobUpdateSettings, JobUpdateStatus, MaintenanceMode, ScheduleStatus,
    SlaPolicy,
};
use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::routing::any;
use serde_json::{Value, json};
use tests::harness::{Bench, wait};

use super::SOON;
use super::updates::next;
use super::world::{SERVER, World, daemon, hasty, hosts, job};

/// A request as it came.
#[derive(Clone, Debug)]
struct Asked {
    method: Method,
    task: String,
    has_content_type: bool,
    body: Value,
}

impl Asked {
    fn instance(&self) -> Option<i64> {
        self.body["taskConfig"]["assignedTask"]["instanceId"].as_i64()
    }
}

/// A coordinator that answers what it is told to.
#[derive(Clone)]
struct Coordinator {
    answer: Arc<Mutex<(u16, Value)>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Coordinator {
    /// Starts it; gives its URL too.
    async fn start() -> Result<(Coordinator, String)> {
        let coordinator = Coordinator { answer: Arc::new(Mutex::new((200, json!({"drain": false})))), asked: Arc::default() };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/sla?from=test", listener.local_addr()?);
        let router = Router::new().route("/sla", any(answer)).with_state(coordinator.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok((coordinator, url))
    }

    fn answer(&self, status: u16, body: Value) {
        *self.answer.lock().expect("no panic while locked") = (status, body);
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("no panic while locked").clone()
    }

    /// Forgets what it was asked, and waits for `times` new questions.
    async fn asked_again(&self, times: usize) -> Result<Vec<Asked>> {
        self.asked.lock().expect("no panic while locked").clear();
        wait::until_now("the coordinator is asked", SOON, || {
            let asked = self.asked();
            if asked.len() >= times { Ok(asked) } else { Err(format!("asked {} times", asked.len())) }
        })
        .await
    }
}

async fn answer(
    State(coordinator): State<Coordinator>,
    Query(query): Query<Vec<(String, String)>>,
    method: Method,
    headers: HeaderMap,
    body: String,
) -> (StatusCode, String) {
    let of = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone()).unwrap_or_default();
    let asked = Asked {
        method,
        task: format!("{} {}", of("from"), of("task")),
        has_content_type: headers.contains_key("content-type"),
        body: serde_json::from_str(&body).unwrap_or_default(),
    };
    coordinator.asked.lock().expect("no panic while locked").push(asked);
    let (status, body) = coordinator.answer.lock().expect("no panic while locked").clone();
    (StatusCode::from_u16(status).expect("a status"), body.to_string())
}

fn guarded(instances: i32, url: &str) -> JobConfiguration {
    let mut job = job(instances, daemon(SERVER), hasty());
    job.task_config.tier = Some("preferred".to_owned());
    let policy = CoordinatorSlaPolicy { coordinator_url: url.to_owned(), status_key: "drain".to_owned() };
    job.task_config.sla_policy = Some(SlaPolicy::Coordinator(policy));
    job
}

#[test]
fn an_update_waits_for_the_coordinators_yes() {
    Bench::run("coordinator", update);
}

async fn update(bench: Arc<Bench>) -> Result<()> {
    let world = World::start_with(&bench, &hosts(2), &["--sla-retry", "200ms"]).await?;
    let (coordinator, url) = Coordinator::start().await?;
    let job = guarded(2, &url);
    world.client.create_job(&job).await?;
    let before = world.running(&[0, 1]).await?;
    let settings = JobUpdateSettings { sla_aware: Some(true), ..JobUpdateSettings::one_by_one() };
    let update = world.update(next(&job), 2, settings).await?;
    let first = coordinator.asked_again(1).await?.remove(0);
    ensure!(first.method == Method::POST && first.task == "test local/redis/test/cache/0", "{first:?}");
    ensure!(!first.has_content_type && first.body["task"] == "local/redis/test/cache/0", "{first:?}");
    ensure!(first.body["taskConfig"]["assignedTask"]["taskId"] == before[0].task_id.as_str(), "{first:?}");
    ensure!(first.body["taskConfig"]["status"] == ScheduleStatus::RUNNING.0, "{first:?}");
    ensure!(first.body.get("forceMaintenanceCountdownMs").is_none(), "{first:?}");
    // None of these is a yes.
    let no = [
        (200, json!({"drain": false})),
        (200, json!({"drain": true, "lag": 3})),
        (200, json!({})),
        (503, json!({"drain": true})),
    ];
    for (status, body) in no {
        coordinator.answer(status, body);
        let asked = coordinator.asked_again(2).await?;
        ensure!(asked.iter().all(|asked| asked.instance() == Some(0)), "{asked:?}");
    }
    let still = world.running(&[0, 1]).await?;
    ensure!(still.iter().zip(&before).all(|(still, before)| still.task_id == before.task_id), "{still:?}");
    coordinator.answer(200, json!({"drain": true}));
    let details = world.reaches(&update, JobUpdateStatus::ROLLED_FORWARD).await?;
    let said = details.instance_events.iter().filter(|event| event.message.as_deref() == Some("SLA check passed, continuing."));
    ensure!(said.count() == 2, "{:?}", details.instance_events);
    world.running(&[0, 1]).await?;
    Ok(())
}

#[test]
fn a_host_is_drained_when_the_coordinator_lets_its_task_go() {
    Bench::run("drain", drain);
}

async fn drain(bench: Arc<Bench>) -> Result<()> {
    let world = World::start_with(&bench, &hosts(3), &["--maintenance-poll", "200ms"]).await?;
    let (coordinator, url) = Coordinator::start().await?;
    world.client.create_job(&guarded(2, &url)).await?;
    let before = world.running(&[0, 1]).await?;
    let host = before[0].address.clone().context("address")?;
    let hosts = [host.clone(), "unknown".to_owned()];
    let modes = async || {
        let statuses = world.client.maintenance_status(&hosts).await?;
        ensure!(statuses.len() == 1 && statuses[0].host == host, "{statuses:?}");
        anyhow::Ok(statuses[0].mode)
    };
    ensure!(modes().await? == MaintenanceMode::NONE);
    world.client.start_maintenance(&hosts).await?;
    ensure!(modes().await? == MaintenanceMode::SCHEDULED);
    let drained = world.client.sla_drain_hosts(&hosts, SlaPolicy::Count(CountSlaPolicy::default()), 900).await?;
    ensure!(drained.len() == 1 && drained[0].mode == MaintenanceMode::DRAINING, "{drained:?}");
    for asked in coordinator.asked_again(2).await? {
        let countdown: i64 = asked.body["forceMaintenanceCountdownMs"].as_str().context("a countdown")?.parse()?;
        ensure!(asked.instance() == Some(0) && (1..=900_000).contains(&countdown), "{asked:?}");
    }
    ensure!(world.running(&[0, 1]).await?[0].task_id == before[0].task_id && modes().await? == MaintenanceMode::DRAINING);
    coordinator.answer(200, json!({"drain": true}));
    let moved = world.replaced(&before[0]).await?;
    ensure!(moved.address.as_ref() != Some(&host), "{moved:?}");
    ensure!(modes().await? == MaintenanceMode::DRAINED);
    let ended = world.scheduled(&before[0].task_id).await?;
    ensure!(ended.task_events.iter().any(|event| event.status == ScheduleStatus::DRAINING), "{ended:?}");
    world.client.end_maintenance(&hosts).await?;
    ensure!(modes().await? == MaintenanceMode::NONE);

    // The plain drain asks nobody who could stop it.
    coordinator.answer(200, json!({"drain": false}));
    let host = moved.address.clone().context("address")?;
    world.client.drain_hosts(std::slice::from_ref(&host)).await?;
    let again = world.replaced(&moved).await?;
    ensure!(again.address.as_ref() != Some(&host), "{again:?}");
    Ok(())
}
