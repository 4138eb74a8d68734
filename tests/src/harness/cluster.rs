//! A whole cluster on real parts: ZooKeeper, a store, local-aurora with hosts, controllers, and the job made by `aurora-redis create`.
//!
//! [`Cluster::start`] brings it up as [`Options`] say; the rest finds, watches and breaks its processes by what the outside interfaces tell
//! (`/local/tasks`, the agents' `/state`, `/api/v1/…`), never by names of processes.

use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use agent::record::Paths;
use agent::snapshot::SnapshotId;
use anyhow::{Context, Result, bail, ensure};

use super::bench::Bench;
use super::binaries;
use super::clock::Clock;
use super::haproxy::HaProxy;
use super::hdfs::{Hdfs, Plan, Protection};
use super::kdc::Kdc;
use super::local_aurora::LocalAurora;
use super::netns::Host;
use super::ports::Port;
use super::process::Process;
use super::zookeeper::ZooKeeper;

mod faults;
mod options;
mod waits;
mod watch;

pub use faults::Frozen;
pub use options::{Options, Store};
pub use waits::stable;

use options::Files;

/// How long anything may take that usually takes seconds: generous, for machines are busy.
pub const LIMIT: Duration = Duration::from_secs(90);

/// Longest run of one command of `aurora-redis`.
const COMMAND: Duration = Duration::from_secs(120);

/// Job key of every test's cluster.
pub const CLUSTER: &str = "www/prod/cache";

/// The parts, and where they are.
#[derive(Debug)]
pub struct Cluster {
    /// Its bench.
    pub bench: Arc<Bench>,
    /// How it was asked for.
    pub options: Options,
    /// ZooKeeper.
    pub zookeeper: ZooKeeper,
    /// The scheduler.
    pub aurora: LocalAurora,
    /// HDFS, where snapshots go there.
    pub hdfs: Option<Hdfs>,
    hosts: Vec<Host>,
    controllers: Vec<Controller>,
    files: Files,
    store: String,
    token: String,
    http: reqwest::Client,
    agents: agent::client::Client,
}

#[derive(Debug)]
struct Controller {
    port: Port,
    process: Option<Process>,
}

/// HAProxy with its follower.
#[derive(Debug)]
pub struct Balancer {
    /// `host:port` for writers.
    pub writes: String,
    /// `host:port` for readers.
    pub reads: String,
    /// HAProxy.
    pub haproxy: HaProxy,
    /// `aurora-redis haproxy follow`.
    pub follower: Process,
    _ports: [Port; 2],
}

impl Cluster {
    /// Brings everything up, creates the job and waits until the cluster is stable.
    pub async fn start(bench: &Arc<Bench>, options: Options) -> Result<Cluster> {
        let cluster = Cluster::start_parts(bench, options).await?;
        cluster.create().await?;
        cluster.wait_stable().await?;
        Ok(cluster)
    }

    /// Brings up everything but the job.
    pub async fn start_parts(bench: &Arc<Bench>, options: Options) -> Result<Cluster> {
        let mut hosts: Vec<Host> = match bench.hosts() {
            [] => (1..=options.hosts).map(|i| Host::named(&format!("h{i}"))).collect(),
            hosts => hosts.to_vec(),
        };
        for host in hosts.iter_mut().filter(|_| options.clocks) {
            host.clock = Some(Clock::new(bench.dir().join(format!("clock-{}", host.name)))?);
        }
        let zookeeper = ZooKeeper::start(bench, &vec![bench.here(); options.zookeepers], options.zookeeper).await?;
        let hdfs = match options.store {
            Store::Files => None,
            Store::Hdfs(datanodes) => Some(Hdfs::start(bench, datanodes).await?),
            Store::Pair(datanodes) => Some(Hdfs::start_as(bench, Plan { datanodes, pair: true, ..Plan::default() }).await?),
            Store::Secured => {
                let kdc = Some(Kdc::start(bench).await?);
                Some(Hdfs::start_as(bench, Plan { datanodes: 1, kdc, ..Plan::default() }).await?)
            }
            Store::SecuredPair => {
                let kdc = Some(Kdc::start(bench).await?);
                let protection = Protection::Privacy;
                Some(Hdfs::start_as(bench, Plan { datanodes: 1, pair: true, kdc, protection, ..Plan::default() }).await?)
            }
            Store::SmallDisk(mib) => {
                Some(Hdfs::start_as(bench, Plan { datanodes: 1, disk_mib: Some(mib), ..Plan::default() }).await?)
            }
        };
        let aurora = LocalAurora::start(bench, &zookeeper.connect_string(), &hosts).await?;
        let store = match &hdfs {
            Some(hdfs) => hdfs.uri() + "/aurora-redis",
            None => format!("file://{}", bench.subdir("store")?.display()),
        };
        let files =
            Files::write(bench, &options, &zookeeper, &store, &hdfs.as_ref().map(Hdfs::client_config).unwrap_or_default())?;
        let secret = agent::secret::Secret::load(&bench.dir().join("secret"), CLUSTER)?;
        let mut cluster = Cluster {
            bench: bench.clone(),
            zookeeper,
            aurora,
            hdfs,
            hosts,
            controllers: Vec::new(),
            files,
            store,
            token: secret.api_token(),
            http: reqwest::Client::builder().timeout(Duration::from_secs(10)).build()?,
            agents: agent::client::Client::new(Some(secret.agent_token())),
            options,
        };
        for i in 0..cluster.options.controllers {
            let port = bench.port(&bench.here())?;
            cluster.controllers.push(Controller { port, process: None });
            cluster.start_controller(i)?;
        }
        Ok(cluster)
    }

    /// Path of the cluster file that `create` reads.
    pub fn cluster_file(&self) -> String {
        self.files.cluster.display().to_string()
    }

    /// `aurora-redis create`.
    pub async fn create(&self) -> Result<()> {
        self.cli(&["create", &self.cluster_file()]).await.map(|_| ())
    }

    /// Runs `aurora-redis` with `arguments`; its standard output, or a failure with all it said.
    pub async fn cli(&self, arguments: &[&str]) -> Result<String> {
        let output = self.cli_output(arguments).await?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.success(),
            "aurora-redis {}: {}\n{said}{}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(said)
    }

    /// What a command that must fail says, on both outputs.
    pub async fn cli_failure(&self, arguments: &[&str]) -> Result<String> {
        let output = self.cli_output(arguments).await?;
        let said = [&output.stdout[..], &output.stderr[..]].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        ensure!(!output.status.success(), "aurora-redis {} succeeded:\n{said}", arguments.join(" "));
        Ok(said)
    }

    /// As [`Cluster::cli`], whatever its exit status.
    pub async fn cli_output(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = self.bench.command(&self.bench.here(), binaries::ours("aurora-redis")?);
        command.arg("--config").arg(&self.files.cli).args(arguments).stdin(std::process::Stdio::null());
        let mut command = tokio::process::Command::from(command);
        let output = tokio::time::timeout(COMMAND, command.kill_on_drop(true).output()).await;
        let late = || format!("aurora-redis {} did not end within {} s", arguments.join(" "), COMMAND.as_secs());
        output.with_context(late)?.context("aurora-redis")
    }

    /// A real HAProxy on what `aurora-redis haproxy config` prints, its slots filled by `aurora-redis haproxy follow`.
    pub async fn haproxy(&self) -> Result<Balancer> {
        let here = self.bench.here();
        let ports = [self.bench.port(&here)?, self.bench.port(&here)?];
        let [writes, reads] = ports.each_ref().map(|port| format!("{}:{}", here.address, port.number()));
        let socket = self.bench.dir().join("haproxy.sock").display().to_string();
        let [writers, readers] = ports.each_ref().map(|port| port.number().to_string());
        let arguments = ["haproxy", "config", "--bind", &here.address, "--writers-port", &writers, "--readers-port", &readers];
        let config = self.cli(&[&arguments[..], &["--socket", &socket]].concat()).await?;
        let haproxy = HaProxy::start(&self.bench, &config, ports[0].number()).await?;
        let mut follow = self.bench.command(&here, binaries::ours("aurora-redis")?);
        follow.arg("--config").arg(&self.files.cli).args(["haproxy", "follow", "--socket", &socket]);
        let follower = self.bench.start("haproxy-follow", follow)?;
        Ok(Balancer { writes, reads, haproxy, follower, _ports: ports })
    }

    /// Size of a snapshot's dump as the store itself tells it (HDFS by its own command).
    pub async fn stored_bytes(&self, id: &SnapshotId) -> Result<u64> {
        let path = format!("{}/{CLUSTER}/snapshots/{id}/dump.rdb", self.store);
        match (&self.hdfs, path.strip_prefix("file://")) {
            (Some(hdfs), _) => {
                let said = hdfs.tool("org.apache.hadoop.fs.FsShell", &["-stat", "%b", &path]).await?;
                said.trim().parse().with_context(|| format!("{path}: '{said}'"))
            }
            (None, Some(file)) => Ok(std::fs::metadata(file).with_context(|| file.to_owned())?.len()),
            (None, None) => bail!("{path} is in no store we know"),
        }
    }

    /// The command line that reaches this cluster from a shell.
    pub fn cli_words(&self) -> Result<String> {
        Ok(format!("{} --config {}", binaries::ours("aurora-redis")?.display(), self.files.cli.display()))
    }

    /// Address of its snapshots' store.
    pub fn store_uri(&self) -> &str {
        &self.store
    }

    /// What its agents have in common.
    pub fn agent_config(&self) -> &std::path::Path {
        &self.files.agent
    }

    /// Typed client of the agents, with the cluster's token.
    pub fn agents(&self) -> &agent::client::Client {
        &self.agents
    }

    /// Bearer token of the controllers' API.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Paths of the cluster's nodes in ZooKeeper.
    pub fn paths(&self) -> Paths {
        Paths::new("/aurora-redis", CLUSTER)
    }

    /// Starts controller `i` (again).
    pub fn start_controller(&mut self, i: usize) -> Result<()> {
        let here = self.bench.here();
        let mut command = self.bench.command(&here, binaries::ours("aurora-redis-controller")?);
        command.arg("--config").arg(&self.files.controller);
        command.args(["--http-host", &here.address, "--http-port", &self.controllers[i].port.number().to_string()]);
        self.controllers[i].process = Some(self.bench.start(&format!("controller{}", i + 1), command)?);
        Ok(())
    }

    /// Pid of controller `i`.
    pub fn controller_pid(&self, i: usize) -> Result<u32> {
        Ok(self.controllers[i].process.as_ref().with_context(|| format!("controller {i} does not run"))?.pid())
    }

    /// The hosts tasks are placed on.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }
}
