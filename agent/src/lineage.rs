//! Whether a copy holds something that its new master does not: then it is set aside before it is resynced. Pure.

use crate::api::{Offset, Position};
use crate::record::Record;

/// Whether a copy at (`replid`, `offset`) may hold data beyond what the new master has. `fork` is where the master's history left the one
/// before. A history that nobody knows counts as ahead.
pub fn is_ahead(replid: &str, offset: Offset, fork: Option<&Position>, record: Option<&Record>) -> bool {
    if let Some(fork) = fork.filter(|fork| fork.replid == replid) {
        return offset > fork.offset;
    }
    let Some(record) = record else { return true };
    if record.master_replid.as_deref() == Some(replid) {
        return false;
    }
    match record.histories.iter().rev().find(|history| history.replid == replid) {
        Some(history) => history.to.is_some_and(|end| offset > end),
        // A lineage not begun yet says nothing.
        None => !record.histories.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{History, Phase};

    fn record() -> Record {
        let history = |epoch, replid: &str, to| History { epoch, replid: replid.into(), from: 1, to, next: None };
        Record {
            cluster_id: "c".into(),
            generation: "g".into(),
            initialised: true,
            epoch: 3,
            phase: Phase::Stable,
            master: None,
            master_replid: Some("new".into()),
            known_replicas: vec![],
            evidence: None,
            lease_ms: 0,
            failsafe_max_ms: 0,
            master_epoch: 0,
            pinned: None,
            durability: Default::default(),
            histories: vec![history(1, "first", Some(50)), history(2, "old", Some(100)), history(3, "new", None)],
            snapshot: None,
            restored: None,
        }
    }

    #[test]
    fn a_copy_within_the_lineage_is_not_ahead() {
        let fork = Position { replid: "old".into(), offset: 100 };
        for (replid, offset) in [("new", 999), ("old", 100), ("old", 7), ("first", 50)] {
            assert!(!is_ahead(replid, offset, Some(&fork), Some(&record())), "{replid} {offset}");
        }
        assert!(!is_ahead("new", 999, None, Some(&record())));
    }

    #[test]
    fn a_copy_beyond_the_fork_or_of_an_unknown_history_is_ahead() {
        let fork = Position { replid: "old".into(), offset: 100 };
        for (replid, offset) in [("old", 101), ("first", 51), ("foreign", 1)] {
            assert!(is_ahead(replid, offset, Some(&fork), Some(&record())), "{replid} {offset}");
        }
        assert!(is_ahead("old", 101, None, Some(&record())));
    }

    #[test]
    fn before_the_lineage_begins_only_the_fork_counts() {
        let young = Record { histories: vec![], master_replid: None, ..record() };
        let fork = Position { replid: "old".into(), offset: 100 };
        assert!(is_ahead("old", 101, Some(&fork), Some(&young)));
        assert!(!is_ahead("foreign", 1, None, Some(&young)));
        assert!(is_ahead("foreign", 1, None, None));
    }
}
