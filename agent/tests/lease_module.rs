//! With the lease module a master acknowledges nothing beyond its lease, whatever was frozen and whoever wakes first.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};
use std::time::Duration;

use agent::api::{AnswerKind, Order, Source, State};
use agent::record::Phase;
use common::{Rig, TestAgent, Writer, ask, member, servers, signal, until};
use futures_util::future::join_all;
use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

const LEASE: Duration = Duration::from_secs(1);
/// Longer than the lease and everything that stops writes early.
const LATE: Duration = Duration::from_millis(1300);
/// Clients whose writes wait in the sockets of a frozen server.
const WRITERS: usize = 50;

/// How often each server is frozen; `make soak` has more.
fn rounds() -> usize {
    std::env::var("AURORA_REDIS_MODULE_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(2)
}

/// A master of this server program, with a short lease, in office alone.
async fn master(name: &str, server: &Path, more: &[&str]) -> (Rig, TestAgent, State) {
    let mut rig = Rig::new(name).await;
    rig.commit(|record| record.lease_ms = LEASE.as_millis() as u64).await;
    let mut arguments = vec!["--redis-server", server.to_str().unwrap()];
    arguments.extend(more);
    let agent = rig.agent(0, &arguments).await;
    let state = rig.lead(&agent).await;
    rig.renewed(&[]).await;
    (rig, agent, state)
}

fn debian() -> PathBuf {
    servers().remove(0).1
}

/// A client that reads answers as they come.
struct Client(BufReader<TcpStream>);

impl Client {
    async fn connect(agent: &TestAgent) -> Client {
        let address = agent.redis();
        let stream = TcpStream::connect((address.host.as_str(), address.port)).await.unwrap();
        let mut client = Client(BufReader::new(stream));
        assert_eq!(client.ask("PING").await, "+PONG");
        client
    }

    async fn send(&mut self, words: &str) {
        self.0.get_mut().write_all(format!("{words}\r\n").as_bytes()).await.unwrap();
    }

    /// One line; of a text its content.
    async fn answer(&mut self) -> String {
        let read = async {
            let mut line = String::new();
            self.0.read_line(&mut line).await.unwrap();
            let Some(Ok(length)) = line.strip_prefix('$').map(|length| length.trim_end().parse::<usize>()) else {
                return line.trim_end().to_owned();
            };
            let mut text = vec![0; length + 2];
            self.0.read_exact(&mut text).await.unwrap();
            String::from_utf8_lossy(&text).trim_end().to_owned()
        };
        tokio::time::timeout(Duration::from_secs(20), read).await.expect("the server answers")
    }

    async fn ask(&mut self, words: &str) -> String {
        self.send(words).await;
        self.answer().await
    }
}

/// Freezes, has every client send a write, wakes the server when its lease is over, and the agent after it has answered. How many writes
/// were acknowledged, and how many refused for the lease.
async fn frozen_writes(agent: &TestAgent, state: &State, agent_too: bool) -> (usize, usize) {
    let server = state.redis.as_ref().unwrap().pid;
    let mut clients = Vec::new();
    for _ in 0..WRITERS {
        clients.push(Client::connect(agent).await);
    }
    if agent_too {
        signal(state.agent.pid, Signal::STOP);
    }
    signal(server, Signal::STOP);
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(&format!("SET frozen:{number} 1")).await;
    }
    tokio::time::sleep(LATE).await;
    signal(server, Signal::CONT);
    let answers = join_all(clients.iter_mut().map(Client::answer)).await;
    if agent_too {
        signal(state.agent.pid, Signal::CONT);
    }
    let count = |begins: &str| answers.iter().filter(|answer| answer.starts_with(begins)).count();
    let counted = (count("+OK"), count("-LEASEEXPIRED"));
    assert_eq!(counted.0 + counted.1, WRITERS, "{answers:?}");
    counted
}

async fn writes_again(agent: &TestAgent) {
    until("it takes writes again", async || ask(&agent.redis(), "SET again 1").await.ok()).await;
}

#[tokio::test]
async fn a_server_that_wakes_with_writes_in_its_sockets_acknowledges_none() {
    join_all(servers().iter().map(async |(name, server)| {
        let (rig, agent, state) = master(&format!("wakes-{name}"), server, &["--lease-module", "require"]).await;
        assert!(state.redis.as_ref().unwrap().lease_module && rig.lease().await.0.unwrap().guarded, "{name}");
        for round in 0..rounds() {
            assert_eq!(frozen_writes(&agent, &state, true).await, (0, WRITERS), "{name}, both frozen, round {round}");
            writes_again(&agent).await;
            assert_eq!(frozen_writes(&agent, &state, false).await, (0, WRITERS), "{name}, the server frozen, round {round}");
            writes_again(&agent).await;
        }
        assert_eq!(agent.state(&rig).await.deaths, [], "{name}: the same server all the time");
    }))
    .await;
}

/// What the test above would see without the module.
#[tokio::test]
async fn without_the_module_it_acknowledges_them_all() {
    join_all(servers().iter().map(async |(name, server)| {
        let (rig, agent, state) = master(&format!("without-{name}"), server, &["--lease-module", "off"]).await;
        assert!(!state.redis.as_ref().unwrap().lease_module && !rig.lease().await.0.unwrap().guarded, "{name}");
        assert_eq!(state.problem, None, "{name}: it is not wanted");
        assert_eq!(frozen_writes(&agent, &state, true).await, (WRITERS, 0), "{name}");
    }))
    .await;
}

/// Writes acknowledged beyond the lease beside a frozen agent.
async fn beside_a_frozen_agent(agent: &TestAgent, state: &State) -> usize {
    let writer = Writer::start(&agent.redis()).await;
    signal(state.agent.pid, Signal::STOP);
    tokio::time::sleep(LATE).await;
    let before = writer.count();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let beyond = writer.count() - before;
    signal(state.agent.pid, Signal::CONT);
    let seen = writer.count();
    until("writes go on", async || (writer.count() > seen).then_some(())).await;
    beyond
}

#[tokio::test]
async fn a_live_server_beside_a_frozen_agent_stops_with_the_lease() {
    join_all(servers().iter().map(async |(name, server)| {
        let (_rig, agent, state) = master(&format!("alone-{name}"), server, &["--lease-module", "require"]).await;
        for round in 0..rounds() {
            assert_eq!(beside_a_frozen_agent(&agent, &state).await, 0, "{name}, the agent frozen, round {round}");
            writes_again(&agent).await;
        }
    }))
    .await;
}

/// What the test above would see without the module.
#[tokio::test]
async fn without_the_module_a_live_server_beside_a_frozen_agent_goes_on() {
    let (_rig, agent, state) = master("alone-off", &debian(), &["--lease-module", "off"]).await;
    assert!(beside_a_frozen_agent(&agent, &state).await > 0);
}

#[tokio::test]
async fn scripts_and_transactions_are_refused_and_the_rest_goes_on() {
    join_all(servers().iter().map(async |(name, server)| {
        let (_rig, agent, state) = master(&format!("kinds-{name}"), server, &["--lease-module", "require"]).await;
        let (mut begun, mut client) = (Client::connect(&agent).await, Client::connect(&agent).await);
        assert_eq!(client.ask("SET k old").await, "+OK", "{name}");
        assert_eq!((begun.ask("MULTI").await, begun.ask("SET k new").await), ("+OK".into(), "+QUEUED".into()), "{name}");
        signal(state.agent.pid, Signal::STOP);
        tokio::time::sleep(LATE).await;
        let aborted = begun.ask("EXEC").await;
        assert!(aborted.starts_with("-EXECABORT"), "{name}: queued before the end: {aborted}");
        for refused in ["SET k new", "EVAL return(1) 0", "EVALSHA x 0", "PUBLISH a b", "UNKNOWN k", "DEL k", "FLUSHALL"] {
            let answer = client.ask(refused).await;
            assert!(answer.starts_with("-LEASEEXPIRED "), "{name}: {refused}: {answer}");
        }
        for free in ["GET k", "PING", "ROLE", "ECHO a", "WAIT 0 1", "MULTI", "GET k"] {
            let answer = client.ask(free).await;
            assert!(!answer.starts_with('-'), "{name}: {free}: {answer}");
            // The rest of ROLE's answer is not looked at.
            if free == "ROLE" {
                client = Client::connect(&agent).await;
            }
        }
        assert!(client.ask("EXEC").await.starts_with("-EXECABORT"), "{name}");
        signal(state.agent.pid, Signal::CONT);
        writes_again(&agent).await;
        assert_eq!(client.ask("GET k").await, "old", "{name}: nothing of all that was done");
        let foreign = client.ask("AURORA.LEASE EXTEND 9999 1").await;
        assert!(foreign.starts_with("-NOPERM"), "{name}: clients cannot move the deadline: {foreign}");
    }))
    .await;
}

#[tokio::test]
async fn reads_stop_with_the_lease_where_that_is_wished() {
    let (_rig, agent, state) = master("reads", &debian(), &["--lease-reads", "refuse"]).await;
    let mut client = Client::connect(&agent).await;
    assert_eq!(client.ask("SET k 1").await, "+OK");
    signal(state.agent.pid, Signal::STOP);
    tokio::time::sleep(LATE).await;
    assert!(client.ask("GET k").await.starts_with("-LEASEEXPIRED "));
    let error = ask(&agent.redis(), "SET k 2").await.unwrap_err();
    assert_eq!(error.code(), Some("LEASEEXPIRED"), "{error}: a library can tell it from other errors");
    assert_eq!(client.ask("PING").await, "+PONG");
    signal(state.agent.pid, Signal::CONT);
    writes_again(&agent).await;
    assert_eq!(client.ask("GET k").await, "1");
}

#[tokio::test]
async fn without_the_module_nobody_leads_where_it_is_required() {
    let mut rig = Rig::new("required").await;
    let agent = rig.agent(0, &["--lease-module", "require", "--lease-module-file", "/nonexistent/module.so"]).await;
    let started = rig.done(&agent, Order::Start { source: Source::Empty }).await;
    let problem = started.problem.clone().unwrap();
    assert!(problem.contains("/nonexistent/module.so"), "{problem}");
    rig.commit(|r| (r.epoch, r.phase, r.master) = (2, Phase::Promoting, Some(member(&started)))).await;
    let answer = rig.order(&agent, Order::Promote { asks: vec![] }).await;
    assert_eq!((answer.outcome, answer.reason.as_str()), (AnswerKind::Refused, "no-lease-module"), "{answer:?}");
    assert!(answer.message.contains("/nonexistent/module.so"), "{}", answer.message);
    assert!(!common::is_open(&agent.redis()));
}

#[tokio::test]
async fn a_module_that_the_server_does_not_take_is_left_out_and_named() {
    let mut rig = Rig::new("broken-module").await;
    let file = rig.dir.join("module.so");
    std::fs::write(&file, "no library").unwrap();
    let agent = rig.agent(0, &["--lease-module-file", file.to_str().unwrap()]).await;
    let state = rig.lead(&agent).await;
    let problem = state.problem.unwrap();
    assert!(problem.contains("without the lease module") && problem.contains("module.so"), "{problem}");
    assert!(!state.redis.unwrap().lease_module);
    ask(&agent.redis(), "SET k 1").await.unwrap();
}

/// A server program that sleeps before it starts: so long as the file beside it says.
fn sleepy_server(dir: &Path) -> (PathBuf, PathBuf) {
    let (program, pace) = (dir.join("sleepy-server"), dir.join("pace"));
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = - ] || exec redis-server \"$@\"\nread pace < {}\n[ \"$pace\" = never ] && exec sleep 60\nsleep \"$pace\"\nexec redis-server \"$@\"\n",
        pace.display()
    );
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    (program, pace)
}

#[tokio::test]
async fn a_server_that_is_slow_to_answer_is_not_blamed_on_the_module() {
    let rig = Rig::new("sleepy").await;
    let (program, pace) = sleepy_server(&rig.dir);
    let agent = rig.agent(0, &["--lease-module", "require", "--redis-server", program.to_str().unwrap()]).await;
    std::fs::write(&pace, "never\n").unwrap();
    let answer = rig.order(&agent, Order::Start { source: Source::Empty }).await;
    assert_eq!((answer.outcome, answer.reason.as_str()), (AnswerKind::Failed, "no-answer"), "{answer:?}");
    assert!(!answer.message.contains("module"), "{}", answer.message);
    let problem = agent.state(&rig).await.problem.unwrap_or_default();
    assert!(!problem.contains("lease module"), "{problem}");
    std::fs::write(&pace, "3\n").unwrap();
    let started = rig.done(&agent, Order::Start { source: Source::Empty }).await;
    assert!(started.redis.as_ref().unwrap().lease_module && started.cannot_lead.is_none(), "{started:?}");
}

#[tokio::test]
async fn a_copy_made_with_the_module_loads_without_it_and_the_other_way_round() {
    for (name, [of_master, of_replica]) in [("dump-with", ["require", "off"]), ("dump-without", ["off", "require"])] {
        let (mut rig, a, _) = master(name, &debian(), &["--lease-module", of_master]).await;
        ask(&a.redis(), "SET k 1").await.unwrap();
        let b = rig.agent(1, &["--lease-module", of_replica]).await;
        rig.attach(&b, &a).await;
        assert_eq!(ask(&b.redis(), "GET k").await.unwrap(), "1");
        ask(&a.redis(), "SET k 2").await.unwrap();
        until("its stream passes the filter", async || (ask(&b.redis(), "GET k").await.unwrap() == "2").then_some(())).await;
        let refused = ask(&b.redis(), "SET k 3").await.unwrap_err();
        assert_eq!(refused.code(), Some("READONLY"), "{refused}");
    }
}
