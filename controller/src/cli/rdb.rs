//! `rdb check`: judges RDB files on this machine. Needs no cluster, no server and no network.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use agent::api::Position;
use agent::rdb::{self, Content, Flaw, Header, Keys, Walked};
use agent::snapshot::Sha256;
use serde::Serialize;

use super::table::{bytes, clean, date};
use super::{Failure, Output, say};

/// Means the standard input.
const STANDARD_INPUT: &str = "-";

/// What is said of one file.
#[derive(Debug, PartialEq, Serialize)]
struct Verdict {
    file: String,
    good: bool,
    /// What is wrong with it; absent when it is good.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    /// Where, in bytes from its beginning; absent when it is the file as a whole, or a good one.
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    /// Absent when it is not good.
    #[serde(flatten)]
    dump: Option<Dump>,
}

/// What a good file says of itself, and what it holds.
#[derive(Debug, PartialEq, Serialize)]
struct Dump {
    format: Header,
    server_version: Option<String>,
    bytes: u64,
    created_ms: Option<u64>,
    used_memory_bytes: Option<u64>,
    position: Option<Position>,
    /// Whether the file carries a checksum; without one only its structure speaks for it.
    checksummed: bool,
    crc64: String,
    sha256: Sha256,
    databases: BTreeMap<u32, Keys>,
    functions: u64,
    modules: Vec<String>,
}

pub(super) fn check(output: Output, files: &[PathBuf]) -> Result<(), Failure> {
    let mut verdicts = Vec::new();
    for file in files {
        let found = verdict(file, judge(file));
        if output == Output::Table {
            say(&render(&found));
        }
        verdicts.push(found);
    }
    if output == Output::Json {
        say(&serde_json::to_string_pretty(&verdicts)?);
    }
    match verdicts.iter().filter(|found| !found.good).count() {
        0 => Ok(()),
        bad => Err(Failure::Failed(format!("{bad} of {} files not good", verdicts.len()))),
    }
}

fn judge(file: &Path) -> io::Result<Result<Walked, Flaw>> {
    let source: Box<dyn Read> = match file.as_os_str() == STANDARD_INPUT {
        true => Box::new(io::stdin()),
        false => Box::new(File::open(file)?),
    };
    rdb::walk(source)
}

fn verdict(file: &Path, judged: io::Result<Result<Walked, Flaw>>) -> Verdict {
    let file = file.to_string_lossy().into_owned();
    let bad = |problem, offset| Verdict { file: file.clone(), good: false, problem: Some(problem), offset, dump: None };
    match judged {
        Err(error) => bad(format!("it cannot be read: {error}"), None),
        Ok(Err(flaw)) => bad(flaw.to_string(), flaw.offset()),
        Ok(Ok(walked)) => Verdict { dump: Some(describe(walked)), problem: None, offset: None, good: true, file },
    }
}

fn describe(Walked { checked, content }: Walked) -> Dump {
    let Content { databases, functions, modules } = content;
    Dump {
        format: checked.rdb.header,
        server_version: checked.rdb.server_version,
        bytes: checked.rdb.bytes,
        created_ms: checked.rdb.created_s.map(|s| s.saturating_mul(1000)),
        used_memory_bytes: checked.rdb.used_memory,
        position: checked.rdb.position,
        checksummed: checked.rdb.checksummed,
        crc64: format!("{:016x}", checked.rdb.crc64),
        sha256: checked.sums.sha256,
        databases,
        functions,
        modules: modules.into_iter().collect(),
    }
}

fn render(found: &Verdict) -> String {
    let Some(dump) = &found.dump else {
        return format!("{}: BAD: {}", clean(&found.file), clean(found.problem.as_deref().unwrap_or_default()));
    };
    let checksum = match dump.checksummed {
        true => format!("right ({})", dump.crc64),
        false => "none (written with rdbchecksum no): only its structure speaks for it".into(),
    };
    let position = dump.position.as_ref().map_or("none".into(), |at| format!("{} at {}", at.replid, at.offset));
    let mut lines = vec![
        ("written by", format!("{}, format {}", dump.server_version.as_deref().unwrap_or("unknown"), dump.format)),
        ("created", dump.created_ms.map_or("unknown".into(), date)),
        ("size", format!("{} ({} bytes)", bytes(Some(dump.bytes)), dump.bytes)),
        ("position", position),
        ("checksum", checksum),
        ("keys", render_keys(&dump.databases)),
    ];
    if dump.functions > 0 {
        lines.push(("functions", format!("{} libraries", dump.functions)));
    }
    if !dump.modules.is_empty() {
        lines.push(("modules", format!("{}: a server without them does not load it", dump.modules.join(", "))));
    }
    let lines: String = lines.iter().map(|(name, value)| format!("  {name:<12}{}\n", clean(value))).collect();
    format!("{}: good\n{lines}", clean(&found.file))
}

fn render_keys(databases: &BTreeMap<u32, Keys>) -> String {
    let one = |(number, keys): (&u32, &Keys)| match keys.expiring {
        0 => format!("{} in database {number}", keys.keys),
        expiring => format!("{} in database {number} ({expiring} of them expire)", keys.keys),
    };
    if databases.is_empty() { "none".into() } else { databases.iter().map(one).collect::<Vec<_>>().join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &[u8] = include_bytes!("../../../agent/testdata/small.rdb");

    fn verdict_of(bytes: &[u8]) -> Verdict {
        verdict(Path::new("dump.rdb"), rdb::walk(bytes))
    }

    #[test]
    fn a_good_file_is_described() {
        let text = render(&verdict_of(DUMP));
        for part in [
            "dump.rdb: good\n",
            "written by  7.0.15, format REDIS0010",
            "created     2026-",
            "size        264 B (264 bytes)",
            "checksum    right (",
            "keys        4 in database 0, 1 in database 3\n",
        ] {
            assert!(text.contains(part), "{part}\nin\n{text}");
        }
        let json = serde_json::to_value(verdict_of(DUMP)).unwrap();
        assert_eq!((&json["good"], &json["format"]), (&true.into(), &"REDIS0010".into()), "{json}");
        assert_eq!(json["problem"], serde_json::Value::Null);
    }

    #[test]
    fn a_bad_file_is_told_with_place_and_reason() {
        let mut bytes = DUMP.to_vec();
        bytes.truncate(200);
        let json = serde_json::to_value(verdict_of(&bytes)).unwrap();
        assert_eq!((&json["good"], &json["offset"]), (&false.into(), &200.into()), "{json}");
        assert!(render(&verdict_of(&bytes)).starts_with("dump.rdb: BAD: it ends at offset 200, in "));
    }

    #[test]
    fn what_cannot_be_read_is_not_good() {
        let missing = verdict(Path::new("/nowhere/\u{1b}[2J.rdb"), judge(Path::new("/nowhere/x.rdb")));
        assert!(render(&missing).contains("/nowhere/ [2J.rdb: BAD: it cannot be read: No such file"), "{}", render(&missing));
        assert!(judge(Path::new("/")).is_err(), "a directory");
    }

    #[test]
    fn keys_per_database() {
        assert_eq!(render_keys(&BTreeMap::new()), "none");
        let keys = [(0, Keys { keys: 7, expiring: 2 }), (9, Keys { keys: 1, expiring: 0 })].into();
        assert_eq!(render_keys(&keys), "7 in database 0 (2 of them expire), 1 in database 9");
    }
}
