//! Snapshots: their names, manifests and order. Pure; [`crate::store`] moves the bytes.
//!
//! The agent makes a [`Manifest`] for each dump, the store keeps it beside the dump, and agent and controller rank what the
//! store holds by [`rank`]. A manifest that was read is whole and consistent: [`Manifest::parse`] lets nothing else through.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::api::{Epoch, Offset, Position};
use crate::rdb;

mod collapse;
mod import;
mod marks;
mod retention;

pub use collapse::Guard;
pub use import::Imported;
pub use marks::{Acceptance, MARK_MAX_BYTES, Marks, Pin, Verification};
pub use retention::{Candidate, Fate, Retention};

/// Size of the pieces that have a SHA-256 of their own, in bytes.
pub const PIECE_BYTES: u64 = 4 << 20;
/// A manifest above this size is not read: enough for a dump of 400 GiB.
pub const MANIFEST_MAX_BYTES: u64 = 8 << 20;
/// The manifest format written. A higher one is refused, for it may mean things this program does not know.
pub const MANIFEST_FORMAT: u32 = 1;

const EPOCH_MAX: Epoch = 9_999_999_999;
/// 9999-12-30T22:00:00Z in Unix seconds: the last one that is a time of day in every time zone.
const LAST_SECOND: u64 = 253_402_207_200;

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
        let refused = || {
            let shown: String = name.chars().take(80).collect();
            format!("{shown:?} is not a snapshot name (<epoch, 10 digits>-<YYYYMMDDThhmmssZ>-<offset, 20 digits>)")
        };
        let digits = |s: &str, n: usize| s.len() == n && s.bytes().all(|b| b.is_ascii_digit());
        let parts: Vec<&str> = name.split('-').collect();
        match parts[..] {
            [epoch, utc, offset]
                if digits(epoch, 10) && parse_utc(utc).is_some() && digits(offset, 20) && offset.parse::<Offset>().is_ok() =>
            {
                Ok(SnapshotId(name.into()))
            }
            _ => Err(refused()),
        }
    }
}

impl SnapshotId {
    /// The name for a dump of `epoch` at `offset` (0 without a position), created at `created_ms` (Unix time, milliseconds).
    /// An epoch or time too large for its field is shown as the field's largest value.
    pub fn new(epoch: Epoch, created_ms: u64, offset: Offset) -> SnapshotId {
        SnapshotId(format!("{:010}-{}-{offset:020}", epoch.min(EPOCH_MAX), utc(created_ms)))
    }
    /// The same name one second later: for a second snapshot of the same epoch, second and offset.
    pub fn later(&self) -> SnapshotId {
        SnapshotId::new(self.epoch(), (self.created_s() + 1) * 1000, self.offset())
    }
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// Epoch in the name.
    pub fn epoch(&self) -> Epoch {
        self.0[..10].parse().expect("a snapshot name begins with ten digits")
    }
    /// Time in the name, Unix seconds.
    pub fn created_s(&self) -> u64 {
        parse_utc(&self.0[11..27]).expect("a snapshot name holds a time")
    }
    /// Offset in the name; 0 for a dump without a position.
    pub fn offset(&self) -> Offset {
        self.0[28..].parse().expect("a snapshot name ends with an offset")
    }
}

/// `created_ms` (Unix time, milliseconds) as `YYYYMMDDThhmmssZ`, as snapshot names have it.
pub fn utc(created_ms: u64) -> String {
    timestamp(created_ms).strftime("%Y%m%dT%H%M%SZ").to_string()
}

/// `created_ms` (Unix time, milliseconds) as `2026-11-24T05:43:55Z`, for people.
pub fn utc_text(created_ms: u64) -> String {
    timestamp(created_ms).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn timestamp(ms: u64) -> jiff::Timestamp {
    let seconds = i64::try_from((ms / 1000).min(LAST_SECOND)).expect("the last second fits");
    jiff::Timestamp::from_second(seconds).expect("the last second is a time")
}

/// Unix seconds of `YYYYMMDDThhmmssZ`; none for anything else, years before 1970 included.
fn parse_utc(text: &str) -> Option<u64> {
    let shape = text.len() == 16
        && text.bytes().enumerate().all(|(i, b)| match i {
            8 => b == b'T',
            15 => b == b'Z',
            _ => b.is_ascii_digit(),
        });
    let number = |from: usize, to: usize| text[from..to].parse::<i16>().ok();
    let part = |from: usize, to: usize| number(from, to).and_then(|n| i8::try_from(n).ok());
    if !shape {
        return None;
    }
    let civil =
        jiff::civil::DateTime::new(number(0, 4)?, part(4, 6)?, part(6, 8)?, part(9, 11)?, part(11, 13)?, part(13, 15)?, 0)
            .ok()?;
    u64::try_from(civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second()).ok()
}

/// A SHA-256, 64 hex digits in JSON and text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha256(pub [u8; 32]);

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Sha256> for String {
    fn from(sum: Sha256) -> String {
        sum.to_string()
    }
}

impl TryFrom<String> for Sha256 {
    type Error = String;
    fn try_from(text: String) -> Result<Sha256, String> {
        text.parse()
    }
}

impl FromStr for Sha256 {
    type Err = String;
    fn from_str(text: &str) -> Result<Sha256, String> {
        let mut sum = [0; 32];
        hex::decode_to_slice(text, &mut sum).map_err(|_| {
            let shown: String = text.chars().take(80).collect();
            format!("{shown:?} is not a SHA-256 (64 hex digits)")
        })?;
        Ok(Sha256(sum))
    }
}

/// How a cluster makes a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// A dump file that Redis wrote.
    #[default]
    Dump,
    /// Read from the replication stream.
    Stream,
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            How::Dump => "dump",
            How::Stream => "stream",
        })
    }
}

impl FromStr for How {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<How, &'static str> {
        match text {
            "dump" => Ok(How::Dump),
            "stream" => Ok(How::Stream),
            _ => Err("it is neither dump nor stream"),
        }
    }
}

/// How a snapshot came into the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Made {
    /// From a dump file that Redis wrote.
    Dump,
    /// From the replication stream.
    Stream,
    /// From elsewhere: it is no snapshot of this cluster, see [`Imported`].
    Import,
}

impl From<How> for Made {
    fn from(how: How) -> Made {
        match how {
            How::Dump => Made::Dump,
            How::Stream => Made::Stream,
        }
    }
}

/// Where a dump comes from: what its maker knows beside the file itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The cluster's random id.
    pub cluster_id: String,
    /// Epoch the server was assigned to when it wrote the dump; 0 when unknown.
    pub epoch: Epoch,
    /// Keys per database; absent when not known.
    pub keys: Option<BTreeMap<u32, u64>>,
    /// Version of the server, e.g. `7.0.15` or `valkey 9.1.2`.
    pub server_version: String,
    /// Aurora instance number.
    pub instance: u32,
    /// Aurora task id.
    pub task_id: String,
    /// The backup request it answers; absent for a dump that Redis made by itself.
    pub request_id: Option<String>,
    /// When the dump was made, Unix time in milliseconds.
    pub created_ms: u64,
    /// How it was made.
    pub how: How,
    /// How long Redis took to write it, milliseconds; absent when not known.
    pub duration_ms: Option<u64>,
}

/// What `manifest.json` says of the `dump.rdb` beside it. Unknown fields are ignored when reading.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`MANIFEST_FORMAT`] of the writer.
    pub format: u32,
    /// The cluster's random id.
    pub cluster_id: String,
    /// Epoch the server was assigned to when it wrote the dump; 0 when unknown.
    pub epoch: Epoch,
    /// Place in the dataset's history, from the dump itself; absent in a dump of a server that never had a replica.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
    /// Size of the dump, bytes.
    pub bytes: u64,
    /// CRC-64 (Redis') of the dump without its last 8 bytes, 16 hex digits.
    pub crc64: String,
    /// SHA-256 of the dump.
    pub sha256: Sha256,
    /// Size of a piece, [`PIECE_BYTES`]; the last one may be shorter.
    pub piece_bytes: u64,
    /// SHA-256 of each piece, in order.
    pub pieces: Vec<Sha256>,
    /// Keys per database; absent when not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<BTreeMap<u32, u64>>,
    /// Version of the server that wrote it, e.g. `7.0.15` or `valkey 9.1.2`.
    pub server_version: String,
    /// Header of the dump: which format it is in.
    pub rdb: rdb::Header,
    /// Memory the dataset used, bytes: an estimate of what loading it needs. Absent when the dump does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_memory: Option<u64>,
    /// Aurora instance number.
    pub instance: u32,
    /// Aurora task id.
    pub task_id: String,
    /// The backup request it answers; absent for a dump that Redis made by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// When the dump was made, Unix time in milliseconds.
    pub created_ms: u64,
    /// The same as text, UTC.
    pub created: String,
    /// How it came into the store.
    pub how: Made,
    /// How long Redis took to write it, milliseconds; absent when not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// Where it was imported from; absent for one that the cluster made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imported: Option<Imported>,
}

impl Manifest {
    /// The manifest of a dump that was read and checked.
    pub fn new(origin: Origin, dump: &rdb::Checked) -> Manifest {
        Manifest {
            format: MANIFEST_FORMAT,
            cluster_id: origin.cluster_id,
            epoch: origin.epoch,
            position: dump.rdb.position.clone(),
            bytes: dump.sums.bytes,
            crc64: format!("{:016x}", dump.rdb.crc64),
            sha256: dump.sums.sha256,
            piece_bytes: PIECE_BYTES,
            pieces: dump.sums.pieces.clone(),
            keys: origin.keys,
            server_version: origin.server_version,
            rdb: dump.rdb.header,
            used_memory: dump.rdb.used_memory,
            instance: origin.instance,
            task_id: origin.task_id,
            request_id: origin.request_id,
            created_ms: origin.created_ms,
            created: utc_text(origin.created_ms),
            how: origin.how.into(),
            duration_ms: origin.duration_ms,
            imported: None,
        }
    }

    /// The name it is stored under, if that is free.
    pub fn id(&self) -> SnapshotId {
        SnapshotId::new(self.epoch, self.created_ms, self.offset().unwrap_or(0))
    }

    /// Offset of its position; absent without one.
    pub fn offset(&self) -> Option<Offset> {
        self.position.as_ref().map(|p| p.offset)
    }

    /// Keys in all databases; absent when not known.
    pub fn total_keys(&self) -> Option<u64> {
        self.keys.as_ref().map(|keys| keys.values().fold(0u64, |sum, n| sum.saturating_add(*n)))
    }

    /// As JSON, indented, for people read it too.
    pub fn to_json(&self) -> Vec<u8> {
        let mut json = serde_json::to_vec_pretty(self).expect("a manifest has only string keys");
        json.push(b'\n');
        json
    }

    /// Reads a manifest and checks that it is consistent in itself.
    pub fn parse(bytes: &[u8]) -> Result<Manifest, Problem> {
        if bytes.len() as u64 > MANIFEST_MAX_BYTES {
            return Err(Problem::TooBig { bytes: bytes.len() as u64 });
        }
        let format = serde_json::from_slice::<FormatOnly>(bytes).map_err(Problem::reading)?.format;
        if format > u64::from(MANIFEST_FORMAT) {
            return Err(Problem::Newer { format });
        }
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(Problem::reading)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Refuses a manifest of another cluster.
    pub fn check_cluster(&self, cluster_id: &str) -> Result<(), Problem> {
        if self.cluster_id == cluster_id {
            return Ok(());
        }
        Err(Problem::Foreign { found: self.cluster_id.clone(), expected: cluster_id.into() })
    }

    /// Refuses a manifest that lies under a name not its own (renamed or copied by hand).
    pub fn check_name(&self, id: &SnapshotId) -> Result<(), Problem> {
        let own = self.id();
        if own.epoch() == id.epoch() && own.offset() == id.offset() && own.created_s() <= id.created_s() {
            return Ok(());
        }
        Err(Problem::Name { found: id.to_string(), expected: own.to_string() })
    }

    fn check(&self) -> Result<(), Problem> {
        let wrong = |what: String| Err(Problem::Shape(what));
        if self.cluster_id.is_empty() {
            return wrong("cluster_id is empty".into());
        }
        if self.piece_bytes != PIECE_BYTES {
            return wrong(format!("piece_bytes is {}, not {PIECE_BYTES}", self.piece_bytes));
        }
        let pieces = self.bytes.div_ceil(PIECE_BYTES);
        if self.pieces.len() as u64 != pieces {
            return wrong(format!("{} pieces for {} bytes, expected {pieces}", self.pieces.len(), self.bytes));
        }
        let hex = |s: &str, n: usize| s.len() == n && s.bytes().all(|b| b.is_ascii_hexdigit());
        if !hex(&self.crc64, 16) {
            return wrong("crc64 is not 16 hex digits".into());
        }
        if self.position.as_ref().is_some_and(|p| !hex(&p.replid, 40)) {
            return wrong("position.replid is not 40 hex digits".into());
        }
        if (self.how == Made::Import) != self.imported.is_some() {
            return wrong("how and imported do not agree on whether it was imported".into());
        }
        Ok(())
    }
}

/// The one field that says whether the others can be understood.
#[derive(Deserialize)]
struct FormatOnly {
    format: u64,
}

/// Why a snapshot in the store cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The directory's name.
    #[error("{0}")]
    NotAName(String),
    /// A part is not there.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A part is a directory or something else that cannot be read as a file.
    #[error("{0} is not a file")]
    NotAFile(&'static str),
    /// Too large to read.
    #[error("manifest.json has {bytes} bytes, more than the {MANIFEST_MAX_BYTES} that are read")]
    TooBig {
        /// Size found.
        bytes: u64,
    },
    /// Not JSON.
    #[error("manifest.json is not JSON: {0}")]
    NotJson(String),
    /// JSON of another shape, or inconsistent.
    #[error("manifest.json does not fit: {0}")]
    Shape(String),
    /// Written by a newer program.
    #[error("manifest.json has format {format}, newer than {MANIFEST_FORMAT}: use a newer aurora-redis")]
    Newer {
        /// Format found.
        format: u64,
    },
    /// Of another cluster.
    #[error("it belongs to cluster {found}, not to {expected}")]
    Foreign {
        /// Cluster id found.
        found: String,
        /// Cluster id of this cluster.
        expected: String,
    },
    /// From elsewhere: no snapshot of this cluster's data.
    #[error("it was imported from {from}: it is used only when somebody names it")]
    Imported {
        /// Where it was imported from.
        from: String,
    },
    /// Under another snapshot's name.
    #[error("it lies under the name {found}, but its manifest is that of {expected}")]
    Name {
        /// Name found.
        found: String,
        /// Name by its manifest.
        expected: String,
    },
    /// The dump has another size than the manifest says.
    #[error("dump.rdb has {found} bytes, its manifest says {expected}")]
    Length {
        /// Size found.
        found: u64,
        /// Size by its manifest.
        expected: u64,
    },
    /// It was read as a whole, and found bad.
    #[error("it was verified and found bad: {0}")]
    Verified(String),
    /// The store could not read it.
    #[error("it could not be read: {0}")]
    Unreadable(String),
}

impl Problem {
    fn reading(error: serde_json::Error) -> Problem {
        match error.classify() {
            serde_json::error::Category::Data => Problem::Shape(error.to_string()),
            _ => Problem::NotJson(error.to_string()),
        }
    }
}

/// Sorts snapshots, the best first: by epoch, within one epoch and replid by offset, then by time.
///
/// A snapshot's epoch is that of its replid in the lineage (`epoch_of`, e.g. [`crate::record::Record::epoch_of`]) if known,
/// else its manifest's. Offsets of different replids say nothing about each other: within one epoch, the history with
/// the latest snapshot comes first, whole.
pub fn rank<'a>(
    snapshots: impl IntoIterator<Item = (&'a SnapshotId, &'a Manifest)>,
    epoch_of: impl Fn(&str) -> Option<Epoch>,
) -> Vec<(&'a SnapshotId, &'a Manifest)> {
    let replid = |m: &'a Manifest| m.position.as_ref().map(|p| p.replid.as_str());
    let epoch = |m: &'a Manifest| replid(m).and_then(&epoch_of).unwrap_or(m.epoch);
    let mut ranked: Vec<_> = snapshots.into_iter().collect();
    let mut latest: BTreeMap<(Epoch, Option<&str>), u64> = BTreeMap::new();
    for (_, m) in &ranked {
        let at = latest.entry((epoch(m), replid(m))).or_default();
        *at = (*at).max(m.created_ms);
    }
    ranked.sort_by_cached_key(|(id, m)| {
        let history = (epoch(m), replid(m));
        std::cmp::Reverse((history.0, latest[&history], history.1, m.offset(), m.created_ms, *id))
    });
    ranked
}

#[cfg(test)]
mod tests;
