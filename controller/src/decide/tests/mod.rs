//! Named cases of the decision, each also checked by [`crate::check`]: what must hold in every case is asserted for all of them.

use std::collections::BTreeSet;
use std::time::Duration;

use agent::api::*;
use agent::record::*;

use super::*;
use crate::check::violations;
use crate::model::*;
use crate::view::{Operation, OperationKind, SnapshotRow};

mod any;
mod birth;
mod empty;
mod lease;
mod lineage;
mod members;
mod returns;
mod room;
mod switchover;
mod vetoes;

const NOW: Duration = Duration::from_secs(1000);
const OLD: &str = "aaaa";
const NEW: &str = "bbbb";

/// A cluster of three in order: instance 0 is master of epoch 4, 1 and 2 follow it.
struct Case {
    spec: Spec,
    seen: Observed,
}

fn redis_of(instance: u32) -> Address {
    Address { host: format!("h{instance}"), port: 6379 }
}

fn agent_of(instance: u32) -> Address {
    Address { host: format!("h{instance}"), port: 8080 }
}

fn state(instance: u32, offset: u64) -> State {
    let run_id = format!("run-{instance}");
    let replica = instance != 0;
    State {
        cluster_id: Some("c".into()),
        generation: Some("g".into()),
        instance,
        task_id: format!("task-{instance}"),
        epoch: 4,
        record_version: 7,
        assigned_epoch: 4,
        role: if replica { Role::Replica } else { Role::Master },
        serving: true,
        agent: Agent { address: Some(agent_of(instance)), ..Agent::default() },
        host: Host { host_id: format!("host-{instance}"), name: format!("h{instance}"), boot_id: "b".into(), pid_ns: "p".into() },
        redis: Some(Redis {
            address: Some(redis_of(instance)),
            run_id,
            replid: OLD.into(),
            offset,
            link: replica.then_some(true),
            following: replica.then(|| redis_of(0)),
            open: true,
            answering: true,
            ..Redis::default()
        }),
        ..State::default()
    }
}

/// The last renewal of instance 0, which asks both replicas.
fn lease_of_0() -> Pinned {
    let peer = |i| Peer { task_id: format!("task-{i}"), agent: agent_of(i) };
    let lease = Lease {
        task_id: "task-0".into(),
        run_id: "run-0".into(),
        generation: "g".into(),
        epoch: 4,
        record_version: 7,
        asks: vec![peer(1), peer(2)],
        guarded: true,
    };
    Pinned { version: 30, lease: Some(lease), unreadable: false }
}

fn row(id: &str, epoch: u64, position: Option<(&str, u64)>) -> SnapshotRow {
    SnapshotRow {
        id: id.parse().unwrap(),
        good: true,
        problem: None,
        bytes: 1,
        epoch,
        position: position.map(|(replid, offset)| Position { replid: replid.into(), offset }),
        created_ms: 1,
        keys: None,
        server: "7.0.15".into(),
        instance: 1,
        pin: None,
        verification: None,
    }
}

const SNAPSHOT: &str = "0000000004-20261124T000000Z-00000000000000000050";

impl Case {
    fn stable() -> Case {
        let spec = Spec { instances: 3, save: "60 1".into(), ..Spec::default() };
        let mut states: Vec<State> = (0..3).map(|i| state(i, 100)).collect();
        states[1].settings.save = "60 1".into();
        states[0].lease =
            Some(LeaseState { record_version: 7, admitted: vec!["run-1".into(), "run-2".into()], ..LeaseState::default() });
        let members: Vec<Member> = states.iter().filter_map(member).collect();
        let record = Record {
            cluster_id: "c".into(),
            generation: "g".into(),
            initialised: true,
            epoch: 4,
            phase: Phase::Stable,
            master: Some(members[0].clone()),
            master_replid: Some(OLD.into()),
            known_replicas: members[1..].to_vec(),
            evidence: Some(Evidence::NoneBefore),
            lease_ms: 2000,
            failsafe_max_ms: 600_000,
            master_epoch: 0,
            pinned: None,
            durability: Durability { acks: 0 },
            histories: vec![History { epoch: 4, replid: OLD.into(), from: 0, to: None, next: None }],
            snapshot: None,
        };
        let agents = states
            .into_iter()
            .map(|s| AgentView {
                address: agent_of(s.instance),
                shard: Some(s.instance),
                state: Some(s),
                heard: Some(NOW),
                problem: None,
            })
            .collect();
        let task =
            |i: u32| TaskView { instance: i, task_id: format!("task-{i}"), status: "RUNNING".into(), host: format!("h{i}") };
        let scheduler = SchedulerView { tasks: Some((0..3).map(task).collect()), asked: NOW, updating: false };
        let store = StoreView { configured: true, snapshots: Some(Vec::new()), cluster_id: None };
        let seen = Observed {
            lease: Some(LeaseView { node: lease_of_0(), seen: NOW }),
            record: Some((record, 7)),
            agents,
            scheduler,
            store,
            phase_since: NOW,
            first_agent: Some(NOW),
            fresh_ids: ("new-cluster".into(), "new-generation".into()),
            ..Observed::default()
        };
        Case { spec, seen }
    }

    fn state(mut self, instance: u32, change: impl FnOnce(&mut State)) -> Case {
        let view = self.seen.agents.iter_mut().find(|a| a.shard == Some(instance)).unwrap();
        change(view.state.as_mut().unwrap());
        self
    }

    fn record(mut self, change: impl FnOnce(&mut Record)) -> Case {
        change(&mut self.seen.record.as_mut().unwrap().0);
        self
    }

    fn seen(mut self, change: impl FnOnce(&mut Observed)) -> Case {
        change(&mut self.seen);
        self
    }

    fn silent(mut self, instance: u32) -> Case {
        self.seen.agents.iter_mut().find(|a| a.shard == Some(instance)).unwrap().heard = Some(Duration::ZERO);
        self
    }

    /// The master's server is dead, and its agent says so.
    fn master_dead(self) -> Case {
        self.state(0, |s| {
            s.redis = None;
            s.role = Role::None;
            s.serving = false;
            s.deaths.push(Death { run_id: "run-0".into(), proof: "signal 9".into(), at_ms: 1 });
        })
    }

    /// Epoch 5 has begun, with this evidence.
    fn deposing(self) -> Case {
        self.record(|r| {
            r.epoch = 5;
            r.master_epoch = 4;
            r.phase = Phase::Deposing;
            r.pinned = Some(lease_of_0());
            r.evidence = Some(Evidence::Dead { run_id: "run-0".into(), proof: "signal 9".into() });
        })
    }

    fn cut(self, instance: u32) -> Case {
        self.state(instance, |s| {
            s.epoch = 5;
            s.fenced_epoch = Some(5);
            s.redis.as_mut().unwrap().following = Some(Address { host: "127.0.0.1".into(), port: 1 });
        })
    }

    /// Every server and every sandbox is gone; new tasks report.
    fn all_fresh(mut self) -> Case {
        for i in 0..3 {
            self = self.state(i, |s| {
                *s = State {
                    instance: s.instance,
                    task_id: format!("fresh-{}", s.instance),
                    agent: s.agent.clone(),
                    host: s.host.clone(),
                    ..State::default()
                };
            });
        }
        for task in self.seen.scheduler.tasks.iter_mut().flatten() {
            task.task_id = format!("fresh-{}", task.instance);
        }
        self
    }

    fn plan(&self) -> Plan {
        let timing = Timing::default();
        let view = View { spec: &self.spec, timing: &timing, seen: &self.seen, now: NOW };
        let plan = decide(view);
        let found = violations(&self.spec, &self.seen, &plan, NOW, timing.silent_after);
        assert_eq!(found, Vec::<String>::new(), "{plan:#?}");
        let mut shuffled = self.seen.clone();
        shuffled.agents.reverse();
        let again = decide(View { seen: &shuffled, ..view });
        let words = |p: &Plan| p.actions.iter().map(|a| a.action.describe()).collect::<BTreeSet<_>>();
        assert_eq!(words(&again), words(&plan), "the order of the input changes the decision");
        plan
    }

    fn actions(&self) -> Vec<String> {
        self.plan().actions.iter().map(|p| p.action.describe()).collect()
    }

    fn reasons(&self) -> Vec<Reason> {
        self.plan().waits.iter().map(|w| w.reason).collect()
    }
}

fn committed(plan: &Plan) -> &Record {
    let found = plan.actions.iter().find_map(|p| match &p.action {
        Action::CommitRecord { record, .. } | Action::CreateRecord { record } => Some(record.as_ref()),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("no commit in {plan:#?}"))
}

fn orders(plan: &Plan) -> Vec<(u32, Order)> {
    let order = |p: &Planned| match &p.action {
        Action::Command { instance, command, .. } => Some((*instance, command.order.clone())),
        _ => None,
    };
    plan.actions.iter().filter_map(order).collect()
}

#[test]
fn nothing_is_done_in_a_cluster_in_order() {
    let case = Case::stable();
    assert_eq!(case.actions(), Vec::<String>::new());
    assert_eq!(case.reasons(), []);
}

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

#[test]
fn instances_follow_the_spec_and_the_master_is_never_removed() {
    for (wanted, expected) in
        [(5, vec!["add 2 instance(s)"]), (3, vec![]), (2, vec!["remove instance(s) [2]"]), (1, vec!["remove instance(s) [2, 1]"])]
    {
        let mut case = Case::stable();
        case.spec.instances = wanted;
        assert_eq!(case.actions(), expected, "{wanted}");
    }
    let mut case = Case::stable().record(|r| r.master.as_mut().unwrap().instance = 2);
    case.spec.instances = 2;
    assert!(case.actions().contains(&"remove instance(s) [1]".to_owned()), "{:?}", case.actions());
}

#[test]
fn a_job_that_is_gone_is_never_made_again() {
    let case = Case::stable().seen(|s| s.scheduler.tasks = Some(Vec::new()));
    assert_eq!(case.actions(), Vec::<String>::new());
    assert!(case.reasons().contains(&Reason::JobGone));
}

#[test]
fn a_job_update_locks_scaling_out() {
    let mut case = Case::stable().seen(|s| s.scheduler.updating = true);
    case.spec.instances = 4;
    assert_eq!(case.actions(), Vec::<String>::new());
    assert!(case.reasons().contains(&Reason::JobUpdating));
}

#[test]
fn a_silent_task_is_restarted_only_after_long_and_not_when_nobody_is_heard() {
    let zombie = |since: u64| {
        Case::stable().silent(2).seen(|s| s.silent_since.extend([("task-2".to_owned(), Duration::from_secs(since))]))
    };
    assert_eq!(zombie(950).actions(), Vec::<String>::new());
    assert_eq!(zombie(800).actions(), ["restart instance 2"]);
    assert_eq!(zombie(800).silent(0).silent(1).actions(), Vec::<String>::new());
}

fn lost_everything() -> Case {
    Case::stable().all_fresh().seen(|s| {
        s.testimonies.push(Testimony { run_id: "run-0".into(), witness: "fresh-0".into(), verdict: Verdict::ProcessGone });
        s.store.snapshots = Some(vec![row(SNAPSHOT, 4, Some((OLD, 50)))]);
    })
}

#[test]
fn a_cluster_that_lost_everything_starts_from_the_best_snapshot() {
    assert_eq!(committed(&lost_everything().plan()).phase, Phase::Deposing);
    let plan = lost_everything().deposing().plan();
    assert_eq!(orders(&plan), [(0, Order::Restore { snapshot: SNAPSHOT.parse().unwrap() })]);
}

#[test]
fn a_newer_dump_in_a_sandbox_beats_an_older_snapshot() {
    let dump = |offset| LocalDump {
        sha256: "5ha".into(),
        bytes: 1,
        position: Some(Position { replid: OLD.into(), offset }),
        epoch: 4,
        created_s: 9,
    };
    for (offset, order) in [
        (60, Order::Start { source: Source::Local { sha256: "5ha".into() } }),
        (40, Order::Restore { snapshot: SNAPSHOT.parse().unwrap() }),
    ] {
        let case = lost_everything().deposing().state(2, |s| s.local = Some(dump(offset)));
        assert_eq!(orders(&case.plan()).into_iter().map(|(_, o)| o).collect::<Vec<_>>(), [order], "{offset}");
    }
}

#[test]
fn an_unusable_newest_snapshot_is_passed_over_for_the_one_before() {
    let newer = "0000000004-20261124T010000Z-00000000000000000090";
    let case = lost_everything().deposing().seen(|s| {
        s.store.snapshots.as_mut().unwrap().push(row(newer, 4, Some((OLD, 90))));
        s.unusable.insert(format!("snapshot:{newer}"));
    });
    assert_eq!(orders(&case.plan()), [(0, Order::Restore { snapshot: SNAPSHOT.parse().unwrap() })]);
}

#[test]
fn a_cluster_that_had_data_never_starts_empty() {
    let case = lost_everything().deposing().seen(|s| s.store.snapshots = Some(Vec::new()));
    assert_eq!(case.actions(), Vec::<String>::new());
    assert!(case.reasons().contains(&Reason::NoSource));
    let unlisted = lost_everything().deposing().seen(|s| s.store.snapshots = None);
    assert_eq!(unlisted.actions(), Vec::<String>::new());
    assert!(unlisted.reasons().contains(&Reason::StoreUnreachable));
}

#[test]
fn nothing_starts_from_a_snapshot_while_instances_are_missing_until_the_wait_is_over() {
    let case = lost_everything().deposing().silent(2);
    assert_eq!(case.actions(), Vec::<String>::new());
    assert!(case.reasons().contains(&Reason::WaitingForInstances));
    let waited = lost_everything().deposing().silent(2).seen(|s| s.phase_since = NOW - Duration::from_secs(61));
    assert_eq!(waited.actions(), ["restore instance 0"]);
}

#[test]
fn nothing_starts_from_a_snapshot_while_a_survivor_has_not_told_its_place() {
    let survivor = |change: fn(&mut State)| {
        let case = lost_everything().deposing().state(1, |s| {
            *s = state(1, 100);
            s.epoch = 5;
            s.fenced_epoch = Some(5);
        });
        case.state(1, change).seen(|s| s.phase_since = NOW - Duration::from_secs(5))
    };
    for change in [
        (|s| s.redis.as_mut().unwrap().answering = false) as fn(&mut State),
        |s| s.redis.as_mut().unwrap().loading = true,
        |s| s.redis.as_mut().unwrap().syncing = true,
        |s| s.stopping = true,
    ] {
        let case = survivor(change);
        assert_eq!(case.actions(), Vec::<String>::new());
        assert!(case.reasons().contains(&Reason::WaitingForCuts), "{:?}", case.reasons());
    }
    let told = survivor(|_| ());
    assert_eq!(committed(&told.plan()).master.as_ref().map(|m| m.instance), Some(1), "it is newer than the snapshot");
}

#[test]
fn a_restore_under_way_is_not_begun_twice_and_its_server_is_then_named() {
    let busy = lost_everything().deposing().state(0, |s| {
        s.epoch = 5;
        s.activity = Some(Activity { what: "restoring".into(), subject: SNAPSHOT.into(), done_bytes: 1, total_bytes: 2 });
    });
    assert_eq!(busy.actions(), Vec::<String>::new());
    let closed = lost_everything().deposing().state(0, |s| {
        s.epoch = 5;
        s.role = Role::Master;
        s.redis = Some(Redis {
            address: Some(redis_of(0)),
            run_id: "run-new".into(),
            replid: NEW.into(),
            replid2: Some(OLD.into()),
            replid2_end: Some(51),
            offset: 50,
            answering: true,
            source: format!("snapshot:{SNAPSHOT}"),
            started_epoch: 5,
            ..Redis::default()
        });
    });
    let plan = closed.plan();
    assert_eq!(committed(&plan).master.as_ref().map(|m| m.run_id.as_str()), Some("run-new"));
}

#[test]
fn a_backup_is_made_by_the_source_and_ends_with_its_snapshot() {
    let backup = |case: Case| {
        case.seen(|s| {
            s.operation = Some(Operation {
                id: "b1".into(),
                kind: OperationKind::Backup,
                owner: "me".into(),
                epoch: 4,
                step: String::new(),
                started_ms: 0,
                deadline_ms: u64::MAX,
                outcome: None,
                cause: String::new(),
                steps: Vec::new(),
            });
        })
    };
    assert_eq!(orders(&backup(Case::stable()).plan()), [(1, Order::Backup { request_id: "b1".into() })]);
    let done = backup(Case::stable()).state(1, |s| {
        s.uploads.last = SNAPSHOT.parse().ok();
        s.uploads.last_request_id = Some("b1".into());
    });
    assert_eq!(done.actions(), ["note operation: ended"]);
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
