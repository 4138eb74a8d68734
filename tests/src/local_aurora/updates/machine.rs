//! Which status of an update may follow which. Pure tables.

use aurora::types::JobUpdateStatus;

const FORWARD: JobUpdateStatus = JobUpdateStatus::ROLLING_FORWARD;
const BACK: JobUpdateStatus = JobUpdateStatus::ROLLING_BACK;
const FORWARD_PAUSED: JobUpdateStatus = JobUpdateStatus::ROLL_FORWARD_PAUSED;
const BACK_PAUSED: JobUpdateStatus = JobUpdateStatus::ROLL_BACK_PAUSED;
const FORWARD_BLOCKED: JobUpdateStatus = JobUpdateStatus::ROLL_FORWARD_AWAITING_PULSE;
const BACK_BLOCKED: JobUpdateStatus = JobUpdateStatus::ROLL_BACK_AWAITING_PULSE;

/// The statuses in which an update changes instances.
pub fn is_rolling(status: JobUpdateStatus) -> bool {
    [FORWARD, BACK].contains(&status)
}

/// The statuses in which an update waits for a pulse.
pub fn is_blocked(status: JobUpdateStatus) -> bool {
    [FORWARD_BLOCKED, BACK_BLOCKED].contains(&status)
}

/// Whether an update may go from one status to another one.
pub fn may_follow(from: JobUpdateStatus, to: JobUpdateStatus) -> bool {
    if !from.is_active() {
        return false;
    }
    match to {
        JobUpdateStatus::ABORTED | JobUpdateStatus::ERROR => true,
        JobUpdateStatus::ROLLED_FORWARD => from == FORWARD,
        JobUpdateStatus::ROLLED_BACK => from == BACK,
        JobUpdateStatus::FAILED => is_rolling(from),
        FORWARD => [FORWARD_PAUSED, FORWARD_BLOCKED].contains(&from),
        BACK => from != BACK,
        FORWARD_PAUSED => [FORWARD, FORWARD_BLOCKED].contains(&from),
        BACK_PAUSED => [BACK, BACK_BLOCKED].contains(&from),
        FORWARD_BLOCKED => [FORWARD, FORWARD_PAUSED].contains(&from),
        BACK_BLOCKED => [BACK, BACK_PAUSED].contains(&from),
        _ => false,
    }
}

/// Where a pause leads; `None` when there is nothing to pause.
pub fn paused(status: JobUpdateStatus) -> Option<JobUpdateStatus> {
    match status {
        FORWARD | FORWARD_BLOCKED | FORWARD_PAUSED => Some(FORWARD_PAUSED),
        BACK | BACK_BLOCKED | BACK_PAUSED => Some(BACK_PAUSED),
        _ => None,
    }
}

/// Where a resume leads, with the pulse expired or not; `None` when it leads nowhere.
pub fn resumed(status: JobUpdateStatus, pulse_expired: bool) -> Option<JobUpdateStatus> {
    match (status, pulse_expired) {
        (FORWARD_PAUSED | FORWARD, false) => Some(FORWARD),
        (BACK_PAUSED | BACK, false) => Some(BACK),
        (FORWARD_PAUSED | FORWARD_BLOCKED, true) => Some(FORWARD_BLOCKED),
        (BACK_PAUSED | BACK_BLOCKED, true) => Some(BACK_BLOCKED),
        _ => None,
    }
}

/// Where missing pulses lead.
pub fn blocked(status: JobUpdateStatus) -> JobUpdateStatus {
    match status {
        FORWARD => FORWARD_BLOCKED,
        BACK => BACK_BLOCKED,
        other => other,
    }
}

/// Where a pulse leads.
pub fn unblocked(status: JobUpdateStatus) -> JobUpdateStatus {
    match status {
        FORWARD_BLOCKED => FORWARD,
        BACK_BLOCKED => BACK,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every step that is allowed, by the scheduler's numbers.
    const ALLOWED: [(i32, &[i32]); 6] = [
        (0, &[1, 2, 9, 4, 6, 8, 7]),
        (1, &[3, 10, 5, 6, 8, 7]),
        (2, &[0, 9, 1, 6, 7]),
        (3, &[1, 10, 6, 7]),
        (9, &[0, 2, 1, 6, 7]),
        (10, &[1, 3, 6, 7]),
    ];

    #[test]
    fn exactly_these_steps_are_allowed() {
        for from in 0..=10 {
            let allowed = ALLOWED.iter().find(|(status, _)| *status == from).map_or(&[][..], |(_, to)| to);
            for to in 0..=11 {
                let expected = allowed.contains(&to);
                assert_eq!(may_follow(JobUpdateStatus(from), JobUpdateStatus(to)), expected, "{from} to {to}");
            }
        }
    }

    #[test]
    fn a_pause_keeps_the_direction_and_ends_nothing() {
        for (from, to) in [(0, 2), (9, 2), (2, 2), (1, 3), (10, 3), (3, 3)] {
            assert_eq!(paused(JobUpdateStatus(from)), Some(JobUpdateStatus(to)));
        }
        assert_eq!([4, 5, 6, 7, 8].map(|ended| paused(JobUpdateStatus(ended))), [None; 5]);
    }

    #[test]
    fn a_resume_depends_on_the_pulse() {
        let fresh = [(2, Some(0)), (3, Some(1)), (0, Some(0)), (1, Some(1)), (9, None), (10, None), (4, None)];
        let expired = [(2, Some(9)), (3, Some(10)), (9, Some(9)), (10, Some(10)), (0, None), (1, None), (6, None)];
        for (table, is_expired) in [(fresh, false), (expired, true)] {
            for (from, to) in table {
                assert_eq!(resumed(JobUpdateStatus(from), is_expired), to.map(JobUpdateStatus), "{from} {is_expired}");
            }
        }
    }
}
