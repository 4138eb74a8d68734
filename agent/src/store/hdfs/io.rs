//! Threads of its own for the client library.
//!
//! Kerberos' library blocks the thread that asks it for a ticket for as long as the KDC does not answer. Here that holds up nothing but the
//! store: deadlines are watched from the caller's threads.

use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinSet;

use crate::store::error::Error;

/// Threads for one store.
const THREADS: usize = 2;

/// The threads; a call under way does not hold up their end.
pub(super) struct Io(Option<Runtime>);

impl Io {
    pub fn start() -> std::io::Result<Io> {
        Ok(Io(Some(Builder::new_multi_thread().worker_threads(THREADS).thread_name("hdfs").enable_all().build()?)))
    }

    pub fn handle(&self) -> &Handle {
        self.0.as_ref().expect("there until it is dropped").handle()
    }

    /// Runs `work` there under a deadline; a panic in it becomes an error. It is dropped when the caller goes, or the deadline passes.
    pub async fn run<T: Send + 'static>(
        &self,
        what: &'static str,
        path: &str,
        deadline: Duration,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Error> {
        let mut task = JoinSet::new();
        task.spawn_on(work, self.handle());
        match tokio::time::timeout(deadline, task.join_next()).await {
            Ok(Some(Ok(done))) => Ok(done),
            Ok(Some(Err(join))) => Err(Error::panicked(what, path, &join)),
            Ok(None) | Err(_) => Err(Error::timeout(what, path, deadline)),
        }
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
