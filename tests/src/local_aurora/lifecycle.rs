//! The HTTP calls that announce a task's end to it, before any signal.
//!
//! Called by [`super::executor`] for every kind of end, while the task's processes still run. Any answer counts as
//! handled, whatever its status; without an answer there is no wait before the next step.

use std::time::Duration;

use super::hosts::Host;
use super::on_host::{Method, OnHost};
use super::runner::Handle;
use super::thermos::HttpLifecycle;

/// Limit for one call.
const CALL: Duration = Duration::from_secs(1);

/// Calls both endpoints in turn and waits after each that was handled, until the task has ended.
pub async fn announce_end(lifecycle: &HttpLifecycle, port: u16, host: &Host, on_host: &OnHost, runner: &mut Handle) {
    let steps = [
        (&lifecycle.graceful_shutdown_endpoint, lifecycle.graceful_shutdown_wait()),
        (&lifecycle.shutdown_endpoint, lifecycle.shutdown_wait()),
    ];
    for (path, wait) in steps {
        if runner.end().is_some() {
            return;
        }
        match on_host.http(host, Method::Post, port, path, CALL).await {
            Ok(answer) => {
                tracing::debug!(path, status = answer.status, "lifecycle call handled");
                // Whether it ended or the wait is over: the next round looks.
                let _ = tokio::time::timeout(wait, runner.ended()).await;
            }
            Err(error) => tracing::debug!(path, %error, "lifecycle call not handled"),
        }
    }
}
