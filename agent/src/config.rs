//! What the agent is told at start: keys, defaults and checks, in one place. `main` reads it once, everything else receives typed
//! values.
//!
//! Invariant: a [`Config`] that exists has passed all checks, also those between values.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::api::{Address, Host};
use crate::causes::chain;
use crate::forks;
use crate::layers::values::{parse_cluster, parse_node, parse_store, parse_zookeeper, read_private, route_to};
use crate::layers::{self, Effective, Key, Layers, Mistakes};
use crate::lease_module::{self, LeaseModule};
use crate::process;
use crate::record::Paths;
use crate::redis::conf;
use crate::secret::Secret;
use crate::store;
use crate::stream;

/// Everything the agent understands.
pub const KEYS: &[Key] = &[
    Key::value("zookeeper", "HOST:PORT,…", "ZooKeeper's servers, as a connect string"),
    Key::value("zookeeper_root", "PATH", "ZooKeeper node below which all clusters keep their state").or("/aurora-redis"),
    Key::value("zookeeper_session", "DURATION", "ZooKeeper session: how long a lost agent stays in the doors").or("6s"),
    Key::value("cluster", "ROLE/ENV/JOB", "The cluster: the key of its Aurora job"),
    Key::value("instance", "N", "Aurora instance number, {{mesos.instance}}"),
    Key::value("task_id", "ID", "Aurora task id, {{thermos.task_id}}"),
    Key::value("http_port", "PORT", "Port of the agent's HTTP server, {{thermos.ports[health]}}"),
    Key::value(
        "advertise_address",
        "IP",
        "Address that clients and peers reach this host under; by default the local address of the route to ZooKeeper",
    ),
    Key::value("host_id", "ID", "Identity of this host, the same for all its agents; by default the content of /etc/machine-id"),
    Key::value("host_name", "NAME", "Aurora's name for this host; by default the advertised address"),
    Key::value("sandbox", "DIR", "Directory for everything the agent writes; by default the current one"),
    Key::value(
        "secret_file",
        "FILE",
        "The cluster's secret (mode 0600, the same on every host); without it only loopback is served",
    ),
    Key::value("master_node", "PATH", "ZooKeeper node that holds the master's ip:port; by default <cluster's root>/master"),
    Key::value(
        "snapshots.uri",
        "URI",
        "Store of the snapshots: hdfs://NAMENODE[:PORT]/PATH or file:///PATH; without it none is kept",
    ),
    Key::value(
        "snapshots.restore_how",
        "file|stream",
        "How a snapshot is restored: fetched to the disk and loaded from there, or given to the server as it comes, which needs no disk",
    )
    .or("file"),
    Key::value("snapshots.spool_memory", "SIZE", "Memory in which a backup of the stream may wait for a slow store").or("16mb"),
    Key::value(
        "snapshots.spool_disk",
        "SIZE",
        "File in the sandbox in which more of it may wait; beyond both the backup is given up and tried again",
    )
    .or("1gb"),
    Key::value(
        "snapshots.fork_memory_percent",
        "N",
        "Memory that must be free before a backup forks, in percent of what the server uses: 100 is the worst case, 0 checks nothing",
    )
    .or("100"),
    Key::value(
        "snapshots.fork_lock",
        "FILE",
        "File that agents of one host lock to back up one after the other; by default aurora-redis-fork-<host_id>.lock in TMPDIR or /tmp",
    ),
    store::CONF_DIR,
    store::KEYTAB,
    store::PRINCIPAL,
    Key::value(
        "lease.module",
        "require|prefer|off",
        "Whether the server is guarded by the lease module, which refuses writes beyond the lease whatever is frozen: required of a master, where it can be had, or never",
    )
    .or("prefer"),
    Key::value("lease.module_file", "FILE", "The module; by default libaurora_redis_lease.so beside this program"),
    Key::value("lease.reads", "serve|refuse", "What a guarded master whose lease is over does with reads").or("serve"),
    Key::value("redis.port", "PORT", "TCP port of redis-server, {{thermos.ports[redis]}}"),
    Key::value("redis.server", "FILE", "The redis-server (or valkey-server) program").or("redis-server"),
    Key::value(
        "redis.server_uri",
        "URI",
        "Where to fetch the program from instead: hdfs://… or file://…; needs redis.server_sha256",
    ),
    Key::value("redis.server_sha256", "HEX", "SHA-256 of the program to fetch"),
    Key::value("redis.password_file", "FILE", "File (mode 0600) with the password of clients; without it they need none"),
    Key::table("redis.config", "Settings passed through to redis-server, e.g. maxmemory"),
];

/// The agent's settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// Connect string.
    pub zookeeper: String,
    /// ZooKeeper session wished for.
    pub zookeeper_session: std::time::Duration,
    /// `role/env/job`.
    pub cluster: String,
    /// This cluster's nodes.
    pub paths: Paths,
    /// Node that holds the master's `ip:port`.
    pub master_node: String,
    /// Aurora instance number.
    pub instance: u32,
    /// Aurora task id.
    pub task_id: String,
    /// Where the server listens and what it announces.
    pub redis: Address,
    /// Where the agent listens.
    pub http: Address,
    /// This host.
    pub host: Host,
    /// Everything the agent writes is below.
    pub sandbox: PathBuf,
    /// The cluster's secret; absent where only loopback is served.
    pub secret: Option<Secret>,
    /// Store of the snapshots; absent when none are kept.
    pub snapshots_uri: Option<String>,
    /// How a snapshot gets into a server.
    pub(crate) restore_how: RestoreHow,
    /// What of a stream may wait for the store; its directory is below the sandbox.
    pub(crate) spool: stream::Limits,
    /// Memory that must be free before a backup forks, percent of what the server uses.
    pub(crate) fork_memory_percent: u64,
    /// File that agents of one host lock before they fork.
    pub(crate) fork_lock: PathBuf,
    /// How HDFS is reached.
    pub hdfs: store::Access,
    /// The server program.
    pub program: Program,
    /// The module that bounds writes by the lease.
    pub lease_module: LeaseModule,
    /// Password of clients; absent when they need none.
    pub client_password: Option<String>,
    /// Settings passed through, several lines for several values.
    pub pass_through: BTreeMap<String, Vec<String>>,
    /// All settings in force, for printing and serving.
    pub effective: Effective,
}

/// Where the server program comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// A path, or a name looked up in `PATH`.
    Path(PathBuf),
    /// Fetched into the sandbox and checked.
    Fetched {
        /// `hdfs://…` or `file://…`.
        uri: String,
        /// SHA-256, hex.
        sha256: String,
    },
}

/// How a snapshot gets into a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum RestoreHow {
    /// It is fetched to the disk, and the server is started from there.
    #[default]
    File,
    /// The server gets it as it comes, as a replica does from its master.
    Stream,
}

impl std::str::FromStr for RestoreHow {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<RestoreHow, &'static str> {
        match text {
            "file" => Ok(RestoreHow::File),
            "stream" => Ok(RestoreHow::Stream),
            _ => Err("it is neither"),
        }
    }
}

impl Config {
    /// Reads all layers; every mistake at once.
    pub fn read(matches: &clap::ArgMatches) -> Result<Config, Mistakes> {
        Config::from_layers(Layers::read(KEYS, matches, None))
    }

    /// The clap command with every flag.
    pub fn command() -> clap::Command {
        let about = "Agent of one instance of a Redis cluster on Apache Aurora: supervises its redis-server";
        layers::flags(KEYS, clap::Command::new("aurora-redis-agent").version(env!("CARGO_PKG_VERSION")).about(about))
    }

    /// Checks and converts the values of all layers.
    pub fn from_layers(mut layers: Layers) -> Result<Config, Mistakes> {
        let cluster = layers.required("cluster", "role/env/job", parse_cluster);
        let zookeeper = layers.required("zookeeper", "HOST:PORT, several separated by commas", parse_zookeeper);
        let node = "an absolute path of ZooKeeper, such as /aurora-redis";
        let paths = Paths::new(&layers.required("zookeeper_root", node, parse_node), &cluster);
        let master_node = layers.optional("master_node", node, parse_node).unwrap_or_else(|| paths.master());
        let secret = layers.optional("secret_file", "a file of mode 0600 with at least 16 bytes", |file| {
            Secret::load(Path::new(file), &cluster).map_err(|error| chain(&error))
        });
        let address = advertised(&mut layers, &zookeeper);
        let host = host(&mut layers, &address);
        let at = |port: u64| Address { host: address.clone(), port: port as u16 };
        let mut config = Config {
            zookeeper_session: layers.duration("zookeeper_session"),
            instance: layers.number("instance", 0..=u64::from(u32::MAX)) as u32,
            task_id: layers.required("task_id", "Aurora's task id", |text| Ok::<_, String>(text.to_owned())),
            redis: at(layers.number("redis.port", 1..=65535)),
            http: at(layers.number("http_port", 1..=65535)),
            sandbox: sandbox(&mut layers),
            snapshots_uri: layers.optional("snapshots.uri", "hdfs://NAMENODE[:PORT]/PATH or file:///PATH", parse_store),
            restore_how: layers.required("snapshots.restore_how", "file or stream", str::parse),
            spool: stream::Limits {
                memory: layers.bytes("snapshots.spool_memory"),
                disk: layers.bytes("snapshots.spool_disk"),
                dir: PathBuf::new(),
            },
            fork_memory_percent: layers.number("snapshots.fork_memory_percent", 0..=u64::from(u32::MAX)),
            fork_lock: layers.path("snapshots.fork_lock").unwrap_or_else(|| forks::default_lock(&host.host_id)),
            hdfs: store::Access::read(&mut layers),
            program: program(&mut layers),
            lease_module: lease_module(&mut layers),
            client_password: layers.optional("redis.password_file", "a file of mode 0600 with one line", load_password),
            pass_through: pass_through(&mut layers),
            effective: Effective::default(),
            zookeeper,
            cluster,
            paths,
            master_node,
            host,
            secret,
        };
        if config.redis.port == config.http.port && config.http.port != 0 {
            layers.reject("http_port", "must differ from redis.port");
        }
        config.effective = layers.finish()?;
        Ok(config)
    }
}

/// The address others reach us under; without a secret only loopback may be served.
fn advertised(layers: &mut Layers, zookeeper: &str) -> String {
    let given = layers.optional("advertise_address", "an IP address of this host", |text| text.parse::<IpAddr>());
    let address = given.or_else(|| if layers.is_set("advertise_address") { None } else { route_to(zookeeper) });
    match address {
        Some(ip) if ip.is_unspecified() => layers.reject("advertise_address", "nobody can reach this address"),
        Some(ip) if !ip.is_loopback() && !layers.is_set("secret_file") => {
            let why = format!("{ip} is no loopback address: without secret_file only loopback is served");
            layers.reject("advertise_address", &why);
        }
        None if !layers.is_set("advertise_address") && !zookeeper.is_empty() => {
            layers.reject("advertise_address", "not set, and no server of zookeeper resolves to an address with a route to it");
        }
        _ => {}
    }
    address.map(|ip| ip.to_string()).unwrap_or_default()
}

fn host(layers: &mut Layers, address: &str) -> Host {
    let text = |text: &str| Ok::<_, String>(text.to_owned());
    let id = layers.optional("host_id", "a text", text);
    let machine_id = || std::fs::read_to_string("/etc/machine-id").map(|id| id.trim().to_owned()).unwrap_or_default();
    let name = layers.optional("host_name", "a text", text).unwrap_or_else(|| address.to_owned());
    process::host(&id.unwrap_or_else(machine_id), &name)
}

fn sandbox(layers: &mut Layers) -> PathBuf {
    let absolute = |text: &str| std::fs::canonicalize(text).and_then(|dir| if dir.is_dir() { Ok(dir) } else { Err(not_a_dir()) });
    let given = layers.optional("sandbox", "a directory", absolute);
    given.or_else(|| std::env::current_dir().ok()).unwrap_or_default()
}

fn not_a_dir() -> std::io::Error {
    std::io::ErrorKind::NotADirectory.into()
}

fn program(layers: &mut Layers) -> Program {
    let uri = layers.optional("redis.server_uri", "hdfs://NAMENODE[:PORT]/PATH or file:///PATH", parse_store);
    let sha256 = layers.optional("redis.server_sha256", "64 hexadecimal digits", |text| match text.len() {
        64 if text.bytes().all(|b| b.is_ascii_hexdigit()) => Ok(text.to_ascii_lowercase()),
        _ => Err("it is no SHA-256"),
    });
    for (one, other) in [("redis.server_uri", "redis.server_sha256"), ("redis.server_sha256", "redis.server_uri")] {
        if layers.is_set(one) && !layers.is_set(other) {
            layers.reject(other, &format!("must be set, for {one} is"));
        }
    }
    let path = layers.required("redis.server", "a path, or a name in PATH", |text| Ok::<_, String>(PathBuf::from(text)));
    match (uri, sha256) {
        (Some(uri), Some(sha256)) => Program::Fetched { uri, sha256 },
        _ => Program::Path(path),
    }
}

fn lease_module(layers: &mut Layers) -> LeaseModule {
    let beside = || Some(std::env::current_exe().ok()?.parent()?.join(lease_module::FILE));
    LeaseModule {
        wish: layers.required("lease.module", "require, prefer or off", str::parse),
        file: layers.path("lease.module_file").or_else(beside),
        refuses_reads: layers.required("lease.reads", "serve or refuse", |text| match text {
            "serve" => Ok(false),
            "refuse" => Ok(true),
            _ => Err("it is neither"),
        }),
    }
}

/// Why a setting of Redis cannot be passed through (the agent manages it, or it is malformed); absent when it can.
pub fn refuse_setting(key: &str, value: &str) -> Option<String> {
    conf::refuse(key).or_else(|| conf::refuse_value(value))
}

/// `[redis.config]`: `a; b` gives two lines, for settings that stand several times (`client-output-buffer-limit`).
fn pass_through(layers: &mut Layers) -> BTreeMap<String, Vec<String>> {
    let table = layers.table("redis.config");
    for (key, value) in &table {
        if let Some(why) = refuse_setting(key, value) {
            layers.reject(&format!("redis.config.{key}"), &why);
        }
    }
    let boolean = |value: &str| match value {
        "true" => "yes".to_owned(),
        "false" => "no".to_owned(),
        other => other.to_owned(),
    };
    table.into_iter().map(|(key, value)| (key, value.split("; ").map(boolean).collect())).collect()
}

fn load_password(file: &str) -> Result<String, String> {
    match read_private(file)?.trim() {
        "" => Err("it holds no password".into()),
        password if password.chars().any(char::is_control) => Err("it holds more than one line".into()),
        password => Ok(password.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENOUGH: &str = "cluster = 'www/prod/cache'\nzookeeper = '127.0.0.1:2181'\ninstance = 2\ntask_id = 't'\nhttp_port = 81\n\
                          host_id = 'h'\n[redis]\nport = 80\n";

    fn read(text: &str) -> Result<Config, Mistakes> {
        let mut layers = Layers::new(KEYS);
        layers.file(Path::new("a.toml"), text);
        Config::from_layers(layers)
    }

    #[test]
    fn what_aurora_hands_over_is_enough() {
        let config = read(ENOUGH).unwrap();
        assert_eq!((config.redis.to_string(), config.http.to_string()), ("127.0.0.1:80".into(), "127.0.0.1:81".into()));
        assert_eq!((config.host.host_id.as_str(), config.host.name.as_str()), ("h", "127.0.0.1"));
        assert_eq!(config.master_node, "/aurora-redis/www/prod/cache/master");
        assert_eq!(config.program, Program::Path("redis-server".into()));
        assert!(config.sandbox.is_absolute());
    }

    #[test]
    fn settings_are_passed_through_as_redis_writes_them() {
        let text = format!("{ENOUGH}[redis.config]\nmaxmemory = '1gb'\nactivedefrag = true\n");
        let config = read(&text).unwrap();
        assert_eq!(config.pass_through["maxmemory"], ["1gb"]);
        assert_eq!(config.pass_through["activedefrag"], ["yes"]);
    }

    #[test]
    fn mistakes_are_reported_together() {
        let text = "cluster = 'www/prod'\nzookeeper = '127.0.0.1:1'\ninstance = -1\nhttp_port = 81\nadvertise_address = '10.0.0.1'\n\
                    sandbox = '/nonexistent'\n[redis]\nport = 81\nserver_uri = 'ftp://x'\n[redis.config]\nport = 7\n'a b' = 1\n";
        let found = read(text).expect_err("mistakes").0;
        for part in [
            "a.toml:1: cluster = \"www/prod\": it has not three parts",
            "instance = \"-1\"",
            "task_id: not set",
            "advertise_address = \"10.0.0.1\": 10.0.0.1 is no loopback address",
            "sandbox = \"/nonexistent\"",
            "http_port = \"81\": must differ",
            "redis.server_uri = \"ftp://x\"",
            "redis.server_sha256: must be set",
            "redis.config.port = \"7\": managed by the agent: servers start closed",
            "redis.config.a b",
        ] {
            assert!(found.iter().any(|line| line.contains(part)), "{part} in {found:#?}");
        }
        assert_eq!(found.len(), 10, "{found:#?}");
    }

    #[test]
    fn flags_have_distinct_names_and_the_ones_aurora_passes_exist() {
        let command = Config::command();
        command.clone().debug_assert();
        let line = "x --zookeeper a:1 --cluster a/b/c --instance 1 --task-id t --redis-port 2 --http-port 3 --redis-config a=b";
        command.try_get_matches_from(line.split(' ')).unwrap();
    }
}
