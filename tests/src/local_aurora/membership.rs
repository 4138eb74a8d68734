//! Ephemeral nodes in ZooKeeper, kept there until told to leave: made again when the session expires or somebody
//! deletes them. Used for the scheduler's own nodes and, one session per task, for announced tasks.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use zookeeper_client::{Acls, Client, CreateMode, Error, SessionState};

use super::hosts::Host;
use super::on_host::OnHost;
use super::remote;

/// Limit for one call to ZooKeeper.
const CALL: Duration = Duration::from_secs(5);

/// Limit for the calls made on leaving; then the session's end removes the nodes.
const LEAVE: Duration = Duration::from_secs(1);

/// What to keep in ZooKeeper.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Nodes {
    /// Connect string.
    pub ensemble: String,
    /// Session timeout asked for.
    pub session_timeout: Duration,
    /// Pause after a failure.
    pub retry: Duration,
    /// Where; made with its parents as persistent nodes.
    pub directory: String,
    /// Name before the sequence number, and content, of each node.
    pub entries: Vec<(String, Vec<u8>)>,
}

/// Nodes that are kept. Dropping it takes them away in the background.
pub struct Membership {
    leave: oneshot::Sender<()>,
    present: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

impl Membership {
    /// Starts making the nodes in the background.
    pub fn start(nodes: Nodes) -> Self {
        Self::run(|tell, leaving| keep(nodes, tell, leaving))
    }

    /// As [`Membership::start`], by a process of its own on `host`.
    pub fn start_on(nodes: Nodes, host: &Host, on_host: &OnHost) -> Self {
        let (host, on_host) = (host.clone(), on_host.clone());
        Self::run(|tell, leaving| remote::relay(nodes, host, on_host, tell, leaving))
    }

    fn run<F>(keep: impl FnOnce(watch::Sender<bool>, oneshot::Receiver<()>) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (leave, leaving) = oneshot::channel();
        let (tell, present) = watch::channel(false);
        let task = tokio::spawn(keep(tell, leaving));
        Self { leave, present, task }
    }

    /// Whether the nodes exist at the moment, as far as known.
    pub fn present(&self) -> watch::Receiver<bool> {
        self.present.clone()
    }

    /// Takes the nodes away; the handle ends when they are gone or could not be deleted in time.
    pub fn leave(self) -> JoinHandle<()> {
        let _ = self.leave.send(());
        self.task
    }
}

async fn keep(nodes: Nodes, tell: watch::Sender<bool>, mut leaving: oneshot::Receiver<()>) {
    loop {
        tokio::select! {
            // An error means that the other end was dropped: the same wish.
            _ = &mut leaving => return,
            joined = join(&nodes) => match joined {
                Ok((client, paths)) => {
                    tell.send_replace(true);
                    let stays = stay(&client, &paths, &mut leaving).await;
                    tell.send_replace(false);
                    if !stays {
                        return;
                    }
                }
                Err(error) => {
                    let directory = &nodes.directory;
                    tracing::warn!(directory, %error, "cannot register in ZooKeeper, trying again");
                    tokio::select! {
                        _ = &mut leaving => return,
                        () = tokio::time::sleep(nodes.retry) => {}
                    }
                }
            }
        }
    }
}

/// Makes the nodes in a new session; returns their whole paths.
async fn join(nodes: &Nodes) -> Result<(Client, Vec<String>), Error> {
    let connecting = Client::connector()
        .with_session_timeout(nodes.session_timeout)
        .with_server_version(3, 4, 6)
        .with_fail_eagerly()
        .connect(&nodes.ensemble);
    let client = limit(CALL, connecting).await?;
    let persistent = CreateMode::Persistent.with_acls(Acls::anyone_all());
    limit(CALL, client.mkdir(&nodes.directory, &persistent)).await?;
    let mode = CreateMode::EphemeralSequential.with_acls(Acls::anyone_all());
    let mut paths = Vec::new();
    for (name, data) in &nodes.entries {
        let prefix = format!("{}/{name}", nodes.directory);
        let (_, sequence) = limit(CALL, client.create(&prefix, data, &mode)).await?;
        paths.push(format!("{prefix}{sequence}"));
    }
    Ok((client, paths))
}

/// Waits until the nodes have to be made again (true) or have been taken away by request (false).
async fn stay(client: &Client, paths: &[String], leaving: &mut oneshot::Receiver<()>) -> bool {
    tokio::select! {
        _ = leaving => {
            for path in paths {
                let _ = limit(LEAVE, client.delete(path, None)).await;
            }
            false
        }
        () = lost(client, paths) => true,
    }
}

async fn lost(client: &Client, paths: &[String]) {
    let mut states = client.state_watcher();
    let expired = async {
        let mut state = client.state();
        while !state.is_terminated() {
            state = states.changed().await;
        }
    };
    let deleted = futures_util::future::select_all(paths.iter().map(|path| Box::pin(gone(client, path))));
    tokio::select! {
        () = expired => {}
        _ = deleted => {}
    }
}

/// Ends when the node does not exist.
async fn gone(client: &Client, path: &str) {
    loop {
        match client.check_and_watch_stat(path).await {
            Ok((None, _)) => return,
            Ok((Some(_), watcher)) => {
                watcher.changed().await;
            }
            // Connection trouble: the session either comes back or expires.
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
        if client.state() == SessionState::Closed {
            return;
        }
    }
}

async fn limit<T>(time: Duration, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::time::timeout(time, call).await.unwrap_or(Err(Error::Timeout))
}
