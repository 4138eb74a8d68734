//! A made-up cluster in the middle of its life, for the tests of the doors and for looking at the page.

use agent::api::{Address, Position, Role};
use agent::record::Phase;
use agent::snapshot::{SnapshotId, Verification};

use crate::view::*;

const HISTORY: &str = "8d2f0c6be1a94f0b8d2f0c6be1a94f0b8d2f0c6b";

/// 2026-11-24T05:00:00Z.
const NOW_MS: u64 = 1_795_496_400_000;

/// Five instances: a master, two replicas, one loading, one silent; a failover in the past, a backup under way.
pub fn published() -> Published {
    let instances = vec![
        instance(0, Role::Replica, "serving", Some(8_812_340)),
        instance(1, Role::Master, "serving", Some(8_812_512)),
        instance(2, Role::Replica, "serving", Some(8_812_512)),
        InstanceView { activity: Some("loading 61 %".into()), proven: false, ..instance(3, Role::Replica, "loading", None) },
        InstanceView { age_ms: Some(7_300), proven: false, ..instance(4, Role::Replica, "silent", Some(8_100_000)) },
    ];
    let master = MasterView { instance: 1, task_id: task(1), address: address(1) };
    let condition = |reason: &str, message: &str| Condition { reason: reason.into(), message: message.into() };
    let silent = "instance 4 (10.20.0.14:31008) has not been heard for 7.3 s; after 2 min its task is restarted through Aurora";
    let cluster = ClusterView {
        cluster: "www/prod/cache".into(),
        cluster_id: Some("2f6b7c1e-3f0c-4f59-9d1c-7a42f5f7c001".into()),
        epoch: 7,
        phase: Some(Phase::Stable),
        master: Some(master.clone()),
        instances,
        desired_instances: 5,
        snapshot: Some(snapshot(7, 8_700_000, None)),
        verified: Some(verified(snapshot(7, 8_600_000, None))),
        rehearsed: Some(verified(snapshot(7, 8_600_000, None))),
        conditions: vec![condition("agent-silent", silent)],
        summary:
            "instance 1 is master of epoch 7, 2 of 4 replicas in sync; waiting for instance 3 to load and instance 4 to be heard"
                .into(),
        if_master_died: Some(Forecast { instance: 2, loss_bytes: 0, server_dies_ms: Some(21), host_lost_ms: 2202 }),
    };
    Published {
        leading: true,
        cluster,
        plan: plan(condition),
        events: events().into(),
        history: history(master),
        snapshots: vec![snapshot(7, 8_700_000, None), snapshot(6, 7_900_000, Some("piece 3 differs from its checksum"))],
        operation: Some(Operation {
            id: "b1946ac9".into(),
            kind: OperationKind::Backup { how: agent::snapshot::How::Dump },
            owner: "ann@ops1".into(),
            epoch: 7,
            step: "instance 2 uploads 41.0 MiB of 96.2 MiB".into(),
            started_ms: NOW_MS - 12_000,
            deadline_ms: NOW_MS + 1_788_000,
            outcome: None,
            cause: String::new(),
            steps: Vec::new(),
        }),
        last_success_ms: NOW_MS - 300,
    }
}

fn plan(condition: impl Fn(&str, &str) -> Condition) -> PlanView {
    PlanView {
        cycle: 812,
        summary: "follow instance 3, wait for instance 4".into(),
        actions: vec![ActionView {
            action: "follow instance 3".into(),
            because: "it is closed and holds a copy of the master's history".into(),
            outcome: "running".into(),
        }],
        waits: vec![condition("agent-silent", "instance 4 is silent; its task is restarted in 112 s unless it speaks")],
        violations: vec![],
    }
}

fn events() -> Vec<Event> {
    let event = |seq: u64, ago_s: u64, epoch, kind: &str, message: &str| Event {
        seq,
        at_ms: NOW_MS - ago_s * 1000,
        epoch,
        kind: kind.into(),
        message: message.into(),
    };
    vec![
        event(1, 900, 6, "elected", "this controller leads"),
        event(2, 420, 6, "commit-record", "commit epoch 7 deposing: server run 4f1c22ab is dead (signal 9)"),
        event(3, 419, 7, "promoted", "instance 1 serves writes, 0 bytes lost, pause 640 ms"),
        event(4, 12, 7, "backup-begun", "asked by ann@ops1"),
        event(5, 7, 7, "agent-silent", "instance 4"),
    ]
}

fn history(to: MasterView) -> Vec<HistoryEntry> {
    let from = MasterView { instance: 0, task_id: task(0), address: address(0) };
    let failover = HistoryEntry {
        epoch: 7,
        kind: "failover".into(),
        from: Some(from.clone()),
        to,
        position: Some(Position { replid: HISTORY.into(), offset: 8_301_112 }),
        snapshot: None,
        evidence: "its own agent says that the server is dead: signal 9".into(),
        candidates: vec!["instance 1: offset 8301112, chosen".into(), "instance 2: offset 8301040, behind".into()],
        cause: "server run 4f1c22ab is dead (signal 9)".into(),
        because: "instance 1 holds the best copy".into(),
        steps: steps(NOW_MS - 419_640),
        pause_ms: Some(640),
        loss_bytes: Some(0),
        lost_bytes: None,
        at_ms: NOW_MS - 419_000,
    };
    let bootstrap = HistoryEntry {
        epoch: 6,
        kind: "bootstrap".into(),
        from: None,
        to: from,
        evidence: "there was no master before".into(),
        candidates: vec![],
        cause: String::new(),
        because: String::new(),
        steps: vec![],
        pause_ms: None,
        loss_bytes: None,
        at_ms: NOW_MS - 86_400_000,
        ..failover.clone()
    };
    vec![failover, bootstrap]
}

fn steps(begun_ms: u64) -> Vec<Step> {
    let step = |name: &str, ms| Step { name: name.into(), at_ms: begun_ms + ms };
    vec![step("deposing", 0), step("promoting", 15), step("stable", 640)]
}

fn task(instance: u32) -> String {
    format!("www-prod-cache-{instance}-5b6f2a7e-0c1d-4a7b-9a53-1c2d3e4f50{instance:02}")
}

fn address(instance: u32) -> Address {
    Address { host: format!("10.20.0.1{instance}"), port: 31000 + 2 * instance as u16 }
}

fn instance(number: u32, role: Role, state: &str, offset: Option<u64>) -> InstanceView {
    InstanceView {
        instance: number,
        task_id: Some(task(number)),
        address: Some(address(number)),
        agent: Some(Address { port: address(number).port + 1, ..address(number) }),
        role,
        state: state.into(),
        replid: offset.map(|_| HISTORY.into()),
        offset,
        lag_bytes: offset.filter(|_| role == Role::Replica).map(|offset| 8_812_512 - offset),
        proven: role == Role::Replica,
        age_ms: Some(120),
        activity: None,
        progress: None,
        problem: None,
    }
}

fn snapshot(epoch: u64, offset: u64, problem: Option<&str>) -> SnapshotRow {
    SnapshotRow {
        id: SnapshotId::new(epoch, NOW_MS - 900_000, offset),
        good: problem.is_none(),
        problem: problem.map(str::to_owned),
        bytes: 100_912_881,
        epoch,
        position: Some(Position { replid: HISTORY.into(), offset }),
        created_ms: NOW_MS - 900_000,
        keys: Some(104_211),
        server: "7.0.15".into(),
        rdb: "REDIS0010".into(),
        instance: 2,
        suspicious: false,
        request_id: None,
        pin: None,
        verification: None,
        accepted: None,
        rehearsal: None,
        imported: None,
    }
}

/// As `row` looks once it was verified and rehearsed.
fn verified(row: SnapshotRow) -> SnapshotRow {
    let found = Verification {
        at_ms: NOW_MS - 600_000,
        by: "controller".into(),
        problem: None,
        keys: Some([(0, 104_000), (3, 211)].into()),
        loaded_by: Some("7.0.15".into()),
        took_ms: 2_140,
    };
    SnapshotRow { verification: Some(found.clone()), rehearsal: Some(found), ..row }
}
