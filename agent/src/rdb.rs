//! Checks a Redis dump (RDB file) while it streams by, in bounded memory: header, aux fields, structure, end and CRC-64.
//!
//! Every byte passes a [`Digest`] and a walk ([`structure()`]) before any server sees it, for a server given a damaged dump crashes or loads
//! half of it.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use crate::api::Position;
use crate::snapshot::{PIECE_BYTES, Sha256};

mod cursor;
mod fields;
mod values;
mod walk;

pub use walk::{Content, Flaw, Keys, Structure, Walked, check, structure, walk};

static CRC_64: crc::Crc<u64, crc::Table<16>> = crc::Crc::<u64, crc::Table<16>>::new(&crc::CRC_64_REDIS);

/// Length of the header, e.g. `REDIS0010`.
const HEADER_BYTES: usize = 9;
/// Length of the checksum at the end.
const TRAILER_BYTES: usize = 8;
/// Opcode before the checksum.
const OPCODE_EOF: u8 = 0xff;
/// Formats below this one have no checksum at all.
const OLDEST_FORMAT: u32 = 5;
/// How much of the beginning is kept to read the aux fields from.
const HEAD_BYTES: usize = 16 << 10;

/// First bytes of a dump: whose format it is in, and which version of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Header {
    /// `REDIS` and four digits.
    Redis(u32),
    /// `VALKEY` and three digits (Valkey 9 and later).
    Valkey(u32),
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Header::Redis(version) => write!(f, "REDIS{version:04}"),
            Header::Valkey(version) => write!(f, "VALKEY{version:03}"),
        }
    }
}

impl From<Header> for String {
    fn from(header: Header) -> String {
        header.to_string()
    }
}

impl TryFrom<String> for Header {
    type Error = String;
    fn try_from(text: String) -> Result<Header, String> {
        text.parse()
    }
}

impl FromStr for Header {
    type Err = String;
    fn from_str(text: &str) -> Result<Header, String> {
        let number = |digits: &str, n: usize| {
            (digits.len() == n && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok()).flatten()
        };
        let redis = text.strip_prefix("REDIS").and_then(|v| number(v, 4)).map(Header::Redis);
        let valkey = text.strip_prefix("VALKEY").and_then(|v| number(v, 3)).map(Header::Valkey);
        redis.or(valkey).ok_or_else(|| {
            let shown: String = text.chars().take(20).collect();
            format!("{shown:?} is not the header of a dump (REDISnnnn or VALKEYnnn)")
        })
    }
}

/// What a dump says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rdb {
    /// Format and version.
    pub header: Header,
    /// Version of the server that wrote it (`redis-ver`, or `valkey ` and `valkey-ver`); absent when it does not say.
    pub server_version: Option<String>,
    /// Place in the dataset's history (`repl-id`, `repl-offset`); absent in a dump of a server that never had a replica.
    pub position: Option<Position>,
    /// When it was begun, Unix seconds (`ctime`).
    pub created_s: Option<u64>,
    /// Memory the dataset used, bytes (`used-mem`).
    pub used_memory: Option<u64>,
    /// CRC-64 of the whole file but its last 8 bytes, computed.
    pub crc64: u64,
    /// Whether the file carries that checksum; `false` when it was written with `rdbchecksum no`.
    pub checksummed: bool,
    /// Size of the file, bytes.
    pub bytes: u64,
}

/// Why bytes are not a whole, undamaged dump.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Shorter than any dump.
    #[error("it has only {bytes} bytes: truncated, or no dump at all")]
    TooShort {
        /// Size found.
        bytes: u64,
    },
    /// Something else.
    #[error("it begins with {found}, not with REDISnnnn or VALKEYnnn: not a dump")]
    NotADump {
        /// First bytes, printable.
        found: String,
    },
    /// Of a server from before checksums.
    #[error("its format {header} at offset 0 has no checksum: older than REDIS0005, which is not supported")]
    TooOld {
        /// Header found.
        header: Header,
    },
    /// An aux field that cannot be read.
    #[error("aux field at offset {offset} cannot be read: {what}")]
    Aux {
        /// Where.
        offset: u64,
        /// Why.
        what: &'static str,
    },
    /// No end opcode before the checksum.
    #[error("at offset {offset} of {bytes} stands {found:#04x}, not the end mark 0xff: truncated, or followed by other bytes")]
    NoEnd {
        /// Where the end mark should be.
        offset: u64,
        /// What is there.
        found: u8,
        /// Size of the file.
        bytes: u64,
    },
    /// Damaged.
    #[error("its checksum at offset {offset} says {found:016x}, its bytes have {expected:016x}: damaged")]
    Checksum {
        /// Where the checksum stands.
        offset: u64,
        /// What the file says.
        found: u64,
        /// What its bytes have.
        expected: u64,
    },
}

/// Checks a dump as it streams by. Memory: 16 KiB, whatever the size of the dump.
pub struct Checker {
    head: Vec<u8>,
    crc: crc::Digest<'static, u64, crc::Table<16>>,
    /// The last bytes seen, at most 8: perhaps the checksum.
    tail: Vec<u8>,
    /// The byte before `tail`.
    before_tail: u8,
    bytes: u64,
}

impl Default for Checker {
    fn default() -> Checker {
        Checker { head: Vec::new(), crc: CRC_64.digest(), tail: Vec::with_capacity(TRAILER_BYTES), before_tail: 0, bytes: 0 }
    }
}

impl Checker {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        let room = HEAD_BYTES - self.head.len();
        self.head.extend_from_slice(&bytes[..bytes.len().min(room)]);
        let out = (self.tail.len() + bytes.len()).saturating_sub(TRAILER_BYTES);
        let (from_tail, from_bytes) = (out.min(self.tail.len()), out.saturating_sub(self.tail.len()));
        self.pass(from_tail, &bytes[..from_bytes]);
        self.tail.extend_from_slice(&bytes[from_bytes..]);
    }

    /// Moves bytes that are certainly not the last 8 into the checksum.
    fn pass(&mut self, from_tail: usize, bytes: &[u8]) {
        self.crc.update(&self.tail[..from_tail]);
        self.crc.update(bytes);
        if let Some(last) = bytes.last().or(self.tail[..from_tail].last()) {
            self.before_tail = *last;
        }
        self.tail.drain(..from_tail);
    }

    /// What the dump says of itself, or what is wrong with it and where.
    pub fn finish(self) -> Result<Rdb, Error> {
        let header = self.header()?;
        let trailer: [u8; TRAILER_BYTES] = self.tail.as_slice().try_into().map_err(|_| Error::TooShort { bytes: self.bytes })?;
        if self.bytes < (HEADER_BYTES + 1 + TRAILER_BYTES) as u64 {
            return Err(Error::TooShort { bytes: self.bytes });
        }
        let offset = self.bytes - TRAILER_BYTES as u64;
        if self.before_tail != OPCODE_EOF {
            return Err(Error::NoEnd { offset: offset - 1, found: self.before_tail, bytes: self.bytes });
        }
        let (found, expected) = (u64::from_le_bytes(trailer), self.crc.finalize());
        // Zero: written with `rdbchecksum no`; the server does not look at it either.
        if found != 0 && found != expected {
            return Err(Error::Checksum { offset, found, expected });
        }
        let fields = fields::read(&self.head, HEADER_BYTES)?;
        let position = match (fields.get("repl-id"), fields.get("repl-offset").and_then(|o| o.parse().ok())) {
            (Some(replid), Some(offset)) if is_replid(replid) => Some(Position { replid: replid.clone(), offset }),
            _ => None,
        };
        let valkey = fields.get("valkey-ver").map(|v| format!("valkey {v}"));
        Ok(Rdb {
            header,
            server_version: valkey.or_else(|| fields.get("redis-ver").cloned()),
            position,
            created_s: fields.get("ctime").and_then(|t| t.parse().ok()),
            used_memory: fields.get("used-mem").and_then(|m| m.parse().ok()),
            crc64: expected,
            checksummed: found != 0,
            bytes: self.bytes,
        })
    }

    fn header(&self) -> Result<Header, Error> {
        let start = &self.head[..self.head.len().min(HEADER_BYTES)];
        if start.len() < HEADER_BYTES {
            return Err(Error::TooShort { bytes: self.bytes });
        }
        let header = std::str::from_utf8(start)
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| Error::NotADump { found: format!("\"{}\"", start.escape_ascii()) })?;
        match header {
            Header::Redis(version) if version < OLDEST_FORMAT => Err(Error::TooOld { header }),
            _ => Ok(header),
        }
    }
}

fn is_replid(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Size and SHA-256 of a file, whole and in pieces of [`PIECE_BYTES`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sums {
    /// Size, bytes.
    pub bytes: u64,
    /// SHA-256 of the whole.
    pub sha256: Sha256,
    /// SHA-256 of each piece, in order.
    pub pieces: Vec<Sha256>,
}

/// A dump that was read and found whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Its size and sums.
    pub sums: Sums,
    /// What it says of itself.
    pub rdb: Rdb,
}

/// Everything that is computed over a dump, in one pass.
#[derive(Default)]
pub struct Digest {
    checker: Checker,
    whole: sha2::Sha256,
    piece: sha2::Sha256,
    in_piece: u64,
    pieces: Vec<Sha256>,
}

impl Digest {
    /// Takes the next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        self.checker.update(bytes);
        self.whole.update(bytes);
        while !bytes.is_empty() {
            let room = usize::try_from(PIECE_BYTES - self.in_piece).unwrap_or(usize::MAX);
            let (now, rest) = bytes.split_at(bytes.len().min(room));
            self.piece.update(now);
            self.in_piece += now.len() as u64;
            if self.in_piece == PIECE_BYTES {
                self.end_piece();
            }
            bytes = rest;
        }
    }

    /// Sums of the pieces that are complete so far.
    pub fn pieces(&self) -> &[Sha256] {
        &self.pieces
    }

    /// Bytes taken so far.
    pub fn bytes(&self) -> u64 {
        self.checker.bytes
    }

    /// The sums, and what the checker says.
    pub fn finish(mut self) -> (Sums, Result<Rdb, Error>) {
        if self.in_piece > 0 {
            self.end_piece();
        }
        let sums = Sums { bytes: self.checker.bytes, sha256: Sha256(self.whole.finalize().into()), pieces: self.pieces };
        (sums, self.checker.finish())
    }

    fn end_piece(&mut self) {
        self.pieces.push(Sha256(self.piece.finalize_reset().into()));
        self.in_piece = 0;
    }
}

/// Reads and checks a dump on this machine, as [`check`] does. Blocking; [`std::io::Error`] only for the reading itself.
pub fn check_file(path: &Path) -> std::io::Result<Result<Checked, Flaw>> {
    Ok(check(std::fs::File::open(path)?)?.map(|(checked, _)| checked))
}

/// Why a server cannot load a dump.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// Version of the server not understood.
    #[error("the server's version {0:?} is not understood (expected e.g. '7.0.15' or 'valkey 9.1.2')")]
    UnknownServer(String),
    /// Another format, or a newer one.
    #[error("server {server} cannot load a dump in format {header}: {why}")]
    Format {
        /// The server's version.
        server: String,
        /// The dump's format.
        header: Header,
        /// What it could load.
        why: String,
    },
}

/// Whether a server (`7.0.15`, `redis 7.0.15` or `valkey 9.1.2`) loads dumps with this header.
///
/// For servers newer than any known here, newer formats pass: the server itself is the judge then.
pub fn can_load(server_version: &str, header: Header) -> Result<(), Reason> {
    let (valkey, number) = match server_version.trim().split_once(' ') {
        Some(("valkey", number)) => (true, number),
        Some(("redis", number)) => (false, number),
        Some(_) => return Err(Reason::UnknownServer(server_version.into())),
        None => (false, server_version.trim()),
    };
    let mut parts = number.split('.').map(|p| p.parse::<u32>().ok());
    let (Some(Some(major)), Some(Some(minor))) = (parts.next(), parts.next()) else {
        return Err(Reason::UnknownServer(server_version.into()));
    };
    let refuse = |why: String| Err(Reason::Format { server: server_version.into(), header, why });
    match (header, valkey) {
        (Header::Valkey(_), false) => refuse("only Valkey 9 and later load Valkey dumps".into()),
        (Header::Valkey(_), true) if major < 9 => refuse("only Valkey 9 and later load Valkey dumps".into()),
        (Header::Valkey(version), true) if version > 80 && (major, minor) <= (9, 1) => refuse("up to VALKEY080".into()),
        (Header::Valkey(_), true) => Ok(()),
        (Header::Redis(version), true) if version > 11 => refuse("Valkey loads Redis dumps up to REDIS0011".into()),
        (Header::Redis(_), true) => Ok(()),
        (Header::Redis(version), false) => match newest_redis_format((major, minor)) {
            Some(newest) if version > newest => refuse(format!("up to REDIS{newest:04}")),
            _ => Ok(()),
        },
    }
}

/// The newest format that a Redis of this version loads; none for one newer than any known here.
fn newest_redis_format(server: (u32, u32)) -> Option<u32> {
    match server {
        (..=4, _) => Some(8),
        (5 | 6, _) => Some(9),
        (7, 0..=1) => Some(10),
        (7, 2..=3) => Some(11),
        (7, _) | (8, 0..=2) => Some(12),
        _ => None,
    }
}

/// Whether a server of version `ours` can be a replica of one of version `theirs` (both as [`can_load`] reads them). A newer Valkey sends a replica
/// that cannot read its own format an older one.
///
/// # Errors
/// Why not, for people.
pub fn can_follow(ours: &str, theirs: &str) -> Result<(), String> {
    let number = |text: &str| -> Option<(bool, u32, u32)> {
        let (valkey, number) = text.strip_prefix("valkey ").map_or((false, text), |number| (true, number));
        let mut parts = number.split('.').map(|p| p.parse().ok());
        Some((valkey, parts.next()??, parts.next()??))
    };
    let (Some(we), Some((valkey, major, minor))) = (number(ours), number(theirs)) else {
        return Err(format!("version {theirs:?} is not known: nobody can say whether server {ours} can follow it"));
    };
    let header = match (valkey, major) {
        (true, 9..) if we.0 && we.1 >= 9 => Header::Valkey(80),
        (true, _) => Header::Redis(11),
        (false, _) => match newest_redis_format((major, minor)) {
            Some(newest) => Header::Redis(newest),
            None if !we.0 && (we.1, we.2) >= (major, minor) => return Ok(()),
            None => return Err(format!("server {ours} cannot follow the newer version {theirs}")),
        },
    };
    can_load(ours, header).map_err(|why| format!("server {ours} cannot follow version {theirs}: {why}"))
}

#[cfg(test)]
mod tests;
