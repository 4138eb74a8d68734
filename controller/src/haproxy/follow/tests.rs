//! With the real HAProxy: fake agents answer its checks by status code, fake servers say who they are to whoever connects.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::haproxy::{Options, render};

/// Instance number of the present master; the others are replicas.
type Master = Arc<AtomicU32>;

/// An instance: its Redis port says its number, its agent's port answers the checks. Gone when dropped.
struct Instance {
    node: (String, Vec<u8>),
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

async fn instance(number: u32, master: &Master) -> Instance {
    let redis = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let agent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = |at: SocketAddr| Endpoint { host: at.ip().to_string(), port: at.port() };
    let redis_at = endpoint(redis.local_addr().unwrap());
    let endpoints = [("redis".to_owned(), redis_at.clone()), ("health".to_owned(), endpoint(agent.local_addr().unwrap()))];
    let member = Member::alive(redis_at, endpoints.into(), Some(number));
    let greet = async move {
        loop {
            let (mut client, _) = redis.accept().await.unwrap();
            tokio::spawn(async move {
                let _ = client.write_all(format!("{number}\n").as_bytes()).await;
                let _ = client.read_u8().await;
            });
        }
    };
    let status = |yes: bool| if yes { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let routes = axum::Router::new()
        .route(
            "/master",
            axum::routing::get(move |State(m): State<Master>| async move { status(m.load(Ordering::SeqCst) == number) }),
        )
        .route(
            "/replica",
            axum::routing::get(move |State(m): State<Master>| async move { status(m.load(Ordering::SeqCst) != number) }),
        )
        .with_state(master.clone());
    let answer = async move { axum::serve(agent, routes).await.unwrap() };
    Instance { node: (format!("member_{number:010}"), member.to_json()), tasks: vec![tokio::spawn(greet), tokio::spawn(answer)] }
}

/// HAProxy with a configuration of ours in a directory of its own.
struct HaProxy {
    directory: PathBuf,
    options: Options,
    process: Option<tokio::process::Child>,
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        self.process = None; // killed on drop
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

impl HaProxy {
    fn new(slots: u32) -> HaProxy {
        let id = uuid::Uuid::new_v4();
        let directory = std::env::temp_dir().join(format!("haproxy-{id}"));
        std::fs::create_dir(&directory).unwrap();
        let options = Options {
            cluster: "www/prod/cache".into(),
            // A loopback address of its own: a free port of 127.0.0.1 could be taken by the time HAProxy binds it.
            bind: format!("127.{}.{}.{}", id.as_bytes()[0], id.as_bytes()[1], 1 + id.as_bytes()[2] % 254),
            writers_port: 6379,
            readers_port: 6380,
            slots,
            max_lag_bytes: 1 << 20,
            socket: directory.join("s").display().to_string(),
        };
        std::fs::write(directory.join("haproxy.cfg"), render(&options)).unwrap();
        HaProxy { directory, options, process: None }
    }

    fn command(&self, flag: &str) -> tokio::process::Command {
        let mut command = tokio::process::Command::new("haproxy");
        let file = self.directory.join("haproxy.cfg");
        command
            .arg(flag)
            .arg("-f")
            .arg(file)
            .kill_on_drop(true)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        command
    }

    async fn restart(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().await.unwrap();
        }
        self.process = Some(self.command("-db").spawn().expect("haproxy is installed"));
    }

    fn socket(&self) -> &Path {
        Path::new(&self.options.socket)
    }

    fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.options.bind.parse().unwrap(), port)
    }
}

/// Who answers: the first line, absent when the connection is closed at once.
async fn who(at: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect(at).await.ok()?;
    let mut line = [0; 16];
    let read = tokio::time::timeout(Duration::from_secs(3), stream.read(&mut line)).await.ok()?.ok()?;
    Some(String::from_utf8_lossy(&line[..read]).trim().to_owned()).filter(|line| !line.is_empty())
}

/// Makes rounds until `at` is answered by `expected` (absent: by nobody).
async fn until(follower: &mut Follower, at: SocketAddr, expected: Option<&str>, why: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let round = follower.round().await;
        let seen = who(at).await;
        if seen.as_deref() == expected {
            return;
        }
        assert!(Instant::now() < deadline, "{why}: wanted {expected:?} on {at}, got {seen:?} after {round:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn children(instances: &[&Instance]) -> Children {
    Children { nodes: instances.iter().map(|instance| instance.node.clone()).collect(), read: true, problem: None }
}

#[tokio::test]
async fn haproxy_accepts_the_configuration() {
    let status = HaProxy::new(16).command("-c").status().await.expect("haproxy is installed");
    assert!(status.success(), "haproxy -c refuses the configuration");
}

#[tokio::test]
async fn writers_reach_the_master_through_every_change() {
    let master: Master = Arc::new(AtomicU32::new(1));
    let (one, two) = (instance(1, &master).await, instance(2, &master).await);
    let (publish, members) = watch::channel(Children::default());
    let mut haproxy = HaProxy::new(4);
    let (writers, readers) = (haproxy.at(haproxy.options.writers_port), haproxy.at(haproxy.options.readers_port));
    let mut follower = Follower::new(members, haproxy.socket());
    assert!(matches!(follower.round().await, Err(Error::NotRead(_))));
    publish.send_replace(children(&[&one, &two]));
    assert!(matches!(follower.round().await, Err(Error::HaProxy(_))), "HAProxy does not run yet");
    haproxy.restart().await;
    until(&mut follower, writers, Some("1"), "first fill").await;
    until(&mut follower, readers, Some("2"), "first fill").await;
    assert_eq!(follower.round().await.unwrap(), Vec::<String>::new(), "a second round has nothing to do");

    master.store(2, Ordering::SeqCst);
    until(&mut follower, writers, Some("2"), "failover").await;
    haproxy.restart().await;
    until(&mut follower, writers, Some("2"), "HAProxy restarted").await;

    publish.send_replace(Children { problem: Some("away".into()), ..children(&[&one, &two]) });
    let said = follower.round().await.unwrap();
    assert_eq!(said, ["ZooKeeper is away, the last known members stay: away"]);
    publish.send_replace(children(&[]));
    follower.round().await.unwrap();
    assert_eq!(who(writers).await.as_deref(), Some("2"), "a healthy master whose announcer lost its session stays");

    let three = instance(3, &master).await;
    publish.send_replace(children(&[&one, &three]));
    drop(two);
    until(&mut follower, writers, None, "the master is gone").await;
    master.store(3, Ordering::SeqCst);
    until(&mut follower, writers, Some("3"), "the next master came later").await;
    drop(one);
    until(&mut follower, readers, Some("3"), "with no replica left the master serves readers").await;
}

#[tokio::test]
async fn members_that_cannot_be_served_are_named() {
    let node = |name: &str, data: &str| (name.to_owned(), data.as_bytes().to_vec());
    let children = Children {
        nodes: vec![
            node("member_0000000001", "junk"),
            node("member_0000000002", r#"{"serviceEndpoint":{"host":"10.0.0.1","port":1},"shard":2}"#),
            node(
                "member_0000000003",
                r#"{"serviceEndpoint":{"host":"10.0.0.1","port":0},"additionalEndpoints":{"health":{"host":"10.0.0.1","port":2}},"shard":3}"#,
            ),
            node(
                "member_0000000004",
                r#"{"serviceEndpoint":{"host":"10.0.0.1","port":5},"additionalEndpoints":{"health":{"host":"10.0.0.1","port":2}},"shard":4}"#,
            ),
            node("_c_lock-0000000005", "x"),
        ],
        read: true,
        problem: None,
    };
    let (targets, problems) = targets(&children).await;
    assert_eq!(targets.iter().map(|target| target.name.as_str()).collect::<Vec<_>>(), ["instance 4"]);
    assert_eq!(problems.len(), 3, "{problems:?}");
    assert!(problems[0].starts_with("member_0000000001 is left out: "), "{problems:?}");
    assert_eq!(problems[1], "instance 2 is left out: it announces no port named health");
    assert_eq!(problems[2], "instance 3 is left out: it announces port 0");
}
