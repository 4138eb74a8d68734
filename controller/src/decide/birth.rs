//! No record: a new cluster, or one whose ZooKeeper was emptied.
//!
//! What is found decides: cluster id and highest epoch are adopted from live agents, else from the manifests below this cluster's
//! path; only where nothing is found is a new cluster born: empty, or from a snapshot that was imported for it. One live serving master is
//! adopted as it is, so nobody changes.

use agent::api::State;
use agent::record::{Evidence, MAX_EPOCH, Phase, Record, Restored};

use super::View;
use crate::model::{Action, AgentView, Plan, Reason, member};
use crate::view::SnapshotRow;

/// Makes the record once enough is known.
pub fn begin(view: View<'_>, plan: &mut Plan) {
    let fresh = view.seen.agents.iter().filter_map(|a| a.fresh(view.now, view.timing.silent_after));
    let states: Vec<&State> = fresh.filter(|s| s.epoch <= MAX_EPOCH).collect();
    plan.summary = format!("no record yet; {} of {} instances have reported", states.len(), view.spec.instances);
    let waited = view.seen.first_agent.is_some_and(|first| view.now.saturating_sub(first) >= view.timing.bootstrap_wait);
    if states.is_empty() || (states.len() < view.spec.instances as usize && !waited) {
        plan.wait(Reason::WaitingForInstances, plan.summary.clone());
        return;
    }
    // What was stored before the job was there must be in the listing: a dump may have been imported for it only just before.
    let listed = view.seen.store.listed.filter(|_| view.seen.store.snapshots.is_some());
    if view.seen.store.configured && listed.is_none_or(|at| view.seen.first_agent.is_none_or(|first| at < first)) {
        plan.wait(
            Reason::StoreUnreachable,
            "the store must be listed before a cluster is born: it may hold this cluster's snapshots, or imported ones",
        );
        return;
    }
    // Who was heard once and is silent now counts as well: it may be the one that knows the cluster.
    let mut ids: Vec<&String> = view.seen.agents.iter().filter_map(|a| a.state.as_ref()?.cluster_id.as_ref()).collect();
    ids.sort();
    ids.dedup();
    if ids.len() > 1 {
        plan.wait(Reason::ClusterIdsDiffer, format!("agents claim clusters {ids:?}: remove the instances of the wrong one"));
        return;
    }
    let found = ids.first().copied().or(view.seen.store.cluster_id.as_ref());
    let entries = view.seen.store.snapshots.iter().flatten().filter(|row| !row.is_import()).count();
    if found.is_none() && entries > 0 {
        let message = format!(
            "the store holds {entries} snapshots below this cluster's path and their manifests do not agree on one cluster: \
             move away those that are not of this cluster, and imported ones that cannot be used"
        );
        plan.wait(Reason::ClusterIdsDiffer, message);
        return;
    }
    let masters: Vec<&&State> = states.iter().filter(|s| s.serving && s.role == agent::api::Role::Master).collect();
    if masters.len() > 1 {
        let who: Vec<u32> = masters.iter().map(|s| s.instance).collect();
        plan.wait(
            Reason::ClusterIdsDiffer,
            format!("there is no record and instances {who:?} both serve as master: stop the wrong one"),
        );
        return;
    }
    let live = masters.first().map(|s| **s);
    if found.is_some()
        && live.is_none()
        && let Some(who) = unaccounted(view, &states)
    {
        let message = format!(
            "there is no record, and {who}: the last master may still take writes there. \
             If it is gone for good, have Aurora restart or kill that task"
        );
        plan.wait(Reason::NoEvidence, message);
        return;
    }
    if found.is_none()
        && !view.seen.may_start_empty()
        && let Some(who) = never_heard(view)
    {
        let message = format!(
            "nobody who was heard knows a cluster, and {who}: it may be the one that does, and would then be a second one. \
             If this cluster is new, or that data may be given up: aurora-redis restore --empty --consent"
        );
        plan.wait(Reason::WaitingForInstances, message);
        return;
    }
    create(view, &states, found, live, plan);
}

/// What speaks of an earlier cluster, in words; absent when nothing does, as far as is known.
pub fn trace(view: View<'_>) -> Option<String> {
    if let Some(state) = view.seen.agents.iter().filter_map(|a| a.state.as_ref()).find(|s| s.cluster_id.is_some()) {
        return Some(format!("instance {} knows cluster {}", state.instance, state.cluster_id.as_deref().unwrap_or_default()));
    }
    let Some(rows) = &view.seen.store.snapshots else {
        let unknown = "the store cannot be listed, and may hold snapshots of an earlier cluster";
        return view.seen.store.configured.then(|| unknown.into());
    };
    let imports = rows.iter().filter(|row| row.is_import()).count();
    match (rows.len() - imports, imports) {
        (0, 0) => None,
        (0, imports) => Some(format!("the store holds {imports} imported snapshots, and the cluster is born from the last one")),
        (entries, _) => Some(format!("the store holds {entries} snapshots of an earlier cluster")),
    }
}

/// What a cluster is born from of which nothing else is known: the snapshot that was imported last.
fn import(view: View<'_>) -> Option<&SnapshotRow> {
    let imports = view.seen.store.snapshots.iter().flatten().filter(|row| row.is_import());
    imports.max_by_key(|row| (row.imported.as_ref().map(|imported| imported.at_ms), &row.id))
}

/// A task that is known to run and of which no word has come since this controller leads. The scheduler knows best; without it, what is announced.
fn never_heard(view: View<'_>) -> Option<String> {
    let heard = |task: &str| view.seen.agents.iter().filter_map(|a| a.state.as_ref()).any(|s| s.task_id == task);
    let Some(tasks) = &view.seen.scheduler.tasks else {
        let mut mute = view.seen.agents.iter().filter(|a| a.shard.is_some() && a.state.is_none());
        return mute.next().map(|a| format!("agent {} is announced and was never heard", a.address));
    };
    let mut unheard = tasks.iter().filter(|t| t.status == "RUNNING" && !heard(&t.task_id));
    unheard.next().map(|t| format!("task {} of instance {} runs and was never heard", t.task_id, t.instance))
}

/// Whoever may be a live master that does not speak: nobody else may be chosen while it is there.
fn unaccounted(view: View<'_>, states: &[&State]) -> Option<String> {
    let followed = states.iter().find_map(|s| {
        let redis = s.redis.as_ref().filter(|r| r.link == Some(true))?;
        let speaks = |master| states.iter().any(|s| s.redis.as_ref().and_then(|r| r.address.as_ref()) == Some(master));
        redis.following.as_ref().filter(|master| !speaks(master)).map(|master| (s.instance, master))
    });
    if let Some((instance, master)) = followed {
        return Some(format!("instance {instance} is linked to {master}, whose agent is silent"));
    }
    let silent = |a: &&AgentView| a.fresh(view.now, view.timing.silent_after).is_none() && !view.seen.has_ended(a);
    if let Some(agent) = view.seen.agents.iter().find(silent) {
        return Some(format!("agent {} is announced and silent", agent.address));
    }
    let running = view.seen.scheduler.tasks.iter().flatten().filter(|t| t.status == "RUNNING");
    let mut unheard = running.filter(|t| !states.iter().any(|s| s.task_id == t.task_id));
    unheard.next().map(|t| format!("task {} of instance {} runs and was not heard", t.task_id, t.instance))
}

fn create(view: View<'_>, states: &[&State], found: Option<&String>, live: Option<&State>, plan: &mut Plan) {
    let stored = view.seen.store.snapshots.iter().flatten().map(|row| row.epoch);
    let highest = states.iter().map(|s| s.epoch).chain(stored).filter(|epoch| *epoch <= MAX_EPOCH).max().unwrap_or(0);
    let adopted = live.and_then(member);
    let import = import(view).filter(|_| adopted.is_none() && found.is_none());
    let phase = match (&adopted, found) {
        (Some(_), _) => Phase::Promoting,
        (None, Some(_)) => Phase::Deposing,
        (None, None) => Phase::Bootstrapping,
    };
    let record = Record {
        cluster_id: found.unwrap_or(&view.seen.fresh_ids.0).clone(),
        generation: view.seen.fresh_ids.1.clone(),
        initialised: found.is_some(),
        epoch: highest + 1,
        phase,
        master_replid: None,
        master: adopted,
        known_replicas: Vec::new(),
        // An adopted master may lead by promises of the time before: whoever deposes it needs evidence.
        evidence: found.is_none().then_some(Evidence::NoneBefore),
        lease_ms: view.spec.lease_ms,
        failsafe_max_ms: view.spec.failsafe_max_ms,
        master_epoch: highest + 1,
        pinned: None,
        durability: view.spec.durability,
        histories: Vec::new(),
        snapshot: None,
        restored: import.map(|row| Restored { epoch: highest + 1, snapshot: row.id.clone() }),
    };
    let because = match (live, found) {
        (None, None) if import.is_some() => {
            let id = import.map(|row| row.id.to_string()).unwrap_or_default();
            format!("no trace of an earlier cluster: a new one is born from snapshot {id}, which was imported")
        }
        (Some(state), _) => format!("the record is gone and instance {} serves as master: it is adopted", state.instance),
        (None, Some(id)) => format!("the record is gone; cluster {id} and epoch {highest} are found in agents or manifests"),
        (None, None) => "no trace of an earlier cluster: a new one is born".into(),
    };
    plan.summary.clone_from(&because);
    plan.act(Action::CreateRecord { record: Box::new(record) }, because);
}
