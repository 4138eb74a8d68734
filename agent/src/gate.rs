//! Whether a command may be carried out at all: the fencing of commands. Pure.
//!
//! Invariant: a command decided on something older than what this agent has seen, or meant for another cluster, task or server, changes
//! nothing. The caller has read the record again when the stamp names a newer one than was read.

use crate::api::{Command, Epoch, Order};

/// What the agent knows when a command arrives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Cluster id and generation of the record last read, and its version; absent before the first reading.
    pub record: Option<Read>,
    /// Our Aurora task.
    pub task_id: String,
    /// Highest epoch seen.
    pub epoch: Epoch,
    /// Highest record version seen within the generation.
    pub record_version: i32,
    /// The running server; absent without one, empty until it answered.
    pub run_id: Option<String>,
    /// Servers of this task that are proven dead.
    pub dead: Vec<String>,
    /// Asked to end.
    pub stopping: bool,
}

/// The record as last read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// The cluster it is of.
    pub cluster_id: String,
    /// Its generation.
    pub generation: String,
    /// Its ZooKeeper version.
    pub version: i32,
}

/// Why a command is not carried out: nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Machine-readable word.
    pub reason: &'static str,
    /// The same for people.
    pub message: String,
}

/// A refusal with its text.
pub fn refusal(reason: &'static str, message: impl Into<String>) -> Refusal {
    Refusal { reason, message: message.into() }
}

/// Whether the stamp names a record newer than the one read: then the caller reads it before it asks [`admit`].
pub fn needs_reading(command: &Command, known: &Known) -> bool {
    let stamp = &command.stamp;
    known.record.as_ref().is_none_or(|read| stamp.generation != read.generation || stamp.record_version > read.version)
}

/// Admits a command or says why not.
///
/// # Errors
/// The refusal: nothing may be changed.
pub fn admit(command: &Command, known: &Known) -> Result<(), Refusal> {
    let stamp = &command.stamp;
    let Some(read) = &known.record else {
        return Err(refusal("no-record", "this agent has not read the cluster's record yet and obeys nothing before"));
    };
    if stamp.cluster_id != read.cluster_id {
        let message = format!("the command is for cluster {}, the record says {}", stamp.cluster_id, read.cluster_id);
        return Err(refusal("foreign-cluster", message));
    }
    if stamp.task_id != known.task_id {
        return Err(refusal("other-task", format!("the command is for task {}, this is {}", stamp.task_id, known.task_id)));
    }
    if stamp.generation != read.generation {
        let message = format!("the command was decided on record generation {}, it is {}", stamp.generation, read.generation);
        return Err(refusal("other-generation", message));
    }
    if stamp.epoch < known.epoch {
        return Err(refusal("stale-epoch", format!("epoch {} is over, this agent knows epoch {}", stamp.epoch, known.epoch)));
    }
    if stamp.record_version < known.record_version {
        let message = format!("decided on record version {}, the present one is {}", stamp.record_version, known.record_version);
        return Err(refusal("stale-record", message));
    }
    if stamp.record_version > read.version {
        let message = format!("record version {} is not visible here, only {}", stamp.record_version, read.version);
        return Err(refusal("record-not-seen", message));
    }
    admit_run(command, known)?;
    let begins =
        matches!(command.order, Order::Start { .. } | Order::Restore { .. } | Order::Promote { .. } | Order::FollowOrigin { .. });
    if known.stopping && begins {
        return Err(refusal("stopping", "this instance was asked to end and starts nothing any more"));
    }
    Ok(())
}

fn admit_run(command: &Command, known: &Known) -> Result<(), Refusal> {
    let wanted = command.stamp.run_id.as_deref();
    match (&command.order, wanted, known.run_id.as_deref()) {
        (order, _, _) if order.needs_no_run() => Ok(()),
        (_, None | Some(""), _) => {
            Err(refusal("no-run-id", format!("{} must name the server run it is meant for", command.order.verb())))
        }
        (_, Some(wanted), Some(running)) if wanted == running => Ok(()),
        // A server that is gone is as stopped as can be.
        (Order::Stop, Some(wanted), None) if known.dead.iter().any(|dead| dead == wanted) => Ok(()),
        (_, Some(wanted), Some(running)) => Err(refusal("other-run", format!("run {wanted} is over, {running} runs now"))),
        (_, Some(wanted), None) => Err(refusal("other-run", format!("run {wanted} is over, no server runs"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Source, Stamp};

    fn known() -> Known {
        Known {
            record: Some(Read { cluster_id: "c".into(), generation: "g".into(), version: 5 }),
            task_id: "t".into(),
            epoch: 3,
            record_version: 5,
            run_id: Some("r".into()),
            dead: vec!["old".into()],
            stopping: false,
        }
    }

    fn command(order: Order, change: impl FnOnce(&mut Stamp)) -> Command {
        let mut stamp = Stamp {
            cluster_id: "c".into(),
            generation: "g".into(),
            epoch: 3,
            record_version: 5,
            task_id: "t".into(),
            run_id: Some("r".into()),
        };
        change(&mut stamp);
        Command { stamp, order }
    }

    fn promote() -> Order {
        Order::Promote { asks: Vec::new() }
    }

    fn start() -> Order {
        Order::Start { source: Source::Empty }
    }

    fn follow_origin() -> Order {
        let address = crate::api::Address { host: "h".into(), port: 1 };
        Order::FollowOrigin { request_id: "r".into(), origin: crate::api::Origin { address, username: None, password: None } }
    }

    fn verdict(order: Order, stamp: impl FnOnce(&mut Stamp), change: impl FnOnce(&mut Known)) -> &'static str {
        let mut known = known();
        change(&mut known);
        admit(&command(order, stamp), &known).map_or_else(|refusal| refusal.reason, |()| "admitted")
    }

    #[test]
    fn a_fitting_command_is_admitted() {
        assert_eq!(verdict(promote(), |_| {}, |_| {}), "admitted");
        assert_eq!(verdict(start(), |s| s.run_id = None, |k| k.run_id = None), "admitted");
        assert_eq!(verdict(follow_origin(), |s| s.run_id = None, |_| {}), "admitted");
    }

    #[test]
    fn nothing_is_obeyed_before_the_record_was_read() {
        assert_eq!(verdict(Order::Fence, |_| {}, |k| k.record = None), "no-record");
        assert!(needs_reading(&command(Order::Fence, |_| {}), &Known { record: None, ..known() }));
    }

    #[test]
    fn what_is_meant_for_somebody_else_is_refused() {
        assert_eq!(verdict(Order::Fence, |s| s.cluster_id = "d".into(), |_| {}), "foreign-cluster");
        assert_eq!(verdict(Order::Fence, |s| s.task_id = "u".into(), |_| {}), "other-task");
        assert_eq!(verdict(Order::Fence, |s| s.run_id = Some("q".into()), |_| {}), "other-run");
        assert_eq!(verdict(promote(), |s| s.run_id = None, |_| {}), "no-run-id");
        assert_eq!(verdict(promote(), |_| {}, |k| k.run_id = None), "other-run");
    }

    #[test]
    fn what_was_decided_on_something_older_is_refused() {
        assert_eq!(verdict(promote(), |s| s.epoch = 2, |_| {}), "stale-epoch");
        assert_eq!(verdict(promote(), |s| s.record_version = 4, |_| {}), "stale-record");
        assert_eq!(verdict(promote(), |s| s.generation = "h".into(), |_| {}), "other-generation");
        assert_eq!(verdict(start(), |s| s.epoch = 2, |_| {}), "stale-epoch");
    }

    #[test]
    fn a_newer_record_is_read_first_and_refused_while_it_cannot_be_seen() {
        let newer = command(promote(), |s| (s.epoch, s.record_version) = (4, 6));
        assert!(needs_reading(&newer, &known()));
        assert_eq!(admit(&newer, &known()).unwrap_err().reason, "record-not-seen");
        assert!(needs_reading(&command(promote(), |s| s.generation = "h".into()), &known()));
        assert!(!needs_reading(&command(promote(), |_| {}), &known()));
    }

    #[test]
    fn a_higher_epoch_on_the_record_that_was_read_is_admitted() {
        assert_eq!(verdict(Order::Fence, |s| s.epoch = 4, |_| {}), "admitted");
    }

    #[test]
    fn stopping_begins_nothing_but_may_still_be_fenced_and_stopped() {
        for order in [start(), promote(), follow_origin()] {
            assert_eq!(verdict(order, |_| {}, |k| k.stopping = true), "stopping");
        }
        for order in [Order::Fence, Order::Stop] {
            assert_eq!(verdict(order, |_| {}, |k| k.stopping = true), "admitted");
        }
    }

    #[test]
    fn stopping_a_server_that_is_proven_dead_is_done_already() {
        assert_eq!(verdict(Order::Stop, |s| s.run_id = Some("old".into()), |k| k.run_id = None), "admitted");
        assert_eq!(verdict(Order::Stop, |s| s.run_id = Some("new".into()), |k| k.run_id = None), "other-run");
    }
}
