//! The lengths of time that the lease rests on, their relations, and the margins between clocks. Shared by agents and controllers. Pure.
//!
//! Every length is measured on `CLOCK_BOOTTIME` or a monotonic clock of one machine; between machines only rates are compared, and they
//! differ by at most [`DRIFT_PER_MILLE`].

use std::time::Duration;

/// Lease length unless the cluster file says otherwise.
pub const LEASE: Duration = Duration::from_secs(2);
/// Longest lease that can be chosen: an agent that does not know its length acts for so long as if it had just promised.
pub const LONGEST_LEASE: Duration = Duration::from_secs(60);
/// Longest time on promises alone, unless the cluster file says otherwise.
pub const FAILSAFE_MAX: Duration = Duration::from_secs(600);
/// How much faster one machine's clock may run than another's, in thousandths.
pub const DRIFT_PER_MILLE: u32 = 1;
/// Longest wait for the answer to `CLIENT PAUSE`; then the server is killed.
pub const PAUSE_BOUND: Duration = Duration::from_millis(150);
/// Longest time from SIGKILL to the end of the main thread. Measured 0.5 to 3 ms on servers of 2 GB.
pub const KILL_TIME: Duration = Duration::from_millis(50);
/// Longest wait between two lines of an agent's stream.
pub const HEARTBEAT: Duration = Duration::from_millis(250);
/// How often the server is probed.
pub const PROBE_EVERY: Duration = Duration::from_millis(250);
/// A server that has neither answered nor run for so long is hung.
pub const HUNG_AFTER: Duration = Duration::from_secs(1);
/// A server that runs and does not answer keeps its lease for so long.
pub const BUSY_AFTER: Duration = Duration::from_secs(5);

/// The time that a stop may take: to send the pause, wait for its answer in vain, and kill.
pub const STOP_BOUND: Duration = PAUSE_BOUND.saturating_add(KILL_TIME);

/// What is added to a length that was measured on another machine's clock: drift over the whole time, and the bound of a stop.
pub fn margin(length: Duration) -> Duration {
    length * DRIFT_PER_MILLE / 1000 + STOP_BOUND
}

/// A length as another machine must wait for it to be over here.
pub fn with_margin(length: Duration) -> Duration {
    length + margin(length)
}

/// How often a lease of this length is renewed.
pub fn renew_every(lease: Duration) -> Duration {
    lease / 4
}

/// Longest wait for an answer to what makes a server writable: sent only while the lease has more than this left.
pub fn office_bound(lease: Duration) -> Duration {
    lease / 4
}

/// The relations between the lengths that a cluster file chooses; each that does not hold is stated with its figures. Empty when all hold.
pub fn lease_mistakes(lease: Duration, failsafe_max: Duration) -> Vec<String> {
    let least = Duration::from_secs(1);
    broken([
        (
            lease >= least,
            format!(
                "lease ({lease:?}) >= {least:?}: two renewals, a stop ({STOP_BOUND:?}) and the opening of a port must fit into it"
            ),
        ),
        (
            lease <= LONGEST_LEASE,
            format!("lease ({lease:?}) <= {LONGEST_LEASE:?}: a lost master's host would stop all writes for so long"),
        ),
        (
            failsafe_max >= lease * 2,
            format!(
                "failsafe.max ({failsafe_max:?}) >= 2 x lease ({:?}): else a lease ends before a promise can help",
                lease * 2
            ),
        ),
    ])
}

fn broken<const N: usize>(relations: [(bool, String); N]) -> Vec<String> {
    let broken = relations.into_iter().filter(|(holds, _)| !holds);
    broken.map(|(_, relation)| format!("this must hold: {relation}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_defaults_fit_together() {
        assert_eq!(lease_mistakes(LEASE, FAILSAFE_MAX), Vec::<String>::new());
        assert!(PROBE_EVERY * 2 < HUNG_AFTER && HUNG_AFTER < BUSY_AFTER);
        assert!(renew_every(LEASE) * 2 + STOP_BOUND + office_bound(LEASE) < LEASE);
    }

    #[test]
    fn each_relation_is_stated_with_its_figures() {
        let cases = [
            (lease_mistakes(SECOND * 9 / 10, FAILSAFE_MAX), "lease (900ms) >= 1s"),
            (lease_mistakes(SECOND * 61, FAILSAFE_MAX), "lease (61s) <= 60s"),
            (lease_mistakes(LEASE, SECOND * 3), "failsafe.max (3s) >= 2 x lease (4s)"),
        ];
        for (found, expected) in cases {
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].contains(expected), "{found:?}");
        }
    }
}
