//! `prepare`: fetches a snapshot and finds out whether this instance could start from it, while its server goes on. In the background.
//! Where a snapshot is restored from the stream it is read and judged in the same way, and nothing of it is kept.
//!
//! So whatever speaks against a restore shows before anything is touched, and the pause of the restore need not hold the download.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::restore::{Fault, blamed, shown};
use super::{Done, Halt, refused, restore, start};
use crate::api::Prepared;
use crate::board::Work;
use crate::config::RestoreHow;
use crate::forks;
use crate::node::Node;
use crate::rdb;
use crate::server::Server;
use crate::snapshot::{Manifest, SnapshotId};
use crate::store::{self, Progress, Store};

/// A snapshot that was fetched ahead, or is being fetched.
#[derive(Debug)]
pub(crate) struct Preparing {
    request_id: String,
    snapshot: SnapshotId,
    task: tokio::task::AbortHandle,
    /// Where it lies; absent until it does, and where nothing is kept.
    file: Option<(PathBuf, Manifest)>,
}

/// Begins it; done or under way for the same operation: nothing to do. Another one is given up.
pub(super) fn run(node: &Arc<Node>, server: &Arc<Server>, request_id: String, snapshot: SnapshotId) -> Result<Done, Halt> {
    let Some(store) = node.store.clone() else {
        return Err(refused("no-store", "no store is configured (snapshots.uri): there is nothing to fetch from"));
    };
    if node.restoring.lock().expect("no panic while locked").is_some() {
        return Err(refused("busy", "a snapshot is being restored"));
    }
    let mut preparing = node.preparing.lock().expect("no panic while locked");
    if preparing.as_ref().is_some_and(|known| (&known.request_id, &known.snapshot) == (&request_id, &snapshot)) {
        return Ok(Done::Later);
    }
    if let Some(other) = preparing.take() {
        other.task.abort();
    }
    let source = source(&snapshot);
    node.change(|parts| {
        parts.works.remove(&Work::Restoring);
        parts.prepared = None;
        parts.failed_source = parts.failed_source.take().filter(|failed| failed.source != source);
    });
    let (shared, server, asked) = (node.clone(), server.clone(), (request_id.clone(), snapshot.clone()));
    // Held while the task is spawned: it cannot end before it is noted.
    let task = tokio::spawn(async move {
        let found = prepare(&shared, &server, &store, &asked.1).await;
        finish(&shared, asked, found);
    });
    *preparing = Some(Preparing { request_id, snapshot, task: task.abort_handle(), file: None });
    Ok(Done::Later)
}

fn source(snapshot: &SnapshotId) -> String {
    format!("snapshot:{snapshot}")
}

/// The error says whether the snapshot itself is at fault.
async fn prepare(
    node: &Arc<Node>,
    server: &Server,
    store: &Store,
    snapshot: &SnapshotId,
) -> Result<Option<(PathBuf, Manifest)>, Fault> {
    let manifest = store.manifest(snapshot).await.map_err(blamed)?;
    let program = node.program.get().await.map_err(|why| (false, why))?;
    rdb::can_load(&program.version.to_string(), manifest.rdb).map_err(|why| (true, why.to_string()))?;
    let used = node.look(|parts| parts.info.as_ref().map_or(0, |info| info.used_memory));
    let freed = if server.proof().is_none() { used } else { 0 };
    forks::check_room(manifest.used_memory.unwrap_or(manifest.bytes), freed).map_err(|why| (false, why))?;
    // What the server holds is saved on this disk as well before it ends.
    let by_file = node.config.restore_how == RestoreHow::File;
    let needed = if by_file { manifest.bytes.saturating_add(used) } else { used };
    check_disk(node, needed).map_err(|why| (false, why))?;
    match by_file {
        true => restore::fetch(node, store, snapshot).await.map(Some),
        false => judge(node, store, snapshot, &manifest).await.map(|()| None),
    }
}

/// Reads it as for a server, and lets it go.
async fn judge(node: &Node, store: &Store, snapshot: &SnapshotId, manifest: &Manifest) -> Result<(), Fault> {
    let report = store::Report::new(Progress::default());
    let (taker, mut pieces) = mpsc::channel(1);
    let read = async { store.pieces(snapshot, manifest, taker, &report).await.map_err(blamed) };
    let let_go = async { while pieces.recv().await.is_some() {} };
    let both = async { tokio::join!(read, let_go).0 };
    shown(node, snapshot, &report, both).await
}

fn check_disk(node: &Node, needed: u64) -> Result<(), String> {
    let dir = node.places.data();
    let stat = rustix::fs::statvfs(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if free >= needed {
        return Ok(());
    }
    Err(format!(
        "too little space: what is to be kept (the snapshot, where it is fetched, and a dump of the present data) may take {needed} bytes, and {free} are free in {}",
        dir.display()
    ))
}

fn finish(node: &Node, (request_id, snapshot): (String, SnapshotId), found: Result<Option<(PathBuf, Manifest)>, Fault>) {
    let mut preparing = node.preparing.lock().expect("no panic while locked");
    let Some(known) = preparing.as_mut().filter(|known| known.request_id == request_id) else { return };
    let problem = match found {
        Ok(file) => {
            known.file = file;
            None
        }
        Err((definite, why)) => {
            *preparing = None;
            tracing::warn!(%snapshot, why, "this instance could not start from the snapshot");
            if definite {
                start::report(node, &source(&snapshot), true, &why);
            }
            Some(why)
        }
    };
    drop(preparing);
    node.change(|parts| {
        parts.works.remove(&Work::Restoring);
        parts.solved("restore");
        parts.prepared = Some(Prepared { request_id, snapshot, problem });
    });
}

/// The file that was fetched ahead, for a restore that begins. Whatever else was being fetched is given up: it would lie in the same place.
pub(super) fn taken(node: &Node, snapshot: &SnapshotId) -> Option<(PathBuf, Manifest)> {
    let known = node.preparing.lock().expect("no panic while locked").take()?;
    node.change(|parts| parts.prepared = None);
    known.task.abort();
    known.file.filter(|(path, _)| known.snapshot == *snapshot && path.exists())
}
