//! Who may replicate: members of the record by their own credentials, nobody else, and nobody who is to be removed.

#![allow(clippy::unwrap_used)]

mod common;

use agent::api::{Order, Source, State};
use common::{Rig, TestAgent, ask, member, until};

async fn started(rig: &Rig, agent: &TestAgent, master: &TestAgent) -> State {
    let source = Source::ReplicaOf { master: master.redis(), fork: None };
    rig.done(agent, Order::Start { source }).await
}

fn run_id(state: &State) -> String {
    state.redis.as_ref().unwrap().run_id.clone()
}

async fn links(rig: &Rig, master: &TestAgent) -> u32 {
    master.state(rig).await.redis.unwrap().connected_replicas
}

#[tokio::test]
async fn a_replica_starts_linked_to_nobody_and_is_let_in_once_it_is_listed() {
    let mut rig = Rig::new("listed").await;
    let (a, b) = (rig.agent(0, &[]).await, rig.agent(1, &[]).await);
    rig.lead(&a).await;
    ask(&a.redis(), "SET k v").await.unwrap();
    let state = started(&rig, &b, &a).await;
    let redis = state.redis.clone().unwrap();
    assert_eq!((redis.link, redis.following.unwrap().to_string()), (Some(false), "127.0.0.1:1".to_owned()));

    // Told to follow too early it is turned away, and let in later without being told again.
    rig.done(&b, Order::Follow { master: a.redis(), fork: None }).await;
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    assert_eq!((b.state(&rig).await.redis.unwrap().link, links(&rig, &a).await), (Some(false), 0));
    rig.commit(|r| r.known_replicas = vec![member(&state)]).await;
    until("it is linked", async || b.state(&rig).await.redis.filter(|redis| redis.link == Some(true))).await;
    let lease = a.state(&rig).await.lease.unwrap();
    assert_eq!((lease.admitted, lease.record_version), (vec![run_id(&state)], rig.version));
    until("it has the data", async || ask(&b.redis(), "GET k").await.ok().filter(|v| v == "v")).await;
}

#[tokio::test]
async fn a_member_marked_for_removal_is_cut_off_and_never_let_in_again() {
    let mut rig = Rig::new("removing").await;
    let (a, b, c) = (rig.agent(0, &[]).await, rig.agent(1, &[]).await, rig.agent(2, &[]).await);
    rig.lead(&a).await;
    let leaving = rig.attach(&b, &a).await;
    let staying = rig.attach(&c, &a).await;
    until("both are linked", async || (links(&rig, &a).await == 2).then_some(())).await;
    let marked = run_id(&leaving);
    rig.commit(|r| r.known_replicas.iter_mut().filter(|m| m.run_id == marked).for_each(|m| m.removing = true)).await;
    let lease = until("it is cut off", async || a.state(&rig).await.lease.filter(|l| l.removed.contains(&marked))).await;
    assert_eq!((lease.record_version, lease.admitted), (rig.version, vec![run_id(&staying)]));
    assert!(lease.removed_at.is_some());
    until("its link is down", async || b.state(&rig).await.redis.filter(|redis| redis.link == Some(false))).await;
    ask(&a.redis(), "SET later 1").await.unwrap();
    until("the other has it", async || ask(&c.redis(), "GET later").await.ok().filter(|v| v == "1")).await;
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    assert_eq!((links(&rig, &a).await, ask(&b.redis(), "GET later").await.unwrap().as_str()), (1, "nil"));

    rig.commit(|r| r.known_replicas.retain(|m| m.run_id != marked)).await;
    until("nothing is told of it any more", async || a.state(&rig).await.lease.filter(|l| l.removed.is_empty())).await;
    assert_eq!(links(&rig, &a).await, 1);
}

#[tokio::test]
async fn a_new_epoch_has_new_credentials_and_the_old_masters_are_of_no_use() {
    let mut rig = Rig::new("epochs").await;
    let (a, b, c) = (rig.agent(0, &[]).await, rig.agent(1, &[]).await, rig.agent(2, &[]).await);
    rig.lead(&a).await;
    rig.attach(&b, &a).await;
    rig.attach(&c, &a).await;
    for survivor in [&a, &b, &c] {
        rig.done(survivor, Order::Fence).await;
    }
    let winner = b.state(&rig).await;
    rig.promote(&b, &winner).await;
    let lease = b.state(&rig).await.lease.unwrap();
    assert_eq!(lease.admitted.len(), 2, "the promotion admits everybody who is listed: {lease:?}");
    for follower in [&a, &c] {
        rig.follow(follower, &b).await;
    }
    let stats = ask(&b.redis(), "INFO stats").await.unwrap();
    assert!(stats.contains("sync_full:0"), "{stats}");
}
