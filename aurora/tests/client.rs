//! The client against scripted schedulers: what it asks, what it repeats, and what it says about failures.

mod scripted;

use std::time::{Duration, Instant};

use aurora::client::{Client, Credentials, Endpoint, Options};
use aurora::error::Error;
use aurora::types::{InstanceSet, JobKey, Payload, Response, ResponseCode, ScheduledTask, TaskQuery};
use aurora::wire::{ApplicationException, CONTENT_TYPE, Call};
use scripted::{Answer, Scheduler, response};
use tokio::net::TcpSocket;

const HTML: &str = "Content-Type: text/html\r\n";

/// A client with short waits.
fn client(url: &str) -> Client {
    client_with(url, Options { deadline: Duration::from_secs(20), ..Options::default() })
}

fn client_with(url: &str, options: Options) -> Client {
    Client::new(Endpoint::url(url).expect("a URL"), options)
}

fn impatient(url: &str) -> Client {
    let short = Duration::from_millis(300);
    client_with(url, Options { deadline: Duration::from_millis(900), attempt: short, connect: short, credentials: None })
}

fn job() -> JobKey {
    JobKey::new("redis", "prod", "cache")
}

fn ok() -> Answer {
    Answer::Response(response(ResponseCode::OK, ""))
}

fn code(code: ResponseCode, message: &str) -> Answer {
    Answer::Response(response(code, message))
}

fn no_leader() -> Answer {
    Answer::Http(503, HTML.to_owned(), b"<html>No leader.</html>".to_vec())
}

fn no_tasks() -> Answer {
    Answer::Response(Response { result: Some(Payload::Tasks(vec![])), ..response(ResponseCode::OK, "") })
}

async fn tasks(client: &Client) -> Result<Vec<ScheduledTask>, Error> {
    client.tasks(&TaskQuery::active(&job())).await
}

/// A port that is taken but refuses connections.
fn deaf_port() -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a free port");
    socket
}

#[track_caller]
fn assert_asked(scheduler: &Scheduler, times: usize) {
    let asked = scheduler.asked();
    assert_eq!(asked.len(), times, "{asked:#?}");
}

#[tokio::test]
async fn a_call_carries_both_headers_and_its_arguments() {
    let scheduler = Scheduler::start([ok()]).await;
    let client = client(&scheduler.url);
    client.kill_tasks(&job(), &InstanceSet::new([4, 2]).unwrap(), "scale down").await.unwrap();
    client.restart_shards(&job(), &InstanceSet::one(1).unwrap()).await.unwrap();
    client.add_instances(&job(), 0, 2).await.unwrap();
    let asked = scheduler.asked();
    assert!(asked[0].head.starts_with("post /api http/1.1\r\n"), "{}", asked[0].head);
    assert!(asked[0].head.contains(&format!("content-type: {CONTENT_TYPE}")), "{}", asked[0].head);
    assert!(asked[0].head.contains(&format!("accept: {CONTENT_TYPE}\r\n")), "{}", asked[0].head);
    assert!(!asked[0].head.contains("authorization"), "{}", asked[0].head);
    let kill = Call::KillTasks { job: job(), instances: Some(vec![2, 4]), message: Some("scale down".to_owned()) };
    assert_eq!(asked[0].call, kill);
    assert_eq!(asked[1].call, Call::RestartShards { job: job(), shard_ids: vec![1] });
    let Call::AddInstances { key, count } = &asked[2].call else { panic!("{:?}", asked[2]) };
    assert_eq!((&key.job_key, key.instance_id, *count), (&job(), 0, 2));
}

#[tokio::test]
async fn reads_return_what_was_answered() {
    let task = ScheduledTask { failure_count: 3, ..ScheduledTask::default() };
    let answer = Response { result: Some(Payload::Tasks(vec![task.clone()])), ..response(ResponseCode::OK, "") };
    let scheduler = Scheduler::start([Answer::Response(answer)]).await;
    assert_eq!(tasks(&client(&scheduler.url)).await.unwrap(), [task]);
}

#[tokio::test]
async fn an_ok_that_did_nothing_keeps_its_explanation() {
    let scheduler = Scheduler::start([code(ResponseCode::OK, "No tasks to kill.")]).await;
    let accepted = client(&scheduler.url).kill_tasks(&job(), &InstanceSet::one(7).unwrap(), "").await.unwrap();
    assert_eq!(accepted.message, "No tasks to kill.");
}

#[tokio::test]
async fn ping_names_the_cluster() {
    let scheduler = Scheduler::start([ok()]).await;
    assert_eq!(client(&scheduler.url).ping().await.unwrap().cluster_name, "test");
}

#[tokio::test]
async fn a_standby_sends_us_to_the_leader_with_our_credentials() {
    let leader = Scheduler::start([ok()]).await;
    let location = format!("Location: {}/api\r\n", leader.url);
    let standby = Scheduler::start([Answer::Http(307, location, vec![])]).await;
    let credentials = Some(Credentials { user: "me".to_owned(), password: "secret".to_owned() });
    let client = client_with(&standby.url, Options { credentials, ..Options::default() });
    client.add_instances(&job(), 0, 1).await.unwrap();
    assert_asked(&standby, 1);
    assert_asked(&leader, 1);
    // base64 of me:secret, in lower case as the script keeps heads
    assert!(leader.asked()[0].head.contains("authorization: basic bwu6c2vjcmv0"), "{}", leader.asked()[0].head);
    assert_eq!(leader.asked()[0].call, standby.asked()[0].call);
}

#[tokio::test]
async fn reads_are_sent_without_credentials() {
    let scheduler = Scheduler::start([no_tasks()]).await;
    let credentials = Some(Credentials { user: "me".to_owned(), password: "secret".to_owned() });
    tasks(&client_with(&scheduler.url, Options { credentials, ..Options::default() })).await.unwrap();
    assert!(!scheduler.asked()[0].head.contains("authorization"));
}

#[tokio::test]
async fn a_redirect_to_a_dead_leader_is_certain_and_tried_again() {
    let dead = deaf_port();
    let location = format!("Location: http://{}/api\r\n", dead.local_addr().unwrap());
    let standby = Scheduler::start([Answer::Http(307, location, vec![]), no_leader(), ok()]).await;
    client(&standby.url).add_instances(&job(), 0, 1).await.unwrap();
    assert_asked(&standby, 3);
}

#[tokio::test]
async fn redirects_in_a_circle_end() {
    let scheduler = Scheduler::start([Answer::Http(307, "Location: /api\r\n".to_owned(), vec![])]).await;
    let error = impatient(&scheduler.url).add_instances(&job(), 0, 1).await.unwrap_err();
    assert_eq!(error.kind(), "redirects");
    assert!(error.is_definite() && error.is_retryable());
    let away = Scheduler::start([Answer::Http(307, "Location: https://127.0.0.1/api\r\n".to_owned(), vec![])]).await;
    let error = client(&away.url).add_instances(&job(), 0, 1).await.unwrap_err();
    assert_eq!((error.kind(), error.is_definite()), ("tls", true));
    let nowhere = Scheduler::start([Answer::Http(307, String::new(), vec![])]).await;
    let error = client(&nowhere.url).add_instances(&job(), 0, 1).await.unwrap_err();
    assert_eq!((error.kind(), error.is_definite()), ("status", true));
}

#[tokio::test]
async fn a_scheduler_without_a_leader_is_asked_again() {
    let scheduler = Scheduler::start([no_leader(), no_leader(), ok()]).await;
    client(&scheduler.url).add_instances(&job(), 0, 1).await.unwrap();
    assert_asked(&scheduler, 3);
}

#[tokio::test]
async fn a_starting_scheduler_is_asked_again_and_did_nothing() {
    let transient = || code(ResponseCode::ERROR_TRANSIENT, "Storage is not READY");
    let scheduler = Scheduler::start([transient(), ok()]).await;
    client(&scheduler.url).add_instances(&job(), 0, 1).await.unwrap();
    assert_asked(&scheduler, 2);
    let scheduler = Scheduler::start([transient()]).await;
    let error = impatient(&scheduler.url).add_instances(&job(), 0, 1).await.unwrap_err();
    assert!(matches!(error, Error::GaveUp { .. }), "{error}");
    assert!(error.is_definite() && error.is_retryable());
    assert_eq!(error.response_code(), Some(ResponseCode::ERROR_TRANSIENT));
}

#[tokio::test]
async fn a_refusal_is_not_repeated() {
    let refusals = [
        (ResponseCode::INVALID_REQUEST, "invalid_request", true),
        (ResponseCode::AUTH_FAILED, "auth_failed", true),
        (ResponseCode::JOB_UPDATING_ERROR, "job_updating", true),
        (ResponseCode::ERROR, "error", false),
        (ResponseCode::WARNING, "error", false),
        (ResponseCode(42), "error", false),
    ];
    for (refusal, kind, definite) in refusals {
        let scheduler = Scheduler::start([code(refusal, "because")]).await;
        let error = client(&scheduler.url).add_instances(&job(), 0, 1).await.unwrap_err();
        assert_eq!((error.kind(), error.is_definite(), error.is_retryable()), (kind, definite, false), "{error}");
        assert!(error.to_string().contains("because"), "{error}");
        assert_asked(&scheduler, 1);
    }
}

#[tokio::test]
async fn an_echoed_configuration_is_cut() {
    let scheduler = Scheduler::start([code(ResponseCode::INVALID_REQUEST, &"TaskConfig(".repeat(100_000))]).await;
    let error = client(&scheduler.url).add_instances(&job(), 0, 1).await.unwrap_err();
    assert!(error.to_string().len() < 1000, "{} bytes", error.to_string().len());
}

#[tokio::test]
async fn wrong_credentials_are_named_before_the_empty_body_is_read() {
    let headers = format!("Content-Type: {CONTENT_TYPE}\r\nWWW-Authenticate: Basic realm=\"Apache Aurora Scheduler\"\r\n");
    let scheduler = Scheduler::start([Answer::Http(401, headers, vec![])]).await;
    let error = client(&scheduler.url).add_instances(&job(), 0, 1).await.unwrap_err();
    assert!(matches!(error, Error::Unauthorized { status: 401, .. }), "{error}");
    assert!(error.is_definite() && !error.is_retryable());
    assert_asked(&scheduler, 1);
}

#[tokio::test]
async fn an_internal_server_error_is_repeated_for_reads_only() {
    let broken = || Answer::Http(500, HTML.to_owned(), b"<html>\njava.lang.NullPointerException</html>".to_vec());
    let scheduler = Scheduler::start([broken(), no_tasks()]).await;
    assert!(tasks(&client(&scheduler.url)).await.unwrap().is_empty());
    let scheduler = Scheduler::start([broken(), ok()]).await;
    let error = client(&scheduler.url).add_instances(&job(), 0, 1).await.unwrap_err();
    assert!(!error.is_definite() && error.to_string().contains("NullPointerException"), "{error}");
    assert_asked(&scheduler, 1);
}

#[tokio::test]
async fn an_exception_of_the_thrift_layer_is_told() {
    let unknown = ApplicationException::unknown_method("addInstances");
    let internal = ApplicationException { message: None, kind: ApplicationException::INTERNAL_ERROR };
    for (exception, definite) in [(unknown, true), (internal, false)] {
        let scheduler = Scheduler::start([Answer::Exception(exception)]).await;
        let error = client(&scheduler.url).add_instances(&job(), 0, 1).await.unwrap_err();
        assert_eq!((error.kind(), error.is_definite()), ("exception", definite), "{error}");
        assert_asked(&scheduler, 1);
    }
}

#[tokio::test]
async fn what_is_not_thrift_is_an_error_that_says_so() {
    let binary = format!("Content-Type: {CONTENT_TYPE}\r\n");
    let garbage = [
        (Answer::Http(200, HTML.to_owned(), b"<html>Welcome to nginx!</html>".to_vec()), "not_thrift"),
        (Answer::Http(200, String::new(), vec![]), "not_thrift"),
        (Answer::Http(200, binary.clone(), vec![]), "decode"),
        (Answer::Http(200, binary.clone(), b"garbage garbage garbage".to_vec()), "decode"),
        (Answer::Http(200, binary.clone(), vec![0xff; 100_000]), "decode"),
        (Answer::Http(200, binary, vec![0; (64 << 20) + 1]), "not_thrift"),
        (Answer::Http(204, String::new(), vec![]), "status"),
    ];
    for (answer, kind) in garbage {
        let scheduler = Scheduler::start([answer]).await;
        let error = client(&scheduler.url).add_instances(&job(), 0, 1).await.unwrap_err();
        assert_eq!((error.kind(), error.is_definite()), (kind, false), "{error}");
        assert_asked(&scheduler, 1);
    }
}

#[tokio::test]
async fn an_ok_without_its_result_is_an_error() {
    let scheduler = Scheduler::start([ok()]).await;
    assert_eq!(tasks(&client(&scheduler.url)).await.unwrap_err().kind(), "no_result");
    let other = Response { result: Some(Payload::Roles(vec![])), ..response(ResponseCode::OK, "") };
    let scheduler = Scheduler::start([Answer::Response(other)]).await;
    assert_eq!(tasks(&client(&scheduler.url)).await.unwrap_err().kind(), "no_result");
}

#[tokio::test]
async fn a_lost_answer_is_indefinite_and_only_reads_are_repeated() {
    let scheduler = Scheduler::start([Answer::Lost, no_tasks()]).await;
    assert!(tasks(&client(&scheduler.url)).await.unwrap().is_empty());
    let scheduler = Scheduler::start([Answer::Lost, ok()]).await;
    let error = client(&scheduler.url).add_instances(&job(), 0, 1).await.unwrap_err();
    assert_eq!((error.kind(), error.is_definite()), ("no_answer", false), "{error}");
    assert_asked(&scheduler, 1);
}

#[tokio::test]
async fn a_hanging_scheduler_ends_at_the_deadline_and_is_indefinite() {
    for answer in [Answer::Hang, Answer::Half] {
        let scheduler = Scheduler::start([answer.clone()]).await;
        let start = Instant::now();
        let error = impatient(&scheduler.url).add_instances(&job(), 0, 1).await.unwrap_err();
        assert_eq!((error.kind(), error.is_definite()), ("no_answer", false), "{error}");
        assert_asked(&scheduler, 1);
        let scheduler = Scheduler::start([answer]).await;
        let error = tasks(&impatient(&scheduler.url)).await.unwrap_err();
        assert!(matches!(error, Error::GaveUp { .. }), "{error}");
        assert!(scheduler.asked().len() > 1);
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    }
}

#[tokio::test]
async fn a_refused_connection_is_certain_and_tried_until_the_deadline() {
    let dead = deaf_port();
    let url = format!("http://{}", dead.local_addr().unwrap());
    let start = Instant::now();
    let error = impatient(&url).add_instances(&job(), 0, 1).await.unwrap_err();
    assert!(matches!(error, Error::GaveUp { .. }), "{error}");
    assert_eq!((error.kind(), error.is_definite(), error.is_retryable()), ("connect", true, true));
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[tokio::test]
async fn without_a_session_zookeeper_is_named() {
    let sessions: aurora::client::Sessions = std::sync::Arc::new(|| Err("not connected yet".into()));
    let options = Options { deadline: Duration::from_millis(300), ..Options::default() };
    let client = Client::new(Endpoint::zookeeper("/aurora/scheduler/", sessions), options);
    assert_eq!(client.endpoint().to_string(), "ZooKeeper /aurora/scheduler");
    let error = client.add_instances(&job(), 0, 1).await.unwrap_err();
    assert_eq!((error.kind(), error.is_definite(), error.is_retryable()), ("zookeeper", true, true), "{error}");
}
