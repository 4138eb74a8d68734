//! The collapse guard: a snapshot that holds hardly anything of what the one before it held is suspicious. Pure.
//!
//! Called by whoever lists the store. It is derived from the manifests each time and stands in no file, so that all see the same, whoever
//! uploaded what and when. A suspicious snapshot is kept and never the base for the next; so after a `FLUSHALL` all of them are suspicious
//! until somebody accepts one, or until they have grown again.

use std::collections::BTreeMap;

use super::{Manifest, SnapshotId};

/// Fewer keys than this may go without anybody asking why.
const LEAST_KEYS: u64 = 1000;
/// The same for the size, bytes.
const LEAST_BYTES: u64 = 1 << 20;

/// When a snapshot is suspicious.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    /// With less than so many percent of the keys or of the bytes of the last one that is not suspicious; 0 for never.
    pub percent: u32,
}

impl Default for Guard {
    fn default() -> Guard {
        Guard { percent: 10 }
    }
}

impl Guard {
    /// The suspicious ones among these, with the reason. They are given best first, as [`super::rank`] has them, those included whose dump
    /// cannot be used: their manifest tells what there was.
    pub fn suspicious(
        self,
        best_first: &[(&SnapshotId, &Manifest)],
        accepted: impl Fn(&SnapshotId) -> bool,
    ) -> BTreeMap<SnapshotId, String> {
        let mut found = BTreeMap::new();
        let mut base: Option<(&SnapshotId, &Manifest)> = None;
        for (id, manifest) in best_first.iter().rev() {
            let collapsed = base.and_then(|base| self.collapse(base, manifest)).filter(|_| !accepted(id));
            match collapsed {
                Some(why) => drop(found.insert((*id).clone(), why)),
                None => base = Some((id, manifest)),
            }
        }
        found
    }

    /// What has collapsed from the base to the next; none when nothing has.
    fn collapse(self, (base, before): (&SnapshotId, &Manifest), now: &Manifest) -> Option<String> {
        let few = |now: u64, before: u64, least: u64| {
            before >= least && u128::from(now) * 100 < u128::from(before) * u128::from(self.percent)
        };
        let told = |now: u64, before: u64, what: &str| {
            format!("it holds {now} {what}, less than {} % of the {before} of {base}", self.percent)
        };
        if let (Some(keys), Some(held)) = (now.total_keys(), before.total_keys())
            && few(keys, held, LEAST_KEYS)
        {
            return Some(told(keys, held, "keys"));
        }
        few(now.bytes, before.bytes, LEAST_BYTES).then(|| told(now.bytes, before.bytes, "bytes"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::manifest;
    use super::*;

    const REPLID: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    /// Which of these are suspicious (by their place), given keys and bytes, the oldest first.
    fn suspicious(guard: Guard, sizes: &[(u64, u64)], accepted: &[usize]) -> Vec<usize> {
        let made = |(n, (keys, bytes)): (usize, &(u64, u64))| {
            let made = manifest(4, Some(REPLID), n as u64 + 1, 1000 + n as u64);
            let made = Manifest { keys: Some([(0, *keys)].into()), bytes: *bytes, ..made };
            (made.id(), made)
        };
        let all: Vec<(SnapshotId, Manifest)> = sizes.iter().enumerate().map(made).collect();
        let best_first: Vec<_> = all.iter().rev().map(|(id, manifest)| (id, manifest)).collect();
        let place = |id: &SnapshotId| all.iter().position(|(other, _)| other == id).unwrap();
        guard.suspicious(&best_first, |id| accepted.contains(&place(id))).keys().map(place).collect()
    }

    #[test]
    fn what_collapses_is_suspicious_until_it_is_accepted_or_has_grown() {
        type Case<'a> = (&'a str, &'a [(u64, u64)], &'a [usize], &'a [usize]);
        let cases: [Case<'_>; 11] = [
            ("nothing", &[], &[], &[]),
            ("the first", &[(0, 100)], &[], &[]),
            ("growth", &[(1000, 9000), (2000, 18_000)], &[], &[]),
            ("an emptied one", &[(1000, 9000), (0, 88)], &[], &[1]),
            ("just enough", &[(1000, 9000), (100, 900)], &[], &[]),
            ("one key too few", &[(1000, 9000), (99, 900)], &[], &[1]),
            ("too few for a verdict", &[(999, 9000), (0, 88)], &[], &[]),
            ("bytes alone", &[(1000, 1 << 20), (1000, 100_000)], &[], &[1]),
            ("all after it, against the last that is not", &[(5000, 1), (3, 1), (4, 1), (0, 1)], &[], &[1, 2, 3]),
            ("the accepted one is the base of the next", &[(5000, 1), (3, 1), (4, 1), (2, 1)], &[2], &[1]),
            ("grown again", &[(5000, 1), (3, 1), (600, 1), (550, 1)], &[], &[1]),
        ];
        for (name, sizes, accepted, expected) in cases {
            assert_eq!(suspicious(Guard::default(), sizes, accepted), expected, "{name}");
        }
        assert!(suspicious(Guard { percent: 0 }, &[(u64::MAX, u64::MAX), (0, 0)], &[]).is_empty(), "switched off");
    }

    #[test]
    fn the_reason_names_what_and_against_which() {
        let base = Manifest { keys: Some([(0, 5000)].into()), ..manifest(4, Some(REPLID), 1, 1000) };
        let next = Manifest { keys: Some([(0, 7)].into()), ..manifest(4, Some(REPLID), 2, 999) };
        let found = Guard::default().suspicious(&[(&next.id(), &next), (&base.id(), &base)], |_| false);
        assert_eq!(found[&next.id()], format!("it holds 7 keys, less than 10 % of the 5000 of {}", base.id()));
    }
}
