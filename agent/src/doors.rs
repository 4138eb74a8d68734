//! The doors in ZooKeeper: where clients find the master and the replicas. Ephemeral nodes of this agent, made again after a lost session.
//!
//! Invariants: they stand only while the server serves, the master's only while the record names this very run; nothing here ever stops or
//! changes the server: without ZooKeeper clients that know the way go on. The original node has one name for all masters: an agent that comes
//! late to take its own away finds that of the next master there, which is not its to take; should it go all the same, its owner sees
//! that and makes it again at once.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use aurora::serverset::{Endpoint, MEMBER_PREFIX, Member};
use tokio::sync::watch;
use zookeeper_client as zkc;

use crate::api::Role;
use crate::node::Node;
use crate::records;
use crate::zk::{self, Session};

/// Own nodes are looked after this often, for others can delete or overwrite them.
const LOOK_EVERY: Duration = Duration::from_secs(5);
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// Longest wait for the withdrawal before a server is stopped: ZooKeeper may be away.
const WITHDRAW_TIMEOUT: Duration = Duration::from_secs(1);

/// Whether anything is published at the moment, or may be about to be.
#[derive(Debug)]
pub(crate) struct Doors {
    published: watch::Sender<bool>,
}

impl Default for Doors {
    fn default() -> Doors {
        Doors { published: watch::channel(false).0 }
    }
}

impl Doors {
    /// Waits until nothing is published any more, as far as ZooKeeper answers.
    pub async fn withdrawn(&self) {
        let mut published = self.published.subscribe();
        let gone = published.wait_for(|published| !published);
        if tokio::time::timeout(WITHDRAW_TIMEOUT, gone).await.is_err() {
            tracing::warn!("ZooKeeper does not take the doors away now; they go with the session");
        }
    }
}

/// Ends when something happened to a node.
type Event = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Nodes of ours in the present session.
#[derive(Default)]
struct Open {
    session: Option<zkc::SessionId>,
    role: Role,
    paths: Vec<String>,
    /// Nodes of the role before, still to be deleted.
    stale: Vec<String>,
    /// A call failed: there may be a node that `paths` does not know.
    unsure: bool,
    /// Of the original node; absent while it is not ours.
    event: Option<Event>,
}

impl Open {
    async fn event(&mut self) {
        match &mut self.event {
            Some(event) => event.await,
            None => std::future::pending().await,
        }
        self.event = None;
    }
}

/// Runs for as long as the agent does.
pub(crate) async fn run(node: Arc<Node>) {
    let (mut states, mut records, mut sessions) = (node.subscribe(), node.records.subscribe(), node.keeper.sessions());
    let mut open = Open::default();
    let mut looked = tokio::time::Instant::now();
    let mut touched = false;
    loop {
        let session = sessions.borrow_and_update().clone();
        states.borrow_and_update();
        records.borrow_and_update();
        // Before the state is looked at: who then withdraws and waits, waits for the end of this round at least.
        node.doors.published.send_replace(true);
        let wanted = wanted(&node);
        let look = std::mem::take(&mut touched) || looked.elapsed() > LOOK_EVERY;
        let result = match session {
            Session::Up(client) => arrange(&node, &client, wanted, &mut open, look).await,
            Session::Down(_) => {
                open = Open::default();
                Ok(())
            }
        };
        open.unsure |= result.is_err();
        if look {
            looked = tokio::time::Instant::now();
        }
        node.doors.published.send_replace(!(open.paths.is_empty() && open.stale.is_empty()));
        let pause = match &result {
            Ok(()) => LOOK_EVERY,
            Err(error) => {
                tracing::warn!(error = crate::causes::chain(error), ?wanted, "the doors in ZooKeeper are not as they should be");
                RETRY_AFTER
            }
        };
        tokio::select! {
            _ = states.changed() => {}
            _ = records.changed() => {}
            _ = sessions.changed() => {}
            () = open.event() => touched = true,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// The role to be published as, or none.
fn wanted(node: &Node) -> Role {
    let state = node.state();
    let linked = state.redis.as_ref().is_some_and(|redis| redis.link == Some(true) && !redis.syncing);
    match state.role {
        Role::Master if node.in_office() => Role::Master,
        Role::Replica if state.serving && linked => Role::Replica,
        _ => Role::None,
    }
}

async fn arrange(node: &Node, client: &zkc::Client, wanted: Role, open: &mut Open, look: bool) -> Result<(), zk::Error> {
    if open.session != Some(client.session_id()) {
        *open = Open { session: Some(client.session_id()), ..Open::default() };
    }
    if open.role != wanted {
        open.stale.append(&mut open.paths);
        // A new master's clients wait for its node: that it is listed among the replicas for a moment longer harms nobody.
        if wanted != Role::Master {
            withdraw(node, client, &mut open.stale).await?;
        }
        if open.unsure {
            sweep(node, client).await?;
            open.unsure = false;
        }
        open.role = wanted;
    } else if look {
        let mut standing = Vec::new();
        for path in &open.paths {
            if stands(node, client, path).await? {
                standing.push(path.clone());
            }
        }
        open.paths = standing;
    }
    let complete = match wanted {
        Role::Master => 2,
        Role::Replica => 1,
        Role::None => 0,
    };
    if open.paths.len() < complete {
        publish(node, client, open).await?;
        tracing::info!(role = ?wanted, paths = ?open.paths, "published in ZooKeeper");
    }
    let original = open.paths.contains(&node.config.master_node);
    if original && open.event.is_none() {
        watch(node, client, open).await?;
    } else if !original {
        open.event = None;
    }
    withdraw(node, client, &mut open.stale).await
}

/// Has the next round look after the original node when something happens to it, or happened since it was made.
async fn watch(node: &Node, client: &zkc::Client, open: &mut Open) -> Result<(), zk::Error> {
    let path = &node.config.master_node;
    let (stat, watcher) = zk::call("watch", path, client.check_and_watch_stat(path)).await?;
    let stands = stat.is_some_and(|stat| stat.ephemeral_owner == client.session_id().0);
    open.event = Some(Box::pin(async move {
        if stands {
            watcher.changed().await;
        }
    }));
    Ok(())
}

async fn withdraw(node: &Node, client: &zkc::Client, paths: &mut Vec<String>) -> Result<(), zk::Error> {
    while let Some(path) = paths.last() {
        if *path != node.config.master_node || is_ours(client, path).await? {
            delete(client, path).await?;
        }
        paths.pop();
    }
    Ok(())
}

async fn is_ours(client: &zkc::Client, path: &str) -> Result<bool, zk::Error> {
    let stat = zk::call("look at", path, client.check_stat(path)).await?;
    Ok(stat.is_some_and(|stat| stat.ephemeral_owner == client.session_id().0))
}

/// Whether a node is there, ours, and says what it should.
async fn stands(node: &Node, client: &zkc::Client, path: &str) -> Result<bool, zk::Error> {
    let wanted =
        if *path == node.config.master_node { node.config.redis.to_string().into_bytes() } else { member(node).to_json() };
    match zk::call("read", path, client.get_data(path)).await {
        Ok((data, stat)) => Ok(data == wanted && stat.ephemeral_owner == client.session_id().0),
        Err(zk::Error::Call { source: zkc::Error::NoNode, .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes the nodes that are missing or spoilt.
async fn publish(node: &Node, client: &zkc::Client, open: &mut Open) -> Result<(), zk::Error> {
    open.paths.clear();
    if open.role == Role::Master {
        let (dir, content) = (node.config.paths.master_serverset(), node.config.redis.to_string());
        // At once: a new master's clients wait for the first of them.
        let (original, member) = tokio::join!(take_node(node, client, &content), join(node, client, &dir, true));
        open.paths.extend(original.as_ref().ok().cloned());
        open.paths.extend(member.as_ref().ok().cloned());
        return original.and(member).map(drop);
    }
    open.paths.push(join(node, client, &node.config.paths.replicas_serverset(), false).await?);
    Ok(())
}

/// Deletes every node of this session, whatever is known of it.
async fn sweep(node: &Node, client: &zkc::Client) -> Result<(), zk::Error> {
    let paths = &node.config.paths;
    let mut candidates = vec![node.config.master_node.clone()];
    for dir in [paths.master_serverset(), paths.replicas_serverset()] {
        match zk::call("list", &dir, client.list_children(&dir)).await {
            Ok(names) => candidates.extend(names.iter().map(|name| format!("{dir}/{name}"))),
            Err(zk::Error::Call { source: zkc::Error::NoNode, .. }) => {}
            Err(error) => return Err(error),
        }
    }
    for path in candidates {
        if is_ours(client, &path).await? {
            delete(client, &path).await?;
        }
    }
    Ok(())
}

/// The original node: one name, so whoever holds it without being named by the record makes room.
async fn take_node(node: &Node, client: &zkc::Client, content: &str) -> Result<String, zk::Error> {
    let path = node.config.master_node.as_str();
    let options = zkc::CreateMode::Ephemeral.with_acls(zkc::Acls::anyone_all());
    for _ in 0..4 {
        match zk::call("make", path, client.create(path, content.as_bytes(), &options)).await {
            Ok(_) => return Ok(path.to_owned()),
            Err(zk::Error::Call { source: zkc::Error::NoNode, .. }) => {
                ensure_parent(client, path).await?;
                continue;
            }
            Err(zk::Error::Call { source: zkc::Error::NodeExists, .. }) => {}
            Err(error) => return Err(error),
        }
        let read = zk::call("read", path, client.get_data(path)).await;
        if let Ok((data, stat)) = &read
            && stat.ephemeral_owner == client.session_id().0
            && data == content.as_bytes()
        {
            return Ok(path.to_owned());
        }
        tracing::info!(path, "replacing the node of an earlier master");
        replace(node, client, path).await?;
    }
    Err(zk::Error::Content { path: path.into(), expected: "free name", message: "others keep making it".into() })
}

/// Deletes the node of another one, provided that the record is still the one that names this run: one that was frozen meanwhile would take
/// away that of its successor.
async fn replace(node: &Node, client: &zkc::Client, path: &str) -> Result<(), zk::Error> {
    let (seen, run_id) = (node.records.get(), node.server().map(|server| server.run_id().to_owned()));
    let named = records::names(seen.as_deref(), &node.config.task_id, &run_id.unwrap_or_default());
    let Some(seen) = seen.filter(|_| named) else {
        return Err(zk::Error::Content { path: path.into(), expected: "free name", message: "another one leads now".into() });
    };
    let mut writer = client.new_multi_writer();
    let added = writer.add_check_version(&node.config.paths.record(), seen.version).and_then(|()| writer.add_delete(path, None));
    added.map_err(|source| zk::Error::Call { what: "replace", path: path.into(), source })?;
    let commit = async {
        match writer.commit().await {
            Ok(_) | Err(zkc::MultiWriteError::OperationFailed { index: 1, source: zkc::Error::NoNode }) => Ok(()),
            Err(zkc::MultiWriteError::OperationFailed { source, .. } | zkc::MultiWriteError::RequestFailed { source }) => {
                Err(source)
            }
        }
    };
    zk::call("replace", path, commit).await
}

/// A member of ours in a serverset. Those of dead predecessors are removed: in the master's set everybody's (the record names us), else those
/// of our own address, and what somebody wrote into a member of this session.
async fn join(node: &Node, client: &zkc::Client, dir: &str, alone: bool) -> Result<String, zk::Error> {
    let member = member(node);
    let mut own = None;
    let names = match zk::call("list", dir, client.list_children(dir)).await {
        Err(zk::Error::Call { source: zkc::Error::NoNode, .. }) => {
            zk::ensure(client, dir).await?;
            Vec::new()
        }
        listed => listed?,
    };
    for name in names {
        let path = format!("{dir}/{name}");
        let (data, stat) = match zk::call("read", &path, client.get_data(&path)).await {
            Ok(read) => read,
            Err(zk::Error::Call { source: zkc::Error::NoNode, .. }) => continue,
            Err(error) => return Err(error),
        };
        let parsed = Member::parse(&data).ok();
        let ours = stat.ephemeral_owner == client.session_id().0;
        if ours && parsed.as_ref() == Some(&member) && own.is_none() {
            own = Some(path);
        } else if ours || parsed.is_some_and(|m| m.service_endpoint == member.service_endpoint) {
            delete(client, &path).await?;
        } else if alone {
            replace(node, client, &path).await?;
        }
    }
    if let Some(path) = own {
        return Ok(path);
    }
    let options = zkc::CreateMode::EphemeralSequential.with_acls(zkc::Acls::anyone_all());
    let prefix = format!("{dir}/{MEMBER_PREFIX}");
    let (_, sequence) = zk::call("make", &prefix, client.create(&prefix, &member.to_json(), &options)).await?;
    Ok(format!("{prefix}{sequence}"))
}

fn member(node: &Node) -> Member {
    let endpoint = |address: &crate::api::Address| Endpoint { host: address.host.clone(), port: address.port };
    let others = BTreeMap::from([("health".to_owned(), endpoint(&node.config.http))]);
    Member::alive(endpoint(&node.config.redis), others, Some(node.config.instance))
}

async fn ensure_parent(client: &zkc::Client, path: &str) -> Result<(), zk::Error> {
    match path.rsplit_once('/') {
        Some((parent, _)) if !parent.is_empty() => zk::ensure(client, parent).await,
        _ => Ok(()),
    }
}

async fn delete(client: &zkc::Client, path: &str) -> Result<(), zk::Error> {
    match zk::call("delete", path, client.delete(path, None)).await {
        Ok(()) | Err(zk::Error::Call { source: zkc::Error::NoNode, .. }) => Ok(()),
        Err(error) => Err(error),
    }
}
