//! The stand-in scheduler as a process, on a hosts file made from the bench's hosts.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::bench::Bench;
use super::netns::Host;
use super::ports::Port;
use super::process::Process;
use super::{binaries, wait};

/// A running local-aurora.
#[derive(Debug)]
pub struct LocalAurora {
    bench: Arc<Bench>,
    zookeeper: String,
    dir: PathBuf,
    port: Port,
    process: Option<Process>,
    http: reqwest::Client,
}

/// One active task, as `GET /local/tasks` shows it.
#[derive(Clone, Debug, Deserialize)]
pub struct Task {
    /// `role/env/job`.
    pub job: String,
    /// Instance number.
    pub instance: u32,
    /// Task id.
    pub task_id: String,
    /// Name of its host.
    pub host: String,
    /// The host's address.
    pub address: String,
    /// Aurora's status, e.g. `RUNNING`.
    pub state: String,
    /// Ports by name.
    pub ports: BTreeMap<String, u16>,
    /// Its main process: the agent. Absent while none runs.
    pub pid: Option<u32>,
    /// Working directory.
    pub sandbox: PathBuf,
}

#[derive(Serialize)]
struct HostEntry<'a> {
    name: &'a str,
    address: &'a str,
    wrapper: Vec<String>,
    host_id: &'a str,
}

impl HostEntry<'_> {
    fn new(host: &Host) -> HostEntry<'_> {
        HostEntry { name: &host.name, address: &host.address, wrapper: host.wrapper(), host_id: &host.name }
    }
}

#[derive(Serialize)]
struct Hosts<'a> {
    host: Vec<HostEntry<'a>>,
}

impl LocalAurora {
    /// Starts it with those hosts and waits until it answers.
    pub async fn start(bench: &Arc<Bench>, zookeeper: &str, hosts: &[Host]) -> Result<LocalAurora> {
        let dir = bench.subdir("aurora")?;
        let host = hosts.iter().map(HostEntry::new).collect();
        let file = toml::to_string(&Hosts { host })?;
        std::fs::write(dir.join("hosts.toml"), file)?;
        let port = bench.port(&bench.here())?;
        let http = reqwest::Client::builder().timeout(Duration::from_secs(5)).build()?;
        let mut aurora = LocalAurora { bench: bench.clone(), zookeeper: zookeeper.into(), dir, port, process: None, http };
        aurora.restart().await?;
        Ok(aurora)
    }

    /// Starts it (again) and waits until it answers.
    pub async fn restart(&mut self) -> Result<()> {
        let here = self.bench.here();
        let mut command = self.bench.command(&here, binaries::ours("local-aurora")?);
        command.args(["--zookeeper", &self.zookeeper, "--listen", &format!("{}:{}", here.address, self.port.number())]);
        command.arg("--hosts").arg(self.dir.join("hosts.toml")).arg("--work-dir").arg(self.dir.join("tasks"));
        let process = self.process.insert(self.bench.start("local-aurora", command)?);
        process.check_alive()?;
        wait::until("local-aurora answers", Duration::from_secs(30), async || {
            if let Some(process) = &self.process {
                process.check_alive()?;
            }
            self.tasks().await
        })
        .await
        .map(|_| ())
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}:{}", self.bench.here().address, self.port.number())
    }

    /// All active tasks.
    pub async fn tasks(&self) -> Result<Vec<Task>> {
        let url = format!("{}/local/tasks", self.url());
        let response = self.http.get(&url).send().await.with_context(|| url.clone())?.error_for_status()?;
        response.json().await.with_context(|| format!("answer of {url}"))
    }

    /// SIGSTOP: the scheduler hangs, tasks run on.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Fails when it has ended by itself.
    pub fn check_alive(&self) -> Result<()> {
        self.process.as_ref().map_or(Ok(()), Process::check_alive)
    }

    fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            process.signal(signal);
        }
    }

    /// Asks it to end, its tasks with it.
    pub fn stop(&mut self) {
        if let Some(process) = self.process.take() {
            process.stop(Duration::from_secs(60));
        }
    }
}
