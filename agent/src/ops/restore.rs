//! `restore`: fetches a snapshot, checked against its manifest, and starts the server, closed, from it. Goes on in the background.

use std::path::PathBuf;
use std::sync::Arc;

use super::launch::{Start, launch};
use super::start::{already, report};
use super::{Done, Halt, failed, refused};
use crate::api::{Epoch, Stamp};
use crate::board::Work;
use crate::causes::chain;
use crate::clock::unix_ms;
use crate::files;
use crate::memory::DumpNote;
use crate::node::Node;
use crate::rdb;
use crate::server::Birth;
use crate::snapshot::{Manifest, SnapshotId};
use crate::store::{self, Progress, Store};

/// A restore under way.
#[derive(Debug)]
pub(crate) struct Restoring {
    birth: Birth,
    task: tokio::task::AbortHandle,
}

/// Begins it; under way already: nothing to do.
pub(super) async fn run(node: &Arc<Node>, stamp: &Stamp, snapshot: SnapshotId) -> Result<Done, Halt> {
    let birth = Birth { source: format!("snapshot:{snapshot}"), epoch: stamp.epoch };
    if already(node, &birth)? {
        return Ok(Done::Now);
    }
    let Some(store) = node.store.clone() else {
        return Err(refused("no-store", "no store is configured (snapshots.uri): there is nothing to restore from"));
    };
    if node.restoring.lock().expect("no panic while locked").as_ref().is_some_and(|running| running.birth == birth) {
        return Ok(Done::Later);
    }
    refuse_while_restoring(node, stamp.epoch)?;
    node.program.get().await.map_err(|why| refused("no-program", why))?;
    let (shared, begun) = (node.clone(), birth.clone());
    // Held while the task is spawned: it cannot end before it is noted.
    let mut restoring = node.restoring.lock().expect("no panic while locked");
    let task = tokio::spawn(async move {
        let result = restore(&shared, &store, &snapshot, &begun).await;
        finish(&shared, &begun, result);
    });
    *restoring = Some(Restoring { birth, task: task.abort_handle() });
    Ok(Done::Later)
}

/// A restore of the same epoch goes on; one of an earlier epoch is given up.
pub(super) fn refuse_while_restoring(node: &Node, epoch: Epoch) -> Result<(), Halt> {
    let running = node.restoring.lock().expect("no panic while locked").as_ref().map(|running| running.birth.clone());
    match running {
        Some(birth) if birth.epoch >= epoch => Err(refused("busy", format!("{} is being restored", birth.source))),
        Some(_) => {
            abort(node);
            Ok(())
        }
        None => Ok(()),
    }
}

/// Gives a restore up. What it fetched so far is never looked at again.
pub(super) fn abort(node: &Node) {
    if let Some(running) = node.restoring.lock().expect("no panic while locked").take() {
        running.task.abort();
        node.change(|parts| drop(parts.works.remove(&Work::Restoring)));
    }
}

fn finish(node: &Node, birth: &Birth, result: Result<(), (bool, String)>) {
    let mut restoring = node.restoring.lock().expect("no panic while locked");
    if restoring.as_ref().is_some_and(|running| running.birth == *birth) {
        *restoring = None;
    }
    drop(restoring);
    node.change(|parts| drop(parts.works.remove(&Work::Restoring)));
    if let Err((definite, why)) = result {
        tracing::warn!(source = birth.source, why, "restore failed");
        report(node, &birth.source, definite, &why);
    }
}

/// The error says whether the snapshot itself is at fault.
async fn restore(node: &Arc<Node>, store: &Store, snapshot: &SnapshotId, birth: &Birth) -> Result<(), (bool, String)> {
    node.change(|parts| parts.work(Work::Restoring, snapshot.as_str(), 0, 0));
    let (path, manifest) = match super::prepare::taken(node, snapshot) {
        Some(prepared) => prepared,
        None => fetch(node, store, snapshot).await?,
    };
    let program = node.program.get().await.map_err(|why| (false, why))?;
    rdb::can_load(&program.version.to_string(), manifest.rdb).map_err(|why| (true, why.to_string()))?;
    let _turn = node.turn.lock().await;
    let overtaken = node.server().is_some() || node.notebook.get().epoch > birth.epoch || node.look(|parts| parts.stopping);
    if overtaken {
        let _ = std::fs::remove_file(&path);
        return Err((false, "overtaken by a later command".into()));
    }
    let started = async {
        put_in_place(node, &path, &manifest)?;
        launch(node, Start { program, birth: birth.clone(), replica: false, complete: true }).await
    };
    started.await.map_err(|halt| match halt {
        Halt::Refused(refusal) => (false, refusal.message),
        Halt::Failed { message, .. } => (false, message),
    })
}

/// Fetches it into the sandbox, judged. The error says whether the snapshot itself is at fault.
pub(super) async fn fetch(node: &Arc<Node>, store: &Store, snapshot: &SnapshotId) -> Result<(PathBuf, Manifest), (bool, String)> {
    let dir = node.places.incoming();
    let path = dir.join(format!("{snapshot}.rdb"));
    let fresh = || {
        // What an earlier attempt left is fetched anew.
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir)
    };
    fresh().map_err(|e| (false, format!("{}: {e}", dir.display())))?;
    let report = store::Report::new(Progress::default());
    let mut progress = report.subscribe();
    let mut get = std::pin::pin!(store.get(snapshot, &path, &report));
    loop {
        tokio::select! {
            result = &mut get => {
                let fetched = result.map_err(|e| (e.blames_snapshot(), chain(&e)))?;
                return Ok((path.clone(), fetched));
            }
            Ok(()) = progress.changed() => {
                let now = progress.borrow_and_update().clone();
                node.change(|parts| {
                    parts.work(Work::Restoring, snapshot.as_str(), now.done_bytes, now.total_bytes);
                    match &now.error {
                        Some(error) => parts.problem("restore", format!("fetching {snapshot}: {error}; trying again")),
                        None => parts.solved("restore"),
                    }
                });
            }
        }
    }
}

/// The old data goes aside, the fetched dump takes its place.
fn put_in_place(node: &Node, path: &std::path::Path, manifest: &Manifest) -> Result<(), Halt> {
    let epoch = node.notebook.get().dump.map_or(0, |note| note.epoch);
    let put = || {
        node.places.set_data_aside(epoch, unix_ms())?;
        std::fs::rename(path, node.places.dump())?;
        files::sync_dir(&node.places.data())?;
        files::mark(&node.places.dump())
    };
    let mark = put().map_err(|e| failed("sandbox", e))?;
    let note = mark.map(|mark| DumpNote { inode: mark.inode, epoch: manifest.epoch });
    node.notebook.change(|memory| memory.dump = note).map_err(|e| failed("memory", chain(&e)))
}
