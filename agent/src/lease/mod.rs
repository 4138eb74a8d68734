//! The right of a master to acknowledge writes: held by a thread of its own, which nothing else blocks.
//!
//! [`term`] decides on its [`ground`], `thread` carries out, `zookeeper` speaks with ZooKeeper. The rest of the agent orders by `Lease` and looks at the
//! `Standing`; it never pauses or unpauses a server itself.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use crate::admission::Admission;
use crate::api::{Epoch, LeaseState};
use crate::clock;
use crate::node::Node;
use crate::record::Peer;
use crate::records::Seen;
use crate::server::Server;
use ground::Ground;
use term::Reason;

pub mod ground;
mod guard;
pub mod term;
mod thread;
mod timer;
mod zookeeper;

pub(crate) use thread::{Setup, start};

/// Longest wait for the lease thread itself, beyond what it waits for.
const THREAD_LIMIT: Duration = Duration::from_secs(2);

/// The lease as the rest of the agent sees it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Standing {
    /// The term under way; absent on an agent that holds no office.
    pub term: Option<TermView>,
}

/// A term of office.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TermView {
    /// The server in office.
    pub run_id: String,
    /// The record it stands on.
    pub ground: Ground,
    /// Record version of the last committed renewal; absent before the first.
    pub committed: Option<i32>,
    /// End of the lease, time since boot.
    pub end: Duration,
    /// It runs on promises.
    pub on_promises: bool,
    /// Why writes are held back; absent while they go on.
    pub reason: Option<Reason>,
    /// Whether the server has confirmed that.
    pub paused: bool,
    /// Why renewals are not stored; empty when they are.
    pub trouble: String,
}

impl TermView {
    /// Whether the last committed renewal stands on this very record.
    pub fn rests_on(&self, seen: &Seen) -> bool {
        self.committed == Some(seen.version) && self.ground.generation == seen.record.generation
    }
}

impl Standing {
    /// Time left of the lease; absent without one.
    pub fn left(&self) -> Option<Duration> {
        self.term.as_ref().filter(|term| term.committed.is_some()).map(|term| term.end.saturating_sub(clock::since_boot()))
    }

    /// Whether writes are held back for good, as far as this agent can tell: not by a planned change alone.
    pub fn forbids_writes(&self) -> bool {
        self.term.as_ref().is_some_and(|term| matches!(term.reason, Some(Reason::Deposed | Reason::Expired)))
    }

    /// Whether writes are held back for a planned change.
    pub fn is_held(&self) -> bool {
        self.term.as_ref().is_some_and(|term| term.reason == Some(Reason::Planned) && term.paused)
    }

    /// What the controller is told.
    pub fn describe(&self, admission: Option<&Admission>) -> Option<LeaseState> {
        let term = self.term.as_ref().filter(|term| term.reason != Some(Reason::Deposed))?;
        let record_version = term.committed?;
        let fits = |admission: &&Admission| admission.run_id == term.run_id && admission.epoch == term.ground.epoch;
        let Admission { admitted, removed, removed_at, .. } = admission.filter(fits).cloned().unwrap_or_default();
        Some(LeaseState { record_version, admitted, removed, removed_at, failsafe: term.on_promises })
    }

    /// What people are told when something is amiss.
    fn problem(&self) -> Option<String> {
        let term = self.term.as_ref()?;
        let why = if term.trouble.is_empty() { "nothing renewed it" } else { &term.trouble };
        match term.reason {
            Some(Reason::Deposed) => Some("writes are held back: the record names another master, or none".into()),
            Some(Reason::Expired) if term.committed.is_some() => {
                Some(format!("writes are held back: the lease of epoch {} has run out: {why}", term.ground.epoch))
            }
            _ if term.on_promises => Some(format!("the lease runs on promises of the replicas: {why}")),
            _ => None,
        }
    }
}

/// What an office rests on.
pub(crate) struct Office {
    pub server: Arc<Server>,
    /// The record as it was read.
    pub record: Arc<Seen>,
    /// Named by the first renewal.
    pub asks: Vec<Peer>,
    /// The server may be taking writes now.
    pub open: bool,
}

/// What the lease thread can be told.
enum Order {
    TakeOffice { office: Office, reply: oneshot::Sender<Result<(), String>> },
    Hold { pid: u32, length: Duration, reply: oneshot::Sender<Result<(), String>> },
    Release { pid: u32, reply: oneshot::Sender<Result<(), String>> },
    LayDown { pid: u32, lift: bool, reply: oneshot::Sender<()> },
}

/// The way to the lease thread.
#[derive(Clone)]
pub(crate) struct Lease {
    orders: mpsc::UnboundedSender<Order>,
    standing: watch::Receiver<Standing>,
}

impl Lease {
    /// Takes office for a server that the record names: done once the first renewal is committed and the server may take writes. The error
    /// says why not; then no term runs, unless the server was open: its writes stay held back until a renewal is committed or it is fenced.
    pub async fn take_office(&self, office: Office) -> Result<(), String> {
        let limit = Duration::from_millis(office.record.record.lease_ms) / 2 + THREAD_LIMIT;
        let (reply, answer) = oneshot::channel();
        self.tell(Order::TakeOffice { office, reply }, limit, answer).await?
    }

    /// Ends the term of this server: it is fenced, follows somebody, or is dead. With `lift` a stop of writes is taken back: for a server
    /// that cannot take any now.
    pub async fn lay_down(&self, server: &Server, lift: bool) {
        let (reply, answer) = oneshot::channel();
        if let Err(why) = self.tell(Order::LayDown { pid: server.pid, lift, reply }, THREAD_LIMIT, answer).await {
            tracing::error!(why, "the term of office could not be laid down");
        }
    }

    /// Holds writes back for this long at most; done once the server has confirmed it.
    pub async fn hold(&self, server: &Server, length: Duration) -> Result<(), String> {
        let (reply, answer) = oneshot::channel();
        self.tell(Order::Hold { pid: server.pid, length, reply }, THREAD_LIMIT, answer).await?
    }

    /// Ends a hold; done once the server takes writes again.
    pub async fn release(&self, server: &Server) -> Result<(), String> {
        let (reply, answer) = oneshot::channel();
        self.tell(Order::Release { pid: server.pid, reply }, THREAD_LIMIT, answer).await?
    }

    async fn tell<T>(&self, order: Order, limit: Duration, answer: oneshot::Receiver<T>) -> Result<T, String> {
        self.orders.send(order).map_err(|_| "the lease thread has ended".to_owned())?;
        let answer = tokio::time::timeout(limit, answer).await.map_err(|_| "the lease thread does not answer".to_owned())?;
        answer.map_err(|_| "another command has taken its place".to_owned())
    }

    /// Follows how the lease stands.
    pub fn follow(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }

    /// How the lease stands.
    pub fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    /// Epoch and time left of the lease of this run.
    pub fn left(&self, run_id: &str, epoch: Epoch) -> Duration {
        let standing = self.standing.borrow();
        let fits = standing
            .term
            .as_ref()
            .is_some_and(|term| term.run_id == run_id && term.ground.epoch == epoch && term.reason.is_none());
        standing.left().filter(|_| fits).unwrap_or_default()
    }
}

/// Shows how the lease stands, for as long as the agent runs.
pub(crate) async fn mirror(node: Arc<Node>) {
    let mut standing = node.lease.follow();
    loop {
        let now = standing.borrow_and_update().clone();
        let problem = now.problem();
        let expired = now.term.as_ref().is_some_and(|term| term.reason == Some(Reason::Expired));
        node.change(|parts| {
            if !now.is_held() {
                parts.held = None;
            }
            parts.standing = now;
            match problem {
                // What is behind it is shown first, unless writes stand still and nothing else will change that.
                Some(problem) if expired => parts.problem("lease", problem),
                Some(problem) => parts.remark("lease", problem),
                None => parts.solved("lease"),
            }
        });
        if standing.changed().await.is_err() {
            tracing::error!("the lease thread has ended");
            return;
        }
    }
}
