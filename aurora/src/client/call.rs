//! Deadline and retry, the only place with either.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::http::{Answer, Http};
use super::{Endpoint, Options};
use crate::error::{Error, excerpt};
use crate::types::{Payload, Response, ResponseCode};
use crate::wire::{self, Call, Reply};

/// Pause after the first failed attempt; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause between attempts: how late we may notice a new leader.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Redirects followed in one attempt: a standby, then the leader.
const MAX_REDIRECTS: usize = 3;

/// Makes calls until they succeed, fail for good, or the deadline has come.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    endpoint: Endpoint,
    http: Http,
    deadline: Duration,
    seqid: Arc<AtomicI32>,
}

impl Caller {
    pub(super) fn new(endpoint: Endpoint, options: Options) -> Caller {
        let deadline = options.deadline;
        Caller { endpoint, http: Http::new(options), deadline, seqid: Arc::default() }
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The response to `call`, whose code is OK.
    pub(super) async fn call(&self, call: &Call) -> Result<Response, Error> {
        let start = Instant::now();
        let deadline = start + self.deadline;
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match self.attempt(call, deadline).await {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            if !may_repeat(call, &error) {
                return Err(error);
            }
            if Instant::now() + pause >= deadline {
                return Err(Error::GaveUp { method: call.method(), waited: start.elapsed(), source: Box::new(error) });
            }
            tracing::debug!(method = call.method(), kind = error.kind(), pause_ms = pause.as_millis(), "repeats a call");
            tokio::time::sleep(pause).await;
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }

    /// One attempt: find the leader, ask it, follow it to whom it names.
    async fn attempt(&self, call: &Call, deadline: Instant) -> Result<Response, Error> {
        let method = call.method();
        let seqid = self.seqid.fetch_add(1, Ordering::Relaxed);
        let message = wire::encode_call(call, seqid).map_err(|source| Error::Encode { method, source })?;
        let mut url = self.endpoint.leader(deadline).await?;
        for _ in 0..=MAX_REDIRECTS {
            match self.http.post(&url, call, message.clone(), deadline).await? {
                Answer::Message(bytes) => {
                    let reply = wire::decode_reply(method, seqid, &bytes);
                    return judge(method, reply.map_err(|source| Error::Decode { method, url: url.to_string(), source })?);
                }
                Answer::Elsewhere(other) => url = other,
            }
        }
        Err(Error::Redirects { method, url: url.to_string() })
    }
}

/// Most changes may be repeated only when they were certainly not applied.
fn may_repeat(call: &Call, error: &Error) -> bool {
    error.is_retryable() && (call.is_repeatable() || error.is_definite())
}

/// A reply is a success only with the code OK.
fn judge(method: &'static str, reply: Reply) -> Result<Response, Error> {
    match reply {
        Reply::Response(response) if response.response_code == ResponseCode::OK => Ok(response),
        // Only the answer to a start carries an update, and with a refusal it is another one.
        Reply::Response(Response {
            response_code: ResponseCode::INVALID_REQUEST,
            result: Some(Payload::StartedUpdate(other)),
            ..
        }) => Err(Error::UpdateActive { method, update: other }),
        Reply::Response(response) => {
            Err(Error::Response { method, code: response.response_code, message: excerpt(&response.message()) })
        }
        Reply::Exception(exception) => Err(Error::Exception {
            method,
            exception: exception.kind,
            message: excerpt(exception.message.as_deref().unwrap_or_default()),
        }),
    }
}
