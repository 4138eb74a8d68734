//! The scheduler, polled: which tasks the job has, and whether an update locks it. Its word is a hint about life and death, never evidence.

use std::sync::Arc;
use std::time::{Duration, Instant};

use agent::causes::chain;
use aurora::Client;
use aurora::types::{JobKey, JobUpdateQuery, ScheduledTask, TaskQuery};
use tokio::sync::watch;

use super::Polled;
use crate::model::{SchedulerView, TaskView};

/// Time between two polls.
const EVERY: Duration = Duration::from_secs(2);

/// Polls for as long as somebody listens. `start` is the zero of [`SchedulerView::asked`].
pub fn poll(client: Arc<Client>, job: JobKey, start: Instant) -> watch::Receiver<Polled<SchedulerView>> {
    let (tx, rx) = watch::channel(Polled::default());
    tokio::spawn(async move {
        while !tx.is_closed() {
            let asked = start.elapsed();
            let answer = ask(&client, &job, asked).await;
            tx.send_modify(|polled| match answer {
                Ok(view) => *polled = Polled { view, problem: None },
                Err(error) => polled.problem = Some(chain(&error)),
            });
            tokio::time::sleep(EVERY).await;
        }
    });
    rx
}

async fn ask(client: &Client, job: &JobKey, asked: Duration) -> Result<SchedulerView, aurora::Error> {
    let tasks = client.tasks(&TaskQuery::active(job)).await?;
    let updates = client.job_updates(&JobUpdateQuery::active(job)).await?;
    Ok(SchedulerView { tasks: Some(tasks.iter().map(view).collect()), asked, updating: !updates.is_empty() })
}

fn view(task: &ScheduledTask) -> TaskView {
    TaskView {
        instance: u32::try_from(task.assigned_task.instance_id).unwrap_or_default(),
        task_id: task.assigned_task.task_id.clone(),
        status: task.status.to_string(),
        host: task.assigned_task.slave_host.clone().unwrap_or_default(),
    }
}
