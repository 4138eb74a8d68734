//! The heart: what to do next, as a pure function of what is wanted, what was seen and the time.
//!
//! Called by `reconcile` once per cycle; its plan is checked by [`crate::check`] and carried out by `act`. Nothing here reads a clock,
//! waits, logs or remembers: whatever must be remembered is a field of [`Observed`]. The record's phase says where a change of
//! master stands, so a successor goes on wherever its predecessor died:
//!
//! | phase | when | then |
//! |---|---|---|
//! | no record | instances have reported | [`birth`]: make one |
//! | stable | the master is proven dead | [`depose`]: next epoch, `deposing`, with the evidence |
//! | stable, deposing | somebody asked for a snapshot | [`replace`]: fetch it, save the present data, load it, or call it off |
//! | stable, deposing | somebody asked for the data of another server | [`migrate`]: follow it, save the present data, cut over, or call it off |
//! | bootstrapping, deposing | nobody may write | [`choose`]: cut survivors, rank copies, name the best (`promoting`), or start it first |
//! | promoting | exactly one may | [`promote`]: have it open; once it serves, `stable` |
//! | stable | the master serves | [`replicas`], [`instances`], [`snapshots`]: everything else follows |

use std::time::Duration;

use agent::api::{Command, Order, Stamp, State};
use agent::record::{Lease, Phase, Pinned, Record};

use crate::model::{Action, AgentView, MAX_EPOCH_LEAD, Observed, Plan, Reason, Spec, Timing};
use crate::schedule::Policy;

pub mod birth;
pub mod choose;
pub mod clock;
pub mod copies;
pub mod depose;
pub mod evidence;
pub mod instances;
pub mod loss;
pub mod members;
pub mod migrate;
pub mod promote;
pub mod quorum;
pub mod replace;
pub mod replicas;
pub mod room;
pub mod snapshots;
pub mod switchover;
#[cfg(test)]
mod tests;

/// What a decision may look at.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// What is wanted.
    pub spec: &'a Spec,
    /// How long to wait for what.
    pub timing: &'a Timing,
    /// What is done by the clock.
    pub policy: &'a Policy,
    /// What was seen.
    pub seen: &'a Observed,
    /// Now, on the clock of [`Observed`].
    pub now: Duration,
}

/// Decides what to do next.
pub fn decide(view: View<'_>) -> Plan {
    let mut plan = Plan { waits: view.seen.problems.clone(), ..Plan::default() };
    let Some((record, version)) = &view.seen.record else {
        birth::begin(view, &mut plan);
        return plan;
    };
    let record = Recorded { record, version: *version };
    report_agents(view, record, &mut plan);
    match record.record.phase {
        Phase::Bootstrapping | Phase::Deposing => choose::choose(view, record, &mut plan),
        Phase::Promoting => promote::promote(view, record, &mut plan),
        Phase::Stable => {
            if !depose::depose_if_due(view, record, &mut plan) {
                serve(view, record, &mut plan);
            }
        }
    }
    plan
}

/// A healthy master serves: everything else follows it.
fn serve(view: View<'_>, record: Recorded<'_>, plan: &mut Plan) {
    match record.serving_master(view) {
        Some(master) => {
            plan.summary = format!("instance {} is master of epoch {}", master.instance, record.record.epoch);
            if !members::add(view, record, plan)
                && !switchover::advance(view, record, master, plan)
                && !replace::advance(view, record, master, plan)
                && !migrate::advance(view, record, master, plan)
            {
                replicas::follow(view, record, master, plan);
                replicas::configure(view, record, master, plan);
                members::remove(view, record, master, plan);
            }
            snapshots::keep(view, record, plan);
        }
        None => depose::explain(view, record, plan),
    }
    instances::scale(view, record, plan);
}

/// Every agent that cannot be used is named.
fn report_agents(view: View<'_>, record: Recorded<'_>, plan: &mut Plan) {
    for agent in view.seen.agents.iter().filter(|a| !view.seen.has_ended(a)) {
        match agent.fresh(view.now, view.timing.silent_after) {
            None => {
                let why = agent.problem.as_deref().unwrap_or(match agent.state {
                    Some(_) => "its stream is open and says nothing any more",
                    None => "no word yet",
                });
                plan.wait(Reason::AgentSilent, format!("agent {} is silent: {why}", agent.address));
            }
            Some(state) if record.is_foreign(state) => plan.wait(
                Reason::ForeignCluster,
                format!(
                    "agent {} of instance {} serves cluster {}, not {}: it gets no command; give its job another name or clear its sandbox",
                    agent.address,
                    state.instance,
                    state.cluster_id.as_deref().unwrap_or("?"),
                    record.record.cluster_id
                ),
            ),
            Some(state) if !record.is_credible(state) => plan.wait(
                Reason::AgentProblem,
                format!(
                    "agent {} claims epoch {}, far beyond the record's {}: it is not believed and gets no command; clear its sandbox",
                    agent.address, state.epoch, record.record.epoch
                ),
            ),
            Some(state) => {
                if let Some(problem) = &state.problem {
                    plan.wait(Reason::AgentProblem, format!("instance {}: {problem}", state.instance));
                }
                if let Some(error) = &state.uploads.error {
                    plan.wait(Reason::UploadFailing, format!("instance {}: {error}", state.instance));
                }
            }
        }
    }
}

/// The record with its version: what a command is stamped with.
#[derive(Clone, Copy, Debug)]
pub struct Recorded<'a> {
    /// The record.
    pub record: &'a Record,
    /// Its ZooKeeper version.
    pub version: i32,
}

impl<'a> Recorded<'a> {
    /// Whether an agent answers for another cluster.
    pub fn is_foreign(self, state: &State) -> bool {
        state.cluster_id.as_ref().is_some_and(|id| *id != self.record.cluster_id)
    }

    /// Whether the epoch that an agent claims can have come about.
    pub fn is_credible(self, state: &State) -> bool {
        state.epoch <= self.record.epoch.saturating_add(MAX_EPOCH_LEAD)
    }

    /// Agents heard lately that belong to this cluster (or to none yet) and say nothing impossible.
    pub fn agents(self, view: View<'a>) -> impl Iterator<Item = (&'a AgentView, &'a State)> {
        let record = self;
        let limit = view.timing.silent_after;
        view.seen
            .agents
            .iter()
            .filter_map(move |a| a.fresh(view.now, limit).map(|s| (a, s)))
            .filter(move |(_, state)| !record.is_foreign(state) && record.is_credible(state))
    }

    /// Whether `state` is of the task and run that the record names as master.
    pub fn is_master(self, state: &State) -> bool {
        self.record
            .master
            .as_ref()
            .is_some_and(|m| m.task_id == state.task_id && state.redis.as_ref().is_some_and(|r| r.run_id == m.run_id))
    }

    /// The master's state, if it serves under this epoch.
    pub fn serving_master(self, view: View<'a>) -> Option<&'a State> {
        self.agents(view).map(|(_, s)| s).find(|s| self.is_master(s) && self.serves(s))
    }

    /// Whether a state says: open master, assigned in this epoch.
    pub fn serves(self, state: &State) -> bool {
        state.serving && state.role == agent::api::Role::Master && state.assigned_epoch == self.record.epoch
    }

    /// A command for an agent, stamped; for its running server unless the order makes a new one.
    pub fn command(self, agent: &AgentView, state: &State, order: Order) -> Action {
        self.command_at(self.record.epoch, agent, state, order)
    }

    /// A command stamped for an epoch that is being committed.
    pub fn command_at(self, epoch: u64, agent: &AgentView, state: &State, order: Order) -> Action {
        let run_id = state.redis.as_ref().map(|r| r.run_id.clone()).filter(|_| !order.needs_no_run());
        let stamp = Stamp {
            cluster_id: self.record.cluster_id.clone(),
            generation: self.record.generation.clone(),
            epoch,
            record_version: self.version,
            task_id: state.task_id.clone(),
            run_id,
        };
        Action::Command { agent: agent.address.clone(), instance: state.instance, command: Box::new(Command { stamp, order }) }
    }

    /// Replaces the record.
    pub fn commit(self, record: Record) -> Action {
        Action::CommitRecord {
            record: Box::new(record),
            version: self.version,
            lease_version: None,
            operation: None,
            history: None,
        }
    }

    /// The next epoch: above the record's and above whatever an agent reports.
    pub fn next_epoch(self, view: View<'a>) -> u64 {
        let reported = self.agents(view).map(|(_, s)| s.epoch).max().unwrap_or(0);
        reported.max(self.record.epoch).saturating_add(1)
    }

    /// Whether an agent has seen a higher epoch than the record's: it refuses whatever is decided on this one.
    pub fn is_outrun(self, view: View<'a>) -> bool {
        self.agents(view).any(|(_, s)| s.epoch > self.record.epoch)
    }

    /// Whether the lease node shows that the named master has led: without a renewal of its own no client ever wrote to it.
    pub fn has_led(self, node: &Pinned) -> bool {
        let Some(master) = &self.record.master else { return false };
        let by_master = |lease: &Lease| {
            let named = (&lease.task_id, &lease.run_id) == (&master.task_id, &master.run_id);
            named && lease.epoch == self.record.master_epoch() && lease.generation == self.record.generation
        };
        node.unreadable || node.lease.as_ref().is_some_and(by_master)
    }
}
