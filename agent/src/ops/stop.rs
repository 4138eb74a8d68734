//! `stop`: ends the server without saving; its clients are sent away first.

use std::sync::Arc;

use super::{Done, Halt, failed};
use crate::node::Node;

/// Ends the server and what would start one.
pub(crate) async fn run(node: &Arc<Node>) -> Result<Done, Halt> {
    super::restore::abort(node);
    end(node).await
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
