//! The tables: medians and spread of all rounds, as text that is both read in a terminal and put into the documentation.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::memory::Memory;
use super::round::{LIMIT, Outcome, Sample};
use super::steps::Steps;
use super::subject::{Fault, System};
use crate::harness::binaries;

/// Around the tables in the documentation.
const MARKERS: [&str; 2] = ["<!-- make bench: begin -->\n", "<!-- make bench: end -->\n"];

/// All that was measured.
#[derive(Debug, Default)]
pub struct Report {
    rows: BTreeMap<(Fault, System), Row>,
    /// Commits of ZooKeeper during the rounds.
    pub commits: Vec<Duration>,
    /// Where the time of the failovers after kill -9 went.
    pub steps: Steps,
    /// Memory, where it was measured.
    pub memory: Option<Memory>,
}

#[derive(Debug, Default)]
struct Row {
    samples: Vec<Sample>,
    failed: usize,
    refused: Option<&'static str>,
}

impl Report {
    /// Adds what came of a round.
    pub fn add(&mut self, fault: Fault, system: System, outcome: Outcome) {
        let row = self.rows.entry((fault, system)).or_default();
        match outcome {
            Outcome::Measured(sample) => row.samples.push(sample),
            Outcome::NotOffered(why) => row.refused = Some(why),
        }
    }

    /// Counts a round that could not be finished.
    pub fn fail(&mut self, fault: Fault, system: System) {
        self.rows.entry((fault, system)).or_default().failed += 1;
    }

    /// Whether the system has said that it offers nothing for it.
    pub fn is_refused(&self, fault: Fault, system: System) -> bool {
        self.rows.get(&(fault, system)).is_some_and(|row| row.refused.is_some())
    }

    /// How many rounds could not be finished.
    pub fn failed(&self) -> usize {
        self.rows.values().map(|row| row.failed).sum()
    }

    /// All of it as Markdown.
    pub fn text(&self) -> String {
        let mut text = surroundings();
        if let Some(memory) = self.memory {
            let lines = [
                ["resident memory without work", "aim", "measured"].map(str::to_owned),
                ["controller".into(), "30 MB".into(), format!("{:.1} MB", memory.controller)],
                ["agent (largest of 3)".into(), "20 MB".into(), format!("{:.1} MB", memory.agent)],
            ];
            write!(text, "\n{}", table(&lines.map(Vec::from))).expect("writing to a string");
        }
        let mut faults: Vec<Fault> = self.rows.keys().map(|(fault, _)| *fault).collect();
        faults.dedup();
        for fault in faults {
            write!(text, "\n### {}\n\n{}", capital(fault.title()), table(&self.lines(fault))).expect("writing to a string");
            if fault == Fault::Kill {
                text.push_str(&self.steps());
            }
        }
        if !self.commits.is_empty() {
            let ms: Vec<f64> = self.commits.iter().map(|t| t.as_secs_f64() * 1e3).collect();
            let [median, _, high, worst] = spread(ms);
            let count = self.commits.len();
            writeln!(
                text,
                "\nA commit of ZooKeeper (a transaction of a check and a write, on our clusters' servers, under the writers of the same rounds, {count} times): \
                 median {median:.1} ms, three quarters within {high:.1} ms, worst {worst:.1} ms."
            )
            .expect("writing to a string");
        }
        text
    }

    fn steps(&self) -> String {
        let rows = self.steps.rows();
        if rows.is_empty() {
            return String::new();
        }
        let lines = rows.into_iter().map(|(title, took, at)| {
            let [median, worst] = median_and_worst(took);
            vec![title.to_owned(), median, worst, show(spread(at)[0])]
        });
        let head = ["where it goes, three instances, in ms", "took: median", "worst", "at: median"].map(str::to_owned).to_vec();
        format!("\n{}", table(&std::iter::once(head).chain(lines).collect::<Vec<_>>()))
    }

    fn lines(&self, fault: Fault) -> Vec<Vec<String>> {
        let head =
            ["times in ms", "n", "back: median", "middle half", "worst", "pause: median", "worst", "lost: median", "worst"];
        let mut head: Vec<String> = head.map(str::to_owned).to_vec();
        if fault.leaves_the_old_one() {
            head.extend(["late: median", "worst"].map(str::to_owned));
        }
        let columns = head.len();
        let rows = self.rows.iter().filter(|((f, _), _)| *f == fault);
        let lines = rows.map(|((_, system), row)| {
            let mut line = row.line(*system, fault);
            line.resize(columns, String::new());
            line
        });
        std::iter::once(head).chain(lines).collect()
    }

    /// Puts the tables between the markers of a file.
    pub fn write_into(&self, file: &Path) -> Result<()> {
        write_between(file, MARKERS, &self.text())
    }
}

impl Row {
    fn line(&self, system: System, fault: Fault) -> Vec<String> {
        let mut title = system.title().to_owned();
        if self.failed > 0 {
            write!(title, " ({} more rounds failed)", self.failed).expect("writing to a string");
        }
        if let Some(why) = self.refused {
            return vec![title, String::new(), why.into()];
        }
        let mut line = vec![title, self.samples.len().to_string()];
        let back: Vec<f64> = self.samples.iter().filter_map(|s| s.back).map(milliseconds).collect();
        let never = self.samples.len() - back.len();
        let [median, high_low, worst] = match spread(back) {
            _ if never == self.samples.len() => [format!("never within {} s", LIMIT.as_secs()), String::new(), String::new()],
            [median, low, high, _] if never > 0 => [show(median), from_to(low, high), format!("{never} times never")],
            [median, low, high, worst] => [show(median), from_to(low, high), show(worst)],
        };
        line.extend([median, high_low, worst]);
        line.extend(median_and_worst(self.samples.iter().map(|s| milliseconds(s.pause)).collect()));
        line.extend(
            median_and_worst(self.samples.iter().map(|s| s.lost as f64).collect()).map(|n| n.trim_end_matches(".0").into()),
        );
        if fault.leaves_the_old_one() {
            line.extend(
                median_and_worst(self.samples.iter().map(|s| s.late as f64).collect()).map(|n| n.trim_end_matches(".0").into()),
            );
        }
        line
    }
}

/// A sample for the eye.
pub fn one_line(sample: &Sample) -> String {
    let back = sample.back.map_or_else(
        || format!("no new master within {} s", LIMIT.as_secs()),
        |b| format!("back after {} ms", show(milliseconds(b))),
    );
    let Sample { acknowledged, lost, late, .. } = sample;
    format!(
        "{back}, longest pause {} ms, {lost} of {acknowledged} acknowledged writes lost, {late} late",
        show(milliseconds(sample.pause))
    )
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn show(number: f64) -> String {
    if number < 100.0 { format!("{number:.1}") } else { format!("{number:.0}") }
}

/// A span of numbers.
fn from_to(low: f64, high: f64) -> String {
    format!("{}–{}", show(low), show(high))
}

/// A ratio as what it differs from one by.
pub fn show_ratio(ratio: f64) -> String {
    let percent = (ratio - 1.0) * 100.0;
    // No minus before what is shown as zero.
    format!("{:+.1} %", if percent.abs() < 0.05 { 0.0 } else { percent })
}

/// A span of ratios.
pub fn ratios_between(low: f64, high: f64) -> String {
    format!("{} to {}", show_ratio(low), show_ratio(high))
}

fn median_and_worst(numbers: Vec<f64>) -> [String; 2] {
    let [median, _, _, worst] = spread(numbers);
    [show(median), show(worst)]
}

/// Median, the bounds of the middle half, and the largest. Of an even count the median is the mean of the two in the middle.
pub fn spread(mut numbers: Vec<f64>) -> [f64; 4] {
    numbers.sort_by(f64::total_cmp);
    let Some(last) = numbers.len().checked_sub(1) else {
        return [f64::NAN; 4];
    };
    let at = |quarter: usize| {
        let place = last as f64 * quarter as f64 / 4.0;
        let (low, high) = (numbers[place.floor() as usize], numbers[place.ceil() as usize]);
        low + (high - low) * place.fract()
    };
    [at(2), at(1), at(3), numbers[last]]
}

fn capital(title: &str) -> String {
    let mut letters = title.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// A Markdown table, padded; the first line is its head.
pub fn table(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |i: usize| lines.iter().map(|l| l[i].chars().count()).max().unwrap_or(0).max(3);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (n, line) in lines.iter().enumerate() {
        let cells: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        writeln!(text, "| {} |", cells.join(" | ")).expect("writing to a string");
        if n == 0 {
            let rules: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
            writeln!(text, "| {} |", rules.join(" | ")).expect("writing to a string");
        }
    }
    text
}

/// Puts a text between the markers of a file.
pub fn write_between(file: &Path, markers: [&str; 2], text: &str) -> Result<()> {
    let old = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    std::fs::write(file, between_markers(&old, markers, text)?).with_context(|| file.display().to_string())
}

fn between_markers(old: &str, [begin, end]: [&str; 2], text: &str) -> Result<String> {
    let start = old.find(begin).with_context(|| format!("no line {}", begin.trim()))? + begin.len();
    let stop = old.find(end).with_context(|| format!("no line {}", end.trim()))?;
    ensure!(start <= stop, "the markers stand in the wrong order");
    Ok(format!("{}{text}{}", &old[..start], &old[stop..]))
}

/// Machine, date and versions, as far as they can be told.
pub fn surroundings() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpuinfo.lines().find_map(|l| l.strip_prefix("model name")?.split_once(": ")).map_or("an unknown processor", |(_, m)| m);
    let cores = cpuinfo.lines().filter(|l| l.starts_with("processor")).count();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default();
    let date = first_line("date", &["-u", "+%Y-%m-%d %H:%M UTC"]);
    let kernel = first_line("uname", &["-sr"]);
    let server = first_line("redis-server", &["--version"]);
    let server = server.split(' ').find_map(|word| word.strip_prefix("v=")).unwrap_or("?").to_owned();
    let commit = first_line("git", &["-C", &binaries::root().display().to_string(), "rev-parse", "--short=10", "HEAD"]);
    let build = if cfg!(debug_assertions) { "debug build" } else { "release build" };
    format!(
        "{date}, {cores} cores of {model}, {kernel}, load at the end {load}. Aurora Redis {} ({commit}, {build}), Redis and Sentinel {server}.\n",
        env!("CARGO_PKG_VERSION")
    )
}

fn first_line(program: &str, arguments: &[&str]) -> String {
    let output = binaries::tool(program).ok().and_then(|path| Command::new(path).args(arguments).output().ok());
    let text = output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    text.lines().next().map_or_else(|| "?".into(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_quarters() {
        assert_eq!(spread(vec![3.0, 1.0, 2.0]), [2.0, 1.5, 2.5, 3.0]);
        assert_eq!(spread(vec![4.0, 1.0, 2.0, 3.0])[0], 2.5);
        assert!(spread(Vec::new())[0].is_nan());
    }

    #[test]
    fn the_tables_replace_what_stood_between_the_markers() {
        let [begin, end] = MARKERS;
        let old = format!("a\n{begin}old\n{end}b\n");
        assert_eq!(between_markers(&old, MARKERS, "new\n").unwrap(), format!("a\n{begin}new\n{end}b\n"));
        assert!(between_markers("a\n", MARKERS, "new\n").is_err());
    }

    #[test]
    fn a_row_tells_what_never_happened_and_what_is_not_offered() {
        let sample = |back: Option<u64>, lost| Sample {
            back: back.map(Duration::from_millis),
            pause: Duration::from_millis(20),
            acknowledged: 10,
            lost,
            late: 0,
        };
        let mut report = Report::default();
        report.add(Fault::Kill, System::Ours3, Outcome::Measured(sample(Some(10), 0)));
        report.add(Fault::Kill, System::Ours3, Outcome::Measured(sample(None, 3)));
        report.add(Fault::Kill, System::Bare, Outcome::NotOffered("it cannot"));
        report.fail(Fault::Kill, System::Ours3);
        let text = report.text();
        assert!(
            text.contains("(1 more rounds failed)") && text.contains("1 times never") && text.contains("it cannot"),
            "{text}"
        );
        assert!(report.is_refused(Fault::Kill, System::Bare) && report.failed() == 1);
    }
}
