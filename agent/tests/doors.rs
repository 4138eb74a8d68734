//! Who may ask and who gets what: HTTP, the doors in ZooKeeper, and an end in good order.

#![allow(clippy::unwrap_used)]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use agent::api::{Order, Question, Source, Verdict};
use agent::client::Client;
use agent::secret::Secret;
use common::{CLUSTER, Rig, TestAgent, is_open, member, redis, scratch, signal, until};
use futures_util::StreamExt;
use rustix::process::Signal;

async fn get(agent: &TestAgent, path: &str) -> (u16, String) {
    let response = reqwest::get(format!("http://{}{path}", agent.address())).await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

async fn post(agent: &TestAgent, path: &str, body: impl Into<reqwest::Body>) -> (u16, String) {
    let request = reqwest::Client::new().post(format!("http://{}{path}", agent.address())).body(body);
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

#[tokio::test]
async fn bad_requests_are_told_what_is_wrong() {
    let rig = Rig::new("bad-requests").await;
    let agent = rig.agent(0, &[]).await;
    let (status, text) = post(&agent, "/command/dance", "{}").await;
    assert!(status == 404 && text.contains("there is no command \\\"dance\\\""), "{status} {text}");
    for body in ["", "{", "[]", "{\"epoch\": -1}", "\u{0}"] {
        let (status, text) = post(&agent, "/command/promote", body).await;
        assert!(status == 400 && text.contains("not a command"), "{status} {text}");
    }
    let other = serde_json::to_string(&rig.command(&agent.state(&rig).await, Order::Fence)).unwrap();
    assert_eq!(post(&agent, "/command/promote", other).await.0, 400);
    assert_eq!(post(&agent, "/testify", "7").await.0, 400);
    assert_eq!(post(&agent, "/command/promote", vec![b' '; 1 << 20]).await.0, 413);
    assert_eq!(get(&agent, "/command/promote").await.0, 405);
    assert_eq!(get(&agent, "/health").await, (200, "ok".into()));
    let (_, config) = get(&agent, "/config").await;
    assert!(config.contains("\"redis.port\""), "{config}");
    let (_, metrics) = get(&agent, "/metrics").await;
    assert!(metrics.contains("aurora_redis_agent_up 1"), "{metrics}");
}

#[tokio::test]
async fn questions_of_load_balancers_are_answered_by_status() {
    let mut rig = Rig::new("questions").await;
    let (a, b) = (rig.agent(0, &[]).await, rig.agent(1, &[]).await);
    for path in ["/master", "/replica", "/read-only", "/ready"] {
        assert_eq!(get(&a, path).await.0, 503, "{path} without a server");
    }
    assert_eq!(get(&a, "/live").await.0, 200);
    rig.lead(&a).await;
    for (path, status) in [("/master", 200), ("/replica", 503), ("/read-only", 200), ("/ready", 200), ("/live", 200)] {
        assert_eq!(get(&a, path).await.0, status, "{path} of the master");
    }
    rig.attach(&b, &a).await;
    until("the lag is known", async || (get(&b, "/replica?max_lag_bytes=1000000").await.0 == 200).then_some(())).await;
    assert_eq!((get(&b, "/master").await.0, get(&b, "/read-only").await.0), (503, 200));
    assert_eq!(get(&b, "/replica?max_lag_bytes=x").await.0, 400);

    // The record names another run: the old master is no door any more, though its server goes on.
    rig.commit(|r| {
        r.epoch += 1;
        r.master.as_mut().unwrap().run_id = "another".into();
    })
    .await;
    until("it is no master any more", async || (get(&a, "/master").await.0 == 503).then_some(())).await;
    until("the doors are withdrawn", async || rig.children(&rig.paths.master_serverset()).await.is_empty().then_some(())).await;
    assert!(is_open(&a.redis()));
}

#[tokio::test]
async fn with_a_secret_only_its_token_changes_anything() {
    let mut rig = Rig::new("token").await;
    let file = scratch("secret").join("secret");
    std::fs::write(&file, "0123456789abcdef0123456789abcdef").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let secret = ["--secret-file", file.to_str().unwrap()];
    let (a, b) = (rig.agent(0, &secret).await, rig.agent(1, &secret).await);
    let command = rig.command(&a.state(&rig).await, Order::Start { source: Source::Empty });
    for wrong in [None, Some("wrong".to_owned())] {
        let error = Client::new(wrong).command(&a.address(), &command, Duration::from_secs(5)).await.unwrap_err();
        assert!(matches!(error, agent::client::Error::Unauthorized { .. }), "{error}");
    }
    assert_eq!(post(&a, "/testify", "{}").await.0, 401);
    assert!(a.state(&rig).await.redis.is_none());
    assert_eq!(post(&a, "/quitquitquit", "").await.0, 200, "Aurora's executor has no token");

    rig.http = Client::new(Some(Secret::load(&file, CLUSTER).unwrap().agent_token()));
    rig.lead(&b).await;
    let c = rig.agent(2, &secret).await;
    rig.attach(&c, &b).await;
    let member = format!("member-{}", &c.state(&rig).await.redis.unwrap().run_id[..12]);
    let mut connection = redis(&b.redis()).await;
    for forbidden in ["REPLICAOF NO ONE", "CONFIG GET save", "SHUTDOWN NOSAVE", "PSYNC ? -1", "CLIENT PAUSE 1", "BGSAVE"] {
        let mut cmd = redis::Cmd::new();
        forbidden.split(' ').for_each(|word| {
            cmd.arg(word);
        });
        let error = cmd.query_async::<()>(&mut connection).await.unwrap_err();
        assert_eq!(error.code(), Some("NOPERM"), "{forbidden}: {error}");
    }
    let wrong = redis::cmd("AUTH").arg(&member).arg("guess").query_async::<()>(&mut connection).await.unwrap_err();
    assert_eq!(wrong.code(), Some("WRONGPASS"));
}

#[tokio::test]
async fn clients_need_the_password_when_there_is_one() {
    let mut rig = Rig::new("password").await;
    let file = scratch("password").join("password");
    std::fs::write(&file, "open sesame \"1\"\n").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let agent = rig.agent(0, &["--redis-password-file", file.to_str().unwrap()]).await;
    rig.lead(&agent).await;
    let mut connection = redis(&agent.redis()).await;
    let refused = redis::cmd("GET").arg("x").query_async::<()>(&mut connection).await.unwrap_err();
    assert_eq!(refused.code(), Some("NOAUTH"));
    redis::cmd("AUTH").arg("open sesame \"1\"").query_async::<()>(&mut connection).await.unwrap();
    redis::cmd("SET").arg("x").arg("y").query_async::<()>(&mut connection).await.unwrap();
    let refused = redis::cmd("CONFIG").arg("GET").arg("save").query_async::<()>(&mut connection).await.unwrap_err();
    assert_eq!(refused.code(), Some("NOPERM"));
}

#[tokio::test]
async fn watchers_hear_each_change_and_a_heartbeat() {
    let mut rig = Rig::new("watch").await;
    let agent = rig.agent(0, &[]).await;
    let stream = rig.http.watch(&agent.address()).await.unwrap();
    let mut stream = std::pin::pin!(stream);
    let limit = Duration::from_secs(10);
    let mut next =
        async || tokio::time::timeout(limit, stream.next()).await.expect("the stream is never silent").unwrap().unwrap();
    assert_eq!(next().await.redis, None);
    assert_eq!(next().await, next().await, "nothing changes, and it is said all the same");
    rig.lead(&agent).await;
    while !next().await.serving {}
    signal(agent.state(&rig).await.redis.unwrap().pid, Signal::KILL);
    while next().await.deaths.is_empty() {}
}

#[tokio::test]
async fn an_agent_testifies_about_processes_of_its_host() {
    let mut rig = Rig::new("testimony").await;
    let (mut a, b) = (rig.agent(0, &[]).await, rig.agent(1, &[]).await);
    let state = rig.lead(&a).await;
    let ask = async |member| rig.http.testify(&b.address(), &Question { member }, Duration::from_secs(5)).await.unwrap();
    assert_eq!(ask(member(&state)).await, Verdict::Alive);
    let mut elsewhere = member(&state);
    elsewhere.host.host_id = "other".into();
    assert_eq!(ask(elsewhere).await, Verdict::NotMine);
    a.kill();
    until("the server is gone with its agent", async || (ask(member(&state)).await == Verdict::ProcessGone).then_some(())).await;
}

#[tokio::test]
async fn an_instance_asked_to_quit_stays_up_and_starts_nothing() {
    let mut rig = Rig::new("quit").await;
    let agent = rig.agent(0, &[]).await;
    rig.lead(&agent).await;
    assert_eq!(post(&agent, "/quitquitquit", "").await.0, 200);
    let state = agent.state(&rig).await;
    assert!(state.stopping && state.serving, "it goes on until somebody takes over");
    let promote = rig.order(&agent, Order::Promote { asks: Vec::new() }).await;
    assert_eq!(promote.reason, "stopping");
    assert_eq!(post(&agent, "/abortabortabort", "").await.0, 200);
    let state = until("the server is stopped", async || Some(agent.state(&rig).await).filter(|s| s.redis.is_none())).await;
    assert_eq!(state.deaths.len(), 1);
    assert_eq!(get(&agent, "/health").await.0, 200, "the agent itself waits for its SIGTERM");
}

#[tokio::test]
async fn a_termination_withdraws_the_doors_and_ends_the_server() {
    let mut rig = Rig::new("terminate").await;
    let mut agent = rig.agent(0, &[]).await;
    let pid = rig.lead(&agent).await.redis.unwrap().pid;
    until("the doors", async || rig.client.check_stat(&rig.paths.master()).await.unwrap()).await;
    assert_eq!(agent.terminate().await, Some(0));
    assert!(rig.client.check_stat(&rig.paths.master()).await.unwrap().is_none(), "withdrawn before the end");
    // Nobody may have collected it yet.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
}

#[tokio::test]
async fn doors_come_back_after_a_lost_session_and_replace_stale_ones() {
    let mut rig = Rig::new("session").await;
    let agent = rig.agent(0, &[]).await;
    // What a dead master left: another one's ephemeral nodes, here simply somebody's.
    agent::zk::ensure(&rig.client, &rig.paths.master_serverset()).await.unwrap();
    rig.client.create(&rig.paths.master(), b"10.0.0.1:1", &agent::zk::persistent()).await.unwrap();
    let stale = format!("{}/member_0000000007", rig.paths.master_serverset());
    rig.client.create(&stale, b"{}", &agent::zk::persistent()).await.unwrap();
    rig.lead(&agent).await;
    let address = agent.redis().to_string();
    until("the doors", async || {
        let (data, _) = rig.client.get_data(&rig.paths.master()).await.ok()?;
        (data == address.as_bytes() && rig.children(&rig.paths.master_serverset()).await.len() == 1).then_some(())
    })
    .await;

    let pid = agent.state(&rig).await.agent.pid;
    signal(pid, Signal::STOP);
    until("the session is lost", async || rig.client.check_stat(&rig.paths.master()).await.unwrap().is_none().then_some(()))
        .await;
    assert!(is_open(&agent.redis()), "the server serves on");
    signal(pid, Signal::CONT);
    until("the doors are made again", async || rig.client.check_stat(&rig.paths.master()).await.unwrap()).await;
    assert!(agent.state(&rig).await.serving);
}

/// An agent that learns late that its master is dead finds the next master's node under the name of its own.
#[tokio::test]
async fn a_late_withdrawal_leaves_the_next_masters_node_alone() {
    let mut rig = Rig::new("late-withdrawal").await;
    let (a, b) = (rig.agent(0, &[]).await, rig.agent(1, &[]).await);
    let first = rig.lead(&a).await;
    let replica = rig.attach(&b, &a).await;
    until("the doors", async || rig.client.check_stat(&rig.paths.master()).await.unwrap()).await;
    signal(first.agent.pid, Signal::STOP);
    signal(first.redis.unwrap().pid, Signal::KILL);
    rig.promote(&b, &replica).await;
    let address = b.redis().to_string();
    let made = until("the next master's node", async || {
        let (data, stat) = rig.client.get_data(&rig.paths.master()).await.ok()?;
        (data == address.as_bytes()).then_some(stat.czxid)
    })
    .await;
    signal(first.agent.pid, Signal::CONT);
    until("the late one says what has happened", async || Some(a.state(&rig).await).filter(|s| s.redis.is_none())).await;
    // It is listed as a replica only after it took its own doors away.
    rig.attach(&a, &b).await;
    until("it is a replica's door", async || (rig.children(&rig.paths.replicas_serverset()).await.len() == 1).then_some(()))
        .await;
    let stat = rig.client.check_stat(&rig.paths.master()).await.unwrap();
    assert_eq!(stat.map(|stat| stat.czxid), Some(made), "the node was taken away");
}

/// Long before it would be looked after anyway.
#[tokio::test]
async fn a_node_that_somebody_takes_away_is_made_again_at_once() {
    let mut rig = Rig::new("taken-away").await;
    let agent = rig.agent(0, &[]).await;
    rig.lead(&agent).await;
    let mut made = -1;
    let begun = std::time::Instant::now();
    for _ in 0..4 {
        made = until("the node", async || {
            let stat = rig.client.check_stat(&rig.paths.master()).await.unwrap();
            stat.map(|stat| stat.czxid).filter(|czxid| *czxid != made)
        })
        .await;
        rig.client.delete(&rig.paths.master(), None).await.unwrap();
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "it took {:?}", begun.elapsed());
}

#[test]
fn mistakes_in_the_configuration_are_all_named_and_nothing_starts() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_aurora-redis-agent"))
        .args(["--zookeeper", "nowhere", "--cluster", "a/b", "--instance", "x", "--redis-port", "0", "--redis-config", "port=1"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    for part in ["--zookeeper", "--cluster", "--instance", "--redis-port", "task_id", "http_port", "redis.config.port"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}
