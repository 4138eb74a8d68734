//! The end of a master: what counts as evidence against it, and what does not.

use super::*;

#[test]
fn a_dead_master_is_deposed_with_its_agents_word_as_evidence() {
    let plan = Case::stable().master_dead().plan();
    let next = committed(&plan);
    assert_eq!((next.epoch, next.phase), (5, Phase::Deposing));
    assert_eq!(next.evidence, Some(Evidence::Dead { run_id: "run-0".into(), proof: "signal 9".into() }));
    assert_eq!(next.master.as_ref().map(|m| m.run_id.as_str()), Some("run-0"), "nobody else is named yet");
}

#[test]
fn a_dead_masters_word_counts_even_when_its_agent_falls_silent_after_it() {
    let plan = Case::stable().master_dead().silent(0).plan();
    assert_eq!(committed(&plan).phase, Phase::Deposing);
}

#[test]
fn a_task_event_is_no_evidence() {
    let case = Case::stable().silent(0).seen(|s| {
        s.scheduler.tasks.as_mut().unwrap()[0] =
            TaskView { instance: 0, task_id: "task-0b".into(), status: "RUNNING".into(), host: "h9".into() };
    });
    assert!(!case.actions().iter().any(|a| a.contains("deposing")), "{:?}", case.actions());
}

#[test]
fn testimony_of_the_masters_host_is_evidence() {
    for (verdict, deposed) in
        [(Verdict::ProcessGone, true), (Verdict::OtherBoot, true), (Verdict::Alive, false), (Verdict::NotMine, false)]
    {
        let case = Case::stable().silent(0).seen(|s| {
            s.testimonies.push(Testimony { run_id: "run-0".into(), witness: "task-x".into(), verdict });
        });
        assert_eq!(case.actions().iter().any(|a| a.contains("deposing")), deposed, "{verdict:?}");
    }
}

#[test]
fn testimony_about_another_run_is_no_evidence() {
    let case = Case::stable().silent(0).seen(|s| {
        s.testimonies.push(Testimony { run_id: "run-earlier".into(), witness: "task-x".into(), verdict: Verdict::ProcessGone });
    });
    assert_eq!(case.actions(), Vec::<String>::new());
}

#[test]
fn cloned_host_ids_switch_testimony_off() {
    let case = Case::stable()
        .silent(0)
        .state(1, |s| s.host.host_id = "host-0".into())
        .state(2, |s| {
            s.host.host_id = "host-0".into();
            s.host.boot_id = "another".into();
        })
        .seen(|s| {
            s.testimonies.push(Testimony { run_id: "run-0".into(), witness: "task-1".into(), verdict: Verdict::OtherBoot })
        });
    assert_eq!(case.actions(), Vec::<String>::new());
}

#[test]
fn consent_counts_for_the_epoch_it_names_and_never_against_a_serving_master() {
    let consent = |epoch| Operation {
        id: "o".into(),
        kind: OperationKind::Restore { snapshot: None, consent_epoch: Some(epoch), empty: false },
        owner: "me".into(),
        epoch,
        step: String::new(),
        started_ms: 0,
        deadline_ms: u64::MAX,
        outcome: None,
        cause: String::new(),
        steps: Vec::new(),
    };
    let with = |case: Case, epoch| case.seen(|s| s.operation = Some(consent(epoch)));
    assert_eq!(committed(&with(Case::stable().silent(0), 4).plan()).phase, Phase::Deposing);
    assert_eq!(with(Case::stable().silent(0), 3).actions(), Vec::<String>::new());
    assert_eq!(with(Case::stable(), 4).actions(), Vec::<String>::new());
}

#[test]
fn without_evidence_the_last_master_is_fenced_and_nobody_is_named() {
    let case = Case::stable().deposing().record(|r| r.evidence = None);
    let plan = case.plan();
    assert_eq!(orders(&plan), [(0, Order::Fence), (1, Order::Fence), (2, Order::Fence)]);
    let fenced = Case::stable().deposing().record(|r| r.evidence = None).cut(0).cut(1).cut(2);
    let plan = fenced.plan();
    assert_eq!(committed(&plan).phase, Phase::Promoting, "evidence and winner are committed together");
    assert_eq!(committed(&plan).evidence, Some(Evidence::Fenced { run_id: "run-0".into(), epoch: 5 }));
}

#[test]
fn a_higher_epoch_in_an_agent_begins_a_new_epoch_above_it() {
    let plan = Case::stable().state(2, |s| s.epoch = 9).plan();
    assert_eq!((committed(&plan).epoch, committed(&plan).evidence.clone()), (10, None));
}

#[test]
fn an_epoch_that_no_cluster_reaches_is_not_believed() {
    for claim in [1 << 50, u64::MAX] {
        let case = Case::stable().state(2, |s| s.epoch = claim);
        assert_eq!(case.actions(), Vec::<String>::new());
        assert!(case.reasons().contains(&Reason::AgentProblem));
    }
    let born = Case::stable().state(2, |s| s.epoch = u64::MAX).seen(|s| {
        s.record = None;
        s.first_agent = Some(Duration::ZERO);
    });
    assert_eq!(committed(&born.plan()).epoch, 5);
}
