//! Aux fields at the beginning of a dump: name and value pairs that describe it.

use std::collections::BTreeMap;

use super::Error;

const OPCODE_AUX: u8 = 0xfa;
/// A longer name or value is none of those that matter here.
const LONGEST: usize = 1024;

/// The fields between the header and the first other opcode, as far as they lie within `head`.
/// Values that are compressed or long are left out.
pub(super) fn read(head: &[u8], start: usize) -> Result<BTreeMap<String, String>, Error> {
    let mut fields = BTreeMap::new();
    let mut cursor = Cursor { bytes: head, at: start };
    while cursor.peek() == Some(OPCODE_AUX) {
        let offset = cursor.at as u64;
        cursor.at += 1;
        match (cursor.string(), cursor.string()) {
            (Ok(name), Ok(value)) => {
                fields.extend(name.zip(value));
            }
            // The window ended; what is beyond it is not looked at.
            (Err(Stop::End), _) | (_, Err(Stop::End)) => break,
            (Err(Stop::Bad(what)), _) | (_, Err(Stop::Bad(what))) => {
                return Err(Error::Aux { offset, what });
            }
        }
    }
    Ok(fields)
}

enum Stop {
    End,
    Bad(&'static str),
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn take(&mut self, n: usize) -> Result<&[u8], Stop> {
        let end = self.at.checked_add(n).ok_or(Stop::End)?;
        let taken = self.bytes.get(self.at..end).ok_or(Stop::End)?;
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    /// A plain length: 6, 14, 32 or 64 bits by the first byte.
    fn length(&mut self) -> Result<usize, Stop> {
        let first = self.array::<1>()?[0];
        self.length_after(first)
    }

    fn length_after(&mut self, first: u8) -> Result<usize, Stop> {
        let length = match first {
            0x00..=0x3f => u64::from(first),
            0x40..=0x7f => u64::from(first & 0x3f) << 8 | u64::from(self.array::<1>()?[0]),
            0x80 => u64::from(u32::from_be_bytes(self.array()?)),
            0x81 => u64::from_be_bytes(self.array()?),
            _ => return Err(Stop::Bad("unknown length encoding")),
        };
        usize::try_from(length).map_err(|_| Stop::End)
    }

    /// A string; none if it is compressed, long or not text.
    fn string(&mut self) -> Result<Option<String>, Stop> {
        let first = self.array::<1>()?[0];
        match first {
            0xc0 => Ok(Some(i8::from_le_bytes(self.array()?).to_string())),
            0xc1 => Ok(Some(i16::from_le_bytes(self.array()?).to_string())),
            0xc2 => Ok(Some(i32::from_le_bytes(self.array()?).to_string())),
            0xc3 => {
                let compressed = self.length()?;
                self.length()?;
                self.take(compressed)?;
                Ok(None)
            }
            _ => {
                let length = self.length_after(first)?;
                let text = self.take(length)?;
                Ok((length <= LONGEST).then(|| String::from_utf8(text.to_vec()).ok()).flatten())
            }
        }
    }
}
