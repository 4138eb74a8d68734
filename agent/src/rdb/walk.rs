//! Walks the whole structure of a dump, from the header to the last byte: opcodes, keys and the lengths inside values.
//!
//! Called for every dump before it is stored, before a server is started from it, by `aurora-redis rdb check` and by the verification of
//! snapshots. Streaming, in bounded memory. What it does not look at is the inside of packed values (ziplists, listpacks, intsets) and of
//! functions: the CRC-64 vouches for those. Of a format newer than any known here it says only that, and header, end and checksum decide.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, Read};

use serde::Serialize;

use super::cursor::{Cursor, Step, Stop};
use super::{Checked, Digest, Error, HEADER_BYTES, Header, Rdb, TRAILER_BYTES, values};

/// The newest formats whose structure is known here.
const NEWEST_REDIS: u32 = 12;
const NEWEST_VALKEY: u32 = 80;
/// More databases than any server is configured for: a bound on memory.
const MAX_DATABASES: usize = 65_536;
/// More modules than anybody loads: a bound on memory.
const MAX_MODULES: usize = 256;

/// What stands before keys and between them.
mod opcode {
    pub const SLOT_IMPORT: u8 = 243;
    pub const SLOT_INFO: u8 = 244;
    pub const FUNCTION: u8 = 245;
    pub const FUNCTION_RC: u8 = 246;
    pub const MODULE_AUX: u8 = 247;
    pub const IDLE: u8 = 248;
    pub const FREQUENCY: u8 = 249;
    pub const AUX: u8 = 250;
    pub const RESIZE: u8 = 251;
    pub const EXPIRES_MS: u8 = 252;
    pub const EXPIRES_S: u8 = 253;
    pub const SELECT: u8 = 254;
    pub const END: u8 = 255;
}

/// Keys of one database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Keys {
    /// All of them.
    pub keys: u64,
    /// Those that expire, expired ones included.
    pub expiring: u64,
}

/// What a dump holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Content {
    /// Keys per database; those without any are left out.
    pub databases: BTreeMap<u32, Keys>,
    /// Function libraries.
    pub functions: u64,
    /// Modules whose data it holds: a server without them does not load it.
    pub modules: BTreeSet<String>,
}

impl Content {
    /// Keys in all databases.
    pub fn keys(&self) -> u64 {
        self.databases.values().map(|d| d.keys).sum()
    }

    /// Keys per database, as manifests have them.
    pub fn counts(&self) -> BTreeMap<u32, u64> {
        self.databases.iter().map(|(number, keys)| (*number, keys.keys)).collect()
    }
}

/// A dump that was walked to its end and found good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walked {
    /// Size, sums and what it says of itself.
    pub checked: Checked,
    /// What it holds.
    pub content: Content,
}

/// What is wrong with a dump.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// Header, end or checksum.
    #[error(transparent)]
    Frame(#[from] Error),
    /// Written by a newer server than any known here.
    #[error(
        "its format {header} is newer than any this program knows ({newest}): nothing can be said of it; use a newer aurora-redis"
    )]
    Newer {
        /// Header found.
        header: Header,
        /// Newest one known of that server.
        newest: Header,
    },
    /// It ends in the middle.
    #[error("it ends at offset {offset}, in {place}: truncated")]
    Truncated {
        /// Size of the file.
        offset: u64,
        /// What was being read.
        place: String,
    },
    /// Something that has no meaning.
    #[error("at offset {offset}, in {place}: {what}; {}", cause(*.checksum))]
    Structure {
        /// Where, within some bytes.
        offset: u64,
        /// What was being read.
        place: String,
        /// Why it cannot be.
        what: &'static str,
        /// Whether the file carries a checksum that is right.
        checksum: bool,
    },
    /// Something follows the checksum.
    #[error("{bytes} bytes follow its end at offset {offset}: not only a dump")]
    Trailing {
        /// Where it ends.
        offset: u64,
        /// How many follow.
        bytes: u64,
    },
}

fn cause(checksum: bool) -> &'static str {
    if checksum { "its checksum is right, so it was written like this" } else { "its checksum does not vouch for it: damaged" }
}

impl Flaw {
    /// Where in the file, bytes from its beginning; absent when it is the file as a whole.
    pub fn offset(&self) -> Option<u64> {
        match self {
            Flaw::Frame(Error::Aux { offset, .. } | Error::NoEnd { offset, .. } | Error::Checksum { offset, .. })
            | Flaw::Truncated { offset, .. }
            | Flaw::Structure { offset, .. }
            | Flaw::Trailing { offset, .. } => Some(*offset),
            Flaw::Frame(_) | Flaw::Newer { .. } => None,
        }
    }
}

/// Reads a dump to the end of the source and judges it. Blocking; [`io::Error`] only for the reading itself.
pub fn walk(source: impl Read) -> io::Result<Result<Walked, Flaw>> {
    let mut digest = Digest::default();
    let structure = structure(Tap { source, digest: &mut digest })?;
    let (sums, framed) = digest.finish();
    let judged = structure.judge(framed);
    Ok(judged.map(|(rdb, content)| Walked { checked: Checked { sums, rdb }, content }))
}

/// As [`walk`], for a dump that is to be used: one of a format newer than any known here passes by its frame alone, and its content is not
/// known then. Blocking.
pub fn check(source: impl Read) -> io::Result<Result<(Checked, Option<Content>), Flaw>> {
    let mut digest = Digest::default();
    let structure = structure(Tap { source, digest: &mut digest })?;
    let (sums, framed) = digest.finish();
    Ok(structure.accept(framed).map(|(rdb, content)| (Checked { sums, rdb }, content)))
}

/// Walks a dump to the end of the source, whose bytes somebody else sums up. Blocking; [`io::Error`] only for the reading itself.
pub fn structure(source: impl Read) -> io::Result<Structure> {
    let mut walker = Walker::new(source);
    let end = match walker.run() {
        Err(Stop::Io(error)) => return Err(error),
        end => end,
    };
    let offset = walker.cursor.offset();
    // The checksum is told even of what cannot be understood; of what is no dump at all it is not.
    let after = if walker.place.header.is_some() { walker.cursor.drain()? } else { 0 };
    Ok(Structure { end, at: At { offset, after, place: walker.place }, content: walker.content })
}

/// What a walk came to, before the frame has been heard.
pub struct Structure {
    end: Step<()>,
    at: At,
    content: Content,
}

impl Structure {
    /// The verdict, with what the [`Digest`] of the same bytes says. A format newer than any known is a flaw.
    pub fn judge(self, framed: Result<Rdb, Error>) -> Result<(Rdb, Content), Flaw> {
        let content = self.content;
        conclude(self.end, self.at, framed).map(|rdb| (rdb, content))
    }

    /// The verdict on a dump that is to be used: of a format newer than any known the frame alone decides, and the content is not known.
    pub fn accept(self, framed: Result<Rdb, Error>) -> Result<(Rdb, Option<Content>), Flaw> {
        match (&self.end, framed) {
            (Err(Stop::Unknown), Ok(rdb)) => Ok((rdb, None)),
            (_, framed) => self.judge(framed).map(|(rdb, content)| (rdb, Some(content))),
        }
    }
}

/// Where the walk came to its end.
struct At {
    offset: u64,
    /// Bytes that follow.
    after: u64,
    place: Place,
}

/// The verdict, from how the walk ended and what the frame (header, end mark, checksum) says. Pure.
fn conclude(end: Step<()>, at: At, framed: Result<Rdb, Error>) -> Result<Rdb, Flaw> {
    let place = at.place.to_string();
    match (end, framed) {
        (_, Err(e @ (Error::TooShort { .. } | Error::NotADump { .. } | Error::TooOld { .. }))) => Err(e.into()),
        (Ok(()), _) if at.after > 0 => Err(Flaw::Trailing { offset: at.offset, bytes: at.after }),
        (Ok(()), framed) => framed.map_err(Flaw::from),
        (Err(Stop::Unknown), Ok(Rdb { header, .. })) => Err(Flaw::Newer { header, newest: newest(header) }),
        (Err(Stop::Unknown), Err(frame)) => Err(frame.into()),
        (Err(Stop::Bad(what)), framed) => {
            let checksum = framed.is_ok_and(|rdb| rdb.checksummed);
            Err(Flaw::Structure { offset: at.offset, place, what, checksum })
        }
        (Err(Stop::End | Stop::Io(_)), _) => Err(Flaw::Truncated { offset: at.offset, place }),
    }
}

fn newest(header: Header) -> Header {
    match header {
        Header::Redis(_) => Header::Redis(NEWEST_REDIS),
        Header::Valkey(_) => Header::Valkey(NEWEST_VALKEY),
    }
}

/// Passes everything that is read by the digest.
struct Tap<'a, R> {
    source: R,
    digest: &'a mut Digest,
}

impl<R: Read> Read for Tap<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.source.read(buffer)?;
        self.digest.update(&buffer[..n]);
        Ok(n)
    }
}

/// What is being read, for people.
#[derive(Default)]
struct Place {
    header: Option<Header>,
    what: &'static str,
    key: Option<(Vec<u8>, u32)>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            Some((key, database)) if !key.is_empty() => {
                write!(f, "the {} at key \"{}\" of database {database}", self.what, key.escape_ascii())
            }
            Some((_, database)) => write!(f, "the {} at a key of database {database}", self.what),
            None => f.write_str(self.what),
        }
    }
}

struct Walker<R> {
    cursor: Cursor<R>,
    content: Content,
    place: Place,
    database: u32,
    expires: bool,
}

impl<R: Read> Walker<R> {
    fn new(source: R) -> Walker<R> {
        Walker {
            cursor: Cursor::new(source),
            content: Content::default(),
            place: Place { what: "the header", ..Place::default() },
            database: 0,
            expires: false,
        }
    }

    /// From the header to the checksum.
    fn run(&mut self) -> Step<()> {
        let header = self.cursor.array::<HEADER_BYTES>()?;
        let header = std::str::from_utf8(&header).ok().and_then(|text| text.parse::<Header>().ok());
        let header = header.ok_or(Stop::Bad("not the header of a dump"))?;
        self.place.header = Some(header);
        let valkey = matches!(header, Header::Valkey(_));
        if header > newest(header) {
            return Err(Stop::Unknown);
        }
        loop {
            (self.place.what, self.place.key) = ("what follows the last key", None);
            match self.cursor.byte()? {
                opcode::END => break,
                code => self.item(code, valkey)?,
            }
        }
        self.place.what = "the checksum";
        self.cursor.skip(TRAILER_BYTES as u64)
    }

    /// One opcode, or a key with its value.
    fn item(&mut self, code: u8, valkey: bool) -> Step<()> {
        let cursor = &mut self.cursor;
        self.place.what = "what comes before a key";
        match code {
            opcode::AUX => {
                self.place.what = "an aux field";
                cursor.string()?;
                cursor.string().map(drop)
            }
            opcode::SELECT => self.select(),
            opcode::RESIZE => cursor.lengths(2),
            opcode::EXPIRES_MS => cursor.skip(8).map(|()| self.expires = true),
            opcode::EXPIRES_S => cursor.skip(4).map(|()| self.expires = true),
            opcode::IDLE => cursor.length().map(drop),
            opcode::FREQUENCY => cursor.byte().map(drop),
            opcode::SLOT_INFO => cursor.lengths(3),
            opcode::SLOT_IMPORT if valkey => self.slot_import(),
            opcode::FUNCTION => {
                self.place.what = "a function library";
                cursor.string()?;
                self.content.functions += 1;
                Ok(())
            }
            opcode::FUNCTION_RC => {
                Err(Stop::Bad("functions as a release candidate of Redis 7.0 wrote them, which no server loads"))
            }
            opcode::MODULE_AUX => {
                self.place.what = "a module's data";
                let module = cursor.module_aux()?;
                self.note(module)
            }
            kind => self.key(kind, valkey),
        }
    }

    fn select(&mut self) -> Step<()> {
        let number = self.cursor.length()?;
        let fits = u32::try_from(number).ok().filter(|n| *n <= i32::MAX as u32);
        self.database = fits.ok_or(Stop::Bad("no server has a database of that number"))?;
        Ok(())
    }

    /// Slots that were being imported: a name, and from where to where.
    fn slot_import(&mut self) -> Step<()> {
        self.cursor.string()?;
        let ranges = self.cursor.length()?;
        (0..ranges).try_for_each(|_| self.cursor.lengths(2))
    }

    fn key(&mut self, kind: u8, valkey: bool) -> Step<()> {
        let Some(name) = values::name(kind) else {
            return Err(Stop::Bad("neither an opcode nor a kind of value that this program knows"));
        };
        self.place.what = "a key";
        let key = self.cursor.string()?;
        (self.place.what, self.place.key) = (name, Some((key.shown, self.database)));
        if let Some(module) = self.cursor.value(kind, valkey)? {
            self.note(module)?;
        }
        let databases = &mut self.content.databases;
        if databases.len() >= MAX_DATABASES && !databases.contains_key(&self.database) {
            return Err(Stop::Bad("it is of more databases than any server has"));
        }
        let count = databases.entry(self.database).or_default();
        count.keys += 1;
        count.expiring += u64::from(std::mem::take(&mut self.expires));
        Ok(())
    }

    fn note(&mut self, module: String) -> Step<()> {
        self.content.modules.insert(module);
        if self.content.modules.len() > MAX_MODULES {
            return Err(Stop::Bad("it is of more modules than any server has"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
