//! No record: whether a new cluster is born, an old one is found, or somebody is waited for.

use super::*;
use crate::operations::{Judgement, judge};
use crate::view::Ask;

fn newborn() -> Case {
    Case::stable().all_fresh().seen(|s| s.record = None)
}

#[test]
fn a_new_cluster_is_born_empty_once_all_instances_have_reported() {
    let plan = newborn().plan();
    let record = committed(&plan);
    assert_eq!((record.phase, record.epoch, record.initialised), (Phase::Bootstrapping, 1, false));
    assert_eq!(record.cluster_id, "new-cluster");
    let waiting = newborn().silent(2);
    assert_eq!(waiting.actions(), Vec::<String>::new());
    let born = newborn().seen(|s| s.record = Some((record.clone(), 0)));
    assert_eq!(orders(&born.plan()), [(0, Order::Start { source: Source::Empty })]);
}

#[test]
fn without_a_record_snapshots_make_it_an_old_cluster() {
    let case = newborn().seen(|s| {
        s.store.snapshots = Some(vec![row(SNAPSHOT, 4, Some((OLD, 50)))]);
        s.store.cluster_id = Some("old".into());
    });
    let plan = case.plan();
    let record = committed(&plan);
    assert_eq!((record.cluster_id.as_str(), record.epoch, record.initialised), ("old", 5, true));
    let unlisted = newborn().seen(|s| s.store.snapshots = None);
    assert_eq!(unlisted.actions(), Vec::<String>::new());
}

#[test]
fn without_a_record_one_live_master_is_adopted_as_it_is() {
    let plan = Case::stable().seen(|s| s.record = None).plan();
    let record = committed(&plan);
    assert_eq!((record.cluster_id.as_str(), record.epoch, record.phase), ("c", 5, Phase::Promoting));
    assert_eq!(record.master.as_ref().map(|m| m.instance), Some(0));
    let two = Case::stable().seen(|s| s.record = None).state(1, |s| s.role = Role::Master);
    assert_eq!(two.actions(), Vec::<String>::new());
}

#[test]
fn without_a_record_nobody_leads_while_the_last_master_may_live() {
    let emptied = |case: Case| {
        case.seen(|s| {
            s.record = None;
            s.first_agent = Some(Duration::ZERO);
        })
    };
    let unlinked = |case: Case| {
        let down = |s: &mut State| s.redis.as_mut().unwrap().link = Some(false);
        case.state(1, down).state(2, down)
    };
    assert_eq!(committed(&emptied(Case::stable()).plan()).phase, Phase::Promoting, "a live master is adopted");
    let ended = |s: &mut Observed| s.scheduler.tasks.as_mut().unwrap().retain(|t| t.instance != 0);
    for case in [unlinked(Case::stable().silent(0)), Case::stable().silent(0).seen(ended)] {
        let case = emptied(case);
        assert_eq!(case.actions(), Vec::<String>::new());
        assert!(case.reasons().contains(&Reason::NoEvidence));
    }
    let unannounced = emptied(unlinked(Case::stable())).seen(|s| s.agents.retain(|a| a.shard != Some(0)));
    assert!(unannounced.reasons().contains(&Reason::NoEvidence), "its task still runs");
    let gone = emptied(unlinked(Case::stable().silent(0)).seen(ended));
    assert_eq!(committed(&gone.plan()).phase, Phase::Deposing);
}

/// ZooKeeper was emptied, and the wait for a birth is over. Instances 0 and 1 know nothing; what runs as instance 2 was never heard.
fn one_never_heard() -> Case {
    newborn().seen(|s| {
        s.first_agent = Some(Duration::ZERO);
        let silent = s.agents.iter_mut().find(|a| a.shard == Some(2)).unwrap();
        (silent.state, silent.heard) = (None, None);
    })
}

#[test]
fn no_second_cluster_is_born_while_a_task_that_runs_was_never_heard() {
    let case = one_never_heard();
    assert_eq!(case.actions(), Vec::<String>::new());
    assert!(case.plan().waits.iter().any(|w| w.message.contains("restore --empty --consent")));
    let unasked = one_never_heard().seen(|s| s.scheduler.tasks = None);
    assert_eq!(unasked.actions(), Vec::<String>::new(), "without the scheduler's word the announced one counts");
    let stored = one_never_heard().seen(|s| s.agents.retain(|a| a.shard != Some(2)));
    assert_eq!(stored.actions(), Vec::<String>::new(), "not announced, but its task runs");
}

/// A dump that was imported just before the job was created is not in it.
#[test]
fn no_cluster_is_born_from_a_listing_that_began_before_its_first_agent_was_heard() {
    let listed = |at| newborn().seen(|s| (s.first_agent, s.store.listed) = (Some(NOW), at));
    for old in [listed(None), listed(NOW.checked_sub(Duration::from_millis(1)))] {
        assert_eq!(old.actions(), Vec::<String>::new());
        assert!(old.reasons().contains(&Reason::StoreUnreachable));
    }
    assert_eq!(committed(&listed(Some(NOW)).plan()).phase, Phase::Bootstrapping);
}

#[test]
fn a_new_cluster_does_not_wait_for_an_instance_that_does_not_run_or_fell_silent_without_data() {
    let pending = one_never_heard().seen(|s| {
        s.scheduler.tasks.as_mut().unwrap()[2].status = "PENDING".into();
    });
    assert_eq!(committed(&pending.plan()).phase, Phase::Bootstrapping);
    let silent = newborn().silent(2).seen(|s| s.first_agent = Some(Duration::ZERO));
    assert_eq!(committed(&silent.plan()).phase, Phase::Bootstrapping, "it said that it knows no cluster");
}

#[test]
fn consent_bears_a_new_cluster_without_whoever_was_never_heard() {
    let ask = |consent_epoch, empty| Ask::Restore { owner: "me".into(), snapshot: None, consent_epoch, empty, dry_run: false };
    let judged = |case: &Case, ask: &Ask| {
        let view = View { spec: &case.spec, policy: &Policy::default(), timing: &Timing::default(), seen: &case.seen, now: NOW };
        judge(ask, view, "o".into())
    };
    for refused in [ask(None, true), ask(Some(4), true), ask(Some(0), false)] {
        assert!(matches!(judged(&one_never_heard(), &refused), Judgement::Refuse(_)), "{refused:?}");
    }
    let known = one_never_heard().state(1, |s| s.cluster_id = Some("c".into()));
    assert!(matches!(judged(&known, &ask(Some(0), true)), Judgement::Refuse(why) if why.contains("knows cluster c")));
    let case = one_never_heard();
    let Judgement::Begin(operation, _) = judged(&case, &ask(Some(0), true)) else { panic!("refused") };
    let case = case.seen(|s| s.operation = Some(*operation));
    let born = committed(&case.plan()).clone();
    assert_eq!((born.phase, born.epoch), (Phase::Bootstrapping, 1));
}
