//! The IDL's tables: which field lies where, for every struct of [`crate::types`].

use thrift::protocol::TType;

use super::Error;
use super::io::{
    List, Map, Maybe, Plain, Reader, Set, Slot, Sparse, Wire, Writer, read_fields, slot_type, variant_type, wire_struct,
    wire_union, write_field, write_fields,
};
use crate::types::*;

macro_rules! wire_enum {
    ($($name:ident)+) => {
        $(impl Wire for $name {
            const TYPE: TType = TType::I32;
            fn read(reader: &mut Reader<'_>) -> Result<Self, Error> {
                i32::read(reader).map($name)
            }
            fn write(&self, writer: &mut Writer) -> Result<(), Error> {
                self.0.write(writer)
            }
        })+
    };
}

wire_enum!(ResponseCode ScheduleStatus JobUpdateStatus CronCollisionPolicy VolumeMode);
wire_enum!(JobUpdateAction JobUpdatePulseStatus MaintenanceMode);

wire_struct!(JobKey { 1 => role: Plain, 2 => environment: Plain, 3 => name: Plain, });
wire_struct!(JobConfiguration {
    4 => cron_schedule: Maybe<Plain>,
    5 => cron_collision_policy: Maybe<Plain>,
    6 => task_config: Plain,
    7 => owner: Maybe<Plain>,
    8 => instance_count: Plain,
    9 => key: Plain,
});
wire_struct!(TaskConfig {
    7 => is_service: Plain,
    11 => priority: Plain,
    13 => max_task_failures: Plain,
    17 => owner: Maybe<Plain>,
    18 => production: Maybe<Plain>,
    20 => constraints: Set,
    22 => task_links: Maybe<Map>,
    23 => contact_email: Maybe<Plain>,
    25 => executor_config: Maybe<Plain>,
    27 => metadata: Maybe<Set>,
    28 => job: Plain,
    29 => container: Plain,
    30 => tier: Maybe<Plain>,
    32 => resources: Set,
    33 => mesos_fetcher_uris: Maybe<Set>,
    34 => partition_policy: Maybe<Plain>,
    35 => sla_policy: Maybe<Plain>,
});
wire_struct!(Identity { 2 => user: Plain, });
wire_struct!(Metadata { 1 => key: Plain, 2 => value: Plain, });
wire_struct!(ExecutorConfig { 1 => name: Plain, 2 => data: Maybe<Plain>, });
wire_struct!(FetcherUri {
    1 => value: Plain,
    2 => extract: Maybe<Plain>,
    3 => cache: Maybe<Plain>,
    4 => output_file: Maybe<Plain>,
});

wire_struct!(Constraint { 1 => name: Plain, 2 => constraint: Plain, });
wire_union!(TaskConstraint { 1 => Value: Plain, 2 => Limit: Limit, });
wire_struct!(ValueConstraint { 1 => negated: Plain, 2 => values: Set, });
wire_union!(Resource {
    1 => NumCpus: Plain,
    2 => RamMb: Plain,
    3 => DiskMb: Plain,
    4 => NamedPort: Plain,
    5 => NumGpus: Plain,
    6 => IpAddr: Plain,
});

wire_union!(Container { 1 => Mesos: Plain, 2 => Docker: Plain, });
wire_struct!(MesosContainer { 1 => image: Maybe<Plain>, 2 => volumes: Maybe<List>, });
wire_union!(Image { 1 => Docker: Plain, 2 => Appc: Plain, });
wire_struct!(DockerImage { 1 => name: Plain, 2 => tag: Plain, });
wire_struct!(AppcImage { 1 => name: Plain, 2 => image_id: Plain, });
wire_struct!(Volume { 1 => container_path: Plain, 2 => host_path: Plain, 3 => mode: Plain, });
wire_struct!(DockerContainer { 1 => image: Plain, 2 => parameters: Maybe<List>, });
wire_struct!(DockerParameter { 1 => name: Plain, 2 => value: Plain, });

wire_struct!(PartitionPolicy { 1 => reschedule: Plain, 2 => delay_secs: Maybe<Plain>, });
wire_union!(SlaPolicy { 1 => Percentage: Plain, 2 => Count: Plain, 3 => Coordinator: Plain, });
wire_struct!(PercentageSlaPolicy { 1 => percentage: Plain, 2 => duration_secs: Plain, });
wire_struct!(CountSlaPolicy { 1 => count: Plain, 2 => duration_secs: Plain, });
wire_struct!(CoordinatorSlaPolicy { 1 => coordinator_url: Plain, 2 => status_key: Plain, });

wire_struct!(TaskQuery {
    2 => job_name: Maybe<Plain>,
    4 => task_ids: Sparse,
    5 => statuses: Sparse,
    7 => instance_ids: Sparse,
    9 => environment: Maybe<Plain>,
    10 => slave_hosts: Sparse,
    11 => job_keys: Sparse,
    12 => offset: Maybe<Plain>,
    13 => limit: Maybe<Plain>,
    14 => role: Maybe<Plain>,
});
wire_struct!(InstanceKey { 1 => job_key: Plain, 2 => instance_id: Plain, });
wire_struct!(JobUpdateQuery {
    2 => role: Maybe<Plain>,
    3 => job_key: Maybe<Plain>,
    4 => user: Maybe<Plain>,
    5 => update_statuses: Sparse,
    6 => offset: Maybe<Plain>,
    7 => limit: Maybe<Plain>,
    8 => key: Maybe<Plain>,
});

wire_struct!(ScheduledTask {
    1 => assigned_task: Plain,
    2 => status: Plain,
    3 => failure_count: Plain,
    4 => task_events: List,
    5 => ancestor_id: Maybe<Plain>,
    6 => times_partitioned: Plain,
});
wire_struct!(AssignedTask {
    1 => task_id: Plain,
    2 => slave_id: Maybe<Plain>,
    3 => slave_host: Maybe<Plain>,
    4 => task: Plain,
    5 => assigned_ports: Map,
    6 => instance_id: Plain,
});
wire_struct!(TaskEvent { 1 => timestamp: Plain, 2 => status: Plain, 3 => message: Maybe<Plain>, 4 => scheduler: Maybe<Plain>, });

wire_struct!(JobUpdateKey { 1 => job: Plain, 2 => id: Plain, });
wire_struct!(JobUpdateState { 1 => status: Plain, 2 => created_timestamp_ms: Plain, 3 => last_modified_timestamp_ms: Plain, });
wire_struct!(JobUpdateSummary { 3 => user: Maybe<Plain>, 4 => state: Maybe<Plain>, 5 => key: Plain, 6 => metadata: Maybe<Set>, });
wire_struct!(Range { 1 => first: Plain, 2 => last: Plain, });
wire_union!(JobUpdateStrategy { 1 => Queue: Wrapped<Plain>, 2 => Batch: Plain, 3 => VariableBatch: Plain, });
wire_struct!(BatchStrategy { 1 => group_size: Plain, 2 => autopause_after_batch: Plain, });
wire_struct!(VariableBatchStrategy { 1 => group_sizes: List, 2 => autopause_after_batch: Plain, });
wire_struct!(JobUpdateSettings {
    1 => update_group_size: Plain,
    2 => max_per_instance_failures: Plain,
    3 => max_failed_instances: Plain,
    5 => min_wait_in_instance_running_ms: Plain,
    6 => rollback_on_failure: Plain,
    7 => update_only_these_instances: Set,
    8 => wait_for_batch_completion: Plain,
    9 => block_if_no_pulses_after_ms: Maybe<Plain>,
    10 => sla_aware: Maybe<Plain>,
    11 => update_strategy: Maybe<Plain>,
});
wire_struct!(JobUpdateRequest {
    1 => task_config: Plain,
    2 => instance_count: Plain,
    3 => settings: Plain,
    4 => metadata: Maybe<Set>,
});
wire_struct!(InstanceTaskConfig { 1 => task: Plain, 2 => instances: Set, });
wire_struct!(JobUpdateInstructions { 1 => initial_state: Set, 2 => desired_state: Maybe<Plain>, 3 => settings: Plain, });
wire_struct!(JobUpdate { 1 => summary: Plain, 2 => instructions: Plain, });
wire_struct!(JobUpdateEvent { 1 => status: Plain, 2 => timestamp_ms: Plain, 3 => user: Maybe<Plain>, 4 => message: Maybe<Plain>, });
wire_struct!(JobInstanceUpdateEvent {
    1 => instance_id: Plain,
    2 => timestamp_ms: Plain,
    3 => action: Plain,
    4 => message: Maybe<Plain>,
});
wire_struct!(JobUpdateDetails { 1 => update: Plain, 2 => update_events: List, 3 => instance_events: List, });
wire_struct!(StartedJobUpdate { 1 => key: Plain, 2 => update_summary: Maybe<Plain>, });
wire_struct!(ConfigGroup { 1 => config: Plain, 3 => instances: Set, });
wire_struct!(JobUpdateDiff { 1 => add: Set, 2 => remove: Set, 3 => update: Set, 4 => unchanged: Set, });
wire_struct!(HostStatus { 1 => host: Plain, 2 => mode: Plain, });

wire_struct!(Response {
    1 => response_code: Plain,
    3 => result: Maybe<Plain>,
    5 => server_info: Maybe<Plain>,
    6 => details: List,
});
wire_struct!(ServerInfo { 1 => cluster_name: Plain, 3 => stats_url_prefix: Maybe<Plain>, });
wire_struct!(ResponseDetail { 1 => message: Maybe<Plain>, });
wire_union!(Payload {
    1 => Populated: Wrapped<Plain, 2>,
    3 => Tasks: Wrapped<List>,
    4 => Jobs: Wrapped<Set>,
    7 => MaintenanceStarted: Wrapped<Set>,
    8 => HostsDrained: Wrapped<Set>,
    10 => MaintenanceStatus: Wrapped<Set>,
    11 => MaintenanceEnded: Wrapped<Set>,
    17 => Roles: Wrapped<Set>,
    22 => StartedUpdate: Plain,
    23 => JobUpdates: Wrapped<List>,
    24 => UpdateDetails: Wrapped<List, 2>,
    25 => Pulse: Wrapped<Plain>,
    26 => UpdateDiff: Plain,
});
wire_struct!(RoleSummary { 1 => role: Plain, 2 => job_count: Plain, 3 => cron_job_count: Plain, });

/// A value in a struct of its own, as its only field.
pub(super) struct Wrapped<S, const ID: i16 = 1>(S);

/// The limit of a constraint: an i32 in a struct of its own.
type Limit = Wrapped<Plain>;

impl<F: Default, S: Slot<F>, const ID: i16> Slot<F> for Wrapped<S, ID> {
    const TYPE: TType = TType::Struct;
    fn read(reader: &mut Reader<'_>) -> Result<F, Error> {
        let mut value = F::default();
        read_fields(reader, |reader, id, found| {
            let ours = id == ID && found == S::TYPE;
            if ours {
                value = S::read(reader)?;
            }
            Ok(ours)
        })?;
        Ok(value)
    }
    fn write(field: &F, writer: &mut Writer) -> Result<(), Error> {
        write_fields(writer, |writer| write_field::<_, S>(writer, ID, field))
    }
}
