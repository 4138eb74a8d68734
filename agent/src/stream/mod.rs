//! A backup straight from the replication stream: the server's copy for a new replica goes into the store, past the local disk.
//!
//! Called by the command `backup`. Three hands pass it on: one reads the server's socket into a [`Spool`] and never waits for the others; one
//! takes it from there, walks the dump's structure and computes its sums; one writes to the store. Nothing is committed unless all three came to
//! the same end. A copy cannot be had twice: whatever fails on the way, the next attempt asks for a new one, with a position and a name of its own.

use std::io::{self, Read};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::{Buf, Bytes};
use tokio::sync::{mpsc, oneshot};

use crate::api::{Epoch, Position};
use crate::board::Work;
use crate::causes::chain;
use crate::clock::unix_ms;
use crate::forks;
use crate::node::Node;
use crate::rdb;
use crate::server::Server;
use crate::snapshot::{How, Manifest, Origin, SnapshotId};
use crate::store::{Coming, Error, Progress, Report, Stage, Store};

mod framing;
mod source;
mod spool;
#[cfg(test)]
mod tests;

pub(crate) use source::ask;
pub(crate) use spool::Limits;
use spool::Spool;

/// Pieces between the one who checks and the one who writes.
const PIECES: usize = 4;

/// What a copy will be called, as far as it is known before.
#[derive(Clone, Debug)]
struct Label {
    cluster_id: String,
    epoch: Epoch,
    server_version: String,
    instance: u32,
    task_id: String,
    request_id: String,
}

/// Makes one and stores it; the name it has got, or why it was given up.
pub(crate) async fn take(node: &Arc<Node>, server: &Arc<Server>, request_id: &str) -> Result<SnapshotId, String> {
    let Some(store) = node.store.clone() else { return Err("no store is configured (snapshots.uri)".into()) };
    let taken = watched(node, server, &store, request_id).await;
    node.change(|parts| {
        for work in [Work::Streaming, Work::ReadingBack] {
            parts.works.remove(&work);
        }
        if let Ok(id) = &taken {
            parts.uploads.last = Some(id.clone());
            parts.uploads.last_request_id = Some(request_id.into());
            parts.uploads.last_request_snapshot = Some(id.clone());
        }
        parts.uploads.error = None;
    });
    taken
}

/// The same, showing how far it is.
async fn watched(node: &Arc<Node>, server: &Arc<Server>, store: &Store, request_id: &str) -> Result<SnapshotId, String> {
    let report = Report::new(Progress::default());
    let mut progress = report.subscribe();
    let again = || begin(node.clone(), server.clone(), request_id.to_owned(), report.clone());
    let mut put = std::pin::pin!(store.put_stream(again, &report));
    loop {
        tokio::select! {
            result = &mut put => return result.map_err(|e| chain(&e)),
            Ok(()) = progress.changed() => {
                let now = progress.borrow_and_update().clone();
                show(node, request_id, &now);
            }
        }
    }
}

fn show(node: &Node, request_id: &str, now: &Progress) {
    let work = if now.stage == Stage::ReadingBack { Work::ReadingBack } else { Work::Streaming };
    node.change(|parts| {
        parts.uploads.error.clone_from(&now.error);
        for other in [Work::Streaming, Work::ReadingBack].into_iter().filter(|other| *other != work) {
            parts.works.remove(&other);
        }
        parts.work(work, request_id, now.done_bytes, now.total_bytes);
    });
}

/// Asks the server for a copy; it has begun when this returns.
async fn begin(node: Arc<Node>, server: Arc<Server>, request_id: String, report: Report) -> Result<Coming, Error> {
    let lasting = |why: String| Error::Source { why, lasting: true };
    if let Some(proof) = server.proof() {
        return Err(lasting(format!("the server is dead ({proof})")));
    }
    let fork = forks::claim(&node, &server).await.map_err(lasting)?;
    let info = node.look(|parts| parts.info.clone()).unwrap_or_default();
    let label = Label {
        cluster_id: node.notebook.get().cluster_id.ok_or_else(|| Error::source("the record has not been read yet"))?,
        epoch: node.look(|parts| parts.duty.epoch),
        server_version: server.version.to_string(),
        instance: node.config.instance,
        task_id: node.config.task_id.clone(),
        request_id,
    };
    let limits = Limits { dir: node.places.spool(), ..node.config.spool.clone() };
    report.send_modify(|p| p.total_bytes = info.used_memory);
    let open = move || server.ask_for_copy();
    start(open, fork, limits, label, info.used_memory, report).await
}

/// Sets the two hands on this machine to work, and waits until the server has begun.
async fn start<S: Read + Send + 'static>(
    open: impl FnOnce() -> io::Result<S> + Send + 'static,
    fork: impl Send + 'static,
    limits: Limits,
    label: Label,
    expected_bytes: u64,
    report: Report,
) -> Result<Coming, Error> {
    let spool = Arc::new(Spool::new(limits));
    let (sender, pieces) = mpsc::channel(PIECES);
    let (verdict, manifest) = oneshot::channel();
    let (began, beginning) = oneshot::channel();
    let (begun, took) = (Instant::now(), Arc::new(OnceLock::new()));
    let (reader, reader_took) = (spool.clone(), took.clone());
    tokio::task::spawn_blocking(move || {
        let mut began = Some(began);
        let tell = |news| match news {
            source::News::Began(position) => drop(began.take().map(|began| began.send(Ok((position, unix_ms()))))),
            source::News::Size(bytes) => report.send_modify(|p| p.total_bytes = bytes),
        };
        let opened = open().map_err(|e| format!("the server cannot be asked for a copy: {e}"));
        let copied = opened.and_then(|stream| source::copy(stream, &reader, tell));
        // The child is gone with the last byte: others may fork.
        drop(fork);
        let _ = reader_took.set(begun.elapsed());
        if let (Some(began), Err(why)) = (began, &copied) {
            let _ = began.send(Err(Error::source(why)));
        }
        reader.end(copied.map(drop));
    });
    let (position, created_ms) = beginning.await.unwrap_or_else(|_| Err(Error::source("the reader broke off")))?;
    tokio::task::spawn_blocking(move || {
        let walked = rdb::walk(Tee { spool: &spool, store: sender, rest: Bytes::new() });
        spool.abandon();
        let duration_ms = took.get().map(|took| took.as_millis() as u64);
        let _ = verdict.send(judge(walked, label, position, created_ms, duration_ms));
    });
    Ok(Coming { pieces, manifest, expected_bytes })
}

/// The manifest of what came, if it is whole and in good order.
fn judge(
    walked: io::Result<Result<rdb::Walked, rdb::Flaw>>,
    label: Label,
    position: Position,
    created_ms: u64,
    duration_ms: Option<u64>,
) -> Result<Manifest, Error> {
    let walked = walked.map_err(|e| Error::source(e.to_string()))?;
    let walked = walked.map_err(|flaw| match flaw {
        rdb::Flaw::Newer { .. } => Error::Source { why: format!("the copy cannot be checked: {flaw}"), lasting: true },
        flaw => Error::source(format!("the copy came damaged: {flaw}")),
    })?;
    let mut checked = walked.checked;
    if let Some(own) = checked.rdb.position.as_ref().filter(|own| **own != position) {
        let (told, held) = (describe(&position), describe(own));
        return Err(Error::source(format!("the server announced a copy of {told}, and sent one of {held}")));
    }
    checked.rdb.position = Some(position);
    let origin = Origin {
        cluster_id: label.cluster_id,
        epoch: label.epoch,
        keys: Some(walked.content.databases.iter().map(|(number, keys)| (*number, keys.keys)).collect()),
        server_version: label.server_version,
        instance: label.instance,
        task_id: label.task_id,
        request_id: Some(label.request_id),
        created_ms,
        how: How::Stream,
        duration_ms,
    };
    Ok(Manifest::new(origin, &checked))
}

fn describe(position: &Position) -> String {
    format!("{} at {}", position.replid, position.offset)
}

/// What the walk reads goes on to the store.
struct Tee<'a> {
    spool: &'a Spool,
    store: mpsc::Sender<Bytes>,
    rest: Bytes,
}

impl Read for Tee<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.rest.is_empty() {
            let Some(bytes) = self.spool.pull()? else { return Ok(0) };
            self.store.blocking_send(bytes.clone()).map_err(|_| io::Error::other("the store does not take it any more"))?;
            self.rest = bytes;
        }
        let n = self.rest.len().min(buffer.len());
        self.rest.copy_to_slice(&mut buffer[..n]);
        Ok(n)
    }
}
