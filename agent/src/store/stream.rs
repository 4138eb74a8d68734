//! Storing a dump that comes piece by piece and cannot be read twice: the same commit as for a file, and a new source for each attempt.

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::error::Error;
use super::put::{Upload, differs};
use super::{Report, Stage, Store, advance};
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
        let attempt = |upload: Upload| {
            let coming = begin();
            async move {
                let coming = coming.await?;
                upload.apart(Box::pin(attempt(upload.clone(), coming))).await
            }
        };
        self.until_stored(0, report, attempt).await
    }
}

async fn attempt(upload: Upload, mut coming: Coming) -> Result<SnapshotId, Error> {
    let mut writer = upload.create(coming.expected_bytes).await?;
    let mut done = 0;
    while let Some(piece) = coming.pieces.recv().await {
        done += piece.len() as u64;
        writer.write(piece).await?;
        advance(&upload.report, Stage::Uploading, done);
    }
    // Before the file is closed: half a dump must not look whole.
    let manifest = coming.manifest.await.unwrap_or_else(|_| Err(Error::source("whoever sent it was broken off")))?;
    if manifest.bytes != done {
        return Err(differs(&upload.path(), format!("{done} bytes came, {} were checked", manifest.bytes)));
    }
    writer.close().await?;
    upload.report.send_modify(|p| p.total_bytes = done);
    upload.finish(&manifest).await
}
