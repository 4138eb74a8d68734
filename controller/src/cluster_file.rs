//! The cluster file: one TOML file that says what `aurora-redis create` makes. From it come the cluster's first [`Spec`] and the Aurora
//! job ([`ClusterFile::job`]).
//!
//! Invariant: a [`ClusterFile`] that exists has passed all checks; nothing in it can be taken for a template by the executor or for
//! anything but one word by the shell.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

pub use job::Surroundings;

use agent::config::refuse_setting;
use agent::layers::values::{parse_cluster, parse_node, parse_store, parse_zookeeper};
use agent::layers::{Key, Layers, Mistakes};
use agent::record::Durability;
use agent::snapshot::How;
use agent::timing;
use aurora::types::{Constraint, TaskConstraint, ValueConstraint};

use crate::model::{Budget, DEFAULT_SAVE, Spec};
use crate::operations::MAX_INSTANCES;

mod job;

/// Everything a cluster file can say.
pub const KEYS: &[Key] = &[
    Key::value("cluster", "ROLE/ENV/JOB", "The cluster: the key of its Aurora job"),
    Key::value("instances", "N", "Servers in all: one master, the others replicas"),
    Key::value("zookeeper", "HOST:PORT,…", "ZooKeeper as the agents reach it; by default as the command line does"),
    Key::value(
        "zookeeper_root",
        "PATH",
        "ZooKeeper node below which all clusters keep their state; by default the command line's",
    ),
    Key::value("secret_file", "FILE", "The cluster's secret on the instances' hosts; without it agents serve loopback only"),
    Key::value("save", "POINTS", "Redis' save points, set on one instance at a time; \"none\" for none").or(DEFAULT_SAVE),
    Key::value("lease", "DURATION", "How long the master may take writes after a renewal of its lease, 1s to 60s").or("2s"),
    Key::value("failsafe.max", "DURATION", "Longest time a master goes on by its replicas' promises while ZooKeeper is away")
        .or("10m"),
    Key::value("durability.acks", "N", "Replicas that confirm a write (WAIT N): such writes survive any failover").or("0"),
    Key::value(
        "failover.max_loss_bytes",
        "SIZE",
        "A failover that would lose more of the stream waits for consent; by default none does",
    ),
    Key::value("failover.max_loss_seconds", "N", "The same in seconds that the winner was behind"),
    Key::value("aurora.cluster", "NAME", "Name of the Aurora cluster").or("aurora"),
    Key::value("aurora.contact", "EMAIL", "Whom the scheduler's page names"),
    Key::value("aurora.tier", "NAME", "Aurora tier: preferred is never evicted for other jobs").or("preferred"),
    Key::value("aurora.priority", "N", "Order within the role when resources are short, higher first").or("0"),
    Key::table(
        "aurora.constraints",
        "Aurora constraints: host = \"limit:1\", rack = \"a,b\", rack = \"!c\"; by default host = \"limit:1\"",
    ),
    Key::value("resources.cpu", "CORES", "Cores of an instance").or("1"),
    Key::value("resources.ram", "SIZE", "Memory of an instance: maxmemory, and half as much again for dumps and replication"),
    Key::value("resources.disk", "SIZE", "Disk of an instance: three dumps and the logs; a task that goes over it fails"),
    Key::value("agent.program", "FILE", "The agent on the hosts, or where agent.fetch puts it").or("/usr/bin/aurora-redis-agent"),
    Key::value("agent.fetch", "COMMAND", "Shell command that runs before the agent, in the sandbox, to bring programs there"),
    Key::value("agent.config_file", "FILE", "The agent's --config on the hosts"),
    Key::value("redis.server", "FILE", "The redis-server program on the hosts; by default the agent's"),
    Key::value("redis.server_uri", "URI", "Where the agents fetch the program from instead; needs redis.server_sha256"),
    Key::value("redis.server_sha256", "HEX", "SHA-256 of the program to fetch"),
    Key::value(
        "redis.password_file",
        "FILE",
        "File (mode 0600) on the hosts with the password of clients; without it they need none",
    ),
    Key::table("redis.config", "Settings passed through to redis-server, e.g. maxmemory"),
    Key::value(
        "snapshots.uri",
        "URI",
        "Store of the snapshots: hdfs://NAMENODE[:PORT]/PATH or file:///PATH; without it none is kept",
    ),
    Key::value(
        "snapshots.how",
        "dump|stream",
        "How `backup` makes one: from a dump file that Redis writes, or from the replication stream, which needs no disk",
    )
    .or("dump"),
    agent::store::CONF_DIR,
    agent::store::KEYTAB,
    agent::store::PRINCIPAL,
    Key::value("health.grace", "DURATION", "Failed health checks are forgiven this long after a start").or("60s"),
    Key::value("health.interval", "DURATION", "Time between health checks").or("10s"),
    Key::value("health.timeout", "DURATION", "Longest answer to one").or("5s"),
    Key::value("health.failures", "N", "Failed health checks in a row that are forgiven").or("3"),
    Key::value("quit_wait", "DURATION", "Time an agent gets to end in good order before it is pressed").or("5s"),
    Key::value("abort_wait", "DURATION", "Time it gets after that before it is killed").or("2s"),
];

/// What a cluster file says.
#[derive(Clone, Debug)]
pub struct ClusterFile {
    /// `role/env/job`.
    pub cluster: String,
    /// Servers in all.
    pub instances: u32,
    /// ZooKeeper as the agents reach it; absent for the command line's.
    pub zookeeper: Option<String>,
    /// Node below which all clusters keep their state; absent for the command line's.
    pub zookeeper_root: Option<String>,
    /// Redis' `save`; empty for none.
    pub save: String,
    how: How,
    lease: Duration,
    failsafe_max: Duration,
    acks: u32,
    budget: Budget,
    aurora_cluster: String,
    contact: Option<String>,
    tier: String,
    priority: i32,
    constraints: Vec<Constraint>,
    cpu: f64,
    ram_mb: i64,
    disk_mb: i64,
    program: String,
    fetch: Option<String>,
    /// Flags of the agent by key, as given.
    passed: Vec<(&'static str, String)>,
    redis_config: BTreeMap<String, String>,
    grace: Duration,
    interval: Duration,
    timeout: Duration,
    failures: u32,
    quit_wait: Duration,
    abort_wait: Duration,
}

/// Keys that the agent understands under the same name, handed to it as flags.
const PASSED: [(&str, &str); 10] = [
    ("agent.config_file", "config"),
    ("secret_file", "secret-file"),
    ("snapshots.uri", "snapshots-uri"),
    ("hdfs.conf_dir", "hdfs-conf-dir"),
    ("hdfs.keytab", "hdfs-keytab"),
    ("hdfs.principal", "hdfs-principal"),
    ("redis.server", "redis-server"),
    ("redis.server_uri", "redis-server-uri"),
    ("redis.server_sha256", "redis-server-sha256"),
    ("redis.password_file", "redis-password-file"),
];

impl ClusterFile {
    /// Reads a cluster file; every mistake at once.
    pub fn load(path: &Path) -> Result<ClusterFile, Mistakes> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Mistakes(vec![format!("{}: cannot be read: {error}", path.display())]))?;
        let mut layers = Layers::new(KEYS);
        layers.file(path, &text);
        ClusterFile::from_layers(layers)
    }

    fn from_layers(mut layers: Layers) -> Result<ClusterFile, Mistakes> {
        let layers_ref = &mut layers;
        let file = ClusterFile {
            cluster: layers_ref.required("cluster", "role/env/job", parse_cluster),
            instances: number(layers_ref, "instances", 1..=u64::from(MAX_INSTANCES)),
            zookeeper: layers_ref.optional("zookeeper", "HOST:PORT, several separated by commas", parse_zookeeper),
            zookeeper_root: layers_ref.optional("zookeeper_root", "an absolute path of ZooKeeper", parse_node),
            save: layers_ref.required("save", "pairs of seconds and changes such as \"900 1 60 1000\", or \"none\"", parse_save),
            how: layers_ref.required("snapshots.how", "dump or stream", str::parse),
            lease: layers_ref.duration("lease"),
            failsafe_max: layers_ref.duration("failsafe.max"),
            acks: number(layers_ref, "durability.acks", 0..=u64::from(MAX_INSTANCES)),
            budget: Budget {
                max_loss_bytes: layers_ref.optional("failover.max_loss_bytes", "a size such as 10mb", agent::layers::parse_bytes),
                max_loss_seconds: layers_ref.optional("failover.max_loss_seconds", "a whole number", str::parse),
            },
            aurora_cluster: word(layers_ref, "aurora.cluster").unwrap_or_default(),
            contact: word(layers_ref, "aurora.contact"),
            tier: word(layers_ref, "aurora.tier").unwrap_or_default(),
            priority: number(layers_ref, "aurora.priority", 0..=1000) as i32,
            constraints: constraints(layers_ref),
            cpu: layers_ref.required("resources.cpu", "cores above 0, such as 0.5", parse_cpu),
            ram_mb: megabytes(layers_ref, "resources.ram", 64),
            disk_mb: megabytes(layers_ref, "resources.disk", 64),
            program: word(layers_ref, "agent.program").unwrap_or_default(),
            fetch: word(layers_ref, "agent.fetch"),
            passed: PASSED.iter().filter_map(|(key, flag)| Some((*flag, word(layers_ref, key)?))).collect(),
            redis_config: redis_config(layers_ref),
            grace: layers_ref.duration("health.grace"),
            interval: layers_ref.duration("health.interval"),
            timeout: layers_ref.duration("health.timeout"),
            failures: number(layers_ref, "health.failures", 0..=100),
            quit_wait: layers_ref.duration("quit_wait"),
            abort_wait: layers_ref.duration("abort_wait"),
        };
        file.check_together(layers_ref);
        layers.finish()?;
        Ok(file)
    }

    fn check_together(&self, layers: &mut Layers) {
        for (one, other) in [
            ("redis.server_uri", "redis.server_sha256"),
            ("redis.server_sha256", "redis.server_uri"),
            ("hdfs.keytab", "hdfs.principal"),
            ("hdfs.principal", "hdfs.keytab"),
        ] {
            if layers.is_set(one) && !layers.is_set(other) {
                layers.reject(other, &format!("not set, but {one} is"));
            }
        }
        if self.acks >= self.instances.max(1) {
            let replicas = self.instances.saturating_sub(1);
            layers.reject("durability.acks", &format!("{replicas} replicas cannot give {} acknowledgements", self.acks));
        }
        if !self.lease.is_zero() && !self.failsafe_max.is_zero() {
            for mistake in timing::lease_mistakes(self.lease, self.failsafe_max) {
                layers.reject("lease", &mistake);
            }
        }
        layers.optional("snapshots.uri", "hdfs://NAMENODE[:PORT]/PATH or file:///PATH", parse_store);
        if self.timeout > self.interval && !self.interval.is_zero() {
            layers.reject("health.timeout", "must not be longer than health.interval");
        }
    }

    /// Where its agents keep snapshots, if it says so.
    pub fn snapshots_uri(&self) -> Option<&str> {
        self.passed.iter().find(|(flag, _)| *flag == "snapshots-uri").map(|(_, uri)| uri.as_str())
    }

    /// The spec that the cluster starts with.
    pub fn spec(&self, by: &str, now_ms: u64) -> Spec {
        Spec {
            generation: 1,
            instances: self.instances,
            save: self.save.clone(),
            snapshots_how: self.how,
            lease_ms: self.lease.as_millis() as u64,
            failsafe_max_ms: self.failsafe_max.as_millis() as u64,
            durability: Durability { acks: self.acks },
            failover: self.budget,
            changed_by: by.into(),
            changed_ms: now_ms,
        }
    }
}

fn number(layers: &mut Layers, key: &str, range: std::ops::RangeInclusive<u64>) -> u32 {
    u32::try_from(layers.number(key, range)).unwrap_or(u32::MAX)
}

/// A text that the executor does not take for a template.
fn word(layers: &mut Layers, key: &str) -> Option<String> {
    layers.optional(key, "a text on one line without '{{'", plain)
}

fn plain(text: &str) -> Result<String, String> {
    match () {
        () if text.contains("{{") => Err("the executor would take '{{' for a template".into()),
        () if text.chars().any(char::is_control) => Err("it has control characters".into()),
        () => Ok(text.into()),
    }
}

fn parse_save(text: &str) -> Result<String, String> {
    if text == "none" {
        return Ok(String::new());
    }
    let numbers: Result<Vec<u32>, _> = text.split_whitespace().map(str::parse).collect();
    match numbers {
        Ok(numbers) if !numbers.is_empty() && numbers.len() % 2 == 0 && !numbers.contains(&0) => {
            Ok(numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(" "))
        }
        _ => Err("they are not pairs of whole numbers above 0".into()),
    }
}

fn parse_cpu(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(cpu) if cpu > 0.0 && cpu <= 1024.0 => Ok(cpu),
        _ => Err("it is no such number".into()),
    }
}

/// A size in whole MiB.
fn megabytes(layers: &mut Layers, key: &str, least: i64) -> i64 {
    let allowed = format!("a size of at least {least}mb, such as 4gb");
    layers.required(key, &allowed, |text| {
        let mb = i64::try_from(agent::layers::parse_bytes(text)? >> 20).map_err(|_| "it is too large".to_owned())?;
        if mb >= least { Ok(mb) } else { Err("it is too small".to_owned()) }
    })
}

fn redis_config(layers: &mut Layers) -> BTreeMap<String, String> {
    let config = layers.table("redis.config");
    for (name, value) in &config {
        if let Some(problem) = refuse_setting(name, value).or_else(|| plain(value).err()) {
            layers.reject(&format!("redis.config.{name}"), &problem);
        }
    }
    config
}

fn constraints(layers: &mut Layers) -> Vec<Constraint> {
    let mut table = layers.table("aurora.constraints");
    if !layers.is_set("aurora.constraints") {
        table.insert("host".into(), "limit:1".into());
    }
    let mut constraints = Vec::new();
    for (name, text) in table {
        match parse_constraint(&text) {
            Ok(constraint) => constraints.push(Constraint { name, constraint }),
            Err(problem) => layers.reject(&format!("aurora.constraints.{name}"), &problem),
        }
    }
    constraints
}

fn parse_constraint(text: &str) -> Result<TaskConstraint, String> {
    const ALLOWED: &str = "allowed is limit:N, a value, several separated by commas, or either after '!'";
    if let Some(limit) = text.strip_prefix("limit:") {
        return match limit.parse::<i32>() {
            Ok(limit @ 1..) => Ok(TaskConstraint::Limit(limit)),
            _ => Err(format!("'{limit}' is no limit; {ALLOWED}")),
        };
    }
    let (negated, values) = text.strip_prefix('!').map_or((false, text), |values| (true, values));
    let values: Vec<String> = values.split(',').map(|value| value.trim().to_owned()).collect();
    if values.iter().any(String::is_empty) {
        return Err(format!("a value is empty; {ALLOWED}"));
    }
    Ok(TaskConstraint::Value(ValueConstraint { negated, values }))
}

#[cfg(test)]
mod tests;
