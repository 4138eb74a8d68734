//! Kills what tasks leave when this program is killed with SIGKILL and cannot do it itself.
//!
//! The kernel then kills the task processes that were started here ([`super::process`]), but not what those started. So
//! a second process, a guard in a session of its own, is told of every process started, by a pipe; when the pipe ends
//! without the task having been forgotten, it kills the task's whole family.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::process::Family;

#[derive(Debug, Serialize, Deserialize)]
enum Message {
    /// A process leads a session of the task with this sandbox.
    Watch { leader: u32, home: PathBuf },
    /// Nothing is left of the session.
    Ended { leader: u32, home: PathBuf },
    /// Nothing is left of the task.
    Forget { home: PathBuf },
}

/// The guard, seen from the program it guards. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Guard {
    process: Arc<Mutex<Process>>,
}

#[derive(Debug)]
struct Process {
    child: Child,
    /// Absent once it was dismissed.
    pipe: Option<ChildStdin>,
}

impl Guard {
    /// Starts it: `program` with the subcommand `guard`.
    pub fn start(program: &Path) -> io::Result<Guard> {
        let mut command = Command::new(program);
        // Without an environment, so that who kills processes by a mark there spares the guard until it has done its work.
        command.arg("guard").env_clear().stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // SAFETY: between fork and exec only one async-signal-safe system call is made.
        unsafe {
            command.pre_exec(|| Ok(rustix::process::setsid().map(drop)?));
        }
        let mut child = command.spawn()?;
        let pipe = child.stdin.take();
        Ok(Guard { process: Arc::new(Mutex::new(Process { child, pipe })) })
    }

    /// Ends it, which kills what was not forgotten, and waits for that. Blocks.
    pub fn dismiss(&self) {
        let mut process = self.process();
        process.pipe = None;
        let _ = process.child.wait();
    }

    /// Has to be told right after a process was started.
    pub fn watch(&self, leader: u32, home: &Path) {
        self.tell(&Message::Watch { leader, home: home.to_owned() });
    }

    /// Nothing is left of the session; the number may soon be another process'.
    pub fn ended(&self, leader: u32, home: &Path) {
        self.tell(&Message::Ended { leader, home: home.to_owned() });
    }

    /// Nothing is left of the task with this sandbox.
    pub fn forget(&self, home: &Path) {
        self.tell(&Message::Forget { home: home.to_owned() });
    }

    fn process(&self) -> MutexGuard<'_, Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, message: &Message) {
        let mut process = self.process();
        let Some(pipe) = &mut process.pipe else {
            return;
        };
        let sent = serde_json::to_vec(message).map_err(io::Error::from).and_then(|mut line| {
            line.push(b'\n');
            pipe.write_all(&line)
        });
        if let Err(error) = sent {
            tracing::warn!(%error, "the guard is gone: if this program is killed now, processes may stay");
        }
    }
}

/// What the guard does: listens until the other end is gone, then kills what was not forgotten.
pub fn stand(input: impl BufRead) {
    let mut families: BTreeMap<PathBuf, BTreeSet<u32>> = BTreeMap::new();
    for line in input.lines().map_while(Result::ok) {
        match serde_json::from_str(&line) {
            Ok(Message::Watch { leader, home }) => {
                families.entry(home).or_default().insert(leader);
            }
            Ok(Message::Ended { leader, home }) => {
                families.entry(home).or_default().remove(&leader);
            }
            Ok(Message::Forget { home }) => {
                families.remove(&home);
            }
            // The last line of a program that died while writing it.
            Err(_) => {}
        }
    }
    for (home, leaders) in families {
        Family { leaders, home }.kill();
    }
}
