//! What has to happen on a host: HTTP calls to a task's loopback, tests for free ports. A host with a wrapper may be
//! another network namespace, so there the same functions run in a helper: this program, called with a subcommand,
//! inside the wrapper. Without a wrapper they run here.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::process::Command;

use super::hosts::Host;
use super::process::Spawner;
use super::remote;
use crate::harness::ports::{Port, TASKS};

/// A helper has to start and end within its own limit plus this.
const HELPER_GRACE: Duration = Duration::from_secs(5);

/// Why something on a host could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The HTTP call got no answer.
    #[error("no answer from {url}: {problem}")]
    Http {
        /// Whole address.
        url: String,
        /// What happened instead.
        problem: String,
    },
    /// The address is not one of the host.
    #[error("cannot bind the address {address} of the host: is it configured there?")]
    Address {
        /// The host's address.
        address: IpAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// All ports are taken.
    #[error("there are not {count} free ports: {problem}")]
    NoPorts {
        /// How many were wanted.
        count: usize,
        /// What the search says.
        problem: String,
    },
    /// The helper could not run inside the wrapper, or said something unexpected.
    #[error("helper on host {host} failed: {problem}")]
    Helper {
        /// Name of the host.
        host: String,
        /// What it said.
        problem: String,
    },
}

/// Answer to an HTTP call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Body, at most 64 KiB of it.
    pub body: String,
}

/// Runs things on hosts.
#[derive(Clone)]
pub struct OnHost {
    /// Starts helpers.
    pub spawner: Spawner,
    /// This program, for helpers inside a wrapper.
    pub program: PathBuf,
    /// Ports of tasks on hosts without a wrapper, held against every other process of this machine.
    pub reserved: Arc<Mutex<Vec<Port>>>,
}

impl OnHost {
    /// Calls `http://localhost:<port><path>` on the host, with an empty body; the answer has to be complete within
    /// `timeout`.
    pub async fn http(&self, host: &Host, method: Method, port: u16, path: &str, timeout: Duration) -> Result<Answer, Error> {
        let url = format!("http://localhost:{port}{path}");
        if host.wrapper.is_empty() {
            return call(method, &url, timeout).await;
        }
        let millis = timeout.as_millis().to_string();
        let said = self.helper(host, &["http", method.name(), &url, &millis], timeout).await?;
        serde_json::from_str::<Result<Answer, String>>(&said)
            .map_err(|error| helper_error(host, error))?
            .map_err(|problem| Error::Http { url, problem })
    }

    /// `count` ports free on the host, none of them in `avoid`: the ports of all running tasks. Without a wrapper they stay reserved until
    /// a later call no longer names them; the namespace behind a wrapper is its owner's alone.
    pub async fn free_ports(&self, host: &Host, count: usize, avoid: &BTreeSet<u16>) -> Result<Vec<u16>, Error> {
        if count == 0 {
            return Ok(Vec::new());
        }
        if host.wrapper.is_empty() {
            let found = free_ports(host.address, count, avoid)?;
            let numbers = found.iter().map(Port::number).collect();
            let mut reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
            reserved.retain(|port| avoid.contains(&port.number()));
            reserved.extend(found);
            return Ok(numbers);
        }
        let address = host.address.to_string();
        let count = count.to_string();
        let avoid = serde_json::to_string(avoid).unwrap_or_default();
        let arguments = ["ports", &address, &count, &avoid];
        let said = self.helper(host, &arguments, Duration::from_secs(10)).await?;
        serde_json::from_str::<Result<Vec<u16>, String>>(&said)
            .map_err(|error| helper_error(host, error))?
            .map_err(|problem| helper_error(host, problem))
    }

    async fn helper(&self, host: &Host, arguments: &[&str], limit: Duration) -> Result<String, Error> {
        let mut command = wrapped(host, &self.program);
        command
            .arg("on-host")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let child = self.spawner.spawn(command).await;
        let child = child.map_err(|error| helper_error(host, error))?;
        let output = tokio::time::timeout(limit + HELPER_GRACE, child.wait_with_output())
            .await
            .map_err(|_| helper_error(host, "it did not end in time"))?
            .map_err(|error| helper_error(host, error))?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(helper_error(host, format!("{}: {}", output.status, said.trim())))
        }
    }
}

fn helper_error(host: &Host, problem: impl std::fmt::Display) -> Error {
    Error::Helper { host: host.name.clone(), problem: problem.to_string() }
}

/// `program` inside the host's wrapper.
pub fn wrapped(host: &Host, program: impl AsRef<std::ffi::OsStr>) -> Command {
    match host.wrapper.split_first() {
        None => Command::new(program),
        Some((first, rest)) => {
            let mut command = Command::new(first);
            command.args(rest).arg(program);
            command
        }
    }
}

/// HTTP methods that Thermos uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Health checks.
    Get,
    /// Lifecycle calls.
    Post,
}

impl Method {
    fn name(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Post => "POST",
        }
    }
}

/// Makes one HTTP call from here, without following redirects.
async fn call(method: Method, url: &str, timeout: Duration) -> Result<Answer, Error> {
    let attempt = async {
        let client =
            reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).timeout(timeout).build()?;
        let request = match method {
            Method::Get => client.get(url),
            Method::Post => client.post(url),
        };
        let mut response = request.send().await?;
        let status = response.status().as_u16();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            body.extend_from_slice(&chunk);
            if body.len() > 64 * 1024 {
                break;
            }
        }
        Ok::<_, reqwest::Error>(Answer { status, body: String::from_utf8_lossy(&body).into_owned() })
    };
    attempt.await.map_err(|error| Error::Http { url: url.to_owned(), problem: root_cause(&error) })
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

/// Ports that nobody listens on, on any address.
fn free_ports(address: IpAddr, count: usize, avoid: &BTreeSet<u16>) -> Result<Vec<Port>, Error> {
    drop(TcpListener::bind(SocketAddr::new(address, 0)).map_err(|source| Error::Address { address, source })?);
    let found: anyhow::Result<Vec<Port>> = (0..count).map(|_| Port::reserve_in(&TASKS, address, avoid)).collect();
    found.map_err(|problem| Error::NoPorts { count, problem: format!("{problem:#}") })
}

/// Subcommands of this program that run inside a host's wrapper. Not meant for people.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Helper {
    /// One HTTP call; prints the answer as JSON.
    Http {
        /// GET or POST.
        method: String,
        /// Whole address.
        url: String,
        /// Limit for the whole call.
        timeout_ms: u64,
    },
    /// Prints free ports as JSON.
    Ports {
        /// Address they have to be free on.
        address: IpAddr,
        /// How many.
        count: usize,
        /// Ports to leave out, as a JSON array.
        avoid: String,
    },
    /// Keeps nodes in ZooKeeper until the input ends.
    Announce {
        /// What to keep, as JSON.
        nodes: String,
    },
}

impl Helper {
    /// Does it and returns the JSON to print: `{"Ok": ...}` or `{"Err": "problem"}`. Announcing prints by itself.
    pub async fn run(self) -> String {
        match self {
            Helper::Http { method, url, timeout_ms } => {
                let method = match method.as_str() {
                    "POST" => Method::Post,
                    _ => Method::Get,
                };
                let answer = call(method, &url, Duration::from_millis(timeout_ms)).await;
                json(answer.map_err(|error| match error {
                    Error::Http { problem, .. } => problem,
                    other => other.to_string(),
                }))
            }
            Helper::Ports { address, count, avoid } => {
                let avoid = serde_json::from_str(&avoid).unwrap_or_default();
                let ports = free_ports(address, count, &avoid);
                let numbers = ports.map(|ports| ports.iter().map(Port::number).collect::<Vec<u16>>());
                json(numbers.map_err(|error| error.to_string()))
            }
            Helper::Announce { nodes } => match serde_json::from_str(&nodes) {
                Ok(nodes) => {
                    remote::keep(nodes).await;
                    json(Ok(()))
                }
                Err(error) => json::<()>(Err(error.to_string())),
            },
        }
    }
}

fn json<T: Serialize>(result: Result<T, String>) -> String {
    // Plain data with string keys always serialises.
    serde_json::to_string(&result).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ports_of_tasks_are_below_those_of_connections_and_held_while_they_run() {
        let on_host = OnHost { spawner: Spawner::new().unwrap(), program: PathBuf::new(), reserved: Arc::default() };
        let host = Host {
            name: "h".into(),
            address: IpAddr::from([127, 0, 0, 1]),
            wrapper: Vec::new(),
            attributes: Default::default(),
            host_id: None,
        };
        let first = on_host.free_ports(&host, 3, &BTreeSet::new()).await.unwrap();
        let running: BTreeSet<u16> = first.iter().copied().collect();
        assert_eq!(running.len(), 3);
        assert!(first.iter().all(|port| TASKS.contains(port)));
        let held = |ports: &[u16]| {
            ports.iter().all(|port| Port::reserve_in(&(*port..*port + 1), host.address, &BTreeSet::new()).is_err())
        };
        assert!(held(&first));
        let second = on_host.free_ports(&host, 3, &running).await.unwrap();
        assert!(second.iter().all(|port| !running.contains(port)) && held(&first) && held(&second));
        on_host.free_ports(&host, 1, &BTreeSet::new()).await.unwrap();
        assert!(!held(&first[..1]), "an ended task's port is still held");
    }

    #[test]
    fn an_address_of_another_machine_is_an_error() {
        let error = free_ports(IpAddr::from([192, 0, 2, 1]), 1, &BTreeSet::new()).unwrap_err();
        assert!(matches!(error, Error::Address { .. }), "{error}");
    }
}
