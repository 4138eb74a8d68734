//! `restore`: fetches a snapshot, checked against its manifest, and starts the server, closed, from it; or has it loaded as it comes, see [`super::fed`].
//! Goes on in the background.

use std::path::PathBuf;
use std::sync::Arc;

use super::launch::{Start, launch};
use super::start::already;
use super::{Done, Halt, failed, fed, refused};
use crate::api::{Epoch, FailedSource, Stamp};
use crate::board::{Holds, Work};
use crate::causes::chain;
use crate::clock::unix_ms;
use crate::config::RestoreHow;
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
    task: tokio::task::JoinHandle<()>,
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
    refuse_while_restoring(node, stamp.epoch).await?;
    node.program.get().await.map_err(|why| refused("no-program", why))?;
    let (shared, begun) = (node.clone(), birth.clone());
    // Held while the task is spawned: it cannot end before it is noted.
    let mut restoring = node.restoring.lock().expect("no panic while locked");
    let task = tokio::spawn(async move {
        let result = restore(&shared, &store, &snapshot, &begun).await;
        finish(&shared, &begun, result);
    });
    *restoring = Some(Restoring { birth, task });
    Ok(Done::Later)
}

/// A restore of the same epoch goes on; one of an earlier epoch is given up.
pub(super) async fn refuse_while_restoring(node: &Node, epoch: Epoch) -> Result<(), Halt> {
    let running = node.restoring.lock().expect("no panic while locked").as_ref().map(|running| running.birth.clone());
    match running {
        Some(birth) if birth.epoch >= epoch => Err(refused("busy", format!("{} is being restored", birth.source))),
        Some(_) => {
            abort(node).await;
            Ok(())
        }
        None => Ok(()),
    }
}

/// Gives a restore up. What it fetched so far is never looked at again. Asked with the turn held.
pub(super) async fn abort(node: &Node) {
    let running = node.restoring.lock().expect("no panic while locked").take();
    if let Some(running) = running {
        running.task.abort();
        let _ = running.task.await;
        fed::clean_up(node).await;
        node.change(|parts| drop(parts.works.remove(&Work::Restoring)));
    }
}

fn finish(node: &Node, birth: &Birth, result: Result<(), Fault>) {
    let mut restoring = node.restoring.lock().expect("no panic while locked");
    if restoring.as_ref().is_some_and(|running| running.birth == *birth) {
        *restoring = None;
    }
    // Together: whoever finds it over finds the outcome.
    node.change(|parts| {
        parts.works.remove(&Work::Restoring);
        parts.solved("restore");
        if let Err((definite, why)) = &result {
            let (source, why) = (birth.source.clone(), why.clone());
            parts.failed_source = Some(FailedSource { source, definite: *definite, why });
        }
    });
    drop(restoring);
    if let Err((_, why)) = result {
        tracing::warn!(source = birth.source, why, "restore failed");
    }
}

/// The error says whether the snapshot itself is at fault.
pub(super) type Fault = (bool, String);

async fn restore(node: &Arc<Node>, store: &Store, snapshot: &SnapshotId, birth: &Birth) -> Result<(), Fault> {
    node.change(|parts| parts.work(Work::Restoring, snapshot.as_str(), 0, 0));
    match node.config.restore_how {
        RestoreHow::File => by_file(node, store, snapshot, birth).await,
        RestoreHow::Stream => fed::restore(node, store, snapshot, birth).await,
    }
}

async fn by_file(node: &Arc<Node>, store: &Store, snapshot: &SnapshotId, birth: &Birth) -> Result<(), Fault> {
    let (path, manifest) = match super::prepare::taken(node, snapshot) {
        Some(prepared) => prepared,
        None => fetch(node, store, snapshot).await?,
    };
    let program = node.program.get().await.map_err(|why| (false, why))?;
    rdb::can_load(&program.version.to_string(), manifest.rdb).map_err(|why| (true, why.to_string()))?;
    let _turn = node.turn.lock().await;
    if let Err(overtaken) = still_wanted(node, birth) {
        let _ = std::fs::remove_file(&path);
        return Err(overtaken);
    }
    let started = async {
        put_in_place(node, &path, &manifest)?;
        launch(node, Start { program, birth: birth.clone(), replica: false, holds: Holds::Whole, beside: false }).await
    };
    started.await.map_err(by_us)
}

/// Whether nothing came between. Asked with the turn held.
pub(super) fn still_wanted(node: &Node, birth: &Birth) -> Result<(), Fault> {
    let overtaken = node.server().is_some() || node.notebook.get().epoch > birth.epoch || node.look(|parts| parts.stopping);
    if overtaken { Err((false, "overtaken by a later command".into())) } else { Ok(()) }
}

/// A failure that says nothing of the snapshot.
pub(super) fn by_us(halt: Halt) -> Fault {
    match halt {
        Halt::Refused(refusal) => (false, refusal.message),
        Halt::Failed { message, .. } => (false, message),
    }
}

/// Fetches it into the sandbox, judged.
pub(super) async fn fetch(node: &Arc<Node>, store: &Store, snapshot: &SnapshotId) -> Result<(PathBuf, Manifest), Fault> {
    let dir = node.places.incoming();
    let path = dir.join(format!("{snapshot}.rdb"));
    let fresh = || {
        // What an earlier attempt left is fetched anew.
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir)
    };
    fresh().map_err(|e| (false, format!("{}: {e}", dir.display())))?;
    let report = store::Report::new(Progress::default());
    let fetched = shown(node, snapshot, &report, store.get(snapshot, &path, &report)).await;
    fetched.map(|manifest| (path, manifest)).map_err(blamed)
}

/// A failure of the store, or of the snapshot.
pub(super) fn blamed(error: store::Error) -> Fault {
    (error.blames_snapshot(), chain(&error))
}

/// Waits for work that reads a snapshot, showing how far it is.
pub(super) async fn shown<T>(node: &Node, snapshot: &SnapshotId, report: &store::Report, work: impl Future<Output = T>) -> T {
    let mut progress = report.subscribe();
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
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
