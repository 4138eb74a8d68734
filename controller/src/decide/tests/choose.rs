//! Who is named after a deposed master, and what follows until the change is over.

use super::*;

#[test]
fn survivors_are_cut_before_anybody_is_named() {
    let plan = Case::stable().master_dead().deposing().plan();
    assert_eq!(orders(&plan), [(1, Order::Fence), (2, Order::Fence)]);
    assert!(plan.waits.iter().any(|w| w.reason == Reason::WaitingForCuts));
}

#[test]
fn a_survivor_that_answers_nothing_is_not_waited_for() {
    let hung = |s: &mut State| s.redis.as_mut().unwrap().answering = false;
    let plan = Case::stable().master_dead().deposing().cut(2).state(1, hung).plan();
    assert_eq!(committed(&plan).master.as_ref().map(|m| m.instance), Some(2));
}

#[test]
fn the_most_advanced_copy_wins_and_of_equal_ones_the_lowest_instance() {
    for (first, second, winner) in [(100, 200, 2), (200, 100, 1), (150, 150, 1)] {
        let case = Case::stable().master_dead().deposing().cut(1).cut(2);
        let case = case.state(1, |s| s.redis.as_mut().unwrap().offset = first);
        let plan = case.state(2, |s| s.redis.as_mut().unwrap().offset = second).plan();
        let next = committed(&plan);
        assert_eq!((next.phase, next.epoch), (Phase::Promoting, 5));
        assert_eq!(next.master.as_ref().map(|m| m.instance), Some(winner), "{first} against {second}");
        assert!(next.known_replicas.iter().any(|m| m.run_id == "run-0"), "the deposed master stays a member");
    }
}

#[test]
fn of_equal_copies_one_that_just_failed_to_open_comes_last() {
    let case = |ahead| {
        let case = Case::stable().master_dead().deposing().cut(1).cut(2).state(1, |s| s.redis.as_mut().unwrap().offset += ahead);
        case.seen(|s| s.unfit = BTreeSet::from(["run-1".to_owned()]))
    };
    let winner = |ahead| committed(&case(ahead).plan()).master.as_ref().map(|m| m.instance);
    assert_eq!(winner(0), Some(2));
    assert_eq!(winner(1), Some(1), "data comes first");
    let barred = Case::stable().master_dead().deposing().cut(1).cut(2).state(1, |s| s.cannot_lead = Some("no module".into()));
    assert_eq!(
        committed(&barred.plan()).master.as_ref().map(|m| m.instance),
        Some(2),
        "nor one whose agent would not have it lead"
    );
}

#[test]
fn a_better_copy_that_cannot_lead_is_never_named_and_given_up_only_by_consent() {
    let ahead = || {
        let case = Case::stable().master_dead().deposing().cut(1).cut(2).state(2, |s| s.redis.as_mut().unwrap().offset += 7);
        case.state(2, |s| s.cannot_lead = Some("it runs without the lease module".into()))
    };
    let plan = ahead().plan();
    let wait = plan.waits.iter().find(|w| w.reason == Reason::CannotLead).expect("a reason");
    for part in ["instance 2", "without the lease module", "instance 1 at epoch 4 offset 100", "failover --consent 5"] {
        assert!(wait.message.contains(part), "{}", wait.message);
    }
    assert!(plan.actions.is_empty(), "{:?}", plan.actions);
    let consent = lineage::consent(OperationKind::Failover { consent_epoch: Some(5) });
    let consented = ahead().seen(|s| s.operation = Some(consent.clone()));
    assert_eq!(committed(&consented.plan()).master.as_ref().map(|m| m.instance), Some(1));
    let none_may = ahead().state(1, |s| s.cannot_lead = Some("nor does this".into())).seen(|s| s.operation = Some(consent));
    assert_eq!((none_may.actions(), none_may.reasons()), (Vec::new(), vec![Reason::CannotLead]));
}

#[test]
fn a_foreign_history_never_wins_however_large_its_offset() {
    let case = Case::stable().master_dead().deposing().cut(1).cut(2).state(2, |s| {
        let redis = s.redis.as_mut().unwrap();
        redis.replid = "zzzz".into();
        redis.offset = 1_000_000;
    });
    assert_eq!(committed(&case.plan()).master.as_ref().map(|m| m.instance), Some(1));
}

#[test]
fn a_copy_that_is_still_syncing_or_loading_never_wins() {
    for change in [(|r: &mut Redis| r.syncing = true) as fn(&mut Redis), |r| r.loading = true] {
        let case = Case::stable().master_dead().deposing().cut(1).cut(2).state(1, |s| {
            let redis = s.redis.as_mut().unwrap();
            redis.offset = 900;
            change(redis);
        });
        assert_eq!(committed(&case.plan()).master.as_ref().map(|m| m.instance), Some(2));
    }
}

#[test]
fn with_durability_a_quorum_must_answer() {
    let case = Case::stable().master_dead().deposing().cut(1).silent(2).record(|r| r.durability.acks = 1);
    assert!(case.reasons().contains(&Reason::NoQuorum));
    let case = Case::stable().master_dead().deposing().cut(1).silent(2).record(|r| r.durability.acks = 2);
    assert_eq!(committed(&case.plan()).master.as_ref().map(|m| m.instance), Some(1));
}

#[test]
fn the_named_winner_is_promoted_and_then_the_change_is_over() {
    let promoting = || {
        Case::stable().master_dead().deposing().cut(1).cut(2).record(|r| {
            r.phase = Phase::Promoting;
            r.master = Some(Member { instance: 1, task_id: "task-1".into(), run_id: "run-1".into(), ..Member::default() });
        })
    };
    let asks = vec![Peer { task_id: "task-2".into(), agent: agent_of(2) }];
    assert_eq!(orders(&promoting().plan()), [(1, Order::Promote { asks })]);
    let opened = promoting().state(1, |s| {
        s.role = Role::Master;
        s.assigned_epoch = 5;
        s.fenced_epoch = None;
        let redis = s.redis.as_mut().unwrap();
        redis.replid = NEW.into();
        redis.replid2 = Some(OLD.into());
        redis.replid2_end = Some(101);
        redis.link = None;
    });
    let plan = opened.plan();
    let next = committed(&plan);
    assert_eq!(next.phase, Phase::Stable);
    let old = &next.histories[0];
    assert_eq!((old.to, old.next.as_deref()), (Some(100), Some(NEW)));
    assert_eq!(next.epoch_of(NEW), Some(5));
}

#[test]
fn a_winner_that_dies_or_does_not_open_is_followed_by_another_epoch() {
    let promoting = |case: Case| {
        case.record(|r| {
            r.epoch = 5;
            r.phase = Phase::Promoting;
            r.master = Some(Member { instance: 1, task_id: "task-1".into(), run_id: "run-1".into(), ..Member::default() });
        })
    };
    let dead = promoting(Case::stable()).state(1, |s| {
        s.redis = None;
        s.deaths.push(Death { run_id: "run-1".into(), proof: "exit status 1".into(), at_ms: 1 });
    });
    let plan = dead.plan();
    assert_eq!((committed(&plan).epoch, committed(&plan).phase), (6, Phase::Deposing));
    assert!(committed(&plan).evidence.is_some());
    let late = promoting(Case::stable()).seen(|s| s.phase_since = Duration::ZERO);
    let plan = late.plan();
    assert_eq!((committed(&plan).epoch, committed(&plan).phase), (6, Phase::Deposing));
    assert_eq!(committed(&plan).evidence, Some(Evidence::NoneBefore), "it never led: what is known of its predecessor is enough");
    let led = promoting(Case::stable()).seen(|s| {
        s.phase_since = Duration::ZERO;
        let lease = s.lease.as_mut().unwrap().node.lease.as_mut().unwrap();
        (lease.task_id, lease.run_id, lease.epoch) = ("task-1".into(), "run-1".into(), 5);
    });
    assert_eq!(committed(&led.plan()).evidence, None, "it may have opened: it must be fenced first");
}

#[test]
fn a_record_made_anew_ranks_live_copies_before_older_snapshots() {
    let anew = |keys| {
        let case = Case::stable().master_dead().deposing().cut(1).cut(2).record(|r| {
            (r.master, r.evidence, r.known_replicas) = (None, Some(Evidence::NoneBefore), Vec::new());
            r.histories.clear();
        });
        let holds = |s: &mut State| {
            let redis = s.redis.as_mut().unwrap();
            (redis.keys, redis.offset) = (keys, 400);
        };
        case.state(1, holds).state(2, holds).seen(|s| s.store.snapshots = Some(vec![row(SNAPSHOT, 4, Some((OLD, 50)))]))
    };
    assert_eq!(committed(&anew(7).plan()).master.as_ref().map(|m| m.instance), Some(1));
    assert!(matches!(orders(&anew(0).plan())[..], [(0, Order::Restore { .. })]), "a first sync that never ended is no copy");
}
