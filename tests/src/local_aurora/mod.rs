//! A small Aurora scheduler for one machine: it speaks the real scheduler's API, announces itself in ZooKeeper as
//! leader, and runs the tasks of its jobs as processes on this machine, the way Thermos would.
//!
//! For tests, drills and the quick start. Way of a job: [`http`] decodes the call, [`api`] answers it ([`api_updates`],
//! [`api_maintenance`]), [`config`] checks the job, [`books`] keep the tasks ([`state`], on hosts chosen by [`placement`]), the
//! [`updates`] and the [`maintenance`] of hosts, [`scheduler`] carries out; before some kills an [`sla`] policy or a [`coordinator`]
//! is asked. Per task there is an [`executor`] with a [`runner`] ([`runs`], [`process`]), an [`announcer`] ([`membership`],
//! [`remote`]), [`health`] checks and [`lifecycle`] calls. Pure are `hosts`, `thermos`, `thermos_fields`, `template`, `runs`,
//! `placement`, `config`, `books`, `state`, `updates`, `maintenance` and `sla`.

pub mod announcer;
pub mod api;
pub mod api_maintenance;
pub mod api_updates;
pub mod books;
pub mod config;
pub mod coordinator;
pub mod coordinator_body;
pub mod executor;
pub mod guard;
pub mod health;
pub mod hosts;
pub mod http;
pub mod lifecycle;
pub mod maintenance;
pub mod membership;
pub mod on_host;
pub mod placement;
pub mod process;
pub mod remote;
pub mod runner;
pub mod runs;
pub mod scheduler;
pub mod sla;
pub mod state;
pub mod task_view;
pub mod template;
pub mod thermos;
pub mod thermos_fields;
pub mod updates;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use books::{Books, Delays};
use coordinator::Coordinators;
use guard::Guard;
use membership::{Membership, Nodes};
use on_host::OnHost;
use process::Spawner;
use scheduler::Scheduler;
use state::State;

/// How long the first registration in ZooKeeper may take.
const REGISTRATION: Duration = Duration::from_secs(30);

/// How long the end of all tasks may take at shutdown.
const SHUTDOWN: Duration = Duration::from_secs(10);

/// Everything that can be set.
#[derive(Clone, Debug)]
pub struct Options {
    /// ZooKeeper's connect string.
    pub zookeeper: String,
    /// Hosts to place tasks on.
    pub hosts: Vec<hosts::Host>,
    /// Address to serve HTTP on.
    pub listen: SocketAddr,
    /// Directory in ZooKeeper of the scheduler's own nodes.
    pub scheduler_path: String,
    /// Directory in ZooKeeper of all serversets.
    pub serverset_root: String,
    /// Directory of the sandboxes.
    pub work_dir: PathBuf,
    /// Penalty for tasks that end too fast too often.
    pub flapping_delay: Duration,
    /// First wait before a policy that has not allowed a kill of an update is asked again; it doubles up to five times this.
    pub sla_retry: Duration,
    /// Between two looks at the tasks of hosts that are drained.
    pub maintenance_poll: Duration,
    /// For one question to a coordinator.
    pub coordinator_timeout: Duration,
    /// Name of the cluster in every answer.
    pub cluster_name: String,
    /// ZooKeeper session timeout, of the scheduler and of each announced task.
    pub session_timeout: Duration,
    /// Time from SIGTERM to SIGKILL when a task is killed.
    pub preemption_wait: Duration,
    /// Limit for the whole end of a killed task.
    pub stop_timeout: Duration,
    /// The program `local-aurora`, for helpers inside wrappers.
    pub program: PathBuf,
}

/// Why the scheduler could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The sandboxes have no place.
    #[error("cannot use the directory {path} for sandboxes")]
    WorkDir {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Address not available.
    #[error("cannot serve HTTP on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The listening address is not one that a client can call.
    #[error("--listen {0} is no address that clients can call: name one address of this machine")]
    Unspecified(SocketAddr),
    /// No node in ZooKeeper within the limit.
    #[error("could not register at {path} in ZooKeeper {ensemble} within {REGISTRATION:?}: is it running?")]
    Register {
        /// Connect string.
        ensemble: String,
        /// Directory.
        path: String,
    },
    /// No client for questions to coordinators.
    #[error("cannot prepare questions to coordinators")]
    Coordinators(#[source] reqwest::Error),
    /// A thread or process of our own could not be started.
    #[error("cannot start a helper of this program")]
    Helper(#[source] std::io::Error),
}

/// Serves until `shutdown` ends. `ready` is called once with the URL, when the scheduler leads. When this returns, no
/// task runs any more and the nodes in ZooKeeper are gone.
pub async fn serve(options: Options, ready: impl FnOnce(&str), shutdown: impl Future<Output = ()>) -> Result<(), Error> {
    if options.listen.ip().is_unspecified() {
        return Err(Error::Unspecified(options.listen));
    }
    let work_dir = prepare(&options.work_dir)?;
    let listen = |source| Error::Listen { address: options.listen, source };
    let listener = tokio::net::TcpListener::bind(options.listen).await.map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    let guard = Guard::start(&options.program).map_err(Error::Helper)?;
    let scheduler = Scheduler::new(
        options.hosts.clone(),
        work_dir,
        executor_settings(&options, guard.clone())?,
        books(&options, address.ip().to_string()),
        Coordinators::new(options.coordinator_timeout, options.cluster_name.clone()).map_err(Error::Coordinators)?,
    );
    let membership = Membership::start(leader_nodes(&options, address));
    let mut leading = membership.present();
    let context = http::Context { scheduler: scheduler.clone(), cluster: options.cluster_name.clone(), leading: leading.clone() };
    let server = tokio::spawn(async move { axum::serve(listener, http::router(context)).await });
    let driver = tokio::spawn(scheduler.clone().drive());
    let registered = tokio::time::timeout(REGISTRATION, leading.wait_for(|leading| *leading)).await.is_ok();
    if registered {
        ready(&format!("http://{address}"));
        shutdown.await;
    }
    driver.abort();
    let leaving = membership.leave();
    if !scheduler.stop(SHUTDOWN).await {
        tracing::error!("some tasks have not ended within {SHUTDOWN:?}");
    }
    server.abort();
    // Bounded by the calls' own limits.
    let _ = leaving.await;
    let _ = tokio::task::spawn_blocking(move || guard.dismiss()).await;
    match registered {
        true => Ok(()),
        false => Err(Error::Register { ensemble: options.zookeeper, path: options.scheduler_path }),
    }
}

fn prepare(directory: &std::path::Path) -> Result<PathBuf, Error> {
    let made = std::fs::create_dir_all(directory).and_then(|()| directory.canonicalize());
    made.map_err(|source| Error::WorkDir { path: directory.to_owned(), source })
}

fn books(options: &Options, name: String) -> Books {
    let ms = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 10);
    let delays = Delays {
        sla_retry_ms: ms(options.sla_retry),
        sla_retry_max_ms: ms(options.sla_retry).saturating_mul(5),
        maintenance_poll_ms: ms(options.maintenance_poll),
    };
    let ids = Box::new(|| uuid::Uuid::new_v4().to_string());
    Books::new(State::new(name, ms(options.flapping_delay), ids), delays)
}

fn executor_settings(options: &Options, guard: Guard) -> Result<executor::Settings, Error> {
    let spawner = Spawner::new().map_err(Error::Helper)?;
    Ok(executor::Settings {
        on_host: OnHost { spawner, program: options.program.clone(), reserved: std::sync::Arc::default() },
        guard,
        announcer: announcer::Settings {
            ensemble: options.zookeeper.clone(),
            root: options.serverset_root.trim_end_matches('/').to_owned(),
            session_timeout: options.session_timeout,
            patience: Duration::from_secs(15),
        },
        preemption_wait: options.preemption_wait,
        stop_timeout: options.stop_timeout,
    })
}

/// A lock node, which clients have to overlook, and the leader's member node in the real format.
fn leader_nodes(options: &Options, address: SocketAddr) -> Nodes {
    let endpoint = format!(r#"{{"host":"{}","port":{}}}"#, address.ip(), address.port());
    let member = format!(r#"{{"serviceEndpoint":{endpoint},"additionalEndpoints":{{"http":{endpoint}}},"status":"ALIVE"}}"#);
    let lock = format!("_c_{}-lock-", uuid::Uuid::new_v4());
    Nodes {
        ensemble: options.zookeeper.clone(),
        session_timeout: options.session_timeout,
        retry: Duration::from_secs(1),
        directory: options.scheduler_path.trim_end_matches('/').to_owned(),
        entries: vec![(lock, address.ip().to_string().into_bytes()), ("member_".to_owned(), member.into_bytes())],
    }
}
