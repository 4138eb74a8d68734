//! The store in HDFS.
//!
//! The client library has no deadline on NameNode calls and waits for ever on one that hangs; so each call runs in a task of its
//! own under a deadline, and a client that let one pass is replaced (its connection may never answer again). A panic in the
//! library becomes an error.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use hdfs_native::file::FileWriter;
use hdfs_native::{Client, ClientBuilder, HdfsError, WriteOptions};

use super::error::{Error, Trouble, first_line};
use super::files::{Child, Create, Deadlines, Kind};

const BLOCK_BYTES: u64 = 128 << 20;
/// A dump up to this size is one block: a DataNode that dies is survived then, at a block's start it is not.
const BLOCK_MAX_BYTES: u64 = 2 << 30;

/// How to reach one HDFS.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// `hdfs://host:port` or `hdfs://nameservice`.
    pub url: String,
    /// Directory of core-site.xml and hdfs-site.xml; absent for `HADOOP_CONF_DIR` or none.
    pub conf_dir: Option<PathBuf>,
    /// User to act as; absent for `HADOOP_USER_NAME` or the process's own.
    pub user: Option<String>,
}

pub(super) struct Hdfs {
    settings: Settings,
    deadlines: Deadlines,
    client: Mutex<Client>,
}

impl Hdfs {
    /// Reads the configuration; connects only at the first call.
    pub fn new(settings: Settings, deadlines: Deadlines) -> Result<Hdfs, Error> {
        let client = build(&settings, false).map_err(|e| {
            let hint = "is it a nameservice without a configuration (HADOOP_CONF_DIR), or a host without a port?";
            Error::Address { uri: settings.url.clone(), why: format!("{}; {hint}", first_line(&e.to_string())) }
        })?;
        Ok(Hdfs { settings, deadlines, client: Mutex::new(client) })
    }

    pub async fn mkdirs(&self, path: &str) -> Result<(), Error> {
        self.call("mkdirs", path, |client, path| async move { client.mkdirs(&path, 0o750, true).await }).await
    }

    pub async fn stat(&self, path: &str) -> Result<Child, Error> {
        let found = self.call("stat", path, |client, path| async move { client.get_file_info(&path).await }).await?;
        Ok(child(found))
    }

    pub async fn list(&self, path: &str) -> Result<Vec<Child>, Error> {
        let found = self.call("list", path, |client, path| async move { client.list_status(&path, false).await }).await?;
        Ok(found.into_iter().map(child).collect())
    }

    pub async fn open(&self, path: &str) -> Result<Reader, Error> {
        let file = self.call("open", path, |client, path| async move { client.read(&path).await }).await?;
        let stream = file.read_range_stream(0, file.file_length());
        Ok(Reader { stream: Box::pin(stream), path: path.into(), deadline: self.deadlines.read })
    }

    pub async fn create(&self, path: &str, how: Create) -> Result<Writer, Error> {
        let block = how.bytes.div_ceil(BLOCK_BYTES).max(1).saturating_mul(BLOCK_BYTES).min(BLOCK_MAX_BYTES);
        let options = WriteOptions::default()
            .block_size(block)
            .replication(how.replication)
            .permission(0o640)
            .overwrite(false)
            .create_parent(true);
        let create = |client: Client, path: String| async move { client.create(&path, options).await };
        let file = self.call("create", path, create).await?;
        Ok(Writer { file, path: path.into(), deadlines: self.deadlines })
    }

    pub async fn rename(&self, from: &str, to: &str) -> Result<(), Error> {
        let to = to.to_owned();
        self.call("rename", from, |client, from| async move { client.rename(&from, &to, false).await }).await
    }

    pub async fn remove(&self, path: &str) -> Result<(), Error> {
        self.call("remove", path, |client, path| async move { client.delete(&path, true).await.map(|_| ()) }).await
    }

    pub async fn set_replication(&self, path: &str, copies: u32) -> Result<(), Error> {
        let set = move |client: Client, path: String| async move { client.set_replication(&path, copies).await.map(|_| ()) };
        self.call("set replication of", path, set).await
    }

    /// One NameNode call under its deadline.
    async fn call<T, F>(&self, what: &'static str, path: &str, f: impl FnOnce(Client, String) -> F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = hdfs_native::Result<T>> + Send + 'static,
    {
        let call = f(self.client().clone(), path.to_owned());
        let mut task = tokio::task::JoinSet::new();
        task.spawn(call);
        match tokio::time::timeout(self.deadlines.call, task.join_next()).await {
            Ok(Some(Ok(done))) => done.map_err(|e| remote(what, path, &e)),
            Ok(Some(Err(join))) => Err(Error::panicked(what, path, &join)),
            Ok(None) | Err(_) => {
                self.renew();
                Err(Error::timeout(what, path, self.deadlines.call))
            }
        }
    }

    fn client(&self) -> MutexGuard<'_, Client> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client with a connection of its own. Of several NameNodes it takes another one first, perhaps: the first may hang.
    fn renew(&self) {
        if let Ok(client) = build(&self.settings, true) {
            *self.client() = client;
        }
    }
}

fn build(settings: &Settings, any_order: bool) -> hdfs_native::Result<Client> {
    let nameservice = settings.url.trim_start_matches("hdfs://");
    let order = format!("dfs.client.failover.random.order.{nameservice}");
    let mut config = vec![
        ("dfs.client.failover.max.attempts", "4"),
        ("dfs.client.failover.sleep.base.millis", "200"),
        ("dfs.client.failover.sleep.max.millis", "2000"),
        ("dfs.client.socket-timeout", "10000"),
        // Without it one DataNode lost in mid-block fails the file even though the other copies are well.
        ("dfs.client.block.write.replace-datanode-on-failure.best-effort", "true"),
    ];
    if any_order {
        config.push((&order, "true"));
    }
    let mut builder = ClientBuilder::new().with_url(&settings.url).with_config(config);
    if let Some(dir) = &settings.conf_dir {
        builder = builder.with_config_dir(dir.to_string_lossy());
    }
    if let Some(user) = &settings.user {
        builder = builder.with_user(user);
    }
    builder.build()
}

fn child(found: hdfs_native::client::FileStatus) -> Child {
    Child {
        name: found.path.rsplit('/').next().unwrap_or_default().to_owned(),
        bytes: found.length as u64,
        kind: if found.isdir { Kind::Directory } else { Kind::File },
        modified_ms: found.modification_time,
    }
}

fn remote(what: &'static str, path: &str, error: &HdfsError) -> Error {
    let (trouble, why) = classify(error);
    Error::Remote { what, path: path.into(), trouble, why: first_line(&why) }
}

fn classify(error: &HdfsError) -> (Trouble, String) {
    use HdfsError as E;
    let trouble = match error {
        E::IOError(_) => Trouble::Unreachable,
        E::AlreadyExists(_) => Trouble::Exists,
        E::FileNotFound(_) => Trouble::Missing,
        E::InvalidPath(_) | E::InvalidArgument(_) | E::UrlParseError(_) | E::IsADirectoryError(_) | E::UnsupportedFeature(_) => {
            Trouble::Invalid
        }
        E::SASLError(_) | E::GSSAPIError(..) | E::NoSASLMechanism => Trouble::Denied,
        E::RPCError(class, message) | E::FatalRPCError(class, message) => {
            let class = class.rsplit('.').next().unwrap_or_default();
            return (by_class(class, message), format!("{class}: {message}"));
        }
        _ => Trouble::Failed,
    };
    (trouble, error.to_string())
}

/// What an exception of the NameNode means for the caller.
fn by_class(class: &str, message: &str) -> Trouble {
    match class {
        "SafeModeException" | "StandbyException" | "RetriableException" | "RecoveryInProgressException" => Trouble::Busy,
        "NotReplicatedYetException" | "ObserverRetryOnActiveException" => Trouble::Busy,
        _ if message.contains("could only be written to") || message.contains("could only be replicated to") => Trouble::Busy,
        "AccessControlException" | "AuthorizationException" | "InvalidToken" => Trouble::Denied,
        "DSQuotaExceededException" | "NSQuotaExceededException" | "QuotaByStorageTypeExceededException" => Trouble::Full,
        "FileNotFoundException" => Trouble::Missing,
        "FileAlreadyExistsException" => Trouble::Exists,
        "InvalidPathException" | "ParentNotDirectoryException" | "PathComponentTooLongException" => Trouble::Invalid,
        "UnresolvedPathException" | "HadoopIllegalArgumentException" => Trouble::Invalid,
        _ => Trouble::Failed,
    }
}

pub(super) struct Reader {
    stream: Pin<Box<dyn Stream<Item = hdfs_native::Result<Bytes>> + Send>>,
    path: String,
    deadline: Duration,
}

impl Reader {
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        match tokio::time::timeout(self.deadline, self.stream.next()).await {
            Err(_) => Err(Error::timeout("read", &self.path, self.deadline)),
            Ok(None) => Ok(None),
            Ok(Some(Ok(bytes))) => Ok(Some(bytes)),
            // One file's blocks, not the whole store.
            Ok(Some(Err(e))) => {
                let why = first_line(&e.to_string());
                Err(Error::Remote { what: "read", path: self.path.clone(), trouble: Trouble::Failed, why })
            }
        }
    }
}

pub(super) struct Writer {
    file: FileWriter,
    path: String,
    deadlines: Deadlines,
}

impl Writer {
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        match tokio::time::timeout(self.deadlines.write, self.file.write_bytes(bytes)).await {
            Err(_) => Err(Error::timeout("write", &self.path, self.deadlines.write)),
            Ok(done) => done.map(|_| ()).map_err(|e| remote("write", &self.path, &e)),
        }
    }

    pub async fn close(mut self) -> Result<(), Error> {
        match tokio::time::timeout(self.deadlines.close, self.file.close()).await {
            Err(_) => Err(Error::timeout("close", &self.path, self.deadlines.close)),
            Ok(done) => done.map_err(|e| remote("close", &self.path, &e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hdfs_says_is_told_apart() {
        let rpc = |class: &str, message: &str| HdfsError::RPCError(class.into(), format!("{message}\n\tat java.base/Some.frame"));
        let no_node = "File /x could only be written to 0 of the 1 minReplication nodes. There are 0 datanode(s) running";
        for (error, kind, retryable, definite) in [
            (rpc("org.apache.hadoop.hdfs.server.namenode.SafeModeException", "safe"), "busy", true, true),
            (rpc("org.apache.hadoop.ipc.StandbyException", "standby"), "busy", true, true),
            (rpc("java.io.IOException", no_node), "busy", true, true),
            (rpc("java.io.IOException", "something else"), "failed", true, false),
            (rpc("org.apache.hadoop.security.AccessControlException", "denied"), "denied", false, true),
            (rpc("org.apache.hadoop.hdfs.protocol.DSQuotaExceededException", "quota"), "full", false, true),
            (rpc("java.io.FileNotFoundException", "gone"), "missing", false, true),
            (rpc("org.apache.hadoop.fs.InvalidPathException", "path"), "invalid", false, true),
            (HdfsError::FileNotFound("/x".into()), "missing", false, true),
            (HdfsError::AlreadyExists("/x".into()), "exists", false, true),
            (HdfsError::IOError(std::io::ErrorKind::ConnectionRefused.into()), "unreachable", true, false),
            (HdfsError::DataTransferError("All DataNodes failed".into()), "failed", true, false),
        ] {
            let told = remote("rename", "/x", &error);
            assert_eq!((told.kind(), told.is_retryable(), told.is_definite()), (kind, retryable, definite), "{error}");
            assert!(!told.to_string().contains("java.base"), "a stack trace in {told}");
        }
    }
}
