//! What must always hold, and what must be reached so that the runs mean something.

use super::Model;
use super::state::State;
use stateright::Property;

/// A confirmed write is lost by no more faults than replicas had to confirm it; and by no number of faults while a member holds it.
pub const CONFIRMED_KEPT: &str = "confirmed writes are kept";
/// A planned change loses nothing that the old master, alive, holds.
pub const PLAN_LOSES_NOTHING: &str = "a planned change loses nothing";
/// Somebody can lead once all that could be known is known.
pub const NEVER_STUCK: &str = "never stuck";

/// The properties that apply within a model's bounds.
pub(super) fn of(model: &Model) -> Vec<Property<Model>> {
    let bounds = model.bounds;
    let mut all = vec![
        Property::always(CONFIRMED_KEPT, |m: &Model, s: &State| !m.lost(s)),
        Property::always(PLAN_LOSES_NOTHING, |_, s: &State| !s.lost_by_plan),
        Property::always(NEVER_STUCK, |m: &Model, s: &State| !m.is_stuck(s)),
    ];
    if model.dropped.is_some() {
        return all;
    }
    let mut reach = |applies: bool, name, condition| {
        if applies {
            all.push(Property::sometimes(name, condition));
        }
    };
    reach(bounds.acks == 1, "a failover keeps a confirmed write", |_, s| {
        s.epoch == 2 && s.serving().is_some_and(|m| m > 0) && !s.servers[0].up && !s.confirmed.is_empty()
    });
    reach(bounds.epochs >= 3, "third epoch", |_, s| s.epoch == 3 && !s.choosing() && s.serving().is_some());
    reach(bounds.switches > 0, "planned change", |_, s| {
        s.spent.switches > 0 && !s.choosing() && s.servers[0].up && s.written > 0
    });
    reach(bounds.removals > 0 && bounds.acks == 1, "a member is removed", |_, s| {
        s.epoch == 1 && s.spent.removals > 0 && s.members.len() == 1
    });
    reach(bounds.flaps > 0, "a copy is loaded after a broken link", |_, s| {
        s.spent.flaps > 0 && s.epoch == 1 && s.follows(1) && s.servers[1].log.len > 0
    });
    reach(bounds.faults > 0, "a restarted server is a member again", |_, s| s.members.iter().any(|m| m >= 3));
    reach(bounds.unfit.is_some(), "a winner caught up first", |m, s| (0..3).any(|i| m.may_catch_up(s, i)));
    reach(bounds.raise, "more confirmations count", |m, s| s.fewest_acks > m.bounds.acks);
    reach(bounds.writes > 1 && bounds.epochs > 1, "histories fork", |m, s| {
        !s.choosing() && (0..3).any(|i| m.forked(s, &s.servers[i].log))
    });
    all
}

impl Model {
    /// Whether a master serves without a confirmed write, although it had to be kept.
    fn lost(&self, s: &State) -> bool {
        let Some(master) = s.serving().filter(|_| !s.choosing()) else { return false };
        let few = s.spent.faults <= self.bounds.acks;
        let holds = |i: usize, x: u8| s.servers[i].up && s.servers[i].log.holds(x) && s.members.has(self.bit(s, i));
        let missing = s.confirmed.iter().filter(|x| !s.servers[master].log.holds(*x));
        missing.into_iter().any(|x| few || (0..3).any(|i| holds(i, x)))
    }
}
