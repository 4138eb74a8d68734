//! Every field of a task's configuration and of an update survives writing and reading, also those that no recording has.

use std::collections::BTreeMap;

use aurora::types::*;
use aurora::wire::{Call, Reply, decode_call, decode_reply, encode_call, encode_reply};

fn text(text: &str) -> String {
    text.to_owned()
}

/// A configuration with every optional field set.
fn full() -> TaskConfig {
    TaskConfig {
        is_service: true,
        priority: 3,
        max_task_failures: -1,
        owner: Some(Identity { user: text("operator") }),
        production: Some(false),
        constraints: vec![
            Constraint { name: text("host"), constraint: TaskConstraint::Limit(1) },
            Constraint {
                name: text("rack"),
                constraint: TaskConstraint::Value(ValueConstraint { negated: true, values: vec![text("b"), text("a")] }),
            },
        ],
        task_links: Some(BTreeMap::from([(text("health"), text("http://%host%:%port:health%"))])),
        contact_email: Some(text("ops@example.com")),
        executor_config: Some(ExecutorConfig { name: text("AuroraExecutor"), data: Some(text("{\"ü\": 1}")) }),
        metadata: Some(vec![Metadata { key: text("k"), value: text("v") }]),
        job: JobKey::new("redis", "prod", "cache"),
        container: Container::Docker(DockerContainer {
            image: text("redis:7"),
            parameters: Some(vec![DockerParameter { name: text("net"), value: text("host") }]),
        }),
        tier: Some(text("preferred")),
        resources: vec![
            Resource::NumCpus(0.25),
            Resource::RamMb(1 << 40),
            Resource::DiskMb(512),
            Resource::NamedPort(text("redis")),
            Resource::NumGpus(1),
            Resource::IpAddr(2),
        ],
        mesos_fetcher_uris: Some(vec![FetcherUri {
            value: text("hdfs://nn/agent"),
            extract: Some(true),
            cache: None,
            output_file: Some(text("agent")),
        }]),
        partition_policy: Some(PartitionPolicy { reschedule: true, delay_secs: Some(30) }),
        sla_policy: Some(SlaPolicy::Coordinator(CoordinatorSlaPolicy {
            coordinator_url: text("http://c"),
            status_key: text("drain"),
        })),
    }
}

fn assert_survives(task_config: TaskConfig) {
    assert_call_survives(Call::CreateJob { description: Box::new(JobConfiguration::service(task_config, 5)) });
}

fn assert_call_survives(call: Call) {
    let bytes = encode_call(&call, 1).expect("known kinds only");
    assert_eq!(decode_call(&bytes).expect("what was written"), (1, call));
}

#[test]
fn every_field_survives() {
    assert_survives(full());
    assert_survives(TaskConfig { is_service: true, ..TaskConfig::default() });
}

#[test]
fn every_kind_of_container_survives() {
    let volume = Volume { container_path: text("/data"), host_path: text("/srv"), mode: VolumeMode::RO };
    let docker = Image::Docker(DockerImage { name: text("redis"), tag: text("7") });
    let appc = Image::Appc(AppcImage { name: text("redis"), image_id: text("sha512-1") });
    for image in [None, Some(docker), Some(appc)] {
        let container = Container::Mesos(MesosContainer { image, volumes: Some(vec![volume.clone()]) });
        assert_survives(TaskConfig { container, ..full() });
    }
}

#[test]
fn every_kind_of_sla_policy_survives() {
    let percentage = SlaPolicy::Percentage(PercentageSlaPolicy { percentage: 99.5, duration_secs: 60 });
    let count = SlaPolicy::Count(CountSlaPolicy { count: 2, duration_secs: 60 });
    for policy in [percentage, count] {
        assert_survives(TaskConfig { sla_policy: Some(policy), ..full() });
    }
}

#[test]
fn every_restriction_of_a_query_survives() {
    let query = TaskQuery {
        job_name: Some(text("cache")),
        task_ids: vec![text("t1"), text("t0")],
        statuses: ScheduleStatus::TERMINAL.to_vec(),
        instance_ids: vec![2, 0],
        environment: Some(text("prod")),
        slave_hosts: vec![text("h")],
        job_keys: vec![JobKey::new("a", "b", "c")],
        offset: Some(1),
        limit: Some(2),
        role: Some(text("redis")),
    };
    let call = Call::GetTasksStatus { query };
    assert_eq!(decode_call(&encode_call(&call, 0).unwrap()).unwrap().1, call);
    let query = JobUpdateQuery {
        role: Some(text("redis")),
        user: Some(text("me")),
        offset: Some(1),
        limit: Some(2),
        key: Some(JobUpdateKey { job: JobKey::new("a", "b", "c"), id: text("u") }),
        ..JobUpdateQuery::active(&JobKey::new("a", "b", "c"))
    };
    let call = Call::GetJobUpdateSummaries { query };
    assert_eq!(decode_call(&encode_call(&call, 0).unwrap()).unwrap().1, call);
}

#[test]
fn every_setting_and_strategy_of_an_update_survives() {
    let batch = JobUpdateStrategy::Batch(BatchStrategy { group_size: 2, autopause_after_batch: true });
    let steps = VariableBatchStrategy { group_sizes: vec![1, 2, 4], autopause_after_batch: true };
    for strategy in [JobUpdateStrategy::Queue(3), batch, JobUpdateStrategy::VariableBatch(steps)] {
        let settings = JobUpdateSettings {
            update_group_size: 2,
            max_per_instance_failures: 1,
            max_failed_instances: 2,
            min_wait_in_instance_running_ms: 45_000,
            rollback_on_failure: true,
            update_only_these_instances: vec![Range { first: 1, last: 1 }, Range { first: 3, last: 4 }],
            wait_for_batch_completion: true,
            block_if_no_pulses_after_ms: Some(60_000),
            sla_aware: Some(true),
            update_strategy: Some(strategy),
        };
        let metadata = Some(vec![Metadata { key: text("op"), value: text("7") }]);
        let request = Box::new(JobUpdateRequest { task_config: full(), instance_count: 5, settings, metadata });
        assert_call_survives(Call::GetJobUpdateDiff { request: request.clone() });
        assert_call_survives(Call::StartJobUpdate { request, message: Some(text("upgrade")) });
    }
}

#[test]
fn every_call_on_an_update_survives() {
    let key = JobUpdateKey { job: JobKey::new("a", "b", "c"), id: text("u") };
    for message in [None, Some(text("why"))] {
        assert_call_survives(Call::PauseJobUpdate { key: key.clone(), message: message.clone() });
        assert_call_survives(Call::ResumeJobUpdate { key: key.clone(), message: message.clone() });
        assert_call_survives(Call::AbortJobUpdate { key: key.clone(), message: message.clone() });
        assert_call_survives(Call::RollbackJobUpdate { key: key.clone(), message });
    }
    assert_call_survives(Call::PulseJobUpdate { key });
}

#[test]
fn every_call_about_maintenance_survives() {
    let hosts = vec![text("h2"), text("h1")];
    assert_call_survives(Call::StartMaintenance { hosts: hosts.clone() });
    assert_call_survives(Call::DrainHosts { hosts: hosts.clone() });
    assert_call_survives(Call::MaintenanceStatus { hosts: hosts.clone() });
    assert_call_survives(Call::EndMaintenance { hosts: hosts.clone() });
    assert_call_survives(Call::SlaDrainHosts { hosts, default_sla_policy: full().sla_policy, timeout_secs: 900 });
}

#[test]
fn every_answer_about_updates_and_maintenance_survives() {
    let group = ConfigGroup { config: full(), instances: vec![Range { first: 0, last: 2 }] };
    let hosts = vec![HostStatus { host: text("h1"), mode: MaintenanceMode::DRAINING }];
    let diff = JobUpdateDiff { add: vec![group.clone()], remove: vec![], update: vec![group.clone()], unchanged: vec![group] };
    let payloads = [
        ("getJobUpdateDiff", Payload::UpdateDiff(diff)),
        ("pulseJobUpdate", Payload::Pulse(JobUpdatePulseStatus::OK)),
        ("startMaintenance", Payload::MaintenanceStarted(hosts.clone())),
        ("drainHosts", Payload::HostsDrained(hosts.clone())),
        ("maintenanceStatus", Payload::MaintenanceStatus(hosts.clone())),
        ("endMaintenance", Payload::MaintenanceEnded(hosts)),
    ];
    for (method, payload) in payloads {
        let reply = Reply::Response(Response { result: Some(payload), ..Response::default() });
        assert_eq!(decode_reply(method, 1, &encode_reply(method, 1, &reply).unwrap()).unwrap(), reply, "{method}");
    }
}

#[test]
fn job_keys_are_parsed_under_the_schedulers_rule() {
    let key: JobKey = "www-data/staging1/redis.cache_2".parse().unwrap();
    assert_eq!(key.to_string(), "www-data/staging1/redis.cache_2");
    for wrong in ["", "a/b", "a/b/c/d", "a//c", "a/b/c d", "a/b/ü", &format!("a/b/{}", "x".repeat(256))] {
        assert!(wrong.parse::<JobKey>().is_err(), "{wrong}");
    }
}
