//! Snapshots restored past the disk: real servers get them as they come from a `file://` store.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::PathBuf;

use agent::api::{AnswerKind, FailedSource, Order, Source, State};
use agent::record::Phase;
use agent::snapshot::{How, Manifest, SnapshotId};
use agent::store::{Options, Store};
use common::{CLUSTER, Rig, TestAgent, ask, is_open, redis, scratch, servers, signal, until};
use rustix::process::Signal;

/// Makes the load of a few hundred keys take a few seconds: so many microseconds a key.
const SLOW_LOAD: &str = "key-load-delay=5000";

struct Place {
    uri: String,
    dir: PathBuf,
    store: Store,
}

impl Place {
    fn new() -> Place {
        let dir = scratch("fed");
        let uri = format!("file://{}", dir.display());
        Place { store: Store::open(&uri, CLUSTER, Options::default()).unwrap(), uri, dir }
    }

    async fn agent(&self, rig: &Rig, instance: u32, more: &[&str]) -> TestAgent {
        let lock = self.dir.join("fork.lock").display().to_string();
        let mut arguments = vec!["--snapshots-uri", &self.uri, "--snapshots-fork-lock", &lock];
        arguments.extend(more);
        rig.agent(instance, &arguments).await
    }

    /// One that restores past the disk.
    async fn fed(&self, rig: &Rig, instance: u32, more: &[&str]) -> TestAgent {
        self.agent(rig, instance, &[&["--snapshots-restore-how", "stream"], more].concat()).await
    }

    fn dump(&self, id: &SnapshotId) -> PathBuf {
        self.dir.join(CLUSTER).join("snapshots").join(id.as_str()).join("dump.rdb")
    }

    async fn manifest(&self, id: &SnapshotId) -> Manifest {
        self.store.manifest(id).await.unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Keys that do not compress.
async fn fill(agent: &TestAgent, keys: u32, bytes: usize) {
    let mut connection = redis(&agent.redis()).await;
    let mut value: Vec<u8> = (0..bytes.div_ceil(16)).flat_map(|_| *uuid::Uuid::new_v4().as_bytes()).collect();
    for first in (0..keys).step_by(16) {
        let mut pipe = ::redis::pipe();
        for n in first..keys.min(first + 16) {
            value[..4].copy_from_slice(&n.to_be_bytes());
            pipe.cmd("SET").arg(format!("key:{n}")).arg(&value).ignore();
        }
        pipe.query_async::<()>(&mut connection).await.unwrap();
    }
}

/// One of each kind, several databases, and one that expires.
async fn variety(agent: &TestAgent) {
    let mut pipe = ::redis::pipe();
    for line in [
        "SET text value EX 5000",
        "RPUSH list a b c",
        "SADD set 1 2 x",
        "HSET hash a 1 b 2",
        "ZADD zset 1 a 2.5 b",
        "XADD stream 5-1 a 1",
        "SELECT 3",
        "SET elsewhere 1",
        "SELECT 0",
    ] {
        let mut words = line.split(' ');
        let mut command = ::redis::cmd(words.next().unwrap());
        words.for_each(|word| {
            command.arg(word);
        });
        pipe.add_command(command).ignore();
    }
    pipe.query_async::<()>(&mut redis(&agent.redis()).await).await.unwrap();
}

/// What a client reads of it.
async fn read(agent: &TestAgent) -> Vec<String> {
    let mut read = Vec::new();
    for line in [
        "GET text",
        "LRANGE list 0 -1",
        "SCARD set",
        "HGETALL hash",
        "ZRANGE zset 0 -1 WITHSCORES",
        "XRANGE stream - +",
        "DBSIZE",
    ] {
        read.push(ask(&agent.redis(), line).await.unwrap());
    }
    read
}

async fn backup(rig: &Rig, agent: &TestAgent, request: &str) -> SnapshotId {
    // A server before 7.0 does not count its saves: one within the second of its start, or of the save before, is not told apart.
    let second = || std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
    let begun = second();
    until("the next second", async || (second() > begun).then_some(())).await;
    let answer = rig.order(agent, Order::Backup { request_id: request.into(), how: How::Dump }).await;
    assert_eq!(answer.outcome, AnswerKind::Accepted, "{} {}", answer.reason, answer.message);
    let state = until("the snapshot is committed", async || {
        Some(agent.state(rig).await).filter(|s| s.uploads.last_request_id.as_deref() == Some(request))
    });
    state.await.uploads.last_request_snapshot.unwrap()
}

/// A cluster whose instance 0 leads with five keys.
async fn begun(name: &str, place: &Place) -> (Rig, TestAgent) {
    let mut rig = Rig::new(name).await;
    let a = place.agent(&rig, 0, &[]).await;
    rig.lead(&a).await;
    fill(&a, 5, 16).await;
    (rig, a)
}

/// A snapshot of so many keys of so many bytes; from then on nobody leads.
async fn deposed(rig: &mut Rig, master: &TestAgent, keys: u32, bytes: usize) -> SnapshotId {
    fill(master, keys, bytes).await;
    let id = backup(rig, master, "r").await;
    depose(rig).await;
    id
}

/// The next epoch, whose master is still to be found.
async fn depose(rig: &mut Rig) {
    rig.commit(|r| (r.epoch, r.phase) = (r.epoch + 1, Phase::Deposing)).await;
}

async fn restore(rig: &Rig, agent: &TestAgent, id: &SnapshotId) {
    let answer = rig.order(agent, Order::Restore { snapshot: id.clone() }).await;
    assert_eq!(answer.outcome, AnswerKind::Accepted, "{} {}", answer.reason, answer.message);
}

async fn loaded(rig: &Rig, agent: &TestAgent) -> State {
    until("the snapshot is loaded", async || {
        let state = agent.state(rig).await;
        assert_eq!(state.failed_source, None);
        Some(state).filter(|s| s.redis.as_ref().is_some_and(|r| r.answering && !r.loading))
    })
    .await
}

/// Waits until the restore is over and failed.
async fn failed(rig: &Rig, agent: &TestAgent) -> FailedSource {
    until("the failure is reported", async || {
        let state = agent.state(rig).await;
        state.failed_source.filter(|_| state.activity.is_none())
    })
    .await
}

/// Waits until a part of it is in the server.
async fn half_way(rig: &Rig, agent: &TestAgent) -> State {
    until("a part of it is loaded", async || {
        Some(agent.state(rig).await).filter(|s| s.redis.as_ref().is_some_and(|r| r.keys > 0 && r.loading))
    })
    .await
}

/// An agent whose sandbox holds a dump of an earlier time, and no server.
async fn with_old_dump(place: &Place, rig: &mut Rig, master: &TestAgent, instance: u32, more: &[&str]) -> (TestAgent, String) {
    let b = place.fed(rig, instance, more).await;
    let replica = rig.attach(&b, master).await;
    signal(replica.redis.unwrap().pid, Signal::KILL);
    let local = until("its dump is reported", async || b.state(rig).await.local).await;
    (b, local.sha256)
}

/// Waits until what lay in the sandbox is offered again, and nothing else is there.
async fn put_back(rig: &Rig, agent: &TestAgent, sha256: &str) {
    let state = until("the old dump is offered again", async || {
        Some(agent.state(rig).await).filter(|s| s.redis.is_none() && s.local.is_some() && s.activity.is_none())
    })
    .await;
    assert_eq!(state.local.unwrap().sha256, sha256);
    assert!(!agent.sandbox.join("held").exists());
}

#[tokio::test]
async fn a_server_of_every_kind_comes_to_the_same_as_from_a_file_and_nothing_touches_the_disk() {
    futures_util::future::join_all(servers().iter().map(async |(name, server)| {
        let mut rig = Rig::new(&format!("fed-{name}")).await;
        let place = Place::new();
        let program = ["--redis-server", server.to_str().unwrap()];
        let a = place.agent(&rig, 0, &program).await;
        rig.lead(&a).await;
        fill(&a, 300, 256).await;
        variety(&a).await;
        let (id, before) = (backup(&rig, &a, "r").await, read(&a).await);
        let manifest = place.manifest(&id).await;
        let position = manifest.position.clone().unwrap();

        let (b, c) = (place.fed(&rig, 1, &program).await, place.agent(&rig, 2, &program).await);
        depose(&mut rig).await;
        restore(&rig, &b, &id).await;
        restore(&rig, &c, &id).await;
        let (fed, filed) = (loaded(&rig, &b).await, loaded(&rig, &c).await);
        let stands = |state: &State| {
            let r = state.redis.clone().unwrap();
            let history = (r.replid2, r.replid2_end);
            ((state.role, state.serving, r.source, r.started_epoch, r.keys, r.open, r.following), history)
        };
        let (fed_stands, filed_stands) = (stands(&fed), stands(&filed));
        assert_eq!(fed_stands.0, filed_stands.0, "{name}");
        // Before 7.0 a server that is started from a file forgets where its data comes from.
        assert!(fed_stands.1 == filed_stands.1 || *name == "redis-6.2", "{name}: {fed_stands:?} {filed_stands:?}");
        let r = fed.redis.clone().unwrap();
        assert_eq!((r.replid2, r.replid2_end), (Some(position.replid.clone()), Some(position.offset + 1)), "{name}");
        assert!(r.keys == manifest.total_keys().unwrap() && r.replid != position.replid, "{name}");
        for place in ["redis/dump.rdb", "incoming", "held"] {
            assert!(!b.sandbox.join(place).exists(), "{name}: {place}");
        }
        assert!(!is_open(&b.redis()), "{name}: closed until it is promoted");

        let state = rig.promote(&b, &fed).await;
        assert_eq!(read(&b).await, before, "{name}");
        // What follows it gets everything, and the settings of the restore are gone: it follows in its turn.
        signal(filed.redis.unwrap().pid, Signal::KILL);
        until("it is gone", async || c.state(&rig).await.redis.is_none().then_some(())).await;
        let replica = rig.attach(&c, &b).await.redis.unwrap();
        assert_eq!(replica.replid, state.redis.unwrap().replid, "{name}");
        let replica = c.state(&rig).await;
        rig.promote(&c, &replica).await;
        let run_id = b.state(&rig).await.redis.unwrap().run_id;
        assert!(rig.record.known_replicas.iter().any(|m| m.run_id == run_id), "{name}");
        rig.follow(&b, &c).await;
        assert_eq!(read(&b).await, before, "{name}");
    }))
    .await;
}

#[tokio::test]
async fn a_damaged_piece_never_reaches_the_server_and_what_lay_there_comes_back() {
    let place = Place::new();
    let (mut rig, a) = begun("fed-damaged", &place).await;
    let (b, sha256) = with_old_dump(&place, &mut rig, &a, 1, &[]).await;
    let id = deposed(&mut rig, &a, 36, 256 << 10).await;
    let mut bytes = std::fs::read(place.dump(&id)).unwrap();
    bytes[5 << 20] ^= 1;
    std::fs::write(place.dump(&id), &bytes).unwrap();
    restore(&rig, &b, &id).await;
    let failure = failed(&rig, &b).await;
    assert_eq!((failure.source, failure.definite), (format!("snapshot:{id}"), true));
    assert!(failure.why.contains("piece 2 of 3") && failure.why.contains("offset 4194304"), "{}", failure.why);
    put_back(&rig, &b, &sha256).await;

    // The last byte of all: the server has got everything before the last piece, and no more.
    bytes[5 << 20] ^= 1;
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(place.dump(&id), &bytes).unwrap();
    restore(&rig, &b, &id).await;
    let failure = until("the other piece", async || failed_with(&rig, &b, "piece 3 of 3").await).await;
    assert!(failure.definite, "{}", failure.why);
    put_back(&rig, &b, &sha256).await;
    rig.done(&b, Order::Start { source: Source::Local { sha256 } }).await;
    assert_eq!(loaded(&rig, &b).await.redis.unwrap().keys, 5);
}

async fn failed_with(rig: &Rig, agent: &TestAgent, words: &str) -> Option<FailedSource> {
    let state = agent.state(rig).await;
    state.failed_source.filter(|failed| state.activity.is_none() && failed.why.contains(words))
}

#[tokio::test]
async fn half_of_it_is_no_copy_leads_nobody_and_is_given_up_when_told() {
    let place = Place::new();
    let (mut rig, a) = begun("fed-half", &place).await;
    let (b, sha256) = with_old_dump(&place, &mut rig, &a, 1, &["--redis-config", SLOW_LOAD]).await;
    let id = deposed(&mut rig, &a, 400, 32 << 10).await;
    restore(&rig, &b, &id).await;
    let state = half_way(&rig, &b).await;
    assert!(state.activity.as_ref().is_some_and(|a| a.what == "restoring" && a.total_bytes > 0), "{:?}", state.activity);
    assert!(!state.serving && !is_open(&b.redis()));
    let promote = rig.order(&b, Order::Promote { asks: Vec::new() }).await;
    assert_eq!((promote.outcome, promote.reason.as_str()), (AnswerKind::Refused, "loading"));
    let follow = rig.order(&b, Order::Follow { master: a.redis(), fork: None }).await;
    assert_eq!((follow.outcome, follow.reason.as_str()), (AnswerKind::Refused, "loading"));
    rig.done(&b, Order::Stop).await;
    put_back(&rig, &b, &sha256).await;
}

#[tokio::test]
async fn an_agent_killed_on_the_way_leaves_what_lay_there_and_the_next_one_begins_anew() {
    let place = Place::new();
    let (mut rig, a) = begun("fed-killed", &place).await;
    let (mut b, sha256) = with_old_dump(&place, &mut rig, &a, 1, &["--redis-config", SLOW_LOAD]).await;
    let id = deposed(&mut rig, &a, 400, 32 << 10).await;
    restore(&rig, &b, &id).await;
    half_way(&rig, &b).await;
    b.kill();
    b.start(&rig).await;
    put_back(&rig, &b, &sha256).await;
    restore(&rig, &b, &id).await;
    let state = loaded(&rig, &b).await;
    assert_eq!(state.redis.as_ref().unwrap().keys, 400);
    rig.promote(&b, &state).await;
    let asides: Vec<_> = std::fs::read_dir(b.sandbox.join("aside")).unwrap().collect();
    assert_eq!(asides.len(), 1, "what lay there is not wanted any more, and kept");
}

#[tokio::test]
async fn a_server_that_dies_on_the_way_or_right_after_it_is_started_again_and_never_empty() {
    let place = Place::new();
    let (mut rig, a) = begun("fed-dies", &place).await;
    let b = place.fed(&rig, 1, &["--redis-config", "key-load-delay=2000"]).await;
    let id = deposed(&mut rig, &a, 400, 32 << 10).await;
    restore(&rig, &b, &id).await;
    signal(half_way(&rig, &b).await.redis.unwrap().pid, Signal::KILL);
    let failure = failed(&rig, &b).await;
    assert!(!failure.definite && failure.why.contains("the server ended while it loaded"), "{}", failure.why);
    for promoted in [false, true] {
        rig.order(&b, Order::Restore { snapshot: id.clone() }).await;
        let state = until("the snapshot is loaded", async || {
            Some(b.state(&rig).await).filter(|s| s.redis.as_ref().is_some_and(|r| r.answering && !r.loading))
        })
        .await;
        assert_eq!(state.redis.as_ref().unwrap().keys, 400);
        if promoted {
            rig.promote(&b, &state).await;
        }
        signal(state.redis.unwrap().pid, Signal::KILL);
        let idle = until("it is idle", async || Some(b.state(&rig).await).filter(|s| s.redis.is_none() && s.activity.is_none()));
        assert_eq!(idle.await.local, None, "there is nothing that a server could start from but the snapshot");
    }
    depose(&mut rig).await;
    restore(&rig, &b, &id).await;
    until("it is loaded again", async || b.state(&rig).await.redis.filter(|r| r.answering && !r.loading && r.keys == 400)).await;
}

#[tokio::test]
async fn a_dump_that_the_server_cannot_load_is_refused_before_anything_is_touched() {
    let all = servers();
    let program = |name: &str| all.iter().find(|(n, _)| *n == name).unwrap().1.to_str().unwrap().to_owned();
    for (writer, reader) in [("redis-8", "redis-7.0"), ("valkey-9", "redis-8"), ("redis-8", "valkey-9")] {
        let mut rig = Rig::new(&format!("fed-newer-{writer}")).await;
        let place = Place::new();
        let a = place.agent(&rig, 0, &["--redis-server", &program(writer)]).await;
        rig.lead(&a).await;
        fill(&a, 3, 16).await;
        let id = backup(&rig, &a, "r").await;
        let b = place.fed(&rig, 1, &["--redis-server", &program(reader)]).await;
        depose(&mut rig).await;
        restore(&rig, &b, &id).await;
        let failure = failed(&rig, &b).await;
        assert!(failure.definite && failure.why.contains("cannot load a dump in format"), "{writer}: {}", failure.why);
        assert!(!b.log().contains("redis-server started"), "{writer}");
    }
}

#[tokio::test]
async fn what_is_judged_ahead_is_not_kept() {
    let place = Place::new();
    let (mut rig, a) = begun("fed-ahead", &place).await;
    let b = place.fed(&rig, 1, &[]).await;
    rig.attach(&b, &a).await;
    fill(&a, 36, 256 << 10).await;
    let id = backup(&rig, &a, "r").await;
    for (flipped, words) in [(false, None), (true, Some("piece 2 of 3"))] {
        if flipped {
            let mut bytes = std::fs::read(place.dump(&id)).unwrap();
            bytes[5 << 20] ^= 1;
            std::fs::write(place.dump(&id), bytes).unwrap();
        }
        let request_id = format!("ahead-{flipped}");
        let answer = rig.order(&b, Order::Prepare { request_id: request_id.clone(), snapshot: id.clone() }).await;
        assert_eq!(answer.outcome, AnswerKind::Accepted, "{} {}", answer.reason, answer.message);
        let prepared = until("it is judged", async || b.state(&rig).await.prepared.filter(|p| p.request_id == request_id)).await;
        match words {
            Some(words) => assert!(prepared.problem.as_ref().unwrap().contains(words), "{prepared:?}"),
            None => assert_eq!(prepared.problem, None),
        }
        assert!(!b.sandbox.join("incoming").exists());
    }
}

/// What the kernel says of a process's memory, bytes.
fn resident(pid: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_matches([':', ' ', '\t']).strip_suffix(" kB").unwrap().trim().parse::<u64>().unwrap() << 10
}

#[tokio::test]
async fn the_agents_memory_does_not_grow_with_the_snapshot() {
    let place = Place::new();
    let (mut rig, a) = begun("fed-large", &place).await;
    let b = place.fed(&rig, 1, &[]).await;
    let id = deposed(&mut rig, &a, 160, 1 << 20).await;
    restore(&rig, &b, &id).await;
    let state = loaded(&rig, &b).await;
    let peak = resident(state.agent.pid, "VmHWM");
    assert!(peak < 64 << 20, "{peak} bytes at most");
    assert_eq!(state.redis.unwrap().keys, 160);
}
