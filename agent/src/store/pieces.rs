//! A snapshot's dump piece by piece, for whoever loads it while it comes. Nothing is kept on this machine.
//!
//! Invariants: a piece is handed out only once its SHA-256 is the one in the manifest, and the last piece only once the whole was found good:
//! length, structure, header and CRC-64. So nobody ever gets all of a dump that is not good. Memory: a few pieces. A store that fails on the way is read on
//! from where it broke.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Buf, Bytes};
use sha2::Digest as _;
use tokio::sync::mpsc;

use super::aside::{self, Chunks};
use super::error::Error;
use super::get::{compare_frame, compare_piece};
use super::{DUMP, Inner, Report, Retry, Stage, Store, advance, apart};
use crate::rdb;
use crate::snapshot::{Manifest, PIECE_BYTES, Sha256, SnapshotId};

impl Store {
    /// One snapshot's manifest, as [`Store::manifest`], tried again while the store does not answer.
    pub async fn manifest_patiently(&self, id: &SnapshotId, report: &Report) -> Result<Manifest, Error> {
        let mut retry = Retry::new(&self.inner.options, self.inner.options.get_patience, report);
        loop {
            match self.manifest(id).await {
                Ok(manifest) => return Ok(manifest),
                Err(failed) => {
                    let retryable = failed.is_retryable();
                    retry.after(failed, retryable).await?;
                }
            }
        }
    }

    /// Hands out the dump of `manifest`, which is that of snapshot `id`, piece by piece, judged. All of it was handed out when this returns well.
    ///
    /// When the error [blames the snapshot](Error::blames_snapshot), another one is to be taken.
    pub async fn pieces(
        &self,
        id: &SnapshotId,
        manifest: &Manifest,
        taker: mpsc::Sender<Bytes>,
        report: &Report,
    ) -> Result<(), Error> {
        report.send_modify(|p| (p.total_bytes, p.done_bytes) = (manifest.bytes, 0));
        let path = format!("{}/{DUMP}", self.inner.dir(id));
        let (feed, chunks) = aside::channel();
        let judge = Judge::new(manifest.clone(), chunks, taker);
        let judged = tokio::task::spawn_blocking(move || judge.run());
        feed_all(&self.inner, &path, feed, report).await?;
        let judged = judged.await.map_err(|e| Error::panicked("judge", &path, &e))?;
        judged.map_err(|end| match end {
            End::Corrupt(what, offset) => Error::Corrupt { snapshot: id.clone(), what, offset },
            End::NotTaken => Error::Source { why: "nobody takes the dump any more".into(), lasting: true },
        })
    }
}

/// Reads the whole file, going on where it broke. As long as there is progress between two failures, patience begins anew.
async fn feed_all(inner: &Arc<Inner>, path: &str, feed: mpsc::Sender<Bytes>, report: &Report) -> Result<(), Error> {
    let (at, mut before) = (Arc::new(AtomicU64::new(0)), 0);
    let mut retry = Retry::new(&inner.options, inner.options.get_patience, report);
    loop {
        let reading = read_on(inner.clone(), path.to_owned(), at.clone(), feed.clone(), report.clone());
        let Err(failed) = apart("fetch", path, reading).await else {
            report.send_modify(|p| p.error = None);
            return Ok(());
        };
        let now = at.load(Ordering::Relaxed);
        if now > before {
            retry = Retry::new(&inner.options, inner.options.get_patience, report);
            before = now;
        }
        let retryable = failed.is_retryable();
        retry.after(failed, retryable).await?;
    }
}

/// Reads from where the last attempt ended.
async fn read_on(
    inner: Arc<Inner>,
    path: String,
    at: Arc<AtomicU64>,
    feed: mpsc::Sender<Bytes>,
    report: Report,
) -> Result<(), Error> {
    let mut reader = inner.files.open_at(&path, at.load(Ordering::Relaxed)).await?;
    while let Some(chunk) = reader.next().await? {
        let bytes = chunk.len() as u64;
        // The judge has seen enough, and says why.
        if feed.send(chunk).await.is_err() {
            return Ok(());
        }
        let done = at.fetch_add(bytes, Ordering::Relaxed) + bytes;
        report.send_if_modified(|p| p.error.take().is_some());
        advance(&report, Stage::Fetching, done);
    }
    Ok(())
}

/// Why not all of it was handed out.
enum End {
    /// What does not fit, and where.
    Corrupt(String, u64),
    /// Whoever takes the pieces is gone.
    NotTaken,
}

/// Sits between the store and the one who takes the pieces; the walk of the structure reads from it.
struct Judge {
    manifest: Manifest,
    chunks: Chunks,
    taker: mpsc::Sender<Bytes>,
    checker: rdb::Checker,
    /// Pieces that were found good.
    good: usize,
    bytes: u64,
    /// The last piece of all: handed out once all is known to be good.
    held: Option<Bytes>,
    /// What the walk has not read yet.
    rest: Bytes,
    end: Option<End>,
}

impl Judge {
    fn new(manifest: Manifest, chunks: Chunks, taker: mpsc::Sender<Bytes>) -> Judge {
        Judge {
            manifest,
            chunks,
            taker,
            checker: rdb::Checker::default(),
            good: 0,
            bytes: 0,
            held: None,
            rest: Bytes::new(),
            end: None,
        }
    }

    /// To the end of the file, or to what is wrong with it. Blocking.
    fn run(mut self) -> Result<(), End> {
        let walked = rdb::structure(&mut self);
        // Of what is no dump at all the walk does not read the rest.
        let read = walked.and_then(|structure| io::copy(&mut self, &mut io::sink()).map(|_| structure));
        let structure = match (read, self.end.take()) {
            (_, Some(end)) => return Err(end),
            (Err(error), None) => return Err(End::Corrupt(error.to_string(), self.bytes)),
            (Ok(structure), None) => structure,
        };
        if self.bytes != self.manifest.bytes {
            return Err(ends_early(&self.manifest, self.bytes));
        }
        let judged = structure.accept(self.checker.finish());
        let (rdb, _) =
            judged.map_err(|flaw| End::Corrupt(format!("its manifest fits, but {flaw}"), flaw.offset().unwrap_or(0)))?;
        compare_frame(&self.manifest, &rdb).map_err(|(what, offset)| End::Corrupt(what, offset))?;
        match self.held {
            Some(last) => self.taker.blocking_send(last).map_err(|_| End::NotTaken),
            None => Ok(()),
        }
    }

    /// The next piece, judged, and handed out unless it is the last one.
    fn next(&mut self) -> io::Result<Option<Bytes>> {
        let mut piece = Vec::with_capacity(PIECE_BYTES as usize);
        self.chunks.by_ref().take(PIECE_BYTES).read_to_end(&mut piece)?;
        if piece.is_empty() {
            return Ok(None);
        }
        let piece = Bytes::from(piece);
        self.check(&piece)?;
        self.checker.update(&piece);
        self.good += 1;
        self.bytes += piece.len() as u64;
        if self.bytes == self.manifest.bytes {
            self.held = Some(piece.clone());
        } else if self.taker.blocking_send(piece.clone()).is_err() {
            return self.stop(End::NotTaken);
        }
        Ok(Some(piece))
    }

    fn check(&mut self, piece: &Bytes) -> io::Result<()> {
        let (end, whole) = (self.bytes + piece.len() as u64, self.manifest.bytes);
        if end > whole {
            return self.stop(End::Corrupt(format!("it goes on after the {whole} bytes of its manifest"), whole));
        }
        if (piece.len() as u64) < PIECE_BYTES && end < whole {
            let early = ends_early(&self.manifest, end);
            return self.stop(early);
        }
        let sum = Sha256(sha2::Sha256::digest(piece).into());
        match compare_piece(&self.manifest.pieces, self.good, &sum) {
            Ok(()) => Ok(()),
            Err((what, offset)) => self.stop(End::Corrupt(what, offset)),
        }
    }

    fn stop<T>(&mut self, end: End) -> io::Result<T> {
        self.end = Some(end);
        Err(io::Error::other("judged"))
    }
}

fn ends_early(manifest: &Manifest, at: u64) -> End {
    End::Corrupt(format!("it ends here, its manifest says {} bytes", manifest.bytes), at)
}

impl Read for Judge {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.rest.is_empty() {
            match self.next()? {
                Some(piece) => self.rest = piece,
                None => return Ok(0),
            }
        }
        let n = self.rest.len().min(buffer.len());
        self.rest.copy_to_slice(&mut buffer[..n]);
        Ok(n)
    }
}
