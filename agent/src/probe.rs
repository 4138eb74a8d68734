//! Asks the running server how it is, all the time, and tells busy from hung.
//!
//! Any reply is a sign of life, errors included: a server that loads or runs a script is not dead.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::api::Role;
use crate::board::{Parts, Work};
use crate::node::Node;
use crate::redis::connection::Connection;
use crate::redis::info::Info;
use crate::server::Server;
use crate::timing::{HUNG_AFTER, PROBE_EVERY};

/// Without an answer for so long, the server is said not to answer. A master that has not run either, and whose data replicas hold, is killed
/// then: its death is evidence for a failover.
const SILENT_AFTER: Duration = HUNG_AFTER;
/// A hung replica costs nobody anything but its readers: it gets longer before it is killed, to be started anew.
const HUNG_REPLICA_AFTER: Duration = Duration::from_secs(30);

/// Probes `server` until it is dead.
pub(crate) async fn run(node: Arc<Node>, server: Arc<Server>) {
    let mut connection = None;
    let mut silent_since: Option<(Instant, u64)> = None;
    let mut ticks = tokio::time::interval(PROBE_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while server.proof().is_none() {
        ticks.tick().await;
        let (asked, worked) = (Instant::now(), server.effort().map_or(0, |(ticks, _)| ticks));
        match ask(&server, &mut connection).await {
            Answer::Info(info) => {
                silent_since = None;
                node.observe(&server, *info);
                node.change(|parts| parts.solved("server"));
            }
            Answer::Alive(text) => {
                silent_since = None;
                node.change(|parts| {
                    parts.answering = true;
                    parts.problem("server", text);
                });
            }
            Answer::Silent if server.proof().is_none() => {
                let now = server.effort();
                let (since, before) = *silent_since.get_or_insert((asked, worked));
                let silence = Silence {
                    lasted: since.elapsed(),
                    hung: now.is_some_and(|(ticks, state)| is_hung(ticks.saturating_sub(before), state)),
                };
                node.change(|parts| {
                    parts.answering = false;
                    // A server that has just been started does not listen yet.
                    // One that is given a snapshot waits for the next bytes and for nothing else.
                    if silence.lasted >= SILENT_AFTER && !parts.duty.fed {
                        parts.problem("server", silence.describe());
                    }
                });
                if silence.is_deadly(node.look(holds_alone), server_role(&node)) {
                    tracing::error!(pid = server.pid, silence = silence.describe(), "killing a hung server");
                    server.kill().await;
                }
            }
            Answer::Silent => return,
        }
    }
}

enum Answer {
    Info(Box<Info>),
    Alive(String),
    Silent,
}

async fn ask(server: &Server, connection: &mut Option<Connection>) -> Answer {
    if connection.is_none() {
        match server.connect().await {
            Ok(open) => *connection = Some(open),
            Err(error) if error.is_reply() => return Answer::Alive(error.to_string()),
            Err(_) => return Answer::Silent,
        }
    }
    let Some(open) = connection else { return Answer::Silent };
    match open.info(SILENT_AFTER).await {
        Ok(info) => Answer::Info(Box::new(info)),
        Err(error) if error.is_reply() => Answer::Alive(error.to_string()),
        Err(error) => {
            // After silence the same connection is kept: the answer may only be late.
            if !matches!(error, crate::redis::connection::Error::Silent { .. }) {
                *connection = None;
            }
            Answer::Silent
        }
    }
}

/// A server that does not answer.
#[derive(Clone, Copy, Debug)]
struct Silence {
    lasted: Duration,
    /// It does not run either, and waits for nothing that a busy server waits for.
    hung: bool,
}

impl Silence {
    fn describe(&self) -> String {
        let how = if self.hung { "it is hung: it does not run" } else { "it is busy" };
        format!("redis-server has not answered for {} s; {how}", self.lasted.as_secs())
    }

    /// Whether the server is to be killed: never while it alone holds its data, never while it works.
    fn is_deadly(&self, holds_alone: bool, role: Role) -> bool {
        let limit = if role == Role::Master { HUNG_AFTER } else { HUNG_REPLICA_AFTER };
        self.hung && !holds_alone && self.lasted >= limit
    }
}

/// No processor time since the silence began, and not about to get some (`R`): stopped, or stuck in the kernel.
fn is_hung(ticks_gained: u64, state: char) -> bool {
    ticks_gained == 0 && state != 'R'
}

/// Whether nobody else holds the data, as far as the last answer told: a master without replicas, or one that is being given a snapshot.
fn holds_alone(parts: &Parts) -> bool {
    parts.duty.fed || parts.info.as_ref().is_none_or(|info| info.role == Role::Master && info.connected_replicas == 0)
}

fn server_role(node: &Node) -> Role {
    node.look(|parts| parts.info.as_ref().map_or(Role::None, |info| info.role))
}

/// Shows loading and saving as activities, and a link that is down as a problem.
pub(crate) fn show_progress(parts: &mut Parts, server: &Server, info: &Info) {
    match &info.following {
        Some(master) if parts.duty.role == Role::Replica && parts.duty.fenced.is_none() && info.link == Some(false) => {
            let what = if info.syncing { "is being copied from" } else { "has no link to" };
            parts.problem("link", format!("the replica {what} its master {master}"));
        }
        _ => parts.solved("link"),
    }
    if info.loading {
        parts.work(Work::Loading, &server.birth.source, info.loaded_bytes, info.loading_total_bytes);
    } else {
        parts.works.remove(&Work::Loading);
    }
    if info.bgsave_running {
        parts.work(Work::Saving, "dump.rdb", 0, 0);
    } else {
        parts.works.remove(&Work::Saving);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_hung_server_whose_data_others_hold_is_killed() {
        let after = |seconds, hung| Silence { lasted: Duration::from_secs(seconds), hung };
        assert!(after(1, true).is_deadly(false, Role::Master));
        assert!(!after(0, true).is_deadly(false, Role::Master), "too early");
        assert!(!after(60, false).is_deadly(false, Role::Master), "busy");
        assert!(!after(60, true).is_deadly(true, Role::Master), "alone");
        assert!(!after(5, true).is_deadly(false, Role::Replica), "a replica has longer");
        assert!(after(31, true).is_deadly(false, Role::Replica));
    }

    #[test]
    fn whoever_holds_what_nobody_else_has_is_known_and_so_is_one_that_waits_for_its_snapshot() {
        let parts = |role, connected_replicas, fed| {
            let mut parts = Parts::default();
            parts.info = Some(Info { role, connected_replicas, ..Info::default() });
            parts.duty.fed = fed;
            parts
        };
        assert!(holds_alone(&Parts::default()) && holds_alone(&parts(Role::Master, 0, false)));
        assert!(!holds_alone(&parts(Role::Master, 1, false)) && !holds_alone(&parts(Role::Replica, 0, false)));
        assert!(holds_alone(&parts(Role::Replica, 0, true)));
    }

    #[test]
    fn busy_is_told_from_hung_by_processor_time() {
        assert!(is_hung(0, 'T') && is_hung(0, 'D') && is_hung(0, 'S'));
        assert!(!is_hung(1, 'T') && !is_hung(0, 'R'));
    }
}
