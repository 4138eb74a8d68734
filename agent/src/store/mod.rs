//! The snapshot store: HDFS or a directory, behind one interface.
//!
//! The agent puts and gets snapshots, the controller lists them. Layout below the store's address:
//!
//! ```text
//! <role>/<env>/<job>/snapshots/<snapshot id>/dump.rdb
//!                                            manifest.json
//!                                            pinned.json, accepted.json, verified-<utc>-<ms>.json, rehearsed-…   notes of later
//!                    incoming/<uuid>/...     uploads under way; removed-<ms>-<uuid>/... snapshots on their way out
//! ```
//!
//! What stands under `snapshots/` is whole: an upload is read back before one rename puts it there, and dump and manifest are never
//! written to or renamed over. What [`Store::get`] hands out has been checked against its manifest and as a dump.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;

use crate::clock::unix_ms;
use crate::snapshot::{Imported, MANIFEST_MAX_BYTES, Manifest, Marks, Problem, SnapshotId};

mod access;
mod aside;
mod error;
mod files;
mod get;
mod hdfs;
mod import;
mod local;
mod marks;
mod pieces;
mod put;
mod remove;
mod stream;
#[cfg(test)]
mod tests;
mod verify;

pub use access::{Access, CONF_DIR, KEYTAB, Kerberos, PRINCIPAL};
pub use error::{Error, Trouble, one_line};
pub use files::Deadlines;
pub use get::fetch_file;
pub use import::{Elsewhere, Foreign, Job};
pub use remove::Removed;
pub use stream::Coming;

use files::{Child, Files, Kind};

/// The dump's name in a snapshot.
const DUMP: &str = "dump.rdb";
/// The manifest's name in a snapshot.
const MANIFEST: &str = "manifest.json";
/// Manifests read at the same time by a listing.
const LIST_AT_ONCE: usize = 16;
/// Uploads older than this that lie in `incoming/` have no writer any more.
const STALE_MS: u64 = 48 * 3600 * 1000;

/// How the store is reached and how patient it is.
#[derive(Clone, Debug)]
pub struct Options {
    /// How HDFS is reached.
    pub access: Access,
    /// User to act as in HDFS; absent for `HADOOP_USER_NAME`, or the process's own.
    pub user: Option<String>,
    /// Copies HDFS keeps of a snapshot. An upload that fails is tried again with fewer, which are brought up to this after it.
    pub replication: u32,
    /// Deadlines of single calls.
    pub deadlines: Deadlines,
    /// How long after its first failure an upload is still tried again. More than the 11 minutes that HDFS needs to notice a
    /// dead DataNode, and keeps sending writers to it until then.
    pub put_patience: Duration,
    /// How long after its first failure a download is still tried again.
    pub get_patience: Duration,
    /// Pause after the first failure; doubles up to `longest_pause`.
    pub first_pause: Duration,
    /// Longest pause between two attempts.
    pub longest_pause: Duration,
}

impl Options {
    /// The defaults, for an HDFS that is reached like that.
    pub fn reaching(access: &Access) -> Options {
        Options { access: access.clone(), ..Options::default() }
    }
}

impl Default for Options {
    fn default() -> Options {
        Options {
            access: Access::default(),
            user: None,
            replication: 3,
            deadlines: Deadlines::default(),
            put_patience: Duration::from_secs(15 * 60),
            get_patience: Duration::from_secs(2 * 60),
            first_pause: Duration::from_secs(4),
            longest_pause: Duration::from_secs(60),
        }
    }
}

/// How far a put or a get is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Attempt under way, from 1.
    pub attempt: u32,
    /// What it is doing.
    pub stage: Stage,
    /// Bytes done of this attempt's stage.
    pub done_bytes: u64,
    /// Bytes in all; 0 when unknown.
    pub total_bytes: u64,
    /// Why the attempt before this one failed; absent when none has.
    pub error: Option<String>,
}

/// See [`Progress::stage`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// Not begun.
    #[default]
    Beginning,
    /// Copying to the store.
    Uploading,
    /// Reading back what was copied.
    ReadingBack,
    /// Copying from the store.
    Fetching,
    /// Reading and judging, without keeping it.
    Verifying,
    /// Waiting before the next attempt.
    Pausing,
}

/// Where progress is reported: whoever wants to know subscribes.
pub type Report = tokio::sync::watch::Sender<Progress>;

/// Progress is told in steps of at least this, bytes: whoever listens may pass each one on.
const STEP_BYTES: u64 = 4 << 20;

/// Reports how far the stage is, unless that is hardly further than was reported last.
fn advance(report: &Report, stage: Stage, done_bytes: u64) {
    report.send_if_modified(|p| {
        let news = p.stage != stage || done_bytes >= p.done_bytes + STEP_BYTES || done_bytes == p.total_bytes;
        if news {
            (p.stage, p.done_bytes) = (stage, done_bytes);
        }
        news
    });
}

/// One snapshot in a listing.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The directory's name.
    pub name: String,
    /// The snapshot and its manifest, or why it cannot be used.
    pub snapshot: Result<(SnapshotId, Arc<Manifest>), Problem>,
    /// What was noted about it later.
    pub marks: Marks,
}

impl Entry {
    /// The snapshot if it can be used for this cluster (for any, without a cluster id).
    pub fn usable(&self, cluster_id: Option<&str>) -> Result<(&SnapshotId, &Manifest), Problem> {
        let found = self.of_cluster(cluster_id)?;
        if let Some(problem) = self.marks.verification.as_ref().and_then(|v| v.problem.as_ref()) {
            return Err(Problem::Verified(problem.clone()));
        }
        Ok(found)
    }

    /// The snapshot if its manifest is readable and of this cluster (of any, without a cluster id), whatever was found in it later. One that was
    /// imported is of none.
    pub fn of_cluster(&self, cluster_id: Option<&str>) -> Result<(&SnapshotId, &Manifest), Problem> {
        let (id, manifest) = self.snapshot.as_ref().map_err(Clone::clone)?;
        if let Some(imported) = &manifest.imported {
            return Err(Problem::Imported { from: imported.from.clone() });
        }
        cluster_id.map_or(Ok(()), |cluster| manifest.check_cluster(cluster))?;
        Ok((id, manifest))
    }

    /// The snapshot if it was imported, and where from; whatever was found in it later.
    pub fn imported(&self) -> Option<(&SnapshotId, &Manifest, &Imported)> {
        let (id, manifest) = self.snapshot.as_ref().ok()?;
        Some((id, manifest, manifest.imported.as_ref()?))
    }
}

/// One cluster's snapshots. Cheap to clone; clones share connections and what was read.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    files: Files,
    /// Directory of the cluster's snapshots and uploads.
    root: String,
    options: Options,
    /// Manifests and notes read so far by directory name, with the directory's modification time: a new note changes that. Only of
    /// directories that had rested for [`RESTED_MS`] when they were read.
    known: Mutex<HashMap<String, (u64, Known)>>,
}

type Known = (Arc<Manifest>, Marks);

/// How long ago a directory must have changed for its content to be remembered: two changes within one step of the store's clock leave the
/// same modification time, and that clock is not quite ours.
const RESTED_MS: u64 = 10_000;

impl Store {
    /// The snapshots of `cluster` (`role/env/job`) below `uri`. Reads configuration files, but connects to nothing.
    pub fn open(uri: &str, cluster: &str, options: Options) -> Result<Store, Error> {
        let (files, base) = open_files(uri, &options)?;
        let segments: Vec<&str> = cluster.split('/').collect();
        if segments.len() != 3 || segments.iter().any(|s| !is_segment(s)) {
            return Err(Error::Address { uri: uri.into(), why: format!("{cluster:?} is not a cluster (role/env/job)") });
        }
        let root = format!("{}/{cluster}", base.trim_end_matches('/'));
        Ok(Store { inner: Arc::new(Inner { files, root, options, known: Mutex::default() }) })
    }

    /// Every directory below `snapshots/`, sorted by name; what cannot be used is there too, with the reason. Empty when nothing
    /// was ever stored.
    ///
    /// An error only when the store as a whole does not answer.
    pub async fn list(&self) -> Result<Vec<Entry>, Error> {
        let Some(children) = self.inner.files.list(&self.inner.snapshots()).await? else {
            return Ok(Vec::new());
        };
        self.inner.forget_others(&children);
        let entries = futures_util::stream::iter(children).map(|child| entry(&self.inner, child)).buffered(LIST_AT_ONCE);
        let mut entries = std::pin::pin!(entries);
        let mut all = Vec::new();
        while let Some(entry) = entries.next().await {
            all.push(entry?);
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// One snapshot's manifest, read anew and checked.
    pub async fn manifest(&self, id: &SnapshotId) -> Result<Manifest, Error> {
        let found = read_manifest(&self.inner, id).await?;
        found.map_err(|problem| Error::Unusable { snapshot: id.clone(), problem })
    }

    /// Writes a small file below `incoming/`, reads it back and deletes it: whether snapshots could be stored. How long it took.
    pub async fn check_writable(&self) -> Result<Duration, Error> {
        let begun = Instant::now();
        let path = format!("{}/{}", self.inner.incoming(), uuid::Uuid::new_v4());
        let (inner, file) = (self.inner.clone(), path.clone());
        let wrote = apart("write", &path, async move { inner.write_and_read(&file).await }).await;
        match wrote {
            // The deletion would only wait for the same outage; a sweep will do it.
            Err(e) if e.is_outage() => Err(e),
            wrote => wrote.and(self.inner.files.remove(&path).await).map(|()| begun.elapsed()),
        }
    }

    /// Deletes uploads below `incoming/` that nobody has written to for two days, and what an interrupted removal left for as long. How
    /// many there were.
    pub async fn sweep(&self, now_ms: u64) -> Result<u32, Error> {
        let mut swept = 0;
        for child in self.inner.files.list(&self.inner.incoming()).await?.unwrap_or_default() {
            if left_alone_since(&child).is_some_and(|since_ms| since_ms.saturating_add(STALE_MS) < now_ms) {
                self.inner.files.remove(&format!("{}/{}", self.inner.incoming(), child.name)).await?;
                swept += 1;
            }
        }
        Ok(swept)
    }
}

impl Inner {
    fn snapshots(&self) -> String {
        format!("{}/snapshots", self.root)
    }

    fn incoming(&self) -> String {
        format!("{}/incoming", self.root)
    }

    fn dir(&self, id: &SnapshotId) -> String {
        format!("{}/snapshots/{id}", self.root)
    }

    async fn write_and_read(&self, path: &str) -> Result<(), Error> {
        let bytes = path.as_bytes().to_vec();
        self.files.mkdirs(&self.incoming()).await?;
        self.files.write_small(path, bytes.clone(), self.options.replication).await?;
        let read = self.files.read_small(path, bytes.len() as u64).await?;
        if read == bytes {
            return Ok(());
        }
        let why = "other bytes than were written".into();
        Err(Error::Remote { what: "read back", path: path.into(), trouble: Trouble::Failed, why })
    }

    /// A snapshot's manifest, if its parts are what they should be.
    async fn read_manifest(&self, id: &SnapshotId) -> Result<Result<Manifest, Problem>, Error> {
        let parts = self.files.list(&self.dir(id)).await?.unwrap_or_default();
        self.manifest_among(id, &parts).await
    }

    async fn manifest_among(&self, id: &SnapshotId, parts: &[Child]) -> Result<Result<Manifest, Problem>, Error> {
        let manifest = manifest_in(&self.files, &self.dir(id), parts).await?;
        Ok(manifest.and_then(|manifest| manifest.check_name(id).map(|()| manifest)))
    }

    /// A snapshot's manifest, if its parts are what they should be, and its notes, whatever it is worth.
    async fn read_all(&self, id: &SnapshotId) -> Result<(Result<Manifest, Problem>, Marks), Error> {
        let parts = self.files.list(&self.dir(id)).await?.unwrap_or_default();
        let marks = marks::read(&self.files, &self.dir(id), &parts).await?;
        let manifest = match self.manifest_among(id, &parts).await {
            Err(e) if !e.is_outage() => Err(Problem::Unreadable(one_line(&e))),
            read => read?,
        };
        Ok((manifest, marks))
    }

    fn known(&self, name: &str, modified_ms: u64) -> Option<Known> {
        let known = self.lock_known();
        known.get(name).filter(|(at, _)| *at == modified_ms).map(|(_, known)| known.clone())
    }

    fn forget_others(&self, children: &[Child]) {
        let names: std::collections::HashSet<&str> = children.iter().map(|c| c.name.as_str()).collect();
        self.lock_known().retain(|name, _| names.contains(name.as_str()));
    }

    fn lock_known(&self) -> std::sync::MutexGuard<'_, HashMap<String, (u64, Known)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What stands in one directory of a listing. An error only if the store as a whole does not answer.
async fn entry(inner: &Arc<Inner>, child: Child) -> Result<Entry, Error> {
    let name = child.name;
    let id = match name.parse::<SnapshotId>() {
        Ok(id) => id,
        Err(why) => return Ok(Entry { name, snapshot: Err(Problem::NotAName(why)), marks: Marks::default() }),
    };
    if let Some((manifest, marks)) = inner.known(&name, child.modified_ms) {
        return Ok(Entry { name, snapshot: Ok((id, manifest)), marks });
    }
    let (reader, snapshot) = (inner.clone(), id.clone());
    let read = apart("read", &inner.dir(&id), async move { reader.read_all(&snapshot).await }).await;
    let (manifest, marks) = match read {
        Err(e) if !e.is_outage() => (Err(Problem::Unreadable(one_line(&e))), Marks::default()),
        read => read?,
    };
    let snapshot = manifest.map(|manifest| {
        let manifest = Arc::new(manifest);
        if unix_ms().saturating_sub(child.modified_ms) >= RESTED_MS {
            inner.lock_known().insert(name.clone(), (child.modified_ms, (manifest.clone(), marks.clone())));
        }
        (id, manifest)
    });
    Ok(Entry { name, snapshot, marks })
}

/// Since when nobody has touched what lies in `incoming/`; none for names that neither an upload nor a removal gave. A snapshot that is being
/// removed keeps its own age, so its name tells when that began.
fn left_alone_since(child: &Child) -> Option<u64> {
    match remove::begun_ms(&child.name) {
        Some(begun_ms) => Some(begun_ms),
        None => uuid::Uuid::parse_str(&child.name).is_ok().then_some(child.modified_ms),
    }
}

/// As [`Inner::read_manifest`], in a task of its own.
async fn read_manifest(inner: &Arc<Inner>, id: &SnapshotId) -> Result<Result<Manifest, Problem>, Error> {
    let (reader, snapshot) = (inner.clone(), id.clone());
    apart("read the manifest of", &inner.dir(id), async move { reader.read_manifest(&snapshot).await }).await
}

/// The manifest in a snapshot's directory that has these parts, if they are what they should be; its name aside.
async fn manifest_in(files: &Files, dir: &str, parts: &[Child]) -> Result<Result<Manifest, Problem>, Error> {
    let sizes = part(parts, MANIFEST).and_then(|m| Ok((m, part(parts, DUMP)?)));
    let (manifest_bytes, dump_bytes) = match sizes {
        Ok(sizes) => sizes,
        Err(problem) => return Ok(Err(problem)),
    };
    if manifest_bytes > MANIFEST_MAX_BYTES {
        return Ok(Err(Problem::TooBig { bytes: manifest_bytes }));
    }
    let json = files.read_small(&format!("{dir}/{MANIFEST}"), MANIFEST_MAX_BYTES).await?;
    Ok(Manifest::parse(&json).and_then(|manifest| match manifest.bytes == dump_bytes {
        true => Ok(manifest),
        false => Err(Problem::Length { found: dump_bytes, expected: manifest.bytes }),
    }))
}

/// Size of one part of a snapshot.
fn part(parts: &[Child], name: &'static str) -> Result<u64, Problem> {
    match parts.iter().find(|c| c.name == name) {
        None => Err(Problem::Missing(name)),
        Some(found) if found.kind != Kind::File => Err(Problem::NotAFile(name)),
        Some(found) => Ok(found.bytes),
    }
}

/// A name that can be part of a path in every kind of store.
fn is_segment(text: &str) -> bool {
    !text.is_empty() && text != "." && text != ".." && !text.contains(['/', ':', '\0'])
}

/// The files at an address, and the path in it.
fn open_files(uri: &str, options: &Options) -> Result<(Files, String), Error> {
    let wrong = |why: &str| Error::Address { uri: uri.into(), why: why.into() };
    let (scheme, rest) = uri.split_once("://").ok_or_else(|| wrong("it has no scheme"))?;
    let (host, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
    if path.split('/').skip(1).any(|s| !s.is_empty() && !is_segment(s)) {
        return Err(wrong("its path holds '.', '..' or ':'"));
    }
    match scheme {
        "file" if !host.is_empty() => Err(wrong("file:// is followed by an absolute path, not by a host")),
        "file" if path.trim_matches('/').is_empty() => Err(wrong("it has no path")),
        "file" => Ok((Files::Local(local::Local { deadlines: options.deadlines }), path.into())),
        "hdfs" if host.is_empty() => Err(wrong("it has neither host nor nameservice")),
        "hdfs" => {
            let url = format!("hdfs://{host}");
            let settings = hdfs::Settings { url, access: options.access.clone(), user: options.user.clone() };
            Ok((Files::Hdfs(hdfs::Hdfs::new(settings, options.deadlines)?), path.into()))
        }
        _ => Err(wrong("its scheme is neither hdfs nor file")),
    }
}

/// Runs `f` in a task of its own, ended when the caller is; a panic in it becomes an error.
async fn apart<T: Send + 'static>(
    what: &'static str,
    path: &str,
    f: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    let mut task = tokio::task::JoinSet::new();
    task.spawn(Box::pin(f));
    match task.join_next().await {
        Some(Ok(done)) => done,
        Some(Err(join)) => Err(Error::panicked(what, path, &join)),
        None => unreachable!("one task was spawned"),
    }
}

/// Pauses between the attempts of one put or get, and when to give up.
struct Retry<'a> {
    report: &'a Report,
    attempt: u32,
    pause: Duration,
    longest: Duration,
    patience: Duration,
    first_failure: Option<Instant>,
}

impl<'a> Retry<'a> {
    fn new(options: &Options, patience: Duration, report: &'a Report) -> Retry<'a> {
        let (pause, longest) = (options.first_pause, options.longest_pause);
        Retry { report, attempt: 1, pause, longest, patience, first_failure: None }
    }

    /// Reports the failure and waits before the next attempt; the error itself when there is to be none.
    async fn after(&mut self, error: Error, retryable: bool) -> Result<(), Error> {
        self.report.send_modify(|p| p.error = Some(one_line(&error)));
        if !retryable {
            return Err(error);
        }
        let since = self.first_failure.get_or_insert_with(Instant::now).elapsed();
        if since + self.pause > self.patience {
            return Err(Error::GaveUp { attempts: self.attempt, after: since, last: Box::new(error) });
        }
        tracing::warn!(
            attempt = self.attempt,
            error = one_line(&error),
            pause_ms = self.pause.as_millis(),
            "store: trying again"
        );
        self.report.send_modify(|p| p.stage = Stage::Pausing);
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(self.longest);
        self.attempt += 1;
        Ok(())
    }

    fn begin(&self, total_bytes: u64) {
        self.report.send_modify(|p| {
            (p.attempt, p.total_bytes, p.done_bytes, p.stage) = (self.attempt, total_bytes, 0, Stage::Beginning);
        });
    }
}
