//! `make bench-module`: what the lease module costs, by redis-benchmark against servers with and without it.
//!
//! Three servers, two of them without the module: what these two differ in is the noise. Many short rounds, in each of which every server is measured once
//! and the order changes; only ratios within a round count, so a machine that is slower for a while is so for all. Processor time of the server for a
//! request is measured beside, for others' work on the machine hardly changes it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::time::{ClockId, clock_gettime};

use super::report::{self, ratios_between, show_ratio, spread, table};
use crate::demo::table::say;
use crate::harness::ports::Port;
use crate::harness::process::Process;
use crate::harness::{Bench, binaries, redis as server, wait};

/// Around the table in the documentation.
const MARKERS: [&str; 2] = ["<!-- make bench-module: begin -->\n", "<!-- make bench-module: end -->\n"];
/// As the agent with the usual lease of two seconds.
const EXTEND_EVERY: Duration = Duration::from_millis(500);
const LEASE: Duration = Duration::from_secs(2);
const CLIENTS: &str = "50";
/// Command, commands sent at once, requests in a round: a quarter of a second or so.
const WORK: [(&str, usize, usize); 4] = [("SET", 1, 15_000), ("GET", 1, 15_000), ("SET", 16, 160_000), ("GET", 16, 160_000)];
/// The order of the servers by round.
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [2, 1, 0], [1, 2, 0], [0, 2, 1], [2, 0, 1], [1, 0, 2]];

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct CostWishes {
    /// Rounds of each command and pipeline.
    #[arg(long, value_name = "N", default_value_t = 60)]
    pub rounds: usize,
    /// Put the table into this file, between its markers.
    #[arg(long, value_name = "FILE")]
    pub write: Option<PathBuf>,
}

/// What one server did in one round.
#[derive(Clone, Copy, Debug)]
struct Sample {
    per_second: f64,
    p99_ms: f64,
    /// Processor time of the server for a request.
    cpu_ns: f64,
}

impl Sample {
    fn figures(self) -> [f64; 3] {
        [self.per_second, self.p99_ms, self.cpu_ns]
    }
}

/// A round: without the module, without it again, with it.
type Round = [Sample; 3];

/// A server of its own.
struct Subject {
    address: String,
    port: Port,
    process: Process,
}

/// Measures, prints the table and puts it where it is wished.
pub async fn measure(bench: Arc<Bench>, wishes: &CostWishes) -> Result<()> {
    let module = binaries::ours("libaurora_redis_lease.so")?;
    let subjects = [
        start(&bench, "without", None).await?,
        start(&bench, "without-again", None).await?,
        start(&bench, "with", Some(&module)).await?,
    ];
    let mut rounds = BTreeMap::new();
    let lease = keep_lease(&subjects[2].address);
    let measured = async {
        for number in 0..wishes.rounds {
            for (place, work) in WORK.iter().enumerate() {
                let round: &mut Vec<Round> = rounds.entry(place).or_default();
                round.push(one_round(&subjects, *work, ORDERS[number % ORDERS.len()]).await?);
            }
            if number % 10 == 9 {
                say(&format!("{} of {} rounds", number + 1, wishes.rounds));
            }
        }
        anyhow::Ok(())
    };
    tokio::select! {
        ended = lease => ended?,
        ended = measured => ended?,
    }
    let text = text(&rounds);
    println!("\n{text}");
    match &wishes.write {
        Some(file) => report::write_between(file, MARKERS, &text),
        None => Ok(()),
    }
}

async fn start(bench: &Arc<Bench>, name: &str, module: Option<&Path>) -> Result<Subject> {
    let host = bench.here();
    let port = bench.port(&host)?;
    let mut command = bench.command(&host, binaries::tool("redis-server")?);
    command.args(["--bind", &host.address, "--port", &port.number().to_string(), "--save", "", "--appendonly", "no"]);
    command.arg("--dir").arg(bench.subdir(name)?);
    if let Some(module) = module {
        command.arg("--loadmodule").arg(module);
    }
    let process = bench.start(name, command)?;
    let address = format!("{}:{}", host.address, port.number());
    wait::until("the server answers", Duration::from_secs(20), async || {
        redis::cmd("PING").query_async::<()>(&mut server::connect(&address).await?).await?;
        anyhow::Ok(())
    })
    .await?;
    Ok(Subject { address, port, process })
}

/// Renews the lease of the server with the module, as an agent does.
async fn keep_lease(address: &str) -> Result<()> {
    let mut connection = server::connect(address).await?;
    loop {
        let now = clock_gettime(ClockId::Boottime);
        let until = Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32) + LEASE;
        let mut extend = redis::cmd("AURORA.LEASE");
        extend.arg("EXTEND").arg(1).arg(until.as_nanos().to_string());
        extend.query_async::<()>(&mut connection).await.context("the lease")?;
        tokio::time::sleep(EXTEND_EVERY).await;
    }
}

async fn one_round(subjects: &[Subject; 3], work: (&str, usize, usize), order: [usize; 3]) -> Result<Round> {
    let mut round = [None; 3];
    for place in order {
        round[place] = Some(sample(&subjects[place], work).await?);
    }
    Ok(round.map(|sample| sample.expect("each order names every server")))
}

async fn sample(subject: &Subject, (command, pipeline, requests): (&str, usize, usize)) -> Result<Sample> {
    let before = cpu_ns(subject.process.pid())?;
    let (host, _) = subject.address.split_once(':').context("an address with a port")?;
    let mut benchmark = tokio::process::Command::new(binaries::tool("redis-benchmark")?);
    benchmark.args(["--csv", "-h", host, "-p", &subject.port.number().to_string(), "-c", CLIENTS, "-r", "100000", "-t", command]);
    benchmark.args(["-n", &requests.to_string(), "-P", &pipeline.to_string()]);
    let output = benchmark.kill_on_drop(true).output().await?;
    ensure!(output.status.success(), "redis-benchmark: {}", String::from_utf8_lossy(&output.stderr));
    let cpu_ns = (cpu_ns(subject.process.pid())? - before) / requests as f64;
    let (per_second, p99_ms) = read_csv(&String::from_utf8_lossy(&output.stdout))?;
    Ok(Sample { per_second, p99_ms, cpu_ns })
}

/// Requests per second and the 99th percentile of the last line, by the names in the first.
fn read_csv(text: &str) -> Result<(f64, f64)> {
    let row = |line: &str| line.split(',').map(|cell| cell.trim_matches('"').to_owned()).collect::<Vec<_>>();
    let mut lines = text.lines().map(row);
    let head = lines.next().context("no output")?;
    let last = lines.next_back().context("no result")?;
    let column = |name: &str| -> Result<f64> {
        let at = head.iter().position(|cell| cell == name).with_context(|| format!("no column {name}"))?;
        Ok(last.get(at).with_context(|| format!("no {name}"))?.parse()?)
    };
    Ok((column("rps")?, column("p99_latency_ms")?))
}

/// Processor time of all threads of a process so far, by the scheduler's own account.
fn cpu_ns(pid: u32) -> Result<f64> {
    let tasks = format!("/proc/{pid}/task");
    let mut sum = 0.0;
    for task in std::fs::read_dir(&tasks).with_context(|| tasks.clone())? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        sum += text.split(' ').next().context("an empty schedstat")?.parse::<f64>()?;
    }
    Ok(sum)
}

/// The table: what a figure of the first server is, and what the others' are of it.
fn text(rounds: &BTreeMap<usize, Vec<Round>>) -> String {
    let head = ["", "without", "with the module", "middle half", "two without", "middle half"].map(str::to_owned).to_vec();
    let mut lines = vec![head];
    for (place, rounds) in rounds {
        let (command, pipeline, _) = WORK[*place];
        for (at, figure) in ["requests/s", "p99, ms", "processor time for a request, µs"].into_iter().enumerate() {
            let ratios = |of: usize| spread(rounds.iter().map(|r| r[of].figures()[at] / r[0].figures()[at]).collect());
            let [base, ..] = spread(rounds.iter().map(|r| r[0].figures()[at]).collect());
            let base = match at {
                0 => format!("{base:.0}"),
                1 => format!("{base:.3}"),
                _ => format!("{:.2}", base / 1e3),
            };
            let [with, with_low, with_high, _] = ratios(2);
            let [again, again_low, again_high, _] = ratios(1);
            lines.push(vec![
                format!("{command}, pipeline {pipeline}: {figure}"),
                base,
                show_ratio(with),
                ratios_between(with_low, with_high),
                show_ratio(again),
                ratios_between(again_low, again_high),
            ]);
        }
    }
    let count = rounds.values().next().map_or(0, Vec::len);
    format!("{}{count} rounds of each.\n\n{}", report::surroundings(), table(&lines))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_by_the_names_of_their_columns() {
        let csv = "\"test\",\"rps\",\"avg_latency_ms\",\"min_latency_ms\",\"p50_latency_ms\",\"p95_latency_ms\",\"p99_latency_ms\",\"max_latency_ms\"\n\
                   \"SET\",\"83333.33\",\"0.330\",\"0.104\",\"0.303\",\"0.527\",\"0.719\",\"1.351\"\n";
        assert_eq!(read_csv(csv).unwrap(), (83333.33, 0.719));
        assert!(read_csv("").is_err() && read_csv("\"test\",\"rps\"\n\"SET\",\"1\"\n").is_err());
    }

    #[test]
    fn the_table_compares_within_rounds() {
        let sample = |speed: f64| Sample { per_second: 1000.0 * speed, p99_ms: 1.0 / speed, cpu_ns: 5000.0 };
        let round = |slow: f64| [sample(slow), sample(slow), sample(slow * 0.5)];
        let text = text(&BTreeMap::from([(0, vec![round(1.0), round(0.1), round(0.4)])]));
        let row = text.lines().find(|line| line.contains("SET, pipeline 1: requests/s")).unwrap();
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        assert_eq!(cells[2..7], ["400", "-50.0 %", "-50.0 % to -50.0 %", "+0.0 %", "+0.0 % to +0.0 %"], "{text}");
    }
}
