//! Evidence that the record's master writes no more. Without it nobody else may write.
//!
//! Kinds in use: (a) its own agent reports the death of that run, or confirms the fence for this epoch; (c) an agent of the same host id and host
//! name finds another boot, or no such process. A task event from Aurora is never evidence. What only a lease could prove waits
//! with a reason, and consent is the way out.

use std::collections::BTreeMap;

use agent::api::Verdict;
use agent::record::{Evidence, Member, Phase};

use super::{Recorded, View};
use crate::model::Observed;
use crate::view::OperationKind;

/// The best evidence there is against the record's master.
pub fn against_master(view: View<'_>, record: Recorded<'_>) -> Option<Evidence> {
    let Some(master) = &record.record.master else { return Some(Evidence::NoneBefore) };
    dead(view.seen, master)
        .or_else(|| fenced(view.seen, record, master))
        .or_else(|| testimony(view, record, master))
        .or_else(|| consent(view, record))
}

/// (a) A death once reported stays true, so a stale word counts as well.
fn dead(seen: &Observed, master: &Member) -> Option<Evidence> {
    let states = seen.agents.iter().filter_map(|a| a.state.as_ref()).filter(|s| s.task_id == master.task_id);
    states
        .flat_map(|s| &s.deaths)
        .find(|d| d.run_id == master.run_id)
        .map(|death| Evidence::Dead { run_id: death.run_id.clone(), proof: death.proof.clone() })
}

/// (a) The fence is confirmed for one epoch and one run. Only while deposing: a winner was itself cut for the epoch it then leads.
fn fenced(seen: &Observed, record: Recorded<'_>, master: &Member) -> Option<Evidence> {
    if record.record.phase != Phase::Deposing {
        return None;
    }
    let fenced = seen.agents.iter().filter_map(|a| a.state.as_ref()).any(|s| {
        s.task_id == master.task_id
            && s.fenced_epoch == Some(record.record.epoch)
            && s.redis.as_ref().is_some_and(|r| r.run_id == master.run_id)
    });
    fenced.then(|| Evidence::Fenced { run_id: master.run_id.clone(), epoch: record.record.epoch })
}

/// (c), unless hosts with one id and different boots show that ids are not unique here (cloned images).
fn testimony(view: View<'_>, record: Recorded<'_>, master: &Member) -> Option<Evidence> {
    if ids_are_cloned(view, record, &master.host.host_id) {
        return None;
    }
    let found = view
        .seen
        .testimonies
        .iter()
        .find(|t| t.run_id == master.run_id && matches!(t.verdict, Verdict::OtherBoot | Verdict::ProcessGone))?;
    let verdict = match found.verdict {
        Verdict::OtherBoot => "other-boot",
        _ => "process-gone",
    };
    Some(Evidence::Testimony { run_id: found.run_id.clone(), witness: found.witness.clone(), verdict: verdict.into() })
}

/// Whether live agents disagree about the boot of one host id.
fn ids_are_cloned(view: View<'_>, record: Recorded<'_>, host_id: &str) -> bool {
    let mut boots: BTreeMap<&str, &str> = BTreeMap::new();
    record
        .agents(view)
        .map(|(_, s)| &s.host)
        .filter(|h| h.host_id == host_id)
        .any(|h| *boots.entry(&h.host_id).or_insert(&h.boot_id) != h.boot_id)
}

/// Somebody stated this very epoch; it says nothing against a master that serves.
fn consent(view: View<'_>, record: Recorded<'_>) -> Option<Evidence> {
    let operation = view.seen.operation.as_ref().filter(|o| o.outcome.is_none())?;
    if record.serving_master(view).is_some() {
        return None;
    }
    match operation.kind {
        OperationKind::Restore { consent_epoch: Some(epoch), .. } if epoch == record.record.epoch => {
            Some(Evidence::Consent { by: operation.owner.clone(), at_ms: operation.started_ms })
        }
        _ => None,
    }
}

/// Evidence in words.
pub fn describe(evidence: &Evidence) -> String {
    match evidence {
        Evidence::Dead { run_id, proof } => format!("server run {} is dead ({proof})", short(run_id)),
        Evidence::Fenced { run_id, epoch } => format!("server run {} is fenced for epoch {epoch}", short(run_id)),
        Evidence::Testimony { run_id, witness, verdict } => {
            format!("task {witness} on its host testifies about server run {}: {verdict}", short(run_id))
        }
        Evidence::Lease { run_id, witness, waited_ms, .. } => {
            format!("the lease of server run {} is over ({waited_ms} ms), and task {witness} bears witness", short(run_id))
        }
        Evidence::Failsafe { run_id, waited_ms, .. } => {
            format!("server run {} has had no lease for {waited_ms} ms, longer than any promise can carry it", short(run_id))
        }
        Evidence::Consent { by, .. } => format!("{by} consented to go on without evidence"),
        Evidence::NoneBefore => "there was no master before".into(),
    }
}

fn short(run_id: &str) -> &str {
    run_id.get(..8).unwrap_or(run_id)
}
