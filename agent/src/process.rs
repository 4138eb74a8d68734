//! What the kernel says of processes: alive or gone, since when, how much they work. The base of every proof of death.
//!
//! A process is known by pid **and** start time, for pids are used again. State `Z` or `X` is proof that no further command runs:
//! the kernel reports it at once, while `wait` and closed sockets lag behind by the time it takes to free the memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::api::Host;

/// One reading of `/proc/<pid>/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    /// `R`, `S`, `D`, `T`, `Z`, `X`, …
    pub state: char,
    /// Start time, clock ticks since boot (field 22).
    pub start_ticks: u64,
    /// Time spent running, user and system, clock ticks (fields 14 and 15): grows while a server is busy, stands still while it hangs.
    pub cpu_ticks: u64,
    /// Wait status of a zombie (field 52); 0 while it lives or when the kernel does not tell.
    pub exit_code: i32,
}

impl Stat {
    /// Parses the line; the command in parentheses may hold blanks and parentheses itself.
    pub fn parse(text: &str) -> Option<Stat> {
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        // `fields[0]` is field 3 of the manual page.
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Stat {
            state: fields.first()?.chars().next()?,
            start_ticks: number(22)?,
            cpu_ticks: number(14)?.saturating_add(number(15)?),
            exit_code: fields.get(52 - 3).and_then(|f| f.parse().ok()).unwrap_or(0),
        })
    }

    /// Whether no instruction of it will ever run again.
    pub fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }
}

/// Reads the state of `pid`; `None` when there is no such process.
pub(crate) fn stat(pid: u32) -> io::Result<Option<Stat>> {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(text) => Stat::parse(&text).map(Some).ok_or_else(|| io::Error::other(format!("cannot parse /proc/{pid}/stat"))),
        Err(e) if is_gone(&e) => Ok(None),
        Err(e) => Err(e),
    }
}

/// A `/proc/<pid>/stat` kept open: it stays with that very process even when the pid is used again.
#[derive(Debug)]
pub(crate) struct Eye {
    file: File,
}

impl Eye {
    /// Opens it; fails when the process is gone already.
    pub fn open(pid: u32) -> io::Result<Eye> {
        Ok(Eye { file: File::open(format!("/proc/{pid}/stat"))? })
    }

    /// One look; `None` when the process is gone.
    pub fn look(&self) -> io::Result<Option<Stat>> {
        let mut buffer = [0u8; 1024];
        match self.file.read_at(&mut buffer, 0) {
            Ok(n) => Ok(Stat::parse(&String::from_utf8_lossy(&buffer[..n]))),
            Err(e) if is_gone(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

/// How a process ended, from its wait status: `exit status 1`, `signal 9`.
pub(crate) fn describe_end(wait_status: i32) -> String {
    match wait_status & 0x7f {
        0 => format!("exit status {}", (wait_status >> 8) & 0xff),
        signal => format!("signal {signal}"),
    }
}

/// This process: pid and start time.
pub(crate) fn myself() -> (u32, u64) {
    let pid = std::process::id();
    let start = stat(pid).ok().flatten().map_or(0, |s| s.start_ticks);
    (pid, start)
}

/// Identity of this host. Parts that cannot be read are empty, which never equals another host's.
pub(crate) fn host(host_id: &str, name: &str) -> Host {
    let line = |path: &str| std::fs::read_to_string(path).map(|s| s.trim().to_owned()).unwrap_or_default();
    let pid_ns = std::fs::read_link("/proc/self/ns/pid").map(|p| p.to_string_lossy().into_owned()).unwrap_or_default();
    Host { host_id: host_id.to_owned(), name: name.to_owned(), boot_id: line("/proc/sys/kernel/random/boot_id"), pid_ns }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_with_blanks_and_parentheses_in_the_name_is_parsed() {
        let tail: Vec<String> = (4..=52).map(|n| if n == 52 { "9".into() } else { n.to_string() }).collect();
        let line = format!("42 (redis) (server :0) Z {}", tail.join(" "));
        let stat = Stat::parse(&line).unwrap();
        assert_eq!(stat, Stat { state: 'Z', start_ticks: 22, cpu_ticks: 14 + 15, exit_code: 9 });
        assert!(stat.is_dead());
    }

    #[test]
    fn rubbish_is_no_stat() {
        for text in ["", "42", "42 (x)", "42 (x) S", "42 (x) S 1 2 3", ")"] {
            assert_eq!(Stat::parse(text), None, "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,200}", numbers in proptest::collection::vec(0u64.., 0..60)) {
            let fields: Vec<String> = numbers.iter().map(u64::to_string).collect();
            let _ = (Stat::parse(&text), Stat::parse(&format!("1 (x) {text}")), Stat::parse(&format!("1 (x) S {}", fields.join(" "))));
        }
    }

    #[test]
    fn this_process_is_there_and_an_absent_one_is_not() {
        let (pid, start) = myself();
        assert!(start > 0);
        assert_eq!(stat(pid).unwrap().unwrap().start_ticks, start);
        assert!(stat(u32::MAX >> 1).unwrap().is_none());
    }

    #[test]
    fn an_open_eye_sees_a_killed_child_as_dead_with_its_signal() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let eye = Eye::open(child.id()).unwrap();
        assert!(!eye.look().unwrap().unwrap().is_dead());
        child.kill().unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
        let dead = loop {
            match eye.look().unwrap() {
                Some(stat) if stat.is_dead() => break stat,
                _ if std::time::Instant::now() > deadline => panic!("the killed child is not seen dead"),
                _ => std::thread::yield_now(),
            }
        };
        assert_eq!(describe_end(dead.exit_code), "signal 9");
        child.wait().unwrap();
        assert_eq!(eye.look().unwrap(), None);
    }
}
