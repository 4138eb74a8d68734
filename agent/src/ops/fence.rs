//! `fence`: makes sure that the server takes no writes, keeping its data and position. What does not answer is killed, with proof.

use std::sync::Arc;
use std::time::Duration;

use super::promote::is_write_refused;
use super::{Done, Halt, failed, from_redis};
use crate::api::Stamp;
use crate::node::Node;
use crate::redis::conf::DEAD_PORT;
use crate::redis::connection::Error;
use crate::server::{ROLE_TIMEOUT, Server};

const LIMIT: Duration = Duration::from_secs(4);

/// Cuts the server off for the stamp's epoch.
pub(super) async fn run(node: &Arc<Node>, server: &Arc<Server>, stamp: &Stamp) -> Result<Done, Halt> {
    if node.look(|parts| parts.duty.fenced) == Some(stamp.epoch) {
        return Ok(Done::Now);
    }
    if crate::breaks::broken().fence && node.look(|parts| parts.duty.role == crate::api::Role::Master) {
        node.change(|parts| parts.duty.fenced = Some(stamp.epoch));
        return Ok(Done::Now);
    }
    let (host, port) = DEAD_PORT;
    match server.change_role(&format!("REPLICAOF {host} {port}"), ROLE_TIMEOUT).await {
        Ok(()) => {}
        // The server was killed for its silence: that is a fence too, and its death is in the state.
        Err(error) if !error.is_reply() => return proven_dead(node, server).await,
        // A script holds it; what it does meanwhile counts as written by the old master, so it must end now.
        Err(error) if error.code() == "BUSY" => {
            server.kill().await;
            return proven_dead(node, server).await;
        }
        Err(error) => return Err(from_redis(error)),
    }
    // From here on no write is taken; clients are told to go. It is called fenced, which is evidence, only when that was seen to hold.
    node.change(|parts| parts.duty.withdrawn = true);
    if drop_clients(server).await.is_err() || !is_write_refused(server).await {
        server.kill().await;
        return proven_dead(node, server).await;
    }
    // Where it stands is read after the cut and told together with it: an earlier offset would make the copy look shorter than it is.
    node.refresh(server).await.map_err(from_redis)?;
    node.change(|parts| {
        parts.duty.fenced = Some(stamp.epoch);
        parts.duty.withdrawn = false;
    });
    node.lease.lay_down(server, true).await;
    tracing::info!(run_id = server.run_id(), epoch = stamp.epoch, "fenced");
    Ok(Done::Now)
}

async fn proven_dead(node: &Node, server: &Arc<Server>) -> Result<Done, Halt> {
    match server.proof() {
        Some(_) => {
            node.without(server).await;
            Ok(Done::Now)
        }
        None => Err(failed("not-dead", "the server neither answers nor dies: nothing proves that it takes no writes")),
    }
}

/// Closes all connections of clients; the agent's own (user `admin`) stay.
pub(super) async fn drop_clients(server: &Server) -> Result<(), Error> {
    for kind in ["normal", "pubsub"] {
        server.tell(&format!("CLIENT KILL TYPE {kind} USER default"), LIMIT).await?;
    }
    Ok(())
}
