//! What people and programs ask for: each [`Ask`] is judged on what is wanted and seen, before anything changes. Pure.
//!
//! A refusal states the evidence, the expected loss and the command that would be accepted.

use agent::api::{Epoch, State};
use agent::record::Phase;
use agent::snapshot::{How, SnapshotId};

use crate::decide::{Recorded, View, birth, choose, clock, copies, evidence};
use crate::model::Spec;
use crate::view::{Ask, MigrationPlan, Operation, OperationKind, RestorePlan, SnapshotRow};

mod master;
mod migrate;
mod replace;

/// Most instances one cluster may be asked to have.
pub const MAX_INSTANCES: u32 = 1000;

/// How long a backup may take before it is given up, milliseconds: a large dump over a slow store.
pub const BACKUP_WITHIN_MS: u64 = 3_600_000;
/// How long a restore may take, milliseconds.
const RESTORE_WITHIN_MS: u64 = 6 * 3_600_000;

/// What comes of an [`Ask`].
#[derive(Clone, Debug, PartialEq)]
pub enum Judgement {
    /// Not done; why, and what would be.
    Refuse(String),
    /// Only a plan was asked for; nothing changes.
    Plan(String),
    /// Only a plan was asked for, of a restore into a cluster that serves; nothing changes.
    Show(Box<RestorePlan>),
    /// The same of a migration.
    ShowMigration(Box<MigrationPlan>),
    /// A new spec is to be written.
    Spec(Box<Spec>, String),
    /// An operation begins.
    Begin(Box<Operation>, String),
}

/// Judges an ask. `id` is the new operation's id.
pub fn judge(ask: &Ask, view: View<'_>, id: String) -> Judgement {
    match ask {
        Ask::Scale { owner, instances } => scale(owner, *instances, view),
        Ask::Backup { owner, how } => backup(owner, *how, view, id),
        Ask::Switchover { owner, to, dry_run } => master::switchover(owner, *to, *dry_run, view, id),
        Ask::Failover { owner, consent_epoch, dry_run } => master::failover(owner, *consent_epoch, *dry_run, view, id),
        Ask::Restore { owner, snapshot, consent_epoch, empty, dry_run } => {
            let wish = Wish { snapshot: snapshot.as_ref(), consent: *consent_epoch, empty: *empty, dry_run: *dry_run };
            restore(owner, wish, view, id)
        }
        Ask::Migrate { owner, origin, consent_epoch, dry_run, examined } => {
            let asked =
                migrate::Asked { owner, origin, consent: *consent_epoch, dry_run: *dry_run, examined: examined.as_deref() };
            migrate::judge(asked, view, id)
        }
        Ask::CutOver { owner } => migrate::cut_over(owner, view),
        Ask::CancelMigration { owner } => migrate::cancel(owner, view),
    }
}

fn scale(owner: &str, instances: u32, view: View<'_>) -> Judgement {
    if !(1..=MAX_INSTANCES).contains(&instances) {
        return Judgement::Refuse(format!("{instances} instances: 1 to {MAX_INSTANCES} are possible"));
    }
    if instances == view.spec.instances {
        return Judgement::Refuse(format!("{instances} instances are wanted already"));
    }
    let acks = view.spec.durability.acks;
    if instances <= acks {
        let least = acks + 1;
        return Judgement::Refuse(format!(
            "{instances} instances cannot give {acks} acknowledgements (durability.acks): at least {least}"
        ));
    }
    let spec = Spec {
        generation: view.spec.generation + 1,
        instances,
        changed_by: owner.into(),
        changed_ms: view.seen.wall_ms,
        ..view.spec.clone()
    };
    let what = if instances > view.spec.instances { "added" } else { "removed, the highest that are not the master," };
    let difference = instances.abs_diff(view.spec.instances);
    Judgement::Spec(Box::new(spec), format!("{difference} instance(s) will be {what} through the scheduler"))
}

/// What is in the way of another operation. A backup that the clock asked for is not: its agent goes on with it, and its snapshot counts.
fn in_flight(view: View<'_>) -> Option<&Operation> {
    let running = view.seen.operation.as_ref().filter(|o| o.outcome.is_none() && o.deadline_ms > view.seen.wall_ms);
    running.filter(|o| !matches!(o.kind, OperationKind::Backup { .. }) || o.owner != clock::OWNER)
}

fn operation(id: String, kind: OperationKind, owner: &str, epoch: Epoch, view: View<'_>, within_ms: u64) -> Box<Operation> {
    Box::new(Operation {
        id,
        kind,
        owner: owner.into(),
        epoch,
        step: "begun".into(),
        started_ms: view.seen.wall_ms,
        deadline_ms: view.seen.wall_ms + within_ms,
        outcome: None,
        cause: String::new(),
        steps: Vec::new(),
    })
}

fn backup(owner: &str, how: Option<How>, view: View<'_>, id: String) -> Judgement {
    let Some((record, version)) = &view.seen.record else {
        return Judgement::Refuse("the cluster has no master yet: there is nothing to back up".into());
    };
    if let Some(running) = in_flight(view) {
        return Judgement::Refuse(format!("operation {} ({}) is in flight: {}", running.id, kind(running), running.step));
    }
    if !view.seen.store.configured {
        return Judgement::Refuse("no store is configured: set snapshots.uri for controllers and agents".into());
    }
    if (Recorded { record, version: *version }).serving_master(view).is_none() {
        return Judgement::Refuse("no master serves at the moment; ask again when status shows one".into());
    }
    let how = how.unwrap_or(view.spec.snapshots_how);
    let operation = operation(id, OperationKind::Backup { how }, owner, record.epoch, view, BACKUP_WITHIN_MS);
    let message = match how {
        How::Dump => "the backup source will make a dump and copy it to the store",
        How::Stream => "the backup source's replication stream will be read into the store",
    };
    Judgement::Begin(operation, message.into())
}

fn kind(operation: &Operation) -> &'static str {
    match operation.kind {
        OperationKind::Bootstrap => "bootstrap",
        OperationKind::Failover { .. } => "failover",
        OperationKind::Switchover { .. } => "switchover",
        OperationKind::Backup { .. } => "backup",
        OperationKind::Restore { .. } | OperationKind::Replace { .. } => "restore",
        OperationKind::Migrate(_) => "migrate",
    }
}

/// What a restore is asked to do.
#[derive(Clone, Copy)]
struct Wish<'a> {
    snapshot: Option<&'a SnapshotId>,
    consent: Option<Epoch>,
    empty: bool,
    dry_run: bool,
}

fn restore(owner: &str, wish: Wish<'_>, view: View<'_>, id: String) -> Judgement {
    let Wish { snapshot, consent, empty, dry_run } = wish;
    let Some((record, version)) = &view.seen.record else { return bear(owner, wish, view, id) };
    let recorded = Recorded { record, version: *version };
    if let Some(master) = recorded.serving_master(view) {
        return match snapshot.filter(|_| !empty) {
            Some(snapshot) => replace::judge(replace::Asked { owner, snapshot, consent, dry_run }, view, recorded, master, id),
            None => Judgement::Refuse(format!(
                "instance {} serves as master of epoch {}: a restore would replace live data, so it has to name what by: \
                 aurora-redis restore latest --dry-run",
                master.instance, record.epoch
            )),
        };
    }
    if let Some(id) = snapshot
        && !view.seen.store.snapshots.iter().flatten().any(|row| row.can_be_named() && row.id == *id)
    {
        return Judgement::Refuse(format!("snapshot {id} is not among the good ones: aurora-redis snapshots list shows them"));
    }
    if empty && let Some(refusal) = refuse_empty(wish, view, recorded) {
        return Judgement::Refuse(refusal);
    }
    if let Some(stated) = consent
        && stated != record.epoch
    {
        return Judgement::Refuse(format!(
            "consent was given for epoch {stated}, present is epoch {}: look at status again",
            record.epoch
        ));
    }
    let proven =
        evidence::against_master(view, recorded).or_else(|| record.evidence.clone().filter(|_| record.phase == Phase::Deposing));
    if consent.is_none() && proven.is_none() {
        return Judgement::Refuse(format!(
            "{} To go on without proof: --consent (epoch {})",
            unproven(view, recorded),
            record.epoch
        ));
    }
    let kind = OperationKind::Restore { snapshot: snapshot.cloned(), consent_epoch: consent, empty };
    let operation = operation(id, kind, owner, record.epoch, view, RESTORE_WITHIN_MS);
    let evidence = proven.as_ref().map_or_else(|| "your consent".into(), evidence::describe);
    let message = format!("a new epoch begins on {evidence}; {}", expected(view, recorded, snapshot));
    if dry_run { Judgement::Plan(message) } else { Judgement::Begin(operation, message) }
}

/// Without a record: a new cluster although a task that runs was never heard. Its consent names epoch 0.
fn bear(owner: &str, wish: Wish<'_>, view: View<'_>, id: String) -> Judgement {
    let trace = birth::trace(view);
    if !wish.empty || trace.is_some() {
        let found = trace.map(|trace| format!(" ({trace})")).unwrap_or_default();
        return Judgement::Refuse(format!("the cluster has no record yet: it starts from the best copy by itself{found}"));
    }
    if wish.consent != Some(0) {
        return Judgement::Refuse(
            "without a record the present epoch is 0: a start without any data needs --consent for it".into(),
        );
    }
    let kind = OperationKind::Restore { snapshot: None, consent_epoch: wish.consent, empty: true };
    let operation = operation(id, kind, owner, 0, view, RESTORE_WITHIN_MS);
    let message = "a new cluster is born without waiting for whoever was not heard".to_owned();
    if wish.dry_run { Judgement::Plan(message) } else { Judgement::Begin(operation, message) }
}

/// Starting without data is only for a cluster of which nothing is left, and with consent.
fn refuse_empty(wish: Wish<'_>, view: View<'_>, record: Recorded<'_>) -> Option<String> {
    if wish.consent.is_none() {
        return Some(format!("a start without any data needs --consent (epoch {})", record.record.epoch));
    }
    if wish.snapshot.is_some() {
        return Some("either a snapshot or an empty start, not both".into());
    }
    let present = view.seen.agents.iter().filter(|a| !view.seen.has_ended(a)).filter_map(|a| a.state.as_ref());
    // A copy that is cut and belongs to no history that is known can never lead.
    let usable = |s: &State| s.fenced_epoch != Some(record.record.epoch) || copies::place(s, record.record).is_some();
    let may_hold = |s: &State| s.redis.as_ref().is_some_and(|r| r.loading || !r.answering || (r.keys > 0 && usable(s)));
    let left = present.filter(|s| may_hold(s) || s.local.is_some()).count();
    // What was imported is none of its data, unless it begins with that.
    let may_be_used = |row: &&SnapshotRow| match row.is_import() {
        true => copies::begins_with(record.record, &row.id),
        false => row.can_be_named(),
    };
    let snapshots = view.seen.store.snapshots.as_ref().map(|rows| rows.iter().filter(may_be_used).count());
    match (left, snapshots) {
        (0, Some(0)) => None,
        (_, None) => Some("the store cannot be listed: it may hold a snapshot to start from".into()),
        (copies, Some(stored)) => Some(format!(
            "{copies} instance(s) and {stored} good snapshot(s) hold data: a restore without --empty uses the best of them"
        )),
    }
}

fn unproven(view: View<'_>, record: Recorded<'_>) -> String {
    let who = record.record.master.as_ref().map_or_else(
        || "the last master is unknown".into(),
        |m| format!("nothing proves that instance {} (task {} on {}) writes no more", m.instance, m.task_id, m.host.name),
    );
    format!("{who}; {}.", expected(view, record, None))
}

fn expected(view: View<'_>, record: Recorded<'_>, snapshot: Option<&SnapshotId>) -> String {
    let replicas = record.agents(view).filter(|(_, s)| s.redis.is_some()).count();
    match (snapshot, replicas, copies::ranked(view, record).first()) {
        (Some(id), _, _) => format!("the cluster starts from snapshot {id}, and whatever is newer is lost"),
        (None, 0, Some(copy)) => {
            format!("no server is left; the best copy is the {}, and writes after it are lost", choose::describe(copy))
        }
        (None, 0, None) => "no server is left, and no snapshot is known".into(),
        (None, n, _) => format!("{n} server(s) are left, and the most advanced one will lead; writes it does not hold are lost"),
    }
}
