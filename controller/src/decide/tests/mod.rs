//! Named cases of the decision, each also checked by [`crate::check`]: what must hold in every case is asserted for all of them.

use std::collections::BTreeSet;
use std::time::Duration;

use agent::api::*;
use agent::record::*;
use agent::snapshot::SnapshotId;

use super::*;
use crate::check::violations;
use crate::model::*;
use crate::view::{Operation, OperationKind, SnapshotRow};

mod any;
mod birth;
mod choose;
mod clock;
mod depose;
mod empty;
mod imports;
mod instances;
mod lease;
mod lineage;
mod members;
mod migrate;
mod replace;
mod replicas;
mod returns;
mod room;
mod snapshots;
mod suspicious;
mod switchover;

mod vetoes;

const NOW: Duration = Duration::from_secs(1000);
const OLD: &str = "aaaa";
const NEW: &str = "bbbb";

/// A cluster of three in order: instance 0 is master of epoch 4, 1 and 2 follow it.
struct Case {
    spec: Spec,
    policy: Policy,
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
        rdb: "REDIS0010".into(),
        instance: 1,
        suspicious: false,
        request_id: None,
        pin: None,
        verification: None,
        accepted: None,
        rehearsal: None,
        imported: None,
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
            restored: None,
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
        let store = StoreView { configured: true, snapshots: Some(Vec::new()), listed: Some(NOW), cluster_id: None };
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
        Case { spec, policy: Policy::default(), seen }
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
        let view = View { spec: &self.spec, policy: &self.policy, timing: &timing, seen: &self.seen, now: NOW };
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
