//! The command line `aurora-redis`: verbs, help texts and exit codes. Each verb is one file below.
//!
//! It is a client like any other: it finds the leading controller by its election node and speaks its HTTP API; only `create`, `haproxy
//! follow` and `doctor` look at ZooKeeper or the scheduler themselves. Exit codes: 0 done, 1 failed or refused, 2 wrong usage or configuration.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Duration;

use agent::layers::{self, Layers};
use agent::snapshot::{How, SnapshotId};
use agent::zk::{self, Keeper};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::{COMMAND_LINE_KEYS, Place};
use crate::view::Ask;
use agent::causes::chain;

mod ask;
mod create;
mod doctor;
mod door;
mod haproxy;
mod master;
mod migrate;
mod operations;
mod progress;
mod rdb;
mod restore;
mod show;
mod snapshots;
mod table;

/// Longest wait for a session with ZooKeeper.
const SESSION_WAIT: Duration = Duration::from_secs(6);
/// Its length: nothing of ours depends on it.
const SESSION: Duration = Duration::from_secs(6);
/// Read when it is there and no other file is named.
const DEFAULT_FILE: &str = "aurora-redis.toml";

/// Looks after Redis clusters on Apache Aurora.
///
/// The settings below name the cluster and its surroundings. Each can stand in ./aurora-redis.toml (or the file of --config), in
/// the environment (AURORA_REDIS_CLUSTER and so on), or in a flag, which wins.
///
/// Exit codes: 0 done, 1 failed or refused, 2 wrong usage or configuration.
#[derive(Parser)]
#[command(name = "aurora-redis", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Makes a cluster from a cluster file: writes its desired state, then creates the Aurora job.
    ///
    /// What exists already is left as it is, so the command can be repeated. Start a controller for the cluster as well: without one the
    /// instances wait, with no server running.
    Create {
        /// The cluster file (TOML).
        file: PathBuf,
        /// Have the cluster born from a dump that lies elsewhere, e.g. another cluster's best snapshot: it is imported first (SOURCE as for
        /// snapshots import), and where it comes from is only read. Refused if the new cluster has a record, or snapshots, already.
        #[arg(long, value_name = "SOURCE")]
        from: Option<String>,
        /// Print the job that would be created and contact nobody; with --from, only look whether the source and the place for it are there.
        #[arg(long)]
        dry_run: bool,
    },
    /// Shows the cluster: master, instances, snapshot, what is waited for and why.
    Status,
    /// Shows the cluster again and again, until interrupted; JSON prints a line for each change.
    Watch {
        /// Time between two looks.
        #[arg(long, default_value = "1s", value_parser = layers::parse_duration)]
        every: Duration,
    },
    /// Changes the number of instances (master and replicas together). The master is never removed.
    Scale {
        /// Instances wanted, at least 1.
        #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(crate::operations::MAX_INSTANCES)))]
        instances: u32,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
    },
    /// Takes a snapshot now and waits until it is in the store.
    Backup {
        /// From a dump file that Redis writes, or straight from the replication stream without using the disk; by default as the cluster was
        /// created (snapshots.how).
        #[arg(long, value_name = "dump|stream")]
        how: Option<How>,
        /// Return as soon as the controller has taken it on.
        #[arg(long)]
        no_wait: bool,
    },
    /// Shows the snapshots in the store.
    Snapshots {
        #[command(subcommand)]
        verb: Option<SnapshotsVerb>,
    },
    /// Restores a snapshot: into a cluster that serves, whose data is saved and replaced, or into one that lost every instance.
    ///
    /// Shows the plan, and asks. Into a cluster that serves nothing is done without --consent EPOCH, which the plan names. In one that lost its master,
    /// and where it cannot be proven that the last one writes no more, --consent takes the responsibility for it.
    Restore(restore::Restore),
    /// Migrates the data of a running Redis or Valkey server, of whatever kind, into this cluster, with a pause of well under a second.
    ///
    /// `migrate HOST:PORT --dry-run` shows the plan; with --consent EPOCH an instance begins to follow that server, closed, and `status` shows how far
    /// it is. `migrate --cut-over` ends it: the present data is saved as a snapshot, that server is had to refuse writes, and the data leads here
    /// with everything it ever acknowledged. `migrate --cancel` leaves all as it was.
    Migrate(migrate::Migrate),
    /// Hands the master over to another instance without losing a write: writes are held for some milliseconds.
    Switchover {
        /// Instance that is to lead; the best replica when left out.
        #[arg(long, value_name = "INSTANCE")]
        to: Option<u32>,
        /// Show what would happen, and change nothing.
        #[arg(long)]
        dry_run: bool,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
    },
    /// Has another instance lead although something cannot be proven, or more would be lost than the budget allows.
    ///
    /// Shows the evidence against the last master, the best copy and what is missing. Without --consent nothing is done: whatever can be
    /// proven, the controller does by itself.
    Failover {
        /// Take the responsibility, for this epoch (status shows it). Make sure that the last master is gone: two masters lose writes.
        #[arg(long, value_name = "EPOCH")]
        consent: Option<u64>,
        /// Show what would happen, and change nothing.
        #[arg(long)]
        dry_run: bool,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
    },
    /// Shows every change of master: evidence, candidates, pause, loss.
    History,
    /// HAProxy in front of the cluster.
    Haproxy {
        #[command(subcommand)]
        verb: HaproxyVerb,
    },
    /// Looks at RDB files, without a cluster.
    Rdb {
        #[command(subcommand)]
        verb: RdbVerb,
    },
    /// Checks this host and what it needs to reach; each failure comes with its next step.
    Doctor,
}

#[derive(Subcommand)]
enum SnapshotsVerb {
    /// All of them, best first (the same as no verb).
    List,
    /// Everything about one.
    Show {
        /// Its name.
        id: SnapshotId,
    },
    /// Reads snapshots back from the store, judges them, has a throw-away server load them, and notes what was found.
    ///
    /// Length, SHA-256, structure and checksum are judged always; the load needs a redis-server on this machine (or --redis-server), of a
    /// version that loads the snapshot, and as much room below TMPDIR and in memory as the data takes. One found bad is used no more, until
    /// it is verified again and found good. Speaks to the store itself (snapshots.uri); no controller is needed.
    Verify {
        /// Its name; the newest good one when left out.
        id: Option<SnapshotId>,
        /// All of them.
        #[arg(long, conflicts_with = "id")]
        all: bool,
        /// The newest good one (what is done anyway without a name).
        #[arg(long, conflicts_with_all = ["id", "all"])]
        newest: bool,
        /// Load it into no server.
        #[arg(long, conflicts_with = "redis_server")]
        no_load: bool,
        /// The server to load it into; otherwise the redis-server or valkey-server on the path.
        #[arg(long, value_name = "FILE")]
        redis_server: Option<PathBuf>,
    },
    /// Rehearses a restore: does what a cluster would do that lost everything, into a throw-away server on this machine.
    ///
    /// Lists the store, fetches the best snapshot, judges it, loads it, counts its keys, and tells how long all of it took; the next one when
    /// that is no good. What was restored is noted beside it. Speaks to the store itself; no controller is needed, and no server is touched.
    Rehearse {
        /// The server to load it into; otherwise the redis-server or valkey-server on the path.
        #[arg(long, value_name = "FILE")]
        redis_server: Option<PathBuf>,
    },
    /// Copies a dump from elsewhere into the cluster's store, as a snapshot.
    ///
    /// It is judged as it comes: structure, checksum, and what its manifest says where it has one; what is wrong is refused, and nothing of it is kept.
    /// Where it comes from is only read. A cluster that is not yet born begins with what was imported last; any other uses it only when somebody
    /// names it (aurora-redis restore), and it is never its latest, nor a backup of it. Speaks to the store itself; no controller is needed.
    Import {
        /// An RDB file, a directory with dump.rdb in it (the original system's), a snapshot's directory of any store, or a job's directory in a
        /// store, for the best good one of its snapshots; as a path of this machine, or a URL (hdfs://…, file:///…).
        source: String,
    },
    /// Marks a snapshot to be kept. Speaks to the store itself.
    Pin {
        /// Its name.
        id: SnapshotId,
        /// Why, for those who come after.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Takes the mark away.
    Unpin {
        /// Its name.
        id: SnapshotId,
    },
    /// Says that a suspicious snapshot is right, however little it holds: it is used like any other, and what comes after it is compared with it.
    ///
    /// Speaks to the store itself.
    Accept {
        /// Its name.
        id: SnapshotId,
        /// Why, for those who come after.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Removes the snapshots that nothing wants kept, and uploads that were abandoned two days ago.
    ///
    /// Kept are the newest ones, the newest of each day and of each week, each of the numbers given; always the best good one, the last good one before a
    /// suspicious one, pinned and imported ones, what is suspicious, what is younger than an hour, what is unusable (look at it first), and whatever has not the name of a snapshot. Shows the fate of each, and asks.
    Prune {
        /// Keep the newest so many.
        #[arg(long, value_name = "N", default_value_t = 24)]
        keep: usize,
        /// Keep the newest of each of so many days (UTC).
        #[arg(long, value_name = "N", default_value_t = 7)]
        days: usize,
        /// Keep the newest of each of so many weeks (from Monday, UTC).
        #[arg(long, value_name = "N", default_value_t = 4)]
        weeks: usize,
        /// Show what would go, and remove nothing.
        #[arg(long)]
        dry_run: bool,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
    },
}

#[derive(Subcommand)]
enum RdbVerb {
    /// Judges RDB files: header, whole structure, checksum, and that nothing follows.
    ///
    /// Prints for each whether it is good, and else where and why it is not; who wrote it, its keys per database, the modules it needs.
    /// Exit code 0: all of them are good; 1: one is not, or cannot be read. Files of any size are read once, in little memory.
    Check {
        /// The files; - is the standard input.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

#[derive(Subcommand)]
enum HaproxyVerb {
    /// Prints a configuration: a port for writers, one for readers, health checks that ask the agents.
    Config {
        /// Address both ports are bound to.
        #[arg(long, default_value = "*")]
        bind: String,
        /// Port for writers.
        #[arg(long, default_value_t = 6379)]
        writers_port: u16,
        /// Port for readers.
        #[arg(long, default_value_t = 6380)]
        readers_port: u16,
        /// Server slots: at least as many as there will ever be instances.
        #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1000))]
        slots: u32,
        /// Readers see no replica farther behind, e.g. 1mb.
        #[arg(long, default_value = "1mb", value_parser = layers::parse_bytes)]
        max_lag_bytes: u64,
        /// HAProxy's stats socket.
        #[arg(long, default_value = "/run/haproxy/aurora-redis.sock")]
        socket: String,
    },
    /// Keeps the slots of a running HAProxy filled from Aurora's serverset.
    Follow {
        /// HAProxy's stats socket.
        #[arg(long, default_value = "/run/haproxy/aurora-redis.sock")]
        socket: PathBuf,
        /// Fill once and return.
        #[arg(long)]
        once: bool,
    },
}

/// How answers are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
enum Output {
    #[default]
    Table,
    Json,
}

/// Why a verb did not succeed.
#[derive(Debug)]
enum Failure {
    /// Exit code 2.
    Usage(String),
    /// Exit code 1.
    Failed(String),
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::Failed(chain(&error))
    }
}

/// What every verb gets.
struct Context {
    place: Place,
    output: Output,
    session: OnceLock<Keeper>,
}

impl Context {
    fn new(place: Place, output: Output) -> Context {
        Context { place, output, session: OnceLock::new() }
    }

    /// The one session with ZooKeeper of this process; begun at the first call.
    fn session(&self) -> &Keeper {
        self.session.get_or_init(|| Keeper::start(&self.place.zookeeper, SESSION))
    }

    /// The session, once it is up.
    async fn keeper(&self) -> Result<&Keeper, zk::Error> {
        let session = self.session();
        session.ready(SESSION_WAIT).await?;
        Ok(session)
    }

    /// Prints JSON, or the text of `table`.
    fn print<T: serde::Serialize>(&self, value: &T, table: impl FnOnce() -> String) -> Result<(), Failure> {
        match self.output {
            Output::Json => say(&serde_json::to_string_pretty(value)?),
            Output::Table => say(&table()),
        }
        Ok(())
    }
}

/// Prints a line; a reader that has gone (`| head`) ends the program like any other.
fn say(text: &str) {
    use std::io::Write;
    if writeln!(std::io::stdout(), "{}", text.trim_end_matches('\n')).is_err() {
        std::process::exit(0);
    }
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let matches = layers::flags(COMMAND_LINE_KEYS, Cli::command()).get_matches();
    let verb = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit()).verb;
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(Failure::from)
        .and_then(|runtime| runtime.block_on(run(&matches, verb)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Failed(message)) => {
            eprintln!("aurora-redis: {message}");
            ExitCode::from(1)
        }
        Err(Failure::Usage(message)) => {
            eprintln!("aurora-redis: {message}");
            ExitCode::from(2)
        }
    }
}

async fn run(matches: &clap::ArgMatches, verb: Verb) -> Result<(), Failure> {
    let mut layers = Layers::read(COMMAND_LINE_KEYS, matches, Some(Path::new(DEFAULT_FILE)));
    match verb {
        Verb::Create { file, from, dry_run } => create::run(layers, create::Create { file, from, dry_run }).await,
        Verb::Rdb { verb: RdbVerb::Check { files } } => {
            let output = output(&mut layers);
            layers.finish().map_err(mistakes)?;
            rdb::check(output, &files)
        }
        verb => {
            let place = Place::read(&mut layers);
            let output = output(&mut layers);
            layers.finish().map_err(mistakes)?;
            dispatch(&Context::new(place, output), verb).await
        }
    }
}

async fn dispatch(context: &Context, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Create { .. } | Verb::Rdb { .. } => unreachable!("handled by run: they need no cluster's settings"),
        Verb::Status => show::status(context).await,
        Verb::Watch { every } => show::watch(context, every).await,
        Verb::History => show::history(context).await,
        Verb::Snapshots { verb } => of_snapshots(context, verb.unwrap_or(SnapshotsVerb::List)).await,
        Verb::Scale { instances, yes } => operations::scale(context, instances, yes).await,
        Verb::Backup { how, no_wait } => operations::backup(context, how, no_wait).await,
        Verb::Restore(wanted) => restore::run(context, wanted).await,
        Verb::Migrate(wanted) => migrate::run(context, wanted).await,
        Verb::Switchover { to, dry_run, yes } => {
            let ask = |dry_run| Ask::Switchover { owner: owner(), to, dry_run };
            master::change(context, "Switch the master over", ask, dry_run, yes).await
        }
        Verb::Failover { consent, dry_run, yes } => {
            let ask = |dry_run| Ask::Failover { owner: owner(), consent_epoch: consent, dry_run };
            master::change(context, "Fail over", ask, dry_run, yes).await
        }
        Verb::Haproxy { verb: HaproxyVerb::Config { bind, writers_port, readers_port, slots, max_lag_bytes, socket } } => {
            let cluster = context.place.cluster.clone();
            let options = crate::haproxy::Options { cluster, bind, writers_port, readers_port, slots, max_lag_bytes, socket };
            haproxy::config(&options)
        }
        Verb::Haproxy { verb: HaproxyVerb::Follow { socket, once } } => haproxy::follow(context, &socket, once).await,
        Verb::Doctor => doctor::run(context).await,
    }
}

async fn of_snapshots(context: &Context, verb: SnapshotsVerb) -> Result<(), Failure> {
    match verb {
        SnapshotsVerb::List => snapshots::list(context).await,
        SnapshotsVerb::Show { id } => snapshots::show(context, &id).await,
        SnapshotsVerb::Verify { id, all, newest: _, no_load, redis_server } => {
            snapshots::verify(context, snapshots::Verify { id, all, no_load, redis_server }).await
        }
        SnapshotsVerb::Rehearse { redis_server } => snapshots::rehearse(context, redis_server).await,
        SnapshotsVerb::Import { source } => snapshots::import(context, &source).await,
        SnapshotsVerb::Pin { id, reason } => snapshots::pin(context, &id, reason).await,
        SnapshotsVerb::Accept { id, reason } => snapshots::accept(context, &id, reason).await,
        SnapshotsVerb::Unpin { id } => snapshots::unpin(context, &id).await,
        SnapshotsVerb::Prune { keep, days, weeks, dry_run, yes } => {
            snapshots::prune(context, snapshots::Prune { newest: keep, days, weeks, dry_run, yes }).await
        }
    }
}

fn output(layers: &mut Layers) -> Output {
    layers.required("output", "table or json", |text| match text {
        "table" => Ok(Output::Table),
        "json" => Ok(Output::Json),
        _ => Err("it is neither"),
    })
}

fn mistakes(mistakes: layers::Mistakes) -> Failure {
    let count = mistakes.0.len();
    Failure::Usage(format!(
        "{count} mistake{} in the configuration:\n  {}",
        if count == 1 { "" } else { "s" },
        mistakes.0.join("\n  ")
    ))
}

/// Who asks, for the record: `user@host`.
fn owner() -> String {
    let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_else(|_| "somebody".into());
    let name: String = user.chars().filter(|c| !c.is_control()).take(64).collect();
    format!("{name}@{}", rustix::system::uname().nodename().to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_sound_and_its_settings_work_after_the_verb() {
        let command = layers::flags(COMMAND_LINE_KEYS, Cli::command());
        command.clone().debug_assert();
        let matches =
            command.try_get_matches_from(["aurora-redis", "scale", "5", "--cluster", "a/b/c", "--output", "json"]).unwrap();
        assert_eq!(matches.get_one::<String>("cluster").map(String::as_str), Some("a/b/c"));
    }

    #[test]
    fn wrong_usage_exits_with_2() {
        let command = layers::flags(COMMAND_LINE_KEYS, Cli::command());
        for arguments in [
            &["aurora-redis"][..],
            &["aurora-redis", "scale", "0"],
            &["aurora-redis", "restore", "yesterday"],
            &["aurora-redis", "status", "--colour"],
            &["aurora-redis", "migrate"],
            &["aurora-redis", "migrate", "--cut-over", "--cancel"],
            &["aurora-redis", "migrate", "somewhere"],
            &["aurora-redis", "rdb", "check"],
            &["aurora-redis", "snapshots", "verify", "newest"],
            &["aurora-redis", "snapshots", "verify", "--all", "--newest"],
            &["aurora-redis", "haproxy", "config", "--max-lag-bytes", "far"],
        ] {
            let error = command.clone().try_get_matches_from(arguments).expect_err("wrong usage");
            assert_eq!(error.exit_code(), 2, "{arguments:?}");
        }
    }
}
