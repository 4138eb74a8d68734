//! The agent's hub: what its tasks share, and the one place where a change becomes visible.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;

use crate::api::{self, Role, State};
use crate::board::{self, Duty, Holds, Parts};
use crate::clock::unix_ms;
use crate::config::Config;
use crate::doors::Doors;
use crate::dumps;
use crate::files::Places;
use crate::gate::{Known, Read};
use crate::lag::MasterOffset;
use crate::lease;
use crate::lease::Lease;
use crate::lease_module;
use crate::local;
use crate::memory::{self, Memory, Notebook};
use crate::ops::{Preparing, Restoring};
use crate::probe;
use crate::program::ProgramSlot;
use crate::promise::Promises;
use crate::records::{self, Records};
use crate::redis::info::Info;
use crate::server::Server;
use crate::spawn::Spawner;
use crate::store::Store;
use crate::uploads;
use crate::zk::Keeper;

/// What the agent's tasks share.
pub(crate) struct Node {
    pub config: Config,
    pub places: Places,
    pub notebook: Notebook,
    pub keeper: Keeper,
    /// The way to the lease thread.
    pub lease: Lease,
    pub records: Records,
    pub spawner: Spawner,
    pub program: ProgramSlot,
    pub lease_module: lease_module::Slot,
    pub dumps: dumps::Tracker,
    /// Held while a command is carried out: one at a time.
    pub turn: tokio::sync::Mutex<()>,
    /// The restore under way.
    pub restoring: Mutex<Option<Restoring>>,
    /// The snapshot that was fetched ahead, or is being fetched.
    pub preparing: Mutex<Option<Preparing>>,
    /// Request id of the backup whose dump is being made.
    pub backing_up: Mutex<Option<String>>,
    /// Where snapshots are kept; absent when none are.
    pub store: Option<Store>,
    pub uploads: uploads::Queue,
    pub doors: Doors,
    pub master_offset: MasterOffset,
    pub promises: Promises,
    /// The instance is to end at once.
    pub aborted: tokio::sync::Notify,
    agent: api::Agent,
    /// Locked before `state`: nothing may look at the parts while it borrows the state.
    parts: Mutex<Parts>,
    state: watch::Sender<State>,
}

impl Node {
    /// The hub, before any task runs.
    pub fn new(
        config: Config,
        places: Places,
        notebook: Notebook,
        keeper: Keeper,
        lease: Lease,
        spawner: Spawner,
        store: Option<Store>,
    ) -> Arc<Node> {
        let (pid, start_ticks) = crate::process::myself();
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let agent = api::Agent { address: Some(config.http.clone()), pid, start_ticks, version };
        let records = Records::new(keeper.clone(), config.paths.record());
        let program = ProgramSlot::new(&config.program);
        let lease_module = lease_module::Slot::new(&config.lease_module);
        let mut parts = Parts::default();
        local::begin(&mut parts);
        let promises = Promises::begin(notebook.was_here(), &notebook.get());
        let state = watch::channel(board::render(&parts, &notebook.get(), &config, &agent)).0;
        Arc::new(Node {
            places,
            notebook,
            keeper,
            lease,
            records,
            spawner,
            program,
            lease_module,
            dumps: dumps::Tracker::default(),
            turn: tokio::sync::Mutex::new(()),
            restoring: Mutex::new(None),
            preparing: Mutex::new(None),
            backing_up: Mutex::new(None),
            store,
            uploads: uploads::Queue::default(),
            doors: Doors::default(),
            master_offset: MasterOffset::default(),
            promises,
            aborted: tokio::sync::Notify::new(),
            agent,
            parts: Mutex::new(parts),
            state,
            config,
        })
    }

    /// Changes parts of what the agent says, and says it.
    pub fn change(&self, change: impl FnOnce(&mut Parts)) {
        let mut parts = self.parts.lock().expect("no panic while locked");
        change(&mut parts);
        let mut now = board::render(&parts, &self.notebook.get(), &self.config, &self.agent);
        // After the memory was looked at, see there.
        now.promised = self.promises.bind();
        self.state.send_if_modified(|state| {
            let changed = *state != now;
            *state = now;
            changed
        });
    }

    /// Changes the agent's memory. Whether it can be written shows in the state.
    pub fn remember(&self, change: impl FnOnce(&mut Memory)) -> Result<(), memory::Error> {
        let noted = self.notebook.change(change);
        self.change(|parts| parts.noted(&noted));
        noted
    }

    /// A look at the parts.
    pub fn look<T>(&self, look: impl FnOnce(&Parts) -> T) -> T {
        look(&self.parts.lock().expect("no panic while locked"))
    }

    /// The state of the moment.
    pub fn state(&self) -> State {
        let state = self.state.borrow().clone();
        self.timed(state)
    }

    /// A state as it is told at this moment: what changes all the time is not kept in it.
    pub fn timed(&self, state: State) -> State {
        let left = state.lease.as_ref().and_then(|_| self.lease.standing().left());
        State { lease_ms_left: left.map(|left| left.as_millis() as u64), ..state }
    }

    /// Follows the state.
    pub fn subscribe(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// The running server.
    pub fn server(&self) -> Option<Arc<Server>> {
        self.look(|parts| parts.server.clone())
    }

    /// What the gate needs to know.
    pub fn known(&self) -> Known {
        let memory = self.notebook.get();
        let read = self.records.get().map(|seen| Read {
            cluster_id: seen.record.cluster_id.clone(),
            generation: seen.record.generation.clone(),
            version: seen.version,
        });
        let dead = self.state().deaths.into_iter().map(|death| death.run_id).collect();
        Known {
            record: read,
            task_id: self.config.task_id.clone(),
            epoch: memory.epoch,
            record_version: memory.record_version,
            run_id: self.server().map(|server| server.run_id().to_owned()),
            dead,
            stopping: self.look(|parts| parts.stopping),
        }
    }

    /// Whether this server is the master by its own state and, as far as the record was read, by the record.
    pub fn in_office(&self) -> bool {
        let state = self.state();
        let run_id = state.redis.as_ref().map_or("", |redis| redis.run_id.as_str());
        let seen = self.records.get();
        let writable = self.look(|parts| parts.standing.term.as_ref().is_some_and(|term| term.reason.is_none()));
        writable && state.serving && state.role == Role::Master && records::names(seen.as_deref(), &self.config.task_id, run_id)
    }

    /// Takes charge of a server just started: it is watched and probed from now on.
    pub fn install(self: &Arc<Node>, server: &Arc<Server>, holds: Holds) {
        self.change(|parts| {
            parts.server = Some(server.clone());
            parts.info = None;
            parts.answering = false;
            parts.duty = Duty { complete: holds == Holds::Whole, fed: holds == Holds::Fed, ..Duty::default() };
            parts.local = None;
            parts.solved("server");
        });
        tokio::spawn(watch_over(self.clone(), server.clone()));
        tokio::spawn(probe::run(self.clone(), server.clone()));
    }

    /// Waits until the death of `server` is in the state.
    pub async fn without(&self, server: &Arc<Server>) {
        let mut state = self.subscribe();
        let gone = state.wait_for(|state| state.redis.as_ref().is_none_or(|redis| redis.pid != server.pid));
        if tokio::time::timeout(Duration::from_secs(5), gone).await.is_err() {
            tracing::error!(pid = server.pid, "a dead server is still in the state");
        }
    }

    /// Takes in an answer of the running server, unless one that was asked for later is known: answers come over more than one connection, and an
    /// offset from before a cut must not stand in for the one read after it.
    pub fn observe(&self, server: &Arc<Server>, info: Info) {
        server.name(&info.run_id);
        let epoch = self.look(|parts| parts.duty.epoch);
        dumps::notice(self, server, &info, epoch, false);
        self.change(|parts| {
            if !parts.server.as_ref().is_some_and(|current| Arc::ptr_eq(current, server)) {
                return;
            }
            if parts.info.as_ref().is_some_and(|known| info.is_older_than(known)) {
                return;
            }
            probe::show_progress(parts, server, &info);
            parts.duty.complete |= info.link == Some(true) && !info.syncing && !info.loading && !parts.duty.fed;
            parts.answering = true;
            parts.info = Some(info);
        });
    }

    /// Reads the server's `INFO` now, so that what is said next is fresh.
    pub async fn refresh(&self, server: &Arc<Server>) -> Result<(), crate::redis::connection::Error> {
        let info = server.info(Duration::from_secs(2)).await?;
        self.observe(server, info);
        Ok(())
    }
}

/// Waits for a server's death and says so: evidence for a failover.
async fn watch_over(node: Arc<Node>, server: Arc<Server>) {
    let proof = server.clone().watch_over().await;
    tracing::warn!(pid = server.pid, run_id = server.run_id(), proof, "redis-server is dead");
    let death = api::Death { run_id: server.run_id().to_owned(), proof: proof.clone(), at_ms: unix_ms() };
    let unassigned = node.look(|parts| parts.duty.role == Role::None && !parts.stopping && !parts.duty.withdrawn);
    let last_words = if unassigned { node.places.log_tail() } else { String::new() };
    // Said at once: that it is in the memory too matters to the next agent only.
    node.change(|parts| {
        parts.death = Some(death.clone());
        parts.server = None;
        parts.info = None;
        parts.duty = Duty::default();
        parts.standing = lease::Standing::default();
        parts.held = None;
        parts.admission = None;
        local::begin(parts);
        parts.solved("link");
        parts.solved("server");
        parts.works.retain(|work, _| !matches!(work, board::Work::Loading | board::Work::Saving));
        if unassigned {
            let why = format!("the server ended before it was assigned ({proof}): {last_words}");
            parts.failed_source = Some(api::FailedSource { source: server.birth.source.clone(), definite: false, why });
        }
    });
    node.lease.lay_down(&server, false).await;
    let noted = node.notebook.change(|memory| {
        memory.note_death(death);
        memory.server = None;
    });
    node.change(|parts| {
        if noted.is_ok() {
            parts.death = None;
        }
        parts.noted(&noted);
    });
    local::inspect(&node).await;
}
