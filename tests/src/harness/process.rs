//! A child process that cannot outlive us.
//!
//! Every child is started by one thread that lives as long as the program: the kernel sends the parent-death signal when the *thread* that forked
//! ends. Each has its own process group, writes to a log file, carries the mark of its [`crate::harness::Bench`] in its environment, and is killed on
//! drop. Signals go to the pid we started, never to a name.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::netns;

type Order = (Command, mpsc::Sender<std::io::Result<Child>>);

/// Hands a command to the thread that forks all children. It stays in the program's own network namespace; what runs elsewhere has a wrapper.
fn spawn(command: Command) -> std::io::Result<Child> {
    static SPAWNER: OnceLock<Mutex<mpsc::Sender<Order>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, orders) = mpsc::channel::<Order>();
        std::thread::Builder::new()
            .name("spawner".into())
            .spawn(move || {
                netns::leave();
                for (mut command, reply) in orders {
                    let _ = reply.send(command.spawn());
                }
            })
            .expect("a thread can be started");
        Mutex::new(sender)
    });
    let (reply, answer) = mpsc::channel();
    spawner.lock().expect("nobody panics while sending").send((command, reply)).expect("the spawner lives for ever");
    answer.recv().expect("the spawner answers every order")
}

/// A running (or ended) child.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    child: Mutex<Child>,
    pid: u32,
    command: Vec<OsString>,
}

impl Process {
    /// Starts `command` as `name`, its output appended to `<dir>/<name>.log`, its pid in `<dir>/<name>.pid` for people and scripts.
    pub fn start(name: &str, dir: &Path, mut command: Command) -> Result<Process> {
        let log = dir.join(format!("{name}.log"));
        let output =
            File::options().create(true).append(true).open(&log).with_context(|| format!("log file {}", log.display()))?;
        let words: Vec<OsString> = std::iter::once(command.get_program()).chain(command.get_args()).map(OsString::from).collect();
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).process_group(0);
        // SAFETY: between fork and exec only one async-signal-safe system call is made.
        unsafe {
            command.pre_exec(|| Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?));
        }
        let child = spawn(command).with_context(|| format!("starting {name}: {}", show(&words)))?;
        let pid = child.id();
        std::fs::write(dir.join(format!("{name}.pid")), pid.to_string())?;
        Ok(Process { name: name.into(), log, child: Mutex::new(child), pid, command: words })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The name it was started under.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its output goes.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Its exit status, absent while it runs.
    pub fn exited(&self) -> Option<ExitStatus> {
        self.child.lock().expect("nobody panics while waiting").try_wait().ok().flatten()
    }

    /// Fails when it has ended, with its last words.
    pub fn check_alive(&self) -> Result<()> {
        match self.exited() {
            None => Ok(()),
            Some(status) => bail!(
                "{} ended ({status}): {}\nlog {}:\n{}",
                self.name,
                show(&self.command),
                self.log.display(),
                self.last_words()
            ),
        }
    }

    /// The end of its log.
    pub fn last_words(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(3000)..]).into_owned()
    }

    /// Sends `signal` to the process; nothing when it has been waited for.
    pub fn signal(&self, signal: Signal) {
        if self.exited().is_none() {
            send(self.pid, signal);
        }
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&self) {
        let mut child = self.child.lock().expect("nobody panics while waiting");
        if matches!(child.try_wait(), Ok(None)) {
            send(self.pid, Signal::KILL);
            let _ = child.wait();
        }
    }

    /// Asks it to end (SIGTERM), and after `grace` kills it. Whether it ended by itself with status 0 or by that signal.
    pub fn stop(&self, grace: Duration) -> bool {
        self.signal(Signal::CONT);
        self.signal(Signal::TERM);
        let start = Instant::now();
        while start.elapsed() < grace {
            if let Some(status) = self.exited() {
                return status.success() || status.signal() == Some(Signal::TERM.as_raw());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.kill();
        false
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        // What it left in its own group is ours too.
        if let Some(group) = Pid::from_raw(self.pid as i32) {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

fn show(words: &[OsString]) -> String {
    words.iter().map(|w| w.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Sends `signal` to the process `pid`, which need not be our child; nothing when it is gone.
pub fn send(pid: u32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid as i32) {
        let _ = kill_process(pid, signal);
    }
}

/// Whether a process of that id runs (a zombie does not).
pub fn runs(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    !matches!(stat.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next()), Some('Z' | 'X') | None)
}

/// Start time of a process in clock ticks since boot; absent when it is gone.
pub fn start_ticks(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.split_whitespace().nth(19)?.parse().ok()
}

/// Processes that carry `mark` (`NAME=value`) in their environment or work below `dir`: what descends from a bench, for nobody else has either.
pub fn belonging(mark: &str, dir: &Path) -> Vec<u32> {
    let pids =
        std::fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid != std::process::id() && runs(*pid) && belongs(*pid, mark, dir)).collect()
}

fn belongs(pid: u32, mark: &str, dir: &Path) -> bool {
    let proc = Path::new("/proc").join(pid.to_string());
    let marked =
        || std::fs::read(proc.join("environ")).is_ok_and(|e| e.split(|b| *b == 0).any(|variable| variable == mark.as_bytes()));
    std::fs::read_link(proc.join("cwd")).is_ok_and(|cwd| cwd.starts_with(dir)) || marked()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(dir: &Path, script: &str) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::start("sleeper", dir, command).unwrap()
    }

    #[test]
    fn a_dropped_process_is_gone_with_its_group() {
        let dir = std::env::temp_dir().join(format!("aurora-redis-process-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let process = sleeper(&dir, "sleep 60 & echo $!; wait");
        let start = Instant::now();
        let child: u32 = loop {
            if let Ok(pid) = process.last_words().trim().parse() {
                break pid;
            }
            assert!(start.elapsed() < Duration::from_secs(10), "the shell said nothing");
            std::thread::sleep(Duration::from_millis(10));
        };
        let pid = process.pid();
        assert!(runs(pid) && runs(child));
        drop(process);
        assert!(!runs(pid), "the shell is still there");
        while runs(child) {
            assert!(start.elapsed() < Duration::from_secs(20), "its child is still there");
            std::thread::sleep(Duration::from_millis(10));
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
