//! What the controller is told at start: keys, defaults and checks, in one place. `main` reads it once, everything else receives
//! typed values. The command line shares the keys that name the cluster and its surroundings ([`Place`]).
//!
//! Invariant: a [`Config`] that exists has passed all checks, also those between values.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use agent::causes::chain;
use agent::layers::values::{parse_cluster, parse_node, parse_store, parse_zookeeper, read_private, route_to};
use agent::layers::{self, Effective, Key, Layers, Mistakes, show_duration};
use agent::record::Paths;
use agent::secret::Secret;
use agent::snapshot::Guard;
use agent::store;
use agent::zk::Keeper;
use aurora::client::{self, Endpoint};

use crate::model::Timing;
use crate::schedule::{self, Policy, Schedule};

/// How often an agent speaks even when nothing changed.
const HEARTBEAT: Duration = Duration::from_millis(250);

const CLUSTER: Key = Key::value("cluster", "ROLE/ENV/JOB", "The cluster: the key of its Aurora job");
const ZOOKEEPER: Key = Key::value("zookeeper", "HOST:PORT,…", "ZooKeeper's servers, as a connect string");
const ZOOKEEPER_ROOT: Key =
    Key::value("zookeeper_root", "PATH", "ZooKeeper node below which all clusters keep their state").or("/aurora-redis");
const SCHEDULER: Key =
    Key::value("scheduler", "PATH|URL", "Aurora's scheduler: the ZooKeeper path of its leader, or the URL of one scheduler")
        .or("/aurora/scheduler");
const SCHEDULER_CREDENTIALS: Key = Key::value(
    "scheduler_credentials_file",
    "FILE",
    "File (mode 0600) with USER:PASSWORD for the scheduler; without it no credentials are sent",
);
const SERVERSET_ROOT: Key =
    Key::value("serverset_root", "PATH", "ZooKeeper node below which Aurora's executors announce tasks").or("/aurora");
const SECRET_FILE: Key = Key::value(
    "secret_file",
    "FILE",
    "The cluster's secret (mode 0600, the same on every host); without it only loopback is served and no token asked",
);
const SNAPSHOTS_URI: Key = Key::value(
    "snapshots.uri",
    "URI",
    "Store of the snapshots: hdfs://NAMENODE[:PORT]/PATH or file:///PATH; without it none is kept",
);

const COLLAPSE_PERCENT: Key = Key::value(
    "snapshots.collapse_percent",
    "NUMBER",
    "A snapshot with less than so many percent of the keys or bytes of the one before it is suspicious, and not used by itself; 0 for none",
)
.or("10");

/// What the command line understands besides its commands' own arguments.
pub const COMMAND_LINE_KEYS: &[Key] = &[
    CLUSTER,
    ZOOKEEPER,
    ZOOKEEPER_ROOT,
    SCHEDULER,
    SCHEDULER_CREDENTIALS,
    SERVERSET_ROOT,
    SECRET_FILE,
    SNAPSHOTS_URI,
    store::CONF_DIR,
    store::KEYTAB,
    store::PRINCIPAL,
    COLLAPSE_PERCENT,
    Key::value("output", "table|json", "For people or for programs").or("table"),
];

/// Everything the controller understands.
pub const KEYS: &[Key] = &[
    CLUSTER,
    ZOOKEEPER,
    ZOOKEEPER_ROOT,
    SCHEDULER,
    SCHEDULER_CREDENTIALS,
    SERVERSET_ROOT,
    SECRET_FILE,
    SNAPSHOTS_URI,
    store::CONF_DIR,
    store::KEYTAB,
    store::PRINCIPAL,
    COLLAPSE_PERCENT,
    Key::value(
        "http_host",
        "IP",
        "Address the HTTP server listens on; by default 127.0.0.1 without secret_file, and 0.0.0.0 with one",
    ),
    Key::value("http_port", "PORT", "Port of the HTTP server; 0 takes any free one").or("8090"),
    Key::value(
        "advertise",
        "URL",
        "URL under which others reach this controller; by default made from the address listened on, or from the route to ZooKeeper",
    ),
    Key::value("zookeeper_session", "DURATION", "ZooKeeper session: how long a lost controller stays elected").or("6s"),
    Key::value("agents.silent_after", "DURATION", "Silence after which an agent counts as silent").or("1s"),
    Key::value("agents.command_timeout", "DURATION", "Longest wait for an agent's answer to a command").or("5s"),
    Key::value("bootstrap.wait", "DURATION", "How long a first start waits for all instances to be there").or("60s"),
    Key::value(
        "failover.cooldown",
        "DURATION",
        "No second failover on a silent master within this time; a dead one is replaced at once",
    )
    .or("60s"),
    Key::value("failover.cut_wait", "DURATION", "How long a failover waits for survivors that answer but are not cut off yet")
        .or("1s"),
    Key::value("failover.promote_wait", "DURATION", "How long a named winner may take to open before another is tried").or("20s"),
    Key::value("zombie_after", "DURATION", "A running task whose agent is silent for so long is restarted through Aurora")
        .or("2m"),
    Key::value(
        "snapshots.schedule",
        "SCHEDULE",
        "When a backup is made, besides those of Redis' own save points: @hourly, @daily, five cron fields (UTC), or 'every 30m'; without it none is",
    ),
    Key::value(
        "snapshots.verify_schedule",
        "SCHEDULE",
        "When the newest snapshot is read back and loaded into a throw-away server on this controller's host; without it never",
    ),
    Key::value(
        "snapshots.rehearse_schedule",
        "SCHEDULE",
        "When a whole restore is rehearsed, into a throw-away server on this controller's host; without it never",
    ),
    Key::value(
        "snapshots.redis_server",
        "FILE",
        "The server that loads snapshots to verify them; otherwise the redis-server or valkey-server on the path",
    ),
    Key::value("snapshots.scratch", "DIR", "Directory in which snapshots are loaded to verify them; otherwise TMPDIR, or /tmp"),
    Key::value("cycle", "DURATION", "Longest time between two cycles when nothing happens").or("1s"),
];

/// Where a cluster lives: what controller and command line both need.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// `role/env/job`.
    pub cluster: String,
    /// Connect string.
    pub zookeeper: String,
    /// Node below which all clusters keep their state.
    pub zookeeper_root: String,
    /// How to find Aurora's scheduler.
    pub scheduler: Scheduler,
    /// Node below which Aurora's executors announce.
    pub serverset_root: String,
    /// File of the cluster's secret; absent where only loopback is served.
    pub secret_file: Option<PathBuf>,
    /// The secret itself, loaded and checked; absent without a file.
    pub secret: Option<Secret>,
    /// Store of the snapshots; absent when none are kept.
    pub snapshots_uri: Option<String>,
    /// How HDFS is reached.
    pub hdfs: store::Access,
    /// When a snapshot is suspicious.
    pub guard: Guard,
}

/// How to find Aurora's scheduler.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scheduler {
    /// ZooKeeper path of the leader, or `http://…`.
    pub at: String,
    /// User and password; absent when none are sent.
    pub credentials: Option<Credentials>,
}

impl Scheduler {
    /// Whether [`Scheduler::at`] is a URL rather than a ZooKeeper path.
    pub fn is_url(&self) -> bool {
        !self.at.starts_with('/')
    }

    /// A client of that scheduler; a ZooKeeper path is looked up through `keeper` at each call.
    ///
    /// # Errors
    /// The URL is none of a scheduler.
    pub fn client(&self, keeper: &Keeper) -> Result<aurora::Client, aurora::Error> {
        let endpoint = if self.is_url() {
            Endpoint::url(&self.at)?
        } else {
            let keeper = keeper.clone();
            Endpoint::zookeeper(&self.at, Arc::new(move || keeper.client().map_err(Into::into)))
        };
        let credentials = self.credentials.as_ref();
        let credentials = credentials.map(|c| client::Credentials { user: c.user.clone(), password: c.password.clone() });
        Ok(aurora::Client::new(endpoint, client::Options { credentials, ..client::Options::default() }))
    }
}

/// User and password. `Debug` hides the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User.
    pub user: String,
    /// Password.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({})", self.user)
    }
}

impl Place {
    /// Paths of this cluster's nodes.
    pub fn paths(&self) -> Paths {
        Paths::new(&self.zookeeper_root, &self.cluster)
    }

    /// Node below which Aurora announces this cluster's tasks.
    pub fn serverset(&self) -> String {
        format!("{}/{}", self.serverset_root, self.cluster)
    }

    /// Reads and checks the shared keys.
    pub fn read(layers: &mut Layers) -> Place {
        let cluster = layers.required("cluster", "role/env/job", parse_cluster);
        let zookeeper = layers.required("zookeeper", "HOST:PORT, several separated by commas", parse_zookeeper);
        let path = "an absolute path of ZooKeeper, such as /aurora";
        let zookeeper_root = layers.required("zookeeper_root", path, parse_node);
        let serverset_root = layers.required("serverset_root", path, parse_node);
        let at = layers.required("scheduler", "an absolute path of ZooKeeper, or http://HOST:PORT", parse_scheduler);
        let credentials =
            layers.optional("scheduler_credentials_file", "a file of mode 0600 with USER:PASSWORD", load_credentials);
        let secret_file = layers.path("secret_file");
        let secret = layers.optional("secret_file", "a file of mode 0600 with at least 16 bytes", |file| {
            Secret::load(Path::new(file), &cluster).map_err(|error| chain(&error))
        });
        let snapshots_uri = layers.optional("snapshots.uri", "hdfs://NAMENODE[:PORT]/PATH or file:///PATH", parse_store);
        let hdfs = store::Access::read(layers);
        let guard = Guard { percent: layers.number("snapshots.collapse_percent", 0..=100) as u32 };
        let scheduler = Scheduler { at, credentials };
        Place { cluster, zookeeper, zookeeper_root, scheduler, serverset_root, secret_file, secret, snapshots_uri, hdfs, guard }
    }
}

/// The controller's settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster and its surroundings.
    pub place: Place,
    /// Address of the HTTP server; port 0 takes any free one.
    pub listen: SocketAddr,
    /// URL others reach us under, when set; see [`Config::advertised`].
    pub advertise: Option<String>,
    /// Waits of the decisions.
    pub timing: Timing,
    /// What is done by the clock.
    pub policy: Policy,
    /// The server that loads snapshots to verify them; absent for the one on the path.
    pub redis_server: Option<PathBuf>,
    /// Directory in which snapshots are loaded.
    pub scratch: PathBuf,
    /// ZooKeeper session wished for.
    pub zookeeper_session: Duration,
    /// Longest wait for an agent's answer to a command.
    pub command_timeout: Duration,
    /// Longest time between two cycles.
    pub cycle: Duration,
    /// All settings in force, for printing and serving.
    pub effective: Effective,
}

impl Config {
    /// Reads all layers; every mistake at once.
    pub fn read(matches: &clap::ArgMatches) -> Result<Config, Mistakes> {
        Config::from_layers(Layers::read(KEYS, matches, None))
    }

    /// The clap command with every flag.
    pub fn command() -> clap::Command {
        let about = "Controller of one Redis cluster on Apache Aurora: observes it, decides what it should look like, has the agents do it";
        layers::flags(KEYS, clap::Command::new("aurora-redis-controller").version(env!("CARGO_PKG_VERSION")).about(about))
    }

    fn from_layers(mut layers: Layers) -> Result<Config, Mistakes> {
        let place = Place::read(&mut layers);
        let host = layers.optional("http_host", "an IP address", |text| text.parse::<IpAddr>());
        let port = layers.number("http_port", 0..=65535) as u16;
        let alone = place.secret_file.is_none();
        let listen = SocketAddr::new(host.unwrap_or(if alone { [127, 0, 0, 1] } else { [0, 0, 0, 0] }.into()), port);
        if alone && !listen.ip().is_loopback() {
            layers.reject(
                "http_host",
                "without secret_file only a loopback address may be served; set secret_file, or 127.0.0.1 here",
            );
        }
        let advertise = layers.optional("advertise", "http://HOST:PORT", parse_url);
        let timing = Timing {
            silent_after: layers.duration("agents.silent_after"),
            bootstrap_wait: layers.duration("bootstrap.wait"),
            cooldown: layers.duration("failover.cooldown"),
            cut_wait: layers.duration("failover.cut_wait"),
            promote_wait: layers.duration("failover.promote_wait"),
            zombie_after: layers.duration("zombie_after"),
        };
        let policy = read_policy(&mut layers, place.snapshots_uri.is_some());
        let (redis_server, scratch) = (layers.path("snapshots.redis_server"), layers.path("snapshots.scratch"));
        let mut config = Config {
            place,
            listen,
            advertise,
            timing,
            policy,
            redis_server,
            scratch: scratch.unwrap_or_else(std::env::temp_dir),
            zookeeper_session: layers.duration("zookeeper_session"),
            command_timeout: layers.duration("agents.command_timeout"),
            cycle: layers.duration("cycle"),
            effective: Effective::default(),
        };
        config.check_times(&mut layers);
        config.effective = layers.finish()?;
        Ok(config)
    }

    /// The relations between times; a zero stands for one that was wrong already.
    fn check_times(&self, layers: &mut Layers) {
        let mut at_least = |key, value: Duration, least: Duration, what: &str| {
            if !value.is_zero() && value < least {
                layers.reject(key, &format!("must be at least {what} = {}", show_duration(least)));
            }
        };
        let silent_after = self.timing.silent_after;
        at_least("agents.silent_after", silent_after, HEARTBEAT * 3, "three heartbeats of an agent");
        at_least("zombie_after", self.timing.zombie_after, silent_after * 10, "10 x agents.silent_after");
        let session = "2 x agents.silent_after, or controllers change before agents are silent:";
        at_least("zookeeper_session", self.zookeeper_session, silent_after * 2, session);
    }

    /// The URL for the election node, once the server listens on `bound`.
    pub fn advertised(&self, bound: SocketAddr) -> String {
        let own = || if bound.ip().is_unspecified() { route_to(&self.place.zookeeper) } else { Some(bound.ip()) };
        let derived = || format!("http://{}", SocketAddr::new(own().unwrap_or(bound.ip()), bound.port()));
        self.advertise.clone().unwrap_or_else(derived)
    }
}

/// The three schedules; each needs a store.
fn read_policy(layers: &mut Layers, store: bool) -> Policy {
    let mut read = |key: &str| {
        let schedule = layers.optional(key, schedule::ALLOWED, str::parse::<Schedule>);
        if schedule.is_some() && !store {
            layers.reject(key, "there is no store to keep snapshots in: set snapshots.uri");
        }
        schedule
    };
    Policy {
        backup: read("snapshots.schedule"),
        verify: read("snapshots.verify_schedule"),
        rehearse: read("snapshots.rehearse_schedule"),
    }
}

fn parse_url(text: &str) -> Result<String, String> {
    let trimmed = text.trim_end_matches('/');
    let url: reqwest::Url = trimmed.parse().map_err(|error| format!("it is not a URL ({error})"))?;
    match url.scheme() {
        "http" if url.host().is_some() => Ok(trimmed.into()),
        other => Err(format!("'{other}' is not served")),
    }
}

fn parse_scheduler(text: &str) -> Result<String, String> {
    if text.starts_with('/') { parse_node(text) } else { parse_url(text) }
}

fn load_credentials(file: &str) -> Result<Credentials, String> {
    match read_private(file)?.trim().split_once(':') {
        Some((user, password)) if !user.is_empty() => Ok(Credentials { user: user.into(), password: password.into() }),
        _ => Err("it does not hold USER:PASSWORD".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, Mistakes> {
        let mut layers = Layers::new(KEYS);
        layers.file(Path::new("c.toml"), text);
        Config::from_layers(layers)
    }

    #[test]
    fn two_settings_are_enough() {
        let config = read("cluster = 'www/prod/cache'\nzookeeper = 'zk1:2181,zk2:2181'\n").unwrap();
        assert_eq!(config.place.paths().root(), "/aurora-redis/www/prod/cache");
        assert_eq!(config.place.serverset(), "/aurora/www/prod/cache");
        assert_eq!(config.timing.silent_after, Duration::from_secs(1));
        assert_eq!(config.timing.bootstrap_wait, Duration::from_secs(60));
        assert!(!config.place.scheduler.is_url());
        assert_eq!(config.advertised("127.0.0.1:8090".parse().unwrap()), "http://127.0.0.1:8090");
    }

    #[test]
    fn mistakes_are_reported_together() {
        let text = "cluster = 'www/prod'\nzookeeper = 'zk1'\nscheduler = 'ftp://x'\nhttp_port = 70000\nsecret_file = '/nonexistent'\n\
                    zookeeper_root = 'x'\n[snapshots]\nuri = 's3://x'\n[agents]\nsilent_after = '0.5s'\nsilent = '3s'\n";
        let found = read(text).expect_err("mistakes").0;
        for part in [
            "c.toml:1: cluster = \"www/prod\": it has not three parts",
            "zookeeper = \"zk1\": 'zk1' is not HOST:PORT",
            "scheduler = \"ftp://x\"",
            "secret_file = \"/nonexistent\": cannot read secret file /nonexistent: No such file",
            "zookeeper_root = \"x\"",
            "http_port = \"70000\": it is out of range",
            "snapshots.uri = \"s3://x\"",
            "agents.silent: no such setting",
            "agents.silent_after = \"0.5s\": must be at least three heartbeats of an agent = 750ms",
        ] {
            assert!(found.iter().any(|line| line.contains(part)), "{part} in {found:#?}");
        }
        assert_eq!(found.len(), 9, "{found:#?}");
    }

    #[test]
    fn schedules_are_read_and_refused_with_what_is_allowed() {
        let base = "cluster = 'a/b/c'\nzookeeper = 'z:1'\n[snapshots]\n";
        let config = read(&format!("{base}uri = 'file:///x'\nschedule = '@hourly'\nrehearse_schedule = '0 4 * * SUN'")).unwrap();
        assert_eq!(config.policy.backup.as_ref().map(ToString::to_string).as_deref(), Some("@hourly"));
        assert!(config.policy.verify.is_none() && config.policy.rehearse.is_some());
        let found =
            read(&format!("{base}uri = 'file:///x'\nschedule = '@often'\nverify_schedule = 'every 2d'")).expect_err("refused").0;
        assert!(found[0].contains("snapshots.schedule = \"@often\": there is no such word; allowed is @hourly"), "{found:#?}");
        assert!(found[1].contains("snapshots.verify_schedule = \"every 2d\": 'd' is not a unit of time"), "{found:#?}");
        let found = read(&format!("{base}schedule = '@daily'")).expect_err("refused").0;
        assert!(found[0].contains("set snapshots.uri"), "{found:#?}");
    }

    #[test]
    fn without_a_secret_only_loopback_is_served() {
        let found = read("cluster = 'a/b/c'\nzookeeper = 'z:1'\nhttp_host = '0.0.0.0'").expect_err("refused").0;
        assert!(found[0].contains("http_host = \"0.0.0.0\": without secret_file only a loopback address"), "{found:#?}");
    }

    #[test]
    fn flags_have_distinct_names_and_variables() {
        Config::command().debug_assert();
        let mut names: Vec<String> = KEYS.iter().map(Key::variable).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), KEYS.len());
    }

    #[test]
    fn an_address_to_advertise_is_found_by_the_route() {
        let mut config = read("cluster = 'a/b/c'\nzookeeper = '127.0.0.1:2181'").unwrap();
        assert_eq!(config.advertised("0.0.0.0:81".parse().unwrap()), "http://127.0.0.1:81");
        config.advertise = Some("http://me:1".into());
        assert_eq!(config.advertised("0.0.0.0:81".parse().unwrap()), "http://me:1");
    }
}
