//! What a server holds beyond its new master lies in the sandbox before it is overwritten, whichever way that comes about.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use agent::api::{Order, Position, Settings, Source, State};
use common::{Rig, TestAgent, ask, member, redis, signal, until};
use rustix::process::Signal;

/// The dumps set aside in an agent's sandbox.
fn asides(agent: &TestAgent) -> Vec<Vec<u8>> {
    let Ok(places) = std::fs::read_dir(agent.sandbox.join("aside")) else { return Vec::new() };
    places.map(|place| std::fs::read(place.unwrap().path().join("dump.rdb")).unwrap()).collect()
}

fn holds(dump: &[u8], key: &str) -> bool {
    dump.windows(key.len()).any(|w| w == key.as_bytes())
}

fn position(state: &State) -> Position {
    let redis = state.redis.as_ref().unwrap();
    Position { replid: redis.replid.clone(), offset: redis.offset }
}

async fn has(agent: &TestAgent, key: &str) {
    until("it is there", async || ask(&agent.redis(), &format!("GET {key}")).await.ok().filter(|v| v == "1")).await;
}

#[tokio::test]
async fn a_server_that_makes_room_leaves_its_data_in_the_sandbox() {
    let mut rig = Rig::new("room").await;
    let agent = rig.agent(0, &[]).await;
    rig.lead(&agent).await;
    ask(&agent.redis(), "SET here 1").await.unwrap();
    let cut = rig.done(&agent, Order::Fence).await;
    rig.done(&agent, Order::Stop).await;
    let local = until("its dump is reported", async || agent.state(&rig).await.local).await;
    assert_eq!(local.position, Some(position(&cut)));
    rig.commit(|r| r.epoch += 1).await;
    rig.done(&agent, Order::Start { source: Source::Empty }).await;
    let asides = asides(&agent);
    assert!(asides.len() == 1 && holds(&asides[0], "here"), "{} set aside", asides.len());
}

#[tokio::test]
async fn nothing_comes_in_behind_the_copy_that_is_set_aside() {
    let mut rig = Rig::new("behind").await;
    let (a, b, c) = (rig.agent(0, &[]).await, rig.agent(1, &[]).await, rig.agent(2, &[]).await);
    let old = rig.lead(&a).await;
    rig.attach(&b, &a).await;
    rig.attach(&c, &a).await;
    let cut = rig.done(&c, Order::Fence).await;
    // The old master's agent stands still, and its server writes on.
    signal(old.agent.pid, Signal::STOP);
    let over = Arc::new(AtomicBool::new(false));
    let (mut writer, ends) = (redis(&a.redis()).await, over.clone());
    let writes = tokio::spawn(async move {
        let mut n = 0u64;
        while !ends.load(Ordering::SeqCst) {
            n += 1;
            let _ = redis::cmd("SET").arg("last").arg(format!("n{n:010}")).query_async::<()>(&mut writer).await;
        }
    });
    until("writes arrive", async || ask(&b.redis(), "GET last").await.ok().filter(|v| v.starts_with("n0"))).await;
    rig.promote(&c, &cut).await;
    rig.admitted(&b, &c).await;
    let (mut reader, ends) = (redis(&b.redis()).await, over.clone());
    let reads = tokio::spawn(async move {
        let mut highest = String::new();
        while !ends.load(Ordering::SeqCst) {
            let read = redis::cmd("GET").arg("last").query_async::<Option<String>>(&mut reader).await;
            highest = highest.max(read.ok().flatten().unwrap_or_default());
        }
        highest
    });
    let fork = Some(position(&cut));
    rig.done(&b, Order::Follow { master: c.redis(), fork }).await;
    until("it holds what its master holds", async || ask(&b.redis(), "GET last").await.ok().filter(|v| v == "nil")).await;
    over.store(true, Ordering::SeqCst);
    writes.await.unwrap();
    let highest = reads.await.unwrap();
    signal(old.agent.pid, Signal::CONT);
    let asides = asides(&b);
    assert_eq!(asides.len(), 1);
    let at = asides[0].windows(6).position(|w| w == b"last\x0bn").expect("the value is in the dump") + 5;
    let saved = String::from_utf8(asides[0][at..at + 11].to_vec()).unwrap();
    assert!(saved >= highest, "{highest} was there to read, the copy holds {saved}");
}

#[tokio::test]
async fn what_a_replica_was_started_from_is_set_aside_when_another_master_is_further_back() {
    let mut rig = Rig::new("unassigned").await;
    let (a, b, c) = (rig.agent(0, &[]).await, rig.agent(1, &[]).await, rig.agent(2, &[]).await);
    rig.lead(&a).await;
    rig.attach(&b, &a).await;
    rig.attach(&c, &a).await;
    let cut = rig.done(&c, Order::Fence).await;
    ask(&a.redis(), "SET only-here 1").await.unwrap();
    has(&b, "only-here").await;
    rig.done(&b, Order::Stop).await;
    let started = rig.done(&b, Order::Start { source: Source::ReplicaOf { master: a.redis(), fork: None } }).await;
    assert_eq!(asides(&b).len(), 0, "it is not ahead of the first master");
    rig.commit(|r| r.known_replicas.push(member(&started))).await;
    rig.promote(&c, &cut).await;
    rig.admitted(&b, &c).await;
    rig.done(&b, Order::Follow { master: c.redis(), fork: Some(position(&cut)) }).await;
    let asides = asides(&b);
    assert!(asides.len() == 1 && holds(&asides[0], "only-here"), "{} set aside", asides.len());
}

#[tokio::test]
async fn a_survivor_is_set_aside_although_the_new_master_has_the_address_that_it_follows() {
    let mut rig = Rig::new("in-place").await;
    let (a, b) = (rig.agent(0, &[]).await, rig.agent(1, &[]).await);
    let old = rig.lead(&a).await.redis.unwrap();
    rig.attach(&b, &a).await;
    ask(&a.redis(), "SET both 1").await.unwrap();
    let save = |save: &str| Order::Configure { settings: Settings { save: save.into(), min_replicas_to_write: 0 } };
    rig.done(&a, save("1 1")).await;
    until("it is saved", async || std::fs::read(a.sandbox.join("redis/dump.rdb")).ok().filter(|dump| holds(dump, "both"))).await;
    rig.done(&a, save("")).await;
    ask(&a.redis(), "SET only-here 1").await.unwrap();
    has(&b, "only-here").await;
    signal(old.pid, Signal::KILL);
    let local = until("its dump is reported", async || agent_local(&rig, &a).await).await;
    rig.commit(|r| r.epoch += 1).await;
    let started = rig.done(&a, Order::Start { source: Source::Local { sha256: local.0 } }).await;
    rig.promote(&a, &started).await;
    rig.admitted(&b, &a).await;
    rig.done(&b, Order::Follow { master: a.redis(), fork: Some(local.1) }).await;
    let asides = asides(&b);
    assert!(asides.len() == 1 && holds(&asides[0], "only-here"), "{} set aside", asides.len());
}

async fn agent_local(rig: &Rig, agent: &TestAgent) -> Option<(String, Position)> {
    let local = agent.state(rig).await.local?;
    Some((local.sha256, local.position?))
}
