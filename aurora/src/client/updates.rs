//! Calls about job updates.

use super::{Accepted, Client};
use crate::error::Error;
use crate::types::{
    JobUpdateDetails, JobUpdateDiff, JobUpdateKey, JobUpdatePulseStatus, JobUpdateQuery, JobUpdateRequest, JobUpdateSummary,
    Payload, Response,
};
use crate::wire::Call;

/// What a start came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Started {
    /// An update with this key.
    Update(JobUpdateKey),
    /// No update: the job is already what it was to become.
    Unchanged,
}

impl Client {
    /// The updates that match, newest first. An active one locks the job against add, kill and restart, also when it is
    /// paused or waits for a pulse.
    pub async fn job_updates(&self, query: &JobUpdateQuery) -> Result<Vec<JobUpdateSummary>, Error> {
        let take = |payload| if let Payload::JobUpdates(updates) = payload { Some(updates) } else { None };
        self.read(Call::GetJobUpdateSummaries { query: query.clone() }, take).await
    }

    /// The updates that match, newest first, with instructions and history.
    pub async fn job_update_details(&self, query: &JobUpdateQuery) -> Result<Vec<JobUpdateDetails>, Error> {
        let take = |payload| if let Payload::UpdateDetails(updates) = payload { Some(updates) } else { None };
        self.read(Call::GetJobUpdateDetails { query: query.clone() }, take).await
    }

    /// What an update would do, without doing it.
    pub async fn job_update_diff(&self, request: &JobUpdateRequest) -> Result<JobUpdateDiff, Error> {
        let take = |payload| if let Payload::UpdateDiff(diff) = payload { Some(diff) } else { None };
        self.read(Call::GetJobUpdateDiff { request: Box::new(request.clone()) }, take).await
    }

    /// Starts an update; `message` goes into its history. A coordinated one stands still until the first pulse.
    ///
    /// After an indefinite failure look for an active update with the labels of `request` before calling again: a second call
    /// is refused with [`Error::UpdateActive`] while the first one's update is active.
    pub async fn start_job_update(&self, request: &JobUpdateRequest, message: &str) -> Result<Started, Error> {
        let call = Call::StartJobUpdate { request: Box::new(request.clone()), message: text(message) };
        match self.caller.call(&call).await? {
            Response { result: Some(Payload::StartedUpdate(started)), .. } => Ok(Started::Update(started.key)),
            Response { result: None, .. } => Ok(Started::Unchanged),
            Response { .. } => Err(Error::NoResult { method: call.method() }),
        }
    }

    /// Stops an update where it is. **Not neutral:** an instance that it has killed but not yet started again stays away until
    /// the update goes on.
    pub async fn pause_job_update(&self, key: &JobUpdateKey, message: &str) -> Result<Accepted, Error> {
        self.change(Call::PauseJobUpdate { key: key.clone(), message: text(message) }).await
    }

    /// Lets an update go on; a coordinated one whose pulse has expired waits for the next pulse first. OK also for one that was
    /// not paused. After an indefinite failure look at the update before calling again.
    pub async fn resume_job_update(&self, key: &JobUpdateKey, message: &str) -> Result<Accepted, Error> {
        self.change(Call::ResumeJobUpdate { key: key.clone(), message: text(message) }).await
    }

    /// Ends an update at once, leaving every instance as it is. **An instance that it has killed but not yet started again
    /// stays away**; another update with the full number of instances brings it back.
    pub async fn abort_job_update(&self, key: &JobUpdateKey, message: &str) -> Result<Accepted, Error> {
        self.change(Call::AbortJobUpdate { key: key.clone(), message: text(message) }).await
    }

    /// Turns an active update round. A coordinated one needs pulses on the way back too. After an indefinite failure look at
    /// the update before calling again.
    pub async fn rollback_job_update(&self, key: &JobUpdateKey, message: &str) -> Result<Accepted, Error> {
        self.change(Call::RollbackJobUpdate { key: key.clone(), message: text(message) }).await
    }

    /// A sign of life for a coordinated update. FINISHED does not prove its end: the scheduler says so too of an update that it
    /// does not know or that is not coordinated.
    pub async fn pulse_job_update(&self, key: &JobUpdateKey) -> Result<JobUpdatePulseStatus, Error> {
        let take = |payload| if let Payload::Pulse(status) = payload { Some(status) } else { None };
        self.read(Call::PulseJobUpdate { key: key.clone() }, take).await
    }
}

/// Absent when empty.
fn text(message: &str) -> Option<String> {
    Some(message.to_owned()).filter(|message| !message.is_empty())
}
