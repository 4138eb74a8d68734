//! Data from a server outside of the cluster: followed beside the instance's own, cut over with everything it ever acknowledged, or left alone.

#![allow(clippy::unwrap_used)]

mod common;

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use agent::api::{Address, AnswerKind, Door, Order, Origin, OriginState, Role, State};
use agent::record::Phase;
use common::{Rig, TestAgent, ask, free_port, is_open, redis, servers, signal, until};
use rustix::process::Signal;

/// A server that nobody looks after.
struct Foreign {
    process: Child,
    address: Address,
}

impl Foreign {
    async fn start(rig: &Rig, server: &str, more: &[&str]) -> Foreign {
        let (_, program) = servers().into_iter().find(|(name, _)| *name == server).unwrap();
        let (port, dir) = (free_port(), rig.dir.join(format!("foreign-{server}-{}", uuid::Uuid::new_v4().simple())));
        std::fs::create_dir_all(&dir).unwrap();
        let mut command = Command::new(program);
        command.args(["--port", &port.to_string(), "--save", "", "--repl-diskless-sync-delay", "0", "--dir"]).arg(&dir);
        let process = command.args(more).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let address = Address { host: "127.0.0.1".into(), port };
        until("the foreign server listens", async || is_open(&address).then_some(())).await;
        Foreign { process, address }
    }

    fn origin(&self) -> Origin {
        Origin { address: self.address.clone(), username: None, password: None }
    }

    async fn setting(&self, name: &str) -> u32 {
        let pair: Vec<String> =
            redis::cmd("CONFIG").arg("GET").arg(name).query_async(&mut redis(&self.address).await).await.unwrap();
        pair[1].parse().unwrap()
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A master with a key of its own, and a replica of it that has saved it.
async fn pair(rig: &mut Rig) -> (TestAgent, TestAgent) {
    let (a, b) = (rig.agent(0, &[]).await, rig.agent(1, &[]).await);
    rig.lead(&a).await;
    rig.attach(&b, &a).await;
    ask(&a.redis(), "SET own data").await.unwrap();
    until("the replica has it", async || (b.state(rig).await.redis?.keys == 1).then_some(())).await;
    (a, b)
}

fn follow(origin: &Origin) -> Order {
    Order::FollowOrigin { request_id: "r".into(), origin: origin.clone() }
}

const WAS: Door = Door { min_replicas_to_write: 0, min_replicas_max_lag: 10 };

fn close(origin: &Origin, within_ms: u64) -> Order {
    Order::CloseOrigin { request_id: "r".into(), origin: origin.clone(), was: WAS, within_ms }
}

/// Waits until the agent's server holds what the origin has, as far as it was asked.
async fn caught_up(rig: &Rig, agent: &TestAgent) -> State {
    until("the origin is followed", async || {
        let state = agent.state(rig).await;
        let (server, origin) = (state.redis.as_ref()?, state.origin.as_ref()?);
        let there = origin.position.as_ref().is_some_and(|p| p.replid == server.replid && p.offset <= server.offset);
        (there && server.link == Some(true) && origin.door == Some(WAS)).then_some(state)
    })
    .await
}

fn told(state: &State) -> &OriginState {
    state.origin.as_ref().unwrap()
}

#[tokio::test]
async fn everything_the_origin_acknowledged_is_in_the_server_that_takes_over() {
    for server in ["redis-6.2", "redis-7.0"] {
        let mut rig = Rig::new("origin").await;
        let (_a, b) = pair(&mut rig).await;
        // With 0 the belt of an origin that had none of its own would not hold.
        let foreign = Foreign::start(&rig, server, &[]).await;
        let acknowledged = Arc::new(AtomicU64::new(0));
        let (count, mut client) = (acknowledged.clone(), redis(&foreign.address).await);
        let writer = tokio::spawn(async move {
            for n in 1.. {
                let script = "redis.call('SET', KEYS[1], ARGV[1])";
                let write = match n % 2 {
                    0 => redis::cmd("EVAL").arg(script).arg(1).arg(format!("w:{n}")).arg(n).query_async(&mut client).await,
                    _ => redis::cmd("SET").arg(format!("w:{n}")).arg(n).query_async::<()>(&mut client).await,
                };
                match write {
                    Ok(()) => count.store(n, Ordering::SeqCst),
                    Err(error) => return error.to_string(),
                }
            }
            unreachable!("it writes until it is refused")
        });
        let state = rig.done(&b, follow(&foreign.origin())).await;
        let run = state.redis.as_ref().unwrap();
        assert_eq!((run.source.as_str(), state.serving, run.open), (foreign.origin().source().as_str(), false, false));
        assert!(b.sandbox.join("redis/dump.rdb").exists(), "what it held is saved");
        assert!(!is_open(&b.redis()), "nobody sees it");
        rig.done(&b, follow(&foreign.origin())).await;
        assert_eq!(b.state(&rig).await.redis.unwrap().run_id, run.run_id, "the same order starts nothing");
        caught_up(&rig, &b).await;
        until("there are writes", async || (acknowledged.load(Ordering::SeqCst) > 200).then_some(())).await;

        rig.commit(|r| (r.epoch, r.phase, r.master_epoch) = (r.epoch + 1, Phase::Deposing, 2)).await;
        let state = rig.done(&b, close(&foreign.origin(), 5000)).await;
        let refused = writer.await.unwrap();
        assert!(refused.contains("NOREPLICAS"), "{refused}");
        let held = told(&state).held.clone().unwrap();
        let run = state.redis.as_ref().unwrap();
        assert_eq!((state.fenced_epoch, &run.replid), (Some(rig.record.epoch), &held.replid));
        assert!(run.offset >= held.offset && run.link != Some(true));
        rig.done(&b, close(&foreign.origin(), 5000)).await;

        rig.promote(&b, &state).await;
        let last = acknowledged.load(Ordering::SeqCst);
        let mut client = redis(&b.redis()).await;
        for n in 1..=last {
            let there: Option<u64> = redis::cmd("GET").arg(format!("w:{n}")).query_async(&mut client).await.unwrap();
            assert_eq!(there, Some(n), "{server}: write {n} of {last} was acknowledged");
        }
        assert_eq!(ask(&b.redis(), "GET own").await.unwrap(), "nil");
        assert_eq!(std::fs::read_dir(b.sandbox.join("aside")).unwrap().count(), 1, "its own data");
        assert!(!b.sandbox.join("origin").exists());
        assert_eq!(ask(&b.redis(), "SET after x").await.unwrap(), "OK");
        let saved = rig.done(&b, Order::Configure { settings: Default::default() }).await;
        assert_eq!(saved.redis.unwrap().run_id, run.run_id);
        assert_eq!(foreign.setting("min-replicas-to-write").await, 1_000_000, "it goes on refusing");
        rig.done(&b, Order::OpenOrigin { request_id: "r".into(), origin: foreign.origin(), was: WAS }).await;
        assert_eq!(ask(&foreign.address, "SET again x").await.unwrap(), "OK");
    }
}

#[tokio::test]
async fn an_origin_that_cannot_be_caught_up_with_takes_writes_again() {
    let mut rig = Rig::new("origin-late").await;
    let (_a, b) = pair(&mut rig).await;
    let foreign = Foreign::start(&rig, "redis-7.0", &["--min-replicas-max-lag", "0"]).await;
    let was = Door { min_replicas_to_write: 0, min_replicas_max_lag: 0 };
    rig.done(&b, follow(&foreign.origin())).await;
    until("its settings are read", async || (told(&b.state(&rig).await).door == Some(was)).then_some(())).await;
    rig.commit(|r| (r.epoch, r.phase, r.master_epoch) = (r.epoch + 1, Phase::Deposing, 2)).await;
    let pid = b.state(&rig).await.redis.unwrap().pid;
    signal(pid, Signal::STOP);
    let order = Order::CloseOrigin { request_id: "r".into(), origin: foreign.origin(), was, within_ms: 200 };
    let answer = rig.order(&b, order.clone()).await;
    signal(pid, Signal::CONT);
    assert_ne!(answer.outcome, AnswerKind::Done);
    assert!(told(&answer.state.unwrap()).not_closed.is_some());
    assert_eq!(ask(&foreign.address, "SET k v").await.unwrap(), "OK");
    assert_eq!(foreign.setting("min-replicas-max-lag").await, 0, "put back as it was");
    let again = rig.order(&b, order).await;
    assert_eq!(again.reason, "given-up", "nobody is refused twice for one operation");
}

#[tokio::test]
async fn what_followed_an_origin_goes_and_the_instances_own_data_is_there_as_before() {
    let mut rig = Rig::new("origin-stop").await;
    let (a, mut b) = pair(&mut rig).await;
    let foreign = Foreign::start(&rig, "redis-7.0", &[]).await;
    ask(&foreign.address, "SET theirs x").await.unwrap();
    let refused = rig.order(&a, follow(&foreign.origin())).await;
    assert_eq!((refused.outcome, refused.reason.as_str()), (AnswerKind::Refused, "in-office"));
    rig.done(&b, follow(&foreign.origin())).await;
    caught_up(&rig, &b).await;
    let state = rig.done(&b, Order::Stop).await;
    assert!(state.redis.is_none() && !b.sandbox.join("origin").exists());
    let own = until("its own dump is looked at", async || b.state(&rig).await.local).await;
    assert!(own.position.is_some());
    // The agent dies with its server in the middle of it: the same.
    rig.done(&b, follow(&foreign.origin())).await;
    caught_up(&rig, &b).await;
    b.kill();
    b.start(&rig).await;
    let again = until("its own dump is looked at", async || b.state(&rig).await.local).await;
    assert_eq!(again.sha256, own.sha256);
    assert!(ask(&foreign.address, "SET k v").await.is_ok(), "the foreign server never noticed");
}

#[tokio::test]
async fn what_speaks_against_an_origin_is_told() {
    let mut rig = Rig::new("examine").await;
    let (a, b) = pair(&mut rig).await;
    let examine = async |origin: &Origin| rig.http.examine(&b.address(), origin, Duration::from_secs(20)).await.unwrap();
    let plain = Foreign::start(&rig, "redis-6.2", &[]).await;
    ask(&plain.address, "SET k v").await.unwrap();
    let found = examine(&plain.origin()).await;
    assert_eq!(found.objections, Vec::<String>::new());
    assert_eq!((found.version.as_str(), found.keys, found.door), ("6.2.14", 1, Some(WAS)));

    let against = async |origin: Origin| examine(&origin).await.objections.join("; ");
    let newer = Foreign::start(&rig, "valkey-9", &[]).await;
    assert!(against(newer.origin()).await.contains("cannot follow version valkey 9"));
    let replica = Foreign::start(&rig, "redis-7.0", &["--replicaof", "127.0.0.1", "1"]).await;
    assert!(against(replica.origin()).await.contains("is a replica: name its master, 127.0.0.1:1"));
    let part = Foreign::start(&rig, "redis-7.0", &["--cluster-enabled", "yes"]).await;
    assert!(against(part.origin()).await.contains("belongs to a Redis Cluster"));
    let many = Foreign::start(&rig, "redis-7.0", &["--databases", "32"]).await;
    assert!(against(many.origin()).await.contains("32 databases"));
    let locked = Foreign::start(&rig, "redis-7.0", &["--requirepass", "secret"]).await;
    assert!(against(locked.origin()).await.contains("NOAUTH"));
    let nobody = Origin { address: Address { host: "127.0.0.1".into(), port: free_port() }, username: None, password: None };
    assert!(against(nobody).await.contains("cannot be asked"));
    let weak =
        Foreign::start(&rig, "redis-7.0", &["--user", "default", "on", "nopass", "~*", "&*", "+@all", "-config|set", "-psync"])
            .await;
    let told = against(weak.origin()).await;
    assert!(told.contains("CONFIG SET") && told.contains("PSYNC"), "{told}");
    let own = Origin { address: b.redis(), username: None, password: None };
    assert!(against(own).await.contains("this instance itself"));
    let state = a.state(&rig).await;
    assert_eq!((state.role, state.serving), (Role::Master, true), "nothing was touched");
}
