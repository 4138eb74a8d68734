//! `hold`, `release` and `catch-up`: a planned change of master without a write that is lost or refused.
//!
//! While a hold lasts no write is acknowledged beyond the position it tells. It ends by itself, by `release`, or with the term.

use std::sync::Arc;
use std::time::Duration;

use super::{Done, Halt, from_redis, refused};
use crate::api::{Held, Position, Role, Stamp};
use crate::node::Node;
use crate::server::Server;

/// Longest hold: clients shall not wait for ever because a controller forgot them.
const LONGEST: Duration = Duration::from_secs(60);
/// Longest wait for a replica.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
const LIMIT: Duration = Duration::from_secs(2);
/// So many looks in a row before each is followed by a rest of a millisecond.
const LOOKS_WITHOUT_REST: u32 = 50;

/// Holds clients' writes back, and tells where the stream stands then.
pub(super) async fn hold(node: &Arc<Node>, server: &Arc<Server>, stamp: &Stamp, length: Duration) -> Result<Done, Halt> {
    let duty = node.look(|parts| parts.duty.clone());
    if duty.role != Role::Master || duty.epoch != stamp.epoch || duty.fenced.is_some() {
        return Err(refused("not-master", format!("this server does not lead epoch {}", stamp.epoch)));
    }
    if length.is_zero() || length > LONGEST {
        return Err(refused("bad-request", format!("writes can be held back for 1 ms to {LONGEST:?}, not for {length:?}")));
    }
    node.lease.hold(server, length).await.map_err(|why| refused("not-held", why))?;
    let info = server.info(LIMIT).await.map_err(from_redis)?;
    let position = Position { replid: info.replid.clone(), offset: info.offset };
    node.observe(server, info);
    node.change(|parts| {
        parts.standing = node.lease.standing();
        parts.held = Some(Held { epoch: stamp.epoch, position });
    });
    tracing::info!(epoch = stamp.epoch, ?length, "writes are held back for a planned change");
    Ok(Done::Now)
}

/// Lets writes go on.
pub(super) async fn release(node: &Arc<Node>, server: &Arc<Server>) -> Result<Done, Halt> {
    node.lease.release(server).await.map_err(|why| refused("not-released", why))?;
    node.change(|parts| {
        parts.standing = node.lease.standing();
        parts.held = None;
    });
    Ok(Done::Now)
}

/// Waits until the server has applied the stream up to there.
pub(super) async fn catch_up(node: &Arc<Node>, server: &Arc<Server>, wanted: &Position, within: Duration) -> Result<Done, Halt> {
    let within = within.min(LONGEST_WAIT);
    let deadline = tokio::time::Instant::now() + within;
    let mut connection = server.connect().await.map_err(from_redis)?;
    let mut looks = 0;
    loop {
        let now = connection.position(LIMIT).await.map_err(from_redis)?;
        if now.replid == wanted.replid && now.offset >= wanted.offset {
            node.refresh(server).await.map_err(from_redis)?;
            return Ok(Done::Now);
        }
        if tokio::time::Instant::now() >= deadline {
            let (now, wanted) = (describe(&now), describe(wanted));
            return Err(refused("behind", format!("this server stands at {now}, not yet at {wanted}, after {within:?}")));
        }
        looks += 1;
        if looks > LOOKS_WITHOUT_REST {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

fn describe(position: &Position) -> String {
    format!("offset {} of {}", position.offset, position.replid.get(..8).unwrap_or(&position.replid))
}
