//! What is done by the clock: once for each slot, whatever became of the controllers meanwhile.

use agent::snapshot::{How, Verification};

use super::*;
use crate::decide::clock;
use crate::operations::{BACKUP_WITHIN_MS, Judgement, judge};
use crate::view::Ask;

/// 2026-11-24T12:34:56Z; the slot of the hour began at 12:00.
const WALL_MS: u64 = 1_795_523_696_000;
const SLOT_MS: u64 = 1_795_521_600_000;
const HOUR_MS: u64 = 3_600_000;

fn id(slot: u64, n: u32) -> String {
    format!("schedule-{slot}-{n}")
}

fn hourly() -> Case {
    let mut case = Case::stable().seen(|s| s.wall_ms = WALL_MS);
    case.policy.backup = Some("@hourly".parse().unwrap());
    case
}

/// The id of the backup that is begun.
fn begun(case: &Case) -> Option<String> {
    case.plan().actions.iter().find_map(|p| match &p.action {
        Action::SetOperation { operation } if operation.outcome.is_none() => Some(operation.id.clone()),
        _ => None,
    })
}

fn made_for(slot: u64) -> SnapshotRow {
    SnapshotRow { request_id: Some(id(slot, 1)), ..row(SNAPSHOT, 4, Some((OLD, 50))) }
}

fn operation(slot: u64, outcome: Option<&str>, started_ms: u64) -> Operation {
    Operation {
        id: id(slot, 1),
        kind: OperationKind::Backup { how: How::default() },
        owner: clock::OWNER.into(),
        epoch: 4,
        step: String::new(),
        started_ms,
        deadline_ms: started_ms + BACKUP_WITHIN_MS,
        outcome: outcome.map(str::to_owned),
        cause: String::new(),
        steps: Vec::new(),
    }
}

#[test]
fn a_backup_is_begun_once_for_each_slot() {
    type Change = fn(&mut Observed);
    let cases: [(&str, Change, Option<u32>); 11] = [
        ("nothing was ever done", |_| (), Some(1)),
        ("a snapshot of the slot before", |s| s.store.snapshots = Some(vec![made_for(SLOT_MS - HOUR_MS)]), Some(1)),
        ("missed for days", |s| s.store.snapshots = Some(vec![made_for(SLOT_MS - 90 * HOUR_MS)]), Some(1)),
        ("a snapshot of this slot", |s| s.store.snapshots = Some(vec![made_for(SLOT_MS)]), None),
        ("a snapshot of a slot that has not come", |s| s.store.snapshots = Some(vec![made_for(SLOT_MS + HOUR_MS)]), Some(1)),
        ("one that somebody asked for", |s| s.store.snapshots = Some(vec![row(SNAPSHOT, 4, Some((OLD, 50)))]), Some(1)),
        ("under way", |s| s.operation = Some(operation(SLOT_MS, None, SLOT_MS)), None),
        ("done, and not listed yet", |s| s.operation = Some(operation(SLOT_MS, Some("done: snapshot x"), SLOT_MS)), None),
        ("failed a moment ago", |s| s.operation = Some(operation(SLOT_MS, Some("failed: x"), WALL_MS - 60_000)), None),
        ("failed a while ago", |s| s.operation = Some(operation(SLOT_MS, Some("failed: x"), SLOT_MS)), Some(2)),
        ("the store cannot be listed", |s| s.store.snapshots = None, None),
    ];
    for (name, change, expected) in cases {
        assert_eq!(begun(&hourly().seen(change)), expected.map(|n| id(SLOT_MS, n)), "{name}");
    }
    assert_eq!(begun(&Case::stable().seen(|s| s.wall_ms = WALL_MS)), None, "without a schedule");
    assert_eq!(begun(&hourly().master_dead()), None, "while no master serves");
}

#[test]
fn what_an_agent_has_done_or_given_up_counts_when_the_operation_is_lost() {
    let stored = hourly().state(1, |s| s.uploads.last_request_id = Some(id(SLOT_MS, 1)));
    assert_eq!(begun(&stored), None);
    let given_up = hourly().state(1, |s| s.uploads.failed_request = Some((id(SLOT_MS, 3), "x".into())));
    assert_eq!(begun(&given_up), Some(id(SLOT_MS, 4)), "the same id would be answered by the old failure");
}

#[test]
fn a_failure_is_told_until_the_next_try_succeeds() {
    let case = hourly().seen(|s| s.operation = Some(operation(SLOT_MS, Some("failed: no disk"), WALL_MS - 60_000)));
    let plan = case.plan();
    assert!(plan.waits.iter().any(|w| w.reason == Reason::BackupFailed && w.message.contains("no disk")), "{:?}", plan.waits);
}

#[test]
fn a_scheduled_backup_is_in_nobodys_way() {
    let case = hourly().seen(|s| s.operation = Some(operation(SLOT_MS, None, WALL_MS)));
    let view = View { spec: &case.spec, policy: &case.policy, timing: &Timing::default(), seen: &case.seen, now: NOW };
    let ask = Ask::Backup { owner: "me".into(), how: None };
    assert!(matches!(judge(&ask, view, "x".into()), Judgement::Begin(..)));
    let mut own = case.seen.clone();
    own.operation.as_mut().unwrap().owner = "ann".into();
    assert!(matches!(judge(&ask, View { seen: &own, ..view }, "x".into()), Judgement::Refuse(_)));
}

fn found(at_ms: u64, problem: Option<&str>) -> Option<Verification> {
    let problem = problem.map(str::to_owned);
    Some(Verification { at_ms, by: String::new(), problem, keys: None, loaded_by: None, took_ms: 1 })
}

#[test]
fn the_best_good_one_is_verified_and_a_restore_rehearsed_when_due() {
    const WORSE: &str = "0000000003-20261124T000000Z-00000000000000000040";
    let case = |change: fn(&mut Vec<SnapshotRow>)| {
        let mut rows = vec![row(SNAPSHOT, 4, Some((OLD, 50))), row(WORSE, 3, Some((OLD, 40)))];
        change(&mut rows);
        let mut case = hourly().seen(|s| s.store.snapshots = Some(rows));
        case.policy = crate::schedule::Policy {
            backup: None,
            verify: Some("@hourly".parse().unwrap()),
            rehearse: Some("@daily".parse().unwrap()),
        };
        case
    };
    let (verify, rehearse) = (format!("verify snapshot {SNAPSHOT}"), "rehearse a restore".to_owned());
    let looks = |case: &Case| -> String {
        let actions = case.actions().into_iter().filter(|a| a.starts_with("verify") || a.starts_with("rehearse"));
        actions.collect::<Vec<String>>().join(", ")
    };
    assert_eq!(looks(&case(|_| ())), format!("{verify}, {rehearse}"));
    assert_eq!(looks(&case(|rows| rows[1].verification = found(SLOT_MS + 1, None))), rehearse, "any counts");
    assert_eq!(looks(&case(|rows| rows[0].rehearsal = found(SLOT_MS - 1, None))), verify);
    let bad = case(|rows| (rows[0].good, rows[0].verification) = (false, found(SLOT_MS + 1, Some("bad"))));
    assert!(looks(&bad).starts_with(&format!("verify snapshot {WORSE}")), "the next best one");
    assert_eq!(looks(&case(Vec::clear)), "");
    let reasons = case(|_| ()).reasons();
    assert!(reasons.contains(&Reason::RehearsalOverdue) && !reasons.contains(&Reason::VerificationOverdue), "{reasons:?}");
}
