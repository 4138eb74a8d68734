//! Who leads: the oldest election node's data is the leader's URL. Used by standbys and by the command line.

use agent::zk::Children;
use tokio::sync::watch;

/// What is known of the leader.
#[derive(Clone, Debug)]
pub struct Leader {
    /// The election nodes, as watched in ZooKeeper.
    pub candidates: watch::Receiver<Children>,
    /// This controller's own URL.
    pub own_url: String,
}

impl Leader {
    /// URL of another controller that leads; absent when there is none.
    pub fn url(&self) -> Option<String> {
        leader_url(&self.candidates.borrow().nodes).filter(|url| *url != self.own_url)
    }

    /// Why the election nodes cannot be read now; absent when they can.
    pub fn problem(&self) -> Option<String> {
        self.candidates.borrow().problem.clone()
    }
}

/// The URL in the election node with the lowest sequence number (its last ten digits). Nodes of other names or without a URL are none of ours.
pub fn leader_url(nodes: &[(String, Vec<u8>)]) -> Option<String> {
    let sequence = |name: &str| name.get(name.len().checked_sub(10)?..)?.parse::<u32>().ok();
    let candidates = nodes.iter().filter_map(|(name, data)| Some((sequence(name)?, controller_url(data)?)));
    candidates.min_by_key(|(sequence, _)| *sequence).map(|(_, url)| url)
}

fn controller_url(data: &[u8]) -> Option<String> {
    let url = std::str::from_utf8(data).ok()?.trim().trim_end_matches('/');
    let host = url.parse::<reqwest::Url>().ok().filter(|url| url.scheme() == "http" && url.has_host());
    host.map(|_| url.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_sequence_leads_and_nonsense_is_ignored() {
        let node = |name: &str, data: &[u8]| (name.to_owned(), data.to_vec());
        let nodes = [
            node("zz-0000000003", b"http://b:2"),
            node("aa-0000000012", b"http://a:1/"),
            node("lost+found", b"x"),
            node("junk-0000000001", b"x"),
            node("ä", b"x"),
        ];
        assert_eq!(leader_url(&nodes).as_deref(), Some("http://b:2"));
        assert_eq!(leader_url(&nodes[1..]).as_deref(), Some("http://a:1"));
        assert_eq!(leader_url(&[node("n-0000000001", b"\xff\xfe")]), None);
        assert_eq!(leader_url(&[node("n-0000000001", &[b'x'; 1 << 20])]), None);
        assert_eq!(leader_url(&[node("n-0000000001", b"file:///etc/passwd")]), None);
    }
}
