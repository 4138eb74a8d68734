//! One connection of the agent to its own server, over the unix socket, with a deadline on every call.

use std::path::Path;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, ConnectionAddr, FromRedisValue, IntoConnectionInfo, RedisConnectionInfo};

use crate::api::Position;
use crate::redis::conf::ADMIN;
use crate::redis::info::Info;

/// Longest wait for the connection itself.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// What came of one call.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The server answered with an error: a sign of life, and the command did not happen.
    #[error("redis answered {code} to {what}: {message}")]
    Reply { what: String, code: String, message: String },
    /// No answer in time: perhaps done, perhaps done later.
    #[error("redis did not answer {what} within {limit:?}")]
    Silent { what: String, limit: Duration },
    /// The connection broke or could not be made: perhaps done.
    #[error("no connection to redis for {what}")]
    Broken {
        what: String,
        #[source]
        source: redis::RedisError,
    },
}

impl Error {
    /// Whether the connection is of no use any more.
    pub fn is_broken(&self) -> bool {
        matches!(self, Error::Broken { .. })
    }

    /// Whether the server answered at all.
    pub fn is_reply(&self) -> bool {
        matches!(self, Error::Reply { .. })
    }

    /// Redis' error word, e.g. `LOADING`; empty without a reply.
    pub fn code(&self) -> &str {
        match self {
            Error::Reply { code, .. } => code,
            _ => "",
        }
    }
}

/// What a server answered to several commands, in their order.
pub(crate) type Answers = Vec<Result<redis::Value, Error>>;

/// A connection as the agent's own user.
#[derive(Clone)]
pub(crate) struct Connection {
    inner: MultiplexedConnection,
}

impl Connection {
    /// Connects and authenticates.
    pub async fn open(socket: &Path, password: &str) -> Result<Connection, Error> {
        let user = RedisConnectionInfo::default().set_username(ADMIN).set_password(password).set_skip_set_lib_name();
        let config = AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT_TIMEOUT)).set_response_timeout(None);
        let open = async {
            let info = ConnectionAddr::Unix(socket.to_owned()).into_connection_info()?.set_redis_settings(user);
            redis::Client::open(info)?.get_multiplexed_async_connection_with_config(&config).await
        };
        match tokio::time::timeout(CONNECT_TIMEOUT, open).await {
            Ok(Ok(inner)) => Ok(Connection { inner }),
            Ok(Err(source)) => Err(classify("AUTH", source)),
            Err(_) => Err(Error::Silent { what: "AUTH".into(), limit: CONNECT_TIMEOUT }),
        }
    }

    /// One command, its words separated by blanks, waiting at most `limit`.
    pub async fn call<T: FromRedisValue>(&mut self, words: &str, limit: Duration) -> Result<T, Error> {
        self.send(&command(words), words, limit).await
    }

    /// Several commands, sent at once: all are carried out, in this order, whatever comes of those before. Their answers, waiting at most `limit`
    /// for all of them.
    pub async fn call_all(&mut self, commands: &[String], limit: Duration) -> Result<Answers, Error> {
        let mut pipeline = redis::pipe();
        for words in commands {
            pipeline.add_command(command(words));
        }
        pipeline.ignore_errors();
        let what = commands.first().map_or("", String::as_str);
        let answers: Vec<redis::RedisResult<redis::Value>> = limited(pipeline.query_async(&mut self.inner), what, limit).await?;
        let classified = commands.iter().zip(answers).map(|(words, answer)| answer.map_err(|source| classify(words, source)));
        Ok(classified.collect())
    }

    /// `CONFIG SET key value`, the value as it is.
    pub async fn config_set(&mut self, key: &str, value: &str, limit: Duration) -> Result<(), Error> {
        let what = format!("CONFIG SET {key}");
        self.send(redis::cmd("CONFIG").arg("SET").arg(key).arg(value), &what, limit).await
    }

    /// `INFO`, all of the default sections.
    pub async fn info(&mut self, limit: Duration) -> Result<Info, Error> {
        let asked = Some(std::time::Instant::now());
        let text: String = self.call("INFO", limit).await?;
        let info = Info::parse(&text).ok_or_else(|| Error::Reply {
            what: "INFO".into(),
            code: "UNEXPECTED".into(),
            message: text.chars().take(120).collect(),
        })?;
        Ok(Info { asked, ..info })
    }

    /// Where the server stands: `INFO replication`, which is short.
    pub async fn position(&mut self, limit: Duration) -> Result<Position, Error> {
        let text: String = self.call("INFO replication", limit).await?;
        let field = |name: &str| text.lines().find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'));
        let replid = field("master_replid").unwrap_or_default().to_owned();
        Ok(Position { replid, offset: field("master_repl_offset").and_then(|offset| offset.parse().ok()).unwrap_or(0) })
    }

    async fn send<T: FromRedisValue>(&mut self, cmd: &Cmd, what: &str, limit: Duration) -> Result<T, Error> {
        limited(cmd.query_async(&mut self.inner), what, limit).await
    }
}

fn command(words: &str) -> Cmd {
    let mut cmd = Cmd::new();
    for word in words.split(' ') {
        cmd.arg(word);
    }
    cmd
}

async fn limited<T>(call: impl Future<Output = redis::RedisResult<T>>, what: &str, limit: Duration) -> Result<T, Error> {
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(source)) => Err(classify(what, source)),
        Err(_) => Err(Error::Silent { what: what.into(), limit }),
    }
}

fn classify(what: &str, source: redis::RedisError) -> Error {
    match source.code() {
        Some(code) => Error::Reply { what: what.into(), code: code.into(), message: source.detail().unwrap_or_default().into() },
        None => Error::Broken { what: what.into(), source },
    }
}
