//! Where a dump waits between the server that sends it and the store that takes it: bounded memory, then a bounded file in the sandbox.
//!
//! Invariant: whoever puts bytes in never waits for whoever takes them out, so a slow store never pushes back on the server. When both bounds are
//! reached the dump is given up.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// How much is read from the file at once.
const CHUNK_BYTES: u64 = 256 << 10;

/// How much may wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// In memory, bytes.
    pub memory: u64,
    /// In the file, bytes.
    pub disk: u64,
    /// Directory of the file.
    pub dir: PathBuf,
}

/// Why bytes could not be put in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Both bounds are reached.
    #[error(
        "the store is slower than the server: {memory} bytes in memory (snapshots.spool_memory) and {disk} bytes in a file (snapshots.spool_disk) wait for it"
    )]
    Full {
        /// Bound of the memory.
        memory: u64,
        /// Bound of the file.
        disk: u64,
    },
    /// Nobody takes anything out any more.
    #[error("the store does not take it any more")]
    Abandoned,
    /// The file.
    #[error("the spool file in {dir} cannot be used: {source}")]
    Disk {
        /// Its directory.
        dir: PathBuf,
        /// Why. Not a source: the text is all that is passed on.
        source: io::Error,
    },
}

/// Bytes in the order they came.
#[derive(Debug)]
pub(crate) struct Spool {
    limits: Limits,
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    memory: VecDeque<Bytes>,
    in_memory: u64,
    ring: Option<Ring>,
    /// How it ended; absent while more may come.
    end: Option<Result<(), String>>,
    abandoned: bool,
}

impl Spool {
    pub fn new(limits: Limits) -> Spool {
        Spool { limits, inner: Mutex::default(), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts bytes in, without waiting for anybody.
    pub fn push(&self, bytes: Bytes) -> Result<(), Error> {
        let mut inner = self.lock();
        if inner.abandoned {
            return Err(Error::Abandoned);
        }
        let length = bytes.len() as u64;
        let waits_on_disk = inner.ring.as_ref().is_some_and(|ring| ring.used() > 0);
        if !waits_on_disk && inner.in_memory + length <= self.limits.memory {
            inner.in_memory += length;
            inner.memory.push_back(bytes);
        } else {
            self.to_disk(&mut inner, &bytes)?;
        }
        self.changed.notify_all();
        Ok(())
    }

    fn to_disk(&self, inner: &mut Inner, bytes: &[u8]) -> Result<(), Error> {
        let Limits { memory, disk, dir } = &self.limits;
        let failed = |source| Error::Disk { dir: dir.clone(), source };
        if inner.ring.as_ref().map_or(0, Ring::used) + bytes.len() as u64 > *disk {
            return Err(Error::Full { memory: *memory, disk: *disk });
        }
        let ring = match &mut inner.ring {
            Some(ring) => ring,
            none => none.insert(Ring::create(dir, *disk).map_err(failed)?),
        };
        ring.write(bytes).map_err(failed)
    }

    /// Nothing more comes: all of it is there, or why not.
    pub fn end(&self, end: Result<(), String>) {
        self.lock().end.get_or_insert(end);
        self.changed.notify_all();
    }

    /// Nobody takes anything out any more.
    pub fn abandon(&self) {
        let mut inner = self.lock();
        (inner.abandoned, inner.in_memory) = (true, 0);
        inner.memory.clear();
        inner.ring = None;
        self.changed.notify_all();
    }

    /// Whether anybody still takes something out.
    pub fn is_abandoned(&self) -> bool {
        self.lock().abandoned
    }

    /// Takes the next bytes out, waiting for them; none at the end. Whatever failed is told at once: what waits is of no use any more.
    pub fn pull(&self) -> io::Result<Option<Bytes>> {
        let mut inner = self.lock();
        loop {
            if let Some(Err(why)) = &inner.end {
                return Err(io::Error::other(why.clone()));
            }
            if let Some(bytes) = inner.memory.pop_front() {
                inner.in_memory -= bytes.len() as u64;
                return Ok(Some(bytes));
            }
            if let Some(ring) = inner.ring.as_mut().filter(|ring| ring.used() > 0) {
                return ring.read().map(Some);
            }
            if inner.end.is_some() {
                return Ok(None);
            }
            inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A file of fixed size that is written round and round. It has no name: it goes with the process.
#[derive(Debug)]
struct Ring {
    file: File,
    size: u64,
    written: u64,
    read: u64,
}

impl Ring {
    fn create(dir: &Path, size: u64) -> io::Result<Ring> {
        let path = dir.join(format!("stream-{}", uuid::Uuid::new_v4()));
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        std::fs::remove_file(&path)?;
        Ok(Ring { file, size, written: 0, read: 0 })
    }

    fn used(&self) -> u64 {
        self.written - self.read
    }

    /// The caller has made sure that there is room.
    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let at = self.written % self.size;
            let now = usize::try_from(self.size - at).unwrap_or(usize::MAX).min(bytes.len());
            self.file.write_all_at(&bytes[..now], at)?;
            self.written += now as u64;
            bytes = &bytes[now..];
        }
        Ok(())
    }

    fn read(&mut self) -> io::Result<Bytes> {
        let at = self.read % self.size;
        let now = self.used().min(self.size - at).min(CHUNK_BYTES);
        let mut bytes = vec![0; usize::try_from(now).unwrap_or(0)];
        self.file.read_exact_at(&mut bytes, at)?;
        self.read += now;
        Ok(bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn spool(memory: u64, disk: u64) -> Spool {
        Spool::new(Limits { memory, disk, dir: std::env::temp_dir() })
    }

    #[test]
    fn bytes_come_out_in_the_order_they_went_in_wherever_they_waited() {
        let spool = spool(10, 16);
        let mut expected = Vec::new();
        let mut found = Vec::new();
        for round in 0u8..40 {
            let piece = vec![round; 1 + usize::from(round) % 7];
            while spool.push(Bytes::from(piece.clone())).is_err() {
                found.extend_from_slice(&spool.pull().unwrap().unwrap());
            }
            expected.extend(piece);
        }
        spool.end(Ok(()));
        while let Some(bytes) = spool.pull().unwrap() {
            found.extend_from_slice(&bytes);
        }
        assert_eq!(found, expected);
    }

    #[test]
    fn beyond_both_bounds_nothing_is_taken_and_the_reason_names_them() {
        let spool = spool(4, 8);
        spool.push(Bytes::from_static(b"1234")).unwrap();
        spool.push(Bytes::from_static(b"12345678")).unwrap();
        let full = spool.push(Bytes::from_static(b"x")).unwrap_err();
        assert!(matches!(full, Error::Full { memory: 4, disk: 8 }));
        assert!(full.to_string().contains("snapshots.spool_disk"));
    }

    #[test]
    fn a_failure_is_told_before_what_still_waits() {
        let spool = spool(4, 8);
        spool.push(Bytes::from_static(b"1234")).unwrap();
        spool.end(Err("the server died".into()));
        assert!(spool.pull().unwrap_err().to_string().contains("the server died"));
    }

    #[test]
    fn whoever_waits_hears_of_bytes_and_whoever_puts_in_of_an_end() {
        let spool = Arc::new(spool(4, 8));
        let other = spool.clone();
        let taker = std::thread::spawn(move || other.pull().unwrap());
        spool.push(Bytes::from_static(b"1")).unwrap();
        assert_eq!(taker.join().unwrap().as_deref(), Some(&b"1"[..]));
        spool.abandon();
        assert!(matches!(spool.push(Bytes::from_static(b"1")), Err(Error::Abandoned)));
    }
}
