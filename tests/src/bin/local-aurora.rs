//! `local-aurora`: the stand-in scheduler as a program. See [`tests::local_aurora`].

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use tests::local_aurora::{Error, Options, guard, hosts, on_host, serve};

/// A small Aurora scheduler for one machine: real API, real ZooKeeper nodes, tasks as processes.
#[derive(Debug, Parser)]
#[command(name = "local-aurora", version, subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    serve: Option<Serve>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Args)]
struct Serve {
    /// ZooKeeper's connect string, host:port[,host:port...]
    #[arg(long)]
    zookeeper: String,
    /// File with the hosts to place tasks on
    #[arg(long)]
    hosts: PathBuf,
    /// Address to serve HTTP on; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Directory in ZooKeeper where the scheduler announces itself
    #[arg(long, default_value = "/aurora/scheduler")]
    scheduler_path: String,
    /// Directory in ZooKeeper of all serversets
    #[arg(long, default_value = "/aurora")]
    serverset_root: String,
    /// Directory of the sandboxes; default: a new one in the system's temporary directory, removed at the end
    #[arg(long)]
    work_dir: Option<PathBuf>,
    /// Penalty for tasks that end too fast too often
    #[arg(long, default_value = "1s", value_parser = duration)]
    flapping_delay: Duration,
    /// First wait before an SLA policy that has not allowed a kill of an update is asked again; it grows to five times this
    #[arg(long, default_value = "1m", value_parser = duration)]
    sla_retry: Duration,
    /// Between two looks at the tasks of hosts that are drained
    #[arg(long, default_value = "1m", value_parser = duration)]
    maintenance_poll: Duration,
    /// Limit for one question to an SLA coordinator
    #[arg(long, default_value = "1m", value_parser = duration)]
    coordinator_timeout: Duration,
    /// Name of the cluster in every answer
    #[arg(long, default_value = "local")]
    cluster_name: String,
    /// ZooKeeper session timeout of the scheduler and of each announced task
    #[arg(long, default_value = "10s", value_parser = duration)]
    session_timeout: Duration,
    /// Time from SIGTERM to SIGKILL when a task is killed
    #[arg(long, default_value = "60s", value_parser = duration)]
    preemption_wait: Duration,
    /// Limit for the whole end of a killed task
    #[arg(long, default_value = "120s", value_parser = duration)]
    stop_timeout: Duration,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Helpers that local-aurora runs inside a host's wrapper
    #[command(subcommand, hide = true)]
    OnHost(on_host::Helper),
    /// The process that kills tasks when local-aurora is killed
    #[command(hide = true)]
    Guard,
}

/// `1s`, `250ms`, `2m`, `1.5s`.
fn duration(text: &str) -> Result<Duration, String> {
    let units = [("ms", 0.001), ("s", 1.0), ("m", 60.0)];
    let parsed = units.into_iter().find_map(|(unit, factor)| {
        let number: f64 = text.strip_suffix(unit)?.parse().ok()?;
        Duration::try_from_secs_f64(number * factor).ok()
    });
    parsed.ok_or_else(|| "want a number with a unit: 250ms, 1s or 2m".to_owned())
}

/// Exit code of mistakes in flags and files, found before anything has started.
const MISTAKE: u8 = 2;

#[tokio::main]
async fn main() -> ExitCode {
    match Cli::parse() {
        Cli { command: Some(Command::OnHost(helper)), .. } => {
            println!("{}", helper.run().await);
            ExitCode::SUCCESS
        }
        Cli { command: Some(Command::Guard), .. } => {
            guard::stand(std::io::stdin().lock());
            ExitCode::SUCCESS
        }
        Cli { serve: Some(arguments), .. } => match run(arguments).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("local-aurora: {error:#}");
                let mistake = error.is::<hosts::Error>() || matches!(error.downcast_ref(), Some(Error::Unspecified(_)));
                ExitCode::from(if mistake { MISTAKE } else { 1 })
            }
        },
        Cli { serve: None, .. } => {
            eprintln!("local-aurora: --zookeeper and --hosts are needed, see --help");
            ExitCode::from(MISTAKE)
        }
    }
}

async fn run(arguments: Serve) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,tests=info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let hosts = hosts::load(&arguments.hosts)?;
    let (work_dir, temporary) = match arguments.work_dir {
        Some(directory) => (directory, false),
        None => (std::env::temp_dir().join(format!("local-aurora-{}", std::process::id())), true),
    };
    let options = Options {
        zookeeper: arguments.zookeeper,
        hosts,
        listen: arguments.listen,
        scheduler_path: arguments.scheduler_path,
        serverset_root: arguments.serverset_root,
        work_dir: work_dir.clone(),
        flapping_delay: arguments.flapping_delay,
        sla_retry: arguments.sla_retry,
        maintenance_poll: arguments.maintenance_poll,
        coordinator_timeout: arguments.coordinator_timeout,
        cluster_name: arguments.cluster_name,
        session_timeout: arguments.session_timeout,
        preemption_wait: arguments.preemption_wait,
        stop_timeout: arguments.stop_timeout,
        program: std::env::current_exe().context("cannot find the path of this program")?,
    };
    let stop = stop_signal().context("cannot wait for signals")?;
    let ready = |url: &str| {
        use std::io::Write;
        let mut out = std::io::stdout();
        // Whoever started this may have stopped listening; that is no reason to end.
        let _ = writeln!(out, "{url}").and_then(|()| out.flush());
    };
    let served = serve(options, ready, stop).await;
    if temporary {
        let _ = std::fs::remove_dir_all(work_dir);
    }
    Ok(served?)
}

/// Ends at SIGTERM or SIGINT.
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
