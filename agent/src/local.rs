//! The dump that lies in the sandbox while no server runs: what a server could start from here.

use std::path::Path;

use crate::api::LocalDump;
use crate::board::{Parts, Work};
use crate::files::{self, Mark};
use crate::node::Node;
use crate::rdb;
use crate::redis::conf::DUMP;

/// Says that the dump is being looked at: until then nobody may conclude that there is none.
pub(crate) fn begin(parts: &mut Parts) {
    parts.work(Work::Checking, DUMP, 0, 0);
}

/// Held while somebody looks: who looked later says what is there.
static LOOKING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Checks the dump and shows it. Reads the whole file, off the runtime.
pub(crate) async fn inspect(node: &Node) {
    node.change(begin);
    let _looking = LOOKING.lock().await;
    let path = node.places.dump();
    node.change(begin);
    let found = match files::mark(&path) {
        Ok(None) => Ok(None),
        Ok(Some(mark)) => check(&path).await.map(|(checked, _)| Some(describe(node, mark, &checked))),
        Err(error) => Err(error.to_string()),
    };
    node.change(|parts| {
        parts.works.remove(&Work::Checking);
        match found {
            Ok(local) => {
                parts.local = local;
                parts.solved("local");
            }
            Err(why) => {
                parts.local = None;
                parts.problem("local", format!("the dump in the sandbox is of no use: {why}"));
            }
        }
    });
}

/// A dump that was read and found good, and what it holds: not known in a format newer than any known here.
pub(crate) type Good = (rdb::Checked, Option<rdb::Content>);

/// Reads and checks a dump, off the runtime; the error says what is wrong and where.
pub(crate) async fn check(path: &Path) -> Result<Good, String> {
    let owned = path.to_owned();
    let checked = tokio::task::spawn_blocking(move || std::fs::File::open(owned).and_then(rdb::check)).await;
    match checked {
        Ok(Ok(Ok(good))) => Ok(good),
        Ok(Ok(Err(error))) => Err(format!("{}: {error}", path.display())),
        Ok(Err(error)) => Err(format!("{}: {error}", path.display())),
        Err(error) => Err(format!("{}: the check was broken off: {error}", path.display())),
    }
}

fn describe(node: &Node, mark: Mark, checked: &rdb::Checked) -> LocalDump {
    let note = node.notebook.get().dump.filter(|note| note.inode == mark.inode);
    LocalDump {
        sha256: checked.sums.sha256.to_string(),
        bytes: checked.sums.bytes,
        position: checked.rdb.position.clone(),
        epoch: note.map_or(0, |note| note.epoch),
        created_s: checked.rdb.created_s.unwrap_or(0),
    }
}
