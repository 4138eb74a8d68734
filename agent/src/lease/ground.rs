//! What a renewal stands on, and what another version of the record means for it. Pure.

use std::time::Duration;

use super::term::Event;
use crate::api::Epoch;
use crate::record::{Peer, Record};

/// The record that a renewal stands on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ground {
    /// Generation of the record.
    pub generation: String,
    /// Epoch led.
    pub epoch: Epoch,
    /// Version of the record.
    pub record_version: i32,
    /// Length of the lease.
    pub lease: Duration,
    /// Longest time on promises alone.
    pub failsafe_max: Duration,
    /// Members that may be asked for promises: listed, not marked for removal, not the master itself.
    pub members: Vec<Peer>,
}

/// Who the holder of a lease is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The cluster.
    pub cluster_id: String,
    /// Aurora task.
    pub task_id: String,
    /// Its server's run.
    pub run_id: String,
}

impl Ground {
    /// What a renewal by `task_id` against this version of the record stands on.
    pub fn of(record: &Record, version: i32, task_id: &str) -> Ground {
        let ms = Duration::from_millis;
        let mut members: Vec<Peer> = Vec::new();
        for member in record.known_replicas.iter().filter(|member| !member.removing && member.task_id != task_id) {
            let Some(agent) = member.agent.clone() else { continue };
            if !members.iter().any(|peer| peer.task_id == member.task_id) {
                members.push(Peer { task_id: member.task_id.clone(), agent });
            }
        }
        Ground {
            generation: record.generation.clone(),
            epoch: record.epoch,
            record_version: version,
            lease: ms(record.lease_ms),
            failsafe_max: ms(record.failsafe_max_ms),
            members,
        }
    }

    /// What a record that was read means for the holder of a lease that stands on this one. Another cluster's record means nothing.
    pub fn judge(&self, record: &Record, version: i32, holder: &Holder) -> Event {
        if record.cluster_id != holder.cluster_id {
            return Event::Unreadable;
        }
        let same = record.generation == self.generation;
        if same && version < self.record_version {
            return Event::Tick;
        }
        // A record made anew names a live master as it is; its epoch is higher.
        let fits = if same { record.epoch == self.epoch } else { record.epoch > self.epoch };
        match fits && record.has_in_office(&holder.task_id, &holder.run_id) {
            true => Event::Stands(Ground::of(record, version, &holder.task_id)),
            false => Event::Deposed,
        }
    }
}
