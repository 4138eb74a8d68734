//! Serversets: directories of ZooKeeper in which each server has a node `member_NNNNNNNNNN` with its addresses as JSON.
//!
//! Schedulers, executors and we write them in one format; others write it with more or fewer fields. A serverset says where
//! somebody announced to be, never who is master or whether the port is open. Pure: who reads and writes nodes is the caller.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// What the name of every member's node begins with; ZooKeeper appends ten digits.
pub const MEMBER_PREFIX: &str = "member_";

/// A node is not a member.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no serverset member of {bytes} bytes: {problem}")]
pub struct Error {
    /// Size of the node.
    pub bytes: usize,
    /// What is wrong, and where.
    pub problem: String,
}

/// Where one server listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Host name or address.
    pub host: String,
    /// Port; executors write 0 when they do not know the primary one.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') && !self.host.starts_with('[') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// One member of a serverset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// The primary endpoint.
    pub service_endpoint: Endpoint,
    /// The other endpoints by name, mostly with the primary one among them.
    pub additional_endpoints: BTreeMap<String, Endpoint>,
    /// `ALIVE` by nearly every writer, at all times; others are DEAD, STARTING, STOPPING, STOPPED, WARNING.
    pub status: String,
    /// The instance of the job; absent for schedulers and some other writers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shard: Option<u32>,
}

/// A member as others write it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Foreign {
    service_endpoint: Endpoint,
    additional_endpoints: Option<BTreeMap<String, Endpoint>>,
    status: Option<String>,
    shard: Option<i64>,
}

impl Member {
    /// What [`Member::status`] is when a writer gives none.
    pub const ALIVE: &'static str = "ALIVE";

    /// A live member with these addresses.
    pub fn alive(service_endpoint: Endpoint, additional_endpoints: BTreeMap<String, Endpoint>, shard: Option<u32>) -> Member {
        Member { service_endpoint, additional_endpoints, status: Member::ALIVE.to_owned(), shard }
    }

    /// Reads a node's data. Only the primary endpoint is needed: missing endpoints are none, a missing status is ALIVE, a
    /// negative shard is none, fields that we do not know are ignored.
    ///
    /// # Errors
    /// The data is not JSON, lacks the primary endpoint, or has a known field of a wrong type.
    pub fn parse(data: &[u8]) -> Result<Member, Error> {
        let foreign: Foreign = serde_json::from_slice(data)
            .map_err(|error| Error { bytes: data.len(), problem: crate::error::excerpt(&error.to_string()) })?;
        Ok(Member {
            service_endpoint: foreign.service_endpoint,
            additional_endpoints: foreign.additional_endpoints.unwrap_or_default(),
            status: foreign.status.unwrap_or_else(|| Member::ALIVE.to_owned()),
            shard: foreign.shard.and_then(|shard| u32::try_from(shard).ok()),
        })
    }

    /// A node's data, in the bytes that a scheduler would write.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings, numbers and a map with string keys are JSON")
    }
}

/// The sequence number in a member's node name; `None` for other nodes, such as the schedulers' election nodes.
pub fn sequence(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(MEMBER_PREFIX)?;
    let valid = digits.len() >= 10 && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| valid)
}

/// The leading scheduler's node among the children of the schedulers' directory; `None` while nobody leads. Only a leader has a
/// member node; for a while an old leader's may stand beside the new one's, so the youngest is taken.
pub fn leader(children: &[String]) -> Option<&str> {
    let members = children.iter().filter_map(|name| Some((sequence(name)?, name.as_str())));
    members.max_by_key(|(sequence, _)| *sequence).map(|(_, name)| name)
}

/// The youngest member of each shard, from pairs of node name and member. An instance that lost its session or was started
/// anew has two nodes until the old session ends. Members without a shard and other nodes are left out.
pub fn youngest_by_shard(nodes: impl IntoIterator<Item = (String, Member)>) -> BTreeMap<u32, Member> {
    let mut youngest: BTreeMap<u32, (u64, Member)> = BTreeMap::new();
    for (name, member) in nodes {
        let (Some(sequence), Some(shard)) = (sequence(&name), member.shard) else { continue };
        if youngest.get(&shard).is_none_or(|(known, _)| *known < sequence) {
            youngest.insert(shard, (sequence, member));
        }
    }
    youngest.into_iter().map(|(shard, (_, member))| (shard, member)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(host: &str, port: u16) -> Endpoint {
        Endpoint { host: host.to_owned(), port }
    }

    fn member(host: &str, shard: Option<u32>) -> Member {
        Member::alive(endpoint(host, 31001), BTreeMap::new(), shard)
    }

    #[test]
    fn an_executors_member_is_read() {
        let data = br#"{"status":"ALIVE","additionalEndpoints":{"aurora":{"host":"agent1.example.com","port":31001},
            "health":{"host":"agent1.example.com","port":31002}},
            "serviceEndpoint":{"host":"agent1.example.com","port":31001},"shard":3}"#;
        let read = Member::parse(data).unwrap();
        assert_eq!(read.shard, Some(3));
        assert_eq!(read.service_endpoint.to_string(), "agent1.example.com:31001");
        assert_eq!(read.additional_endpoints["health"], endpoint("agent1.example.com", 31002));
        assert_eq!(Member::parse(&read.to_json()), Ok(read));
    }

    #[test]
    fn what_we_write_has_every_field_that_readers_require() {
        let health = BTreeMap::from([("health".to_owned(), endpoint("10.0.0.5", 31002))]);
        let written = Member::alive(endpoint("10.0.0.5", 31001), health, Some(0)).to_json();
        let wanted = r#"{"serviceEndpoint":{"host":"10.0.0.5","port":31001},"additionalEndpoints":{"health":{"host":"10.0.0.5","port":31002}},"status":"ALIVE","shard":0}"#;
        assert_eq!(String::from_utf8(written).unwrap(), wanted);
        let none = member("10.0.0.5", None).to_json();
        let wanted = r#"{"serviceEndpoint":{"host":"10.0.0.5","port":31001},"additionalEndpoints":{},"status":"ALIVE"}"#;
        assert_eq!(String::from_utf8(none).unwrap(), wanted);
    }

    #[test]
    fn members_of_other_writers_are_read() {
        let least = Member::parse(br#"{"serviceEndpoint":{"host":"a","port":1}}"#).unwrap();
        assert_eq!(least, Member::alive(endpoint("a", 1), BTreeMap::new(), None));
        let most = br#"{"member_id":7,"serviceEndpoint":{"host":"a","port":0,"inet":"10.0.0.1","inet6":null},
            "additionalEndpoints":null,"status":"WARMING","shard":-1,"metadata":{"x":[1,{"y":null}]}}"#;
        let most = Member::parse(most).unwrap();
        assert_eq!((most.status.as_str(), most.shard, most.service_endpoint.port), ("WARMING", None, 0));
        let nulls = Member::parse(br#"{"serviceEndpoint":{"host":"a","port":1},"status":null,"shard":null}"#).unwrap();
        assert_eq!(nulls, least);
    }

    #[test]
    fn what_is_no_member_is_an_error_with_a_bounded_text() {
        let long = format!(r#"{{"serviceEndpoint":"{}"}}"#, "x".repeat(1 << 20));
        let deep = "[".repeat(1 << 20);
        let cases: [&[u8]; 9] = [
            b"",
            b"null",
            b"\x00\x01\xff\xfe",
            b"10.0.0.5:6379",
            b"{\"additionalEndpoints\":{}}",
            b"{\"serviceEndpoint\":{\"host\":\"a\",\"port\":65536}}",
            b"{\"serviceEndpoint\":{\"host\":\"a\",\"port\":-1}}",
            long.as_bytes(),
            deep.as_bytes(),
        ];
        for data in cases {
            let error = Member::parse(data).unwrap_err();
            assert_eq!(error.bytes, data.len());
            assert!(error.to_string().len() < 2000);
        }
    }

    #[test]
    fn only_member_nodes_have_a_sequence() {
        assert_eq!(sequence("member_0000000012"), Some(12));
        assert_eq!(sequence("member_2147483647"), Some(2_147_483_647));
        for other in [
            "_c_6f1c-lock-0000000003",
            "singleton_candidate_0000000001",
            "member_",
            "member_12",
            "member_-147483648",
            "member_00000000x1",
        ] {
            assert_eq!(sequence(other), None, "{other}");
        }
    }

    #[test]
    fn the_youngest_member_leads() {
        let children = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        assert_eq!(leader(&[]), None);
        assert_eq!(leader(&children(&["_c_1-lock-0000000009", "singleton_candidate_0000000008"])), None);
        let several = children(&["member_0000000004", "_c_1-lock-0000000009", "member_0000000010", "member_0000000009"]);
        assert_eq!(leader(&several), Some("member_0000000010"));
    }

    #[test]
    fn the_youngest_member_of_a_shard_counts_in_any_order() {
        let nodes = [
            ("member_0000000007", member("old", Some(1))),
            ("member_0000000010", member("new", Some(1))),
            ("member_0000000003", member("zero", Some(0))),
            ("member_0000000020", member("no shard", None)),
            ("lock-0000000030", member("no member", Some(1))),
        ];
        let nodes = nodes.map(|(name, member)| (name.to_owned(), member));
        let forwards = youngest_by_shard(nodes.clone());
        let hosts: Vec<&str> = forwards.values().map(|member| member.service_endpoint.host.as_str()).collect();
        assert_eq!(hosts, ["zero", "new"]);
        assert_eq!(youngest_by_shard(nodes.into_iter().rev()), forwards);
    }
}
