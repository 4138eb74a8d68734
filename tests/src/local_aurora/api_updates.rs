//! The scheduler's API: the calls about job updates.

use aurora::types::{JobUpdateDiff, JobUpdateKey, JobUpdateRequest, JobUpdateSummary, Payload, ResponseCode, StartedJobUpdate};
use aurora::wire::Call;

use super::api::{Outcome, USER, bad_key};
use super::api_maintenance;
use super::books::Start;
use super::scheduler::Scheduler;
use super::state::{Refusal, State};
use super::updates::diff::{Diff, Program, config_groups};
use super::updates::request;
use super::updates::update::{By, Order, Update};

/// Answers a call about updates, and hands on any other.
pub(super) fn answer(scheduler: &Scheduler, call: Call) -> Outcome {
    match call {
        Call::GetJobUpdateSummaries { query } => {
            let found = scheduler.read(|books| books.updates.query(&query).into_iter().map(Update::summary).collect());
            Outcome::ok(Some(Payload::JobUpdates(found)))
        }
        Call::GetJobUpdateDetails { query } => {
            let found = scheduler.read(|books| books.updates.query(&query).into_iter().map(Update::details).collect());
            Outcome::ok(Some(Payload::UpdateDetails(found)))
        }
        Call::GetJobUpdateDiff { request } => diff(scheduler, *request),
        Call::StartJobUpdate { request, message } => start(scheduler, *request, message),
        Call::PauseJobUpdate { key, message } => command(scheduler, &key, message, Update::pause),
        Call::ResumeJobUpdate { key, message } => command(scheduler, &key, message, Update::resume),
        Call::AbortJobUpdate { key, message } => command(scheduler, &key, message, Update::abort),
        Call::RollbackJobUpdate { key, message } => command(scheduler, &key, message, Update::rollback),
        Call::PulseJobUpdate { key } => pulse(scheduler, &key),
        call => api_maintenance::answer(scheduler, call),
    }
}

fn by(message: Option<String>) -> By {
    By { user: Some(USER.to_owned()), message }
}

fn start(scheduler: &Scheduler, request: JobUpdateRequest, message: Option<String>) -> Outcome {
    let accepted = match request::accept(request) {
        Err(text) => return Outcome::refused(ResponseCode::INVALID_REQUEST, text),
        Ok(accepted) => accepted,
    };
    match scheduler.change(|books, now_ms| books.start(accepted, by(message), now_ms)) {
        Start::Update(summary) => Outcome::ok(Some(started(summary))),
        Start::Unchanged => Outcome::refused(ResponseCode::OK, "Job is unchanged by proposed update."),
        Start::Refused(text) => Outcome::refused(ResponseCode::INVALID_REQUEST, text),
        Start::Conflict(summary) => Outcome {
            result: Some(started(summary)),
            ..Outcome::refused(
                ResponseCode::INVALID_REQUEST,
                "An active update already exists for this job, please terminate it before starting another. \
                 Active updates are those in states [ROLLING_FORWARD, ROLLING_BACK, ROLL_FORWARD_PAUSED, ROLL_BACK_PAUSED, \
                 ROLL_FORWARD_AWAITING_PULSE, ROLL_BACK_AWAITING_PULSE]",
            )
        },
    }
}

fn started(summary: JobUpdateSummary) -> Payload {
    let started = StartedJobUpdate { key: summary.key.clone(), update_summary: Some(summary) };
    Payload::StartedUpdate(Box::new(started))
}

fn diff(scheduler: &Scheduler, request: JobUpdateRequest) -> Outcome {
    let found = request::accept(request).and_then(|accepted| {
        let Diff { replaced, replacements, unchanged } = scheduler.read(|books| books.diff(&accepted))?;
        let program = Program { config: accepted.config.into(), job: accepted.job.into() };
        let add = replacements.iter().filter(|id| !replaced.contains_key(id)).map(|id| (*id, program.clone())).collect();
        let (update, remove) = replaced.into_iter().partition(|(id, _)| replacements.contains(id));
        Ok(JobUpdateDiff {
            add: config_groups(&add),
            remove: config_groups(&remove),
            update: config_groups(&update),
            unchanged: config_groups(&unchanged),
        })
    });
    match found {
        Err(text) => Outcome::refused(ResponseCode::INVALID_REQUEST, text),
        Ok(diff) => Outcome::ok(Some(Payload::UpdateDiff(diff))),
    }
}

fn command(
    scheduler: &Scheduler,
    key: &JobUpdateKey,
    message: Option<String>,
    command: impl FnOnce(&mut Update, By, &State, i64) -> Result<Vec<Order>, Refusal>,
) -> Outcome {
    if let Some(refused) = bad_key(&key.job) {
        return refused;
    }
    let done = scheduler.change(|books, now_ms| {
        match books.command(key, now_ms, |update, tasks| command(update, by(message), tasks, now_ms)) {
            Ok(effects) => (Ok(()), effects),
            Err(refusal) => (Err(refusal), Vec::new()),
        }
    });
    done.into()
}

fn pulse(scheduler: &Scheduler, key: &JobUpdateKey) -> Outcome {
    if let Some(refused) = bad_key(&key.job) {
        return refused;
    }
    if key.id.trim().is_empty() {
        return Outcome::refused(ResponseCode::ERROR, "The id of an update may not be blank.");
    }
    let status = scheduler.change(|books, now_ms| (books.pulse(key, now_ms), Vec::new()));
    Outcome::ok(Some(Payload::Pulse(status)))
}
