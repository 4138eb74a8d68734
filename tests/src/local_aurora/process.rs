//! Processes of tasks: started in a session of their own, found again and killed with everything they started.
//!
//! Used by [`super::runner`] for task processes and by [`super::on_host`] for helpers inside a host's wrapper.
//! Invariant: whatever is started here dies with this process, even when this process is killed with SIGKILL. Each
//! child asks the kernel for SIGKILL at its parent's death; the kernel means the *thread* that forked, so all are
//! forked by one thread that lives as long as this process ([`Spawner`]).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;

struct Request {
    command: Command,
    reply: oneshot::Sender<io::Result<Child>>,
}

/// Starts children from one long-lived thread.
#[derive(Clone)]
pub struct Spawner {
    requests: mpsc::Sender<Request>,
}

impl Spawner {
    /// Starts the thread. Has to be called inside a tokio runtime, which then waits for the children.
    pub fn new() -> io::Result<Self> {
        let (requests, receiver) = mpsc::channel::<Request>();
        let runtime = tokio::runtime::Handle::current();
        std::thread::Builder::new().name("spawner".to_owned()).spawn(move || {
            let _entered = runtime.enter();
            while let Ok(mut request) = receiver.recv() {
                // The receiver is gone only if the caller was dropped; the child then dies with it.
                let _ = request.reply.send(request.command.spawn());
            }
        })?;
        Ok(Self { requests })
    }

    /// Starts `command` as leader of a new session. The child gets SIGKILL when this process ends, however it ends.
    pub async fn spawn(&self, mut command: Command) -> io::Result<Child> {
        let parent = rustix::process::getpid();
        // SAFETY: between fork and exec only async-signal-safe system calls are made, and nothing is allocated.
        unsafe {
            command.pre_exec(move || lead_a_session(parent));
        }
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request { command, reply }).map_err(|_| io::Error::other("the spawner thread has ended"))?;
        answer.await.map_err(|_| io::Error::other("the spawner thread has ended"))?
    }
}

fn lead_a_session(parent: Pid) -> io::Result<()> {
    rustix::process::setsid()?;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // The parent may have died between the fork and the request above: then nobody would send the signal.
    if rustix::process::getppid() == Some(parent) { Ok(()) } else { Err(io::Error::from_raw_os_error(3)) }
}

/// Sends a signal to one process; one that is gone already is no error.
pub fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// What identifies the processes of one task: the sessions it started, and its sandbox as `HOME`, which everything it
/// starts inherits, also what has left the session.
#[derive(Clone, Debug)]
pub struct Family {
    /// Session leaders started for the task; also one that has ended, as long as its session has members.
    pub leaders: BTreeSet<u32>,
    /// Value of `HOME` in the task's environment.
    pub home: std::path::PathBuf,
}

impl Family {
    /// Kills every process of the family with SIGKILL and waits until none is left, at most 10 s (a process with much
    /// memory takes its time). Again and again: one can fork between being listed and being killed. Returns how many
    /// processes got the signal. Blocks.
    pub fn kill(&self) -> usize {
        let mut killed = BTreeSet::new();
        for _ in 0..500 {
            let found = self.find();
            if found.is_empty() {
                break;
            }
            for pid in found {
                signal(pid, Signal::KILL);
                killed.insert(pid);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        killed.len()
    }

    /// Pids of the processes alive (zombies are not).
    pub fn find(&self) -> BTreeSet<u32> {
        let processes = list_processes();
        let own = std::process::id();
        let home = [b"HOME=", self.home.as_os_str().as_encoded_bytes()].concat();
        let mut family: BTreeSet<u32> = processes
            .iter()
            .filter(|(pid, stat)| {
                **pid != own
                    && (self.leaders.contains(&stat.session) || self.leaders.contains(*pid) || environment_has(**pid, &home))
            })
            .map(|(pid, _)| *pid)
            .collect();
        loop {
            let children: Vec<u32> = processes
                .iter()
                .filter(|(pid, stat)| !family.contains(*pid) && family.contains(&stat.parent))
                .map(|(pid, _)| *pid)
                .collect();
            if children.is_empty() {
                return family;
            }
            family.extend(children);
        }
    }
}

/// Whether no process is left in the session that `leader` led. Then the number may be given to another process any
/// time, and must not stand for the task any more. (While a session has members, the kernel does not reuse its number.)
pub fn session_is_empty(leader: u32) -> bool {
    !list_processes().values().any(|stat| stat.session == leader)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    session: u32,
}

/// Every process that is not a zombie.
fn list_processes() -> BTreeMap<u32, Stat> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return BTreeMap::new();
    };
    entries
        .filter_map(|entry| {
            let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            Some((pid, parse_stat(&text)?))
        })
        .collect()
}

/// `None` for zombies and dead processes. The command name may hold spaces and parentheses: fields count from the last
/// closing one.
fn parse_stat(text: &str) -> Option<Stat> {
    let mut fields = text[text.rfind(')')? + 1..].split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    (!matches!(state, "Z" | "X" | "x")).then_some(Stat { parent, session })
}

fn environment_has(pid: u32, entry: &[u8]) -> bool {
    let path = format!("/proc/{pid}/environ");
    std::fs::read(Path::new(&path)).is_ok_and(|bytes| bytes.split(|byte| *byte == 0).any(|found| found == entry))
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use tokio::io::{AsyncBufReadExt, BufReader};

    use super::*;

    #[test]
    fn stat_lines_with_odd_names_are_read() {
        let stat = parse_stat("12 (a) b) (c) S 7 12 11 0 -1").unwrap();
        assert_eq!(stat, Stat { parent: 7, session: 11 });
        assert_eq!(parse_stat("12 (sh) Z 7 12 11 0"), None);
        assert_eq!(parse_stat("nonsense"), None);
    }

    #[tokio::test]
    async fn the_whole_family_is_found_and_killed() {
        let home = std::env::temp_dir().join(format!("local-aurora-family-{}", std::process::id()));
        let spawner = Spawner::new().unwrap();
        let mut command = Command::new("/bin/bash");
        // One child in the session, one that left it and whose parent is gone.
        command
            .args(["-c", "sleep 600 & (setsid bash -c 'echo out; exec sleep 600' &) ; sleep 600; true"])
            .env_clear()
            .env("HOME", &home)
            .env("PATH", "/usr/bin:/bin")
            .stdout(Stdio::piped());
        let mut child = spawner.spawn(command).await.unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let started = tokio::time::timeout(Duration::from_secs(20), lines.next_line());
        assert_eq!(started.await.unwrap().unwrap().as_deref(), Some("out"));
        let family = Family { leaders: BTreeSet::from([child.id().unwrap()]), home };
        assert!(family.find().len() >= 3, "{:?}", family.find());
        assert!(family.kill() >= 3);
        child.wait().await.unwrap();
        assert_eq!(family.find(), BTreeSet::new());
    }
}
