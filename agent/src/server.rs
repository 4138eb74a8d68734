//! One running redis-server: its process, its proof of death, and the one connection over which its role changes.
//!
//! Invariants: a server counts as dead only on proof (`/proc` state Z or X, or gone). Role changes go over one connection in order; one
//! that stays unanswered may still happen later, so the server is killed before anything else is said of it.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::sync::watch;

use crate::api::Epoch;
use crate::process::{self, Eye};
use crate::redis::connection::{Answers, Connection, Error};
use crate::redis::info::{Info, Version};
use crate::redis::{backlog, conf};

/// How often `/proc/<pid>/stat` is read, in general and of a master.
const LOOK_EVERY: Duration = Duration::from_millis(10);
const LOOK_CLOSELY_EVERY: Duration = Duration::from_millis(2);
/// Longest wait for the proof after a SIGKILL: the main thread ends within milliseconds, unless it sits in an uninterruptible call.
const PROOF_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for a change of role; then the server is killed.
pub(crate) const ROLE_TIMEOUT: Duration = Duration::from_secs(4);

/// How the names of members' users begin.
pub(crate) const MEMBER: &str = "member-";

/// What a server was started as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Birth {
    /// `empty`, `local:<sha256>`, `snapshot:<id>` or `replica`.
    pub source: String,
    /// Epoch of the command.
    pub epoch: Epoch,
}

/// A server process of ours.
pub(crate) struct Server {
    pub pid: u32,
    pub start_ticks: u64,
    pub birth: Birth,
    pub version: Version,
    run_id: OnceLock<String>,
    child: Mutex<Child>,
    eye: Eye,
    /// Keeps [`Server::socket`] valid: it leads through this descriptor, for a sandbox's path can be longer than a socket's may be.
    _dir: File,
    socket: PathBuf,
    password: String,
    admin: tokio::sync::Mutex<Option<Connection>>,
    dead: watch::Sender<Option<String>>,
    closely: AtomicBool,
    guarded: AtomicBool,
}

impl Server {
    /// Takes charge of a child just spawned in `dir`.
    pub fn adopt(child: Child, dir: &Path, password: String, birth: Birth, version: Version) -> std::io::Result<Server> {
        let pid = child.id();
        let eye = Eye::open(pid)?;
        let start_ticks = eye.look()?.map_or(0, |stat| stat.start_ticks);
        let dir = File::open(dir)?;
        let socket = PathBuf::from(format!("/proc/self/fd/{}/{}", dir.as_raw_fd(), conf::SOCKET));
        Ok(Server {
            pid,
            start_ticks,
            birth,
            version,
            run_id: OnceLock::new(),
            child: Mutex::new(child),
            eye,
            _dir: dir,
            socket,
            password,
            admin: tokio::sync::Mutex::new(None),
            dead: watch::channel(None).0,
            closely: AtomicBool::new(false),
            guarded: AtomicBool::new(false),
        })
    }

    /// Redis' run id; empty until it answered once.
    pub fn run_id(&self) -> &str {
        self.run_id.get().map_or("", String::as_str)
    }

    /// Notes the run id from the first answer.
    pub fn name(&self, run_id: &str) {
        let _ = self.run_id.set(run_id.to_owned());
    }

    /// Whether the server itself refuses writes beyond the lease: it runs with the module, and answered for it.
    pub fn is_guarded(&self) -> bool {
        self.guarded.load(Ordering::Relaxed)
    }

    /// Notes that it does.
    pub fn guard(&self) {
        self.guarded.store(true, Ordering::Relaxed);
    }

    /// A connection of one's own, e.g. for probing.
    pub async fn connect(&self) -> Result<Connection, Error> {
        Connection::open(&self.socket, &self.password).await
    }

    /// Sends one command over the ordered connection.
    pub async fn tell(&self, words: &str, limit: Duration) -> Result<redis::Value, Error> {
        self.ordered(async |connection: &mut Connection| connection.call(words, limit).await).await
    }

    /// Sends several commands over the ordered connection at once, see [`Connection::call_all`].
    pub async fn tell_all(&self, commands: &[String], limit: Duration) -> Result<Answers, Error> {
        self.ordered(async |connection: &mut Connection| connection.call_all(commands, limit).await).await
    }

    /// Several commands of which none changes the role; the first error of any.
    pub async fn tell_each(&self, commands: &[String], limit: Duration) -> Result<(), Error> {
        match commands {
            [] => Ok(()),
            _ => self.tell_all(commands, limit).await?.into_iter().try_for_each(|answer| answer.map(drop)),
        }
    }

    /// Sets one setting over the ordered connection.
    pub async fn set(&self, key: &str, value: &str, limit: Duration) -> Result<(), Error> {
        self.ordered(async |connection: &mut Connection| connection.config_set(key, value, limit).await).await
    }

    /// `INFO`, after everything sent before it.
    pub async fn info(&self, limit: Duration) -> Result<Info, Error> {
        self.ordered(async |connection: &mut Connection| connection.info(limit).await).await
    }

    /// Users made for members of the cluster.
    pub async fn members(&self) -> Result<Vec<String>, Error> {
        let users = self.ordered(async |connection: &mut Connection| connection.call("ACL USERS", ROLE_TIMEOUT).await);
        let users: Vec<String> = users.await?;
        Ok(users.into_iter().filter(|user| user.starts_with(MEMBER)).collect())
    }

    /// Those of them who are connected at the moment.
    pub async fn linked_members(&self) -> Result<BTreeSet<String>, Error> {
        let list = self.ordered(async |connection: &mut Connection| connection.call("CLIENT LIST", ROLE_TIMEOUT).await);
        let list: String = list.await?;
        let users = list.split_ascii_whitespace().filter_map(|field| field.strip_prefix("user="));
        Ok(users.filter(|user| user.starts_with(MEMBER)).map(str::to_owned).collect())
    }

    /// One call at a time, over one connection; a connection that gave no answer is not used again.
    async fn ordered<T>(&self, call: impl AsyncFnOnce(&mut Connection) -> Result<T, Error>) -> Result<T, Error> {
        let mut admin = self.admin.lock().await;
        let mut connection = match admin.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let result = call(&mut connection).await;
        if result.is_ok() || result.as_ref().is_err_and(Error::is_reply) {
            *admin = Some(connection);
        }
        result
    }

    /// A command that changes the role. Without an answer in time the server is killed: the change must not happen later.
    pub async fn change_role(&self, words: &str, limit: Duration) -> Result<(), Error> {
        let answers = self.change_role_and(&[words.to_owned()], limit).await?;
        answers.into_iter().next().map_or(Ok(()), |answer| answer.map(drop))
    }

    /// The same, with commands that are sent right behind it, whatever comes of it. All answers, in order.
    pub async fn change_role_and(&self, commands: &[String], limit: Duration) -> Result<Answers, Error> {
        let answers = self.tell_all(commands, limit).await;
        if let Err(error) = answers.as_ref()
            && !error.is_reply()
        {
            tracing::error!(pid = self.pid, %error, "no answer to a change of role: killing the server");
            self.kill().await;
        }
        answers
    }

    /// Makes sure that writes are counted and the history is settled, see [`backlog`]. `replication` is that section of a master's `INFO`.
    pub async fn begin_backlog(&self, replication: Option<&redis::Value>) -> std::io::Result<()> {
        if backlog::has_begun(replication) { Ok(()) } else { backlog::begin(&self.socket, &self.password).await }
    }

    /// Asks for a copy as a new replica gets one, see [`crate::stream`]. Blocking.
    pub fn ask_for_copy(&self) -> std::io::Result<std::os::unix::net::UnixStream> {
        crate::stream::ask(&self.socket, &self.password)
    }

    /// Proof of death; absent while it lives.
    pub fn proof(&self) -> Option<String> {
        self.dead.borrow().clone()
    }

    /// Time spent running, clock ticks, and whether the process is stopped: tells busy from hung.
    pub fn effort(&self) -> Option<(u64, char)> {
        self.eye.look().ok().flatten().map(|stat| (stat.cpu_ticks, stat.state))
    }

    /// Whether its death must be noticed at once: that of a master stops all writes.
    pub fn watch_closely(&self, closely: bool) {
        self.closely.store(closely, Ordering::Relaxed);
    }

    /// Waits for the proof of death, at most `limit`.
    pub async fn wait_dead(&self, limit: Duration) -> Option<String> {
        let mut dead = self.dead.subscribe();
        let proof = async { dead.wait_for(Option::is_some).await.ok().and_then(|proof| proof.clone()) };
        tokio::time::timeout(limit, proof).await.ok().flatten()
    }

    /// SIGKILL, without waiting for anything.
    pub fn send_kill(&self) {
        // `Child::kill` does nothing once the child was reaped, so a pid used again is never hit.
        if let Err(error) = self.child.lock().expect("no panic while locked").kill() {
            tracing::error!(pid = self.pid, %error, "cannot kill redis-server");
        }
    }

    /// SIGKILL, and the proof that it worked; absent when the kernel does not let go of it in time.
    pub async fn kill(&self) -> Option<String> {
        self.send_kill();
        self.wait_dead(PROOF_TIMEOUT).await
    }

    /// Ends it without saving: asks, and kills what does not go.
    pub async fn stop(&self) -> Option<String> {
        let words = if self.version.at_least(7, 0) { "SHUTDOWN NOSAVE NOW FORCE" } else { "SHUTDOWN NOSAVE" };
        // The answer to SHUTDOWN is the end of the connection.
        let _ = self.tell(words, Duration::from_secs(2)).await;
        match self.wait_dead(Duration::from_secs(2)).await {
            Some(proof) => Some(proof),
            None => self.kill().await,
        }
    }

    /// Watches the process until it is proven dead, then reaps it. Runs once, as a task of its own.
    pub async fn watch_over(self: Arc<Self>) -> String {
        let proof = loop {
            let closely = self.closely.load(Ordering::Relaxed);
            tokio::time::sleep(if closely { LOOK_CLOSELY_EVERY } else { LOOK_EVERY }).await;
            match self.eye.look() {
                Ok(Some(stat)) if stat.is_dead() => break process::describe_end(stat.exit_code),
                Ok(None) => break "process gone".to_owned(),
                Ok(Some(_)) => {}
                Err(error) => tracing::error!(pid = self.pid, %error, "cannot look at redis-server"),
            }
        };
        self.dead.send_replace(Some(proof.clone()));
        tokio::spawn(reap(self));
        proof
    }
}

/// `wait` lags behind the proof by the time the kernel needs to free the memory.
async fn reap(server: Arc<Server>) {
    loop {
        match server.child.lock().expect("no panic while locked").try_wait() {
            Ok(None) => {}
            Ok(Some(_)) => return,
            Err(error) => return tracing::warn!(pid = server.pid, %error, "cannot reap redis-server"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
