//! How long the agent's part of a failover takes. The bounds are generous, for a loaded machine; the figures are printed.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use agent::api::Order;
use agent::record::Phase;
use common::{Rig, ask, member, signal, until};
use futures_util::StreamExt;
use rustix::process::Signal;

#[tokio::test]
async fn a_death_is_told_and_a_promotion_done_within_milliseconds() {
    let mut rig = Rig::new("speed").await;
    let (a, b) = (rig.agent(0, &[]).await, rig.agent(1, &[]).await);
    let master = rig.lead(&a).await.redis.unwrap();
    let replica = rig.attach(&b, &a).await;
    ask(&a.redis(), "SET k v").await.unwrap();
    // A link that is up may stream nothing yet, and what no replica has may be lost.
    until("the replica has it", async || ask(&b.redis(), "GET k").await.ok().filter(|v| v == "v")).await;
    let mut stream = std::pin::pin!(rig.http.watch(&a.address()).await.unwrap());
    assert!(stream.next().await.unwrap().unwrap().deaths.is_empty());

    let mut at = vec![("killed", Instant::now())];
    signal(master.pid, Signal::KILL);
    while stream.next().await.unwrap().unwrap().deaths.is_empty() {}
    at.push(("told", Instant::now()));
    rig.commit(|r| (r.epoch, r.phase) = (r.epoch + 1, Phase::Deposing)).await;
    at.push(("deposing", Instant::now()));
    let fenced = rig.command(&replica, Order::Fence);
    let cut = rig.http.command(&b.address(), &fenced, Duration::from_secs(5)).await.unwrap().state.unwrap();
    at.push(("cut", Instant::now()));
    let winner = member(&cut);
    rig.commit(|r| (r.phase, r.master, r.known_replicas) = (Phase::Promoting, Some(winner), vec![])).await;
    at.push(("promoting", Instant::now()));
    let promote = rig.command(&cut, Order::Promote { asks: vec![] });
    let state = rig.http.command(&b.address(), &promote, Duration::from_secs(5)).await.unwrap().state.unwrap();
    assert!(state.serving);
    at.push(("promoted", Instant::now()));
    let address = b.redis().to_string();
    loop {
        let read = rig.client.get_data(&rig.paths.master()).await;
        if read.is_ok_and(|(data, _)| data == address.as_bytes()) {
            break;
        }
        assert!(at[0].1.elapsed() < Duration::from_secs(10), "it is not published");
    }
    at.push(("published", Instant::now()));
    for pair in at.windows(2) {
        println!("{:>10} after {:?}", pair[1].0, pair[1].1 - pair[0].1);
    }
    assert!(at[1].1 - at[0].1 < Duration::from_secs(1), "told");
    assert!(at.last().unwrap().1 - at[0].1 < Duration::from_secs(5), "published");
    assert_eq!(ask(&b.redis(), "GET k").await.unwrap(), "v");
    until("the promise of the old doors is kept", async || {
        (rig.children(&rig.paths.master_serverset()).await.len() == 1).then_some(())
    })
    .await;
}
