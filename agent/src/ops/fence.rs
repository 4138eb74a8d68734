//! `fence`: makes sure that the server takes no writes, keeping its data and position. What does not answer is killed, with proof.

use std::sync::Arc;
use std::time::Duration;

use super::promote::DELETE_PROBE;
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
    let [normal, pubsub] = KILL_CLIENTS.map(str::to_owned);
    // From the first of them on no write is taken, and clients are told to go. It is called fenced, which is evidence, only when the last was
    // seen to fail.
    let cut = [format!("REPLICAOF {host} {port}"), normal, pubsub, DELETE_PROBE.to_owned()];
    let answers = match server.change_role_and(&cut, ROLE_TIMEOUT).await {
        Ok(answers) => answers,
        // The server was killed for its silence: that is a fence too, and its death is in the state.
        Err(error) if !error.is_reply() => return proven_dead(node, server).await,
        Err(error) => return Err(from_redis(error)),
    };
    match judge(answers) {
        Cut::Done => node.change(|parts| parts.duty.withdrawn = true),
        Cut::Refused(error) => return Err(from_redis(error)),
        Cut::Kill => {
            server.kill().await;
            return proven_dead(node, server).await;
        }
    }
    // Where it stands is read after the cut and told together with it: an earlier offset would make the copy look shorter than it is.
    node.refresh(server).await.map_err(from_redis)?;
    node.change(|parts| {
        parts.duty.fenced = Some(stamp.epoch);
        parts.duty.withdrawn = false;
    });
    node.lease.lay_down(server, true).await;
    node.change(|parts| parts.standing = node.lease.standing());
    tracing::info!(run_id = server.run_id(), epoch = stamp.epoch, "fenced");
    Ok(Done::Now)
}

/// What came of it.
enum Cut {
    Done,
    Refused(Error),
    /// It may take writes, or a script holds it; what that does meanwhile counts as written by the old master, so it must end now.
    Kill,
}

fn judge(answers: Vec<Result<redis::Value, Error>>) -> Cut {
    let mut answers = answers.into_iter();
    match answers.next() {
        Some(Ok(_)) => {}
        Some(Err(error)) if error.code() != "BUSY" => return Cut::Refused(error),
        _ => return Cut::Kill,
    }
    let probe = answers.next_back();
    let refused = probe.is_some_and(|answer| answer.is_err_and(|error| error.code() == "READONLY"));
    if refused && answers.all(|answer| answer.is_ok()) { Cut::Done } else { Cut::Kill }
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

/// They close all connections of clients; the agent's own (user `admin`) stay.
const KILL_CLIENTS: [&str; 2] = ["CLIENT KILL TYPE normal USER default", "CLIENT KILL TYPE pubsub USER default"];

/// Closes all connections of clients.
pub(super) async fn drop_clients(server: &Server) -> Result<(), Error> {
    server.tell_each(&KILL_CLIENTS.map(str::to_owned), LIMIT).await
}
