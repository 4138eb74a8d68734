//! How far a backup or restore is, while the command waits: one line that changes on a terminal, a line now and then elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use agent::api::Activity;
use agent::store::{Progress, Stage};

use super::table::{bytes, clean};
use crate::view::ClusterView;

/// Between two lines where they cannot be written over.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// What is worth telling, as agents name it.
const TOLD: [&str; 7] = ["waiting", "saving", "streaming", "uploading", "reading-back", "restoring", "loading"];

pub(super) struct ProgressLine {
    on_terminal: bool,
    /// What stands in the line, or was written last; absent before.
    last: Option<(String, Instant)>,
}

impl ProgressLine {
    pub fn new() -> ProgressLine {
        ProgressLine { on_terminal: std::io::stderr().is_terminal(), last: None }
    }

    /// Shows what is under way; nothing when nothing is.
    pub fn show(&mut self, cluster: &ClusterView) {
        if let Some(text) = describe(cluster) {
            self.write(text);
        }
    }

    /// Shows how far this process itself has come with a transfer whose present stage began so long ago.
    pub fn show_own(&mut self, progress: &Progress, since: Duration) {
        self.write(transfer(progress, since));
    }

    fn write(&mut self, text: String) {
        let mut out = std::io::stderr().lock();
        let last = self.last.as_ref();
        if last.is_some_and(|(shown, _)| *shown == text) {
            return;
        }
        // A terminal that is gone is no reason to stop waiting.
        let _ = match (self.on_terminal, last) {
            (true, _) => write!(out, "\r\x1b[K  {text}").and_then(|()| out.flush()),
            (false, Some((_, at))) if at.elapsed() < LINE_EVERY => return,
            (false, _) => writeln!(out, "  {text}"),
        };
        self.last = Some((text, Instant::now()));
    }

    /// What comes next stands in a line of its own.
    pub fn end(&mut self) {
        if self.last.take().is_some() && self.on_terminal {
            eprintln!();
        }
    }
}

/// Of all instances' work that which moves bytes, in words.
fn describe(cluster: &ClusterView) -> Option<String> {
    let told = cluster.instances.iter().filter_map(|i| Some((i.instance, i.progress.as_ref()?)));
    let (instance, activity) = told.filter(|(_, a)| TOLD.contains(&a.what.as_str())).max_by_key(|(_, a)| a.done_bytes)?;
    Some(format!("instance {instance}: {}", line(activity)))
}

/// A transfer of this process in words.
fn transfer(progress: &Progress, since: Duration) -> String {
    let Progress { attempt, stage, done_bytes, total_bytes, error } = progress;
    if let (Stage::Pausing, Some(error)) = (stage, error) {
        return clean(&format!("attempt {attempt} failed, another one follows: {error}"));
    }
    let what = match stage {
        Stage::Beginning | Stage::Pausing => "beginning",
        Stage::Uploading | Stage::Fetching => "copying",
        Stage::ReadingBack => "reading-back",
        Stage::Verifying => "verifying",
    };
    let bytes_per_s = u64::try_from(u128::from(*done_bytes) * 1000 / since.as_millis().max(1)).unwrap_or(u64::MAX);
    let left_s = total_bytes.saturating_sub(*done_bytes).checked_div(bytes_per_s).filter(|_| *total_bytes > 0);
    let (done_bytes, total_bytes) = (*done_bytes, *total_bytes);
    line(&Activity { what: what.into(), subject: String::new(), done_bytes, total_bytes, bytes_per_s, left_s })
}

fn line(activity: &Activity) -> String {
    let Activity { what, subject, done_bytes, total_bytes, bytes_per_s, left_s } = activity;
    if *done_bytes == 0 && *total_bytes == 0 {
        return clean(&format!("{what} {subject}"));
    }
    let mut text = format!("{what} {}", bytes(Some(*done_bytes)));
    if *total_bytes > 0 {
        text += &format!(" of {} ({} %)", bytes(Some(*total_bytes)), (done_bytes.saturating_mul(100) / total_bytes).min(100));
    }
    if *bytes_per_s > 0 {
        text += &format!(", {}/s", bytes(Some(*bytes_per_s)));
    }
    if let Some(left) = left_s {
        text += &format!(", {left} s left");
    }
    clean(&text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::example;

    #[test]
    fn the_line_tells_bytes_rate_and_time_left_as_far_as_they_are_known() {
        let mut activity = Activity { what: "streaming".into(), subject: "r".into(), done_bytes: 5 << 20, ..Activity::default() };
        assert_eq!(line(&activity), "streaming 5.0 MiB");
        (activity.total_bytes, activity.bytes_per_s, activity.left_s) = (20 << 20, 3 << 20, Some(5));
        assert_eq!(line(&activity), "streaming 5.0 MiB of 20.0 MiB (25 %), 3.0 MiB/s, 5 s left");
        let waiting = Activity { what: "waiting".into(), subject: "another backup on this host".into(), ..Activity::default() };
        assert_eq!(line(&waiting), "waiting another backup on this host");
    }

    #[test]
    fn a_transfer_of_our_own_is_told_in_the_same_way() {
        let mut progress =
            Progress { attempt: 1, stage: Stage::Uploading, done_bytes: 6 << 20, total_bytes: 18 << 20, error: None };
        let two = Duration::from_secs(2);
        assert_eq!(transfer(&progress, two), "copying 6.0 MiB of 18.0 MiB (33 %), 3.0 MiB/s, 4 s left");
        (progress.total_bytes, progress.stage) = (0, Stage::ReadingBack);
        assert_eq!(transfer(&progress, two), "reading-back 6.0 MiB, 3.0 MiB/s");
        (progress.stage, progress.error) = (Stage::Pausing, Some("no\nanswer".into()));
        assert_eq!(transfer(&progress, two), "attempt 1 failed, another one follows: no answer");
        assert_eq!(transfer(&Progress::default(), Duration::ZERO).trim(), "beginning");
    }

    #[test]
    fn only_work_on_copies_is_told() {
        let mut cluster = example::published().cluster;
        assert_eq!(describe(&cluster), None);
        cluster.instances[1].progress = Some(Activity { what: "checking".into(), ..Activity::default() });
        assert_eq!(describe(&cluster), None);
        cluster.instances[0].progress = Some(Activity { what: "uploading".into(), done_bytes: 1 << 20, ..Activity::default() });
        let instance = cluster.instances[0].instance;
        assert_eq!(describe(&cluster), Some(format!("instance {instance}: uploading 1.0 MiB")));
    }
}
