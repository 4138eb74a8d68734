use std::net::SocketAddr;

use agent::zk::Children;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::*;
use crate::example;
use crate::intake::Asked;
use crate::view::{Reply, SnapshotRow};

const TOKEN: &str = "0123456789abcdef";

/// A server on a free port, fed by hand.
struct Server {
    url: String,
    publish: watch::Sender<Arc<Published>>,
    asked: mpsc::Receiver<Asked>,
    candidates: watch::Sender<Children>,
}

async fn server(published: Published) -> Server {
    let (intake, publish, asked) = Intake::channel();
    publish.send_replace(Arc::new(published));
    let (candidates, watched) = watch::channel(Children::default());
    let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let doors = Doors {
        intake,
        token: Some(TOKEN.into()),
        agents: agent::client::Client::new(None),
        cluster: "www/prod/cache".into(),
        config: Effective::default(),
        metrics: Metrics::new(),
        leader: Leader { candidates: watched, own_url: url.clone() },
    };
    tokio::spawn(async move { axum::serve(listener, router(doors)).await });
    Server { url, publish, asked, candidates }
}

impl Server {
    async fn get(&self, path: &str) -> (u16, Value) {
        let answer = reqwest::get(format!("{}{path}", self.url)).await.unwrap();
        (answer.status().as_u16(), serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default())
    }

    async fn post(&self, token: Option<&str>, body: &Value) -> (u16, Value) {
        let mut request = reqwest::Client::new().post(format!("{}/api/v1/operations", self.url)).json(body);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    fn led_by(&self, url: &str) {
        let nodes = vec![("c-0000000001".to_owned(), url.as_bytes().to_vec())];
        self.candidates.send_replace(Children { nodes, read: true, problem: None });
    }
}

fn backup() -> Value {
    json!({"kind": "backup", "owner": "ann"})
}

#[tokio::test]
async fn views_have_the_fixed_shape() {
    let server = server(example::published()).await;
    let (status, cluster) = server.get("/api/v1/cluster").await;
    assert_eq!(status, 200);
    for key in
        ["cluster", "cluster_id", "epoch", "phase", "master", "instances", "snapshot", "conditions", "summary", "if_master_died"]
    {
        assert!(cluster.get(key).is_some(), "{key} in {cluster}");
    }
    assert_eq!(cluster["master"]["address"], json!("10.20.0.11:31002"));
    assert_eq!(cluster["instances"][1]["role"], "master");
    assert_eq!(cluster["operation"]["id"], "b1946ac9");
    assert_eq!(server.get("/api/v1/plan").await.1["cycle"], 812);
    assert_eq!(server.get("/api/v1/history").await.1[0]["pause_ms"], 640);
    assert_eq!(server.get("/api/v1/snapshots").await.1[1]["good"], false);
    assert_eq!(server.get("/api/v1/events?after=3").await.1.as_array().unwrap().len(), 2);
    assert_eq!(server.get("/api/v1/config").await, (200, json!({})));
}

#[tokio::test]
async fn a_program_reads_the_whole_answer_back() {
    let published = example::published();
    let server = server(published.clone()).await;
    let (_, answer) = server.get("/api/v1/cluster").await;
    let read: ClusterAnswer = serde_json::from_value(answer.clone()).unwrap();
    assert!(read.cluster.verified.as_ref().is_some_and(|row| row.verification.is_some()), "{answer}");
    assert_eq!(read.cluster, published.cluster);
    let rows: Vec<SnapshotRow> = serde_json::from_value(server.get("/api/v1/snapshots").await.1).unwrap();
    assert_eq!(rows, published.snapshots);
}

#[tokio::test]
async fn events_can_be_followed() {
    let server = server(example::published()).await;
    let mut answer = reqwest::get(format!("{}/api/v1/events?follow=true&after=4", server.url)).await.unwrap();
    let first = answer.chunk().await.unwrap().unwrap();
    assert_eq!(serde_json::from_slice::<Event>(&first).unwrap().seq, 5);
    let mut next = example::published();
    let event = Event { seq: 6, ..next.events[0].clone() };
    next.events.push_back(event);
    server.publish.send_replace(Arc::new(next));
    let second = answer.chunk().await.unwrap().unwrap();
    assert_eq!(serde_json::from_slice::<Event>(&second).unwrap().seq, 6);
    server.publish.send_replace(Arc::default());
    assert_eq!(answer.chunk().await.unwrap(), None, "the stream ends when another leads");
}

#[tokio::test]
async fn without_the_token_nothing_is_done() {
    let mut server = server(example::published()).await;
    for token in [None, Some(""), Some("0123456789abcdeX"), Some("0123456789abcdef0")] {
        let (status, body) = server.post(token, &backup()).await;
        assert_eq!(status, 401, "{token:?}");
        assert!(body["error"].as_str().unwrap().contains("nothing was done"));
    }
    assert!(server.asked.try_recv().is_err(), "somebody without the token was heard");
}

#[tokio::test]
async fn an_ask_is_taken_on_or_refused_with_the_reply() {
    let mut server = server(example::published()).await;
    let answers = [(true, 202), (false, 409)];
    let mut asked = std::mem::replace(&mut server.asked, mpsc::channel(1).1);
    tokio::spawn(async move {
        for (accepted, _) in answers {
            let Asked { ask, reply } = asked.recv().await.unwrap();
            assert_eq!(ask, Ask::Backup { owner: "ann".into(), how: None });
            reply.send(Reply { accepted, ..Reply::accepted("x", "because") }).unwrap();
        }
    });
    for (accepted, expected) in answers {
        let (status, body) = server.post(Some(TOKEN), &backup()).await;
        assert_eq!((status, &body["accepted"], &body["message"]), (expected, &json!(accepted), &json!("because")));
    }
    let metrics = reqwest::get(format!("{}/metrics", server.url)).await.unwrap().text().await.unwrap();
    assert!(metrics.contains("aurora_redis_controller_asks_total{accepted=\"false\",kind=\"backup\"} 1"), "{metrics}");
}

#[tokio::test]
async fn bad_input_is_answered_clearly_and_goes_no_further() {
    let mut server = server(example::published()).await;
    for (body, part) in [
        (json!({"kind": "explode", "owner": "ann"}), "unknown variant `explode`"),
        (json!({"kind": "scale", "owner": "ann", "instances": 0}), "from 1 to 1000"),
        (json!({"kind": "scale", "owner": "ann", "instances": -1}), "not understood"),
        (json!({"kind": "scale", "owner": "ann"}), "missing field `instances`"),
        (json!({"kind": "backup", "owner": "  "}), "owner says who asks"),
        (json!({"kind": "backup", "owner": "a\nb"}), "owner says who asks"),
        (json!({"kind": "restore", "owner": "ann", "snapshot": "../../etc"}), "is not a snapshot name"),
        (json!([1, 2]), "not understood"),
    ] {
        let (status, answer) = server.post(Some(TOKEN), &body).await;
        assert_eq!(status, 400, "{body}: {answer}");
        assert!(answer["error"].as_str().unwrap().contains(part), "{body}: {answer}");
    }
    let post = |kind: &'static str, body: Vec<u8>| {
        let request = reqwest::Client::new().post(format!("{}/api/v1/operations", server.url));
        request.bearer_auth(TOKEN).header("content-type", kind).body(body).send()
    };
    assert_eq!(post("text/plain", b"{}".to_vec()).await.unwrap().status(), 415);
    assert_eq!(post("application/json", vec![b' '; 100_000]).await.unwrap().status(), 413);
    assert_eq!(post("application/json", b"\xff\xfe".to_vec()).await.unwrap().status(), 400);
    assert_eq!(server.get("/api/v1/events?after=x").await.0, 400);
    assert_eq!(server.get("/nothing").await.0, 404);
    let deleted = reqwest::Client::new().delete(format!("{}/api/v1/cluster", server.url)).send().await.unwrap();
    assert_eq!(deleted.status(), 405);
    assert!(server.asked.try_recv().is_err(), "bad input reached the heart");
}

#[tokio::test]
async fn a_standby_passes_requests_on_to_the_leader() {
    let mut leader = server(example::published()).await;
    let standby = server(Published::default()).await;
    let (status, body) = standby.get("/api/v1/cluster").await;
    assert_eq!(status, 503);
    assert!(body["error"].as_str().unwrap().contains("stands by and no other one leads"), "{body}");
    standby.led_by(&leader.url);
    assert_eq!(standby.get("/api/v1/plan").await, leader.get("/api/v1/plan").await);
    let asked = tokio::spawn(async move {
        let Asked { reply, .. } = leader.asked.recv().await.unwrap();
        reply.send(Reply::accepted("x", "begun")).unwrap();
    });
    assert_eq!(standby.post(Some(TOKEN), &backup()).await.0, 202);
    assert_eq!(standby.post(Some("wrong"), &backup()).await.0, 401);
    asked.await.unwrap();
}

#[tokio::test]
async fn two_standbys_do_not_pass_a_request_to_and_fro() {
    let (one, two) = (server(Published::default()).await, server(Published::default()).await);
    one.led_by(&two.url);
    two.led_by(&one.url);
    assert_eq!(one.get("/api/v1/cluster").await.0, 503);
    one.led_by("http://127.0.0.1:1");
    let (status, body) = one.get("/api/v1/cluster").await;
    assert_eq!(status, 503);
    assert!(body["error"].as_str().unwrap().contains("http://127.0.0.1:1 cannot be asked"), "{body}");
}

#[tokio::test]
async fn readiness_tells_leader_standby_and_neither() {
    let server = server(Published::default()).await;
    let ready = || async { reqwest::get(format!("{}/readyz", server.url)).await.unwrap().status().as_u16() };
    assert_eq!(ready().await, 503);
    server.led_by("http://10.0.0.1:8090");
    assert_eq!(ready().await, 200);
    server.publish.send_replace(Arc::new(Published {
        leading: true,
        last_success_ms: agent::clock::unix_ms(),
        ..Default::default()
    }));
    assert_eq!(ready().await, 200);
    server.publish.send_replace(Arc::new(Published { leading: true, last_success_ms: 1, ..Default::default() }));
    assert_eq!(ready().await, 503);
    assert_eq!(reqwest::get(format!("{}/livez", server.url)).await.unwrap().text().await.unwrap(), "ok");
}

/// Serves the page for eyes: `cargo test -p aurora-redis-controller page_for_eyes -- --ignored`, until the test is interrupted.
#[tokio::test]
#[ignore = "waits for somebody to look"]
async fn page_for_eyes() {
    let server = server(example::published()).await;
    println!("look at {}", server.url);
    std::future::pending::<()>().await;
}
