//! Judging a migration from a server outside of the cluster: everything that speaks against it is told before anything changes.

use agent::api::{Epoch, Examined, Origin, State};

use super::{Judgement, in_flight, kind, operation};
use crate::decide::{Recorded, View, migrate, replicas};
use crate::view::{Migration, MigrationPlan, Operation, OperationKind, Step};

/// What is asked for.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub owner: &'a str,
    pub origin: &'a Origin,
    pub consent: Option<Epoch>,
    pub dry_run: bool,
    pub examined: Option<&'a Examined>,
}

/// Judges it.
pub(super) fn judge(asked: Asked<'_>, view: View<'_>, id: String) -> Judgement {
    let none = || Judgement::Refuse("no master serves at the moment; ask again when status shows one".into());
    let Some((record, version)) = &view.seen.record else { return none() };
    let record = Recorded { record, version: *version };
    let Some(master) = record.serving_master(view) else { return none() };
    let Some(examined) = asked.examined else {
        return Judgement::Refuse(format!(
            "no replica serves at the moment that could follow {}; ask again when status shows one",
            asked.origin.address
        ));
    };
    let plan = plan(asked.origin, view, record, master, examined);
    if asked.dry_run {
        return Judgement::ShowMigration(Box::new(plan));
    }
    if !plan.objections.is_empty() {
        return Judgement::Refuse(plan.objections.join("; "));
    }
    let epoch = record.record.epoch;
    match asked.consent {
        None => {
            return Judgement::Refuse(format!(
                "instance {} serves as master of epoch {epoch}: its data would be replaced. To have it saved and replaced: {}",
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
    let migration = Migration {
        origin: asked.origin.clone(),
        follower: examined.instance,
        alone: examined.instance == master.instance,
        cut_over: false,
        cancelled: None,
        saved: None,
        door: None,
        called_off: None,
    };
    let mut begun = operation(id, OperationKind::Migrate(migration), asked.owner, epoch, view, migrate::WITHIN_MS);
    begun.step = format!("instance {} follows {} until the cut-over is asked for", examined.instance, asked.origin.address);
    let next = "aurora-redis status shows how far it is; then: aurora-redis migrate --cut-over (or --cancel)";
    Judgement::Begin(begun, format!("{}; {next}", plan.steps.first().cloned().unwrap_or_default()))
}

/// What would happen, and what speaks against it.
fn plan(origin: &Origin, view: View<'_>, record: Recorded<'_>, master: &State, examined: &Examined) -> MigrationPlan {
    let epoch = record.record.epoch;
    let mut others: Vec<u32> = record.agents(view).map(|(_, s)| s.instance).filter(|i| *i != examined.instance).collect();
    others.sort_unstable();
    let mut objections = examined.objections.clone();
    objections.extend(against(origin, view, record, master, examined));
    let user = origin.username.as_ref().map_or(String::new(), |user| format!(" --username {user}"));
    let file = origin.password.as_ref().map_or(String::new(), |_| " --password-file FILE".into());
    MigrationPlan {
        origin: origin.address.clone(),
        examined: examined.clone(),
        epoch,
        master: master.instance,
        present_keys: master.redis.as_ref().map_or(0, |r| r.keys),
        follower: examined.instance,
        steps: steps(origin, master, examined.instance, &others, epoch),
        others,
        objections,
        command: format!("aurora-redis migrate {}{user}{file} --consent {epoch}", origin.address),
    }
}

fn steps(origin: &Origin, master: &State, follower: u32, others: &[u32], epoch: Epoch) -> Vec<String> {
    let address = &origin.address;
    let follow = format!("instance {follower} keeps what it holds in its sandbox, and follows {address}, closed: nobody sees it");
    let stops = format!("writes stop here: instance {} is deposed and fenced, epoch {} begins", master.instance, epoch + 1);
    let saved = "what it holds, which is every write that was ever acknowledged, is saved to the store as a snapshot";
    let mut steps = if master.instance == follower {
        vec![format!("{stops}. There is no other instance: nobody serves until the cut-over"), saved.into(), follow]
    } else {
        vec![
            format!("{follow}; instance {} serves on, with one replica less", master.instance),
            format!("on `aurora-redis migrate --cut-over`: {stops}"),
            format!("{saved}; {address} takes writes meanwhile"),
        ]
    };
    steps.push(format!(
        "{address} is had to refuse writes (min-replicas-to-write); instance {follower} gets its last bytes, and leads. Whatever fails before that is \
         undone, there and here"
    ));
    steps.push(format!("{address} goes on refusing writes; the end tells how to open it again"));
    if !others.is_empty() {
        let list = others.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
        steps.push(format!("the others ({list}) set what they hold aside in their sandboxes and copy the new data"));
    }
    steps
}

fn against(origin: &Origin, view: View<'_>, record: Recorded<'_>, master: &State, examined: &Examined) -> Vec<String> {
    let mut found = Vec::new();
    let own = |s: &State| {
        s.redis
            .as_ref()
            .is_some_and(|r| r.address.as_ref() == Some(&origin.address) || (!r.run_id.is_empty() && r.run_id == examined.run_id))
    };
    let replid = examined.position.as_ref().map_or("", |p| p.replid.as_str());
    let known =
        record.record.histories.iter().any(|h| h.replid == replid) || record.record.master_replid.as_deref() == Some(replid);
    if record.agents(view).any(|(_, s)| own(s)) || known {
        found.push(format!("{} is an instance of this cluster, or holds its data", origin.address));
    }
    if let Some(running) = in_flight(view) {
        found.push(format!("operation {} ({}) is in flight: {}", running.id, kind(running), running.step));
    }
    if !view.seen.store.configured {
        found.push("no store is configured (snapshots.uri): the present data could not be saved".into());
    }
    let failing = record.agents(view).find_map(|(_, s)| Some((s.instance, s.uploads.error.as_ref()?)));
    if let Some((instance, error)) = failing {
        found.push(format!("the present data could not be saved, for uploads fail at the moment (instance {instance}): {error}"));
    }
    found.extend(unfit(view, record, examined.instance));
    let acks = record.record.durability.acks as usize;
    let staying = record.agents(view).map(|(_, s)| s);
    let staying = staying.filter(|s| s.instance != examined.instance && replicas::is_proven(view, s)).count();
    if examined.instance != master.instance && staying < acks {
        found.push(format!(
            "durability.acks = {acks}, and only {staying} other replicas are in sync: writes could not be confirmed while instance {} follows",
            examined.instance
        ));
    }
    found
}

/// Why the instance could not follow the origin and then lead.
fn unfit(view: View<'_>, record: Recorded<'_>, instance: u32) -> Option<String> {
    let Some((_, state)) = record.agents(view).find(|(_, s)| s.instance == instance) else {
        return Some(format!("instance {instance} is not heard"));
    };
    if state.stopping {
        return Some(format!("instance {instance} was asked to end"));
    }
    let why = state.cannot_lead.as_ref()?;
    Some(format!("instance {instance} cannot lead: {why}"))
}

/// The migration in flight, for somebody who wants to go on with it or to end it.
fn under_way(view: View<'_>) -> Result<(&Operation, &Migration), Judgement> {
    let running = view.seen.operation.as_ref().filter(|o| o.outcome.is_none());
    match running.map(|o| (o, &o.kind)) {
        Some((operation, OperationKind::Migrate(migration))) => Ok((operation, migration)),
        _ => Err(Judgement::Refuse(
            "no migration is under way: aurora-redis migrate HOST:PORT --dry-run shows what one would do".into(),
        )),
    }
}

/// Judges the cut-over.
pub(super) fn cut_over(owner: &str, view: View<'_>) -> Judgement {
    let (operation, migration) = match under_way(view) {
        Ok(found) => found,
        Err(refusal) => return refusal,
    };
    let Some((record, version)) = &view.seen.record else { return Judgement::Refuse("the record cannot be read".into()) };
    let record = Recorded { record, version: *version };
    let address = &migration.origin.address;
    if migration.cut_over || migration.cancelled.is_some() || migration.called_off.is_some() {
        return Judgement::Refuse(format!("it is beyond that: {}", operation.step));
    }
    if migration.alone && migration.saved.is_none() {
        return Judgement::Refuse("the present data is not saved yet".into());
    }
    let state = record.agents(view).map(|(_, s)| s).find(|s| s.instance == migration.follower);
    let following = state.filter(|s| s.origin.as_ref().is_some_and(|o| o.request_id == operation.id && o.problem.is_none()));
    if following.and_then(migrate::lag).is_none() {
        let problem = state.and_then(|s| s.origin.as_ref()?.problem.clone()).unwrap_or_else(|| "its link is not up yet".into());
        return Judgement::Refuse(format!("instance {} does not hold the data of {address} yet: {problem}", migration.follower));
    }
    let (mut next, mut migration) = (operation.clone(), migration.clone());
    migration.cut_over = true;
    let message = format!("the cut-over to the data of {address} begins");
    next.kind = OperationKind::Migrate(migration);
    next.step = format!("{message}, asked for by {owner}");
    next.steps.push(Step { name: "cut-over".into(), at_ms: view.seen.wall_ms });
    Judgement::Begin(Box::new(next), message)
}

/// Judges its end without a cut-over.
pub(super) fn cancel(owner: &str, view: View<'_>) -> Judgement {
    let (operation, migration) = match under_way(view) {
        Ok(found) => found,
        Err(refusal) => return refusal,
    };
    if migration.door.is_some() {
        return Judgement::Refuse(format!("it is too late: {}. It takes seconds, and tells how it ended", operation.step));
    }
    let (mut next, mut migration) = (operation.clone(), migration.clone());
    migration.cancelled = Some(owner.into());
    let message = format!("the migration from {} is called off; the present data stays", migration.origin.address);
    next.kind = OperationKind::Migrate(migration);
    next.step = format!("{owner} cancels it");
    Judgement::Begin(Box::new(next), message)
}
