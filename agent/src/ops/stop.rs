//! `stop`: ends the server; its clients are sent away first. Told by a command it saves what the server holds before, for it makes room
//! for another copy; an agent that ends itself does not.

use std::sync::Arc;

use super::{Done, Halt, backup, failed, from_redis};
use crate::node::Node;
use crate::server::Server;

/// Ends the server, its data saved, and what would start one.
pub(crate) async fn run(node: &Arc<Node>) -> Result<Done, Halt> {
    super::restore::abort(node).await;
    let Some(server) = node.server() else { return end(node).await };
    let beside = super::origin::is_beside(node, &server);
    if !beside {
        keep(node, &server).await?;
    }
    let done = end(node).await;
    if beside && done.is_ok() {
        node.places.remove_origin().map_err(|e| failed("sandbox", e))?;
    }
    done
}

/// Saves a whole copy into the sandbox's dump, from where whatever comes next sets it aside.
async fn keep(node: &Arc<Node>, server: &Arc<Server>) -> Result<(), Halt> {
    node.refresh(server).await.map_err(from_redis)?;
    let worth = node.look(|parts| parts.duty.complete && parts.info.as_ref().is_some_and(|info| info.keys() > 0));
    if worth { backup::dump(node, server, None).await } else { Ok(()) }
}

/// Withdraws the doors, then ends the server, with proof. Without a server there is nothing to do.
pub(crate) async fn end(node: &Arc<Node>) -> Result<Done, Halt> {
    let Some(server) = node.server() else { return Ok(Done::Now) };
    node.change(|parts| parts.duty.withdrawn = true);
    node.doors.withdrawn().await;
    match server.stop().await {
        Some(proof) => {
            tracing::info!(pid = server.pid, proof, "redis-server stopped");
            node.without(&server).await;
            Ok(Done::Now)
        }
        None => Err(failed("not-dead", format!("redis-server (pid {}) does not die", server.pid))),
    }
}
