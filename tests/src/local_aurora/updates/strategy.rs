//! Which instances an update takes up next. Pure.

use aurora::types::{BatchStrategy, JobUpdateStrategy, VariableBatchStrategy};

/// How far an update has come.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Instances in work.
    pub working: usize,
    /// Instances that there were to take up when this direction began.
    pub total: usize,
    /// Rolling forward, or back.
    pub forward: bool,
}

/// The next ones of `idle`, which has the order of work.
pub fn next_group(strategy: &JobUpdateStrategy, idle: &[i32], progress: Progress) -> Vec<i32> {
    let Progress { working, total, forward } = progress;
    let size = match strategy {
        JobUpdateStrategy::Queue(size) => positive(*size),
        JobUpdateStrategy::Batch(_) | JobUpdateStrategy::VariableBatch(_) if working > 0 => return Vec::new(),
        JobUpdateStrategy::Batch(BatchStrategy { group_size, .. }) => positive(*group_size),
        JobUpdateStrategy::VariableBatch(VariableBatchStrategy { group_sizes, .. }) => {
            let sizes: Vec<usize> = group_sizes.iter().map(|size| positive(*size)).collect();
            if forward { size_forward(&sizes, total.saturating_sub(idle.len())) } else { size_back(&sizes, idle.len()) }
        }
        JobUpdateStrategy::Unknown(_) => 1,
    };
    idle.iter().copied().take(size.saturating_sub(working)).collect()
}

/// Whether the update pauses by itself after each group.
pub fn pauses(strategy: &JobUpdateStrategy) -> bool {
    match strategy {
        JobUpdateStrategy::Batch(batch) => batch.autopause_after_batch,
        JobUpdateStrategy::VariableBatch(batches) => batches.autopause_after_batch,
        JobUpdateStrategy::Queue(_) | JobUpdateStrategy::Unknown(_) => false,
    }
}

fn positive(size: i32) -> usize {
    usize::try_from(size).unwrap_or(1).max(1)
}

/// The size of the group that the next instance belongs to, after `done` ones; the last size repeats.
fn size_forward(sizes: &[usize], done: usize) -> usize {
    let mut sum = 0;
    for size in sizes {
        sum += size;
        if sum > done {
            return *size;
        }
    }
    sizes.last().copied().unwrap_or(1)
}

/// The size of the group on the way back, which repeats the groups of the way forward: `left` instances were changed.
fn size_back(sizes: &[usize], left: usize) -> usize {
    let mut rest = left;
    for size in sizes {
        if rest <= *size {
            return rest;
        }
        rest -= size;
    }
    let last = sizes.last().copied().unwrap_or(1);
    if rest.is_multiple_of(last) { last } else { rest % last }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The groups in which `count` instances are taken up, each finished before the next is asked for.
    fn groups(strategy: &JobUpdateStrategy, count: i32, forward: bool) -> Vec<usize> {
        let mut idle: Vec<i32> = (0..count).collect();
        let total = idle.len();
        let mut sizes = Vec::new();
        while !idle.is_empty() {
            let group = next_group(strategy, &idle, Progress { working: 0, total, forward });
            sizes.push(group.len());
            idle.drain(..group.len());
        }
        sizes
    }

    fn batch(group_size: i32) -> JobUpdateStrategy {
        JobUpdateStrategy::Batch(BatchStrategy { group_size, autopause_after_batch: false })
    }

    fn steps(sizes: &[i32]) -> JobUpdateStrategy {
        let group_sizes = sizes.to_vec();
        JobUpdateStrategy::VariableBatch(VariableBatchStrategy { group_sizes, autopause_after_batch: false })
    }

    #[test]
    fn groups_have_the_sizes_that_were_asked_for() {
        let table: [(JobUpdateStrategy, i32, bool, &[usize]); 8] = [
            (JobUpdateStrategy::Queue(2), 5, true, &[2, 2, 1]),
            (batch(2), 5, true, &[2, 2, 1]),
            (steps(&[1, 2]), 7, true, &[1, 2, 2, 2]),
            (steps(&[1, 2, 4]), 7, true, &[1, 2, 4]),
            (steps(&[2, 3]), 4, true, &[2, 2]),
            (steps(&[2, 3]), 4, false, &[2, 2]),
            (steps(&[1, 2]), 7, false, &[2, 2, 2, 1]),
            (steps(&[1, 2, 4]), 7, false, &[4, 2, 1]),
        ];
        for (strategy, count, forward, expected) in table {
            assert_eq!(groups(&strategy, count, forward), expected, "{strategy:?} {count} {forward}");
        }
    }

    #[test]
    fn a_queue_is_filled_up_and_a_batch_waits_for_its_end() {
        let progress = Progress { working: 1, total: 5, forward: true };
        assert_eq!(next_group(&JobUpdateStrategy::Queue(3), &[3, 4, 5], progress), [3, 4]);
        assert!(next_group(&batch(3), &[3, 4, 5], progress).is_empty());
        assert!(next_group(&steps(&[3]), &[3, 4, 5], progress).is_empty());
    }
}
