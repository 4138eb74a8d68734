//! Backups straight from the replication stream of real servers, on a `file://` store.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use agent::api::{AnswerKind, Order, Settings, State};
use agent::record::Phase;
use agent::snapshot::{How, Made, Manifest, SnapshotId};
use agent::store::{Options, Store};
use common::{CLUSTER, Rig, TestAgent, ask, scratch, servers, signal, until};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

/// Makes the copy of a few hundred keys take a few seconds.
const SLOW_COPY: &str = "rdb-key-save-delay=5000";

struct Place {
    uri: String,
    dir: std::path::PathBuf,
    store: Store,
}

impl Place {
    fn new() -> Place {
        let dir = scratch("stream");
        let uri = format!("file://{}", dir.display());
        Place { store: Store::open(&uri, CLUSTER, Options::default()).unwrap(), uri, dir }
    }

    /// An agent that backs up into this place, and takes turns with nobody else's.
    async fn agent(&self, rig: &Rig, instance: u32, more: &[&str]) -> TestAgent {
        let lock = self.dir.join("fork.lock").display().to_string();
        let mut arguments = vec!["--snapshots-uri", &self.uri, "--snapshots-fork-lock", &lock];
        arguments.extend(more);
        rig.agent(instance, &arguments).await
    }

    async fn stored(&self) -> usize {
        self.store.list().await.unwrap().len()
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

/// Keys that do not compress, in one go.
async fn fill(agent: &TestAgent, keys: u32) {
    let mut pipe = redis::pipe();
    for n in 0..keys {
        let value: Vec<u8> = (0..16).flat_map(|_| *uuid::Uuid::new_v4().as_bytes()).collect();
        pipe.cmd("SET").arg(format!("key:{n}")).arg(value).ignore();
    }
    pipe.query_async::<()>(&mut common::redis(&agent.redis()).await).await.unwrap();
}

async fn begin(rig: &Rig, agent: &TestAgent, request: &str) {
    let answer = rig.order(agent, Order::Backup { request_id: request.into(), how: How::Stream }).await;
    assert_eq!(answer.outcome, AnswerKind::Accepted, "{} {}", answer.reason, answer.message);
}

async fn committed(rig: &Rig, agent: &TestAgent, request: &str) -> SnapshotId {
    let state = until("the snapshot is committed", async || {
        let state = agent.state(rig).await;
        assert_eq!(state.uploads.failed_request, None);
        (state.uploads.last_request_id.as_deref() == Some(request)).then_some(state)
    })
    .await;
    state.uploads.last_request_snapshot.unwrap()
}

async fn failed(rig: &Rig, agent: &TestAgent, request: &str) -> String {
    let failure = until("the failure is reported", async || agent.state(rig).await.uploads.failed_request).await;
    assert_eq!(failure.0, request);
    failure.1
}

/// The error of an attempt that will be followed by another.
async fn error(rig: &Rig, agent: &TestAgent) -> String {
    until("the error is reported", async || agent.state(rig).await.uploads.error).await
}

/// The lines of replicas in the server's own words.
async fn replicas(agent: &TestAgent) -> Vec<String> {
    let info = ask(&agent.redis(), "INFO replication").await.unwrap();
    info.lines().filter(|line| line.starts_with("slave") && line.contains("ip=")).map(str::to_owned).collect()
}

async fn is_read(agent: &TestAgent) -> Option<String> {
    replicas(agent).await.into_iter().find(|line| line.contains("ip=aurora-redis-backup,"))
}

#[tokio::test]
async fn a_stream_of_every_server_in_both_framings_becomes_a_snapshot_that_is_restored() {
    futures_util::future::join_all(servers().iter().map(async |(name, server)| {
        for diskless in ["yes", "no"] {
            let mut rig = Rig::new(&format!("stream-{name}-{diskless}")).await;
            let place = Place::new();
            let program = server.to_str().unwrap();
            let diskless = format!("repl-diskless-sync={diskless}");
            let a = place.agent(&rig, 0, &["--redis-server", program, "--redis-config", &diskless]).await;
            let server = rig.lead(&a).await.redis.unwrap();
            fill(&a, 300).await;
            let offset = a.state(&rig).await.redis.unwrap().offset;
            begin(&rig, &a, "r").await;
            let id = committed(&rig, &a, "r").await;
            let manifest = place.manifest(&id).await;
            assert_eq!((manifest.how, manifest.total_keys(), manifest.epoch), (Made::Stream, Some(300), 2), "{name}");
            let position = manifest.position.unwrap();
            assert!(position.replid == server.replid && position.offset >= offset, "{name}: {position:?}, before: {offset}");
            if diskless.ends_with("yes") {
                assert!(!a.sandbox.join("redis/dump.rdb").exists(), "{name}: nothing on the disk");
                assert_eq!(std::fs::read_dir(a.sandbox.join("spool")).unwrap().count(), 0);
            }
            assert_eq!(replicas(&a).await, [""; 0], "{name}: it hangs up");
            let value = ask(&a.redis(), "STRLEN key:299").await.unwrap();

            let b = place.agent(&rig, 1, &["--redis-server", program]).await;
            rig.commit(|r| (r.epoch, r.phase) = (r.epoch + 1, Phase::Deposing)).await;
            rig.order(&b, Order::Restore { snapshot: id }).await;
            let state = loaded(&rig, &b).await;
            rig.promote(&b, &state).await;
            assert_eq!(ask(&b.redis(), "STRLEN key:299").await.unwrap(), value, "{name}");
        }
    }))
    .await;
}

async fn loaded(rig: &Rig, agent: &TestAgent) -> State {
    until("the snapshot is loaded", async || {
        Some(agent.state(rig).await).filter(|s| s.redis.as_ref().is_some_and(|r| r.answering && !r.loading))
    })
    .await
}

#[tokio::test]
async fn while_it_is_read_neither_wait_nor_min_replicas_nor_the_agent_takes_it_for_a_replica() {
    futures_util::future::join_all(servers().iter().flat_map(|server| [(server, "yes"), (server, "no")]).map(
        async |((name, server), diskless)| {
            let mut rig = Rig::new(&format!("wait-{name}-{diskless}")).await;
            let place = Place::new();
            let diskless = format!("repl-diskless-sync={diskless}");
            let settings = ["--redis-server", server.to_str().unwrap(), "--redis-config", SLOW_COPY, "--redis-config", &diskless];
            let a = place.agent(&rig, 0, &settings).await;
            rig.lead(&a).await;
            fill(&a, 300).await;
            begin(&rig, &a, "r").await;
            until("it is being read", async || is_read(&a).await).await;
            let mut looks = 0;
            // To its end, and a little beyond.
            let mut after = 0;
            while after < 3 {
                let done = a.state(&rig).await.uploads.last_request_id.is_some();
                let mut connection = common::redis(&a.redis()).await;
                let (_, waited): (String, u32) = redis::pipe()
                    .cmd("SET")
                    .arg("x")
                    .arg(looks)
                    .cmd("WAIT")
                    .arg(1)
                    .arg(50)
                    .query_async(&mut connection)
                    .await
                    .unwrap();
                assert_eq!(waited, 0, "{name}: WAIT counted it");
                assert_eq!(a.state(&rig).await.redis.unwrap().connected_replicas, 0, "{name}");
                for line in replicas(&a).await {
                    assert!(line.contains("ip=aurora-redis-backup,") && !line.contains("state=online"), "{name}: {line}");
                }
                (looks, after) = (looks + 1, after + usize::from(done));
            }
            assert!(looks > 8, "{name}: it was looked at {looks} times only");
            committed(&rig, &a, "r").await;

            rig.done(&a, Order::Configure { settings: Settings { save: String::new(), min_replicas_to_write: 1 } }).await;
            begin(&rig, &a, "s").await;
            until("it is being read", async || is_read(&a).await).await;
            while a.state(&rig).await.uploads.last_request_id.as_deref() != Some("s") {
                let refused = ask(&a.redis(), "SET x 1").await.unwrap_err();
                assert_eq!(refused.code(), Some("NOREPLICAS"), "{name}: {refused}");
            }
        },
    ))
    .await;
}

#[tokio::test]
async fn a_replica_is_the_source_and_its_master_forks_for_nobody() {
    let mut rig = Rig::new("from-replica").await;
    let place = Place::new();
    let (a, b) = (place.agent(&rig, 0, &[]).await, place.agent(&rig, 1, &["--redis-config", SLOW_COPY]).await);
    rig.lead(&a).await;
    fill(&a, 100).await;
    rig.attach(&b, &a).await;
    let forks =
        async || ask(&a.redis(), "INFO stats").await.unwrap().lines().find(|l| l.starts_with("total_forks")).unwrap().to_owned();
    let before = forks().await;
    begin(&rig, &b, "r").await;
    let activity = until("progress is shown", async || {
        b.state(&rig).await.activity.filter(|activity| activity.what == "streaming" && activity.total_bytes > 0)
    })
    .await;
    assert_eq!(activity.subject, "r");
    let id = committed(&rig, &b, "r").await;
    let manifest = place.manifest(&id).await;
    assert_eq!((manifest.instance, manifest.total_keys()), (1, Some(100)));
    assert_eq!(manifest.position.unwrap().replid, a.state(&rig).await.redis.unwrap().replid);
    assert_eq!(forks().await, before);
}

#[tokio::test]
async fn beyond_the_spool_it_is_given_up_with_the_reason_and_the_next_try_passes() {
    let mut rig = Rig::new("spool").await;
    let place = Place::new();
    let a = place.agent(&rig, 0, &["--snapshots-spool-memory", "1kb", "--snapshots-spool-disk", "2kb"]).await;
    rig.lead(&a).await;
    fill(&a, 1000).await;
    begin(&rig, &a, "r").await;
    let why = error(&rig, &a).await;
    assert!(why.contains("slower than the server: 1024 bytes in memory") && why.contains("snapshots.spool_disk"), "{why}");
    assert_eq!(place.stored().await, 0);
    ask(&a.redis(), "FLUSHALL").await.unwrap();
    let manifest = place.manifest(&committed(&rig, &a, "r").await).await;
    assert_eq!(manifest.total_keys(), Some(0));
    assert_eq!(a.state(&rig).await.uploads.error, None);
}

#[tokio::test]
async fn a_server_that_dies_on_the_way_leaves_nothing_and_is_not_asked_again() {
    let mut rig = Rig::new("dies").await;
    let place = Place::new();
    let a = place.agent(&rig, 0, &["--redis-config", SLOW_COPY]).await;
    let server = rig.lead(&a).await.redis.unwrap();
    fill(&a, 1000).await;
    begin(&rig, &a, "r").await;
    until("it is being read", async || is_read(&a).await).await;
    signal(server.pid, Signal::KILL);
    let why = failed(&rig, &a, "r").await;
    assert!(why.contains("the server is dead"), "{why}");
    assert_eq!(place.stored().await, 0);
}

/// Takes the place of a server's unix socket and spoils the first copy that passes.
async fn spoil_first_copy(socket: &Path) -> Arc<AtomicUsize> {
    let behind = socket.with_extension("behind");
    std::fs::rename(socket, &behind).unwrap();
    let (listener, copies) = (UnixListener::bind(socket).unwrap(), Arc::new(AtomicUsize::new(0)));
    let counted = copies.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = UnixStream::connect(&behind).await.unwrap();
            tokio::spawn(pass_on(client, server, counted.clone()));
        }
    });
    copies
}

async fn pass_on(mut client: UnixStream, mut server: UnixStream, copies: Arc<AtomicUsize>) {
    let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
    let (mut copy, mut passed) = (None, 0);
    loop {
        tokio::select! {
            Ok(n) = client.read(&mut up) => {
                if n == 0 || server.write_all(&up[..n]).await.is_err() {
                    return;
                }
                if up[..n].windows(5).any(|word| word == b"PSYNC") {
                    copy = Some(copies.fetch_add(1, Ordering::SeqCst));
                }
            }
            Ok(n) = server.read(&mut down) => {
                // In the middle of the dump.
                if copy == Some(0) && (passed..passed + n).contains(&20_000) {
                    down[20_000 - passed] ^= 4;
                }
                passed += if copy.is_some() { n } else { 0 };
                if n == 0 || client.write_all(&down[..n]).await.is_err() {
                    return;
                }
            }
            else => return,
        }
    }
}

#[tokio::test]
async fn a_copy_that_is_damaged_on_the_way_is_refused_and_asked_for_again() {
    let mut rig = Rig::new("flipped").await;
    let place = Place::new();
    let a = place.agent(&rig, 0, &[]).await;
    rig.lead(&a).await;
    fill(&a, 500).await;
    let copies = spoil_first_copy(&a.sandbox.join("redis/r.sock")).await;
    begin(&rig, &a, "r").await;
    let why = error(&rig, &a).await;
    assert!(why.contains("the copy came damaged"), "{why}");
    assert_eq!(place.stored().await, 0);
    let id = committed(&rig, &a, "r").await;
    assert_eq!((copies.load(Ordering::SeqCst), place.stored().await), (2, 1));
    assert_eq!(place.manifest(&id).await.total_keys(), Some(500));
}

#[tokio::test]
async fn agents_of_one_host_fork_one_after_the_other_and_a_killed_holder_holds_up_nobody() {
    let mut rig = Rig::new("turns").await;
    let place = Place::new();
    let (mut a, b) = (place.agent(&rig, 0, &["--redis-config", SLOW_COPY]).await, place.agent(&rig, 1, &[]).await);
    rig.lead(&a).await;
    fill(&a, 2000).await;
    rig.attach(&b, &a).await;
    let server = a.state(&rig).await.redis.unwrap();
    begin(&rig, &a, "a").await;
    until("it is being read", async || is_read(&a).await).await;
    let answer = rig.order(&b, Order::Backup { request_id: "b".into(), how: How::Dump }).await;
    assert_eq!(answer.outcome, AnswerKind::Accepted);
    let activity = until("it waits", async || b.state(&rig).await.activity.filter(|activity| activity.what == "waiting")).await;
    assert_eq!(activity.subject, "another backup on this host");
    a.kill();
    committed(&rig, &b, "b").await;
    signal(server.pid, Signal::KILL);
}

#[tokio::test]
async fn a_fork_for_which_memory_is_lacking_is_refused_with_numbers() {
    let mut rig = Rig::new("memory").await;
    let place = Place::new();
    let a = place.agent(&rig, 0, &["--snapshots-fork-memory-percent", "100000000"]).await;
    rig.lead(&a).await;
    for (request, how) in [("d", How::Dump), ("s", How::Stream)] {
        rig.order(&a, Order::Backup { request_id: request.into(), how }).await;
        let why =
            until("the refusal", async || a.state(&rig).await.uploads.failed_request.filter(|(id, _)| id == request)).await.1;
        assert!(why.contains("too little memory to fork") && why.contains("snapshots.fork_memory_percent"), "{why}");
    }
    assert_eq!(place.stored().await, 0);
}

/// What the kernel says of a process's memory, bytes.
fn resident(pid: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_matches([':', ' ', '\t']).strip_suffix(" kB").unwrap().trim().parse::<u64>().unwrap() << 10
}

/// The size is `AURORA_REDIS_STREAM_MIB`, by default enough to tell whether memory grows with it.
#[tokio::test]
async fn the_agents_memory_does_not_grow_with_the_dump() {
    let mib: u32 = std::env::var("AURORA_REDIS_STREAM_MIB").ok().and_then(|mib| mib.parse().ok()).unwrap_or(160);
    let mut rig = Rig::new("large").await;
    let place = Place::new();
    let a = place.agent(&rig, 0, &[]).await;
    rig.lead(&a).await;
    let mut connection = common::redis(&a.redis()).await;
    let mut value: Vec<u8> = (0..1 << 16).flat_map(|_| *uuid::Uuid::new_v4().as_bytes()).collect();
    for n in 0..mib {
        value[..4].copy_from_slice(&n.to_be_bytes());
        redis::cmd("SET").arg(n).arg(&value).query_async::<()>(&mut connection).await.unwrap();
    }
    let pid = a.state(&rig).await.agent.pid;
    let (before, begun) = (resident(pid, "VmRSS"), std::time::Instant::now());
    begin(&rig, &a, "r").await;
    let id = tokio::time::timeout(std::time::Duration::from_secs(600), async {
        while a.state(&rig).await.uploads.last_request_id.is_none() {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        committed(&rig, &a, "r").await
    });
    let id = id.await.expect("it is committed");
    let (took, peak, manifest) = (begun.elapsed(), resident(pid, "VmHWM"), place.manifest(&id).await);
    println!("{mib} MiB in {took:?} ({:?} ms on the wire), resident before {before}, at most {peak}", manifest.duration_ms);
    assert_eq!(manifest.total_keys(), Some(u64::from(mib)));
    assert!(peak < 64 << 20, "{peak} bytes at most, {before} before");
}
