//! Reads a snapshot back from the store as a whole and judges it: length, SHA-256, pieces, structure, checksum, manifest.

use std::sync::Arc;

use super::aside;
use super::error::Error;
use super::get::compare;
use super::{DUMP, Inner, Report, Retry, Stage, Store, advance, apart};
use crate::rdb::{self, Content, Flaw, Walked};
use crate::snapshot::{Manifest, SnapshotId};

impl Store {
    /// Reads all of a snapshot and judges it; what it holds. Nothing is kept on this machine.
    ///
    /// When the error [blames the snapshot](Error::blames_snapshot), it is no good; any other says nothing about it.
    pub async fn verify(&self, id: &SnapshotId, report: &Report) -> Result<(Manifest, Content), Error> {
        let inner = &self.inner;
        let mut retry = Retry::new(&inner.options, inner.options.get_patience, report);
        loop {
            retry.begin(0);
            match apart("verify", id.as_str(), attempt(inner.clone(), id.clone(), report.clone())).await {
                Ok(found) => return Ok(found),
                Err(failed) => {
                    let retryable = failed.is_retryable();
                    retry.after(failed, retryable).await?;
                }
            }
        }
    }
}

async fn attempt(inner: Arc<Inner>, id: SnapshotId, report: Report) -> Result<(Manifest, Content), Error> {
    let manifest = match inner.read_manifest(&id).await? {
        Ok(manifest) => manifest,
        Err(problem) => return Err(Error::Unusable { snapshot: id, problem }),
    };
    report.send_modify(|p| p.total_bytes = manifest.bytes);
    let path = format!("{}/{DUMP}", inner.dir(&id));
    let walked = walk(&inner, &path, &report).await?;
    let corrupt = |what: String, offset| Error::Corrupt { snapshot: id.clone(), what, offset };
    let Walked { checked, content } = walked.map_err(|flaw| corrupt(flaw.to_string(), flaw.offset().unwrap_or(0)))?;
    compare(&manifest, &checked).map_err(|(what, offset)| corrupt(what, offset))?;
    Ok((manifest, content))
}

/// Walks a file of the store on a thread of its own, fed by chunks as they come.
async fn walk(inner: &Inner, path: &str, report: &Report) -> Result<Result<Walked, Flaw>, Error> {
    let mut reader = inner.files.open(path).await?;
    let (feed, chunks) = aside::channel();
    let walk = tokio::task::spawn_blocking(move || rdb::walk(chunks));
    let mut done = 0;
    while let Some(chunk) = reader.next().await? {
        done += chunk.len() as u64;
        // The walk has seen enough: it is no dump.
        if feed.send(chunk).await.is_err() {
            break;
        }
        advance(report, Stage::Verifying, done);
    }
    drop(feed);
    let walked = walk.await.map_err(|e| Error::panicked("walk", path, &e))?;
    walked.map_err(|source| Error::Disk { what: "walk", path: path.into(), source })
}
