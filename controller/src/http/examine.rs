//! A migration is judged on what an agent found its origin to be: it is looked at before the ask goes to the reconcile loop, which never waits.

use std::time::Duration;

use agent::api::{Address, Examined, Origin, Role};
use agent::causes::chain;

use super::Doors;
use crate::view::{Ask, ClusterView};

/// Longest wait for an agent's answer: it asks several things of the origin, each with a deadline of its own.
const LIMIT: Duration = Duration::from_secs(12);
/// Most agents that are asked.
const MOST: usize = 3;

/// The ask, with what an agent found where it is one for a migration.
pub(super) async fn examined(doors: &Doors, ask: Ask) -> Ask {
    let Ask::Migrate { owner, origin, consent_epoch, dry_run, .. } = ask else { return ask };
    let cluster = doors.intake.published.borrow().cluster.clone();
    let examined = look(doors, &origin, &followers(&cluster)).await.map(Box::new);
    Ask::Migrate { owner, origin, consent_epoch, dry_run, examined }
}

/// The agents that could follow the origin, the best first: replicas, the highest instance first; the master only where it is alone.
fn followers(cluster: &ClusterView) -> Vec<(u32, Address)> {
    let serving = |role| cluster.instances.iter().filter(move |i| i.state == "serving" && i.role == role);
    let mut replicas: Vec<(u32, Address)> = serving(Role::Replica).filter_map(|i| Some((i.instance, i.agent.clone()?))).collect();
    replicas.sort_by(|a, b| b.cmp(a));
    if cluster.instances.len() > 1 || !replicas.is_empty() {
        return replicas.into_iter().take(MOST).collect();
    }
    serving(Role::Master).filter_map(|i| Some((i.instance, i.agent.clone()?))).collect()
}

/// What the first found against which nothing speaks, else the first.
async fn look(doors: &Doors, origin: &Origin, agents: &[(u32, Address)]) -> Option<Examined> {
    let mut first = None;
    for (instance, address) in agents {
        let found = match doors.agents.examine(address, origin, LIMIT).await {
            Ok(found) => found,
            Err(error) => Examined { instance: *instance, objections: vec![chain(&error)], ..Examined::default() },
        };
        if found.objections.is_empty() {
            return Some(found);
        }
        first = first.or(Some(found));
    }
    first
}
