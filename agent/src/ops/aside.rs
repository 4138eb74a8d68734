//! Sets the data of a server, or a dump, aside in the sandbox before something else takes its place.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use super::{Halt, backup, failed};
use crate::api::Epoch;
use crate::clock::unix_ms;
use crate::node::Node;
use crate::redis::conf::DUMP;
use crate::server::Server;

/// Sets the running server's data aside by a dump of it.
pub(super) async fn live(node: &Arc<Node>, server: &Arc<Server>, epoch: Epoch) -> Result<PathBuf, Halt> {
    backup::dump(node, server, None).await?;
    link(node, epoch)
}

/// Sets the dump in the server's directory aside, leaving it in place too.
pub(super) fn link(node: &Node, epoch: Epoch) -> Result<PathBuf, Halt> {
    let link = || {
        let place = node.places.make_aside(epoch, unix_ms())?;
        fs::hard_link(node.places.dump(), place.join(DUMP))?;
        crate::files::sync_dir(&place)?;
        node.places.prune_asides()?;
        Ok::<_, std::io::Error>(place)
    };
    let place = link().map_err(|e| failed("aside", format!("the old data could not be set aside: {e}")))?;
    tracing::info!(place = %place.display(), "set aside a copy that is ahead of its new master, or of an unknown history");
    Ok(place)
}
