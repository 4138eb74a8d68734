//! `backup`: has the server make a dump, and the spool takes it from there; or reads one from the replication stream straight into the store.

use std::sync::Arc;
use std::time::Duration;

use super::{Done, Halt, failed, from_redis, refused};
use crate::dumps;
use crate::forks;
use crate::gate::Refusal;
use crate::node::Node;
use crate::redis::info::Info;
use crate::server::Server;
use crate::snapshot::How;
use crate::stream;

const LIMIT: Duration = Duration::from_secs(10);
/// How often a running save is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Longest wait for a dump that does not come to an end.
const DUMP_TIMEOUT: Duration = Duration::from_secs(3600);

/// Begins a backup for `request_id`; done or under way already: nothing to do.
pub(super) async fn run(node: &Arc<Node>, server: &Arc<Server>, request_id: String, how: How) -> Result<Done, Halt> {
    if request_id.is_empty() || request_id.len() > 200 {
        return Err(refused("bad-request", "a backup needs a request id of 1 to 200 bytes"));
    }
    if node.look(|parts| parts.uploads.last_request_id.as_deref() == Some(&request_id)) {
        return Ok(Done::Now);
    }
    if node.config.snapshots_uri.is_none() {
        return Err(refused("no-store", "no store is configured (snapshots.uri): there is nowhere to copy a dump to"));
    }
    let mut running = node.backing_up.lock().expect("no panic while locked");
    if running.as_deref() == Some(&request_id) || node.uploads.holds(node, &request_id) {
        return Ok(Done::Later);
    }
    if let Some(other) = &*running {
        return Err(refused("busy", format!("backup {other} is being made")));
    }
    *running = Some(request_id.clone());
    let (node, server) = (node.clone(), server.clone());
    tokio::spawn(async move {
        let made = match how {
            How::Dump => file(&node, &server, &request_id).await,
            How::Stream => stream::take(&node, &server, &request_id).await.map(drop),
        };
        *node.backing_up.lock().expect("no panic while locked") = None;
        if let Err(message) = made {
            tracing::warn!(request_id, message, "backup failed");
            node.change(|parts| parts.uploads.failed_request = Some((request_id, message)));
        }
    });
    Ok(Done::Later)
}

/// Makes a dump once there is memory and disk for it and nobody else on this host makes one.
async fn file(node: &Arc<Node>, server: &Arc<Server>, request_id: &str) -> Result<(), String> {
    let _turn = forks::claim(node, server).await?;
    forks::check_disk(&node.places.data(), node.look(|parts| parts.info.as_ref().map_or(0, |info| info.used_memory)))?;
    dump(node, server, Some(request_id.into())).await.map_err(|halt| match halt {
        Halt::Failed { message, .. } | Halt::Refused(Refusal { message, .. }) => message,
    })
}

/// Makes a dump that begins after this call and waits for its end. It is spooled like any other; the spooled one carries `request_id`.
pub(super) async fn dump(node: &Arc<Node>, server: &Arc<Server>, request_id: Option<String>) -> Result<(), Halt> {
    let deadline = tokio::time::Instant::now() + DUMP_TIMEOUT;
    loop {
        // A dump that began earlier holds older data: it has to end first, and is noticed without the request.
        let before = until_idle(node, server, deadline).await?;
        node.dumps.expect(request_id.clone());
        match server.tell("BGSAVE", LIMIT).await {
            Ok(_) => return finished(node, server, before, deadline).await,
            Err(error) if error.is_reply() && error.to_string().contains("in progress") => node.dumps.expect(None),
            Err(error) => {
                node.dumps.expect(None);
                return Err(from_redis(error));
            }
        }
    }
}

async fn until_idle(node: &Arc<Node>, server: &Arc<Server>, deadline: tokio::time::Instant) -> Result<Info, Halt> {
    loop {
        let info = server.info(LIMIT).await.map_err(from_redis)?;
        node.observe(server, info.clone());
        if !info.bgsave_running {
            return Ok(info);
        }
        pause(deadline).await?;
    }
}

async fn finished(node: &Arc<Node>, server: &Arc<Server>, before: Info, deadline: tokio::time::Instant) -> Result<(), Halt> {
    loop {
        pause(deadline).await?;
        let info = server.info(LIMIT).await.map_err(from_redis)?;
        node.observe(server, info.clone());
        if info.bgsave_running {
            continue;
        }
        if !info.bgsave_ok {
            node.dumps.expect(None);
            return Err(failed("bgsave", format!("redis could not write the dump: {}", node.places.log_tail())));
        }
        let moved = match (before.saves, info.saves) {
            (Some(b), Some(n)) => n > b,
            // Before 7.0 there is no counter and the time has a resolution of a second: that it ran and ended well must do.
            _ => {
                let epoch = node.look(|parts| parts.duty.epoch);
                dumps::notice(node, server, &info, epoch, true);
                true
            }
        };
        if moved {
            return Ok(());
        }
    }
}

async fn pause(deadline: tokio::time::Instant) -> Result<(), Halt> {
    if tokio::time::Instant::now() > deadline {
        return Err(failed("bgsave", format!("the dump did not end within {DUMP_TIMEOUT:?}")));
    }
    tokio::time::sleep(LOOK_EVERY).await;
    Ok(())
}
