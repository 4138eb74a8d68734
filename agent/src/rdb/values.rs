//! The values of a dump, kind by kind: how long each is. What a packed list, set or hash holds inside is not looked at.

use std::io::Read;

use super::cursor::{Cursor, Step, Stop};

/// Kinds of value, as the dump numbers them.
pub(super) mod kind {
    pub const STRING: u8 = 0;
    pub const LIST: u8 = 1;
    pub const SET: u8 = 2;
    pub const SORTED_SET: u8 = 3;
    pub const HASH: u8 = 4;
    pub const SORTED_SET_2: u8 = 5;
    pub const MODULE_2: u8 = 7;
    pub const HASH_ZIPMAP: u8 = 9;
    pub const HASH_ZIPLIST: u8 = 13;
    pub const QUICKLIST: u8 = 14;
    pub const STREAM: u8 = 15;
    pub const HASH_LISTPACK: u8 = 16;
    pub const SORTED_SET_LISTPACK: u8 = 17;
    pub const QUICKLIST_2: u8 = 18;
    pub const STREAM_2: u8 = 19;
    pub const SET_LISTPACK: u8 = 20;
    pub const STREAM_3: u8 = 21;
    /// In Redis' formats: a hash whose fields expire, of a release candidate of 7.4. In Valkey's: a hash whose fields expire.
    pub const HASH_EXPIRING: u8 = 22;
    pub const HASH_LISTPACK_EXPIRING_RC: u8 = 23;
    pub const HASH_EXPIRING_2: u8 = 24;
    pub const HASH_LISTPACK_EXPIRING: u8 = 25;
}

/// What a module's value is made of.
mod part {
    pub const END: u64 = 0;
    pub const SIGNED: u64 = 1;
    pub const UNSIGNED: u64 = 2;
    pub const FLOAT: u64 = 3;
    pub const DOUBLE: u64 = 4;
    pub const STRING: u64 = 5;
}

/// What people call this kind; none for a number that is no kind of value.
pub(super) fn name(kind: u8) -> Option<&'static str> {
    use kind::*;
    Some(match kind {
        STRING => "string",
        LIST | 10 | QUICKLIST | QUICKLIST_2 => "list",
        SET | 11 | SET_LISTPACK => "set",
        SORTED_SET | SORTED_SET_2 | 12 | SORTED_SET_LISTPACK => "sorted set",
        HASH | HASH_ZIPMAP | HASH_ZIPLIST | HASH_LISTPACK | HASH_EXPIRING..=HASH_LISTPACK_EXPIRING => "hash",
        STREAM | STREAM_2 | STREAM_3 => "stream",
        MODULE_2 => "module's value",
        _ => return None,
    })
}

impl<R: Read> Cursor<R> {
    /// Passes a value over. A module's is told by its name.
    pub fn value(&mut self, kind: u8, valkey: bool) -> Step<Option<String>> {
        use kind::*;
        match kind {
            STRING | HASH_ZIPMAP..=HASH_ZIPLIST | HASH_LISTPACK | SORTED_SET_LISTPACK | SET_LISTPACK => {
                self.string().map(drop)?
            }
            LIST | SET | QUICKLIST => self.each(|c| c.string().map(drop))?,
            HASH => self.each(Self::pair)?,
            SORTED_SET => self.each(Self::old_score)?,
            SORTED_SET_2 => self.each(Self::score)?,
            QUICKLIST_2 => self.each(Self::node)?,
            STREAM | STREAM_2 | STREAM_3 => self.stream(kind)?,
            HASH_EXPIRING if valkey => self.each(Self::expiring_after)?,
            HASH_EXPIRING => self.each(Self::expiring_before)?,
            HASH_EXPIRING_2 => {
                self.skip(8)?;
                self.each(Self::expiring_before)?;
            }
            HASH_LISTPACK_EXPIRING_RC => self.string().map(drop)?,
            HASH_LISTPACK_EXPIRING => {
                self.skip(8)?;
                self.string()?;
            }
            MODULE_2 => return self.module().map(Some),
            _ => return Err(Stop::Bad("a kind of value that this program does not know")),
        }
        Ok(None)
    }

    /// A number of elements and the elements; servers write no empty ones.
    fn each(&mut self, mut element: impl FnMut(&mut Self) -> Step<()>) -> Step<()> {
        let count = self.length()?;
        if count == 0 {
            return Err(Stop::Bad("no element is in it"));
        }
        (0..count).try_for_each(|_| element(self))
    }

    /// As [`Self::each`], perhaps of none.
    fn each_of_any(&mut self, mut element: impl FnMut(&mut Self) -> Step<()>) -> Step<()> {
        let count = self.length()?;
        (0..count).try_for_each(|_| element(self))
    }

    fn pair(&mut self) -> Step<()> {
        self.string()?;
        self.string().map(drop)
    }

    /// A field with its value, then when it expires, in milliseconds.
    fn expiring_after(&mut self) -> Step<()> {
        self.pair()?;
        self.skip(8)
    }

    /// When a field expires as a length, then the field with its value.
    fn expiring_before(&mut self) -> Step<()> {
        self.length()?;
        self.pair()
    }

    /// A member with its score.
    fn score(&mut self) -> Step<()> {
        self.string()?;
        self.skip(8)
    }

    /// A member with its score as text, as before Redis 4.
    fn old_score(&mut self) -> Step<()> {
        self.string()?;
        match self.byte()? {
            253..=255 => Ok(()),
            length => self.skip(u64::from(length)),
        }
    }

    /// A node of a quicklist: one large element, or several packed.
    fn node(&mut self) -> Step<()> {
        match self.length()? {
            1 | 2 => self.string().map(drop),
            _ => Err(Stop::Bad("a list's node is neither plain nor packed")),
        }
    }

    pub fn lengths(&mut self, count: usize) -> Step<()> {
        (0..count).try_for_each(|_| self.length().map(drop))
    }

    fn stream(&mut self, kind: u8) -> Step<()> {
        self.each_of_any(|c| {
            if c.string()?.bytes != 16 {
                return Err(Stop::Bad("an id in a stream is not of 16 bytes"));
            }
            c.string().map(drop)
        })?;
        // Length and last id; then first id, highest deleted id and the number of entries ever added.
        self.lengths(if kind >= kind::STREAM_2 { 8 } else { 3 })?;
        self.each_of_any(|c| c.group(kind))
    }

    /// A consumer group: name, last id, entries read, what is pending, consumers.
    fn group(&mut self, kind: u8) -> Step<()> {
        self.string()?;
        self.lengths(if kind >= kind::STREAM_2 { 3 } else { 2 })?;
        self.each_of_any(Self::pending)?;
        self.each_of_any(|c| {
            c.string()?;
            c.skip(if kind >= kind::STREAM_3 { 16 } else { 8 })?;
            c.each_of_any(|c| c.skip(16))
        })
    }

    /// An entry that a group handed out and was not acknowledged: id, time, how often it was handed out.
    fn pending(&mut self) -> Step<()> {
        self.skip(16 + 8)?;
        self.length().map(drop)
    }

    /// A module's value, made of parts that can be read without the module. The module's name.
    pub fn module(&mut self) -> Step<String> {
        let name = module_name(self.length()?);
        self.parts()?;
        Ok(name)
    }

    /// What a module keeps beside its values. The module's name.
    pub fn module_aux(&mut self) -> Step<String> {
        let name = module_name(self.length()?);
        if self.length()? != part::UNSIGNED {
            return Err(Stop::Bad("a module's data does not say when it is to be loaded"));
        }
        self.length()?;
        self.parts()?;
        Ok(name)
    }

    fn parts(&mut self) -> Step<()> {
        loop {
            match self.length()? {
                part::END => return Ok(()),
                part::SIGNED | part::UNSIGNED => self.length().map(drop)?,
                part::FLOAT => self.skip(4)?,
                part::DOUBLE => self.skip(8)?,
                part::STRING => self.string().map(drop)?,
                _ => return Err(Stop::Bad("unknown part of a module's value")),
            }
        }
    }
}

/// A module's type is nine characters of six bits, before ten bits of its version.
fn module_name(id: u64) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    (0..9).map(|n| char::from(LETTERS[(id >> (58 - 6 * n) & 0x3f) as usize])).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_module_is_named_as_it_names_itself() {
        // "ReJSON-RL", version 3.
        let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let id = b"ReJSON-RL".iter().fold(0u64, |id, c| id << 6 | letters.iter().position(|l| l == c).unwrap() as u64);
        assert_eq!(super::module_name(id << 10 | 3), "ReJSON-RL");
    }
}
