//! Where the time of a failover goes: its steps as the agents' and the controller's logs tell them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};

/// Each step, and what the log line that ends it contains; the last one is what the clients see.
const MARKS: [(&str, &[&str]); 6] = [
    ("the agent sees its server dead", &["redis-server is dead"]),
    ("said on the stream; the controller decides to depose, and sends the fence", &["acting action=\"commit", "deposing\""]),
    (
        "deposing committed, the survivors cut off; the controller hears of it and decides who is next",
        &["acting action=\"commit", "promoting\""],
    ),
    ("promoting committed; promote is sent", &["acting action=\"promote"]),
    ("the winner has taken a write", &["this server is the master"]),
    ("published; a client has found it and written", &[]),
];

/// The steps of some failovers.
#[derive(Debug, Default)]
pub struct Steps(Vec<[Duration; MARKS.len()]>);

impl Steps {
    /// Reads the steps of the failover that began at `struck` and whose first write was acknowledged after `back`. Says whether the logs had them all.
    pub fn note(&mut self, dir: &Path, struck: Instant, back: Duration) -> Result<bool> {
        let start = SystemTime::now().checked_sub(struck.elapsed()).context("a clock before its epoch")?;
        let mut lines = Vec::new();
        for log in logs_below(dir) {
            let text = String::from_utf8_lossy(&std::fs::read(&log).with_context(|| log.display().to_string())?).into_owned();
            lines.extend(text.lines().filter_map(|line| after(line, start)).filter(|(at, _)| *at <= back));
        }
        lines.sort();
        let found = marks(&lines, back);
        self.0.extend(found);
        Ok(found.is_some())
    }

    /// Adds those of another.
    pub fn append(&mut self, other: &mut Steps) {
        self.0.append(&mut other.0);
    }

    /// Title, how long each took, and when it had ended, in milliseconds. Nothing when there are none.
    pub fn rows(&self) -> Vec<(&'static str, Vec<f64>, Vec<f64>)> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let before = |run: &[Duration], i: usize| i.checked_sub(1).map_or(Duration::ZERO, |before| run[before]);
        let row = |(i, (title, _)): (usize, &(&'static str, &[&str]))| {
            let took = self.0.iter().map(|run| ms(run[i].saturating_sub(before(run, i)))).collect();
            (*title, took, self.0.iter().map(|run| ms(run[i])).collect())
        };
        MARKS.iter().enumerate().map(row).collect()
    }
}

/// The times of the marks; none when one is missing or they are in another order.
fn marks(lines: &[(Duration, String)], back: Duration) -> Option<[Duration; MARKS.len()]> {
    let mut times = [back; MARKS.len()];
    let mut place = 0;
    for (i, (_, words)) in MARKS.iter().enumerate().take(MARKS.len() - 1) {
        let found = place + lines[place..].iter().position(|(_, line)| words.iter().all(|word| line.contains(word)))?;
        (times[i], place) = (lines[found].0, found);
    }
    Some(times)
}

/// A log line without colours and its time after `start`; nothing for what is no log line or came before.
fn after(line: &str, start: SystemTime) -> Option<(Duration, String)> {
    let mut plain = String::with_capacity(line.len());
    let mut parts = line.split('\u{1b}');
    plain.push_str(parts.next()?);
    parts.for_each(|part| plain.push_str(part.split_once('m').map_or("", |(_, text)| text)));
    let (time, text) = plain.trim_start().split_once(' ')?;
    let time: jiff::Timestamp = time.parse().ok()?;
    Some((SystemTime::from(time).duration_since(start).ok()?, text.to_owned()))
}

/// The controllers' logs and what the tasks wrote.
fn logs_below(dir: &Path) -> Vec<PathBuf> {
    let mut logs = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            logs.extend(logs_below(&path));
        } else if (name.starts_with("controller") && name.ends_with(".log")) || name == "stderr" || name == "stdout" {
            logs.push(path);
        }
    }
    logs
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "2026-11-24T09:20:44.000Z  INFO agent::node: redis-server is dead pid=1 of an earlier time
\u{1b}[2m2026-11-24T09:20:45.004Z\u{1b}[0m \u{1b}[33m WARN\u{1b}[0m agent::node: redis-server is dead pid=2
2026-11-24T09:20:45.009Z  INFO controller::reconcile: acting action=\"commit epoch 6 deposing\" because=\"server run is dead\"
2026-11-24T09:20:45.011Z  INFO controller::reconcile: acting action=\"fence instance 1\" because=\"cut\"
2026-11-24T09:20:45.019Z  INFO controller::reconcile: acting action=\"commit epoch 6 promoting\" because=\"best\"
2026-11-24T09:20:45.022Z  INFO controller::reconcile: acting action=\"promote instance 2\" because=\"named\"
2026-11-24T09:20:45.031Z  INFO agent::ops::promote: promoted: this server is the master run_id=\"a\" epoch=6
no log line";

    fn read(log: &str) -> Option<[Duration; MARKS.len()]> {
        let start: jiff::Timestamp = "2026-11-24T09:20:45Z".parse().unwrap();
        let lines: Vec<_> = log.lines().filter_map(|line| after(line, start.into())).collect();
        marks(&lines, Duration::from_millis(40))
    }

    #[test]
    fn the_steps_are_read_from_coloured_and_plain_lines_after_the_fault() {
        let times = read(LOG).unwrap().map(|time| time.as_millis());
        assert_eq!(times, [4, 9, 19, 22, 31, 40]);
    }

    #[test]
    fn a_missing_step_makes_no_table() {
        assert!(read(&LOG.replace("promote instance", "something else")).is_none());
    }
}
