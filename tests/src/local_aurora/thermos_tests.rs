use super::*;

fn job(extra: Value) -> Value {
    let mut job = serde_json::json!({
        "name": "cache", "role": "redis", "environment": "prod", "cluster": "local", "service": true,
        "task": {"name": "cache", "processes": [{"name": "agent", "cmdline": "exec sleep 1000"}],
                 "resources": {"cpu": 0.5, "ram": 1, "disk": 1}},
    });
    for (key, value) in extra.as_object().unwrap() {
        job[key] = value.clone();
    }
    job
}

fn check(extra: Value) -> Result<Job, Error> {
    parse(&job(extra).to_string())
}

fn field_of(result: Result<Job, Error>) -> String {
    match result.unwrap_err() {
        Error::Field { field, .. } => field,
        other => panic!("{other}"),
    }
}

#[test]
fn defaults_are_those_of_thermos() {
    let job = check(serde_json::json!({})).unwrap();
    let process = &job.task.processes[0];
    assert_eq!((process.max_failures, process.daemon), (1, false));
    assert_eq!(process.min_duration(), Duration::from_secs(5));
    assert_eq!(job.task.max_failures, 1);
    assert_eq!(job.task.finalization_wait(), Duration::from_secs(30));
    assert_eq!(job.announce, None);
    let health = &job.health_check_config;
    assert_eq!(health.initial_interval(), Duration::from_secs(15));
    assert_eq!(health.interval(), Duration::from_secs(10));
    assert_eq!(health.max_consecutive_failures, 0);
    assert_eq!(health.check(), HealthCheck::Http(HttpChecker::default()));
    let lifecycle = job.lifecycle().unwrap();
    assert_eq!(lifecycle.port, "health");
    assert_eq!(lifecycle.graceful_shutdown_wait(), Duration::from_secs(5));
}

#[test]
fn the_lifecycle_can_be_turned_off() {
    let job = check(serde_json::json!({"lifecycle": {}})).unwrap();
    assert_eq!(job.lifecycle(), None);
}

#[test]
fn an_unknown_field_is_named_with_its_path() {
    let field = |extra| field_of(check(extra));
    assert_eq!(field(serde_json::json!({"tasks": 1})), "tasks");
    assert_eq!(
        field(serde_json::json!({"task": {"processes": [{"name": "a", "cmdline": "b", "retries": 1}]}})),
        "task.processes[0].retries"
    );
    assert_eq!(
        field(serde_json::json!({"health_check_config": {"health_checker": {"tcp": {}}}})),
        "health_check_config.health_checker.tcp"
    );
    assert_eq!(field(serde_json::json!({"lifecycle": {"http": {"prot": "x"}}})), "lifecycle.http.prot");
    assert_eq!(field(serde_json::json!({"announce": {"zk_path": "/x"}})), "announce.zk_path");
}

#[test]
fn logs_other_than_files_are_refused() {
    let logger = |value: Value| serde_json::json!({"task": {"processes": [{"name": "a", "cmdline": "b", "logger": value}]}});
    assert!(check(logger(serde_json::json!({"destination": "file", "mode": "standard"}))).is_ok());
    assert_eq!(field_of(check(logger(serde_json::json!({"mode": "rotate"})))), "task.processes[0].logger.mode");
}

#[test]
fn not_json_and_wrong_kinds_are_refused() {
    assert!(matches!(parse("{"), Err(Error::Parse(_))));
    assert!(matches!(parse("{}"), Err(Error::Parse(_))));
    assert!(matches!(parse("[]"), Err(Error::Field { .. })));
    assert!(matches!(check(serde_json::json!({"task": {"processes": 3}})), Err(Error::Parse(_))));
}

fn processes(constraints: Value) -> Value {
    serde_json::json!({"task": {"constraints": constraints, "processes": [
        {"name": "fetch", "cmdline": "x"}, {"name": "agent", "cmdline": "y", "daemon": true},
        {"name": "clean", "cmdline": "z", "final": true}]}})
}

#[test]
fn orders_are_checked() {
    let task = check(processes(serde_json::json!([{"order": ["fetch", "agent"]}]))).unwrap().task;
    assert_eq!(task.predecessors("agent"), BTreeSet::from(["fetch"]));
    assert!(task.predecessors("fetch").is_empty());
    for wrong in [
        serde_json::json!([{"order": ["nope"]}]),
        serde_json::json!([{"order": ["agent", "fetch"]}]),
        serde_json::json!([{"order": ["fetch", "clean"]}]),
    ] {
        assert_eq!(field_of(check(processes(wrong))), "task.constraints[0].order");
    }
    let cycle = serde_json::json!({"task": {"constraints": [{"order": ["a", "b", "a"]}], "processes": [
        {"name": "a", "cmdline": "x"}, {"name": "b", "cmdline": "y"}]}});
    assert_eq!(field_of(check(cycle)), "task.constraints");
}

#[test]
fn process_names_are_directory_names() {
    for name in ["", "../x", ".hidden", "a/b"] {
        let extra = serde_json::json!({"task": {"processes": [{"name": name, "cmdline": "b"}]}});
        assert_eq!(field_of(check(extra)), "task.processes[0].name");
    }
}

#[test]
fn senseless_times_are_refused() {
    for (name, value) in [("interval_secs", 0.0), ("timeout_secs", -1.0)] {
        let field = field_of(check(serde_json::json!({"health_check_config": {name: value}})));
        assert_eq!(field, format!("health_check_config.{name}"));
    }
}

#[test]
fn endpoints_follow_the_announcer() {
    let assigned = BTreeMap::from([("redis".to_owned(), 31001), ("health".to_owned(), 31002)]);
    let announce = |value| -> Announce { serde_json::from_value(value).unwrap() };
    let plain = announce(serde_json::json!({"primary_port": "redis"}));
    assert_eq!(
        plain.endpoints(&assigned),
        BTreeMap::from([("aurora".to_owned(), 31001), ("redis".to_owned(), 31001), ("health".to_owned(), 31002)])
    );
    let mapped = announce(serde_json::json!({"portmap": {"static": 6379, "alias": "redis", "loop": "loop", "health": 1}}));
    assert_eq!(
        mapped.endpoints(&assigned),
        BTreeMap::from([
            ("alias".to_owned(), 31001),
            ("health".to_owned(), 31002),
            ("redis".to_owned(), 31001),
            ("static".to_owned(), 6379)
        ])
    );
}

#[test]
fn binding_fills_the_command_lines_and_names_what_is_missing() {
    let data = job(serde_json::json!({
        "task": {"processes": [{"name": "a", "cmdline": "run {{mesos.instance}} {{thermos.ports[redis]}}"}]},
    }))
    .to_string();
    let job = parse(&data).unwrap();
    let mut binding = Binding { instance: 2, ..Binding::default() };
    let error = job.bind(&binding).unwrap_err();
    assert!(error.to_string().contains("{{thermos.ports[redis]}}"), "{error}");
    binding.ports.insert("redis".to_owned(), 31001);
    assert_eq!(job.bind(&binding).unwrap().task.processes[0].cmdline, "run 2 31001");
}

#[test]
fn data_of_another_job_is_refused() {
    let job = check(serde_json::json!({})).unwrap();
    assert!(job.check_belongs_to("redis", "prod", "cache").is_ok());
    assert!(job.check_belongs_to("redis", "prod", "other").is_err());
}
