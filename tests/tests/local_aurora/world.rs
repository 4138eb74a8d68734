//! A running `local-aurora` with its ZooKeeper, and jobs for it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use aurora::client::{Client, Endpoint, Options};
use aurora::serverset::Member;
use aurora::types::{
    Constraint, ExecutorConfig, JobConfiguration, JobKey, Resource, ScheduleStatus, ScheduledTask, TaskConfig, TaskConstraint,
    TaskQuery,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tests::harness::process::Process;
use tests::harness::zookeeper::ZooKeeper;
use tests::harness::{Bench, binaries, wait};

use super::SOON;

/// A web server: `/health` says ok (or what the file `health` holds), every call is noted in the file `calls`.
pub const SERVER: &str = r#"exec python3 -u -c '
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self):
        open("calls", "a").write(self.command + " " + self.path + "\n")
        body = open("health").read() if os.path.exists("health") else "ok"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())
    do_GET = do_POST = answer
    def log_message(self, *arguments): pass
http.server.ThreadingHTTPServer(("", int(sys.argv[1])), Handler).serve_forever()
' {{thermos.ports[health]}}"#;

/// One entry of `GET /local/tasks`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalTask {
    pub job: String,
    pub instance: i32,
    pub task_id: String,
    pub host: Option<String>,
    pub address: Option<String>,
    pub state: String,
    pub ports: std::collections::BTreeMap<String, u16>,
    pub pid: Option<u32>,
    pub sandbox: Option<PathBuf>,
}

impl LocalTask {
    /// A file of the sandbox as text.
    pub fn file(&self, name: &str) -> Result<String> {
        let path = self.sandbox.as_ref().context("no sandbox")?.join(name);
        std::fs::read_to_string(&path).with_context(|| format!("file {}", path.display()))
    }

    pub fn running_pid(&self) -> Result<u32> {
        self.pid.with_context(|| format!("no process: {self:?}"))
    }
}

pub struct World {
    pub zookeeper: ZooKeeper,
    pub process: Process,
    pub url: String,
    pub client: Client,
    session: zookeeper_client::Client,
}

impl World {
    /// ZooKeeper and `local-aurora` with the hosts of `file`.
    pub async fn start(bench: &Arc<Bench>, file: &str) -> Result<World> {
        World::start_with(bench, file, &[]).await
    }

    pub async fn start_with(bench: &Arc<Bench>, file: &str, flags: &[&str]) -> Result<World> {
        let zookeeper = ZooKeeper::single(bench).await?;
        let hosts = bench.dir().join("hosts.toml");
        std::fs::write(&hosts, file)?;
        let here = bench.here();
        let mut command = bench.command(&here, binaries::ours("local-aurora")?);
        command.args(["--zookeeper", &zookeeper.connect_string(), "--hosts"]).arg(&hosts);
        command.args(["--listen", &format!("{}:0", here.address), "--work-dir"]).arg(bench.dir().join("work"));
        command.args(["--session-timeout", "4s"]).args(flags);
        let process = bench.start("local-aurora", command)?;
        let url = wait::until_now("local-aurora is ready", SOON, || {
            process.check_alive()?;
            let said = std::fs::read_to_string(process.log())?;
            let line = said.lines().find(|line| line.starts_with("http://"));
            line.map(str::to_owned).ok_or_else(|| anyhow!("it has printed no address"))
        })
        .await?;
        let session = zookeeper.client().await?;
        let shared = session.clone();
        let endpoint = Endpoint::zookeeper("/aurora/scheduler", Arc::new(move || Ok(shared.clone())));
        let client = Client::new(endpoint, Options::default());
        Ok(World { zookeeper, process, url, client, session })
    }

    pub async fn local_tasks(&self) -> Result<Vec<LocalTask>> {
        Ok(reqwest::get(format!("{}/local/tasks", self.url)).await?.error_for_status()?.json().await?)
    }

    /// Waits until exactly these instances exist and all run; gives them in order.
    pub async fn running(&self, instances: &[i32]) -> Result<Vec<LocalTask>> {
        wait::until("the instances run", SOON, async || {
            self.process.check_alive()?;
            let mut tasks = self.local_tasks().await?;
            tasks.sort_by_key(|task| task.instance);
            let ids: Vec<i32> = tasks.iter().map(|task| task.instance).collect();
            ensure!(ids == instances && tasks.iter().all(|task| task.state == "RUNNING"), "{tasks:?}");
            Ok(tasks)
        })
        .await
    }

    /// Waits until the instance runs as another task than `old`.
    pub async fn replaced(&self, old: &LocalTask) -> Result<LocalTask> {
        wait::until("the task is replaced", SOON, async || {
            let tasks = self.local_tasks().await?;
            let task = tasks.into_iter().find(|task| task.instance == old.instance && task.job == old.job);
            let task = task.ok_or_else(|| anyhow!("the instance is missing"))?;
            ensure!(task.task_id != old.task_id && task.state == "RUNNING", "{task:?}");
            Ok(task)
        })
        .await
    }

    /// What the scheduler says of one task, also when it has ended.
    pub async fn scheduled(&self, id: &str) -> Result<ScheduledTask> {
        let query = TaskQuery { task_ids: vec![id.to_owned()], ..TaskQuery::default() };
        let found = self.client.tasks(&query).await?;
        found.into_iter().next().with_context(|| format!("no task {id}"))
    }

    /// Waits until the task has ended, and how.
    pub async fn ended(&self, id: &str) -> Result<(ScheduleStatus, String)> {
        wait::until("the task has ended", SOON, async || {
            let task = self.scheduled(id).await?;
            ensure!(task.status.is_terminal(), "it is {}", task.status);
            let last = task.task_events.last().and_then(|event| event.message.clone());
            Ok((task.status, last.unwrap_or_default()))
        })
        .await
    }

    /// Members of a job, youngest last.
    pub async fn members(&self, job: &JobKey) -> Result<Vec<Member>> {
        let path = format!("/aurora/{job}");
        let mut names = match self.session.list_children(&path).await {
            Err(zookeeper_client::Error::NoNode) => return Ok(Vec::new()),
            names => names?,
        };
        names.sort();
        let mut members = Vec::new();
        for name in names {
            ensure!(name.starts_with("member_"), "{name}");
            match self.session.get_data(&format!("{path}/{name}")).await {
                Err(zookeeper_client::Error::NoNode) => {}
                data => members.push(Member::parse(&data?.0)?),
            }
        }
        Ok(members)
    }

    pub async fn member_count(&self, job: &JobKey, count: usize) -> Result<Vec<Member>> {
        wait::until("the members are those of the tasks", SOON, async || {
            let members = self.members(job).await?;
            match members.len() == count {
                true => Ok(members),
                false => bail!("{} members instead of {count}", members.len()),
            }
        })
        .await
    }
}

/// `count` hosts on loopback addresses of their own.
pub fn hosts(count: u8) -> String {
    let host = |n: u8| format!("[[host]]\nname = \"h{n}\"\naddress = \"127.0.0.{}\"\nhost_id = \"id{n}\"\n", n + 10);
    (1..=count).map(host).collect()
}

pub fn key() -> JobKey {
    JobKey::new("redis", "test", "cache")
}

/// A service of `instances`, one per host, of these processes, with ports `redis` and `health`; `more` is put into the data.
pub fn job(instances: i32, processes: Value, more: Value) -> JobConfiguration {
    let mut data = json!({
        "name": "cache", "role": "redis", "environment": "test", "cluster": "local", "service": true,
        "announce": {"primary_port": "redis", "portmap": {}},
        "health_check_config": {"initial_interval_secs": 10.0, "interval_secs": 0.2, "timeout_secs": 5.0,
                                "max_consecutive_failures": 2},
        "task": {"name": "cache", "processes": processes, "resources": {"cpu": 0.5, "ram": 1, "disk": 1}},
    });
    for (name, value) in more.as_object().into_iter().flatten() {
        data[name] = value.clone();
    }
    let task_config = TaskConfig {
        is_service: true,
        max_task_failures: 1,
        job: key(),
        constraints: vec![Constraint { name: "host".to_owned(), constraint: TaskConstraint::Limit(1) }],
        executor_config: Some(ExecutorConfig { name: "AuroraExecutor".to_owned(), data: Some(data.to_string()) }),
        resources: vec![
            Resource::NumCpus(0.5),
            Resource::RamMb(1),
            Resource::DiskMb(1),
            Resource::NamedPort("redis".to_owned()),
            Resource::NamedPort("health".to_owned()),
        ],
        ..TaskConfig::default()
    };
    JobConfiguration { key: key(), instance_count: instances, task_config, ..JobConfiguration::default() }
}

/// One daemon process.
pub fn daemon(cmdline: &str) -> Value {
    json!([{"name": "main", "cmdline": cmdline, "daemon": true, "max_failures": 0, "min_duration": 1}])
}

/// A quick end: no wait after lifecycle calls, which the server of these tests does not act on.
pub fn hasty() -> Value {
    json!({"lifecycle": {"http": {"graceful_shutdown_wait_secs": 0, "shutdown_wait_secs": 0}}})
}

/// Waits until none of the processes runs.
pub async fn gone(pids: &[u32]) -> Result<()> {
    wait::until_now("the processes are gone", Duration::from_secs(15), || {
        let left: Vec<u32> = pids.iter().copied().filter(|pid| tests::harness::process::runs(*pid)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?} still run")) }
    })
    .await
}
