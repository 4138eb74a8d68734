//! Hosts in network namespaces: an outer namespace per bench with a bridge, and one inner namespace per host on a veth pair.
//!
//! Because the outer namespace is private, every bench uses the same addresses (198.18.0.0/24, a range set aside for such tests) and ports without
//! meeting another. Traffic is cut by nftables drops, in one direction if wanted, and never at the sender, who would notice. Namespaces go with
//! their [`Network`]; those of a program that was killed are swept at the next start, for their names tell the owner.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::clock::Clock;
use super::{binaries, process};

/// Where processes of a test run: an address, and the namespace that has it.
#[derive(Clone, Debug)]
pub struct Host {
    /// Short name, unique within the bench.
    pub name: String,
    /// IP address the host's processes listen on.
    pub address: String,
    /// Its own wall clock; absent: the machine's.
    pub clock: Option<Clock>,
    namespace: Option<Namespace>,
}

impl Host {
    /// This machine's loopback.
    pub fn loopback() -> Host {
        Host::named("local")
    }

    /// A host of that name on loopback: apart from the others by its host id only.
    pub fn named(name: &str) -> Host {
        Host { name: name.into(), address: "127.0.0.1".into(), clock: None, namespace: None }
    }

    /// Words to put before a command line so that it runs on this host.
    pub fn wrapper(&self) -> Vec<String> {
        let mut words = self.clock.as_ref().map(Clock::wrapper).unwrap_or_default();
        if let Some(namespace) = &self.namespace {
            let nsenter = binaries::tool("nsenter").map_or_else(|_| "nsenter".into(), |p| p.display().to_string());
            words.extend([nsenter, format!("--net=/run/netns/{}", namespace.name), "--".into()]);
        }
        words
    }

    /// Runs `work` on a thread inside the host's namespace.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let Some(namespace) = self.namespace.clone() else {
            return work();
        };
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                namespace.enter();
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Moves the calling thread onto the host; nothing on loopback.
    pub fn enter(&self) {
        if let Some(namespace) = &self.namespace {
            namespace.enter();
        }
    }

    fn key(&self) -> Option<&str> {
        self.namespace.as_ref().map(|n| n.name.as_str())
    }
}

/// An open network namespace.
#[derive(Clone, Debug)]
pub struct Namespace {
    name: String,
    file: Arc<File>,
}

impl Namespace {
    fn create(name: &str) -> Result<Namespace> {
        run("ip", &["netns", "add", name], "")?;
        let file = File::open(format!("/run/netns/{name}")).with_context(|| format!("namespace {name}"))?;
        Ok(Namespace { name: name.into(), file: Arc::new(file) })
    }

    /// Moves the calling thread into it.
    pub fn enter(&self) {
        move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))
            .expect("a namespace that is open can be entered");
    }

    fn ip(&self, batch: &str) -> Result<()> {
        run("ip", &["-n", &self.name, "-batch", "-"], batch)
    }

    fn nft(&self, rules: &str) -> Result<()> {
        run("ip", &["netns", "exec", &self.name, &binaries::tool("nft")?.display().to_string(), "-f", "-"], rules)
    }
}

/// Moves the calling thread back into the program's own namespace, the one of its main thread; nothing when it is there.
pub fn leave() {
    let own = format!("/proc/{}/ns/net", std::process::id());
    let (Ok(there), Ok(here)) = (std::fs::read_link(&own), std::fs::read_link("/proc/thread-self/ns/net")) else {
        return;
    };
    if there != here {
        let file = File::open(own).expect("one's own namespace can be opened");
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("who could leave can come back");
    }
}

/// The network of one bench.
#[derive(Debug)]
pub struct Network {
    outer: Namespace,
    hosts: Vec<Host>,
}

/// Beginning of every namespace's name.
const PREFIX: &str = "ar";

impl Network {
    /// Makes the outer namespace (198.18.0.1) and `count` hosts h1, h2, … (198.18.0.11, …). Needs root.
    pub fn new(number: u32, count: usize) -> Result<Network> {
        let owner = std::process::id();
        let name = format!("{PREFIX}{owner}-{}-{number}", process::start_ticks(owner).context("own start time")?);
        let outer = Namespace::create(&name)?;
        let mut network = Network { outer, hosts: Vec::new() };
        network.outer.ip("link set lo up\nlink add br0 type bridge\naddr add 198.18.0.1/24 dev br0\nlink set br0 up\n")?;
        for i in 1..=count {
            let host = network.add_host(&name, i)?;
            network.hosts.push(host);
        }
        Ok(network)
    }

    fn add_host(&self, outer: &str, i: usize) -> Result<Host> {
        let (name, address) = (format!("h{i}"), format!("198.18.0.{}", 10 + i));
        let namespace = Namespace::create(&format!("{outer}-{name}"))?;
        let inner = &namespace.name;
        self.outer
            .ip(&format!("link add v{i} type veth peer name eth0 netns {inner}\nlink set v{i} master br0\nlink set v{i} up\n"))?;
        namespace.ip(&format!(
            "link set lo up\naddr add {address}/24 dev eth0\nlink set eth0 up\nroute add default via 198.18.0.1\n"
        ))?;
        namespace.nft("table inet cut {\n chain from { type filter hook input priority 0; policy accept; }\n}\n")?;
        self.outer.nft(&format!(
            "table netdev cut {{\n chain v{i} {{ type filter hook ingress device \"v{i}\" priority 0; policy accept; }}\n}}\n"
        ))?;
        Ok(Host { name, address, clock: None, namespace: Some(namespace) })
    }

    /// The place outside the hosts, on the bridge itself.
    pub fn outside(&self) -> Host {
        Host { name: "outside".into(), address: "198.18.0.1".into(), clock: None, namespace: Some(self.outer.clone()) }
    }

    /// The hosts.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The outer namespace, for threads that should live in it.
    pub fn handle(&self) -> Namespace {
        self.outer.clone()
    }

    /// Drops every packet from `from` to `to`, silently.
    pub fn cut_one_way(&self, from: &Host, to: &Host) -> Result<()> {
        match (&from.namespace, &to.namespace) {
            (_, Some(inner)) if inner.name != self.outer.name => {
                inner.nft(&format!("add rule inet cut from ip saddr {} drop\n", from.address))
            }
            (Some(inner), _) if inner.name != self.outer.name => self.drop_from(from, &format!("ip daddr {}", to.address)),
            _ => bail!("one end must be a host"),
        }
    }

    /// Drops every packet between `a` and `b`, silently.
    pub fn cut(&self, a: &Host, b: &Host) -> Result<()> {
        self.cut_one_way(a, b)?;
        self.cut_one_way(b, a)
    }

    /// Cuts `host` off from everything but itself.
    pub fn isolate(&self, host: &Host) -> Result<()> {
        self.deafen(host)?;
        self.mute(host)
    }

    /// Nothing arrives at `host` any more; what it sends does.
    pub fn deafen(&self, host: &Host) -> Result<()> {
        inner(host)?.nft("add rule inet cut from iifname \"eth0\" drop\n")
    }

    /// Nothing that `host` sends arrives any more; what is sent to it does.
    pub fn mute(&self, host: &Host) -> Result<()> {
        self.drop_from(host, "")
    }

    /// Cuts `host` off from one service, at `host:port`, and from nothing else there.
    pub fn cut_service(&self, host: &Host, service: &str) -> Result<()> {
        let (address, port) = service.rsplit_once(':').with_context(|| format!("'{service}' is not host:port"))?;
        inner(host)?.nft(&format!("add rule inet cut from ip saddr {address} tcp sport {port} drop\n"))?;
        self.drop_from(host, &format!("ip daddr {address} tcp dport {port}"))
    }

    /// Drops what leaves `host` and matches: outside it, where its end of the cable is, so that the sender does not notice.
    fn drop_from(&self, host: &Host, what: &str) -> Result<()> {
        let number = host.name.strip_prefix('h').context("a host of ours")?;
        self.outer.nft(&format!("add rule netdev cut v{number} {what} drop\n"))
    }

    /// Cuts `host` off from all other hosts; the place outside still reaches it.
    pub fn cut_from_hosts(&self, host: &Host) -> Result<()> {
        self.hosts.iter().filter(|other| other.name != host.name).try_for_each(|other| self.cut(host, other))
    }

    /// The host loses its power: nobody is told, no connection is closed, and its processes are no more.
    pub fn power_off(&self, host: &Host) -> Result<()> {
        self.isolate(host)?;
        kill_all(&inner(host)?.name);
        Ok(())
    }

    /// Takes back every cut.
    pub fn heal(&self) -> Result<()> {
        self.outer.nft("flush table netdev cut\n")?;
        self.hosts.iter().filter_map(|h| h.namespace.as_ref()).try_for_each(|n| n.nft("flush table inet cut\n"))
    }

    /// Removes the namespaces of programs that are gone, with the processes in them.
    pub fn sweep() {
        for entry in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some((pid, ticks)) = name.strip_prefix(PREFIX).and_then(owner_of) else {
                continue;
            };
            if process::start_ticks(pid) != Some(ticks) {
                remove(&name);
            }
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in self.hosts.iter().rev() {
            host.key().into_iter().for_each(remove);
        }
        remove(&self.outer.name);
    }
}

fn inner(host: &Host) -> Result<&Namespace> {
    host.namespace.as_ref().context("loopback cannot be cut")
}

/// Kills the processes inside a namespace of ours and deletes it.
fn remove(namespace: &str) {
    kill_all(namespace);
    let _ = run("ip", &["netns", "del", namespace], "");
}

/// Kills the processes inside a namespace of ours.
fn kill_all(namespace: &str) {
    if let Ok(pids) = output("ip", &["netns", "pids", namespace]) {
        for pid in pids.lines().filter_map(|l| l.trim().parse::<u32>().ok()).filter(|pid| *pid != std::process::id()) {
            process::send(pid, rustix::process::Signal::KILL);
        }
    }
}

/// Owner's pid and start time from the rest of a namespace's name.
fn owner_of(rest: &str) -> Option<(u32, u64)> {
    let mut parts = rest.split('-');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn run(program: &str, args: &[&str], input: &str) -> Result<()> {
    let mut child = Command::new(binaries::tool(program)?)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {program}"))?;
    child.stdin.take().expect("piped").write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

fn output(program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(binaries::tool(program)?).args(args).stderr(Stdio::null()).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
