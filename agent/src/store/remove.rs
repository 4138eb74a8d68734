//! Takes snapshots out of the store: by one rename, so that nobody ever sees half of one, then by deleting what was renamed.

use std::time::UNIX_EPOCH;

use super::error::Error;
use super::marks::PIN;
use super::{Inner, Store};
use crate::snapshot::SnapshotId;

/// Begins the name of a snapshot that is being removed; then come the time, `-`, and a random part.
const REMOVED: &str = "removed-";

/// What came of a removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed {
    /// It is gone.
    Gone,
    /// It was pinned meanwhile, and stays.
    Pinned,
}

impl Store {
    /// Removes a snapshot, unless it is pinned. Whoever calls has judged that it may go.
    ///
    /// What a failure leaves of it is swept two days later.
    pub async fn remove(&self, id: &SnapshotId) -> Result<Removed, Error> {
        let (inner, dir) = (&self.inner, self.inner.dir(id));
        if inner.is_pinned(&dir).await? {
            return Ok(Removed::Pinned);
        }
        let now_ms = UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis());
        let aside = format!("{}/{REMOVED}{now_ms}-{}", inner.incoming(), uuid::Uuid::new_v4().simple());
        inner.files.mkdirs(&inner.incoming()).await?;
        inner.files.rename(&dir, &aside).await?;
        // Pinned between the look and the rename.
        if inner.is_pinned(&aside).await? {
            inner.files.rename(&aside, &dir).await?;
            return Ok(Removed::Pinned);
        }
        inner.files.remove(&aside).await?;
        Ok(Removed::Gone)
    }
}

impl Inner {
    async fn is_pinned(&self, dir: &str) -> Result<bool, Error> {
        Ok(self.files.list(dir).await?.unwrap_or_default().iter().any(|part| part.name == PIN))
    }
}

/// When the removal of that name began, Unix time in milliseconds; none for any other name.
pub(super) fn begun_ms(name: &str) -> Option<u64> {
    let (ms, random) = name.strip_prefix(REMOVED)?.split_once('-')?;
    uuid::Uuid::parse_str(random).ok()?;
    ms.parse().ok()
}
