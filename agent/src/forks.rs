//! What must hold before a server forks for a backup: nobody else on this host does the same at this moment, and there is memory for it (and for
//! a dump, disk).
//!
//! The turn is a lock on one file per host, which the kernel lets go of with its holder, however that ends. Full syncs and save points fork by
//! themselves: they are not waited for.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FlockOperation, OFlags, flock};

use crate::board::Work;
use crate::node::Node;
use crate::server::Server;

/// How often a turn taken by another agent is looked after.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Longest wait for a turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(1800);

/// The turn to fork, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    _file: File,
}

/// Waits for the turn and checks the memory; why it must not be, otherwise.
pub(crate) async fn claim(node: &Arc<Node>, server: &Arc<Server>) -> Result<Turn, String> {
    let path = &node.config.fork_lock;
    let turn = wait_for_turn(node, path).await;
    node.change(|parts| drop(parts.works.remove(&Work::Waiting)));
    let turn = turn?;
    let info = server.info(Duration::from_secs(10)).await.map_err(|e| e.to_string())?;
    check_memory(&memory(), info.used_memory, node.config.fork_memory_percent)?;
    Ok(turn)
}

async fn wait_for_turn(node: &Arc<Node>, path: &Path) -> Result<Turn, String> {
    let cannot =
        |e: io::Error| format!("{} cannot be locked, which is how agents of one host take turns to fork: {e}", path.display());
    let file = open(path).map_err(cannot)?;
    let deadline = tokio::time::Instant::now() + TURN_TIMEOUT;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Turn { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => {}
            Err(error) => return Err(cannot(error.into())),
        }
        if tokio::time::Instant::now() > deadline {
            return Err(format!(
                "another agent of this host was making a backup for {TURN_TIMEOUT:?} ({} is locked)",
                path.display()
            ));
        }
        node.change(|parts| parts.work(Work::Waiting, "another backup on this host", 0, 0));
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Opens the lock file, which may belong to another user: a lock needs no right to write. In a directory that anybody can write to, it is
/// created only when it is not there.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW.bits() as i32;
    let existing = || OpenOptions::new().read(true).custom_flags(flags).open(path);
    match existing() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        opened => return opened,
    }
    match OpenOptions::new().write(true).create_new(true).mode(0o644).custom_flags(flags).open(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => existing(),
        created => created,
    }
}

/// The file that agents of a host lock, by default: the same for all of them, whatever their user.
pub(crate) fn default_lock(host_id: &str) -> PathBuf {
    let id: String = host_id.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(64).collect();
    std::env::temp_dir().join(format!("aurora-redis-fork-{id}.lock"))
}

/// Memory of this host and of the control groups this process is in, bytes; absent where the kernel does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Memory {
    /// What could be had without swapping.
    available: Option<u64>,
    /// What is left below the tightest limit of a control group.
    below_limit: Option<u64>,
    /// What may still be promised, where the kernel promises no more than it has (`vm.overcommit_memory` 2).
    promisable: Option<u64>,
}

/// Refuses a fork whose worst case does not fit.
fn check_memory(memory: &Memory, used: u64, percent: u64) -> Result<(), String> {
    // A kernel that promises only what it has wants room for the whole child, whatever is copied.
    if let Some(left) = memory.promisable.filter(|left| *left < used) {
        return Err(format!(
            "too little memory to fork: the server uses {used} bytes and the kernel can promise {left} more (vm.overcommit_memory is 2; set it to 1)"
        ));
    }
    let needed = u64::try_from(u128::from(used) * u128::from(percent) / 100).unwrap_or(u64::MAX);
    let checks = [("this host has", memory.available), ("the limit of the control group leaves", memory.below_limit)];
    for (who, left) in checks {
        if let Some(left) = left.filter(|left| *left < needed) {
            return Err(format!(
                "too little memory to fork: {needed} bytes may be copied while the dump is made ({percent} % of the {used} that the server uses, \
                 snapshots.fork_memory_percent), and {who} {left}"
            ));
        }
    }
    Ok(())
}

/// Refuses a dump that may not fit on the disk. `used` is what the server's data takes in memory: more than its dump.
pub(crate) fn check_disk(dir: &Path, used: u64) -> Result<(), String> {
    let stat = rustix::fs::statvfs(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if free >= used {
        return Ok(());
    }
    Err(format!(
        "too little space for a dump: up to {used} bytes, and {free} are free in {} (a backup of the stream needs none: --how stream)",
        dir.display()
    ))
}

/// Refuses data that needs more memory than there is once the running server, which uses `freed` bytes, has ended.
pub(crate) fn check_room(needed: u64, freed: u64) -> Result<(), String> {
    let memory = memory();
    let checks = [("this host has", memory.available), ("the limit of the control group leaves", memory.below_limit)];
    for (who, left) in checks {
        if let Some(left) = left.map(|left| left.saturating_add(freed)).filter(|left| *left < needed) {
            return Err(format!("too little memory: the data needs {needed} bytes, and {who} {left} once its server has ended"));
        }
    }
    Ok(())
}

fn memory() -> Memory {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let info = read("/proc/meminfo").unwrap_or_default();
    let strict = read("/proc/sys/vm/overcommit_memory").is_some_and(|mode| mode.trim() == "2");
    let promisable = || Some(field(&info, "CommitLimit")?.saturating_sub(field(&info, "Committed_AS")?));
    let groups = read("/proc/self/cgroup").unwrap_or_default();
    Memory {
        available: field(&info, "MemAvailable"),
        below_limit: groups.lines().filter_map(|line| below_limit(Path::new("/sys/fs/cgroup"), line)).min(),
        promisable: if strict { promisable() } else { None },
    }
}

/// `MemAvailable:   123 kB`, in bytes.
fn field(info: &str, name: &str) -> Option<u64> {
    let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// What is left below the tightest memory limit from one line of `/proc/self/cgroup` upwards. Pages of files are given back when memory is
/// short, so they do not count.
fn below_limit(root: &Path, line: &str) -> Option<u64> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, path) = (parts.next()?, parts.next()?);
    let second = controllers.is_empty();
    if !second && !controllers.split(',').any(|c| c == "memory") {
        return None;
    }
    let names =
        if second { ("", "memory.max", "memory.current") } else { ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes") };
    let base = root.join(names.0);
    let left = |dir: PathBuf| {
        let number = |name: &str| std::fs::read_to_string(dir.join(name)).ok()?.trim().parse::<u64>().ok();
        let (limit, usage) = (number(names.1)?, number(names.2)?);
        let stat = std::fs::read_to_string(dir.join("memory.stat")).unwrap_or_default();
        let files = stat.lines().find_map(|line| line.strip_prefix("inactive_file ")?.trim().parse::<u64>().ok());
        // Beyond any machine: no limit.
        (limit < 1 << 60).then(|| limit.saturating_sub(usage.saturating_sub(files.unwrap_or(0))))
    };
    let own = Path::new(path.trim_start_matches('/'));
    own.ancestors().filter_map(|dir| left(base.join(dir))).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_case_of_a_fork_must_fit_the_host_and_the_limit() {
        let plenty = Memory { available: Some(1000), below_limit: Some(1000), promisable: None };
        assert_eq!(check_memory(&plenty, 1000, 100), Ok(()));
        let told = |memory: Memory, percent| check_memory(&memory, 1000, percent).unwrap_err();
        assert!(told(Memory { available: Some(999), ..plenty }, 100).contains("this host has 999"));
        assert!(told(Memory { below_limit: Some(400), ..plenty }, 50).contains("the control group leaves 400"));
        assert!(told(Memory { promisable: Some(999), ..plenty }, 0).contains("vm.overcommit_memory"));
        assert_eq!(check_memory(&Memory { available: Some(1), ..Memory::default() }, 1000, 0), Ok(()), "switched off");
        assert_eq!(check_memory(&Memory::default(), u64::MAX, 1000), Ok(()), "what is not known refuses nothing");
    }

    #[test]
    fn the_tightest_limit_of_all_groups_counts() {
        let root = std::env::temp_dir().join(format!("groups-{}", uuid::Uuid::new_v4()));
        let write = |dir: &str, name: &str, text: &str| {
            std::fs::create_dir_all(root.join(dir)).unwrap();
            std::fs::write(root.join(dir).join(name), text).unwrap();
        };
        for (dir, limit, usage) in [("a", "500\n", "100\n"), ("a/b", "max\n", "90\n"), ("memory/x", "9223372036854771712", "5")] {
            let names = if dir.starts_with("memory") {
                ("memory.limit_in_bytes", "memory.usage_in_bytes")
            } else {
                ("memory.max", "memory.current")
            };
            write(dir, names.0, limit);
            write(dir, names.1, usage);
        }
        write("a", "memory.stat", "anon 1\ninactive_file 40\nfile 3\n");
        assert_eq!(below_limit(&root, "0::/a/b"), Some(440));
        assert_eq!(below_limit(&root, "5:cpu,memory:/x"), None, "no limit is set");
        assert_eq!(below_limit(&root, "5:cpu:/x"), None);
        assert_eq!(below_limit(&root, "rubbish"), None);
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn one_holds_the_lock_and_it_goes_with_its_holder() {
        let path = std::env::temp_dir().join(format!("lock-{}", uuid::Uuid::new_v4()));
        let (one, two) = (open(&path).unwrap(), open(&path).unwrap());
        flock(&one, FlockOperation::NonBlockingLockExclusive).unwrap();
        assert!(flock(&two, FlockOperation::NonBlockingLockExclusive).is_err());
        drop(one);
        flock(&two, FlockOperation::NonBlockingLockExclusive).unwrap();
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn data_that_does_not_fit_into_memory_is_told_before() {
        assert_eq!(check_room(1, 0), Ok(()));
        assert_eq!(check_room(u64::MAX, u64::MAX), Ok(()), "the server makes room for it");
        assert!(check_room(u64::MAX, 0).unwrap_err().contains("too little memory"));
    }

    #[test]
    fn a_disk_that_is_too_small_is_told_before() {
        assert_eq!(check_disk(&std::env::temp_dir(), 1), Ok(()));
        assert!(check_disk(&std::env::temp_dir(), u64::MAX).unwrap_err().contains("--how stream"));
    }

    #[test]
    fn what_the_kernel_tells_of_memory_is_read() {
        assert_eq!(field("MemTotal: 2 kB\nMemAvailable:   12 kB\n", "MemAvailable"), Some(12 * 1024));
        assert_eq!(field("MemAvailable: x kB", "MemAvailable"), None);
        assert!(memory().available.is_some());
    }
}
