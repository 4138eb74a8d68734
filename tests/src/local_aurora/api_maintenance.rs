//! The scheduler's API: the calls about maintenance of hosts. Hosts that it does not know are left out of every answer.

use aurora::types::{HostStatus, MaintenanceMode, Payload, ResponseCode, SlaPolicy};
use aurora::wire::Call;

use super::api::Outcome;
use super::scheduler::Scheduler;

/// Answers a call about maintenance; any other is none that this scheduler serves.
pub(super) fn answer(scheduler: &Scheduler, call: Call) -> Outcome {
    let payload = match call {
        Call::StartMaintenance { hosts } => Payload::MaintenanceStarted(set_mode(scheduler, hosts, MaintenanceMode::SCHEDULED)),
        Call::EndMaintenance { hosts } => Payload::MaintenanceEnded(set_mode(scheduler, hosts, MaintenanceMode::NONE)),
        Call::MaintenanceStatus { hosts } => {
            let hosts = known(scheduler, hosts);
            Payload::MaintenanceStatus(scheduler.read(|books| books.modes(&hosts)))
        }
        Call::DrainHosts { hosts } => Payload::HostsDrained(drain(scheduler, hosts, None, None)),
        Call::SlaDrainHosts { hosts, default_sla_policy, timeout_secs } => {
            let limit_ms = timeout_secs.saturating_mul(1000);
            Payload::HostsDrained(drain(scheduler, hosts, default_sla_policy, Some(limit_ms)))
        }
        other => {
            return Outcome::refused(ResponseCode::ERROR, format!("{} is not served by this scheduler", other.method()));
        }
    };
    Outcome::ok(Some(payload))
}

fn known(scheduler: &Scheduler, mut hosts: Vec<String>) -> Vec<String> {
    let addresses = scheduler.addresses();
    hosts.retain(|host| addresses.contains(host));
    hosts.sort();
    hosts.dedup();
    hosts
}

fn set_mode(scheduler: &Scheduler, hosts: Vec<String>, mode: MaintenanceMode) -> Vec<HostStatus> {
    let hosts = known(scheduler, hosts);
    scheduler.change(|books, _| (books.set_mode(&hosts, mode), Vec::new()))
}

fn drain(scheduler: &Scheduler, hosts: Vec<String>, default: Option<SlaPolicy>, limit_ms: Option<i64>) -> Vec<HostStatus> {
    let hosts = known(scheduler, hosts);
    scheduler.change(|books, now_ms| books.drain(&hosts, default, limit_ms, now_ms))
}
