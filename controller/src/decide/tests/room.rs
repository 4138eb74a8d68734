//! Every instance runs a server and the best copy must be started from: one makes room, and only one that may.

use super::*;

/// A server in the place of each instance's, cut off for epoch 5, and a snapshot at offset 60 of the history that epoch 4 wrote.
fn all_behind(places: [(&str, u64); 3]) -> Case {
    let snapshot = "0000000004-20261124T000000Z-00000000000000000060";
    let mut case = Case::stable().deposing().record(|r| {
        let history = |epoch, replid: &str, from, to| History { epoch, replid: replid.into(), from, to, next: None };
        r.histories = vec![history(3, OLD, 1, Some(40)), history(4, NEW, 41, None)];
    });
    case.seen.store.snapshots = Some(vec![row(snapshot, 4, Some((NEW, 60)))]);
    for (instance, (replid, offset)) in (0..).zip(places) {
        case = case.cut(instance).state(instance, |s| {
            s.role = Role::Replica;
            let redis = s.redis.as_mut().unwrap();
            (redis.run_id, redis.source) = (format!("run-{instance}b"), "replica".into());
            (redis.replid, redis.offset, redis.keys) = (replid.into(), offset, 3);
        });
    }
    case
}

fn restore(snapshot: Option<&str>) -> impl FnOnce(&mut Observed) {
    let kind = OperationKind::Restore { snapshot: snapshot.map(|id| id.parse().unwrap()), consent_epoch: Some(5), empty: false };
    move |s| s.operation = Some(lineage::consent(kind))
}

#[test]
fn the_worst_copy_makes_room_for_a_snapshot_that_continues_it() {
    assert_eq!(orders(&all_behind([(OLD, 30), (OLD, 20), (NEW, 55)]).plan()), [(1, Order::Stop)]);
    assert_eq!(
        orders(&all_behind([(NEW, 50), (NEW, 50), (NEW, 50)]).plan()),
        [(2, Order::Stop)],
        "of equal ones the highest instance"
    );
}

#[test]
fn what_made_room_is_started_from_the_snapshot() {
    let case = all_behind([(OLD, 30), (OLD, 20), (NEW, 55)]).state(1, |s| {
        let dump = LocalDump { sha256: "5ha".into(), bytes: 1, position: None, epoch: 3, created_s: 9 };
        (s.redis, s.local, s.role) = (None, Some(dump), Role::None);
    });
    assert!(matches!(orders(&case.plan())[..], [(1, Order::Restore { .. })]));
}

#[test]
fn a_copy_that_diverged_makes_room_last() {
    assert_eq!(orders(&all_behind([(OLD, 45), (NEW, 55), (NEW, 58)]).plan()), [(1, Order::Stop)]);
    assert_eq!(orders(&all_behind([(OLD, 45), (OLD, 47), (OLD, 48)]).plan()), [(0, Order::Stop)], "its data is saved first");
}

#[test]
fn no_server_is_stopped_whose_copy_may_be_the_newest() {
    let unknown = || all_behind([("zzzz", 45), ("zzzz", 500), ("yyyy", 7)]);
    assert_eq!(unknown().actions(), Vec::<String>::new());
    assert!(unknown().plan().waits.iter().any(|w| w.message.contains("aurora-redis restore")));
    let undetermined = all_behind([(OLD, 30), (OLD, 20), (NEW, 55)]).state(2, |s| s.redis.as_mut().unwrap().syncing = true);
    assert_eq!(undetermined.actions(), Vec::<String>::new());
    let missing = all_behind([(OLD, 30), (OLD, 20), (NEW, 55)]).silent(2);
    assert_eq!(missing.actions(), Vec::<String>::new(), "who has not reported may hold a better one");
    let newer = all_behind([(OLD, 30), (OLD, 20), (NEW, 61)]);
    assert_eq!(committed(&newer.plan()).master.as_ref().map(|m| m.instance), Some(2));
}

#[test]
fn a_restore_that_somebody_asked_for_makes_room_in_any_case() {
    let unknown = all_behind([("zzzz", 45), ("zzzz", 500), ("yyyy", 7)]).seen(restore(None));
    assert_eq!(orders(&unknown.plan()), [(2, Order::Stop)]);
    let older = "0000000003-20261124T000000Z-00000000000000000010";
    let case = all_behind([(NEW, 65), (NEW, 64), (NEW, 70)]).seen(|s| {
        s.store.snapshots.as_mut().unwrap().push(row(older, 3, Some((OLD, 10))));
    });
    assert_eq!(orders(&case.seen(restore(Some(older))).plan()), [(1, Order::Stop)]);
}

#[test]
fn a_server_that_was_not_cut_off_is_never_stopped() {
    let case = all_behind([(OLD, 30), (OLD, 20), (NEW, 55)]).state(1, |s| s.fenced_epoch = None);
    let (record, version) = case.seen.record.clone().unwrap();
    let recorded = Recorded { record: &record, version };
    let agent = case.seen.agents.iter().find(|a| a.shard == Some(1)).unwrap();
    let action = recorded.command(agent, agent.state.as_ref().unwrap(), Order::Stop);
    let plan = Plan { actions: vec![Planned { action, because: String::new() }], ..Plan::default() };
    let found = violations(&case.spec, &case.seen, &plan, NOW, Timing::default().silent_after);
    assert!(found.iter().any(|f| f.contains("nobody knows what it holds")), "{found:?}");
}
