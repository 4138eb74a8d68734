//! What must always hold, and what must be reached so that the runs mean something.

use super::Model;
use super::state::{NOBODY, Phase, Role, State};
use stateright::Property;

/// At most one server accepts writes.
pub const ONE_WRITER: &str = "one writer";
/// Once a later master has accepted a write, no earlier one accepts any.
pub const NO_WAY_BACK: &str = "no way back";

/// Whoever dies, enough stays from which a deposed master can be succeeded.
pub const NEVER_STUCK: &str = "never stuck";

/// The properties that apply within a model's bounds.
pub(super) fn of(model: &Model) -> Vec<Property<Model>> {
    let bounds = model.bounds;
    let mut all = vec![
        Property::always(ONE_WRITER, |_, s: &State| s.writers().count() <= 1),
        Property::always(NO_WAY_BACK, |_, s: &State| !s.went_back),
    ];
    if bounds.deaths > 0 {
        all.push(Property::always(NEVER_STUCK, |_, s: &State| !stuck(s)));
    }
    if model.dropped.is_some() {
        return all;
    }
    let mut reach = |applies: bool, name, condition| {
        if applies {
            all.push(Property::sometimes(name, condition));
        }
    };
    let failover = bounds.epochs >= 2 && bounds.versions >= 3;
    reach(failover, "failover", |_, s| s.writers().any(|a| a.stamp.epoch == 2));
    reach(failover && !bounds.members.is_empty(), "failover by witness", |_, s| {
        s.agents[0].role == Role::Master && s.agents[0].stamp.epoch == 1 && s.writers().any(|a| a.stamp.epoch == 2)
    });
    reach(bounds.epochs >= 3 && bounds.versions >= 5, "third epoch", |_, s| s.writers().any(|a| a.stamp.epoch == 3));
    reach(bounds.restarts == 0 && !bounds.members.is_empty(), "failsafe", |_, s| {
        s.writers().any(|a| !a.office.promised.is_empty()) || s.agents.iter().any(|a| a.promise > 0)
    });
    reach(bounds.removing && bounds.versions >= 4, "failover after a removal", |_, s| {
        s.writers().any(|a| a.stamp.epoch == 2) && !s.record(1).members.covers(s.record(0).members)
    });
    reach(bounds.adding && bounds.members.len() < 2 && bounds.versions >= 4, "failover after a member came", |_, s| {
        s.writers().any(|a| a.stamp.epoch == 2) && s.record(1).members.len() > s.record(0).members.len()
    });
    reach(bounds.skips > 0, "a clock runs slow", |_, s| s.spent.skips > 0);
    reach(bounds.holds > 0 && failover, "planned change", |_, s| {
        s.agents[0].office.held && s.record(s.last()).phase == Phase::Named
    });
    reach(bounds.restarts > 0 && failover, "failover after a restart", |_, s| {
        s.spent.restarts > 0 && s.writers().any(|a| a.stamp.epoch == 2)
    });
    let made_anew = bounds.losses > 0;
    reach(made_anew && bounds.versions >= 3, "a live master is adopted and renews", |_, s| {
        s.agents[0].stamp.generation == 1 && s.lease.is_some_and(|l| s.record(l.version).stamp.generation == 1 && l.holder == 0)
    });
    reach(made_anew && bounds.versions >= 3, "failover after ZooKeeper was emptied", |_, s| {
        (1..NOBODY as usize).any(|i| s.agents[i].writes() && s.agents[i].stamp.generation == 1)
    });
    all
}

/// Whether the deposed master is gone for ever and no evidence about it can be had.
fn stuck(s: &State) -> bool {
    let record = s.record(s.last());
    let gone = |i: u8| s.agents.get(i as usize).is_some_and(|a| a.gone);
    let silent = record.witnesses.iter().all(gone);
    let confirmed = s.controllers.iter().any(|c| c.version == s.last() && c.confirmed);
    record.phase == Phase::Deposing && gone(record.master) && !record.released && silent && !confirmed
}
