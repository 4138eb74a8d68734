//! A real HDFS from Maven's jars: one NameNode or a pair and some DataNodes as processes, killed, frozen and restarted by pid. Secured by
//! Kerberos where it is asked for.
//!
//! Timings are small, so that a dead DataNode is noticed in 12 s instead of 10 min; nothing else is unlike a real one. DataNodes keep their
//! ports through a restart: clients sent to the old one would fail otherwise.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use super::bench::Bench;
use super::kdc::{Kdc, REALM};
use super::netns::Host;
use super::ports::Port;
use super::process::Process;
use super::{binaries, wait};

mod site;

const HA_ADMIN: &str = "org.apache.hadoop.hdfs.tools.DFSHAAdmin";
/// Lifetime of the tickets of a secured one's clients.
pub const TICKETS: Duration = Duration::from_secs(10);
const HOUR: Duration = Duration::from_secs(3600);
/// `hdfs dfs`.
pub const FS_SHELL: &str = "org.apache.hadoop.fs.FsShell";
/// `hdfs dfsadmin`.
pub const ADMIN: &str = "org.apache.hadoop.hdfs.tools.DFSAdmin";
const NAMENODE: &str = "org.apache.hadoop.hdfs.server.namenode.NameNode";
const DATANODE: &str = "org.apache.hadoop.hdfs.server.datanode.DataNode";
/// The pair's name.
const NAMESERVICE: &str = "pair";
/// How long a start may take; some seconds are usual, half a minute when the machine is busy.
const START: Duration = Duration::from_secs(90);

/// What kind of HDFS.
#[derive(Debug, Default)]
pub struct Plan {
    /// DataNodes.
    pub datanodes: usize,
    /// Two NameNodes, the first active, under one nameservice.
    pub pair: bool,
    /// Secured by this KDC, and what becomes of bytes on their way then.
    pub kdc: Option<Kdc>,
    /// Of one that is secured.
    pub protection: Protection,
    /// Size of each DataNode's disk, MiB; absent for the machine's. Needs root.
    pub disk_mib: Option<u32>,
}

/// What is done to bytes between clients and a secured HDFS (`hadoop.rpc.protection`, `dfs.data.transfer.protection`).
#[derive(Clone, Copy, Debug, Default)]
pub enum Protection {
    /// Signed.
    #[default]
    Integrity,
    /// Encrypted.
    Privacy,
}

/// NameNode and DataNodes.
#[derive(Debug)]
pub struct Hdfs {
    /// The KDC of one that is secured.
    pub kdc: Option<Kdc>,
    bench: Arc<Bench>,
    host: Host,
    namenodes: Vec<Daemon>,
    /// Which of them is active, or was when it was killed.
    active: usize,
    datanodes: Vec<Daemon>,
    /// Keytabs of daemons and of clients, where it is secured.
    keytabs: Option<[PathBuf; 2]>,
    protection: Protection,
    disk_mib: Option<u32>,
}

#[derive(Debug)]
struct Daemon {
    name: String,
    class: &'static str,
    /// Its configuration, first on its class path.
    conf: PathBuf,
    ports: Vec<Port>,
    process: Option<Process>,
}

impl Hdfs {
    /// Formats and starts it outside the hosts with so many DataNodes, and waits until it can be written to.
    pub async fn start(bench: &Arc<Bench>, datanodes: usize) -> Result<Hdfs> {
        Hdfs::start_as(bench, Plan { datanodes, ..Plan::default() }).await
    }

    /// As [`Hdfs::start`], of any kind.
    pub async fn start_as(bench: &Arc<Bench>, plan: Plan) -> Result<Hdfs> {
        let host = bench.here();
        let daemon = |name: String, class, ports| -> Result<Daemon> {
            let conf = bench.subdir(&format!("hdfs/{name}/conf"))?;
            let ports = (0..ports).map(|_| bench.port(&host)).collect::<Result<Vec<Port>>>()?;
            Ok(Daemon { name, class, conf, ports, process: None })
        };
        let namenodes = (1..=if plan.pair { 2 } else { 1 }).map(|i| daemon(format!("namenode{i}"), NAMENODE, 2));
        let namenodes = namenodes.collect::<Result<Vec<_>>>()?;
        let datanodes = (1..=plan.datanodes).map(|i| daemon(format!("datanode{i}"), DATANODE, 3)).collect::<Result<Vec<_>>>()?;
        let bench = bench.clone();
        let Plan { kdc, protection, disk_mib, .. } = plan;
        let mut hdfs = Hdfs { kdc, bench, host, namenodes, active: 0, datanodes, keytabs: None, protection, disk_mib };
        hdfs.make_keytabs()?;
        hdfs.write_configuration()?;
        hdfs.format().await?;
        for i in 0..hdfs.namenodes.len() {
            hdfs.namenodes[i].process = Some(hdfs.launch(&hdfs.namenodes[i])?);
        }
        for i in 0..hdfs.datanodes.len() {
            hdfs.datanodes[i].process = Some(hdfs.launch(&hdfs.datanodes[i])?);
        }
        if hdfs.namenodes.len() > 1 {
            hdfs.activate(0).await?;
        }
        hdfs.wait_writable(hdfs.datanodes.len()).await?;
        if hdfs.kdc.is_some() {
            hdfs.tool(FS_SHELL, &["-mkdir", "/aurora-redis"]).await?;
            hdfs.tool(FS_SHELL, &["-chown", "aurora", "/aurora-redis"]).await?;
        }
        Ok(hdfs)
    }

    /// `hdfs://host:port`, or `hdfs://nameservice` of a pair.
    pub fn uri(&self) -> String {
        match &self.namenodes[..] {
            [only] => format!("hdfs://{}:{}", self.host.address, only.ports[0].number()),
            _ => format!("hdfs://{NAMESERVICE}"),
        }
    }

    /// Keytab of the clients' principal `aurora`, where it is secured.
    pub fn client_keytab(&self) -> Option<&Path> {
        self.keytabs.as_ref().map(|[_, clients]| clients.as_path())
    }

    /// Lines for the configuration of our programs, where the address is not enough.
    pub fn client_config(&self) -> String {
        let mut lines = String::new();
        if self.namenodes.len() > 1 || self.keytabs.is_some() {
            lines += &format!("hdfs.conf_dir = '{}'\n", self.conf_dir().display());
        }
        if let Some(keytab) = self.client_keytab() {
            lines += &format!("hdfs.keytab = '{}'\nhdfs.principal = 'aurora'\n", keytab.display());
        }
        lines
    }

    /// Makes NameNode `i` of a pair the active one, whatever the other one says or does.
    pub async fn activate(&mut self, i: usize) -> Result<()> {
        let name = format!("nn{}", i + 1);
        let other = 1 - i;
        if self.namenodes[other].process.is_some() && self.active == other {
            // A frozen one cannot be asked, and need not.
            let _ = tokio::time::timeout(
                Duration::from_secs(5),
                self.tool(HA_ADMIN, &["-transitionToStandby", &format!("nn{}", other + 1)]),
            )
            .await;
        }
        wait::until(&format!("{name} is active"), START, async || {
            self.tool(HA_ADMIN, &["-transitionToActive", "--forceactive", &name]).await
        })
        .await?;
        self.active = i;
        Ok(())
    }

    /// Which of a pair's NameNodes is active, or was when it was killed.
    pub fn active(&self) -> usize {
        self.active
    }

    /// Directory of core-site.xml and hdfs-site.xml, for clients.
    pub fn conf_dir(&self) -> &Path {
        &self.namenodes[0].conf
    }

    /// kill -9 of the NameNode.
    pub fn kill_namenode(&mut self) {
        self.namenodes[self.active].process = None;
    }

    /// kill -9 of the one of a pair that is not active: what a fence does to one that hung.
    pub fn kill_other_namenode(&mut self) {
        self.namenodes[1 - self.active].process = None;
    }

    /// Starts a killed NameNode again on its data and waits until it can be written to, with at least one DataNode.
    pub async fn restart_namenode(&mut self) -> Result<()> {
        self.namenodes[self.active].process = Some(self.launch(&self.namenodes[self.active])?);
        let running = self.datanodes.iter().filter(|d| d.process.is_some()).count();
        self.wait_writable(running).await
    }

    /// Starts every killed NameNode of a pair again, as a standby.
    pub fn restart_standby(&mut self) -> Result<()> {
        for i in 0..self.namenodes.len() {
            if self.namenodes[i].process.is_none() {
                self.namenodes[i].process = Some(self.launch(&self.namenodes[i])?);
            }
        }
        Ok(())
    }

    /// SIGSTOP: the NameNode hangs, its connections stay open.
    pub fn freeze_namenode(&self) {
        self.namenodes[self.active].signal(Signal::STOP);
    }

    /// SIGCONT after [`Hdfs::freeze_namenode`].
    pub fn thaw_namenode(&self) {
        self.namenodes[self.active].signal(Signal::CONT);
    }

    /// kill -9 of DataNode `i`, from 0.
    pub fn kill_datanode(&mut self, i: usize) {
        self.datanodes[i].process = None;
    }

    /// Starts a killed DataNode again on its data. Does not wait: see [`Hdfs::wait_writable`].
    pub fn restart_datanode(&mut self, i: usize) -> Result<()> {
        self.datanodes[i].process = Some(self.launch(&self.datanodes[i])?);
        Ok(())
    }

    /// SIGSTOP: DataNode `i` hangs.
    pub fn freeze_datanode(&self, i: usize) {
        self.datanodes[i].signal(Signal::STOP);
    }

    /// SIGCONT after [`Hdfs::freeze_datanode`].
    pub fn thaw_datanode(&self, i: usize) {
        self.datanodes[i].signal(Signal::CONT);
    }

    /// Files of blocks on DataNode `i`, with their sizes: for spoiling them.
    pub fn blocks(&self, i: usize) -> Vec<(PathBuf, u64)> {
        let mut found = Vec::new();
        let mut dirs = vec![self.datanodes[i].conf.with_file_name("data")];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                match entry.metadata() {
                    Ok(data) if data.is_dir() => dirs.push(entry.path()),
                    Ok(data) if name.starts_with("blk_") && !name.ends_with(".meta") => found.push((entry.path(), data.len())),
                    _ => {}
                }
            }
        }
        found
    }

    /// Waits until the NameNode is out of safe mode and counts `datanodes` live ones.
    pub async fn wait_writable(&self, datanodes: usize) -> Result<()> {
        let what = format!("HDFS at {} takes writes with {datanodes} DataNodes", self.uri());
        wait::until(&what, START, async || {
            for daemon in self.namenodes.iter().chain(&self.datanodes) {
                daemon.process.as_ref().map_or(Ok(()), Process::check_alive)?;
            }
            let safe_mode = self.jmx(&self.namenodes[self.active], "NameNode", "NameNodeInfo", "Safemode").await?;
            if safe_mode != "" {
                bail!("safe mode: {safe_mode}");
            }
            // A restarted DataNode counts as live from before; only itself knows whether it has registered again.
            for (i, daemon) in self.datanodes.iter().enumerate().filter(|(_, d)| d.process.is_some()) {
                let actors = self.jmx(daemon, "DataNode", "DataNodeInfo", "BPServiceActorInfo").await?;
                if !actors.as_str().is_some_and(|a| a.contains("RUNNING")) {
                    bail!("DataNode {i}: {actors}");
                }
            }
            let live = self.jmx(&self.namenodes[self.active], "NameNode", "FSNamesystemState", "NumLiveDataNodes").await?;
            if live.as_u64() != u64::try_from(datanodes).ok() {
                bail!("{live} live DataNodes");
            }
            Ok(())
        })
        .await
    }

    /// What one of Hadoop's own commands prints, e.g. class `org.apache.hadoop.fs.FsShell` with `-ls -R /`.
    pub async fn tool(&self, class: &str, arguments: &[&str]) -> Result<String> {
        self.run(self.java(self.conf_dir())?, class, arguments).await
    }

    /// As [`Hdfs::tool`], in a Java with no other settings than those of an installed Hadoop: for measuring.
    pub async fn as_installed(&self, class: &str, arguments: &[&str]) -> Result<String> {
        let mut java = self.bench.command(&self.host, binaries::tool("java")?);
        java.arg("-Djava.net.preferIPv4Stack=true");
        self.class_path(&mut java, self.conf_dir())?;
        self.run(java, class, arguments).await
    }

    async fn run(&self, mut java: Command, class: &str, arguments: &[&str]) -> Result<String> {
        if let Some(cache) = self.log_in()? {
            java.env("KRB5CCNAME", cache);
        }
        java.arg(class).args(arguments);
        let output = tokio::task::spawn_blocking(move || java.output()).await??;
        if !output.status.success() {
            bail!("{class} {arguments:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// One attribute of one of a daemon's beans.
    async fn jmx(&self, daemon: &Daemon, service: &str, bean: &str, attribute: &str) -> Result<serde_json::Value> {
        let address = format!("{}:{}", self.host.address, daemon.ports[1].number());
        let url = format!("http://{address}/jmx?qry=Hadoop:service={service},name={bean}");
        let answer: serde_json::Value = reqwest::get(&url).await?.json().await?;
        let value = answer["beans"][0].get(attribute).cloned();
        value.with_context(|| format!("{url} has no {attribute}"))
    }

    async fn format(&self) -> Result<()> {
        let mut java = self.java(self.conf_dir())?;
        java.arg(NAMENODE).args(["-format", "-force", "-nonInteractive"]);
        let format = self.bench.start("namenode-format", java)?;
        let status = wait::until_now("the NameNode is formatted", START, || format.exited().context("it runs")).await?;
        if !status.success() {
            bail!("formatting the NameNode: {status}\n{}", format.last_words());
        }
        if let [first, second] = &self.namenodes[..] {
            copy_dir(&first.conf.with_file_name("name"), &second.conf.with_file_name("name"))?;
        }
        Ok(())
    }

    /// A fresh ticket of the daemons' principal, which is the superuser; absent where it is not secured.
    fn log_in(&self) -> Result<Option<String>> {
        let (Some([daemons, _]), Some(kdc)) = (&self.keytabs, &self.kdc) else { return Ok(None) };
        let cache = format!("FILE:{}", daemons.with_file_name("tool-tickets").display());
        let mut kinit = kdc.command("kinit")?;
        kinit.args(["-c", &cache, "-k", "-t"]).arg(daemons).arg(format!("nn/localhost@{REALM}"));
        let output = kinit.output()?;
        if !output.status.success() {
            bail!("kinit: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        }
        Ok(Some(cache))
    }

    fn make_keytabs(&mut self) -> Result<()> {
        if let Some(kdc) = &self.kdc {
            let daemons = kdc.keytab("daemons.keytab", &["nn/localhost", "dn/localhost", "HTTP/localhost"], HOUR)?;
            self.keytabs = Some([daemons, kdc.keytab("clients.keytab", &["aurora"], TICKETS)?]);
        }
        Ok(())
    }

    fn launch(&self, daemon: &Daemon) -> Result<Process> {
        let mut java = self.java(&daemon.conf)?;
        java.arg(daemon.class);
        match self.disk_mib.filter(|_| daemon.class == DATANODE) {
            Some(mib) => self.bench.start(&daemon.name, self.on_a_small_disk(&java, daemon, mib)?),
            None => self.bench.start(&daemon.name, java),
        }
    }

    /// The command with the DataNode's directory on a disk of its own, seen by nobody else and gone with the process.
    fn on_a_small_disk(&self, java: &Command, daemon: &Daemon, mib: u32) -> Result<Command> {
        let data = self.bench.subdir(&format!("hdfs/{}/data", daemon.name))?;
        let mut command = self.bench.command(&self.host, binaries::tool("unshare")?);
        let script = format!("mount -t tmpfs -o size={mib}m tmpfs '{}' && exec \"$@\"", data.display());
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh"]);
        command.arg(java.get_program()).args(java.get_args());
        Ok(command)
    }

    /// Directory on the disk of DataNode `i`, for filling it up.
    pub fn disk(&self, i: usize) -> Result<PathBuf> {
        let process = self.datanodes[i].process.as_ref().context("it does not run")?;
        let data = self.datanodes[i].conf.with_file_name("data");
        Ok(PathBuf::from(format!("/proc/{}/root{}", process.pid(), data.display())))
    }

    fn java(&self, conf: &Path) -> Result<Command> {
        let mut java = self.bench.command(&self.host, binaries::tool("java")?);
        java.args([
            "-Xmx96m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-XX:-UsePerfData",
            "-Djava.net.preferIPv4Stack=true",
        ]);
        if let Some(kdc) = &self.kdc {
            java.arg(format!("-Djava.security.krb5.conf={}", kdc.client_file().display()));
        }
        self.class_path(&mut java, conf)?;
        Ok(java)
    }

    fn class_path(&self, java: &mut Command, conf: &Path) -> Result<()> {
        java.arg("-cp").arg(format!("{}:{}/*", conf.display(), binaries::cached("hdfs")?.display()));
        Ok(())
    }
}

impl Daemon {
    fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            process.signal(signal);
        }
    }
}

fn copy_dir(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let there = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_dir(&entry.path(), &there)?;
        } else {
            std::fs::copy(entry.path(), there)?;
        }
    }
    Ok(())
}
