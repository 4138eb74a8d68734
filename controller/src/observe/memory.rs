//! What must be remembered between cycles, so that the decision need not: when a phase began, the master's last word, which replicas are
//! proven attached, which sources are known to be unusable.

use std::collections::BTreeMap;
use std::time::Duration;

use agent::api::{Offset, Position, State};
use agent::record::{Phase, Record};

use crate::model::{LastWord, LeaseView, Observed};

/// A winner that did not open comes behind its equals for this long.
const UNFIT_FOR: Duration = Duration::from_secs(300);

/// Carried from cycle to cycle of one leadership.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    phase: Option<(u64, Phase, Duration)>,
    lease: Option<LeaseView>,
    /// By replica run: an offset of the master and when it was seen, and the time as of which the replica held everything.
    caught_up: BTreeMap<String, (Offset, Duration, Option<Duration>)>,
    first_agent: Option<Duration>,
    last_word: Option<LastWord>,
    /// By replica run: the master's offset when the attach was first seen, and whether a later byte has been applied since.
    attached: BTreeMap<String, (Offset, bool)>,
    /// Sources that agents found at fault, with what they found.
    unusable: BTreeMap<String, String>,
    silent_since: BTreeMap<String, Duration>,
    /// Winners that were deposed before they served: when, by run.
    unfit: BTreeMap<String, Duration>,
}

impl Memory {
    /// Learns from what was seen, and adds what is remembered to it.
    pub fn recall(&mut self, seen: &mut Observed, now: Duration) {
        let states: Vec<&State> = seen.agents.iter().filter_map(|a| a.state.as_ref()).collect();
        if !states.is_empty() {
            self.first_agent.get_or_insert(now);
        }
        let failed = states.iter().filter_map(|s| s.failed_source.as_ref()).filter(|f| f.definite);
        self.unusable.extend(failed.map(|f| (f.source.clone(), f.why.clone())));
        self.note_silence(seen, now);
        if let Some((record, _)) = &seen.record {
            self.note_phase(record, now);
            self.note_master(record, &states, now);
        }
        self.note_lease(seen, now);
        seen.first_agent = self.first_agent;
        seen.phase_since = self.phase.map_or(now, |(_, _, since)| since);
        seen.last_word.clone_from(&self.last_word);
        seen.current_as_of = self.caught_up.iter().filter_map(|(run, (_, _, at))| Some((run.clone(), (*at)?))).collect();
        seen.proven = self.attached.iter().filter(|(_, (_, proven))| *proven).map(|(run, _)| run.clone()).collect();
        seen.unusable = self.unusable.keys().cloned().collect();
        self.mark_unusable(seen);
        seen.silent_since.clone_from(&self.silent_since);
        seen.unfit = self.unfit.keys().cloned().collect();
    }

    /// A renewal counts from when it was first seen.
    fn note_lease(&mut self, seen: &mut Observed, now: Duration) {
        let Some(view) = &mut seen.lease else { return };
        view.seen = self.lease.as_ref().filter(|known| known.node == view.node).map_or(now, |known| known.seen);
        self.lease = Some(view.clone());
    }

    /// A snapshot that could not be restored is no good one, whatever its manifest says.
    fn mark_unusable(&self, seen: &mut Observed) {
        for row in seen.store.snapshots.iter_mut().flatten().filter(|row| row.can_be_named()) {
            if let Some(why) = self.unusable.get(&format!("snapshot:{}", row.id)) {
                (row.good, row.suspicious) = (false, false);
                row.problem = Some(why.clone());
            }
        }
    }

    /// Counts from when a task was first seen running without a word from its agent.
    fn note_silence(&mut self, seen: &Observed, now: Duration) {
        let heard = |task: &str| {
            let own = seen.agents.iter().filter(|a| a.state.as_ref().is_some_and(|s| s.task_id == task));
            own.filter_map(|a| a.heard).max()
        };
        let running = seen.scheduler.tasks.iter().flatten().filter(|t| t.status == "RUNNING");
        self.silent_since = running
            .map(|task| {
                let first = self.silent_since.get(&task.task_id).copied().unwrap_or(now);
                (task.task_id.clone(), heard(&task.task_id).unwrap_or(first))
            })
            .collect();
    }

    fn note_phase(&mut self, record: &Record, now: Duration) {
        self.unfit.retain(|_, since| now.saturating_sub(*since) < UNFIT_FOR);
        if self.phase.is_none_or(|(epoch, phase, _)| (epoch, phase) != (record.epoch, record.phase)) {
            let opened_in_vain = record.phase == Phase::Deposing && self.phase.is_some_and(|(_, was, _)| was == Phase::Promoting);
            if let Some(winner) = record.master.as_ref().filter(|_| opened_in_vain) {
                self.unfit.insert(winner.run_id.clone(), now);
            }
            self.phase = Some((record.epoch, record.phase, now));
        }
    }

    fn note_master(&mut self, record: &Record, states: &[&State], now: Duration) {
        let Some(master) = record.master.as_ref().filter(|_| record.phase == Phase::Stable) else { return };
        let serving = states.iter().find(|s| s.task_id == master.task_id && s.serving && s.assigned_epoch == record.epoch);
        let Some(redis) = serving.and_then(|s| s.redis.as_ref()).filter(|r| r.run_id == master.run_id) else { return };
        self.last_word = Some(LastWord {
            run_id: redis.run_id.clone(),
            position: Position { replid: redis.replid.clone(), offset: redis.offset },
        });
        let attached =
            states.iter().filter_map(|s| s.redis.as_ref()).filter(|r| r.replid == redis.replid && r.link == Some(true));
        let attached: Vec<_> = attached.filter(|r| !r.syncing && !r.loading).collect();
        for replica in &attached {
            let mark = self.caught_up.entry(replica.run_id.clone()).or_insert((redis.offset, now, None));
            if replica.offset >= mark.0 {
                *mark = (redis.offset, now, Some(mark.1));
            }
        }
        let now_attached: BTreeMap<String, (Offset, bool)> = attached
            .into_iter()
            .map(|r| {
                let (since, proven) = self.attached.get(&r.run_id).copied().unwrap_or((redis.offset, false));
                (r.run_id.clone(), (since, proven || r.offset > since))
            })
            .collect();
        self.attached = now_attached;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::AgentView;
    use agent::api::{Address, Redis, Role};
    use agent::record::Member;

    fn state(task: &str, replid: &str, offset: Offset, link: Option<bool>) -> State {
        State {
            task_id: task.into(),
            role: if link.is_some() { Role::Replica } else { Role::Master },
            serving: true,
            assigned_epoch: 1,
            redis: Some(Redis { run_id: format!("run-{task}"), replid: replid.into(), offset, link, ..Redis::default() }),
            ..State::default()
        }
    }

    fn seen(states: Vec<State>) -> Observed {
        let master = Member { task_id: "m".into(), run_id: "run-m".into(), ..Member::default() };
        let record: Record = serde_json::from_value(serde_json::json!({
            "cluster_id": "c", "generation": "g", "initialised": true, "epoch": 1, "phase": "stable", "master": master,
            "known_replicas": [], "evidence": null, "lease_ms": 2000, "durability": {"acks": 0}, "histories": [], "snapshot": null
        }))
        .unwrap();
        let agents = states
            .into_iter()
            .map(|s| AgentView {
                address: Address { host: s.task_id.clone(), port: 1 },
                shard: None,
                state: Some(s),
                heard: Some(Duration::ZERO),
                problem: None,
            })
            .collect();
        Observed { record: Some((record, 1)), agents, ..Observed::default() }
    }

    #[test]
    fn a_linked_replica_is_proven_only_by_a_byte_written_after_its_attach() {
        let mut memory = Memory::default();
        let mut look = |master, replica| {
            let mut observed = seen(vec![state("m", "r", master, None), state("a", "r", replica, Some(true))]);
            memory.recall(&mut observed, Duration::ZERO);
            observed.proven.contains("run-a")
        };
        assert!(!look(100, 100), "equal offsets right after a sync prove nothing");
        assert!(!look(200, 100), "the master goes on alone");
        assert!(look(200, 150));
        assert!(look(300, 300));
    }

    #[test]
    fn a_winner_deposed_before_it_served_is_unfit_for_a_while() {
        let mut memory = Memory::default();
        let mut look = |epoch, phase, at_s| {
            let mut observed = seen(Vec::new());
            let record = &mut observed.record.as_mut().unwrap().0;
            (record.epoch, record.phase) = (epoch, phase);
            memory.recall(&mut observed, Duration::from_secs(at_s));
            observed.unfit.contains("run-m")
        };
        assert!(!look(1, Phase::Stable, 0));
        assert!(!look(2, Phase::Deposing, 1), "it served");
        assert!(!look(2, Phase::Promoting, 2));
        assert!(look(3, Phase::Deposing, 30));
        assert!(look(3, Phase::Promoting, 31));
        assert!(!look(3, Phase::Stable, 400), "its time is over");
    }

    #[test]
    fn a_snapshot_that_could_not_be_restored_is_no_good_one_any_more() {
        let mut memory = Memory::default();
        let mut failed = state("a", "r", 1, None);
        let id = "0000000001-20261124T072306Z-00000000000000000001";
        failed.failed_source = Some(agent::api::FailedSource {
            source: format!("snapshot:{id}"),
            definite: true,
            why: "the dump is 3 bytes long, the manifest says 9".into(),
        });
        let row = || crate::view::SnapshotRow { id: id.parse().unwrap(), ..crate::example::published().snapshots[0].clone() };
        let mut look = |states| {
            let mut observed = seen(states);
            observed.store.snapshots = Some(vec![row()]);
            memory.recall(&mut observed, Duration::ZERO);
            observed.store.snapshots.unwrap().remove(0)
        };
        assert!(look(Vec::new()).good);
        let row = look(vec![failed]);
        assert!(!row.good && row.problem.unwrap().contains("3 bytes long"));
        assert!(!look(Vec::new()).good, "also after its finder is gone");
    }

    #[test]
    fn a_lost_link_must_be_proven_again() {
        let mut memory = Memory::default();
        let mut look = |offset, link| {
            let mut observed = seen(vec![state("m", "r", 500, None), state("a", "r", offset, Some(link))]);
            memory.recall(&mut observed, Duration::ZERO);
            observed.proven.contains("run-a")
        };
        assert!(!look(500, true));
        assert!(look(501, true));
        assert!(!look(501, false));
        assert!(!look(500, true));
    }
}
