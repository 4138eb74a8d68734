//! The agent's places in the sandbox, and what happens to old data there: it is set aside, never deleted, as far as it may be the newest.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::api::Epoch;
use crate::redis::conf::{DUMP, SOCKET};
use crate::snapshot;

/// Copies set aside that are kept, the newest ones.
const MAX_ASIDE: usize = 4;
/// The server's output is cut when it is longer; the part before is kept once.
const MAX_LOG_BYTES: u64 = 8 << 20;

/// Places below the sandbox.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    sandbox: PathBuf,
}

impl Places {
    /// Makes the directories, for the owner only.
    pub fn prepare(sandbox: &Path) -> io::Result<Places> {
        let places = Places { sandbox: sandbox.to_owned() };
        for dir in [places.data(), places.spool()] {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        // Whoever followed an origin here ended with the agent before.
        places.remove_origin()?;
        Ok(places)
    }

    /// The agent's memory.
    pub fn memory(&self) -> PathBuf {
        self.sandbox.join("agent.memory")
    }
    /// The server's directory.
    pub fn data(&self) -> PathBuf {
        self.sandbox.join("redis")
    }
    /// The dump in the server's directory.
    pub fn dump(&self) -> PathBuf {
        self.data().join(DUMP)
    }
    /// Dumps waiting for their upload.
    pub fn spool(&self) -> PathBuf {
        self.sandbox.join("spool")
    }
    /// Where a fetched program goes.
    pub fn programs(&self) -> PathBuf {
        self.sandbox.join("bin")
    }
    /// Where a snapshot is fetched to, before it becomes the dump.
    pub fn incoming(&self) -> PathBuf {
        self.sandbox.join("incoming")
    }
    /// What the server's directory held, while a server that is given a snapshot uses it.
    fn held(&self) -> PathBuf {
        self.sandbox.join("held")
    }
    /// The server's output.
    pub fn log(&self) -> PathBuf {
        self.sandbox.join("redis.log")
    }
    /// The directory of a server that follows an origin, beside the data of the instance itself.
    pub fn origin(&self) -> PathBuf {
        self.sandbox.join("origin")
    }
    fn asides(&self) -> PathBuf {
        self.sandbox.join("aside")
    }

    /// Makes sure that no other agent works in this sandbox, for as long as the file is kept.
    pub fn lock(&self) -> io::Result<File> {
        let file = File::create(self.sandbox.join("agent.lock"))?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
        Ok(file)
    }

    /// A new place for data of `epoch` that is set aside at `now_ms`.
    pub fn make_aside(&self, epoch: Epoch, now_ms: u64) -> io::Result<PathBuf> {
        let name = format!("{epoch:010}-{}", snapshot::utc(now_ms));
        let free = |n: usize| self.asides().join(if n == 0 { name.clone() } else { format!("{name}.{n}") });
        let place = (0..).map(free).find(|place| !place.exists()).expect("some number is free");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&place)?;
        Ok(place)
    }

    /// Moves everything the server's directory holds into a new place aside; `None` when it holds nothing.
    pub fn set_data_aside(&self, epoch: Epoch, now_ms: u64) -> io::Result<Option<PathBuf>> {
        self.remove_leftovers()?;
        if fs::read_dir(self.data())?.next().is_none() {
            return Ok(None);
        }
        let place = self.make_aside(epoch, now_ms)?;
        move_all(&self.data(), &place)?;
        self.prune_asides()?;
        Ok(Some(place))
    }

    /// Moves everything the server's directory holds out of the way, until [`Places::put_back`] or [`Places::set_held_aside`].
    pub fn hold_data(&self) -> io::Result<()> {
        self.put_back()?;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(self.held())?;
        move_all(&self.data(), &self.held())
    }

    /// Brings back what was held, and says whether there was anything. What stands in its place goes aside.
    pub fn put_back(&self) -> io::Result<bool> {
        if !self.held().exists() {
            return Ok(false);
        }
        let held = fs::read_dir(self.held())?.next().is_some();
        if held {
            self.set_data_aside(0, crate::clock::unix_ms())?;
            move_all(&self.held(), &self.data())?;
        }
        fs::remove_dir(self.held())?;
        Ok(held)
    }

    /// What was held is not wanted back: it goes where copies are set aside.
    pub fn set_held_aside(&self, epoch: Epoch, now_ms: u64) -> io::Result<()> {
        if self.held().exists() && fs::read_dir(self.held())?.next().is_some() {
            let place = self.make_aside(epoch, now_ms)?;
            move_all(&self.held(), &place)?;
            self.prune_asides()?;
        }
        if self.held().exists() { fs::remove_dir(self.held()) } else { Ok(()) }
    }

    /// Removes what a server copied from an origin: that still has it.
    pub fn remove_origin(&self) -> io::Result<()> {
        match fs::remove_dir_all(self.origin()) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// An empty directory for a server that is to follow an origin.
    pub fn prepare_origin(&self) -> io::Result<()> {
        self.remove_origin()?;
        fs::DirBuilder::new().mode(0o700).create(self.origin())
    }

    /// Makes the directory of the running server that followed an origin the server's directory; what was there is set aside. Whether there was
    /// one. The server goes on in it, wherever it lies; the file that its first copy left is older than what it holds, and goes.
    pub fn adopt_origin(&self, epoch: Epoch, now_ms: u64) -> io::Result<bool> {
        if !self.origin().exists() {
            return Ok(false);
        }
        match fs::remove_file(self.origin().join(DUMP)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => self.set_data_aside(epoch, now_ms)?,
        };
        fs::rename(self.origin(), self.data())?;
        sync_dir(&self.sandbox)?;
        Ok(true)
    }

    /// Removes what a killed server leaves: unfinished dumps and its socket.
    pub fn remove_leftovers(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.data())? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name == SOCKET || (name.starts_with("temp-") && name.ends_with(".rdb")) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Deletes copies set aside beyond the newest few.
    pub fn prune_asides(&self) -> io::Result<()> {
        let mut asides: Vec<(std::time::SystemTime, PathBuf)> = Vec::new();
        for entry in fs::read_dir(self.asides())? {
            let entry = entry?;
            asides.push((entry.metadata()?.modified()?, entry.path()));
        }
        asides.sort();
        for (_, old) in asides.iter().rev().skip(MAX_ASIDE) {
            tracing::info!(path = %old.display(), "deleting a copy set aside long ago");
            fs::remove_dir_all(old)?;
        }
        Ok(())
    }

    /// Opens the server's output for appending.
    pub fn open_log(&self) -> io::Result<File> {
        OpenOptions::new().create(true).append(true).read(true).mode(0o600).open(self.log())
    }

    /// Keeps the server's output bounded. The server holds the file open, so it is copied and cut, not renamed.
    pub fn bound_log(&self) -> io::Result<()> {
        if fs::metadata(self.log())?.len() > MAX_LOG_BYTES {
            fs::copy(self.log(), self.sandbox.join("redis.log.1"))?;
            OpenOptions::new().write(true).open(self.log())?.set_len(0)?;
        }
        Ok(())
    }

    /// The server's last words, for an error message.
    pub fn log_tail(&self) -> String {
        let text = read_tail(&self.log(), 4096).unwrap_or_default();
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(4)..].join(" | ")
    }
}

/// Moves what lies in one directory into an empty one of the same file system.
fn move_all(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)?.collect::<Result<Vec<_>, _>>()? {
        fs::rename(entry.path(), to.join(entry.file_name()))?;
    }
    sync_dir(to)?;
    sync_dir(from)
}

fn read_tail(path: &Path, bytes: u64) -> io::Result<String> {
    use std::io::{Read, Seek};
    let mut file = File::open(path)?;
    let from = file.metadata()?.len().saturating_sub(bytes);
    file.seek(io::SeekFrom::Start(from))?;
    let mut tail = Vec::new();
    file.take(bytes).read_to_end(&mut tail)?;
    Ok(String::from_utf8_lossy(&tail).into_owned())
}

/// Makes renames and links in a directory survive a crash.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Identity of a file's content as far as the file system tells: a new dump is a new inode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    pub inode: u64,
    pub bytes: u64,
    pub modified_ns: i128,
}

/// The mark of a file; `None` when it is absent.
pub(crate) fn mark(path: &Path) -> io::Result<Option<Mark>> {
    match fs::metadata(path) {
        Ok(m) => Ok(Some(Mark {
            inode: m.ino(),
            bytes: m.len(),
            modified_ns: i128::from(m.mtime()) * 1_000_000_000 + i128::from(m.mtime_nsec()),
        })),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> (PathBuf, Places) {
        let dir = std::env::temp_dir().join(format!("files-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&dir).unwrap();
        (dir.clone(), Places::prepare(&dir).unwrap())
    }

    #[test]
    fn old_data_is_moved_aside_and_leftovers_are_not_kept() {
        let (dir, places) = places();
        assert_eq!(places.set_data_aside(3, 0).unwrap(), None);
        fs::write(places.dump(), "old").unwrap();
        fs::write(places.data().join("temp-12.rdb"), "half").unwrap();
        let aside = places.set_data_aside(3, 0).unwrap().unwrap();
        assert_eq!(aside, dir.join("aside/0000000003-19700101T000000Z"));
        assert_eq!(fs::read_to_string(aside.join(DUMP)).unwrap(), "old");
        assert_eq!(fs::read_dir(places.data()).unwrap().count(), 0);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn what_is_held_comes_back_or_goes_aside() {
        let (dir, places) = places();
        places.put_back().unwrap();
        places.set_held_aside(3, 0).unwrap();
        fs::write(places.dump(), "old").unwrap();
        places.hold_data().unwrap();
        assert_eq!(fs::read_dir(places.data()).unwrap().count(), 0);
        // A crash here: the next agent brings it back.
        fs::write(places.data().join("temp-12.rdb"), "half").unwrap();
        places.put_back().unwrap();
        assert_eq!(fs::read_to_string(places.dump()).unwrap(), "old");
        assert_eq!(fs::read_dir(places.data()).unwrap().count(), 1);
        places.hold_data().unwrap();
        places.set_held_aside(3, 0).unwrap();
        assert_eq!(fs::read_to_string(dir.join("aside/0000000003-19700101T000000Z/dump.rdb")).unwrap(), "old");
        places.put_back().unwrap();
        assert!(!places.dump().exists() && !dir.join("held").exists());
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn what_followed_an_origin_takes_the_place_of_the_data_which_goes_aside() {
        let (dir, places) = places();
        fs::write(places.dump(), "own").unwrap();
        assert!(!places.adopt_origin(3, 0).unwrap(), "nothing followed one");
        places.prepare_origin().unwrap();
        fs::write(places.origin().join(DUMP), "first copy").unwrap();
        fs::write(places.origin().join(SOCKET), "").unwrap();
        assert!(places.adopt_origin(3, 0).unwrap());
        assert_eq!(fs::read_to_string(dir.join("aside/0000000003-19700101T000000Z").join(DUMP)).unwrap(), "own");
        assert!(places.data().join(SOCKET).exists() && !places.dump().exists() && !places.origin().exists());
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn only_the_newest_copies_aside_are_kept() {
        let (dir, places) = places();
        for n in 0..7 {
            fs::write(places.dump(), n.to_string()).unwrap();
            places.set_data_aside(1, n * 1000).unwrap().unwrap();
        }
        let mut kept: Vec<String> =
            fs::read_dir(places.asides()).unwrap().map(|e| fs::read_to_string(e.unwrap().path().join(DUMP)).unwrap()).collect();
        kept.sort();
        assert_eq!(kept, ["3", "4", "5", "6"]);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_sandbox_has_one_agent() {
        let (dir, places) = places();
        let lock = places.lock().unwrap();
        assert!(places.lock().is_err());
        drop(lock);
        places.lock().unwrap();
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn the_log_is_bounded_and_its_end_readable() {
        let (dir, places) = places();
        drop(places.open_log().unwrap());
        assert_eq!(places.log_tail(), "");
        fs::write(places.log(), "x\n".repeat(5 << 20)).unwrap();
        places.bound_log().unwrap();
        assert_eq!(fs::metadata(places.log()).unwrap().len(), 0);
        fs::write(places.log(), "a\nb\n\nc\nd\ne\n").unwrap();
        assert_eq!(places.log_tail(), "b | c | d | e");
        fs::remove_dir_all(&dir).unwrap();
    }
}
