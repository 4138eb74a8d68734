//! Dumps on their way to the store and back, on a `file://` store.

#![allow(clippy::unwrap_used)]

mod common;

use agent::api::{AnswerKind, FailedSource, Order, Settings, Source, State};
use agent::record::Phase;
use agent::snapshot::{How, SnapshotId};
use agent::store::{Options, Store};
use common::{CLUSTER, Rig, TestAgent, ask, scratch, signal, until};
use rustix::process::Signal;

struct Stored {
    uri: String,
    dir: std::path::PathBuf,
    store: Store,
}

impl Stored {
    /// The store's directory becomes a file: nothing can be written below it.
    fn block(&self) {
        std::fs::remove_dir(&self.dir).unwrap();
        std::fs::write(&self.dir, "in the way").unwrap();
    }

    fn unblock(&self) {
        std::fs::remove_file(&self.dir).unwrap();
        std::fs::create_dir(&self.dir).unwrap();
    }
}

impl Drop for Stored {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn stored() -> Stored {
    let dir = scratch("store");
    let uri = format!("file://{}", dir.display());
    let store = Store::open(&uri, CLUSTER, Options::default()).unwrap();
    Stored { uri, dir, store }
}

async fn fill(agent: &TestAgent, keys: u32) {
    for n in 0..keys {
        ask(&agent.redis(), &format!("SET key:{n} value-{n}")).await.unwrap();
    }
}

async fn backup(rig: &Rig, agent: &TestAgent, request: &str) -> SnapshotId {
    let answer = rig.order(agent, Order::Backup { request_id: request.into(), how: How::Dump }).await;
    assert_eq!(answer.outcome, AnswerKind::Accepted, "{} {}", answer.reason, answer.message);
    let state = until("the snapshot is committed", async || {
        Some(agent.state(rig).await).filter(|s| s.uploads.last_request_id.as_deref() == Some(request))
    })
    .await;
    assert_eq!((state.uploads.pending, state.uploads.error), (0, None));
    state.uploads.last_request_snapshot.unwrap()
}

async fn failed(rig: &Rig, agent: &TestAgent) -> FailedSource {
    until("the failure is reported", async || agent.state(rig).await.failed_source).await
}

async fn restored(rig: &Rig, agent: &TestAgent) -> State {
    until("the snapshot is loaded", async || {
        Some(agent.state(rig).await).filter(|s| s.redis.as_ref().is_some_and(|r| r.answering && !r.loading))
    })
    .await
}

#[tokio::test]
async fn a_backup_becomes_a_snapshot_that_another_instance_restores() {
    let mut rig = Rig::new("backup").await;
    let stored = stored();
    let a = rig.agent(0, &["--snapshots-uri", &stored.uri]).await;
    rig.lead(&a).await;
    fill(&a, 50).await;
    let id = backup(&rig, &a, "request-1").await;
    let manifest = stored.store.manifest(&id).await.unwrap();
    assert_eq!((manifest.cluster_id.as_str(), manifest.epoch, manifest.instance), (rig.record.cluster_id.as_str(), 2, 0));
    assert_eq!((manifest.total_keys(), manifest.request_id.as_deref()), (Some(50), Some("request-1")));
    assert!(manifest.position.is_some(), "a master's dump carries its position from the start");
    let again = rig.order(&a, Order::Backup { request_id: "request-1".into(), how: How::Dump }).await;
    assert_eq!(again.outcome, AnswerKind::Done, "the same request makes no second dump");

    let b = rig.agent(1, &["--snapshots-uri", &stored.uri]).await;
    rig.commit(|r| (r.epoch, r.phase) = (r.epoch + 1, Phase::Deposing)).await;
    let answer = rig.order(&b, Order::Restore { snapshot: id.clone() }).await;
    assert_eq!(answer.outcome, AnswerKind::Accepted, "{} {}", answer.reason, answer.message);
    let state = restored(&rig, &b).await;
    let server = state.redis.clone().unwrap();
    assert_eq!((server.source, server.started_epoch, server.keys, server.open), (format!("snapshot:{id}"), 3, 50, false));
    assert_eq!(rig.order(&b, Order::Restore { snapshot: id }).await.outcome, AnswerKind::Done);
    rig.promote(&b, &state).await;
    assert_eq!(ask(&b.redis(), "GET key:49").await.unwrap(), "value-49");
}

#[tokio::test]
async fn every_dump_that_redis_makes_by_itself_is_stored() {
    let mut rig = Rig::new("by-itself").await;
    let stored = stored();
    let (a, b) = (rig.agent(0, &[]).await, rig.agent(1, &["--snapshots-uri", &stored.uri]).await);
    rig.lead(&a).await;
    fill(&a, 5).await;
    let replica = rig.attach(&b, &a).await;
    assert!(b.sandbox.join("redis/dump.rdb").exists(), "a full sync leaves a file");
    rig.done(&b, Order::Configure { settings: Settings { save: "1 1".into(), min_replicas_to_write: 0 } }).await;
    fill(&a, 10).await;
    let state = until("a snapshot", async || Some(b.state(&rig).await).filter(|s| s.uploads.last.is_some())).await;
    let manifest = stored.store.manifest(&state.uploads.last.unwrap()).await.unwrap();
    assert_eq!((manifest.request_id, manifest.epoch, manifest.instance), (None, 2, 1));
    assert_eq!(manifest.position.unwrap().replid, replica.redis.unwrap().replid);
    assert!(manifest.keys.unwrap()[&0] >= 5);
}

#[tokio::test]
async fn an_upload_that_cannot_go_is_kept_reported_and_done_by_the_next_agent() {
    let mut rig = Rig::new("resume").await;
    let stored = stored();
    stored.block();
    let mut a = rig.agent(0, &["--snapshots-uri", &stored.uri]).await;
    rig.lead(&a).await;
    fill(&a, 3).await;
    assert_eq!(rig.order(&a, Order::Backup { request_id: "r".into(), how: How::Dump }).await.outcome, AnswerKind::Accepted);
    let state = until("the error is reported", async || Some(a.state(&rig).await).filter(|s| s.uploads.error.is_some())).await;
    assert_eq!((state.uploads.pending, state.uploads.last), (1, None));
    assert_eq!(
        rig.order(&a, Order::Backup { request_id: "r".into(), how: How::Dump }).await.outcome,
        AnswerKind::Accepted,
        "under way"
    );
    a.kill();
    stored.unblock();
    a.start(&rig).await;
    let state = until("the upload is done", async || Some(a.state(&rig).await).filter(|s| s.uploads.last.is_some())).await;
    assert_eq!((state.uploads.last_request_id.as_deref(), state.uploads.pending), (Some("r"), 0));
    let local = until("the dump is reported", async || a.state(&rig).await.local).await;
    let manifest = stored.store.manifest(&state.uploads.last.unwrap()).await.unwrap();
    assert_eq!((manifest.sha256.to_string(), manifest.epoch), (local.sha256, local.epoch));
}

#[tokio::test]
async fn a_dump_whose_structure_is_broken_is_dropped_with_the_reason_and_the_snapshot_before_it_stays() {
    let mut rig = Rig::new("structure").await;
    let stored = stored();
    let mut a = rig.agent(0, &["--snapshots-uri", &stored.uri]).await;
    rig.lead(&a).await;
    fill(&a, 3).await;
    let good = backup(&rig, &a, "r").await;
    let mut bytes = std::fs::read(a.sandbox.join("redis/dump.rdb")).unwrap();
    bytes.truncate(bytes.len() - 9);
    bytes.extend(b"\xf0\x01k\x01v\xff");
    bytes.extend(crc::Crc::<u64>::new(&crc::CRC_64_REDIS).checksum(&bytes).to_le_bytes());
    a.kill();
    std::fs::write(a.sandbox.join("spool/7.rdb"), bytes).unwrap();
    std::fs::write(
        a.sandbox.join("spool/7.json"),
        r#"{"epoch":2,"server_version":"7.0.15","request_id":"broken","created_ms":7,"duration_ms":1,"keys":{"0":3}}"#,
    )
    .unwrap();
    a.start(&rig).await;
    let state = until("it is given up", async || Some(a.state(&rig).await).filter(|s| s.uploads.failed_request.is_some())).await;
    let (request, why) = state.uploads.failed_request.unwrap();
    assert!(request == "broken" && why.contains("neither an opcode nor a kind of value"), "{why}");
    assert!(state.problem.unwrap().contains("the snapshots before it stay"));
    let names: Vec<String> = stored.store.list().await.unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!((names, state.uploads.pending), (vec![good.to_string()], 0));
    assert_eq!(stored.store.manifest(&good).await.unwrap().keys, Some([(0, 3)].into()), "counted in the file");
}

#[tokio::test]
async fn the_last_instance_saves_what_it_holds_to_the_store_before_it_ends() {
    let mut rig = Rig::new("last").await;
    let stored = stored();
    let mut a = rig.agent(0, &["--snapshots-uri", &stored.uri]).await;
    rig.lead(&a).await;
    fill(&a, 12).await;
    until("the keys are seen", async || a.state(&rig).await.redis.filter(|r| r.keys == 12)).await;
    assert_eq!(a.terminate().await, Some(0));
    let entries = stored.store.list().await.unwrap();
    let (_, manifest) = entries[0].usable(None).unwrap();
    assert_eq!((entries.len(), manifest.total_keys()), (1, Some(12)), "{}", a.log());
}

#[tokio::test]
async fn dumps_that_come_faster_than_the_store_takes_them_are_counted_and_the_newest_kept() {
    let mut rig = Rig::new("superseded").await;
    let stored = stored();
    stored.block();
    let a = rig.agent(0, &["--snapshots-uri", &stored.uri]).await;
    rig.lead(&a).await;
    for n in 0..5 {
        fill(&a, n + 1).await;
        until("the backup is begun", async || {
            let answer = rig.order(&a, Order::Backup { request_id: format!("r{n}"), how: How::Dump }).await;
            (answer.outcome == AnswerKind::Accepted).then_some(())
        })
        .await;
        until("its dump is made", async || {
            let uploads = a.state(&rig).await.uploads;
            (u64::from(uploads.pending) + uploads.superseded > u64::from(n)).then_some(())
        })
        .await;
    }
    let uploads = a.state(&rig).await.uploads;
    assert_eq!((uploads.pending, uploads.superseded), (3, 2), "one being copied, two waiting");
    assert_eq!(uploads.failed_request.unwrap().0, "r2", "of those that waited, the newest given up");
    stored.unblock();
    until("the newest is stored", async || a.state(&rig).await.uploads.last_request_id.filter(|r| r == "r4")).await;
    assert_eq!(stored.store.list().await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_damaged_snapshot_is_refused_with_what_and_where_and_nothing_is_touched() {
    let mut rig = Rig::new("damaged").await;
    let stored = stored();
    let a = rig.agent(0, &["--snapshots-uri", &stored.uri]).await;
    rig.lead(&a).await;
    fill(&a, 20).await;
    let id = backup(&rig, &a, "r").await;
    let file = stored.dir.join(CLUSTER).join("snapshots").join(id.as_str()).join("dump.rdb");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();

    let b = rig.agent(1, &["--snapshots-uri", &stored.uri]).await;
    rig.order(&b, Order::Restore { snapshot: id.clone() }).await;
    let failure = failed(&rig, &b).await;
    assert_eq!((failure.source, failure.definite), (format!("snapshot:{id}"), true));
    assert!(failure.why.contains("damaged at offset"), "{}", failure.why);
    let missing = SnapshotId::new(9, 0, 9);
    rig.order(&b, Order::Restore { snapshot: missing.clone() }).await;
    until("the other failure", async || b.state(&rig).await.failed_source.filter(|f| f.source == format!("snapshot:{missing}")))
        .await;
    assert!(b.state(&rig).await.redis.is_none());
    // What failed is no obstacle to what comes after it.
    rig.done(&b, Order::Start { source: Source::ReplicaOf { master: a.redis(), fork: None } }).await;
    assert_eq!(b.state(&rig).await.failed_source, None);
}

#[tokio::test]
async fn a_server_starts_again_from_the_dump_in_its_sandbox_and_from_no_other() {
    let mut rig = Rig::new("local").await;
    let stored = stored();
    let a = rig.agent(0, &["--snapshots-uri", &stored.uri]).await;
    let server = rig.lead(&a).await.redis.unwrap();
    fill(&a, 7).await;
    backup(&rig, &a, "r").await;
    signal(server.pid, Signal::KILL);
    let local = until("the dump is reported", async || a.state(&rig).await.local).await;
    assert_eq!((local.epoch, local.position.as_ref().unwrap().replid.as_str()), (2, server.replid.as_str()));

    rig.commit(|r| (r.epoch, r.phase) = (r.epoch + 1, Phase::Deposing)).await;
    let other = rig.order(&a, Order::Start { source: Source::Local { sha256: "0".repeat(64) } }).await;
    assert_eq!((other.outcome, other.reason.as_str()), (AnswerKind::Refused, "other-dump"));
    let state = rig.done(&a, Order::Start { source: Source::Local { sha256: local.sha256.clone() } }).await;
    assert_eq!(state.redis.as_ref().unwrap().source, format!("local:{}", local.sha256));
    let state = restored(&rig, &a).await;
    assert_eq!(state.redis.as_ref().unwrap().keys, 7);
    rig.promote(&a, &state).await;

    // A damaged dump is never given to a server.
    let pid = a.state(&rig).await.redis.unwrap().pid;
    signal(pid, Signal::KILL);
    until("it is dead", async || a.state(&rig).await.redis.is_none().then_some(())).await;
    let dump = a.sandbox.join("redis/dump.rdb");
    let mut bytes = std::fs::read(&dump).unwrap();
    bytes.truncate(bytes.len() - 20);
    std::fs::write(&dump, bytes).unwrap();
    rig.commit(|r| (r.epoch, r.phase) = (r.epoch + 1, Phase::Deposing)).await;
    let answer = rig.order(&a, Order::Start { source: Source::Local { sha256: local.sha256 } }).await;
    assert_eq!((answer.outcome, answer.reason.as_str()), (AnswerKind::Refused, "bad-dump"));
    assert!(failed(&rig, &a).await.definite);
    // Starting empty sets it aside.
    rig.done(&a, Order::Start { source: Source::Empty }).await;
    let asides: Vec<_> = std::fs::read_dir(a.sandbox.join("aside")).unwrap().collect();
    assert_eq!(asides.len(), 1);
}

#[tokio::test]
async fn a_server_program_is_fetched_when_its_sum_fits() {
    let mut rig = Rig::new("program").await;
    let dir = scratch("program");
    let file = dir.join("redis-server");
    let path = std::env::var_os("PATH").unwrap();
    let program =
        std::env::split_paths(&path).map(|d| d.join("redis-server")).find(|p| p.is_file()).expect("redis-server is on the path");
    std::fs::copy(program, &file).unwrap();
    let sha256 = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(std::fs::read(&file).unwrap()));
    let uri = format!("file://{}", file.display());
    let wrong = rig.agent(0, &["--redis-server-uri", &uri, "--redis-server-sha256", &"0".repeat(64)]).await;
    let problem = until("the other file is reported", async || wrong.state(&rig).await.problem).await;
    assert!(problem.contains("SHA-256"), "{problem}");
    let answer = rig.order(&wrong, Order::Start { source: Source::Empty }).await;
    assert_eq!((answer.outcome, answer.reason.as_str()), (AnswerKind::Refused, "no-program"));

    let agent = rig.agent(1, &["--redis-server-uri", &uri, "--redis-server-sha256", &sha256]).await;
    until("it is fetched", async || agent.state(&rig).await.activity.is_none().then_some(())).await;
    rig.lead(&agent).await;
    let server = std::fs::read_link(format!("/proc/{}/exe", agent.state(&rig).await.redis.unwrap().pid)).unwrap();
    assert!(server.starts_with(agent.sandbox.join("bin")), "{}", server.display());
    std::fs::remove_dir_all(&dir).unwrap();
}
