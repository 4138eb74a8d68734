//! The configuration a server gets on stdin, generated afresh at every start. Pure.
//!
//! The server starts closed: no TCP port, a unix socket that only the agent can use. Clients get the default user without the
//! commands that change roles, persistence or configuration; replicas get users of their own once this server leads.

use std::collections::BTreeMap;
use std::fmt::Write;

use sha2::{Digest, Sha256};

use crate::api::Address;
use crate::redis::info::Version;

/// Name of the unix socket in the server's directory.
pub(crate) const SOCKET: &str = "r.sock";
/// Name of the dump in the server's directory.
pub(crate) const DUMP: &str = "dump.rdb";
/// The agent's own user.
pub(crate) const ADMIN: &str = "admin";
/// What a connection that reads a backup calls itself, as a client and as a replica: not one of the cluster's.
pub(crate) const BACKUP: &str = "aurora-redis-backup";
/// Nobody listens there: a replica of it keeps its data and its position, and takes no writes.
pub(crate) const DEAD_PORT: (&str, u16) = ("127.0.0.1", 1);

/// What a start needs to know.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    pub version: Version,
    /// Absolute path of the server's directory.
    pub dir: &'a str,
    /// Address to listen on and to announce; its port stays closed until an assignment.
    pub address: &'a Address,
    /// Start as a replica, of nobody yet: only then the position in the dump stays of use.
    pub replica: bool,
    /// Password of [`ADMIN`].
    pub admin_password: &'a str,
    /// The module that bounds writes by the lease; absent where the server runs without.
    pub module: Option<&'a Module>,
    /// Whether there is a secret; without one everything must be on loopback.
    pub secured: bool,
    /// Password of clients (the default user).
    pub client_password: Option<&'a str>,
    /// The user's settings, key and value as they stand in a configuration line.
    pub pass_through: &'a BTreeMap<String, Vec<String>>,
}

/// The module that bounds writes by the lease, as a server loads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Module {
    /// Absolute.
    pub path: String,
    pub refuses_reads: bool,
}

/// Settings that a user cannot pass through, with the reason.
const MANAGED: &[(&str, &str)] = &[
    ("port", "servers start closed; --redis-port opens on assignment"),
    ("tls-port", "servers start closed; TLS is not offered yet"),
    ("bind", "set --advertise-address"),
    ("bind-source-addr", "set --advertise-address"),
    ("unixsocket", "the agent's own way in"),
    ("unixsocketperm", "the agent's own way in"),
    ("unixsocketgroup", "the agent's own way in"),
    ("daemonize", "the agent owns the process"),
    ("supervised", "the agent owns the process"),
    ("pidfile", "the agent owns the process"),
    ("logfile", "the server's output goes to redis.log in the sandbox"),
    ("syslog-enabled", "the server's output goes to redis.log in the sandbox"),
    ("dir", "the server's directory is below the sandbox"),
    ("dbfilename", "the agent watches dump.rdb"),
    ("include", "the whole configuration is generated"),
    ("replicaof", "the controller decides who follows whom"),
    ("slaveof", "the controller decides who follows whom"),
    ("masteruser", "derived from --secret-file"),
    ("masterauth", "derived from --secret-file"),
    ("requirepass", "set --redis-password-file"),
    ("user", "users are generated; set --redis-password-file"),
    ("aclfile", "users are generated; set --redis-password-file"),
    ("protected-mode", "follows from --secret-file"),
    ("rename-command", "it would lock out the agent and replicas"),
    ("save", "the controller sets save points on one instance, the backup source"),
    ("appendonly", "copies are kept as dumps; an append-only file would be loaded instead of a restored dump"),
    ("min-replicas-to-write", "the controller adapts it to the live replicas"),
    ("min-slaves-to-write", "the controller adapts it to the live replicas"),
    ("repl-diskless-load", "anything but 'disabled' destroys the old copy before the new one is whole"),
    ("rdbchecksum", "dumps must be verifiable"),
    ("repl-backlog-ttl", "without a backlog every reconnect is a full copy"),
    ("replica-read-only", "a writable replica diverges"),
    ("slave-read-only", "a writable replica diverges"),
    ("replica-serve-stale-data", "the agent probes and fences replicas that are cut off"),
    ("slave-serve-stale-data", "the agent probes and fences replicas that are cut off"),
    ("replica-announce-ip", "set --advertise-address"),
    ("replica-announce-port", "set --redis-port"),
    ("slave-announce-ip", "set --advertise-address"),
    ("slave-announce-port", "set --redis-port"),
    ("shutdown-on-sigterm", "the agent ends the server"),
    ("cluster-enabled", "Redis Cluster is another kind of cluster"),
    ("enable-protected-configs", "the server's directory must not move"),
    ("enable-debug-command", "it can crash the server"),
    ("enable-module-command", "modules are loaded at start only (loadmodule)"),
];

/// Why a key of `[redis.config]` cannot be passed through; `None` when it can.
pub(crate) fn refuse(key: &str) -> Option<String> {
    let key = key.to_ascii_lowercase();
    if key.is_empty() || !key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Some("a Redis setting has a name of letters, digits and '-'".into());
    }
    MANAGED.iter().find(|(managed, _)| *managed == key).map(|(_, why)| format!("managed by the agent: {why}"))
}

/// Why a value of `[redis.config]` cannot stand in a configuration line; `None` when it can.
pub(crate) fn refuse_value(value: &str) -> Option<String> {
    value.chars().any(|c| c.is_control()).then(|| "a value must be one line without control characters".into())
}

/// The whole text.
pub(crate) fn render(wanted: &Wanted<'_>) -> String {
    let mut text = String::with_capacity(2048);
    let mut line = |key: &str, value: &str| writeln!(text, "{key} {value}").expect("writing to a string");
    for (key, value) in defaults(&wanted.version, wanted.module.is_some()) {
        line(key, value);
    }
    for (key, values) in wanted.pass_through {
        values.iter().for_each(|value| line(key, value));
    }
    // Ours last: of two lines the last one counts.
    for (key, value) in fixed(&wanted.version) {
        line(key, value);
    }
    line("dir", &quote(wanted.dir));
    line("bind", &wanted.address.host);
    line("protected-mode", if wanted.secured { "no" } else { "yes" });
    line("replica-announce-ip", &wanted.address.host);
    line("replica-announce-port", &wanted.address.port.to_string());
    for user in users(wanted) {
        line("user", &user);
    }
    // After the user's modules: it asks the server for all commands there are.
    if let Some(Module { path, refuses_reads }) = wanted.module {
        line("loadmodule", &format!("{} reads {}", quote(path), if *refuses_reads { "refuse" } else { "serve" }));
    }
    if wanted.replica {
        let (host, port) = DEAD_PORT;
        line("replicaof", &format!("{host} {port}"));
    }
    text
}

/// Settings that a user may override.
fn defaults(version: &Version, module: bool) -> Vec<(&'static str, &'static str)> {
    let mut lines = vec![
        ("repl-backlog-size", "64mb"),
        ("repl-diskless-sync", "yes"),
        ("repl-diskless-sync-delay", "0"),
        ("repl-timeout", "15"),
        ("repl-ping-replica-period", "3"),
        ("min-replicas-max-lag", "2"),
        ("client-output-buffer-limit", "replica 512mb 256mb 60"),
        ("tcp-keepalive", "60"),
        ("oom-score-adj", "yes"),
        ("stop-writes-on-bgsave-error", "no"),
        ("latency-monitor-threshold", "100"),
    ];
    // While a script holds the server the module hears of a longer lease only from then on: early enough for the usual lease.
    let busy = if module { "1000" } else { "1500" };
    lines.push(if version.at_least(7, 0) { ("busy-reply-threshold", busy) } else { ("lua-time-limit", "1500") });
    if version.at_least(7, 0) {
        lines.push(("shutdown-timeout", "3"));
    }
    lines
}

/// Settings of ours that nobody overrides.
fn fixed(version: &Version) -> Vec<(&'static str, &'static str)> {
    let mut lines = vec![
        ("daemonize", "no"),
        ("supervised", "no"),
        ("pidfile", "\"\""),
        ("logfile", "\"\""),
        ("port", "0"),
        ("unixsocket", SOCKET),
        ("unixsocketperm", "700"),
        ("dbfilename", DUMP),
        ("save", "\"\""),
        ("appendonly", "no"),
        ("repl-diskless-load", "disabled"),
        ("repl-backlog-ttl", "0"),
        ("replica-read-only", "yes"),
        ("replica-serve-stale-data", "yes"),
        ("rdbchecksum", "yes"),
    ];
    if version.at_least(7, 0) {
        lines.extend([("shutdown-on-sigterm", "nosave now force"), ("enable-module-command", "no")]);
    }
    lines
}

fn users(wanted: &Wanted<'_>) -> Vec<String> {
    let secret = |password: Option<&str>| password.map_or("nopass".into(), |p| format!("#{}", hex::encode(Sha256::digest(p))));
    vec![
        format!("{ADMIN} on {} ~* &* +@all", secret(Some(wanted.admin_password))),
        format!("default on {} ~* &* {}", secret(wanted.client_password), client_rules(wanted)),
    ]
}

/// Everything but what administers or endangers the server. A rule naming a command that this version lacks would stop its start.
fn client_rules(wanted: &Wanted<'_>) -> String {
    let mut rules = "+@all -@admin -@dangerous +info +role +keys +sort +flushdb +flushall".to_owned();
    if wanted.module.is_some() {
        rules.push_str(" -aurora.lease");
    }
    if wanted.version.at_least(7, 0) {
        rules.push_str(" +sort_ro");
    } else {
        for harmless in ["id", "getname", "setname", "reply", "tracking", "trackinginfo", "caching", "getredir", "info"] {
            write!(rules, " +client|{harmless}").expect("writing to a string");
        }
    }
    rules
}

/// In double quotes, as Redis' configuration parser reads them.
fn quote(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;

    fn lines<'a>(version: &str, change: impl FnOnce(&mut Wanted<'a>)) -> Vec<String> {
        static NONE: BTreeMap<String, Vec<String>> = BTreeMap::new();
        static ADDRESS: LazyLock<Address> = LazyLock::new(|| Address { host: "10.0.0.7".into(), port: 31001 });
        let version = Version::from_banner(version).unwrap();
        let mut wanted = Wanted {
            version,
            dir: "/sandbox/a b",
            address: &ADDRESS,
            replica: false,
            admin_password: "pw",
            module: None,
            secured: false,
            client_password: None,
            pass_through: &NONE,
        };
        change(&mut wanted);
        render(&wanted).lines().map(str::to_owned).collect()
    }

    fn value<'a>(lines: &'a [String], key: &str) -> Option<&'a str> {
        lines.iter().rev().find_map(|l| l.strip_prefix(key)?.strip_prefix(' '))
    }

    #[test]
    fn a_server_starts_closed_as_a_master_of_nobody() {
        let lines = lines("Redis server v=7.0.15", |_| {});
        assert_eq!(value(&lines, "port"), Some("0"));
        assert_eq!(value(&lines, "replicaof"), None);
        assert_eq!(value(&lines, "dir"), Some("\"/sandbox/a b\""));
        assert_eq!(value(&lines, "shutdown-on-sigterm"), Some("nosave now force"));
        assert_eq!(value(&lines, "protected-mode"), Some("yes"));
        let users: Vec<&str> = lines.iter().filter_map(|l| l.strip_prefix("user ")?.split(' ').next()).collect();
        assert_eq!(users, [ADMIN, "default"], "nobody replicates before a record lists it");
    }

    #[test]
    fn no_password_stands_in_clear() {
        let lines = lines("Redis server v=7.0.15", |w| {
            (w.admin_password, w.secured, w.client_password) = ("admin-secret", true, Some("client-secret"));
        });
        let text = lines.join("\n");
        assert!(!text.contains("admin-secret") && !text.contains("client-secret"));
        assert_eq!(value(&lines, "protected-mode"), Some("no"));
    }

    #[test]
    fn a_pass_through_setting_overrides_a_default_and_never_ours() {
        let settings = BTreeMap::from([
            ("repl-backlog-size".to_owned(), vec!["1gb".to_owned()]),
            ("appendonly".to_owned(), vec!["yes".to_owned()]),
        ]);
        let address = Address { host: "::1".into(), port: 1 };
        let wanted = Wanted {
            version: Version::from_banner("Redis server v=7.0.15").unwrap(),
            dir: "/d",
            address: &address,
            replica: true,
            admin_password: "a",
            module: None,
            secured: false,
            client_password: None,
            pass_through: &settings,
        };
        let lines: Vec<String> = render(&wanted).lines().map(str::to_owned).collect();
        assert_eq!(value(&lines, "repl-backlog-size"), Some("1gb"));
        assert_eq!(value(&lines, "appendonly"), Some("no"));
        assert_eq!(value(&lines, "replicaof"), Some("127.0.0.1 1"));
    }

    #[test]
    fn six_two_gets_no_setting_and_no_rule_it_lacks() {
        let lines = lines("Redis server v=6.2.14", |_| {});
        for key in ["shutdown-on-sigterm", "busy-reply-threshold", "shutdown-timeout"] {
            assert_eq!(value(&lines, key), None, "{key}");
        }
        assert!(!lines.join("\n").contains("sort_ro"));
        assert!(lines.join("\n").contains("+client|setname"));
    }

    #[test]
    fn the_lease_module_comes_after_the_users_and_its_command_is_the_agents_alone() {
        let module = Module { path: "/opt/a b.so".into(), refuses_reads: true };
        let settings = BTreeMap::from([("loadmodule".to_owned(), vec!["/users.so".to_owned()])]);
        let with = lines("Redis server v=7.0.15", |w| (w.module, w.pass_through) = (Some(&module), &settings));
        assert_eq!(value(&with, "loadmodule"), Some("\"/opt/a b.so\" reads refuse"));
        assert_eq!(value(&with, "enable-module-command"), Some("no"));
        assert!(value(&with, "user").unwrap().contains(" -aurora.lease"), "{with:?}");
        assert!(
            !lines("Redis server v=6.2.14", |_| {}).join("\n").contains("aurora.lease"),
            "a rule that a server lacks stops it"
        );
    }

    #[test]
    fn managed_and_malformed_keys_are_refused_with_the_reason() {
        assert!(refuse("port").unwrap().contains("managed"));
        assert!(refuse("SAVE").unwrap().contains("backup source"));
        assert!(refuse("a b").unwrap().contains("letters"));
        assert_eq!(refuse("maxmemory"), None);
        assert!(refuse_value("1\nport 6379").is_some());
        assert_eq!(refuse_value("1gb"), None);
    }
}
