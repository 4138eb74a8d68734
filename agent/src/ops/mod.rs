//! Commands: one at a time, gated, with what is obeyed in the agent's memory before it is done.
//!
//! One file per command with one public function. Order in [`execute`]: read the record if the stamp is newer than what was read; ask the
//! gate; keep epoch and record version in the memory's file; do it; answer with the state after it.

use std::sync::Arc;
use std::time::Duration;

use crate::api::{Answer, AnswerKind, Command, Order};
use crate::causes::chain;
use crate::gate::{self, Refusal};
use crate::node::Node;
use crate::redis::connection::Error as RedisError;
use crate::server::Server;

mod aside;
mod backup;
mod configure;
mod fed;
mod fence;
mod follow;
mod hold;
mod launch;
mod origin;
mod prepare;
mod promote;
mod restore;
mod start;
pub(crate) mod stop;

pub(crate) use prepare::Preparing;
pub(crate) use restore::Restoring;

/// How long a command waits for the one before it.
const TURN_TIMEOUT: Duration = Duration::from_secs(30);

/// What came of a command that was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    /// Carried out, or already so.
    Now,
    /// Goes on in the background.
    Later,
}

/// Why a command was not (wholly) carried out.
#[derive(Debug)]
pub(crate) enum Halt {
    /// Nothing was changed.
    Refused(Refusal),
    /// Tried, and perhaps partly done.
    Failed { reason: &'static str, message: String },
}

impl From<Refusal> for Halt {
    fn from(refusal: Refusal) -> Halt {
        Halt::Refused(refusal)
    }
}

fn refused(reason: &'static str, message: impl Into<String>) -> Halt {
    Halt::Refused(gate::refusal(reason, message))
}

fn failed(reason: &'static str, message: impl std::fmt::Display) -> Halt {
    Halt::Failed { reason, message: message.to_string() }
}

/// An answer of Redis that it cannot do this now is a refusal; no answer is a failure.
fn from_redis(error: RedisError) -> Halt {
    match error.code() {
        "LOADING" => refused("loading", error.to_string()),
        "BUSY" => refused("busy", error.to_string()),
        "" => failed("no-answer", chain(&error)),
        _ => failed("redis-error", error),
    }
}

/// Carries out a command. It goes on to its end even when nobody waits for the answer any more.
pub(crate) async fn execute(node: Arc<Node>, command: Command) -> Answer {
    let verb = command.order.verb();
    let shared = node.clone();
    let outcome = tokio::spawn(async move { in_turn(&shared, command).await }).await;
    let outcome = outcome.unwrap_or_else(|error| Err(failed("bug", format!("the command broke off: {error}"))));
    answer(&node, verb, outcome)
}

fn answer(node: &Node, verb: &str, outcome: Result<Done, Halt>) -> Answer {
    let (outcome, reason, message) = match outcome {
        Ok(Done::Now) => (AnswerKind::Done, "", String::new()),
        Ok(Done::Later) => (AnswerKind::Accepted, "", String::new()),
        Err(Halt::Refused(Refusal { reason, message })) => (AnswerKind::Refused, reason, message),
        Err(Halt::Failed { reason, message }) => (AnswerKind::Failed, reason, message),
    };
    match outcome {
        AnswerKind::Done | AnswerKind::Accepted => tracing::info!(verb, ?outcome, "command"),
        AnswerKind::Refused => tracing::info!(verb, reason, message, "command refused"),
        AnswerKind::Failed => tracing::warn!(verb, reason, message, "command failed"),
    }
    Answer { outcome, reason: reason.into(), message, state: Some(Box::new(node.state())) }
}

async fn in_turn(node: &Arc<Node>, command: Command) -> Result<Done, Halt> {
    let turn = tokio::time::timeout(TURN_TIMEOUT, node.turn.lock()).await;
    let turn = turn.map_err(|_| refused("busy", format!("another command is still being carried out after {TURN_TIMEOUT:?}")))?;
    let unread = || gate::needs_reading(&command, &node.known());
    if unread()
        && let Err(error) = node.records.catch_up(node, unread).await
    {
        tracing::warn!(%error, "cannot read the record that a command names");
    }
    gate::admit(&command, &node.known())?;
    let stamp = &command.stamp;
    let (epoch, version) = (stamp.epoch, stamp.record_version);
    if epoch > node.notebook.get().epoch {
        let noted = node.remember(|memory| {
            memory.epoch = memory.epoch.max(epoch);
            memory.record_version = memory.record_version.max(version);
        });
        noted.map_err(|error| failed("memory", chain(&error)))?;
    } else {
        node.notebook.note_version(version);
        node.change(|_| {});
    }
    // It only looks, for a while: a fence must not wait for it.
    if matches!(command.order, Order::CatchUp { .. }) {
        drop(turn);
    }
    dispatch(node, command).await
}

async fn dispatch(node: &Arc<Node>, command: Command) -> Result<Done, Halt> {
    let Command { stamp, order } = command;
    match order {
        Order::Start { source } => start::run(node, &stamp, source).await,
        Order::Restore { snapshot } => restore::run(node, &stamp, snapshot).await,
        Order::Prepare { request_id, snapshot } => prepare::run(node, &running(node)?, request_id, snapshot),
        Order::Promote { asks } => promote::run(node, &running(node)?, &stamp, asks).await,
        Order::Follow { master, fork } => follow::run(node, &running(node)?, &stamp, master, fork).await,
        Order::Fence => fence::run(node, &running(node)?, &stamp).await,
        Order::Configure { settings } => configure::run(node, &running(node)?, settings).await,
        Order::Backup { request_id, how } => backup::run(node, &running(node)?, request_id, how).await,
        Order::Stop => stop::run(node).await,
        Order::FollowOrigin { request_id, origin } => origin::follow(node, &stamp, request_id, origin).await,
        Order::CloseOrigin { request_id, origin, was, within_ms } => {
            let wish = origin::Closing { request_id, origin, was, within: Duration::from_millis(within_ms) };
            origin::close(node, &running(node)?, &stamp, wish).await
        }
        Order::OpenOrigin { request_id, origin, was } => origin::open(node, request_id, origin, was).await,
        Order::Hold { for_ms } => hold::hold(node, &running(node)?, &stamp, Duration::from_millis(for_ms)).await,
        Order::Release => hold::release(node, &running(node)?).await,
        Order::CatchUp { position, within_ms } => {
            hold::catch_up(node, &running(node)?, &position, Duration::from_millis(within_ms)).await
        }
    }
}

fn running(node: &Node) -> Result<Arc<Server>, Halt> {
    node.server().ok_or_else(|| refused("no-server", "no server runs here"))
}
