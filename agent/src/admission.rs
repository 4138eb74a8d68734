//! Who may replicate from this master: each member of the record by a credential of its own.
//!
//! Invariants: a run gets its user only after a renewal was committed against a record that lists it and does not mark it for removal;
//! users of anybody else are deleted, which cuts their links. A member marked for removal counts as removed only once the server shows no
//! link of it; the offset told with it was read after that.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::api::{Epoch, Offset};
use crate::causes::chain;
use crate::node::Node;
use crate::record::{Member, Record};
use crate::records::Seen;
use crate::redis::connection::Error;
use crate::secret;
use crate::server::{MEMBER, Server};

const LIMIT: Duration = Duration::from_secs(2);
/// Pause before something that did not work, or a link that is still there, is looked at again.
const AGAIN: Duration = Duration::from_millis(50);
/// All that a replica needs.
const RULES: &str = "+psync +replconf +ping";

/// What is told of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Admission {
    /// The server and the epoch it is about.
    pub run_id: String,
    pub epoch: Epoch,
    /// Version of the record it follows.
    pub record_version: i32,
    /// Runs that may replicate.
    pub admitted: Vec<String>,
    /// Runs that were cut off and are gone.
    pub removed: Vec<String>,
    /// Offset read after the last of them was.
    pub removed_at: Option<Offset>,
}

/// A replica's credential on its master.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credential {
    pub user: String,
    pub password: String,
}

/// The credential of a run of `task_id` on the master of `epoch`: both sides derive it, it never travels but as a login.
pub(crate) fn credential(node: &Node, epoch: Epoch, task_id: &str, run_id: &str) -> Credential {
    let cluster_id = node.records.get().map(|seen| seen.record.cluster_id.clone()).unwrap_or_default();
    let purpose = format!("replica:{cluster_id}:{epoch}:{task_id}:{run_id}");
    let password = secret::derive_or_open(node.config.secret.as_ref(), &node.config.cluster, &purpose);
    Credential { user: user(run_id), password }
}

fn user(run_id: &str) -> String {
    format!("{MEMBER}{}", run_id.get(..12).unwrap_or(run_id))
}

/// Gives each listed member its user and deletes all other members' users. Whether everybody marked for removal is gone.
pub(crate) async fn admit(node: &Arc<Node>, server: &Arc<Server>, seen: &Seen, epoch: Epoch) -> Result<bool, Error> {
    let (marked, listed): (Vec<&Member>, Vec<&Member>) = members(&seen.record).partition(|member| member.removing);
    let before = node.look(|parts| parts.admission.clone());
    let known = before.filter(|known| known.run_id == server.run_id() && known.epoch == epoch).unwrap_or_default();
    let there = server.members().await?;
    let wanted: BTreeSet<String> = listed.iter().map(|member| user(&member.run_id)).collect();
    let mut changes: Vec<String> =
        there.iter().filter(|user| !wanted.contains(*user)).map(|stranger| format!("ACL DELUSER {stranger}")).collect();
    for member in &listed {
        let Credential { user, password } = credential(node, epoch, &member.task_id, &member.run_id);
        if !(known.admitted.contains(&member.run_id) && there.contains(&user)) {
            let hash = secret::sha256_hex(&password);
            changes.push(format!("ACL SETUSER {user} reset on #{hash} {RULES}"));
        }
    }
    server.tell_each(&changes, LIMIT).await?;
    let linked = if marked.is_empty() { BTreeSet::new() } else { server.linked_members().await? };
    let removed: Vec<String> =
        marked.iter().map(|member| member.run_id.clone()).filter(|run_id| !linked.contains(&user(run_id))).collect();
    let removed_at = if removed.is_empty() {
        None
    } else if removed == known.removed {
        known.removed_at
    } else {
        Some(server.info(LIMIT).await?.offset)
    };
    let all_gone = removed.len() == marked.len();
    let admission = Admission {
        run_id: server.run_id().to_owned(),
        epoch,
        record_version: seen.version,
        admitted: listed.iter().map(|member| member.run_id.clone()).collect(),
        removed,
        removed_at,
    };
    node.change(|parts| parts.admission = Some(admission));
    Ok(all_gone)
}

fn members(record: &Record) -> impl Iterator<Item = &Member> {
    record.known_replicas.iter().filter(|member| !member.run_id.is_empty())
}

/// Keeps it so, as renewals are committed against newer records, for as long as the agent runs.
pub(crate) async fn run(node: Arc<Node>) {
    let (mut records, mut standings) = (node.records.subscribe(), node.lease.follow());
    loop {
        let seen = records.borrow_and_update().clone();
        let term = standings.borrow_and_update().term.clone();
        let pause = match (seen, term, node.server()) {
            (Some(seen), Some(term), Some(server)) if term.rests_on(&seen) && server.run_id() == term.run_id => {
                let current = node.look(|parts| {
                    parts.admission.as_ref().is_none_or(|known| known.run_id != term.run_id || known.epoch != term.ground.epoch)
                });
                // Before its promotion is done, the promotion itself admits.
                if current { Duration::from_secs(3600) } else { follow_record(&node, &server, &seen, term.ground.epoch).await }
            }
            _ => Duration::from_secs(3600),
        };
        tokio::select! {
            changed = records.changed() => if changed.is_err() { return },
            changed = standings.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// How long until it has to be looked at again even if nothing changes.
async fn follow_record(node: &Arc<Node>, server: &Arc<Server>, seen: &Seen, epoch: Epoch) -> Duration {
    let known = node.look(|parts| parts.admission.clone()).unwrap_or_default();
    let marked = members(&seen.record).filter(|member| member.removing).count();
    if known.record_version == seen.version && known.removed.len() == marked {
        return Duration::from_secs(3600);
    }
    match admit(node, server, seen, epoch).await {
        Ok(true) => Duration::from_secs(3600),
        Ok(false) => AGAIN,
        Err(error) => {
            tracing::warn!(error = chain(&error), "the members' credentials are not as they should be");
            AGAIN
        }
    }
}
