//! Which snapshots may go. Pure; whoever asks carries it out.
//!
//! Invariant: the best good one, the last good one before a suspicious one, what is pinned, and what is not understood are never named.

use std::collections::BTreeSet;

use super::SnapshotId;

const DAY_MS: u64 = 86_400_000;
const WEEK_MS: u64 = 7 * DAY_MS;
/// The first Monday of Unix time is the 5th of January 1970.
const MONDAY_MS: u64 = 4 * DAY_MS;

/// How many snapshots are kept. A snapshot stays if any of these wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// The newest so many.
    pub newest: usize,
    /// The newest of each of the last so many days (UTC) that have one.
    pub days: usize,
    /// The newest of each of the last so many weeks (from Monday, UTC) that have one.
    pub weeks: usize,
    /// Nothing younger than this goes, milliseconds.
    pub young_ms: u64,
}

/// What is known of one snapshot.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its name.
    pub id: SnapshotId,
    /// When it was made, Unix time in milliseconds.
    pub created_ms: u64,
    /// Whether it may be used.
    pub good: bool,
    /// Whether it cannot be used only because it holds so little, see [`super::Guard`].
    pub suspicious: bool,
    /// Whether somebody wants it kept.
    pub pinned: bool,
    /// Whether it was imported: then it is none of the cluster's own, and goes only by hand.
    pub imported: bool,
}

/// What becomes of one snapshot, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fate {
    /// Which.
    pub id: SnapshotId,
    /// Whether it may go.
    pub goes: bool,
    /// Why it stays, or goes.
    pub because: &'static str,
}

impl Retention {
    /// What becomes of each, given the best first, as [`super::rank`] has them; those that cannot be used may stand anywhere.
    ///
    /// Snapshots that cannot be used count for no number, and stay: they may be all that is left of something, and a person is to look.
    pub fn judge(&self, best_first: &[Candidate], now_ms: u64) -> Vec<Fate> {
        let mut newest_first: Vec<&Candidate> = best_first.iter().filter(|c| c.good).collect();
        newest_first.sort_by_key(|c| std::cmp::Reverse((c.created_ms, &c.id)));
        let newest: BTreeSet<&SnapshotId> = newest_first.iter().take(self.newest).map(|c| &c.id).collect();
        let days = first_of_each(&newest_first, self.days, |ms| ms / DAY_MS);
        let weeks = first_of_each(&newest_first, self.weeks, |ms| ms.saturating_add(WEEK_MS - MONDAY_MS) / WEEK_MS);
        let best = best_first.iter().find(|c| c.good).map(|c| &c.id);
        let bases = before_suspicious(best_first);
        let because = |c: &Candidate| match &c.id {
            _ if c.pinned => (false, "pinned"),
            _ if c.imported => (false, "imported: only a person removes it"),
            _ if c.suspicious => (false, "suspicious: a person is to accept it"),
            _ if !c.good => (false, "unusable: a person is to look at it"),
            id if Some(id) == best => (false, "the best good one"),
            id if bases.contains(id) => (false, "the last good one before a suspicious one"),
            id if newest.contains(id) => (false, "one of the newest"),
            _ if c.created_ms.saturating_add(self.young_ms) > now_ms => (false, "too young to go"),
            id if days.contains(id) => (false, "the newest of its day"),
            id if weeks.contains(id) => (false, "the newest of its week"),
            _ => (true, "nothing wants it kept"),
        };
        let fate = |c: &Candidate| {
            let (goes, because) = because(c);
            Fate { id: c.id.clone(), goes, because }
        };
        best_first.iter().map(fate).collect()
    }
}

/// The last good one before each suspicious one: what it fell from, and what there is to go back to.
fn before_suspicious(best_first: &[Candidate]) -> BTreeSet<&SnapshotId> {
    let suspicious = best_first.iter().enumerate().filter(|(_, c)| c.suspicious);
    suspicious.filter_map(|(at, _)| best_first[at + 1..].iter().find(|c| c.good)).map(|c| &c.id).collect()
}

/// The newest of each period, for the last `count` periods that have one.
fn first_of_each<'a>(newest_first: &[&'a Candidate], count: usize, period: impl Fn(u64) -> u64) -> BTreeSet<&'a SnapshotId> {
    let mut seen = BTreeSet::new();
    let firsts = newest_first.iter().filter(|c| seen.insert(period(c.created_ms)));
    firsts.take(count).map(|c| &c.id).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR_MS: u64 = 3_600_000;
    /// 2026-11-24T12:00:00Z, a Tuesday.
    const NOW_MS: u64 = 1_795_521_600_000;

    fn made(hours_ago: u64) -> Candidate {
        let created_ms = NOW_MS - hours_ago * HOUR_MS;
        Candidate {
            id: SnapshotId::new(4, created_ms, created_ms),
            created_ms,
            good: true,
            suspicious: false,
            pinned: false,
            imported: false,
        }
    }

    const NOTHING: Retention = Retention { newest: 0, days: 0, weeks: 0, young_ms: 0 };

    /// Hours of age of those that stay.
    fn kept(rule: Retention, candidates: &[Candidate]) -> Vec<u64> {
        let stays = |fate: &Fate| candidates.iter().find(|c| !fate.goes && c.id == fate.id);
        let fates = rule.judge(candidates, NOW_MS);
        fates.iter().filter_map(stays).map(|c| (NOW_MS - c.created_ms) / HOUR_MS).collect()
    }

    fn hours(hours: impl IntoIterator<Item = u64>) -> Vec<Candidate> {
        hours.into_iter().map(made).collect()
    }

    #[test]
    fn each_rule_keeps_its_own() {
        let every_six_hours = || hours((0..80).map(|n| n * 6));
        for (name, rule, expected) in [
            ("nothing but the best", NOTHING, vec![0]),
            ("the newest three", Retention { newest: 3, ..NOTHING }, vec![0, 6, 12]),
            ("three days", Retention { days: 3, ..NOTHING }, vec![0, 18, 42]),
            // Sunday evening, and the Sunday before.
            ("three weeks", Retention { weeks: 3, ..NOTHING }, vec![0, 42, 210]),
            ("what is young", Retention { young_ms: 13 * HOUR_MS, ..NOTHING }, vec![0, 6, 12]),
            ("all together", Retention { newest: 2, days: 3, weeks: 2, young_ms: 0 }, vec![0, 6, 18, 42]),
        ] {
            assert_eq!(kept(rule, &every_six_hours()), expected, "{name}");
        }
    }

    #[test]
    fn what_is_pinned_unusable_or_best_stays() {
        let mut candidates = hours([1, 2, 3, 4]);
        candidates[0].good = false;
        candidates[3].pinned = true;
        let fates = NOTHING.judge(&candidates, NOW_MS);
        let because: Vec<&str> = fates.iter().map(|fate| fate.because).collect();
        assert_eq!(because, ["unusable: a person is to look at it", "the best good one", "nothing wants it kept", "pinned"]);
    }

    #[test]
    fn what_was_imported_stays_and_counts_for_no_number() {
        let mut candidates = hours([2, 3, 1]);
        (candidates[2].good, candidates[2].imported) = (false, true);
        assert_eq!(kept(Retention { newest: 2, ..NOTHING }, &candidates), [2, 3, 1]);
        let because = NOTHING.judge(&candidates, NOW_MS)[2].because;
        assert_eq!(because, "imported: only a person removes it");
    }

    #[test]
    fn what_a_suspicious_one_fell_from_stays() {
        let mut candidates = hours([1, 2, 3, 4, 5, 6]);
        for suspicious in [2, 3] {
            (candidates[suspicious].good, candidates[suspicious].suspicious) = (false, true);
        }
        assert_eq!(kept(NOTHING, &candidates), [1, 3, 4, 5]);
        let because = NOTHING.judge(&candidates, NOW_MS)[4].because;
        assert_eq!(because, "the last good one before a suspicious one");
    }

    #[test]
    fn the_best_is_not_always_the_newest() {
        // An older one of a later epoch ranks first.
        let candidates = hours([9, 1]);
        assert_eq!(kept(Retention { newest: 1, ..NOTHING }, &candidates), [9, 1]);
    }

    #[test]
    fn a_clock_that_went_backwards_lets_nothing_go_too_early() {
        let mut candidates = hours([0, 1]);
        candidates[1].created_ms = NOW_MS + 99 * HOUR_MS;
        assert!(kept(Retention { young_ms: HOUR_MS, ..NOTHING }, &candidates[..1]).len() == 1);
        let fates = Retention { young_ms: HOUR_MS, ..NOTHING }.judge(&candidates, NOW_MS);
        assert!(fates.iter().all(|fate| !fate.goes), "{fates:?}");
    }

    proptest! {
        #[test]
        fn a_good_one_always_stays_and_a_pinned_one_too(
            ages in proptest::collection::vec((0u64..5000, any::<bool>(), any::<bool>(), any::<bool>()), 0..40),
            newest in 0usize..4, days in 0usize..4, weeks in 0usize..4,
        ) {
            let candidates: Vec<Candidate> =
                ages.iter()
                    .map(|(age, good, suspicious, pinned)| Candidate { good: *good, suspicious: !*good && *suspicious, pinned: *pinned, ..made(*age) })
                    .collect();
            let fates = Retention { newest, days, weeks, young_ms: 0 }.judge(&candidates, NOW_MS);
            prop_assert_eq!(fates.len(), candidates.len());
            let first_good = candidates.iter().position(|c| c.good);
            for (at, (fate, candidate)) in fates.iter().zip(&candidates).enumerate() {
                prop_assert!(!fate.goes || (candidate.good && !candidate.pinned && Some(at) != first_good));
                let base = candidate.good && at > 0 && candidates[at - 1].suspicious;
                prop_assert!(!fate.goes || !base);
            }
        }
    }
}
