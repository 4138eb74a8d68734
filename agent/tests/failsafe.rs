//! ZooKeeper goes away under a master: how long it may write on, and who has to promise for it.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use common::{Promiser, Rig, Writer, ensemble, until};

/// The tests of this file take turns with their ZooKeeper.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
const LEASE: Duration = Duration::from_secs(2);
/// What a loaded machine may add to a time measured from outside.
const SLACK: Duration = Duration::from_millis(700);

#[tokio::test]
async fn alone_a_master_writes_on_until_the_longest_failsafe_and_goes_on_when_zookeeper_is_back() {
    let _turn = TURN.lock().await;
    let mut rig = Rig::new("alone").await;
    rig.commit(|r| r.failsafe_max_ms = 5000).await;
    let agent = rig.agent(0, &[]).await;
    rig.lead(&agent).await;
    rig.renewed(&[]).await;
    let writer = Writer::start(&agent.redis()).await;
    ensemble().kill();
    let killed = Instant::now();
    until("it says so", async || agent.state(&rig).await.lease.filter(|lease| lease.failsafe)).await;
    let last = writer.stopped(Duration::from_millis(1000)).await;
    let went_on = last - killed;
    assert!(went_on > Duration::from_secs(4) - SLACK && went_on < Duration::from_secs(5), "{went_on:?}");
    let state = agent.state(&rig).await;
    assert!(!state.serving && state.lease_ms_left == Some(0), "{:?}", state.lease_ms_left);
    assert!(state.problem.as_ref().unwrap().contains("lease"), "{:?}", state.problem);

    let before = writer.count();
    ensemble().start_again();
    until("writes go on", async || (writer.count() > before).then_some(())).await;
    until("it serves", async || agent.state(&rig).await.serving.then_some(())).await;
    until("all is well", async || agent.state(&rig).await.problem.is_none().then_some(())).await;
}

#[tokio::test]
async fn a_mute_member_that_may_be_asked_ends_the_lease() {
    let _turn = TURN.lock().await;
    let mut rig = Rig::new("mute").await;
    let agent = rig.agent(0, &[]).await;
    let peer = Promiser::start("task-9").await;
    rig.lead(&agent).await;
    let listed = peer.member();
    rig.commit(|r| r.known_replicas = vec![listed]).await;
    rig.renewed(&["task-9"]).await;
    let writer = Writer::start(&agent.redis()).await;
    peer.falls_mute();
    ensemble().kill();
    let killed = Instant::now();
    let last = writer.stopped(Duration::from_millis(1000)).await;
    assert!(last - killed < LEASE, "{:?}", last - killed);
    ensemble().start_again();
    let before = writer.count();
    until("writes go on", async || (writer.count() > before).then_some(())).await;
    // Once it has not answered for a while it is not named any more, and does no harm.
    rig.renewed(&[]).await;
}

/// What the tests here would see if a lease stopped nothing.
#[tokio::test]
async fn a_lease_broken_on_purpose_stops_nothing_and_is_named() {
    let _turn = TURN.lock().await;
    let mut rig = Rig::new("broken").await;
    let agent = rig.agent_that_breaks(0, &[], "lease").await;
    until("it says so", async || agent.state(&rig).await.problem.filter(|p| p.contains("AURORA_REDIS_BREAK"))).await;
    let peer = Promiser::start("task-9").await;
    rig.lead(&agent).await;
    let listed = peer.member();
    rig.commit(|r| r.known_replicas = vec![listed]).await;
    rig.renewed(&["task-9"]).await;
    let writer = Writer::start(&agent.redis()).await;
    peer.falls_mute();
    ensemble().kill();
    let killed = Instant::now();
    until("a write beyond the lease", async || (writer.last() > killed + LEASE + SLACK).then_some(())).await;
    ensemble().start_again();
}

#[tokio::test]
async fn with_everybodys_promises_no_write_is_refused() {
    let _turn = TURN.lock().await;
    let mut rig = Rig::new("promised").await;
    let agent = rig.agent(0, &[]).await;
    let (b, c) = (Promiser::start("task-8").await, Promiser::start("task-9").await);
    rig.lead(&agent).await;
    let listed = vec![b.member(), c.member()];
    rig.commit(|r| r.known_replicas = listed).await;
    rig.renewed(&["task-8", "task-9"]).await;
    let writer = Writer::start(&agent.redis()).await;
    ensemble().kill();
    let killed = Instant::now();
    tokio::time::sleep(LEASE * 3).await;
    let longest = writer.longest_pause(killed);
    assert!(longest < LEASE / 2, "{longest:?}");
    c.falls_mute();
    let mute = Instant::now();
    let last = writer.stopped(Duration::from_millis(1000)).await;
    assert!(last - mute < LEASE, "{:?}", last - mute);
    ensemble().start_again();
}
