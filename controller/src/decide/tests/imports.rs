//! Snapshots that were imported: a new cluster is born from the last one, any other uses them only when somebody names them.

use agent::snapshot::Imported;

use super::*;
use crate::operations::{Judgement, judge};
use crate::view::Ask;

const IMPORT: &str = "0000000000-20261124T020000Z-00000000000000000000";
const EARLIER: &str = "0000000000-20261125T020000Z-00000000000000000000";

fn id(text: &str) -> SnapshotId {
    text.parse().unwrap()
}

fn import(name: &str, at_ms: u64) -> SnapshotRow {
    let imported = Some(Imported { from: "hdfs://old/redis/dump.rdb".into(), at_ms, ..Imported::default() });
    SnapshotRow { good: false, imported, ..row(name, 0, None) }
}

/// No record; the instances know nothing, and the store holds these.
fn unborn(rows: Vec<SnapshotRow>) -> Case {
    Case::stable().all_fresh().seen(|s| {
        s.record = None;
        s.store.snapshots = Some(rows);
    })
}

/// As [`unborn`], one step later.
fn born(rows: Vec<SnapshotRow>) -> Case {
    let case = unborn(rows);
    let record = committed(&case.plan()).clone();
    case.seen(|s| {
        s.record = Some((record, 0));
        s.lease = None;
    })
}

/// Instance 0 has loaded this snapshot for epoch 1, closed.
fn loaded(case: Case, snapshot: &str) -> Case {
    case.state(0, |s| {
        s.epoch = 1;
        s.role = Role::Master;
        s.redis = Some(Redis {
            address: Some(redis_of(0)),
            run_id: "run-new".into(),
            replid: NEW.into(),
            replid2: Some("theirs".into()),
            replid2_end: Some(100_001),
            offset: 100_000,
            answering: true,
            source: format!("snapshot:{snapshot}"),
            started_epoch: 1,
            ..Redis::default()
        });
    })
}

#[test]
fn a_new_cluster_is_born_from_the_one_that_was_imported_last() {
    let rows = || vec![import(IMPORT, 9), import(EARLIER, 7)];
    let record = committed(&unborn(rows()).plan()).clone();
    let restored = Some(Restored { epoch: 1, snapshot: id(IMPORT) });
    assert_eq!((record.epoch, record.initialised, &record.restored), (1, false, &restored));
    assert_eq!(record.cluster_id, "new-cluster", "the cluster it comes from is another one");
    assert_eq!(orders(&born(rows()).plan()), [(0, Order::Restore { snapshot: id(IMPORT) })]);
    let named = committed(&loaded(born(rows()), IMPORT).plan()).clone();
    assert_eq!((named.phase, named.master.map(|m| m.instance), named.restored), (Phase::Promoting, Some(0), restored));
}

#[test]
fn a_dump_that_lies_in_a_sandbox_does_not_take_its_place() {
    let position = Some(Position { replid: OLD.into(), offset: 900 });
    let dump = LocalDump { sha256: "5ha".into(), bytes: 1, position, epoch: 0, created_s: 9 };
    let case = born(vec![import(IMPORT, 9)]).state(2, |s| s.local = Some(dump));
    assert_eq!(orders(&case.plan()), [(0, Order::Restore { snapshot: id(IMPORT) })]);
}

#[test]
fn it_never_starts_empty_when_what_it_was_to_be_born_from_is_no_good_or_gone() {
    let unusable = born(vec![import(IMPORT, 9)]).seen(|s| s.unusable = [format!("snapshot:{IMPORT}")].into());
    let gone = born(vec![import(IMPORT, 9)]).seen(|s| s.store.snapshots = Some(Vec::new()));
    for case in [unusable, gone] {
        assert_eq!(case.actions(), Vec::<String>::new());
        assert!(case.reasons().contains(&Reason::NoSource));
    }
    let bad = SnapshotRow { problem: Some("piece 3".into()), ..import(IMPORT, 9) };
    let spoilt = unborn(vec![bad]);
    assert_eq!(spoilt.actions(), Vec::<String>::new());
    assert!(spoilt.plan().waits.iter().any(|w| w.message.contains("imported ones that cannot be used")));
}

#[test]
fn one_that_comes_while_a_cluster_is_being_born_is_what_it_begins_with() {
    let case = born(Vec::new()).seen(|s| s.store.snapshots = Some(vec![import(IMPORT, 9)]));
    assert_eq!(orders(&case.plan()), [(0, Order::Restore { snapshot: id(IMPORT) })]);
}

#[test]
fn a_cluster_that_is_known_is_not_born_again_from_it() {
    let own = || row(SNAPSHOT, 4, Some((OLD, 50)));
    let stored = unborn(vec![own(), import(IMPORT, 9)]).seen(|s| s.store.cluster_id = Some("old".into()));
    let record = committed(&stored.plan()).clone();
    assert_eq!((record.cluster_id.as_str(), record.initialised, record.restored), ("old", true, None));
    let live = Case::stable().seen(|s| {
        s.record = None;
        s.store.snapshots = Some(vec![import(IMPORT, 9)]);
    });
    let record = committed(&live.plan()).clone();
    assert_eq!((record.cluster_id.as_str(), record.phase, record.restored), ("c", Phase::Promoting, None));
}

#[test]
fn a_cluster_that_lost_everything_does_not_take_it_for_its_own() {
    let lost = |rows| Case::stable().all_fresh().deposing().seen(|s| s.store.snapshots = Some(rows));
    let own = lost(vec![row(SNAPSHOT, 4, Some((OLD, 50))), import(IMPORT, 9)]);
    assert_eq!(orders(&own.plan()), [(0, Order::Restore { snapshot: id(SNAPSHOT) })]);
    let alone = || lost(vec![import(IMPORT, 9)]);
    assert_eq!(alone().actions(), Vec::<String>::new());
    assert!(alone().reasons().contains(&Reason::NoSource));

    let ask = Ask::Restore { owner: "me".into(), snapshot: Some(id(IMPORT)), consent_epoch: None, empty: false, dry_run: false };
    let case = alone();
    let view = View { spec: &case.spec, policy: &Policy::default(), timing: &Timing::default(), seen: &case.seen, now: NOW };
    let Judgement::Begin(operation, _) = judge(&ask, view, "id".into()) else { panic!("refused") };
    let named = alone().seen(|s| s.operation = Some(*operation));
    assert_eq!(orders(&named.plan()), [(0, Order::Restore { snapshot: id(IMPORT) })]);
}

#[test]
fn what_a_cluster_was_born_from_is_what_it_goes_back_to_before_its_first_own_one() {
    let reborn = |rows| {
        let restored = Some(Restored { epoch: 4, snapshot: id(IMPORT) });
        let case = Case::stable().all_fresh().deposing().record(|r| r.restored = restored);
        case.seen(|s| s.store.snapshots = Some(rows))
    };
    let order = |rows| orders(&reborn(rows).plan());
    assert_eq!(order(vec![import(IMPORT, 9), import(EARLIER, 10)]), [(0, Order::Restore { snapshot: id(IMPORT) })]);
    let own = vec![row(SNAPSHOT, 4, Some((OLD, 50))), import(IMPORT, 9)];
    assert_eq!(order(own), [(0, Order::Restore { snapshot: id(SNAPSHOT) })]);
}

#[test]
fn it_is_neither_the_latest_nor_trouble_in_a_cluster_that_serves() {
    let case = Case::stable().seen(|s| s.store.snapshots = Some(vec![import(IMPORT, 9)]));
    assert_eq!((case.actions(), case.reasons()), (Vec::new(), Vec::new()));
    let own = Case::stable().seen(|s| s.store.snapshots = Some(vec![row(SNAPSHOT, 4, Some((OLD, 50))), import(IMPORT, 9)]));
    assert_eq!(committed(&own.plan()).snapshot, Some(id(SNAPSHOT)));
}

#[test]
fn it_replaces_the_data_of_a_cluster_that_serves_when_somebody_names_it() {
    let mut case = Case::stable().seen(|s| s.store.snapshots = Some(vec![import(IMPORT, 9)]));
    for instance in 0..3 {
        case = case.state(instance, |s| s.redis.as_mut().unwrap().version = "7.0.15".into());
    }
    let view = View { spec: &case.spec, policy: &Policy::default(), timing: &Timing::default(), seen: &case.seen, now: NOW };
    let ask = |consent_epoch| Ask::Restore {
        owner: "me".into(),
        snapshot: Some(id(IMPORT)),
        consent_epoch,
        empty: false,
        dry_run: false,
    };
    assert!(matches!(judge(&ask(None), view, "id".into()), Judgement::Refuse(why) if why.contains("--consent 4")));
    let Judgement::Begin(operation, _) = judge(&ask(Some(4)), view, "id".into()) else { panic!("refused") };
    let plan = case.seen(|s| s.operation = Some(*operation)).plan();
    assert!(matches!(&orders(&plan)[..], [(2, Order::Prepare { snapshot, .. })] if *snapshot == id(IMPORT)), "{plan:?}");
}

#[test]
fn births_from_what_is_no_import_are_vetoed() {
    let vetoed = |rows: Vec<SnapshotRow>, change: fn(&mut Record)| {
        let case = unborn(rows);
        let mut record = committed(&unborn(vec![import(IMPORT, 9)]).plan()).clone();
        change(&mut record);
        let action = Action::CreateRecord { record: Box::new(record) };
        let plan = Plan { actions: vec![Planned { action, because: String::new() }], ..Plan::default() };
        violations(&case.spec, &case.seen, &plan, NOW, Timing::default().silent_after).join("; ")
    };
    let own = || row(SNAPSHOT, 4, Some((OLD, 50)));
    assert_eq!(vetoed(vec![import(IMPORT, 9)], |_| ()), "");
    assert!(vetoed(Vec::new(), |_| ()).contains("is not there"));
    assert!(vetoed(vec![import(IMPORT, 9), own()], |_| ()).contains("not a new one"));
    assert!(vetoed(vec![import(IMPORT, 9)], |r| r.initialised = true).contains("not a new one"));
    assert!(vetoed(vec![import(IMPORT, 9)], |r| r.restored = None).contains("taken for a new one"));
}

#[test]
fn a_cluster_that_gives_its_data_up_may_leave_it_lying() {
    let judged = |initialised| {
        let case = Case::stable().all_fresh().deposing().record(|r| r.initialised = initialised);
        let case = case.seen(|s| s.store.snapshots = Some(vec![import(IMPORT, 9)]));
        let view = View { spec: &case.spec, policy: &Policy::default(), timing: &Timing::default(), seen: &case.seen, now: NOW };
        let ask = Ask::Restore { owner: "me".into(), snapshot: None, consent_epoch: Some(5), empty: true, dry_run: false };
        judge(&ask, view, "id".into())
    };
    assert!(matches!(judged(true), Judgement::Begin(..)), "{:?}", judged(true));
    assert!(matches!(judged(false), Judgement::Refuse(why) if why.contains("1 good snapshot(s) hold data")));
}
