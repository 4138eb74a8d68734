//! `INFO` of Redis and Valkey as a value. Pure; the one place where `slave` becomes replica.

use std::collections::BTreeMap;
use std::fmt;

use crate::api::{Address, Offset, Role};
use crate::redis::conf::BACKUP;

/// Kind and version of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Version {
    /// Valkey rather than Redis.
    pub valkey: bool,
    /// Major, minor, patch.
    pub number: (u32, u32, u32),
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (a, b, c) = self.number;
        write!(f, "{}{a}.{b}.{c}", if self.valkey { "valkey " } else { "" })
    }
}

impl Version {
    /// From `redis-server --version`: `Redis server v=7.0.15 sha=…` or `Valkey server v=9.1.2 …`.
    pub fn from_banner(text: &str) -> Option<Version> {
        let number = text.split_ascii_whitespace().find_map(|word| word.strip_prefix("v="))?;
        Some(Version { valkey: text.starts_with("Valkey"), number: triple(number)? })
    }

    /// Whether it has what Redis `major.minor` brought. Every Valkey descends from Redis 7.2.
    pub fn at_least(&self, major: u32, minor: u32) -> bool {
        let (a, b, _) = if self.valkey { (7, 2, 4) } else { self.number };
        (a, b) >= (major, minor)
    }
}

fn triple(text: &str) -> Option<(u32, u32, u32)> {
    let mut parts = text.split(['.', '-']).map(|p| p.parse::<u32>());
    let mut next = || parts.next().and_then(Result::ok);
    Some((next()?, next().unwrap_or(0), next().unwrap_or(0)))
}

/// What the agent reads from `INFO`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Info {
    /// When it was asked for; absent in one that was not read from a server.
    pub asked: Option<std::time::Instant>,
    pub version: Version,
    pub run_id: String,
    pub process_id: u32,
    /// 0 while the port is closed.
    pub tcp_port: u16,
    pub role: Role,
    pub replid: String,
    /// Absent when unused.
    pub replid2: Option<String>,
    /// `second_repl_offset`; absent when unused.
    pub replid2_end: Option<Offset>,
    pub offset: Offset,
    /// Replica: whether the link is up.
    pub link: Option<bool>,
    /// Replica: where it is told to follow.
    pub following: Option<Address>,
    pub loading: bool,
    pub loaded_bytes: u64,
    pub loading_total_bytes: u64,
    pub syncing: bool,
    /// Keys per database.
    pub databases: BTreeMap<u32, u64>,
    pub used_memory: u64,
    /// Replicas that the master counts as online.
    pub connected_replicas: u32,
    pub bgsave_running: bool,
    pub bgsave_ok: bool,
    /// Saves begun since the start; absent before 7.0.
    pub saves: Option<u64>,
    /// Unix time of the last finished dump (of the start, before the first).
    pub last_save_s: u64,
    pub last_save_took_s: u64,
}

impl Info {
    /// Whether it was asked for before `other`, of the same server, was: then it says nothing that is not known better.
    pub fn is_older_than(&self, other: &Info) -> bool {
        self.run_id == other.run_id && self.asked < other.asked
    }

    /// Parses the text. Unknown fields are ignored, absent ones stay at their default; `None` without a run id or role, as no server
    /// sends it.
    pub fn parse(text: &str) -> Option<Info> {
        let mut info = Info { bgsave_ok: true, ..Info::default() };
        let (mut master_host, mut master_port) = (None, 0);
        for line in text.lines() {
            let Some((key, value)) = line.trim_end().split_once(':') else { continue };
            match key {
                "master_host" => master_host = Some(value.to_owned()),
                "master_port" => master_port = number(value),
                _ => info.take(key, value),
            }
        }
        info.following = master_host.map(|host| Address { host, port: master_port });
        (!info.run_id.is_empty() && info.role != Role::None).then_some(info)
    }

    /// Keys in all databases.
    pub fn keys(&self) -> u64 {
        self.databases.values().fold(0, |sum, keys| sum.saturating_add(*keys))
    }

    fn take(&mut self, key: &str, value: &str) {
        match key {
            "redis_version" if !self.version.valkey => self.version.number = triple(value).unwrap_or_default(),
            "valkey_version" => self.version = Version { valkey: true, number: triple(value).unwrap_or_default() },
            "run_id" => self.run_id = value.to_owned(),
            "process_id" => self.process_id = number(value),
            "tcp_port" => self.tcp_port = number(value),
            "role" => self.role = role(value),
            "master_replid" => self.replid = value.to_owned(),
            "master_replid2" => self.replid2 = value.bytes().any(|b| b != b'0').then(|| value.to_owned()),
            "second_repl_offset" => self.replid2_end = value.parse().ok(),
            "master_repl_offset" => self.offset = number(value),
            "master_link_status" => self.link = Some(value == "up"),
            "master_sync_in_progress" => self.syncing = value == "1",
            "loading" => self.loading = value == "1",
            "loading_loaded_bytes" => self.loaded_bytes = number(value),
            "loading_total_bytes" => self.loading_total_bytes = number(value),
            "used_memory" => self.used_memory = number(value),
            "rdb_bgsave_in_progress" => self.bgsave_running = value == "1",
            "rdb_last_bgsave_status" => self.bgsave_ok = value == "ok",
            "rdb_saves" => self.saves = value.parse().ok(),
            "rdb_last_save_time" => self.last_save_s = number(value),
            "rdb_last_bgsave_time_sec" => self.last_save_took_s = number(value),
            _ if is_numbered(key, "slave") => self.connected_replicas += u32::from(holds_a_copy(value)),
            _ if is_numbered(key, "db") => drop(self.databases.insert(number(&key[2..]), keys_of(value))),
            _ => {}
        }
    }
}

/// Whether a line of a replica is of one that is online; whoever reads a backup keeps nothing.
fn holds_a_copy(replica: &str) -> bool {
    let mut fields = replica.split(',');
    fields.clone().any(|field| field == "state=online") && !fields.any(|field| field.strip_prefix("ip=") == Some(BACKUP))
}

fn role(word: &str) -> Role {
    match word {
        "master" => Role::Master,
        "slave" | "replica" => Role::Replica,
        _ => Role::None,
    }
}

fn number<T: std::str::FromStr + Default>(text: &str) -> T {
    text.parse().unwrap_or_default()
}

fn is_numbered(key: &str, prefix: &str) -> bool {
    key.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
}

/// `keys=1,expires=0,avg_ttl=0`
fn keys_of(value: &str) -> u64 {
    value.split(',').find_map(|part| part.strip_prefix("keys=")).map_or(0, number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REDIS_MASTER: &str = include_str!("../../tests/data/info-redis-7.0-master-with-replica.txt");
    const REDIS_REPLICA: &str = include_str!("../../tests/data/info-redis-7.0-replica.txt");
    const VALKEY_MASTER: &str = include_str!("../../tests/data/info-valkey-9.1-master.txt");

    #[test]
    fn a_master_with_an_online_replica() {
        let info = Info::parse(REDIS_MASTER).unwrap();
        assert_eq!(info.version.to_string(), "7.0.15");
        assert_eq!((info.role, info.link, info.connected_replicas, info.keys()), (Role::Master, None, 1, 2));
        assert_eq!((info.tcp_port, info.replid2.clone(), info.replid2_end), (46399, None, None));
        assert_eq!((info.saves, info.bgsave_running, info.bgsave_ok), (Some(0), false, true));
        assert_eq!(info.replid.len(), 40);
    }

    #[test]
    fn a_backup_that_is_being_read_is_no_replica() {
        let backup = "slave1:ip=aurora-redis-backup,port=0,state=online,offset=0,lag=0\r\n";
        let info = Info::parse(&format!("{REDIS_MASTER}\r\n{backup}")).unwrap();
        assert_eq!(info.connected_replicas, 1);
    }

    #[test]
    fn a_replica_says_whom_it_follows() {
        let info = Info::parse(REDIS_REPLICA).unwrap();
        assert_eq!((info.role, info.link, info.syncing), (Role::Replica, Some(true), false));
        assert_eq!(info.following, Some(Address { host: "127.0.0.1".into(), port: 46399 }));
        assert_eq!((info.keys(), info.tcp_port), (2, 0));
    }

    #[test]
    fn valkey_is_told_from_the_redis_version_it_pretends() {
        let info = Info::parse(VALKEY_MASTER).unwrap();
        assert_eq!(info.version.to_string(), "valkey 9.1.2");
        assert_eq!(info.role, Role::Master);
        assert!(info.version.at_least(7, 2) && !info.version.at_least(7, 4));
    }

    #[test]
    fn text_that_is_no_info_is_refused() {
        for text in ["", "# Server", "redis_version:7.0.15\r\n", "run_id:x\r\nrole:sentinel\r\n", "\u{0}:::\n:"] {
            assert_eq!(Info::parse(text), None, "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(lines in proptest::collection::vec("(db|slave|role|run_id|loading|master_port)[0-9]{0,3}:.{0,40}", 0..20)) {
            if let Some(info) = Info::parse(&lines.join("\r\n")) {
                let _ = info.keys();
            }
        }
    }

    #[test]
    fn versions_from_the_banner() {
        let redis = Version::from_banner("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64").unwrap();
        let valkey = Version::from_banner("Valkey server v=9.1.2 sha=00000000:1 malloc=libc bits=64").unwrap();
        assert_eq!((redis.to_string(), valkey.to_string()), ("7.0.15".into(), "valkey 9.1.2".into()));
        assert!(!Version::from_banner("Redis server v=6.2.14 x").unwrap().at_least(7, 0));
        assert_eq!(Version::from_banner("bash: no such file"), None);
    }
}
