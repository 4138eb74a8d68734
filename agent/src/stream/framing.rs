//! What a server sends after `PSYNC ? -1`, taken apart: the answer, then a dump in one of two framings. Pure.
//!
//! `+FULLRESYNC <replid> <offset>`, then either `$<length>` and exactly that many bytes, or `$EOF:<mark>`, bytes, and the mark of 40 bytes
//! again. Before either line a server sends bare line feeds to keep the connection alive. Behind a mark nothing comes until the reader
//! acknowledges, which ours never does: so a mark is there when it is the last that was received.

use crate::api::Position;

/// Length of the mark.
const MARK_BYTES: usize = 40;
/// No line is longer.
const MAX_LINE: usize = 512;
/// Larger than any dump: what claims more is not understood.
const MAX_BYTES: u64 = 1 << 50;

/// Why what a server sends is no dump.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// It answered with an error.
    #[error("the server refuses a copy: {0}")]
    Refused(String),
    /// Another answer, or another framing.
    #[error("the server answered {found:?} where {expected} belongs")]
    Unexpected {
        /// Its line, at most 120 characters.
        found: String,
        /// What would have been understood.
        expected: &'static str,
    },
}

#[derive(Debug)]
enum State {
    /// Before the answer to PSYNC.
    Answer,
    /// Before the line that tells the framing.
    Head,
    /// Bytes left.
    Counted(u64),
    /// The mark, and the last bytes received, which may be it.
    Marked {
        mark: [u8; MARK_BYTES],
        held: Vec<u8>,
    },
    Ended,
}

/// The state between two reads.
#[derive(Debug)]
pub(crate) struct Framing {
    state: State,
    line: Vec<u8>,
    position: Option<Position>,
    total: Option<u64>,
}

impl Default for Framing {
    fn default() -> Framing {
        Framing { state: State::Answer, line: Vec::new(), position: None, total: None }
    }
}

impl Framing {
    /// Where the dump stands in its history; absent before the answer.
    pub fn position(&self) -> Option<&Position> {
        self.position.as_ref()
    }

    /// Size of the dump, bytes; absent before it is told, and in the framing that does not tell it.
    pub fn total(&self) -> Option<u64> {
        self.total
    }

    /// Whether the dump itself has begun.
    pub fn has_begun(&self) -> bool {
        !matches!(self.state, State::Answer | State::Head)
    }

    /// Whether the dump is whole: nothing more is to be read.
    pub fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// Takes what was received and puts the dump's bytes among it into `dump`.
    pub fn feed(&mut self, mut bytes: &[u8], dump: &mut Vec<u8>) -> Result<(), Error> {
        while !bytes.is_empty() {
            match &mut self.state {
                State::Answer | State::Head => {
                    let Some(end) = bytes.iter().position(|b| *b == b'\n') else {
                        self.line.extend_from_slice(bytes);
                        return self.bounded();
                    };
                    self.line.extend_from_slice(&bytes[..end]);
                    self.bounded()?;
                    bytes = &bytes[end + 1..];
                    let line = std::mem::take(&mut self.line);
                    self.line(String::from_utf8_lossy(&line).trim_end_matches('\r'))?;
                }
                State::Counted(left) => {
                    let now = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    dump.extend_from_slice(&bytes[..now]);
                    *left -= now as u64;
                    bytes = &bytes[now..];
                    if *left == 0 {
                        self.state = State::Ended;
                    }
                }
                State::Marked { mark, held } => {
                    held.extend_from_slice(bytes);
                    let certain = held.len().saturating_sub(MARK_BYTES);
                    dump.extend(held.drain(..certain));
                    if held[..] == mark[..] {
                        self.state = State::Ended;
                    }
                    return Ok(());
                }
                // Of a server that goes on with its stream at once.
                State::Ended => return Ok(()),
            }
        }
        Ok(())
    }

    fn bounded(&self) -> Result<(), Error> {
        if self.line.len() <= MAX_LINE { Ok(()) } else { Err(unexpected(&String::from_utf8_lossy(&self.line), "a line")) }
    }

    fn line(&mut self, line: &str) -> Result<(), Error> {
        if line.is_empty() {
            return Ok(());
        }
        if let Some(error) = line.strip_prefix('-') {
            return Err(Error::Refused(error.chars().take(200).collect()));
        }
        if matches!(self.state, State::Answer) {
            self.position = Some(position(line).ok_or_else(|| unexpected(line, "+FULLRESYNC <replid> <offset>"))?);
            self.state = State::Head;
            return Ok(());
        }
        self.state = head(line).ok_or_else(|| unexpected(line, "$<length> or $EOF:<mark>"))?;
        if let State::Counted(total) = self.state {
            self.total = Some(total);
        }
        Ok(())
    }
}

fn unexpected(line: &str, expected: &'static str) -> Error {
    Error::Unexpected { found: line.chars().take(120).collect(), expected }
}

fn position(line: &str) -> Option<Position> {
    let (replid, offset) = line.strip_prefix("+FULLRESYNC ")?.split_once(' ')?;
    let whole = replid.len() == 40 && replid.bytes().all(|b| b.is_ascii_hexdigit());
    Some(Position { replid: whole.then(|| replid.to_owned())?, offset: offset.parse().ok()? })
}

fn head(line: &str) -> Option<State> {
    let told = line.strip_prefix('$')?;
    match told.strip_prefix("EOF:") {
        Some(mark) => Some(State::Marked { mark: mark.as_bytes().try_into().ok()?, held: Vec::new() }),
        None => told.parse().ok().filter(|total| (1..=MAX_BYTES).contains(total)).map(State::Counted),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REPLID: &str = "8c1f2d6a5b0e4f3c9d7a6b5e4f3c2d1a0b9e8f7d";
    const MARK: &str = "0123456789abcdef0123456789abcdef01234567";

    /// What came out of pieces: the dump, and where the parser stands.
    fn fed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<(Vec<u8>, Framing), Error> {
        let (mut dump, mut framing) = (Vec::new(), Framing::default());
        for piece in pieces {
            framing.feed(piece, &mut dump)?;
        }
        Ok((dump, framing))
    }

    fn counted(dump: &[u8]) -> Vec<u8> {
        [format!("\n\n+FULLRESYNC {REPLID} 1832211\r\n\n\n${}\r\n", dump.len()).as_bytes(), dump].concat()
    }

    fn marked(dump: &[u8]) -> Vec<u8> {
        [format!("+FULLRESYNC {REPLID} 1832211\r\n\n$EOF:{MARK}\r\n").as_bytes(), dump, MARK.as_bytes()].concat()
    }

    #[test]
    fn both_framings_give_the_dump_and_its_position() {
        for (bytes, total) in [(counted(b"REDIS\r\n$5\n"), Some(10)), (marked(b"REDIS\r\n$5\n"), None)] {
            let (dump, framing) = fed([&bytes[..]]).unwrap();
            assert_eq!(dump, b"REDIS\r\n$5\n");
            assert_eq!(framing.position(), Some(&Position { replid: REPLID.into(), offset: 1_832_211 }));
            assert_eq!((framing.total(), framing.is_ended()), (total, true));
        }
    }

    #[test]
    fn what_was_recorded_from_servers_is_understood_and_is_a_dump() {
        for (name, bytes, told) in [
            ("redis 6.2, diskless", &include_bytes!("../../tests/data/psync-redis-6.2-diskless.bin")[..], false),
            ("redis 7.0, diskless", include_bytes!("../../tests/data/psync-redis-7.0-diskless.bin"), false),
            ("redis 7.0, from disk", include_bytes!("../../tests/data/psync-redis-7.0-disk.bin"), true),
            ("valkey 9.1", include_bytes!("../../tests/data/psync-valkey-9.1.bin"), false),
        ] {
            let (dump, framing) = fed([bytes]).unwrap();
            assert_eq!((framing.is_ended(), framing.total().is_some()), (true, told), "{name}");
            let walked = crate::rdb::walk(&dump[..]).unwrap().unwrap();
            let keys: Vec<(u32, u64)> = walked.content.databases.iter().map(|(n, keys)| (*n, keys.keys)).collect();
            assert_eq!(keys, [(0, 3), (2, 1)], "{name}");
            assert_eq!(walked.checked.rdb.position.as_ref(), framing.position(), "{name}");
        }
    }

    #[test]
    fn a_dump_that_is_cut_off_is_not_ended() {
        for whole in [counted(b"REDIS0010 and more"), marked(b"REDIS0010 and more")] {
            for end in 0..whole.len() {
                assert!(!fed([&whole[..end]]).unwrap().1.is_ended(), "{end} of {}", whole.len());
            }
        }
    }

    #[test]
    fn the_stream_behind_a_counted_dump_is_left_alone() {
        let bytes = [&counted(b"REDIS")[..], b"*1\r\n$4\r\nPING\r\n"].concat();
        let (dump, framing) = fed([&bytes[..]]).unwrap();
        assert!(framing.is_ended() && dump == b"REDIS");
    }

    #[test]
    fn what_is_no_copy_is_refused_with_what_was_found() {
        let after = |line: &str| fed([format!("+FULLRESYNC {REPLID} 0\r\n{line}\r\n").as_bytes()]).unwrap_err().to_string();
        let told = |line: &str| fed([format!("{line}\r\n").as_bytes()]).unwrap_err().to_string();
        assert!(told("-NOMASTERLINK Can't SYNC while not connected with my master").contains("NOMASTERLINK"));
        for line in ["+CONTINUE", "+OK", "+FULLRESYNC x 0", &format!("+FULLRESYNC {REPLID} -1"), "*1"] {
            assert!(told(line).contains("+FULLRESYNC <replid> <offset>"), "{line}");
        }
        for line in ["$", "$-1", "$0", "$99999999999999999999", "$EOF:short", ":1", "$EOF"] {
            assert!(after(line).contains("$<length> or $EOF:<mark>"), "{line}");
        }
        assert!(told(&"x".repeat(2000)).contains("where a line belongs"));
    }

    proptest! {
        #[test]
        fn however_it_is_cut_the_dump_is_the_same(
            dump in proptest::collection::vec(any::<u8>(), 1..400),
            cuts in proptest::collection::vec(0usize..600, 0..40),
            with_mark in any::<bool>(),
        ) {
            let whole = if with_mark { marked(&dump) } else { counted(&dump) };
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % whole.len()).collect();
            cuts.extend([0, whole.len()]);
            cuts.sort_unstable();
            let (found, framing) = fed(cuts.windows(2).map(|pair| &whole[pair[0]..pair[1]])).unwrap();
            prop_assert_eq!(found, dump);
            prop_assert!(framing.is_ended());
        }

        #[test]
        fn any_bytes_are_read_or_refused(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 0..20)) {
            let _ = fed(pieces.iter().map(Vec::as_slice));
        }
    }
}
