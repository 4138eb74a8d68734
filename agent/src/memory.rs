//! What an agent must not forget when its process ends: what it has obeyed, and which server it ran.
//!
//! One small file in the sandbox ([`crate::slots`], JSON in it), written before anything that depends on it is done. A restarted agent
//! finds there the server of its predecessor, proves it gone and reports it as evidence.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use crate::api::{Death, Epoch};
use crate::slots::{Found, Slots};

/// Most deaths remembered.
const MAX_DEATHS: usize = 8;

/// The content of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Memory {
    /// The task that wrote it: another task's servers are not ours to testify about.
    pub task_id: String,
    /// The cluster served so far.
    pub cluster_id: Option<String>,
    /// Generation of the record last read.
    pub generation: Option<String>,
    /// Highest epoch seen.
    pub epoch: Epoch,
    /// Highest record version seen within `generation`.
    pub record_version: i32,
    /// Length of the lease that the record said last, milliseconds.
    pub lease_ms: Option<u64>,
    /// Epoch of the last assignment (`promote`, `follow`) of the last server.
    pub assigned_epoch: Epoch,
    /// The last server started; absent once its death is noted.
    pub server: Option<ServerNote>,
    /// Servers proven dead, newest last.
    pub deaths: Vec<Death>,
    /// Which dump lies in the server's directory and whose data it is.
    pub dump: Option<DumpNote>,
}

/// Identity of a server process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServerNote {
    /// Process id.
    pub pid: u32,
    /// Start time, clock ticks since boot.
    pub start_ticks: u64,
    /// Boot it ran under.
    pub boot_id: String,
    /// Pid namespace it ran in.
    pub pid_ns: String,
    /// Redis' run id; empty until it answered once.
    #[serde(default)]
    pub run_id: String,
}

/// A dump file seen in the server's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DumpNote {
    /// Its inode: a new dump is a new file.
    pub inode: u64,
    /// Assigned epoch of the server that wrote it.
    pub epoch: Epoch,
}

impl Memory {
    /// Adds a death, keeping the newest few. A run without id was never known to anybody: not kept.
    pub fn note_death(&mut self, death: Death) {
        if death.run_id.is_empty() || self.deaths.iter().any(|d| d.run_id == death.run_id) {
            return;
        }
        self.deaths.push(death);
        let extra = self.deaths.len().saturating_sub(MAX_DEATHS);
        self.deaths.drain(..extra);
    }
}

/// The file and its present content.
#[derive(Debug)]
pub(crate) struct Notebook {
    path: PathBuf,
    memory: Mutex<Memory>,
    /// What the file holds. Locked while it is written: who only looks does not wait.
    written: Mutex<Written>,
    /// Whether an earlier agent of this task was here.
    was_here: bool,
}

#[derive(Debug)]
struct Written {
    slots: Slots,
    memory: Memory,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It cannot be read.
    #[error("cannot read the agent's memory {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// It cannot be written: nothing that depends on it may be done.
    #[error("cannot write the agent's memory {path}; is the disk full?")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl Notebook {
    /// Opens the memory of `task_id` at `path`. A damaged file is set aside and named in the second value: the record will tell the
    /// epoch again before anything is obeyed.
    pub fn open(path: &Path, task_id: &str) -> Result<(Notebook, Option<String>), Error> {
        let (slots, found) = Slots::open(path).map_err(|source| Error::Read { path: path.into(), source })?;
        let nothing = found == Found::Nothing;
        let (memory, problem) = match found {
            Found::Nothing => (Memory::default(), None),
            Found::Damaged => (Memory::default(), Some(set_aside(path, "it holds nothing whole")?)),
            Found::Content(json) => match serde_json::from_str::<Memory>(&json) {
                Ok(memory) => (memory, None),
                Err(e) => (Memory::default(), Some(set_aside(path, &e.to_string())?)),
            },
        };
        let was_here = !nothing && (problem.is_some() || memory.task_id == task_id);
        let written = Mutex::new(Written { slots, memory: memory.clone() });
        let notebook = Notebook { path: path.into(), memory: Mutex::new(memory), written, was_here };
        notebook.change(|m| {
            if m.task_id != task_id {
                m.deaths.clear();
                m.task_id = task_id.to_owned();
            }
        })?;
        Ok((notebook, problem))
    }

    /// Whether an earlier agent of this task was here.
    pub fn was_here(&self) -> bool {
        self.was_here
    }

    /// A copy of the content.
    pub fn get(&self) -> Memory {
        self.memory.lock().expect("no panic while locked").clone()
    }

    /// Changes the content and writes it to the file; on an error the content has not changed.
    pub fn change(&self, change: impl FnOnce(&mut Memory)) -> Result<(), Error> {
        let mut written = self.written.lock().expect("no panic while locked");
        let mut next = self.get();
        change(&mut next);
        if next != written.memory || !self.path.exists() {
            let json = serde_json::to_string_pretty(&next).expect("the memory is plain data");
            written.slots.write(&json).map_err(|source| Error::Write { path: self.path.clone(), source })?;
            written.memory = next.clone();
            let mut memory = self.memory.lock().expect("no panic while locked");
            // One that was noted meanwhile counts.
            let newer = if memory.generation == next.generation { memory.record_version } else { 0 };
            *memory = Memory { record_version: next.record_version.max(newer), ..next };
        }
        Ok(())
    }

    /// Notes a version of the record in the generation and epoch that are known already. The file gets it with the next change: a server
    /// that a command could be meant for does not outlive the agent, so nothing depends on it there.
    pub fn note_version(&self, version: i32) {
        let mut memory = self.memory.lock().expect("no panic while locked");
        memory.record_version = memory.record_version.max(version);
    }
}

fn set_aside(path: &Path, why: &str) -> Result<String, Error> {
    let aside = path.with_extension("damaged");
    std::fs::rename(path, &aside).map_err(|source| Error::Read { path: path.into(), source })?;
    Ok(format!("the agent's memory {} was damaged ({why}); kept as {}", path.display(), aside.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> PathBuf {
        let dir = std::env::temp_dir().join(format!("memory-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&dir).unwrap();
        dir
    }

    fn death(run_id: &str) -> Death {
        Death { run_id: run_id.into(), proof: "signal 9".into(), at_ms: 1 }
    }

    #[test]
    fn what_was_changed_is_there_after_a_restart_of_the_same_task() {
        let dir = directory();
        let path = dir.join("agent.memory");
        let (book, problem) = Notebook::open(&path, "t1").unwrap();
        assert_eq!((problem, book.was_here()), (None, false));
        book.change(|m| (m.epoch, m.cluster_id) = (7, Some("c".into()))).unwrap();
        book.change(|m| m.note_death(death("r1"))).unwrap();
        let (again, _) = Notebook::open(&path, "t1").unwrap();
        assert_eq!((again.get(), again.was_here()), (book.get(), true));
        let (other, _) = Notebook::open(&path, "t2").unwrap();
        assert_eq!((other.get().epoch, other.get().deaths.len()), (7, 0));
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_damaged_file_is_kept_aside_and_reported() {
        let dir = directory();
        let path = dir.join("agent.memory");
        std::fs::write(&path, "{\"epoch\": ").unwrap();
        let (book, problem) = Notebook::open(&path, "t1").unwrap();
        assert_eq!(book.get().epoch, 0);
        assert!(problem.unwrap().contains("damaged"));
        assert!(dir.join("agent.damaged").exists());
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn only_the_newest_deaths_with_a_run_id_are_kept_once_each() {
        let mut memory = Memory::default();
        memory.note_death(death(""));
        for n in 0..10 {
            memory.note_death(death(&format!("r{n}")));
            memory.note_death(death(&format!("r{n}")));
        }
        assert_eq!(memory.deaths.len(), MAX_DEATHS);
        assert_eq!(memory.deaths.last().unwrap().run_id, "r9");
    }

    #[test]
    fn a_change_that_cannot_be_written_has_not_happened() {
        let dir = directory();
        let (book, _) = Notebook::open(&dir.join("agent.memory"), "t1").unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
        assert!(book.change(|m| m.epoch = 9).is_err());
        assert_eq!(book.get().epoch, 0);
    }
}
