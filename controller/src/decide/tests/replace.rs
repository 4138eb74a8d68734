//! A restore into a cluster that serves, step by step, everything that calls it off, and what can lead after it.

use super::*;
use crate::operations::{Judgement, judge};
use crate::view::{Ask, RestorePlan};

const OLDER: &str = "0000000004-20261124T000000Z-00000000000000000040";
const PRESENT: &str = "0000000004-20261124T000100Z-00000000000000000100";
const NEXT: &str = "0000000003-20261123T000000Z-00000000000000000009";

fn id(text: &str) -> SnapshotId {
    text.parse().unwrap()
}

fn running(saved: bool) -> Operation {
    let kind = OperationKind::Replace { snapshot: id(OLDER), loader: 2, saved: saved.then(|| id(PRESENT)) };
    Operation {
        id: "o".into(),
        kind,
        owner: "me".into(),
        epoch: 4,
        step: "begun".into(),
        started_ms: 0,
        deadline_ms: 1_000_000_000,
        outcome: None,
        cause: String::new(),
        steps: if saved { vec![crate::view::Step { name: "saved".into(), at_ms: 1 }] } else { Vec::new() },
    }
}

/// A cluster of three in order, and a snapshot at offset 40 of its history, which is at 100.
fn stored() -> Case {
    let case = Case::stable().record(|r| r.snapshot = Some(id(OLDER)));
    let version = |s: &mut State| s.redis.as_mut().unwrap().version = "7.0.15".into();
    (0..3).fold(case, |case, i| case.state(i, version)).seen(|s| {
        let mut rows = vec![row(OLDER, 4, Some((OLD, 40))), row(NEXT, 3, None)];
        rows[1].created_ms = 0;
        s.store.snapshots = Some(rows);
    })
}

fn begun() -> Case {
    stored().seen(|s| s.operation = Some(running(false)))
}

fn prepared(problem: Option<&str>) -> impl FnOnce(&mut State) {
    let problem = problem.map(str::to_owned);
    move |s| s.prepared = Some(Prepared { request_id: "o".into(), snapshot: id(OLDER), problem })
}

/// Epoch 5 has begun, and everybody is cut off.
fn cut(saved: bool) -> Case {
    let fenced = Some(Evidence::Fenced { run_id: "run-0".into(), epoch: 5 });
    let case = begun().deposing().record(|r| r.evidence = fenced).seen(|s| s.operation = Some(running(saved)));
    case.cut(0).cut(1).cut(2)
}

/// Instance 2 made room and has loaded the snapshot, whose history is the second of its server's.
fn loaded() -> Case {
    cut(true).state(2, |s| {
        s.assigned_epoch = 0;
        s.fenced_epoch = None;
        let redis = s.redis.as_mut().unwrap();
        (redis.run_id, redis.source, redis.started_epoch) = ("run-2b".into(), format!("snapshot:{OLDER}"), 5);
        (redis.replid, redis.offset) = (NEW.into(), 40);
        (redis.replid2, redis.replid2_end, redis.open) = (Some(OLD.into()), Some(41), false);
    })
}

fn outcome(case: &Case) -> Option<String> {
    case.plan().actions.iter().find_map(|p| match &p.action {
        Action::SetOperation { operation } => operation.outcome.clone(),
        _ => None,
    })
}

#[test]
fn a_snapshot_is_fetched_and_judged_before_anything_is_touched() {
    let order = Order::Prepare { request_id: "o".into(), snapshot: id(OLDER) };
    assert_eq!(orders(&begun().plan()), [(2, order)]);
    let at_it = begun().state(2, |s| {
        s.activity = Some(Activity { what: "restoring".into(), subject: OLDER.into(), ..Activity::default() });
    });
    assert_eq!(at_it.actions(), Vec::<String>::new());
    let plan = begun().state(2, prepared(None)).plan();
    assert_eq!((committed(&plan).epoch, committed(&plan).phase), (5, Phase::Deposing));
    assert_eq!(committed(&plan).restored, None, "there is a way back");
}

#[test]
fn what_speaks_against_it_calls_it_off_with_the_master_in_office() {
    let told = |case: Case| {
        let plan = case.plan();
        assert!(!plan.actions.iter().any(|p| matches!(p.action, Action::CommitRecord { .. })), "{plan:#?}");
        outcome(&case).unwrap_or_default()
    };
    let bad = told(begun().state(2, prepared(Some("piece 0 is corrupt"))));
    assert!(bad.starts_with("failed: instance 2: piece 0 is corrupt. The present data stays"), "{bad}");
    assert!(bad.ends_with(&format!("the next good one is {NEXT}")), "{bad}");
    assert!(told(begun().silent(2)).contains("not heard"));
    assert!(told(begun().state(2, |s| s.stopping = true)).contains("asked to end"));
    assert!(told(begun().state(0, |s| s.stopping = true)).contains("the master, instance 0, was asked to end"));
    assert!(told(begun().seen(|s| s.wall_ms = 1_000_000_001)).contains("took too long"));
    let other = begun().state(2, |s| {
        s.prepared = Some(Prepared { request_id: "before".into(), snapshot: id(OLDER), problem: None });
    });
    assert!(matches!(orders(&other.plan())[..], [(2, Order::Prepare { .. })]), "an answer to another operation is none");
}

#[test]
fn nothing_makes_room_before_the_masters_own_copy_is_saved() {
    let how = agent::snapshot::How::Dump;
    assert_eq!(orders(&cut(false).plan()), [(0, Order::Backup { request_id: "o".into(), how })]);
    let answered = |s: &mut State| {
        s.uploads.last_request_id = Some("o".into());
        s.uploads.last_request_snapshot = Some(id(PRESENT));
    };
    let plan = cut(false).state(0, answered).plan();
    let [Planned { action: Action::SetOperation { operation }, .. }] = &plan.actions[..] else { panic!("{plan:#?}") };
    assert!(matches!(&operation.kind, OperationKind::Replace { saved: Some(saved), .. } if *saved == id(PRESENT)));
    assert_eq!(operation.steps.last().map(|s| s.name.as_str()), Some("saved"));
    assert_eq!(orders(&cut(true).plan()), [(2, Order::Stop)], "the one that has fetched it");
    // The agent that saved it has been started anew: the snapshot itself tells.
    let listed = cut(false).seen(|s| {
        let mut saved = row(PRESENT, 4, Some((OLD, 100)));
        saved.request_id = Some("o".into());
        s.store.snapshots.as_mut().unwrap().insert(0, saved);
    });
    assert_eq!(orders(&listed.plan()), []);
    assert_eq!(listed.actions().len(), 1);
}

#[test]
fn if_the_present_data_cannot_be_saved_it_leads_again() {
    let failed = |s: &mut State| s.uploads.failed_request = Some(("o".into(), "no memory".into()));
    assert!(outcome(&cut(false).state(0, failed)).unwrap().contains("could not be saved: no memory"));
    let retrying = |s: &mut State| s.uploads.error = Some("no space".into());
    assert!(outcome(&cut(false).state(0, retrying)).unwrap().contains("could not be saved: no space"));
    let lost = cut(false).state(0, |s| s.redis = None);
    assert!(outcome(&lost).unwrap().contains("the master was lost before its data was saved"));
    let late = cut(false).seen(|s| s.wall_ms = 3_600_001);
    assert!(outcome(&late).unwrap().contains("not saved in time"));
    let over = cut(false).seen(|s| s.operation.as_mut().unwrap().outcome = Some("failed: x".into()));
    assert_eq!(committed(&over.plan()).master.as_ref().map(|m| m.instance), Some(0));
}

#[test]
fn what_made_room_loads_the_snapshot_and_nobody_else_meanwhile() {
    let gone = || cut(true).state(2, |s| (s.redis, s.role) = (None, Role::None));
    assert_eq!(orders(&gone().plan()), [(2, Order::Restore { snapshot: id(OLDER) })]);
    let checking = gone().state(2, |s| s.activity = Some(Activity { what: "checking".into(), ..Activity::default() }));
    assert_eq!(checking.actions(), Vec::<String>::new());
    let away = cut(true).silent(2);
    assert_eq!(orders(&away.plan()), [(1, Order::Stop)], "the master's own copy is touched last");
}

#[test]
fn a_load_that_fails_brings_the_present_data_back() {
    let gone = || cut(true).state(2, |s| (s.redis, s.role) = (None, Role::None));
    let failed = gone().state(2, |s| {
        s.failed_source = Some(FailedSource { source: format!("snapshot:{OLDER}"), definite: false, why: "no space".into() });
    });
    assert!(outcome(&failed).unwrap().contains("instance 2: no space"));
    let unusable = gone().seen(|s| s.unusable = [format!("snapshot:{OLDER}")].into());
    assert!(outcome(&unusable).unwrap().contains("cannot be used"));
    let deaths = gone().state(2, |s| {
        s.deaths = (0..4).map(|n| Death { run_id: n.to_string(), proof: String::new(), at_ms: 2 }).collect();
    });
    assert!(outcome(&deaths).unwrap().contains("died 3 times"));
    let barred = loaded().state(2, |s| s.cannot_lead = Some("no module".into()));
    assert!(outcome(&barred).unwrap().contains("cannot lead: no module"));
    assert!(outcome(&gone().seen(|s| s.wall_ms = 7_200_002)).unwrap().contains("not loaded in time"));
    let over = loaded().seen(|s| s.operation.as_mut().unwrap().outcome = Some("failed: x".into()));
    assert_eq!(committed(&over.plan()).master.as_ref().map(|m| m.instance), Some(0), "what is loaded is older");
}

#[test]
fn naming_what_has_loaded_it_replaces_whatever_was_before() {
    for acks in [0, 1] {
        let plan = loaded().record(|r| r.durability.acks = acks).plan();
        let next = committed(&plan);
        assert_eq!(next.master.as_ref().map(|m| m.run_id.as_str()), Some("run-2b"));
        assert_eq!(next.restored, Some(Restored { epoch: 5, snapshot: id(OLDER) }));
        assert_eq!(next.histories[0].to, Some(40), "what goes beyond it is set aside");
        assert_eq!((next.histories[1].replid.as_str(), next.histories[1].epoch), (NEW, 5));
        assert_eq!(next.known_replicas.len(), 3, "nobody is forgotten");
    }
}

/// The restored data was named, and its server died: the others hold what was replaced.
fn bereaved(settled: bool) -> Case {
    let history = |epoch, replid: &str, from, to| History { epoch, replid: replid.into(), from, to, next: None };
    let case = cut(true).record(|r| {
        (r.epoch, r.master_epoch) = (6, 5);
        r.histories = vec![history(4, OLD, 0, Some(40)), history(5, NEW, 41, None)];
        r.restored = Some(Restored { epoch: 5, snapshot: id(OLDER) });
    });
    let case = [0, 1].into_iter().fold(case, |case, i| case.state(i, |s| (s.epoch, s.fenced_epoch) = (6, Some(6))));
    let case = case.state(2, |s| (s.redis, s.role, s.epoch) = (None, Role::None, 6));
    case.seen(|s| {
        let mut saved = row(PRESENT, 4, Some((OLD, 100)));
        saved.created_ms = 9;
        s.store.snapshots.as_mut().unwrap().insert(0, saved);
        if settled {
            s.operation = None;
        }
    })
}

#[test]
fn nothing_that_was_replaced_leads_again_although_its_offset_is_higher() {
    for settled in [false, true] {
        assert_eq!(orders(&bereaved(settled).plan()), [(2, Order::Restore { snapshot: id(OLDER) })], "settled: {settled}");
    }
    let again = bereaved(true).state(2, |s| {
        let redis = Redis {
            replid: "cccc".into(),
            offset: 40,
            replid2: Some(OLD.into()),
            replid2_end: Some(41),
            ..state(2, 0).redis.unwrap()
        };
        s.redis = Some(Redis { run_id: "run-2c".into(), source: format!("snapshot:{OLDER}"), started_epoch: 6, ..redis });
        (s.assigned_epoch, s.fenced_epoch) = (0, None);
    });
    assert_eq!(committed(&again.plan()).master.as_ref().map(|m| m.run_id.as_str()), Some("run-2c"), "it is not loaded for ever");
    let dump = |replid: &str, offset| LocalDump {
        sha256: "5ha".into(),
        bytes: 1,
        position: Some(Position { replid: replid.into(), offset }),
        epoch: 4,
        created_s: 9,
    };
    for replid in [OLD, "zzzz"] {
        let replaced = bereaved(true).state(2, |s| s.local = Some(dump(replid, 100)));
        assert!(matches!(orders(&replaced.plan())[..], [(2, Order::Restore { .. })]), "{replid}");
    }
    let newer = bereaved(true).state(2, |s| s.local = Some(dump(NEW, 60)));
    assert!(matches!(orders(&newer.plan())[..], [(2, Order::Start { .. })]), "what was written since");
    let behind = bereaved(true).state(1, |s| {
        let redis = s.redis.as_mut().unwrap();
        (redis.replid, redis.offset, redis.replid2, redis.replid2_end) = (NEW.into(), 55, Some(OLD.into()), Some(41));
    });
    assert_eq!(committed(&behind.plan()).master.as_ref().map(|m| m.instance), Some(1), "it followed the restored data");
}

#[test]
fn with_the_snapshot_gone_too_nothing_replaced_leads_by_itself() {
    let nothing = bereaved(true).seen(|s| s.store.snapshots.as_mut().unwrap().retain(|row| row.id == id(PRESENT)));
    assert_eq!(orders(&nothing.plan()), []);
    assert!(nothing.reasons().contains(&Reason::NoSource), "{:?}", nothing.plan().waits);
}

#[test]
fn what_was_replaced_comes_back_when_somebody_names_it() {
    let mut operation = running(true);
    operation.kind = OperationKind::Replace { snapshot: id(PRESENT), loader: 2, saved: Some(id(OLDER)) };
    operation.epoch = 5;
    let case = bereaved(true).seen(|s| s.operation = Some(operation)).state(2, |s| {
        let redis = Redis {
            replid: "cccc".into(),
            offset: 100,
            replid2: Some(OLD.into()),
            replid2_end: Some(101),
            ..state(2, 0).redis.unwrap()
        };
        s.redis = Some(Redis { run_id: "run-2c".into(), source: format!("snapshot:{PRESENT}"), started_epoch: 6, ..redis });
        (s.assigned_epoch, s.fenced_epoch) = (0, None);
    });
    let plan = case.plan();
    assert_eq!(committed(&plan).restored, Some(Restored { epoch: 6, snapshot: id(PRESENT) }));
    assert_eq!(committed(&plan).histories[0].to, Some(100));
}

#[test]
fn the_end_tells_what_became_of_it() {
    let ended = |restored| {
        let case = loaded().record(|r| {
            r.phase = Phase::Promoting;
            r.restored = restored;
        });
        let master = case.seen.agents.iter().find(|a| a.shard == Some(2)).and_then(|a| member(a.state.as_ref().unwrap()));
        let case = case.record(|r| r.master = master).state(2, |s| {
            (s.assigned_epoch, s.serving, s.role) = (5, true, Role::Master);
        });
        case.plan().actions.iter().find_map(|p| match &p.action {
            Action::CommitRecord { operation, .. } => operation.as_ref().and_then(|o| o.outcome.clone()),
            _ => None,
        })
    };
    let done = ended(Some(Restored { epoch: 5, snapshot: id(OLDER) })).unwrap();
    assert!(done.starts_with("done: instance 2") && done.contains(PRESENT), "{done}");
    assert!(ended(None).unwrap().starts_with("failed: another change of master"));
}

#[test]
fn a_plan_that_replaces_unsaved_data_is_vetoed() {
    let case = loaded();
    let plan = case.plan();
    let judged = |seen: &Observed| violations(&case.spec, seen, &plan, NOW, Timing::default().silent_after);
    let mut unsaved = case.seen.clone();
    unsaved.operation = Some(running(false));
    assert!(judged(&unsaved).iter().any(|f| f.contains("without being saved")));
    unsaved.operation = None;
    assert!(judged(&unsaved).iter().any(|f| f.contains("unasked")));
    let stop = cut(true).plan();
    let mut unsaved = cut(true).seen;
    unsaved.operation = Some(running(false));
    let found = violations(&case.spec, &unsaved, &stop, NOW, Timing::default().silent_after);
    assert!(found.iter().any(|f| f.contains("before the present data is saved")), "{found:?}");
}

fn judged(case: &Case, consent_epoch: Option<u64>, dry_run: bool) -> Judgement {
    let timing = Timing::default();
    let view = View { spec: &case.spec, policy: &Policy::default(), timing: &timing, seen: &case.seen, now: NOW };
    let ask = Ask::Restore { owner: "me".into(), snapshot: Some(id(OLDER)), consent_epoch, empty: false, dry_run };
    judge(&ask, view, "id".into())
}

#[test]
fn without_consent_for_this_epoch_only_the_command_is_told() {
    let Judgement::Refuse(why) = judged(&stored(), None, false) else { panic!("begun") };
    assert!(why.contains(&format!("aurora-redis restore {OLDER} --consent 4")), "{why}");
    let Judgement::Refuse(why) = judged(&stored(), Some(3), false) else { panic!("begun") };
    assert!(why.contains("present is epoch 4"), "{why}");
    let Judgement::Begin(operation, _) = judged(&stored(), Some(4), false) else { panic!("not begun") };
    assert_eq!(operation.kind, OperationKind::Replace { snapshot: id(OLDER), loader: 2, saved: None });
}

#[test]
fn everything_against_it_is_told_up_front() {
    let shown = |case: Case| -> RestorePlan {
        match judged(&case, None, true) {
            Judgement::Show(plan) => *plan,
            other => panic!("{other:?}"),
        }
    };
    let fine = shown(stored());
    assert_eq!((fine.loader, fine.others, fine.objections.len()), (Some(2), vec![0, 1], 0));
    let format = |rdb: &str| {
        let rdb = rdb.to_owned();
        stored().seen(|s| s.store.snapshots.as_mut().unwrap()[0].rdb = rdb)
    };
    assert_eq!(shown(format("REDIS0010")).loader, Some(2));
    let newer = shown(format("REDIS0012"));
    assert!(newer.loader.is_none() && newer.objections[0].contains("instance 0: server 7.0.15 cannot load"), "{newer:?}");
    let spoilt = shown(stored().seen(|s| {
        let row = &mut s.store.snapshots.as_mut().unwrap()[0];
        (row.good, row.problem) = (false, Some("piece 3".into()));
    }));
    assert!(spoilt.objections[0].contains("piece 3") && spoilt.objections[0].contains(NEXT), "{spoilt:?}");
    assert!(shown(begun()).objections[0].contains("operation o (restore) is in flight"));
    let failing = shown(stored().state(1, |s| s.uploads.error = Some("no space".into())));
    assert!(failing.objections[0].contains("uploads fail"), "{failing:?}");
    let alone = shown(stored().silent(1).silent(2));
    assert_eq!(alone.loader, Some(0), "a master that is alone does it itself");
    assert!(matches!(judged(&begun(), Some(4), false), Judgement::Refuse(_)));
}
