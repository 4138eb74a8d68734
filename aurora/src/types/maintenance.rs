//! Maintenance of hosts.

use super::MaintenanceMode;

/// Where the maintenance of one host stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostStatus {
    /// The host, under the name that tasks have as `slave_host`.
    pub host: String,
    /// Where it stands.
    pub mode: MaintenanceMode,
}
