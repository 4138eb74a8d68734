//! The file operations the store is made of, over its two kinds: HDFS and a local (or mounted) directory.
//!
//! Paths are absolute, with `/`. Every call has a deadline of its own.

use std::time::Duration;

use bytes::Bytes;

use super::error::{Error, Trouble};
use super::{hdfs, local};

/// How long single calls may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// A call that moves no data: list, stat, create, rename, delete. A NameNode that is dead answers sooner by an error.
    pub call: Duration,
    /// Writing one chunk. HDFS itself gives up on a silent DataNode after 60 s.
    pub write: Duration,
    /// Finishing a file. HDFS itself gives up after 16 s.
    pub close: Duration,
    /// Reading one chunk. Each DataNode is given 10 s.
    pub read: Duration,
}

impl Default for Deadlines {
    fn default() -> Deadlines {
        let seconds = Duration::from_secs;
        Deadlines { call: seconds(20), write: seconds(75), close: seconds(30), read: seconds(25) }
    }
}

/// What lies in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Child {
    pub name: String,
    pub bytes: u64,
    pub kind: Kind,
    pub modified_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Other,
}

/// How a file is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Create {
    /// Copies HDFS keeps.
    pub replication: u32,
    /// Size it will have, bytes.
    pub bytes: u64,
}

pub(super) enum Files {
    Hdfs(hdfs::Hdfs),
    Local(local::Local),
}

impl Files {
    /// Makes a directory and its parents; nothing to do if it is there.
    pub async fn mkdirs(&self, path: &str) -> Result<(), Error> {
        match self {
            Files::Hdfs(f) => f.mkdirs(path).await,
            Files::Local(f) => f.mkdirs(path).await,
        }
    }

    /// What lies at `path` itself; none if nothing does.
    pub async fn stat(&self, path: &str) -> Result<Option<Child>, Error> {
        let found = match self {
            Files::Hdfs(f) => f.stat(path).await,
            Files::Local(f) => f.stat(path).await,
        };
        absent(found)
    }

    /// What lies in a directory, in no order; none if it is not there.
    pub async fn list(&self, path: &str) -> Result<Option<Vec<Child>>, Error> {
        let found = match self {
            Files::Hdfs(f) => f.list(path).await,
            Files::Local(f) => f.list(path).await,
        };
        absent(found)
    }

    /// Opens a file for reading from its beginning.
    pub async fn open(&self, path: &str) -> Result<Reader, Error> {
        self.open_at(path, 0).await
    }

    /// Opens a file for reading from an offset on; at or beyond its end there is nothing to read.
    pub async fn open_at(&self, path: &str, offset: u64) -> Result<Reader, Error> {
        match self {
            Files::Hdfs(f) => f.open(path, offset).await.map(Reader::Hdfs),
            Files::Local(f) => f.open(path, offset).await.map(Reader::Local),
        }
    }

    /// Creates a file; one that exists is an error.
    pub async fn create(&self, path: &str, how: Create) -> Result<Writer, Error> {
        match self {
            Files::Hdfs(f) => f.create(path, how).await.map(|w| Writer::Hdfs(Box::new(w))),
            Files::Local(f) => f.create(path).await.map(Writer::Local),
        }
    }

    /// Renames a directory in one step; never onto something that exists.
    pub async fn rename(&self, from: &str, to: &str) -> Result<(), Error> {
        match self {
            Files::Hdfs(f) => f.rename(from, to).await,
            Files::Local(f) => f.rename(from, to).await,
        }
    }

    /// Deletes a file or a directory with all that is in it; nothing to do if it is not there.
    pub async fn remove(&self, path: &str) -> Result<(), Error> {
        match self {
            Files::Hdfs(f) => f.remove(path).await,
            Files::Local(f) => f.remove(path).await,
        }
    }

    /// Has the store keep so many copies of a file from now on.
    pub async fn set_replication(&self, path: &str, copies: u32) -> Result<(), Error> {
        match self {
            Files::Hdfs(f) => f.set_replication(path, copies).await,
            Files::Local(_) => Ok(()),
        }
    }

    /// A whole file of at most `max` bytes.
    pub async fn read_small(&self, path: &str, max: u64) -> Result<Vec<u8>, Error> {
        let mut reader = self.open(path).await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = reader.next().await? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() as u64 > max {
                let why = format!("longer than the {max} bytes that are read");
                return Err(Error::Remote { what: "read", path: path.into(), trouble: Trouble::Invalid, why });
            }
        }
        Ok(bytes)
    }

    /// Creates a file with these bytes.
    pub async fn write_small(&self, path: &str, bytes: Vec<u8>, replication: u32) -> Result<(), Error> {
        let mut writer = self.create(path, Create { replication, bytes: bytes.len() as u64 }).await?;
        writer.write(bytes.into()).await?;
        writer.close().await
    }
}

fn absent<T>(found: Result<T, Error>) -> Result<Option<T>, Error> {
    match found {
        Err(e) if e.trouble() == Some(Trouble::Missing) => Ok(None),
        other => other.map(Some),
    }
}

/// A file being read.
pub(super) enum Reader {
    Hdfs(hdfs::Reader),
    Local(local::Reader),
}

impl Reader {
    /// The next bytes; none at the end of the file.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        match self {
            Reader::Hdfs(r) => r.next().await,
            Reader::Local(r) => r.next().await,
        }
    }
}

/// A file being written. After an error it is dropped, never closed: closing could make half a file look whole.
pub(super) enum Writer {
    Hdfs(Box<hdfs::Writer>),
    Local(local::Writer),
}

impl Writer {
    /// Writes bytes at the end.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        match self {
            Writer::Hdfs(w) => w.write(bytes).await,
            Writer::Local(w) => w.write(bytes).await,
        }
    }

    /// Completes the file: what was written is safe after it.
    pub async fn close(self) -> Result<(), Error> {
        match self {
            Writer::Hdfs(w) => w.close().await,
            Writer::Local(w) => w.close().await,
        }
    }
}
