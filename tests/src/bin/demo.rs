//! `make demo`, `make up`, `make down`, `make bench`, `make bench-module`, `make bench-snapshots`: see [`tests::demo`] and [`tests::bench`].

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use tests::bench::{self, Report};
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
    Bench(bench::Wishes),
    /// Measures what the lease module costs.
    BenchModule(bench::CostWishes),
    /// Measures what snapshots cost.
    BenchSnapshots(bench::SnapshotWishes),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Run { before, steps } => on_bench("demo", 0, Term::Fails, |bench| demo::run(bench, Wishes { steps, before })),
        Command::Bench(wishes) => measure(&wishes),
        Command::BenchModule(wishes) => {
            on_bench("bench-module", 0, Term::Fails, async |bench| bench::module_cost(bench, &wishes).await)
        }
        Command::BenchSnapshots(wishes) => {
            on_bench("bench-snapshots", 0, Term::Fails, async |bench| bench::snapshots(bench, &wishes).await)
        }
        Command::Serve => on_bench("up", 0, Term::Ends, demo::up::serve),
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

/// Both parts of the benchmark. What was measured is printed also when something fails.
fn measure(wishes: &bench::Wishes) -> Result<()> {
    let mut report = Report::default();
    let mut outcome = on_bench("bench", 0, Term::Fails, |_| bench::side_by_side(wishes, &mut report));
    for system in wishes.to_cut_off() {
        outcome = outcome
            .and_then(|()| on_bench("bench", system.hosts(), Term::Fails, |bench| bench::cut_off(bench, system, &mut report)));
    }
    println!("\n{}", report.text());
    outcome?;
    if let Some(file) = &wishes.write {
        report.write_into(file)?;
    }
    match report.failed() {
        0 => Ok(()),
        failed => bail!("{failed} rounds could not be finished"),
    }
}

/// Runs `work` until it ends or a signal comes, and takes everything down in both cases. With `hosts`, in a network of its own (needs root).
fn on_bench<Fut: Future<Output = Result<()>>>(
    name: &str,
    hosts: usize,
    on_term: Term,
    work: impl FnOnce(Arc<Bench>) -> Fut,
) -> Result<()> {
    let bench = Arc::new(Bench::new(name, hosts)?);
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
