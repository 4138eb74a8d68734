//! What can go wrong with a call, and the two questions every caller asks: may it succeed later, and was it certainly not
//! applied.

use std::time::Duration;

use crate::types::{ResponseCode, StartedJobUpdate};
use crate::{serverset, wire};

/// Longest text of the scheduler that an error carries, in characters: a rejected job may be echoed whole, secrets included.
const MAX_TEXT: usize = 300;

/// A call that did not succeed, or an endpoint that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configured URL is none of a scheduler.
    #[error("`{url}` is not a scheduler's URL ({problem}); want http://host:port")]
    Url {
        /// The text given, without a password.
        url: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The scheduler is offered through TLS only.
    #[error("{url} needs TLS, which this build does not have; use the scheduler's plain http endpoint")]
    Tls {
        /// The URL found.
        url: String,
    },
    /// ZooKeeper did not say who leads.
    #[error("cannot read the scheduler's leader from ZooKeeper at {path}")]
    ZooKeeper {
        /// Directory of the schedulers' members.
        path: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No scheduler leads. Normal for up to minutes, daily.
    #[error("no scheduler leads: ZooKeeper has no member at {path}; check the path when this lasts")]
    NoLeader {
        /// Directory of the schedulers' members.
        path: String,
    },
    /// The leader's node is not a member.
    #[error("the scheduler's node {path} is no serverset member")]
    Member {
        /// The node.
        path: String,
        /// Why.
        #[source]
        source: serverset::Error,
    },
    /// The call cannot be written.
    #[error("cannot write the call of {method}")]
    Encode {
        /// The call.
        method: &'static str,
        /// Why.
        #[source]
        source: wire::Error,
    },
    /// No connection to the scheduler: it was not asked.
    #[error("cannot connect to the scheduler at {url}")]
    Connect {
        /// Whom.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// Asked, but the answer did not come, or not in time.
    #[error("the scheduler at {url} did not answer {method}")]
    NoAnswer {
        /// The call.
        method: &'static str,
        /// Whom.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The scheduler does not lead and knows nobody who does.
    #[error("the scheduler at {url} does not lead, and knows nobody who does")]
    NotLeading {
        /// Whom.
        url: String,
    },
    /// Schedulers send us to each other.
    #[error("redirected too often when calling {method}, last by {url}")]
    Redirects {
        /// The call.
        method: &'static str,
        /// The last one asked.
        url: String,
    },
    /// Credentials are missing, wrong or not enough.
    #[error("the scheduler at {url} wants other credentials for {method} (HTTP {status}); check user and password")]
    Unauthorized {
        /// The call.
        method: &'static str,
        /// Whom.
        url: String,
        /// 401 or 403.
        status: u16,
    },
    /// Any other HTTP status than 200.
    #[error("the scheduler at {url} answered {method} with HTTP {status}: {text}")]
    Status {
        /// The call.
        method: &'static str,
        /// Whom.
        url: String,
        /// HTTP status.
        status: u16,
        /// Beginning of the body.
        text: String,
    },
    /// HTTP 200, but with something else than thrift binary, or with more of it than any answer has.
    #[error("{url} answered {method} with {problem}; is it a scheduler?")]
    NotThrift {
        /// The call.
        method: &'static str,
        /// Whom.
        url: String,
        /// What came instead.
        problem: String,
    },
    /// Thrift binary that is not an answer to the call.
    #[error("{url} answered {method} with a message that cannot be read")]
    Decode {
        /// The call.
        method: &'static str,
        /// Whom.
        url: String,
        /// Why.
        #[source]
        source: wire::Error,
    },
    /// The scheduler's thrift layer refused or failed the call.
    #[error("the scheduler failed {method}: {message} (exception type {exception})")]
    Exception {
        /// The call.
        method: &'static str,
        /// Type of thrift's TApplicationException.
        exception: i32,
        /// Its text.
        message: String,
    },
    /// The scheduler answered with a code other than OK.
    #[error("the scheduler answered {method} with {code}: {message}")]
    Response {
        /// The call.
        method: &'static str,
        /// The code.
        code: ResponseCode,
        /// Its explanation, bounded.
        message: String,
    },
    /// An update of the job is active: no other can start. It may be our own, started by a call whose answer was lost; its
    /// labels tell.
    #[error("the scheduler refused {method}: update {} of {} is active; wait for its end or abort it", update.key.id, update.key.job)]
    UpdateActive {
        /// The call.
        method: &'static str,
        /// The update in the way.
        update: Box<StartedJobUpdate>,
    },
    /// OK, but without the result that the call has.
    #[error("the scheduler answered {method} with OK but without its result")]
    NoResult {
        /// The call.
        method: &'static str,
    },
    /// Repeated until the deadline; the source is the last failure.
    #[error("gave up {method} after {waited:.1?}")]
    GaveUp {
        /// The call.
        method: &'static str,
        /// Since the first attempt.
        waited: Duration,
        /// The last failure.
        #[source]
        source: Box<Error>,
    },
}

impl Error {
    /// Whether the cause is one that passes, so that the same call may succeed later. Whether it may be repeated is another
    /// question: a write only if the failure [is definite](Error::is_definite).
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::ZooKeeper { .. }
            | Error::NoLeader { .. }
            | Error::Connect { .. }
            | Error::NoAnswer { .. }
            | Error::NotLeading { .. }
            | Error::Redirects { .. } => true,
            Error::Status { status, .. } => *status >= 500,
            Error::Response { code, .. } => *code == ResponseCode::ERROR_TRANSIENT,
            Error::GaveUp { source, .. } => source.is_retryable(),
            Error::Url { .. }
            | Error::Tls { .. }
            | Error::Member { .. }
            | Error::Encode { .. }
            | Error::Unauthorized { .. }
            | Error::NotThrift { .. }
            | Error::Decode { .. }
            | Error::Exception { .. }
            | Error::UpdateActive { .. }
            | Error::NoResult { .. } => false,
        }
    }

    /// Whether the call was certainly not applied. If not, look at the tasks before doing anything else.
    pub fn is_definite(&self) -> bool {
        match self {
            Error::Url { .. }
            | Error::Tls { .. }
            | Error::ZooKeeper { .. }
            | Error::NoLeader { .. }
            | Error::Member { .. }
            | Error::Encode { .. }
            | Error::Connect { .. }
            | Error::NotLeading { .. }
            | Error::Redirects { .. }
            | Error::UpdateActive { .. }
            | Error::Unauthorized { .. } => true,
            Error::Status { status, .. } => (300..500).contains(status),
            Error::Exception { exception, .. } => *exception == wire::ApplicationException::UNKNOWN_METHOD,
            Error::Response { code, .. } => matches!(
                *code,
                ResponseCode::INVALID_REQUEST
                    | ResponseCode::AUTH_FAILED
                    | ResponseCode::JOB_UPDATING_ERROR
                    | ResponseCode::ERROR_TRANSIENT
            ),
            Error::GaveUp { source, .. } => source.is_definite(),
            Error::NoAnswer { .. } | Error::NotThrift { .. } | Error::Decode { .. } | Error::NoResult { .. } => false,
        }
    }

    /// Name of the kind of failure, for a metric's label. A call given up has the kind of its last failure.
    pub fn kind(&self) -> &'static str {
        match self {
            Error::Url { .. } => "url",
            Error::Tls { .. } => "tls",
            Error::ZooKeeper { .. } => "zookeeper",
            Error::NoLeader { .. } => "no_leader",
            Error::Member { .. } => "member",
            Error::Encode { .. } => "encode",
            Error::Connect { .. } => "connect",
            Error::NoAnswer { .. } => "no_answer",
            Error::NotLeading { .. } => "not_leading",
            Error::Redirects { .. } => "redirects",
            Error::Unauthorized { .. } => "unauthorized",
            Error::Status { .. } => "status",
            Error::NotThrift { .. } => "not_thrift",
            Error::Decode { .. } => "decode",
            Error::Exception { .. } => "exception",
            Error::Response { code, .. } => response_kind(*code),
            Error::UpdateActive { .. } => "update_active",
            Error::NoResult { .. } => "no_result",
            Error::GaveUp { source, .. } => source.kind(),
        }
    }

    /// The scheduler's code, when it answered with another than OK.
    pub fn response_code(&self) -> Option<ResponseCode> {
        match self {
            Error::Response { code, .. } => Some(*code),
            Error::UpdateActive { .. } => Some(ResponseCode::INVALID_REQUEST),
            Error::GaveUp { source, .. } => source.response_code(),
            _ => None,
        }
    }
}

fn response_kind(code: ResponseCode) -> &'static str {
    match code {
        ResponseCode::INVALID_REQUEST => "invalid_request",
        ResponseCode::AUTH_FAILED => "auth_failed",
        ResponseCode::JOB_UPDATING_ERROR => "job_updating",
        ResponseCode::ERROR_TRANSIENT => "transient",
        _ => "error",
    }
}

/// The beginning of a foreign text, on one line.
pub(crate) fn excerpt(text: &str) -> String {
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    let mut short: String = text.trim().chars().take(MAX_TEXT).map(printable).collect();
    if text.trim().chars().nth(MAX_TEXT).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_and_kept_on_one_line() {
        assert_eq!(excerpt(" a\nb "), "a b");
        let cut = excerpt(&"ä".repeat(1_000_000));
        assert_eq!(cut.chars().count(), MAX_TEXT + 1);
    }

    fn response(code: ResponseCode) -> Error {
        Error::Response { method: "addInstances", code, message: String::new() }
    }

    #[test]
    fn only_an_unready_scheduler_is_worth_another_try() {
        for code in (0..10).map(ResponseCode) {
            assert_eq!(response(code).is_retryable(), code == ResponseCode::ERROR_TRANSIENT, "{code}");
        }
    }

    #[test]
    fn a_failure_inside_the_scheduler_may_have_been_applied() {
        assert!(response(ResponseCode::INVALID_REQUEST).is_definite());
        assert!(response(ResponseCode::JOB_UPDATING_ERROR).is_definite());
        assert!(!response(ResponseCode::ERROR).is_definite());
        assert!(!response(ResponseCode(99)).is_definite());
    }

    #[test]
    fn giving_up_says_what_the_last_failure_says() {
        let source = Box::new(response(ResponseCode::ERROR_TRANSIENT));
        let error = Error::GaveUp { method: "addInstances", waited: Duration::from_secs(3), source };
        assert!(error.is_definite() && error.is_retryable());
        assert_eq!(error.kind(), "transient");
        assert_eq!(error.to_string(), "gave up addInstances after 3.0s");
    }
}
