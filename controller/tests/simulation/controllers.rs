//! A controller: what it has seen, the real memory, decision, check and pace, and its actions on their way. Two of them may believe they lead.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use agent::api::{Command, State, Verdict};
use agent::record::Record;

use super::mutation::decide_mutated;
use super::server::A;
use super::world::{What, World};
use super::zookeeper::{Client, Message, Nodes, Reply, Request};
use controller::check::violations;
use controller::decide::View;
use controller::model::*;
use controller::observe::memory::Memory;
use controller::operations::{Judgement, judge};
use controller::pace;
use controller::view::{Ask, Operation};

/// Longest wait for an agent's answer.
const COMMAND_TIMEOUT: u64 = 5_000_000;

/// How long the last words of an agent that left are kept.
const LINGER: u64 = 30_000_000;

struct Heard {
    state: Rc<State>,
    number: u64,
    at: Option<Duration>,
}

/// A record and its version, as far as it is known.
type Known = Option<(Rc<Record>, i32)>;

#[derive(Default)]
pub(super) struct Controller {
    /// Counts its leaderships; everything of an earlier one is forgotten.
    pub leadership: u64,
    pub leads: bool,
    election: u64,
    pub connected: bool,
    pub stalled_until: u64,
    pub nodes: Option<Nodes>,
    /// What it has committed itself and not seen yet.
    own: Known,
    own_operation: Option<(Operation, i32)>,
    memory: Memory,
    attempts: Attempts,
    heard: BTreeMap<A, Heard>,
    committing: usize,
    pending: BTreeMap<u64, (String, Known, Option<Operation>)>,
    cycle_at: Option<u64>,
    /// Asked by somebody, answered in the next cycle.
    pub asked: Option<Ask>,
    pub waits: Vec<Reason>,
    pub summary: String,
    pub ppm: i64,
}

impl World {
    fn clock(&self, c: usize) -> Duration {
        let ppm = self.controllers[c].ppm;
        Duration::from_micros(77_000_000 + self.now.saturating_add_signed(self.now as i64 * ppm / 1_000_000))
    }

    /// Something has changed.
    pub fn wake(&mut self, c: usize) {
        let late = self.now + self.dice.between(200, 2_000);
        if self.controllers[c].cycle_at.is_none_or(|at| at > late) {
            self.controllers[c].cycle_at = Some(late);
            self.at(late, What::Cycle(c, late));
        }
    }

    pub fn heard_agent(&mut self, c: usize, from: A, number: u64, state: Rc<State>) {
        let now = self.clock(c);
        let known = self.controllers[c].heard.get(&from);
        if known.is_some_and(|h| h.number >= number) {
            return;
        }
        self.controllers[c].heard.insert(from, Heard { state, number, at: Some(now) });
        if self.controllers[c].leads {
            self.wake(c);
        }
    }

    /// The nodes were seen; with them, who leads.
    pub fn controller_saw(&mut self, c: usize, nodes: Nodes) {
        let x = &mut self.controllers[c];
        if x.nodes.as_ref().is_some_and(|known| known.zxid > nodes.zxid) {
            return;
        }
        let leads = nodes.leader == Some(c);
        if leads && (!x.leads || x.election != nodes.election) {
            x.election = nodes.election;
            x.leadership += 1;
            (x.memory, x.attempts, x.own, x.own_operation, x.committing) = (Memory::default(), Attempts::new(), None, None, 0);
            x.pending.clear();
            x.heard.clear();
        }
        x.leads = leads;
        x.nodes = Some(nodes);
        if leads {
            self.wake(c);
        }
    }

    pub fn controller_notice(&mut self, c: usize) {
        let connected = self.reaches_keeper(1 + c);
        let was = std::mem::replace(&mut self.controllers[c].connected, connected);
        if connected {
            if !was {
                self.net.forget(1 + c);
            }
            self.watch(Client::Controller(c, self.controllers[c].leadership));
        } else {
            let lost: Vec<u64> = self.controllers[c].pending.keys().copied().collect();
            lost.into_iter().for_each(|id| self.committed(c, id, None));
        }
    }

    /// It stood still for a while: old words say nothing about now.
    pub fn distrust(&mut self, c: usize) {
        self.controllers[c].heard.values_mut().for_each(|h| h.at = None);
    }

    fn observe(&mut self, c: usize) -> Option<Observed> {
        let now = self.clock(c);
        let (ended, lingering) = (&self.ended, self.now.saturating_sub(LINGER));
        self.controllers[c].heard.retain(|a, _| ended.get(a).is_none_or(|at| *at > lingering));
        let x = &self.controllers[c];
        let nodes = x.nodes.as_ref().filter(|_| x.connected)?;
        let record = match (&x.own, &nodes.record) {
            (Some((own, version)), Some((seen, v))) if own.generation == seen.generation && version > v => Some((own, *version)),
            (_, seen) => seen.as_ref().map(|(r, v)| (r, *v)),
        };
        let lease = nodes.lease.clone();
        let pinned = agent::record::Pinned { version: lease.0, lease: lease.1.map(|l| (*l).clone()), unreadable: false };
        let mut agents: Vec<AgentView> = x
            .heard
            .iter()
            .map(|(a, h)| AgentView {
                address: self.agents[*a].http.clone(),
                shard: Some(self.agents[*a].instance),
                state: Some((*h.state).clone()),
                heard: h.at,
                problem: None,
            })
            .collect();
        agents.sort_by_key(|a| (a.shard, a.address.clone()));
        let tasks = self.tasks.iter().map(|(instance, a)| TaskView {
            instance: *instance,
            task_id: self.agents[*a].task_id.clone(),
            status: if self.killing.contains(a) { "KILLING" } else { "RUNNING" }.into(),
            host: format!("h{}", self.agents[*a].host),
        });
        let mut snapshots: Vec<_> = self.store.iter().map(|s| s.row.clone()).collect();
        snapshots.sort_by_key(|r| std::cmp::Reverse((r.epoch, r.position.as_ref().map(|p| p.offset))));
        let mut seen = Observed {
            record: record.map(|(r, v)| ((**r).clone(), v)),
            lease: Some(LeaseView { node: pinned, seen: Duration::ZERO }),
            operation: match x.own_operation.as_ref().filter(|(_, version)| nodes.operation_version < *version) {
                Some((own, _)) => Some(own.clone()),
                None => nodes.operation.as_deref().cloned(),
            },
            agents,
            scheduler: SchedulerView { tasks: Some(tasks.collect()), asked: now, updating: false },
            store: StoreView {
                configured: true,
                cluster_id: self.store.first().map(|s| s.cluster_id.clone()),
                snapshots: Some(snapshots),
                listed: Some(now),
            },
            fresh_ids: (format!("cluster-{c}-{}", self.now), format!("generation-{c}-{}", self.now)),
            wall_ms: self.now / 1000,
            ..Observed::default()
        };
        seen.testimonies = self.testimonies(c, &seen);
        self.controllers[c].memory.recall(&mut seen, now);
        Some(seen)
    }

    /// Agents on the master's host are asked whether its process is there, while it does not speak for itself.
    fn testimonies(&self, c: usize, seen: &Observed) -> Vec<Testimony> {
        let now = self.clock(c);
        let Some(master) = seen.record.as_ref().and_then(|(r, _)| r.master.as_ref()) else { return Vec::new() };
        let fresh = |a: &AgentView| a.fresh(now, Duration::from_secs(1)).cloned();
        let speaks = seen.agents.iter().filter_map(fresh).any(|s| s.redis.is_some_and(|r| r.run_id == master.run_id));
        if speaks {
            return Vec::new();
        }
        let there = self.agents.iter().position(|x| x.server.as_ref().is_some_and(|s| s.run_id == master.run_id));
        let answers = seen.agents.iter().filter_map(fresh).filter_map(|s| {
            let a = self.agents.iter().position(|x| x.task_id == s.task_id && x.alive && x.frozen_until <= self.now)?;
            let (here, place) = (&s.host, self.node_of(a));
            let same = here.host_id == master.host.host_id && here.name == master.host.name && self.net.joined(1 + c, place);
            let verdict = match same {
                false => return None,
                true if here.boot_id != master.host.boot_id => Verdict::OtherBoot,
                true if there.is_none() => Verdict::ProcessGone,
                true => Verdict::Alive,
            };
            Some(Testimony { run_id: master.run_id.clone(), witness: s.task_id.clone(), verdict })
        });
        answers.collect()
    }

    pub fn cycle(&mut self, c: usize, at: u64) {
        if self.controllers[c].cycle_at != Some(at) {
            return;
        }
        self.controllers[c].cycle_at = Some(self.now + 200_000);
        self.at(self.now + 200_000, What::Cycle(c, self.now + 200_000));
        if !self.controllers[c].leads {
            return;
        }
        let Some(seen) = self.observe(c) else { return };
        let now = self.clock(c);
        let spec = self.controllers[c].nodes.as_ref().map(|n| n.spec.clone()).unwrap_or_default();
        let timing = self.timing;
        let view = View { spec: &spec, policy: &controller::schedule::Policy::default(), timing: &timing, seen: &seen, now };
        let (plan, doctored) = decide_mutated(self, view);
        let judged = doctored.as_ref().unwrap_or(&seen);
        let found = violations(&spec, judged, &plan, now, timing.silent_after);
        self.checks.fail_unless(found.is_empty(), || format!("controller {c}: plan vetoed: {found:?}"));
        if self.tracing && self.controllers[c].summary != plan.summary {
            self.trace(|| format!("controller {c}: {} {:?}", plan.summary, plan.waits));
        }
        let x = &mut self.controllers[c];
        x.summary.clone_from(&plan.summary);
        x.waits = plan.waits.iter().map(|w| w.reason).collect();
        if let Some(ask) = x.asked.take() {
            self.answer(c, &ask, view);
        }
        self.act(c, plan, now);
    }

    fn answer(&mut self, c: usize, ask: &Ask, view: View<'_>) {
        let id = self.name("operation-");
        let request = match judge(ask, view, id) {
            Judgement::Begin(operation, _) => Request::SetOperation(operation),
            Judgement::Spec(spec, _) => Request::SetSpec(spec),
            Judgement::Refuse(why) => {
                self.trace(|| format!("refused: {why}"));
                return self.answers.push(why);
            }
            Judgement::Plan(_) | Judgement::Show(_) | Judgement::ShowMigration(_) => return,
        };
        self.numbers += 1;
        let from = Client::Controller(c, self.controllers[c].leadership);
        self.request(from, self.numbers, request);
    }

    fn act(&mut self, c: usize, plan: Plan, now: Duration) {
        if self.controllers[c].committing > 0 {
            return;
        }
        for planned in plan.actions {
            let x = &mut self.controllers[c];
            if !pace::is_due(&planned.action, &x.attempts, now) {
                continue;
            }
            pace::begin(&planned.action, &mut x.attempts, now);
            self.trace(|| format!("controller {c}: {} because {}", planned.action.describe(), planned.because));
            self.carry_out_action(c, planned.action);
        }
    }

    fn carry_out_action(&mut self, c: usize, action: Action) {
        let key = pace::key(&action);
        match action {
            Action::Command { agent, command, .. } => self.send_command(c, key, &agent, *command),
            Action::CreateRecord { record } => self.send_commit(c, key, None, Request::Create(*record)),
            Action::CommitRecord { record, version, lease_version, operation, .. } => {
                self.controllers[c].committing += 1;
                let own = Some((Rc::new((*record).clone()), version + 1));
                self.send_commit(c, key, own, Request::Commit { record: *record, version, lease_version, operation });
            }
            Action::SetOperation { operation } => self.send_commit(c, key, None, Request::SetOperation(operation)),
            Action::AddInstances { count, .. } => {
                for _ in 0..count {
                    self.add_instance();
                }
                self.acted(c, &key, Outcome::Done);
            }
            Action::KillInstances { instances, .. } => {
                instances.into_iter().for_each(|i| self.kill_instance(i));
                self.acted(c, &key, Outcome::Done);
            }
            Action::RestartInstance { instance, .. } => {
                self.restart_instance(instance);
                self.acted(c, &key, Outcome::Done);
            }
            // Not asked for here: no schedule is set.
            Action::VerifySnapshot { .. } | Action::Rehearse { .. } => self.acted(c, &key, Outcome::Done),
        }
    }

    fn send_command(&mut self, c: usize, key: String, agent: &agent::api::Address, command: Command) {
        let Some(to) = self.agents.iter().position(|x| x.http == *agent) else { return };
        let leadership = self.controllers[c].leadership;
        let key: Rc<str> = Rc::from(key);
        self.at(self.now + COMMAND_TIMEOUT, What::CommandTimeout(c, leadership, key.clone()));
        let place = self.node_of(to);
        self.send(1 + c, place, Message::Command { to, from: Some((c, leadership)), key, command: Rc::new(command) });
    }

    fn send_commit(&mut self, c: usize, key: String, own: Known, request: Request) {
        self.numbers += 1;
        let id = self.numbers;
        let operation = match &request {
            Request::Commit { operation, .. } => operation.as_deref().cloned(),
            Request::SetOperation(operation) => Some((**operation).clone()),
            _ => None,
        };
        self.controllers[c].pending.insert(id, (key, own, operation));
        let from = Client::Controller(c, self.controllers[c].leadership);
        self.at(self.now + 10_000_000, What::CommitTimeout(c, id));
        self.request(from, id, request);
    }

    /// What came of a change of the nodes; none when the answer is lost.
    pub fn committed(&mut self, c: usize, id: u64, reply: Option<Reply>) {
        let x = &mut self.controllers[c];
        let Some((key, own, operation)) = x.pending.remove(&id) else { return };
        if own.is_some() {
            x.committing = x.committing.saturating_sub(1);
        }
        let outcome = match reply {
            Some(Reply::Done(_)) => {
                if own.is_some() {
                    x.own = own;
                }
                if let Some(operation) = operation {
                    let seen = x.nodes.as_ref().map_or(0, |n| n.operation_version);
                    let own = x.own_operation.as_ref().map_or(0, |(_, version)| *version);
                    x.own_operation = Some((operation, seen.max(own) + 1));
                }
                Outcome::Done
            }
            Some(_) => Outcome::Refused("conflict".into()),
            None => Outcome::Unknown("no answer".into()),
        };
        self.acted(c, &key, outcome);
    }

    pub fn acted(&mut self, c: usize, key: &str, outcome: Outcome) {
        let now = self.clock(c);
        if self.controllers[c].attempts.get(key).is_some_and(|attempt| attempt.outcome.is_none()) {
            pace::end(key, outcome, &mut self.controllers[c].attempts, now);
        }
        if self.controllers[c].leads {
            self.wake(c);
        }
    }

    /// What people do when the cluster waits for them: they look, and consent.
    pub fn operator(&mut self) {
        let Some(c) = self.zk.nodes.leader.filter(|c| self.controllers[*c].leads) else { return };
        let Some((record, _)) = self.zk.nodes.record.clone() else { return };
        let stuck = |reason| self.controllers[c].waits.contains(&reason);
        let idle = self
            .zk
            .nodes
            .operation
            .as_ref()
            .is_none_or(|o| o.outcome.is_some() || !matches!(o.kind, controller::view::OperationKind::Restore { .. }));
        let owner = "operator".to_owned();
        let old_writes = self.agents.iter().any(|x| {
            x.server
                .as_ref()
                .is_some_and(|s| s.takes_writes(self.now) && record.master.as_ref().is_some_and(|m| m.run_id == s.run_id))
        });
        if stuck(Reason::NoSource) && idle {
            self.consented = true;
            self.controllers[c].asked =
                Some(Ask::Restore { owner, snapshot: None, consent_epoch: Some(record.epoch), empty: true, dry_run: false });
        } else if (stuck(Reason::NoQuorum) || stuck(Reason::NoEvidence)) && !old_writes {
            self.consented = true;
            self.consents += 1;
            self.controllers[c].asked = Some(Ask::Failover { owner, consent_epoch: Some(record.epoch), dry_run: false });
        }
    }
}
