//! Notes about snapshots, see [`crate::snapshot::Marks`]: written beside the manifest, read with it.
//!
//! A pin is one file, that is there or not, whatever it holds, and so is an acceptance. Each verification and each rehearsal is a file of its
//! own name; the last one counts, and older ones are removed after it.

use super::error::{Error, Trouble};
use super::files::{Child, Files, Kind};
use super::{DUMP, MANIFEST, Store, apart};
use crate::snapshot::{Acceptance, MARK_MAX_BYTES, Marks, Pin, Problem, SnapshotId, Verification, utc};

pub(super) const PIN: &str = "pinned.json";
const ACCEPTED: &str = "accepted.json";
const VERIFIED: &str = "verified-";
const REHEARSED: &str = "rehearsed-";

impl Store {
    /// Pins a snapshot, a damaged one too. Whether it was not pinned before; then the pin that is there stays as it is.
    pub async fn pin(&self, id: &SnapshotId, pin: &Pin) -> Result<bool, Error> {
        let before = self.parts(id).await?;
        let json = serde_json::to_vec_pretty(pin).expect("a pin is plain data");
        match self.write_mark(id, PIN.into(), json).await {
            Err(e) if e.trouble() == Some(Trouble::Exists) => return Ok(false),
            done => done?,
        }
        // Removed under our hands? A removal looks for pins once more after its rename, so what is there now stays.
        let after = self.parts(id).await?;
        let whole = |parts: &[Child]| parts.iter().filter(|part| [DUMP, MANIFEST].contains(&part.name.as_str())).count();
        if whole(&after) < whole(&before) {
            return Err(Error::Unusable { snapshot: id.clone(), problem: Problem::Missing(DUMP) });
        }
        Ok(true)
    }

    /// Takes the pin away. Whether there was one.
    pub async fn unpin(&self, id: &SnapshotId) -> Result<bool, Error> {
        let pinned = self.parts(id).await?.iter().any(|part| part.name == PIN);
        self.inner.files.remove(&format!("{}/{PIN}", self.inner.dir(id))).await?;
        Ok(pinned)
    }

    /// Notes that somebody takes a snapshot for right. Whether nobody had before; else what is there stays as it is.
    pub async fn accept(&self, id: &SnapshotId, acceptance: &Acceptance) -> Result<bool, Error> {
        self.parts(id).await?;
        let json = serde_json::to_vec_pretty(acceptance).expect("an acceptance is plain data");
        match self.write_mark(id, ACCEPTED.into(), json).await {
            Err(e) if e.trouble() == Some(Trouble::Exists) => Ok(false),
            done => done.map(|()| true),
        }
    }

    /// Notes what a verification found. It stands beside those before it at first, so at no time is there none.
    pub async fn note_verification(&self, id: &SnapshotId, verification: &Verification) -> Result<(), Error> {
        self.note(id, VERIFIED, verification).await
    }

    /// Notes that a rehearsal restored it, in the same way.
    pub async fn note_rehearsal(&self, id: &SnapshotId, rehearsal: &Verification) -> Result<(), Error> {
        self.note(id, REHEARSED, rehearsal).await
    }

    async fn note(&self, id: &SnapshotId, kind: &str, found: &Verification) -> Result<(), Error> {
        let older = self.parts(id).await?;
        let name = format!("{kind}{}-{:03}.json", utc(found.at_ms), found.at_ms % 1000);
        let json = serde_json::to_vec_pretty(found).expect("a verification has only string keys");
        self.write_mark(id, name.clone(), json).await?;
        // Not those of a later name: somebody else noted it at the same time.
        for part in older.iter().filter(|part| is_note(part, kind) && part.name < name) {
            self.inner.files.remove(&format!("{}/{}", self.inner.dir(id), part.name)).await?;
        }
        Ok(())
    }

    async fn write_mark(&self, id: &SnapshotId, name: String, json: Vec<u8>) -> Result<(), Error> {
        let (inner, path) = (self.inner.clone(), format!("{}/{name}", self.inner.dir(id)));
        let file = path.clone();
        let replication = inner.options.replication;
        apart("write", &path, async move { inner.files.write_small(&file, json, replication).await }).await
    }

    /// What lies in a snapshot's directory; an error when there is no such directory.
    async fn parts(&self, id: &SnapshotId) -> Result<Vec<Child>, Error> {
        let found = self.inner.files.list(&self.inner.dir(id)).await?;
        found.ok_or_else(|| Error::Unusable { snapshot: id.clone(), problem: Problem::Missing("its directory") })
    }
}

/// The notes among the parts of a snapshot's directory. An error only if the store as a whole does not answer.
pub(super) async fn read(files: &Files, dir: &str, parts: &[Child]) -> Result<Marks, Error> {
    let mut marks = Marks::default();
    if parts.iter().any(|part| part.name == PIN) {
        marks.pin = Some(read_mark(files, dir, PIN).await?.unwrap_or_default());
    }
    if parts.iter().any(|part| part.name == ACCEPTED) {
        marks.accepted = Some(read_mark(files, dir, ACCEPTED).await?.unwrap_or_default());
    }
    marks.verification = last_note(files, dir, parts, VERIFIED).await?;
    marks.rehearsal = last_note(files, dir, parts, REHEARSED).await?;
    Ok(marks)
}

async fn last_note(files: &Files, dir: &str, parts: &[Child], kind: &str) -> Result<Option<Verification>, Error> {
    match parts.iter().filter(|part| is_note(part, kind)).max_by_key(|part| &part.name) {
        Some(last) => read_mark(files, dir, &last.name).await,
        None => Ok(None),
    }
}

/// None if it cannot be read: half written, or not by us.
async fn read_mark<T: serde::de::DeserializeOwned>(files: &Files, dir: &str, name: &str) -> Result<Option<T>, Error> {
    match files.read_small(&format!("{dir}/{name}"), MARK_MAX_BYTES).await {
        Ok(json) => Ok(serde_json::from_slice(&json).ok()),
        Err(e) if e.is_outage() => Err(e),
        Err(_) => Ok(None),
    }
}

fn is_note(part: &Child, kind: &str) -> bool {
    part.kind == Kind::File && part.name.starts_with(kind) && part.name.ends_with(".json")
}
