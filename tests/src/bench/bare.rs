//! The bare limits: what the servers themselves allow. A script that does nothing but notice the master's death in `/proc` and promote the replica with
//! the most, and a planned change by the shortest recipe. No fence, no quorum, nothing written anywhere: not to be run, only to be compared with.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use redis::Connection;
use tokio::sync::watch;

use super::plain::Servers;
use super::subject::Master;
use crate::checker::Told;
use crate::harness::{Bench, Host, process};

/// Pause between two looks at the master's process.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// Longest wait for one answer of a server.
const ANSWER: Duration = Duration::from_secs(2);
/// Longest wait until the target of a planned change has everything.
const CATCH_UP: Duration = Duration::from_secs(1);
/// How long the old master holds writes back while it changes, at most.
const PAUSE_MS: u32 = 3000;

type Tell = Arc<watch::Sender<Option<String>>>;

/// Three servers and the script.
#[derive(Debug)]
pub struct Bare {
    /// The data servers.
    pub servers: Servers,
    master: String,
    tell: Tell,
    door: Told,
}

impl Bare {
    /// Starts the servers.
    pub async fn start(bench: &Arc<Bench>, hosts: &[Host]) -> Result<Bare> {
        let servers = Servers::start(bench, hosts).await?;
        let master = servers.list[0].address.clone();
        let (tell, door) = Told::new();
        tell.send_replace(Some(master.clone()));
        Ok(Bare { servers, master, tell: Arc::new(tell), door })
    }

    /// How its clients find the master.
    pub fn door(&self) -> Told {
        self.door.clone()
    }

    /// Waits until the master has all its replicas again; dead servers are started as such.
    pub async fn settle(&mut self) -> Result<Master> {
        self.master = self.door.master().context("nobody is master")?;
        self.servers.revive(&self.master)?;
        self.servers.wait_whole(&self.master).await?;
        let server = self.servers.at(&self.master)?;
        Ok(Master { address: self.master.clone(), host: server.host.clone(), pid: server.pid().context("the master is gone")? })
    }

    /// The script, started before the master is killed. It ends once it has promoted somebody, or when the guard is dropped.
    pub fn watch_master(&self, pid: u32) -> Result<Script> {
        let mut replicas = self.replicas()?;
        let (tell, stop) = (self.tell.clone(), Arc::new(AtomicBool::new(false)));
        let stopped = stop.clone();
        let work = move || {
            while process::runs(pid) {
                if stopped.load(Ordering::Relaxed) {
                    return Ok(());
                }
                std::thread::sleep(LOOK_EVERY);
            }
            promote_best(&mut replicas, &tell)
        };
        let thread = std::thread::Builder::new().name("script".into()).spawn(work)?;
        Ok(Script { stop, thread: Some(thread) })
    }

    /// A planned change by hand: writes held back, the target's position waited for, the old master demoted before the target is promoted. Answers when
    /// it began.
    pub async fn switch_over(&self) -> Result<Instant> {
        let (old, replicas, tell) = (open(&self.master)?, self.replicas()?, self.tell.clone());
        tokio::task::spawn_blocking(move || switch_over(old, replicas, &tell)).await.context("the recipe panicked")?
    }

    fn replicas(&self) -> Result<Vec<Replica>> {
        let addresses = self.servers.list.iter().map(|s| &s.address).filter(|a| **a != self.master);
        addresses.map(|address| Ok(Replica { address: address.clone(), connection: open(address)? })).collect()
    }
}

/// The watching thread; it ends with this.
#[derive(Debug)]
pub struct Script {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<Result<()>>>,
}

impl Script {
    /// Ends it and answers how it went.
    pub fn end(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("it ends once")?;
        thread.join().map_err(|_| anyhow::anyhow!("the script panicked"))?
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Replica {
    address: String,
    connection: Connection,
}

fn open(address: &str) -> Result<Connection> {
    let connection = redis::Client::open(format!("redis://{address}/"))?.get_connection_with_timeout(ANSWER)?;
    connection.set_read_timeout(Some(ANSWER))?;
    Ok(connection)
}

fn offset(connection: &mut Connection) -> Result<u64> {
    let text: String = redis::cmd("INFO").arg("replication").query(connection)?;
    let found = text.lines().find_map(|l| l.strip_prefix("master_repl_offset:")).context("no offset in INFO")?;
    found.trim().parse().context("offset in INFO")
}

fn replica_of(connection: &mut Connection, master: Option<&str>) -> Result<()> {
    let (host, port) = master.map_or(Some(("NO", "ONE")), |m| m.split_once(':')).context("an address is host:port")?;
    Ok(redis::cmd("REPLICAOF").arg(host).arg(port).query(connection)?)
}

fn promote_best(replicas: &mut [Replica], tell: &Tell) -> Result<()> {
    let mut best = None;
    for (i, replica) in replicas.iter_mut().enumerate() {
        best = best.max(Some((offset(&mut replica.connection)?, i)));
    }
    let winner = best.context("no replica")?.1;
    replica_of(&mut replicas[winner].connection, None)?;
    let address = replicas[winner].address.clone();
    tell.send_replace(Some(address.clone()));
    for replica in replicas.iter_mut().filter(|r| r.address != address) {
        replica_of(&mut replica.connection, Some(&address))?;
    }
    Ok(())
}

fn switch_over(mut old: Connection, mut replicas: Vec<Replica>, tell: &Tell) -> Result<Instant> {
    let mut target = replicas.swap_remove(0);
    let start = Instant::now();
    redis::cmd("CLIENT").arg("PAUSE").arg(PAUSE_MS).arg("WRITE").query::<()>(&mut old)?;
    catch_up(&mut old, &mut target)?;
    replica_of(&mut old, Some(&target.address))?;
    // A ping may have slipped in.
    catch_up(&mut old, &mut target)?;
    replica_of(&mut target.connection, None)?;
    tell.send_replace(Some(target.address.clone()));
    for replica in &mut replicas {
        replica_of(&mut replica.connection, Some(&target.address))?;
    }
    redis::cmd("CLIENT").arg("UNPAUSE").query::<()>(&mut old)?;
    redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal").query::<()>(&mut old)?;
    Ok(start)
}

fn catch_up(old: &mut Connection, target: &mut Replica) -> Result<()> {
    let (goal, start) = (offset(old)?, Instant::now());
    while offset(&mut target.connection)? < goal {
        ensure!(start.elapsed() < CATCH_UP, "{} does not catch up", target.address);
        std::thread::sleep(Duration::from_micros(100));
    }
    Ok(())
}
