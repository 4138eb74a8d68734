//! Snapshots: their names, manifests and order. Pure; [`crate::store`] moves the bytes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::api::{Epoch, Offset};

/// A snapshot's name: `<epoch>-<utc>-<offset>`, zero-padded so that names sort like epochs and times; no `:`, for HDFS refuses it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SnapshotId(String);

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<SnapshotId> for String {
    fn from(id: SnapshotId) -> String {
        id.0
    }
}

impl TryFrom<String> for SnapshotId {
    type Error = String;
    fn try_from(name: String) -> Result<SnapshotId, String> {
        name.parse()
    }
}

impl FromStr for SnapshotId {
    type Err = String;
    fn from_str(name: &str) -> Result<SnapshotId, String> {
        let parts: Vec<&str> = name.split('-').collect();
        let digits = |s: &str, n: usize| s.len() == n && s.bytes().all(|b| b.is_ascii_digit());
        match parts[..] {
            [epoch, utc, offset] if digits(epoch, 10) && utc.len() == 16 && digits(offset, 20) => Ok(SnapshotId(name.into())),
            _ => Err(format!("'{name}' is not a snapshot name (<epoch, 10 digits>-<YYYYMMDDThhmmssZ>-<offset, 20 digits>)")),
        }
    }
}

impl SnapshotId {
    /// The name for a dump of `epoch` at `offset`, created at `utc` (`YYYYMMDDThhmmssZ`).
    pub fn new(epoch: Epoch, utc: &str, offset: Offset) -> SnapshotId {
        SnapshotId(format!("{epoch:010}-{utc}-{offset:020}"))
    }
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
