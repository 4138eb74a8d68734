//! ZooKeeper as both binaries use it: one supervised session, bounded reads, watched nodes.
//!
//! Speaks to ZooKeeper 3.4.6 and newer: oneshot watches only, no create inside a multi. A lost session is replaced by a new one;
//! who keeps ephemeral nodes subscribes to [`Keeper::sessions`] and makes them again.

use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::sync::watch;
use zookeeper_client as zk;

/// Longest wait for one answer of ZooKeeper.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// A watched node is read again after this long even without an event, against missed watches.
const REREAD: Duration = Duration::from_secs(10);

/// What can go wrong with one call.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No session at the moment.
    #[error("no session with ZooKeeper {ensemble}: {problem}")]
    NoSession {
        /// Connect string.
        ensemble: String,
        /// The last failure.
        problem: String,
    },
    /// The call failed; see [`Error::is_definite`].
    #[error("ZooKeeper refused to {what} {path}")]
    Call {
        /// Verb.
        what: &'static str,
        /// Node.
        path: String,
        /// Why.
        #[source]
        source: zk::Error,
    },
    /// No answer in time: perhaps done.
    #[error("ZooKeeper did not answer within {CALL_TIMEOUT:?} when asked to {what} {path}")]
    Timeout {
        /// Verb.
        what: &'static str,
        /// Node.
        path: String,
    },
    /// The node holds something else than expected.
    #[error("node {path} holds no valid {expected} ({message}); restore its content or remove the node")]
    Content {
        /// Node.
        path: String,
        /// What it should hold.
        expected: &'static str,
        /// What is wrong, and where.
        message: String,
    },
}

impl Error {
    /// Whether the call certainly changed nothing.
    pub fn is_definite(&self) -> bool {
        match self {
            Error::NoSession { .. } | Error::Content { .. } => true,
            Error::Timeout { .. } => false,
            Error::Call { source, .. } => {
                !matches!(source, zk::Error::ConnectionLoss | zk::Error::Custom(_) | zk::Error::Timeout)
            }
        }
    }
}

/// Awaits one call with the deadline all calls have.
pub async fn call<T>(what: &'static str, path: &str, future: impl Future<Output = Result<T, zk::Error>>) -> Result<T, Error> {
    match tokio::time::timeout(CALL_TIMEOUT, future).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(source)) => Err(Error::Call { what, path: path.into(), source }),
        Err(_) => Err(Error::Timeout { what, path: path.into() }),
    }
}

/// A supervised session: replaced by a new one when it expires. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Keeper {
    ensemble: String,
    session: watch::Receiver<Session>,
}

/// The session of the moment.
#[derive(Clone, Debug)]
pub enum Session {
    /// Connected, or reconnecting within its timeout.
    Up(zk::Client),
    /// None, with the reason.
    Down(String),
}

impl Keeper {
    /// Starts the supervision of a session with `ensemble` (`host:port,…`). Never fails: problems show in [`Keeper::client`].
    pub fn start(ensemble: &str, session_timeout: Duration) -> Keeper {
        let (tx, session) = watch::channel(Session::Down("not connected yet".into()));
        tokio::spawn(supervise(ensemble.to_owned(), session_timeout, tx));
        Keeper { ensemble: ensemble.to_owned(), session }
    }

    /// Connect string.
    pub fn ensemble(&self) -> &str {
        &self.ensemble
    }

    /// The client of the present session.
    pub fn client(&self) -> Result<zk::Client, Error> {
        match &*self.session.borrow() {
            Session::Up(client) => Ok(client.clone()),
            Session::Down(problem) => Err(Error::NoSession { ensemble: self.ensemble.clone(), problem: problem.clone() }),
        }
    }

    /// Whether ZooKeeper answers at the moment: a session is up and connected.
    pub fn connected(&self) -> bool {
        matches!(&*self.session.borrow(), Session::Up(client) if client.state() == zk::SessionState::SyncConnected)
    }

    /// Waits until there is a session, at most `limit`.
    pub async fn ready(&self, limit: Duration) -> Result<zk::Client, Error> {
        let mut sessions = self.session.clone();
        let up = async {
            let _ = sessions.wait_for(|s| matches!(s, Session::Up(_))).await;
        };
        let _ = tokio::time::timeout(limit, up).await;
        self.client()
    }

    /// Follows the session: each new one is a reason to make ephemeral nodes again.
    pub fn sessions(&self) -> watch::Receiver<Session> {
        self.session.clone()
    }
}

async fn supervise(ensemble: String, timeout: Duration, tx: watch::Sender<Session>) {
    loop {
        let connector = zk::Client::connector().with_session_timeout(timeout).with_server_version(3, 4, 6).with_fail_eagerly();
        match tokio::time::timeout(timeout * 2, connector.connect(&ensemble)).await {
            Ok(Ok(client)) => {
                let mut states = client.state_watcher();
                tx.send_replace(Session::Up(client));
                while !states.peek_state().is_terminated() {
                    let _ = states.changed().await;
                }
                tx.send_replace(Session::Down("the session has expired, making a new one".into()));
            }
            Ok(Err(error)) => drop(tx.send_replace(Session::Down(error.to_string()))),
            Err(_) => drop(tx.send_replace(Session::Down(format!("no answer within {:?}", timeout * 2)))),
        }
        if tx.is_closed() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// A node's content and version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Bytes as read.
    pub data: Vec<u8>,
    /// ZooKeeper version, for compare-and-set.
    pub version: i32,
}

impl Node {
    /// Reads the content as JSON; `expected` names it in the error.
    pub fn json<T: DeserializeOwned>(&self, path: &str, expected: &'static str) -> Result<T, Error> {
        serde_json::from_slice(&self.data).map_err(|e| Error::Content {
            path: path.into(),
            expected,
            message: format!("{e}; {} bytes", self.data.len()),
        })
    }
}

/// Reads a node; absent is `None`.
pub async fn read(client: &zk::Client, path: &str) -> Result<Option<Node>, Error> {
    match call("read", path, client.get_data(path)).await {
        Ok((data, stat)) => Ok(Some(Node { data, version: stat.version })),
        Err(Error::Call { source: zk::Error::NoNode, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Options of every persistent node we make.
pub fn persistent() -> zk::CreateOptions<'static> {
    zk::CreateMode::Persistent.with_acls(zk::Acls::anyone_all())
}

/// Makes a persistent node and its ancestors; one that is there already is fine.
pub async fn ensure(client: &zk::Client, path: &str) -> Result<(), Error> {
    match call("make", path, client.mkdir(path, &persistent())).await {
        Err(Error::Call { source: zk::Error::NodeExists, .. }) | Ok(()) => Ok(()),
        Err(error) => Err(error),
    }
}

/// What a watched node showed last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    /// Content; `None` when the node is absent. Kept from before while ZooKeeper is away.
    pub node: Option<Node>,
    /// Whether the node has been read at all.
    pub read: bool,
    /// Why it cannot be read now; absent when all is well.
    pub problem: Option<String>,
}

/// Keeps reading `path` on every change, for as long as somebody listens.
pub fn watch_node(keeper: &Keeper, path: &str) -> watch::Receiver<Watched> {
    let (tx, rx) = watch::channel(Watched::default());
    tokio::spawn(follow_node(keeper.clone(), path.to_owned(), tx));
    rx
}

async fn follow_node(keeper: Keeper, path: String, tx: watch::Sender<Watched>) {
    while !tx.is_closed() {
        let read = read_and_watch(&keeper, &path).await;
        take(&tx, read, |node| Watched { node, read: true, problem: None }, |seen, problem| seen.problem = Some(problem)).await;
    }
}

/// Takes in a reading, and waits until another one is worth it: for the watch, or a little after a failure.
async fn take<T, V: PartialEq>(
    tx: &watch::Sender<V>,
    read: Result<(T, zk::OneshotWatcher), Error>,
    view: impl FnOnce(T) -> V,
    fail: impl FnOnce(&mut V, String),
) {
    match read {
        Ok((value, watcher)) => {
            let now = view(value);
            tx.send_if_modified(|seen| {
                let changed = *seen != now;
                *seen = now;
                changed
            });
            let _ = tokio::time::timeout(REREAD, watcher.changed()).await;
        }
        Err(error) => {
            tx.send_modify(|seen| fail(seen, error.to_string()));
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }
}

async fn read_and_watch(keeper: &Keeper, path: &str) -> Result<(Option<Node>, zk::OneshotWatcher), Error> {
    let client = keeper.client()?;
    match call("read", path, client.get_and_watch_data(path)).await {
        Ok((data, stat, watcher)) => Ok((Some(Node { data, version: stat.version }), watcher)),
        Err(Error::Call { source: zk::Error::NoNode, .. }) => {
            let (stat, watcher) = call("watch", path, client.check_and_watch_stat(path)).await?;
            match stat {
                None => Ok((None, watcher)),
                // Made between the two calls: read it, with the watch that is set already.
                Some(_) => Ok((read(&client, path).await?, watcher)),
            }
        }
        Err(error) => Err(error),
    }
}

/// A directory's children with their data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Children {
    /// Name and content, by name. Kept from before while ZooKeeper is away.
    pub nodes: Vec<(String, Vec<u8>)>,
    /// Whether the directory has been read at all.
    pub read: bool,
    /// Why it cannot be read now; absent when all is well.
    pub problem: Option<String>,
}

/// Keeps reading the children of `path` (absent counts as empty), for as long as somebody listens. Data of a child is read once: members
/// of serversets and election nodes never change theirs.
pub fn watch_children(keeper: &Keeper, path: &str) -> watch::Receiver<Children> {
    let (tx, rx) = watch::channel(Children::default());
    tokio::spawn(follow_children(keeper.clone(), path.to_owned(), tx));
    rx
}

async fn follow_children(keeper: Keeper, path: String, tx: watch::Sender<Children>) {
    while !tx.is_closed() {
        let known = tx.borrow().nodes.clone();
        let read = list_and_watch(&keeper, &path, known).await;
        take(&tx, read, |nodes| Children { nodes, read: true, problem: None }, |seen, problem| seen.problem = Some(problem))
            .await;
    }
}

type Listing = (Vec<(String, Vec<u8>)>, zk::OneshotWatcher);

async fn list_and_watch(keeper: &Keeper, path: &str, known: Vec<(String, Vec<u8>)>) -> Result<Listing, Error> {
    let client = keeper.client()?;
    let (mut names, watcher) = match call("list", path, client.list_and_watch_children(path)).await {
        Ok(listed) => listed,
        Err(Error::Call { source: zk::Error::NoNode, .. }) => {
            let (_, watcher) = call("watch", path, client.check_and_watch_stat(path)).await?;
            return Ok((Vec::new(), watcher));
        }
        Err(error) => return Err(error),
    };
    names.sort();
    let mut nodes = Vec::with_capacity(names.len());
    for name in names {
        if let Some(seen) = known.iter().find(|(n, _)| *n == name) {
            nodes.push(seen.clone());
        } else if let Some(node) = read(&client, &format!("{path}/{name}")).await? {
            nodes.push((name, node.data));
        }
    }
    Ok((nodes, watcher))
}
