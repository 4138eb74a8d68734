//! The agent's life: from its configuration to its end in good order.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::api::{Role, State};
use crate::board::Work;
use crate::causes::chain;
use crate::config::{Config, Program};
use crate::files::Places;
use crate::memory::Notebook;
use crate::node::Node;
use crate::record::{Phase, Record};
use crate::secret::Secret;
use crate::snapshot::Sha256;
use crate::spawn::Spawner;
use crate::store::{self, Progress, Store};
use crate::zk::Keeper;
use crate::{admission, breaks, doors, http, lag, lease, local, obedience, ops, predecessor, promise, records, uploads};

/// Longest wait for the command under way when the agent is to end.
const TURN_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for another server to take over when this one leads and the agent is to end.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(8);
/// Longest wait for the spool when the agent is to end. Aurora leaves a minute after SIGTERM.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest time for the last instance to save what it holds to the store, and of that for Redis to write its dump.
const LAST_TIMEOUT: Duration = Duration::from_secs(50);
const LAST_DUMP_TIMEOUT: Duration = Duration::from_secs(35);
const LOG_CHECK_EVERY: Duration = Duration::from_secs(15);

/// Runs until SIGTERM or SIGINT.
pub fn run(config: Config) -> anyhow::Result<()> {
    // Before the runtime: the spawning thread must be none of its threads.
    let spawner = Spawner::start().context("cannot start the spawning thread")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build()?;
    let ended = runtime.block_on(live(config, spawner));
    runtime.shutdown_timeout(Duration::from_millis(200));
    ended
}

async fn live(config: Config, spawner: Spawner) -> anyhow::Result<()> {
    let places = Places::prepare(&config.sandbox).with_context(|| format!("sandbox {}", config.sandbox.display()))?;
    // Held until the process ends.
    let _lock = places.lock().context("is another agent running in this sandbox?")?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let listeners = listen(&config).await?;
    let node = prepare(config, places, spawner)?;
    for listener in listeners {
        tokio::spawn(http::serve(listener, node.clone()));
    }
    tokio::spawn(lease::mirror(node.clone()));
    tokio::spawn(admission::run(node.clone()));
    tokio::spawn(promise::watch(node.clone()));
    tokio::spawn(records::follow(node.clone()));
    tokio::spawn(obedience::run(node.clone()));
    tokio::spawn(doors::run(node.clone()));
    tokio::spawn(uploads::run(node.clone()));
    tokio::spawn(lag::run(node.clone()));
    tokio::spawn(bound_log(node.clone()));
    tokio::spawn(fetch_program(node.clone()));
    local::inspect(&node).await;
    tracing::info!(http = %node.config.http, redis = %node.config.redis, "agent ready");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("asked to end by a signal");
    tokio::select! {
        () = end_in_good_order(&node) => {}
        _ = terminate.recv() => tracing::warn!("asked again: ending at once"),
        _ = interrupt.recv() => tracing::warn!("asked again: ending at once"),
    }
    Ok(())
}

/// The hub, with what an earlier agent left in this sandbox settled.
fn prepare(config: Config, places: Places, spawner: Spawner) -> anyhow::Result<Arc<Node>> {
    let (notebook, damage) = Notebook::open(&places.memory(), &config.task_id)?;
    predecessor::settle(&notebook, &config.host).map_err(anyhow::Error::msg)?;
    places.put_back().context("the data that was put out of the way for a restore cannot be brought back")?;
    let store = match &config.snapshots_uri {
        Some(uri) => Some(Store::open(uri, &config.cluster, store::Options::reaching(&config.hdfs))?),
        None => None,
    };
    let keeper = Keeper::start(&config.zookeeper, config.zookeeper_session);
    let lease = lease::start(lease::Setup {
        zookeeper: config.zookeeper.clone(),
        session: config.zookeeper_session,
        paths: config.paths.clone(),
        task_id: config.task_id.clone(),
        token: config.secret.as_ref().map(Secret::agent_token),
        broken: breaks::broken(),
    });
    let lease = lease.context("cannot start the lease thread")?;
    let node = Node::new(config, places, notebook, keeper, lease, spawner, store);
    if let Some(warning) = breaks::warning() {
        tracing::error!(warning, "NOT SAFE");
        node.change(|parts| parts.problem("broken-on-purpose", warning));
    }
    if let Some(damage) = damage {
        tracing::error!(damage, "memory lost");
        node.change(|parts| parts.problem("memory-damaged", damage));
    }
    Ok(node)
}

/// The advertised address, and this host's loopback: Aurora's executor asks there.
async fn listen(config: &Config) -> anyhow::Result<Vec<TcpListener>> {
    let address = &config.http;
    let bind = async |host: &str| {
        let listener = TcpListener::bind((host, address.port)).await;
        listener.with_context(|| format!("cannot listen on {host}:{}", address.port))
    };
    let mut listeners = vec![bind(&address.host).await?];
    if address.host != "127.0.0.1" {
        match bind("127.0.0.1").await {
            Ok(listener) => listeners.push(listener),
            // With several addresses on one loopback interface another agent may have this port there.
            Err(error) if address.host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback()) => {
                tracing::warn!(error = format!("{error:#}"), "no health checks on 127.0.0.1");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(listeners)
}

async fn bound_log(node: Arc<Node>) {
    loop {
        tokio::time::sleep(LOG_CHECK_EVERY).await;
        match node.places.bound_log() {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => tracing::warn!(%error, "cannot bound redis.log"),
            _ => {}
        }
    }
}

/// Fetches the server program if it is not found by a path; tried again until it is there.
async fn fetch_program(node: Arc<Node>) {
    let Program::Fetched { uri, sha256 } = &node.config.program else { return };
    let dest = node.places.programs().join(format!("redis-server-{}", &sha256[..12]));
    loop {
        node.change(|parts| parts.work(Work::Fetching, uri, 0, 0));
        let fetched = fetch(&node, uri, sha256, &dest).await;
        node.change(|parts| drop(parts.works.remove(&Work::Fetching)));
        match fetched {
            Ok(()) => {
                node.program.fetched(Ok(dest));
                return node.change(|parts| parts.solved("program"));
            }
            Err(why) => {
                tracing::error!(why, "cannot fetch the server program");
                node.program.fetched(Err(why.clone()));
                node.change(|parts| parts.problem("program", why));
                tokio::time::sleep(Duration::from_secs(10)).await;
            }
        }
    }
}

async fn fetch(node: &Node, uri: &str, sha256: &str, dest: &std::path::Path) -> Result<(), String> {
    let sum: Sha256 = sha256.to_owned().try_into().map_err(|e| format!("redis.server_sha256: {e}"))?;
    let there = dest.to_owned();
    if tokio::task::spawn_blocking(move || has_sum(&there, sum)).await.unwrap_or(false) {
        return Ok(());
    }
    std::fs::create_dir_all(node.places.programs()).map_err(|e| e.to_string())?;
    let report = store::Report::new(Progress::default());
    store::fetch_file(uri, sum, dest, &store::Options::reaching(&node.config.hdfs), &report).await.map_err(|e| chain(&e))
}

/// Whether an earlier agent has fetched that very file.
fn has_sum(path: &std::path::Path, sum: Sha256) -> bool {
    std::fs::read(path).is_ok_and(|bytes| <sha2::Sha256 as sha2::Digest>::digest(bytes)[..] == sum.0)
}

/// Waits until somebody else leads, if this server leads and others hold its data; then ends as [`end_now`]. Until the record names the other
/// one, the controller needs this agent: for its fence, and for the offset that was reached.
async fn end_in_good_order(node: &Arc<Node>) {
    node.change(|parts| parts.stopping = true);
    let state = node.state();
    let has_replicas = state.redis.is_some_and(|redis| redis.connected_replicas > 0);
    if state.role == Role::Master && state.serving && has_replicas {
        tracing::info!(limit = ?HAND_OVER_TIMEOUT, "this server leads: waiting until another one takes over");
        let mut records = node.records.subscribe();
        let another_leads =
            records.wait_for(|seen| seen.as_ref().is_some_and(|seen| names_another(&seen.record, &node.config.task_id)));
        tokio::select! {
            _ = another_leads => tracing::info!("another server leads"),
            () = node.aborted.notified() => tracing::warn!("asked to end at once"),
            () = tokio::time::sleep(HAND_OVER_TIMEOUT) => tracing::warn!("nobody took over in time"),
        }
    }
    end_now(node).await;
}

fn names_another(record: &Record, task_id: &str) -> bool {
    let in_office = matches!(record.phase, Phase::Promoting | Phase::Stable);
    in_office && record.master.as_ref().is_some_and(|master| master.task_id != task_id)
}

/// Sends clients away, ends the server, and gives the spool its time. What is in the spool then still goes when an agent starts here again.
///
/// The last instance, a master that no replica follows, saves what it holds to the store first: nobody else has it.
pub(crate) async fn end_now(node: &Arc<Node>) {
    node.change(|parts| parts.stopping = true);
    let begun = tokio::time::Instant::now();
    let turn = tokio::time::timeout(TURN_TIMEOUT, node.turn.lock()).await;
    let last = node.store.is_some() && is_last(&node.state());
    let ended = if last { save_last_and_end(node).await } else { ops::stop::run(node).await };
    if let Err(ops::Halt::Failed { message, .. }) = ended {
        tracing::error!(message, "the server could not be stopped");
    }
    drop(turn);
    let limit = if last { LAST_TIMEOUT.saturating_sub(begun.elapsed()) } else { FLUSH_TIMEOUT };
    if node.store.is_some() && !node.uploads.flushed(node, limit).await {
        match last {
            true => not_saved(node, "its dump did not get into the store in time"),
            false => tracing::warn!("dumps are left in the spool"),
        }
    }
}

/// Whether nobody else holds the data: a master in office that no replica follows.
fn is_last(state: &State) -> bool {
    let alone = state.redis.as_ref().is_some_and(|redis| redis.connected_replicas == 0 && redis.keys > 0);
    state.role == Role::Master && state.serving && alone
}

/// Writes are held back, so that the dump holds all that was confirmed, and nobody is served again.
async fn save_last_and_end(node: &Arc<Node>) -> Result<ops::Done, ops::Halt> {
    tracing::info!(limit = ?LAST_TIMEOUT, "this is the last instance: saving what it holds to the store");
    if let Some(server) = node.server()
        && let Err(why) = node.lease.hold(&server, LAST_TIMEOUT).await
    {
        tracing::warn!(why, "writes could not be held back: what is written from now on is in no snapshot");
    }
    match tokio::time::timeout(LAST_DUMP_TIMEOUT, ops::stop::run(node)).await {
        Ok(Ok(done)) => return Ok(done),
        Ok(Err(ops::Halt::Failed { message, .. } | ops::Halt::Refused(crate::gate::Refusal { message, .. }))) => {
            not_saved(node, &message);
        }
        Err(_) => not_saved(node, "Redis did not write its dump in time"),
    }
    ops::stop::end(node).await
}

fn not_saved(node: &Node, why: &str) {
    let message = format!("the last instance ends, and what it held is not in the store: {why}");
    tracing::error!(message);
    node.change(|parts| parts.problem("last-dump", message));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Redis;

    #[test]
    fn only_a_serving_master_with_data_and_without_replicas_is_the_last() {
        let state = |role, serving, connected_replicas, keys| State {
            role,
            serving,
            redis: Some(Redis { connected_replicas, keys, ..Redis::default() }),
            ..State::default()
        };
        for (name, state, expected) in [
            ("the last", state(Role::Master, true, 0, 1), true),
            ("a master with a replica", state(Role::Master, true, 1, 1), false),
            ("a replica", state(Role::Replica, true, 0, 1), false),
            ("a master that is not in office", state(Role::Master, false, 0, 1), false),
            ("an empty one", state(Role::Master, true, 0, 0), false),
            ("no server", State::default(), false),
        ] {
            assert_eq!(is_last(&state), expected, "{name}");
        }
    }
}
