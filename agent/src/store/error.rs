//! What can go wrong with the store, and whether it is worth trying again.

use std::path::PathBuf;
use std::time::Duration;

use crate::snapshot::{Problem, Sha256, SnapshotId};

/// Why a call to the store failed. Display is one line; whoever logs adds the chain of sources.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store's address cannot be used. Nothing was tried.
    #[error("store address {uri:?}: {why} (expected hdfs://host:port/path, hdfs://nameservice/path or file:///path)")]
    Address {
        /// As given.
        uri: String,
        /// What is wrong with it.
        why: String,
    },
    /// A call to the store.
    #[error("{what} {path}: {why}")]
    Remote {
        /// Which call, e.g. `create`.
        what: &'static str,
        /// On which path of the store.
        path: String,
        /// What kind of failure.
        trouble: Trouble,
        /// In the store's words, one line.
        why: String,
    },
    /// A snapshot whose bytes are not those that were stored.
    #[error("snapshot {snapshot} is damaged at offset {offset} of dump.rdb: {what}")]
    Corrupt {
        /// Which snapshot.
        snapshot: SnapshotId,
        /// What does not fit.
        what: String,
        /// Where in the dump, bytes.
        offset: u64,
    },
    /// A snapshot that cannot be used because of its manifest or its parts.
    #[error("snapshot {snapshot} cannot be used")]
    Unusable {
        /// Which snapshot.
        snapshot: SnapshotId,
        /// Why.
        #[source]
        problem: Problem,
    },
    /// The dump to be stored is not the one its manifest describes.
    #[error("dump {path} is not the one its manifest describes: {what}")]
    OtherDump {
        /// The dump.
        path: PathBuf,
        /// What differs.
        what: String,
    },
    /// A dump that came piece by piece did not come whole, or not in good order. Nothing of it was kept.
    #[error("{why}")]
    Source {
        /// What failed at whoever sent it.
        why: String,
        /// Whether another attempt would fail too.
        lasting: bool,
    },
    /// What lies elsewhere is no dump that could be taken in. Nothing of it was kept.
    #[error("{from}: {why}")]
    Elsewhere {
        /// Its address.
        from: String,
        /// What is wrong with it.
        why: String,
    },
    /// A file fetched by its SHA-256 has another one.
    #[error("{uri} has SHA-256 {found}, expected {expected}: another file lies there, or the configured sum is wrong")]
    OtherFile {
        /// Where it was fetched from.
        uri: String,
        /// Sum wanted.
        expected: Sha256,
        /// Sum found.
        found: Sha256,
    },
    /// This machine's own disk.
    #[error("{what} {path}")]
    Disk {
        /// Which call, e.g. `create`.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Tried for as long as was allowed.
    #[error("given up after {attempts} attempts in {} s", after.as_secs())]
    GaveUp {
        /// How many attempts.
        attempts: u32,
        /// Since the first failure.
        after: Duration,
        /// The last one's failure.
        #[source]
        last: Box<Error>,
    },
}

/// What kind of failure a call to the store had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// No answer within the call's deadline: perhaps carried out, perhaps not.
    Timeout,
    /// No connection, or it broke.
    Unreachable,
    /// The store cannot do it now: safe mode, standby, no DataNode to write to.
    Busy,
    /// It failed on the way, e.g. a DataNode died.
    Failed,
    /// Not there.
    Missing,
    /// Something is there already.
    Exists,
    /// Not allowed.
    Denied,
    /// No space left, or a quota exceeded.
    Full,
    /// The store refuses such a call or path.
    Invalid,
    /// A bug in the client library.
    Panicked,
}

impl Error {
    /// Whether the same call may succeed later without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        use Trouble::{Busy, Failed, Panicked, Timeout, Unreachable};
        matches!(
            self,
            Error::Remote { trouble: Timeout | Unreachable | Busy | Failed | Panicked, .. }
                | Error::Source { lasting: false, .. }
        )
    }

    /// Whether it is certain that nothing happened.
    pub fn is_definite(&self) -> bool {
        use Trouble::{Failed, Panicked, Timeout, Unreachable};
        !matches!(self, Error::Remote { trouble: Timeout | Unreachable | Failed | Panicked, .. })
    }

    /// Whether the store as a whole does not answer, not just one file of it.
    pub fn is_outage(&self) -> bool {
        use Trouble::{Busy, Timeout, Unreachable};
        matches!(self, Error::Remote { trouble: Timeout | Unreachable | Busy, .. })
    }

    /// Whether the snapshot itself is no good, or cannot be read while the store as a whole answers: another one is to be taken.
    pub fn blames_snapshot(&self) -> bool {
        match self {
            Error::Corrupt { .. } | Error::Unusable { .. } => true,
            Error::GaveUp { last, .. } => last.trouble() == Some(Trouble::Failed),
            _ => false,
        }
    }

    /// The kind of failure, for metric labels.
    pub fn kind(&self) -> &'static str {
        match self {
            Error::Address { .. } => "address",
            Error::Remote { trouble, .. } => match trouble {
                Trouble::Timeout => "timeout",
                Trouble::Unreachable => "unreachable",
                Trouble::Busy => "busy",
                Trouble::Failed => "failed",
                Trouble::Missing => "missing",
                Trouble::Exists => "exists",
                Trouble::Denied => "denied",
                Trouble::Full => "full",
                Trouble::Invalid => "invalid",
                Trouble::Panicked => "panicked",
            },
            Error::Corrupt { .. } => "corrupt",
            Error::Unusable { .. } => "unusable",
            Error::OtherDump { .. } => "other-dump",
            Error::Source { .. } => "source",
            Error::Elsewhere { .. } => "elsewhere",
            Error::OtherFile { .. } => "other-file",
            Error::Disk { .. } => "disk",
            Error::GaveUp { .. } => "gave-up",
        }
    }

    pub(super) fn trouble(&self) -> Option<Trouble> {
        match self {
            Error::Remote { trouble, .. } => Some(*trouble),
            _ => None,
        }
    }

    /// A failure at whoever sends a dump, which may pass.
    pub(crate) fn source(why: impl Into<String>) -> Error {
        Error::Source { why: why.into(), lasting: false }
    }

    pub(super) fn timeout(what: &'static str, path: &str, after: Duration) -> Error {
        let why = format!("no answer within {} s", after.as_secs_f32());
        Error::Remote { what, path: path.into(), trouble: Trouble::Timeout, why }
    }

    pub(super) fn panicked(what: &'static str, path: &str, error: &tokio::task::JoinError) -> Error {
        let why = format!("the client library failed: {}", first_line(&error.to_string()));
        Error::Remote { what, path: path.into(), trouble: Trouble::Panicked, why }
    }

    pub(super) fn disk(what: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::Disk { what, path, source }
    }
}

/// The chain of an error in one line, for reports: the error, then its sources.
pub fn one_line(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// The first line of a text, at most 300 characters: the rest of what HDFS says is a Java stack trace.
pub(super) fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim().chars().take(300).collect()
}
