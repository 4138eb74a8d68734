//! `aurora-redis-controller`: wiring. Reads the settings, serves HTTP, and runs the reconcile loop whenever it is elected.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent::causes::chain;
use agent::store::Store;
use agent::zk::{self, Keeper};
use anyhow::Context;
use aurora::client::{Credentials, Endpoint, Options};
use aurora::types::JobKey;
use axum::serve::ListenerExt;
use controller::act::Hands;
use controller::chronicle::Chronicle;
use controller::config::{Config, Place};
use controller::examine::Examiner;
use controller::http::{self, Doors, Leader};
use controller::intake::{Asked, Intake};
use controller::metrics::Metrics;
use controller::observe::{Sources, World, catalogue, tasks};
use controller::reconcile::Loop;
use controller::registry::{Leadership, Registry};
use controller::view::Published;
use tokio::sync::{Mutex, Notify, mpsc, watch};

fn main() -> ExitCode {
    let config = match Config::read(&Config::command().get_matches()) {
        Ok(config) => config,
        Err(mistakes) => {
            eprintln!("{mistakes}");
            return ExitCode::from(2);
        }
    };
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| "info,zookeeper_client=warn,hdfs_native=warn".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    match runtime.context("starting the runtime").and_then(|runtime| runtime.block_on(run(config))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(config: Config) -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("cannot listen on {}: set http_host and http_port to a free address", config.listen))?;
    let url = config.advertised(listener.local_addr()?);
    tracing::info!(url, settings = ?config.effective, "serving");
    let keeper = Keeper::start(&config.place.zookeeper, config.zookeeper_session);
    let (intake, publish, mut asked) = Intake::channel();
    let metrics = Metrics::new();
    let doors = Doors {
        intake,
        token: config.place.secret.as_ref().map(|s| s.api_token()),
        agents: agent::client::Client::new(config.place.secret.as_ref().map(|s| s.agent_token())),
        cluster: config.place.cluster.clone(),
        config: config.effective.clone(),
        metrics: metrics.clone(),
        leader: Leader { candidates: zk::watch_children(&keeper, &config.place.paths().controllers()), own_url: url.clone() },
    };
    let shutdown = terminated();
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    let served = tokio::spawn(async move { axum::serve(listener, http::router(doors)).await });
    tokio::select! {
        result = served => result.context("the HTTP server ended")?.context("the HTTP server failed"),
        () = lead_again_and_again(&config, &keeper, &url, &publish, &mut asked, &metrics) => Ok(()),
        () = shutdown => {
            tracing::info!("asked to end: resigning");
            Ok(())
        }
    }
}

/// Is elected, leads until it loses, stands by again.
async fn lead_again_and_again(
    config: &Config,
    keeper: &Keeper,
    url: &str,
    publish: &watch::Sender<Arc<Published>>,
    asked: &mut mpsc::Receiver<Asked>,
    metrics: &Metrics,
) {
    let registry = Registry::new(keeper.clone(), config.place.paths());
    loop {
        publish.send_replace(Arc::default());
        match registry.lead(url).await {
            Ok(lead) => {
                tracing::info!("elected");
                match leadership(config, keeper, &registry, lead, publish, metrics) {
                    Ok(work) => work.run(asked).await,
                    Err(error) => tracing::error!("{error:#}"),
                }
                tracing::warn!("the election is lost");
            }
            Err(error) => tracing::warn!(error = chain(&error), "not elected"),
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn leadership(
    config: &Config,
    keeper: &Keeper,
    registry: &Registry,
    lead: Leadership,
    publish: &watch::Sender<Arc<Published>>,
    metrics: &Metrics,
) -> anyhow::Result<Loop> {
    let place = &config.place;
    let (wake, list_store, start) = (Arc::new(Notify::new()), Arc::new(Notify::new()), Instant::now());
    let agents = agent::client::Client::new(place.secret.as_ref().map(|s| s.agent_token()));
    let scheduler = Arc::new(aurora::Client::new(scheduler(place, keeper)?, scheduler_options(place)));
    let job = job_key(&place.cluster);
    let store = place
        .snapshots_uri
        .as_ref()
        .map(|uri| Store::open(uri, &place.cluster, agent::store::Options::reaching(&place.hdfs)))
        .transpose()
        .context("opening the store of the snapshots")?;
    let record = zk::watch_node(keeper, &place.paths().record());
    let sources = Sources {
        start,
        keeper: keeper.clone(),
        paths: place.paths(),
        serverset: place.serverset(),
        agents: agents.clone(),
        scheduler: tasks::poll(scheduler.clone(), job.clone(), start),
        store: catalogue::poll(store.clone(), record, list_store.clone(), place.guard, start),
        silent_after: config.timing.silent_after,
    };
    let hands = Hands {
        registry: registry.clone(),
        lead: Arc::new(lead),
        agents,
        scheduler,
        job,
        command_timeout: config.command_timeout,
        examiner: store.map(|store| Arc::new(Mutex::new(examiner(config, store)))),
    };
    let chronicle = Chronicle::open(registry.clone(), hands.lead.clone(), wake.clone());
    Ok(Loop {
        cluster: place.cluster.clone(),
        world: World::watch(sources, &wake),
        hands,
        chronicle,
        timing: config.timing,
        policy: config.policy.clone(),
        cycle: config.cycle,
        wake,
        list_store,
        metrics: metrics.clone(),
        publish: publish.clone(),
    })
}

fn examiner(config: &Config, store: Store) -> Examiner {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    Examiner {
        store,
        program: config.redis_server.clone(),
        server: Err("not looked for yet".into()),
        scratch: config.scratch.clone(),
        by: format!("controller on {host}"),
    }
}

fn scheduler(place: &Place, keeper: &Keeper) -> anyhow::Result<Endpoint> {
    if place.scheduler.is_url() {
        return Endpoint::url(&place.scheduler.at).context("the scheduler's URL");
    }
    let keeper = keeper.clone();
    Ok(Endpoint::zookeeper(&place.scheduler.at, Arc::new(move || keeper.client().map_err(Into::into))))
}

fn scheduler_options(place: &Place) -> Options {
    let credentials = place.scheduler.credentials.as_ref();
    Options {
        deadline: Duration::from_secs(10),
        attempt: Duration::from_secs(5),
        credentials: credentials.map(|c| Credentials { user: c.user.clone(), password: c.password.clone() }),
        ..Options::default()
    }
}

/// The key of a checked `role/env/job`.
fn job_key(cluster: &str) -> JobKey {
    let mut parts = cluster.split('/').map(str::to_owned);
    let mut next = || parts.next().unwrap_or_default();
    JobKey { role: next(), environment: next(), name: next() }
}

async fn terminated() {
    let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).expect("a handler for SIGTERM");
    tokio::select! {
        _ = term.recv() => (),
        _ = tokio::signal::ctrl_c() => (),
    }
}
