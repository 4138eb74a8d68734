//! The invariants, stated once, by something that knows nothing of how plans come about. A plan that breaks one is reported and not run.
//!
//! One writer: only the server that the record names may be promoted, and another may be named only with evidence against the last; whoever deposes
//! pins the last renewal of its lease. Nothing confirmed is lost: nobody replicates who is not listed, and nobody leaves the list before it was cut off.
//! Nothing newer is overwritten: nobody follows anything but the record's serving master; the named winner is not behind a known complete
//! copy; a cluster that had data never starts empty.

use std::collections::BTreeSet;
use std::time::Duration;

use agent::api::{Command, ORIGIN, Order, Redis, Role, Source, Stamp, State};
use agent::record::{Evidence, MAX_EPOCH, Member, Phase, Record};
use agent::snapshot::SnapshotId;

use crate::model::{Action, Observed, Plan, Spec};
use crate::view::{Migration, OperationKind, SnapshotRow};

/// What the plan would break; empty for a sound plan.
pub fn violations(spec: &Spec, seen: &Observed, plan: &Plan, now: Duration, silent_after: Duration) -> Vec<String> {
    let beginning = plan.actions.iter().find_map(|p| match &p.action {
        Action::CommitRecord { record, .. } if record.phase == Phase::Deposing => Some(record.as_ref()),
        _ => None,
    });
    let world = World { spec, seen, now, silent_after, beginning };
    let mut found = Vec::new();
    for planned in &plan.actions {
        match &planned.action {
            Action::CreateRecord { record } => world.created(record, &mut found),
            Action::CommitRecord { record, version, lease_version, .. } => {
                world.committed(record, *version, &mut found);
                world.deposed(record, *lease_version, &mut found);
                world.listed(record, &mut found);
                world.replaced(record, &mut found);
            }
            Action::Command { command, .. } => world.commanded(command, &mut found),
            Action::KillInstances { instances, .. } => world.killed(instances, &mut found),
            Action::AddInstances { count, .. } => world.added(*count, &mut found),
            Action::RestartInstance { instance, .. } => world.restarted(*instance, &mut found),
            Action::SetOperation { .. } | Action::VerifySnapshot { .. } | Action::Rehearse { .. } => (),
        }
    }
    one_of_each(plan, &mut found);
    found
}

/// At most one risky thing at a time, and no agent is told two things at once.
fn one_of_each(plan: &Plan, found: &mut Vec<String>) {
    let commits =
        plan.actions.iter().filter(|p| matches!(p.action, Action::CommitRecord { .. } | Action::CreateRecord { .. })).count();
    if commits > 1 {
        found.push(format!("{commits} changes of the record in one plan"));
    }
    let (mut promoted, mut told) = (0, BTreeSet::new());
    for planned in &plan.actions {
        if let Action::Command { command, .. } = &planned.action {
            promoted += usize::from(matches!(command.order, Order::Promote { .. }));
            let configures = matches!(
                command.order,
                Order::Configure { .. } | Order::Backup { .. } | Order::Prepare { .. } | Order::OpenOrigin { .. }
            );
            if !configures && !told.insert(command.stamp.task_id.clone()) {
                found.push(format!("task {} is told two things at once", command.stamp.task_id));
            }
        }
    }
    if promoted > 1 {
        found.push(format!("{promoted} promotions in one plan"));
    }
}

struct World<'a> {
    spec: &'a Spec,
    seen: &'a Observed,
    now: Duration,
    silent_after: Duration,
    /// The epoch that the plan begins.
    beginning: Option<&'a Record>,
}

impl World<'_> {
    fn record(&self) -> Option<&Record> {
        self.seen.record.as_ref().map(|(record, _)| record)
    }

    fn fresh(&self) -> impl Iterator<Item = &State> {
        self.seen.agents.iter().filter_map(|a| a.fresh(self.now, self.silent_after))
    }

    fn state_of(&self, task_id: &str) -> Option<&State> {
        self.fresh().find(|s| s.task_id == task_id)
    }

    fn created(&self, record: &Record, found: &mut Vec<String>) {
        if self.seen.record.is_some() {
            found.push("a record is made while there is one".into());
        }
        let highest = self.fresh().map(|s| s.epoch).filter(|epoch| *epoch <= MAX_EPOCH).max().unwrap_or(0);
        if record.epoch <= highest {
            found.push(format!("a record is made with epoch {} although an agent has seen {highest}", record.epoch));
        }
        let rows = || self.seen.store.snapshots.iter().flatten();
        let begins = |row: &SnapshotRow| record.restored.as_ref().is_some_and(|restored| restored.snapshot == row.id);
        match rows().find(|row| begins(row)) {
            Some(row) if !row.is_import() || record.initialised || rows().any(|row| !row.is_import()) => {
                found.push(format!("a cluster is born from snapshot {} although it is not a new one", row.id));
            }
            None if !record.initialised && rows().count() > 0 => {
                found.push("a cluster with snapshots is taken for a new one".into());
            }
            None if record.restored.is_some() => found.push("a cluster is born from a snapshot that is not there".into()),
            _ => {}
        }
    }

    fn committed(&self, next: &Record, version: i32, found: &mut Vec<String>) {
        let Some((old, seen_version)) = &self.seen.record else {
            found.push("a record is replaced that was not seen".into());
            return;
        };
        if version != *seen_version {
            found.push(format!("the record is replaced at version {version}, seen was {seen_version}"));
        }
        if next.cluster_id != old.cluster_id || next.generation != old.generation {
            found.push("a commit changes the identity of the record".into());
        }
        if next.epoch < old.epoch || (old.initialised && !next.initialised) {
            found.push("a commit takes the cluster back in time".into());
        }
        let renamed = next.master.as_ref().map(|m| &m.run_id) != old.master.as_ref().map(|m| &m.run_id);
        match (old.phase, next.phase) {
            (_, Phase::Deposing) if next.epoch > old.epoch && !renamed => (),
            (Phase::Deposing | Phase::Bootstrapping, Phase::Promoting) if next.epoch == old.epoch => self.named(old, next, found),
            (Phase::Promoting, Phase::Stable) if next.epoch == old.epoch && !renamed => self.settled(next, found),
            (a, b) if a == b && next.epoch == old.epoch && !renamed => (),
            (a, b) => found.push(format!("phase {a:?} of epoch {} cannot become {b:?} of epoch {}", old.epoch, next.epoch)),
        }
    }

    /// Whoever is deposed renews no more after the commit, and its last renewal is known.
    fn deposed(&self, next: &Record, lease_version: Option<i32>, found: &mut Vec<String>) {
        if self.record().is_none_or(|old| next.epoch <= old.epoch) {
            return;
        }
        let seen = self.seen.lease.as_ref().map(|lease| &lease.node);
        if next.pinned.as_ref() != seen || lease_version != seen.map(|node| node.version) {
            found.push("a master is deposed without pinning its last renewal".into());
        }
    }

    /// Members stay until the master's agent has cut them off; a change of master only swaps the old one for the new.
    fn listed(&self, next: &Record, found: &mut Vec<String>) {
        let Some(old) = self.record() else { return };
        let listed = |run: &str| next.known_replicas.iter().any(|m| m.run_id == run);
        let lease = old.master.as_ref().and_then(|m| self.state_of(&m.task_id)).and_then(|s| s.lease.as_ref());
        for member in old.known_replicas.iter().filter(|m| !listed(&m.run_id)) {
            let won = next.phase == Phase::Promoting && next.master.as_ref().is_some_and(|m| m.run_id == member.run_id);
            let cut = member.removing && lease.is_some_and(|lease| lease.removed.contains(&member.run_id));
            if !won && !cut {
                found.push(format!("task {} leaves the list and may still hold confirmed writes", member.task_id));
            }
        }
        let deposed = old.master.as_ref().filter(|_| old.phase == Phase::Deposing && next.phase == Phase::Promoting);
        let renamed = |m: &Member| next.master.as_ref().is_some_and(|winner| winner.run_id == m.run_id);
        if let Some(member) = deposed.filter(|m| !listed(&m.run_id) && !renamed(m)) {
            found.push(format!("the deposed master (task {}) is not listed", member.task_id));
        }
    }

    /// The cluster's data is replaced only by the snapshot that somebody asked for, and only when the data is saved.
    fn replaced(&self, next: &Record, found: &mut Vec<String>) {
        let old = self.record().and_then(|old| old.restored.as_ref());
        let Some(restored) = next.restored.as_ref().filter(|restored| Some(*restored) != old) else {
            if old.is_some() && next.restored.is_none() {
                found.push("a commit forgets that the data was replaced".into());
            }
            return;
        };
        let winner = next.master.as_ref().and_then(|m| self.state_of(&m.task_id)).and_then(|s| s.redis.as_ref());
        let holds_it = winner.is_some_and(|r| r.source == format!("snapshot:{}", restored.snapshot));
        let asked = self.replacing().is_some_and(|(snapshot, saved)| *snapshot == restored.snapshot && saved);
        let restores = asked && holds_it;
        let migrates = winner.is_some_and(|r| self.may_migrate(&r.source, next));
        if !(restores || migrates) || next.phase != Phase::Promoting || restored.epoch != next.epoch {
            found.push(format!("the data is replaced by snapshot {} without being saved, or unasked", restored.snapshot));
        }
    }

    /// The migration that goes on.
    fn migrating(&self) -> Option<&Migration> {
        let running = self.seen.operation.as_ref().filter(|o| o.outcome.is_none())?;
        match &running.kind {
            OperationKind::Migrate(migration) if migration.called_off.is_none() => Some(migration),
            _ => None,
        }
    }

    /// Whether the winner followed the origin that somebody asked for, which refuses writes since, and holds all of it; and the data before is saved.
    fn may_migrate(&self, source: &str, next: &Record) -> bool {
        let Some(migration) = self.migrating() else { return false };
        let winner = next.master.as_ref().and_then(|m| self.state_of(&m.task_id));
        let held = winner.and_then(|s| s.origin.as_ref()).is_some_and(|o| o.held.is_some());
        let ready = migration.cut_over && migration.saved.is_some() && migration.door.is_some();
        ready && held && source == migration.origin.source()
    }

    /// What is wrong with a command about an origin.
    fn migrated(&self, order: &Order, stamp: &Stamp, found: &mut Vec<String>) {
        let Some(record) = self.record() else { return };
        let leads = matches!(record.phase, Phase::Stable | Phase::Promoting);
        let in_office = leads && record.master.as_ref().is_some_and(|m| m.task_id == stamp.task_id);
        let migration = self.migrating();
        let follows = migration.is_some_and(|m| self.state_of(&stamp.task_id).is_some_and(|s| s.instance == m.follower));
        let saved = migration.is_some_and(|m| m.saved.is_some());
        match order {
            Order::FollowOrigin { .. } if !follows || in_office || (!leads && !saved) => {
                found.push(format!("task {} is to follow an origin unasked, in office, or unsaved", stamp.task_id));
            }
            Order::CloseOrigin { .. } if !follows || leads || !saved || migration.is_some_and(|m| m.door.is_none()) => {
                found.push("an origin is closed before everything else is ready for it".into());
            }
            Order::OpenOrigin { .. } if migration.is_some() => {
                found.push("an origin is opened while it is migrated".into());
            }
            _ => (),
        }
    }

    /// The snapshot that is to take the place of the data, and whether that is saved.
    fn replacing(&self) -> Option<(&SnapshotId, bool)> {
        let running = self.seen.operation.as_ref().filter(|o| o.outcome.is_none())?;
        match &running.kind {
            OperationKind::Replace { snapshot, saved, .. } => Some((snapshot, saved.is_some())),
            _ => None,
        }
    }

    /// Another server may be named only with evidence, if it answered, and if it is not behind another complete cut copy of one history.
    fn named(&self, old: &Record, next: &Record, found: &mut Vec<String>) {
        if old.evidence.is_none() && next.evidence.is_none() {
            found.push("a winner is named without evidence against the last master".into());
        }
        let Some(winner) = &next.master else {
            found.push("phase promoting names nobody".into());
            return;
        };
        let redis = self.state_of(&winner.task_id).and_then(|s| s.redis.as_ref()).filter(|r| r.run_id == winner.run_id);
        let Some(redis) = redis else {
            found.push(format!("winner {} does not answer as the run that is named", winner.task_id));
            return;
        };
        if redis.loading || redis.syncing {
            found.push(format!("winner {} has no complete copy", winner.task_id));
        }
        if let Some(why) = self.state_of(&winner.task_id).and_then(|s| s.cannot_lead.as_ref()) {
            found.push(format!("winner {} cannot lead: {why}", winner.task_id));
        }
        let ahead = self
            .fresh()
            .filter(|s| s.fenced_epoch == Some(old.epoch))
            // What cannot lead is given up when somebody consents to it.
            .filter(|s| s.cannot_lead.is_none() || !self.is_consented())
            .filter_map(|s| s.redis.as_ref())
            .any(|r| r.replid == redis.replid && r.offset > redis.offset && r.answering && !r.loading && !r.syncing);
        if ahead {
            found.push(format!("winner {} is behind another complete copy", winner.task_id));
        }
    }

    /// Whether somebody takes the responsibility for a loss.
    fn is_consented(&self) -> bool {
        let running = self.seen.operation.as_ref().filter(|o| o.outcome.is_none()).map(|o| &o.kind);
        let consented = |kind: &OperationKind| match kind {
            OperationKind::Failover { consent_epoch } | OperationKind::Restore { consent_epoch, .. } => consent_epoch.is_some(),
            _ => false,
        };
        running.is_some_and(consented)
    }

    fn settled(&self, next: &Record, found: &mut Vec<String>) {
        let serves =
            next.master.as_ref().and_then(|m| self.state_of(&m.task_id)).is_some_and(|s| s.serving && s.role == Role::Master);
        if !serves {
            found.push("the change is called over while the winner does not serve".into());
        }
    }

    fn commanded(&self, command: &Command, found: &mut Vec<String>) {
        let Some(record) = self.record() else {
            found.push("a command without a record".into());
            return;
        };
        let stamp = &command.stamp;
        // With proof that the old master is dead, survivors are cut beside the commit that deposes it.
        let ahead = self.beginning.filter(|next| command.order == Order::Fence && proves_death(next)).map(|next| next.epoch);
        let timely = stamp.epoch == record.epoch || Some(stamp.epoch) == ahead;
        if stamp.cluster_id != record.cluster_id || !timely || stamp.generation != record.generation {
            found.push(format!("a command is stamped for another cluster, record or epoch ({})", stamp.epoch));
        }
        if let Some(other) =
            self.state_of(&stamp.task_id).and_then(|s| s.cluster_id.as_ref()).filter(|id| **id != record.cluster_id)
        {
            found.push(format!("task {} of cluster {other} is commanded", stamp.task_id));
        }
        let master = record.master.as_ref();
        let to_master = master.is_some_and(|m| m.task_id == stamp.task_id && stamp.run_id.as_ref() == Some(&m.run_id));
        let leads = matches!(record.phase, Phase::Stable | Phase::Promoting);
        match &command.order {
            Order::Promote { .. } if !(leads && to_master) => {
                found.push(format!("task {} is promoted, which the record does not name", stamp.task_id));
            }
            Order::Fence if leads && to_master => found.push("the master in office is fenced".into()),
            Order::Stop | Order::Restore { .. } if self.replacing().is_some_and(|(_, saved)| !saved) => {
                found.push(format!("task {} makes room for a snapshot before the present data is saved", stamp.task_id));
            }
            Order::Stop if leads && to_master => found.push("the master in office is stopped".into()),
            Order::FollowOrigin { .. } | Order::CloseOrigin { .. } | Order::OpenOrigin { .. } => {
                self.migrated(&command.order, stamp, found);
            }
            Order::Stop if self.may_hold_more(stamp) => {
                found.push(format!("task {} is stopped although nobody knows what it holds", stamp.task_id));
            }
            Order::Follow { master: to, .. } | Order::Start { source: Source::ReplicaOf { master: to, .. } } => {
                let right = record.phase == Phase::Stable && master.and_then(|m| m.redis.as_ref()) == Some(to);
                if !right || to_master {
                    found.push(format!("task {} is to follow {to}, which is not the master in office", stamp.task_id));
                }
                let listed = |m: &Member| Some(&m.run_id) == stamp.run_id.as_ref() && !m.removing;
                if matches!(command.order, Order::Follow { .. }) && !record.known_replicas.iter().any(listed) {
                    found.push(format!("task {} is to follow and is not listed", stamp.task_id));
                }
            }
            Order::Start { source: Source::Empty }
                if (record.initialised
                    || record.restored.is_some()
                    || self.seen.store.snapshots.iter().flatten().count() > 0)
                    && !self.seen.may_start_empty() =>
            {
                found.push("a cluster that has had data is started empty".into());
            }
            Order::Start { .. } | Order::Restore { .. } if leads => {
                found.push(format!("task {} starts from a copy of its own while there is a master", stamp.task_id));
            }
            _ => (),
        }
    }

    /// Whether a server that was not cut off for this epoch, nor started closed for it, may hold the newest data.
    fn may_hold_more(&self, stamp: &Stamp) -> bool {
        let closed = |r: &Redis| r.started_epoch == stamp.epoch && !r.source.is_empty() && r.source != "replica";
        self.state_of(&stamp.task_id).is_some_and(|s| {
            // Whatever followed an origin holds nothing of this cluster, as long as the record does not know its history.
            let known = |r: &Redis| self.record().is_some_and(|record| record.history_at(&r.replid, r.offset).is_some());
            let foreign = |r: &Redis| r.source.starts_with(ORIGIN) && s.assigned_epoch == 0 && !known(r);
            if s.redis.as_ref().is_some_and(foreign) {
                return false;
            }
            let unknown = s.redis.as_ref().is_some_and(|r| !closed(r) || s.assigned_epoch >= stamp.epoch);
            unknown && s.fenced_epoch != Some(stamp.epoch)
        })
    }

    fn killed(&self, instances: &[u32], found: &mut Vec<String>) {
        if instances.is_empty() {
            found.push("an empty set of instances would end the whole job".into());
        }
        let master = self.record().and_then(|r| r.master.as_ref()).map(|m| m.instance);
        if master.is_some_and(|m| instances.contains(&m)) {
            found.push("the master's instance is removed".into());
        }
        let have = self.seen.scheduler.tasks.as_ref().map_or(0, Vec::len);
        if have.saturating_sub(instances.len()) < self.spec.instances as usize {
            found.push(format!("{} of {have} instances are removed, {} are wanted", instances.len(), self.spec.instances));
        }
    }

    fn restarted(&self, instance: u32, found: &mut Vec<String>) {
        if self.fresh().any(|s| s.instance == instance && !s.stopping) {
            found.push(format!("instance {instance} is restarted although its agent speaks"));
        }
    }

    fn added(&self, count: u32, found: &mut Vec<String>) {
        let have = self.seen.scheduler.tasks.as_ref().map_or(0, Vec::len);
        if have + count as usize > self.spec.instances as usize {
            found.push(format!("{count} instances are added to {have}, {} are wanted", self.spec.instances));
        }
    }
}

fn proves_death(record: &Record) -> bool {
    matches!(record.evidence, Some(Evidence::Dead { .. } | Evidence::Testimony { .. }))
}
