//! A master writes only under a lease that it renews in ZooKeeper.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use agent::api::{AnswerKind, Order, Source};
use agent::record::Phase;
use common::{Promiser, Rig, Writer, ask, member, signal, until};
use futures_util::StreamExt;
use rustix::process::Signal;

const LEASE: Duration = Duration::from_secs(2);

#[tokio::test]
async fn a_master_renews_its_lease_in_zookeeper() {
    let mut rig = Rig::new("renew").await;
    let agent = rig.agent(0, &[]).await;
    assert_eq!(rig.lease().await.0, None);
    let state = rig.lead(&agent).await;
    let (lease, version) = rig.lease().await;
    let lease = lease.unwrap();
    let run_id = state.redis.unwrap().run_id;
    assert_eq!((lease.task_id.as_str(), lease.run_id, lease.epoch), ("task-0", run_id, 2));
    assert_eq!((lease.generation, lease.asks), (rig.record.generation.clone(), vec![]));
    assert!((1..=2000).contains(&state.lease_ms_left.unwrap()), "{:?}", state.lease_ms_left);
    assert!(!state.lease.unwrap().failsafe);

    rig.renewed(&[]).await;
    until("four more renewals", async || (rig.lease().await.1 >= version + 4).then_some(())).await;
    let state = agent.state(&rig).await;
    assert_eq!(state.lease.unwrap().record_version, rig.version, "renewed against the record's newest version");
    assert!(state.lease_ms_left.unwrap() > 1000);
    assert_eq!(state.problem, None);
}

#[tokio::test]
async fn the_time_left_alone_makes_no_line() {
    let mut rig = Rig::new("lines").await;
    let agent = rig.agent(0, &[]).await;
    rig.lead(&agent).await;
    rig.renewed(&[]).await;
    let mut stream = std::pin::pin!(rig.http.watch(&agent.address()).await.unwrap());
    let mut left = Vec::new();
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        left.push(stream.next().await.unwrap().unwrap().lease_ms_left.unwrap());
    }
    // A heartbeat each 250 ms, and a line per probe whose answer differs.
    assert!((8..=30).contains(&left.len()), "{left:?}");
    assert!(left.iter().all(|left| (1000..=2000).contains(left)), "taken when the line is written: {left:?}");
}

#[tokio::test]
async fn a_master_that_the_record_no_longer_names_stops_at_once() {
    let mut rig = Rig::new("deposed").await;
    let agent = rig.agent(0, &[]).await;
    rig.lead(&agent).await;
    let writer = Writer::start(&agent.redis()).await;
    rig.commit(|r| (r.epoch, r.phase) = (r.epoch + 1, Phase::Deposing)).await;
    let committed = Instant::now();
    let last = writer.stopped(Duration::from_millis(500)).await;
    assert!(last.saturating_duration_since(committed) < LEASE / 2, "{:?}", last - committed);
    let state = until("it is fenced", async || Some(agent.state(&rig).await).filter(|s| s.fenced_epoch == Some(3))).await;
    assert_eq!((state.lease.clone(), state.lease_ms_left), (None, None));
    assert_eq!(ask(&agent.redis(), "SET x 1").await.unwrap_err().code(), Some("READONLY"), "refused, not held back for ever");

    // The same server leads again: nothing is left of the stop.
    let again = rig.promote(&agent, &state).await;
    assert!(again.serving);
    ask(&agent.redis(), "SET x 1").await.unwrap();
}

/// What the test above would see if a fence stopped nothing.
#[tokio::test]
async fn a_fence_broken_on_purpose_stops_nothing_and_is_named() {
    let mut rig = Rig::new("broken").await;
    let agent = rig.agent_that_breaks(0, &[], "fence").await;
    rig.lead(&agent).await;
    rig.commit(|r| (r.epoch, r.phase) = (r.epoch + 1, Phase::Deposing)).await;
    until("it says it is fenced", async || (agent.state(&rig).await.fenced_epoch == Some(3)).then_some(())).await;
    ask(&agent.redis(), "SET x 1").await.unwrap();
    let log = agent.log();
    assert!(log.contains("ERROR") && log.contains("AURORA_REDIS_BREAK"));
}

#[tokio::test]
async fn without_its_nodes_no_lease_is_given() {
    let mut rig = Rig::new("nodes").await;
    let agent = rig.agent(0, &[]).await;
    let started = rig.done(&agent, Order::Start { source: Source::Empty }).await;
    rig.commit(|r| (r.epoch, r.phase, r.master) = (2, Phase::Promoting, Some(member(&started)))).await;
    let generation = rig.paths.generation(&rig.record.generation);
    rig.client.delete(&generation, None).await.unwrap();
    let answer = rig.order(&agent, Order::Promote { asks: vec![] }).await;
    assert_eq!((answer.outcome, answer.reason.as_str()), (AnswerKind::Refused, "no-lease"), "{answer:?}");
    assert!(answer.message.contains(&generation), "{}", answer.message);
    assert!(!common::is_open(&agent.redis()));

    agent::zk::ensure(&rig.client, &generation).await.unwrap();
    rig.client.delete(&rig.paths.lease(), None).await.unwrap();
    let answer = rig.order(&agent, Order::Promote { asks: vec![] }).await;
    assert!(answer.message.contains(&rig.paths.lease()), "{}", answer.message);
    agent::zk::ensure(&rig.client, &rig.paths.lease()).await.unwrap();
    assert!(rig.done(&agent, Order::Promote { asks: vec![] }).await.serving);
}

#[tokio::test]
async fn only_the_server_that_the_record_names_gets_the_lease() {
    let mut rig = Rig::new("named").await;
    let (a, b) = (rig.agent(0, &[]).await, rig.agent(1, &[]).await);
    let named = rig.done(&a, Order::Start { source: Source::Empty }).await;
    rig.done(&b, Order::Start { source: Source::Empty }).await;
    rig.commit(|r| (r.epoch, r.phase, r.master) = (2, Phase::Promoting, Some(member(&named)))).await;
    let answer = rig.order(&b, Order::Promote { asks: vec![] }).await;
    assert_eq!((answer.outcome, answer.reason.as_str()), (AnswerKind::Refused, "no-lease"), "{answer:?}");
    assert_eq!(rig.lease().await.0, None);
}

#[tokio::test]
async fn a_server_that_hangs_until_its_lease_is_over_is_killed() {
    let mut rig = Rig::new("hangs").await;
    let agent = rig.agent(0, &[]).await;
    let peer = Promiser::start("task-9").await;
    let master = rig.lead(&agent).await.redis.unwrap();
    let listed = peer.member();
    rig.commit(|r| r.known_replicas = vec![listed]).await;
    rig.renewed(&["task-9"]).await;
    signal(master.pid, Signal::STOP);
    let stopped = Instant::now();
    let state = until("it is killed", async || Some(agent.state(&rig).await).filter(|s| !s.deaths.is_empty())).await;
    assert_eq!((state.deaths[0].run_id.as_str(), state.deaths[0].proof.as_str()), (master.run_id.as_str(), "signal 9"));
    let took = stopped.elapsed();
    assert!(took < Duration::from_secs(1) + LEASE * 2, "{took:?}");
    assert_eq!((state.lease, state.lease_ms_left), (None, None));
}
