//! The command line as a program: exit codes, mistakes, and what needs nobody else.

#![allow(clippy::unwrap_used)] // test code: a panic is the report

use std::path::PathBuf;
use std::process::{Command, Output};

/// A directory of its own, removed at the end.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Dir {
        let dir = std::env::temp_dir().join(format!("command-line-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&dir).unwrap();
        Dir(dir)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.join(name), text).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aurora-redis"));
        command.current_dir(&self.0).args(arguments);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AURORA_REDIS_")) {
            command.env_remove(name);
        }
        command.output().unwrap()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn every_mistake_is_named_and_the_exit_code_is_2() {
    let dir = Dir::new();
    dir.write("aurora-redis.toml", "cluster = 'www'\ncolour = 'red'\n");
    let output = dir.run(&["status", "--output", "picture"]);
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    for part in [
        "4 mistakes",
        "aurora-redis.toml:1: cluster = \"www\"",
        "aurora-redis.toml:2: colour",
        "zookeeper: not set",
        "--output: output",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn mistakes_of_the_cluster_file_and_of_the_command_line_come_together() {
    let dir = Dir::new();
    dir.write("cluster.toml", "cluster = 'a/b/c'\ninstances = 0\n");
    let output = dir.run(&["create", "cluster.toml", "--scheduler", "nowhere", "--zookeeper", "z:1"]);
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    for part in ["cluster.toml:2: instances = \"0\"", "resources.ram: not set", "--scheduler: scheduler = \"nowhere\""] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn a_dry_run_contacts_nobody() {
    let dir = Dir::new();
    dir.write(
        "cluster.toml",
        "cluster = 'a/b/c'\ninstances = 2\nzookeeper = '192.0.2.1:2181'\n[resources]\nram = '1gb'\ndisk = '4gb'\n",
    );
    let output = dir.run(&["create", "cluster.toml", "--dry-run"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let job: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&job["key"], &job["instances"]), (&"a/b/c".into(), &2.into()));
    let other = dir.run(&["create", "cluster.toml", "--dry-run", "--cluster", "a/b/d"]);
    assert_eq!(other.status.code(), Some(2));
    assert!(stderr(&other).contains("the cluster file cluster.toml is of a/b/c"), "{}", stderr(&other));
}

#[test]
fn an_unreachable_zookeeper_is_named_and_the_exit_code_is_1() {
    let dir = Dir::new();
    let output = dir.run(&["status", "--cluster", "a/b/c", "--zookeeper", "127.0.0.1:1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("no session with ZooKeeper 127.0.0.1:1"), "{}", stderr(&output));
}

#[test]
fn doctor_fails_with_the_next_step_when_zookeeper_is_away() {
    let dir = Dir::new();
    let output = dir.run(&["doctor", "--cluster", "a/b/c", "--zookeeper", "127.0.0.1:1", "--output", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let checks: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&checks[0]["name"], &checks[0]["verdict"]), (&"zookeeper".into(), &"fail".into()));
    assert!(checks[0]["next"].as_str().unwrap().contains("--zookeeper"));
}

#[test]
fn a_haproxy_configuration_is_printed_and_bad_words_are_refused() {
    let dir = Dir::new();
    let place = ["--cluster", "a/b/c", "--zookeeper", "z:1"];
    let output = dir.run(&[&["haproxy", "config", "--max-lag-bytes", "2mb"], &place[..]].concat());
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("GET /replica?max_lag_bytes=2097152"));
    let output = dir.run(&[&["haproxy", "config", "--socket", "/a b"], &place[..]].concat());
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn help_and_version_need_no_settings() {
    let help = Dir::new().run(&["scale", "--help"]);
    assert!(String::from_utf8_lossy(&help.stdout).contains("--yes"));
    assert!(Dir::new().run(&["--version"]).status.success());
}

#[test]
fn rdb_check_needs_no_cluster_and_its_exit_code_tells() {
    let dir = Dir::new();
    let dump = include_bytes!("../../agent/testdata/small.rdb");
    std::fs::write(dir.0.join("good.rdb"), dump).unwrap();
    std::fs::write(dir.0.join("cut.rdb"), &dump[..100]).unwrap();
    let good = dir.run(&["rdb", "check", "good.rdb"]);
    assert_eq!(good.status.code(), Some(0), "{}", stderr(&good));
    assert!(String::from_utf8_lossy(&good.stdout).contains("good.rdb: good"));
    let both = dir.run(&["rdb", "check", "good.rdb", "cut.rdb", "missing.rdb", "--output", "json"]);
    assert_eq!(both.status.code(), Some(1));
    assert!(stderr(&both).contains("2 of 3 files not good"), "{}", stderr(&both));
    let verdicts: serde_json::Value = serde_json::from_slice(&both.stdout).unwrap();
    assert_eq!(verdicts[0]["databases"]["0"]["keys"], 4, "{verdicts}");
    assert_eq!(verdicts[1]["offset"], 100, "{verdicts}");
    assert_eq!(verdicts[2]["good"], false, "{verdicts}");
}
