//! Checks of a host and of what it must reach, each failure with its next step. The command line's `doctor` runs them; nothing here changes
//! anything but for a file in the store's `incoming/` and a node in ZooKeeper, both removed at once.

use std::path::Path;
use std::time::Duration;

use agent::store::Store;
use agent::zk::{self, Keeper};
use serde::Serialize;

use agent::causes::chain;

use crate::config::Place;

/// Redis' default `maxclients` and what it needs besides.
const OPEN_FILES: u64 = 10_032;
/// A clock that is farther off confuses people and the ages of snapshots; safety does not rest on it. Milliseconds.
const SKEW_MS: u64 = 2_000;
/// Longest wait for the store.
const STORE_TIMEOUT: Duration = Duration::from_secs(60);

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was checked.
    pub name: &'static str,
    /// How it is.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do about it; absent when all is well.
    pub next: Option<String>,
}

/// See [`Check`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Works, but not as well as it could.
    Warn,
    /// Does not work, or not safely.
    Fail,
}

impl Check {
    /// All is well.
    pub fn ok(name: &'static str, found: impl Into<String>) -> Check {
        Check { name, verdict: Verdict::Ok, found: found.into(), next: None }
    }
    /// It does not work.
    pub fn fail(name: &'static str, found: impl Into<String>, next: impl Into<String>) -> Check {
        Check { name, verdict: Verdict::Fail, found: found.into(), next: Some(next.into()) }
    }
    /// It could be better.
    pub fn warn(name: &'static str, found: impl Into<String>, next: impl Into<String>) -> Check {
        Check { name, verdict: Verdict::Warn, found: found.into(), next: Some(next.into()) }
    }
}

/// Whether the scheduler answers.
pub async fn scheduler(client: &aurora::Client) -> Check {
    match client.ping().await {
        Ok(info) => Check::ok("scheduler", format!("{} answers for Aurora cluster {}", client.endpoint(), info.cluster_name)),
        Err(error) => {
            let next =
                "check --scheduler (a ZooKeeper path, or a URL), that a scheduler leads, and that this host may connect to it";
            Check::fail("scheduler", chain(&error), next)
        }
    }
}

/// Whether a snapshot could be written: a small file is written, read back and removed.
pub async fn store(place: &Place) -> Check {
    let Some(uri) = place.snapshots_uri.as_deref() else {
        return Check::warn(
            "store",
            "no snapshots.uri is set: not checked",
            "set snapshots.uri to check that snapshots can be written",
        );
    };
    let wrote = async { Store::open(uri, &place.cluster, agent::store::Options::reaching(&place.hdfs))?.check_writable().await };
    let next = "check snapshots.uri, hdfs.conf_dir, HADOOP_USER_NAME or hdfs.keytab, that the directory belongs to this user, space and quota";
    match tokio::time::timeout(STORE_TIMEOUT, wrote).await {
        Ok(Ok(took)) => {
            Check::ok("store", format!("{uri}: a file was written, read back and removed in {} ms", took.as_millis()))
        }
        Ok(Err(error)) => Check::fail("store", agent::store::one_line(&error), next),
        Err(_) => Check::fail("store", format!("{uri} did not answer within {STORE_TIMEOUT:?}"), next),
    }
}

/// This host's clock against another one, whose reading in Unix milliseconds has just come in.
pub fn clock(whose: &str, theirs_ms: u64) -> Check {
    let ours = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0);
    skew(whose, ours, theirs_ms)
}

fn skew(whose: &str, ours_ms: u64, theirs_ms: u64) -> Check {
    let (off, way) = if ours_ms >= theirs_ms { (ours_ms - theirs_ms, "ahead of") } else { (theirs_ms - ours_ms, "behind") };
    let found = format!("this host's clock is {off} ms {way} {whose}");
    match off {
        0..=SKEW_MS => Check::ok("clock", found),
        _ => Check::warn(
            "clock",
            found,
            "run a time service (chrony, ntpd) on all hosts; ages of snapshots and events are wrong until then",
        ),
    }
}

/// The clock of ZooKeeper's leader: the time it gives to a node made for this.
pub async fn zookeeper_clock(keeper: &Keeper, root: &str) -> Check {
    let made = async {
        let client = keeper.client()?;
        zk::ensure(&client, root).await?;
        let path = format!("{root}/doctor-{}", uuid::Uuid::new_v4());
        let options = zookeeper_client::CreateMode::Ephemeral.with_acls(zookeeper_client::Acls::anyone_all());
        zk::call("make", &path, client.create(&path, b"", &options)).await?;
        let stat = zk::call("look at", &path, client.check_stat(&path)).await;
        zk::call("remove", &path, client.delete(&path, None)).await?;
        stat
    };
    match made.await {
        Ok(Some(stat)) => clock("ZooKeeper's", u64::try_from(stat.ctime).unwrap_or(0)),
        Ok(None) => Check::warn("clock", "the node made for this was gone at once: not checked", "repeat"),
        Err(error) => {
            Check::fail("clock", chain(&error), "this user must be able to make nodes there; check ACLs and the ensemble's state")
        }
    }
}

/// The secret file; that it is of mode 0600 and long enough was checked when it was loaded.
pub fn secret(file: Option<&Path>) -> Check {
    match file {
        Some(file) => Check::ok("secret", format!("{} is readable by its owner only", file.display())),
        None => {
            let next = "for anything but one machine: head -c 32 /dev/urandom | base64 > FILE; chmod 0600 FILE; set secret_file on every host";
            Check::warn("secret", "no secret_file is set: only loopback is served, and no token asked", next)
        }
    }
}

/// What a redis-server needs of its host. `proc` and `sys` are the file systems of these names.
pub fn host(proc: &Path, sys: &Path) -> Vec<Check> {
    vec![
        open_files(rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum),
        overcommit(proc),
        huge_pages(sys),
        backlog(proc),
    ]
}

fn open_files(limit: Option<u64>) -> Check {
    match limit {
        Some(limit) if limit < OPEN_FILES => {
            let next = format!(
                "raise the hard limit of open files to {OPEN_FILES} or more (limits.conf, LimitNOFILE), else Redis lowers maxclients"
            );
            Check::fail("ulimits", format!("at most {limit} open files"), next)
        }
        Some(limit) => Check::ok("ulimits", format!("at most {limit} open files")),
        None => Check::ok("ulimits", "any number of open files"),
    }
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path)
        .map(|text| text.trim().to_owned())
        .map_err(|error| format!("{} cannot be read: {error}", path.display()))
}

fn overcommit(proc: &Path) -> Check {
    let next = "sysctl vm.overcommit_memory=1 (and in /etc/sysctl.d): otherwise the fork for a dump or a full sync may fail";
    match read(&proc.join("sys/vm/overcommit_memory")) {
        Ok(value) if value == "1" => Check::ok("overcommit", "vm.overcommit_memory = 1"),
        Ok(value) => Check::fail("overcommit", format!("vm.overcommit_memory = {value}"), next),
        Err(problem) => Check::warn("overcommit", problem, next),
    }
}

fn huge_pages(sys: &Path) -> Check {
    let next =
        "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled (and at boot): otherwise dumps cost memory and latency";
    match read(&sys.join("kernel/mm/transparent_hugepage/enabled")) {
        Ok(value) if value.contains("[always]") => Check::fail("huge-pages", format!("transparent huge pages: {value}"), next),
        Ok(value) => Check::ok("huge-pages", format!("transparent huge pages: {value}")),
        Err(_) => Check::ok("huge-pages", "this kernel has no transparent huge pages"),
    }
}

fn backlog(proc: &Path) -> Check {
    let next = "sysctl net.core.somaxconn=1024: Redis' tcp-backlog of 511 is cut to it, so bursts of new clients are refused";
    match read(&proc.join("sys/net/core/somaxconn")).map(|value| value.parse::<u32>()) {
        Ok(Ok(value)) if value >= 511 => Check::ok("backlog", format!("net.core.somaxconn = {value}")),
        Ok(Ok(value)) => Check::warn("backlog", format!("net.core.somaxconn = {value}"), next),
        Ok(Err(_)) | Err(_) => Check::warn("backlog", "net.core.somaxconn cannot be read", next),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(files: &[(&str, &str)]) -> std::path::PathBuf {
        let root = std::env::temp_dir().join(format!("doctor-{}", uuid::Uuid::new_v4()));
        for (path, text) in files {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn a_host_that_was_not_prepared_is_told_what_to_do() {
        let root = root(&[
            ("sys/vm/overcommit_memory", "0\n"),
            ("sys/net/core/somaxconn", "128\n"),
            ("kernel/mm/transparent_hugepage/enabled", "[always] madvise never\n"),
        ]);
        let checks = host(&root, &root);
        let verdict = |name: &str| checks.iter().find(|check| check.name == name).unwrap();
        assert_eq!(verdict("overcommit").verdict, Verdict::Fail);
        assert_eq!(verdict("huge-pages").verdict, Verdict::Fail);
        assert_eq!(verdict("backlog").verdict, Verdict::Warn);
        assert!(verdict("overcommit").next.as_ref().unwrap().contains("sysctl vm.overcommit_memory=1"));
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_prepared_host_is_fine() {
        let root = root(&[
            ("sys/vm/overcommit_memory", "1\n"),
            ("sys/net/core/somaxconn", "4096\n"),
            ("kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n"),
        ]);
        let checks = host(&root, &root);
        assert!(checks.iter().filter(|check| check.name != "ulimits").all(|check| check.verdict == Verdict::Ok), "{checks:?}");
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn limits_and_clocks() {
        assert_eq!(open_files(Some(1024)).verdict, Verdict::Fail);
        assert_eq!(open_files(None).verdict, Verdict::Ok);
        assert_eq!(skew("the controller's", 10_000, 9_000).found, "this host's clock is 1000 ms ahead of the controller's");
        assert_eq!(skew("ZooKeeper's", 10_000, 13_000).verdict, Verdict::Warn);
    }

    fn place(snapshots_uri: Option<String>) -> Place {
        Place { cluster: "www/prod/cache".into(), snapshots_uri, ..Place::default() }
    }

    #[tokio::test]
    async fn a_store_is_written_to_and_a_bad_one_named() {
        let root = root(&[("x", "")]);
        let good = store(&place(Some(format!("file://{}", root.display())))).await;
        assert_eq!(good.verdict, Verdict::Ok, "{good:?}");
        let bad = store(&place(Some(format!("file://{}/x/y", root.display())))).await;
        assert_eq!(bad.verdict, Verdict::Fail, "{bad:?}");
        assert!(bad.next.is_some());
        assert_eq!(store(&place(None)).await.verdict, Verdict::Warn);
        std::fs::remove_dir_all(root).unwrap();
    }
}
