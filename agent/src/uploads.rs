//! Copies spooled dumps to the store, one at a time, until they are through.
//!
//! Invariant: a dump leaves the spool only when its snapshot is committed, or when it waits while newer ones wait behind it and the queue is
//! full: then it is counted as superseded, and the backup request it would have answered is answered by the next one, or said to have
//! failed.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;

use crate::board::Work;
use crate::causes::chain;
use crate::dumps::Ticket;
use crate::local;
use crate::node::Node;
use crate::snapshot::{How, Manifest, Origin, SnapshotId};
use crate::store::{self, Progress, Store};

/// Dumps that may wait behind the one being copied.
const MAX_WAITING: usize = 2;
/// Pause before a dump that could not be stored is tried again; the store itself has tried for minutes before.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// The queue's state; its content is the spool directory.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    news: Notify,
    /// Number of the dump being copied.
    copying: Mutex<Option<u64>>,
}

impl Queue {
    /// A dump was added to the spool.
    pub fn added(&self, node: &Node) {
        if let Err(error) = self.trim(node) {
            node.change(|parts| parts.problem("spool", format!("the spool cannot be trimmed: {error}")));
        }
        show_pending(node);
        self.news.notify_one();
    }

    /// Whether a dump for this backup request is in the spool.
    pub fn holds(&self, node: &Node, request_id: &str) -> bool {
        let numbers = waiting(node).unwrap_or_default();
        numbers.iter().any(|n| read_ticket(node, *n).request_id.as_deref() == Some(request_id))
    }

    /// Waits until the spool is empty, at most `limit`. Whether it is.
    pub async fn flushed(&self, node: &Node, limit: Duration) -> bool {
        let mut state = node.subscribe();
        let empty = state.wait_for(|state| state.uploads.pending == 0);
        tokio::time::timeout(limit, empty).await.is_ok()
    }

    fn copying(&self) -> Option<u64> {
        *self.copying.lock().expect("no panic while locked")
    }

    /// Gives up the oldest waiting dumps beyond the limit.
    fn trim(&self, node: &Node) -> io::Result<()> {
        let mut numbers = waiting(node)?;
        numbers.retain(|n| Some(*n) != self.copying());
        let excess = numbers.len().saturating_sub(MAX_WAITING);
        for pair in 0..excess {
            let (old, next) = (numbers[pair], numbers[pair + 1]);
            let unanswered = pass_request_on(node, old, next)?;
            remove(node, old)?;
            node.change(|parts| {
                parts.uploads.superseded += 1;
                if let Some(request) = unanswered {
                    let why = "its dump was given up for a newer one: the store is slower than the dumps come";
                    parts.uploads.failed_request = Some((request, why.into()));
                }
            });
            tracing::warn!(old, next, "a dump was given up for a newer one: the store is slower than the dumps come");
        }
        Ok(())
    }
}

fn show_pending(node: &Node) {
    let pending = waiting(node).unwrap_or_default().len() as u32;
    node.change(|parts| parts.uploads.pending = pending);
}

/// Numbers of the dumps in the spool, oldest first.
fn waiting(node: &Node) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(node.places.spool())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        numbers.extend(name.strip_suffix(".rdb").and_then(|stem| stem.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// The dump and the ticket of a number.
fn paths(node: &Node, number: u64) -> (PathBuf, PathBuf) {
    let spool = node.places.spool();
    (spool.join(format!("{number}.rdb")), spool.join(format!("{number}.json")))
}

/// A ticket that is gone or damaged says nothing; the dump is worth keeping all the same.
fn read_ticket(node: &Node, number: u64) -> Ticket {
    let read = std::fs::read(paths(node, number).1).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    read.unwrap_or(Ticket { created_ms: number, ..Ticket::default() })
}

/// The next dump answers the request of the one given up, unless it has one of its own: then that request is returned.
fn pass_request_on(node: &Node, old: u64, next: u64) -> io::Result<Option<String>> {
    let request = read_ticket(node, old).request_id;
    let mut ticket = read_ticket(node, next);
    if request.is_none() || ticket.request_id.is_some() {
        return Ok(request);
    }
    ticket.request_id = request;
    std::fs::write(paths(node, next).1, serde_json::to_vec(&ticket)?)?;
    Ok(None)
}

/// The dump goes first: a ticket without one is cleared at the next start.
fn remove(node: &Node, number: u64) -> io::Result<()> {
    let (dump, ticket) = paths(node, number);
    std::fs::remove_file(dump)?;
    std::fs::remove_file(ticket).or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) })
}

/// Runs for as long as the agent does. Begins with what an earlier agent left in the spool.
pub(crate) async fn run(node: Arc<Node>) {
    let Some(store) = node.store.clone() else { return };
    if let Err(error) = clear_lone_tickets(&node) {
        tracing::warn!(%error, "cannot clear the spool");
    }
    show_pending(&node);
    // A manifest names the cluster, which the record tells.
    let mut records = node.records.subscribe();
    if records.wait_for(Option::is_some).await.is_err() {
        return;
    }
    loop {
        show_pending(&node);
        let next = waiting(&node).ok().and_then(|numbers| numbers.first().copied());
        *node.uploads.copying.lock().expect("no panic while locked") = next;
        let Some(number) = next else {
            node.uploads.news.notified().await;
            continue;
        };
        if let Err(why) = copy(&node, &store, number).await {
            tracing::warn!(number, why, "a dump could not be stored yet");
            node.change(|parts| parts.uploads.error = Some(why));
            tokio::time::sleep(RETRY_AFTER).await;
        }
        node.change(|parts| parts.works.retain(|work, _| !matches!(work, Work::Uploading | Work::ReadingBack)));
    }
}

fn clear_lone_tickets(node: &Node) -> io::Result<()> {
    for entry in std::fs::read_dir(node.places.spool())? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "json") && !path.with_extension("rdb").exists() {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Stores one dump and takes it out of the spool.
async fn copy(node: &Arc<Node>, store: &Store, number: u64) -> Result<(), String> {
    let (path, _) = paths(node, number);
    let ticket = read_ticket(node, number);
    let request_id = ticket.request_id.clone();
    let (checked, content) = match local::check(&path).await {
        Ok(good) => good,
        Err(why) => return give_up(node, number, request_id, why),
    };
    let memory = node.notebook.get();
    let origin = Origin {
        cluster_id: memory.cluster_id.ok_or("the record has not been read yet, so the cluster's id is not known")?,
        epoch: ticket.epoch,
        // What was counted in the file; what the server said around that time where nothing was.
        keys: content.map(|c| c.counts()).or_else(|| Some(ticket.keys).filter(|_| !ticket.server_version.is_empty())),
        server_version: ticket.server_version,
        instance: node.config.instance,
        task_id: node.config.task_id.clone(),
        request_id: ticket.request_id,
        created_ms: ticket.created_ms,
        how: How::Dump,
        duration_ms: Some(ticket.duration_ms),
    };
    let id = put(node, store, &path, Manifest::new(origin, &checked)).await?;
    remove(node, number).map_err(|e| format!("{}: {e}", path.display()))?;
    tracing::info!(%id, bytes = checked.sums.bytes, "dump stored as a snapshot");
    let pending = waiting(node).unwrap_or_default().len() as u32;
    // Together: whoever waits for an empty spool finds the outcome there.
    node.change(|parts| {
        parts.uploads.pending = pending;
        parts.uploads.last = Some(id.clone());
        parts.uploads.error = None;
        if request_id.is_some() {
            parts.uploads.last_request_id = request_id;
            parts.uploads.last_request_snapshot = Some(id);
        }
    });
    Ok(())
}

/// A damaged dump is of no use to anybody: it is dropped, and said so.
fn give_up(node: &Node, number: u64, request_id: Option<String>, why: String) -> Result<(), String> {
    remove(node, number).map_err(|e| format!("{why}; and it cannot be removed: {e}"))?;
    node.change(|parts| {
        parts.problem("spool", format!("a dump was found damaged and dropped; the snapshots before it stay: {why}"));
        if let Some(request) = request_id {
            parts.uploads.failed_request = Some((request, why));
        }
    });
    Ok(())
}

async fn put(node: &Arc<Node>, store: &Store, path: &std::path::Path, manifest: Manifest) -> Result<SnapshotId, String> {
    let subject = manifest.id().to_string();
    let report = store::Report::new(Progress::default());
    let mut progress = report.subscribe();
    let mut put = std::pin::pin!(store.put(path, manifest, &report));
    loop {
        tokio::select! {
            result = &mut put => return result.map_err(|e| chain(&e)),
            Ok(()) = progress.changed() => {
                let now = progress.borrow_and_update().clone();
                node.change(|parts| {
                    parts.uploads.error.clone_from(&now.error);
                    let reads_back = now.stage == store::Stage::ReadingBack;
                    let work = if reads_back { Work::ReadingBack } else { Work::Uploading };
                    parts.works.remove(if reads_back { &Work::Uploading } else { &Work::ReadingBack });
                    parts.work(work, &subject, now.done_bytes, now.total_bytes);
                });
            }
        }
    }
}
