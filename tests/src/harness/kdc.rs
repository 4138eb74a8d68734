//! A Kerberos realm of a test's own: MIT's KDC on a free port, its database and keytabs in the bench's directory.
//!
//! Nothing of the machine's own Kerberos is read or changed: every program here and in HDFS finds this realm by `KRB5_CONFIG`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::bench::Bench;
use super::binaries;
use super::netns::Host;
use super::ports::Port;
use super::process::Process;
use super::wait;

/// Its realm.
pub const REALM: &str = "AURORA.TEST";

/// One KDC.
#[derive(Debug)]
pub struct Kdc {
    bench: Arc<Bench>,
    host: Host,
    port: Port,
    dir: PathBuf,
    process: Option<Process>,
}

impl Kdc {
    /// Makes a realm, and starts its KDC. Every process that the bench starts from now on is in that realm.
    pub async fn start(bench: &Arc<Bench>) -> Result<Kdc> {
        let host = bench.here();
        let mut kdc = Kdc { bench: bench.clone(), port: bench.port(&host)?, host, dir: bench.subdir("kdc")?, process: None };
        kdc.configure()?;
        bench.set_env("KRB5_CONFIG", kdc.client_file());
        kdc.run("kdb5_util", &["create", "-s", "-r", REALM, "-P", "of no worth"], "")?;
        kdc.restart().await?;
        Ok(kdc)
    }

    /// krb5.conf of its clients.
    pub fn client_file(&self) -> PathBuf {
        self.dir.join("krb5.conf")
    }

    /// Makes principals with random keys, unless they are there, whose tickets live so long at most, and a keytab of them.
    pub fn keytab(&self, name: &str, principals: &[&str], tickets: Duration) -> Result<PathBuf> {
        let file = self.dir.join(name);
        // Keys of a principal that was forgotten have the numbers of the new ones.
        if file.exists() {
            std::fs::remove_file(&file)?;
        }
        let mut orders = String::new();
        let life = format!("{}sec", tickets.as_secs());
        for principal in principals {
            orders += &format!("addprinc -randkey -maxlife {life} {principal}\nktadd -k {} {principal}\n", file.display());
        }
        self.run("kadmin.local", &[], &orders)?;
        ensure!(file.exists(), "kadmin.local made no {}", file.display());
        Ok(file)
    }

    /// Gives a principal another key: keytabs made before are good for nothing.
    pub fn change_key(&self, principal: &str) -> Result<()> {
        self.run("kadmin.local", &[], &format!("cpw -randkey {principal}\n")).map(|_| ())
    }

    /// Removes a principal.
    pub fn forget(&self, principal: &str) -> Result<()> {
        self.run("kadmin.local", &[], &format!("delprinc -force {principal}\n")).map(|_| ())
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// SIGSTOP: it takes connections and says nothing.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT after [`Kdc::freeze`].
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Starts it (again) and waits until it listens.
    pub async fn restart(&mut self) -> Result<()> {
        let mut command = self.command("krb5kdc")?;
        command.args(["-n", "-P"]).arg(self.dir.join("pid"));
        let process = self.bench.start("kdc", command)?;
        let address = format!("{}:{}", self.host.address, self.port.number());
        wait::until("the KDC listens", Duration::from_secs(20), async || {
            process.check_alive()?;
            tokio::net::TcpStream::connect(&address).await.map(|_| ()).context("connecting")
        })
        .await?;
        self.process = Some(process);
        Ok(())
    }

    fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            process.signal(signal);
        }
    }

    /// One of its tools, which has to succeed.
    fn run(&self, program: &str, arguments: &[&str], input: &str) -> Result<String> {
        let mut command = self.command(program)?;
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| program.to_owned())?;
        child.stdin.take().context("a pipe")?.write_all(input.as_bytes())?;
        let output = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        ensure!(output.status.success(), "{program}: {}: {said}", output.status);
        Ok(said)
    }

    /// A command for one of Kerberos' own programs.
    pub fn command(&self, program: &str) -> Result<Command> {
        let mut command = self.bench.command(&self.host, binaries::tool(program)?);
        command.env("KRB5_KDC_PROFILE", self.dir.join("kdc.conf"));
        if let Some(libraries) = libraries() {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        Ok(command)
    }

    fn configure(&self) -> Result<()> {
        let address = format!("{}:{}", self.host.address, self.port.number());
        let client = format!(
            "[libdefaults]\n default_realm = {REALM}\n dns_lookup_kdc = false\n dns_lookup_realm = false\n rdns = false\n \
             dns_canonicalize_hostname = false\n udp_preference_limit = 1\n[realms]\n {REALM} = {{\n  kdc = {address}\n }}\n\
             [domain_realm]\n localhost = {REALM}\n"
        );
        std::fs::write(self.client_file(), client)?;
        let dir = self.dir.display();
        let modules = libraries().map_or_else(String::new, |libraries| {
            format!("[dbmodules]\n db_module_dir = {}\n", libraries.join("krb5/plugins/kdb").display())
        });
        let kdc = format!(
            "[kdcdefaults]\n kdc_listen = {address}\n kdc_tcp_listen = {address}\n[realms]\n {REALM} = {{\n  \
             database_name = {dir}/principal\n  key_stash_file = {dir}/stash\n  max_life = 1h\n  max_renewable_life = 0s\n }}\n{modules}"
        );
        Ok(std::fs::write(self.dir.join("kdc.conf"), kdc)?)
    }
}

/// Where `tests/setup` unpacked the KDC's libraries; absent where they are installed.
fn libraries() -> Option<PathBuf> {
    let below = binaries::cache().join("tools/usr/lib");
    let dirs = std::fs::read_dir(below).into_iter().flatten().flatten().map(|entry| entry.path());
    dirs.into_iter().find(|dir| has_kdb(dir))
}

fn has_kdb(dir: &Path) -> bool {
    dir.join("krb5/plugins/kdb").is_dir()
}
