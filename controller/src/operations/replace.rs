//! Judging a restore into a cluster that serves: everything that speaks against it is told before anything changes.

use agent::api::{Epoch, State};
use agent::rdb;
use agent::snapshot::SnapshotId;

use super::{Judgement, in_flight, kind, operation};
use crate::decide::{Recorded, View, replace};
use crate::view::{OperationKind, RestorePlan, SnapshotRow};

/// What is asked for.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub owner: &'a str,
    pub snapshot: &'a SnapshotId,
    pub consent: Option<Epoch>,
    pub dry_run: bool,
}

/// Judges it; `master` serves.
pub(super) fn judge(asked: Asked<'_>, view: View<'_>, record: Recorded<'_>, master: &State, id: String) -> Judgement {
    let rows = view.seen.store.snapshots.as_deref().unwrap_or_default();
    let Some(row) = rows.iter().find(|row| row.id == *asked.snapshot) else {
        let id = asked.snapshot;
        return Judgement::Refuse(format!("the store holds no snapshot {id}: aurora-redis snapshots list shows what it holds"));
    };
    let plan = plan(view, record, master, row);
    if asked.dry_run {
        return Judgement::Show(Box::new(plan));
    }
    if !plan.objections.is_empty() {
        return Judgement::Refuse(plan.objections.join("; "));
    }
    let epoch = record.record.epoch;
    match asked.consent {
        None => {
            return Judgement::Refuse(format!(
                "instance {} serves as master of epoch {epoch}: a restore would replace live data. To have it saved and replaced: {}",
                master.instance, plan.command
            ));
        }
        Some(stated) if stated != epoch => {
            return Judgement::Refuse(format!(
                "consent was given for epoch {stated}, present is epoch {epoch}: look at the plan again (--dry-run)"
            ));
        }
        Some(_) => {}
    }
    let Some(loader) = plan.loader else { return Judgement::Refuse("no instance could load it".into()) };
    let kind = OperationKind::Replace { snapshot: row.id.clone(), loader, saved: None };
    let mut begun = operation(id, kind, asked.owner, epoch, view, replace::WITHIN_MS);
    begun.step = format!("instance {loader} fetches and judges snapshot {}", row.id);
    Judgement::Begin(begun, plan.steps.join("; "))
}

/// What would happen, and what speaks against it.
fn plan(view: View<'_>, record: Recorded<'_>, master: &State, row: &SnapshotRow) -> RestorePlan {
    let (loader, unable) = loader(view, record, row);
    let epoch = record.record.epoch;
    let others = record.agents(view).map(|(_, s)| s.instance).filter(|i| Some(*i) != loader);
    let mut others: Vec<u32> = others.collect();
    others.sort_unstable();
    RestorePlan {
        snapshot: row.clone(),
        age_ms: view.seen.wall_ms.saturating_sub(row.created_ms),
        epoch,
        master: master.instance,
        present_keys: master.redis.as_ref().map_or(0, |r| r.keys),
        loader,
        steps: steps(master, row, loader, &others, epoch),
        others,
        objections: objections(view, record, row, loader.is_none().then_some(unable)),
        command: format!("aurora-redis restore {} --consent {epoch}", row.id),
    }
}

/// The instance that will load it, a replica where there is one; and why others cannot.
fn loader(view: View<'_>, record: Recorded<'_>, row: &SnapshotRow) -> (Option<u32>, Vec<String>) {
    let unfit = |state: &State| -> Option<String> {
        let who = format!("instance {}", state.instance);
        let Some(redis) = state.redis.as_ref().filter(|r| r.answering && !r.loading) else {
            return Some(format!("{who} has no server that answers"));
        };
        if state.stopping {
            return Some(format!("{who} was asked to end"));
        }
        if let Some(why) = &state.cannot_lead {
            return Some(format!("{who} cannot lead: {why}"));
        }
        let header = row.rdb.parse().ok()?;
        rdb::can_load(&redis.version, header).err().map(|why| format!("{who}: {why}"))
    };
    let states = || record.agents(view).map(|(_, s)| s);
    let fit = states().filter(|s| unfit(s).is_none());
    let best = fit.min_by_key(|s| (record.is_master(s), std::cmp::Reverse(s.instance)));
    let mut unable: Vec<String> = states().filter_map(unfit).collect();
    unable.sort();
    (best.map(|s| s.instance), unable)
}

fn steps(master: &State, row: &SnapshotRow, loader: Option<u32>, others: &[u32], epoch: Epoch) -> Vec<String> {
    let who = loader.map_or_else(|| "an instance".into(), |i| format!("instance {i}"));
    let mut steps = vec![
        format!("{who} fetches snapshot {}, and judges it, its own memory and its disk; nothing else is touched until then", row.id),
        format!("writes stop: instance {} is deposed and fenced, epoch {} begins", master.instance, epoch + 1),
        "what it holds, which is every write that was ever acknowledged, is saved to the store as a snapshot; if that fails, it leads again".into(),
        format!("{who} keeps what it holds in its sandbox, loads the snapshot, and leads; if that fails, the present data leads again"),
    ];
    if !others.is_empty() {
        let list = others.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
        steps.push(format!("the others ({list}) set what they hold aside in their sandboxes and copy the restored data from it"));
    }
    steps
}

fn objections(view: View<'_>, record: Recorded<'_>, row: &SnapshotRow, unable: Option<Vec<String>>) -> Vec<String> {
    let mut found = Vec::new();
    if !row.can_be_named() {
        let next = view.seen.store.snapshots.iter().flatten().find(|other| other.good && other.id != row.id);
        let next = next.map_or_else(|| "there is no good one".into(), |next| format!("the next good one is {}", next.id));
        let problem = row.problem.as_deref().unwrap_or("unknown");
        found.push(format!("snapshot {} cannot be used: {problem}; {next}", row.id));
    }
    if let Some(running) = in_flight(view) {
        found.push(format!("operation {} ({}) is in flight: {}", running.id, kind(running), running.step));
    }
    if let Some(unable) = unable {
        found.push(format!("no instance could load it: {}", unable.join("; ")));
    }
    let failing = record.agents(view).find_map(|(_, s)| Some((s.instance, s.uploads.error.as_ref()?)));
    if let Some((instance, error)) = failing {
        found.push(format!("the present data could not be saved, for uploads fail at the moment (instance {instance}): {error}"));
    }
    found
}
