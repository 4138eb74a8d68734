//! Masters that nobody hears: the lease as evidence, its witnesses, and what is left without one.

use super::*;

const LEASE_WAIT: Duration = Duration::from_millis(2202);

/// The master's last renewal was first seen this long ago.
fn renewed(ago: Duration) -> impl FnOnce(&mut Observed) {
    move |seen| seen.lease.as_mut().unwrap().seen = NOW - ago
}

/// Instance 0 is deposed without evidence and does not speak; the others know epoch 5 and are cut.
fn waiting() -> Case {
    Case::stable().deposing().record(|r| r.evidence = None).silent(0).cut(1).cut(2)
}

#[test]
fn a_silent_master_that_renews_its_lease_stays() {
    let case = Case::stable().silent(0).seen(renewed(Duration::from_millis(400)));
    assert_eq!(case.actions(), Vec::<String>::new());
    let wait = case.plan().waits.into_iter().find(|w| w.message.contains("renewed the lease")).unwrap();
    assert!(wait.message.contains("aurora-redis failover --consent 4"), "{}", wait.message);
}

#[test]
fn a_master_silent_in_both_ways_is_deposed_and_its_last_renewal_pinned() {
    let plan = Case::stable().silent(0).seen(renewed(Duration::from_secs(1))).plan();
    let next = committed(&plan);
    assert_eq!((next.epoch, next.phase, &next.evidence), (5, Phase::Deposing, &None));
    assert_eq!((next.pinned.as_ref(), next.master_epoch), (Some(&lease_of_0()), 4));
    let checked = plan.actions.iter().find_map(|p| match p.action {
        Action::CommitRecord { lease_version, .. } => lease_version,
        _ => None,
    });
    assert_eq!(checked, Some(30), "the commit checks that no renewal came between");
}

#[test]
fn nobody_is_deposed_for_silence_when_nobody_could_follow_or_too_soon_after_the_last_time() {
    let silent = || Case::stable().silent(0).seen(renewed(Duration::from_secs(9)));
    let alone = silent().state(1, |s| s.redis = None).state(2, |s| s.redis.as_mut().unwrap().syncing = true);
    assert!(alone.reasons().contains(&Reason::NoEvidence));
    assert_eq!(alone.actions(), Vec::<String>::new());
    let failover = |started_ms| Operation {
        id: "f".into(),
        kind: OperationKind::Failover { consent_epoch: None },
        owner: "controller".into(),
        epoch: 3,
        step: String::new(),
        started_ms,
        deadline_ms: u64::MAX,
        outcome: Some("done".into()),
        cause: String::new(),
        steps: Vec::new(),
    };
    let soon = |started_ms| {
        silent().seen(|s| {
            s.wall_ms = 100_000;
            s.operation = Some(failover(started_ms));
        })
    };
    assert!(soon(50_000).reasons().contains(&Reason::Cooldown));
    assert_eq!(soon(50_000).actions(), Vec::<String>::new());
    assert_eq!(committed(&soon(40_000).plan()).phase, Phase::Deposing);
    assert_eq!(committed(&soon(50_000).master_dead().plan()).phase, Phase::Deposing, "a dead master is replaced at once");
}

#[test]
fn an_expired_lease_with_a_witness_is_evidence() {
    let evidence = |case: Case| match case.plan().actions.iter().find(|p| p.action.kind() == "commit-record") {
        Some(_) => committed(&case.plan()).evidence.clone(),
        None => None,
    };
    let over = |ago| waiting().seen(renewed(ago));
    assert_eq!(evidence(over(LEASE_WAIT - Duration::from_millis(1))), None, "it may still run");
    let found = evidence(over(LEASE_WAIT));
    assert!(matches!(&found, Some(Evidence::Lease { witness, epoch: 5, guarded: true, .. }) if witness == "task-1"), "{found:?}");
    let promised = |case: Case| case.state(1, |s| s.promised = true);
    let found = evidence(promised(over(LEASE_WAIT)));
    assert!(matches!(&found, Some(Evidence::Lease { witness, .. }) if witness == "task-2"), "{found:?}");
    assert_eq!(evidence(promised(over(LEASE_WAIT)).state(2, |s| s.promised = true)), None, "both are bound");
    assert_eq!(evidence(over(LEASE_WAIT).silent(1).silent(2)), None, "a witness must speak");
}

#[test]
fn only_whom_the_last_renewal_asks_can_be_a_witness_and_only_once_it_knows_the_epoch() {
    let with = |asks: Vec<Peer>| {
        let mut pinned = lease_of_0();
        pinned.lease.as_mut().unwrap().asks = asks;
        let case = waiting().record(|r| r.pinned = Some(pinned.clone())).seen(renewed(LEASE_WAIT));
        case.seen(|s| s.lease.as_mut().unwrap().node = pinned)
    };
    let nobody = with(Vec::new());
    assert_eq!(nobody.actions(), Vec::<String>::new());
    assert!(nobody.reasons().contains(&Reason::NoEvidence));
    let two = || with(vec![Peer { task_id: "task-2".into(), agent: agent_of(2) }]);
    assert!(committed(&two().plan()).evidence.is_some());
    let ignorant = two().state(2, |s| (s.epoch, s.fenced_epoch) = (4, None));
    assert!(!ignorant.actions().iter().any(|a| a.starts_with("commit")), "{:?}", ignorant.actions());
}

#[test]
fn what_no_promise_can_carry_is_over_without_a_witness() {
    let after = |seconds| waiting().silent(1).silent(2).seen(renewed(Duration::from_secs(seconds)));
    let case = |seconds| after(seconds).record(|r| r.failsafe_max_ms = 600_000);
    assert_eq!(case(602).actions(), Vec::<String>::new());
    assert!(matches!(committed(&case(603).plan()).evidence, Some(Evidence::Failsafe { .. })));
}

#[test]
fn with_nobody_to_take_over_a_silent_master_is_deposed_once_no_promise_can_carry_it() {
    let lost = |seconds| {
        let case = Case::stable().silent(0).state(1, |s| s.redis = None).state(2, |s| s.redis = None);
        case.record(|r| r.failsafe_max_ms = 600_000).seen(renewed(Duration::from_secs(seconds)))
    };
    assert!(lost(602).reasons().contains(&Reason::NoEvidence));
    assert_eq!(lost(602).actions(), Vec::<String>::new());
    assert_eq!(committed(&lost(603).plan()).phase, Phase::Deposing);
}

#[test]
fn a_lease_node_that_somebody_else_wrote_to_proves_nothing() {
    let unreadable = Pinned { version: 31, lease: None, unreadable: true };
    let case = Case::stable().silent(0).seen(|s| s.lease = Some(LeaseView { node: unreadable.clone(), seen: NOW - LEASE_WAIT }));
    assert_eq!(committed(&case.plan()).evidence, None, "it does not show that the master never led");
    let waiting = waiting().record(|r| r.pinned = Some(unreadable.clone())).seen(|s| {
        s.lease = Some(LeaseView { node: unreadable.clone(), seen: NOW - LEASE_WAIT });
    });
    assert_eq!(waiting.actions(), Vec::<String>::new());
}

#[test]
fn survivors_of_a_dead_master_are_cut_beside_the_commit() {
    let plan = Case::stable().master_dead().plan();
    let fences: Vec<u64> = plan
        .actions
        .iter()
        .filter_map(|p| match &p.action {
            Action::Command { command, .. } if command.order == Order::Fence => Some(command.stamp.epoch),
            _ => None,
        })
        .collect();
    assert_eq!(fences.len(), 2);
    assert!(fences.iter().all(|epoch| *epoch == committed(&plan).epoch));
    let silent = Case::stable().silent(0).seen(renewed(Duration::from_secs(1))).plan();
    assert_eq!(orders(&silent), [], "without proof nobody is cut before the commit");
}

#[test]
fn a_cut_whose_commit_was_never_made_leads_to_a_higher_epoch() {
    for phase in [Phase::Stable, Phase::Promoting, Phase::Deposing] {
        let case = Case::stable().cut(1).record(|r| {
            r.phase = phase;
            r.evidence = None;
        });
        let next = committed(&case.plan()).clone();
        assert_eq!((next.epoch, next.phase), (6, Phase::Deposing), "{phase:?}");
    }
}

#[test]
fn a_record_made_anew_without_a_master_waits_for_the_longest_lease() {
    let case = |ago: u64| {
        Case::stable().deposing().cut(0).cut(1).cut(2).record(|r| (r.evidence, r.master, r.pinned) = (None, None, None)).seen(
            |s| {
                s.phase_since = NOW - Duration::from_secs(ago);
            },
        )
    };
    assert!(case(600).reasons().contains(&Reason::NoEvidence));
    assert!(!case(600).actions().iter().any(|a| a.starts_with("commit")));
    assert!(matches!(committed(&case(603).plan()).evidence, Some(Evidence::Failsafe { .. })));
}
