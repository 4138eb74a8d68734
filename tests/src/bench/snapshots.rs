//! `make bench-snapshots`: what snapshots cost. A dump into HDFS beside Hadoop's own command, the agent's memory while it streams, and what clients of the
//! master see of a backup from a replica beside a dump that the master makes.
//!
//! One cluster of two instances on a real HDFS with one DataNode serves all of it. Whatever is compared takes turns, round by round, and only ratios
//! within a round count.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};

use super::report::{self, ratios_between, show_ratio, spread, table};
use crate::demo::table::say;
use crate::harness::cluster::{Cluster, Options, Store};
use crate::harness::{Bench, wait};

mod latency;
mod restore;
mod upload;

use latency::{PHASES, Phase};

/// Around the tables in the documentation.
const MARKERS: [&str; 2] = ["<!-- make bench-snapshots: begin -->\n", "<!-- make bench-snapshots: end -->\n"];
/// Around the one of restores, which can be measured alone.
const RESTORE_MARKERS: [&str; 2] =
    ["<!-- make bench-snapshots, restores: begin -->\n", "<!-- make bench-snapshots, restores: end -->\n"];
/// Any wait for something ordinary.
const ORDINARY: Duration = Duration::from_secs(120);

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct SnapshotWishes {
    /// Rounds of each part.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub rounds: usize,
    /// Size of the dump and of the data, MiB.
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    pub mib: usize,
    /// Measure nothing but restores (four minutes with three rounds).
    #[arg(long)]
    pub restores_only: bool,
    /// Put the tables into this file, between its markers.
    #[arg(long, value_name = "FILE")]
    pub write: Option<PathBuf>,
}

/// All that was measured.
#[derive(Debug, Default)]
struct Figures {
    mib: usize,
    uploads: Vec<upload::Round>,
    /// Largest resident memory of the agent during each backup, MB of 10^6 bytes; straight from the stream.
    streaming_mb: Vec<f64>,
    /// The same of a dump that Redis wrote to disk.
    uploading_mb: Vec<f64>,
    /// Before any backup.
    idle_mb: f64,
    latencies: Vec<[Phase; PHASES.len()]>,
    restores: Vec<restore::Round>,
}

/// Measures, prints the tables and puts them where it is wished.
pub async fn measure(bench: Arc<Bench>, wishes: &SnapshotWishes) -> Result<()> {
    let options = Options { instances: 2, hosts: 2, store: Store::Hdfs(1), save: "none".into(), ..Options::default() };
    let cluster = Cluster::start(&bench, options).await?;
    let mut figures = Figures { mib: wishes.mib, ..Figures::default() };
    restore::measure(&cluster, wishes, &mut figures).await?;
    publish(wishes, RESTORE_MARKERS, &figures.restores_text())?;
    if wishes.restores_only {
        return Ok(());
    }
    upload::measure(&cluster, wishes, &mut figures).await?;
    latency::measure(&cluster, wishes, &mut figures).await?;
    publish(wishes, MARKERS, &figures.text())
}

fn publish(wishes: &SnapshotWishes, markers: [&str; 2], text: &str) -> Result<()> {
    println!("\n{text}");
    match &wishes.write {
        Some(file) => report::write_between(file, markers, text),
        None => Ok(()),
    }
}

/// Sets the peak of a process's resident memory back to what it has now.
fn forget_peak(pid: u32) -> Result<()> {
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").with_context(|| format!("the peak of process {pid}"))
}

/// Waits until no agent has a dump on its way.
async fn uploads_are_done(cluster: &Cluster) -> Result<()> {
    wait::until("no upload is under way", ORDINARY, async || {
        for instance in [0, 1] {
            let state = cluster.agent_state(instance).await?;
            anyhow::ensure!(state.uploads.pending == 0 && state.activity.is_none(), "instance {instance}: {:?}", state.activity);
        }
        Ok(())
    })
    .await
}

impl Figures {
    fn text(&self) -> String {
        format!("{}\n{}\n{}\n{}", report::surroundings(), self.upload_table(), self.memory_table(), self.latency_table())
    }

    fn restores_text(&self) -> String {
        let seconds = |of: fn(&restore::Round) -> Duration| {
            let [median, low, high, _] = spread(self.restores.iter().map(|r| of(r).as_secs_f64()).collect());
            [format!("{median:.2} s ({:.0} MiB/s)", self.mib as f64 / median), format!("{low:.2}–{high:.2} s")]
        };
        let row = |title: &str, [median, half]: [String; 2]| vec![title.to_owned(), median, half];
        let ratio = |of: fn(&restore::Round) -> f64| {
            let [median, low, high, _] = spread(self.restores.iter().map(of).collect());
            [format!("{median:.2}"), format!("{low:.2}–{high:.2}")]
        };
        let memory = |of: fn(&restore::Round) -> f64| {
            let [median, .., worst] = spread(self.restores.iter().map(of).collect());
            [format!("{median:.1} MB"), format!("at most {worst:.1} MB")]
        };
        let head = format!("{} MiB in 1000 byte values out of HDFS, {} times each in turn", self.mib, self.restores.len());
        let lines = table(&[
            vec![head, "median".into(), "middle half".into()],
            row("download alone: read and judged, nothing kept", seconds(|r| r.download)),
            row("load alone: a server started with it on the disk", seconds(|r| r.load)),
            row("restore from a file, the whole of it", seconds(|r| r.file)),
            row("of the longer half", ratio(|r| r.ratio(r.file))),
            row("restore from the stream, the whole of it", seconds(|r| r.stream)),
            row("of the longer half (aim: 1.1 or less)", ratio(|r| r.ratio(r.stream))),
            row("largest resident memory of the agent, from a file", memory(|r| r.file_mb)),
            row("the same from the stream (aim: under 64 MB)", memory(|r| r.stream_mb)),
        ]);
        format!("{}\n{lines}", report::surroundings())
    }

    fn upload_table(&self) -> String {
        let seconds = |of: fn(&upload::Round) -> Duration| {
            let [median, low, high, _] = spread(self.uploads.iter().map(|r| of(r).as_secs_f64()).collect());
            [format!("{median:.2} s ({:.0} MiB/s)", self.mib as f64 / median), format!("{low:.2}–{high:.2} s")]
        };
        let row = |title: &str, [median, half]: [String; 2]| vec![title.to_owned(), median, half];
        let ratio = |of: fn(&upload::Round) -> f64| {
            let [median, low, high, _] = spread(self.uploads.iter().map(of).collect());
            [format!("{median:.2}"), format!("{low:.2}–{high:.2}")]
        };
        let head = format!("{} MiB into HDFS, {} times each in turn", self.mib, self.uploads.len());
        table(&[
            vec![head, "median".into(), "middle half".into()],
            row("`hdfs dfs -put`, the whole command", seconds(|r| r.hadoop)),
            row("ours: copied, read back, committed", seconds(|r| r.ours)),
            row("of it until all is copied", seconds(|r| r.copied)),
            row("bytes per second, ours of theirs (aim: 0.9 or more)", ratio(upload::Round::ratio)),
            row("before it, once: the dump is checked and its sums are computed", seconds(|r| r.checked)),
        ])
    }

    fn memory_table(&self) -> String {
        let row = |title: String, peaks: &[f64]| {
            let [median, .., worst] = spread(peaks.to_vec());
            vec![title, format!("{median:.1} MB"), format!("{worst:.1} MB")]
        };
        table(&[
            ["largest resident memory of the agent", "median", "worst"].map(str::to_owned).to_vec(),
            row(format!("streams {} MiB from its server into HDFS (aim: under 64 MB)", self.mib), &self.streaming_mb),
            row(format!("stores a dump of {} MiB that Redis wrote", self.mib), &self.uploading_mb),
            row("before either".into(), &[self.idle_mb]),
        ])
    }

    fn latency_table(&self) -> String {
        let head = ["latency of writes to the master, ms", "median", "p99", "p99 of without", "middle half", "p99.9", "worst"];
        let mut lines = vec![head.map(str::to_owned).to_vec()];
        for (at, title) in PHASES.into_iter().enumerate() {
            let typical = |of: fn(&Phase) -> f64| spread(self.latencies.iter().map(|round| of(&round[at])).collect());
            let [ratio, low, high, _] = spread(self.latencies.iter().map(|round| round[at].p99_ms / round[0].p99_ms).collect());
            lines.push(vec![
                title.to_owned(),
                format!("{:.3}", typical(|p| p.median_ms)[0]),
                format!("{:.3}", typical(|p| p.p99_ms)[0]),
                show_ratio(ratio),
                ratios_between(low, high),
                format!("{:.2}", typical(|p| p.p999_ms)[0]),
                format!("{:.1}", typical(|p| p.worst_ms)[3]),
            ]);
        }
        let writes: usize = self.latencies.iter().flatten().map(|phase| phase.writes).sum();
        format!("{}\n{} rounds, {writes} writes.\n", table(&lines), self.latencies.len())
    }
}

/// Says what a round brought.
fn told(what: &str, round: usize, rounds: usize, found: &str) {
    say(&format!("{what}, round {} of {rounds}: {found}", round + 1));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_compare_within_rounds() {
        let seconds = Duration::from_secs;
        let round = |hadoop, ours| upload::Round {
            hadoop: seconds(hadoop),
            ours: seconds(ours),
            copied: seconds(1),
            checked: seconds(1),
        };
        let phase = |ms: f64| Phase { writes: 10, median_ms: ms / 2.0, p99_ms: ms, p999_ms: ms * 2.0, worst_ms: ms * 3.0 };
        let figures = Figures {
            mib: 1024,
            uploads: vec![round(4, 2), round(8, 4), round(2, 2)],
            streaming_mb: vec![30.0, 50.0, 40.0],
            uploading_mb: vec![20.0],
            idle_mb: 10.0,
            restores: Vec::new(),
            latencies: vec![
                [phase(1.0), phase(1.0), phase(1.5), phase(4.0)],
                [phase(10.0), phase(10.0), phase(15.0), phase(40.0)],
            ],
        };
        let text = figures.text();
        let row = |title: &str| {
            let line = text.lines().find(|line| line.contains(title)).unwrap_or_else(|| panic!("no {title} in {text}"));
            line.split('|').skip(2).map(|cell| cell.trim().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(row("bytes per second")[..2], ["2.00", "1.50–2.00"]);
        assert_eq!(row("streams 1024 MiB")[..2], ["40.0 MB", "50.0 MB"]);
        assert_eq!(row("the master makes a dump")[2..4], ["+300.0 %", "+300.0 % to +300.0 %"]);
        assert!(text.contains("2 rounds, 80 writes."), "{text}");
        let restored = |download, load, file, stream| restore::Round {
            download: seconds(download),
            load: seconds(load),
            file: seconds(file),
            stream: seconds(stream),
            file_mb: 20.0,
            stream_mb: 30.0,
        };
        let restores = vec![restored(4, 8, 12, 10), restored(5, 10, 15, 10), restored(10, 5, 20, 9)];
        let text = Figures { mib: 1024, restores, ..Figures::default() }.restores_text();
        let ratios: Vec<&str> = text.lines().filter(|line| line.contains("of the longer half")).collect();
        assert!(ratios[0].contains("| 1.50") && ratios[1].contains("| 1.00"), "{ratios:?}");
    }
}
