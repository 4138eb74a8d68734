//! Whether a snapshot can be fetched and loaded here: free disk, and free memory, that of our control group included.

use std::path::Path;

use agent::snapshot::Manifest;

/// What is left alone, bytes.
const SPARE: u64 = 64 << 20;

/// Why it cannot be fetched and loaded here; `Ok` when it can, or nobody can tell.
pub fn check(scratch: &Path, manifest: &Manifest) -> Result<(), String> {
    let stat = rustix::fs::statvfs(scratch).map_err(|e| format!("{}: {e}", scratch.display()))?;
    let disk = Some(stat.f_bavail.saturating_mul(stat.f_frsize));
    let place = format!("below {}", scratch.display());
    enough("disk", &place, manifest.bytes, disk)?;
    // Without its own word: twice the dump, as packed data goes.
    let memory = manifest.used_memory.unwrap_or(manifest.bytes.saturating_mul(2));
    enough("memory", "on this host", memory.saturating_add(memory / 4), meminfo())?;
    enough("memory", "in this control group", memory.saturating_add(memory / 4), control_group())
}

/// Pure.
fn enough(what: &str, place: &str, needed: u64, free: Option<u64>) -> Result<(), String> {
    match free {
        Some(free) if free < needed.saturating_add(SPARE) => {
            Err(format!("{needed} bytes of {what} are needed and {free} are free {place}"))
        }
        _ => Ok(()),
    }
}

/// Memory that can be had on this host, bytes; absent where the kernel does not tell.
fn meminfo() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kilobytes = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    kilobytes.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// What the control group's limit leaves, bytes; absent without a limit.
fn control_group() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let read = |path: String| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    text.lines().find_map(|line| {
        let (limit, used) = match line.splitn(3, ':').collect::<Vec<_>>()[..] {
            ["0", "", path] => {
                let dir = format!("/sys/fs/cgroup{path}");
                (format!("{dir}/memory.max"), format!("{dir}/memory.current"))
            }
            [_, kinds, path] if kinds.split(',').any(|kind| kind == "memory") => {
                let dir = format!("/sys/fs/cgroup/memory{path}");
                (format!("{dir}/memory.limit_in_bytes"), format!("{dir}/memory.usage_in_bytes"))
            }
            _ => return None,
        };
        Some(read(limit)?.saturating_sub(read(used)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_is_told_with_what_is_needed_and_what_there_is() {
        assert_eq!(enough("disk", "here", 100, None), Ok(()));
        assert_eq!(enough("disk", "here", 100, Some(SPARE + 100)), Ok(()));
        let why = enough("disk", "here", 100, Some(SPARE + 99)).unwrap_err();
        assert_eq!(why, format!("100 bytes of disk are needed and {} are free here", SPARE + 99));
        assert!(enough("memory", "here", u64::MAX, Some(u64::MAX - 1)).is_err());
    }

    #[test]
    fn this_host_tells_its_memory() {
        assert!(meminfo().is_some_and(|free| free > 0));
        let _ = control_group();
    }
}
