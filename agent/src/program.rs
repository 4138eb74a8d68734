//! The redis-server program: found by path, or fetched and checked once at the start, and asked for its version.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use crate::config::Program;
use crate::redis::info::Version;

/// Longest wait for `redis-server --version`.
const VERSION_TIMEOUT: Duration = Duration::from_secs(10);

/// A program that can be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ready {
    pub path: PathBuf,
    pub version: Version,
}

/// The program, once it is there.
#[derive(Debug)]
pub(crate) struct ProgramSlot {
    path: Mutex<Result<PathBuf, String>>,
    ready: tokio::sync::Mutex<Option<Ready>>,
}

impl ProgramSlot {
    /// What the configuration names.
    pub fn new(program: &Program) -> ProgramSlot {
        let path = match program {
            Program::Path(path) => Ok(path.clone()),
            Program::Fetched { uri, .. } => Err(format!("{uri} is still being fetched")),
        };
        ProgramSlot { path: Mutex::new(path), ready: tokio::sync::Mutex::new(None) }
    }

    /// The program has been fetched, or cannot be, with the reason.
    pub fn fetched(&self, path: Result<PathBuf, String>) {
        *self.path.lock().expect("no panic while locked") = path;
    }

    /// The program with its version, or why there is none (yet).
    pub async fn get(&self) -> Result<Ready, String> {
        let mut ready = self.ready.lock().await;
        let path = self.path.lock().expect("no panic while locked").clone()?;
        match &*ready {
            Some(known) if known.path == path => Ok(known.clone()),
            _ => {
                let version = ask_version(&path).await?;
                let found = Ready { path, version };
                *ready = Some(found.clone());
                Ok(found)
            }
        }
    }
}

async fn ask_version(path: &Path) -> Result<Version, String> {
    let shown = path.display();
    let run = tokio::process::Command::new(path).arg("--version").kill_on_drop(true).output();
    let output = tokio::time::timeout(VERSION_TIMEOUT, run)
        .await
        .map_err(|_| format!("{shown} --version did not end within {VERSION_TIMEOUT:?}"))?
        .map_err(|error| format!("cannot run {shown}: {error}; set --redis-server"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Version::from_banner(&text).ok_or_else(|| {
        format!("{shown} --version printed {:?}, which no Redis or Valkey does", text.chars().take(80).collect::<String>())
    })
}
