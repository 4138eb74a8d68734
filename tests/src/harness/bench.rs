//! What one test owns: a directory, a mark on its processes, and, where it asks for them, hosts of its own in network namespaces.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::Signal;

use super::netns::{Host, Network};
use super::ports::Port;
use super::process::{self, Process};

/// Stack of the thread that runs a test: unoptimised, its future alone takes a good part of the usual 2 MiB, and is moved several times.
const STACK: usize = 16 << 20;
/// Environment variable that marks every process of a bench.
const MARK: &str = "AURORA_REDIS_BENCH";

/// One test's belongings. All of it goes with it: processes first, then namespaces, then the directory (kept after a failure).
#[derive(Debug)]
pub struct Bench {
    name: String,
    dir: PathBuf,
    network: Option<Network>,
    /// Variables of every process started from now on.
    env: Mutex<Vec<(&'static str, PathBuf)>>,
}

impl Bench {
    /// Runs `test` on loopback, with a runtime of its own. Panics when it fails, after printing the end of every log.
    pub fn run<F, Fut>(name: &str, test: F)
    where
        F: FnOnce(Arc<Bench>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<()>>,
    {
        Bench::new(name, 0).expect("a directory can be made").drive(test);
    }

    /// As [`Bench::run`], in a network namespace of its own with `hosts` hosts in inner namespaces ([`Bench::hosts`]). Needs root.
    pub fn run_on_hosts<F, Fut>(name: &str, hosts: usize, test: F)
    where
        F: FnOnce(Arc<Bench>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<()>>,
    {
        Bench::new(name, hosts).expect("network namespaces can be made (are you root?)").drive(test);
    }

    /// A bench by hand, for programs that are not tests. `hosts` 0: loopback.
    pub fn new(name: &str, hosts: usize) -> Result<Bench> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        sweep_once();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("{PREFIX}{}-{number}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).with_context(|| format!("directory {}", dir.display()))?;
        let network = if hosts > 0 { Some(Network::new(number, hosts)?) } else { None };
        Ok(Bench { name: name.into(), dir, network, env: Mutex::default() })
    }

    fn drive<F, Fut>(self, test: F)
    where
        F: FnOnce(Arc<Bench>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<()>>,
    {
        let bench = Arc::new(self);
        let mine = bench.clone();
        let thread = std::thread::Builder::new()
            .name(bench.name.clone())
            .stack_size(STACK)
            .spawn(move || mine.clone().block_on(test(mine)));
        let failure = match thread.expect("a thread can be started").join() {
            Ok(Ok(())) => return,
            Ok(Err(e)) => format!("{e:#}"),
            Err(panic) => panic_text(&*panic),
        };
        bench.show_logs();
        let kept = bench.keep();
        drop(bench);
        panic!("{failure}\nlogs: {}", kept.display());
    }

    /// Runs `work` on this thread and a runtime whose threads live in the bench's network namespace.
    pub fn block_on<Fut: Future>(self: Arc<Self>, work: Fut) -> Fut::Output {
        let namespace = self.network.as_ref().map(Network::handle);
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2).enable_all();
        if let Some(namespace) = namespace {
            namespace.enter();
            builder.on_thread_start(move || namespace.enter());
        }
        let runtime = builder.build().expect("a runtime can be built");
        let result = std::panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(work)));
        runtime.shutdown_timeout(Duration::from_secs(5));
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its directory, for logs, data and sandboxes.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A fresh directory below it.
    pub fn subdir(&self, name: &str) -> Result<PathBuf> {
        let dir = self.dir.join(name);
        std::fs::create_dir_all(&dir).with_context(|| format!("directory {}", dir.display()))?;
        Ok(dir)
    }

    /// The place outside all hosts: loopback, or the outer namespace.
    pub fn here(&self) -> Host {
        self.network.as_ref().map_or_else(Host::loopback, Network::outside)
    }

    /// The hosts asked for; on loopback there are none.
    pub fn hosts(&self) -> &[Host] {
        self.network.as_ref().map_or(&[], Network::hosts)
    }

    /// The network between them, to be cut.
    pub fn network(&self) -> &Network {
        self.network.as_ref().expect("only benches made by run_on_hosts have a network")
    }

    /// A free port on `host`, reserved.
    pub fn port(&self, host: &Host) -> Result<Port> {
        host.inside(|| Port::reserve(&host.address))
    }

    /// A command for `program` on `host`, carrying the bench's mark.
    pub fn command(&self, host: &Host, program: impl AsRef<Path>) -> Command {
        let mut words = host.wrapper().into_iter().map(PathBuf::from).chain([program.as_ref().to_path_buf()]);
        let mut command = Command::new(words.next().expect("the program at least"));
        command.args(words).env(MARK, &self.dir).current_dir(&self.dir);
        command.envs(self.env());
        command
    }

    /// Sets a variable of every command made from now on.
    pub fn set_env(&self, name: &'static str, value: PathBuf) {
        self.env.lock().expect("nobody panics while holding it").push((name, value));
    }

    /// What [`Bench::set_env`] has set.
    pub fn env(&self) -> Vec<(&'static str, PathBuf)> {
        self.env.lock().expect("nobody panics while holding it").clone()
    }

    /// Starts `command` (made by [`Bench::command`]) as `name`.
    pub fn start(&self, name: &str, command: Command) -> Result<Process> {
        Process::start(name, &self.dir, command)
    }

    /// Processes of the bench that run.
    pub fn processes(&self) -> Vec<u32> {
        process::belonging(&mark(&self.dir), &self.dir)
    }

    /// Kills what is left.
    fn sweep(&self) {
        self.processes().into_iter().for_each(|pid| process::send(pid, Signal::KILL));
    }

    /// Ends the bench after its parts have ended, and says which processes had not: those that should have gone by themselves and did not
    /// within two seconds. They are killed.
    pub fn close(self) -> Vec<u32> {
        let start = Instant::now();
        let mut left = self.processes();
        while !left.is_empty() && start.elapsed() < Duration::from_secs(2) {
            std::thread::sleep(Duration::from_millis(20));
            left = self.processes();
        }
        left
    }

    /// Prints the end of every log file.
    fn show_logs(&self) {
        for log in logs_below(&self.dir) {
            let bytes = std::fs::read(&log).unwrap_or_default();
            let tail = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(4000)..]).into_owned();
            println!("---- {}\n{tail}", log.strip_prefix(&self.dir).unwrap_or(&log).display());
        }
    }

    /// Moves the directory aside so that it outlives the bench; returns where it is then.
    fn keep(&self) -> PathBuf {
        self.sweep();
        let kept = std::env::temp_dir().join(format!("failed-{}-{}", self.name, std::process::id()));
        let _ = std::fs::remove_dir_all(&kept);
        match std::fs::rename(&self.dir, &kept) {
            Ok(()) => kept,
            Err(_) => self.dir.clone(),
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.sweep();
        self.network = None;
        // A process that was just killed may still hold a file open for a moment, never create one: twice is enough.
        if std::fs::remove_dir_all(&self.dir).is_err() {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

fn mark(dir: &Path) -> String {
    format!("{MARK}={}", dir.display())
}

/// Beginning of the name of every bench's directory; the owner's pid follows.
const PREFIX: &str = "ar-bench-";

/// Removes what a program that was killed could not: directories and namespaces whose owner is gone.
fn sweep_once() {
    static SWEPT: std::sync::Once = std::sync::Once::new();
    SWEPT.call_once(|| {
        Network::sweep();
        for entry in std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()).and_then(|pid| pid.parse().ok());
            if owner.is_some_and(|pid: u32| pid != std::process::id() && !process::runs(pid)) {
                let left = process::belonging(&mark(&entry.path()), &entry.path());
                left.into_iter().for_each(|pid| process::send(pid, Signal::KILL));
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
    });
}

/// Every log of a bench: `*.log`, and `stdout`/`stderr` of sandboxes.
fn logs_below(dir: &Path) -> Vec<PathBuf> {
    let mut logs = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            logs.extend(logs_below(&path));
        } else if path.extension().is_some_and(|e| e == "log") || path.ends_with("stdout") || path.ends_with("stderr") {
            logs.push(path);
        }
    }
    logs.sort();
    logs
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
        .unwrap_or_else(|| "panicked".into())
}
