//! Takes in dumps that lie elsewhere: an RDB file, the original system's `dump.rdb`, a snapshot of another store. The same commit as for a stream.
//!
//! Invariant: where it comes from is only read. What is committed was read to its end and found whole: structure, CRC-64, and what its manifest
//! says where there is one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::error::{Error, one_line};
use super::files::{Child, Files, Kind, Reader};
use super::get::compare;
use super::{Coming, DUMP, Entry, Inner, MANIFEST, Options, Report, Store, apart, aside, local, manifest_in, marks, open_files};
use crate::clock::unix_ms;
use crate::rdb;
use crate::snapshot::{Imported, Manifest, Problem, SnapshotId};

/// Chunks between the one who reads and the one who writes.
const CHUNKS: usize = 4;
/// How often a source that fails on the way is read.
const TRIES: u32 = 3;
/// The directory of a job's snapshots.
const SNAPSHOTS: &str = "snapshots";
/// What can be imported, for those who name something else.
const EXPECTED: &str = "an RDB file, a directory with dump.rdb in it, a snapshot's directory, or that of a job in a store";

/// What lies at an address.
pub enum Elsewhere {
    /// One dump.
    Dump(Foreign),
    /// A job's directory in a store: which of its snapshots is meant is for the caller to say.
    Job(Job),
}

/// A dump that lies elsewhere.
#[derive(Clone)]
pub struct Foreign {
    place: Arc<Inner>,
    path: String,
    from: String,
    bytes: u64,
    modified_ms: u64,
    /// What its manifest says, where it has one.
    manifest: Option<Arc<Manifest>>,
}

/// The directory of another job in a store. It is only read.
pub struct Job {
    store: Store,
    from: String,
}

impl Elsewhere {
    /// Looks what lies at `address`: a path of this machine, or a URL as stores have it. Reads no dump.
    ///
    /// # Errors
    /// There is nothing that could be imported, or it cannot be reached.
    pub async fn look(address: &str, options: &Options) -> Result<Elsewhere, Error> {
        let (files, path, from) = open(address, options)?;
        let place = Inner { files, root: path.clone(), options: options.clone(), known: Default::default() };
        let look = Look { place: Arc::new(place), path, from: from.clone() };
        apart("look at", &from, look.find()).await
    }
}

impl Job {
    /// As [`Store::list`].
    pub async fn list(&self) -> Result<Vec<Entry>, Error> {
        self.store.list().await
    }

    /// The dump of one of its snapshots.
    ///
    /// # Errors
    /// It cannot be used, or not be reached.
    pub async fn dump(&self, id: &SnapshotId) -> Result<Foreign, Error> {
        let (place, from) = (self.store.inner.clone(), format!("{}/{SNAPSHOTS}/{id}", self.from));
        let look = Look { path: place.dir(id), place, from: from.clone() };
        apart("look at", &from, look.snapshot()).await
    }
}

impl Foreign {
    /// Its address.
    pub fn address(&self) -> &str {
        &self.from
    }

    /// Its size, bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What its manifest says; absent where it has none.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_deref()
    }

    fn wrong(&self, why: String) -> Error {
        Error::Elsewhere { from: self.from.clone(), why }
    }

    /// The manifest that it gets here, if it is what it should be.
    fn judge(&self, walked: Result<rdb::Walked, rdb::Flaw>, imported: Imported) -> Result<Manifest, Error> {
        let walked = walked.map_err(|flaw| self.wrong(flaw.to_string()))?;
        if let Some(manifest) = &self.manifest {
            let fits = compare(manifest, &walked.checked);
            fits.map_err(|(what, offset)| self.wrong(format!("it is damaged at offset {offset} of {DUMP}: {what}")))?;
        }
        Ok(Manifest::of_import(imported, self.manifest(), self.modified_ms, &walked))
    }
}

impl Store {
    /// Takes a dump in from elsewhere, judged as it streams by, as a snapshot that belongs to no cluster. The name it has got.
    ///
    /// Tried again as [`Store::put_stream`] says; a source that fails on the way is read three times.
    pub async fn import(&self, source: &Foreign, by: &str, report: &Report) -> Result<SnapshotId, Error> {
        let imported = Imported { from: source.from.clone(), by: by.into(), at_ms: unix_ms(), ..Imported::default() };
        let failures = Arc::new(AtomicU32::new(0));
        let begin = || {
            let transfer = Transfer { source: source.clone(), imported: imported.clone(), failures: failures.clone() };
            transfer.begin(report.clone())
        };
        self.put_stream(begin, report).await
    }
}

/// One attempt at reading a dump.
struct Transfer {
    source: Foreign,
    imported: Imported,
    failures: Arc<AtomicU32>,
}

impl Transfer {
    /// Opens it, and passes it on in a task of its own, which ends when nobody takes the pieces any more.
    async fn begin(self, report: Report) -> Result<Coming, Error> {
        let expected_bytes = self.source.bytes;
        report.send_modify(|p| p.total_bytes = expected_bytes);
        let (place, path) = (self.source.place.clone(), self.source.path.clone());
        let opened = apart("open", &self.source.path, async move { place.files.open(&path).await }).await;
        let reader = opened.map_err(|e| self.failed(&e))?;
        let (store, pieces) = mpsc::channel(CHUNKS);
        let (verdict, manifest) = oneshot::channel();
        tokio::spawn(async move {
            let _ = verdict.send(self.pass_on(reader, store).await);
        });
        Ok(Coming { pieces, manifest, expected_bytes })
    }

    /// Each chunk goes to the store and to a thread that walks the dump's structure and computes its sums.
    async fn pass_on(self, mut reader: Reader, store: mpsc::Sender<Bytes>) -> Result<Manifest, Error> {
        let (feed, chunks) = aside::channel();
        let walk = tokio::task::spawn_blocking(move || rdb::walk(chunks));
        while let Some(chunk) = reader.next().await.map_err(|e| self.failed(&e))? {
            if store.send(chunk.clone()).await.is_err() {
                return Err(Error::source("the store does not take it any more"));
            }
            // The walk has seen enough: it is no dump.
            if feed.send(chunk).await.is_err() {
                break;
            }
        }
        drop((feed, store));
        let walked = walk.await.map_err(|e| Error::panicked("walk", &self.source.path, &e))?;
        let walked = walked.map_err(Error::disk("walk", std::path::Path::new(&self.source.path)))?;
        self.source.judge(walked, self.imported)
    }

    fn failed(&self, error: &Error) -> Error {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        let lasting = failures >= TRIES || !error.is_retryable();
        Error::Source { why: format!("{} cannot be read: {}", self.source.from, one_line(error)), lasting }
    }
}

/// A look at one path.
struct Look {
    place: Arc<Inner>,
    path: String,
    from: String,
}

impl Look {
    fn wrong(&self, why: String) -> Error {
        Error::Elsewhere { from: self.from.clone(), why }
    }

    async fn find(self) -> Result<Elsewhere, Error> {
        match self.place.files.stat(or_root(&self.path)).await? {
            None => Err(self.wrong(format!("there is nothing; expected is {EXPECTED}"))),
            Some(Child { kind: Kind::Other, .. }) => Err(self.wrong("it is neither a file nor a directory".into())),
            Some(file @ Child { kind: Kind::File, .. }) => Ok(Elsewhere::Dump(self.file(&file))),
            Some(Child { kind: Kind::Directory, .. }) => self.directory().await,
        }
    }

    /// The dump that is this very file.
    fn file(self, file: &Child) -> Foreign {
        let (bytes, modified_ms) = (file.bytes, file.modified_ms);
        Foreign { place: self.place, path: self.path, from: self.from, bytes, modified_ms, manifest: None }
    }

    async fn directory(mut self) -> Result<Elsewhere, Error> {
        let children = self.place.files.list(or_root(&self.path)).await?.unwrap_or_default();
        let child = |name: &str| children.iter().find(|child| child.name == name);
        if child(MANIFEST).is_some() || self.id().is_some() {
            return self.snapshot_among(&children).await.map(Elsewhere::Dump);
        }
        let job = child(SNAPSHOTS).is_some_and(|child| child.kind == Kind::Directory);
        match child(DUMP) {
            Some(_) if job => Err(self.wrong(format!("it holds both {DUMP} and {SNAPSHOTS}/: name the one that is meant"))),
            Some(file) if file.kind == Kind::File => {
                self.path = format!("{}/{DUMP}", self.path);
                self.from = format!("{}/{DUMP}", self.from);
                Ok(Elsewhere::Dump(self.file(file)))
            }
            Some(_) => Err(self.wrong(format!("{DUMP} in it is not a file"))),
            None if job => Ok(Elsewhere::Job(Job { store: Store { inner: self.place }, from: self.from })),
            None => {
                Err(self.wrong(format!("it is a directory with nothing in it that could be imported; expected is {EXPECTED}")))
            }
        }
    }

    /// The snapshot whose directory this is.
    async fn snapshot(self) -> Result<Foreign, Error> {
        let children = self.place.files.list(or_root(&self.path)).await?;
        let children = children.ok_or_else(|| self.wrong("there is nothing".into()))?;
        self.snapshot_among(&children).await
    }

    async fn snapshot_among(mut self, children: &[Child]) -> Result<Foreign, Error> {
        let files = &self.place.files;
        let found = manifest_in(files, &self.path, children).await?;
        let found = found.and_then(|manifest| match self.id() {
            Some(id) => manifest.check_name(&id).map(|()| manifest),
            None => Ok(manifest),
        });
        let manifest = found.map_err(|problem| self.unusable(&problem))?;
        let verification = marks::read(files, &self.path, children).await?.verification;
        if let Some(problem) = verification.and_then(|verification| verification.problem) {
            return Err(self.unusable(&Problem::Verified(problem)));
        }
        let dump = children.iter().find(|child| child.name == DUMP).cloned();
        let dump = dump.ok_or_else(|| self.unusable(&Problem::Missing(DUMP)))?;
        self.path = format!("{}/{DUMP}", self.path);
        Ok(Foreign { manifest: Some(Arc::new(manifest)), ..self.file(&dump) })
    }

    fn unusable(&self, problem: &Problem) -> Error {
        self.wrong(format!("the snapshot cannot be used: {problem}"))
    }

    /// The snapshot's name that the path ends with; none when it ends with something else.
    fn id(&self) -> Option<SnapshotId> {
        self.path.rsplit('/').next()?.parse().ok()
    }
}

/// The files at an address, the path in them without a slash at its end, and the address for people.
fn open(address: &str, options: &Options) -> Result<(Files, String, String), Error> {
    if address.contains("://") {
        let (files, path) = open_files(address, options)?;
        return Ok((files, path.trim_end_matches('/').into(), address.trim_end_matches('/').into()));
    }
    let wrong = |why: String| Error::Elsewhere { from: address.into(), why };
    let path = std::path::absolute(address).map_err(|e| wrong(e.to_string()))?;
    let path = path.to_str().ok_or_else(|| wrong("its path is not UTF-8".into()))?.trim_end_matches('/').to_owned();
    let from = format!("file://{path}");
    Ok((Files::Local(local::Local { deadlines: options.deadlines }), path, from))
}

fn or_root(path: &str) -> &str {
    if path.is_empty() { "/" } else { path }
}
