//! Acting: one [`Action`] becomes one call with a deadline and one [`Outcome`]. Takes no decision.

use std::sync::Arc;
use std::time::{Duration, Instant};

use agent::api::{Address, AnswerKind, Command};
use agent::causes::chain;
use agent::client::Client;
use aurora::types::{InstanceSet, JobKey};

use crate::examine::{self, Examiner, Found};
use crate::model::{Action, Outcome};
use crate::registry::{At, Leadership, Registry};

/// What acting needs.
#[derive(Clone, Debug)]
pub struct Hands {
    /// The cluster's nodes.
    pub registry: Registry,
    /// The right to write them.
    pub lead: Arc<Leadership>,
    /// Client for the agents.
    pub agents: Client,
    /// Client for the scheduler.
    pub scheduler: Arc<aurora::Client>,
    /// The job.
    pub job: JobKey,
    /// Longest wait for an agent's answer.
    pub command_timeout: Duration,
    /// Examines snapshots, one at a time; absent without a store.
    pub examiner: Option<Arc<tokio::sync::Mutex<Examiner>>>,
}

impl Hands {
    /// Carries out one action.
    pub async fn carry_out(&self, action: Action) -> Outcome {
        match action {
            Action::CreateRecord { record } => registered(self.registry.create_record(&self.lead, &record).await),
            Action::CommitRecord { record, version, lease_version, operation, .. } => {
                let at = At { record: version, lease: lease_version };
                registered(self.registry.commit(&self.lead, &record, at, operation.as_deref()).await)
            }
            Action::SetOperation { operation } => registered(self.registry.set_operation(&self.lead, &operation).await),
            Action::Command { agent, command, .. } => self.command(&agent, &command).await,
            Action::AddInstances { template, count, .. } => {
                scheduled(self.scheduler.add_instances(&self.job, template, count).await)
            }
            Action::KillInstances { instances, .. } => {
                let Some(set) = InstanceSet::new(instances) else { return no_such_instances() };
                scheduled(self.scheduler.kill_tasks(&self.job, &set, "aurora-redis: fewer instances are wanted").await)
            }
            Action::RestartInstance { instance, .. } => {
                let Some(set) = InstanceSet::new([instance]) else { return no_such_instances() };
                scheduled(self.scheduler.restart_shards(&self.job, &set).await)
            }
            Action::VerifySnapshot { id } => self.examine(async |examiner| verified(examiner.verify(&id).await)).await,
            Action::Rehearse { order } => {
                self.examine(async |examiner| match examiner.rehearse(&order, Instant::now()).await {
                    Ok(_) => Outcome::Done,
                    Err(why) => Outcome::Failed(why),
                })
                .await
            }
        }
    }

    async fn examine(&self, work: impl AsyncFnOnce(&Examiner) -> Outcome) -> Outcome {
        let Some(examiner) = &self.examiner else { return Outcome::Failed("no store is configured (snapshots.uri)".into()) };
        // Boxed: what lies below it is deep.
        let work = Box::pin(async {
            let mut examiner = examiner.lock().await;
            examiner.find_server().await;
            work(&examiner).await
        });
        let within = tokio::time::timeout(examine::WITHIN, work);
        within.await.unwrap_or_else(|_| Outcome::Failed(format!("it was not done within {:?}", examine::WITHIN)))
    }

    async fn command(&self, agent: &Address, command: &Command) -> Outcome {
        match self.agents.command(agent, command, self.command_timeout).await {
            Ok(answer) => match answer.outcome {
                AnswerKind::Done | AnswerKind::Accepted => Outcome::Done,
                AnswerKind::Refused => Outcome::Refused(format!("{}: {}", answer.reason, answer.message)),
                AnswerKind::Failed => Outcome::Unknown(format!("{}: {}", answer.reason, answer.message)),
            },
            Err(error) if error.is_definite() => Outcome::Failed(chain(&error)),
            Err(error) => Outcome::Unknown(chain(&error)),
        }
    }
}

/// A snapshot that was found bad is a failure that somebody has to see; what could not be found out is one, too.
fn verified(found: Result<Found, agent::store::Error>) -> Outcome {
    match found {
        Ok(Found { verification: Some(verification), .. }) => match verification.problem {
            Some(problem) => Outcome::Failed(format!("it was found bad: {problem}")),
            None => Outcome::Done,
        },
        Ok(found) => Outcome::Failed(found.remark.unwrap_or_default()),
        Err(error) => Outcome::Failed(chain(&error)),
    }
}

fn registered(result: Result<(), crate::registry::Error>) -> Outcome {
    match result {
        Ok(()) => Outcome::Done,
        Err(error @ (crate::registry::Error::NotLeading | crate::registry::Error::Conflict { .. })) => {
            Outcome::Refused(chain(&error))
        }
        Err(error) if error.is_definite() => Outcome::Failed(chain(&error)),
        Err(error) => Outcome::Unknown(chain(&error)),
    }
}

fn no_such_instances() -> Outcome {
    Outcome::Failed("not a set of instances: an empty one would end the whole job".into())
}

fn scheduled<T>(result: Result<T, aurora::Error>) -> Outcome {
    match result {
        Ok(_) => Outcome::Done,
        Err(error) if error.is_definite() => Outcome::Failed(chain(&error)),
        Err(error) => Outcome::Unknown(chain(&error)),
    }
}
