//! On which host a task runs: constraints first, then the least loaded. Pure.
//!
//! Called by [`super::state`] for one task at a time. Hosts have no capacity: only constraints keep a task waiting.

use aurora::types::{Constraint, JobKey, MaintenanceMode, TaskConstraint};

use super::hosts::Host;
use super::maintenance::Maintenance;

/// A task that occupies a host.
#[derive(Clone, Copy, Debug)]
pub struct Occupant<'a> {
    /// Name of the host.
    pub host: &'a str,
    /// The task's job: limits count per job.
    pub job: &'a JobKey,
}

/// The host for a task of `job`: the one with the fewest occupants among those that satisfy every constraint, rather not one
/// whose maintenance is scheduled and never one that is drained; of equals the one of the task's ancestor, else the first of the hosts file. The error says per host what is not satisfied.
pub fn choose<'h>(
    job: &JobKey,
    constraints: &[Constraint],
    ancestor: Option<&str>,
    hosts: &'h [Host],
    occupants: &[Occupant<'_>],
    maintenance: &Maintenance,
) -> Result<&'h Host, String> {
    let load = |host: &Host| occupants.iter().filter(|o| o.host == host.name).count();
    let mut vetoes = Vec::new();
    let mut fitting = Vec::new();
    for host in hosts {
        let mode = maintenance.mode(&host.address.to_string());
        let closed = [MaintenanceMode::DRAINING, MaintenanceMode::DRAINED].contains(&mode);
        let closed = closed.then(|| format!("Host {} for maintenance", mode.to_string().to_lowercase()));
        match closed.or_else(|| veto(job, constraints, host, hosts, occupants)) {
            None => fitting.push((host, mode == MaintenanceMode::SCHEDULED)),
            Some(veto) => vetoes.push(veto),
        }
    }
    vetoes.sort();
    vetoes.dedup();
    fitting
        .into_iter()
        .enumerate()
        .min_by_key(|(index, (host, leaving))| (*leaving, load(host), ancestor != Some(host.name.as_str()), *index))
        .map(|(_, (host, _))| host)
        .ok_or_else(|| vetoes.join(", "))
}

/// Why the task may not run on the host, in the scheduler's words.
fn veto(job: &JobKey, constraints: &[Constraint], host: &Host, hosts: &[Host], occupants: &[Occupant<'_>]) -> Option<String> {
    let dedicated = "dedicated";
    let asks_for_dedicated = constraints.iter().any(|c| c.name == dedicated);
    if host.attribute(dedicated).is_some() && !asks_for_dedicated {
        return Some("Host is dedicated".to_owned());
    }
    constraints.iter().find_map(|constraint| {
        let name = &constraint.name;
        let value = host.attribute(name);
        match &constraint.constraint {
            TaskConstraint::Value(wanted) => {
                let has = value.is_some_and(|value| wanted.values.iter().any(|v| v == value));
                (has == wanted.negated).then(|| format!("Constraint not satisfied: {name}"))
            }
            TaskConstraint::Limit(limit) => {
                let Some(value) = value else {
                    return Some(format!("Constraint not satisfied: {name}"));
                };
                let shares = |occupant: &&Occupant<'_>| {
                    occupant.job == job && hosts.iter().any(|h| h.name == occupant.host && h.attribute(name) == Some(value))
                };
                let count = occupants.iter().filter(shares).count();
                let reached = i64::try_from(count).is_ok_and(|count| count >= i64::from(*limit));
                reached.then(|| format!("Limit not satisfied: {name}"))
            }
            TaskConstraint::Unknown(_) => Some(format!("Constraint not satisfied: {name}")),
        }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use aurora::types::ValueConstraint;

    use super::*;

    fn host(name: &str, rack: &str) -> Host {
        Host {
            name: name.to_owned(),
            address: [127, 0, 0, 1].into(),
            wrapper: Vec::new(),
            attributes: BTreeMap::from([("rack".to_owned(), rack.to_owned())]),
            host_id: None,
        }
    }

    fn hosts() -> Vec<Host> {
        vec![host("a", "r1"), host("b", "r1"), host("c", "r2")]
    }

    fn job() -> JobKey {
        JobKey::new("redis", "prod", "cache")
    }

    fn limit(name: &str, limit: i32) -> Constraint {
        Constraint { name: name.to_owned(), constraint: TaskConstraint::Limit(limit) }
    }

    fn value(name: &str, negated: bool, values: &[&str]) -> Constraint {
        let values = values.iter().map(|v| (*v).to_owned()).collect();
        Constraint { name: name.to_owned(), constraint: TaskConstraint::Value(ValueConstraint { negated, values }) }
    }

    fn placed(constraints: &[Constraint], ancestor: Option<&str>, taken: &[&str]) -> Result<String, String> {
        let (job, hosts) = (job(), hosts());
        let occupants: Vec<_> = taken.iter().map(|host| Occupant { host, job: &job }).collect();
        choose(&job, constraints, ancestor, &hosts, &occupants, &Maintenance::default()).map(|host| host.name.clone())
    }

    #[test]
    fn the_least_loaded_host_wins_then_the_ancestors_then_file_order() {
        assert_eq!(placed(&[], None, &[]).unwrap(), "a");
        assert_eq!(placed(&[], None, &["a"]).unwrap(), "b");
        assert_eq!(placed(&[], Some("c"), &["a"]).unwrap(), "c");
        assert_eq!(placed(&[], Some("a"), &["a"]).unwrap(), "b");
        assert_eq!(placed(&[], None, &["a", "b", "c", "a"]).unwrap(), "b");
    }

    #[test]
    fn a_limit_counts_only_the_same_job() {
        let hosts = hosts();
        let other = JobKey::new("redis", "prod", "other");
        let occupants: Vec<_> = ["a", "b", "c"].map(|host| Occupant { host, job: &other }).to_vec();
        let found = choose(&job(), &[limit("host", 1)], None, &hosts, &occupants, &Maintenance::default());
        assert_eq!(found.unwrap().name, "a");
    }

    #[test]
    fn limits_are_per_value_of_the_attribute() {
        assert_eq!(placed(&[limit("host", 1)], None, &["a", "b"]).unwrap(), "c");
        assert_eq!(placed(&[limit("rack", 1)], None, &["a"]).unwrap(), "c");
        assert_eq!(placed(&[limit("host", 1)], None, &["a", "b", "c"]).unwrap_err(), "Limit not satisfied: host");
    }

    #[test]
    fn an_attribute_that_no_host_has_is_never_satisfied() {
        assert_eq!(placed(&[limit("zone", 5)], None, &[]).unwrap_err(), "Constraint not satisfied: zone");
        assert!(placed(&[value("zone", false, &["x"])], None, &[]).is_err());
        assert_eq!(placed(&[value("zone", true, &["x"])], None, &[]).unwrap(), "a");
    }

    #[test]
    fn values_are_alternatives_and_can_be_negated() {
        assert_eq!(placed(&[value("rack", false, &["r9", "r2"])], None, &[]).unwrap(), "c");
        assert_eq!(placed(&[value("rack", true, &["r1"])], None, &[]).unwrap(), "c");
        assert_eq!(placed(&[value("host", false, &["b"])], None, &[]).unwrap(), "b");
    }

    #[test]
    fn dedicated_hosts_take_only_who_asks_for_them() {
        let mut hosts = hosts();
        hosts[0].attributes.insert("dedicated".to_owned(), "redis/x".to_owned());
        let asks = [value("dedicated", false, &["redis/x"])];
        assert_eq!(choose(&job(), &[], None, &hosts, &[], &Maintenance::default()).unwrap().name, "b");
        assert_eq!(choose(&job(), &asks, None, &hosts, &[], &Maintenance::default()).unwrap().name, "a");
    }

    #[test]
    fn hosts_in_maintenance_get_no_tasks_and_those_that_will_be_only_the_rest() {
        let mut hosts = hosts();
        for (n, host) in (1..).zip(&mut hosts) {
            host.address = [127, 0, 0, n].into();
        }
        let mut maintenance = Maintenance::default();
        let choose = |maintenance: &Maintenance, taken: &[&str]| {
            let job = job();
            let occupants: Vec<_> = taken.iter().map(|host| Occupant { host, job: &job }).collect();
            choose(&job, &[limit("host", 1)], None, &hosts, &occupants, maintenance).map(|host| host.name.clone())
        };
        maintenance.set("127.0.0.1", MaintenanceMode::DRAINING);
        maintenance.set("127.0.0.2", MaintenanceMode::SCHEDULED);
        assert_eq!(choose(&maintenance, &[]).unwrap(), "c");
        assert_eq!(choose(&maintenance, &["c"]).unwrap(), "b");
        maintenance.set("127.0.0.2", MaintenanceMode::DRAINED);
        let reason = "Host drained for maintenance, Host draining for maintenance, Limit not satisfied: host";
        assert_eq!(choose(&maintenance, &["c"]).unwrap_err(), reason);
    }
}
