//! Whether enough members have answered to be sure of every confirmed write.
//!
//! With `durability.acks` = W a write is confirmed once W members hold it. So of the K members known, any K - W + 1 include a holder. The deposed
//! master's own run is a whole quorum by itself, for nothing was confirmed that it does not hold.

use agent::api::State;
use agent::record::{Evidence, Member};

use super::{Recorded, View};
use crate::model::Reason;
use crate::view::OperationKind;

/// What is missing to be sure of every confirmed write; none when enough has answered.
pub fn missing(view: View<'_>, record: Recorded<'_>) -> Option<(Reason, String)> {
    let known = &record.record.known_replicas;
    let acks = record.record.durability.acks as usize;
    let needed = (known.len() + 1).saturating_sub(acks).max(1);
    let answered = known.iter().filter(|m| answers(view, record, m)).count();
    let by_master = record.record.master.as_ref().is_some_and(|m| answers(view, record, m));
    if acks == 0 || by_master || answered >= needed || all_accounted_for(view, record) || has_consent(view, record) {
        return None;
    }
    let silent: Vec<String> =
        known.iter().filter(|m| !answers(view, record, m)).map(|m| format!("instance {} ({})", m.instance, m.task_id)).collect();
    let message = format!(
        "{answered} of {} members answered, {needed} are needed to hold every write that {acks} acknowledged; not heard: {}. \
         To go on without them, at the risk of confirmed writes: aurora-redis failover --consent {}",
        known.len(),
        silent.join(", "),
        record.record.epoch
    );
    Some((Reason::NoQuorum, message))
}

/// A member's answer counts for the run that is known, cut off for this epoch, with a complete copy, or with none since its start: then it
/// has acknowledged nothing.
fn answers(view: View<'_>, record: Recorded<'_>, member: &Member) -> bool {
    record.agents(view).map(|(_, s)| s).any(|s| {
        let run = s.redis.as_ref().filter(|r| s.task_id == member.task_id && r.run_id == member.run_id);
        let cut = s.fenced_epoch == Some(record.record.epoch);
        run.is_some_and(|r| cut && r.answering && !r.loading && !r.syncing)
    })
}

/// Whether the master and each member has answered or is proven dead: then nothing better can turn up.
fn all_accounted_for(view: View<'_>, record: Recorded<'_>) -> bool {
    let mut members = record.record.known_replicas.iter().chain(&record.record.master);
    members.all(|m| answers(view, record, m) || is_dead(view, m) || is_proven_dead(record, m))
}

/// Whether the record's evidence is that this very run ended.
fn is_proven_dead(record: Recorded<'_>, member: &Member) -> bool {
    matches!(&record.record.evidence, Some(Evidence::Dead { run_id, .. } | Evidence::Testimony { run_id, .. }) if *run_id == member.run_id)
}

fn is_dead(view: View<'_>, member: &Member) -> bool {
    let dead = |s: &State| s.task_id == member.task_id && s.deaths.iter().any(|d| d.run_id == member.run_id);
    view.seen.agents.iter().filter_map(|a| a.state.as_ref()).any(dead)
}

/// Whether somebody took the responsibility for this change of master.
pub fn has_consent(view: View<'_>, record: Recorded<'_>) -> bool {
    let Some(operation) = view.seen.operation.as_ref().filter(|o| o.outcome.is_none()) else { return false };
    match operation.kind {
        OperationKind::Failover { consent_epoch: Some(epoch) } | OperationKind::Restore { consent_epoch: Some(epoch), .. } => {
            epoch == record.record.epoch || epoch == record.record.master_epoch()
        }
        _ => false,
    }
}
