//! When something is due: cron words and fields, or intervals. Pure.
//!
//! A schedule is a row of slots, moments in UTC that depend on nothing but the schedule, so every controller finds the same ones: what is
//! due is the last slot that has passed, unless what was done for it, or for a later one, can be seen.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use agent::layers::parse_duration;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// What a schedule may look like, for people.
pub const ALLOWED: &str =
    "@hourly, @daily, @weekly, @monthly, five cron fields in UTC such as '30 4 * * *', or an interval such as 'every 30m'";
/// Nothing is due more often.
const SHORTEST: Duration = Duration::from_secs(10);
/// The words that stand for cron fields here.
const WORDS: [&str; 6] = ["@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly"];

/// A row of slots.
#[derive(Clone, Debug)]
pub struct Schedule {
    text: String,
    slots: Slots,
}

/// What is done by the clock; each is absent when it is not done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    /// Backups.
    pub backup: Option<Schedule>,
    /// Verification of the newest snapshot.
    pub verify: Option<Schedule>,
    /// Rehearsal of a whole restore.
    pub rehearse: Option<Schedule>,
}

#[derive(Clone, Debug)]
enum Slots {
    Cron(Box<Cron>),
    /// Multiples of this since the beginning of Unix time, milliseconds.
    Every(u64),
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Schedule) -> bool {
        self.text == other.text
    }
}

impl FromStr for Schedule {
    type Err = String;
    fn from_str(text: &str) -> Result<Schedule, String> {
        let text = text.trim();
        let slots = match text.strip_prefix("every ") {
            Some(interval) => Slots::Every(every(interval)?),
            None => Slots::Cron(Box::new(cron(text)?)),
        };
        let schedule = Schedule { text: text.into(), slots };
        // 2026 on has leap years enough.
        match schedule.next(1_767_225_600_000) {
            Some(_) => Ok(schedule),
            None => Err("it never comes".into()),
        }
    }
}

fn every(text: &str) -> Result<u64, String> {
    let interval = parse_duration(text)?;
    if interval < SHORTEST {
        return Err(format!("it is shorter than {} s", SHORTEST.as_secs()));
    }
    u64::try_from(interval.as_millis()).map_err(|_| "it is too long".into())
}

fn cron(text: &str) -> Result<Cron, String> {
    if text.starts_with('@') {
        if !WORDS.contains(&text) {
            return Err("there is no such word".into());
        }
    } else if text.split_whitespace().count() != 5 {
        return Err("it has not five fields".into());
    }
    let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
    parser.parse(text).map_err(|error| error.to_string())
}

impl Schedule {
    /// The last slot at `now_ms` or before it; Unix time in milliseconds, as all here. None before the first.
    pub fn last(&self, now_ms: u64) -> Option<u64> {
        match &self.slots {
            Slots::Every(ms) => Some(now_ms - now_ms % ms),
            Slots::Cron(cron) => ms_of(cron.find_previous_occurrence(&civil(now_ms)?, true).ok()?),
        }
    }

    /// The first slot after `now_ms`; none when none comes for years.
    pub fn next(&self, now_ms: u64) -> Option<u64> {
        match &self.slots {
            Slots::Every(ms) => (now_ms - now_ms % ms).checked_add(*ms),
            Slots::Cron(cron) => ms_of(cron.find_next_occurrence(&civil(now_ms)?, false).ok()?),
        }
    }

    /// The slot that is due, given those for which something was done. What was done for a slot that has not come yet was done by a clock
    /// that went wrong, and does not count.
    pub fn due(&self, now_ms: u64, done: impl IntoIterator<Item = u64>) -> Option<u64> {
        let last = self.last(now_ms)?;
        let done = done.into_iter().filter(|slot| *slot <= now_ms).max();
        done.is_none_or(|done| done < last).then_some(last)
    }
}

fn civil(ms: u64) -> Option<DateTime> {
    let at = jiff::Timestamp::from_second(i64::try_from(ms / 1000).ok()?).ok()?;
    Some(at.to_zoned(TimeZone::UTC).datetime())
}

fn ms_of(at: DateTime) -> Option<u64> {
    let seconds = at.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second();
    u64::try_from(seconds).ok()?.checked_mul(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-24T12:34:56Z, a Tuesday.
    const NOW_MS: u64 = 1_795_523_696_000;

    fn schedule(text: &str) -> Schedule {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn the_slots_around_now_are_found() {
        for (text, last, next) in [
            ("@hourly", "2026-11-24T12:00:00Z", "2026-11-24T13:00:00Z"),
            ("@daily", "2026-11-24T00:00:00Z", "2026-11-25T00:00:00Z"),
            ("@weekly", "2026-11-22T00:00:00Z", "2026-11-29T00:00:00Z"),
            ("@monthly", "2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z"),
            ("30 4 * * *", "2026-11-24T04:30:00Z", "2026-11-25T04:30:00Z"),
            ("*/15 * * * *", "2026-11-24T12:30:00Z", "2026-11-24T12:45:00Z"),
            ("0 3 * * MON-FRI", "2026-11-24T03:00:00Z", "2026-11-25T03:00:00Z"),
            ("0 0 29 2 *", "2024-02-29T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("every 30m", "2026-11-24T12:30:00Z", "2026-11-24T13:00:00Z"),
            ("every 10s", "2026-11-24T12:34:50Z", "2026-11-24T12:35:00Z"),
        ] {
            let text_of = |ms: Option<u64>| agent::snapshot::utc_text(ms.unwrap());
            let schedule = schedule(text);
            assert_eq!((text_of(schedule.last(NOW_MS)), text_of(schedule.next(NOW_MS))), (last.into(), next.into()), "{text}");
        }
        let hourly = schedule("@hourly");
        let slot = hourly.last(NOW_MS).unwrap();
        assert_eq!(
            (hourly.last(slot), hourly.last(slot - 1)),
            (Some(slot), Some(slot - 3_600_000)),
            "a slot is due from its moment on"
        );
    }

    #[test]
    fn what_is_no_schedule_is_refused_with_the_reason() {
        for (text, why) in [
            ("", "five fields"),
            ("hourly", "five fields"),
            ("@reboot", "no such word"),
            ("* * * *", "five fields"),
            ("0 0 0 * * *", "five fields"),
            ("61 * * * *", ""),
            ("* * * * FOO", ""),
            ("0 0 30 2 *", "never comes"),
            ("every", "five fields"),
            ("every 5", "the unit is missing"),
            ("every 2d", "not a unit"),
            ("every 1s", "shorter than 10 s"),
            ("every 0", "shorter than 10 s"),
        ] {
            let error = text.parse::<Schedule>().expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn a_slot_is_due_until_something_was_done_for_it_or_a_later_one() {
        let hourly = schedule("@hourly");
        let slot = hourly.last(NOW_MS).unwrap();
        let hour = 3_600_000;
        for (name, done, due) in [
            ("never done", vec![], true),
            ("done for it", vec![slot], false),
            ("done for many before", vec![slot - 9 * hour, slot - hour], true),
            ("missed for days: once", vec![slot - 72 * hour], true),
            ("done after it", vec![slot + 60_000], false),
            ("by a clock that ran ahead", vec![slot + 99 * hour], true),
            ("that clock, and for it", vec![slot + 99 * hour, slot], false),
        ] {
            assert_eq!(hourly.due(NOW_MS, done), due.then_some(slot), "{name}");
        }
        // A clock that goes back finds what was done still done.
        assert_eq!(hourly.due(NOW_MS - hour, [slot - hour, slot]), None);
    }

    #[test]
    fn the_beginning_and_the_end_of_time_do_no_harm() {
        for ms in [0, 1, u64::MAX] {
            for text in ["@yearly", "every 30m", "0 0 29 2 *"] {
                let _ = (schedule(text).last(ms), schedule(text).next(ms), schedule(text).due(ms, [0, u64::MAX]));
            }
        }
    }
}
