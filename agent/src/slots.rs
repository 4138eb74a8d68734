//! A small file that is replaced as a whole: four slots of a fixed length, written in place; the disk's flush follows behind.
//!
//! Who writes does not wait for the disk: what depends on the content is an agent's obedience, and a failover would stand still for as long
//! as a busy disk takes. What was written outlives the process at once (the kernel has it), and the machine once it is flushed. That is
//! enough: a server dies with its agent, and after a power-off there is neither, nor does Aurora start a task again in an old sandbox.
//!
//! Never overwritten are the newest slot, so that a process killed in the middle of a write leaves the content of before; the one that was
//! flushed last, so that a power-off leaves a whole one; and the one being flushed. A slot is text: `<sequence> <SHA-256 of the content>`,
//! a line break, the content, blanks up to the slot's length.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use sha2::{Digest, Sha256};

/// Length of a slot, bytes.
const SLOT: usize = 16 << 10;
/// One more than there can be that must not be overwritten.
const SLOTS: usize = 4;

/// The file's writer.
#[derive(Debug)]
pub struct Slots {
    path: PathBuf,
    /// Of the newest content; 0 before the first.
    sequence: u64,
    places: Arc<Mutex<Places>>,
}

/// Which slot is what.
#[derive(Debug, Default)]
struct Places {
    newest: usize,
    /// On the disk for sure.
    flushed: usize,
    /// Being flushed at the moment.
    flushing: Option<usize>,
    /// Why the last flush failed; told to the next writer.
    failed: Option<io::Error>,
}

/// What a file held when it was opened.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// There is no file.
    Nothing,
    /// No slot holds a whole content.
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
        let empty = Slots { path: path.to_owned(), sequence: 0, places: Arc::default() };
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((empty, Found::Nothing)),
            Err(error) => return Err(error),
        };
        let whole = bytes.chunks(SLOT).enumerate().filter_map(|(place, slot)| Some((place, parse(slot)?)));
        Ok(match whole.max_by_key(|(_, (sequence, _))| *sequence) {
            Some((place, (sequence, content))) => {
                // Its writer may have been killed before it was flushed.
                File::open(path)?.sync_data()?;
                *lock(&empty.places) = Places { newest: place, flushed: place, ..Places::default() };
                (Slots { sequence, ..empty }, Found::Content(content))
            }
            None => (empty, Found::Damaged),
        })
    }

    /// Puts `content` into a slot that is free; it is on the disk soon after. The file is made, and flushed, if it is missing or has another
    /// length.
    ///
    /// # Errors
    /// It cannot be written, the flush of an earlier content failed, or `content` is longer than a slot. The content of before is still
    /// whole.
    pub fn write(&mut self, content: &str) -> io::Result<()> {
        let sequence = self.sequence + 1;
        let slot = render(sequence, content)?;
        match OpenOptions::new().write(true).open(&self.path) {
            Ok(file) if file.metadata()?.len() == (SLOTS * SLOT) as u64 => self.put(file, &slot)?,
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => self.make(&slot)?,
        }
        self.sequence = sequence;
        Ok(())
    }

    fn put(&self, file: File, slot: &[u8]) -> io::Result<()> {
        let mut places = lock(&self.places);
        if let Some(error) = places.failed.take() {
            return Err(error);
        }
        let taken = [places.newest, places.flushed, places.flushing.unwrap_or(places.newest)];
        let free = (0..SLOTS).find(|place| !taken.contains(place)).expect("three of four can be taken");
        file.write_all_at(slot, (free * SLOT) as u64)?;
        places.newest = free;
        if places.flushing.is_none() {
            places.flushing = Some(free);
            let shared = self.places.clone();
            let flusher = std::thread::Builder::new().name("flush".into()).spawn(move || flush(&file, &shared));
            if let Err(error) = flusher {
                places.flushing = None;
                return Err(error);
            }
        }
        Ok(())
    }

    /// A file with this slot alone.
    fn make(&mut self, slot: &[u8]) -> io::Result<()> {
        let temporary = self.path.with_extension("new");
        let mut file = File::create(&temporary)?;
        file.write_all(&[b' '; SLOTS * SLOT])?;
        file.write_all_at(slot, 0)?;
        file.sync_all()?;
        fs::rename(&temporary, &self.path)?;
        // Whatever is still being flushed is a file that has gone.
        self.places = Arc::default();
        crate::files::sync_dir(self.path.parent().unwrap_or(Path::new(".")))
    }
}

/// Flushes until the newest slot is on the disk.
fn flush(file: &File, places: &Mutex<Places>) {
    loop {
        let result = file.sync_data();
        let mut places = lock(places);
        let Some(place) = places.flushing.take() else { return };
        match result {
            Ok(()) => places.flushed = place,
            Err(error) => {
                places.failed = Some(error);
                return;
            }
        }
        if places.newest == place {
            return;
        }
        places.flushing = Some(places.newest);
    }
}

fn lock(places: &Mutex<Places>) -> MutexGuard<'_, Places> {
    places.lock().expect("no panic while locked")
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
        assert_eq!((content(&path), fs::metadata(&path).unwrap().len()), (holds("four"), (SLOTS * SLOT) as u64));
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
                let found = content(&path);
                assert!(found == holds("before") || found == holds("after"), "torn at {torn}: {found:?}");
                assert!(bytes != before || found == holds("before"));
            }
        }
        fs::remove_dir_all(dir).unwrap();
    }

    /// Faster than any disk: each write is there at once for whoever reads the file, and the flush gets to the last one.
    #[test]
    fn writes_do_not_wait_for_the_flush_and_the_flush_catches_up() {
        let (dir, path) = place();
        let (mut slots, _) = Slots::open(&path).unwrap();
        for n in 0..500 {
            slots.write(&format!("content {n}")).unwrap();
            assert_eq!(content(&path), holds(&format!("content {n}")));
        }
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        let is_behind = || {
            let places = lock(&slots.places);
            (places.flushed, places.flushing) != (places.newest, None)
        };
        while is_behind() {
            assert!(std::time::Instant::now() < deadline, "the flush does not catch up: {:?}", slots.places);
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_failed_flush_fails_the_next_write_once() {
        let (dir, path) = place();
        let (mut slots, _) = Slots::open(&path).unwrap();
        slots.write("one").unwrap();
        lock(&slots.places).failed = Some(io::Error::other("the disk is broken"));
        assert!(slots.write("two").unwrap_err().to_string().contains("broken"));
        assert_eq!(content(&path), holds("one"));
        slots.write("three").unwrap();
        assert_eq!(content(&path), holds("three"));
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_file_with_nothing_whole_is_damaged_and_one_that_was_cut_is_made_anew() {
        let (dir, path) = place();
        for bytes in [&b""[..], b"{\"epoch\": 7}", &[0xff; SLOTS * SLOT], b"1 abc\ntext"] {
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
        assert!(error.contains("16384 fit"), "{error}");
        assert_eq!(content(&path), holds("one"));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(slots.write("two").is_err());
        fs::remove_dir_all(dir).unwrap();
    }
}
