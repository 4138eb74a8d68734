//! Starts a server, closed, from what lies in its directory, and waits until it has answered once.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::{Halt, failed};
use crate::causes::chain;
use crate::memory::ServerNote;
use crate::node::Node;
use crate::program::Ready;
use crate::redis::conf::{self, Wanted};
use crate::server::{Birth, Server};
use crate::spawn::Launch;

/// Longest wait for the first answer. Loading counts as an answer.
const FIRST_ANSWER: Duration = Duration::from_secs(15);
const ASK_EVERY: Duration = Duration::from_millis(20);

/// What to start.
pub(super) struct Start {
    pub program: Ready,
    pub birth: Birth,
    pub replica: bool,
    /// Whether the data in the directory is a whole copy.
    pub complete: bool,
}

/// Starts it. On an error no server runs.
pub(super) async fn launch(node: &Arc<Node>, start: Start) -> Result<(), Halt> {
    node.places.remove_leftovers().map_err(|e| failed("sandbox", e))?;
    let server = spawn(node, &start).await?;
    let note = ServerNote {
        pid: server.pid,
        start_ticks: server.start_ticks,
        boot_id: node.config.host.boot_id.clone(),
        pid_ns: node.config.host.pid_ns.clone(),
        run_id: String::new(),
    };
    let noted = node.notebook.change(|memory| {
        memory.server = Some(note.clone());
        memory.assigned_epoch = 0;
    });
    node.install(&server, start.complete);
    if let Err(error) = noted {
        server.kill().await;
        return Err(failed("memory", chain(&error)));
    }
    let answered = first_answer(node, &server).await;
    let named = answered.and_then(|()| {
        let note = ServerNote { run_id: server.run_id().to_owned(), ..note };
        node.notebook.change(|memory| memory.server = Some(note)).map_err(|e| failed("memory", chain(&e)))
    });
    match named {
        Ok(()) => {
            node.change(|parts| parts.failed_source = None);
            tracing::info!(
                pid = server.pid,
                run_id = server.run_id(),
                source = server.birth.source,
                "redis-server started, closed"
            );
            Ok(())
        }
        Err(halt) => {
            server.kill().await;
            Err(halt)
        }
    }
}

async fn spawn(node: &Node, start: &Start) -> Result<Arc<Server>, Halt> {
    let password = Uuid::new_v4().simple().to_string();
    let dir = node.places.data();
    let config = conf::render(&Wanted {
        version: start.program.version,
        dir: &dir.to_string_lossy(),
        address: &node.config.redis,
        replica: start.replica,
        admin_password: &password,
        secured: node.config.secret.is_some(),
        client_password: node.config.client_password.as_deref(),
        pass_through: &node.config.pass_through,
    });
    let log = node.places.open_log().map_err(|e| failed("sandbox", e))?;
    let launch = Launch { program: start.program.path.clone(), dir: dir.clone(), log, config };
    let shown = start.program.path.display();
    let child = node.spawner.spawn(launch).await.map_err(|e| failed("no-program", format!("cannot run {shown}: {e}")))?;
    let server = Server::adopt(child, &dir, password, start.birth.clone(), start.program.version);
    server.map(Arc::new).map_err(|e| failed("start-failed", format!("{shown} ended at once: {e}; {}", node.places.log_tail())))
}

async fn first_answer(node: &Node, server: &Arc<Server>) -> Result<(), Halt> {
    let deadline = tokio::time::Instant::now() + FIRST_ANSWER;
    loop {
        if let Ok(info) = server.info(Duration::from_secs(2)).await {
            node.observe(server, info);
            return Ok(());
        }
        if let Some(proof) = server.wait_dead(ASK_EVERY).await {
            return Err(failed("start-failed", format!("redis-server ended at once ({proof}): {}", node.places.log_tail())));
        }
        if tokio::time::Instant::now() > deadline {
            return Err(failed("start-failed", format!("redis-server did not answer within {FIRST_ANSWER:?}")));
        }
    }
}
