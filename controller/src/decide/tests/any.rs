//! Whatever is observed, the decision breaks no invariant, does not panic, and does not depend on the order of the input.

use proptest::prelude::*;

use super::*;

fn any_epoch() -> impl Strategy<Value = u64> {
    3..7u64
}

prop_compose! {
    fn any_redis(instance: u32)(
        replid in prop_oneof![Just(OLD), Just(NEW), Just("zzzz")], second in prop::option::of(Just(OLD)), offset in 0..4u64,
        flags in prop::array::uniform4(any::<bool>()), link in prop::option::of(any::<bool>()),
        following in prop::option::of(0..3u32), source in prop_oneof![Just(""), Just("empty"), Just("replica")],
        started in any_epoch(), run in 0..2u32,
    ) -> Redis {
        let [loading, syncing, open, answering] = flags;
        Redis {
            address: Some(redis_of(instance)),
            run_id: format!("run-{}", instance + 10 * run),
            replid: replid.into(),
            replid2: second.map(str::to_owned),
            replid2_end: second.map(|_| offset),
            offset, link, loading, syncing, open, answering,
            following: following.map(redis_of),
            source: source.into(),
            started_epoch: started,
            ..Redis::default()
        }
    }
}

prop_compose! {
    fn any_agent(instance: u32)(
        redis in prop::option::of(any_redis(instance)), epoch in any_epoch(), assigned in any_epoch(),
        fenced in prop::option::of(any_epoch()), flags in prop::array::uniform4(any::<bool>()), dead in any::<bool>(),
        dump in prop::option::of(0..4u64), fresh in any::<bool>(),
    ) -> AgentView {
        let [serving, master, stopping, newcomer] = flags;
        let position = |offset| Position { replid: OLD.into(), offset };
        let local = |offset| LocalDump { sha256: "s".into(), bytes: 1, position: Some(position(offset)), epoch: 4, created_s: 1 };
        let death = Death { run_id: format!("run-{instance}"), proof: "gone".into(), at_ms: 0 };
        let state = State {
            redis,
            epoch,
            assigned_epoch: assigned,
            fenced_epoch: fenced,
            serving,
            role: if master { Role::Master } else { Role::Replica },
            stopping,
            cluster_id: (!newcomer).then(|| "c".into()),
            deaths: dead.then_some(death).into_iter().collect(),
            local: dump.map(local),
            ..state(instance, 0)
        };
        let heard = fresh.then_some(NOW);
        AgentView { address: agent_of(instance), shard: Some(instance), state: Some(state), heard, problem: None }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4000) })]
    #[test]
    fn no_decision_breaks_an_invariant(
        agents in (any_agent(0), any_agent(1), any_agent(2)),
        phase in prop_oneof![Just(Phase::Bootstrapping), Just(Phase::Stable), Just(Phase::Deposing), Just(Phase::Promoting)],
        has_record in prop::bool::weighted(0.9), has_evidence in any::<bool>(), initialised in any::<bool>(), epoch in any_epoch(),
        instances in 1..6u32, listed in any::<bool>(), acks in 0..3u32, waited in any::<bool>(),
    ) {
        let mut case = Case::stable().record(|r| {
            r.phase = phase;
            r.epoch = epoch;
            r.initialised = initialised;
            r.durability.acks = acks;
            r.evidence = r.evidence.take().filter(|_| has_evidence);
        });
        case.seen.agents = vec![agents.0, agents.1, agents.2];
        case.spec.instances = instances;
        case.seen.record = case.seen.record.take().filter(|_| has_record);
        case.seen.store.snapshots = listed.then(|| vec![row(SNAPSHOT, 4, Some((OLD, 2)))]);
        case.seen.phase_since = if waited { Duration::ZERO } else { NOW };
        case.plan();
    }
}
