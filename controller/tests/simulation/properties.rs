//! What must hold: at every step, and in the end.

use agent::record::{Evidence, Phase, Record};

use super::data::Head;
use super::server::A;
use super::world::World;
use controller::view::OperationKind;

/// What is kept for the properties.
#[derive(Default)]
pub(super) struct Checks {
    /// The first thing that broke; the run ends there.
    pub broken: Option<String>,
    /// Places in the data up to which writes were confirmed, none within another.
    pub confirmed: Vec<Head>,
    /// The server that takes writes, or took them last.
    writer: Option<(A, u64)>,
    pub last_write: u64,
    pub longest_pause: u64,
    /// Changes of master seen.
    pub changes: u64,
    pub epochs: u64,
    /// A winner was deposed before it served: it is not asked again for some minutes.
    pub failed_winners: bool,
    phase: Phase,
    /// The data was replaced: what it began with, and what was replaced by it.
    pub replaced: Option<(Head, Head)>,
    /// How often.
    pub restores: u64,
}

impl Checks {
    pub fn fail_unless(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds && self.broken.is_none() {
            self.broken = Some(what());
        }
    }

    pub fn wrote(&mut self, now: u64) {
        if self.last_write > 0 {
            self.longest_pause = self.longest_pause.max(now - self.last_write);
        }
        self.last_write = now;
    }

    /// From now on pauses are measured anew.
    pub fn measure_from(&mut self, now: u64) {
        (self.last_write, self.longest_pause) = (now, 0);
    }

    pub fn committed(&mut self, record: &Record) {
        self.epochs = self.epochs.max(record.epoch);
        self.failed_winners |= self.phase == Phase::Promoting && record.phase == Phase::Deposing;
        self.phase = record.phase;
    }
}

impl World {
    /// At every step: one writer, and whoever begins to write holds what must be held.
    pub fn check(&mut self) {
        let now = self.now;
        let mut writers = self
            .agents
            .iter()
            .enumerate()
            .filter_map(|(a, x)| x.server.as_ref().filter(|s| s.takes_writes(now)).map(|s| (a, s.run, s.head)));
        let Some((a, run, head)) = writers.next() else { return };
        let second = writers.next();
        if let Some((b, ..)) = second {
            self.checks.fail_unless(false, || format!("two writers: agents {a} and {b}"));
        }
        if self.checks.writer != Some((a, run)) {
            self.trace(|| format!("agent {a} run-{run} takes writes"));
            let before = self.checks.writer.replace((a, run));
            self.checks.changes += u64::from(before.is_some());
            self.new_writer(a, head, before);
        }
    }

    /// Nothing confirmed is missing; after a planned change nothing at all.
    fn new_writer(&mut self, a: A, head: Head, before: Option<(A, u64)>) {
        self.replaced_stays_replaced(a, head);
        let given_up = self.consented;
        if self.setup.single && !given_up {
            let missing = self.checks.confirmed.iter().find(|c| !self.tree.holds(head, **c)).map(|c| self.tree.depth(*c));
            let at = self.tree.depth(head);
            self.checks
                .fail_unless(missing.is_none(), || format!("agent {a} leads at {at} without the confirmed write {missing:?}"));
        }
        let Some((old, run)) = before else { return };
        let Some((record, _)) = &self.zk.nodes.record else { return };
        let planned = self.zk.nodes.operation.as_ref().is_some_and(|o| {
            o.outcome.is_none() && matches!(o.kind, OperationKind::Switchover { .. }) && o.started_ms * 1000 > self.last_fault
        });
        let fenced = matches!(&record.evidence, Some(Evidence::Fenced { .. })) && record.phase != Phase::Deposing;
        let old_head = self.agents[old].server.as_ref().filter(|s| s.run == run).map(|s| s.head);
        if let Some(old_head) = old_head.filter(|_| planned && fenced && old != a) {
            let kept = self.tree.holds(head, old_head);
            self.checks.fail_unless(kept, || format!("a planned change from agent {old} to {a} lost writes"));
        }
    }

    /// A restore is past its point of no return: whatever was confirmed lies in what was saved before, and the data begins anew.
    pub fn data_replaced(&mut self, restored: &agent::record::Restored) {
        let saved = match self.zk.nodes.operation.as_deref().map(|o| &o.kind) {
            Some(OperationKind::Replace { saved: Some(saved), .. }) => saved.clone(),
            other => return self.checks.fail_unless(false, || format!("the data is replaced within {other:?}")),
        };
        let head = |id: &agent::snapshot::SnapshotId| self.store.iter().find(|s| s.row.id == *id).map(|s| s.dump.head);
        let (Some(base), Some(saved)) = (head(&restored.snapshot), head(&saved)) else {
            return self.checks.fail_unless(false, || "what was restored or saved is not in the store".into());
        };
        let missing = self.checks.confirmed.iter().find(|c| !self.tree.holds(saved, **c)).map(|c| self.tree.depth(*c));
        let at = self.tree.depth(saved);
        if self.setup.single && !self.consented {
            self.checks
                .fail_unless(missing.is_none(), || format!("what was saved ends at {at}, without the confirmed {missing:?}"));
        }
        self.checks.confirmed.retain(|c| self.tree.holds(base, *c));
        self.checks.replaced = Some((base, saved));
        self.checks.restores += 1;
    }

    /// Whoever leads after a restore holds what was restored, and nothing that it replaced.
    fn replaced_stays_replaced(&mut self, a: A, head: Head) {
        let Some((base, saved)) = self.checks.replaced.filter(|_| !self.consented && !self.zk.emptied) else { return };
        let tree = &self.tree;
        let next = |head: Head| (tree.depth(head) > tree.depth(base)).then(|| tree.ancestor(head, tree.depth(base) + 1));
        let old = next(saved).is_some_and(|replaced| next(head) == Some(replaced));
        let (kept, at) = (tree.holds(head, base), tree.depth(head));
        self.checks.fail_unless(kept && !old, || format!("agent {a} leads at {at} with data that a restore had replaced"));
    }

    /// Enough replicas have acknowledged everything up to a place.
    pub fn confirmed(&mut self, a: A, head: Head) {
        let tree = &self.tree;
        self.checks.confirmed.retain(|c| !tree.holds(head, *c));
        if !self.checks.confirmed.iter().any(|c| tree.holds(*c, head)) {
            self.checks.confirmed.push(head);
        }
        let Some((writer, run)) = self.checks.writer else { return };
        let there = self.agents[writer].server.as_ref().filter(|s| s.run == run).map(|s| s.head);
        if let Some(there) = there.filter(|_| self.setup.single && !self.consented && writer != a) {
            let kept = self.tree.holds(there, head);
            self.checks
                .fail_unless(kept, || format!("agent {a} confirms a write that agent {writer}, which leads, does not have"));
        }
    }

    /// A copy is about to be replaced: what it held beyond the new one must lie aside.
    pub fn overwritten(&mut self, a: A, old: Head, new: Head) {
        let kept = self.tree.holds(new, old) || self.asides.iter().any(|aside| self.tree.holds(*aside, old));
        let (from, to) = (self.tree.depth(old), self.tree.depth(new));
        self.checks.fail_unless(kept, || {
            format!("the copy of agent {a} at {from} is overwritten by one at {to} and lies nowhere aside")
        });
    }

    /// One master serves, everybody follows it, and nothing is under way.
    pub fn settled(&self) -> bool {
        let Some((record, _)) = self.zk.nodes.record.as_ref().filter(|(r, _)| r.phase == Phase::Stable) else { return false };
        let serving = |a: &A| {
            let (x, now) = (&self.agents[*a], self.now);
            x.server.as_ref().is_some_and(|s| s.takes_writes(now) && record.master.as_ref().is_some_and(|m| m.run_id == s.run_id))
        };
        let active: Vec<A> = self.tasks.iter().map(|(_, a)| *a).collect();
        let linked = |a: &A| {
            let x = &self.agents[*a];
            x.server.as_ref().is_some_and(|s| s.is_up() && s.complete && x.duty.epoch == record.epoch && self.now >= s.hung_until)
        };
        let listed = record.known_replicas.iter().all(|m| {
            !m.removing
                && self.agents.iter().any(|x| x.task_id == m.task_id && x.server.as_ref().is_some_and(|s| s.run_id == m.run_id))
        });
        let masters = active.iter().filter(|a| serving(a)).count();
        let replicas = active.iter().filter(|a| linked(a)).count();
        masters == 1 && masters + replicas == active.len() && active.len() == self.zk.nodes.spec.instances as usize && listed
    }

    /// A known limit: ZooKeeper was emptied while only tasks that Aurora had given up knew the cluster, and nobody heard them. There are two now.
    pub fn is_born_again(&self) -> bool {
        let Some((record, _)) = self.zk.nodes.record.as_ref().filter(|_| self.zk.emptied) else { return false };
        let foreign = |x: &super::agents::Agent| x.alive && x.cluster_id.as_ref().is_some_and(|id| *id != record.cluster_id);
        let strangers: Vec<A> = (0..self.agents.len()).filter(|a| foreign(&self.agents[*a])).collect();
        let active = self.active();
        !strangers.is_empty() && strangers.iter().all(|a| !active.contains(a))
    }

    /// Everybody holds what was confirmed: a single fault may now come.
    pub fn healthy(&self) -> bool {
        self.settled() && self.net_is_whole() && self.zk.up
    }
}
