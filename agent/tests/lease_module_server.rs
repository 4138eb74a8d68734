//! The lease module in servers alone, without an agent: it stays, leaves no trace in what the server writes, and lets nothing go beyond the lease that
//! was held back or waited before its end.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{lease_module, scratch, servers};

/// So long a lease is still running when a test looks at it.
const LONG: Duration = Duration::from_secs(100);
const SHORT: Duration = Duration::from_millis(300);
/// Longer than that.
const LATE: Duration = Duration::from_millis(450);
/// So long nothing comes where nothing is to come.
const SILENCE: Duration = Duration::from_millis(150);

/// A server program, its directory, and the process while it runs.
struct Server {
    program: PathBuf,
    version: &'static str,
    dir: PathBuf,
    process: Option<Child>,
}

impl Server {
    fn new(version: &'static str, program: PathBuf, test: &str) -> Server {
        Server { program, version, dir: scratch(&format!("{test}-{version}")), process: None }
    }

    /// Whether it knows settings, subcommands and files of 7.0 and later.
    fn is_old(&self) -> bool {
        self.version == "redis-6.2"
    }

    fn config(&self, module: bool, more: &str) -> String {
        let base = format!("port 0\nunixsocket r.sock\ndir \"{}\"\nsave \"\"\n{more}\n", self.dir.display());
        let load = format!("loadmodule \"{}\" reads serve\n", lease_module().display());
        // Only so it comes to the module at all.
        let commands = if self.is_old() { "" } else { "enable-module-command yes\n" };
        base + commands + if module { &load } else { "" }
    }

    /// Starts it as the agent does, with the configuration on its standard input.
    fn start(&mut self, config: &str) {
        self.spawn("-");
        self.process.as_mut().unwrap().stdin.take().unwrap().write_all(config.as_bytes()).unwrap();
        self.answers();
    }

    fn spawn(&mut self, config: &str) {
        let log = std::fs::File::create(self.dir.join("log")).unwrap();
        let mut command = Command::new(&self.program);
        command.arg(config).current_dir(&self.dir).stdin(Stdio::piped()).stdout(log.try_clone().unwrap()).stderr(log);
        let die = || Ok(rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?);
        // SAFETY: one system call between fork and exec.
        unsafe { command.pre_exec(die) };
        self.process = Some(command.spawn().unwrap());
    }

    fn answers(&self) {
        within("it answers", || {
            let mut client = Client(BufReader::new(UnixStream::connect(self.dir.join("r.sock")).ok()?));
            client.0.get_ref().set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            (client.ask("PING") == "+PONG").then_some(())
        });
    }

    fn client(&self) -> Client {
        let stream = UnixStream::connect(self.dir.join("r.sock")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Client(BufReader::new(stream))
    }

    /// Ends it by this command.
    fn end(&mut self, shutdown: &str) {
        let mut client = self.client();
        client.send(shutdown);
        assert_eq!(client.answer(), "", "{}: {shutdown}", self.version);
        let status = self.process.take().unwrap().wait().unwrap();
        assert!(status.success(), "{}: {shutdown}: {status}", self.version);
    }

    fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

struct Client(BufReader<UnixStream>);

impl Client {
    fn send(&mut self, words: &str) {
        self.0.get_mut().write_all(format!("{words}\r\n").as_bytes()).unwrap();
    }

    /// The content of a text, the parts of a list, else the line; empty at the end of the connection.
    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap_or_default();
        let line = line.trim_end();
        if let Some(Ok(length)) = line.strip_prefix('$').map(str::parse::<usize>) {
            let mut text = vec![0; length + 2];
            self.0.read_exact(&mut text).unwrap();
            return String::from_utf8_lossy(&text).trim_end().to_owned();
        }
        match line.strip_prefix('*').map(str::parse::<usize>) {
            Some(Ok(parts)) => (0..parts).map(|_| self.answer()).collect::<Vec<_>>().join(" "),
            _ => line.to_owned(),
        }
    }

    fn ask(&mut self, words: &str) -> String {
        self.send(words);
        self.answer()
    }

    /// Whether no answer has come yet.
    fn waits(&mut self) -> bool {
        self.0.get_ref().set_read_timeout(Some(SILENCE)).unwrap();
        let got = self.0.fill_buf().map(<[u8]>::len);
        self.0.get_ref().set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        got.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    }

    fn extend(&mut self, term: u64, by: Duration) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let now = Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32);
        assert_eq!(self.ask(&format!("AURORA.LEASE EXTEND {term} {}", (now + by).as_nanos())), "+OK");
    }

    fn refused(&mut self, words: &str) {
        let answer = self.ask(words);
        assert!(answer.starts_with("-LEASEEXPIRED "), "{words}: {answer}");
    }
}

fn within<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The same on every server program, each in a thread of its own.
fn on_all(test: &str, work: impl Fn(Server) + Sync) {
    lease_module();
    std::thread::scope(|scope| {
        for (version, program) in servers() {
            let server = Server::new(version, program, test);
            let work = &work;
            std::thread::Builder::new().name(version.into()).spawn_scoped(scope, move || work(server)).unwrap();
        }
    });
}

#[test]
fn it_begins_closed_and_is_neither_unloaded_nor_loaded_again() {
    on_all("stays", |mut server| {
        server.start(&server.config(true, ""));
        let mut client = server.client();
        let again = format!("MODULE LOAD {} reads refuse", lease_module().display());
        for attempt in 0..2 {
            match attempt {
                0 => client.refused("SET k 1"),
                _ => {
                    client.extend(1, LONG);
                    assert_eq!(client.ask("SET k 1"), "+OK");
                }
            }
            for refused in ["MODULE UNLOAD aurora-redis-lease", &again] {
                let answer = client.ask(refused);
                assert!(answer.starts_with("-ERR Error "), "{}: {refused}: {answer}", server.version);
            }
            assert!(client.ask("AURORA.LEASE STATUS").starts_with(":1 "), "it is still there");
        }
        assert_eq!(client.ask("SET k 2"), "+OK", "{}: and works as before", server.version);
        assert_eq!(client.ask("AURORA.LEASE FENCE 1"), "+OK");
        client.refused("SET k 3");
        assert_eq!(client.ask("GET k"), "2", "{}: what was refused has changed nothing, not the reads either", server.version);
        assert_eq!(client.ask("MODULE LIST").matches("aurora-redis-lease").count(), 1);
        server.kill();
        let load = format!("loadmodule \"{}\" reads serve\n", lease_module().display());
        let twice = server.config(true, "") + &load;
        server.spawn("-");
        let process = server.process.as_mut().unwrap();
        process.stdin.take().unwrap().write_all(twice.as_bytes()).unwrap();
        let status = within("a server that is to load it twice ends", || process.try_wait().unwrap());
        assert!(!status.success(), "{}: {status}", server.version);
    });
}

/// A library with a function that writes and one that says that it does not.
const LIBRARY: &str = concat!(
    r##"FUNCTION LOAD REPLACE "#!lua name=l\n"##,
    r##"redis.register_function('w', function(k, a) return redis.call('SET', k[1], a[1]) end)\n"##,
    r##"redis.register_function{function_name='r', callback=function(k, a) return redis.call('GET', k[1]) end, flags={'no-writes'}}""##
);

#[test]
fn functions_do_not_write_beyond_the_lease() {
    on_all("functions", |mut server| {
        if server.is_old() {
            // It has none.
            return;
        }
        server.start(&server.config(true, ""));
        let mut client = server.client();
        client.extend(1, LONG);
        assert_eq!(client.ask(LIBRARY), "l", "{}", server.version);
        assert_eq!((client.ask("FCALL w 1 k 1"), client.ask("FCALL r 1 k")), ("+OK".into(), "1".into()), "{}", server.version);
        assert_eq!((client.ask("MULTI"), client.ask("FCALL w 1 k 2")), ("+OK".into(), "+QUEUED".into()), "{}", server.version);
        assert_eq!(server.client().ask("AURORA.LEASE FENCE 1"), "+OK");
        let aborted = client.ask("EXEC");
        assert!(aborted.starts_with("-EXECABORT"), "{}: {aborted}", server.version);
        for words in ["FCALL w 1 k 3", "FUNCTION DELETE l", "FUNCTION FLUSH", LIBRARY] {
            client.refused(words);
        }
        assert_eq!(client.ask("FCALL_RO r 1 k"), "1", "{}: it is a read, and nothing was changed", server.version);
    });
}

#[test]
fn reads_are_refused_beyond_the_lease_where_that_is_wished() {
    on_all("reads", |mut server| {
        server.start(&server.config(true, "").replace("reads serve", "reads refuse"));
        let mut client = server.client();
        client.extend(1, LONG);
        assert_eq!((client.ask("SET k 1"), client.ask("GET k")), ("+OK".into(), "1".into()), "{}", server.version);
        assert_eq!(client.ask("AURORA.LEASE FENCE 1"), "+OK");
        for words in ["GET k", "SET k 2", "EXISTS k", "EVAL return(1) 0", "XREAD COUNT 1 STREAMS s 0"] {
            client.refused(words);
        }
        assert_eq!(client.ask("PING"), "+PONG", "{}", server.version);
        assert!(client.ask("INFO replication").contains("role:master"), "{}", server.version);
    });
}

/// Files below a directory that hold data.
fn data_files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        let name = entry.file_name().unwrap().to_string_lossy().into_owned();
        if entry.is_dir() {
            found.extend(data_files(&entry));
        } else if name.contains("aof") || name.ends_with(".rdb") {
            found.push(entry);
        }
    }
    found
}

fn assert_no_trace(server: &Server) {
    let files = data_files(&server.dir);
    assert!(!files.is_empty(), "{}", server.version);
    for file in files {
        let content = std::fs::read(&file).unwrap().to_ascii_lowercase();
        assert!(!content.windows(6).any(|part| part == b"aurora"), "{}: {}", server.version, file.display());
    }
}

#[test]
fn dumps_made_with_it_load_without_it_and_the_other_way_round() {
    on_all("dumps", |mut server| {
        let (with, without) = (server.config(true, ""), server.config(false, ""));
        server.start(&with);
        let mut client = server.client();
        client.extend(1, LONG);
        for write in ["SET k 1", "XADD s 1-1 a b", "PEXPIRE s 1000000"] {
            assert!(!client.ask(write).starts_with('-'), "{}: {write}", server.version);
        }
        assert_eq!(client.ask("AURORA.LEASE FENCE 1"), "+OK");
        server.end("SHUTDOWN SAVE");
        assert_no_trace(&server);
        server.start(&without);
        let mut client = server.client();
        assert_eq!((client.ask("GET k"), client.ask("XLEN s")), ("1".into(), ":1".into()), "{}", server.version);
        assert_eq!(client.ask("SET k 2"), "+OK");
        server.end("SHUTDOWN SAVE");
        server.start(&with);
        let mut client = server.client();
        assert_eq!(client.ask("GET k"), "2", "{}", server.version);
        client.refused("SET k 3");
        client.extend(1, LONG);
        assert_eq!(client.ask("SET k 4"), "+OK");
        server.end("SHUTDOWN NOSAVE");
        server.start(&with);
        assert_eq!(server.client().ask("GET k"), "2", "{}: NOSAVE leaves the dump as it was", server.version);
    });
}

#[test]
fn append_only_files_made_with_it_load_without_it_and_the_other_way_round() {
    on_all("aof", |mut server| {
        let files = "appendonly yes\nappendfsync always";
        let (with, without) = (server.config(true, files), server.config(false, files));
        server.start(&with);
        let mut client = server.client();
        client.extend(1, LONG);
        assert_eq!(client.ask("SET a 1"), "+OK");
        assert!(client.ask("BGREWRITEAOF").starts_with('+'));
        within("the file is rewritten", || client.ask("INFO persistence").contains("aof_rewrite_in_progress:0").then_some(()));
        assert_eq!(client.ask("EVAL \"return redis.call('SET','b','2')\" 0"), "+OK");
        assert_eq!((client.ask("MULTI"), client.ask("SET c 3")), ("+OK".into(), "+QUEUED".into()));
        assert_eq!(client.ask("EXEC"), "+OK");
        assert_eq!(client.ask("AURORA.LEASE FENCE 1"), "+OK");
        client.refused("SET d 4");
        server.kill();
        assert_no_trace(&server);
        server.start(&without);
        let mut client = server.client();
        assert_eq!(client.ask("MGET a b c d"), "1 2 3 $-1", "{}", server.version);
        assert_eq!(client.ask("SET e 5"), "+OK");
        server.kill();
        server.start(&with);
        let mut client = server.client();
        assert_eq!(client.ask("MGET a b c e"), "1 2 3 5", "{}: loaded although it is closed", server.version);
        client.refused("SET d 4");
    });
}

#[test]
fn a_rewritten_configuration_loads_it_again() {
    on_all("rewrite", |mut server| {
        let config = server.config(true, "");
        server.start(&config);
        let mut client = server.client();
        client.extend(1, LONG);
        let answer = client.ask("CONFIG REWRITE");
        assert_eq!(answer, "-ERR The server is running without a config file", "{}: as the agent starts it", server.version);
        assert_eq!(client.ask("SET k 1"), "+OK", "and nothing has changed");
        server.kill();
        let file = server.dir.join("redis.conf");
        std::fs::write(&file, &config).unwrap();
        server.spawn(file.to_str().unwrap());
        server.answers();
        let mut client = server.client();
        assert_eq!(client.ask("CONFIG REWRITE"), "+OK", "{}", server.version);
        server.end("SHUTDOWN NOSAVE");
        let lines = std::fs::read_to_string(&file).unwrap();
        assert_eq!(lines.lines().filter(|line| line.starts_with("loadmodule ")).count(), 1, "{}: {lines}", server.version);
        server.spawn(file.to_str().unwrap());
        server.answers();
        server.client().refused("SET k 1");
    });
}

#[test]
fn what_a_pause_holds_back_is_not_let_go_beyond_the_lease() {
    on_all("held", |mut server| {
        server.start(&server.config(true, ""));
        let mut admin = server.client();
        // Held back within the lease, let go beyond it: by word, or by becoming a replica.
        for (term, becomes_replica) in [(1, false), (2, true)] {
            admin.extend(term, LONG);
            assert_eq!(admin.ask("SET k before"), "+OK");
            let [mut set, mut queued, mut script, mut push, mut pop] = [(); 5].map(|()| server.client());
            assert_eq!((queued.ask("MULTI"), queued.ask("SET k queued")), ("+OK".into(), "+QUEUED".into()));
            pop.send("BLPOP l 0");
            assert_eq!(admin.ask("CLIENT PAUSE 315360000000 WRITE"), "+OK", "{}", server.version);
            set.send("SET k held");
            queued.send("EXEC");
            script.send("EVAL \"return redis.call('SET','k','script')\" 0");
            push.send("RPUSH l 1");
            assert!(set.waits() && queued.waits() && script.waits() && push.waits() && pop.waits(), "{}", server.version);
            assert_eq!(admin.ask(&format!("AURORA.LEASE FENCE {term}")), "+OK");
            if becomes_replica {
                assert_eq!(admin.ask("REPLICAOF 127.0.0.1 1"), "+OK", "{}", server.version);
                assert!(pop.answer().starts_with("-UNBLOCKED "), "{}", server.version);
            }
            let let_go = admin.ask("CLIENT UNPAUSE");
            let is_let_go = becomes_replica || server.is_old();
            assert_eq!(let_go.starts_with("-LEASEEXPIRED "), !is_let_go, "{}: {let_go}", server.version);
            if is_let_go {
                for (name, client) in [("set", &mut set), ("exec", &mut queued), ("script", &mut script), ("push", &mut push)] {
                    let answer = client.answer();
                    assert!(answer.starts_with('-'), "{}: {name}: {answer}", server.version);
                }
            } else {
                assert!(set.waits() && queued.waits() && script.waits() && push.waits() && pop.waits(), "{}", server.version);
            }
            assert_eq!((admin.ask("GET k"), admin.ask("LLEN l")), ("before".into(), ":0".into()), "{}", server.version);
            if becomes_replica {
                continue;
            }
            // In office again: what is still held goes on within the new lease.
            admin.extend(term + 1, LONG);
            assert_eq!(admin.ask("CLIENT UNPAUSE"), "+OK", "{}", server.version);
            if !is_let_go {
                let answers = [set.answer(), queued.answer(), script.answer(), push.answer()];
                assert_eq!(answers, ["+OK", "+OK", "+OK", ":1"], "{}", server.version);
                assert_eq!(pop.answer(), "l 1", "{}", server.version);
            }
        }
    });
}

#[test]
fn clients_that_wait_over_the_end_get_no_acknowledgement_beyond_it() {
    on_all("waits", |mut server| {
        server.start(&server.config(true, ""));
        let mut admin = server.client();
        admin.extend(1, SHORT);
        for write in ["XADD s 1-1 a b", "XGROUP CREATE s g $", "SET e 1 PX 350"] {
            assert!(!admin.ask(write).starts_with('-'), "{}: {write}", server.version);
        }
        let [mut pop, mut moves, mut reads, mut acks, mut short] = [(); 5].map(|()| server.client());
        pop.send("BLPOP l 0");
        moves.send("BLMOVE l2 l3 LEFT LEFT 0");
        reads.send("XREADGROUP GROUP g c BLOCK 0 STREAMS s >");
        acks.send("WAIT 1 700");
        short.send("BLPOP l 0.6");
        std::thread::sleep(LATE);
        for refused in ["RPUSH l 1", "RPUSH l2 1", "XADD s * a b", "EVAL \"return redis.call('RPUSH','l','1')\" 0"] {
            admin.refused(refused);
        }
        assert_eq!(short.answer(), "*-1", "{}: its time is over", server.version);
        assert_eq!(acks.answer(), ":0", "{}: it counts replicas", server.version);
        assert!(pop.waits() && moves.waits() && reads.waits(), "{}", server.version);
        within("keys expire all the same", || (admin.ask("EXISTS e") == ":0").then_some(()));
        admin.extend(1, LONG);
        for write in ["RPUSH l 1", "RPUSH l2 1", "XADD s 2-1 a b"] {
            assert!(!admin.ask(write).starts_with('-'), "{}: {write}", server.version);
        }
        assert_eq!((pop.answer(), moves.answer()), ("l 1".into(), "1".into()), "{}", server.version);
        assert!(reads.answer().starts_with("s 2-1 "), "{}", server.version);
    });
}
