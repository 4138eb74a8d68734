//! A migration: the data of a server outside of the cluster, its *origin*, takes the place of the cluster's own.
//!
//! One instance follows the origin, closed, while the master serves ([`advance`]); where the master is alone it is deposed first, its data saved,
//! and follows itself. At the cut-over the master is deposed and fenced, and its own copy is saved, before the origin is touched. Then the origin is
//! had to refuse writes, the follower gets its last bytes, and the record names it: from that commit on nothing of before can lead. Until then whatever
//! goes wrong calls the migration off: the origin is opened again, and the present data leads ([`choose()`]).

use agent::api::{Door, ORIGIN, Order, Position, State};
use agent::record::{Evidence, Record, Restored};
use agent::snapshot::SnapshotId;

use super::{Recorded, View, choose, depose, replace};
use crate::model::{Action, AgentView, Copy, Holder, Observed, Plan, Reason, member};
use crate::view::{Migration, Operation, OperationKind, Step};

/// Longest time of the whole operation, milliseconds.
pub const WITHIN_MS: u64 = 7 * 24 * 3_600_000;
/// Longest time that saving may take, while nobody can write, milliseconds.
const SAVE_WITHIN_MS: u64 = 3_600_000;
/// Longest time from the saved data to the naming of the follower, milliseconds: meanwhile nobody can write anywhere.
const CLOSE_WITHIN_MS: u64 = 20_000;
/// Longest wait of the follower's agent for the origin's last bytes, milliseconds.
const LAST_BYTES_MS: u64 = 5_000;
/// How long it is tried to have the origin take writes again, milliseconds.
const OPEN_WITHIN_MS: u64 = 60_000;
/// How often the server that follows may die. The one that made room for it counts as well.
const DEATHS: usize = 5;
/// What the operation's step is called that notes where the present data is saved.
const SAVED: &str = "saved";
/// What it is called when the origin is to take writes again.
const CALLED_OFF: &str = "called off";

/// The migration in flight.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    operation: &'a Operation,
    migration: &'a Migration,
}

/// The migration in flight, wherever it stands.
pub fn running(seen: &Observed) -> Option<Wish<'_>> {
    let operation = seen.operation.as_ref().filter(|o| o.outcome.is_none())?;
    match &operation.kind {
        OperationKind::Migrate(migration) => Some(Wish { operation, migration }),
        _ => None,
    }
}

/// The migration that the choice of a master has to wait for, or that makes it; none once it is called off, or has come to where there is no way back.
pub fn wish<'a>(seen: &'a Observed, record: &Record) -> Option<Wish<'a>> {
    let wish = running(seen)?;
    let waited_for = wish.migration.alone || wish.migration.cut_over;
    (waited_for && wish.migration.called_off.is_none() && !wish.is_named(record)).then_some(wish)
}

impl<'a> Wish<'a> {
    /// What is migrated.
    pub fn migration(self) -> &'a Migration {
        self.migration
    }

    fn is_named(self, record: &Record) -> bool {
        record.restored.as_ref().is_some_and(|restored| restored.epoch > self.operation.epoch)
    }

    fn since(self, step: &str) -> u64 {
        self.operation.steps.iter().rev().find(|s| s.name == step).map_or(self.operation.started_ms, |s| s.at_ms)
    }

    fn is_late(self, view: View<'_>, step: &str, within_ms: u64) -> bool {
        view.seen.wall_ms > self.since(step).saturating_add(within_ms)
    }

    /// The same operation, further on.
    fn with(self, step: String, change: impl FnOnce(&mut Migration)) -> Operation {
        let mut migration = self.migration.clone();
        change(&mut migration);
        Operation { kind: OperationKind::Migrate(migration), step, ..self.operation.clone() }
    }

    /// Whether this server follows the origin for this migration.
    fn is_followed_by(self, state: &State, record: &Record) -> bool {
        let for_us = state.origin.as_ref().is_some_and(|o| o.request_id == self.operation.id);
        for_us && is_copy(state, record) && state.redis.as_ref().is_some_and(|r| r.source == self.migration.origin.source())
    }
}

/// Whether a server only follows an origin: its data is nobody's here, as long as the record does not name it.
pub fn is_copy(state: &State, record: &Record) -> bool {
    state.redis.as_ref().is_some_and(|r| {
        r.source.starts_with(ORIGIN) && state.assigned_epoch == 0 && record.history_at(&r.replid, r.offset).is_none()
    })
}

/// Whether a server goes on following an origin whatever becomes of the master: it is not to be cut off as a survivor.
pub fn is_apart(state: &State, record: &Record) -> bool {
    is_copy(state, record) && state.origin.as_ref().is_none_or(|origin| origin.held.is_none())
}

/// Whether this instance is kept from following the master.
pub fn is_lent(view: View<'_>, record: Recorded<'_>, state: &State) -> bool {
    let lent = running(view.seen).is_some_and(|w| w.migration.called_off.is_none() && w.migration.follower == state.instance);
    lent || is_copy(state, record.record)
}

/// Whether a server holds all that the origin held when it was asked last, as far as its link tells.
pub fn lag(state: &State) -> Option<u64> {
    let redis = state.redis.as_ref().filter(|r| r.answering && r.link == Some(true) && !r.syncing && !r.loading)?;
    let position = state.origin.as_ref().and_then(|o| o.position.as_ref())?;
    (position.replid == redis.replid).then(|| position.offset.saturating_sub(redis.offset))
}

/// While the master serves: has the origin followed, and at the cut-over deposes the master. Says whether it did.
pub fn advance(view: View<'_>, record: Recorded<'_>, master: &State, plan: &mut Plan) -> bool {
    clear(view, record, plan);
    let Some(wish) = running(view.seen) else { return false };
    let Wish { operation, migration } = wish;
    if migration.called_off.is_some() {
        open_again(view, record, wish, plan);
        return false;
    }
    // The change was made: that is noted with the record, and only not seen yet.
    if wish.is_named(record.record) {
        return false;
    }
    if let Some(why) = trouble(view, record, wish).or_else(|| ends(master)) {
        call_off(view, record, wish, why, plan);
        return false;
    }
    if operation.epoch < record.record.epoch {
        return false;
    }
    if migration.alone {
        let because = format!(
            "{} asked for the data of {}, and no other instance could follow it",
            operation.owner, migration.origin.address
        );
        depose::depose(view, record, None, because, plan);
        return true;
    }
    let Some(state) = followed(view, record, wish, plan) else { return false };
    if !migration.cut_over {
        return false;
    }
    match lag(state) {
        Some(_) => {
            let because = format!("{} asked for the cut-over to the data of {}", operation.owner, migration.origin.address);
            depose::depose(view, record, None, because, plan);
            true
        }
        None => {
            let why =
                format!("instance {} lost its link to {} before the cut-over began", state.instance, migration.origin.address);
            call_off(view, record, wish, why, plan);
            false
        }
    }
}

fn ends(master: &State) -> Option<String> {
    master.stopping.then(|| format!("the master, instance {}, was asked to end", master.instance))
}

/// Why the migration cannot go on; none as long as it may.
fn trouble(view: View<'_>, record: Recorded<'_>, wish: Wish<'_>) -> Option<String> {
    let Wish { operation, migration } = wish;
    if let Some(by) = &migration.cancelled {
        return Some(format!("{by} cancelled it"));
    }
    if view.seen.wall_ms > operation.deadline_ms {
        return Some("it took too long".into());
    }
    let (_, state) = record.agents(view).find(|(_, s)| s.instance == migration.follower)?;
    let who = state.instance;
    if state.stopping {
        return Some(format!("instance {who}, which follows the origin, was asked to end"));
    }
    if let Some(why) = state.cannot_lead.as_ref().filter(|_| is_copy(state, record.record)) {
        return Some(format!("instance {who}, which follows the origin, cannot lead: {why}"));
    }
    let deaths = state.deaths.iter().filter(|d| d.at_ms >= operation.started_ms).count();
    (deaths > DEATHS).then(|| format!("the server of instance {who} died {DEATHS} times while it followed the origin"))
}

/// The instance that follows the origin; if its server does not yet, it is told to.
fn followed<'a>(view: View<'a>, record: Recorded<'a>, wish: Wish<'_>, plan: &mut Plan) -> Option<&'a State> {
    let Wish { operation, migration } = wish;
    let (who, origin) = (migration.follower, &migration.origin);
    let Some((agent, state)) = record.agents(view).find(|(_, s)| s.instance == who) else {
        plan.wait(Reason::AgentSilent, format!("instance {who}, which follows {}, is not heard", origin.address));
        return None;
    };
    // One that was cut off before anybody wanted that follows on.
    let strays = !migration.cut_over && state.redis.as_ref().is_some_and(|r| r.following.as_ref() != Some(&origin.address));
    if wish.is_followed_by(state, record.record) && !strays {
        return Some(state);
    }
    let order = Order::FollowOrigin { request_id: operation.id.clone(), origin: origin.clone() };
    plan.act(record.command(agent, state, order), format!("it is to follow {}, beside the data that it holds", origin.address));
    plan.wait(Reason::WaitingForStart, format!("instance {who} is to follow {}", origin.address));
    None
}

/// While nobody may write: goes one step on. Says whether the choice of a master has to wait for that, or was made.
pub fn choose(view: View<'_>, record: Recorded<'_>, evidence: &Evidence, plan: &mut Plan) -> bool {
    clear(view, record, plan);
    if let Some(over) = running(view.seen).filter(|w| w.migration.called_off.is_some()) {
        open_again(view, record, over, plan);
    }
    let Some(wish) = wish(view.seen, record.record) else { return false };
    if let Some(why) = trouble(view, record, wish).or_else(|| trouble_in_the_cut_over(view, record, wish)) {
        call_off(view, record, wish, why, plan);
        return true;
    }
    if let Err(why) = step(view, record, evidence, wish, plan) {
        call_off(view, record, wish, why, plan);
    }
    true
}

fn step(view: View<'_>, record: Recorded<'_>, evidence: &Evidence, wish: Wish<'_>, plan: &mut Plan) -> Result<(), String> {
    let Wish { operation, migration } = wish;
    let origin = &migration.origin;
    if migration.saved.is_none() {
        return save(view, record, wish, plan);
    }
    if record.record.evidence.is_none() {
        let because = super::evidence::describe(evidence);
        plan.act(record.commit(Record { evidence: Some(evidence.clone()), ..record.record.clone() }), because);
        return Ok(());
    }
    let Some(state) = followed(view, record, wish, plan) else { return Ok(()) };
    if let Some(held) = state.origin.as_ref().and_then(|o| o.held.as_ref()) {
        return name(view, record, evidence, wish, state, held, plan);
    }
    plan.summary = format!("instance {} follows {}; the present data is saved", state.instance, origin.address);
    if !migration.cut_over {
        plan.wait(
            Reason::WaitingForStart,
            format!("instance {} follows {} until the cut-over is asked for", state.instance, origin.address),
        );
        return Ok(());
    }
    let Some(was) = migration.door else {
        // What it is to be put back to is known before it is touched.
        let read = state.origin.as_ref().and_then(|o| o.door).ok_or("the settings of the origin could not be read")?;
        let text = format!("{} is to refuse writes, and instance {} gets its last bytes", origin.address, state.instance);
        let next = wish.with(text.clone(), |m| m.door = Some(read));
        plan.act(Action::SetOperation { operation: Box::new(next) }, text);
        return Ok(());
    };
    let Some((agent, state)) = record.agents(view).find(|(_, s)| s.instance == migration.follower) else { return Ok(()) };
    let order = Order::CloseOrigin { request_id: operation.id.clone(), origin: origin.clone(), was, within_ms: LAST_BYTES_MS };
    plan.act(record.command(agent, state, order), "nothing shall be acknowledged there that is not here");
    plan.wait(Reason::WaitingForCuts, format!("instance {} gets the last bytes of {}", state.instance, origin.address));
    Ok(())
}

fn trouble_in_the_cut_over(view: View<'_>, record: Recorded<'_>, wish: Wish<'_>) -> Option<String> {
    let Wish { operation, migration } = wish;
    if !migration.cut_over || migration.saved.is_none() {
        return None;
    }
    let state = record.agents(view).map(|(_, s)| s).find(|s| s.instance == migration.follower);
    let ours = state.and_then(|s| s.origin.as_ref()).filter(|o| o.request_id == operation.id);
    if let Some(why) = ours.and_then(|o| o.not_closed.as_ref()) {
        return Some(format!("{} could not be had to refuse writes: {why}", migration.origin.address));
    }
    // What held everything is gone, or another server runs in its place.
    let gone = state.is_some_and(|s| !wish.is_followed_by(s, record.record));
    if gone && (migration.door.is_some() || !migration.alone) {
        return Some(format!("the server of instance {} that followed it is gone", migration.follower));
    }
    let since = if migration.alone { "cut-over" } else { SAVED };
    wish.is_late(view, since, CLOSE_WITHIN_MS).then(|| "the last bytes did not come in time".into())
}

/// Has the master's own copy saved, which was cut off.
fn save(view: View<'_>, record: Recorded<'_>, wish: Wish<'_>, plan: &mut Plan) -> Result<(), String> {
    let Wish { operation, migration } = wish;
    if let Some(saved) = replace::saved_as(view, record, &operation.id) {
        let text = format!("the present data is saved as snapshot {saved}");
        let mut next = wish.with(text.clone(), |m| m.saved = Some(saved));
        next.steps.push(Step { name: SAVED.into(), at_ms: view.seen.wall_ms });
        plan.act(Action::SetOperation { operation: Box::new(next) }, text);
        return Ok(());
    }
    if wish.is_late(view, "deposing", SAVE_WITHIN_MS) {
        return Err("the present data was not saved in time".into());
    }
    let what = format!("the data of {}", migration.origin.address);
    replace::save_present(view, record, &operation.id, &what, plan)
}

/// Names the follower, which holds everything that the origin ever acknowledged.
fn name(
    view: View<'_>,
    record: Recorded<'_>,
    evidence: &Evidence,
    wish: Wish<'_>,
    state: &State,
    held: &Position,
    plan: &mut Plan,
) -> Result<(), String> {
    let cut = state.fenced_epoch == Some(record.record.epoch);
    let redis = state.redis.as_ref().filter(|r| cut && r.answering && r.replid == held.replid && r.offset >= held.offset);
    let (Some(redis), Some(member)) = (redis, member(state)) else {
        plan.wait(
            Reason::WaitingForCuts,
            format!("instance {} is being cut off from {}", state.instance, wish.migration.origin.address),
        );
        return Ok(());
    };
    let proven = Record { evidence: Some(evidence.clone()), ..record.record.clone() };
    let holder = Holder::Live { member: Box::new(member.clone()) };
    let copy = Copy { holder, epoch: record.record.epoch, offset: redis.offset, created_ms: 0 };
    choose::name_winner(view, Recorded { record: &proven, ..record }, &member, &[copy], plan);
    Ok(())
}

/// What the record says from the naming of the follower on: its data has taken the place of what was before. There is no snapshot of it: the record has
/// the name that one of this moment would have.
pub fn named(view: View<'_>, record: Record, winner: &State) -> Record {
    let Some(redis) = &winner.redis else { return record };
    let (epoch, histories) = (record.epoch, replace::begun_by(&record, redis));
    let restored = Some(Restored { epoch, snapshot: SnapshotId::new(epoch, view.seen.wall_ms, redis.offset) });
    Record { histories, restored, ..record }
}

/// The operation after a change of master that came to its end with `done`; absent when no migration is in flight.
pub fn settled(view: View<'_>, record: &Record, master: &State, done: &str) -> Option<Operation> {
    let wish = running(view.seen)?;
    let Wish { operation, migration } = wish;
    if wish.is_named(record) {
        return Some(ended(wish, "stable", told(wish, master, done)));
    }
    if migration.called_off.is_some() {
        return Some(Operation { epoch: record.epoch, ..operation.clone() });
    }
    if migration.alone || migration.cut_over {
        let why = "failed: another change of master came first; nothing was replaced";
        return Some(ended(wish, CALLED_OFF, why.into()));
    }
    // Another instance leads; the origin is followed on.
    Some(Operation { epoch: record.epoch, cause: String::new(), steps: Vec::new(), ..operation.clone() })
}

/// How it ends, in words: what leads, up to where, what became of the data before, and how the origin is opened again.
fn told(wish: Wish<'_>, master: &State, done: &str) -> String {
    let Wish { migration, .. } = wish;
    let address = &migration.origin.address;
    let upto =
        master.origin.as_ref().and_then(|o| o.held.as_ref()).map_or(String::new(), |p| format!(" up to offset {}", p.offset));
    let saved = migration.saved.as_ref().map_or(String::new(), |saved| format!("; what it replaced is snapshot {saved}"));
    let again = migration.door.map_or(String::new(), |door| format!(". {}", still_closed(migration, door)));
    format!("{done}, with the data of {address}{upto}{saved}{again}")
}

/// How somebody opens an origin that refuses writes.
fn still_closed(migration: &Migration, was: Door) -> String {
    let address = &migration.origin.address;
    let mut command = format!(
        "redis-cli -h {} -p {} CONFIG SET min-replicas-to-write {}",
        address.host, address.port, was.min_replicas_to_write
    );
    if was.min_replicas_max_lag == 0 {
        command += ", then CONFIG SET min-replicas-max-lag 0";
    }
    format!("{address} refuses writes; to have it take them again: {command}")
}

/// Whoever followed an origin for no migration that is in flight makes room for a replica; what it copied is still there.
fn clear(view: View<'_>, record: Recorded<'_>, plan: &mut Plan) {
    let wanted = running(view.seen).filter(|w| w.migration.called_off.is_none());
    for (agent, state) in record.agents(view).filter(|(_, s)| is_copy(s, record.record)) {
        let for_it = wanted.is_some_and(|w| w.migration.follower == state.instance && w.is_followed_by(state, record.record));
        if !for_it && wanted.is_none_or(|w| w.migration.follower != state.instance) {
            plan.act(record.command(agent, state, Order::Stop), "nobody wants the data any more that it copied from an origin");
        }
    }
}

/// Ends the migration; what is there stays, or leads again. An origin that may refuse writes is opened first: the mark that says so goes with a new version
/// of the record, so that no naming that is still on its way can come after it.
fn call_off(view: View<'_>, record: Recorded<'_>, wish: Wish<'_>, why: String, plan: &mut Plan) {
    let because = format!("the migration from {} is called off: {why}", wish.migration.origin.address);
    plan.summary.clone_from(&because);
    if wish.migration.door.is_none() {
        plan.act(Action::SetOperation { operation: Box::new(ended(wish, CALLED_OFF, over(wish, &why, ""))) }, because);
        return;
    }
    let mut next = wish.with(format!("{} is to take writes again", wish.migration.origin.address), |m| m.called_off = Some(why));
    next.steps.push(Step { name: CALLED_OFF.into(), at_ms: view.seen.wall_ms });
    plan.act(
        Action::CommitRecord {
            record: Box::new(record.record.clone()),
            version: record.version,
            lease_version: None,
            operation: Some(Box::new(next)),
            history: None,
        },
        because,
    );
}

/// Has the origin take writes again, and ends the migration that was called off.
fn open_again(view: View<'_>, record: Recorded<'_>, wish: Wish<'_>, plan: &mut Plan) {
    let Wish { operation, migration } = wish;
    let why = migration.called_off.clone().unwrap_or_default();
    let opened = |s: &State| s.origin.as_ref().is_some_and(|o| o.request_id == operation.id && o.opened);
    let end = |remark: &str, plan: &mut Plan| {
        let ended = ended(wish, "ended", over(wish, &why, remark));
        plan.act(Action::SetOperation { operation: Box::new(ended) }, "the migration is called off");
    };
    let Some(was) = migration.door else { return end("", plan) };
    if record.agents(view).any(|(_, s)| opened(s)) {
        return end(&format!("; {} takes writes again", migration.origin.address), plan);
    }
    if wish.is_late(view, CALLED_OFF, OPEN_WITHIN_MS) {
        return end(&format!(". It could not be reached to take that back: {}", still_closed(migration, was)), plan);
    }
    let speakers = record.agents(view).filter(|(_, s)| !s.stopping);
    let speaker: Option<(&AgentView, &State)> = speakers.min_by_key(|(_, s)| (s.instance != migration.follower, s.instance));
    if let Some((agent, state)) = speaker {
        let order = Order::OpenOrigin { request_id: operation.id.clone(), origin: migration.origin.clone(), was };
        plan.act(record.command(agent, state, order), "the migration is called off");
    }
}

fn over(wish: Wish<'_>, why: &str, remark: &str) -> String {
    let kind = if wish.migration.cancelled.is_some() { "done" } else { "failed" };
    format!("{kind}: {why}. The present data stays{remark}")
}

/// The operation at its end; the password goes with it.
fn ended(wish: Wish<'_>, step: &str, outcome: String) -> Operation {
    let mut ended = wish.with(step.into(), |m| m.origin.password = None);
    ended.outcome = Some(outcome);
    ended
}
