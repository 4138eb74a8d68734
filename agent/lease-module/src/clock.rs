//! Time since boot, and a quicker answer to the only question that is asked with each command: whether the deadline has passed.
//!
//! Reading the clock costs some 30 ns, of the microsecond that a small command takes. The processor's own counter costs a quarter of that. So
//! for a short while after an exact reading the counter alone shows that not even a millisecond has passed since. A process that was stopped
//! meanwhile finds the counter far ahead, and reads the clock.

use std::ffi::{c_int, c_long};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

/// The clock of Linux that is never set and goes on while the machine sleeps, the agent's too.
const CLOCK_BOOTTIME: c_int = 7;
/// So many counts of the processor's counter take less than [`SPAN_NS`] at 100 MHz and above; no processor's runs slower (they have 1 GHz and more).
const NEAR: u64 = 100_000;
const SPAN_NS: i64 = 1_000_000;
/// What Linux says when it keeps its own time by that counter: then it has found it steady, and the same on all processors.
const CLOCK_SOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";

/// As on machines of 64 bits.
#[repr(C)]
struct Time {
    seconds: c_long,
    nanoseconds: c_long,
}

unsafe extern "C" {
    // Of libc, which the server and the standard library have loaded; answered without a system call.
    fn clock_gettime(clock: c_int, time: *mut Time) -> c_int;
}

/// Nanoseconds since boot.
pub fn now() -> i64 {
    let mut time = Time { seconds: 0, nanoseconds: 0 };
    // SAFETY: `time` is the structure that the call fills.
    match unsafe { clock_gettime(CLOCK_BOOTTIME, &mut time) } {
        0 => time.seconds.wrapping_mul(1_000_000_000).wrapping_add(time.nanoseconds),
        // Without a clock no lease runs.
        _ => i64::MAX,
    }
}

/// The last exact reading, and the counter just before it.
pub struct Glance {
    has_counter: AtomicBool,
    count: AtomicU64,
    /// [`SPAN_NS`] after the reading.
    until: AtomicI64,
}

impl Glance {
    /// Nothing read yet.
    pub const fn new() -> Glance {
        Glance { has_counter: AtomicBool::new(false), count: AtomicU64::new(0), until: AtomicI64::new(i64::MAX) }
    }

    /// Uses the counter from now on, if Linux itself does.
    pub fn find_counter(&self) {
        let source = std::fs::read_to_string(CLOCK_SOURCE).unwrap_or_default();
        self.has_counter.store(cfg!(target_arch = "x86_64") && source.trim() == "tsc", Ordering::Relaxed);
    }

    /// Whether it is earlier than `deadline`, nanoseconds since boot.
    pub fn is_before(&self, deadline: i64) -> bool {
        if !self.has_counter.load(Ordering::Relaxed) {
            return now() < deadline;
        }
        let count = counter();
        if self.shows_before(count, deadline) {
            return true;
        }
        let now = now();
        self.note(count, now);
        now < deadline
    }

    /// Whether the counter shows that less than [`SPAN_NS`] has passed since the reading, and that this is still before `deadline`.
    fn shows_before(&self, count: u64, deadline: i64) -> bool {
        count.wrapping_sub(self.count.load(Ordering::Relaxed)) < NEAR && self.until.load(Ordering::Relaxed) <= deadline
    }

    /// `count` was read before the clock showed `now`.
    fn note(&self, count: u64, now: i64) {
        self.count.store(count, Ordering::Relaxed);
        self.until.store(now.saturating_add(SPAN_NS), Ordering::Relaxed);
    }
}

#[cfg(target_arch = "x86_64")]
fn counter() -> u64 {
    // SAFETY: every processor of this architecture has it.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Never called: [`Glance::find_counter`] finds none.
#[cfg(not(target_arch = "x86_64"))]
fn counter() -> u64 {
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    #[test]
    fn a_glance_is_good_for_less_than_its_span_and_never_beyond_the_deadline() {
        let glance = Glance::new();
        assert!(!glance.shows_before(5, 100 * MS), "nothing was read yet");
        glance.note(1000, 5 * MS);
        assert!(glance.shows_before(1000 + NEAR - 1, 6 * MS));
        assert!(!glance.shows_before(1000 + NEAR, 100 * MS), "too long ago");
        assert!(!glance.shows_before(1001, 6 * MS - 1), "the deadline may have passed");
        assert!(!glance.shows_before(1001, 0), "fenced");
        assert!(!glance.shows_before(999, 100 * MS), "the counter went back");
        glance.note(u64::MAX - 5, 7 * MS);
        assert!(glance.shows_before(5, 100 * MS), "it may wrap");
    }

    #[test]
    fn with_and_without_the_counter_the_answer_is_that_of_the_clock() {
        for counting in [false, true] {
            let glance = Glance::new();
            if counting {
                glance.find_counter();
            }
            let mut passed = false;
            let deadline = now() + 3 * MS;
            while !passed {
                let before = now();
                let said = glance.is_before(deadline);
                let after = now();
                assert!(!said || before < deadline, "it said before, {} ns late", before - deadline);
                assert!(said || after >= deadline, "it said passed, {} ns early", deadline - after);
                passed = before > deadline + MS;
            }
            assert!(!glance.is_before(0) && !glance.is_before(now()) && glance.is_before(i64::MAX));
        }
    }
}
