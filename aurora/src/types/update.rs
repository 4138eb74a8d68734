//! Job updates, as far as we need to know that one is in the way.

use super::{JobKey, JobUpdateStatus, Metadata};

/// One update of one job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobUpdateKey {
    /// The job.
    pub job: JobKey,
    /// Opaque and unique.
    pub id: String,
}

/// Where an update stands, and since when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobUpdateState {
    /// Now.
    pub status: JobUpdateStatus,
    /// Unix time in milliseconds.
    pub created_timestamp_ms: i64,
    /// Unix time in milliseconds.
    pub last_modified_timestamp_ms: i64,
}

/// An update without its instructions and events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobUpdateSummary {
    /// Who started it; `UNSECURE` when the scheduler runs without authentication.
    pub user: Option<String>,
    /// Where it stands.
    pub state: JobUpdateState,
    /// Which one it is.
    pub key: JobUpdateKey,
    /// Labels given at its start.
    pub metadata: Option<Vec<Metadata>>,
}
