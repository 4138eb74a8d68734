//! The store in a local directory, or in a mounted one (where calls may hang: each has a deadline).

use std::fs;
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;

use super::error::{Error, Trouble};
use super::files::{Child, Deadlines, Kind};

const CHUNK_BYTES: usize = 1 << 20;
/// What is written goes to the disk this often, so that completing a large file takes no longer than a small one.
const SYNC_BYTES: usize = 64 << 20;

pub(super) struct Local {
    pub deadlines: Deadlines,
}

impl Local {
    pub async fn mkdirs(&self, path: &str) -> Result<(), Error> {
        self.call("mkdirs", path, |p| fs::DirBuilder::new().recursive(true).mode(0o750).create(p)).await
    }

    pub async fn stat(&self, path: &str) -> Result<Child, Error> {
        self.call("stat", path, |p| Ok(child(String::new(), &fs::metadata(p)?))).await
    }

    pub async fn list(&self, path: &str) -> Result<Vec<Child>, Error> {
        let read = |p: &Path| {
            let mut children = Vec::new();
            for entry in fs::read_dir(p)? {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                match fs::metadata(entry.path()) {
                    Ok(data) => children.push(child(name, &data)),
                    Err(_) => children.push(Child { name, bytes: 0, kind: Kind::Other, modified_ms: 0 }),
                }
            }
            Ok(children)
        };
        self.call("list", path, read).await
    }

    pub async fn open(&self, path: &str, offset: u64) -> Result<Reader, Error> {
        let open = move |p: &Path| {
            // Anything but a file (a pipe, say) could block the opening itself.
            if !fs::metadata(p)?.is_file() {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file"));
            }
            let mut file = fs::File::open(p)?;
            file.seek(io::SeekFrom::Start(offset))?;
            Ok(file)
        };
        let file = self.call("open", path, open).await?;
        Ok(Reader { file: Some(file), path: path.into(), deadline: self.deadlines.read })
    }

    pub async fn create(&self, path: &str) -> Result<Writer, Error> {
        let create = |p: &Path| fs::OpenOptions::new().write(true).create_new(true).mode(0o640).open(p);
        let file = self.call("create", path, create).await?;
        Ok(Writer { file: Some(file), unsynced: 0, path: path.into(), deadlines: self.deadlines })
    }

    pub async fn rename(&self, from: &str, to: &str) -> Result<(), Error> {
        let target = to.to_owned();
        self.call("rename", from, move |from| rename_new(from, Path::new(&target))).await
    }

    pub async fn remove(&self, path: &str) -> Result<(), Error> {
        let remove = |p: &Path| match fs::symlink_metadata(p) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
            Ok(data) if data.is_dir() => fs::remove_dir_all(p),
            Ok(_) => fs::remove_file(p),
        };
        self.call("remove", path, remove).await
    }

    async fn call<T: Send + 'static>(
        &self,
        what: &'static str,
        path: &str,
        f: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let owned = path.to_owned();
        blocking(what, path, self.deadlines.call, move || f(Path::new(&owned))).await
    }
}

/// Renames, never onto something that exists, and makes it last.
pub(super) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // A file system that cannot refuse by itself.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) if to.symlink_metadata().is_err() => fs::rename(from, to)?,
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => return Err(io::ErrorKind::AlreadyExists.into()),
        other => other?,
    }
    match to.parent() {
        Some(parent) => fs::File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

fn child(name: String, data: &fs::Metadata) -> Child {
    let kind = match data.file_type() {
        t if t.is_file() => Kind::File,
        t if t.is_dir() => Kind::Directory,
        _ => Kind::Other,
    };
    let modified = data.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    Child { name, bytes: data.len(), kind, modified_ms: u64::try_from(modified.as_millis()).unwrap_or(u64::MAX) }
}

/// A blocking call with a deadline; past it the call goes on unheard.
async fn blocking<T: Send + 'static>(
    what: &'static str,
    path: &str,
    deadline: Duration,
    f: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Error> {
    match tokio::time::timeout(deadline, tokio::task::spawn_blocking(f)).await {
        Err(_) => Err(Error::timeout(what, path, deadline)),
        Ok(Err(join)) => Err(Error::panicked(what, path, &join)),
        Ok(Ok(done)) => done.map_err(|e| remote(what, path, &e)),
    }
}

fn remote(what: &'static str, path: &str, error: &io::Error) -> Error {
    use io::ErrorKind as K;
    let trouble = match error.kind() {
        K::NotFound => Trouble::Missing,
        K::AlreadyExists | K::DirectoryNotEmpty => Trouble::Exists,
        K::PermissionDenied | K::ReadOnlyFilesystem => Trouble::Denied,
        K::StorageFull | K::QuotaExceeded | K::FileTooLarge => Trouble::Full,
        K::InvalidInput | K::NotADirectory | K::IsADirectory | K::InvalidFilename => Trouble::Invalid,
        _ => Trouble::Failed,
    };
    Error::Remote { what, path: path.into(), trouble, why: error.to_string() }
}

pub(super) struct Reader {
    /// Absent only while a read is under way or after one failed.
    file: Option<fs::File>,
    path: String,
    deadline: Duration,
}

impl Reader {
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let Some(mut file) = self.file.take() else {
            return Err(lost("read", &self.path));
        };
        let read = move || {
            let mut buffer = vec![0; CHUNK_BYTES];
            let n = file.read(&mut buffer)?;
            buffer.truncate(n);
            Ok((file, buffer))
        };
        let (file, buffer) = blocking("read", &self.path, self.deadline, read).await?;
        self.file = Some(file);
        Ok((!buffer.is_empty()).then(|| buffer.into()))
    }
}

pub(super) struct Writer {
    /// Absent only while a write is under way or after one failed.
    file: Option<fs::File>,
    unsynced: usize,
    path: String,
    deadlines: Deadlines,
}

impl Writer {
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        let Some(mut file) = self.file.take() else {
            return Err(lost("write", &self.path));
        };
        self.unsynced += bytes.len();
        let sync = self.unsynced >= SYNC_BYTES;
        let write = move || {
            file.write_all(&bytes)?;
            if sync { file.sync_data().map(|()| file) } else { Ok(file) }
        };
        if sync {
            self.unsynced = 0;
        }
        self.file = Some(blocking("write", &self.path, self.deadlines.write, write).await?);
        Ok(())
    }

    pub async fn close(mut self) -> Result<(), Error> {
        let Some(file) = self.file.take() else {
            return Err(lost("close", &self.path));
        };
        blocking("close", &self.path, self.deadlines.write, move || file.sync_all()).await
    }
}

fn lost(what: &'static str, path: &str) -> Error {
    let why = "an earlier call on this open file failed".into();
    Error::Remote { what, path: path.into(), trouble: Trouble::Failed, why }
}
