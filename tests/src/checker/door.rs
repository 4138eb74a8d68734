//! How a writer learns who is master: as a client of the cluster would, through one of its doors.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Session of a client at the ZooKeeper door, and the wait after one that could not be had.
const SESSION: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_millis(200);
/// Longest wait for one agent's answer.
const ANSWER: Duration = Duration::from_millis(500);

/// Where to ask.
#[derive(Clone, Debug)]
pub enum Door {
    /// The node in ZooKeeper that holds the master's `host:port`, followed by a watch. While ZooKeeper is away the last answer stands.
    ZooKeeper {
        /// Connect string.
        connect: String,
        /// Path of the node.
        node: String,
    },
    /// `GET /master` of each agent, answered by status code.
    Agents(Vec<Member>),
    /// Addresses of servers, one after the other: a client that is told nothing. With one address: one that stays whatever happens.
    Fixed(Vec<String>),
}

/// An agent and its server.
#[derive(Clone, Debug)]
pub struct Member {
    /// `host:port` of the agent.
    pub agent: String,
    /// `host:port` of its server.
    pub server: String,
}

/// A door opened by one writer.
#[derive(Debug)]
pub(super) enum Seeker {
    Watch { seen: watch::Receiver<Option<String>>, _follower: Aborted },
    Agents(Vec<Member>, reqwest::Client),
    Fixed(Vec<String>, usize),
}

/// A task that ends with its owner.
#[derive(Debug)]
pub(super) struct Aborted(JoinHandle<()>);

impl Drop for Aborted {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Door {
    /// Opens it inside the writer's runtime, and so in the network namespace the writer lives in.
    pub(super) fn open(&self) -> Result<Seeker> {
        Ok(match self.clone() {
            Door::ZooKeeper { connect, node } => {
                let (found, seen) = watch::channel(None);
                Seeker::Watch { seen, _follower: Aborted(tokio::spawn(follow(connect, node, found))) }
            }
            Door::Agents(members) => Seeker::Agents(members, reqwest::Client::builder().timeout(ANSWER).build()?),
            Door::Fixed(addresses) => Seeker::Fixed(addresses, 0),
        })
    }
}

impl Seeker {
    /// The master's address, as far as this door knows.
    pub(super) async fn ask(&mut self) -> Result<String> {
        match self {
            Seeker::Watch { seen, .. } => seen.borrow().clone().context("the master's node has not been read"),
            Seeker::Agents(members, http) => {
                for member in members.iter() {
                    let answer = http.get(format!("http://{}/master", member.agent)).send().await;
                    if answer.is_ok_and(|answer| answer.status().is_success()) {
                        return Ok(member.server.clone());
                    }
                }
                bail!("no agent says that it has the master")
            }
            Seeker::Fixed(addresses, next) => {
                let address = addresses.get(*next % addresses.len().max(1)).context("no address")?.clone();
                *next += 1;
                Ok(address)
            }
        }
    }
}

/// Keeps `found` at what the node holds, over any number of sessions.
async fn follow(connect: String, node: String, found: watch::Sender<Option<String>>) {
    loop {
        let _ = read_on(&connect, &node, &found).await;
        tokio::time::sleep(AGAIN).await;
    }
}

/// Reads the node at every change, until the session is lost.
async fn read_on(connect: &str, node: &str, found: &watch::Sender<Option<String>>) -> Result<()> {
    let connector = zookeeper_client::Client::connector().with_session_timeout(SESSION).with_server_version(3, 4, 6);
    let client = connector.connect(connect).await?;
    loop {
        let changed = match client.get_and_watch_data(node).await {
            Ok((bytes, _, changed)) => {
                found.send_replace(Some(String::from_utf8(bytes).context("the master's node")?));
                changed
            }
            Err(zookeeper_client::Error::NoNode) => {
                let (there, changed) = client.check_and_watch_stat(node).await?;
                if there.is_some() {
                    continue;
                }
                changed
            }
            Err(e) => return Err(e.into()),
        };
        if changed.changed().await.event_type == zookeeper_client::EventType::Session {
            bail!("the session is lost");
        }
    }
}
