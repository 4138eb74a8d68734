//! Files in HDFS being read and written.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use hdfs_native::HdfsError;
use hdfs_native::file::{FileReader, FileWriter};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::clients::{Clients, Number};
use super::io::Io;
use super::trouble::remote;
use crate::store::error::{Error, Trouble, first_line};
use crate::store::files::Deadlines;

/// Packets (64 KiB as a rule) read ahead of the caller.
const READ_AHEAD: usize = 32;

/// A file being read from some offset to its end, somewhat ahead of the caller.
pub(in crate::store) struct Reader {
    packets: mpsc::Receiver<hdfs_native::Result<Bytes>>,
    /// Ends with the reader.
    task: JoinSet<()>,
    path: String,
    deadlines: Deadlines,
}

impl Reader {
    pub(super) fn new(io: &Io, file: FileReader, offset: u64, path: &str, deadlines: Deadlines) -> Reader {
        let (sender, packets) = mpsc::channel(READ_AHEAD);
        let mut task = JoinSet::new();
        let length = file.file_length();
        // The library panics beyond the end.
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(length);
        let read = async move {
            let mut stream = std::pin::pin!(file.read_range_stream(from, length - from));
            while let Some(packet) = stream.next().await {
                let failed = packet.is_err();
                if sender.send(packet).await.is_err() || failed {
                    return;
                }
            }
        };
        task.spawn_on(read, io.handle());
        Reader { packets, task, path: path.into(), deadlines }
    }

    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        match tokio::time::timeout(self.deadlines.read, self.packets.recv()).await {
            Err(_) => Err(Error::timeout("read", &self.path, self.deadlines.read)),
            Ok(Some(Ok(bytes))) => Ok(Some(bytes)),
            // One file's blocks, not the whole store.
            Ok(Some(Err(e))) => {
                let why = first_line(&e.to_string());
                Err(Error::Remote { what: "read", path: self.path.clone(), trouble: Trouble::Failed, why })
            }
            Ok(None) => match self.task.join_next().await {
                Some(Err(join)) => Err(Error::panicked("read", &self.path, &join)),
                _ => Ok(None),
            },
        }
    }
}

/// A file being written. Each call runs under its deadline; the library's writer is gone after one that failed.
pub(in crate::store) struct Writer {
    io: Arc<Io>,
    file: Option<FileWriter>,
    path: String,
    deadlines: Deadlines,
    /// The client it belongs to.
    client: (Arc<Clients>, Number),
}

impl Writer {
    pub(super) fn new(io: Arc<Io>, file: FileWriter, path: &str, deadlines: Deadlines, client: (Arc<Clients>, Number)) -> Writer {
        Writer { io, file: Some(file), path: path.into(), deadlines, client }
    }

    pub async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        let mut file = self.file.take().ok_or_else(|| self.failed_before("write"))?;
        let write = async move { file.write_bytes(bytes).await.map(|_| file) };
        let wrote = self.run("write", self.deadlines.write, Box::pin(write)).await?;
        self.file = Some(wrote.map_err(|e| remote("write", &self.path, &e))?);
        Ok(())
    }

    pub async fn close(mut self) -> Result<(), Error> {
        let mut file = self.file.take().ok_or_else(|| self.failed_before("close"))?;
        let close = async move { file.close().await };
        let closed = self.run("close", self.deadlines.close, Box::pin(close)).await?;
        closed.map_err(|e| remote("close", &self.path, &e))
    }

    async fn run<T: Send + 'static>(
        &self,
        what: &'static str,
        deadline: Duration,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Error> {
        let done = self.io.run(what, &self.path, deadline, work).await;
        if done.as_ref().is_err_and(|e| e.trouble() == Some(Trouble::Timeout)) {
            // Mostly a NameNode that hangs: blocks and the end of a file are asked for on the way.
            self.client.0.replace(self.client.1);
        }
        done
    }

    fn failed_before(&self, what: &'static str) -> Error {
        remote(what, &self.path, &HdfsError::OperationFailed("an earlier write failed".into()))
    }
}
