//! What is noted about a snapshot after it was made: that somebody wants it kept or takes it for right, and whether it was verified, or
//! restored for practice.
//!
//! Each note is a file of its own beside the manifest, so that what was committed is never written to.

use std::collections::BTreeMap;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

/// A mark above this size is not read.
pub const MARK_MAX_BYTES: u64 = 64 << 10;

/// Somebody wants the snapshot kept: nothing we run deletes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pin {
    /// Who; empty when the mark cannot be read. It counts all the same.
    pub owner: String,
    /// Why; empty when nobody said so.
    pub reason: String,
    /// When, Unix time in milliseconds.
    pub at_ms: u64,
}

/// Somebody takes the snapshot for right, however little it holds: it is not suspicious any more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Acceptance {
    /// Who; empty when the mark cannot be read. It counts all the same.
    pub owner: String,
    /// Why; empty when nobody said so.
    pub reason: String,
    /// When, Unix time in milliseconds.
    pub at_ms: u64,
}

/// The snapshot was read back from the store as a whole, and judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    /// When, Unix time in milliseconds.
    pub at_ms: u64,
    /// Who had it done.
    pub by: String,
    /// What is wrong with it; absent when it was found good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Keys per database found in it; absent for a bad one.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "by_database")]
    pub keys: Option<BTreeMap<u32, u64>>,
    /// Version of the throw-away server that loaded it; absent when none did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loaded_by: Option<String>,
    /// How long all of it took, milliseconds.
    pub took_ms: u64,
}

/// JSON has the numbers of databases as texts, which serde does not turn into numbers by itself inside a flattened answer.
fn by_database<'de, D: Deserializer<'de>>(from: D) -> Result<Option<BTreeMap<u32, u64>>, D::Error> {
    let Some(texts) = Option::<BTreeMap<String, u64>>::deserialize(from)? else { return Ok(None) };
    let number =
        |(text, keys): (String, u64)| Ok((text.parse().map_err(|_| D::Error::custom(format!("no database: {text:?}")))?, keys));
    texts.into_iter().map(number).collect::<Result<_, D::Error>>().map(Some)
}

/// All notes about one snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Absent when it is not pinned.
    pub pin: Option<Pin>,
    /// Absent when nobody has said that it is right.
    pub accepted: Option<Acceptance>,
    /// The last one; absent when it was never verified.
    pub verification: Option<Verification>,
    /// The last rehearsal that restored it; absent when none did.
    pub rehearsal: Option<Verification>,
}
