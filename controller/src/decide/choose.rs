//! Nobody may write: cut the survivors off, rank the copies, name the best one or have it started first.
//!
//! Order of the steps, each a condition for the next: evidence against the last master; survivors cut (their offset counts only from
//! then on); the best copy chosen; if it runs, it is named (`promoting`), else one instance starts from it, closed. A cluster that
//! was initialised never starts empty; a worse source is never taken while a better one is known.

use agent::api::{Order, Position, Source, State};
use agent::record::{History, Member, Peer, Phase, Record};
use agent::snapshot::SnapshotId;

use super::{Recorded, View, copies, depose, evidence, loss, migrate, quorum, replace, room, snapshots, switchover};
use crate::model::{Action, AgentView, Copy, HistoryChange, Holder, Plan, Reason};
use crate::view::{HistoryEntry, MasterView, Operation, OperationKind, Step};

/// Goes one step towards a new master.
pub fn choose(view: View<'_>, record: Recorded<'_>, plan: &mut Plan) {
    plan.summary = format!("epoch {} has no master yet", record.record.epoch);
    if record.is_outrun(view) {
        let because = "an agent has seen a higher epoch than the record's".to_owned();
        depose::depose(view, record, evidence::against_master(view, record), because, plan);
        return;
    }
    let Some(evidence) = record.record.evidence.clone().or_else(|| evidence::against_master(view, record)) else {
        gather_evidence(view, record, plan);
        return;
    };
    let held_back = bring_up_target(view, record, plan)
        || cut_survivors(view, record, plan)
        || replace::hold_back(view, record, plan)
        || migrate::choose(view, record, &evidence, plan);
    if held_back {
        return;
    }
    let replacing = replace::wish(view.seen, record.record);
    let wanted = replacing.map(|wish| wish.snapshot).or_else(|| wanted_snapshot(view));
    let mut ranked = copies::ranked(view, record);
    if let Some(id) = wanted {
        ranked
            .retain(|c| matches!(&c.holder, Holder::Snapshot { id: found } if found == id) || started_from(view, record, c, id));
        // What has loaded it need not load it again.
        ranked.sort_by_key(|c| !matches!(c.holder, Holder::Live { .. }));
    }
    if quorum::has_consent(view, record) {
        give_up_barred(view, record, &mut ranked);
    }
    match ranked.first() {
        Some(Copy { holder: Holder::Live { member }, .. }) => {
            let proven = Record { evidence: Some(evidence), ..record.record.clone() };
            name_winner(view, Recorded { record: &proven, ..record }, member, &ranked, plan);
        }
        // Starting from a copy takes time; what proves it to be safe is kept.
        _ if record.record.evidence.is_none() => {
            let because = evidence::describe(&evidence);
            plan.act(record.commit(Record { evidence: Some(evidence), ..record.record.clone() }), because);
        }
        best => match replacing {
            Some(wish) => replace::start(view, record, wish, plan),
            None => start_from(view, record, best, plan),
        },
    }
}

/// Somebody consented to a loss: what is in instances that must not lead is passed over, if another running copy may.
fn give_up_barred(view: View<'_>, record: Recorded<'_>, ranked: &mut Vec<Copy>) {
    let may_lead = |c: &Copy| matches!(&c.holder, Holder::Live { member } if copies::barred(view, record, member).is_none());
    if ranked.iter().any(may_lead) {
        ranked.retain(|c| !matches!(c.holder, Holder::Live { .. }) || may_lead(c));
    }
}

/// Why a winner is not named although its copy is the best one: its own agent would refuse.
fn cannot_lead(view: View<'_>, record: Recorded<'_>, winner: &Member, ranked: &[Copy]) -> Option<(Reason, String)> {
    let why = copies::barred(view, record, winner)?;
    let next =
        ranked.iter().find(|c| matches!(&c.holder, Holder::Live { member } if copies::barred(view, record, member).is_none()));
    let way_out = next.map_or_else(
        || "no other running copy may lead either".to_owned(),
        |next| {
            let (epoch, next) = (record.record.epoch, describe(next));
            format!("to go on with the {next} and set the rest aside: aurora-redis failover --consent {epoch}")
        },
    );
    Some((Reason::CannotLead, format!("the best copy is in instance {}, which cannot lead: {why}; {way_out}", winner.instance)))
}

/// In a planned change the target is not cut before it holds what the master wrote up to its fence. Says whether there is something to wait for.
fn bring_up_target(view: View<'_>, record: Recorded<'_>, plan: &mut Plan) -> bool {
    let in_time = view.now.saturating_sub(view.seen.phase_since) < view.timing.cut_wait;
    let Some(target) = planned(view).filter(|_| in_time) else { return false };
    let master = record.agents(view).map(|(_, s)| s).find(|s| record.is_master(s)).and_then(|s| s.redis.as_ref());
    let Some(position) = master.map(|r| Position { replid: r.replid.clone(), offset: r.offset }) else { return false };
    let uncut = |s: &State| s.fenced_epoch != Some(record.record.epoch) && can_be_cut(s);
    let others = record.agents(view).filter(|(_, s)| !record.is_master(s) && uncut(s) && target.is_none_or(|t| t == s.instance));
    let Some((agent, state)) = others.max_by_key(|(_, s)| s.redis.as_ref().map(|r| r.offset)) else { return false };
    if switchover::holds(state, &position) {
        return false;
    }
    let order = Order::CatchUp { position, within_ms: view.timing.cut_wait.as_millis() as u64 };
    plan.act(record.command(agent, state, order), "it is to lead, and the master's last bytes are on their way to it");
    plan.wait(Reason::WaitingForCuts, format!("instance {} gets the master's last bytes", state.instance));
    true
}

/// Without evidence: the last master is fenced if its agent is there.
fn gather_evidence(view: View<'_>, record: Recorded<'_>, plan: &mut Plan) {
    if let Some((agent, state)) = record.agents(view).find(|(_, s)| record.is_master(s)) {
        plan.act(record.command(agent, state, Order::Fence), "the last master must not write before another one does");
    }
    let who = record.record.master.as_ref().map(|m| format!("instance {} (task {})", m.instance, m.task_id));
    plan.wait(
        Reason::NoEvidence,
        format!(
            "nothing proves yet that {} writes no more. {}",
            who.unwrap_or_else(|| "the last master, which this new record does not know,".into()),
            way_out(view, record)
        ),
    );
    // While it waits, survivors are cut: each may be the witness. Not in a planned change: there the target must get the master's last bytes.
    if planned(view).is_none() {
        cut_survivors(view, record, plan);
    }
}

/// The target of the planned change under way (absent for the best replica); none when no change was planned.
pub fn planned(view: View<'_>) -> Option<Option<u32>> {
    match view.seen.operation.as_ref().filter(|o| o.outcome.is_none()).map(|o| &o.kind) {
        Some(OperationKind::Switchover { to }) => Some(*to),
        _ => None,
    }
}

/// What is known of the loss, and the command that consents to it.
pub fn way_out(view: View<'_>, record: Recorded<'_>) -> String {
    let copy = match copies::ranked(view, record).first() {
        Some(copy) => format!("the best copy otherwise is the {}", describe(copy)),
        None => "the replicas have not been asked".into(),
    };
    format!("{copy}. If you know that it is gone: aurora-redis failover --consent {}", record.record.epoch)
}

/// Whom a new master asks for promises first: the members whose agents have answered for this epoch.
pub fn asks(view: View<'_>, record: Recorded<'_>, winner: &str) -> Vec<Peer> {
    let members = &record.record.known_replicas;
    let answered = record.agents(view).filter(|(_, s)| s.epoch == record.record.epoch && s.task_id != winner);
    answered
        .filter(|(_, s)| members.iter().any(|m| m.task_id == s.task_id && !m.removing))
        .map(|(agent, s)| Peer { task_id: s.task_id.clone(), agent: agent.address.clone() })
        .collect()
}

/// Whether a server runs that can be cut off from its master.
pub fn can_be_cut(state: &State) -> bool {
    state.redis.as_ref().is_some_and(|r| r.answering && !r.run_id.is_empty() && !r.loading)
}

/// Cuts every survivor that answers. Says whether there is one to wait for.
fn cut_survivors(view: View<'_>, record: Recorded<'_>, plan: &mut Plan) -> bool {
    let mut uncut = Vec::new();
    for (agent, state) in record.agents(view) {
        let Some(redis) = state.redis.as_ref().filter(|_| can_be_cut(state)) else { continue };
        if migrate::is_apart(state, record.record) {
            continue;
        }
        let is_told =
            plan.actions.iter().any(|p| matches!(&p.action, Action::Command { agent: told, .. } if *told == agent.address));
        if is_told || state.fenced_epoch == Some(record.record.epoch) || copies::is_started_for(state, record.record) {
            continue;
        }
        uncut.push(format!("instance {} ({}, offset {})", state.instance, &redis.run_id.get(..8).unwrap_or(""), redis.offset));
        plan.act(record.command(agent, state, Order::Fence), "its offset counts only once it is cut off from the old master");
    }
    let waiting = !uncut.is_empty() && view.now.saturating_sub(view.seen.phase_since) < view.timing.cut_wait;
    if waiting {
        plan.wait(Reason::WaitingForCuts, format!("cutting off {}", uncut.join(", ")));
    }
    waiting
}

/// The snapshot that somebody asked for, if a restore runs.
fn wanted_snapshot(view: View<'_>) -> Option<&SnapshotId> {
    match view.seen.operation.as_ref().filter(|o| o.outcome.is_none()).map(|o| &o.kind) {
        Some(OperationKind::Restore { snapshot, .. }) => snapshot.as_ref(),
        _ => None,
    }
}

fn started_from(view: View<'_>, record: Recorded<'_>, copy: &Copy, id: &SnapshotId) -> bool {
    let Holder::Live { member } = &copy.holder else { return false };
    record.agents(view).map(|(_, s)| s).any(|s| {
        s.task_id == member.task_id
            && copies::is_started_for(s, record.record)
            && s.redis.as_ref().is_some_and(|r| r.source == format!("snapshot:{id}"))
    })
}

/// Names the winner, if enough members answered to be sure of every confirmed write, and what is lost is not too much.
pub fn name_winner(view: View<'_>, record: Recorded<'_>, winner: &Member, ranked: &[Copy], plan: &mut Plan) {
    let (replacing, migrating) = (replace::wish(view.seen, record.record), migrate::wish(view.seen, record.record));
    // What is replaced is saved: nothing of it is missed.
    let missed = || {
        quorum::missing(view, record)
            .or_else(|| loss::too_much_lost(view, record, winner))
            .or_else(|| more_in_an_ending_one(view, record, winner))
    };
    let refusal =
        cannot_lead(view, record, winner, ranked).or_else(|| missed().filter(|_| replacing.is_none() && migrating.is_none()));
    if let Some((reason, message)) = refusal {
        plan.wait(reason, message);
        return;
    }
    let mut known_replicas = record.record.known_replicas.clone();
    known_replicas.extend(record.record.master.clone());
    known_replicas.retain(|m| m.run_id != winner.run_id);
    known_replicas.sort_by(|a, b| (a.instance, &a.run_id).cmp(&(b.instance, &b.run_id)));
    known_replicas.dedup_by(|a, b| a.run_id == b.run_id);
    let Some(entry) = history_entry(view, record, winner, ranked) else { return };
    let because = format!("{}: {}", entry.because, entry.candidates.join("; "));
    plan.summary = format!("instance {} is to be master of epoch {}", winner.instance, record.record.epoch);
    let next = Record {
        phase: Phase::Promoting,
        master: Some(winner.clone()),
        master_epoch: record.record.epoch,
        known_replicas,
        histories: forked(view, record, winner),
        ..record.record.clone()
    };
    let state = record.agents(view).map(|(_, s)| s).find(|s| s.task_id == winner.task_id);
    let next = match (replacing, state) {
        (Some(wish), Some(state)) => replace::named(next, wish, state),
        (None, Some(state)) if migrating.is_some() => migrate::named(view, next, state),
        _ => next,
    };
    plan.act(
        Action::CommitRecord {
            record: Box::new(next),
            version: record.version,
            lease_version: None,
            operation: step(view, format!("promoting instance {}", winner.instance)),
            history: Some(HistoryChange::Add(Box::new(entry))),
        },
        because,
    );
}

/// The lineage, in which the history that the winner continues ends where it stands, and nothing counts of those begun later: what another
/// copy holds beyond that is set aside, also when this winner is deposed before its own history is in the lineage.
fn forked(view: View<'_>, record: Recorded<'_>, winner: &Member) -> Vec<History> {
    let mut histories = record.record.histories.clone();
    let state = record.agents(view).map(|(_, s)| s).find(|s| s.task_id == winner.task_id);
    let Some(redis) = state.and_then(|s| s.redis.as_ref()) else { return histories };
    let second = redis.replid2.as_ref().zip(redis.replid2_end).map(|(replid, end)| (replid, end.saturating_sub(1)));
    let mut stands = [(&redis.replid, redis.offset)].into_iter().chain(second);
    let place = stands.find_map(|(replid, offset)| Some((record.record.history_at(replid, offset)?, offset)));
    if let Some((at, offset)) = place {
        // What two histories share ends before the first of the later one; a winner named in between and given up may have moved an end.
        let mut shared = offset;
        for history in histories[..=at].iter_mut().rev() {
            history.to = Some(history.to.filter(|_| history.next.is_some()).map_or(shared, |to| to.min(shared)));
            shared = shared.min(history.from.saturating_sub(1));
        }
        histories[at].to = Some(offset);
        histories[at + 1..].iter_mut().for_each(|later| later.to = Some(later.from.saturating_sub(1).min(offset)));
    } else {
        // A winner of a history that the lineage does not know, or of none, shares nothing with it as far as anybody knows.
        histories.iter_mut().for_each(|history| history.to = Some(0));
    }
    histories
}

/// Why the winner is not named yet: an instance that is ending cannot lead, and holds more of the same history.
fn more_in_an_ending_one(view: View<'_>, record: Recorded<'_>, winner: &Member) -> Option<(Reason, String)> {
    let redis = record.agents(view).map(|(_, s)| s).find(|s| s.task_id == winner.task_id)?.redis.as_ref()?;
    let ahead = |s: &&State| {
        let whole = s.redis.as_ref().filter(|r| r.answering && !r.loading && !r.syncing);
        let more = whole.is_some_and(|r| r.replid == redis.replid && r.offset > redis.offset);
        s.stopping && s.fenced_epoch == Some(record.record.epoch) && more
    };
    let state = record.agents(view).map(|(_, s)| s).find(ahead)?;
    let message = format!(
        "instance {} holds more than instance {}, and cannot lead because it was asked to end; the other leads once it has ended",
        state.instance, winner.instance
    );
    Some((Reason::WaitingForInstances, message))
}

/// The operation in flight, at another step.
fn step(view: View<'_>, step: String) -> Option<Box<Operation>> {
    let running = view.seen.operation.as_ref().filter(|o| o.outcome.is_none())?;
    let mut steps = running.steps.clone();
    steps.push(Step { name: "promoting".into(), at_ms: view.seen.wall_ms });
    Some(Box::new(Operation { step, steps, ..running.clone() }))
}

/// The entry for `history/`; absent for a winner without an address, which cannot lead.
fn history_entry(view: View<'_>, record: Recorded<'_>, winner: &Member, ranked: &[Copy]) -> Option<HistoryEntry> {
    let state = record.agents(view).map(|(_, s)| s).find(|s| s.task_id == winner.task_id);
    let redis = state.and_then(|s| s.redis.as_ref());
    let source = redis.map(|r| r.source.as_str()).filter(|_| state.is_some_and(|s| copies::is_started_for(s, record.record)));
    let snapshot = source.and_then(|s| s.strip_prefix("snapshot:")).and_then(|id| id.parse().ok());
    let position = redis.map(|r| agent::api::Position { replid: r.replid.clone(), offset: r.offset });
    let loss_bytes = loss::loss_bytes(view, record, winner);
    let kind = match (&record.record.master, &snapshot) {
        _ if state.is_some_and(|s| migrate::is_copy(s, record.record)) => "migrate",
        (_, Some(_)) => "restore",
        (None, None) => "bootstrap",
        (Some(_), None) if planned(view).is_some() => "switchover",
        (Some(old), None) if old.instance == winner.instance => "restart",
        (Some(_), None) => "failover",
    };
    Some(HistoryEntry {
        epoch: record.record.epoch,
        kind: kind.into(),
        from: record.record.master.as_ref().and_then(master_view),
        to: master_view(winner)?,
        position,
        snapshot,
        evidence: record.record.evidence.as_ref().map(evidence::describe).unwrap_or_default(),
        candidates: ranked.iter().take(16).map(describe).collect(),
        because: why(view, winner, ranked),
        cause: view.seen.operation.as_ref().filter(|o| o.outcome.is_none()).map(|o| o.cause.clone()).unwrap_or_default(),
        steps: Vec::new(),
        pause_ms: None,
        lost_bytes: None,
        loss_bytes,
        at_ms: view.seen.wall_ms,
    })
}

/// Why the winner comes before the others, in words.
fn why(view: View<'_>, winner: &Member, ranked: &[Copy]) -> String {
    let equals = |c: &&Copy| Some((c.epoch, c.offset)) == ranked.first().map(|best| (best.epoch, best.offset));
    let who = format!("instance {}", winner.instance);
    match (planned(view), ranked.iter().filter(equals).count()) {
        (Some(_), _) => format!("{who} holds everything, as was planned"),
        (None, 0 | 1) => format!("{who} holds the most"),
        (None, n) => format!("{who} comes first of {n} that hold the most (running before stored, then the lowest instance)"),
    }
}

/// Instance, task and address of a member; absent while its address is unknown.
pub fn master_view(member: &Member) -> Option<MasterView> {
    let address = member.redis.clone()?;
    Some(MasterView { instance: member.instance, task_id: member.task_id.clone(), address })
}

/// A copy for people: where it is, of which epoch, up to which offset.
pub fn describe(copy: &Copy) -> String {
    let at = format!("epoch {} offset {}", copy.epoch, copy.offset);
    match &copy.holder {
        Holder::Live { member } => format!("instance {} at {at}", member.instance),
        Holder::Local { instance, .. } => format!("dump in the sandbox of instance {instance} at {at}"),
        Holder::Snapshot { id } => format!("snapshot {id} at {at}"),
    }
}

/// No running copy is the best one: one instance starts from the best source, closed.
fn start_from(view: View<'_>, record: Recorded<'_>, best: Option<&Copy>, plan: &mut Plan) {
    if let Some(busy) = starting(view, record) {
        plan.wait(Reason::WaitingForStart, busy);
        return;
    }
    let idle: Vec<(&AgentView, &State)> =
        record.agents(view).filter(|(_, s)| s.redis.is_none() && s.activity.is_none() && !s.stopping).collect();
    if idle.is_empty() && room::free_empty(view, record, plan) {
        return;
    }
    if let Some((reason, message)) = not_yet(view, record, idle.len()) {
        plan.wait(reason, message);
        return;
    }
    if idle.is_empty() {
        room::free(view, record, best, plan);
        return;
    }
    let because = best.map(|c| format!("the best copy is the {}", describe(c)));
    match best.map(|c| &c.holder) {
        Some(Holder::Local { agent, sha256, .. }) => {
            let Some((agent, state)) = idle.iter().find(|(a, _)| a.address == *agent) else { return };
            let order = Order::Start { source: Source::Local { sha256: sha256.clone() } };
            plan.act(record.command(agent, state, order), because.unwrap_or_default());
        }
        Some(Holder::Snapshot { id }) => {
            snapshots::report_suspicious(view, plan);
            let (agent, state) = lowest(&idle);
            plan.act(record.command(agent, state, Order::Restore { snapshot: id.clone() }), because.unwrap_or_default());
        }
        Some(Holder::Live { .. }) => (),
        None => start_empty(view, record, &idle, plan),
    }
}

/// Why nothing is started from a copy yet: a better one may turn up, in an instance that has not reported, whose dump is being checked, or
/// whose server has not told its place since it was cut.
fn not_yet(view: View<'_>, record: Recorded<'_>, idle: usize) -> Option<(Reason, String)> {
    let reported = record.agents(view).count();
    let waited = view.now.saturating_sub(view.seen.phase_since) >= view.timing.bootstrap_wait;
    let checking = |s: &State| s.activity.as_ref().is_some_and(|a| a.what == "checking");
    if let Some((_, state)) = record.agents(view).find(|(_, s)| checking(s)) {
        let message = format!("instance {} is still checking the dump in its sandbox: it may be the best copy", state.instance);
        return Some((Reason::WaitingForStart, message));
    }
    if let Some((_, state)) = record.agents(view).find(|(_, s)| !waited && is_undetermined(s, record)) {
        let message = format!("the server of instance {} has not told its place yet: it may be the best copy", state.instance);
        return Some((Reason::WaitingForCuts, message));
    }
    if reported == 0 || (reported < view.spec.instances as usize && !waited) {
        let wanted = view.spec.instances;
        let message =
            format!("{reported} of {wanted} instances have reported, {idle} without a server: a better copy may turn up");
        return Some((Reason::WaitingForInstances, message));
    }
    let unlisted = view.seen.store.configured && view.seen.store.snapshots.is_none();
    let message = "no copy is running, and the store cannot be listed: it may hold a better one";
    unlisted.then(|| (Reason::StoreUnreachable, message.to_owned()))
}

/// Whether a server runs that may hold data, and its place in the lineage is not known for this epoch.
fn is_undetermined(state: &State, record: Recorded<'_>) -> bool {
    let told = |r: &agent::api::Redis| {
        state.fenced_epoch == Some(record.record.epoch) && r.answering && !r.loading && !r.syncing && !state.stopping
    };
    state.redis.as_ref().is_some_and(|r| !told(r) && !copies::is_started_for(state, record.record))
}

fn lowest<'a>(idle: &[(&'a AgentView, &'a State)]) -> (&'a AgentView, &'a State) {
    *idle.iter().min_by_key(|(_, s)| s.instance).expect("called with at least one idle agent")
}

/// Only a cluster that never had data, is not to begin with an imported snapshot, and has no snapshot, good or bad, starts empty.
fn start_empty(view: View<'_>, record: Recorded<'_>, idle: &[(&AgentView, &State)], plan: &mut Plan) {
    let entries = view.seen.store.snapshots.iter().flatten().count();
    snapshots::report_suspicious(view, plan);
    let has_had_data = record.record.initialised || record.record.restored.is_some() || entries > 0;
    if has_had_data && !view.seen.may_start_empty() {
        let unusable: Vec<&String> = view.seen.unusable.iter().collect();
        plan.wait(
            Reason::NoSource,
            format!(
                "this cluster has had data, and no copy of it can be used ({entries} snapshots in the store, unusable: {unusable:?}): \
                 it never starts empty by itself. Repair the store or put a good snapshot into it; \
                 if the data may be given up: aurora-redis restore --empty --consent"
            ),
        );
        return;
    }
    let (agent, state) = lowest(idle);
    plan.act(
        record.command(agent, state, Order::Start { source: Source::Empty }),
        "no data: a new cluster, or one whose data was given up",
    );
}

/// An instance that is starting from a source chosen before, in words with its progress.
pub fn starting(view: View<'_>, record: Recorded<'_>) -> Option<String> {
    record.agents(view).map(|(_, s)| s).filter(|s| s.epoch == record.record.epoch).find_map(|s| {
        let loading = s.redis.as_ref().is_some_and(|r| copies::is_started_for(s, record.record) && (r.loading || !r.answering));
        match &s.activity {
            Some(a) if matches!(a.what.as_str(), "restoring" | "loading" | "fetching-binary") => {
                Some(format!("instance {}: {} {} ({} of {} bytes)", s.instance, a.what, a.subject, a.done_bytes, a.total_bytes))
            }
            _ if loading => Some(format!("instance {} is loading its data", s.instance)),
            _ => None,
        }
    })
}
