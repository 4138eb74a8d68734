//! Structs of the scheduler's API, written by hand from its IDL: only what we send or read, nothing generated.
//!
//! A field the scheduler may leave out is an `Option`; any other field that is missing on the wire reads as its default
//! (empty, 0, false). Sets are `Vec`s that keep the order of the wire. Enums are open: numbers of a newer scheduler pass
//! through unchanged and print as numbers.

mod config;
mod enums;
mod instances;
mod maintenance;
mod query;
mod response;
mod task;
mod update;

pub use config::{
    AppcImage, Constraint, Container, CoordinatorSlaPolicy, CountSlaPolicy, DockerContainer, DockerImage, DockerParameter,
    ExecutorConfig, FetcherUri, Identity, Image, JobConfiguration, JobKey, MesosContainer, Metadata, ParseJobKeyError,
    PartitionPolicy, PercentageSlaPolicy, Resource, SlaPolicy, TaskConfig, TaskConstraint, ValueConstraint, Volume,
};
pub use enums::{
    CronCollisionPolicy, JobUpdateAction, JobUpdatePulseStatus, JobUpdateStatus, MaintenanceMode, ResponseCode, ScheduleStatus,
    VolumeMode,
};
pub use instances::InstanceSet;
pub use maintenance::HostStatus;
pub use query::{InstanceKey, JobUpdateQuery, TaskQuery};
pub use response::{Payload, Response, ResponseDetail, RoleSummary, ServerInfo};
pub use task::{AssignedTask, ScheduledTask, TaskEvent};
pub use update::{
    BatchStrategy, ConfigGroup, InstanceTaskConfig, JobInstanceUpdateEvent, JobUpdate, JobUpdateDetails, JobUpdateDiff,
    JobUpdateEvent, JobUpdateInstructions, JobUpdateKey, JobUpdateRequest, JobUpdateSettings, JobUpdateState, JobUpdateStrategy,
    JobUpdateSummary, Range, StartedJobUpdate, VariableBatchStrategy,
};
