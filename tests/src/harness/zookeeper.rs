//! Real ZooKeeper servers by java's command line: one, or an ensemble, on any hosts; fast ticks; killed, stopped and restarted by pid.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::bench::Bench;
use super::netns::Host;
use super::ports::Port;
use super::process::Process;
use super::{binaries, wait};

/// Which ZooKeeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Debian's 3.8.
    Debian,
    /// 3.4.14 from Maven Central: the oldest line in use beside Aurora.
    V3_4,
}

impl Version {
    fn class_path(self) -> Result<String> {
        match self {
            Version::Debian => {
                let jar = PathBuf::from("/usr/share/java/zookeeper.jar");
                if !jar.exists() {
                    bail!("{} is not there: run `make setup`", jar.display());
                }
                // The manifest pulls in the rest.
                Ok("/usr/share/java/zookeeper.jar:/usr/share/java/zookeeper-jute.jar".into())
            }
            Version::V3_4 => Ok(format!("{}/*", binaries::cached("zookeeper-3.4")?.display())),
        }
    }
}

/// One server or an ensemble.
#[derive(Debug)]
pub struct ZooKeeper {
    bench: Arc<Bench>,
    servers: Vec<Server>,
}

#[derive(Debug)]
struct Server {
    host: Host,
    port: u16,
    dir: PathBuf,
    class_path: String,
    process: Option<Process>,
    _ports: Vec<Port>,
}

impl ZooKeeper {
    /// Starts a single server of Debian's version outside the hosts and waits until it serves.
    pub async fn single(bench: &Arc<Bench>) -> Result<ZooKeeper> {
        ZooKeeper::start(bench, &[bench.here()], Version::Debian).await
    }

    /// Starts one server per host and waits until all serve.
    pub async fn start(bench: &Arc<Bench>, hosts: &[Host], version: Version) -> Result<ZooKeeper> {
        let mut servers = Vec::new();
        for (i, host) in hosts.iter().enumerate() {
            let ports = (0..3).map(|_| bench.port(host)).collect::<Result<Vec<Port>>>()?;
            let dir = bench.subdir(&format!("zookeeper{}", i + 1))?;
            servers.push(Server {
                host: host.clone(),
                port: ports[0].number(),
                dir,
                class_path: version.class_path()?,
                process: None,
                _ports: ports,
            });
        }
        let ensemble: Vec<String> = servers
            .iter()
            .enumerate()
            .map(|(i, s)| format!("server.{}={}:{}:{}\n", i + 1, s.host.address, s._ports[1].number(), s._ports[2].number()))
            .collect();
        let ensemble = if servers.len() > 1 { ensemble.concat() } else { String::new() };
        let mut zookeeper = ZooKeeper { bench: bench.clone(), servers };
        for i in 0..zookeeper.servers.len() {
            zookeeper.servers[i].configure(i + 1, &ensemble)?;
            zookeeper.launch(i)?;
        }
        for i in 0..zookeeper.servers.len() {
            zookeeper.wait_serving(i).await?;
        }
        Ok(zookeeper)
    }

    /// `host:port,host:port` of all servers.
    pub fn connect_string(&self) -> String {
        self.servers.iter().map(|s| format!("{}:{}", s.host.address, s.port)).collect::<Vec<_>>().join(",")
    }

    /// A new session with the ensemble.
    pub async fn client(&self) -> Result<zookeeper_client::Client> {
        let connector =
            zookeeper_client::Client::connector().with_session_timeout(Duration::from_secs(10)).with_server_version(3, 4, 6);
        connector.connect(&self.connect_string()).await.with_context(|| format!("session with {}", self.connect_string()))
    }

    /// How many servers there are, dead ones too.
    pub fn len(&self) -> usize {
        self.servers.len()
    }

    /// Whether there are none (never so).
    pub fn is_empty(&self) -> bool {
        self.servers.is_empty()
    }

    /// kill -9 of server `i`.
    pub fn kill(&mut self, i: usize) {
        self.servers[i].process = None;
    }

    /// SIGSTOP: the server hangs, its connections stay open.
    pub fn freeze(&self, i: usize) {
        self.signal(i, Signal::STOP);
    }

    /// SIGCONT after [`ZooKeeper::freeze`].
    pub fn thaw(&self, i: usize) {
        self.signal(i, Signal::CONT);
    }

    /// Starts a killed server again on its data and waits until it serves.
    pub async fn restart(&mut self, i: usize) -> Result<()> {
        self.launch(i)?;
        self.wait_serving(i).await
    }

    /// Which server leads the ensemble.
    pub async fn leader(&self) -> Result<usize> {
        for (i, server) in self.servers.iter().enumerate() {
            if server.process.is_some() && server.mode().await.is_ok_and(|m| m == "leader") {
                return Ok(i);
            }
        }
        bail!("no server of the ensemble leads")
    }

    fn signal(&self, i: usize, signal: Signal) {
        if let Some(process) = &self.servers[i].process {
            process.signal(signal);
        }
    }

    /// Starts a killed server again on its data. Without a quorum it does not serve: see [`ZooKeeper::restart`].
    pub fn launch(&mut self, i: usize) -> Result<()> {
        let server = &mut self.servers[i];
        let mut java = self.bench.command(&server.host, binaries::tool("java")?);
        server.arguments(&mut java);
        server.process = Some(self.bench.start(&format!("zookeeper{}", i + 1), java)?);
        Ok(())
    }

    async fn wait_serving(&self, i: usize) -> Result<()> {
        let server = &self.servers[i];
        let process = server.process.as_ref().context("not started")?;
        wait::until(
            &format!("ZooKeeper at {}:{} serves", server.host.address, server.port),
            Duration::from_secs(60),
            async || {
                process.check_alive()?;
                server.mode().await
            },
        )
        .await
        .map(|_| ())
    }
}

impl Server {
    fn configure(&self, id: usize, ensemble: &str) -> Result<()> {
        let data = self.dir.join("data");
        std::fs::create_dir_all(&data)?;
        std::fs::write(data.join("myid"), id.to_string())?;
        let config = format!(
            "tickTime=500\ninitLimit=40\nsyncLimit=20\nminSessionTimeout=1000\nmaxSessionTimeout=60000\nmaxClientCnxns=0\n\
             admin.enableServer=false\n4lw.commands.whitelist=*\nautopurge.purgeInterval=0\n\
             dataDir={}\nclientPortAddress={}\nclientPort={}\n{ensemble}",
            data.display(),
            self.host.address,
            self.port,
        );
        std::fs::write(self.dir.join("zoo.cfg"), config)?;
        let log = "log4j.rootLogger=WARN, console\nlog4j.appender.console=org.apache.log4j.ConsoleAppender\n\
                   log4j.appender.console.layout=org.apache.log4j.PatternLayout\nlog4j.appender.console.layout.ConversionPattern=%d %p %c{1} %m%n\n";
        std::fs::write(self.dir.join("log4j.properties"), log).context("log4j.properties")
    }

    /// No fsync: the machine is not going to lose power, and kill -9 loses nothing the kernel has.
    fn arguments(&self, java: &mut Command) {
        java.args([
            "-Xmx128m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-Djava.net.preferIPv4Stack=true",
            "-Dzookeeper.forceSync=no",
        ]);
        java.arg("-cp").arg(format!("{}:{}", self.dir.display(), self.class_path));
        java.arg("org.apache.zookeeper.server.quorum.QuorumPeerMain").arg(self.dir.join("zoo.cfg"));
    }

    /// `standalone`, `leader` or `follower`; an error while it does not serve.
    async fn mode(&self) -> Result<String> {
        let mut stream = TcpStream::connect((self.host.address.as_str(), self.port)).await?;
        stream.write_all(b"srvr").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let mode = answer.lines().find_map(|l| l.strip_prefix("Mode: "));
        mode.map(str::to_owned).with_context(|| format!("it answers '{}'", answer.trim()))
    }
}
