//! Testimony about the master's processes, asked of the agents of its host while its own agent is not there to speak.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use agent::api::Question;
use agent::client::Client;
use agent::record::Member;
use tokio::sync::Notify;

use crate::model::{AgentView, Testimony};

/// An answer is asked for again after this long, for "alive" may change.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Longest wait for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Asks and keeps the answers about one master run.
#[derive(Debug)]
pub struct Witnesses {
    client: Client,
    wake: Arc<Notify>,
    answers: Arc<Mutex<Vec<Testimony>>>,
    asked: BTreeMap<String, Instant>,
    about: String,
}

impl Witnesses {
    /// Nobody asked yet; `wake` is notified when an answer comes.
    pub fn new(client: Client, wake: Arc<Notify>) -> Witnesses {
        Witnesses { client, wake, answers: Arc::default(), asked: BTreeMap::new(), about: String::new() }
    }

    /// Asks the agents of the member's host that were heard within `limit`; answers arrive later, in [`Witnesses::answers`].
    pub fn ask(&mut self, member: &Member, agents: &[AgentView], now: Duration, limit: Duration) {
        if self.about != member.run_id {
            self.about.clone_from(&member.run_id);
            self.asked.clear();
            self.lock().clear();
        }
        for view in agents {
            let Some(state) = view.fresh(now, limit) else { continue };
            let same_host = state.host.host_id == member.host.host_id && state.host.name == member.host.name;
            let recent = self.asked.get(&state.task_id).is_some_and(|at| at.elapsed() < ASK_AGAIN);
            if !same_host || recent {
                continue;
            }
            self.asked.insert(state.task_id.clone(), Instant::now());
            self.send(view, state.task_id.clone(), member);
        }
    }

    fn send(&self, view: &AgentView, witness: String, member: &Member) {
        let (client, address, wake, answers) =
            (self.client.clone(), view.address.clone(), self.wake.clone(), self.answers.clone());
        let question = Question { member: member.clone() };
        tokio::spawn(async move {
            if let Ok(verdict) = client.testify(&address, &question, ANSWER_WITHIN).await {
                let mut answers = answers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                answers.retain(|a| a.witness != witness);
                answers.push(Testimony { run_id: question.member.run_id, witness, verdict });
                drop(answers);
                wake.notify_one();
            }
        });
    }

    /// The answers so far.
    pub fn answers(&self) -> Vec<Testimony> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Testimony>> {
        self.answers.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
