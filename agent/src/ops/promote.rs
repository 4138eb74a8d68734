//! `promote`: makes the running server the open master. The one command after which clients can write.
//!
//! The lease comes first. What makes the server writable is sent only while the lease has more left than the longest wait for its answer;
//! without an answer in that time the server is killed, so nothing of it happens after the lease.

use std::sync::Arc;
use std::time::Duration;

use super::{Done, Halt, failed, from_redis, refused};
use crate::admission;
use crate::api::{Role, Stamp};
use crate::causes::chain;
use crate::lease::Office;
use crate::node::Node;
use crate::record::Peer;
use crate::redis::connection::{Answers, Error};
use crate::server::Server;
use crate::timing;

const LIMIT: Duration = Duration::from_secs(4);
/// Written with a short life and deleted at once; the name is ours.
const SET_PROBE: &str = "SET __aurora_redis:probe 1 PX 1000";
/// A write of ours that has no effect.
pub(super) const DELETE_PROBE: &str = "DEL __aurora_redis:probe";

/// `REPLICAOF NO ONE`, port open, a write proven; then it serves, which publishes its doors.
pub(super) async fn run(node: &Arc<Node>, server: &Arc<Server>, stamp: &Stamp, asks: Vec<Peer>) -> Result<Done, Halt> {
    node.refresh(server).await.map_err(from_redis)?;
    let (loading, complete, done, open) = node.look(|parts| {
        let loading = parts.duty.fed || parts.info.as_ref().is_some_and(|info| info.loading);
        let done = parts.serving() && parts.duty.role == Role::Master && parts.duty.epoch == stamp.epoch;
        let open = parts.duty.role == Role::Master && parts.duty.fenced.is_none();
        (loading, parts.duty.complete, done, open)
    });
    if done {
        return Ok(Done::Now);
    }
    if loading {
        return Err(refused("loading", "the server is still loading its dataset"));
    }
    if !complete {
        return Err(refused("incomplete-copy", "the server has not completed its first sync: it holds no whole copy"));
    }
    if let Some(why) = node.lease_module.objection(server) {
        return Err(refused("no-lease-module", why));
    }
    super::origin::adopt(node, server).await?;
    node.notebook.change(|memory| memory.assigned_epoch = stamp.epoch).map_err(|error| failed("memory", chain(&error)))?;
    take_office(node, server, asks, open).await?;
    make_master(node, server, stamp).await?;
    server.watch_closely(true);
    node.change(|parts| {
        parts.duty.role = Role::Master;
        parts.duty.epoch = stamp.epoch;
        parts.duty.fenced = None;
        parts.duty.withdrawn = false;
    });
    tracing::info!(run_id = server.run_id(), epoch = stamp.epoch, "promoted: this server is the master");
    node.refresh(server).await.map_err(from_redis)?;
    Ok(Done::Now)
}

/// Has the lease thread commit the first renewal for the record that names this server.
async fn take_office(node: &Node, server: &Arc<Server>, asks: Vec<Peer>, open: bool) -> Result<(), Halt> {
    let seen = node.records.get().ok_or_else(|| refused("no-record", "the record has not been read"))?;
    let office = Office { server: server.clone(), record: seen, asks, open };
    let taken = node.lease.take_office(office).await;
    node.change(|parts| parts.standing = node.lease.standing());
    taken.map_err(|why| refused("no-lease", format!("this server did not get the lease: {why}")))
}

/// How long an answer to something that makes the server writable may take, while the lease has more left than that.
fn time_left(node: &Node, server: &Server, stamp: &Stamp) -> Result<Duration, Halt> {
    let lease = node.lease.standing().term.map(|term| term.ground.lease).unwrap_or_default();
    let (bound, left) = (timing::office_bound(lease), node.lease.left(server.run_id(), stamp.epoch));
    match left > bound {
        true => Ok(bound),
        false => Err(failed("no-lease", format!("the lease has {left:?} left: too little to open within it"))),
    }
}

async fn make_master(node: &Arc<Node>, server: &Arc<Server>, stamp: &Stamp) -> Result<(), Halt> {
    let seen = node.records.get().ok_or_else(|| refused("no-record", "the record has not been read"))?;
    admission::admit(node, server, &seen, stamp.epoch).await.map_err(from_redis)?;
    let lead = ["REPLICAOF NO ONE", "INFO replication"].map(str::to_owned);
    let answers = server.change_role_and(&lead, time_left(node, server, stamp)?).await.map_err(from_redis)?;
    let answers: Vec<redis::Value> = answers.into_iter().collect::<Result<_, _>>().map_err(from_redis)?;
    server.begin_backlog(answers.last()).await.map_err(|error| failed("backlog", error))?;
    super::configure::set_belt(node, server, 0).await?;
    let probes = [SET_PROBE, DELETE_PROBE].map(str::to_owned);
    let written = open_port(node, server, time_left(node, server, stamp)?, &probes).await?;
    let proven = prove_write(written);
    if proven.is_err() {
        close(server).await;
    }
    proven
}

/// Opens the TCP port. Without an answer it may open later, so the server is killed. Commands that are sent right behind, and their answers.
pub(super) async fn open_port(node: &Node, server: &Server, limit: Duration, behind: &[String]) -> Result<Answers, Halt> {
    let port = node.config.redis.port;
    let commands = [&[format!("CONFIG SET port {port}")], behind].concat();
    let mut answers = match server.tell_all(&commands, limit).await {
        Ok(answers) => answers,
        Err(error) if error.is_reply() => return Err(not_opened(port, &error)),
        Err(error) => {
            server.kill().await;
            return Err(from_redis(error));
        }
    };
    answers.remove(0).map_err(|error| not_opened(port, &error))?;
    Ok(answers)
}

fn not_opened(port: u16, error: &Error) -> Halt {
    failed("port", format!("port {port} cannot be opened: {error}; is another process using it?"))
}

/// Nobody shall stay at a master that is none. The role is left as it is: each change of it costs a history.
async fn close(server: &Server) {
    let closed = server.set("port", "0", LIMIT).await.is_ok() && super::fence::drop_clients(server).await.is_ok();
    if !closed {
        server.kill().await;
    }
}

/// A write must have succeeded. A server that is full refuses what needs memory and is a master all the same.
fn prove_write(answers: Answers) -> Result<(), Halt> {
    for answer in answers {
        match answer {
            Err(error) if error.code() == "OOM" => tracing::warn!("the new master is full: it takes no write that needs memory"),
            answer => drop(answer.map_err(not_writable)?),
        }
    }
    Ok(())
}

fn not_writable(error: Error) -> Halt {
    failed("not-writable", format!("the new master takes no write: {}", chain(&error)))
}
