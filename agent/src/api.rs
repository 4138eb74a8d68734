//! The contract between agent and controller: what an agent says of itself and what it can be told to do.
//!
//! Served by the agent's HTTP server, spoken by [`crate::client`]; the controller and the test tools use these types too.
//! Everything here is plain data. Unknown fields are ignored when reading, so that agents and controllers of
//! neighbouring versions understand each other.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::record::{Member, Peer, Phase};
use crate::secret::Sealed;
use crate::snapshot::{How, SnapshotId};

/// Mastership term and fencing token: grows by one at every change of master, at every restart of the master's
/// server and at every restore. 0 means "none seen yet".
pub type Epoch = u64;

/// Bytes of the replication stream applied. Comparable only between equal replids.
/// Source: Redis `INFO replication`, field `master_repl_offset` (on replicas too).
pub type Offset = u64;

/// Where something listens: an IP address or host name and a TCP port. In JSON the text `host:port`, as in the original master node; an
/// IPv6 address stands in brackets there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Address {
    /// IP address or host name, without brackets or port.
    pub host: String,
    /// TCP port, 1 to 65535.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl From<Address> for String {
    fn from(address: Address) -> String {
        address.to_string()
    }
}

impl TryFrom<String> for Address {
    type Error = String;
    fn try_from(text: String) -> Result<Address, String> {
        text.parse()
    }
}

impl FromStr for Address {
    type Err = String;
    fn from_str(text: &str) -> Result<Address, String> {
        let wrong = || format!("'{text}' is not HOST:PORT");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let host = host.strip_prefix('[').map_or(Some(host), |inner| inner.strip_suffix(']')).filter(|h| !h.is_empty());
        let port = port.parse().ok().filter(|p| *p > 0);
        Ok(Address { host: host.ok_or_else(wrong)?.to_owned(), port: port.ok_or_else(wrong)? })
    }
}

/// Role of a server as Redis reports it (`slave` is translated to `replica`), or none without a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Redis reports `role:master`. A closed or fenced server may report it too: see [`State::serving`].
    Master,
    /// Redis reports `role:slave`.
    Replica,
    /// No server runs, or it has not answered yet.
    #[default]
    None,
}

/// What fences a command: an agent refuses it (409) unless all of it fits what the agent knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// The cluster's random id, from the record.
    pub cluster_id: String,
    /// The record's own random identity: changes only when the record is made anew.
    pub generation: String,
    /// Epoch the command belongs to.
    pub epoch: Epoch,
    /// ZooKeeper version of the record node the command was decided on.
    pub record_version: i32,
    /// Aurora task the command is meant for.
    pub task_id: String,
    /// Server run the command is meant for; absent only for `start` and `restore`, which make a new run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
}

/// A stamped order, the body of every `POST /command/<verb>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Who, for which epoch, decided on what.
    #[serde(flatten)]
    pub stamp: Stamp,
    /// What to do. Its tag is the verb in the path.
    pub order: Order,
}

/// What an agent can be told to do. Every order is idempotent under the same stamp.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case")]
pub enum Order {
    /// Starts the server closed (no TCP port) from `source`. With a server already running that was started for this
    /// stamp: nothing to do. With another one running: refused.
    Start {
        /// Where the data comes from.
        source: Source,
    },
    /// Fetches and verifies a snapshot, then starts the server closed from it. Answered 202 at once; progress is
    /// in [`State::activity`].
    Restore {
        /// Snapshot to load; the agent verifies it against its manifest before the server sees a byte.
        snapshot: SnapshotId,
    },
    /// Fetches a snapshot, judges it, and finds out whether this instance could start from it, while its server goes on. Answered 202 at once;
    /// the outcome is [`State::prepared`]. A `restore` of the same snapshot then need not fetch it.
    Prepare {
        /// The operation that asks; the outcome carries it.
        request_id: String,
        /// Which.
        snapshot: SnapshotId,
    },
    /// Makes the running server the open master: first renewal of the lease, then `REPLICAOF NO ONE`, the port, a write proven; it is
    /// published.
    Promote {
        /// Whom its first renewal lists to be asked for promises: the members whose agents answered for this epoch.
        #[serde(default)]
        asks: Vec<Peer>,
    },
    /// Holds clients' writes back on the master (a planned change is under way) until `release`, another epoch, or the end of this time.
    /// The offset then reached is in [`State::held`].
    Hold {
        /// Longest time, milliseconds.
        for_ms: u64,
    },
    /// Ends a hold.
    Release,
    /// Waits, at most this long, until the replica has applied the stream up to a position; refused (`behind`) when it has not.
    CatchUp {
        /// Up to where.
        position: Position,
        /// Longest wait, milliseconds.
        within_ms: u64,
    },
    /// Makes the running server a replica of `master` and opens its port for readers. A copy that is ahead of the fork is set
    /// aside in the sandbox first.
    Follow {
        /// The master's redis address.
        master: Address,
        /// Where the master's history began: a copy of `replid`'s predecessor beyond `offset` has diverged.
        fork: Option<Position>,
    },
    /// Cuts the server off: `REPLICAOF` a dead port (data and position kept), clients dropped, a write proven to fail.
    /// The same for a deposed master and for a survivor whose offset is to count.
    Fence,
    /// Settings the controller adapts at run time.
    Configure {
        /// The settings wanted, whole.
        settings: Settings,
    },
    /// Makes a dump (`BGSAVE`) and copies it to the store, or reads one from the replication stream into it. Answered 202 at once; the outcome
    /// is in [`State::uploads`].
    Backup {
        /// Chosen by whoever asked; the snapshot's manifest carries it, so that the asker finds its snapshot.
        request_id: String,
        /// Which way; agents of before know only the dump.
        #[serde(default)]
        how: How,
    },
    /// Stops the server; a whole copy is saved into the sandbox's dump before. One that only follows an origin is stopped, and what it copied
    /// is removed.
    Stop,
    /// Ends the server, its data saved in the sandbox, and starts another one beside that data, closed, which follows a server outside of the
    /// cluster. Refused while the server leads. How it goes is in [`State::origin`].
    FollowOrigin {
        /// The operation that asks.
        request_id: String,
        /// Whom to follow.
        origin: Origin,
    },
    /// Has the origin refuse writes, waits until the running server holds everything that the origin ever acknowledged, and cuts it off from it,
    /// as a fence does. What does not come to that end in time is undone. The outcome is in [`State::origin`].
    CloseOrigin {
        /// The operation that asks.
        request_id: String,
        /// The origin.
        origin: Origin,
        /// Its settings before, to be put back when it fails.
        was: Door,
        /// Longest wait for the last bytes, milliseconds.
        within_ms: u64,
    },
    /// Has the origin take writes again. Needs no server.
    OpenOrigin {
        /// The operation that asks.
        request_id: String,
        /// The origin.
        origin: Origin,
        /// Its settings of before.
        was: Door,
    },
}

impl Order {
    /// The verb in the path `/command/<verb>` and in logs.
    pub fn verb(&self) -> &'static str {
        match self {
            Order::Start { .. } => "start",
            Order::Restore { .. } => "restore",
            Order::Prepare { .. } => "prepare",
            Order::Promote { .. } => "promote",
            Order::Hold { .. } => "hold",
            Order::Release => "release",
            Order::CatchUp { .. } => "catch-up",
            Order::Follow { .. } => "follow",
            Order::Fence => "fence",
            Order::Configure { .. } => "configure",
            Order::Backup { .. } => "backup",
            Order::Stop => "stop",
            Order::FollowOrigin { .. } => "follow-origin",
            Order::CloseOrigin { .. } => "close-origin",
            Order::OpenOrigin { .. } => "open-origin",
        }
    }

    /// Whether it needs no running server: it makes a new run, or is about another server.
    pub fn needs_no_run(&self) -> bool {
        matches!(self, Order::Start { .. } | Order::Restore { .. } | Order::FollowOrigin { .. } | Order::OpenOrigin { .. })
    }
}

/// A server outside of the cluster that data is migrated from, and how to log in to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Where it listens.
    pub address: Address,
    /// Its user; absent for its default one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The password, readable only with the cluster's secret; absent where none is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Sealed>,
}

/// How [`Redis::source`] of a server begins that was started to follow an origin.
pub const ORIGIN: &str = "origin:";

impl Origin {
    /// What [`Redis::source`] says of a server that was started to follow it.
    pub fn source(&self) -> String {
        format!("{ORIGIN}{}", self.address)
    }

    /// What its password is sealed for: it is of use for this address and user only.
    pub fn purpose(&self) -> String {
        format!("origin {} {}", self.address, self.username.as_deref().unwrap_or_default())
    }
}

/// The settings by which an origin lets writes in, or does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Door {
    /// `min-replicas-to-write`.
    pub min_replicas_to_write: u32,
    /// `min-replicas-max-lag`, seconds; with 0 the other one does nothing.
    pub min_replicas_max_lag: u32,
}

/// What an agent found an origin to be, and what speaks against migrating from it. Answer to `POST /examine`, which changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Examined {
    /// The instance whose agent looked.
    pub instance: u32,
    /// Version, as in [`Redis::version`]; empty when it could not be asked.
    #[serde(default)]
    pub version: String,
    /// Its run id.
    #[serde(default)]
    pub run_id: String,
    /// Where it stands.
    #[serde(default)]
    pub position: Option<Position>,
    /// Keys in all databases.
    #[serde(default)]
    pub keys: u64,
    /// Memory it uses, bytes.
    #[serde(default)]
    pub used_memory: u64,
    /// Its settings; absent when they could not be read.
    #[serde(default)]
    pub door: Option<Door>,
    /// Why nothing can be migrated from it to this instance; empty when all is well.
    #[serde(default)]
    pub objections: Vec<String>,
}

/// How the following of an origin goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginState {
    /// The operation that asked for it.
    pub request_id: String,
    /// The origin.
    pub address: Address,
    /// When the server began to follow it, Unix time in milliseconds.
    pub since_ms: u64,
    /// Where the origin stood when it was asked last; absent before.
    #[serde(default)]
    pub position: Option<Position>,
    /// Its settings when it was asked last; absent before they were read.
    #[serde(default)]
    pub door: Option<Door>,
    /// Why it cannot be asked; absent when it answers.
    #[serde(default)]
    pub problem: Option<String>,
    /// It refuses writes, and our server, cut off from it, holds everything up to here, which is all that it ever acknowledged.
    #[serde(default)]
    pub held: Option<Position>,
    /// Why it could not be closed; whatever had been changed there was put back, if this does not say otherwise.
    #[serde(default)]
    pub not_closed: Option<String>,
    /// Whether it takes writes again after it was closed.
    #[serde(default)]
    pub opened: bool,
}

/// Where a starting server takes its data from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "kebab-case")]
pub enum Source {
    /// No data. What the sandbox holds is set aside, never deleted.
    Empty,
    /// The dump in the sandbox, which must still be the one reported in [`State::local`].
    Local {
        /// SHA-256 (hex) of the dump the decision was made on.
        sha256: String,
    },
    /// A replica: starts with `replicaof` in its arguments, so by partial resync where Redis can.
    ReplicaOf {
        /// The master's redis address.
        master: Address,
        /// As in [`Order::Follow`]: a local dump ahead of it is set aside first.
        fork: Option<Position>,
    },
}

/// A place in the dataset's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Replication id (40 hex digits): the history.
    pub replid: String,
    /// Offset within it.
    pub offset: Offset,
}

/// Run-time settings that the controller adapts to the live cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Redis' `save` value: non-empty on one instance at a time, the backup source.
    pub save: String,
    /// Redis' `min-replicas-to-write`: the second belt on the master.
    pub min_replicas_to_write: u32,
}

/// Body of an answer to a command: 200 done, 202 accepted (goes on in the background), 409 refused, 500 failed
/// (perhaps partly applied), 401 without the token, 400 not understood.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// One of `done`, `accepted`, `refused`, `failed`.
    pub outcome: AnswerKind,
    /// Machine-readable word for a refusal or failure, e.g. `stale-epoch`; empty when done.
    #[serde(default)]
    pub reason: String,
    /// The same for people: what, where and what would be accepted.
    #[serde(default)]
    pub message: String,
    /// The agent's state after the command.
    pub state: Option<Box<State>>,
}

/// See [`Answer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AnswerKind {
    /// Carried out, or already so.
    Done,
    /// Begun; the outcome shows in the state.
    Accepted,
    /// Not carried out, nothing changed.
    Refused,
    /// Tried and not (certainly) carried out.
    Failed,
}

/// What an agent says of itself: `GET /state`, and each line of `GET /watch`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The cluster this agent has served so far; absent until it has read a record.
    pub cluster_id: Option<String>,
    /// Generation of the record last read; absent before.
    #[serde(default)]
    pub generation: Option<String>,
    /// Aurora instance number.
    pub instance: u32,
    /// Aurora task id.
    pub task_id: String,
    /// Highest epoch seen, kept over restarts of the agent.
    pub epoch: Epoch,
    /// Highest record version seen within `generation`.
    #[serde(default)]
    pub record_version: i32,
    /// Epoch of the last `promote` or `follow` carried out on the running server; 0 without one. Says whose data this is.
    #[serde(default)]
    pub assigned_epoch: Epoch,
    /// The server's role.
    pub role: Role,
    /// Whether clients are served on the TCP port in that role: an open master, or an open replica with data.
    pub serving: bool,
    /// Milliseconds left of the master's lease; absent on an agent that holds none. Changes all the time: a change of it alone makes no line.
    pub lease_ms_left: Option<u64>,
    /// The lease held; absent without one.
    #[serde(default)]
    pub lease: Option<LeaseState>,
    /// Whether a promise to bear no witness binds this agent, or the time after its start in which it acts as if one did.
    #[serde(default)]
    pub promised: bool,
    /// Writes are held back for a planned change of master; absent when they are not.
    #[serde(default)]
    pub held: Option<Held>,
    /// The running server; absent without one.
    pub redis: Option<Redis>,
    /// The agent itself.
    pub agent: Agent,
    /// The host the processes run on.
    #[serde(default)]
    pub host: Host,
    /// Epoch for which the running server is fenced (cut off); absent when it is not.
    #[serde(default)]
    pub fenced_epoch: Option<Epoch>,
    /// Servers of this task that are proven dead, newest last, at most 8: evidence for a failover.
    #[serde(default)]
    pub deaths: Vec<Death>,
    /// Dump in the sandbox that a server could start from; absent without one, or while a server runs.
    #[serde(default)]
    pub local: Option<LocalDump>,
    /// Long work under way.
    #[serde(default)]
    pub activity: Option<Activity>,
    /// Dumps on their way to the store.
    #[serde(default)]
    pub uploads: Uploads,
    /// Settings in force.
    #[serde(default)]
    pub settings: Settings,
    /// Last failure of something long or by itself (start, restore, full sync), newest only; absent when all is well.
    #[serde(default)]
    pub problem: Option<String>,
    /// The last `start` or `restore` that failed; absent after one that worked.
    #[serde(default)]
    pub failed_source: Option<FailedSource>,
    /// What came of the last `prepare`; absent before its end.
    #[serde(default)]
    pub prepared: Option<Prepared>,
    /// The origin that is, or was last, followed; absent before any was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<OriginState>,
    /// Why the running server must not become master; absent when nothing speaks against it.
    #[serde(default)]
    pub cannot_lead: Option<String>,
    /// Whether the agent was asked to end (SIGTERM, `/quitquitquit`).
    #[serde(default)]
    pub stopping: bool,
}

/// The master's lease, as far as the controller decides on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseState {
    /// Record version of the last committed renewal.
    pub record_version: i32,
    /// Runs that may replicate: listed by that version, with a credential of their own on the server.
    pub admitted: Vec<String>,
    /// Runs marked for removal by that version, cut off and seen gone.
    pub removed: Vec<String>,
    /// Offset of the server read after the last of them was cut.
    pub removed_at: Option<Offset>,
    /// Whether it runs on promises, for ZooKeeper does not take renewals.
    pub failsafe: bool,
}

/// Writes held back: no client's write is acknowledged beyond `position` while it lasts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Epoch of the command.
    pub epoch: Epoch,
    /// Where the stream stood once writes were held.
    pub position: Position,
}

/// `POST /promise`, from the agent of a master that cannot renew its lease: bear no witness against it for a while. With `for_ms` 0 it only
/// asks whether the agent is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromiseRequest {
    /// The cluster.
    pub cluster_id: String,
    /// Generation of the record.
    pub generation: String,
    /// Epoch the asker leads.
    pub epoch: Epoch,
    /// Task that is asked: nobody promises for somebody else.
    pub task_id: String,
    /// The asker's counter, handed back.
    pub round: u64,
    /// From the arrival of the request, milliseconds: the lease and its margin.
    pub for_ms: u64,
}

/// Answer to a [`PromiseRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    /// Who answers.
    pub task_id: String,
    /// The epoch it promises for.
    pub epoch: Epoch,
    /// As asked.
    pub round: u64,
    /// Whether it promises.
    pub promised: bool,
    /// Why not; empty when it does.
    #[serde(default)]
    pub reason: String,
}

/// A `start` or `restore` that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedSource {
    /// As in [`Redis::source`].
    pub source: String,
    /// Whether the source itself is at fault (corrupt, too new, missing): trying it again is useless.
    pub definite: bool,
    /// What failed, and where.
    pub why: String,
}

/// What came of a `prepare`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepared {
    /// The operation that asked.
    pub request_id: String,
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// Why this instance could not start from it; absent when it lies in the sandbox, whole, and fits.
    #[serde(default)]
    pub problem: Option<String>,
}

/// A running redis-server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Redis {
    /// Address it announces to clients and peers (its port is closed until an assignment).
    pub address: Option<Address>,
    /// Process id.
    pub pid: u32,
    /// Start time of that process in clock ticks since boot. Source: `/proc/<pid>/stat` field 22.
    #[serde(default)]
    pub start_ticks: u64,
    /// Redis' `run_id`: new at every start. Empty until the server has answered once.
    pub run_id: String,
    /// Server version, e.g. `7.0.15` or `valkey 9.1.2`.
    pub version: String,
    /// Current history.
    pub replid: String,
    /// Previous history; absent when unused.
    pub replid2: Option<String>,
    /// Last offset of `replid2` plus 1 (`second_repl_offset`); absent when unused.
    #[serde(default)]
    pub replid2_end: Option<Offset>,
    /// Replication offset.
    pub offset: Offset,
    /// Replica: whether the link to its master is up. Absent on a master.
    pub link: Option<bool>,
    /// Replica: the address it follows. Absent on a master.
    #[serde(default)]
    pub following: Option<Address>,
    /// Loading a dataset from disk or socket.
    pub loading: bool,
    /// A full sync is under way.
    pub syncing: bool,
    /// Whether the TCP port is open.
    #[serde(default)]
    pub open: bool,
    /// Keys in all databases.
    #[serde(default)]
    pub keys: u64,
    /// Memory used by the dataset, bytes (`used_memory`).
    #[serde(default)]
    pub used_memory: u64,
    /// Master: replicas connected and online.
    #[serde(default)]
    pub connected_replicas: u32,
    /// What this run was started from: `empty`, `local:<sha256>`, `snapshot:<id>`, `replica`, or `origin:<address>`.
    #[serde(default)]
    pub source: String,
    /// Epoch of the `start` or `restore` that started this run.
    #[serde(default)]
    pub started_epoch: Epoch,
    /// Whether the server itself refuses writes beyond its lease: it runs with the lease module.
    #[serde(default)]
    pub lease_module: bool,
    /// Whether the last probe was answered; `false` names a server that is busy or hung.
    #[serde(default)]
    pub answering: bool,
}

/// The agent process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Agent {
    /// Its HTTP address.
    pub address: Option<Address>,
    /// Process id.
    pub pid: u32,
    /// Start time in clock ticks since boot.
    #[serde(default)]
    pub start_ticks: u64,
    /// Version of this program.
    pub version: String,
}

/// Identity of a host, for testimony.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// `/etc/machine-id` unless configured.
    pub host_id: String,
    /// Aurora's name for the host (the address it announces).
    pub name: String,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// Pid namespace, e.g. `pid:[4026531836]`.
    pub pid_ns: String,
}

/// Proof that a server of this task runs no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Death {
    /// Run id of the dead server.
    pub run_id: String,
    /// How it was proven, e.g. `exit status 1`, `signal 9`, `process gone`.
    pub proof: String,
    /// When it was noticed, Unix time in milliseconds.
    pub at_ms: u64,
}

/// `POST /testify`: is this process still there? Answered by any agent, without a stamp: it changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The member asked about.
    pub member: Member,
}

/// Answer to a [`Question`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Same host, other boot: every process of then is gone.
    OtherBoot,
    /// Same host, boot and pid namespace, and no process of that pid and start time.
    ProcessGone,
    /// The process is there.
    Alive,
    /// This agent cannot know: another host or pid namespace.
    NotMine,
}

/// A dump lying in the sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalDump {
    /// SHA-256 of the file, hex.
    pub sha256: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Position the dump carries; absent in a dump of a server that never had a replica.
    pub position: Option<Position>,
    /// [`State::assigned_epoch`] of the server that wrote it; 0 when unknown.
    pub epoch: Epoch,
    /// Unix time in seconds that the dump carries (`ctime`).
    pub created_s: u64,
}

/// Long work under way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activity {
    /// `checking` (the dump in the sandbox is being looked at: [`State::local`] is not known yet), `fetching-binary`, `restoring`,
    /// `loading`, `saving`; and only while a server runs: `waiting` (a backup waits for another one on this host), `streaming`,
    /// `uploading`, `reading-back`.
    pub what: String,
    /// What it works on, e.g. a snapshot's name.
    pub subject: String,
    /// Bytes done.
    pub done_bytes: u64,
    /// Bytes in all; 0 when unknown. While a stream is read it is the memory that the data uses, unless the server tells the size before.
    pub total_bytes: u64,
    /// How fast, bytes per second; 0 when not known yet.
    #[serde(default)]
    pub bytes_per_s: u64,
    /// Seconds left at that rate; absent when they cannot be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_s: Option<u64>,
}

/// Dumps on their way to the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uploads {
    /// Dumps waiting or being copied.
    pub pending: u32,
    /// Last snapshot committed by this agent.
    pub last: Option<SnapshotId>,
    /// `request_id` of the last backup committed.
    #[serde(default)]
    pub last_request_id: Option<String>,
    /// The snapshot that backup became; another dump may have been committed since.
    #[serde(default)]
    pub last_request_snapshot: Option<SnapshotId>,
    /// Why the present dump is not through yet (it is being retried); absent when all is well.
    pub error: Option<String>,
    /// Backup request that could not be done at all (e.g. `BGSAVE` failed), with the reason.
    #[serde(default)]
    pub failed_request: Option<(String, String)>,
    /// Dumps given up for a newer one since the agent started.
    #[serde(default)]
    pub superseded: u64,
}

/// What the agent knows of the record, served for people (`GET /record`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordView {
    /// Phase of the cluster.
    pub phase: Phase,
    /// Its master.
    pub master: Option<Member>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_text_both_ways() {
        for (host, port, text) in
            [("10.0.0.1", 6379, "10.0.0.1:6379"), ("h-1.example", 1, "h-1.example:1"), ("::1", 80, "[::1]:80")]
        {
            let address = Address { host: host.into(), port };
            assert_eq!(serde_json::to_value(&address).unwrap(), text);
            assert_eq!(text.parse(), Ok(address));
        }
        for wrong in ["", "h", "h:", ":1", "h:0", "h:65536", "h:x", "[::1:80"] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
    }
}
