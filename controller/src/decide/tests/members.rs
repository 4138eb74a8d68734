//! Who may hold confirmed writes, and how many answers make a winner sure.

use super::*;

fn lease(change: impl FnOnce(&mut LeaseState)) -> impl FnOnce(&mut State) {
    move |state| change(state.lease.as_mut().unwrap())
}

#[test]
fn a_new_replica_is_listed_then_admitted_and_only_then_follows() {
    let new = |s: &mut State| {
        let redis = s.redis.as_mut().unwrap();
        redis.run_id = "run-9".into();
        (redis.following, redis.link, redis.open) = (None, Some(false), false);
        s.assigned_epoch = 0;
    };
    let unlisted = Case::stable().state(2, new).plan();
    assert!(committed(&unlisted).known_replicas.iter().any(|m| m.run_id == "run-9"));
    assert_eq!(orders(&unlisted), [], "its commands would carry a record that is over");
    let listed = || Case::stable().state(2, new).record(|r| r.known_replicas[1].run_id = "run-9".into());
    assert_eq!(orders(&listed().plan()), []);
    assert!(listed().plan().waits.iter().any(|w| w.message.contains("is being admitted")));
    let admitted = listed().state(0, lease(|l| l.admitted.push("run-9".into())));
    assert!(matches!(orders(&admitted.plan())[..], [(2, Order::Follow { .. })]));
}

#[test]
fn a_member_that_is_gone_is_marked_and_leaves_when_it_was_cut_off() {
    let gone = || Case::stable().silent(2).seen(|s| s.scheduler.tasks.as_mut().unwrap()[2].task_id = "task-2b".into());
    let marked = committed(&gone().plan()).clone();
    assert!(marked.known_replicas.iter().find(|m| m.run_id == "run-2").unwrap().removing);
    let waiting = || gone().record(|r| r.known_replicas[1].removing = true);
    assert!(!waiting().actions().iter().any(|a| a.starts_with("commit")));
    let earlier = |l: &mut LeaseState| (l.record_version, l.removed) = (6, vec!["run-2".into()]);
    let actions = waiting().state(0, lease(earlier)).actions();
    assert!(!actions.iter().any(|a| a.starts_with("commit")), "an earlier mark was confirmed: {actions:?}");
    let cut = waiting().state(0, lease(|l| l.removed.push("run-2".into())));
    let left: Vec<String> = committed(&cut.plan()).known_replicas.iter().map(|m| m.run_id.clone()).collect();
    assert_eq!(left, ["run-1"]);
}

#[test]
fn with_confirmed_writes_nobody_leaves_before_those_who_stay_hold_everything() {
    let cut = |offset: u64, proven: bool| {
        Case::stable()
            .silent(2)
            .seen(|s| {
                s.scheduler.tasks.as_mut().unwrap()[2].task_id = "task-2b".into();
                if proven {
                    s.proven.insert("run-1".into());
                }
            })
            .state(1, |s| s.redis.as_mut().unwrap().offset = offset)
            .record(|r| {
                r.durability.acks = 1;
                r.known_replicas[1].removing = true;
            })
            .state(0, lease(|l| (l.removed, l.removed_at) = (vec!["run-2".into()], Some(90))))
    };
    for (offset, proven, leaves) in [(89, true, false), (90, false, false), (90, true, true)] {
        assert_eq!(cut(offset, proven).actions().iter().any(|a| a.starts_with("commit")), leaves, "{offset} {proven}");
    }
}

/// Epoch 5, with `acks` asked for, and these instances cut and answering.
fn asked(acks: u32, answering: &[u32]) -> Case {
    let mut case = Case::stable().master_dead().deposing().record(|r| r.durability.acks = acks);
    for instance in 1..3 {
        case = if answering.contains(&instance) { case.cut(instance) } else { case.silent(instance) };
    }
    case.seen(|s| s.phase_since = Duration::ZERO)
}

#[test]
fn a_winner_is_named_when_enough_answered_to_hold_every_confirmed_write() {
    for (acks, answering, named) in [(0, &[1][..], true), (1, &[1], false), (1, &[1, 2], true), (2, &[1], true)] {
        let case = asked(acks, answering);
        assert_eq!(case.plan().actions.iter().any(|p| p.action.kind() == "commit-record"), named, "{acks} {answering:?}");
        assert_eq!(case.reasons().contains(&Reason::NoQuorum), !named, "{acks} {answering:?}");
    }
}

#[test]
fn the_deposed_masters_own_answer_is_a_whole_quorum() {
    let case = asked(1, &[]).state(0, |s| *s = state(0, 120)).record(|r| r.evidence = None);
    let case = case.cut(0).record(|r| r.evidence = Some(Evidence::Fenced { run_id: "run-0".into(), epoch: 5 }));
    assert_eq!(committed(&case.plan()).master.as_ref().unwrap().run_id, "run-0");
}

#[test]
fn when_everybody_is_accounted_for_the_best_copy_leads() {
    let case = asked(1, &[1]).state(2, |s| {
        s.redis = None;
        s.deaths.push(Death { run_id: "run-2".into(), proof: "signal 9".into(), at_ms: 1 });
    });
    assert_eq!(committed(&case.plan()).master.as_ref().unwrap().run_id, "run-1");
}

#[test]
fn a_failover_with_consent_goes_on_without_the_silent_members() {
    let operation = Operation {
        id: "o".into(),
        kind: OperationKind::Failover { consent_epoch: Some(5) },
        owner: "me".into(),
        epoch: 5,
        step: String::new(),
        started_ms: 0,
        deadline_ms: u64::MAX,
        outcome: None,
        cause: String::new(),
        steps: Vec::new(),
    };
    let case = asked(1, &[1]).seen(|s| s.operation = Some(operation));
    assert_eq!(committed(&case.plan()).phase, Phase::Promoting);
}

#[test]
fn a_loss_beyond_the_budget_waits_for_consent() {
    let behind = |limit| {
        let mut case = asked(0, &[1, 2]).seen(|s| {
            let position = Position { replid: OLD.into(), offset: 150 };
            s.last_word = Some(LastWord { run_id: "run-0".into(), position });
        });
        case.spec.failover.max_loss_bytes = limit;
        case
    };
    assert_eq!(committed(&behind(None).plan()).phase, Phase::Promoting);
    assert_eq!(committed(&behind(Some(50)).plan()).phase, Phase::Promoting);
    let case = behind(Some(49));
    assert_eq!(case.actions(), Vec::<String>::new());
    let wait = case.plan().waits.into_iter().find(|w| w.reason == Reason::LossBudget).unwrap();
    assert!(wait.message.contains("50 bytes") && wait.message.contains("failover --consent 5"), "{}", wait.message);
}
