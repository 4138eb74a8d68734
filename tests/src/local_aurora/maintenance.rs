//! Which hosts are in maintenance, and how their tasks leave. Pure.
//!
//! Part of [`super::state`]; [`super::books`] asks for the hosts that are due and tells of tasks that have left. A host goes by
//! its address, which is what tasks have as `slaveHost`.

use std::collections::BTreeMap;

use aurora::types::{MaintenanceMode, SlaPolicy};

/// How the tasks of a host are to leave.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// For tasks without a policy of their own; without it they stay until the time is over.
    pub default: Option<SlaPolicy>,
    /// After this time the policies no longer count.
    pub until_ms: i64,
}

/// The hosts that are or were in maintenance.
#[derive(Debug, Default)]
pub struct Maintenance {
    modes: BTreeMap<String, MaintenanceMode>,
    requests: BTreeMap<String, Request>,
    next_poll_ms: Option<i64>,
}

impl Maintenance {
    /// Where a host stands.
    pub fn mode(&self, host: &str) -> MaintenanceMode {
        self.modes.get(host).copied().unwrap_or(MaintenanceMode::NONE)
    }

    /// Says where a host stands.
    pub fn set(&mut self, host: &str, mode: MaintenanceMode) {
        self.modes.insert(host.to_owned(), mode);
    }

    /// Lets the tasks of a host leave; an earlier request is forgotten. They are next looked at after `poll_ms` at the latest.
    pub fn drain(&mut self, host: &str, request: Request, now_ms: i64, poll_ms: i64) {
        self.set(host, MaintenanceMode::DRAINING);
        self.requests.insert(host.to_owned(), request);
        self.next_poll_ms.get_or_insert(now_ms + poll_ms);
    }

    /// Uses a host again.
    pub fn end(&mut self, host: &str) {
        self.set(host, MaintenanceMode::NONE);
        self.requests.remove(host);
    }

    /// The last task of a host has left.
    pub fn emptied(&mut self, host: &str) {
        if self.mode(host) == MaintenanceMode::DRAINING {
            self.set(host, MaintenanceMode::DRAINED);
            self.requests.remove(host);
        }
    }

    /// How the tasks of a host are to leave.
    pub fn request(&self, host: &str) -> Option<&Request> {
        self.requests.get(host)
    }

    /// The hosts whose tasks are to be looked at now, every `poll_ms` as long as one is being drained.
    pub fn due(&mut self, now_ms: i64, poll_ms: i64) -> Vec<String> {
        if self.next_poll_ms.is_none_or(|poll| poll > now_ms) {
            return Vec::new();
        }
        let draining = self.modes.iter().filter(|(_, mode)| **mode == MaintenanceMode::DRAINING);
        let hosts: Vec<String> = draining.map(|(host, _)| host.clone()).collect();
        self.next_poll_ms = (!hosts.is_empty()).then_some(now_ms + poll_ms);
        hosts
    }

    /// When [`Maintenance::due`] has something to say.
    pub fn next_due_ms(&self) -> Option<i64> {
        self.next_poll_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_looked_at_until_it_is_empty() {
        let mut maintenance = Maintenance::default();
        assert_eq!(maintenance.mode("h"), MaintenanceMode::NONE);
        maintenance.drain("h", Request { default: None, until_ms: 900 }, 0, 100);
        assert_eq!(maintenance.due(99, 100), Vec::<String>::new());
        assert_eq!(maintenance.due(100, 100), ["h"]);
        assert_eq!(maintenance.next_due_ms(), Some(200));
        maintenance.emptied("h");
        assert_eq!((maintenance.mode("h"), maintenance.request("h")), (MaintenanceMode::DRAINED, None));
        assert_eq!(maintenance.due(200, 100), Vec::<String>::new());
        assert_eq!(maintenance.next_due_ms(), None);
    }

    #[test]
    fn a_host_used_again_is_not_drained_by_its_last_task() {
        let mut maintenance = Maintenance::default();
        maintenance.drain("h", Request { default: None, until_ms: 900 }, 0, 100);
        maintenance.end("h");
        maintenance.emptied("h");
        assert_eq!(maintenance.mode("h"), MaintenanceMode::NONE);
        assert_eq!(maintenance.due(100, 100), Vec::<String>::new());
    }
}
