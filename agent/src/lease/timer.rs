//! A timer on the time since boot: the runtime's own stands still while the machine sleeps.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Wakes at a time since boot.
#[derive(Debug)]
pub(super) struct Timer {
    fd: AsyncFd<OwnedFd>,
}

impl Timer {
    /// To be called within the runtime that waits for it.
    pub fn new() -> io::Result<Timer> {
        let fd = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        // SAFETY: `OwnedFd` owns the descriptor, and it is neither replaced nor closed while `AsyncFd` holds it.
        let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
        Ok(Timer { fd: fd? })
    }

    /// Waits until `time`, in the past too.
    pub async fn until(&mut self, time: Duration) -> io::Result<()> {
        let none = Timespec { tv_sec: 0, tv_nsec: 0 };
        // All zero would stop the timer.
        let nanoseconds = i64::from(time.subsec_nanos()).max(1);
        let value = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: nanoseconds };
        timerfd_settime(self.fd.get_ref(), TimerfdTimerFlags::ABSTIME, &Itimerspec { it_interval: none, it_value: value })?;
        loop {
            let mut guard = self.fd.readable().await?;
            let mut count = [0u8; 8];
            match rustix::io::read(self.fd.get_ref(), &mut count) {
                Ok(_) => return Ok(()),
                Err(error) if error == rustix::io::Errno::AGAIN => guard.clear_ready(),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
