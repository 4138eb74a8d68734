//! A planned change of master: writes are held back, the target catches up, nothing is lost or refused.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use agent::api::{AnswerKind, Order, Position, State};
use agent::record::Phase;
use common::{Rig, TestAgent, Writer, ask, redis, signal, until};
use rustix::process::Signal;

async fn pair(rig: &mut Rig) -> (TestAgent, TestAgent) {
    let (a, b) = (rig.agent(0, &[]).await, rig.agent(1, &[]).await);
    rig.lead(&a).await;
    rig.attach(&b, &a).await;
    rig.renewed(&["task-1"]).await;
    until("the master sees its replica", async || (a.state(rig).await.redis?.connected_replicas == 1).then_some(())).await;
    (a, b)
}

fn position(state: &State) -> Position {
    let redis = state.redis.as_ref().unwrap();
    Position { replid: redis.replid.clone(), offset: redis.offset }
}

#[tokio::test]
async fn a_hold_stops_writes_and_ends_by_release_or_by_itself() {
    let mut rig = Rig::new("hold").await;
    let (a, b) = pair(&mut rig).await;
    let writer = Writer::start(&a.redis()).await;
    let held = rig.done(&a, Order::Hold { for_ms: 20_000 }).await;
    let stood = held.held.clone().unwrap();
    assert_eq!((stood.epoch, &stood.position), (2, &position(&held)));
    let count = writer.count();
    rig.done(&b, Order::CatchUp { position: stood.position, within_ms: 1000 }).await;
    until("the doors are withdrawn", async || rig.client.check_stat(&rig.paths.master()).await.unwrap().is_none().then_some(()))
        .await;
    // One write may have been acknowledged while the answer was on its way.
    assert!(writer.count() <= count + 1);
    assert!(a.state(&rig).await.serving);

    let released = rig.done(&a, Order::Release).await;
    assert_eq!(released.held, None);
    until("writes go on", async || (writer.count() > count + 10).then_some(())).await;
    until("the doors are back", async || rig.client.check_stat(&rig.paths.master()).await.unwrap()).await;

    rig.done(&a, Order::Hold { for_ms: 300 }).await;
    let count = writer.count();
    until("writes go on", async || (writer.count() > count + 10).then_some(())).await;
    until("it says so", async || a.state(&rig).await.held.is_none().then_some(())).await;
}

#[tokio::test]
async fn what_cannot_be_held_or_reached_is_refused() {
    let mut rig = Rig::new("refused").await;
    let (a, b) = pair(&mut rig).await;
    let refusal = async |agent: &TestAgent, order| {
        let answer = rig.order(agent, order).await;
        assert_eq!(answer.outcome, AnswerKind::Refused, "{answer:?}");
        answer.reason
    };
    assert_eq!(refusal(&b, Order::Hold { for_ms: 1000 }).await, "not-master");
    assert_eq!(refusal(&a, Order::Hold { for_ms: 0 }).await, "bad-request");
    assert_eq!(refusal(&a, Order::Hold { for_ms: u64::MAX }).await, "bad-request");
    let begun = Instant::now();
    let beyond = Position { offset: u64::MAX, ..position(&a.state(&rig).await) };
    assert_eq!(refusal(&b, Order::CatchUp { position: beyond.clone(), within_ms: 200 }).await, "behind");
    assert!(begun.elapsed() < Duration::from_secs(2));
    let foreign = Position { replid: "0".repeat(40), offset: 1 };
    assert_eq!(refusal(&b, Order::CatchUp { position: foreign, within_ms: 1 }).await, "behind");
    assert_eq!(refusal(&b, Order::Release).await, "not-released");

    // A fence does not wait for who only looks.
    let waits = rig.command(&b.state(&rig).await, Order::CatchUp { position: beyond, within_ms: 5000 });
    let (http, address) = (rig.http.clone(), b.address());
    let looking = tokio::spawn(async move { http.command(&address, &waits, Duration::from_secs(20)).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let begun = Instant::now();
    rig.commit(|r| (r.epoch, r.phase) = (r.epoch + 1, Phase::Deposing)).await;
    rig.done(&b, Order::Fence).await;
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    looking.abort();
}

#[tokio::test]
async fn a_change_under_writers_loses_and_refuses_nothing_that_was_acknowledged() {
    let mut rig = Rig::new("switch").await;
    let (a, b) = pair(&mut rig).await;
    let acknowledged = Arc::new(AtomicU64::new(0));
    let mut writers = Vec::new();
    for n in 0..4 {
        let (mut connection, count) = (redis(&a.redis()).await, acknowledged.clone());
        writers.push(tokio::spawn(async move {
            while redis::cmd("INCR").arg(format!("w{n}")).query_async::<u64>(&mut connection).await.is_ok() {
                count.fetch_add(1, Ordering::SeqCst);
            }
        }));
    }
    until("some writes", async || (acknowledged.load(Ordering::SeqCst) > 500).then_some(())).await;

    let held = rig.done(&a, Order::Hold { for_ms: 20_000 }).await;
    rig.done(&b, Order::CatchUp { position: held.held.unwrap().position, within_ms: 2000 }).await;
    rig.commit(|r| (r.epoch, r.phase) = (r.epoch + 1, Phase::Deposing)).await;
    let fenced = rig.done(&a, Order::Fence).await;
    assert_eq!((fenced.fenced_epoch, fenced.held.clone()), (Some(3), None));
    for writer in writers {
        tokio::time::timeout(Duration::from_secs(5), writer).await.expect("the fence drops clients").unwrap();
    }
    let reached = rig.done(&b, Order::CatchUp { position: position(&fenced), within_ms: 2000 }).await;
    rig.promote(&b, &reached).await;
    let mut found = 0;
    for n in 0..4 {
        found += ask(&b.redis(), &format!("GET w{n}")).await.unwrap().parse::<u64>().unwrap();
    }
    assert_eq!(found, acknowledged.load(Ordering::SeqCst), "what was held back was not executed either");
    rig.follow(&a, &b).await;
    let stats = ask(&b.redis(), "INFO stats").await.unwrap();
    assert!(stats.contains("sync_full:0"), "{stats}");
}

#[tokio::test]
async fn a_master_asked_to_end_waits_until_another_one_leads() {
    let mut rig = Rig::new("ends").await;
    let (mut a, b) = pair(&mut rig).await;
    let state = a.state(&rig).await;
    let writer = Writer::start(&a.redis()).await;
    signal(state.agent.pid, Signal::TERM);
    until("it says so", async || a.state(&rig).await.stopping.then_some(())).await;
    let count = writer.count();
    until("it serves on", async || (writer.count() > count + 10).then_some(())).await;
    rig.commit(|r| (r.epoch, r.phase) = (r.epoch + 1, Phase::Deposing)).await;
    // The agent fences itself as soon as it reads that, and stays to say so.
    let fenced = until("it is fenced", async || Some(a.state(&rig).await).filter(|s| s.fenced_epoch == Some(3))).await;
    rig.done(&b, Order::CatchUp { position: position(&fenced), within_ms: 2000 }).await;
    assert_eq!(a.state(&rig).await.fenced_epoch, Some(3));
    let cut = rig.done(&b, Order::Fence).await;
    let begun = Instant::now();
    rig.promote(&b, &cut).await;
    assert_eq!(a.ended().await, Some(0));
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_second_signal_ends_a_waiting_master_at_once() {
    let mut rig = Rig::new("twice").await;
    let (mut a, _b) = pair(&mut rig).await;
    let pid = a.state(&rig).await.agent.pid;
    signal(pid, Signal::TERM);
    until("it says so", async || a.state(&rig).await.stopping.then_some(())).await;
    signal(pid, Signal::TERM);
    let begun = Instant::now();
    assert_eq!(a.ended().await, Some(0));
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}
