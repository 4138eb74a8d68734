//! Storing a dump: upload, read back, commit by one rename; from the start again when anything fails on the way.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use sha2::Digest as _;

use super::error::{Error, Trouble};
use super::files::{Create, Writer};
use super::{DUMP, Inner, MANIFEST, Report, Retry, Stage, Store, advance, apart};
use crate::snapshot::{Manifest, Sha256, SnapshotId};

const CHUNK_BYTES: u64 = 1 << 20;
/// Names tried for one snapshot, each a second later than the one before.
const NAMES: usize = 120;
/// How often a rename whose outcome is unknown is looked after.
const RENAMES: u32 = 5;

/// A dump on its way: opened once, so that what Redis renames over it meanwhile does not matter.
struct Dump {
    file: File,
    path: PathBuf,
    manifest: Manifest,
}

/// One attempt at storing a dump.
#[derive(Clone)]
pub(super) struct Upload {
    pub inner: Arc<Inner>,
    /// Its directory below `incoming/`, of its own.
    dir: String,
    /// Copies HDFS is asked for.
    copies: u32,
    pub report: Report,
}

impl Store {
    /// Stores a dump under its manifest's name, or a later second's if that is taken. The name it has got.
    ///
    /// Tried again after every failure that may pass, from the start and with fewer copies, for [`super::Options::put_patience`];
    /// each failure is in `report`. Storing the same dump with the same manifest again gives the same name.
    /// When the caller drops this before its end, nothing of it stands under `snapshots/`, unless it was just being committed.
    pub async fn put(&self, dump: &Path, manifest: Manifest, report: &Report) -> Result<SnapshotId, Error> {
        let file = File::open(dump).map_err(Error::disk("open", dump))?;
        let dump = Arc::new(Dump { file, path: dump.to_owned(), manifest });
        let attempt = |upload: Upload| {
            let dump = dump.clone();
            async move { upload.apart(Box::pin(attempt(upload.clone(), dump))).await }
        };
        self.until_stored(dump.manifest.bytes, report, attempt).await
    }

    /// Has `attempt` store a dump of `bytes` bytes (0 when not known) until it is through, as [`Store::put`] says.
    pub(super) async fn until_stored<F>(
        &self,
        bytes: u64,
        report: &Report,
        mut attempt: impl FnMut(Upload) -> F,
    ) -> Result<SnapshotId, Error>
    where
        F: Future<Output = Result<SnapshotId, Error>>,
    {
        let inner = &self.inner;
        let mut retry = Retry::new(&inner.options, inner.options.put_patience, report);
        let mut leftovers = Vec::new();
        loop {
            retry.begin(bytes);
            let dir = format!("{}/{}", inner.incoming(), uuid::Uuid::new_v4());
            // 3, 2, 1: a cluster with as many DataNodes as copies has no place for a block while one of them is dead.
            let copies = inner.options.replication.saturating_sub(retry.attempt - 1).max(1);
            let upload = Upload { inner: inner.clone(), dir: dir.clone(), copies, report: report.clone() };
            let failed = match attempt(upload).await {
                Ok(id) => {
                    inner.keep_copies(&id, copies).await;
                    report.send_modify(|p| p.error = None);
                    self.tidy(leftovers).await;
                    return Ok(id);
                }
                Err(e) => e,
            };
            // During an outage the deletion would only wait for it too.
            if failed.is_outage() || inner.files.remove(&dir).await.is_err() {
                leftovers.push(dir);
            }
            // Missing: somebody deleted the upload under our hands.
            let retryable = failed.is_retryable() || failed.trouble() == Some(Trouble::Missing);
            retry.after(failed, retryable).await?;
        }
    }

    /// Deletes what failed attempts left, and what nobody writes to any more. Best effort: the snapshot stands already.
    async fn tidy(&self, leftovers: Vec<String>) {
        let now_ms = UNIX_EPOCH.elapsed().map_or(0, |t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX));
        let mut removed = Ok(());
        for dir in leftovers {
            removed = removed.and(self.inner.files.remove(&dir).await);
        }
        if let Err(e) = removed.and(self.sweep(now_ms).await) {
            tracing::debug!(error = %e, "store: remains of uploads could not be deleted");
        }
    }
}

impl Upload {
    /// Runs the attempt in a task of its own.
    pub async fn apart(
        &self,
        attempt: impl Future<Output = Result<SnapshotId, Error>> + Send + 'static,
    ) -> Result<SnapshotId, Error> {
        apart("upload", &self.dir, attempt).await
    }

    /// Where the dump goes.
    pub fn path(&self) -> String {
        format!("{}/{DUMP}", self.dir)
    }

    /// Creates the dump, of `bytes` bytes as far as is known.
    pub async fn create(&self, bytes: u64) -> Result<Writer, Error> {
        self.inner.files.mkdirs(&self.dir).await?;
        self.inner.files.mkdirs(&self.inner.snapshots()).await?;
        self.inner.files.create(&self.path(), Create { replication: self.copies, bytes }).await
    }

    /// Puts the manifest beside the dump, which has been written and closed, reads both back and commits them.
    pub async fn finish(&self, manifest: &Manifest) -> Result<SnapshotId, Error> {
        let (beside, json) = (format!("{}/{MANIFEST}", self.dir), manifest.to_json());
        self.inner.files.write_small(&beside, json.clone(), self.copies).await?;
        read_back(&self.inner, manifest, &self.path(), &self.report).await?;
        if self.inner.files.read_small(&beside, json.len() as u64).await? != json {
            return Err(differs(&beside, "other bytes than were written".into()));
        }
        commit(&self.inner, manifest, &self.dir).await
    }
}

async fn attempt(upload: Upload, dump: Arc<Dump>) -> Result<SnapshotId, Error> {
    let total = dump.manifest.bytes;
    let mut writer = upload.create(total).await?;
    let mut sha256 = sha2::Sha256::new();
    let mut done = 0;
    loop {
        let chunk = read_chunk(&dump, done).await?;
        if chunk.is_empty() {
            break;
        }
        sha256.update(&chunk);
        done += chunk.len() as u64;
        writer.write(chunk).await?;
        advance(&upload.report, Stage::Uploading, done);
    }
    let found = Sha256(sha256.finalize().into());
    if (done, found) != (total, dump.manifest.sha256) {
        let what = format!("{done} bytes with SHA-256 {found}, expected {total} with {}", dump.manifest.sha256);
        return Err(Error::OtherDump { path: dump.path.clone(), what });
    }
    writer.close().await?;
    upload.finish(&dump.manifest).await
}

async fn read_chunk(dump: &Arc<Dump>, at: u64) -> Result<Bytes, Error> {
    let source = dump.clone();
    let read = move || {
        // One byte more than the manifest says is enough to see that the file is another one.
        let left = (source.manifest.bytes + 1).saturating_sub(at).min(CHUNK_BYTES);
        let mut buffer = vec![0; usize::try_from(left).unwrap_or(0)];
        let mut filled = 0;
        while filled < buffer.len() {
            match source.file.read_at(&mut buffer[filled..], at + filled as u64)? {
                0 => break,
                n => filled += n,
            }
        }
        buffer.truncate(filled);
        Ok(buffer)
    };
    let read = tokio::task::spawn_blocking(read).await.map_err(|e| Error::panicked("read", &dump.path.to_string_lossy(), &e))?;
    read.map(Bytes::from).map_err(Error::disk("read", &dump.path))
}

/// Length and checksum of what the store now has.
async fn read_back(inner: &Inner, manifest: &Manifest, path: &str, report: &Report) -> Result<(), Error> {
    let stored = inner.files.stat(path).await?.map(|c| c.bytes);
    if stored != Some(manifest.bytes) {
        return Err(differs(path, format!("{stored:?} bytes, {} were written", manifest.bytes)));
    }
    let mut reader = inner.files.open(path).await?;
    let mut sha256 = sha2::Sha256::new();
    let mut done = 0;
    while let Some(chunk) = reader.next().await? {
        sha256.update(&chunk);
        done += chunk.len() as u64;
        advance(report, Stage::ReadingBack, done);
    }
    let found = Sha256(sha256.finalize().into());
    if (done, found) != (manifest.bytes, manifest.sha256) {
        return Err(differs(path, format!("{done} bytes with SHA-256 {found}, not what was written")));
    }
    Ok(())
}

pub(super) fn differs(path: &str, why: String) -> Error {
    Error::Remote { what: "read back", path: path.into(), trouble: Trouble::Failed, why }
}

/// Renames the upload to the first free name.
async fn commit(inner: &Inner, manifest: &Manifest, dir: &str) -> Result<SnapshotId, Error> {
    let names = std::iter::successors(Some(manifest.id()), |id| Some(id.later()));
    for id in names.take(NAMES) {
        match rename(inner, manifest, dir, &id).await {
            Err(e) if e.trouble() == Some(Trouble::Exists) => {}
            other => return other.map(|()| id),
        }
        if is_ours(inner, manifest, &id).await? {
            inner.files.remove(dir).await?;
            return Ok(id);
        }
    }
    let why = format!("the names of {NAMES} seconds on are taken");
    Err(Error::Remote { what: "commit", path: inner.dir(&manifest.id()), trouble: Trouble::Exists, why })
}

/// One rename; when its outcome is unknown, it is looked up.
async fn rename(inner: &Inner, manifest: &Manifest, dir: &str, id: &SnapshotId) -> Result<(), Error> {
    for attempt in 1.. {
        let error = match inner.files.rename(dir, &inner.dir(id)).await {
            Ok(()) => return Ok(()),
            // The upload has gone: by this rename's first try, or by somebody else.
            Err(e) if e.trouble() == Some(Trouble::Missing) => e,
            Err(e) if e.is_definite() => return Err(e),
            Err(e) => e,
        };
        if is_ours(inner, manifest, id).await? {
            return Ok(());
        }
        if attempt == RENAMES || error.is_definite() {
            return Err(error);
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    unreachable!("the loop ends by returning")
}

/// Whether the snapshot of that name is this very one.
async fn is_ours(inner: &Inner, manifest: &Manifest, id: &SnapshotId) -> Result<bool, Error> {
    Ok(inner.read_manifest(id).await?.is_ok_and(|found| found == *manifest))
}

impl Inner {
    /// Has HDFS make the copies that an upload in bad times did without. It does so in the background.
    async fn keep_copies(&self, id: &SnapshotId, copies: u32) {
        if copies == self.options.replication {
            return;
        }
        for part in [DUMP, MANIFEST] {
            let path = format!("{}/{part}", self.dir(id));
            if let Err(e) = self.files.set_replication(&path, self.options.replication).await {
                tracing::warn!(path, copies, error = %e, "store: a snapshot keeps fewer copies than configured");
            }
        }
    }
}
