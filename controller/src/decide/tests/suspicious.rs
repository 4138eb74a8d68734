//! A snapshot that holds hardly anything: never used by itself, told, and used when somebody names it.

use super::*;
use crate::operations::{Judgement, judge};
use crate::view::Ask;

const EMPTIED: &str = "0000000004-20261124T010000Z-00000000000000000090";

fn emptied() -> SnapshotRow {
    let problem = Some("suspicious: it holds 3 keys".into());
    SnapshotRow { good: false, suspicious: true, problem, ..row(EMPTIED, 4, Some((OLD, 90))) }
}

/// Nothing is left but an emptied snapshot and, behind it, the one before.
fn lost(rows: Vec<SnapshotRow>) -> Case {
    Case::stable().all_fresh().deposing().seen(|s| s.store.snapshots = Some(rows))
}

#[test]
fn a_cluster_that_lost_everything_starts_from_the_last_one_that_is_not_suspicious_and_says_so() {
    let plan = lost(vec![emptied(), row(SNAPSHOT, 4, Some((OLD, 50)))]).plan();
    assert_eq!(orders(&plan), [(0, Order::Restore { snapshot: SNAPSHOT.parse().unwrap() })]);
    let told = plan.waits.iter().find(|w| w.reason == Reason::SnapshotSuspicious).expect("it is told");
    assert!(
        told.message.contains(EMPTIED) && told.message.contains("the last one before it is used instead"),
        "{}",
        told.message
    );
}

#[test]
fn a_suspicious_one_alone_is_not_started_from_and_named_as_a_way_out() {
    let plan = lost(vec![emptied()]).plan();
    assert_eq!(orders(&plan), []);
    let reasons: Vec<Reason> = plan.waits.iter().map(|w| w.reason).collect();
    assert!(reasons.contains(&Reason::NoSource) && reasons.contains(&Reason::SnapshotSuspicious), "{reasons:?}");
}

#[test]
fn somebody_may_name_it() {
    let case = lost(vec![emptied(), row(SNAPSHOT, 4, Some((OLD, 50)))]);
    let wish = Ask::Restore {
        owner: "me".into(),
        snapshot: Some(EMPTIED.parse().unwrap()),
        consent_epoch: None,
        empty: false,
        dry_run: false,
    };
    let view = View { spec: &case.spec, policy: &Policy::default(), timing: &Timing::default(), seen: &case.seen, now: NOW };
    let Judgement::Begin(operation, _) = judge(&wish, view, "id".into()) else { panic!("refused") };
    let plan = case.seen(|s| s.operation = Some(*operation)).plan();
    assert_eq!(orders(&plan), [(0, Order::Restore { snapshot: EMPTIED.parse().unwrap() })]);
}

#[test]
fn it_is_told_while_the_cluster_serves_and_never_becomes_the_latest() {
    let rows = vec![emptied(), row(SNAPSHOT, 4, Some((OLD, 50)))];
    let case = Case::stable().seen(|s| s.store.snapshots = Some(rows));
    let plan = case.plan();
    assert!(plan.waits.iter().any(|w| w.reason == Reason::SnapshotSuspicious && w.message.contains("snapshots accept")));
    assert!(!plan.waits.iter().any(|w| w.reason == Reason::SnapshotUnusable));
    assert_eq!(committed(&plan).snapshot, Some(SNAPSHOT.parse().unwrap()));
}
