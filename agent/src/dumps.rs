//! Notices every dump that the server finishes, and saves it from being overwritten by the next one.
//!
//! A dump is a new `dump.rdb` together with a move of the server's own count of saves, once none runs; a file that a full sync left is none.
//! It is hard-linked into the spool at once, so nothing that Redis does later can touch it.

use std::io;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use crate::api::Epoch;
use crate::clock::unix_ms;
use crate::files::{self, Mark};
use crate::memory::DumpNote;
use crate::node::Node;
use crate::redis::info::Info;
use crate::server::Server;

/// What is known of a spooled dump beside the file itself, kept next to it as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ticket {
    /// Assigned epoch of the server.
    pub epoch: Epoch,
    /// The server's version.
    pub server_version: String,
    /// Backup request it answers, if any.
    pub request_id: Option<String>,
    /// When it was finished, Unix time in milliseconds.
    pub created_ms: u64,
    /// How long Redis took, milliseconds.
    pub duration_ms: u64,
    /// Keys per database when it was noticed.
    pub keys: std::collections::BTreeMap<u32, u64>,
}

/// The server's counters and file as last seen.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Last {
    run_id: String,
    saves: Option<u64>,
    last_save_s: u64,
    mark: Option<Mark>,
    /// The file that is no new dump: there when the server started, left by a full sync, or spooled. Its inode alone may be used again.
    taken: Option<Mark>,
}

/// Follows the dumps of the running server.
#[derive(Debug, Default)]
pub(crate) struct Tracker {
    last: Mutex<Option<Last>>,
    request: Mutex<Option<String>>,
}

impl Tracker {
    /// The next dump that is noticed answers this backup request.
    pub fn expect(&self, request_id: Option<String>) {
        *self.request.lock().expect("no panic while locked") = request_id;
    }
}

/// Looks for a new dump, given a fresh answer of the server. `ended` says that the caller saw a save of its own end well: before Redis 7.0
/// nothing else tells two saves within one second apart.
pub(crate) fn notice(node: &Node, server: &Server, info: &Info, assigned: Epoch, ended: bool) {
    let mark = match files::mark(&node.places.dump()) {
        Ok(mark) => mark,
        Err(error) => return node.change(|parts| parts.problem("dumps", format!("cannot look at the dump: {error}"))),
    };
    let mut last = node.dumps.last.lock().expect("no panic while locked");
    let now = Last { run_id: info.run_id.clone(), saves: info.saves, last_save_s: info.last_save_s, mark, taken: mark };
    let Some(before) = last.as_ref().filter(|before| before.run_id == now.run_id) else {
        *last = Some(now);
        return;
    };
    if mark != before.mark {
        note_inode(node, mark, assigned);
    }
    let (next, finished) = step(before, now, Save { running: info.bgsave_running, ok: info.bgsave_ok, ended });
    if let Some(missed) = finished {
        spool(node, server, info, assigned, missed);
    }
    *last = Some(next);
}

/// What the answer says of saving.
#[derive(Clone, Copy, Debug)]
struct Save {
    running: bool,
    ok: bool,
    /// See [`notice`].
    ended: bool,
}

/// What is remembered from now on, and, when a dump has been finished since, how many more than one. Redis counts a save when it *begins*, so
/// as long as one runs the count of before is kept; otherwise the file of a full sync would be taken for its result.
fn step(before: &Last, now: Last, save: Save) -> (Last, Option<u64>) {
    let taken = before.taken;
    if save.running {
        return (Last { saves: before.saves, last_save_s: before.last_save_s, taken, ..now }, None);
    }
    let (counted, missed) = finished_between(before, &now);
    let finished = (counted && save.ok) || (save.ended && now.saves.is_none());
    if finished && now.mark.is_some() && now.mark != taken {
        return (now, Some(missed));
    }
    // A file that has stood for two answers without a save is one that a full sync left. After one answer it may still be a save's that
    // ended between that answer and the look at the file.
    let left = !counted && now.mark == before.mark;
    (Last { taken: if left { now.mark } else { taken }, ..now }, None)
}

/// Whether a save has finished since, and how many more than one; asked while none runs.
fn finished_between(before: &Last, now: &Last) -> (bool, u64) {
    match (before.saves, now.saves) {
        (Some(b), Some(n)) => (n > b, n.saturating_sub(b).saturating_sub(1)),
        _ => (now.last_save_s != before.last_save_s, 0),
    }
}

fn note_inode(node: &Node, mark: Option<Mark>, epoch: Epoch) {
    let note = mark.map(|m| DumpNote { inode: m.inode, epoch });
    // A failure shows in the state; the dump itself is not lost by it.
    let _ = node.remember(|memory| memory.dump = note);
}

fn spool(node: &Node, server: &Server, info: &Info, assigned: Epoch, missed: u64) {
    if node.store.is_none() {
        return;
    }
    let request_id = node.dumps.request.lock().expect("no panic while locked").take();
    let ticket = Ticket {
        epoch: assigned,
        server_version: server.version.to_string(),
        request_id,
        created_ms: unix_ms(),
        duration_ms: info.last_save_took_s * 1000,
        keys: info.databases.clone(),
    };
    match link(node, &ticket) {
        Ok(()) => {
            tracing::info!(saves = info.saves, request = ticket.request_id, "a dump is finished and in the spool");
            node.change(|parts| {
                parts.solved("dumps");
                parts.uploads.superseded += missed;
            });
            node.uploads.added(node);
        }
        Err(error) => {
            let text = format!("a finished dump could not be put into the spool: {error}");
            tracing::error!(text);
            node.change(|parts| {
                if let Some(request) = &ticket.request_id {
                    parts.uploads.failed_request = Some((request.clone(), text.clone()));
                }
                parts.problem("dumps", text);
            });
        }
    }
}

/// Links the dump under the next free number; the ticket goes first, so that a dump in the spool always has one.
fn link(node: &Node, ticket: &Ticket) -> io::Result<()> {
    let spool = node.places.spool();
    let number = (ticket.created_ms..).find(|n| !spool.join(format!("{n}.json")).exists()).expect("some number is free");
    std::fs::write(spool.join(format!("{number}.json")), serde_json::to_vec(ticket)?)?;
    std::fs::hard_link(node.places.dump(), spool.join(format!("{number}.rdb")))?;
    files::sync_dir(&spool)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last(saves: Option<u64>, last_save_s: u64) -> Last {
        Last { run_id: "r".into(), saves, last_save_s, mark: None, taken: None }
    }

    #[test]
    fn a_save_is_seen_by_its_counter_and_without_one_by_its_time() {
        assert_eq!(finished_between(&last(Some(1), 5), &last(Some(1), 5)), (false, 0));
        assert_eq!(finished_between(&last(Some(1), 5), &last(Some(2), 5)), (true, 0));
        assert_eq!(finished_between(&last(Some(1), 5), &last(Some(4), 9)), (true, 2));
        assert_eq!(finished_between(&last(None, 5), &last(None, 5)), (false, 0));
        assert_eq!(finished_between(&last(None, 5), &last(None, 6)), (true, 0));
    }

    fn file(inode: u64) -> Option<Mark> {
        Some(Mark { inode, ..Mark::default() })
    }

    /// Plays answers (saves begun, save running, its outcome, file) and returns after which of them a dump was noticed.
    fn noticed(answers: &[(u64, bool, bool, u64)]) -> Vec<usize> {
        let mut state = Last { run_id: "r".into(), saves: Some(0), last_save_s: 0, mark: None, taken: None };
        let mut found = Vec::new();
        for (i, (saves, running, ok, inode)) in answers.iter().enumerate() {
            let mark = file(*inode).filter(|m| m.inode > 0);
            let now = Last { saves: Some(*saves), mark, taken: mark, ..state.clone() };
            let (next, finished) = step(&state, now, Save { running: *running, ok: *ok, ended: false });
            found.extend(finished.map(|_| i));
            state = next;
        }
        found
    }

    #[test]
    fn the_file_of_a_full_sync_is_not_taken_for_the_dump_that_begins() {
        // The replica's first file comes from its full sync; Redis counts the save at its beginning.
        assert_eq!(noticed(&[(0, false, true, 7), (1, true, true, 7), (1, true, true, 7), (1, false, true, 8)]), [3]);
        assert_eq!(noticed(&[(0, false, true, 7), (0, false, true, 7), (1, false, true, 8)]), [2]);
    }

    #[test]
    fn a_failed_save_is_no_dump_and_the_next_good_one_is() {
        assert_eq!(
            noticed(&[(0, false, true, 7), (1, true, true, 7), (1, false, false, 7), (2, true, false, 7), (2, false, true, 9)]),
            [4]
        );
    }

    #[test]
    fn a_save_that_ends_between_the_answer_and_the_look_is_not_lost() {
        assert_eq!(noticed(&[(0, false, true, 0), (0, false, true, 5), (1, false, true, 5)]), [2]);
    }
}
