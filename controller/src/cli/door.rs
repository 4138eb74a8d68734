//! The way to the leading controller: its election node in ZooKeeper, then its HTTP API.

use std::time::Duration;

use agent::zk::{self, Keeper};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Context;
use crate::http::{Problem, leader_url};
use crate::view::{Ask, Reply};
use agent::causes::chain;

/// Longest answer of a controller, bytes.
const MAX_BODY: usize = 16 << 20;

/// Why the controller could not be asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("ZooKeeper cannot be read")]
    ZooKeeper(#[from] zk::Error),
    #[error(
        "no controller leads cluster {cluster}: {path} in ZooKeeper {zookeeper} names none; start one (its log says why it does not lead)"
    )]
    NoLeader { cluster: String, path: String, zookeeper: String },
    #[error("the controller {url} cannot be asked")]
    Unreachable {
        url: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("the controller {url} answered {status}: {message}")]
    Answer { url: String, status: u16, message: String },
    #[error("the controller {url} wants the token that derives from the cluster's secret file; name it by --secret-file")]
    Unauthorized { url: String },
}

/// The leading controller.
pub(super) struct Door {
    url: String,
    http: reqwest::Client,
    token: Option<String>,
}

impl Door {
    /// Finds the leader.
    pub async fn find(context: &Context) -> Result<Door, Error> {
        let place = &context.place;
        let keeper = context.keeper().await?;
        let path = place.paths().controllers();
        let candidates = candidates(keeper, &path).await?;
        let no_leader = || Error::NoLeader { cluster: place.cluster.clone(), path, zookeeper: place.zookeeper.clone() };
        let url = leader_url(&candidates).ok_or_else(no_leader)?;
        let builder = reqwest::Client::builder().connect_timeout(Duration::from_secs(3)).timeout(Duration::from_secs(30));
        let http = builder.redirect(reqwest::redirect::Policy::none()).build();
        let http = http.map_err(|source| Error::Unreachable { url: url.clone(), source })?;
        Ok(Door { url, http, token: place.secret.as_ref().map(agent::secret::Secret::api_token) })
    }

    /// `GET /api/v1/<part>`.
    pub async fn get<T: DeserializeOwned>(&self, part: &str) -> Result<T, Error> {
        let answer = self.send(self.http.get(format!("{}/api/v1/{part}", self.url))).await?;
        let status = answer.status().as_u16();
        let body = self.body(answer).await?;
        if status != 200 {
            return Err(self.problem(status, &body));
        }
        serde_json::from_slice(&body)
            .map_err(|error| self.problem(status, format!("what is not understood ({error})").as_bytes()))
    }

    /// `POST /api/v1/operations`; a refusal is a reply, too.
    pub async fn ask(&self, ask: &Ask) -> Result<Reply, Error> {
        let answer = self.send(self.with_token(ask)).await?;
        let status = answer.status().as_u16();
        let body = self.body(answer).await?;
        match (status, serde_json::from_slice(&body)) {
            (401, _) => Err(Error::Unauthorized { url: self.url.clone() }),
            (202 | 409, Ok(reply)) => Ok(reply),
            _ => Err(self.problem(status, &body)),
        }
    }

    fn with_token(&self, body: &impl Serialize) -> reqwest::RequestBuilder {
        let request = self.http.post(format!("{}/api/v1/operations", self.url)).json(body);
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response, Error> {
        request.send().await.map_err(|source| Error::Unreachable { url: self.url.clone(), source: source.without_url() })
    }

    async fn body(&self, mut answer: reqwest::Response) -> Result<Vec<u8>, Error> {
        let mut body = Vec::new();
        while let Some(chunk) =
            answer.chunk().await.map_err(|source| Error::Unreachable { url: self.url.clone(), source: source.without_url() })?
        {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_BODY {
                return Err(self.problem(answer.status().as_u16(), b"more than 16 MiB"));
            }
        }
        Ok(body)
    }

    fn problem(&self, status: u16, body: &[u8]) -> Error {
        let told = serde_json::from_slice::<Problem>(body).map(|problem| problem.error);
        let message = told.unwrap_or_else(|_| String::from_utf8_lossy(body).chars().take(300).collect());
        Error::Answer { url: self.url.clone(), status, message: super::table::clean(&message) }
    }
}

/// The election nodes with their data.
pub(super) async fn candidates(keeper: &Keeper, path: &str) -> Result<Vec<(String, Vec<u8>)>, zk::Error> {
    let client = keeper.client()?;
    let names = match zk::call("list", path, client.list_children(path)).await {
        Ok(names) => names,
        Err(zk::Error::Call { source: zookeeper_client::Error::NoNode, .. }) => Vec::new(),
        Err(error) => return Err(error),
    };
    let mut nodes = Vec::new();
    for name in names {
        if let Some(node) = zk::read(&client, &format!("{path}/{name}")).await? {
            nodes.push((name, node.data));
        }
    }
    Ok(nodes)
}

/// The present state of the cluster, looked at again while the lead changes.
pub(super) async fn look_until<T: DeserializeOwned>(context: &Context, part: &str, limit: Duration) -> Result<T, Error> {
    let deadline = tokio::time::Instant::now() + limit;
    loop {
        let looked = match Door::find(context).await {
            Ok(door) => door.get(part).await,
            Err(error) => Err(error),
        };
        match looked {
            Err(error) if tokio::time::Instant::now() < deadline => {
                tracing::debug!(error = chain(&error), "looking again");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::example;
    use crate::http::{Doors, Leader, router};
    use crate::intake::Intake;
    use crate::view::HistoryEntry;

    /// A door to a controller that asks for `token`, and accepts everything.
    async fn door(given: Option<&str>) -> Door {
        let (intake, publish, mut asked) = Intake::channel();
        publish.send_replace(Arc::new(example::published()));
        let (_, candidates) = tokio::sync::watch::channel(Default::default());
        let doors = Doors {
            intake,
            token: Some("secret".into()),
            agents: agent::client::Client::new(None),
            cluster: "www/prod/cache".into(),
            config: Default::default(),
            metrics: Default::default(),
            leader: Leader { candidates, own_url: String::new() },
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router(doors)).await });
        tokio::spawn(async move {
            while let Some(asked) = asked.recv().await {
                let _ = asked.reply.send(Reply::accepted("7", "begun"));
            }
            drop(publish);
        });
        Door { url, http: reqwest::Client::new(), token: given.map(str::to_owned) }
    }

    #[tokio::test]
    async fn asking_needs_the_token_and_looking_does_not() {
        let ask = Ask::Backup { owner: "ann".into(), how: None };
        assert_eq!(door(Some("secret")).await.ask(&ask).await.unwrap().operation_id, "7");
        let stranger = door(None).await;
        assert!(matches!(stranger.ask(&ask).await, Err(Error::Unauthorized { .. })));
        assert_eq!(stranger.get::<Vec<HistoryEntry>>("history").await.unwrap(), example::published().history);
    }

    #[tokio::test]
    async fn what_is_not_understood_is_an_error_with_its_place() {
        let door = door(None).await;
        let error = door.get::<Vec<HistoryEntry>>("nothing").await.expect_err("no such part");
        assert!(error.to_string().contains("answered 404: there is no /api/v1/nothing"), "{error}");
        let error = door.get::<Vec<HistoryEntry>>("plan").await.expect_err("a plan is no history");
        assert!(error.to_string().contains("what is not understood"), "{error}");
    }
}
