//! What kind of cluster, and the files that make it so.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::Result;

use super::CLUSTER;
use crate::harness::zookeeper::{Version, ZooKeeper};
use crate::harness::{Bench, binaries, redis};

/// Where snapshots go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// A directory: fast, for tests whose subject is something else.
    Files,
    /// A real HDFS with that many DataNodes.
    Hdfs(usize),
    /// The same with two NameNodes, one of them active.
    Pair(usize),
    /// A real HDFS with one DataNode, secured by Kerberos, its clients' tickets good for ten seconds, every byte signed.
    Secured,
    /// The same with two NameNodes, one of them active, and every byte encrypted.
    SecuredPair,
    /// A real HDFS with one DataNode on a disk of that many MiB.
    SmallDisk(u32),
}

/// What kind of cluster.
#[derive(Clone, Debug)]
pub struct Options {
    /// Redis instances.
    pub instances: u32,
    /// Hosts they are spread over; on a bench with a network these are its hosts.
    pub hosts: usize,
    /// Controllers.
    pub controllers: usize,
    /// ZooKeeper servers.
    pub zookeepers: usize,
    /// Which ZooKeeper.
    pub zookeeper: Version,
    /// Which server program.
    pub server: redis::Server,
    /// Where snapshots go.
    pub store: Store,
    /// Redis' save points, as the cluster file has them.
    pub save: String,
    /// Lines for the cluster file's `[redis.config]`, e.g. `save = ""`.
    pub redis_config: String,
    /// Lines for the cluster file before its tables, e.g. `durability.acks = 1`.
    pub cluster_config: String,
    /// Lines for the agents' configuration, e.g. `lease.module = 'off'`.
    pub agent_config: String,
    /// Lines for the controllers' configuration, e.g. `zookeeper_session = '2s'`.
    pub controller_config: String,
    /// Each host has a wall clock of its own that can jump.
    pub clocks: bool,
    /// Agents can be held back before they start ([`super::Cluster::hold`]), and start on another host id ([`super::Cluster::rehost`]).
    pub held: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            instances: 3,
            hosts: 3,
            controllers: 1,
            zookeepers: 1,
            zookeeper: Version::Debian,
            server: redis::Server::Debian,
            store: Store::Files,
            save: controller::model::DEFAULT_SAVE.into(),
            redis_config: String::new(),
            cluster_config: String::new(),
            agent_config: String::new(),
            controller_config: String::new(),
            clocks: false,
            held: false,
        }
    }
}

/// The configuration files of all programs.
#[derive(Debug)]
pub struct Files {
    pub agent: PathBuf,
    pub controller: PathBuf,
    pub cluster: PathBuf,
    pub cli: PathBuf,
}
impl Files {
    /// Writes the configuration of agents, controllers and command line, the cluster file and the secret.
    pub fn write(bench: &Bench, options: &Options, zookeeper: &ZooKeeper, store: &str, hdfs: &str) -> Result<Files> {
        let dir = bench.dir();
        let secret = dir.join("secret");
        std::fs::write(&secret, uuid::Uuid::new_v4().simple().to_string())?;
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600))?;
        let place = format!("secret_file = '{}'\nsnapshots.uri = '{store}'\n", secret.display());
        let named = format!("cluster = '{CLUSTER}'\nzookeeper = '{}'\n{place}{hdfs}", zookeeper.connect_string());
        // Placement takes the least loaded host, so a wide limit still spreads them.
        let cluster = format!(
            "cluster = '{CLUSTER}'\ninstances = {}\n{place}save = '{}'\nquit_wait = '5s'\naurora.constraints.host = 'limit:9'\n{}\n\
             [resources]\ncpu = 0.1\nram = '256mb'\ndisk = '1gb'\n\
             [agent]\nprogram = '{}'\nconfig_file = '{}'\n[health]\ninterval = '2s'\ntimeout = '2s'\nfailures = 20\n",
            options.instances,
            options.save,
            options.cluster_config,
            agent_program(bench, options.held)?.display(),
            dir.join("agent.toml").display(),
        );
        let Options { agent_config, redis_config, .. } = options;
        let server = options.server.path()?;
        let agent = format!("{hdfs}{agent_config}[redis]\nserver = '{}'\n[redis.config]\n{redis_config}", server.display());
        let files = Files {
            agent: dir.join("agent.toml"),
            controller: dir.join("controller.toml"),
            cluster: dir.join("cluster.toml"),
            cli: dir.join("cli.toml"),
        };
        std::fs::write(&files.agent, agent)?;
        std::fs::write(&files.controller, format!("{named}bootstrap.wait = '20s'\n{}", options.controller_config))?;
        std::fs::write(&files.cli, named)?;
        std::fs::write(&files.cluster, cluster)?;
        Ok(files)
    }
}

/// What the scheduler starts as the agent: the agent itself, or a script that first waits while a file `held-<instance>` is there, and then
/// gives it the host id in the file `host-<instance>`, if there is one.
fn agent_program(bench: &Bench, held: bool) -> Result<PathBuf> {
    let agent = binaries::ours("aurora-redis-agent")?;
    // Tasks start with an environment of their own, so what the bench sets has to be set again.
    let sets: Vec<String> = bench.env().iter().map(|(name, value)| format!("export {name}='{}'\n", value.display())).collect();
    if !held && sets.is_empty() {
        return Ok(agent);
    }
    let dir = bench.dir();
    let script = dir.join("held-agent");
    let sets = sets.concat();
    let find = "for word; do [ \"$last\" = --instance ] && instance=$word; last=$word; done";
    let wait = format!("while [ -e '{}'/held-\"$instance\" ]; do sleep 0.05; done", dir.display());
    let id = format!("id='{}'/host-\"$instance\"; [ ! -e \"$id\" ] || set -- \"$@\" --host-id \"$(cat \"$id\")\"", dir.display());
    std::fs::write(&script, format!("#!/bin/sh\n{sets}{find}\n{wait}\n{id}\nexec '{}' \"$@\"\n", agent.display()))?;
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))?;
    Ok(script)
}
