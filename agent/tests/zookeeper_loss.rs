//! ZooKeeper goes and comes back: a healthy master serves on, and is found again.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use agent::api::{AnswerKind, Order, Settings};
use agent::zk;
use common::{Rig, ask, ensemble, until, zookeeper};

#[tokio::test]
async fn without_zookeeper_a_master_serves_and_nothing_newer_than_what_was_read_is_obeyed() {
    let mut rig = Rig::new("loss").await;
    let (a, b) = (rig.agent(0, &[]).await, rig.agent(1, &[]).await);
    let before = rig.lead(&a).await;
    rig.attach(&b, &a).await;
    ensemble().kill();
    until("the loss is named", async || a.state(&rig).await.problem.filter(|p| p.contains("ZooKeeper"))).await;

    ask(&a.redis(), "SET k v").await.unwrap();
    until("the replica has it", async || ask(&b.redis(), "GET k").await.ok().filter(|v| v == "v")).await;
    assert!(a.state(&rig).await.serving && b.state(&rig).await.serving);
    // What was decided on the record that this agent has read is obeyed, anything newer is not, and the answer comes in time.
    let settings = Settings { save: String::new(), min_replicas_to_write: 1 };
    rig.done(&a, Order::Configure { settings }).await;
    let mut newer = rig.command(&a.state(&rig).await, Order::Fence);
    newer.stamp.record_version += 1;
    newer.stamp.epoch += 1;
    let answer = rig.http.command(&a.address(), &newer, Duration::from_secs(20)).await.unwrap();
    assert_eq!((answer.outcome, answer.reason.as_str()), (AnswerKind::Refused, "record-not-seen"));

    ensemble().start_again();
    let keeper = zk::Keeper::start(zookeeper(), Duration::from_secs(10));
    let address = a.redis().to_string();
    until("the doors are there again", async || {
        let client = keeper.client().ok()?;
        let node = zk::read(&client, &rig.paths.master()).await.ok()??;
        (node.data == address.as_bytes()).then_some(())
    })
    .await;
    let after = a.state(&rig).await;
    assert_eq!(after.redis.unwrap().run_id, before.redis.unwrap().run_id, "the server never noticed");
    until("the problem is solved", async || a.state(&rig).await.problem.is_none().then_some(())).await;
}
