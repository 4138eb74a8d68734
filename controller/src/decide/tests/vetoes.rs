//! Bad plans made by hand: the check must name what each would break.

use super::snapshots::lost_everything;
use super::*;

fn vetoed(case: &Case, action: Action) -> String {
    let plan = Plan { actions: vec![Planned { action, because: String::new() }], ..Plan::default() };
    violations(&case.spec, &case.seen, &plan, NOW, Timing::default().silent_after).join("; ")
}

fn command(case: &Case, instance: u32, order: Order) -> Action {
    let (record, version) = case.seen.record.as_ref().unwrap();
    let agent = case.seen.agents.iter().find(|a| a.shard == Some(instance)).unwrap();
    Recorded { record, version: *version }.command(agent, agent.state.as_ref().unwrap(), order)
}

fn commit(case: &Case, change: impl FnOnce(&mut Record)) -> Action {
    let (record, version) = case.seen.record.as_ref().unwrap();
    let mut next = record.clone();
    change(&mut next);
    Recorded { record, version: *version }.commit(next)
}

#[track_caller]
fn assert_veto(case: &Case, action: Action, part: &str) {
    let found = vetoed(case, action);
    assert!(found.contains(part), "expected a veto '{part}', found '{found}'");
}

#[test]
fn a_second_master_is_vetoed() {
    let stable = Case::stable();
    assert_veto(&stable, command(&stable, 1, Order::Promote { asks: Vec::new() }), "promoted, which the record does not name");
    assert_veto(&stable, command(&stable, 0, Order::Fence), "the master in office is fenced");
    assert_veto(&stable, command(&stable, 0, Order::Stop), "the master in office is stopped");
    let named = |r: &mut Record| {
        r.phase = Phase::Promoting;
        r.master = member(&state(1, 100));
    };
    assert_veto(&stable, commit(&stable, named), "cannot become Promoting");
    let unproven = Case::stable().deposing().cut(1).cut(2).record(|r| r.evidence = None);
    assert_veto(&unproven, commit(&unproven, named), "without evidence");
}

#[test]
fn an_older_copy_over_a_newer_one_is_vetoed() {
    let case = Case::stable().master_dead().deposing().cut(1).cut(2).state(2, |s| s.redis.as_mut().unwrap().offset = 101);
    let behind = |r: &mut Record| {
        r.phase = Phase::Promoting;
        r.master = member(&state(1, 100));
    };
    assert_veto(&case, commit(&case, behind), "is behind another complete copy");
    let barred = |i| Case::stable().master_dead().deposing().cut(1).cut(2).state(i, |s| s.cannot_lead = Some("no module".into()));
    assert_veto(&barred(1), commit(&barred(1), behind), "cannot lead: no module");
    let better = barred(2).state(2, |s| s.redis.as_mut().unwrap().offset = 101);
    assert_veto(&better, commit(&better, behind), "is behind another complete copy");
    let syncing = Case::stable().master_dead().deposing().cut(1).state(1, |s| s.redis.as_mut().unwrap().syncing = true);
    assert_veto(&syncing, commit(&syncing, behind), "has no complete copy");
    let stable = Case::stable();
    let stray = Order::Follow { master: redis_of(2), fork: None };
    assert_veto(&stable, command(&stable, 1, stray), "not the master in office");
    let empty = Order::Start { source: Source::Empty };
    let lost = lost_everything().deposing();
    assert_veto(&lost, command(&lost, 0, empty), "started empty");
    let restore = Order::Restore { snapshot: SNAPSHOT.parse().unwrap() };
    assert_veto(&stable, command(&stable, 1, restore), "while there is a master");
}

#[test]
fn going_back_in_time_is_vetoed() {
    let stable = Case::stable();
    assert_veto(&stable, commit(&stable, |r| r.epoch = 3), "back in time");
    assert_veto(&stable, commit(&stable, |r| r.initialised = false), "back in time");
    assert_veto(&stable, commit(&stable, |r| r.cluster_id = "x".into()), "identity");
    assert_veto(&stable, commit(&stable, |r| r.phase = Phase::Deposing), "cannot become Deposing");
    let record = Box::new(stable.seen.record.clone().unwrap().0);
    assert_veto(&stable, Action::CreateRecord { record }, "while there is one");
}

#[test]
fn removing_too_much_is_vetoed() {
    let mut case = Case::stable();
    case.spec.instances = 2;
    let kill = |instances: &[u32]| Action::KillInstances { instances: instances.to_vec(), seen: NOW };
    assert_veto(&case, kill(&[]), "the whole job");
    assert_veto(&case, kill(&[0]), "the master's instance");
    assert_veto(&case, kill(&[1, 2]), "2 are wanted");
    assert_eq!(vetoed(&case, kill(&[2])), "");
    assert_veto(&case, Action::AddInstances { template: 0, count: 1, seen: NOW }, "2 are wanted");
    assert_veto(&case, Action::RestartInstance { instance: 1, seen: NOW }, "although its agent speaks");
}

#[test]
fn a_change_is_not_over_before_the_winner_serves() {
    let case = Case::stable().deposing().record(|r| {
        r.phase = Phase::Promoting;
        r.master = member(&state(1, 100));
    });
    assert_veto(&case, commit(&case, |r| r.phase = Phase::Stable), "while the winner does not serve");
}
