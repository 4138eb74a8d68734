//! The scheduler's client and a real ZooKeeper: whom it asks while leaders come and go.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use aurora::client::{Client, Endpoint, Options};
use aurora::serverset::{self, Member};
use aurora::types::{Response, ResponseCode, ServerInfo};
use aurora::wire::{self, Reply};
use axum::http::header::CONTENT_TYPE;
use tests::harness::Bench;
use tests::harness::zookeeper::ZooKeeper;
use tokio::net::TcpListener;
use zookeeper_client as zk;

const SCHEDULERS: &str = "/aurora/scheduler";

/// Answers every call with OK under the name of a cluster; gives its port.
async fn scheduler(name: &'static str) -> Result<u16> {
    let answer = async move |body: axum::body::Bytes| {
        let (seqid, call) = wire::decode_call(&body).expect("a call");
        let server_info = Some(ServerInfo { cluster_name: name.to_owned(), stats_url_prefix: None });
        let response = Response { response_code: ResponseCode::OK, server_info, ..Response::default() };
        let bytes = wire::encode_reply(call.method(), seqid, &Reply::Response(response)).expect("known kinds only");
        ([(CONTENT_TYPE, wire::CONTENT_TYPE)], bytes)
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let app = axum::Router::new().route("/api", axum::routing::post(answer));
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(port)
}

/// A scheduler's member, in the bytes it would write.
fn member(port: u16) -> Vec<u8> {
    let endpoint = serverset::Endpoint { host: "127.0.0.1".to_owned(), port };
    Member::alive(endpoint.clone(), [("http".to_owned(), endpoint)].into(), None).to_json()
}

/// Adds a node as a scheduler does; the path made.
async fn add(session: &zk::Client, name: &str, data: &[u8]) -> Result<String> {
    let path = format!("{SCHEDULERS}/{name}");
    let options = zk::CreateMode::EphemeralSequential.with_acls(zk::Acls::anyone_all());
    let (_, sequence) = session.create(&path, data, &options).await?;
    Ok(format!("{path}{sequence}"))
}

fn client(session: &zk::Client, deadline: Duration) -> Client {
    let session = session.clone();
    let endpoint = Endpoint::zookeeper(SCHEDULERS, Arc::new(move || Ok(session.clone())));
    Client::new(endpoint, Options { deadline, ..Options::default() })
}

async fn asked(client: &Client) -> Result<String> {
    Ok(client.ping().await?.cluster_name)
}

async fn kind_of_failure(client: &Client) -> Result<&'static str> {
    match client.ping().await {
        Ok(server) => bail!("{} answered", server.cluster_name),
        Err(error) => {
            ensure!(error.is_definite(), "nobody was asked, yet: {error}");
            Ok(error.kind())
        }
    }
}

async fn follows_the_youngest_member(bench: Arc<Bench>) -> Result<()> {
    let zookeeper = ZooKeeper::single(&bench).await?;
    let session = zookeeper.client().await?;
    let (patient, impatient) = (client(&session, Duration::from_secs(30)), client(&session, Duration::from_millis(300)));
    ensure!(kind_of_failure(&impatient).await? == "no_leader", "without a directory");
    session.mkdir(SCHEDULERS, &zk::CreateMode::Persistent.with_acls(zk::Acls::anyone_all())).await?;
    add(&session, "_c_6f1c0d3e-lock-", b"host").await?;
    add(&session, "singleton_candidate_", b"host").await?;
    ensure!(kind_of_failure(&impatient).await? == "no_leader", "candidates do not lead");

    // The call is polled first, and one session keeps its order: its first look comes before the member does.
    let (waiting, first) =
        tokio::join!(asked(&patient), async { add(&session, "member_", &member(scheduler("first").await?)).await });
    ensure!(waiting.context("waiting for a leader")? == "first", "a leader that comes in time is asked");
    let first = first?;
    let second = add(&session, "member_", &member(scheduler("second").await?)).await?;
    ensure!(asked(&patient).await? == "second", "the youngest of two");
    session.delete(&second, None).await?;
    ensure!(asked(&patient).await? == "first", "the one that is left");

    for garbage in [&b"\x00\xff\xfe"[..], b"{\"serviceEndpoint\":[]}", &[b'['; 1 << 19]] {
        let path = add(&session, "member_", garbage).await?;
        ensure!(kind_of_failure(&impatient).await? == "member", "{} bytes of garbage", garbage.len());
        session.delete(&path, None).await?;
    }
    session.delete(&first, None).await?;
    ensure!(kind_of_failure(&impatient).await? == "no_leader", "all are gone");
    Ok(())
}

#[test]
fn the_client_follows_the_youngest_member() {
    Bench::run("scheduler-leader", follows_the_youngest_member);
}

#[test]
fn a_frozen_or_dead_zookeeper_is_named_and_bounded() {
    Bench::run("scheduler-leader-frozen", async |bench| {
        let mut zookeeper = ZooKeeper::single(&bench).await?;
        let session = zookeeper.client().await?;
        let client = client(&session, Duration::from_millis(500));
        zookeeper.freeze(0);
        let start = std::time::Instant::now();
        ensure!(kind_of_failure(&client).await? == "zookeeper", "frozen");
        zookeeper.kill(0);
        ensure!(kind_of_failure(&client).await? == "zookeeper", "dead");
        ensure!(start.elapsed() < Duration::from_secs(10), "took {:?}", start.elapsed());
        Ok(())
    });
}
