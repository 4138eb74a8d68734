//! The runs of this model.

use super::properties::{NEVER_STUCK, NO_WAY_BACK, ONE_WRITER};
use super::{Bounds, Rule};
use crate::protocol::{Removal, Sound, When};
use crate::set::Set;

/// One failover.
const S: Bounds = Bounds::small();
/// One failover, with leases long enough to begin and end between other things.
const L2: Bounds = Bounds { lease: 2, ..S };
/// Two failovers.
const E3: Bounds = Bounds { epochs: 3, versions: 5, ..S };
/// ZooKeeper is emptied once.
const Z: Bounds = Bounds { losses: 1, failsafe_max: Some(2), versions: 4, ..S };
const BOTH: Set = Set(0b110);

/// The whole protocol.
pub(super) const SOUND: &[Sound<Bounds>] = &[
    sound("one failover", Bounds { controllers: 2, restarts: 1, ..L2 }),
    sound("three epochs", Bounds { controllers: 2, ..E3 }),
    sound("members come and go", Bounds { removing: true, versions: 4, controllers: 2, restarts: 1, ..S }),
    sound("clocks drift", Bounds { margin: 1, skips: 1, ..L2 }),
    sound("asks are chosen, renewals stray", Bounds { choosing: true, strays: true, adding: false, ..S }),
    sound("the lease is watched", Bounds { watching: true, controllers: 2, ..S }),
    sound("planned changes", Bounds { holds: 1, controllers: 2, ..L2 }),
    sound("failsafe has an end", Bounds { failsafe_max: Some(2), controllers: 2, restarts: 1, ..S }),
    sound("ZooKeeper is emptied", Bounds { controllers: 2, restarts: 1, ..Z }),
    sound("ZooKeeper is emptied, three epochs", Bounds { epochs: 3, versions: 5, ..Z }),
    sound("an agent dies", Bounds { deaths: 1, ..E3 }),
    sound("three epochs and a restart", Bounds { restarts: 1, ..E3 }),
    sound("clocks drift and a restart", Bounds { margin: 1, skips: 1, restarts: 1, ..L2 }),
    further("the lease is watched, longer leases", Bounds { watching: true, controllers: 2, restarts: 1, ..L2 }),
    sound("the lease is watched, three epochs", Bounds { watching: true, ..E3 }),
    further("members come and go, longer leases", Bounds { removing: true, versions: 4, ..L2 }),
    sound("two members at first", Bounds { members: BOTH, controllers: 2, restarts: 1, ..L2 }),
    sound(
        "failsafe has an end, members come and go",
        Bounds { failsafe_max: Some(2), removing: true, versions: 4, controllers: 2, ..S },
    ),
];

/// The protocol without each rule.
pub(super) const REMOVALS: &[Removal<Rule, Bounds>] = &[
    without(Rule::CompareAndSet, Bounds { controllers: 2, ..E3 }, ONE_WRITER),
    without(Rule::RenewalCommits, S, ONE_WRITER),
    without(Rule::RenewalsInOrder, Bounds { strays: true, choosing: true, adding: false, ..S }, ONE_WRITER),
    without(Rule::DriftMargin, Bounds { margin: 1, skips: 1, ..L2 }, ONE_WRITER),
    without(Rule::StopBeforeEnd, L2, ONE_WRITER),
    without(Rule::ResumeUnderLease, Bounds { holds: 1, ..S }, ONE_WRITER),
    without(Rule::OpenUnderLease, E3, ONE_WRITER),
    without(Rule::RenewBeforeOpening, E3, ONE_WRITER),
    without(Rule::WitnessesFromLease, Bounds { versions: 4, ..S }, ONE_WRITER),
    without(Rule::PinWitnesses, Bounds { watching: true, removing: true, adding: false, versions: 4, ..S }, ONE_WRITER),
    without(Rule::PinHolder, Bounds { watching: true, ..E3 }, ONE_WRITER),
    without(Rule::PinCount, Bounds { watching: true, ..L2 }, ONE_WRITER),
    without(Rule::Witness, S, ONE_WRITER),
    without(Rule::WitnessFreeOfPromises, L2, ONE_WRITER),
    without(Rule::EvidenceCleared, S, ONE_WRITER),
    without(Rule::EvidenceCarried, Bounds { epochs: 3, versions: 5, ..Z }, ONE_WRITER),
    without(Rule::NeverInOffice, Bounds { deaths: 1, ..E3 }, NEVER_STUCK),
    without(Rule::UndoIsNewEpoch, Bounds { versions: 4, ..S }, ONE_WRITER),
    without(Rule::EveryMemberPromises, Bounds { members: BOTH, ..S }, ONE_WRITER),
    without(Rule::AskUnion, Bounds { versions: 4, ..S }, ONE_WRITER),
    without(Rule::PromiseForKnownEpoch, S, ONE_WRITER),
    without(Rule::PromiseForRound, Bounds { lease: 3, ..S }, ONE_WRITER),
    without(Rule::PromiseSurvivesRestart, Bounds { restarts: 1, ..L2 }, ONE_WRITER),
    without(Rule::EpochSurvivesRestart, Bounds { restarts: 1, ..L2 }, NO_WAY_BACK),
    without(Rule::FailsafeEnds, Bounds { failsafe_max: Some(2), members: Set(0), adding: false, ..S }, ONE_WRITER),
    without(Rule::GenerationChecked, Z, ONE_WRITER),
    without(Rule::RemadeRecordWaits, Z, ONE_WRITER),
    without(Rule::AdoptOnlyWriter, Bounds { versions: 5, ..Z }, ONE_WRITER),
];

const fn sound(name: &'static str, bounds: Bounds) -> Sound<Bounds> {
    Sound { name, bounds, when: When::Always }
}

const fn further(name: &'static str, bounds: Bounds) -> Sound<Bounds> {
    Sound { name, bounds, when: When::Soak }
}

const fn without(rule: Rule, bounds: Bounds, breaks: &'static str) -> Removal<Rule, Bounds> {
    Removal { rule, bounds, breaks }
}
