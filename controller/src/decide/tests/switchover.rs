//! Planned changes of master, step by step, and everything that ends one before it began.

use super::*;
use crate::operations::{Judgement, judge};
use crate::view::Ask;

fn operation(to: Option<u32>) -> Operation {
    Operation {
        id: "o".into(),
        kind: OperationKind::Switchover { to },
        owner: "me".into(),
        epoch: 4,
        step: "begun".into(),
        started_ms: 0,
        deadline_ms: 6000,
        outcome: None,
        cause: String::new(),
        steps: Vec::new(),
    }
}

/// Both replicas are proven.
fn in_sync() -> Case {
    Case::stable().seen(|s| s.proven = ["run-1".into(), "run-2".into()].into())
}

fn begun(to: Option<u32>) -> Case {
    in_sync().seen(|s| s.operation = Some(operation(to)))
}

fn held(case: Case, offset: u64) -> Case {
    case.state(0, |s| s.held = Some(Held { epoch: 4, position: Position { replid: OLD.into(), offset } }))
}

fn outcome(case: &Case) -> Option<String> {
    case.plan().actions.iter().find_map(|p| match &p.action {
        Action::SetOperation { operation } => operation.outcome.clone(),
        _ => None,
    })
}

#[test]
fn writes_are_held_then_the_target_catches_up_then_the_master_is_deposed() {
    assert!(matches!(orders(&begun(Some(2)).plan())[..], [(0, Order::Hold { .. })]));
    let behind = held(begun(Some(2)), 130).plan();
    let position = Position { replid: OLD.into(), offset: 130 };
    assert!(matches!(&orders(&behind)[..], [(2, Order::CatchUp { position: p, .. })] if *p == position));
    let level = held(begun(Some(2)), 100).plan();
    let next = committed(&level);
    assert_eq!((next.epoch, next.phase, &next.evidence), (5, Phase::Deposing, &None));
    assert_eq!(orders(&level), [], "the target gets the last bytes until the master is fenced");
}

#[test]
fn after_the_fence_the_target_leads_although_others_hold_the_same() {
    let deposing = || begun(Some(2)).deposing().record(|r| r.evidence = None);
    assert_eq!(orders(&deposing().plan()), [(0, Order::Fence)], "nobody else is cut before it");
    let fenced = || deposing().cut(0);
    assert_eq!(orders(&fenced().plan()), [(1, Order::Fence), (2, Order::Fence)]);
    let winner = committed(&fenced().cut(1).cut(2).plan()).master.clone().unwrap();
    assert_eq!(winner.run_id, "run-2");
    let best = fenced().cut(1).cut(2).seen(|s| s.operation = Some(operation(None)));
    assert_eq!(committed(&best.plan()).master.as_ref().unwrap().run_id, "run-1", "not the old master");
}

#[test]
fn a_byte_written_before_the_fence_is_waited_for_and_else_the_old_master_leads_again() {
    let ahead = |since: Duration| {
        let case = begun(Some(2)).deposing().record(|r| r.evidence = None).cut(0);
        case.state(0, |s| s.redis.as_mut().unwrap().offset = 114).seen(|s| s.phase_since = since)
    };
    let position = Position { replid: OLD.into(), offset: 114 };
    assert!(matches!(&orders(&ahead(NOW).plan())[..], [(2, Order::CatchUp { position: p, .. })] if *p == position));
    let late = ahead(Duration::ZERO).cut(1).cut(2);
    assert_eq!(committed(&late.plan()).master.as_ref().unwrap().run_id, "run-0");
}

#[test]
fn what_cannot_be_done_is_undone() {
    let late = held(begun(None), 100).seen(|s| s.wall_ms = 7000);
    assert_eq!(orders(&late.plan()), [(0, Order::Release)]);
    assert_eq!(outcome(&late).as_deref(), Some("failed: it took too long"));
    let lagging = begun(Some(2)).seen(|s| s.proven.retain(|run| run != "run-2"));
    assert!(outcome(&lagging).unwrap().contains("not proven"));
    let hung = held(begun(Some(2)), 100).state(2, |s| s.redis.as_mut().unwrap().answering = false);
    assert_eq!(orders(&hung.plan()), [(0, Order::Release)]);
    assert!(outcome(&hung).unwrap().contains("instance 2 does not answer"));
}

#[test]
fn writes_are_held_once_and_the_end_of_the_hold_ends_the_change() {
    let over = begun(Some(2)).seen(|s| s.wall_ms = 3000);
    assert!(outcome(&over).unwrap().contains("while writes were held"));
    assert!(!orders(&over.plan()).iter().any(|(_, order)| matches!(order, Order::Hold { .. })));
}

#[test]
fn a_change_that_was_made_is_not_given_up_because_its_end_is_not_seen_yet() {
    let made = begun(Some(0)).record(|r| r.epoch = 5).state(0, |s| s.assigned_epoch = 5);
    assert_eq!(outcome(&made), None);
    // One that nobody ended does not stay for ever.
    assert!(outcome(&made.seen(|s| s.wall_ms = 7000)).unwrap().contains("too long"));
}

#[test]
fn a_master_that_is_to_end_hands_over_by_itself_if_somebody_can_take_it() {
    let stopping = || in_sync().state(0, |s| s.stopping = true);
    assert_eq!(stopping().actions(), ["note operation: begun"]);
    assert!(!stopping().seen(|s| s.proven.clear()).actions().iter().any(|a| a.starts_with("note")));
}

#[test]
fn asks_that_would_lose_writes_are_refused_with_what_would_be_accepted() {
    let refused = |case: Case, ask: Ask| {
        let timing = Timing::default();
        let view = View { spec: &case.spec, policy: &Policy::default(), timing: &timing, seen: &case.seen, now: NOW };
        match judge(&ask, view, "id".into()) {
            Judgement::Refuse(why) => why,
            other => format!("{other:?}"),
        }
    };
    let switch = |to| Ask::Switchover { owner: "me".into(), to, dry_run: false };
    let fail = |consent_epoch| Ask::Failover { owner: "me".into(), consent_epoch, dry_run: false };
    let with_acks = |case: Case| case.record(|r| r.durability.acks = 1);
    let cases = [
        (in_sync(), switch(Some(0)), "is the master already"),
        (in_sync().state(1, |s| s.cannot_lead = Some("no module".into())), switch(Some(1)), "instance 1 cannot lead: no module"),
        (in_sync(), switch(Some(7)), "there are: 1, 2"),
        (Case::stable(), switch(Some(1)), "not proven"),
        (Case::stable(), switch(None), "no replica can take over: instance 1 is not proven"),
        (begun(None), switch(None), "operation o (switchover) is in flight"),
        (in_sync().silent(0), switch(None), "no master serves"),
        (with_acks(in_sync().silent(2)), switch(Some(1)), "cannot answer"),
        (in_sync(), fail(Some(4)), "serves as master"),
        (in_sync().silent(0), fail(Some(3)), "present is epoch 4"),
        (in_sync().silent(0), fail(None), "failover --consent 4"),
    ];
    for (case, ask, part) in cases {
        let why = refused(case, ask.clone());
        assert!(why.contains(part), "{ask:?}: {why}");
    }
}

#[test]
fn a_plan_changes_nothing_and_what_was_shown_is_what_begins() {
    let case = in_sync();
    let timing = Timing::default();
    let view = View { spec: &case.spec, policy: &Policy::default(), timing: &timing, seen: &case.seen, now: NOW };
    let ask = |dry_run| Ask::Switchover { owner: "me".into(), to: None, dry_run };
    let Judgement::Plan(plan) = judge(&ask(true), view, "id".into()) else { panic!("not a plan") };
    assert!(plan.contains("instance 1 gets the last bytes"), "{plan}");
    let Judgement::Begin(operation, _) = judge(&ask(false), view, "id".into()) else { panic!("not begun") };
    assert_eq!(operation.kind, OperationKind::Switchover { to: Some(1) });
}

#[test]
fn consent_for_this_epoch_deposes_a_silent_master() {
    let operation = Operation { kind: OperationKind::Failover { consent_epoch: Some(4) }, ..operation(None) };
    let case = in_sync().silent(0).seen(|s| s.operation = Some(operation));
    assert!(matches!(committed(&case.plan()).evidence, Some(Evidence::Consent { .. })));
}
