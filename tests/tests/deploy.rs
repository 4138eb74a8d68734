//! What lies in `deploy/` and `docs/` is held against the code and against the real tools that read it: pystachio for the job files,
//! promtool for Prometheus, our own tables for names. A list that a person has to keep by hand is checked here, both ways.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use tests::harness::binaries;

#[path = "deploy/documents.rs"]
mod documents;
#[path = "deploy/haproxy.rs"]
mod haproxy;
#[path = "deploy/jobs.rs"]
mod jobs;
#[path = "deploy/prometheus.rs"]
mod prometheus;
#[path = "deploy/runbook.rs"]
mod runbook;
#[path = "deploy/tables.rs"]
mod tables;

/// A file of the project, from its top.
fn project(path: &str) -> PathBuf {
    binaries::root().join(path)
}

/// Its text.
fn text(path: &str) -> String {
    std::fs::read_to_string(project(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// An outside program, to be run in the project's top directory.
fn tool(name: &str) -> Command {
    at_the_top(binaries::tool(name))
}

/// The Python with the pinned wheels.
fn python() -> Command {
    at_the_top(binaries::python())
}

fn at_the_top(program: anyhow::Result<PathBuf>) -> Command {
    let mut command = Command::new(program.unwrap_or_else(|error| panic!("{error:#}")));
    command.current_dir(binaries::root()).stdin(Stdio::null());
    command
}

/// Runs it to its end; fails with all it said unless it succeeds, else returns its standard output.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}\n{}{}", output.status, said(&output.stdout), said(&output.stderr));
    said(&output.stdout)
}

/// Fails with what stands on only one side. `left` and `right` name the sides.
fn assert_same(what: &str, left: (&str, Vec<String>), right: (&str, Vec<String>)) {
    let only = |a: &[String], b: &[String]| a.iter().filter(|x| !b.contains(x)).cloned().collect::<Vec<_>>();
    let (in_left, in_right) = (only(&left.1, &right.1), only(&right.1, &left.1));
    assert!(
        in_left.is_empty() && in_right.is_empty(),
        "{what}:\n  only in {}: {in_left:?}\n  only in {}: {in_right:?}",
        left.0,
        right.0
    );
}
