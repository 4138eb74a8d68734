//! The codec against calls recorded from a real scheduler: what we write is what was sent, what was answered is read and
//! written again byte for byte, and so are both for a scheduler's side.

use std::path::PathBuf;

use aurora::serverset::Member;
use aurora::types::{
    InstanceKey, JobConfiguration, JobKey, JobUpdateAction, JobUpdateDetails, JobUpdateKey, JobUpdatePulseStatus, JobUpdateQuery,
    JobUpdateRequest, JobUpdateSettings, JobUpdateStatus, JobUpdateStrategy, Metadata, Payload, Range, Response, ResponseCode,
    ScheduleStatus, ScheduledTask, StartedJobUpdate, TaskQuery,
};
use aurora::wire::{Call, Reply, decode_call, decode_reply, encode_call, encode_reply};

/// Every recording that we keep, with the method called.
const RECORDINGS: [(&str, &str); 23] = [
    ("001-getRoleSummary-empty-bin", "getRoleSummary"),
    ("007-getTasksStatus-unknown-job", "getTasksStatus"),
    ("014-populateJobConfig", "populateJobConfig"),
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
    ("112-startJobUpdate-create", "startJobUpdate"),
    ("117-startJobUpdate-conflict", "startJobUpdate"),
    ("118-getJobUpdateDetails-done", "getJobUpdateDetails"),
    ("119-startJobUpdate-unchanged", "startJobUpdate"),
    ("125-startJobUpdate-rolling", "startJobUpdate"),
    ("130-summaries-awaiting-pulse", "getJobUpdateSummaries"),
    ("139-details-pulse", "getJobUpdateDetails"),
    ("140-pulse-finished", "pulseJobUpdate"),
    ("147-abort", "abortJobUpdate"),
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
    let of = |update: &JobUpdateKey| JobUpdateQuery { key: Some(update.clone()), ..JobUpdateQuery::default() };
    let aborted = JobUpdateKey { job: cache(), id: "3def0c57-90d7-4252-b4e8-22db42f90584".to_owned() };
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
        ("130-summaries-awaiting-pulse", Call::GetJobUpdateSummaries { query: of(&update) }),
        ("139-details-pulse", Call::GetJobUpdateDetails { query: of(&update) }),
        ("140-pulse-finished", Call::PulseJobUpdate { key: update }),
        ("147-abort", Call::AbortJobUpdate { key: aborted, message: Some("stop it".to_owned()) }),
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
    let status = updates[0].state.as_ref().unwrap().status;
    assert_eq!(status, JobUpdateStatus::ROLL_FORWARD_AWAITING_PULSE);
    assert!(status.is_active());
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

fn start(name: &str) -> (JobUpdateRequest, Option<String>) {
    match decode_call(&request(name)).expect("a recorded call").1 {
        Call::StartJobUpdate { request, message } => (*request, message),
        other => panic!("{name}: {other:?}"),
    }
}

fn started(name: &str) -> StartedJobUpdate {
    match response(name).result {
        Some(Payload::StartedUpdate(started)) => *started,
        other => panic!("{name}: {other:?}"),
    }
}

fn details(name: &str) -> JobUpdateDetails {
    match response(name).result {
        Some(Payload::UpdateDetails(mut details)) if details.len() == 1 => details.remove(0),
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn a_start_built_here_is_the_bytes_that_were_sent() {
    let (recorded, _) = start("125-startJobUpdate-rolling");
    let settings =
        JobUpdateSettings { min_wait_in_instance_running_ms: 500, update_strategy: None, ..JobUpdateSettings::one_by_one() };
    let built = JobUpdateRequest { task_config: recorded.task_config, instance_count: 3, settings, metadata: None };
    let call = Call::StartJobUpdate { request: Box::new(built), message: Some("v2".to_owned()) };
    assert_same("125", &encode_call(&call, 0).unwrap(), &request("125-startJobUpdate-rolling"));
}

#[test]
fn a_started_update_has_a_key_and_our_labels_but_no_state_yet() {
    let started = started("112-startJobUpdate-create");
    assert_eq!(started.key.id, "93d1d4d4-b4f2-45a1-b5d8-222c071a4803");
    let summary = started.update_summary.unwrap();
    assert_eq!(summary.metadata, start("112-startJobUpdate-create").0.metadata);
    assert_eq!(summary.metadata, Some(vec![Metadata { key: "op".to_owned(), value: "m1".to_owned() }]));
    assert_eq!((summary.state, summary.user.as_deref()), (None, Some("UNSECURE")));
}

#[test]
fn a_refused_start_names_the_update_that_is_in_the_way() {
    let answer = response("117-startJobUpdate-conflict");
    assert_eq!(answer.response_code, ResponseCode::INVALID_REQUEST);
    assert!(answer.message().starts_with("An active update already exists for this job"));
    let other = started("117-startJobUpdate-conflict");
    assert_eq!(other.key, started("112-startJobUpdate-create").key);
    assert_eq!(other.update_summary.unwrap().state.unwrap().status, JobUpdateStatus::ROLLING_FORWARD);
}

#[test]
fn a_start_that_changes_nothing_is_ok_without_a_result() {
    let answer = response("119-startJobUpdate-unchanged");
    assert_eq!((answer.response_code, answer.result.clone()), (ResponseCode::OK, None));
    assert_eq!(answer.message(), "Job is unchanged by proposed update.");
}

#[test]
fn details_tell_instructions_and_history() {
    let details = details("139-details-pulse");
    let settings = &details.update.instructions.settings;
    assert_eq!(settings.block_if_no_pulses_after_ms, Some(3000));
    assert_eq!(settings.update_strategy, Some(JobUpdateStrategy::Queue(1)));
    let desired = details.update.instructions.desired_state.unwrap();
    assert_eq!(desired.instances, [Range { first: 0, last: 2 }]);
    let statuses: Vec<i32> = details.update_events.iter().map(|event| event.status.0).collect();
    assert_eq!(statuses, [9, 2, 0, 2, 9, 0, 9, 0, 4]);
    assert_eq!(details.update_events[6].message.as_deref(), Some("Pulses from external service have timed out."));
    let first = &details.instance_events[0];
    assert_eq!((first.instance_id, first.action), (0, JobUpdateAction::INSTANCE_UPDATING));
}

#[test]
fn a_pulse_for_an_update_that_has_ended_is_finished() {
    assert_eq!(response("140-pulse-finished").result, Some(Payload::Pulse(JobUpdatePulseStatus::FINISHED)));
}

#[test]
fn a_populated_configuration_is_the_one_of_the_stored_job() {
    let Some(Payload::Populated(mut populated)) = response("014-populateJobConfig").result else { panic!("no configuration") };
    let mut stored = tasks("030-getTasksStatus-bin")[0].assigned_task.task.clone();
    for config in [populated.as_mut(), &mut stored] {
        config.resources.sort_by_key(|resource| format!("{resource:?}"));
    }
    assert_eq!(*populated, stored);
}
