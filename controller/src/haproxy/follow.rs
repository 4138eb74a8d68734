//! `haproxy follow`: compares HAProxy's slots with Aurora's serverset on every change and each second, and puts right what differs.
//!
//! Nothing is remembered but what was said: HAProxy may be restarted (its slots come back empty and are filled again), and while ZooKeeper
//! is away the last known members stay.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use agent::zk::Children;
use aurora::serverset::{Endpoint, Member, youngest_by_shard};
use tokio::sync::watch;

use super::runtime::{self, Runtime};
use super::slots::{Target, fill};
use super::{MASTER_BACKEND, REPLICAS_BACKEND};

/// HAProxy is looked at this often even without a change in the serverset.
const EVERY: Duration = Duration::from_secs(1);
/// Longest wait for a host name.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a round could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The serverset has not been read yet.
    #[error("the serverset has not been read yet: {0}")]
    NotRead(String),
    /// HAProxy cannot be asked.
    #[error("HAProxy's slots cannot be read or set")]
    HaProxy(#[from] runtime::Error),
    /// The running HAProxy has another configuration.
    #[error("HAProxy on {socket} has no backend {backend}: its configuration must come from `aurora-redis haproxy config`")]
    NoBackend {
        /// The socket.
        socket: String,
        /// The one missing.
        backend: &'static str,
    },
}

/// Keeps one HAProxy filled.
#[derive(Debug)]
pub struct Follower {
    members: watch::Receiver<Children>,
    runtime: Runtime,
}

impl Follower {
    /// Follows `members`, the watched serverset of the job, for the HAProxy on `socket`.
    pub fn new(members: watch::Receiver<Children>, socket: &Path) -> Follower {
        Follower { members, runtime: Runtime::new(socket) }
    }

    /// One round: brings the slots in line and returns what was changed and what cannot be served, in words.
    pub async fn round(&mut self) -> Result<Vec<String>, Error> {
        let children = self.members.borrow_and_update().clone();
        if !children.read {
            return Err(Error::NotRead(children.problem.unwrap_or_else(|| "ZooKeeper has not answered".into())));
        }
        let (targets, mut said) = targets(&children).await;
        said.extend(children.problem.map(|problem| format!("ZooKeeper is away, the last known members stay: {problem}")));
        let slots = self.runtime.slots().await?;
        for backend in [MASTER_BACKEND, REPLICAS_BACKEND] {
            if !slots.iter().any(|slot| slot.backend == backend) {
                return Err(Error::NoBackend { socket: self.runtime.socket().display().to_string(), backend });
            }
            let filling = fill(backend, &slots, &targets);
            for change in filling.changes {
                self.runtime.run(&change.commands).await?;
                said.push(change.what);
            }
            said.extend(
                filling
                    .left_out
                    .into_iter()
                    .map(|name| format!("{backend}: no slot is left for {name}; print a configuration with more")),
            );
        }
        Ok(said)
    }

    /// Rounds for ever. `say` gets each change, and each lasting problem once.
    pub async fn run(&mut self, mut say: impl FnMut(&str)) {
        let mut before: Vec<String> = Vec::new();
        loop {
            let said = self.round().await.unwrap_or_else(|error| vec![agent::causes::chain(&error)]);
            said.iter().filter(|line| !before.contains(line)).for_each(|line| say(line));
            before = said;
            // A serverset that nobody watches any more (cannot be: we hold it) would end the wait at once; so bound it from below too.
            if let Ok(Err(_)) = tokio::time::timeout(EVERY, self.members.changed()).await {
                tokio::time::sleep(EVERY).await;
            }
        }
    }
}

/// The members that can be served, by instance, and what is wrong with the others.
async fn targets(children: &Children) -> (Vec<Target>, Vec<String>) {
    let mut problems = Vec::new();
    let members = children.nodes.iter().filter(|(name, _)| aurora::serverset::sequence(name).is_some());
    let parsed = members.filter_map(|(name, data)| match Member::parse(data) {
        Ok(member) => Some((name.clone(), member)),
        Err(error) => {
            problems.push(format!("{name} is left out: {error}"));
            None
        }
    });
    let mut targets = Vec::new();
    for (shard, member) in youngest_by_shard(parsed.collect::<Vec<_>>()) {
        let name = format!("instance {shard}");
        let redis = member.additional_endpoints.get("redis").unwrap_or(&member.service_endpoint);
        let Some(health) = member.additional_endpoints.get("health") else {
            problems.push(format!("{name} is left out: it announces no port named health"));
            continue;
        };
        match (resolve(redis).await, resolve(health).await) {
            (Ok(redis), Ok(agent)) => targets.push(Target { name, redis, agent }),
            (Err(problem), _) | (_, Err(problem)) => problems.push(format!("{name} is left out: {problem}")),
        }
    }
    (targets, problems)
}

async fn resolve(endpoint: &Endpoint) -> Result<SocketAddr, String> {
    let Endpoint { host, port } = endpoint;
    if *port == 0 {
        return Err("it announces port 0".into());
    }
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, *port));
    }
    match tokio::time::timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host((host.as_str(), *port))).await {
        // The lowest: several addresses of one name come in any order, and the slot should not move each second.
        Ok(Ok(found)) => found.min().ok_or_else(|| format!("host {host} has no address")),
        Ok(Err(error)) => Err(format!("host {host} is not found: {error}")),
        Err(_) => Err(format!("host {host} is not found within {RESOLVE_TIMEOUT:?}")),
    }
}

#[cfg(test)]
mod tests;
