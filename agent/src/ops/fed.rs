//! A restore without the disk: the server is started closed and empty, as a replica, and is given the snapshot as it comes from the store by [`crate::feed`].
//!
//! Called by [`super::restore`]. Until all of it is in the server, the server counts as loading and holds no copy, whatever it says of itself; one that dies,
//! or whose snapshot breaks off, is ended, and what lay in its directory is put back. In the end it is a closed master whose history continues the
//! snapshot's, exactly as if it had been started from a file.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use uuid::Uuid;

use super::launch::{Start, launch};
use super::prepare;
use super::restore::{Fault, blamed, by_us, shown, still_wanted};
use crate::api::Position;
use crate::board::Holds;
use crate::causes::chain;
use crate::clock::unix_ms;
use crate::feed::{Door, Guest};
use crate::files;
use crate::local;
use crate::memory::DumpNote;
use crate::node::Node;
use crate::program::Ready;
use crate::rdb;
use crate::redis::connection::Error;
use crate::server::{Birth, ROLE_TIMEOUT, Server};
use crate::snapshot::{Manifest, SnapshotId};
use crate::store::{Progress, Report, Store};

/// Pieces between the one who judges and the one who gives.
const AHEAD: usize = 1;
/// Longest wait for the server to come for its copy: it looks for its master once a second.
const COME_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the server may wait for the next bytes, seconds. The store's own patience ends sooner.
const PATIENCE_S: &str = "3600";
/// Once it has everything: without a sign of work for so long it will not come to its end.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long the proof of death may lag behind the end of the connection.
const PROOF_AFTER: Duration = Duration::from_secs(1);

/// Restores the snapshot.
pub(super) async fn restore(node: &Arc<Node>, store: &Store, snapshot: &SnapshotId, birth: &Birth) -> Result<(), Fault> {
    // It was judged ahead, perhaps; nothing was kept.
    let _ = prepare::taken(node, snapshot);
    let report = Report::new(Progress::default());
    let manifest = shown(node, snapshot, &report, store.manifest_patiently(snapshot, &report)).await.map_err(blamed)?;
    let program = node.program.get().await.map_err(|why| (false, why))?;
    rdb::can_load(&program.version.to_string(), manifest.rdb).map_err(|why| (true, why.to_string()))?;
    let door = Door::open().await.map_err(|e| (false, format!("nothing can be opened on the loopback: {e}")))?;
    let restored = async {
        let server = start(node, birth, program).await?;
        let load = load(node, store, &server, (snapshot, &manifest), door, &report);
        match shown(node, snapshot, &report, load).await {
            Err((false, why)) => Err((false, explained(node, &server, why).await)),
            loaded => loaded,
        }
    };
    let restored = restored.await;
    if restored.is_err() {
        let _turn = node.turn.lock().await;
        clean_up(node).await;
    }
    restored
}

/// Starts the server with nothing; what lay in its directory is held.
async fn start(node: &Arc<Node>, birth: &Birth, program: Ready) -> Result<Arc<Server>, Fault> {
    let _turn = node.turn.lock().await;
    still_wanted(node, birth)?;
    node.places.hold_data().map_err(|e| (false, format!("the sandbox: {e}")))?;
    launch(node, Start { program, birth: birth.clone(), replica: true, holds: Holds::Fed, beside: false })
        .await
        .map_err(by_us)?;
    node.server().ok_or_else(|| (false, "the server ended at once".into()))
}

/// Has the server load all of it.
async fn load(
    node: &Arc<Node>,
    store: &Store,
    server: &Arc<Server>,
    (snapshot, manifest): (&SnapshotId, &Manifest),
    door: Door,
    report: &Report,
) -> Result<(), Fault> {
    let timeout = invite(server, &door).await.map_err(|e| (false, chain(&e)))?;
    let mut guest = door.guest(COME_TIMEOUT).await.map_err(ours)?;
    let position = manifest.position.clone().unwrap_or_else(unheard_of);
    let (taker, pieces) = mpsc::channel(AHEAD);
    let read = async { store.pieces(snapshot, manifest, taker, report).await.map_err(blamed) };
    let give = async { guest.give(&position, manifest.bytes, pieces).await.map_err(ours) };
    tokio::try_join!(read, give)?;
    until_loaded(node, server, &mut guest).await.map_err(ours)?;
    // The link is kept until the server wants none any more.
    settle(node, server, manifest, &timeout).await
}

fn ours(why: String) -> Fault {
    (false, why)
}

/// A history of nobody, for a snapshot that does not know its own.
fn unheard_of() -> Position {
    let random = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    Position { replid: random[..40].to_owned(), offset: 0 }
}

/// Has the server come to the door; what its timeout was before.
async fn invite(server: &Server, door: &Door) -> Result<String, Error> {
    let found = server.tell("CONFIG GET repl-timeout", ROLE_TIMEOUT).await?;
    let found: Vec<String> = redis::from_redis_value(found).unwrap_or_default();
    // It has nothing that a load could spoil, and shall not write what it gets to the disk.
    server.set("repl-diskless-load", "on-empty-db", ROLE_TIMEOUT).await?;
    server.set("repl-timeout", PATIENCE_S, ROLE_TIMEOUT).await?;
    server.set("masteruser", &door.user, ROLE_TIMEOUT).await?;
    server.set("masterauth", &door.password, ROLE_TIMEOUT).await?;
    server.change_role(&format!("REPLICAOF 127.0.0.1 {}", door.port), ROLE_TIMEOUT).await?;
    Ok(found.into_iter().nth(1).unwrap_or_else(|| "15".into()))
}

/// Waits until the server says that it has it, as long as it works.
async fn until_loaded(node: &Node, server: &Arc<Server>, guest: &mut Guest) -> Result<(), String> {
    let looks = async {
        let (mut worked, mut since) = (None, Instant::now());
        loop {
            if let Ok(info) = server.info(Duration::from_secs(2)).await {
                let done = info.link == Some(true) && !info.loading && !info.syncing;
                node.observe(server, info);
                if done {
                    return Ok(());
                }
            }
            let now = server.effort().map(|(ticks, _)| ticks);
            if now != worked {
                (worked, since) = (now, Instant::now());
            }
            if since.elapsed() > IDLE_TIMEOUT {
                return Err(format!("the server has got all of the snapshot, and has done nothing with it for {IDLE_TIMEOUT:?}"));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::select! {
        done = looks => done,
        why = guest.hangs_up() => Err(why),
    }
}

/// Makes it a server like any that was started from a file: closed, a master, with a history of its own that continues the snapshot's. Only then it
/// holds a whole copy.
async fn settle(node: &Arc<Node>, server: &Arc<Server>, manifest: &Manifest, timeout: &str) -> Result<(), Fault> {
    let _turn = node.turn.lock().await;
    if !node.server().is_some_and(|current| Arc::ptr_eq(&current, server)) {
        return Err(ours("the server ended".into()));
    }
    let told = async {
        server.change_role("REPLICAOF NO ONE", ROLE_TIMEOUT).await?;
        let settings = [("repl-diskless-load", "disabled"), ("repl-timeout", timeout), ("masteruser", ""), ("masterauth", "")];
        for (key, value) in settings {
            server.set(key, value, ROLE_TIMEOUT).await?;
        }
        node.refresh(server).await
    };
    told.await.map_err(|e| (false, chain(&e)))?;
    let epoch = node.notebook.get().dump.map_or(0, |note| note.epoch);
    // A server whose modules cannot do without writes the copy to the disk after all.
    let left = files::mark(&node.places.dump()).map_err(|e| (false, e.to_string()))?;
    node.places.set_held_aside(epoch, unix_ms()).map_err(|e| (false, format!("the old data could not be set aside: {e}")))?;
    let note = left.map(|mark| DumpNote { inode: mark.inode, epoch: manifest.epoch });
    node.notebook.change(|memory| memory.dump = note).map_err(|e| (false, chain(&e)))?;
    node.change(|parts| (parts.duty.fed, parts.duty.complete) = (false, true));
    tracing::info!(run_id = server.run_id(), source = server.birth.source, "the server has all of the snapshot, past the disk");
    Ok(())
}

/// Why it went wrong, with the server's death if that is the reason.
async fn explained(node: &Node, server: &Server, why: String) -> String {
    match server.wait_dead(PROOF_AFTER).await {
        Some(proof) => format!("the server ended while it loaded ({proof}): {}", node.places.log_tail()),
        None => why,
    }
}

/// Ends a server that has not all of its snapshot, and brings back what lay in its place. Asked with the turn held.
pub(super) async fn clean_up(node: &Node) {
    let half = node.server().filter(|_| node.look(|parts| parts.duty.fed));
    if let Some(server) = half {
        // Its end is our doing.
        node.change(|parts| parts.duty.withdrawn = true);
        server.kill().await;
        node.without(&server).await;
    }
    match node.places.put_back() {
        Ok(false) => {}
        Ok(true) => local::inspect(node).await,
        Err(error) => {
            let text = format!("what the server's directory held before the restore could not be brought back: {error}");
            tracing::error!(text);
            node.change(|parts| parts.problem("held", text));
        }
    }
}
