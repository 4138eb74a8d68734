//! Real data to fill a server with, and a way to compare all of it key by key.
//!
//! The data is Debian's own package index: hashes, strings with and without expiry, sets, sorted sets, lists and a stream.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use redis::aio::MultiplexedConnection;
use redis::{Pipeline, Value};

use super::binaries;

/// One package of the index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Package {
    /// Field name to value; continuation lines are joined.
    pub fields: BTreeMap<String, String>,
}

impl Package {
    fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }
}

/// Debian's package index as this machine has it (`apt-cache dumpavail`).
pub fn packages() -> Result<Vec<Package>> {
    let output = Command::new(binaries::tool("apt-cache")?).arg("dumpavail").output().context("apt-cache dumpavail")?;
    let packages = parse(&String::from_utf8_lossy(&output.stdout));
    if packages.len() < 20_000 {
        bail!("apt-cache knows only {} packages: run apt-get update (make setup does it)", packages.len());
    }
    Ok(packages)
}

/// Parses stanzas of `Field: value` lines separated by empty lines.
pub fn parse(text: &str) -> Vec<Package> {
    let stanza = |stanza: &str| {
        let mut package = Package::default();
        let mut last = String::new();
        for line in stanza.lines() {
            match line.split_once(':') {
                _ if line.starts_with(' ') => package.fields.entry(last.clone()).or_default().push_str(line),
                Some((field, value)) => {
                    last = field.to_owned();
                    package.fields.insert(last.clone(), value.trim().to_owned());
                }
                None => {}
            }
        }
        package
    };
    text.split("\n\n").map(stanza).filter(|p| !p.field("Package").is_empty()).collect()
}

/// Writes `packages` to the master behind `connection`, with `acks` replicas waited for at the end. Returns the number of keys made.
pub async fn load(packages: &[Package], connection: &mut MultiplexedConnection) -> Result<u64> {
    let before: u64 = redis::cmd("DBSIZE").query_async(connection).await?;
    for (i, chunk) in packages.chunks(250).enumerate() {
        let mut pipeline = Pipeline::new();
        for (j, package) in chunk.iter().enumerate() {
            add(&mut pipeline, package, i * 250 + j);
        }
        pipeline.query_async::<()>(connection).await.context("loading the package index")?;
    }
    let after: u64 = redis::cmd("DBSIZE").query_async(connection).await?;
    Ok(after - before)
}

/// The keys of one package.
fn add(pipeline: &mut Pipeline, package: &Package, number: usize) {
    let name = package.field("Package");
    let size: u64 = package.field("Size").parse().unwrap_or_default();
    let section = package.field("Section");
    pipeline.cmd("HSET").arg(format!("package:{name}"));
    for field in ["Version", "Section", "Maintainer", "Architecture", "Description", "Filename", "Size"] {
        pipeline.arg(field).arg(package.field(field));
    }
    pipeline.ignore();
    let version = pipeline.cmd("SET").arg(format!("version:{name}")).arg(package.field("Version"));
    if number.is_multiple_of(3) {
        version.arg("EX").arg(7 * 86_400 + number);
    }
    version.ignore();
    let depends: Vec<&str> =
        package.field("Depends").split(", ").filter_map(|d| d.split(' ').next()).filter(|d| !d.is_empty()).collect();
    if !depends.is_empty() {
        pipeline.cmd("SADD").arg(format!("depends:{name}")).arg(&depends).ignore();
    }
    pipeline.cmd("ZADD").arg(format!("sizes:{section}")).arg(size).arg(name).ignore();
    pipeline.cmd("RPUSH").arg(format!("maintainer:{}", package.field("Maintainer"))).arg(name).ignore();
    if number.is_multiple_of(10) {
        pipeline
            .cmd("XADD")
            .arg("arrivals")
            .arg(format!("{}-1", number + 1))
            .arg("package")
            .arg(name)
            .arg("size")
            .arg(size)
            .ignore();
    }
}

/// What a server holds: one hash per key over type, value and time of expiry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// Key to hash.
    pub keys: BTreeMap<Vec<u8>, u64>,
    /// Keys per type.
    pub types: BTreeMap<String, u64>,
}

impl Content {
    /// Reads everything in database 0 behind `connection`.
    pub async fn read(connection: &mut MultiplexedConnection) -> Result<Content> {
        let mut content = Content::default();
        let mut cursor = 0;
        loop {
            let scan = redis::cmd("SCAN").arg(cursor).arg("COUNT").arg(1000).query_async(connection).await;
            let (next, keys): (u64, Vec<Vec<u8>>) = scan.context("SCAN")?;
            content.add(&keys, connection).await?;
            cursor = next;
            if cursor == 0 {
                return Ok(content);
            }
        }
    }

    async fn add(&mut self, keys: &[Vec<u8>], connection: &mut MultiplexedConnection) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        let mut kinds = Pipeline::new();
        keys.iter().for_each(|key| {
            kinds.cmd("TYPE").arg(key).cmd("PEXPIRETIME").arg(key);
        });
        let kinds: Vec<Value> = kinds.query_async(connection).await.context("TYPE")?;
        let mut values = Pipeline::new();
        let mut names = Vec::new();
        for (key, pair) in keys.iter().zip(kinds.chunks(2)) {
            let kind: String = redis::from_redis_value(pair[0].clone())?;
            let expiry: i64 = redis::from_redis_value(pair[1].clone())?;
            fetch(&mut values, &kind, key);
            names.push((kind, expiry));
        }
        let values: Vec<Value> = values.query_async(connection).await.context("values")?;
        ensure!(values.len() == keys.len(), "{} values for {} keys", values.len(), keys.len());
        for ((key, (kind, expiry)), value) in keys.iter().zip(names).zip(values) {
            if kind == "none" {
                continue; // expired between two questions
            }
            if self.keys.insert(key.clone(), hash(&kind, expiry, value)).is_none() {
                *self.types.entry(kind).or_default() += 1;
            }
        }
        Ok(())
    }

    /// The first differences to `other` in words; empty when both are the same.
    pub fn differences(&self, other: &Content) -> Vec<String> {
        let show = |key: &[u8]| String::from_utf8_lossy(key).into_owned();
        let gone = self.keys.keys().filter(|k| !other.keys.contains_key(*k)).map(|k| format!("{} is missing", show(k)));
        let more = other.keys.keys().filter(|k| !self.keys.contains_key(*k)).map(|k| format!("{} is new", show(k)));
        let changed = self
            .keys
            .iter()
            .filter(|(k, v)| other.keys.get(*k).is_some_and(|o| o != *v))
            .map(|(k, _)| format!("{} differs", show(k)));
        gone.chain(more).chain(changed).take(20).collect()
    }
}

/// The command that reads a whole value of that type.
fn fetch(pipeline: &mut Pipeline, kind: &str, key: &[u8]) {
    match kind {
        "hash" => pipeline.cmd("HGETALL").arg(key),
        "set" => pipeline.cmd("SMEMBERS").arg(key),
        "zset" => pipeline.cmd("ZRANGE").arg(key).arg(0).arg(-1).arg("WITHSCORES"),
        "list" => pipeline.cmd("LRANGE").arg(key).arg(0).arg(-1),
        "stream" => pipeline.cmd("XRANGE").arg(key).arg("-").arg("+"),
        "string" => pipeline.cmd("GET").arg(key),
        _ => pipeline.cmd("EXISTS").arg(key),
    };
}

/// Sets and hashes have no order of their own, so theirs is made.
fn hash(kind: &str, expiry: i64, value: Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    (kind, expiry).hash(&mut hasher);
    let mut parts: Vec<String> = match value {
        Value::Array(items) if kind == "hash" => items.chunks(2).map(|pair| format!("{pair:?}")).collect(),
        Value::Array(items) => items.iter().map(|item| format!("{item:?}")).collect(),
        other => vec![format!("{other:?}")],
    };
    if matches!(kind, "hash" | "set") {
        parts.sort_unstable();
    }
    parts.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stanzas_are_parsed_with_continuation_lines() {
        let text = "Package: a\nVersion: 1\nDescription: one\n more\n\nPackage: b\nDepends: a (>= 1), c\n\n\n";
        let packages = parse(text);
        assert_eq!(packages.len(), 2);
        assert_eq!(packages[0].field("Description"), "one more");
        assert_eq!(packages[1].field("Depends"), "a (>= 1), c");
    }

    #[test]
    fn order_counts_in_lists_only() {
        let array = |items: &[&str]| Value::Array(items.iter().map(|i| Value::BulkString(i.as_bytes().to_vec())).collect());
        assert_eq!(hash("set", -1, array(&["a", "b"])), hash("set", -1, array(&["b", "a"])));
        assert_eq!(hash("hash", -1, array(&["k", "1", "l", "2"])), hash("hash", -1, array(&["l", "2", "k", "1"])));
        assert_ne!(hash("hash", -1, array(&["k", "1", "l", "2"])), hash("hash", -1, array(&["k", "2", "l", "1"])));
        assert_ne!(hash("list", -1, array(&["a", "b"])), hash("list", -1, array(&["b", "a"])));
        assert_ne!(hash("set", -1, array(&["a"])), hash("set", 5, array(&["a"])));
    }
}
