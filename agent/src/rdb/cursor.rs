//! Reads the primitives of a dump from a stream, in bounded memory: bytes, lengths, strings. Whatever is long is passed over.

use std::io::{self, BufRead, BufReader, Read};

/// How much is read at once.
const BUFFER_BYTES: usize = 256 << 10;
/// How much of a string is kept to be shown.
pub(super) const SHOWN_BYTES: usize = 64;

/// Why reading does not go on.
#[derive(Debug)]
pub(super) enum Stop {
    /// The source failed.
    Io(io::Error),
    /// The file ends here.
    End,
    /// The format is not known.
    Unknown,
    /// What stands here has no meaning.
    Bad(&'static str),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Stop {
        Stop::Io(error)
    }
}

pub(super) type Step<T> = Result<T, Stop>;

/// A string that was passed over.
pub(super) struct Passed {
    /// Its length, decompressed.
    pub bytes: u64,
    /// Its beginning; empty when it is compressed.
    pub shown: Vec<u8>,
}

/// A place in a dump.
pub(super) struct Cursor<R> {
    source: BufReader<R>,
    offset: u64,
}

impl<R: Read> Cursor<R> {
    pub fn new(source: R) -> Cursor<R> {
        Cursor { source: BufReader::with_capacity(BUFFER_BYTES, source), offset: 0 }
    }

    /// Bytes read so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    pub fn byte(&mut self) -> Step<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub fn array<const N: usize>(&mut self) -> Step<[u8; N]> {
        let mut out = [0; N];
        self.fill(&mut out)?;
        Ok(out)
    }

    fn fill(&mut self, mut out: &mut [u8]) -> Step<()> {
        while !out.is_empty() {
            let there = self.there()?;
            let n = there.len().min(out.len());
            out[..n].copy_from_slice(&there[..n]);
            out = &mut out[n..];
            self.consume(n);
        }
        Ok(())
    }

    pub fn skip(&mut self, mut bytes: u64) -> Step<()> {
        while bytes > 0 {
            let n = self.there()?.len().min(usize::try_from(bytes).unwrap_or(usize::MAX));
            self.consume(n);
            bytes -= n as u64;
        }
        Ok(())
    }

    /// Reads to the end; how many bytes there were.
    pub fn drain(&mut self) -> io::Result<u64> {
        let from = self.offset;
        match self.skip(u64::MAX) {
            Err(Stop::Io(error)) => Err(error),
            _ => Ok(self.offset - from),
        }
    }

    /// Bytes that are there already; never empty.
    fn there(&mut self) -> Step<&[u8]> {
        loop {
            match self.source.fill_buf() {
                Ok([]) => return Err(Stop::End),
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.source.buffer())
    }

    fn consume(&mut self, n: usize) {
        self.source.consume(n);
        self.offset += n as u64;
    }

    /// A plain length: 6, 14, 32 or 64 bits by the first byte.
    pub fn length(&mut self) -> Step<u64> {
        let first = self.byte()?;
        self.length_after(first)
    }

    fn length_after(&mut self, first: u8) -> Step<u64> {
        Ok(match first {
            0x00..=0x3f => u64::from(first),
            0x40..=0x7f => u64::from(first & 0x3f) << 8 | u64::from(self.byte()?),
            0x80 => u64::from(u32::from_be_bytes(self.array()?)),
            0x81 => u64::from_be_bytes(self.array()?),
            _ => return Err(Stop::Bad("unknown length encoding")),
        })
    }

    /// A string: plain, a number, or compressed.
    pub fn string(&mut self) -> Step<Passed> {
        let number = |text: String| Passed { bytes: text.len() as u64, shown: text.into_bytes() };
        Ok(match self.byte()? {
            0xc0 => number(i8::from_le_bytes(self.array()?).to_string()),
            0xc1 => number(i16::from_le_bytes(self.array()?).to_string()),
            0xc2 => number(i32::from_le_bytes(self.array()?).to_string()),
            0xc3 => Passed { bytes: self.compressed()?, shown: Vec::new() },
            first => {
                let bytes = self.length_after(first)?;
                let kept = bytes.min(SHOWN_BYTES as u64);
                let mut shown = vec![0; kept as usize];
                self.fill(&mut shown)?;
                self.skip(bytes - kept)?;
                Passed { bytes, shown }
            }
        })
    }

    /// An LZF-compressed string, checked without decompressing it: runs of literal bytes, and references to what was put out before. Its
    /// length, decompressed.
    fn compressed(&mut self) -> Step<u64> {
        let (mut left, plain) = (self.length()?, self.length()?);
        let mut put = 0;
        while left > 0 {
            let control = self.byte_of(&mut left)?;
            if control < 0x20 {
                let literal = u64::from(control) + 1;
                left = left.checked_sub(literal).ok_or(Stop::Bad("a compressed string goes beyond its end"))?;
                self.skip(literal)?;
                put += literal;
            } else {
                let more = if control >> 5 == 7 { self.byte_of(&mut left)? } else { 0 };
                let back = (u64::from(control & 0x1f) << 8 | u64::from(self.byte_of(&mut left)?)) + 1;
                if back > put {
                    return Err(Stop::Bad("a compressed string refers to bytes before its beginning"));
                }
                put += u64::from(control >> 5) + 2 + u64::from(more);
            }
        }
        if put == plain { Ok(plain) } else { Err(Stop::Bad("a compressed string is not as long as it says")) }
    }

    fn byte_of(&mut self, left: &mut u64) -> Step<u8> {
        *left = left.checked_sub(1).ok_or(Stop::Bad("a compressed string goes beyond its end"))?;
        self.byte()
    }
}
