//! A wall clock that jumps, for chosen processes only: libfaketime by LD_PRELOAD. Elapsed time (CLOCK_MONOTONIC, CLOCK_BOOTTIME) is left alone, as it
//! is when somebody sets a machine's clock.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// A wall clock of its own; what runs with it starts at the true time.
#[derive(Clone, Debug)]
pub struct Clock {
    file: Arc<Path>,
    library: Arc<Path>,
}

impl Clock {
    /// The longest time until running processes have noticed a jump: they look at the file once a second.
    pub const NOTICED: Duration = Duration::from_millis(1500);

    /// A clock that keeps its state in `file`.
    pub fn new(file: PathBuf) -> Result<Clock> {
        let clock = Clock { file: file.into(), library: library()?.into() };
        clock.jump("+0")?;
        Ok(clock)
    }

    /// Sets it ahead of the true time (`+3600`) or behind it (`-3600`), seconds. Seen within [`Clock::NOTICED`].
    pub fn jump(&self, offset: &str) -> Result<()> {
        // Renamed into place: a reader never sees half of it.
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{offset}\n")).with_context(|| new.display().to_string())?;
        std::fs::rename(&new, &self.file).with_context(|| self.file.display().to_string())
    }

    /// Words to put before a command line so that it runs with this clock.
    pub fn wrapper(&self) -> Vec<String> {
        let settings = [
            // libc too, before all others: the allocator that Debian's Redis brings asks for the time before libfaketime is ready.
            format!("LD_PRELOAD={} libc.so.6", self.library.display()),
            format!("FAKETIME_TIMESTAMP_FILE={}", self.file.display()),
            "FAKETIME_CACHE_DURATION=1".into(),
            "FAKETIME_DONT_FAKE_MONOTONIC=1".into(),
            "DONT_FAKE_MONOTONIC=1".into(),
            "NO_FAKE_STAT=1".into(),
        ];
        std::iter::once("/usr/bin/env".to_owned()).chain(settings).collect()
    }
}

/// Debian's package puts it below the directory of the machine's architecture.
fn library() -> Result<PathBuf> {
    let directories = std::fs::read_dir("/usr/lib").context("/usr/lib")?.flatten().map(|entry| entry.path());
    for directory in directories {
        let library = directory.join("faketime/libfaketimeMT.so.1");
        if library.is_file() {
            return Ok(library);
        }
    }
    bail!("libfaketime is not on this machine: run `make setup`")
}
