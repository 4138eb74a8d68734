//! Job updates of running tasks: pulses, failures, pauses and aborts.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use aurora::client::Started;
use aurora::error::Error;
use aurora::types::{
    InstanceSet, JobConfiguration, JobUpdateAction, JobUpdateDetails, JobUpdateKey, JobUpdatePulseStatus, JobUpdateQuery,
    JobUpdateRequest, JobUpdateSettings, JobUpdateStatus, Metadata, ResponseCode, TaskConfig,
};
use serde_json::json;
use tests::harness::{Bench, wait};

use super::SOON;
use super::world::{LocalTask, SERVER, World, daemon, hasty, hosts, job, key};

/// The job's next version: the same with a label.
pub fn next(job: &JobConfiguration) -> TaskConfig {
    let label = Metadata { key: "version".to_owned(), value: "2".to_owned() };
    TaskConfig { metadata: Some(vec![label]), ..job.task_config.clone() }
}

impl World {
    /// Starts an update of the job.
    pub async fn update(
        &self,
        task_config: TaskConfig,
        instance_count: i32,
        settings: JobUpdateSettings,
    ) -> Result<JobUpdateKey> {
        let request = JobUpdateRequest { task_config, instance_count, settings, metadata: None };
        match self.client.start_job_update(&request, "v2").await? {
            Started::Update(key) => Ok(key),
            Started::Unchanged => Err(anyhow!("nothing to update")),
        }
    }

    pub async fn details(&self, update: &JobUpdateKey) -> Result<JobUpdateDetails> {
        let query = JobUpdateQuery { key: Some(update.clone()), ..JobUpdateQuery::default() };
        self.client.job_update_details(&query).await?.pop().context("no such update")
    }

    /// Waits until the update has this status; an end that is another one is a failure at once.
    pub async fn reaches(&self, update: &JobUpdateKey, status: JobUpdateStatus) -> Result<JobUpdateDetails> {
        let details = wait::until("the update gets on", SOON, async || {
            let details = self.details(update).await?;
            let now = status_of(&details)?;
            ensure!(now == status || !now.is_active(), "it is {now}");
            anyhow::Ok(details)
        })
        .await?;
        ensure!(status_of(&details)? == status, "{:?}", details.update_events);
        Ok(details)
    }

    /// Waits until the update has done this with the instance.
    async fn has(&self, update: &JobUpdateKey, instance: i32, action: JobUpdateAction) -> Result<()> {
        wait::until("the update has come to the instance", SOON, async || {
            let details = self.details(update).await?;
            ensure!(count(&details, action, Some(instance)) > 0, "{:?}", details.instance_events);
            anyhow::Ok(())
        })
        .await
    }
}

fn status_of(details: &JobUpdateDetails) -> Result<JobUpdateStatus> {
    Ok(details.update.summary.state.as_ref().context("no state")?.status)
}

fn count(details: &JobUpdateDetails, action: JobUpdateAction, instance: Option<i32>) -> usize {
    let events = details.instance_events.iter();
    events.filter(|event| event.action == action && instance.is_none_or(|instance| event.instance_id == instance)).count()
}

fn ids(tasks: &[LocalTask]) -> Vec<&str> {
    tasks.iter().map(|task| task.task_id.as_str()).collect()
}

#[test]
fn an_update_stops_without_pulses_and_goes_on_when_they_come_back() {
    Bench::run("pulses", pulses);
}

async fn pulses(bench: Arc<Bench>) -> Result<()> {
    let world = World::start(&bench, &hosts(4)).await?;
    let job = job(4, daemon(SERVER), hasty());
    world.client.create_job(&job).await?;
    let before = world.running(&[0, 1, 2, 3]).await?;
    let settings = JobUpdateSettings {
        block_if_no_pulses_after_ms: Some(500),
        min_wait_in_instance_running_ms: 500,
        ..JobUpdateSettings::one_by_one()
    };
    let update = world.update(next(&job), 4, settings).await?;
    let waiting = JobUpdateStatus::ROLL_FORWARD_AWAITING_PULSE;
    wait::holds("nothing moves before the first pulse", Duration::from_secs(1), async || {
        let details = world.details(&update).await?;
        ensure!(status_of(&details)? == waiting && details.instance_events.is_empty(), "{details:?}");
        ensure!(ids(&world.running(&[0, 1, 2, 3]).await?) == ids(&before));
        anyhow::Ok(())
    })
    .await?;

    pulse_until(&world, &update, async |details| count(details, JobUpdateAction::INSTANCE_UPDATED, Some(0)) == 1).await?;
    // Each of the three others takes longer than the pulse is good for.
    let stopped = world.reaches(&update, waiting).await?;
    let last = stopped.update_events.last().and_then(|event| event.message.as_deref());
    ensure!(last == Some("Pulses from external service have timed out."), "{:?}", stopped.update_events);
    wait::holds("it stands still", Duration::from_secs(2), async || {
        let details = world.details(&update).await?;
        ensure!(details.update_events == stopped.update_events && details.instance_events == stopped.instance_events);
        anyhow::Ok(())
    })
    .await?;
    ensure!(world.local_tasks().await?.iter().any(|task| task.task_id == before[3].task_id), "instance 3 was not its turn");

    pulse_until(&world, &update, async |details| !status_of(details).is_ok_and(JobUpdateStatus::is_active)).await?;
    world.reaches(&update, JobUpdateStatus::ROLLED_FORWARD).await?;
    let after = world.running(&[0, 1, 2, 3]).await?;
    ensure!(after.iter().zip(&before).all(|(after, before)| after.task_id != before.task_id), "{after:?}");
    ensure!(world.client.pulse_job_update(&update).await? == JobUpdatePulseStatus::FINISHED);
    Ok(())
}

/// Pulses until the update is as wanted.
async fn pulse_until(world: &World, update: &JobUpdateKey, wanted: impl AsyncFn(&JobUpdateDetails) -> bool) -> Result<()> {
    wait::until("the pulsed update has got there", SOON, async || {
        world.client.pulse_job_update(update).await?;
        let details = world.details(update).await?;
        ensure!(wanted(&details).await, "{:?}", details.instance_events);
        anyhow::Ok(())
    })
    .await
}

#[test]
fn an_update_that_fails_rolls_back() {
    Bench::run("rollback", rollback);
}

async fn rollback(bench: Arc<Bench>) -> Result<()> {
    let world = World::start(&bench, &hosts(2)).await?;
    let good = job(2, daemon(SERVER), hasty());
    world.client.create_job(&good).await?;
    let before = world.running(&[0, 1]).await?;
    let bad = job(2, json!([{"name": "main", "cmdline": "exit 1", "max_failures": 1}]), hasty());
    let update = world.update(bad.task_config, 2, JobUpdateSettings::one_by_one()).await?;
    let details = world.reaches(&update, JobUpdateStatus::ROLLED_BACK).await?;
    let statuses: Vec<i32> = details.update_events.iter().map(|event| event.status.0).collect();
    ensure!(statuses == [0, 1, 5], "{statuses:?}");
    ensure!(details.update_events[1].message.as_deref() == Some("Latest failure: instance 0 exited."), "{details:?}");
    ensure!(count(&details, JobUpdateAction::INSTANCE_ROLLED_BACK, Some(0)) == 1, "{:?}", details.instance_events);
    let after = world.running(&[0, 1]).await?;
    ensure!(after[0].task_id != before[0].task_id && after[1].task_id == before[1].task_id, "{after:?}");
    ensure!(after[0].file("calls")?.contains("GET /health"), "it runs the old program again");
    Ok(())
}

/// A server that ends on SIGTERM as soon as there is a file.
fn stubborn(gate: &Path) -> String {
    let trap = format!("until test -e {}; do sleep 0.05; done; kill $server; exit 0", gate.display());
    format!("trap '{trap}' TERM; ({SERVER}) & server=$!; wait")
}

#[test]
fn a_paused_update_locks_its_job_and_an_aborted_one_is_healed_by_the_next() {
    Bench::run("pause", pause);
}

async fn pause(bench: Arc<Bench>) -> Result<()> {
    let world = World::start(&bench, &hosts(3)).await?;
    let gate = bench.dir().join("may-end");
    let job = job(3, daemon(&stubborn(&gate)), hasty());
    world.client.create_job(&job).await?;
    let before = world.running(&[0, 1, 2]).await?;
    let update = world.update(next(&job), 3, JobUpdateSettings::one_by_one()).await?;
    world.client.pause_job_update(&update, "hold").await?;
    world.reaches(&update, JobUpdateStatus::ROLL_FORWARD_PAUSED).await?;
    // Killed before the pause, ended after it, and not started again before the end of it.
    std::fs::write(&gate, "")?;
    world.ended(&before[0].task_id).await?;
    wait::holds("instance 0 stays away", Duration::from_secs(1), async || {
        let tasks = world.local_tasks().await?;
        ensure!(tasks.iter().all(|task| task.instance != 0), "{tasks:?}");
        anyhow::Ok(())
    })
    .await?;
    let one = InstanceSet::one(1).context("one")?;
    let locked = [
        world.client.kill_tasks(&key(), &one, "").await,
        world.client.restart_shards(&key(), &one).await,
        world.client.add_instances(&key(), 1, 1).await,
        world.client.create_job(&job).await,
    ];
    for answer in locked {
        let code = answer.as_ref().err().and_then(Error::response_code);
        ensure!(code == Some(ResponseCode::JOB_UPDATING_ERROR), "{answer:?}");
    }
    let other = world.update(next(&job), 3, JobUpdateSettings::one_by_one()).await;
    let in_the_way = other.as_ref().err().and_then(|error| error.downcast_ref::<Error>());
    ensure!(matches!(in_the_way, Some(Error::UpdateActive { update: active, .. }) if active.key == update), "{other:?}");

    world.client.resume_job_update(&update, "go").await?;
    world.has(&update, 0, JobUpdateAction::INSTANCE_UPDATED).await?;
    world.client.abort_job_update(&update, "enough").await?;
    let aborted = world.reaches(&update, JobUpdateStatus::ABORTED).await?;
    ensure!(aborted.update_events.last().and_then(|event| event.message.as_deref()) == Some("enough"), "{aborted:?}");
    let request = |task_config| JobUpdateRequest {
        task_config,
        instance_count: 3,
        settings: JobUpdateSettings::one_by_one(),
        metadata: None,
    };
    let diff = world.client.job_update_diff(&request(next(&job))).await?;
    ensure!(!diff.unchanged.is_empty() && diff.remove.is_empty(), "{diff:?}");
    // Whatever the abort left missing or old comes into line.
    let healing = world.update(next(&job), 3, JobUpdateSettings::one_by_one()).await?;
    world.reaches(&healing, JobUpdateStatus::ROLLED_FORWARD).await?;
    world.running(&[0, 1, 2]).await?;
    ensure!(world.client.start_job_update(&request(next(&job)), "").await? == Started::Unchanged);
    let all = world.client.job_updates(&JobUpdateQuery { job_key: Some(key()), ..JobUpdateQuery::default() }).await?;
    ensure!(all.iter().map(|summary| &summary.key).eq([&healing, &update]), "{all:?}");
    Ok(())
}
