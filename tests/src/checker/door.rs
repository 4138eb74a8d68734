//! How a writer learns who is master: as a client of the cluster would, through one of its doors.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// Session of a client at the ZooKeeper door, and the wait after one that could not be had.
const SESSION: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_millis(200);
/// Wait after a connection could not be made or was given up.
const RETRY: Duration = Duration::from_millis(2);

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
    /// Addresses of servers, one after the other: a client that is told nothing. With one address: one that stays whatever happens.
    Fixed(Vec<String>),
    /// What somebody else finds out for all writers, as one program's pool of connections would have it.
    Told(Told),
}

/// A door that somebody else opens. Its writers leave a master that is no longer named, without waiting for an answer, and go to the new one at once.
#[derive(Clone, Debug)]
pub struct Told {
    master: watch::Receiver<Option<String>>,
    lost: Arc<Notify>,
}

impl Told {
    /// A door whose owner says who is master.
    pub fn new() -> (watch::Sender<Option<String>>, Told) {
        let (owner, master) = watch::channel(None);
        (owner, Told { master, lost: Arc::default() })
    }

    /// Who is master now; absent while nobody is named.
    pub fn master(&self) -> Option<String> {
        self.master.borrow().clone()
    }

    /// Rung by writers that cannot write to the master that is named.
    pub fn lost(&self) -> Arc<Notify> {
        self.lost.clone()
    }

    /// Returns once another than `address` is named, or nobody.
    pub(super) async fn changed(&self, address: &str) {
        if self.master.clone().wait_for(|master| master.as_deref() != Some(address)).await.is_err() {
            std::future::pending().await
        }
    }

    /// Returns once somebody is named who is not `address`.
    async fn other(&self, address: &str) {
        let other = |master: &Option<String>| master.as_deref().is_some_and(|master| master != address);
        if self.master.clone().wait_for(other).await.is_err() {
            std::future::pending().await
        }
    }
}

/// A door opened by one writer.
#[derive(Debug)]
pub(super) enum Seeker {
    Watch {
        seen: watch::Receiver<Option<String>>,
        _follower: Aborted,
    },
    Fixed(Vec<String>, usize),
    /// With the address that was answered last.
    Told(Told, String),
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
            Door::Fixed(addresses) => Seeker::Fixed(addresses, 0),
            Door::Told(told) => Seeker::Told(told, String::new()),
        })
    }
}

impl Seeker {
    /// The master's address, as far as this door knows.
    pub(super) async fn ask(&mut self) -> Result<String> {
        match self {
            Seeker::Watch { seen, .. } => seen.borrow().clone().context("the master's node has not been read"),
            Seeker::Fixed(addresses, next) => {
                let address = addresses.get(*next % addresses.len().max(1)).context("no address")?.clone();
                *next += 1;
                Ok(address)
            }
            Seeker::Told(told, last) => {
                *last = told.master().context("nobody is named")?;
                Ok(last.clone())
            }
        }
    }

    /// Returns when a write that has no answer is to be given up: another master is named. Only a door that is told knows.
    pub(super) async fn moved(&self) {
        match self {
            Seeker::Told(told, last) => told.changed(last).await,
            _ => std::future::pending().await,
        }
    }

    /// After a failure: waits a little, at most until another master is named.
    pub(super) async fn pause(&self) {
        match self {
            Seeker::Told(told, last) => {
                if told.master().as_ref() == Some(last) {
                    told.lost.notify_waiters();
                }
                let _ = tokio::time::timeout(RETRY, told.other(last)).await;
            }
            _ => tokio::time::sleep(RETRY).await,
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
