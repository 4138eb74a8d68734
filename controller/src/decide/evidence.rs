//! Evidence that the record's master writes no more. Without it nobody else may write.
//!
//! Kinds: (a) its own agent reports the death of that run, or confirms the fence for this epoch; (c) an agent of the same host id and host
//! name finds another boot, or no such process; (b) its lease is over and a member that it would have to ask bears witness; (d) the time is
//! over for which promises can carry a lease. A task event from Aurora is never evidence. Consent is the way out.

use std::collections::BTreeMap;
use std::time::Duration;

use agent::api::{State, Verdict};
use agent::record::{Evidence, Member, Phase, Record};
use agent::timing;

use super::{Recorded, View};
use crate::model::Observed;
use crate::view::OperationKind;

/// The best evidence there is against the record's master.
pub fn against_master(view: View<'_>, record: Recorded<'_>) -> Option<Evidence> {
    let Some(master) = &record.record.master else {
        // A record made anew for a cluster that has had masters does not know the last one.
        let new = !record.record.initialised;
        return if new { Some(Evidence::NoneBefore) } else { lease_over(view, record).or_else(|| consent(view, record)) };
    };
    dead(view.seen, master)
        .or_else(|| fenced(view.seen, record, master))
        .or_else(|| testimony(view, record, master))
        .or_else(|| lease_over(view, record))
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

/// (b) and (d): the last renewal is pinned, so nothing can extend its lease but promises, and these bind for `failsafe.max` at most.
fn lease_over(view: View<'_>, record: Recorded<'_>) -> Option<Evidence> {
    if record.record.phase != Phase::Deposing {
        return None;
    }
    let waited = view.now.saturating_sub(last_renewal_seen(view, record));
    let waited_ms = waited.as_millis() as u64;
    let epoch = record.record.epoch;
    let run_id = record.record.pinned.as_ref().and_then(|p| p.lease.as_ref()).map(|l| l.run_id.clone()).unwrap_or_default();
    if waited >= failsafe_wait(record) {
        return Some(Evidence::Failsafe { run_id, epoch, waited_ms });
    }
    let witness = witness(view, record).filter(|_| waited >= lease_wait(record))?;
    let guarded = record.record.pinned.as_ref().and_then(|p| p.lease.as_ref()).is_some_and(|lease| lease.guarded);
    Some(Evidence::Lease { run_id, epoch, witness: witness.task_id.clone(), waited_ms, guarded })
}

/// How long a lease can run after its last renewal was first seen.
pub fn lease_wait(record: Recorded<'_>) -> Duration {
    timing::with_margin(Duration::from_millis(record.record.lease_ms))
}

/// How long promises can carry a lease after its last renewal was first seen.
pub fn failsafe_wait(record: Recorded<'_>) -> Duration {
    let Record { lease_ms, failsafe_max_ms, .. } = record.record;
    timing::with_margin(Duration::from_millis(failsafe_max_ms.saturating_add(*lease_ms)))
}

/// When the pinned renewal was first seen; without one, or after somebody else wrote to its node, when this epoch was.
fn last_renewal_seen(view: View<'_>, record: Recorded<'_>) -> Duration {
    let pinned = record.record.pinned.as_ref();
    let seen = view.seen.lease.as_ref().filter(|lease| Some(&lease.node) == pinned).map(|lease| lease.seen);
    seen.unwrap_or(view.seen.phase_since)
}

/// A member that the deposed master would have to ask: it knows the new epoch, so it promises nothing for the old one any more, and no
/// promise it gave binds it.
fn witness<'a>(view: View<'a>, record: Recorded<'a>) -> Option<&'a State> {
    let lease = record.record.pinned.as_ref()?.lease.as_ref()?;
    let asked = |s: &State| s.task_id != lease.task_id && lease.asks.iter().any(|peer| peer.task_id == s.task_id);
    record.agents(view).map(|(_, s)| s).find(|s| asked(s) && s.epoch >= record.record.epoch && !s.promised)
}

/// Somebody stated this very epoch; it says nothing against a master that serves, nor against the winner that
/// it made way for and that is opening.
fn consent(view: View<'_>, record: Recorded<'_>) -> Option<Evidence> {
    let operation = view.seen.operation.as_ref().filter(|o| o.outcome.is_none())?;
    let opening = record.record.phase == Phase::Promoting && record.agents(view).any(|(_, s)| record.is_master(s));
    if opening || record.serving_master(view).is_some() {
        return None;
    }
    match operation.kind {
        OperationKind::Restore { consent_epoch: Some(epoch), .. } | OperationKind::Failover { consent_epoch: Some(epoch) }
            if epoch == record.record.epoch || epoch == record.record.master_epoch() =>
        {
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
        Evidence::Lease { run_id, witness, waited_ms, guarded, .. } => {
            let how = if *guarded { ", which the server itself keeps," } else { "" };
            format!("the lease of server run {}{how} is over ({waited_ms} ms), and task {witness} bears witness", short(run_id))
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
