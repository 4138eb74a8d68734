//! The hosts file: which "machines" this scheduler places tasks on.
//!
//! Read once by [`super::serve`]; everything else receives [`Host`] values. Invariant: names are unique, so a name
//! identifies a host everywhere (placement, constraints, `GET /local/tasks`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// One host tasks can be placed on.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Unique name; value of the placement attribute `host`.
    pub name: String,
    /// Address the announcer publishes and ports are free on; `{{mesos.hostname}}`.
    pub address: IpAddr,
    /// Command put before everything that runs on this host: task processes, health and lifecycle calls, port tests and
    /// the announcer, so ZooKeeper has to be reachable from inside. It has to end in an exec of its arguments (`nsenter`,
    /// `ip netns exec`, `env`), so that the pid stays the same.
    #[serde(default)]
    pub wrapper: Vec<String>,
    /// Attributes for placement constraints.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
    /// Handed to the host's tasks as environment variable `AURORA_REDIS_HOST_ID`; absent: no such variable.
    #[serde(default)]
    pub host_id: Option<String>,
}

impl Host {
    /// Value of a placement attribute; `host` is the name. `None`: the host does not have it.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        if name == "host" {
            return Some(&self.name);
        }
        self.attributes.get(name).map(String::as_str)
    }
}

/// Why a hosts file was refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be read.
    #[error("cannot read the hosts file {path}: give a readable file with one [[host]] table per host")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Not TOML, an unknown key, a missing key or a value of the wrong kind.
    #[error("hosts file {path} is not valid: a [[host]] has name and address, and may have wrapper, attributes, host_id")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Line, key and what was expected there.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// Well-formed, but the values do not fit together.
    #[error("hosts file {path}: {}", mistakes.join("; "))]
    Values {
        /// The file.
        path: PathBuf,
        /// Every mistake found.
        mistakes: Vec<String>,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    host: Vec<Host>,
}

/// Reads and checks a hosts file. The order of the file is kept: it breaks ties in placement.
pub fn load(path: &Path) -> Result<Vec<Host>, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    parse(path, &text)
}

/// Like [`load`], on text; `path` only serves error messages.
pub fn parse(path: &Path, text: &str) -> Result<Vec<Host>, Error> {
    let file: File = toml::from_str(text).map_err(|source| Error::Parse { path: path.to_owned(), source: Box::new(source) })?;
    let mistakes = mistakes(&file.host);
    if mistakes.is_empty() { Ok(file.host) } else { Err(Error::Values { path: path.to_owned(), mistakes }) }
}

fn mistakes(hosts: &[Host]) -> Vec<String> {
    let mut found = Vec::new();
    if hosts.is_empty() {
        found.push("there is no [[host]]; at least one is needed".to_owned());
    }
    let mut names = BTreeSet::new();
    for (index, host) in hosts.iter().enumerate() {
        if host.name.trim().is_empty() {
            found.push(format!("host number {} has an empty name", index + 1));
        } else if !names.insert(&host.name) {
            found.push(format!("the name {:?} is used twice; names must differ", host.name));
        }
        if host.wrapper.first().is_some_and(String::is_empty) {
            found.push(format!("the wrapper of {:?} starts with an empty command", host.name));
        }
        if host.host_id.as_deref() == Some("") {
            found.push(format!("the host_id of {:?} is empty; leave it out instead", host.name));
        }
        if host.attributes.contains_key("host") {
            found.push(format!("{:?} sets the attribute host, which is always the name", host.name));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Vec<Host>, Error> {
        parse(Path::new("hosts.toml"), text)
    }

    #[test]
    fn reads_every_key_of_the_format() {
        let hosts = check(
            r#"
            [[host]]
            name = "h1"
            address = "198.18.0.11"
            wrapper = ["nsenter", "--net=/run/netns/h1", "--"]
            attributes = { rack = "r1" }
            host_id = "h1"
            [[host]]
            name = "h2"
            address = "127.0.0.2"
            "#,
        )
        .unwrap();
        assert_eq!(hosts.len(), 2);
        assert_eq!(hosts[0].attribute("rack"), Some("r1"));
        assert_eq!(hosts[0].attribute("host"), Some("h1"));
        assert_eq!(hosts[1].attribute("rack"), None);
        assert_eq!(hosts[1].wrapper, Vec::<String>::new());
        assert_eq!(hosts[1].host_id, None);
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let error = check("[[host]]\nname = \"a\"\naddress = \"127.0.0.1\"\nracks = 1\n").unwrap_err();
        let Error::Parse { source, .. } = error else { panic!("{error}") };
        let text = source.to_string();
        assert!(text.contains("racks") && text.contains("line 4"), "{text}");
    }

    #[test]
    fn an_unknown_top_level_key_is_refused() {
        assert!(matches!(check("hosts = 1\n").unwrap_err(), Error::Parse { .. }));
    }

    #[test]
    fn every_mistake_is_reported_at_once() {
        let error = check(
            "[[host]]\nname = \"a\"\naddress = \"127.0.0.1\"\nhost_id = \"\"\n[[host]]\nname = \"a\"\naddress = \"::1\"\nwrapper = [\"\"]\n",
        )
        .unwrap_err();
        let Error::Values { mistakes, .. } = &error else { panic!("{error}") };
        assert_eq!(mistakes.len(), 3, "{mistakes:?}");
        assert!(error.to_string().contains("used twice"));
    }

    #[test]
    fn an_empty_file_is_refused() {
        assert!(check("").unwrap_err().to_string().contains("at least one is needed"));
    }
}
