//! Commands carried out on real servers: what a controller relies on.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use agent::api::{AnswerKind, Order, Role, Settings, Source};
use agent::record::Phase;
use common::{Rig, ask, is_open, member, redis, signal, until};
use futures_util::StreamExt;
use rustix::process::Signal;

#[tokio::test]
async fn a_server_starts_closed_and_opens_on_promotion_only() {
    let mut rig = Rig::new("closed").await;
    let agent = rig.agent(0, &[]).await;
    let state = rig.done(&agent, Order::Start { source: Source::Empty }).await;
    let server = state.redis.clone().unwrap();
    assert!(!is_open(&agent.redis()) && !server.open && !state.serving);
    assert_eq!((server.source.as_str(), server.started_epoch, state.role), ("empty", 1, Role::Master));

    let again = rig.done(&agent, Order::Start { source: Source::Empty }).await;
    assert_eq!(again.redis.unwrap().pid, server.pid, "the same command starts nothing");

    let state = rig.promote(&agent, &state).await;
    assert!(state.serving && state.redis.as_ref().unwrap().open);
    assert_eq!((state.assigned_epoch, state.epoch), (2, 2));
    assert_eq!(ask(&agent.redis(), "SET k v").await.unwrap(), "OK");
    assert_eq!(
        ask(&agent.redis(), "EVAL return(#redis.call('KEYS','*')..'') 0").await.unwrap(),
        "1",
        "the probe write leaves no key"
    );
    rig.done(&agent, Order::Promote { asks: Vec::new() }).await;

    let original = until("the doors", async || rig.client.get_data(&rig.paths.master()).await.ok()).await;
    assert_eq!(String::from_utf8(original.0).unwrap(), agent.redis().to_string());
    let members =
        until("the serverset", async || Some(rig.children(&rig.paths.master_serverset()).await).filter(|m| !m.is_empty())).await;
    let json: serde_json::Value = serde_json::from_str(&members[0]).unwrap();
    assert_eq!(json["serviceEndpoint"]["port"], agent.redis_port);
    assert_eq!(json["additionalEndpoints"]["health"]["port"], agent.http_port);
    assert_eq!((&json["status"], &json["shard"]), (&"ALIVE".into(), &0.into()));
}

#[tokio::test]
async fn stale_and_misdirected_commands_change_nothing() {
    let mut rig = Rig::new("stale").await;
    let agent = rig.agent(0, &[]).await;
    let state = rig.lead(&agent).await;
    let send = async |change: fn(&mut agent::api::Command)| {
        let mut command = rig.command(&state, Order::Fence);
        change(&mut command);
        let answer = rig.http.command(&agent.address(), &command, Duration::from_secs(5)).await.unwrap();
        assert_eq!(answer.outcome, AnswerKind::Refused);
        answer.reason
    };
    assert_eq!(send(|c| c.stamp.epoch = 1).await, "stale-epoch");
    assert_eq!(send(|c| c.stamp.record_version -= 1).await, "stale-record");
    assert_eq!(send(|c| c.stamp.record_version += 1).await, "record-not-seen");
    assert_eq!(send(|c| c.stamp.cluster_id = "other".into()).await, "foreign-cluster");
    assert_eq!(send(|c| c.stamp.generation = "other".into()).await, "other-generation");
    assert_eq!(send(|c| c.stamp.task_id = "other".into()).await, "other-task");
    assert_eq!(send(|c| c.stamp.run_id = Some("other".into())).await, "other-run");
    assert_eq!(send(|c| c.stamp.run_id = None).await, "no-run-id");
    assert!(agent.state(&rig).await.serving);
}

#[tokio::test]
async fn a_fence_holds_under_writers_and_the_others_resync_partially() {
    let mut rig = Rig::new("fence").await;
    let (a, b, c) = (rig.agent(0, &[]).await, rig.agent(1, &[]).await, rig.agent(2, &[]).await);
    let old = rig.lead(&a).await;
    rig.attach(&b, &a).await;
    rig.attach(&c, &a).await;
    assert_eq!(
        a.state(&rig).await.redis.unwrap().replid,
        old.redis.as_ref().unwrap().replid,
        "replicas do not change the history"
    );
    until("the replicas' doors", async || (rig.children(&rig.paths.replicas_serverset()).await.len() == 2).then_some(())).await;
    assert_eq!(ask(&b.redis(), "SET x 1").await.unwrap_err().code(), Some("READONLY"));

    let acknowledged = Arc::new(AtomicU64::new(0));
    let mut writers = Vec::new();
    for n in 0..8 {
        let (mut connection, count) = (redis(&a.redis()).await, acknowledged.clone());
        writers.push(tokio::spawn(async move {
            while redis::cmd("INCR").arg(format!("w{n}")).query_async::<u64>(&mut connection).await.is_ok() {
                count.fetch_add(1, Ordering::SeqCst);
            }
        }));
    }
    until("some writes", async || (acknowledged.load(Ordering::SeqCst) > 500).then_some(())).await;

    rig.commit(|r| (r.epoch, r.phase) = (r.epoch + 1, Phase::Deposing)).await;
    let fenced = rig.done(&a, Order::Fence).await;
    assert_eq!((fenced.fenced_epoch, fenced.serving), (Some(3), false));
    for writer in writers {
        tokio::time::timeout(Duration::from_secs(5), writer).await.expect("the fence drops clients").unwrap();
    }
    assert_eq!(ask(&a.redis(), "SET x 1").await.unwrap_err().code(), Some("READONLY"));
    let offset = fenced.redis.as_ref().unwrap().offset;
    until("the replica has all of it", async || (b.state(&rig).await.redis?.offset >= offset).then_some(())).await;
    for survivor in [&b, &c] {
        rig.done(survivor, Order::Fence).await;
    }
    until("the doors are withdrawn", async || rig.children(&rig.paths.master_serverset()).await.is_empty().then_some(())).await;

    let candidate = b.state(&rig).await;
    let new = rig.promote(&b, &candidate).await;
    assert_eq!(new.fenced_epoch, None);
    let total: u64 = acknowledged.load(Ordering::SeqCst);
    let mut found = 0;
    for n in 0..8 {
        found += ask(&b.redis(), &format!("GET w{n}")).await.unwrap().parse::<u64>().unwrap();
    }
    assert!(found >= total, "{found} of {total} acknowledged writes are there");
    rig.follow(&c, &b).await;
    rig.follow(&a, &b).await;
    let stats = ask(&b.redis(), "INFO stats").await.unwrap();
    assert!(stats.contains("sync_full:0") && stats.contains("sync_partial_ok:2"), "{stats}");
    assert_eq!(a.state(&rig).await.redis.unwrap().run_id, old.redis.unwrap().run_id, "the old master was not restarted");
}

#[tokio::test]
async fn a_fence_is_told_with_the_offset_that_stands_after_it() {
    let mut rig = Rig::new("offset").await;
    let (a, b) = (rig.agent(0, &[]).await, rig.agent(1, &[]).await);
    rig.lead(&a).await;
    rig.attach(&b, &a).await;
    let writer = common::Writer::start(&a.redis()).await;
    for round in 0..5 {
        let count = writer.count();
        until("some writes", async || (writer.count() > count + 200).then_some(())).await;
        let mut lines = std::pin::pin!(rig.http.watch(&b.address()).await.unwrap());
        let told = async {
            loop {
                let state = lines.next().await.unwrap().unwrap();
                if state.fenced_epoch.is_some() {
                    return state.redis.unwrap().offset;
                }
            }
        };
        let (first, done) = tokio::join!(told, rig.done(&b, Order::Fence));
        let stands = ask(&b.redis(), "INFO replication").await.unwrap();
        let stands = stands.lines().find_map(|line| line.strip_prefix("master_repl_offset:")).unwrap().to_owned();
        assert_eq!((first.to_string(), done.redis.unwrap().offset.to_string()), (stands.clone(), stands), "round {round}");
        rig.follow(&b, &a).await;
    }
}

#[tokio::test]
async fn a_killed_server_is_reported_dead_and_so_is_one_of_an_earlier_agent() {
    let mut rig = Rig::new("deaths").await;
    let mut agent = rig.agent(0, &[]).await;
    let first = rig.lead(&agent).await.redis.unwrap();
    signal(first.pid, Signal::KILL);
    let state = until("the death is reported", async || Some(agent.state(&rig).await).filter(|s| s.redis.is_none())).await;
    assert_eq!((state.deaths[0].run_id.as_str(), state.deaths[0].proof.as_str()), (first.run_id.as_str(), "signal 9"));
    assert!(!state.serving && state.assigned_epoch == 0);
    until("the doors are withdrawn", async || rig.client.check_stat(&rig.paths.master()).await.unwrap().is_none().then_some(()))
        .await;

    rig.commit(|r| r.epoch += 1).await;
    let second = rig.lead(&agent).await.redis.unwrap();
    agent.kill();
    until("the server dies with its agent", async || (!is_open(&agent.redis())).then_some(())).await;
    agent.start(&rig).await;
    let state = agent.state(&rig).await;
    assert_eq!(
        state.deaths.iter().map(|d| d.run_id.as_str()).collect::<Vec<_>>(),
        [first.run_id.as_str(), second.run_id.as_str()]
    );
    assert!(state.redis.is_none(), "an agent starts no server by itself");
    assert_eq!(state.epoch, rig.record.epoch);
}

#[tokio::test]
async fn a_hung_master_whose_data_a_replica_holds_is_killed() {
    let mut rig = Rig::new("hung").await;
    let (a, b) = (rig.agent(0, &[]).await, rig.agent(1, &[]).await);
    let master = rig.lead(&a).await.redis.unwrap();
    rig.attach(&b, &a).await;
    until("the master sees its replica", async || (a.state(&rig).await.redis?.connected_replicas == 1).then_some(())).await;
    signal(master.pid, Signal::STOP);
    let state = until("the hung server is killed", async || Some(a.state(&rig).await).filter(|s| !s.deaths.is_empty())).await;
    assert_eq!((state.deaths[0].run_id.as_str(), state.deaths[0].proof.as_str()), (master.run_id.as_str(), "signal 9"));
}

#[tokio::test]
async fn a_fence_without_an_answer_is_a_kill_with_proof() {
    let mut rig = Rig::new("mute").await;
    let agent = rig.agent(0, &[]).await;
    let master = rig.lead(&agent).await.redis.unwrap();
    // Alone it is not killed for being hung: nobody else holds its data.
    signal(master.pid, Signal::STOP);
    until("it is seen not to answer", async || (!agent.state(&rig).await.redis?.answering).then_some(())).await;
    rig.commit(|r| (r.epoch, r.phase) = (r.epoch + 1, Phase::Deposing)).await;
    // The agent does it by itself as soon as it reads the record; the command may find it done.
    let answer = rig.order(&agent, Order::Fence).await;
    assert!(answer.outcome == AnswerKind::Done || answer.reason == "other-run", "{answer:?}");
    let state = answer.state.unwrap();
    assert_eq!(state.deaths.last().map(|d| d.run_id.as_str()), Some(master.run_id.as_str()));
}

#[tokio::test]
async fn a_diverged_old_master_is_set_aside_before_it_follows() {
    let mut rig = Rig::new("aside").await;
    let (a, b) = (rig.agent(0, &[]).await, rig.agent(1, &[]).await);
    let old = rig.lead(&a).await.redis.unwrap();
    rig.attach(&b, &a).await;
    ask(&a.redis(), "SET both 1").await.unwrap();
    until("the replica has it", async || ask(&b.redis(), "GET both").await.ok().filter(|v| v == "1")).await;
    let cut = rig.done(&b, Order::Fence).await;
    ask(&a.redis(), "SET only-here 1").await.unwrap();
    rig.promote(&b, &cut).await;

    let fork = agent::api::Position { replid: old.replid.clone(), offset: cut.redis.unwrap().offset };
    rig.done(&a, Order::Follow { master: b.redis(), fork: Some(fork) }).await;
    until("it follows", async || ask(&a.redis(), "GET only-here").await.ok().filter(|v| v == "nil")).await;
    let asides: Vec<_> =
        std::fs::read_dir(a.sandbox.join("aside")).unwrap().map(|e| e.unwrap().path().join("dump.rdb")).collect();
    assert_eq!(asides.len(), 1);
    let dump = std::fs::read(&asides[0]).unwrap();
    assert!(dump.windows(9).any(|w| w == b"only-here"), "the tail is in the copy set aside");
}

#[tokio::test]
async fn a_master_that_was_cut_leads_again_although_its_writes_needed_replicas() {
    let mut rig = Rig::new("belt").await;
    let agent = rig.agent(0, &[]).await;
    rig.lead(&agent).await;
    let settings = Settings { save: String::new(), min_replicas_to_write: 1 };
    rig.done(&agent, Order::Configure { settings }).await;
    assert!(ask(&agent.redis(), "SET k v").await.unwrap_err().to_string().contains("NOREPLICAS"));
    let cut = rig.done(&agent, Order::Fence).await;
    let state = rig.promote(&agent, &cut).await;
    assert_eq!((state.serving, state.settings.min_replicas_to_write), (true, 0));
    assert_eq!(ask(&agent.redis(), "SET k v").await.unwrap(), "OK");
}

#[tokio::test]
async fn a_memory_that_cannot_be_written_is_named_until_it_can() {
    let mut rig = Rig::new("memory").await;
    let agent = rig.agent(0, &[]).await;
    rig.lead(&agent).await;
    let (memory, aside) = (agent.sandbox.join("agent.memory"), agent.sandbox.join("aside"));
    std::fs::rename(&memory, &aside).unwrap();
    std::fs::create_dir(&memory).unwrap();
    rig.commit(|r| (r.epoch, r.phase) = (r.epoch + 1, Phase::Deposing)).await;
    let answer = rig.order(&agent, Order::Fence).await;
    assert_eq!((answer.outcome, answer.reason.as_str()), (AnswerKind::Refused, "record-not-seen"), "{answer:?}");
    until("it is named", async || agent.state(&rig).await.problem.filter(|p| p.contains("agent.memory"))).await;
    std::fs::remove_dir(&memory).unwrap();
    std::fs::rename(&aside, &memory).unwrap();
    let state = rig.done(&agent, Order::Fence).await;
    assert_eq!((state.role, state.problem), (Role::Replica, None));
}

#[tokio::test]
async fn a_full_server_leads_and_a_taken_port_is_named() {
    let mut rig = Rig::new("full").await;
    let agent = rig.agent(0, &["--redis-config", "maxmemory=1mb"]).await;
    let started = rig.done(&agent, Order::Start { source: Source::Empty }).await;
    let taken = std::net::TcpListener::bind(("127.0.0.1", agent.redis_port)).unwrap();
    let wanted = member(&started);
    rig.commit(|r| (r.epoch, r.phase, r.master) = (r.epoch + 1, Phase::Promoting, Some(wanted))).await;
    let answer = rig.order(&agent, Order::Promote { asks: Vec::new() }).await;
    assert_eq!((answer.outcome, answer.reason.as_str()), (AnswerKind::Failed, "port"));
    assert!(answer.message.contains(&agent.redis_port.to_string()) && !answer.state.unwrap().serving);
    drop(taken);

    let state = rig.done(&agent, Order::Promote { asks: Vec::new() }).await;
    let full = ask(&agent.redis(), "SET k v").await.unwrap_err();
    assert_eq!(full.code(), Some("OOM"), "{full}");
    assert!(state.serving);
}

#[tokio::test]
async fn settings_are_set_and_a_stopped_server_is_proven_dead() {
    let mut rig = Rig::new("settings").await;
    let agent = rig.agent(0, &[]).await;
    let master = rig.lead(&agent).await.redis.unwrap();
    let settings = Settings { save: "3600 1".into(), min_replicas_to_write: 1 };
    let state = rig.done(&agent, Order::Configure { settings: settings.clone() }).await;
    assert_eq!(state.settings, settings);
    assert_eq!(ask(&agent.redis(), "SET k v").await.unwrap_err().code(), Some("NOREPLICAS"));
    let bad = rig.order(&agent, Order::Configure { settings: Settings { save: "often".into(), ..settings } }).await;
    assert_eq!((bad.outcome, bad.reason.as_str()), (AnswerKind::Refused, "bad-settings"));

    let stop = rig.command(&agent.state(&rig).await, Order::Stop);
    for _ in 0..2 {
        let answer = rig.http.command(&agent.address(), &stop, Duration::from_secs(20)).await.unwrap();
        assert_eq!(answer.outcome, AnswerKind::Done, "{}", answer.message);
        let state = answer.state.unwrap();
        assert!(state.redis.is_none() && state.deaths.iter().any(|d| d.run_id == master.run_id));
    }
}

#[tokio::test]
async fn a_foreign_or_broken_record_is_reported_and_the_server_goes_on() {
    let mut rig = Rig::new("record").await;
    let agent = rig.agent(0, &[]).await;
    let state = rig.lead(&agent).await;
    assert_eq!(member(&state).task_id, "task-0");
    let foreign = serde_json::to_vec(&agent::record::Record { cluster_id: "another".into(), ..rig.record.clone() }).unwrap();
    for bytes in [b"\xff\x00garbage".to_vec(), b"{\"cluster_id\": 7}".to_vec(), vec![b'x'; 1_000_000], foreign] {
        rig.client.set_data(&rig.paths.record(), &bytes, None).await.unwrap();
        until("it is reported", async || agent.state(&rig).await.problem.filter(|p| p.contains(&rig.paths.record()))).await;
        assert_eq!(ask(&agent.redis(), "SET k v").await.unwrap(), "OK");
        assert!(agent.state(&rig).await.serving);
        rig.client.set_data(&rig.paths.record(), &serde_json::to_vec(&rig.record).unwrap(), None).await.unwrap();
        until("it is solved", async || agent.state(&rig).await.problem.is_none().then_some(())).await;
    }
}
