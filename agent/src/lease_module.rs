//! The module that keeps a server from taking writes beyond its lease: which file it is, whether servers take it, and what is said of it.
//!
//! Invariant: a server counts as running with the module only when it answered the module's own command with the interface that this agent
//! speaks. One that was loaded and speaks another would never open, so such a server is not kept.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Mutex;

use crate::causes::chain;
use crate::redis::conf::Module;
use crate::redis::connection::Error;
use crate::server::{ROLE_TIMEOUT, Server};

/// Name of the file beside the agent's executable.
pub const FILE: &str = "libaurora_redis_lease.so";
/// Of the module's commands, as it tells it.
const INTERFACE: u64 = 1;

/// Whether servers run with the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wish {
    /// Never.
    Off,
    /// Where it can be had.
    #[default]
    Prefer,
    /// Nobody becomes master without it.
    Require,
}

impl FromStr for Wish {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Wish, &'static str> {
        match text {
            "off" => Ok(Wish::Off),
            "prefer" => Ok(Wish::Prefer),
            "require" => Ok(Wish::Require),
            _ => Err("it is none of these"),
        }
    }
}

/// What the configuration says of the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseModule {
    /// Whether it is wanted.
    pub wish: Wish,
    /// Its file; absent when it is not known where this program lies.
    pub file: Option<PathBuf>,
    /// Whether reads stop with the lease, too.
    pub refuses_reads: bool,
}

/// The module in the life of one agent.
#[derive(Debug)]
pub(crate) struct Slot {
    module: LeaseModule,
    /// Why servers do not take it.
    refused: Mutex<Option<String>>,
}

impl Slot {
    pub fn new(module: &LeaseModule) -> Slot {
        Slot { module: module.clone(), refused: Mutex::default() }
    }

    /// What a server is to load; nothing when the module is not wanted, and the error says why it cannot be had.
    pub fn to_load(&self) -> Result<Option<Module>, String> {
        // What is broken on purpose would be mended by it.
        if self.module.wish == Wish::Off || crate::breaks::warning().is_some() {
            return Ok(None);
        }
        if let Some(why) = self.refused.lock().expect("no panic while locked").clone() {
            return Err(why);
        }
        let file = self.module.file.as_deref().ok_or("the directory of this program is not known: set lease.module_file")?;
        let path = readable(file)?;
        Ok(Some(Module { path, refuses_reads: self.module.refuses_reads }))
    }

    /// Servers do not take it: for the rest of the agent's life they are started without.
    pub fn refuse(&self, why: String) {
        *self.refused.lock().expect("no panic while locked") = Some(why);
    }

    /// Why this server must not become master; absent when it may.
    pub fn objection(&self, server: &Server) -> Option<String> {
        if self.module.wish != Wish::Require || server.is_guarded() {
            return None;
        }
        let why = self.to_load().err().unwrap_or_else(|| "the server was started without it".into());
        Some(format!("lease.module = require, and the server runs without the lease module: {why}"))
    }

    /// What people are told when a server runs without the module although it is wanted.
    pub fn complaint(&self) -> Option<String> {
        let why = self.to_load().err()?;
        Some(format!("the server runs without the lease module: {why}"))
    }
}

fn readable(file: &Path) -> Result<String, String> {
    let shown = file.display();
    let path =
        std::fs::canonicalize(file).map_err(|error| format!("{shown}: {error}; install it there, or set lease.module_file"))?;
    let path = path.to_str().filter(|path| !path.chars().any(char::is_control));
    path.map(str::to_owned).ok_or_else(|| format!("{shown}: the path cannot stand in a configuration"))
}

/// Asks a server that was told to load the module whether it speaks with it, and returns what is wrong with that. The error says that no
/// answer came.
pub(crate) async fn check(server: &Server) -> Result<Option<String>, Error> {
    let answer = match server.tell("AURORA.LEASE STATUS", ROLE_TIMEOUT).await {
        Ok(answer) => answer,
        Err(error) if error.is_reply() => return Ok(Some(chain(&error))),
        Err(error) => return Err(error),
    };
    Ok(match redis::from_redis_value::<Vec<u64>>(answer).map(|numbers| numbers.first().copied()) {
        Ok(Some(INTERFACE)) => None,
        Ok(Some(other)) => {
            Some(format!("it speaks interface {other}, this agent speaks {INTERFACE}: install both from one version"))
        }
        Ok(None) => Some("STATUS: an empty answer".into()),
        Err(error) => Some(format!("STATUS: {error}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_that_is_not_there_is_named_and_one_that_is_not_wanted_is_not() {
        let wanted = LeaseModule { file: Some("/nonexistent/x.so".into()), ..LeaseModule::default() };
        let why = Slot::new(&wanted).complaint().unwrap();
        assert!(why.contains("/nonexistent/x.so") && why.contains("lease.module_file"), "{why}");
        assert_eq!(Slot::new(&LeaseModule { wish: Wish::Off, ..wanted.clone() }).to_load(), Ok(None));
        let here = LeaseModule { file: Some("/proc/self/exe".into()), ..wanted };
        let slot = Slot::new(&here);
        assert!(slot.to_load().unwrap().is_some());
        slot.refuse("no".into());
        assert_eq!(slot.to_load(), Err("no".into()));
    }
}
