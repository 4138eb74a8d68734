//! Starts redis-server processes from a thread that lives as long as the agent.
//!
//! The kernel ends the child when the *thread* that spawned it ends (`PDEATHSIG`), so it must never be a worker of a runtime.
//! Invariant: no server outlives its agent.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};
use tokio::sync::oneshot;

/// One server to start.
#[derive(Debug)]
pub(crate) struct Launch {
    /// The program.
    pub program: PathBuf,
    /// Its directory.
    pub dir: PathBuf,
    /// Takes its output.
    pub log: File,
    /// Goes to its stdin: neither a file nor its arguments hold a secret.
    pub config: String,
}

type Job = (Launch, oneshot::Sender<io::Result<Child>>);

/// The thread that starts servers.
#[derive(Clone, Debug)]
pub(crate) struct Spawner {
    jobs: mpsc::Sender<Job>,
}

impl Spawner {
    /// Starts the thread. It ends with the process.
    pub fn start() -> io::Result<Spawner> {
        let (jobs, queue) = mpsc::channel::<Job>();
        // The thread holds a sender itself, so that it never ends before the process does.
        let keep = jobs.clone();
        std::thread::Builder::new().name("spawner".into()).spawn(move || {
            let _keep = keep;
            while let Ok((launch, reply)) = queue.recv() {
                let _ = reply.send(spawn(launch));
            }
        })?;
        Ok(Spawner { jobs })
    }

    /// Starts a server.
    pub async fn spawn(&self, launch: Launch) -> io::Result<Child> {
        let (reply, answer) = oneshot::channel();
        let gone = || io::Error::other("the spawner thread is gone");
        self.jobs.send((launch, reply)).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

fn spawn(launch: Launch) -> io::Result<Child> {
    let mut command = Command::new(&launch.program);
    command.arg("-").current_dir(&launch.dir).process_group(0);
    command.stdin(Stdio::piped()).stderr(launch.log.try_clone()?).stdout(launch.log);
    let agent = getpid();
    let die_with_the_agent = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The agent may have died before the line above: then nobody would end this process.
        if getppid() == Some(agent) { Ok(()) } else { Err(io::Error::other("the agent is gone")) }
    };
    // SAFETY: between fork and exec only async-signal-safe system calls are made, nothing is allocated on the good path.
    unsafe { command.pre_exec(die_with_the_agent) };
    let mut child = command.spawn()?;
    let mut stdin = child.stdin.take().expect("stdin is piped");
    if let Err(error) = stdin.write_all(launch.config.as_bytes()) {
        // It died before it read everything; its own words are in the log.
        tracing::warn!(%error, "redis-server did not read its configuration");
    }
    Ok(child)
}
