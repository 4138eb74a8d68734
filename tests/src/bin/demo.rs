//! `make demo`, `make up`, `make down`, `make bench`: see [`tests::demo`].

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use tests::demo::{self, Before, Wishes};
use tests::harness::Bench;
use tokio::signal::unix::{SignalKind, signal};

/// A Redis cluster's life on real parts.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The whole life of a cluster, each step verified; exit code 0 only then.
    Run {
        /// Shell command to run just before a step; it finds DIR, ZOOKEEPER, MASTER_HOST and MASTER_PORT in its environment.
        #[arg(long, value_name = "STEP=COMMAND")]
        before: Vec<Before>,
        /// Only these steps; by default all.
        #[arg(long, value_delimiter = ',', value_parser = demo::step_name)]
        steps: Vec<String>,
    },
    /// Starts the cluster and leaves it running.
    Up,
    /// Ends what `up` started.
    Down,
    /// Holds a cluster in the foreground (what `up` starts).
    Serve,
    /// Measures the figures of docs/benchmark.md.
    Bench,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Run { before, steps } => on_bench("demo", Term::Fails, |bench| demo::run(bench, Wishes { steps, before })),
        Command::Bench => on_bench("bench", Term::Fails, demo::bench::run),
        Command::Serve => on_bench("up", Term::Ends, demo::up::serve),
        Command::Up => plain(demo::up::up()),
        Command::Down => plain(demo::up::down()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e:#}");
            ExitCode::FAILURE
        }
    }
}

/// What SIGTERM means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Term {
    /// The wished end.
    Ends,
    /// An interruption.
    Fails,
}

fn plain(work: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work)
}

/// Runs `work` until it ends or a signal comes, and takes everything down in both cases.
fn on_bench<Fut: Future<Output = Result<()>>>(name: &str, on_term: Term, work: impl FnOnce(Arc<Bench>) -> Fut) -> Result<()> {
    let bench = Arc::new(Bench::new(name, 0)?);
    let dir = bench.dir().to_path_buf();
    let outcome = bench.clone().block_on(async {
        let mut term = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        tokio::select! {
            outcome = work(bench.clone()) => outcome,
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
            _ = term.recv() => if on_term == Term::Ends { Ok(()) } else { bail!("terminated") },
            _ = hangup.recv() => bail!("the terminal went away"),
        }
    });
    let left = Arc::try_unwrap(bench).ok().context("somebody still holds the bench")?.close();
    if !left.is_empty() {
        bail!("processes were left behind and had to be killed: {left:?}");
    }
    if dir.exists() {
        bail!("{} could not be removed", dir.display());
    }
    outcome
}
