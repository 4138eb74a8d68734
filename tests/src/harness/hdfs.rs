//! A real HDFS from Maven's jars: one NameNode and some DataNodes as processes, killed, frozen and restarted by pid.
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
use super::netns::Host;
use super::ports::Port;
use super::process::Process;
use super::{binaries, wait};

const NAMENODE: &str = "org.apache.hadoop.hdfs.server.namenode.NameNode";
const DATANODE: &str = "org.apache.hadoop.hdfs.server.datanode.DataNode";
/// How long a start may take; some seconds are usual, half a minute when the machine is busy.
const START: Duration = Duration::from_secs(90);

/// One NameNode with its DataNodes.
#[derive(Debug)]
pub struct Hdfs {
    bench: Arc<Bench>,
    host: Host,
    namenode: Daemon,
    datanodes: Vec<Daemon>,
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
        let host = bench.here();
        let daemon = |name: String, class, ports| -> Result<Daemon> {
            let conf = bench.subdir(&format!("hdfs/{name}/conf"))?;
            let ports = (0..ports).map(|_| bench.port(&host)).collect::<Result<Vec<Port>>>()?;
            Ok(Daemon { name, class, conf, ports, process: None })
        };
        let namenode = daemon("namenode".into(), NAMENODE, 2)?;
        let datanodes = (1..=datanodes).map(|i| daemon(format!("datanode{i}"), DATANODE, 3)).collect::<Result<Vec<_>>>()?;
        let mut hdfs = Hdfs { bench: bench.clone(), host, namenode, datanodes };
        hdfs.configure(&hdfs.namenode, &[])?;
        for daemon in &hdfs.datanodes {
            let address = |i: usize| format!("{}:{}", hdfs.host.address, daemon.ports[i].number());
            let own = [
                ("dfs.datanode.data.dir", format!("file://{}", daemon.conf.with_file_name("data").display())),
                ("dfs.datanode.address", address(0)),
                ("dfs.datanode.http.address", address(1)),
                ("dfs.datanode.ipc.address", address(2)),
            ];
            hdfs.configure(daemon, &own)?;
        }
        hdfs.format().await?;
        hdfs.namenode.process = Some(hdfs.launch(&hdfs.namenode)?);
        for i in 0..hdfs.datanodes.len() {
            hdfs.datanodes[i].process = Some(hdfs.launch(&hdfs.datanodes[i])?);
        }
        hdfs.wait_writable(hdfs.datanodes.len()).await?;
        Ok(hdfs)
    }

    /// `hdfs://host:port`.
    pub fn uri(&self) -> String {
        format!("hdfs://{}:{}", self.host.address, self.namenode.ports[0].number())
    }

    /// Directory of core-site.xml and hdfs-site.xml, for clients.
    pub fn conf_dir(&self) -> &Path {
        &self.namenode.conf
    }

    /// kill -9 of the NameNode.
    pub fn kill_namenode(&mut self) {
        self.namenode.process = None;
    }

    /// Starts a killed NameNode again on its data and waits until it can be written to, with at least one DataNode.
    pub async fn restart_namenode(&mut self) -> Result<()> {
        self.namenode.process = Some(self.launch(&self.namenode)?);
        let running = self.datanodes.iter().filter(|d| d.process.is_some()).count();
        self.wait_writable(running).await
    }

    /// SIGSTOP: the NameNode hangs, its connections stay open.
    pub fn freeze_namenode(&self) {
        self.namenode.signal(Signal::STOP);
    }

    /// SIGCONT after [`Hdfs::freeze_namenode`].
    pub fn thaw_namenode(&self) {
        self.namenode.signal(Signal::CONT);
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
            for daemon in std::iter::once(&self.namenode).chain(&self.datanodes) {
                daemon.process.as_ref().map_or(Ok(()), Process::check_alive)?;
            }
            let safe_mode = self.jmx(&self.namenode, "NameNode", "NameNodeInfo", "Safemode").await?;
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
            let live = self.jmx(&self.namenode, "NameNode", "FSNamesystemState", "NumLiveDataNodes").await?;
            if live.as_u64() != u64::try_from(datanodes).ok() {
                bail!("{live} live DataNodes");
            }
            Ok(())
        })
        .await
    }

    /// What one of Hadoop's own commands prints, e.g. class `org.apache.hadoop.fs.FsShell` with `-ls -R /`.
    pub async fn tool(&self, class: &str, arguments: &[&str]) -> Result<String> {
        let mut java = self.java(&self.namenode.conf)?;
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
        let mut java = self.java(&self.namenode.conf)?;
        java.arg(NAMENODE).args(["-format", "-force", "-nonInteractive"]);
        let format = self.bench.start("namenode-format", java)?;
        let status = wait::until_now("the NameNode is formatted", START, || format.exited().context("it runs")).await?;
        if !status.success() {
            bail!("formatting the NameNode: {status}\n{}", format.last_words());
        }
        Ok(())
    }

    fn launch(&self, daemon: &Daemon) -> Result<Process> {
        let mut java = self.java(&daemon.conf)?;
        java.arg(daemon.class);
        self.bench.start(&daemon.name, java)
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
        java.arg("-cp").arg(format!("{}:{}/*", conf.display(), binaries::cached("hdfs")?.display()));
        Ok(java)
    }

    fn configure(&self, daemon: &Daemon, own: &[(&str, String)]) -> Result<()> {
        // Without these (the jars hold none) the NameNode's HTTP server, and so its JMX, does not start.
        for page in ["hdfs", "datanode"] {
            std::fs::create_dir_all(daemon.conf.join("webapps").join(page))?;
        }
        let core = [
            ("fs.defaultFS", self.uri()),
            ("hadoop.tmp.dir", daemon.conf.with_file_name("tmp").display().to_string()),
            ("ipc.client.connect.max.retries", "3".into()),
        ];
        std::fs::write(daemon.conf.join("core-site.xml"), xml(&core))?;
        let site: Vec<(&str, String)> = self.site().into_iter().chain(own.iter().cloned()).collect();
        std::fs::write(daemon.conf.join("hdfs-site.xml"), xml(&site))?;
        let log = "log4j.rootLogger=INFO,A\nlog4j.appender.A=org.apache.log4j.ConsoleAppender\nlog4j.appender.A.target=System.err\n\
                   log4j.appender.A.layout=org.apache.log4j.PatternLayout\n\
                   log4j.appender.A.layout.ConversionPattern=%d{HH:mm:ss.SSS} %-5p %c{1} %m%n\n";
        std::fs::write(daemon.conf.join("log4j.properties"), log).context("log4j.properties")
    }

    /// What NameNode, DataNodes and clients share.
    fn site(&self) -> Vec<(&'static str, String)> {
        let address = |i: usize| format!("{}:{}", self.host.address, self.namenode.ports[i].number());
        let name_dir = self.namenode.conf.with_file_name("name");
        let mut site = vec![
            ("dfs.namenode.rpc-address", address(0)),
            ("dfs.namenode.http-address", address(1)),
            ("dfs.namenode.name.dir", format!("file://{}", name_dir.display())),
            ("dfs.namenode.safemode.min.datanodes", self.datanodes.len().min(1).to_string()),
            ("dfs.datanode.hostname", self.host.address.clone()),
            ("dfs.replication", self.datanodes.len().clamp(1, 3).to_string()),
        ];
        let fixed = [
            ("dfs.namenode.handler.count", "4"),
            ("dfs.namenode.service.handler.count", "2"),
            ("dfs.datanode.handler.count", "2"),
            ("dfs.namenode.safemode.extension", "0"),
            ("dfs.namenode.edits.noeditlogchannelflush", "true"),
            ("dfs.namenode.fs-limits.min-block-size", "4096"),
            // A DataNode counts as dead after 2 x 1 s + 10 x 1 s.
            ("dfs.heartbeat.interval", "1"),
            ("dfs.namenode.heartbeat.recheck-interval", "1000"),
            ("dfs.namenode.stale.datanode.interval", "3000"),
            ("dfs.namenode.avoid.read.stale.datanode", "true"),
            ("dfs.namenode.avoid.write.stale.datanode", "true"),
            ("dfs.namenode.redundancy.interval.seconds", "1s"),
            ("dfs.namenode.datanode.registration.ip-hostname-check", "false"),
            // Small disks do: no gigabyte kept free, no room for a whole default block wanted.
            ("dfs.datanode.du.reserved", "0"),
            ("dfs.datanode.round-robin-volume-choosing-policy.additional-available-space", "0"),
        ];
        site.extend(fixed.map(|(name, value)| (name, value.to_owned())));
        site
    }
}

impl Daemon {
    fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            process.signal(signal);
        }
    }
}

fn xml(properties: &[(&str, String)]) -> String {
    let property = |(name, value): &(&str, String)| format!("  <property><name>{name}</name><value>{value}</value></property>\n");
    format!("<configuration>\n{}</configuration>\n", properties.iter().map(property).collect::<String>())
}
