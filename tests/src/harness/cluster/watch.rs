//! What a cluster says of itself: its controllers, its agents, its scheduler and its nodes in ZooKeeper.

use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use agent::api::{Address, State};
use agent::record::Record;
use anyhow::{Context, Result, bail, ensure};
use controller::view::{ClusterView, Event, HistoryEntry, MasterView, PlanView, SnapshotRow};
use serde::de::DeserializeOwned;

use super::{CLUSTER, Cluster, Controller, LIMIT};
use crate::harness::local_aurora::Task;
use crate::harness::redis;

/// The longest wait for one controller, where another may answer.
const ANSWER: Duration = Duration::from_secs(4);

impl Cluster {
    /// `GET path` of the first controller that answers.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let mut problems = Vec::new();
        for controller in self.controllers.iter().filter(|c| c.process.is_some()) {
            // One that hangs must not keep the next from being asked.
            match tokio::time::timeout(ANSWER, self.get_from(controller, path)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(e)) => problems.push(format!("{e:#}")),
                Err(_) => problems.push(format!("no answer from {} within {} s", self.url_of(controller), ANSWER.as_secs())),
            }
        }
        bail!("no controller answers {path}: {}", problems.join("; "))
    }

    pub(super) async fn get_from<T: DeserializeOwned>(&self, controller: &Controller, path: &str) -> Result<T> {
        let url = format!("{}{path}", self.url_of(controller));
        let response = self.http.get(&url).send().await.with_context(|| url.clone())?;
        let status = response.status();
        let body = response.text().await?;
        ensure!(status.is_success(), "{url}: {status}: {body}");
        serde_json::from_str(&body).with_context(|| format!("answer of {url}: {body}"))
    }

    pub(super) fn url_of(&self, controller: &Controller) -> String {
        format!("http://{}:{}", self.bench.here().address, controller.port.number())
    }

    /// URL of the first running controller's page.
    pub fn page(&self) -> Result<String> {
        let running = self.controllers.iter().find(|c| c.process.is_some()).context("no controller runs")?;
        Ok(self.url_of(running) + "/")
    }

    /// `/api/v1/cluster`.
    pub async fn status(&self) -> Result<ClusterView> {
        self.get("/api/v1/cluster").await
    }

    /// `/api/v1/plan`.
    pub async fn plan(&self) -> Result<PlanView> {
        self.get("/api/v1/plan").await
    }

    /// `/api/v1/history`, newest first.
    pub async fn history(&self) -> Result<Vec<HistoryEntry>> {
        self.get("/api/v1/history").await
    }

    /// `/api/v1/events`.
    pub async fn events(&self) -> Result<Vec<Event>> {
        self.get("/api/v1/events").await
    }

    /// `/api/v1/snapshots`, best first.
    pub async fn snapshots(&self) -> Result<Vec<SnapshotRow>> {
        self.get("/api/v1/snapshots").await
    }

    /// Prints what the controllers think, for the reader of a failure.
    pub async fn explain(&self) {
        match self.status().await {
            Ok(status) => {
                println!("status: {}", status.summary);
                status.conditions.iter().for_each(|c| println!("  {}: {}", c.reason, c.message));
                status.instances.iter().for_each(|i| println!("  {i:?}"));
            }
            Err(e) => println!("status: {e:#}"),
        }
        for task in self.tasks().await.into_iter().flatten() {
            match self.agent_state(task.instance).await {
                Ok(state) => println!("agent {}: {}", task.instance, serde_json::to_string(&state).unwrap_or_default()),
                Err(e) => println!("agent {}: {e:#}", task.instance),
            }
        }
        if let Ok((record, version)) = self.record().await {
            println!("record, version {version}: {}", serde_json::to_string(&record).unwrap_or_default());
        }
        if let Ok(plan) = self.plan().await {
            println!("plan: {plan:#?}");
        }
        for event in self.events().await.into_iter().flatten().rev().take(30) {
            println!("  {} epoch {} {}: {}", event.at_ms, event.epoch, event.kind, event.message);
        }
    }

    /// The master, as soon as the controllers name one: a new leader knows none before it has heard the agents.
    async fn named_master(&self) -> Result<MasterView> {
        self.wait_status("a master is named", LIMIT, |status| status.master.clone().context("there is none")).await
    }

    /// The serving master's instance number.
    pub async fn master(&self) -> Result<u32> {
        Ok(self.named_master().await?.instance)
    }

    /// Instances that follow the master.
    pub async fn replicas(&self) -> Result<Vec<u32>> {
        let status = self.status().await?;
        let master = status.master.as_ref().map(|m| m.instance);
        Ok(status.instances.iter().map(|i| i.instance).filter(|i| Some(*i) != master).collect())
    }

    /// A connection to the master's server.
    pub async fn connect_master(&self) -> Result<MultiplexedConnection> {
        redis::connect(&self.named_master().await?.address.to_string()).await
    }

    /// A connection to an instance's server.
    pub async fn connect(&self, instance: u32) -> Result<MultiplexedConnection> {
        let task = self.task(instance).await?;
        let port = task.ports.get("redis").context("task without a redis port")?;
        redis::connect(&format!("{}:{port}", task.address)).await
    }

    /// Active tasks of the cluster's job.
    pub async fn tasks(&self) -> Result<Vec<Task>> {
        let mut tasks = self.aurora.tasks().await?;
        tasks.retain(|task| task.job == CLUSTER);
        tasks.sort_by_key(|task| task.instance);
        Ok(tasks)
    }

    /// The active task of an instance.
    pub async fn task(&self, instance: u32) -> Result<Task> {
        let tasks = self.tasks().await?;
        tasks.into_iter().find(|t| t.instance == instance).with_context(|| format!("instance {instance} has no active task"))
    }

    /// What an instance's agent says of itself.
    pub async fn agent_state(&self, instance: u32) -> Result<State> {
        let address = self.agent_address(instance).await?;
        Ok(self.agents.state(&address, Duration::from_secs(5)).await?)
    }

    /// Where an instance's agent listens.
    pub async fn agent_address(&self, instance: u32) -> Result<Address> {
        let task = self.task(instance).await?;
        let port = *task.ports.get("health").context("task without a health port")?;
        Ok(Address { host: task.address, port })
    }

    /// The record as ZooKeeper has it, with its version.
    pub async fn record(&self) -> Result<(Record, i32)> {
        let (bytes, stat) = self.zookeeper.client().await?.get_data(&self.paths().record()).await?;
        Ok((serde_json::from_slice(&bytes).context("the record")?, stat.version))
    }

    /// Which controller leads, by the election nodes.
    pub async fn leader(&self) -> Result<usize> {
        let client = self.zookeeper.client().await?;
        let directory = self.paths().controllers();
        let mut nodes = Vec::new();
        for name in client.list_children(&directory).await? {
            let (data, _) = client.get_data(&format!("{directory}/{name}")).await?;
            nodes.push((name, data));
        }
        let url = controller::http::leader_url(&nodes).context("no controller is elected")?;
        let found = self.controllers.iter().position(|c| c.process.is_some() && self.url_of(c) == url);
        found.with_context(|| format!("the elected {url} is none of ours that run"))
    }
}
