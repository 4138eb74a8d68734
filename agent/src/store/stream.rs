//! Storing a dump that comes piece by piece and cannot be read twice: the same commit as for a file, and a new source for each attempt.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::error::{Error, Trouble};
use super::files::Create;
use super::put::{commit, differs, read_back};
use super::{DUMP, Inner, MANIFEST, Report, Retry, Stage, Store, advance, apart};
use crate::snapshot::{Manifest, SnapshotId};

/// A dump on its way.
pub struct Coming {
    /// Its bytes in order. The end of it is the end of the dump, or that of whoever sends it: `manifest` tells which.
    pub pieces: mpsc::Receiver<Bytes>,
    /// Told after the last piece: what was sent, checked as a whole, or why it is no dump.
    pub manifest: oneshot::Receiver<Result<Manifest, Error>>,
    /// Size to expect, bytes; 0 when nothing is known.
    pub expected_bytes: u64,
}

impl Store {
    /// Stores what `begin` has come, under its manifest's name or a later second's.
    ///
    /// `begin` is called for each attempt, and its failures count as the attempt's. Tried again, with growing pauses and with fewer copies, after
    /// every failure that may pass, for [`super::Options::put_patience`]; each failure is in `report`.
    pub async fn put_stream<F>(&self, mut begin: impl FnMut() -> F, report: &Report) -> Result<SnapshotId, Error>
    where
        F: Future<Output = Result<Coming, Error>> + Send,
    {
        let inner = &self.inner;
        let mut retry = Retry::new(&inner.options, inner.options.put_patience, report);
        let mut leftovers = Vec::new();
        loop {
            retry.begin(0);
            let dir = format!("{}/{}", inner.incoming(), uuid::Uuid::new_v4());
            let copies = inner.options.replication.saturating_sub(retry.attempt - 1).max(1);
            let attempted = match begin().await {
                Ok(coming) => apart("upload", &dir, attempt(inner.clone(), coming, dir.clone(), copies, report.clone())).await,
                Err(error) => Err(error),
            };
            let failed = match attempted {
                Ok(id) => {
                    inner.keep_copies(&id, copies).await;
                    report.send_modify(|p| p.error = None);
                    self.tidy(leftovers).await;
                    return Ok(id);
                }
                Err(e) => e,
            };
            if failed.is_outage() || inner.files.remove(&dir).await.is_err() {
                leftovers.push(dir);
            }
            let retryable = failed.is_retryable() || failed.trouble() == Some(Trouble::Missing);
            retry.after(failed, retryable).await?;
        }
    }
}

async fn attempt(inner: Arc<Inner>, mut coming: Coming, dir: String, copies: u32, report: Report) -> Result<SnapshotId, Error> {
    let path = format!("{dir}/{DUMP}");
    inner.files.mkdirs(&dir).await?;
    inner.files.mkdirs(&inner.snapshots()).await?;
    let mut writer = inner.files.create(&path, Create { replication: copies, bytes: coming.expected_bytes }).await?;
    let mut done = 0;
    while let Some(piece) = coming.pieces.recv().await {
        done += piece.len() as u64;
        writer.write(piece).await?;
        advance(&report, Stage::Uploading, done);
    }
    // Before the file is closed: half a dump must not look whole.
    let manifest = coming.manifest.await.unwrap_or_else(|_| Err(Error::source("whoever sent it was broken off")))?;
    if manifest.bytes != done {
        return Err(differs(&path, format!("{done} bytes came, {} were checked", manifest.bytes)));
    }
    writer.close().await?;
    report.send_modify(|p| p.total_bytes = done);
    let json = manifest.to_json();
    inner.files.write_small(&format!("{dir}/{MANIFEST}"), json.clone(), copies).await?;
    read_back(&inner, &manifest, &path, &report).await?;
    if inner.files.read_small(&format!("{dir}/{MANIFEST}"), json.len() as u64).await? != json {
        return Err(differs(&format!("{dir}/{MANIFEST}"), "other bytes than were written".into()));
    }
    commit(&inner, &manifest, &dir).await
}
