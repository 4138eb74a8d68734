//! The client's calls about job updates and maintenance against scripted schedulers.

#[expect(dead_code, reason = "these tests need only some of the answers")]
mod scripted;

use std::time::Duration;

use aurora::client::{Client, Credentials, Endpoint, Options, Started};
use aurora::error::Error;
use aurora::types::{
    HostStatus, JobKey, JobUpdateKey, JobUpdatePulseStatus, JobUpdateRequest, MaintenanceMode, Payload, Response, ResponseCode,
    SlaPolicy, StartedJobUpdate,
};
use aurora::wire::Call;
use scripted::{Answer, Scheduler, response};

fn client(url: &str) -> Client {
    let credentials = Some(Credentials { user: "me".to_owned(), password: "secret".to_owned() });
    let options = Options { deadline: Duration::from_secs(20), credentials, ..Options::default() };
    Client::new(Endpoint::url(url).expect("a URL"), options)
}

fn key() -> JobUpdateKey {
    JobUpdateKey { job: JobKey::new("redis", "prod", "cache"), id: "u1".to_owned() }
}

fn ok() -> Answer {
    Answer::Response(response(ResponseCode::OK, ""))
}

fn with(code: ResponseCode, payload: Payload) -> Answer {
    Answer::Response(Response { result: Some(payload), ..response(code, "because") })
}

fn started() -> Payload {
    Payload::StartedUpdate(Box::new(StartedJobUpdate { key: key(), update_summary: None }))
}

async fn start(script: impl IntoIterator<Item = Answer>) -> (Result<Started, Error>, usize) {
    let scheduler = Scheduler::start(script).await;
    let result = client(&scheduler.url).start_job_update(&JobUpdateRequest::default(), "v2").await;
    (result, scheduler.asked().len())
}

#[tokio::test]
async fn a_start_is_an_update_or_nothing_to_do_or_refused_because_of_another() {
    assert_eq!(start([with(ResponseCode::OK, started())]).await.0.unwrap(), Started::Update(key()));
    assert_eq!(start([ok()]).await.0.unwrap(), Started::Unchanged);
    let (refused, asked) = start([with(ResponseCode::INVALID_REQUEST, started())]).await;
    let error = refused.unwrap_err();
    assert_eq!((error.is_definite(), error.is_retryable(), error.kind()), (true, false, "update_active"));
    assert_eq!((error.response_code(), asked), (Some(ResponseCode::INVALID_REQUEST), 1));
    let Error::UpdateActive { update, .. } = &error else { panic!("{error:?}") };
    assert_eq!(update.key, key());
    assert!(error.to_string().contains("u1 of redis/prod/cache"), "{error}");
    let invalid = start([Answer::Response(response(ResponseCode::INVALID_REQUEST, "no"))]).await.0.unwrap_err();
    assert_eq!(invalid.kind(), "invalid_request");
    let strange = start([with(ResponseCode::OK, Payload::Tasks(vec![]))]).await.0.unwrap_err();
    assert_eq!(strange.kind(), "no_result");
}

#[tokio::test]
async fn a_start_whose_answer_was_lost_is_not_repeated_and_indefinite() {
    let (result, asked) = start([Answer::Lost, ok()]).await;
    assert!(!result.unwrap_err().is_definite());
    assert_eq!(asked, 1);
}

/// How often a scheduler is asked that loses the first answer.
async fn attempts<T>(payload: Option<Payload>, call: impl AsyncFnOnce(Client) -> Result<T, Error>) -> (usize, bool) {
    let second = payload.map_or_else(ok, |payload| with(ResponseCode::OK, payload));
    let scheduler = Scheduler::start([Answer::Lost, second]).await;
    let result = call(client(&scheduler.url)).await;
    (scheduler.asked().len(), result.is_ok())
}

#[tokio::test]
async fn after_a_lost_answer_only_what_adds_nothing_is_called_again() {
    let hosts = ["h1".to_owned()];
    assert_eq!(attempts(None, async |c| c.pause_job_update(&key(), "").await).await, (2, true));
    assert_eq!(attempts(None, async |c| c.abort_job_update(&key(), "").await).await, (2, true));
    assert_eq!(attempts(None, async |c| c.resume_job_update(&key(), "").await).await, (1, false));
    assert_eq!(attempts(None, async |c| c.rollback_job_update(&key(), "").await).await, (1, false));
    let pulse = Payload::Pulse(JobUpdatePulseStatus::OK);
    assert_eq!(attempts(Some(pulse), async |c| c.pulse_job_update(&key()).await).await, (2, true));
    let drained = Payload::HostsDrained(vec![]);
    assert_eq!(attempts(Some(drained), async |c| c.drain_hosts(&hosts).await).await, (2, true));
}

#[tokio::test]
async fn everything_but_reads_carries_credentials_and_its_message() {
    let status = HostStatus { host: "h1".to_owned(), mode: MaintenanceMode::DRAINING };
    let scheduler = Scheduler::start([
        ok(),
        with(ResponseCode::OK, Payload::HostsDrained(vec![status.clone()])),
        with(ResponseCode::OK, Payload::MaintenanceStatus(vec![status.clone()])),
        with(ResponseCode::OK, Payload::UpdateDetails(vec![])),
    ])
    .await;
    let (client, hosts) = (client(&scheduler.url), ["h1".to_owned()]);
    client.rollback_job_update(&key(), "enough").await.unwrap();
    assert_eq!(
        client.sla_drain_hosts(&hosts, SlaPolicy::Count(Default::default()), 900).await.unwrap(),
        std::slice::from_ref(&status)
    );
    assert_eq!(client.maintenance_status(&hosts).await.unwrap(), [status]);
    assert_eq!(client.job_update_details(&Default::default()).await.unwrap(), []);
    let asked = scheduler.asked();
    assert_eq!(asked[0].call, Call::RollbackJobUpdate { key: key(), message: Some("enough".to_owned()) });
    let signed: Vec<bool> = asked.iter().map(|asked| asked.head.contains("authorization: basic")).collect();
    assert_eq!(signed, [true, true, true, false]);
}
