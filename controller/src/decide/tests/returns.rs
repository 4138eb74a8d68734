//! All servers were killed, and the agents come back one after the other, in every order.

use super::*;

/// Nobody is there yet; each has a dump of the same history in its sandbox, instance 1 the newest.
fn all_killed() -> Case {
    let mut case = Case::stable().master_dead().deposing();
    for (instance, offset) in [(0, 70), (1, 90), (2, 80)] {
        case = case.silent(instance).state(instance, |s| {
            s.epoch = 5;
            (s.redis, s.role, s.serving) = (None, Role::None, false);
            s.deaths = vec![Death { run_id: format!("run-{instance}"), proof: "process gone".into(), at_ms: 1 }];
            let position = Some(Position { replid: OLD.into(), offset });
            s.local = Some(LocalDump { sha256: format!("dump-{instance}"), bytes: 1, position, epoch: 4, created_s: 9 });
        });
    }
    case
}

#[test]
fn in_every_order_of_return_the_newest_dump_leads_and_nothing_starts_before_all_are_back() {
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut case = all_killed();
        for (back, instance) in order.into_iter().enumerate() {
            assert_eq!(case.actions(), Vec::<String>::new(), "{order:?}, {back} are back");
            case.seen.agents.iter_mut().find(|a| a.shard == Some(instance)).unwrap().heard = Some(NOW);
        }
        let best = Order::Start { source: Source::Local { sha256: "dump-1".into() } };
        assert_eq!(orders(&case.plan()), [(1, best)], "{order:?}");
    }
}

#[test]
fn who_does_not_come_back_is_waited_for_only_so_long() {
    for missing in 0..3 {
        let mut case = all_killed().seen(|s| s.phase_since = NOW - Duration::from_secs(61));
        case.seen.agents.iter_mut().filter(|a| a.shard != Some(missing)).for_each(|a| a.heard = Some(NOW));
        let best = if missing == 1 { 2 } else { 1 };
        assert!(matches!(orders(&case.plan())[..], [(instance, Order::Start { .. })] if instance == best), "without {missing}");
    }
}
