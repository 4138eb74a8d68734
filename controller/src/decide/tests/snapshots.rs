//! What a cluster starts from that lost every copy, and backups.

use super::*;

pub(super) fn lost_everything() -> Case {
    Case::stable().all_fresh().seen(|s| {
        s.testimonies.push(Testimony { run_id: "run-0".into(), witness: "fresh-0".into(), verdict: Verdict::ProcessGone });
        s.store.snapshots = Some(vec![row(SNAPSHOT, 4, Some((OLD, 50)))]);
    })
}

#[test]
fn a_cluster_that_lost_everything_starts_from_the_best_snapshot() {
    assert_eq!(committed(&lost_everything().plan()).phase, Phase::Deposing);
    let plan = lost_everything().deposing().plan();
    assert_eq!(orders(&plan), [(0, Order::Restore { snapshot: SNAPSHOT.parse().unwrap() })]);
}

#[test]
fn a_newer_dump_in_a_sandbox_beats_an_older_snapshot() {
    let dump = |offset| LocalDump {
        sha256: "5ha".into(),
        bytes: 1,
        position: Some(Position { replid: OLD.into(), offset }),
        epoch: 4,
        created_s: 9,
    };
    for (offset, order) in [
        (60, Order::Start { source: Source::Local { sha256: "5ha".into() } }),
        (40, Order::Restore { snapshot: SNAPSHOT.parse().unwrap() }),
    ] {
        let case = lost_everything().deposing().state(2, |s| s.local = Some(dump(offset)));
        assert_eq!(orders(&case.plan()).into_iter().map(|(_, o)| o).collect::<Vec<_>>(), [order], "{offset}");
    }
}

#[test]
fn an_unusable_newest_snapshot_is_passed_over_for_the_one_before() {
    let newer = "0000000004-20261124T010000Z-00000000000000000090";
    let case = lost_everything().deposing().seen(|s| {
        s.store.snapshots.as_mut().unwrap().push(row(newer, 4, Some((OLD, 90))));
        s.unusable.insert(format!("snapshot:{newer}"));
    });
    assert_eq!(orders(&case.plan()), [(0, Order::Restore { snapshot: SNAPSHOT.parse().unwrap() })]);
}

#[test]
fn a_cluster_that_had_data_never_starts_empty() {
    let case = lost_everything().deposing().seen(|s| s.store.snapshots = Some(Vec::new()));
    assert_eq!(case.actions(), Vec::<String>::new());
    assert!(case.reasons().contains(&Reason::NoSource));
    let unlisted = lost_everything().deposing().seen(|s| s.store.snapshots = None);
    assert_eq!(unlisted.actions(), Vec::<String>::new());
    assert!(unlisted.reasons().contains(&Reason::StoreUnreachable));
}

#[test]
fn nothing_starts_from_a_snapshot_while_instances_are_missing_until_the_wait_is_over() {
    let case = lost_everything().deposing().silent(2);
    assert_eq!(case.actions(), Vec::<String>::new());
    assert!(case.reasons().contains(&Reason::WaitingForInstances));
    let waited = lost_everything().deposing().silent(2).seen(|s| s.phase_since = NOW - Duration::from_secs(61));
    assert_eq!(waited.actions(), ["restore instance 0"]);
}

#[test]
fn nothing_starts_from_a_snapshot_while_a_survivor_has_not_told_its_place() {
    let survivor = |change: fn(&mut State)| {
        let case = lost_everything().deposing().state(1, |s| {
            *s = state(1, 100);
            s.epoch = 5;
            s.fenced_epoch = Some(5);
        });
        case.state(1, change).seen(|s| s.phase_since = NOW - Duration::from_secs(5))
    };
    for change in [
        (|s| s.redis.as_mut().unwrap().answering = false) as fn(&mut State),
        |s| s.redis.as_mut().unwrap().loading = true,
        |s| s.redis.as_mut().unwrap().syncing = true,
        |s| s.stopping = true,
    ] {
        let case = survivor(change);
        assert_eq!(case.actions(), Vec::<String>::new());
        assert!(case.reasons().contains(&Reason::WaitingForCuts), "{:?}", case.reasons());
    }
    let told = survivor(|_| ());
    assert_eq!(committed(&told.plan()).master.as_ref().map(|m| m.instance), Some(1), "it is newer than the snapshot");
}

#[test]
fn a_restore_under_way_is_not_begun_twice_and_its_server_is_then_named() {
    let busy = lost_everything().deposing().state(0, |s| {
        s.epoch = 5;
        s.activity = Some(Activity {
            what: "restoring".into(),
            subject: SNAPSHOT.into(),
            done_bytes: 1,
            total_bytes: 2,
            ..Activity::default()
        });
    });
    assert_eq!(busy.actions(), Vec::<String>::new());
    let closed = lost_everything().deposing().state(0, |s| {
        s.epoch = 5;
        s.role = Role::Master;
        s.redis = Some(Redis {
            address: Some(redis_of(0)),
            run_id: "run-new".into(),
            replid: NEW.into(),
            replid2: Some(OLD.into()),
            replid2_end: Some(51),
            offset: 50,
            answering: true,
            source: format!("snapshot:{SNAPSHOT}"),
            started_epoch: 5,
            ..Redis::default()
        });
    });
    let plan = closed.plan();
    assert_eq!(committed(&plan).master.as_ref().map(|m| m.run_id.as_str()), Some("run-new"));
}

#[test]
fn a_backup_is_made_by_the_source_and_ends_with_its_snapshot() {
    let backup = |case: Case| {
        case.seen(|s| {
            s.operation = Some(Operation {
                id: "b1".into(),
                kind: OperationKind::Backup { how: agent::snapshot::How::Stream },
                owner: "me".into(),
                epoch: 4,
                step: String::new(),
                started_ms: 0,
                deadline_ms: u64::MAX,
                outcome: None,
                cause: String::new(),
                steps: Vec::new(),
            });
        })
    };
    assert_eq!(
        orders(&backup(Case::stable()).plan()),
        [(1, Order::Backup { request_id: "b1".into(), how: agent::snapshot::How::Stream })]
    );
    let done = backup(Case::stable()).state(1, |s| {
        s.uploads.last_request_snapshot = SNAPSHOT.parse().ok();
        s.uploads.last_request_id = Some("b1".into());
    });
    assert_eq!(done.actions(), ["note operation: ended"]);
}
