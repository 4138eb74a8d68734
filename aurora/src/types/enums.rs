//! Open enums: a number with names for the values we know.

use std::fmt;

macro_rules! open_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$value_meta:meta])* $constant:ident = $number:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(
            /// The number on the wire.
            pub i32,
        );

        impl $name {
            $($(#[$value_meta])* pub const $constant: $name = $name($number);)+

            /// The IDL's name of the value; `None` for a number we do not know.
            pub fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some(stringify!($constant)),)+
                    _ => None,
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, "{}({})", stringify!($name), self.0),
                }
            }
        }
    };
}

open_enum! {
    /// What the scheduler says about a call that it understood.
    ResponseCode {
        /// Refused by validation.
        INVALID_REQUEST = 0,
        /// Done, or nothing to do.
        OK = 1,
        /// The call raised an exception inside the scheduler.
        ERROR = 2,
        /// Never sent by known schedulers.
        WARNING = 3,
        /// Authenticated, but not permitted.
        AUTH_FAILED = 4,
        /// The job has an update in progress.
        JOB_UPDATING_ERROR = 5,
        /// The scheduler is starting or stopping: it did nothing.
        ERROR_TRANSIENT = 6,
    }
}

open_enum! {
    /// Where a task stands in the scheduler's books. It says nothing certain about the process: LOST and PARTITIONED tasks may run.
    ScheduleStatus {
        /// Waits for a host.
        PENDING = 0,
        /// The executor prepares the sandbox.
        STARTING = 1,
        /// The executor reports it running.
        RUNNING = 2,
        /// Ended with success.
        FINISHED = 3,
        /// Ended with failure.
        FAILED = 4,
        /// Ended because asked to.
        KILLED = 5,
        /// Asked to end, for good.
        KILLING = 6,
        /// Given up: the host or the executor does not answer.
        LOST = 7,
        /// Has a host, not started yet.
        ASSIGNED = 9,
        /// Not yet stored.
        INIT = 11,
        /// Asked to end, a replacement follows.
        RESTARTING = 12,
        /// Makes room for a task of higher tier.
        PREEMPTING = 13,
        /// Ended too fast too often: waits before PENDING.
        THROTTLED = 16,
        /// Its host is being drained.
        DRAINING = 17,
        /// Its host is unreachable.
        PARTITIONED = 18,
    }
}

impl ScheduleStatus {
    /// The statuses of a task that exists, from PENDING to KILLING.
    pub const ACTIVE: [ScheduleStatus; 10] = [
        ScheduleStatus::PENDING,
        ScheduleStatus::THROTTLED,
        ScheduleStatus::ASSIGNED,
        ScheduleStatus::STARTING,
        ScheduleStatus::RUNNING,
        ScheduleStatus::PARTITIONED,
        ScheduleStatus::RESTARTING,
        ScheduleStatus::PREEMPTING,
        ScheduleStatus::DRAINING,
        ScheduleStatus::KILLING,
    ];
    /// The statuses of a task that has ended.
    pub const TERMINAL: [ScheduleStatus; 4] =
        [ScheduleStatus::FINISHED, ScheduleStatus::FAILED, ScheduleStatus::KILLED, ScheduleStatus::LOST];

    /// Whether the task occupies its instance. False for numbers we do not know.
    pub fn is_active(self) -> bool {
        Self::ACTIVE.contains(&self)
    }
    /// Whether the scheduler counts the task as ended. False for numbers we do not know.
    pub fn is_terminal(self) -> bool {
        Self::TERMINAL.contains(&self)
    }
}

open_enum! {
    /// Where a job update stands.
    JobUpdateStatus {
        /// Changing instances.
        ROLLING_FORWARD = 0,
        /// Changing instances back.
        ROLLING_BACK = 1,
        /// Paused on the way forward.
        ROLL_FORWARD_PAUSED = 2,
        /// Paused on the way back.
        ROLL_BACK_PAUSED = 3,
        /// Ended with success.
        ROLLED_FORWARD = 4,
        /// Ended where it began.
        ROLLED_BACK = 5,
        /// Ended by request, instances left as they were.
        ABORTED = 6,
        /// Ended by a fault of the scheduler.
        ERROR = 7,
        /// Ended with too many failures.
        FAILED = 8,
        /// Blocked until its coordinator sends a pulse.
        ROLL_FORWARD_AWAITING_PULSE = 9,
        /// Blocked on the way back until its coordinator sends a pulse.
        ROLL_BACK_AWAITING_PULSE = 10,
    }
}

impl JobUpdateStatus {
    /// The statuses in which an update locks the job against kill, restart and add, also when paused or blocked.
    pub const ACTIVE: [JobUpdateStatus; 6] = [
        JobUpdateStatus::ROLLING_FORWARD,
        JobUpdateStatus::ROLLING_BACK,
        JobUpdateStatus::ROLL_FORWARD_PAUSED,
        JobUpdateStatus::ROLL_BACK_PAUSED,
        JobUpdateStatus::ROLL_FORWARD_AWAITING_PULSE,
        JobUpdateStatus::ROLL_BACK_AWAITING_PULSE,
    ];

    /// Whether the update still locks the job. False for numbers we do not know.
    pub fn is_active(self) -> bool {
        Self::ACTIVE.contains(&self)
    }
}

open_enum! {
    /// What a cron job does when its last run still runs.
    CronCollisionPolicy {
        /// Kills the running one. The value to send for a job without a schedule.
        KILL_EXISTING = 0,
        /// Skips the new one.
        CANCEL_NEW = 1,
        /// Runs both; refused by today's schedulers.
        RUN_OVERLAP = 2,
    }
}

open_enum! {
    /// How a volume is mounted.
    VolumeMode {
        /// Read and write.
        RW = 1,
        /// Read only.
        RO = 2,
    }
}

open_enum! {
    /// What an update did with an instance.
    JobUpdateAction {
        /// Done.
        INSTANCE_UPDATED = 1,
        /// Done on the way back.
        INSTANCE_ROLLED_BACK = 2,
        /// Begun.
        INSTANCE_UPDATING = 3,
        /// Begun on the way back.
        INSTANCE_ROLLING_BACK = 4,
        /// Failed too often.
        INSTANCE_UPDATE_FAILED = 5,
        /// Failed too often on the way back.
        INSTANCE_ROLLBACK_FAILED = 6,
    }
}

open_enum! {
    /// What became of a pulse.
    JobUpdatePulseStatus {
        /// It counts: the update is active and coordinated.
        OK = 1,
        /// It does nothing: the update has ended, or was never coordinated, **or is unknown**.
        FINISHED = 2,
    }
}

open_enum! {
    /// Where the maintenance of a host stands.
    MaintenanceMode {
        /// In use.
        NONE = 1,
        /// Less preferred for new tasks.
        SCHEDULED = 2,
        /// Gets no new tasks; those that are there are on their way out.
        DRAINING = 3,
        /// Empty, and gets no new tasks.
        DRAINED = 4,
    }
}
