//! The codec against calls recorded from a real scheduler: what we write is what was sent, what was answered is read and
//! written again byte for byte, and so are both for a scheduler's side.

use std::path::PathBuf;

use aurora::serverset::Member;
use aurora::types::{
    InstanceKey, JobConfiguration, JobKey, JobUpdateKey, JobUpdateQuery, JobUpdateStatus, Payload, Response, ResponseCode,
    ScheduleStatus, ScheduledTask, TaskQuery,
};
use aurora::wire::{Call, Reply, decode_call, decode_reply, encode_call, encode_reply};

/// Every recording that we keep, with the method called.
const RECORDINGS: [(&str, &str); 14] = [
    ("001-getRoleSummary-empty-bin", "getRoleSummary"),
    ("007-getTasksStatus-unknown-job", "getTasksStatus"),
    ("027-createJob", "createJob"),
    ("028-createJob-exists", "createJob"),
    ("030-getTasksStatus-bin", "getTasksStatus"),
    ("031-getTasksWithoutConfigs-bin", "getTasksWithoutConfigs"),
    ("034-getRoleSummary", "getRoleSummary"),
    ("036-getJobs", "getJobs"),
    ("042-restartShards-unknown-job", "restartShards"),
    ("046-restartShards", "restartShards"),
    ("048-killTasks-no-instance", "killTasks"),
    ("049-killTasks", "killTasks"),
    ("050-addInstances", "addInstances"),
    ("130-summaries-awaiting-pulse", "getJobUpdateSummaries"),
];

fn recorded(file: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/recorded").join(file);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn request(name: &str) -> Vec<u8> {
    recorded(&format!("{name}.req.bin"))
}

fn response(name: &str) -> Response {
    let (_, method) = RECORDINGS.iter().find(|(recording, _)| *recording == name).expect("a listed recording");
    let reply = decode_reply(method, 0, &recorded(&format!("{name}.resp.bin")));
    match reply.expect("a recorded reply") {
        Reply::Response(response) => response,
        Reply::Exception(exception) => panic!("{name}: {exception}"),
    }
}

fn tasks(name: &str) -> Vec<ScheduledTask> {
    match response(name).result {
        Some(Payload::Tasks(tasks)) => tasks,
        other => panic!("{name}: {other:?}"),
    }
}

fn assert_same(name: &str, written: &[u8], recorded: &[u8]) {
    let same = written.iter().zip(recorded).take_while(|(left, right)| left == right).count();
    assert!(written == recorded, "{name}: first difference at byte {same} of {}", recorded.len());
}

fn cache() -> JobKey {
    JobKey::new("redis", "prod", "cache")
}

#[test]
fn every_file_is_listed() {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/recorded");
    let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut found: Vec<String> = files.filter_map(|file| file.strip_suffix(".req.bin").map(str::to_owned)).collect();
    found.sort();
    assert_eq!(found, RECORDINGS.map(|(name, _)| name));
}

#[test]
fn requests_read_and_written_again_are_the_same_bytes() {
    for (name, method) in RECORDINGS {
        let bytes = request(name);
        let (seqid, call) = decode_call(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(call.method(), method);
        assert_same(name, &encode_call(&call, seqid).unwrap(), &bytes);
    }
}

#[test]
fn responses_read_and_written_again_are_the_same_bytes() {
    for (name, method) in RECORDINGS {
        let bytes = recorded(&format!("{name}.resp.bin"));
        let reply = decode_reply(method, 0, &bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_same(name, &encode_reply(method, 0, &reply).unwrap(), &bytes);
    }
}

#[test]
fn calls_built_here_are_the_bytes_that_were_sent() {
    let running = TaskQuery { statuses: vec![ScheduleStatus::RUNNING], ..TaskQuery::job(&cache()) };
    let update = JobUpdateKey { job: cache(), id: "6a8e7d66-dc05-41c1-996e-18a7c00097dc".to_owned() };
    let kill = |instances: i32, message: Option<&str>| Call::KillTasks {
        job: cache(),
        instances: Some(vec![instances]),
        message: message.map(str::to_owned),
    };
    let calls = [
        ("001-getRoleSummary-empty-bin", Call::GetRoleSummary),
        ("007-getTasksStatus-unknown-job", Call::GetTasksStatus { query: TaskQuery::job(&JobKey::new("redis", "prod", "nope")) }),
        ("030-getTasksStatus-bin", Call::GetTasksStatus { query: running.clone() }),
        ("031-getTasksWithoutConfigs-bin", Call::GetTasksWithoutConfigs { query: running }),
        ("036-getJobs", Call::GetJobs { owner_role: Some("redis".to_owned()) }),
        ("046-restartShards", Call::RestartShards { job: cache(), shard_ids: vec![1] }),
        ("048-killTasks-no-instance", kill(77, None)),
        ("049-killTasks", kill(2, Some("operator: scale down"))),
        ("050-addInstances", Call::AddInstances { key: InstanceKey { job_key: cache(), instance_id: 0 }, count: 1 }),
        (
            "130-summaries-awaiting-pulse",
            Call::GetJobUpdateSummaries { query: JobUpdateQuery { key: Some(update), ..JobUpdateQuery::default() } },
        ),
    ];
    for (name, call) in calls {
        assert_same(name, &encode_call(&call, 0).unwrap(), &request(name));
    }
}

#[test]
fn a_running_task_is_read_with_its_place_ports_and_history() {
    let tasks = tasks("030-getTasksStatus-bin");
    assert_eq!(tasks.len(), 3);
    let task = &tasks[0];
    assert_eq!(task.status, ScheduleStatus::RUNNING);
    assert_eq!(task.assigned_task.slave_host.as_deref(), Some("127.0.0.3"));
    assert_eq!(task.assigned_task.instance_id, 1);
    assert_eq!(task.assigned_task.assigned_ports.get("redis"), Some(&41213));
    let statuses: Vec<ScheduleStatus> = task.task_events.iter().map(|event| event.status).collect();
    let path = [ScheduleStatus::PENDING, ScheduleStatus::ASSIGNED, ScheduleStatus::STARTING, ScheduleStatus::RUNNING];
    assert_eq!(statuses, path);
    assert_eq!(task.assigned_task.task.job, cache());
    assert_eq!(task.assigned_task.task.production, Some(true));
}

#[test]
fn without_configs_only_the_executors_data_is_missing() {
    let mut full = tasks("030-getTasksStatus-bin");
    for task in &mut full {
        let executor = task.assigned_task.task.executor_config.as_mut().unwrap();
        assert!(executor.data.take().is_some());
    }
    let by_instance = |mut tasks: Vec<ScheduledTask>| {
        tasks.sort_by_key(|task| task.assigned_task.instance_id);
        tasks
    };
    assert_eq!(by_instance(tasks("031-getTasksWithoutConfigs-bin")), by_instance(full));
}

#[test]
fn a_job_is_read_as_it_was_created() {
    let (_, created) = decode_call(&request("027-createJob")).unwrap();
    let Call::CreateJob { description } = created else { panic!("{created:?}") };
    let Some(Payload::Jobs(jobs)) = response("036-getJobs").result else { panic!("no jobs") };
    let job = jobs.iter().find(|job| job.key == cache()).unwrap();
    assert_eq!((description.instance_count, job.instance_count), (3, 3));
    assert_eq!(job.task_config.executor_config, description.task_config.executor_config);
    assert_eq!(job.task_config.tier, description.task_config.tier);
    let again = JobConfiguration::service(description.task_config.clone(), 3);
    assert_eq!(again, *description);
}

#[test]
fn refusals_keep_their_code_and_text() {
    let exists = response("028-createJob-exists");
    assert_eq!(exists.response_code, ResponseCode::INVALID_REQUEST);
    assert_eq!(exists.message(), "Job redis/prod/cache already exists");
    let unknown = response("042-restartShards-unknown-job");
    assert_eq!(unknown.response_code, ResponseCode::INVALID_REQUEST);
    assert_eq!(unknown.message(), "Not all requested shards are active.");
    let nothing = response("048-killTasks-no-instance");
    assert_eq!(nothing.response_code, ResponseCode::OK);
    assert_eq!(nothing.message(), "No tasks to kill.");
    assert_eq!(nothing.server_info.unwrap().cluster_name, "local");
}

#[test]
fn a_blocked_update_counts_as_active() {
    let Some(Payload::JobUpdates(updates)) = response("130-summaries-awaiting-pulse").result else { panic!("no updates") };
    assert_eq!(updates.len(), 1);
    assert_eq!(updates[0].state.status, JobUpdateStatus::ROLL_FORWARD_AWAITING_PULSE);
    assert!(updates[0].state.status.is_active());
    assert_eq!(updates[0].key.job, cache());
}

#[test]
fn tasks_of_an_unknown_job_are_none() {
    assert!(tasks("007-getTasksStatus-unknown-job").is_empty());
}

#[test]
fn a_schedulers_member_read_and_written_again_is_the_same_bytes() {
    let bytes = recorded("zk-member.json");
    let member = Member::parse(&bytes).unwrap();
    assert_eq!(member.service_endpoint.to_string(), "127.0.0.1:18081");
    assert_eq!((member.status.as_str(), member.shard), (Member::ALIVE, None));
    assert_same("zk-member.json", &member.to_json(), &bytes);
}
