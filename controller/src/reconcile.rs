//! The loop: observe, answer what was asked, decide, check, act, publish, wait. Runs while this controller leads.
//!
//! Actions run beside the loop, so a slow agent delays nobody else; [`crate::pace`] keeps each from being repeated too early.

use std::sync::Arc;
use std::time::Duration;

use agent::causes::chain;
use agent::clock::unix_ms;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

use crate::act::Hands;
use crate::check;
use crate::chronicle::Chronicle;
use crate::decide::{Recorded, View, decide, loss};
use crate::intake::Asked;
use crate::metrics::Metrics;
use crate::model::{Action, Attempts, Observed, Outcome, Plan, Planned, Reason, Spec, Timing, Wait};
use crate::observe::{Sight, World};
use crate::operations::{Judgement, judge};
use crate::pace;
use crate::publish::{self, Events};
use crate::schedule::Policy;
use crate::view::{Published, Reply};

/// Everything one leadership works with.
#[derive(Debug)]
pub struct Loop {
    /// `role/env/job`.
    pub cluster: String,
    /// The watched world.
    pub world: World,
    /// How to act.
    pub hands: Hands,
    /// The history of masters.
    pub chronicle: Chronicle,
    /// Waits of the decisions.
    pub timing: Timing,
    /// What is done by the clock.
    pub policy: Policy,
    /// Longest time between two cycles.
    pub cycle: Duration,
    /// Notified whenever something has changed.
    pub wake: Arc<Notify>,
    /// Has the store listed again.
    pub list_store: Arc<Notify>,
    /// Counters.
    pub metrics: Metrics,
    /// Where the cycle is published.
    pub publish: watch::Sender<Arc<Published>>,
}

/// What is carried from cycle to cycle.
#[derive(Debug, Default)]
struct Carried {
    cycle: u64,
    attempts: Attempts,
    running: JoinSet<(Planned, Outcome)>,
    events: Events,
    /// Changes of the record on their way.
    committing: usize,
    uploads: Vec<Option<agent::snapshot::SnapshotId>>,
    summary: String,
}

impl Loop {
    /// Runs until leadership is lost.
    pub async fn run(mut self, asked: &mut mpsc::Receiver<Asked>) {
        let mut carried = Carried::default();
        while !self.hands.lead.is_over() {
            let requeue = self.reconcile(&mut carried).await;
            tokio::select! {
                () = self.wake.notified() => (),
                Some(done) = carried.running.join_next() => self.finished(done.ok(), &mut carried),
                Some(ask) = asked.recv() => self.answer(ask, &mut carried).await,
                () = tokio::time::sleep(requeue) => (),
            }
        }
    }

    /// One cycle; returns how long to wait for the next.
    async fn reconcile(&mut self, carried: &mut Carried) -> Duration {
        carried.cycle += 1;
        let Sight { spec, seen, now } = self.world.observe();
        let ((spec, _), seen) = match (spec, seen) {
            (Ok(spec), Ok(seen)) => (spec, seen),
            (Err(wait), _) | (_, Err(wait)) => {
                self.publish_blind(&wait, carried);
                return self.cycle;
            }
        };
        let view = View { spec: &spec, policy: &self.policy, timing: &self.timing, seen: &seen, now };
        let mut plan = decide(view);
        let violations = check::violations(&spec, &seen, &plan, now, self.timing.silent_after);
        if violations.is_empty() {
            self.act(&plan, carried, now);
        } else {
            self.metrics.count_violations(violations.len());
            tracing::error!(?violations, plan = ?plan.actions, "the plan breaks an invariant and is not run");
            plan.waits.push(Wait { reason: Reason::PlanVetoed, message: violations.join("; ") });
        }
        self.measure_loss(&spec, &seen, now);
        self.list_new_snapshots(&seen, carried);
        self.publish(&spec, &seen, &plan, &violations, carried, now);
        publish::requeue(Some(&seen), self.cycle)
    }

    /// Starts what is due. Nothing is started while ZooKeeper does not confirm that we lead, nor while a change of the record is on its
    /// way: what is decided now rests on a record that may be over.
    fn act(&self, plan: &Plan, carried: &mut Carried, now: Duration) {
        if !self.hands.lead.stands() || carried.committing > 0 {
            return;
        }
        for planned in &plan.actions {
            if !pace::is_due(&planned.action, &carried.attempts, now) {
                continue;
            }
            pace::begin(&planned.action, &mut carried.attempts, now);
            carried.committing += usize::from(planned.action.kind() == "commit-record");
            tracing::info!(action = planned.action.describe(), because = planned.because, "acting");
            let (hands, planned) = (self.hands.clone(), planned.clone());
            carried.running.spawn(async move {
                let outcome = hands.carry_out(planned.action.clone()).await;
                (planned, outcome)
            });
        }
    }

    fn finished(&mut self, done: Option<(Planned, Outcome)>, carried: &mut Carried) {
        let Some((planned, outcome)) = done else {
            // It broke off; the record will show how far it came.
            carried.committing = 0;
            return;
        };
        let kind = planned.action.kind();
        self.metrics.count_action(kind, outcome.kind());
        if outcome != Outcome::Done {
            tracing::warn!(action = planned.action.describe(), outcome = %outcome, "an action did not go through");
        }
        if let (Action::SetOperation { operation }, Outcome::Done) = (&planned.action, &outcome) {
            self.world.assume_operation(operation);
        }
        if let Action::CommitRecord { record, version, history, operation, .. } = &planned.action {
            carried.committing = carried.committing.saturating_sub(1);
            if outcome == Outcome::Done {
                self.world.assume(record, version + 1);
                operation.iter().for_each(|operation| self.world.assume_operation(operation));
                history.iter().for_each(|change| self.chronicle.note(change.clone()));
            }
        }
        if let Some((event, message)) = publish::event_of(&planned, &outcome) {
            let (epoch, at_ms) = self.stamp();
            carried.events.add(&event, message, epoch, at_ms);
        }
        pace::end(&pace::key(&planned.action), outcome, &mut carried.attempts, self.world.elapsed());
    }

    fn stamp(&self) -> (u64, u64) {
        let published = self.publish.borrow();
        (published.cluster.epoch, unix_ms())
    }

    /// The deposed master is back: its copy shows what the failover lost.
    fn measure_loss(&self, spec: &Spec, seen: &Observed, now: Duration) {
        let Some((record, version)) = &seen.record else { return };
        let view = View { spec, policy: &self.policy, timing: &self.timing, seen, now };
        let recorded = Recorded { record, version: *version };
        if let Some(change) = loss::measured(view, recorded, &self.chronicle.entries()) {
            self.chronicle.note(change);
        }
    }

    /// A snapshot that an agent has committed is worth a listing at once.
    fn list_new_snapshots(&self, seen: &Observed, carried: &mut Carried) {
        let uploads: Vec<_> = seen.agents.iter().filter_map(|a| a.state.as_ref()).map(|s| s.uploads.last.clone()).collect();
        if uploads != carried.uploads {
            carried.uploads = uploads;
            self.list_store.notify_one();
        }
    }

    async fn answer(&mut self, asked: Asked, carried: &mut Carried) {
        let reply = self.judge_and_write(&asked).await;
        let kind = asked.ask.kind();
        let (epoch, at_ms) = self.stamp();
        let verb = if reply.accepted { "accepted" } else { "refused" };
        carried.events.add("asked", format!("{kind} {verb}: {}", reply.message), epoch, at_ms);
        // Whoever asked may have gone: the work goes on all the same.
        let _ = asked.reply.send(reply);
    }

    async fn judge_and_write(&mut self, asked: &Asked) -> Reply {
        let refuse = |message: String| Reply::refused(message);
        let Sight { spec, seen, now } = self.world.observe();
        let ((spec, version), seen) = match (spec, seen) {
            (Ok(spec), Ok(seen)) => (spec, seen),
            (Err(wait), _) | (_, Err(wait)) => return refuse(format!("{}: {}", wait.reason.name(), wait.message)),
        };
        if !self.hands.lead.stands() {
            return refuse("ZooKeeper does not confirm that this controller leads; ask again in a moment".into());
        }
        let view = View { spec: &spec, policy: &self.policy, timing: &self.timing, seen: &seen, now };
        let id = uuid::Uuid::new_v4().to_string();
        let (written, operation_id, message) = match judge(&asked.ask, view, id) {
            Judgement::Refuse(message) => return refuse(message),
            Judgement::Plan(message) => return Reply::accepted("", message),
            Judgement::Show(plan) => {
                let message = plan.steps.join("; ");
                return Reply { plan: Some(plan), ..Reply::accepted("", message) };
            }
            Judgement::ShowMigration(plan) => {
                let message = plan.steps.join("; ");
                return Reply { migration: Some(plan), ..Reply::accepted("", message) };
            }
            Judgement::Spec(spec, message) => {
                (self.hands.registry.set_spec(&self.hands.lead, &spec, version).await, String::new(), message)
            }
            Judgement::Begin(operation, message) => {
                let written = self.hands.registry.set_operation(&self.hands.lead, &operation).await;
                if written.is_ok() {
                    self.world.assume_operation(&operation);
                }
                (written, operation.id.clone(), message)
            }
        };
        match written {
            Ok(()) => Reply::accepted(operation_id, message),
            Err(error) => refuse(format!("it could not be written: {}", chain(&error))),
        }
    }

    fn publish(&self, spec: &Spec, seen: &Observed, plan: &Plan, violations: &[String], carried: &mut Carried, now: Duration) {
        let view = View { spec, policy: &self.policy, timing: &self.timing, seen, now };
        let history = self.chronicle.entries();
        let cluster = publish::cluster(&self.cluster, view, plan, &history);
        carried.events.note_waits(&plan.waits, cluster.epoch, seen.wall_ms);
        if carried.summary != plan.summary {
            carried.summary.clone_from(&plan.summary);
            tracing::info!(
                cycle = carried.cycle,
                epoch = cluster.epoch,
                actions = plan.actions.len(),
                summary = plan.summary,
                "reconciled"
            );
        }
        self.publish.send_replace(Arc::new(Published {
            leading: true,
            cluster,
            plan: publish::plan(carried.cycle, plan, violations, &carried.attempts),
            events: carried.events.log().clone(),
            history,
            snapshots: seen.store.snapshots.clone().unwrap_or_default(),
            operation: seen.operation.clone(),
            last_success_ms: seen.wall_ms,
        }));
    }

    /// Nothing can be decided: the last views stay, with the reason on top.
    fn publish_blind(&self, wait: &Wait, carried: &mut Carried) {
        let last = self.publish.borrow().clone();
        let at_ms = unix_ms();
        carried.events.note_waits(std::slice::from_ref(wait), last.cluster.epoch, at_ms);
        let blind = publish::blind(&self.cluster, wait);
        self.publish.send_replace(Arc::new(Published {
            leading: true,
            cluster: crate::view::ClusterView { conditions: blind.conditions, summary: blind.summary, ..last.cluster.clone() },
            events: carried.events.log().clone(),
            ..(*last).clone()
        }));
    }
}
