//! A server outside of the cluster that data is migrated from: how it is asked, judged, and had to refuse writes or take them again.
//!
//! It refuses writes by `min-replicas-to-write`: no server has so many replicas, so every write, also of scripts and transactions that were queued
//! before, is answered `-NOREPLICAS` and not carried out, while reads and replication go on. Tried on Redis 6.2 to 8.2 and Valkey 8 and 9.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, ConnectionAddr, FromRedisValue, IntoConnectionInfo, RedisConnectionInfo};

use crate::api::{Door, Examined, Origin, Position, Role};
use crate::forks;
use crate::layers::parse_bytes;
use crate::node::Node;
use crate::rdb;
use crate::redis::info::{Info, Version};
use crate::secret::Secret;
use crate::server::Server;

/// Longest wait for the connection, and for each answer.
const LIMIT: Duration = Duration::from_secs(3);
/// More replicas than any server has.
const NEVER: u32 = 1_000_000;
/// Redis' own default of `min-replicas-max-lag`, seconds: with 0 the other setting does nothing.
const SOME_LAG: u32 = 10;
/// Older ones were never tried, and lack settings that are needed.
const OLDEST: (u32, u32) = (6, 2);

/// A connection to an origin. Errors are words for people, without any password.
pub(crate) struct Link {
    inner: MultiplexedConnection,
    shown: String,
}

/// User and password as they are given to a server: empty for none.
pub(crate) fn credential(secret: Option<&Secret>, origin: &Origin) -> Result<(String, String), String> {
    let user = origin.username.clone().unwrap_or_default();
    let Some(sealed) = &origin.password else { return Ok((user, String::new())) };
    let secret = secret.ok_or("a password can be read only where there is a secret file (secret_file)")?;
    let password = secret.unseal(&origin.purpose(), sealed).map_err(|e| e.to_string())?;
    Ok((user, password))
}

impl Link {
    /// Connects and logs in.
    pub async fn open(secret: Option<&Secret>, origin: &Origin) -> Result<Link, String> {
        let shown = origin.address.to_string();
        let (user, password) = credential(secret, origin)?;
        let mut login = RedisConnectionInfo::default().set_skip_set_lib_name();
        if !user.is_empty() {
            login = login.set_username(user);
        }
        if !password.is_empty() {
            login = login.set_password(password);
        }
        let config = AsyncConnectionConfig::new().set_connection_timeout(Some(LIMIT)).set_response_timeout(Some(LIMIT));
        let connect = async {
            let address = ConnectionAddr::Tcp(origin.address.host.clone(), origin.address.port);
            let info = address.into_connection_info()?.set_redis_settings(login);
            redis::Client::open(info)?.get_multiplexed_async_connection_with_config(&config).await
        };
        match tokio::time::timeout(LIMIT, connect).await {
            Ok(Ok(inner)) => Ok(Link { inner, shown }),
            Ok(Err(error)) => Err(format!("{shown} cannot be asked: {error}")),
            Err(_) => Err(format!("{shown} does not answer within {LIMIT:?}")),
        }
    }

    async fn call<T: FromRedisValue>(&mut self, words: &[&str]) -> Result<T, String> {
        let mut cmd = Cmd::new();
        for word in words {
            cmd.arg(word);
        }
        let what = words.iter().take(2).copied().collect::<Vec<_>>().join(" ");
        match tokio::time::timeout(LIMIT, cmd.query_async(&mut self.inner)).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(format!("{} answers to {what}: {error}", self.shown)),
            Err(_) => Err(format!("{} does not answer {what} within {LIMIT:?}", self.shown)),
        }
    }

    /// `INFO`, and whether it belongs to a Redis Cluster.
    pub async fn info(&mut self) -> Result<(Info, bool), String> {
        let text: String = self.call(&["INFO"]).await?;
        let info = Info::parse(&text).ok_or_else(|| format!("{} is no Redis or Valkey server that keeps data", self.shown))?;
        Ok((info, text.lines().any(|line| line.trim_end() == "cluster_enabled:1")))
    }

    /// Where it stands, and whether it is a master.
    pub async fn position(&mut self) -> Result<(Role, Position), String> {
        let (info, _) = self.info().await?;
        Ok((info.role, Position { replid: info.replid, offset: info.offset }))
    }

    async fn number(&mut self, setting: &str) -> Result<u32, String> {
        let pair: Vec<String> = self.call(&["CONFIG", "GET", setting]).await?;
        let value = pair.get(1).and_then(|value| value.parse().ok());
        value.ok_or_else(|| format!("{} does not tell its {setting}", self.shown))
    }

    /// Its settings that let writes in.
    pub async fn door(&mut self) -> Result<Door, String> {
        Ok(Door {
            min_replicas_to_write: self.number("min-replicas-to-write").await?,
            min_replicas_max_lag: self.number("min-replicas-max-lag").await?,
        })
    }

    async fn set(&mut self, setting: &str, value: u32) -> Result<(), String> {
        self.call(&["CONFIG", "SET", setting, &value.to_string()]).await
    }

    /// Has it refuse every write from now on.
    pub async fn close(&mut self, was: Door) -> Result<(), String> {
        if was.min_replicas_max_lag == 0 {
            self.set("min-replicas-max-lag", SOME_LAG).await?;
        }
        self.set("min-replicas-to-write", NEVER).await
    }

    /// Puts its settings back.
    pub async fn reopen(&mut self, was: Door) -> Result<(), String> {
        self.set("min-replicas-to-write", was.min_replicas_to_write).await?;
        if was.min_replicas_max_lag == 0 {
            self.set("min-replicas-max-lag", 0).await?;
        }
        Ok(())
    }
}

/// Looks at an origin, and at this instance, without a change to either.
pub(crate) async fn examine(node: &Arc<Node>, origin: &Origin) -> Examined {
    let mut found = Examined { instance: node.config.instance, ..Examined::default() };
    if let Err(why) = look(node, origin, &mut found).await {
        found.objections.push(why);
    }
    found
}

async fn look(node: &Arc<Node>, origin: &Origin, found: &mut Examined) -> Result<(), String> {
    if origin.address == node.config.redis {
        return Err(format!("{} is this instance itself", origin.address));
    }
    let mut link = Link::open(node.config.secret.as_ref(), origin).await?;
    let (info, clustered) = link.info().await?;
    found.version = info.version.to_string();
    found.run_id.clone_from(&info.run_id);
    found.keys = info.keys();
    found.used_memory = info.used_memory;
    found.position = Some(Position { replid: info.replid.clone(), offset: info.offset });
    let shown = &origin.address;
    if info.role != Role::Master {
        let master = info.following.map_or_else(String::new, |master| format!(": name its master, {master}"));
        found.objections.push(format!("{shown} is a replica{master}"));
    }
    if clustered {
        found.objections.push(format!("{shown} belongs to a Redis Cluster, which holds only a part of the data"));
    }
    if info.loading {
        found.objections.push(format!("{shown} is still loading its data"));
    }
    found.objections.extend(too_old(&info.version).map(|why| format!("{shown}: {why}")));
    rights(&mut link, found).await;
    here(node, &mut link, found).await
}

fn too_old(version: &Version) -> Option<String> {
    let (major, minor) = OLDEST;
    (!version.at_least(major, minor))
        .then(|| format!("version {version} was never tried; {major}.{minor} and later are known to work"))
}

/// Whether the user may do what a migration needs.
async fn rights(link: &mut Link, found: &mut Examined) {
    match link.door().await {
        Ok(door) => {
            found.door = Some(door);
            // The value that it has: nothing changes.
            if let Err(why) = link.set("min-replicas-to-write", door.min_replicas_to_write).await {
                found.objections.push(format!("its user may not have it refuse writes (CONFIG SET): {why}"));
            }
        }
        Err(why) => found
            .objections
            .push(format!("its settings cannot be read (CONFIG GET), so it could not be had to refuse writes: {why}")),
    }
    if let Err(why) = link.call::<String>(&["REPLCONF", "capa", "eof"]).await {
        found.objections.push(format!("its user may not replicate (REPLCONF, PSYNC): {why}"));
    }
    // Where this cannot be asked it shows when the following begins.
    let user: Result<String, String> = link.call(&["ACL", "WHOAMI"]).await;
    if let Ok(user) = user
        && let Ok(answer) = link.call::<String>(&["ACL", "DRYRUN", &user, "PSYNC", "?", "-1"]).await
        && answer != "OK"
    {
        found.objections.push(format!("its user may not replicate (PSYNC): {answer}"));
    }
}

/// Whether the data fits here: version, modules, databases, memory, disk.
async fn here(node: &Arc<Node>, link: &mut Link, found: &mut Examined) -> Result<(), String> {
    let program = node.program.get().await?;
    let (ours, used) = (program.version.to_string(), found.used_memory);
    if let Err(why) = rdb::can_follow(&ours, &found.version) {
        found.objections.push(why);
    }
    if let Some(server) = node.server() {
        found.objections.extend(lacking(&server, link).await);
    }
    let own = node.look(|parts| parts.info.as_ref().map_or(0, |info| info.used_memory));
    let limit = node.config.pass_through.get("maxmemory").and_then(|values| parse_bytes(values.last()?).ok());
    if let Some(limit) = limit.filter(|limit| *limit > 0 && used > *limit) {
        found.objections.push(format!("its data uses {used} bytes of memory, and maxmemory here is {limit}"));
    }
    found.objections.extend(forks::check_room(used, own).err());
    found.objections.extend(check_disk(node, used.saturating_add(own)).err());
    Ok(())
}

fn check_disk(node: &Node, needed: u64) -> Result<(), String> {
    let dir = node.places.data();
    let stat = rustix::fs::statvfs(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if free >= needed {
        return Ok(());
    }
    let dir = dir.display();
    Err(format!(
        "too little space: a first copy and a dump of the present data may take {needed} bytes, and {free} are free in {dir}"
    ))
}

/// What the origin has and our server lacks.
async fn lacking(server: &Arc<Server>, link: &mut Link) -> Vec<String> {
    let mut found = Vec::new();
    let theirs = link.call::<redis::Value>(&["MODULE", "LIST"]).await.map(|list| names(&list)).unwrap_or_default();
    let ours = server.tell("MODULE LIST", LIMIT).await.map(|list| names(&list)).unwrap_or_default();
    let missing: Vec<&str> = theirs.iter().filter(|name| !ours.contains(name)).map(String::as_str).collect();
    if !missing.is_empty() {
        found.push(format!("it has modules that this cluster lacks, whose data could not be loaded: {}", missing.join(", ")));
    }
    let ours = server.tell("CONFIG GET databases", LIMIT).await.ok().and_then(|pair| Vec::<String>::from_redis_value(pair).ok());
    let ours: Option<u32> = ours.and_then(|pair| pair.get(1)?.parse().ok());
    if let (Some(ours), Ok(theirs)) = (ours, link.number("databases").await)
        && theirs > ours
    {
        found.push(format!("it has {theirs} databases and this cluster {ours} (redis.config.databases)"));
    }
    found
}

/// The names in an answer to `MODULE LIST`.
fn names(list: &redis::Value) -> Vec<String> {
    let redis::Value::Array(modules) = list else { return Vec::new() };
    let name = |module: &redis::Value| -> Option<String> {
        let redis::Value::Array(fields) = module else { return None };
        let texts: Vec<String> = fields.iter().map(|f| String::from_redis_value_ref(f).unwrap_or_default()).collect();
        texts.chunks(2).find(|pair| pair[0] == "name").and_then(|pair| pair.get(1).cloned())
    };
    modules.iter().filter_map(name).collect()
}
