//! Whom to ask: a fixed URL, or the leader that ZooKeeper names.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use tokio::time::Instant;
use zookeeper_client as zk;

use crate::error::Error;
use crate::serverset::{self, Member};

/// Longest wait for ZooKeeper in one attempt.
const ZOOKEEPER_TIMEOUT: Duration = Duration::from_secs(5);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Gives the ZooKeeper session of the moment, or says why there is none. Sessions expire; whoever owns them makes new ones.
pub type Sessions = Arc<dyn Fn() -> Result<zk::Client, BoxError> + Send + Sync>;

/// Where the scheduler is found.
#[derive(Clone)]
pub struct Endpoint(Kind);

#[derive(Clone)]
enum Kind {
    Url(Url),
    ZooKeeper { path: String, sessions: Sessions },
}

impl Endpoint {
    /// The scheduler at a fixed URL such as `http://10.0.0.5:8081`; it may name another one that leads.
    ///
    /// # Errors
    /// [`Error::Url`] for a text that is no such URL, [`Error::Tls`] for https.
    pub fn url(text: &str) -> Result<Endpoint, Error> {
        let problem = |problem| {
            let shown = text.rsplit_once('@').map_or(text, |(_, host)| host);
            Error::Url { url: crate::error::excerpt(shown), problem }
        };
        let mut url = Url::parse(text).map_err(|_| problem("not a URL"))?;
        if url.username() != "" || url.password().is_some() {
            return Err(problem("user and password do not belong here"));
        }
        if url.scheme() == "https" {
            return without_tls(url).map(|url| Endpoint(Kind::Url(url)));
        }
        if url.scheme() != "http" || url.host().is_none() {
            return Err(problem("scheme or host missing"));
        }
        if !matches!(url.path(), "/" | "/api") || url.query().is_some() || url.fragment().is_some() {
            return Err(problem("the path is always /api"));
        }
        url.set_path("/api");
        Ok(Endpoint(Kind::Url(url)))
    }

    /// The scheduler that leads according to the ZooKeeper directory `path`, usually `/aurora/scheduler`.
    pub fn zookeeper(path: &str, sessions: Sessions) -> Endpoint {
        Endpoint(Kind::ZooKeeper { path: path.trim_end_matches('/').to_owned(), sessions })
    }

    /// The URL to post to now. ZooKeeper is asked each time: two reads, and never a stale leader by our own fault.
    pub(super) async fn leader(&self, deadline: Instant) -> Result<Url, Error> {
        let (path, sessions) = match &self.0 {
            Kind::Url(url) => return Ok(url.clone()),
            Kind::ZooKeeper { path, sessions } => (path, sessions),
        };
        let failed = |source: BoxError| Error::ZooKeeper { path: path.clone(), source };
        let session = sessions().map_err(failed)?;
        let limit = deadline.min(Instant::now() + ZOOKEEPER_TIMEOUT);
        match tokio::time::timeout_at(limit, read_leader(&session, path)).await {
            Ok(Ok(Some((node, data)))) => member_url(&format!("{path}/{node}"), &data),
            Ok(Ok(None)) => Err(Error::NoLeader { path: path.clone() }),
            Ok(Err(error)) => Err(failed(error.into())),
            Err(elapsed) => Err(failed(elapsed.into())),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Url(url) => write!(f, "{url}"),
            Kind::ZooKeeper { path, .. } => write!(f, "ZooKeeper {path}"),
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({self})")
    }
}

/// Name and data of the leader's node; `None` while there is none, also when it vanishes between the two reads.
async fn read_leader(session: &zk::Client, path: &str) -> Result<Option<(String, Vec<u8>)>, zk::Error> {
    let children = match session.list_children(path).await {
        Err(zk::Error::NoNode) => return Ok(None),
        children => children?,
    };
    let Some(node) = serverset::leader(&children) else { return Ok(None) };
    match session.get_data(&format!("{path}/{node}")).await {
        Err(zk::Error::NoNode) => Ok(None),
        data => data.map(|(data, _)| Some((node.to_owned(), data))),
    }
}

/// The URL of a scheduler's member. The key of an additional endpoint is its scheme; without one it is http.
fn member_url(path: &str, data: &[u8]) -> Result<Url, Error> {
    let failed = |source| Error::Member { path: path.to_owned(), source };
    let member = Member::parse(data).map_err(failed)?;
    let named = |scheme: &'static str| member.additional_endpoints.get(scheme).map(|endpoint| (scheme, endpoint));
    let (scheme, endpoint) = named("http").or_else(|| named("https")).unwrap_or(("http", &member.service_endpoint));
    let url = Url::parse(&format!("{scheme}://{endpoint}/api")).ok();
    let url = url.filter(|url| url.path() == "/api" && url.username().is_empty() && url.query().is_none());
    let no_address = || {
        let problem = crate::error::excerpt(&format!("`{endpoint}` is no address"));
        failed(serverset::Error { bytes: data.len(), problem })
    };
    without_tls(url.ok_or_else(no_address)?)
}

/// Refuses what we cannot speak to.
pub(super) fn without_tls(url: Url) -> Result<Url, Error> {
    match url.scheme() {
        "http" => Ok(url),
        _ => Err(Error::Tls { url: url.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_with_or_without_the_path_is_taken() {
        for text in ["http://10.0.0.5:8081", "http://10.0.0.5:8081/", "http://10.0.0.5:8081/api"] {
            assert_eq!(Endpoint::url(text).unwrap().to_string(), "http://10.0.0.5:8081/api");
        }
    }

    #[test]
    fn other_urls_are_refused_with_what_is_wrong() {
        for text in ["", "10.0.0.5:8081", "zk://10.0.0.5/aurora", "http://", "http://a/b", "http://a/api?x=1"] {
            let error = Endpoint::url(text).unwrap_err();
            assert!(matches!(error, Error::Url { .. } | Error::Tls { .. }), "{text}: {error}");
        }
        let error = Endpoint::url("https://a:8081").unwrap_err();
        assert_eq!(error.kind(), "tls");
        assert!(error.to_string().contains("plain http endpoint"), "{error}");
    }

    #[test]
    fn a_password_in_the_url_is_refused_and_not_repeated() {
        let error = Endpoint::url("http://me:secret@host:8081").unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
    }

    #[test]
    fn the_http_endpoint_of_a_member_is_preferred() {
        let service = r#""serviceEndpoint":{"host":"a","port":1}"#;
        let url = |additional: &str| member_url("/m", format!("{{{service}{additional}}}").as_bytes());
        assert_eq!(url("").unwrap().as_str(), "http://a:1/api");
        let both = r#","additionalEndpoints":{"https":{"host":"c","port":3},"http":{"host":"b","port":2}}"#;
        assert_eq!(url(both).unwrap().as_str(), "http://b:2/api");
        let tls = r#","additionalEndpoints":{"https":{"host":"c","port":3}}"#;
        assert_eq!(url(tls).unwrap_err().kind(), "tls");
        let other = r#","additionalEndpoints":{"admin":{"host":"c","port":3}}"#;
        assert_eq!(url(other).unwrap().as_str(), "http://a:1/api");
    }

    #[test]
    fn a_members_address_of_nonsense_is_an_error() {
        for host in ["", "a b", "a/b", "a?b", "a#b", "[::", "@", "user@a"] {
            let data = format!(r#"{{"serviceEndpoint":{{"host":"{host}","port":1}}}}"#);
            assert_eq!(member_url("/m", data.as_bytes()).unwrap_err().kind(), "member", "{host}");
        }
        let v6 = member_url("/m", br#"{"serviceEndpoint":{"host":"::1","port":8081}}"#).unwrap();
        assert_eq!(v6.as_str(), "http://[::1]:8081/api");
    }
}
