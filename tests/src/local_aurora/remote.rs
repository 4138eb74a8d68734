//! A membership kept by a process of its own on a task's host, like a real executor's: it is lost when the host loses
//! ZooKeeper, and stays when the scheduler is stopped. [`relay`] runs here, [`keep`] in that process.
//!
//! Between the two: the helper writes `present` or `absent` on each change and leaves when its input ends.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;
use tokio::sync::{oneshot, watch};

use super::hosts::Host;
use super::membership::{Membership, Nodes};
use super::on_host::{OnHost, wrapped};

/// How long the helper may take to leave; then it is killed, and its session's end removes the nodes.
const LEAVE: Duration = Duration::from_secs(3);

/// Keeps a helper on the host until told to leave, and tells whether the nodes are present.
pub async fn relay(nodes: Nodes, host: Host, on_host: OnHost, tell: watch::Sender<bool>, mut leaving: oneshot::Receiver<()>) {
    loop {
        match start(&nodes, &host, &on_host).await {
            Ok(mut child) => {
                let left = tokio::select! {
                    () = listen(&mut child, &tell) => false,
                    // An error means that the other end was dropped: the same wish.
                    _ = &mut leaving => true,
                };
                if left {
                    drop(child.stdin.take());
                    if tokio::time::timeout(LEAVE, child.wait()).await.is_err() {
                        let _ = child.kill().await;
                    }
                    return;
                }
                tell.send_replace(false);
                let status = child.wait().await;
                tracing::warn!(host = host.name, ?status, "the announcer's helper has ended");
            }
            Err(error) => tracing::warn!(host = host.name, %error, "cannot start the announcer's helper"),
        }
        tokio::select! {
            _ = &mut leaving => return,
            () = tokio::time::sleep(nodes.retry) => {}
        }
    }
}

async fn start(nodes: &Nodes, host: &Host, on_host: &OnHost) -> std::io::Result<Child> {
    let mut command = wrapped(host, &on_host.program);
    command.args(["on-host", "announce", &serde_json::to_string(nodes)?]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    on_host.spawner.spawn(command).await
}

/// Passes on what the helper says, until it says no more.
async fn listen(child: &mut Child, tell: &watch::Sender<bool>) {
    let Some(output) = child.stdout.as_mut() else {
        return;
    };
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        tell.send_replace(line == "present");
    }
}

/// The helper: keeps the nodes until its input ends.
pub async fn keep(nodes: Nodes) {
    let membership = Membership::start(nodes);
    let mut present = membership.present();
    let report = async {
        while present.changed().await.is_ok() {
            println!("{}", if *present.borrow_and_update() { "present" } else { "absent" });
        }
    };
    let end = tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink()));
    tokio::select! {
        () = report => {}
        _ = end => {}
    }
    // Bounded by the calls' own limits.
    let _ = membership.leave().await;
}
