//! What an update would change, and sets of instances as ranges. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use aurora::types::{ConfigGroup, Constraint, InstanceTaskConfig, Range, TaskConfig, TaskConstraint};

use super::super::config::MAX_INSTANCES;
use super::super::thermos::Job;

/// A configuration with what its executor runs.
#[derive(Clone, Debug)]
pub struct Program {
    /// As stored.
    pub config: Arc<TaskConfig>,
    /// What its executor runs.
    pub job: Arc<Job>,
}

/// What an update would change.
#[derive(Clone, Debug, Default)]
pub struct Diff {
    /// Changed or ended instances, with what they run now.
    pub replaced: BTreeMap<i32, Program>,
    /// Changed or started instances.
    pub replacements: BTreeSet<i32>,
    /// Instances left alone.
    pub unchanged: BTreeMap<i32, Program>,
}

impl Diff {
    /// From what runs now to `count` instances of `desired`; only within `scope`, unless that is empty.
    pub fn new(current: &BTreeMap<i32, Program>, desired: &TaskConfig, count: i32, scope: &[Range]) -> Diff {
        let within = |id: &i32| scope.is_empty() || contains(scope, *id);
        let kept = |id: &i32| (0..count).contains(id) && same_config(&current[id].config, desired);
        let mut diff = Diff::default();
        for (id, program) in current {
            if within(id) && !kept(id) {
                diff.replaced.insert(*id, program.clone());
            } else {
                diff.unchanged.insert(*id, program.clone());
            }
        }
        let changes = |id: &i32| within(id) && !(current.contains_key(id) && kept(id));
        diff.replacements = (0..count).filter(changes).collect();
        diff
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.replaced.is_empty() && self.replacements.is_empty()
    }

    /// Instances of `scope` that the job neither has nor is to have. `None`: there are far too many to count.
    pub fn strangers(&self, scope: &[Range]) -> Option<BTreeSet<i32>> {
        let size: i64 = scope.iter().map(|range| (i64::from(range.last) - i64::from(range.first) + 1).max(0)).sum();
        if size > i64::from(MAX_INSTANCES) {
            return None;
        }
        let known =
            |id: &i32| self.replaced.contains_key(id) || self.replacements.contains(id) || self.unchanged.contains_key(id);
        Some(scope.iter().flat_map(|range| range.first..=range.last).filter(|id| !known(id)).collect())
    }
}

/// Whether one of the ranges contains the instance.
fn contains(ranges: &[Range], id: i32) -> bool {
    ranges.iter().any(|range| (range.first..=range.last).contains(&id))
}

/// The fewest ranges that are these instances.
pub fn ranges(ids: impl IntoIterator<Item = i32>) -> Vec<Range> {
    let mut ranges: Vec<Range> = Vec::new();
    for id in ids {
        match ranges.last_mut() {
            Some(range) if range.last.checked_add(1) == Some(id) => range.last = id,
            _ => ranges.push(Range { first: id, last: id }),
        }
    }
    ranges
}

/// Instances by configuration.
fn grouped(programs: &BTreeMap<i32, Program>) -> Vec<(TaskConfig, Vec<Range>)> {
    let mut groups: Vec<(Arc<TaskConfig>, Vec<i32>)> = Vec::new();
    for (id, program) in programs {
        match groups.iter_mut().find(|(config, _)| same_config(config, &program.config)) {
            Some((_, ids)) => ids.push(*id),
            None => groups.push((Arc::clone(&program.config), vec![*id])),
        }
    }
    groups.into_iter().map(|(config, ids)| ((*config).clone(), ranges(ids))).collect()
}

/// Instances by configuration, as an update's instructions have them.
pub fn initial_state(programs: &BTreeMap<i32, Program>) -> Vec<InstanceTaskConfig> {
    grouped(programs).into_iter().map(|(task, instances)| InstanceTaskConfig { task, instances }).collect()
}

/// Instances by configuration, as a diff has them.
pub fn config_groups(programs: &BTreeMap<i32, Program>) -> Vec<ConfigGroup> {
    grouped(programs).into_iter().map(|(config, instances)| ConfigGroup { config, instances }).collect()
}

/// Whether two stored configurations are the same; sets have no order.
pub fn same_config(one: &TaskConfig, other: &TaskConfig) -> bool {
    std::ptr::eq(one, other) || canonical(one) == canonical(other)
}

fn canonical(config: &TaskConfig) -> TaskConfig {
    fn sort<T: std::fmt::Debug>(set: &mut [T]) {
        set.sort_by_cached_key(|element| format!("{element:?}"));
    }
    let mut config = config.clone();
    for Constraint { constraint, .. } in &mut config.constraints {
        if let TaskConstraint::Value(wanted) = constraint {
            wanted.values.sort();
        }
    }
    sort(&mut config.constraints);
    sort(&mut config.resources);
    config.metadata.iter_mut().for_each(|set| sort(set));
    config.mesos_fetcher_uris.iter_mut().for_each(|set| sort(set));
    config
}

#[cfg(test)]
mod tests {
    use aurora::types::Resource;

    use super::*;

    fn program(priority: i32) -> Program {
        let job = super::super::super::thermos::parse(r#"{"task":{"processes":[{"name":"a","cmdline":"b"}]}}"#);
        let config = TaskConfig { priority, ..TaskConfig::default() };
        Program { config: Arc::new(config), job: Arc::new(job.expect("valid")) }
    }

    fn diff(current: &[(i32, i32)], count: i32, scope: &[(i32, i32)]) -> (Vec<i32>, Vec<i32>, Vec<i32>) {
        let current = current.iter().map(|(id, priority)| (*id, program(*priority))).collect();
        let scope: Vec<Range> = scope.iter().map(|(first, last)| Range { first: *first, last: *last }).collect();
        let diff = Diff::new(&current, &program(2).config, count, &scope);
        let ids = |map: &BTreeMap<i32, Program>| map.keys().copied().collect();
        (ids(&diff.replaced), diff.replacements.iter().copied().collect(), ids(&diff.unchanged))
    }

    #[test]
    fn instances_are_started_changed_ended_and_left_alone() {
        // Instances run configuration 1 or 2; 2 is wanted.
        assert_eq!(diff(&[], 2, &[]), (vec![], vec![0, 1], vec![]));
        assert_eq!(diff(&[(0, 1), (1, 2)], 2, &[]), (vec![0], vec![0], vec![1]));
        assert_eq!(diff(&[(0, 2), (1, 2), (5, 2)], 2, &[]), (vec![5], vec![], vec![0, 1]));
        assert_eq!(diff(&[(0, 2), (2, 2)], 3, &[]), (vec![], vec![1], vec![0, 2]));
    }

    #[test]
    fn a_scope_limits_what_changes() {
        assert_eq!(diff(&[(0, 1), (1, 1), (2, 1)], 3, &[(1, 1)]), (vec![1], vec![1], vec![0, 2]));
        assert_eq!(diff(&[(0, 1), (1, 1), (2, 1)], 1, &[(2, 2)]), (vec![2], vec![], vec![0, 1]));
    }

    #[test]
    fn instances_that_the_job_never_has_are_strangers() {
        let current = BTreeMap::from([(7, program(1))]);
        let diff = Diff::new(&current, &program(2).config, 2, &[]);
        let scope = |first, last| [Range { first, last }];
        assert_eq!(diff.strangers(&scope(1, 3)), Some(BTreeSet::from([2, 3])));
        assert_eq!(diff.strangers(&scope(7, 7)), Some(BTreeSet::new()));
        assert_eq!(diff.strangers(&scope(0, i32::MAX)), None);
        assert_eq!(diff.strangers(&scope(5, 1)), Some(BTreeSet::new()));
    }

    #[test]
    fn ranges_are_as_few_as_possible() {
        let range = |first, last| Range { first, last };
        assert_eq!(ranges([0, 1, 2, 5, 7, 8]), [range(0, 2), range(5, 5), range(7, 8)]);
        assert_eq!(ranges([i32::MAX]), [range(i32::MAX, i32::MAX)]);
    }

    #[test]
    fn the_order_of_sets_is_no_difference_and_the_executors_bytes_are() {
        let resources = vec![Resource::RamMb(1), Resource::NumCpus(1.0)];
        let one = TaskConfig { resources: resources.clone(), ..TaskConfig::default() };
        let other = TaskConfig { resources: resources.into_iter().rev().collect(), ..TaskConfig::default() };
        assert!(same_config(&one, &other));
        let data = |text: &str| TaskConfig {
            executor_config: Some(aurora::types::ExecutorConfig { name: "x".to_owned(), data: Some(text.to_owned()) }),
            ..TaskConfig::default()
        };
        assert!(!same_config(&data("{}"), &data("{ }")));
    }
}
