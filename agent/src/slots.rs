//! A small file that is replaced as a whole with one flush of the disk: two slots of a fixed length, written in turn, in place.
//!
//! A file that is written anew and renamed costs its file system three or four flushes; an agent that has to keep an epoch before it obeys
//! waits for each of them. Here the older slot is overwritten and flushed: a crash meanwhile leaves the newer one as it was. A slot is
//! text: `<sequence> <SHA-256 of the content>`, a line break, the content, blanks up to the slot's length.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Length of a slot, bytes.
const SLOT: usize = 32 << 10;

/// The file's writer.
#[derive(Debug)]
pub struct Slots {
    path: PathBuf,
    /// Of the newest content; 0 before the first.
    sequence: u64,
}

/// What a file held when it was opened.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// There is no file.
    Nothing,
    /// Neither slot holds a whole content.
    Damaged,
    /// The newest whole content.
    Content(String),
}

impl Slots {
    /// Opens the file at `path`, which need not exist; nothing is written.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub fn open(path: &Path) -> io::Result<(Slots, Found)> {
        let empty = Slots { path: path.to_owned(), sequence: 0 };
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((empty, Found::Nothing)),
            Err(error) => return Err(error),
        };
        let newest = bytes.chunks(SLOT).filter_map(parse).max_by_key(|(sequence, _)| *sequence);
        Ok(match newest {
            Some((sequence, content)) => (Slots { sequence, ..empty }, Found::Content(content)),
            None => (empty, Found::Damaged),
        })
    }

    /// Puts `content` on the disk in place of the older of the two. The file is made if it is missing or has another length.
    ///
    /// # Errors
    /// It cannot be written or flushed, or `content` is longer than a slot. The content of before is still whole; the new one may be on
    /// the disk all the same.
    pub fn write(&mut self, content: &str) -> io::Result<()> {
        let sequence = self.sequence + 1;
        let slot = render(sequence, content)?;
        match OpenOptions::new().write(true).open(&self.path) {
            Ok(file) if file.metadata()?.len() == 2 * SLOT as u64 => {
                file.write_all_at(&slot, (sequence % 2) * SLOT as u64)?;
                file.sync_data()?;
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => self.make(sequence, &slot)?,
        }
        self.sequence = sequence;
        Ok(())
    }

    /// A file with this slot alone.
    fn make(&self, sequence: u64, slot: &[u8]) -> io::Result<()> {
        let temporary = self.path.with_extension("new");
        let mut file = File::create(&temporary)?;
        file.write_all(&[b' '; 2 * SLOT])?;
        file.write_all_at(slot, (sequence % 2) * SLOT as u64)?;
        file.sync_all()?;
        fs::rename(&temporary, &self.path)?;
        crate::files::sync_dir(self.path.parent().unwrap_or(Path::new(".")))
    }
}

fn digest(sequence: u64, content: &str) -> String {
    hex::encode(Sha256::new().chain_update(sequence.to_be_bytes()).chain_update(content).finalize())
}

fn render(sequence: u64, content: &str) -> io::Result<Vec<u8>> {
    let mut slot = format!("{sequence} {}\n{}", digest(sequence, content), content.trim_end()).into_bytes();
    if slot.len() >= SLOT {
        return Err(io::Error::other(format!("{} bytes are to be written, {SLOT} fit", slot.len())));
    }
    slot.resize(SLOT - 1, b' ');
    slot.push(b'\n');
    Ok(slot)
}

fn parse(slot: &[u8]) -> Option<(u64, String)> {
    let (head, content) = std::str::from_utf8(slot).ok()?.split_once('\n')?;
    let (sequence, sum) = head.split_once(' ')?;
    let (sequence, content) = (sequence.parse().ok()?, content.trim_end());
    (sum == digest(sequence, content)).then(|| (sequence, content.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> (PathBuf, PathBuf) {
        let dir = std::env::temp_dir().join(format!("slots-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&dir).unwrap();
        let file = dir.join("file");
        (dir, file)
    }

    fn content(path: &Path) -> Found {
        Slots::open(path).unwrap().1
    }

    fn holds(text: &str) -> Found {
        Found::Content(text.to_owned())
    }

    #[test]
    fn what_was_written_last_is_found() {
        let (dir, path) = place();
        let (mut slots, found) = Slots::open(&path).unwrap();
        assert_eq!(found, Found::Nothing);
        for text in ["one", "two", "three\nlines"] {
            slots.write(text).unwrap();
            assert_eq!(content(&path), holds(text));
        }
        let (mut again, _) = Slots::open(&path).unwrap();
        again.write("four").unwrap();
        assert_eq!((content(&path), fs::metadata(&path).unwrap().len()), (holds("four"), 2 * SLOT as u64));
        fs::remove_dir_all(dir).unwrap();
    }

    /// Whatever of the last write got to the disk: the content before it or its own is found, and never anything else.
    #[test]
    fn a_write_that_is_torn_anywhere_leaves_the_content_of_before() {
        let (dir, path) = place();
        let (mut slots, _) = Slots::open(&path).unwrap();
        slots.write("older").unwrap();
        slots.write("before").unwrap();
        let before = fs::read(&path).unwrap();
        slots.write("after").unwrap();
        let after = fs::read(&path).unwrap();
        let changed: Vec<usize> = (0..before.len()).filter(|i| before[*i] != after[*i]).collect();
        for torn in 0..changed.len() {
            for (from, to) in [(&before, &after), (&after, &before)] {
                let mut bytes = from.clone();
                changed[..torn].iter().for_each(|i| bytes[*i] = to[*i]);
                fs::write(&path, &bytes).unwrap();
                let expected = if bytes == after { "after" } else { "before" };
                assert_eq!(content(&path), holds(expected), "torn at {torn}");
            }
        }
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_file_with_nothing_whole_is_damaged_and_one_that_was_cut_is_made_anew() {
        let (dir, path) = place();
        for bytes in [&b""[..], b"{\"epoch\": 7}", &[0xff; 3 * SLOT], b"1 abc\ntext"] {
            fs::write(&path, bytes).unwrap();
            assert_eq!(content(&path), Found::Damaged);
        }
        let (mut slots, _) = Slots::open(&path).unwrap();
        slots.write("one").unwrap();
        assert_eq!(content(&path), holds("one"));
        fs::remove_file(&path).unwrap();
        slots.write("two").unwrap();
        assert_eq!(content(&path), holds("two"));
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn what_does_not_fit_or_cannot_be_written_is_an_error_and_the_content_stays() {
        let (dir, path) = place();
        let (mut slots, _) = Slots::open(&path).unwrap();
        slots.write("one").unwrap();
        let error = slots.write(&"x".repeat(SLOT)).unwrap_err().to_string();
        assert!(error.contains("32768 fit"), "{error}");
        assert_eq!(content(&path), holds("one"));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(slots.write("two").is_err());
        fs::remove_dir_all(dir).unwrap();
    }
}
