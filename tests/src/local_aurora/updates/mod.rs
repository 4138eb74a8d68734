//! The updates of all jobs.
//!
//! [`request`] checks what is asked for, [`diff`] says what it changes, an [`update::Update`] does it ([`machine`]: its
//! statuses; [`roll`]: one direction of it; [`strategy`]: how many at a time). All of it is pure; [`super::books`] acts.
//! Invariant: a job has at most one active update.

pub mod diff;
pub mod machine;
pub mod request;
pub mod roll;
pub mod strategy;
pub mod update;

use aurora::types::{JobKey, JobUpdateKey, JobUpdateQuery};

use update::Update;

/// Ended updates kept per job.
const HISTORY: usize = 10;

/// Every update, in the order of their start.
#[derive(Default)]
pub struct Updates {
    all: Vec<Update>,
}

impl Updates {
    /// One update.
    pub fn find(&self, key: &JobUpdateKey) -> Option<&Update> {
        self.all.iter().find(|update| update.key() == key)
    }

    /// One update, to change it.
    pub fn find_mut(&mut self, key: &JobUpdateKey) -> Option<&mut Update> {
        self.all.iter_mut().find(|update| update.key() == key)
    }

    /// The update that locks the job.
    pub fn active(&self, job: &JobKey) -> Option<&Update> {
        self.all.iter().find(|update| update.key().job == *job && update.status().is_active())
    }

    /// Every update that has not ended.
    pub fn all_active(&self) -> impl Iterator<Item = &Update> {
        self.all.iter().filter(|update| update.status().is_active())
    }

    /// Keeps a new one, and of those of its job that have ended the newest ten.
    pub fn insert(&mut self, update: Update) {
        let job = update.key().job.clone();
        self.all.push(update);
        let ended = |update: &Update| update.key().job == job && !update.status().is_active();
        let mut surplus = self.all.iter().filter(|update| ended(update)).count().saturating_sub(HISTORY);
        self.all.retain(|update| {
            let drop = surplus > 0 && ended(update);
            surplus -= usize::from(drop);
            !drop
        });
    }

    /// The updates that match, the one changed last first. What a query leaves out or has empty does not restrict.
    pub fn query(&self, query: &JobUpdateQuery) -> Vec<&Update> {
        let is = |wanted: &Option<String>, value: &str| wanted.as_deref().is_none_or(|w| w.trim().is_empty() || w == value);
        let matches = |update: &&Update| {
            let key = update.key();
            is(&query.role, &key.job.role)
                && query.job_key.as_ref().is_none_or(|job| *job == key.job)
                && is(&query.user, update.user())
                && (query.update_statuses.is_empty() || query.update_statuses.contains(&update.status()))
                && query.key.as_ref().is_none_or(|wanted| wanted == key)
        };
        let positive = |number: Option<i32>| number.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
        let mut found: Vec<&Update> = self.all.iter().filter(matches).collect();
        found.sort_by_key(|update| std::cmp::Reverse(update.modified_ms()));
        found.into_iter().skip(positive(query.offset).unwrap_or(0)).take(positive(query.limit).unwrap_or(usize::MAX)).collect()
    }
}
