//! The protocol with one rule missing. Each must make the simulation fail: else it proves nothing about that rule. The switch is in the
//! simulated world, or around the decision; the product has none.

use agent::record::{Evidence, Phase};

use super::world::World;
use controller::decide::{Recorded, View, decide, evidence};
use controller::model::{Action, Observed, Plan};

/// The rule that is left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mutation {
    /// The end of a lease stops nothing.
    LeaseOff,
    /// The stop of writes goes out when the lease is over, not before.
    PauseAtTheEnd,
    /// A fence of a master is confirmed and not carried out.
    FenceOff,
    /// A cut of a replica is confirmed and not carried out.
    NoCut,
    /// A lease that has run out is evidence without a witness.
    NoWitness,
    /// Agents do not say that a promise binds them.
    PromisesIgnored,
    /// An agent that starts again does not act as if it had promised.
    RestartForgetsPromises,
    /// A renewal is stored whatever the record says.
    RenewalUnchecked,
    /// Whoever is deposed may renew its lease between the look at it and the commit.
    LeaseUnpinned,
    /// A winner is named without evidence against the last master.
    NoEvidence,
    /// Any answer is a quorum.
    NoQuorum,
    /// Any replica may link.
    NoAdmission,
    /// What an agent is told is not checked.
    GateOff,
    /// A copy that is ahead is overwritten.
    NothingSetAside,
}

/// The decision, or one that lacks a rule: it sees a record that says what the rule would have asked for.
pub(super) fn decide_mutated(world: &World, view: View<'_>) -> (Plan, Option<Observed>) {
    let Some(mutation) = world.setup.mutation else { return (decide(view), None) };
    let mut seen = view.seen.clone();
    let Some((record, version)) = &mut seen.record else { return (decide(view), None) };
    let acks = record.durability.acks;
    let deposing = record.phase == Phase::Deposing && record.evidence.is_none();
    match mutation {
        Mutation::NoEvidence if deposing => record.evidence = Some(Evidence::NoneBefore),
        Mutation::NoWitness if deposing => {
            let over =
                view.now.saturating_sub(view.seen.phase_since) >= evidence::lease_wait(Recorded { record, version: *version });
            if over {
                record.evidence = Some(Evidence::NoneBefore);
            }
        }
        Mutation::NoQuorum => record.durability.acks = 0,
        _ => return (decide(view), None),
    }
    let mut plan = decide(View { seen: &seen, ..view });
    for planned in &mut plan.actions {
        if let Action::CommitRecord { record, .. } = &mut planned.action {
            record.durability.acks = acks;
        }
    }
    (plan, Some(seen))
}

impl World {
    pub fn mutated(&self, mutation: Mutation) -> bool {
        self.setup.mutation == Some(mutation)
    }
}
