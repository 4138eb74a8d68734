//! Agents that promise to bear no witness, so that a master goes on without ZooKeeper.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use agent::api::{Order, Promise, PromiseRequest};
use agent::record::Phase;
use common::{Rig, TestAgent, Writer, ask, ensemble, until};

/// Two of these tests must not meet: one takes ZooKeeper away.
static TURN: tokio::sync::RwLock<()> = tokio::sync::RwLock::const_new(());

/// Far below the seconds for which writes are held back where promises are missing.
const UNNOTICED: Duration = Duration::from_secs(1);

fn request(rig: &Rig, to: &TestAgent, for_ms: u64) -> PromiseRequest {
    PromiseRequest {
        cluster_id: rig.record.cluster_id.clone(),
        generation: rig.record.generation.clone(),
        epoch: rig.record.epoch,
        task_id: to.task_id.clone(),
        round: 7,
        for_ms,
    }
}

async fn promise(rig: &Rig, to: &TestAgent, asked: &PromiseRequest) -> Promise {
    rig.http.promise(&to.address(), asked, Duration::from_secs(5)).await.unwrap()
}

#[tokio::test]
async fn without_zookeeper_for_ten_seconds_a_master_serves_on_by_promises() {
    let _turn = TURN.write().await;
    let mut rig = Rig::new("outage").await;
    let (a, b, c) = (rig.agent(0, &[]).await, rig.agent(1, &[]).await, rig.agent(2, &[]).await);
    let before = rig.lead(&a).await;
    rig.attach(&b, &a).await;
    rig.attach(&c, &a).await;
    rig.renewed(&["task-1", "task-2"]).await;
    let writer = Writer::start(&a.redis()).await;
    ensemble().kill();
    let killed = Instant::now();
    for replica in [&b, &c] {
        until("it has promised", async || replica.state(&rig).await.promised.then_some(())).await;
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    let longest = writer.longest_pause(killed);
    assert!(longest < UNNOTICED, "{longest:?}");
    let state = a.state(&rig).await;
    assert!(state.serving && state.lease.as_ref().unwrap().failsafe, "{:?}", state.lease);
    assert!(state.problem.is_some());

    ensemble().start_again();
    until("it renews again", async || a.state(&rig).await.lease.filter(|lease| !lease.failsafe)).await;
    let longest = writer.longest_pause(killed);
    assert!(longest < UNNOTICED, "{longest:?}");
    until("the promises end", async || (!b.state(&rig).await.promised && !c.state(&rig).await.promised).then_some(())).await;
    assert_eq!(a.state(&rig).await.redis.unwrap().run_id, before.redis.unwrap().run_id);
}

#[tokio::test]
async fn a_replica_that_has_fallen_silent_is_not_missed_and_one_that_hangs_ends_the_lease() {
    let _turn = TURN.write().await;
    let mut rig = Rig::new("missed").await;
    let (a, mut b, c) = (rig.agent(0, &[]).await, rig.agent(1, &[]).await, rig.agent(2, &[]).await);
    rig.lead(&a).await;
    rig.attach(&b, &a).await;
    rig.attach(&c, &a).await;
    rig.renewed(&["task-1", "task-2"]).await;
    b.kill();
    rig.renewed(&["task-2"]).await;
    let writer = Writer::start(&a.redis()).await;
    ensemble().kill();
    let killed = Instant::now();
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(writer.longest_pause(killed) < UNNOTICED);

    let pid = c.state(&rig).await.agent.pid;
    common::signal(pid, rustix::process::Signal::STOP);
    let hung = Instant::now();
    let last = writer.stopped(Duration::from_secs(1)).await;
    assert!(last - hung < Duration::from_secs(2), "{:?}", last - hung);
    common::signal(pid, rustix::process::Signal::CONT);
    ensemble().start_again();
    let before = writer.count();
    until("writes go on", async || (writer.count() > before).then_some(())).await;
}

#[tokio::test]
async fn a_promise_is_for_the_epoch_that_is_known_and_runs_on_when_a_higher_one_comes() {
    let _turn = TURN.read().await;
    let mut rig = Rig::new("epochs").await;
    let (a, b) = (rig.agent(0, &[]).await, rig.agent(1, &[]).await);
    rig.lead(&a).await;
    rig.attach(&b, &a).await;
    assert!(!b.state(&rig).await.promised);
    assert!(promise(&rig, &b, &request(&rig, &b, 0)).await.promised);
    assert!(!b.state(&rig).await.promised, "a question is no promise");
    for wrong in [
        PromiseRequest { epoch: 1, ..request(&rig, &b, 2000) },
        PromiseRequest { epoch: 9, ..request(&rig, &b, 2000) },
        PromiseRequest { task_id: "task-0".into(), ..request(&rig, &b, 2000) },
        PromiseRequest { generation: "another".into(), ..request(&rig, &b, 2000) },
    ] {
        let answer = promise(&rig, &b, &wrong).await;
        assert!(!answer.promised && !answer.reason.is_empty(), "{answer:?}");
    }
    assert!(!b.state(&rig).await.promised);

    let asked = request(&rig, &b, 3000);
    let given = Instant::now();
    let answer = promise(&rig, &b, &asked).await;
    assert_eq!((answer.promised, answer.round, answer.task_id.as_str()), (true, 7, "task-1"));
    rig.commit(|r| (r.epoch, r.phase) = (r.epoch + 1, Phase::Deposing)).await;
    let fenced = rig.done(&b, Order::Fence).await;
    assert!(fenced.promised && fenced.epoch == 3, "a promise outlives its epoch");
    assert!(!promise(&rig, &b, &asked).await.promised, "and is not given again");
    let mut stream = std::pin::pin!(rig.http.watch(&b.address()).await.unwrap());
    while futures_util::StreamExt::next(&mut stream).await.unwrap().unwrap().promised {}
    let took = given.elapsed();
    assert!(took >= Duration::from_secs(3) && took < Duration::from_secs(6), "{took:?}");
}

#[tokio::test]
async fn an_agent_that_starts_again_is_bound_as_if_it_had_promised() {
    let _turn = TURN.read().await;
    let mut rig = Rig::new("bound").await;
    let (a, mut b) = (rig.agent(0, &[]).await, rig.agent(1, &[]).await);
    rig.lead(&a).await;
    rig.attach(&b, &a).await;
    assert!(promise(&rig, &b, &request(&rig, &b, 2202)).await.promised);
    b.kill();
    b.start(&rig).await;
    let started = Instant::now();
    assert!(b.state(&rig).await.promised);
    until("it ends", async || (!b.state(&rig).await.promised).then_some(())).await;
    assert!(started.elapsed() > Duration::from_secs(1), "{:?}", started.elapsed());
    ask(&a.redis(), "SET k v").await.unwrap();
}

/// Promises change the state, commands look at it: neither may wait for the other for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_agent_that_is_asked_from_all_sides_at_once_answers_everybody() {
    let _turn = TURN.read().await;
    let rig = Rig::new("all-sides").await;
    let agent = rig.agent(0, &[]).await;
    let state = until("the record is read", async || Some(agent.state(&rig).await).filter(|s| s.epoch == 1)).await;
    let mut stale = rig.command(&state, Order::Fence);
    stale.stamp.epoch = 0;
    let asked = request(&rig, &agent, 1);
    let (http, address) = (&rig.http, agent.address());
    let ask_on = async |promises: bool| {
        for _ in 0..1000 {
            match promises {
                true => drop(http.promise(&address, &asked, Duration::from_secs(10)).await.unwrap()),
                false => drop(http.command(&address, &stale, Duration::from_secs(10)).await.unwrap()),
            }
        }
    };
    tokio::join!(ask_on(true), ask_on(false), ask_on(true), ask_on(false), ask_on(true), ask_on(false));
}
