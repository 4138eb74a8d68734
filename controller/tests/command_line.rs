//! The command line as a program: exit codes, mistakes, and what needs nobody else.

#![allow(clippy::unwrap_used)] // test code: a panic is the report

use std::path::PathBuf;
use std::process::{Command, Output};

const CLUSTER: &str = "www/test/cache";
const DUMP: &[u8] = include_bytes!("../../agent/testdata/small.rdb");

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

    /// `snapshots …` on the store in this directory.
    fn snapshots(&self, arguments: &[&str]) -> Output {
        let uri = self.store();
        let place = ["--cluster", CLUSTER, "--zookeeper", "127.0.0.1:1", "--snapshots-uri", &uri];
        self.run(&[&["snapshots"], arguments, &place].concat())
    }

    fn store(&self) -> String {
        format!("file://{}/store", self.0.display())
    }

    /// Puts a dump into the store; the snapshot's name.
    fn put(&self, dump: &[u8], created_s: u64) -> String {
        use agent::snapshot::{Manifest, Origin};
        use agent::store::{Options, Progress, Report, Store};
        let path = self.0.join("dump.rdb");
        std::fs::write(&path, dump).unwrap();
        let checked = agent::rdb::check_file(&path).unwrap().unwrap();
        let origin = Origin { cluster_id: "c".into(), epoch: 4, created_ms: created_s * 1000, ..Origin::default() };
        let store = Store::open(&self.store(), CLUSTER, Options::default()).unwrap();
        let put = async { store.put(&path, Manifest::new(origin, &checked), &Report::new(Progress::default())).await };
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(put).unwrap().to_string()
    }

    fn part(&self, id: &str, name: &str) -> PathBuf {
        self.0.join("store").join(CLUSTER).join("snapshots").join(id).join(name)
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
    std::fs::write(dir.0.join("good.rdb"), DUMP).unwrap();
    std::fs::write(dir.0.join("cut.rdb"), &DUMP[..100]).unwrap();
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

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn snapshots_are_verified_and_loaded_without_a_controller() {
    let dir = Dir::new();
    let none = dir.snapshots(&["verify"]);
    assert_eq!((none.status.code(), stderr(&none).contains("holds no snapshot")), (Some(1), true), "{}", stderr(&none));
    let (old, new) = (dir.put(DUMP, 1_795_499_035), dir.put(DUMP, 1_795_499_036));
    let newest = dir.snapshots(&["verify"]);
    assert_eq!(newest.status.code(), Some(0), "{}", stderr(&newest));
    assert!(stdout(&newest).starts_with(&format!("{new}: good, 5 keys; loaded by server 7.")), "{}", stdout(&newest));

    // The older one: whole, with a right checksum and manifest, and a version that this server does not load.
    let valkey = include_bytes!("../../agent/testdata/kinds-valkey-9.0.rdb");
    let foreign = dir.put(valkey, 1_795_499_037);
    std::fs::write(dir.part(&old, "dump.rdb"), vec![0; DUMP.len()]).unwrap();
    let all = dir.snapshots(&["verify", "--all", "--output", "json"]);
    assert_eq!(all.status.code(), Some(1), "one of them is damaged");
    let found: serde_json::Value = serde_json::from_slice(&all.stdout).unwrap();
    assert!(found[0]["problem"].as_str().unwrap().contains("piece 1 of 1"), "{found}");
    assert_eq!(found[1]["keys"], serde_json::json!({"0": 4, "3": 1}), "{found}");
    assert!(found[2]["remark"].as_str().unwrap().contains("cannot load a dump in format VALKEY080"), "{found}");
    assert_eq!(found[2]["problem"], serde_json::Value::Null, "{found}");

    // What was found is noted: the damaged one is not the newest good one, whatever its age.
    for id in [&new, &foreign] {
        std::fs::remove_dir_all(dir.part(id, "")).unwrap();
    }
    let left = dir.snapshots(&["verify", "--newest", "--no-load"]);
    assert!(stderr(&left).contains("holds no snapshot to verify"), "{}", stderr(&left));
    std::fs::write(dir.part(&old, "dump.rdb"), DUMP).unwrap();
    assert_eq!(dir.snapshots(&["verify", &old, "--no-load"]).status.code(), Some(0), "it was mended, and verified again");
    assert_eq!(dir.snapshots(&["verify", "--newest", "--no-load"]).status.code(), Some(0));
}

#[test]
fn a_dump_is_imported_without_a_controller_and_is_no_good_one_of_the_clusters_own() {
    let dir = Dir::new();
    std::fs::write(dir.0.join("foreign.rdb"), DUMP).unwrap();
    let imported = dir.snapshots(&["import", "foreign.rdb"]);
    assert_eq!(imported.status.code(), Some(0), "{}", stderr(&imported));
    let text = stdout(&imported);
    assert!(text.contains(": imported, 5 keys, 264 B, written by server 7.0.15 (REDIS0010)"), "{text}");
    assert!(stderr(&imported).contains("importing file://"), "{}", stderr(&imported));
    let none = dir.snapshots(&["verify"]);
    assert!(stderr(&none).contains("holds no snapshot to verify"), "{}", stderr(&none));
    let id = text.split(':').next().unwrap();
    assert_eq!(dir.snapshots(&["verify", id, "--no-load"]).status.code(), Some(0), "by name it is verified");

    // Of a job the best good one of its own, as JSON with where it came from.
    let (_, best) = (dir.put(DUMP, 1_795_499_035), dir.put(DUMP, 1_795_499_036));
    let job = format!("{}/{CLUSTER}", dir.store());
    let again = dir.snapshots(&["import", &job, "--output", "json"]);
    let found: serde_json::Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!((&found["how"], &found["keys"]["0"], &found["epoch"]), (&"import".into(), &4.into(), &0.into()), "{found}");
    assert_eq!(found["imported"]["from"], format!("{job}/snapshots/{best}"), "{found}");
    assert_eq!(found["imported"]["cluster_id"], "c", "{found}");
}

#[test]
fn a_cluster_is_not_created_from_what_is_no_good_or_into_a_store_that_its_agents_do_not_see() {
    let dir = Dir::new();
    std::fs::write(dir.0.join("foreign.rdb"), DUMP).unwrap();
    let file = |store: &str| {
        dir.write(
            "cluster.toml",
            &format!("cluster = '{CLUSTER}'\ninstances = 1\n{store}\n[resources]\nram = '1gb'\ndisk = '4gb'\n"),
        );
    };
    let uri = format!("snapshots.uri = '{}'", dir.store());
    let create = |from: &str, more: &[&str]| {
        let place = ["create", "cluster.toml", "--from", from, "--zookeeper", "127.0.0.1:1"];
        dir.run(&[&place, more].concat())
    };
    for (store, from, more, code, said) in [
        ("", "foreign.rdb", &[][..], 2, "snapshots.uri is not set: --from needs a store"),
        (&uri, "foreign.rdb", &["--snapshots-uri", "file:///elsewhere"], 2, "in the cluster file and file:///elsewhere for the"),
        (&uri, "nothing.rdb", &[], 1, "nothing.rdb: there is nothing"),
        (&uri, "nothing.rdb", &["--dry-run"], 1, "nothing.rdb: there is nothing"),
        (&uri, "foreign.rdb", &[], 1, "no session with ZooKeeper 127.0.0.1:1"),
    ] {
        file(store);
        let output = create(from, more);
        assert_eq!((output.status.code(), stderr(&output).contains(said)), (Some(code), true), "{said}: {}", stderr(&output));
        assert!(!dir.0.join("store").exists(), "{said}: something was stored");
    }
}

#[test]
fn what_cannot_be_imported_is_named_and_the_exit_code_tells() {
    let dir = Dir::new();
    std::fs::write(dir.0.join("cut.rdb"), &DUMP[..100]).unwrap();
    for (source, said) in [
        ("cut.rdb", "cut.rdb: it ends at offset 100"),
        ("nothing.rdb", "nothing.rdb: there is nothing; expected is"),
        ("s3://bucket/dump.rdb", "store address \"s3://bucket/dump.rdb\": its scheme is neither hdfs nor file"),
        ("hdfs://127.0.0.1:1/redis", "hdfs://127.0.0.1:1/redis: stat /redis:"),
    ] {
        let output = dir.snapshots(&["import", source]);
        assert_eq!((output.status.code(), stderr(&output).contains(said)), (Some(1), true), "{source}: {}", stderr(&output));
    }
    let nowhere = dir.run(&["snapshots", "import", "cut.rdb", "--cluster", CLUSTER, "--zookeeper", "127.0.0.1:1"]);
    assert_eq!(nowhere.status.code(), Some(2), "{}", stderr(&nowhere));
    std::fs::create_dir_all(dir.part("0000000000-20261124T020000Z-00000000000000000000", "")).unwrap();
    let empty = dir.snapshots(&["import", &format!("{}/{CLUSTER}", dir.store())]);
    assert!(stderr(&empty).contains("none of its 1 snapshots is a good one of its own"), "{}", stderr(&empty));
}

#[test]
fn a_pin_is_set_and_taken_away() {
    let dir = Dir::new();
    let id = dir.put(DUMP, 1_795_499_035);
    for (arguments, said) in [
        (&["pin", &id, "--reason", "before the migration"][..], "is pinned\n"),
        (&["pin", &id], "was pinned already\n"),
        (&["unpin", &id], "is pinned no more\n"),
        (&["unpin", &id], "was not pinned\n"),
    ] {
        let output = dir.snapshots(arguments);
        assert!(stdout(&output).ends_with(said), "{arguments:?}: {}{}", stdout(&output), stderr(&output));
    }
    let missing = dir.snapshots(&["pin", "0000000004-20261124T054355Z-00000000000000000001"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(stderr(&missing).contains("its directory is missing"), "{}", stderr(&missing));
}
