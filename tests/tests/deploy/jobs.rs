//! The `.aurora` files, evaluated by the real pystachio, become jobs that a scheduler takes and runs.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aurora::client::{Endpoint, Options};
use aurora::serverset::Member;
use aurora::types::{
    Constraint, ExecutorConfig, JobConfiguration, JobKey, PartitionPolicy, Resource, TaskConfig, TaskConstraint, ValueConstraint,
};
use serde::Deserialize;
use tests::harness::process::Process;
use tests::harness::zookeeper::ZooKeeper;
use tests::harness::{Bench, binaries, wait};

use crate::prometheus::Prometheus;
use crate::{project, python, run};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn the_evaluator_and_our_files_pass_their_own_tests() {
    run(python().args(["-m", "unittest", "discover", "deploy/tests"]));
}

/// What `evaluate.py` prints for one job.
#[derive(Debug, Deserialize)]
struct Submission {
    key: Key,
    instances: i32,
    service: bool,
    tier: Option<String>,
    priority: i32,
    max_task_failures: i32,
    contact: Option<String>,
    resources: Wanted,
    constraints: BTreeMap<String, String>,
    partition_policy: Option<Policy>,
    executor_name: String,
    executor_data: String,
}

#[derive(Debug, Deserialize)]
struct Key {
    role: String,
    environment: String,
    name: String,
}

#[derive(Debug, Deserialize)]
struct Wanted {
    cpus: f64,
    ram_mb: i64,
    disk_mb: i64,
    ports: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Policy {
    reschedule: bool,
    delay_secs: i64,
}

/// Evaluates one of our files with these bindings and variables.
fn evaluate(file: &str, bindings: &[(&str, &str)], variables: &[(&str, &str)]) -> Submission {
    let mut command = python();
    command.arg("deploy/aurora/evaluate.py").arg(format!("deploy/aurora/{file}")).envs(variables.iter().copied());
    for (name, value) in bindings {
        command.arg("--bind").arg(format!("profile.{name}={value}"));
    }
    let mut jobs: Vec<Submission> = serde_json::from_str(&run(&mut command)).expect("evaluate.py prints a list of jobs");
    assert_eq!(jobs.len(), 1, "{file} holds one job");
    jobs.remove(0)
}

/// A constraint as the files write it: `limit:1`, `!a`, `a,b`.
fn constraint(name: &str, text: &str) -> Constraint {
    let constraint = match text.strip_prefix("limit:") {
        Some(number) => TaskConstraint::Limit(number.parse().expect("a limit is a number")),
        None => {
            let values = text.trim_start_matches('!').split(',').map(str::to_owned).collect();
            TaskConstraint::Value(ValueConstraint { negated: text.starts_with('!'), values })
        }
    };
    Constraint { name: name.to_owned(), constraint }
}

impl Submission {
    /// The job as it goes over the wire.
    fn job(self) -> JobConfiguration {
        assert!(self.service, "only services are never done");
        let Wanted { cpus, ram_mb, disk_mb, ports } = self.resources;
        let mut resources = vec![Resource::NumCpus(cpus), Resource::RamMb(ram_mb), Resource::DiskMb(disk_mb)];
        resources.extend(ports.into_iter().map(Resource::NamedPort));
        let config = TaskConfig {
            job: JobKey::new(self.key.role, self.key.environment, self.key.name),
            priority: self.priority,
            max_task_failures: self.max_task_failures,
            contact_email: self.contact,
            tier: self.tier,
            constraints: self.constraints.iter().map(|(name, text)| constraint(name, text)).collect(),
            partition_policy: self
                .partition_policy
                .map(|policy| PartitionPolicy { reschedule: policy.reschedule, delay_secs: Some(policy.delay_secs) }),
            executor_config: Some(ExecutorConfig { name: self.executor_name, data: Some(self.executor_data) }),
            resources,
            ..TaskConfig::default()
        };
        JobConfiguration::service(config, self.instances)
    }
}

/// What the executor is told of health, end, announcement, processes and resources is the same, whoever makes the job.
#[test]
fn the_file_and_create_make_the_same_job() {
    let program = binaries::ours("aurora-redis").unwrap_or_else(|error| panic!("{error:#}"));
    let mut create = std::process::Command::new(program);
    create.args(["create", "--dry-run", "--zookeeper", "zk1:2181"]).arg(project("deploy/cluster.toml")).current_dir("/");
    let created: serde_json::Value = serde_json::from_str(&run(&mut create)).expect("JSON");
    let file = evaluate("redis.aurora", &[("zookeeper", "zk1:2181")], &[]);
    let evaluated: serde_json::Value = serde_json::from_str(&file.executor_data).expect("JSON");
    assert_eq!(created["instances"], file.instances);
    let parts = [
        "/name",
        "/role",
        "/environment",
        "/cluster",
        "/contact",
        "/service",
        "/tier",
        "/priority",
        "/max_task_failures",
        "/announce",
        "/health_check_config",
        "/lifecycle",
        "/task/name",
        "/task/resources",
        "/task/max_failures",
        "/task/finalization_wait",
        "/task/processes/0/name",
        "/task/processes/0/daemon",
        "/task/processes/0/max_failures",
        "/task/processes/0/min_duration",
    ];
    for part in parts {
        assert_eq!(created["executor_data"].pointer(part), evaluated.pointer(part), "{part}");
    }
}

/// A scheduler on this machine with the hosts h1 to h4; h4 is kept for controllers with a static port.
struct Scheduler {
    zookeeper: ZooKeeper,
    url: String,
    _process: Process,
}

/// One line of `GET /local/tasks`.
#[derive(Debug, Deserialize)]
struct Task {
    job: String,
    host: String,
    state: String,
    ports: BTreeMap<String, u16>,
}

impl Scheduler {
    async fn start(bench: &Arc<Bench>) -> Result<Scheduler> {
        let zookeeper = ZooKeeper::single(bench).await?;
        let hosts: String = (1..=4).map(|i| format!("[[host]]\nname = \"h{i}\"\naddress = \"127.0.0.1\"\n")).collect();
        std::fs::write(bench.dir().join("hosts.toml"), hosts + "attributes = { dedicated = \"redis/controllers\" }\n")?;
        let port = bench.port(&bench.here())?;
        let mut command = bench.command(&bench.here(), binaries::ours("local-aurora")?);
        command.arg("--zookeeper").arg(zookeeper.connect_string()).arg("--hosts").arg("hosts.toml");
        command.arg("--listen").arg(format!("127.0.0.1:{}", port.number())).arg("--work-dir").arg(bench.subdir("sandboxes")?);
        let process = bench.start("local-aurora", command)?;
        let scheduler = Scheduler { zookeeper, url: format!("http://127.0.0.1:{}", port.number()), _process: process };
        wait::until("the scheduler answers", LIMIT, async || scheduler.tasks().await).await?;
        Ok(scheduler)
    }

    async fn create(&self, submission: Submission) -> Result<()> {
        let client = aurora::Client::new(Endpoint::url(&self.url)?, Options::default());
        client.create_job(&submission.job()).await?;
        Ok(())
    }

    async fn tasks(&self) -> Result<Vec<Task>> {
        Ok(reqwest::get(format!("{}/local/tasks", self.url)).await?.error_for_status()?.json().await?)
    }

    /// Waits until a job has `count` healthy tasks; returns them.
    async fn running(&self, job: &str, count: usize) -> Result<Vec<Task>> {
        let look = async || -> Result<Vec<Task>> {
            let tasks: Vec<Task> = self.tasks().await?.into_iter().filter(|task| task.job == job).collect();
            ensure!(tasks.len() == count && tasks.iter().all(|task| task.state == "RUNNING"), "{tasks:?}");
            Ok(tasks)
        };
        wait::until(&format!("{job} runs"), LIMIT, look).await
    }

    /// Waits until a job has `count` members in ZooKeeper; returns them. A task may run before it is announced.
    async fn members(&self, job: &str, count: usize) -> Result<Vec<Member>> {
        let client = self.zookeeper.client().await?;
        let directory = format!("/aurora/{job}");
        let look = async || -> Result<Vec<Member>> {
            let mut members = Vec::new();
            for child in client.list_children(&directory).await? {
                let (data, _) = client.get_data(&format!("{directory}/{child}")).await?;
                members.push(Member::parse(&data).context(child)?);
            }
            ensure!(members.len() == count, "{members:?}");
            Ok(members)
        };
        wait::until(&format!("{job} is announced"), LIMIT, look).await
    }
}

/// A program that says `ok` on its HTTP port to whatever it is asked, and notes how it was started.
fn stand_in(bench: &Bench) -> Result<std::path::PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let text = format!(
        "#!{}\nimport sys, http.server\nopen('arguments', 'w').write(' '.join(sys.argv[1:]))\n\
         class Ok(http.server.BaseHTTPRequestHandler):\n  def do_GET(self):\n    self.send_response(200); self.end_headers()\n    \
         self.wfile.write(b'ok')\n  do_POST = do_GET\n\
         http.server.HTTPServer(('127.0.0.1', int(sys.argv[sys.argv.index('--http-port') + 1])), Ok).serve_forever()\n",
        binaries::python()?.display()
    );
    let path = bench.dir().join("stand-in");
    std::fs::write(&path, text)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

fn text_of(path: &Path) -> &str {
    path.to_str().expect("a path of a test is text")
}

#[test]
fn a_scheduler_takes_both_jobs_and_runs_and_announces_every_instance() {
    Bench::run("jobs", async |bench| {
        let scheduler = Scheduler::start(&bench).await?;
        let program = stand_in(&bench)?;
        let controllers = evaluate("controller.aurora", &[("controller", text_of(&program)), ("instances", "2")], &[]);
        scheduler.create(controllers).await?;
        scheduler.create(evaluate("redis.aurora", &[("agent", text_of(&program))], &[])).await?;
        scheduler.running("redis/prod/cache-controller", 2).await?;
        let tasks = scheduler.running("redis/prod/cache", 3).await?;
        let hosts: std::collections::BTreeSet<&str> = tasks.iter().map(|task| task.host.as_str()).collect();
        ensure!(hosts.len() == 3, "two instances share a host: {tasks:?}");
        let members = scheduler.members("redis/prod/cache", 3).await?;
        for task in &tasks {
            let announced = members.iter().any(|member| {
                let port = |name: &str| member.additional_endpoints.get(name).map(|endpoint| endpoint.port);
                port("redis") == task.ports.get("redis").copied() && port("health") == task.ports.get("health").copied()
            });
            ensure!(announced, "{task:?} is not announced in {members:?}");
        }
        Ok(())
    });
}

#[test]
fn controllers_get_the_static_port_on_hosts_kept_for_them() {
    Bench::run("static", async |bench| {
        let scheduler = Scheduler::start(&bench).await?;
        let program = stand_in(&bench)?;
        let port = bench.port(&bench.here())?;
        let number = port.number().to_string();
        let bindings = [("controller", text_of(&program)), ("instances", "1")];
        scheduler.create(evaluate("controller.aurora", &bindings, &[("STATIC_PORT", &number)])).await?;
        let tasks = scheduler.running("redis/prod/cache-controller", 1).await?;
        ensure!(tasks[0].host == "h4", "{tasks:?}");
        let members = scheduler.members("redis/prod/cache-controller", 1).await?;
        ensure!(members[0].service_endpoint.port == port.number(), "{members:?}");
        Ok(())
    });
}

/// Where the leading controller's API is, by the ports of its tasks.
async fn cluster_view(scheduler: &Scheduler) -> Result<controller::http::ClusterAnswer> {
    let tasks = scheduler.tasks().await?;
    let task = tasks.iter().find(|task| task.job == "redis/prod/cache-controller").context("no controller runs")?;
    let port = task.ports.get("health").context("it has no port")?;
    let answer = reqwest::get(format!("http://127.0.0.1:{port}/api/v1/cluster")).await?;
    let status = answer.status();
    let body = answer.text().await?;
    ensure!(status.is_success(), "{status}: {body}");
    Ok(serde_json::from_str(&body)?)
}

#[test]
fn the_jobs_of_the_files_are_a_working_cluster() {
    Bench::run("files", async |bench| {
        let scheduler = Scheduler::start(&bench).await?;
        let zookeeper = scheduler.zookeeper.connect_string();
        let store = format!("--snapshots-uri file://{}", bench.subdir("store")?.display());
        let flags = format!("{store} --redis-server {}", binaries::cached("bin/redis-server")?.display());
        let (agent, controller) = (binaries::ours("aurora-redis-agent")?, binaries::ours("aurora-redis-controller")?);
        let everywhere = ("zookeeper", zookeeper.as_str());
        let bindings = [everywhere, ("controller", text_of(&controller)), ("controller_flags", &store), ("instances", "2")];
        scheduler.create(evaluate("controller.aurora", &bindings, &[])).await?;
        let bindings = [everywhere, ("agent", text_of(&agent)), ("agent_flags", &flags)];
        scheduler.create(evaluate("redis.aurora", &bindings, &[])).await?;

        // The job is there already: `create` only adds the desired state.
        let mut command = bench.command(&bench.here(), binaries::ours("aurora-redis")?);
        command.args(["--zookeeper", &zookeeper, "--output", "json", "create"]).arg(project("deploy/cluster.toml"));
        let created = tokio::task::spawn_blocking(move || run(&mut command)).await?;
        let created: serde_json::Value = serde_json::from_str(&created)?;
        ensure!(created["spec"] == "created" && created["job"] == "exists", "{created}");

        let look = async || -> Result<()> {
            let view = cluster_view(&scheduler).await?.cluster;
            let serving = view.instances.iter().filter(|instance| instance.state == "serving").count();
            ensure!(view.master.is_some() && serving == 3, "{}; {serving} serve", view.summary);
            Ok(())
        };
        wait::until("one master and two replicas serve", Duration::from_secs(90), look).await?;
        prometheus_sees_it(&Prometheus::start(&bench, &zookeeper)?).await
    });
}

/// Every instance and controller is scraped under the cluster's name, and no alert of the page kind is raised.
async fn prometheus_sees_it(prometheus: &Prometheus) -> Result<()> {
    let look = async || -> Result<()> {
        let up = prometheus.query("sum by (cluster, job) (up)").await?;
        let count = |job: &str| up.iter().find(|(labels, _)| labels["job"] == job && labels["cluster"] == "redis/prod/cache");
        let counts =
            (count("aurora-redis-agent").map(|(_, n)| n.as_str()), count("aurora-redis-controller").map(|(_, n)| n.as_str()));
        ensure!(counts == (Some("3"), Some("2")), "{up:?}");
        let master = prometheus.query("max by (cluster) (aurora_redis_controller_has_master)").await?;
        ensure!(master.len() == 1 && master[0].1 == "1", "{master:?}");
        Ok(())
    };
    wait::until("Prometheus has scraped three agents and two controllers", LIMIT, look).await?;
    let pages = prometheus.query("ALERTS{severity=\"page\"}").await?;
    ensure!(pages.is_empty(), "a healthy cluster raises {pages:?}");
    Ok(())
}
