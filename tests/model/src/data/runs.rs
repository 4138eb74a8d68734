//! The runs of this model.

use super::properties::{CONFIRMED_KEPT, NEVER_STUCK, PLAN_LOSES_NOTHING};
use super::{Bounds, Rule};
use crate::protocol::{Removal, Sound, When};

/// One fault, one failover.
const S: Bounds = Bounds::small();
/// One fault beside everything else, two failovers.
const ALL: Bounds = Bounds { epochs: 3, flaps: 1, switches: 1, removals: 1, ..S };

/// The whole protocol.
pub(super) const SOUND: &[Sound<Bounds>] = &[
    sound("both replicas confirm", Bounds { acks: 2, writes: 2, flaps: 1, removals: 1, ..S }),
    sound("both replicas confirm, two faults", Bounds { acks: 2, faults: 2, writes: 2, flaps: 1, ..S }),
    sound("a member is removed twice", Bounds { removals: 2, ..S }),
    sound("links break, a member is removed, three epochs", Bounds { epochs: 3, flaps: 1, removals: 1, ..S }),
    sound("links break, diskless", Bounds { flaps: 1, removals: 1, diskless: true, ..S }),
    sound("planned changes, three epochs", Bounds { switches: 1, writes: 2, epochs: 3, ..S }),
    sound("the longest copy cannot lead", Bounds { unfit: Some(2), epochs: 3, ..S }),
    sound("histories fork", Bounds { writes: 2, epochs: 3, flaps: 1, ..S }),
    sound("two faults, links break", Bounds { faults: 2, writes: 2, flaps: 1, ..S }),
    sound("two faults, a member is removed, three epochs", Bounds { faults: 2, removals: 1, epochs: 3, ..S }),
    sound("everything beside one fault", ALL),
    further("everything beside one fault, two writes", Bounds { writes: 2, ..ALL }),
    sound("more confirmations, a member is removed", Bounds { raise: true, removals: 1, flaps: 1, writes: 2, ..S }),
];

/// The protocol without each rule.
pub(super) const REMOVALS: &[Removal<Rule, Bounds>] = &[
    without(Rule::OnlyMembersReplicate, Bounds { removals: 1, ..S }, CONFIRMED_KEPT),
    without(Rule::AdmitAfterRenewal, Bounds { removals: 1, ..S }, CONFIRMED_KEPT),
    without(Rule::CutBeforeRemoval, Bounds { removals: 1, ..S }, CONFIRMED_KEPT),
    without(Rule::MarkBeforeRemoval, Bounds { removals: 1, ..S }, CONFIRMED_KEPT),
    without(Rule::ConfirmationForMark, Bounds { removals: 2, ..S }, CONFIRMED_KEPT),
    without(Rule::OthersCaughtUp, Bounds { removals: 1, ..S }, CONFIRMED_KEPT),
    without(Rule::EnoughMembersStay, Bounds { removals: 2, ..S }, CONFIRMED_KEPT),
    without(Rule::MemberIsOneRun, Bounds { faults: 2, ..S }, CONFIRMED_KEPT),
    without(Rule::ReadersConfirmNothing, S, CONFIRMED_KEPT),
    without(Rule::CutThenAsk, S, CONFIRMED_KEPT),
    without(Rule::Quorum, S, CONFIRMED_KEPT),
    without(Rule::FewestConfirmations, Bounds { raise: true, ..S }, CONFIRMED_KEPT),
    without(Rule::HeldByEnough, Bounds { raise: true, removals: 1, ..S }, CONFIRMED_KEPT),
    without(Rule::OnlyCompleteCopies, Bounds { flaps: 1, ..S }, CONFIRMED_KEPT),
    without(Rule::AnswerEndsWithProcess, S, NEVER_STUCK),
    without(Rule::LoadingIsAwaited, Bounds { faults: 2, ..S }, CONFIRMED_KEPT),
    without(Rule::OneHistory, Bounds { writes: 2, epochs: 3, ..S }, CONFIRMED_KEPT),
    without(Rule::ForkedCopiesCount, Bounds { writes: 2, epochs: 3, ..S }, CONFIRMED_KEPT),
    without(Rule::LongestCopyLeads, Bounds { unfit: Some(2), ..S }, CONFIRMED_KEPT),
    without(Rule::AssignmentForOneRun, S, CONFIRMED_KEPT),
    without(Rule::ListIsCarriedOn, Bounds { epochs: 3, ..S }, CONFIRMED_KEPT),
    without(Rule::PlannedAfterFence, Bounds { switches: 1, ..S }, PLAN_LOSES_NOTHING),
    without(Rule::MasterIsQuorum, S, NEVER_STUCK),
    without(Rule::AllAccountedFor, Bounds { faults: 2, ..S }, NEVER_STUCK),
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
