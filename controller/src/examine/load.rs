//! Loads a dump into a throw-away server: the last word on whether a snapshot can be used.
//!
//! The server listens on a unix socket in a directory of its own, writes nothing, ends with us, and is the first to go when memory is short.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use agent::causes::chain;
use agent::rdb::Content;
use redis::AsyncConnectionConfig;
use tokio::process::{Child, Command};

/// A server that has not loaded by then is given up; nothing is said of the dump then.
const LOADED_WITHIN: Duration = Duration::from_secs(4 * 3600);
/// Longest wait for one answer.
const ANSWER: Duration = Duration::from_secs(5);
/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Names under which servers are looked for.
const NAMES: [&str; 2] = ["redis-server", "valkey-server"];

/// A server's program.
#[derive(Clone, Debug)]
pub struct Server {
    program: PathBuf,
    /// `7.0.15` or `valkey 9.1.2`.
    pub version: String,
}

/// What a test-load found.
#[derive(Debug, PartialEq)]
pub enum Loaded {
    /// All keys are there.
    Good,
    /// The server does not take it, or not all of it.
    Bad(String),
}

impl Server {
    /// The server at `program`, or the first one on the path; none when there is none there.
    pub async fn find(program: Option<&Path>) -> Result<Option<Server>, String> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let on_path =
            || std::env::split_paths(&path).flat_map(|dir| NAMES.map(|name| dir.join(name))).find(|file| file.is_file());
        let Some(program) = program.map(Path::to_owned).or_else(on_path) else { return Ok(None) };
        let asked = Command::new(&program).arg("--version").stdin(Stdio::null()).kill_on_drop(true).output();
        let wrong = |why: String| format!("{} --version: {why}", program.display());
        let said = tokio::time::timeout(ANSWER, asked)
            .await
            .map_err(|_| wrong("no answer".into()))?
            .map_err(|e| wrong(e.to_string()))?;
        let said = String::from_utf8_lossy(&said.stdout);
        let version = version(&said).ok_or_else(|| wrong(format!("not understood: {:?}", said.trim())))?;
        Ok(Some(Server { program, version }))
    }

    /// Loads `dir/dump.rdb`. An error says nothing about the dump.
    pub async fn load(&self, dir: &Path, content: &Content) -> Result<Loaded, String> {
        let socket = dir.join("s");
        let log = dir.join("log");
        let mut child = self.start(dir, &socket, &log, content).map_err(|e| format!("{}: {e}", self.program.display()))?;
        let deadline = tokio::time::Instant::now() + LOADED_WITHIN;
        let said = loop {
            if let Some(status) = child.try_wait().map_err(|e| e.to_string())? {
                return ended(&self.version, status, &std::fs::read_to_string(&log).unwrap_or_default());
            }
            match persistence(&socket).await {
                Ok(said) if said.get("loading").is_some_and(|loading| loading == "0") => break said,
                Err(why) if tokio::time::Instant::now() > deadline => return Err(format!("it does not answer: {why}")),
                _ if tokio::time::Instant::now() > deadline => return Err(format!("not loaded within {LOADED_WITHIN:?}")),
                _ => tokio::time::sleep(LOOK_EVERY).await,
            }
        };
        let _ = child.kill().await;
        Ok(compare(content.keys(), &said))
    }

    fn start(&self, dir: &Path, socket: &Path, log: &Path, content: &Content) -> std::io::Result<Child> {
        let databases = content.databases.keys().max().map_or(16, |highest| highest.saturating_add(1).max(16));
        let mut command = Command::new(&self.program);
        command.args(["--port", "0", "--save", "", "--appendonly", "no", "--daemonize", "no", "--dbfilename", "dump.rdb"]);
        command.arg("--unixsocket").arg(socket).arg("--dir").arg(dir).arg("--logfile").arg(log);
        command.args(["--unixsocketperm", "700", "--databases", &databases.to_string()]);
        let end_with_us = || Ok(rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?);
        // SAFETY: one system call between fork and exec.
        unsafe { command.pre_exec(end_with_us) };
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn()?;
        if let Some(pid) = child.id() {
            // Not possible everywhere, and no harm where it is not.
            let _ = std::fs::write(format!("/proc/{pid}/oom_score_adj"), "1000");
        }
        Ok(child)
    }
}

/// The version in what `--version` prints: `Redis server v=7.0.15 …`. Pure.
fn version(said: &str) -> Option<String> {
    let number = said.split_whitespace().find_map(|word| word.strip_prefix("v="))?;
    let valkey = said.to_ascii_lowercase().starts_with("valkey");
    Some(if valkey { format!("valkey {number}") } else { number.to_owned() })
}

/// `INFO persistence`.
async fn persistence(socket: &Path) -> Result<BTreeMap<String, String>, String> {
    let client = redis::Client::open(format!("unix://{}", socket.display())).map_err(|e| chain(&e))?;
    let config = AsyncConnectionConfig::new().set_connection_timeout(Some(ANSWER)).set_response_timeout(Some(ANSWER));
    let mut connection = client.get_multiplexed_async_connection_with_config(&config).await.map_err(|e| chain(&e))?;
    let said: String = redis::cmd("INFO").arg("persistence").query_async(&mut connection).await.map_err(|e| chain(&e))?;
    Ok(said.lines().filter_map(|line| line.split_once(':')).map(|(k, v)| (k.to_owned(), v.trim().to_owned())).collect())
}

/// What a server that ended says of the dump: one that was killed says nothing. Pure.
fn ended(version: &str, status: ExitStatus, log: &str) -> Result<Loaded, String> {
    use std::os::unix::process::ExitStatusExt;
    let last = log.lines().rev().find(|line| line.contains('#')).unwrap_or("its log says nothing").trim();
    match (status.code(), status.signal()) {
        (Some(1), _) | (_, Some(6 | 11)) => Ok(Loaded::Bad(format!("server {version} does not load it ({status}): {last}"))),
        _ => Err(format!("the server ended ({status}): {last}")),
    }
}

/// Whether the server has all keys, those that expired meanwhile left out. Servers before 7.0 do not tell. Pure.
fn compare(keys: u64, said: &BTreeMap<String, String>) -> Loaded {
    let number = |name: &str| said.get(name).and_then(|text| text.parse::<u64>().ok());
    match (number("rdb_last_load_keys_loaded"), number("rdb_last_load_keys_expired")) {
        (Some(loaded), Some(expired)) if loaded + expired != keys => {
            Loaded::Bad(format!("the server loaded {loaded} keys and found {expired} expired, the dump holds {keys}"))
        }
        _ => Loaded::Good,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn versions_are_read_from_what_servers_print() {
        for (said, expected) in [
            ("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=x", Some("7.0.15")),
            ("Valkey server v=9.0.0 sha=00000000:0 malloc=libc bits=64 build=x", Some("valkey 9.0.0")),
            ("KeyDB", None),
            ("", None),
        ] {
            assert_eq!(version(said).as_deref(), expected, "{said}");
        }
    }

    #[test]
    fn only_a_server_that_judged_the_dump_blames_it() {
        let log = "1:M 24 Nov 2026 # Internal error in RDB reading offset 0, function at rdb.c:1\n1:M * ignored\n";
        let exited = |code: i32| ended("7.0.15", ExitStatus::from_raw(code << 8), log);
        assert!(matches!(exited(1), Ok(Loaded::Bad(why)) if why.contains("Internal error in RDB")));
        assert!(matches!(ended("7.0.15", ExitStatus::from_raw(11), log), Ok(Loaded::Bad(_))));
        assert!(ended("7.0.15", ExitStatus::from_raw(9), log).is_err(), "killed by somebody");
        assert!(exited(127).is_err());
    }

    #[test]
    fn loaded_and_expired_keys_are_all_there_are() {
        let said = |loaded: &str, expired: &str| {
            [("rdb_last_load_keys_loaded", loaded), ("rdb_last_load_keys_expired", expired)]
                .map(|(k, v)| (k.into(), v.into()))
                .into()
        };
        assert_eq!(compare(5, &said("3", "2")), Loaded::Good);
        assert!(matches!(compare(5, &said("3", "0")), Loaded::Bad(why) if why.contains("holds 5")));
        assert_eq!(compare(5, &BTreeMap::new()), Loaded::Good);
    }
}
