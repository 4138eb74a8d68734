//! Starts a server, closed, from what lies in its directory, and waits until it has answered once.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::{Halt, failed, from_redis};
use crate::board::Holds;
use crate::causes::chain;
use crate::lease_module;
use crate::memory::ServerNote;
use crate::node::Node;
use crate::program::Ready;
use crate::redis::conf::{self, Module, Wanted};
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
    /// What the data in the directory is.
    pub holds: Holds,
    /// In the directory beside, to follow an origin.
    pub beside: bool,
}

/// Starts it, with the lease module where that can be had: one that the server does not take is left out from then on, and named. On an error
/// no server runs.
pub(super) async fn launch(node: &Arc<Node>, start: Start) -> Result<(), Halt> {
    let module = node.lease_module.to_load().ok().flatten();
    let launched = match launch_with(node, &start, module.as_ref()).await {
        // Nothing else that goes wrong can be the module's fault, and a server that only did not answer yet says nothing of it.
        Err(halt @ Halt::Failed { reason: "start-failed" | "lease-module", .. }) if module.is_some() => {
            // If it starts without, the module was the reason.
            let without = launch_with(node, &start, None).await;
            if let (Ok(()), Halt::Failed { message, .. }) = (&without, &halt) {
                node.lease_module.refuse(message.clone());
            }
            without.map_err(|_| halt)
        }
        launched => launched,
    };
    let complaint = node.lease_module.complaint();
    let objection = node.server().and_then(|server| node.lease_module.objection(&server));
    node.change(|parts| {
        parts.cannot_lead = objection;
        match complaint {
            Some(why) => parts.remark("lease-module", why),
            None => parts.solved("lease-module"),
        }
    });
    launched
}

async fn launch_with(node: &Arc<Node>, start: &Start, module: Option<&Module>) -> Result<(), Halt> {
    node.places.remove_leftovers().map_err(|e| failed("sandbox", e))?;
    if !start.beside {
        node.places.remove_origin().map_err(|e| failed("sandbox", e))?;
    }
    let server = spawn(node, start, module).await?;
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
    node.install(&server, start.holds);
    if let Err(error) = noted {
        server.kill().await;
        return Err(failed("memory", chain(&error)));
    }
    let mut answered = first_answer(node, &server).await;
    if answered.is_ok() && module.is_some() {
        answered = match lease_module::check(&server).await {
            Ok(None) => {
                server.guard();
                Ok(())
            }
            Ok(Some(why)) => Err(failed("lease-module", format!("the lease module: {why}"))),
            Err(error) => Err(from_redis(error)),
        };
    }
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
            // Its end must not be taken for that of the next one.
            node.without(&server).await;
            Err(halt)
        }
    }
}

async fn spawn(node: &Node, start: &Start, module: Option<&Module>) -> Result<Arc<Server>, Halt> {
    let password = Uuid::new_v4().simple().to_string();
    let dir = if start.beside { node.places.origin() } else { node.places.data() };
    let config = conf::render(&Wanted {
        version: start.program.version,
        dir: &dir.to_string_lossy(),
        address: &node.config.redis,
        replica: start.replica,
        admin_password: &password,
        module,
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
            return Err(failed("no-answer", format!("redis-server did not answer within {FIRST_ANSWER:?}")));
        }
    }
}
