//! Everybody but the master, in a cluster that has one.

use super::*;

#[test]
fn a_restarted_instance_becomes_a_replica_from_its_start() {
    let case = Case::stable().state(2, |s| s.redis = None).record(|r| r.known_replicas.truncate(1));
    let plan = case.plan();
    assert_eq!(orders(&plan), [(2, Order::Start { source: Source::ReplicaOf { master: redis_of(0), fork: None } })]);
}

#[test]
fn an_old_master_follows_the_new_one_with_the_fork_named() {
    let case = Case::stable().state(0, |s| {
        let redis = s.redis.as_mut().unwrap();
        redis.replid2 = Some("cccc".into());
        redis.replid2_end = Some(51);
    });
    let case = case.state(2, |s| {
        s.role = Role::Master;
        s.assigned_epoch = 3;
        let redis = s.redis.as_mut().unwrap();
        redis.following = None;
        redis.link = None;
    });
    let fork = Some(Position { replid: "cccc".into(), offset: 50 });
    assert!(orders(&case.plan()).contains(&(2, Order::Follow { master: redis_of(0), fork })));
}

#[test]
fn nobody_follows_a_master_that_does_not_serve() {
    let case = Case::stable().state(2, |s| s.redis = None).state(0, |s| s.serving = false);
    assert!(matches!(orders(&case.plan())[..], [(0, Order::Promote { .. })]));
}

#[test]
fn an_agent_of_another_cluster_gets_no_command() {
    let case = Case::stable().state(2, |s| {
        s.redis = None;
        s.cluster_id = Some("other".into());
    });
    assert!(case.reasons().contains(&Reason::ForeignCluster));
    assert_eq!(orders(&case.plan()), []);
}

#[test]
fn save_points_are_on_one_replica_and_move_when_it_is_gone() {
    let case = Case::stable().state(1, |s| s.redis.as_mut().unwrap().link = Some(false));
    let plan = case.plan();
    let save = |save: &str| Order::Configure { settings: Settings { save: save.into(), min_replicas_to_write: 0 } };
    assert_eq!(orders(&plan), [(1, save("")), (2, save("60 1"))]);
}

#[test]
fn the_second_belt_is_on_only_with_two_proven_replicas() {
    let proven = |runs: &[&str]| Case::stable().seen(|s| s.proven = runs.iter().map(|r| (*r).to_owned()).collect());
    assert_eq!(proven(&["run-1"]).actions(), Vec::<String>::new());
    let settings = Settings { save: String::new(), min_replicas_to_write: 1 };
    assert_eq!(orders(&proven(&["run-1", "run-2"]).plan()), [(0, Order::Configure { settings })]);
}
