//! Calls about maintenance of hosts. They need an administrator's permission, the status too. Hosts go by the name that tasks have
//! as `slave_host`; the scheduler leaves out of its answers those it does not know.

use super::Client;
use crate::error::Error;
use crate::types::{HostStatus, Payload, SlaPolicy};
use crate::wire::Call;

impl Client {
    /// Lets the scheduler prefer other hosts for new tasks. Nothing moves.
    pub async fn start_maintenance(&self, hosts: &[String]) -> Result<Vec<HostStatus>, Error> {
        self.hosts(Call::StartMaintenance { hosts: hosts.to_vec() }).await
    }

    /// Ends every task on the hosts now; **SLA policies do not protect them**.
    pub async fn drain_hosts(&self, hosts: &[String]) -> Result<Vec<HostStatus>, Error> {
        self.hosts(Call::DrainHosts { hosts: hosts.to_vec() }).await
    }

    /// Ends every task on the hosts as its SLA policy allows, or `default` for tasks without one; after `timeout_secs` the
    /// policies no longer count. The scheduler begins at its next poll, up to a minute later.
    pub async fn sla_drain_hosts(
        &self,
        hosts: &[String],
        default: SlaPolicy,
        timeout_secs: u32,
    ) -> Result<Vec<HostStatus>, Error> {
        let (default_sla_policy, timeout_secs) = (Some(default), i64::from(timeout_secs));
        self.hosts(Call::SlaDrainHosts { hosts: hosts.to_vec(), default_sla_policy, timeout_secs }).await
    }

    /// Where the maintenance of the hosts stands.
    pub async fn maintenance_status(&self, hosts: &[String]) -> Result<Vec<HostStatus>, Error> {
        self.hosts(Call::MaintenanceStatus { hosts: hosts.to_vec() }).await
    }

    /// Lets the scheduler use the hosts again. Never end a maintenance that somebody else has begun.
    pub async fn end_maintenance(&self, hosts: &[String]) -> Result<Vec<HostStatus>, Error> {
        self.hosts(Call::EndMaintenance { hosts: hosts.to_vec() }).await
    }

    async fn hosts(&self, call: Call) -> Result<Vec<HostStatus>, Error> {
        self.read(call, take).await
    }
}

fn take(payload: Payload) -> Option<Vec<HostStatus>> {
    match payload {
        Payload::MaintenanceStarted(hosts)
        | Payload::HostsDrained(hosts)
        | Payload::MaintenanceStatus(hosts)
        | Payload::MaintenanceEnded(hosts) => Some(hosts),
        _ => None,
    }
}
