//! Notes about snapshots, see [`crate::snapshot::Marks`]: written beside the manifest, read with it.
//!
//! A pin is one file, that is there or not, whatever it holds. Each verification is a file of its own name; the last one counts, and older
//! ones are removed after it.

use super::error::{Error, Trouble};
use super::files::{Child, Kind};
use super::{DUMP, Inner, MANIFEST, Store, apart};
use crate::snapshot::{MARK_MAX_BYTES, Marks, Pin, Problem, SnapshotId, Verification, utc};

pub(super) const PIN: &str = "pinned.json";
const VERIFIED: &str = "verified-";

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

    /// Notes what a verification found. It stands beside those before it at first, so at no time is there none.
    pub async fn note_verification(&self, id: &SnapshotId, verification: &Verification) -> Result<(), Error> {
        let older = self.parts(id).await?;
        let name = format!("{VERIFIED}{}-{:03}.json", utc(verification.at_ms), verification.at_ms % 1000);
        let json = serde_json::to_vec_pretty(verification).expect("a verification has only string keys");
        self.write_mark(id, name.clone(), json).await?;
        // Not those of a later name: somebody else verified it at the same time.
        for part in older.iter().filter(|part| is_verification(part) && part.name < name) {
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

impl Inner {
    /// The notes among a snapshot's parts. An error only if the store as a whole does not answer.
    pub(super) async fn marks(&self, id: &SnapshotId, parts: &[Child]) -> Result<Marks, Error> {
        let mut marks = Marks::default();
        if parts.iter().any(|part| part.name == PIN) {
            marks.pin = Some(self.read_mark(id, PIN).await?.unwrap_or_default());
        }
        let last = parts.iter().filter(|part| is_verification(part)).max_by_key(|part| &part.name);
        if let Some(last) = last {
            marks.verification = self.read_mark(id, &last.name).await?;
        }
        Ok(marks)
    }

    /// None if it cannot be read: half written, or not by us.
    async fn read_mark<T: serde::de::DeserializeOwned>(&self, id: &SnapshotId, name: &str) -> Result<Option<T>, Error> {
        match self.files.read_small(&format!("{}/{name}", self.dir(id)), MARK_MAX_BYTES).await {
            Ok(json) => Ok(serde_json::from_slice(&json).ok()),
            Err(e) if e.is_outage() => Err(e),
            Err(_) => Ok(None),
        }
    }
}

fn is_verification(part: &Child) -> bool {
    part.kind == Kind::File && part.name.starts_with(VERIFIED) && part.name.ends_with(".json")
}
