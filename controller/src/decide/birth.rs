//! No record: a new cluster, or one whose ZooKeeper was emptied.
//!
//! What is found decides: cluster id and highest epoch are adopted from live agents, else from the manifests below this cluster's
//! path; only where nothing is found is a new cluster born. One live serving master is adopted as it is, so nobody changes.

use agent::api::State;
use agent::record::{Durability, Evidence, Phase, Record};

use super::View;
use crate::model::{Action, Plan, Reason, member};

/// Lease length written into the record, milliseconds. Not enforced yet: the record carries it so that its form stays.
const LEASE_MS: u64 = 2000;

/// Makes the record once enough is known.
pub fn begin(view: View<'_>, plan: &mut Plan) {
    let states: Vec<&State> = view.seen.agents.iter().filter_map(|a| a.fresh(view.now, view.timing.silent_after)).collect();
    plan.summary = format!("no record yet; {} of {} instances have reported", states.len(), view.spec.instances);
    let waited = view.seen.first_agent.is_some_and(|first| view.now.saturating_sub(first) >= view.timing.bootstrap_wait);
    if states.is_empty() || (states.len() < view.spec.instances as usize && !waited) {
        plan.wait(Reason::WaitingForInstances, plan.summary.clone());
        return;
    }
    if view.seen.store.configured && view.seen.store.snapshots.is_none() {
        plan.wait(
            Reason::StoreUnreachable,
            "the store must be listed before a cluster is born: it may hold this cluster's snapshots",
        );
        return;
    }
    let mut ids: Vec<&String> = states.iter().filter_map(|s| s.cluster_id.as_ref()).collect();
    ids.sort();
    ids.dedup();
    if ids.len() > 1 {
        plan.wait(Reason::ClusterIdsDiffer, format!("agents claim clusters {ids:?}: remove the instances of the wrong one"));
        return;
    }
    let found = ids.first().copied().or(view.seen.store.cluster_id.as_ref());
    let entries = view.seen.store.snapshots.iter().flatten().count();
    if found.is_none() && entries > 0 {
        let message = format!(
            "the store holds {entries} snapshots below this cluster's path and their manifests do not agree on one cluster: \
             move away those that are not of this cluster"
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
    create(view, &states, found, masters.first().map(|s| **s), plan);
}

fn create(view: View<'_>, states: &[&State], found: Option<&String>, live: Option<&State>, plan: &mut Plan) {
    let stored = view.seen.store.snapshots.iter().flatten().map(|row| row.epoch).max().unwrap_or(0);
    let highest = states.iter().map(|s| s.epoch).max().unwrap_or(0).max(stored);
    let adopted = live.and_then(member);
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
        evidence: Some(Evidence::NoneBefore),
        lease_ms: LEASE_MS,
        durability: Durability::default(),
        histories: Vec::new(),
        snapshot: None,
    };
    let because = match (live, found) {
        (Some(state), _) => format!("the record is gone and instance {} serves as master: it is adopted", state.instance),
        (None, Some(id)) => format!("the record is gone; cluster {id} and epoch {highest} are found in agents or manifests"),
        (None, None) => "no trace of an earlier cluster: a new one is born".into(),
    };
    plan.summary.clone_from(&because);
    plan.act(Action::CreateRecord { record: Box::new(record) }, because);
}
