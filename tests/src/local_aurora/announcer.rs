//! Announces a task in ZooKeeper, as the executor's announcer does: registered as soon as the processes run, not
//! gated on health; one session per task, so that the member ends with its task.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use aurora::types::JobKey;
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::hosts::Host;
use super::membership::{Membership, Nodes};
use super::on_host::OnHost;
use super::thermos::Announce;

/// Where and how tasks are announced.
#[derive(Clone, Debug)]
pub struct Settings {
    /// ZooKeeper's connect string.
    pub ensemble: String,
    /// Directory of all serversets, `/aurora` by default; members are in `<root>/<role>/<environment>/<job>`.
    pub root: String,
    /// Session timeout: how long a member outlives a program that was killed.
    pub session_timeout: Duration,
    /// A task that could not be announced within this time of its start has failed.
    pub patience: Duration,
}

#[derive(Serialize)]
struct Endpoint {
    host: IpAddr,
    port: u16,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Member {
    status: &'static str,
    additional_endpoints: BTreeMap<String, Endpoint>,
    service_endpoint: Endpoint,
    shard: i32,
}

/// Content of a member node. A primary port that does not exist is published as 0, as in reality.
pub fn member(announce: &Announce, assigned: &BTreeMap<String, u16>, host: IpAddr, instance: i32) -> Vec<u8> {
    let ports = announce.endpoints(assigned);
    let endpoint = |port| Endpoint { host, port };
    let member = Member {
        status: "ALIVE",
        service_endpoint: endpoint(ports.get(&announce.primary_port).copied().unwrap_or(0)),
        additional_endpoints: ports.into_iter().map(|(name, port)| (name, endpoint(port))).collect(),
        shard: instance,
    };
    // Plain data with string keys always serialises.
    serde_json::to_vec(&member).unwrap_or_default()
}

/// An announced task.
pub struct Announcer {
    membership: Membership,
    present: watch::Receiver<bool>,
    deadline: tokio::time::Instant,
    registered: bool,
}

impl Announcer {
    /// Starts announcing in the background, from the host.
    pub fn start(settings: &Settings, job: &JobKey, host: &Host, on_host: &OnHost, member: Vec<u8>) -> Self {
        let nodes = Nodes {
            ensemble: settings.ensemble.clone(),
            session_timeout: settings.session_timeout,
            retry: Duration::from_secs(1),
            directory: format!("{}/{job}", settings.root),
            entries: vec![("member_".to_owned(), member)],
        };
        let membership = Membership::start_on(nodes, host, on_host);
        Self {
            present: membership.present(),
            membership,
            deadline: tokio::time::Instant::now() + settings.patience,
            registered: false,
        }
    }

    /// Ends the membership; the handle ends when the node is gone.
    pub fn leave(self) -> JoinHandle<()> {
        self.membership.leave()
    }
}

/// Ends with a reason when the task could not be announced in time. Once it was, the loss of ZooKeeper is harmless and
/// this never ends; nor does it for a task that is not announced.
pub async fn failed(announcer: &mut Option<Announcer>) -> String {
    if let Some(announcer) = announcer
        && !announcer.registered
    {
        let registered = announcer.present.wait_for(|present| *present);
        match tokio::time::timeout_at(announcer.deadline, registered).await {
            Ok(_) => announcer.registered = true,
            Err(_) => return "Creating Announcer Serverset timed out.".to_owned(),
        }
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_have_the_format_of_the_real_announcer() {
        let announce: Announce = serde_json::from_str(r#"{"primary_port": "redis", "portmap": {}}"#).unwrap();
        let ports = BTreeMap::from([("redis".to_owned(), 31001), ("health".to_owned(), 31002)]);
        let bytes = member(&announce, &ports, IpAddr::from([127, 0, 0, 2]), 4);
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            r#"{"status":"ALIVE","additionalEndpoints":{"health":{"host":"127.0.0.2","port":31002},"redis":{"host":"127.0.0.2","port":31001}},"serviceEndpoint":{"host":"127.0.0.2","port":31001},"shard":4}"#
        );
    }

    #[test]
    fn an_unknown_primary_port_is_published_as_0() {
        let announce: Announce = serde_json::from_str("{}").unwrap();
        let bytes = member(&announce, &BTreeMap::new(), IpAddr::from([127, 0, 0, 2]), 0);
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.contains(r#""serviceEndpoint":{"host":"127.0.0.2","port":0}"#), "{text}");
    }
}
