//! `follow`: makes the running server a replica and opens it for readers.

use std::sync::Arc;

use super::promote::open_port;
use super::{Done, Halt, aside, failed, from_redis, refused};
use crate::admission::{self, Credential};
use crate::api::{Address, Position, Role, Stamp};
use crate::causes::chain;
use crate::lineage;
use crate::node::Node;
use crate::redis::conf::DEAD_PORT;
use crate::redis::info::Info;
use crate::server::{ROLE_TIMEOUT, Server};

/// Sets aside what is ahead of the master, then `REPLICAOF`, then the port.
pub(super) async fn run(
    node: &Arc<Node>,
    server: &Arc<Server>,
    stamp: &Stamp,
    master: Address,
    fork: Option<Position>,
) -> Result<Done, Halt> {
    if master == node.config.redis {
        return Err(refused("own-address", "a server cannot follow itself"));
    }
    node.refresh(server).await.map_err(from_redis)?;
    let (info, duty) = node.look(|parts| (parts.info.clone().unwrap_or_default(), parts.duty.clone()));
    let follows = info.role == Role::Replica && info.following.as_ref() == Some(&master);
    if follows && info.tcp_port != 0 && duty.role == Role::Replica && duty.epoch == stamp.epoch && duty.fenced.is_none() {
        return Ok(Done::Now);
    }
    if info.loading || duty.fed {
        return Err(refused("loading", "the server is still loading its dataset"));
    }
    // Also a server that follows this address already: another master, further back, may have begun there.
    let saved = !(follows && duty.role == Role::Replica && duty.epoch == stamp.epoch)
        && save_if_ahead(node, server, stamp, &info, fork.as_ref()).await?;
    let Credential { user, password } = admission::credential(node, stamp.epoch, &node.config.task_id, server.run_id());
    server.set("masteruser", &user, ROLE_TIMEOUT).await.map_err(from_redis)?;
    server.set("masterauth", &password, ROLE_TIMEOUT).await.map_err(from_redis)?;
    if !follows || saved {
        server.change_role(&format!("REPLICAOF {} {}", master.host, master.port), ROLE_TIMEOUT).await.map_err(from_redis)?;
        node.lease.lay_down(server, true).await;
    }
    open_port(node, server, ROLE_TIMEOUT, &[]).await?;
    if info.role == Role::Master && duty.role == Role::Master {
        // Clients of the old master must look for the new one instead of staying on READONLY errors.
        super::fence::drop_clients(server).await.map_err(from_redis)?;
    }
    server.watch_closely(false);
    assign(node, stamp)?;
    node.refresh(server).await.map_err(from_redis)?;
    tracing::info!(%master, epoch = stamp.epoch, "following");
    Ok(Done::Now)
}

fn assign(node: &Node, stamp: &Stamp) -> Result<(), Halt> {
    let noted = node.notebook.change(|memory| memory.assigned_epoch = stamp.epoch);
    noted.map_err(|error| failed("memory", chain(&error)))?;
    node.change(|parts| {
        parts.duty.role = Role::Replica;
        parts.duty.epoch = stamp.epoch;
        parts.duty.fenced = None;
        parts.duty.withdrawn = false;
    });
    Ok(())
}

/// Cuts the server off and saves its data aside if it holds more than the master; says whether it did.
async fn save_if_ahead(
    node: &Arc<Node>,
    server: &Arc<Server>,
    stamp: &Stamp,
    info: &Info,
    fork: Option<&Position>,
) -> Result<bool, Halt> {
    let seen = node.records.get();
    let record = seen.as_ref().map(|seen| &seen.record);
    // Without keys there is nothing to lose; an unfinished first sync is nobody's newest copy. What a replica was started from counts as
    // well, though it was looked at then: another master, further back, may have come since.
    let worth = info.keys() > 0 && node.look(|parts| parts.duty.complete);
    let ahead = worth && lineage::is_ahead(&info.replid, info.offset, fork, record);
    if ahead {
        // Nothing may come in behind the dump: what was on its way from the last master would be lost without a copy.
        let (host, port) = DEAD_PORT;
        server.change_role(&format!("REPLICAOF {host} {port}"), ROLE_TIMEOUT).await.map_err(from_redis)?;
        aside::live(node, server, stamp.epoch).await?;
    }
    Ok(ahead)
}
