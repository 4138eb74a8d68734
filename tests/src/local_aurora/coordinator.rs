//! Asks the coordinator of a job whether a task may be ended.
//!
//! [`super::scheduler`] calls [`Coordinators::ask`] for each question. The request has the shape of the real scheduler's, and
//! as there only one question at a time goes to one URL: further ones are dropped and come again later.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aurora::types::{CoordinatorSlaPolicy, ScheduledTask};
use reqwest::redirect::Policy;
use serde_json::{Value, json};

use super::coordinator_body::task_json;
use super::sla::{Purpose, Question};

/// Largest answer read.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Why a coordinator has not allowed it.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Another question is on its way to the same URL.
    #[error("another question is on its way to it")]
    Busy,
    /// It could not be asked, or did not answer in time.
    #[error("it cannot be asked")]
    Unreachable(#[source] reqwest::Error),
    /// Any status but 200.
    #[error("it answered with HTTP {0}; only 200 is an answer")]
    Status(u16),
    /// The answer is no object of booleans, or lacks the key.
    #[error("it answered {text:?}, which is no JSON object of booleans with the key {key:?}")]
    Answer {
        /// Beginning of the answer.
        text: String,
        /// The key looked for.
        key: String,
    },
    /// It said no.
    #[error("it says no")]
    No,
}

/// The way to all coordinators. Cheap to clone.
#[derive(Clone)]
pub struct Coordinators {
    client: reqwest::Client,
    cluster: String,
    busy: Arc<Mutex<BTreeSet<String>>>,
}

/// The only question on its way to a URL, until it is dropped.
pub struct Turn {
    busy: Arc<Mutex<BTreeSet<String>>>,
    url: String,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.url);
    }
}

impl Coordinators {
    /// `timeout` is for one question, `cluster` stands in each.
    pub fn new(timeout: Duration, cluster: String) -> Result<Coordinators, reqwest::Error> {
        let client =
            reqwest::Client::builder().redirect(Policy::none()).timeout(timeout).user_agent("AHC/2.0").no_proxy().build()?;
        Ok(Coordinators { client, cluster, busy: Arc::default() })
    }

    /// Asks. While the caller keeps what this returns, nobody else asks the same URL: act first, then drop it.
    pub async fn ask(&self, question: &Question) -> Result<Turn, Refused> {
        let CoordinatorSlaPolicy { coordinator_url, status_key } = &question.policy;
        let turn = self.turn(coordinator_url).ok_or(Refused::Busy)?;
        let task = self.task_key(&question.task);
        let body = body(question, &task);
        let request = self.client.post(coordinator_url).query(&[("task", &task)]).body(latin1(&body.to_string()));
        let mut response = request.send().await.map_err(Refused::Unreachable)?;
        if response.status() != 200 {
            return Err(Refused::Status(response.status().as_u16()));
        }
        let mut answer = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(Refused::Unreachable)? {
            answer.extend_from_slice(&chunk[..chunk.len().min(MAX_ANSWER_BYTES - answer.len())]);
        }
        let key = if status_key.is_empty() { "drain" } else { status_key };
        match decision(&answer, key) {
            Some(true) => Ok(turn),
            Some(false) => Err(Refused::No),
            None => {
                let text = String::from_utf8_lossy(&answer).chars().take(200).collect();
                Err(Refused::Answer { text, key: key.to_owned() })
            }
        }
    }

    fn turn(&self, url: &str) -> Option<Turn> {
        let free = self.busy.lock().unwrap_or_else(PoisonError::into_inner).insert(url.to_owned());
        free.then(|| Turn { busy: Arc::clone(&self.busy), url: url.to_owned() })
    }

    /// The name of a task's instance; unlike elsewhere it starts with the cluster.
    fn task_key(&self, task: &ScheduledTask) -> String {
        format!("{}/{}/{}", self.cluster, task.assigned_task.task.job, task.assigned_task.instance_id)
    }
}

/// `taskConfig` is the whole task, whatever its name says; a countdown tells of maintenance, its absence of an update.
fn body(question: &Question, task: &str) -> Value {
    let mut body = json!({ "taskConfig": task_json(&question.task), "task": task });
    if let Purpose::Drain { countdown_ms } = question.purpose {
        body["forceMaintenanceCountdownMs"] = countdown_ms.to_string().into();
    }
    body
}

/// The bytes that the real scheduler's HTTP client makes of a text: characters outside of ISO-8859-1 are lost.
fn latin1(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect()
}

/// What an answer says: the value of `key`. Every value has to be a boolean, a text (of which only "true" is true) or null;
/// `None` for anything else.
fn decision(answer: &[u8], key: &str) -> Option<bool> {
    let Ok(Value::Object(object)) = serde_json::from_slice(answer) else {
        return None;
    };
    let truth = |value: &Value| match value {
        Value::Null => Some(None),
        Value::Bool(value) => Some(Some(*value)),
        Value::String(text) => Some(Some(text.eq_ignore_ascii_case("true"))),
        Value::Number(_) | Value::Array(_) | Value::Object(_) => None,
    };
    if object.values().any(|value| truth(value).is_none()) {
        return None;
    }
    object.get(key).and_then(truth).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_object_of_booleans_with_the_key_is_an_answer() {
        let table: [(&str, Option<bool>); 12] = [
            (r#"{"drain":true}"#, Some(true)),
            (r#"{"drain":false,"reason":"it is the master"}"#, Some(false)),
            (r#"{"drain":"TRUE"}"#, Some(true)),
            (r#"{"drain":"yes"}"#, Some(false)),
            (r#"{"drain":true,"lag":3}"#, None),
            (r#"{"drain":true,"list":[]}"#, None),
            (r#"{"drain":1}"#, None),
            (r#"{"drain":null}"#, None),
            (r#"{"other":true}"#, None),
            ("[true]", None),
            ("true", None),
            ("", None),
        ];
        for (answer, expected) in table {
            assert_eq!(decision(answer.as_bytes(), "drain"), expected, "{answer}");
        }
    }

    #[test]
    fn characters_that_the_wire_does_not_have_are_lost() {
        assert_eq!(latin1("aé€"), b"a\xe9?");
    }

    fn question(url: &str) -> Question {
        let policy = CoordinatorSlaPolicy { coordinator_url: url.to_owned(), status_key: String::new() };
        Question { task: Box::default(), policy, purpose: Purpose::Drain { countdown_ms: 5 } }
    }

    #[tokio::test]
    async fn a_coordinator_that_does_not_answer_is_given_up_and_keeps_others_out_meanwhile() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let coordinators = Coordinators::new(Duration::from_millis(300), "local".to_owned()).unwrap();
        let question = question(&url);
        let (first, second) = tokio::join!(coordinators.ask(&question), coordinators.ask(&question));
        assert!(matches!(first, Err(Refused::Unreachable(error)) if error.is_timeout()));
        assert!(matches!(second, Err(Refused::Busy)));
    }

    #[tokio::test]
    async fn an_address_that_is_none_is_no_answer() {
        let coordinators = Coordinators::new(Duration::from_secs(5), "local".to_owned()).unwrap();
        for url in ["", "no url", "http://", "ftp://127.0.0.1/"] {
            assert!(matches!(coordinators.ask(&question(url)).await, Err(Refused::Unreachable(_))), "{url}");
        }
    }

    #[test]
    fn one_question_at_a_time_goes_to_a_url() {
        let coordinators = Coordinators::new(Duration::from_secs(1), "local".to_owned()).unwrap();
        let turn = coordinators.turn("http://c").unwrap();
        assert!(coordinators.turn("http://c").is_none() && coordinators.turn("http://d").is_some());
        drop(turn);
        assert!(coordinators.turn("http://c").is_some());
    }
}
