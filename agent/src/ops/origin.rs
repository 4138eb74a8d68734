//! `follow-origin`, `close-origin`, `open-origin`: data is migrated from a server outside of the cluster.
//!
//! The server that follows it runs beside the data of its instance, in a directory of its own, closed: nobody sees it, and what the instance
//! held before is there as before if nothing comes of it. Only `promote` of that server has its directory take the place of the data.

use std::sync::Arc;
use std::time::Duration;

use super::launch::{Start, launch};
use super::{Done, Halt, failed, fence, from_redis, hold, refused, restore, start, stop};
use crate::api::{Door, ORIGIN, Origin, OriginState, Role, Stamp};
use crate::board::Holds;
use crate::clock::unix_ms;
use crate::gate::Refusal;
use crate::node::Node;
use crate::origin::{Link, credential};
use crate::server::{Birth, ROLE_TIMEOUT, Server};

/// How often an origin is asked where it stands.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// Longest wait for the last bytes: meanwhile its clients are refused.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Whether the server follows an origin, and its data has not taken the place of the instance's own.
pub(super) fn is_beside(node: &Node, server: &Server) -> bool {
    server.birth.source.starts_with(ORIGIN) && node.places.origin().exists()
}

/// Starts a closed server that follows the origin, in place of the one that runs, whose data is saved. Done already: nothing to do.
pub(super) async fn follow(node: &Arc<Node>, stamp: &Stamp, request_id: String, origin: Origin) -> Result<Done, Halt> {
    let birth = Birth { source: origin.source(), epoch: stamp.epoch };
    if let Some(server) = node.server() {
        let same = node.look(|parts| parts.origin.as_ref().is_some_and(|o| o.request_id == request_id));
        if same && server.birth.source == birth.source && is_beside(node, &server) {
            return follow_on(node, &server, &origin).await;
        }
        if node.look(|parts| parts.duty.role == Role::Master && parts.duty.fenced != Some(stamp.epoch)) {
            return Err(refused("in-office", "this server leads, or may lead: it is fenced before another one takes its place"));
        }
    }
    restore::refuse_while_restoring(node, stamp.epoch).await?;
    let program = node.program.get().await.map_err(|why| refused("no-program", why))?;
    // Before anything is touched: it answers and is a master.
    let mut link = Link::open(node.config.secret.as_ref(), &origin).await.map_err(|why| refused("origin", why))?;
    let (role, _) = link.position().await.map_err(|why| refused("origin", why))?;
    if role != Role::Master {
        return Err(refused("origin", format!("{} is no master any more", origin.address)));
    }
    stop::run(node).await?;
    node.places.prepare_origin().map_err(|e| failed("sandbox", e))?;
    let launched =
        launch(node, Start { program, birth: birth.clone(), replica: true, holds: Holds::Nothing, beside: true }).await;
    if let Err(Halt::Failed { message, .. }) = &launched {
        start::report(node, &birth.source, false, message);
    }
    launched?;
    let server = node.server().ok_or_else(|| failed("start-failed", "the server ended at once"))?;
    attach(node, &server, &origin).await?;
    let begun = OriginState {
        request_id,
        address: origin.address.clone(),
        since_ms: unix_ms(),
        position: None,
        door: None,
        problem: None,
        held: None,
        not_closed: None,
        opened: false,
    };
    node.change(|parts| parts.origin = Some(begun));
    tokio::spawn(ask_on(node.clone(), server, origin));
    Ok(Done::Now)
}

/// The server follows it already; one that was cut off meanwhile follows on.
async fn follow_on(node: &Arc<Node>, server: &Arc<Server>, origin: &Origin) -> Result<Done, Halt> {
    node.refresh(server).await.map_err(from_redis)?;
    let (follows, closed) = node.look(|parts| {
        let follows = parts.info.as_ref().is_some_and(|info| info.following.as_ref() == Some(&origin.address));
        (follows, parts.origin.as_ref().is_some_and(|o| o.held.is_some() || o.not_closed.is_some() || o.opened))
    });
    if closed {
        return Err(refused("given-up", "the origin was closed, or that was undone, for this operation"));
    }
    if !follows {
        attach(node, server, origin).await?;
        node.change(|parts| parts.duty.fenced = None);
        node.refresh(server).await.map_err(from_redis)?;
    }
    Ok(Done::Now)
}

async fn attach(node: &Arc<Node>, server: &Server, origin: &Origin) -> Result<(), Halt> {
    let (user, password) = credential(node.config.secret.as_ref(), origin).map_err(|why| refused("origin", why))?;
    server.set("masteruser", &user, ROLE_TIMEOUT).await.map_err(from_redis)?;
    server.set("masterauth", &password, ROLE_TIMEOUT).await.map_err(from_redis)?;
    let address = &origin.address;
    server.change_role(&format!("REPLICAOF {} {}", address.host, address.port), ROLE_TIMEOUT).await.map_err(from_redis)?;
    tracing::info!(%address, "following a server outside of the cluster, closed");
    Ok(())
}

/// Asks the origin where it stands, as long as the server follows it.
async fn ask_on(node: Arc<Node>, server: Arc<Server>, origin: Origin) {
    let mut link = None;
    while server.proof().is_none() && is_beside(&node, &server) {
        let asked = ask(&node, &mut link, &origin).await;
        node.change(|parts| {
            let Some(state) = parts.origin.as_mut().filter(|state| state.address == origin.address) else { return };
            match asked {
                Ok((position, door)) => {
                    state.position = Some(position);
                    state.door = door.or(state.door);
                    state.problem = None;
                }
                Err(why) => state.problem = Some(why),
            }
        });
        if server.wait_dead(ASK_EVERY).await.is_some() {
            return;
        }
    }
}

async fn ask(node: &Node, link: &mut Option<Link>, origin: &Origin) -> Result<(crate::api::Position, Option<Door>), String> {
    let mut open = match link.take() {
        Some(open) => open,
        None => Link::open(node.config.secret.as_ref(), origin).await?,
    };
    let (role, position) = open.position().await?;
    if role != Role::Master {
        return Err(format!("{} is no master any more", origin.address));
    }
    let door = open.door().await.ok();
    *link = Some(open);
    Ok((position, door))
}

/// What is to be closed.
pub(super) struct Closing {
    pub request_id: String,
    pub origin: Origin,
    pub was: Door,
    pub within: Duration,
}

/// Has the origin refuse writes, waits for its last bytes, and cuts the server off from it.
pub(super) async fn close(node: &Arc<Node>, server: &Arc<Server>, stamp: &Stamp, wish: Closing) -> Result<Done, Halt> {
    let Closing { request_id, origin, was, within } = wish;
    let known = node.look(|parts| parts.origin.clone()).filter(|o| o.request_id == request_id && is_beside(node, server));
    let Some(known) = known else {
        return Err(refused("not-following", format!("the server here does not follow {} for this operation", origin.address)));
    };
    if known.held.is_some() {
        return Ok(Done::Now);
    }
    if known.not_closed.is_some() || known.opened {
        return Err(refused("given-up", "closing it was tried for this operation, and undone"));
    }
    let closed = hold_all(node, server, stamp, &origin, was, within.min(LONGEST_WAIT)).await;
    let outcome = closed.as_ref().map(drop).map_err(words);
    node.change(|parts| {
        let Some(state) = parts.origin.as_mut().filter(|o| o.request_id == request_id) else { return };
        match &closed {
            Ok(position) => state.held = Some(position.clone()),
            Err(_) => state.not_closed = outcome.clone().err(),
        }
    });
    closed.map(|_| Done::Now)
}

fn words(halt: &Halt) -> String {
    match halt {
        Halt::Refused(Refusal { message, .. }) | Halt::Failed { message, .. } => message.clone(),
    }
}

/// The place up to which the server holds everything, when nothing can come any more.
async fn hold_all(
    node: &Arc<Node>,
    server: &Arc<Server>,
    stamp: &Stamp,
    origin: &Origin,
    was: Door,
    within: Duration,
) -> Result<crate::api::Position, Halt> {
    let mut link = Link::open(node.config.secret.as_ref(), origin).await.map_err(|why| refused("origin", why))?;
    let (role, _) = link.position().await.map_err(|why| refused("origin", why))?;
    if role != Role::Master {
        return Err(refused("origin", format!("{} is no master any more", origin.address)));
    }
    let held = async {
        link.close(was).await.map_err(|why| failed("origin", why))?;
        // Read after that: nothing was acknowledged that lies beyond.
        let (role, position) = link.position().await.map_err(|why| failed("origin", why))?;
        if role != Role::Master {
            return Err(failed("origin", format!("{} is no master any more", origin.address)));
        }
        hold::catch_up(node, server, &position, within).await?;
        // From here on nothing comes from there, and nobody writes here.
        fence::run(node, server, stamp).await?;
        if server.proof().is_some() {
            return Err(failed("no-server", "the server died while it was cut off"));
        }
        forget(server).await.map_err(from_redis)?;
        Ok(position)
    };
    let result = held.await;
    if let Err(halt) = &result {
        let why = words(halt);
        if let Err(left) = link.reopen(was).await {
            return Err(failed("origin", format!("{why}; and it may refuse writes still: {left}")));
        }
    }
    result
}

/// The password is of no use any more.
async fn forget(server: &Server) -> Result<(), crate::redis::connection::Error> {
    server.set("masteruser", "", ROLE_TIMEOUT).await?;
    server.set("masterauth", "", ROLE_TIMEOUT).await
}

/// Has the origin take writes again.
pub(super) async fn open(node: &Arc<Node>, request_id: String, origin: Origin, was: Door) -> Result<Done, Halt> {
    let known = node.look(|parts| parts.origin.clone()).filter(|o| o.request_id == request_id);
    if known.as_ref().is_some_and(|o| o.opened) {
        return Ok(Done::Now);
    }
    let mut link = Link::open(node.config.secret.as_ref(), &origin).await.map_err(|why| failed("origin", why))?;
    link.reopen(was).await.map_err(|why| failed("origin", why))?;
    tracing::info!(address = %origin.address, "it takes writes again");
    node.change(|parts| {
        let state = known.unwrap_or(OriginState {
            request_id,
            address: origin.address,
            since_ms: unix_ms(),
            position: None,
            door: Some(was),
            problem: None,
            held: None,
            not_closed: None,
            opened: true,
        });
        parts.origin = Some(OriginState { held: None, opened: true, ..state });
    });
    Ok(Done::Now)
}

/// Has what followed an origin take the place of the instance's data, which is set aside: the record names this server.
pub(super) async fn adopt(node: &Arc<Node>, server: &Server) -> Result<(), Halt> {
    if !is_beside(node, server) {
        return Ok(());
    }
    let epoch = node.notebook.get().dump.map_or(0, |note| note.epoch);
    node.places.adopt_origin(epoch, unix_ms()).map_err(|e| failed("sandbox", e))?;
    forget(server).await.map_err(from_redis)
}
