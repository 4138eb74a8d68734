//! Publishing: what was observed, decided and done becomes what people and programs see. Pure, but for the event log's own numbering.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use agent::api::{Epoch, Role, State};

use crate::decide::choose::master_view;
use crate::decide::{Recorded, View, copies, evidence, migrate, replicas};
use crate::model::{AgentView, Observed, Outcome, Plan, Planned, Wait};
use crate::pace;
use crate::view::{
    ActionView, ClusterView, Condition, Event, Forecast, HistoryEntry, InstanceView, PlanView, Proof, SnapshotRow,
};

/// Events kept.
const MAX_EVENTS: usize = 500;

/// The event log of one leadership.
#[derive(Clone, Debug, Default)]
pub struct Events {
    log: VecDeque<Event>,
    seq: u64,
    /// By reason and subject: the message it began with.
    waits: BTreeMap<(String, String), String>,
}

impl Events {
    /// Adds an event.
    pub fn add(&mut self, kind: &str, message: String, epoch: Epoch, at_ms: u64) {
        self.seq += 1;
        self.log.push_back(Event { seq: self.seq, at_ms, epoch, kind: kind.into(), message });
        if self.log.len() > MAX_EVENTS {
            self.log.pop_front();
        }
    }

    /// Adds one event for each kind of wait that is new, and one for each that has ended: changes, not states.
    pub fn note_waits(&mut self, waits: &[Wait], epoch: Epoch, at_ms: u64) {
        let now: BTreeMap<(String, String), String> =
            waits.iter().map(|w| ((w.reason.name().to_owned(), subject(&w.message)), w.message.clone())).collect();
        let before = std::mem::take(&mut self.waits);
        for ((reason, _), message) in now.iter().filter(|(key, _)| !before.contains_key(*key)) {
            self.add(reason, message.clone(), epoch, at_ms);
        }
        for ((reason, _), message) in before.iter().filter(|(key, _)| !now.contains_key(*key)) {
            self.add(&format!("{reason}-ended"), format!("over: {message}"), epoch, at_ms);
        }
        self.waits = now;
    }

    /// The log, oldest first.
    pub fn log(&self) -> &VecDeque<Event> {
        &self.log
    }
}

/// What a message is about, without the figures in it that change from cycle to cycle.
fn subject(message: &str) -> String {
    let words = message.split_whitespace().take(6).filter(|w| !w.chars().all(|c| c.is_ascii_digit()));
    words.collect::<Vec<_>>().join(" ")
}

/// `/api/v1/cluster` when nothing can be observed or wanted.
pub fn blind(cluster: &str, wait: &Wait) -> ClusterView {
    ClusterView {
        cluster: cluster.into(),
        conditions: vec![condition(wait)],
        summary: format!("{}: {}", wait.reason.name(), wait.message),
        ..ClusterView::default()
    }
}

fn condition(wait: &Wait) -> Condition {
    Condition { reason: wait.reason.name().into(), message: wait.message.clone() }
}

/// `/api/v1/cluster`.
pub fn cluster(name: &str, view: View<'_>, plan: &Plan, history: &[HistoryEntry]) -> ClusterView {
    let recorded = view.seen.record.as_ref().map(|(record, version)| Recorded { record, version: *version });
    let master = recorded.and_then(|r| r.serving_master(view));
    let snapshot = view.seen.store.snapshots.iter().flatten().find(|row| row.good).cloned();
    let proof = Proof::of(view.seen.store.snapshots.as_deref().unwrap_or_default());
    ClusterView {
        verified: proof.verified.cloned(),
        rehearsed: proof.restored.cloned(),
        cluster: name.into(),
        cluster_id: recorded.map(|r| r.record.cluster_id.clone()),
        epoch: recorded.map_or(0, |r| r.record.epoch),
        phase: recorded.map(|r| r.record.phase),
        master: master.and(recorded).and_then(|r| r.record.master.as_ref()).and_then(master_view),
        instances: instances(view, recorded, master),
        desired_instances: view.spec.instances,
        summary: summary(view, plan, snapshot.as_ref()),
        snapshot,
        conditions: plan.waits.iter().map(condition).collect(),
        if_master_died: recorded.and_then(|r| copies::forecast(view, r)).map(|(instance, loss_bytes)| Forecast {
            instance,
            loss_bytes,
            server_dies_ms: usual_pause(history),
            host_lost_ms: recorded.map_or(0, |r| evidence::lease_wait(r).as_millis() as u64),
        }),
    }
}

/// The median pause of the last failovers; absent before the first.
fn usual_pause(history: &[HistoryEntry]) -> Option<u64> {
    let failovers = history.iter().filter(|entry| entry.kind == "failover");
    let mut pauses: Vec<u64> = failovers.filter_map(|entry| entry.pause_ms).take(9).collect();
    pauses.sort_unstable();
    pauses.get(pauses.len() / 2).copied()
}

fn summary(view: View<'_>, plan: &Plan, snapshot: Option<&SnapshotRow>) -> String {
    let age = snapshot.map(|row| view.seen.wall_ms.saturating_sub(row.created_ms) / 1000);
    let stored = match (age, view.seen.store.configured) {
        (Some(seconds), _) => format!("latest snapshot {seconds} s old"),
        (None, true) => "no snapshot yet".into(),
        (None, false) => "no store configured".into(),
    };
    match plan.waits.first() {
        Some(wait) if wait.message != plan.summary => format!("{}; {stored}; {}", plan.summary, wait.message),
        _ => format!("{}; {stored}", plan.summary),
    }
}

fn instances(view: View<'_>, recorded: Option<Recorded<'_>>, master: Option<&State>) -> Vec<InstanceView> {
    let mut rows: Vec<InstanceView> =
        view.seen.agents.iter().filter_map(|agent| instance(view, recorded, master, agent)).collect();
    for task in view.seen.scheduler.tasks.iter().flatten() {
        if !rows.iter().any(|row| row.task_id.as_ref() == Some(&task.task_id)) {
            rows.retain(|row| row.instance != task.instance || row.task_id.is_some());
            rows.push(unheard(task));
        }
    }
    rows.sort_by(|a, b| (a.instance, &a.task_id).cmp(&(b.instance, &b.task_id)));
    rows
}

/// A task that the scheduler knows and no agent speaks for.
fn unheard(task: &crate::model::TaskView) -> InstanceView {
    InstanceView {
        instance: task.instance,
        task_id: Some(task.task_id.clone()),
        address: None,
        agent: None,
        role: Role::None,
        state: if task.host.is_empty() { "pending" } else { "silent" }.into(),
        replid: None,
        offset: None,
        lag_bytes: None,
        proven: false,
        age_ms: None,
        activity: None,
        progress: None,
        problem: Some(format!("the scheduler says {}", task.status)),
    }
}

/// One agent's row. An old task's last words are not shown once its scheduler has another task for the instance.
fn instance(view: View<'_>, recorded: Option<Recorded<'_>>, master: Option<&State>, agent: &AgentView) -> Option<InstanceView> {
    let fresh = agent.fresh(view.now, view.timing.silent_after);
    let state = agent.state.as_ref();
    if fresh.is_none() && view.seen.has_ended(agent) {
        return None;
    }
    let redis = state.and_then(|s| s.redis.as_ref());
    let lag_bytes = match (master.and_then(|m| m.redis.as_ref()), redis) {
        (Some(m), Some(r)) if m.replid == r.replid && fresh.is_some() => Some(m.offset.saturating_sub(r.offset)),
        _ => None,
    };
    Some(InstanceView {
        instance: state.map_or(agent.shard, |s| Some(s.instance)).unwrap_or_default(),
        task_id: state.map(|s| s.task_id.clone()),
        address: redis.and_then(|r| r.address.clone()),
        agent: Some(agent.address.clone()),
        role: fresh.map_or(Role::None, |s| s.role),
        state: word(recorded, fresh).into(),
        replid: redis.map(|r| r.replid.clone()).filter(|r| !r.is_empty()),
        offset: redis.map(|r| r.offset),
        lag_bytes,
        proven: fresh.is_some_and(|s| replicas::is_proven(view, s)),
        age_ms: agent.heard.map(|heard| view.now.saturating_sub(heard).as_millis() as u64),
        activity: state.and_then(|s| s.activity.as_ref().map(progress).or_else(|| following(view, recorded?, s))),
        progress: state.and_then(|s| s.activity.clone()),
        problem: state.and_then(|s| s.problem.clone()).or_else(|| agent.problem.clone()),
    })
}

/// The state in one word.
fn word(recorded: Option<Recorded<'_>>, fresh: Option<&State>) -> &'static str {
    let Some(state) = fresh else { return "silent" };
    if recorded.is_some_and(|r| r.is_foreign(state)) {
        return "foreign";
    }
    match &state.redis {
        None => "idle",
        Some(redis) if redis.loading => "loading",
        Some(redis) if redis.syncing => "syncing",
        Some(redis) if !redis.answering => "not-answering",
        Some(_) if state.fenced_epoch.is_some() => "fenced",
        Some(_) if state.serving => "serving",
        Some(redis) if redis.open => "connecting",
        Some(_) => "closed",
    }
}

/// How the following of an origin goes, in words; none where none is followed.
fn following(view: View<'_>, recorded: Recorded<'_>, state: &State) -> Option<String> {
    let (origin, redis) = (state.origin.as_ref()?, state.redis.as_ref().filter(|_| migrate::is_copy(state, recorded.record))?);
    let known = match (migrate::lag(state), &origin.held) {
        (_, Some(_)) => "holds everything".into(),
        (Some(lag), None) => format!("link up, {lag} bytes behind"),
        (None, None) if redis.syncing || redis.loading => "copying".into(),
        (None, None) => "no link".into(),
    };
    let since = view.seen.wall_ms.saturating_sub(origin.since_ms) / 1000;
    let problem = origin.problem.as_ref().map_or(String::new(), |why| format!("; {why}"));
    Some(format!("follows {} ({known}, {} keys, for {since} s{problem})", origin.address, redis.keys))
}

/// In words, with as much of size, rate and time left as is known.
fn progress(activity: &agent::api::Activity) -> String {
    let agent::api::Activity { what, subject, done_bytes, total_bytes, bytes_per_s, left_s } = activity;
    let mut known = Vec::new();
    if *total_bytes > 0 {
        known.push(format!("{} %", (done_bytes.saturating_mul(100) / total_bytes).min(100)));
    }
    if *bytes_per_s > 0 {
        known.push(format!("{:.1} MiB/s", *bytes_per_s as f64 / f64::from(1 << 20)));
    }
    known.extend(left_s.map(|left| format!("{left} s left")));
    let known = if known.is_empty() { String::new() } else { format!(" ({})", known.join(", ")) };
    format!("{what} {subject}{known}")
}

/// `/api/v1/plan`.
pub fn plan(cycle: u64, plan: &Plan, violations: &[String], attempts: &crate::model::Attempts) -> PlanView {
    let outcome = |planned: &Planned| match attempts.get(&pace::key(&planned.action)).map(|a| &a.outcome) {
        Some(Some(outcome)) => outcome.to_string(),
        Some(None) => "running".into(),
        None => "not run".into(),
    };
    PlanView {
        cycle,
        summary: plan.summary.clone(),
        actions: plan
            .actions
            .iter()
            .map(|p| ActionView { action: p.action.describe(), because: p.because.clone(), outcome: outcome(p) })
            .collect(),
        waits: plan.waits.iter().map(condition).collect(),
        violations: violations.to_vec(),
    }
}

/// The event that a finished action is worth: its kind (with what went wrong, if anything did) and words; none for mere settings.
pub fn event_of(action: &Planned, outcome: &Outcome) -> Option<(String, String)> {
    let (kind, what) = (action.action.kind(), action.action.describe());
    match outcome {
        Outcome::Done if matches!(kind, "configure" | "set-operation") => None,
        Outcome::Done => Some((kind.into(), format!("{what}: {}", action.because))),
        Outcome::Refused(why) | Outcome::Failed(why) | Outcome::Unknown(why) => {
            Some((format!("{kind}-{}", outcome.kind()), format!("{what}: {why}")))
        }
    }
}

/// How long to wait for the next cycle when nothing wakes us: short while a change of master is under way.
pub fn requeue(seen: Option<&Observed>, longest: Duration) -> Duration {
    let settled = seen.and_then(|s| s.record.as_ref()).is_some_and(|(r, _)| r.phase == agent::record::Phase::Stable);
    if settled { longest } else { longest.min(Duration::from_millis(100)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Reason;

    #[test]
    fn a_wait_is_an_event_when_it_begins_and_when_it_ends_not_while_its_figures_change() {
        let wait = |linked: u32| Wait {
            reason: Reason::ReplicasNotInSync,
            message: format!("{linked} of 4 replicas are linked to the master"),
        };
        let mut events = Events::default();
        for waits in [vec![wait(0)], vec![wait(1)], vec![wait(3)], vec![]] {
            events.note_waits(&waits, 1, 1);
        }
        let seen: Vec<(&str, &str)> = events.log().iter().map(|e| (e.kind.as_str(), e.message.as_str())).collect();
        assert_eq!(
            seen,
            [
                ("replicas-not-in-sync", "0 of 4 replicas are linked to the master"),
                ("replicas-not-in-sync-ended", "over: 3 of 4 replicas are linked to the master"),
            ]
        );
    }
}
