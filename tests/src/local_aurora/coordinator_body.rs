//! A task as JSON, the way coordinators get it: fields by their names in the IDL, booleans as 0 and 1, enums as numbers, unions
//! as objects of one key, unset fields left out. Pure.

use aurora::types::{
    Constraint, Container, FetcherUri, Metadata, Resource, ScheduledTask, SlaPolicy, TaskConfig, TaskConstraint, TaskEvent,
};
use serde_json::{Map, Value, json};

/// An object without the fields that are null.
fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
    let set = fields.into_iter().filter(|(_, value)| !value.is_null());
    Value::Object(set.map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>())
}

fn list<T>(elements: &[T], json: impl Fn(&T) -> Value) -> Value {
    elements.iter().map(json).collect()
}

/// The whole task.
pub fn task_json(task: &ScheduledTask) -> Value {
    let assigned = &task.assigned_task;
    let assigned = object([
        ("taskId", json!(assigned.task_id)),
        ("slaveId", json!(assigned.slave_id)),
        ("slaveHost", json!(assigned.slave_host)),
        ("task", config_json(&assigned.task)),
        ("assignedPorts", json!(assigned.assigned_ports)),
        ("instanceId", json!(assigned.instance_id)),
    ]);
    object([
        ("assignedTask", assigned),
        ("status", json!(task.status.0)),
        ("failureCount", json!(task.failure_count)),
        ("taskEvents", list(&task.task_events, event_json)),
        ("ancestorId", json!(task.ancestor_id)),
        ("timesPartitioned", json!(task.times_partitioned)),
    ])
}

fn event_json(event: &TaskEvent) -> Value {
    object([
        ("timestamp", json!(event.timestamp)),
        ("status", json!(event.status.0)),
        ("message", json!(event.message)),
        ("scheduler", json!(event.scheduler)),
    ])
}

fn config_json(config: &TaskConfig) -> Value {
    let executor = |e: &aurora::types::ExecutorConfig| object([("name", json!(e.name)), ("data", json!(e.data))]);
    let metadata = |set: &Vec<Metadata>| list(set, |m| json!({ "key": m.key, "value": m.value }));
    let partition = |policy: &aurora::types::PartitionPolicy| {
        object([("reschedule", json!(i32::from(policy.reschedule))), ("delaySecs", json!(policy.delay_secs))])
    };
    object([
        ("isService", json!(i32::from(config.is_service))),
        ("priority", json!(config.priority)),
        ("maxTaskFailures", json!(config.max_task_failures)),
        ("owner", json!(config.owner.as_ref().map(|owner| json!({ "user": owner.user })))),
        ("production", json!(config.production.map(i32::from))),
        ("constraints", list(&config.constraints, constraint_json)),
        ("taskLinks", json!(config.task_links)),
        ("contactEmail", json!(config.contact_email)),
        ("executorConfig", json!(config.executor_config.as_ref().map(executor))),
        ("metadata", json!(config.metadata.as_ref().map(metadata))),
        ("job", json!({ "role": config.job.role, "environment": config.job.environment, "name": config.job.name })),
        ("container", container_json(&config.container)),
        ("tier", json!(config.tier)),
        ("resources", list(&config.resources, resource_json)),
        ("mesosFetcherUris", json!(config.mesos_fetcher_uris.as_ref().map(|uris| list(uris, uri_json)))),
        ("partitionPolicy", json!(config.partition_policy.as_ref().map(partition))),
        ("slaPolicy", json!(config.sla_policy.as_ref().map(policy_json))),
    ])
}

fn constraint_json(constraint: &Constraint) -> Value {
    let condition = match &constraint.constraint {
        TaskConstraint::Value(wanted) => json!({ "value": { "negated": i32::from(wanted.negated), "values": wanted.values } }),
        TaskConstraint::Limit(limit) => json!({ "limit": { "limit": limit } }),
        TaskConstraint::Unknown(_) => json!({}),
    };
    json!({ "name": constraint.name, "constraint": condition })
}

/// This scheduler takes no other containers.
fn container_json(container: &Container) -> Value {
    match container {
        Container::Mesos(mesos) => json!({ "mesos": object([("volumes", json!(mesos.volumes.as_ref().map(|_| json!([]))))]) }),
        Container::Docker(docker) => json!({ "docker": { "image": docker.image } }),
        Container::Unknown(_) => json!({}),
    }
}

fn resource_json(resource: &Resource) -> Value {
    match resource {
        Resource::NumCpus(value) => json!({ "numCpus": value }),
        Resource::RamMb(value) => json!({ "ramMb": value }),
        Resource::DiskMb(value) => json!({ "diskMb": value }),
        Resource::NamedPort(name) => json!({ "namedPort": name }),
        Resource::NumGpus(value) => json!({ "numGpus": value }),
        Resource::IpAddr(value) => json!({ "ipAddr": value }),
        Resource::Unknown(_) => json!({}),
    }
}

fn uri_json(uri: &FetcherUri) -> Value {
    object([
        ("value", json!(uri.value)),
        ("extract", json!(uri.extract.map(i32::from))),
        ("cache", json!(uri.cache.map(i32::from))),
        ("outputFile", json!(uri.output_file)),
    ])
}

fn policy_json(policy: &SlaPolicy) -> Value {
    match policy {
        SlaPolicy::Percentage(p) => {
            json!({ "percentageSlaPolicy": { "percentage": p.percentage, "durationSecs": p.duration_secs } })
        }
        SlaPolicy::Count(p) => json!({ "countSlaPolicy": { "count": p.count, "durationSecs": p.duration_secs } }),
        SlaPolicy::Coordinator(p) => {
            json!({ "coordinatorSlaPolicy": { "coordinatorUrl": p.coordinator_url, "statusKey": p.status_key } })
        }
        SlaPolicy::Unknown(_) => json!({}),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use aurora::types::{AssignedTask, CoordinatorSlaPolicy, ExecutorConfig, Identity, JobKey, ScheduleStatus};

    use super::*;

    #[test]
    fn a_task_has_the_shape_of_the_real_request() {
        let policy = CoordinatorSlaPolicy { coordinator_url: "http://c/x".to_owned(), status_key: "drain".to_owned() };
        let config = TaskConfig {
            is_service: true,
            max_task_failures: 1,
            owner: Some(Identity { user: "redis".to_owned() }),
            production: Some(true),
            constraints: vec![Constraint { name: "host".to_owned(), constraint: TaskConstraint::Limit(1) }],
            task_links: Some(BTreeMap::new()),
            executor_config: Some(ExecutorConfig { name: "AuroraExecutor".to_owned(), data: Some("...".to_owned()) }),
            job: JobKey::new("redis", "prod", "cache"),
            tier: Some("preferred".to_owned()),
            resources: vec![Resource::RamMb(2048), Resource::NumCpus(1.5), Resource::NamedPort("redis".to_owned())],
            sla_policy: Some(SlaPolicy::Coordinator(policy)),
            ..TaskConfig::default()
        };
        let (timestamp, status) = (1_700_000_000_000, ScheduleStatus::RUNNING);
        let task = ScheduledTask {
            assigned_task: AssignedTask {
                task_id: "t1".to_owned(),
                slave_id: Some("S1".to_owned()),
                slave_host: Some("agent1".to_owned()),
                task: config,
                assigned_ports: BTreeMap::from([("redis".to_owned(), 31001)]),
                instance_id: 1,
            },
            status,
            task_events: vec![TaskEvent { timestamp, status, message: None, scheduler: Some("s1".to_owned()) }],
            ..ScheduledTask::default()
        };
        let real = r#"{"assignedTask":{"taskId":"t1","slaveId":"S1","slaveHost":"agent1",
            "task":{"isService":1,"priority":0,"maxTaskFailures":1,"owner":{"user":"redis"},"production":1,
              "constraints":[{"name":"host","constraint":{"limit":{"limit":1}}}],"taskLinks":{},
              "executorConfig":{"name":"AuroraExecutor","data":"..."},
              "job":{"role":"redis","environment":"prod","name":"cache"},"container":{"mesos":{}},
              "tier":"preferred","resources":[{"ramMb":2048},{"numCpus":1.5},{"namedPort":"redis"}],
              "slaPolicy":{"coordinatorSlaPolicy":{"coordinatorUrl":"http://c/x","statusKey":"drain"}}},
            "assignedPorts":{"redis":31001},"instanceId":1},
            "status":2,"failureCount":0,
            "taskEvents":[{"timestamp":1700000000000,"status":2,"scheduler":"s1"}],"timesPartitioned":0}"#;
        assert_eq!(task_json(&task), serde_json::from_str::<Value>(real).unwrap());
    }
}
