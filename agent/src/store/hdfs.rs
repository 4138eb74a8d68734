//! The store in HDFS.
//!
//! The client library has no deadline on NameNode calls and waits for ever on one that hangs; so each call runs in a task of its
//! own under a deadline, on threads of the store's own, and a client that let one pass is replaced (its connection may never answer again).
//! A panic in the library becomes an error.

use std::sync::Arc;

use hdfs_native::{Client, WriteOptions};

use super::access::Access;
use super::error::{Error, Trouble, first_line};
use super::files::{Child, Create, Deadlines, Kind};

mod clients;
mod io;
mod streams;
mod trouble;

use clients::{Clients, Number};
use io::Io;
pub(super) use streams::{Reader, Writer};

const BLOCK_BYTES: u64 = 128 << 20;
/// A dump up to this size is one block: a DataNode that dies is survived then, at a block's start it is not.
const BLOCK_MAX_BYTES: u64 = 2 << 30;

/// How to reach one HDFS.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// `hdfs://host:port` or `hdfs://nameservice`.
    pub url: String,
    /// Its configuration, and who we are there.
    pub access: Access,
    /// User to act as; absent for `HADOOP_USER_NAME` or the process's own.
    pub user: Option<String>,
}

pub(super) struct Hdfs {
    deadlines: Deadlines,
    clients: Arc<Clients>,
    io: Arc<Io>,
}

impl Hdfs {
    /// Reads the configuration; connects only at the first call.
    pub fn new(settings: Settings, deadlines: Deadlines) -> Result<Hdfs, Error> {
        let url = settings.url.clone();
        let clients = Clients::new(settings).map_err(|e| {
            let hint = "is it a nameservice without a configuration (HADOOP_CONF_DIR), or a host without a port?";
            Error::Address { uri: url.clone(), why: format!("{}; {hint}", first_line(&e.to_string())) }
        })?;
        let io = Io::start().map_err(|e| {
            let why = format!("no threads for it: {e}");
            Error::Remote { what: "open", path: url, trouble: Trouble::Failed, why }
        })?;
        Ok(Hdfs { deadlines, clients: Arc::new(clients), io: Arc::new(io) })
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

    pub async fn open(&self, path: &str, offset: u64) -> Result<Reader, Error> {
        let file = self.call("open", path, |client, path| async move { client.read(&path).await }).await?;
        Ok(Reader::new(&self.io, file, offset, path, self.deadlines))
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
        let (number, file) = self.once("create", path, create).await?;
        Ok(Writer::new(self.io.clone(), file, path, self.deadlines, (self.clients.clone(), number)))
    }

    pub async fn rename(&self, from: &str, to: &str) -> Result<(), Error> {
        let to = to.to_owned();
        self.once("rename", from, |client, from| async move { client.rename(&from, &to, false).await }).await.map(|_| ())
    }

    pub async fn remove(&self, path: &str) -> Result<(), Error> {
        self.call("remove", path, |client, path| async move { client.delete(&path, true).await.map(|_| ()) }).await
    }

    pub async fn set_replication(&self, path: &str, copies: u32) -> Result<(), Error> {
        let set = move |client: Client, path: String| async move { client.set_replication(&path, copies).await.map(|_| ()) };
        self.call("set replication of", path, set).await
    }

    /// One NameNode call that may be made twice: as many NameNodes as there are have a deadline each.
    async fn call<T, F>(&self, what: &'static str, path: &str, f: impl Fn(Client, String) -> F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = hdfs_native::Result<T>> + Send + 'static,
    {
        let mut others = self.clients.namenodes() - 1;
        loop {
            match self.once(what, path, &f).await {
                Err(e) if e.trouble() == Some(Trouble::Timeout) && others > 0 => others -= 1,
                done => return done.map(|(_, done)| done),
            }
        }
    }

    /// One NameNode call under its deadline, and which client made it.
    async fn once<T, F>(&self, what: &'static str, path: &str, f: impl FnOnce(Client, String) -> F) -> Result<(Number, T), Error>
    where
        T: Send + 'static,
        F: Future<Output = hdfs_native::Result<T>> + Send + 'static,
    {
        let (number, client) = self.clients.current();
        let access = &self.clients.settings().access;
        // Boxed: the client library's futures are large, and each layer above would hold one, more than a stack bears in a debug build.
        let call = Box::pin(f(client, path.to_owned()));
        match self.io.run(what, path, self.deadlines.call, call).await {
            Ok(done) => done.map(|done| (number, done)).map_err(|e| trouble::of_call(what, path, &e, access)),
            Err(e) if e.trouble() == Some(Trouble::Timeout) => {
                self.clients.replace(number);
                Err(trouble::of_silence(e, access))
            }
            Err(e) => Err(e),
        }
    }
}

fn child(found: hdfs_native::client::FileStatus) -> Child {
    Child {
        name: found.path.rsplit('/').next().unwrap_or_default().to_owned(),
        bytes: found.length as u64,
        kind: if found.isdir { Kind::Directory } else { Kind::File },
        modified_ms: found.modification_time,
    }
}
