//! `start`: begins a server, closed, from nothing, from the dump in the sandbox, or as a replica.

use std::sync::Arc;

use super::launch::{Start, launch};
use super::{Done, Halt, aside, failed, refused};
use crate::api::{FailedSource, Position, Source, Stamp};
use crate::board::Holds;
use crate::clock::unix_ms;
use crate::files;
use crate::lineage;
use crate::local;
use crate::node::Node;
use crate::program::Ready;
use crate::rdb;
use crate::server::Birth;

/// What the source of a replica is called.
pub(super) const REPLICA: &str = "replica";

/// What a source is called in the state.
pub(super) fn label(source: &Source) -> String {
    match source {
        Source::Empty => "empty".into(),
        Source::Local { sha256 } => format!("local:{sha256}"),
        Source::ReplicaOf { .. } => REPLICA.into(),
    }
}

/// Starts the server; done at once when it runs already for this very command.
pub(super) async fn run(node: &Arc<Node>, stamp: &Stamp, source: Source) -> Result<Done, Halt> {
    let birth = Birth { source: label(&source), epoch: stamp.epoch };
    if already(node, &birth)? {
        return Ok(Done::Now);
    }
    super::restore::refuse_while_restoring(node, stamp.epoch).await?;
    let program = node.program.get().await.map_err(|why| refused("no-program", why))?;
    let result = match &source {
        Source::Empty => from_nothing(node, program, birth.clone()).await,
        Source::Local { sha256 } => from_local(node, program, birth.clone(), sha256).await,
        Source::ReplicaOf { fork, .. } => {
            let complete = keep_usable_dump(node, &program, stamp.epoch, fork.as_ref()).await?;
            let holds = if complete { Holds::Whole } else { Holds::Nothing };
            launch(node, Start { program, birth: birth.clone(), replica: true, holds, beside: false }).await
        }
    };
    if let Err(Halt::Failed { message, .. }) = &result {
        report(node, &birth.source, false, message);
    }
    result.map(|()| Done::Now)
}

/// Whether a server runs that was started by this very command; another one is a reason to refuse.
pub(super) fn already(node: &Node, birth: &Birth) -> Result<bool, Halt> {
    match node.server() {
        None => Ok(false),
        Some(server) if server.birth == *birth => Ok(true),
        Some(server) => {
            let Birth { source, epoch } = &server.birth;
            Err(refused("server-running", format!("a server started from {source} in epoch {epoch} runs already")))
        }
    }
}

/// Shows that a source failed.
pub(super) fn report(node: &Node, source: &str, definite: bool, why: &str) {
    let failed = FailedSource { source: source.into(), definite, why: why.into() };
    node.change(|parts| parts.failed_source = Some(failed));
}

async fn from_nothing(node: &Arc<Node>, program: Ready, birth: Birth) -> Result<(), Halt> {
    let memory = node.notebook.get();
    let epoch = memory.dump.map_or(0, |note| note.epoch);
    node.places.set_data_aside(epoch, unix_ms()).map_err(|e| failed("sandbox", e))?;
    launch(node, Start { program, birth, replica: false, holds: Holds::Whole, beside: false }).await
}

async fn from_local(node: &Arc<Node>, program: Ready, birth: Birth, sha256: &str) -> Result<(), Halt> {
    let dump = node.places.dump();
    let checked = match local::check(&dump).await {
        Ok((checked, _)) => checked,
        Err(why) => {
            report(node, &birth.source, true, &why);
            local::inspect(node).await;
            return Err(refused("bad-dump", why));
        }
    };
    let found = checked.sums.sha256.to_string();
    if found != sha256 {
        local::inspect(node).await;
        return Err(refused("other-dump", format!("the dump in the sandbox is {found}, not {sha256}")));
    }
    if let Err(why) = rdb::can_load(&program.version.to_string(), checked.rdb.header) {
        report(node, &birth.source, true, &why.to_string());
        return Err(refused("too-new", why.to_string()));
    }
    launch(node, Start { program, birth, replica: false, holds: Holds::Whole, beside: false }).await
}

/// Makes sure that a replica starts from a dump that can be loaded, or from none. One that is ahead of the master, or unreadable, is set
/// aside. Says whether there is one.
async fn keep_usable_dump(node: &Node, program: &Ready, epoch: u64, fork: Option<&Position>) -> Result<bool, Halt> {
    let sandbox = |e| failed("sandbox", e);
    if files::mark(&node.places.dump()).map_err(sandbox)?.is_none() {
        return Ok(false);
    }
    let usable = local::check(&node.places.dump()).await.and_then(|(checked, _)| {
        rdb::can_load(&program.version.to_string(), checked.rdb.header).map_err(|e| e.to_string())?;
        Ok(checked)
    });
    match usable {
        Ok(checked) => {
            let seen = node.records.get();
            let record = seen.as_ref().map(|seen| &seen.record);
            let ahead = checked.rdb.position.as_ref().is_none_or(|p| lineage::is_ahead(&p.replid, p.offset, fork, record));
            if ahead {
                aside::link(node, epoch)?;
            }
            Ok(true)
        }
        Err(why) => {
            tracing::warn!(why, "the dump in the sandbox is of no use, set aside");
            node.places.set_data_aside(epoch, unix_ms()).map_err(sandbox)?;
            Ok(false)
        }
    }
}
