//! The lease thread: an OS thread with a runtime, a ZooKeeper session, a connection to the server and an HTTP client of its own.
//!
//! Nothing else runs there, nothing there waits for the rest of the agent, and it writes no log: a full disk or a stuck reader of the log
//! must not keep it from stopping writes. What it has to tell goes through the [`Standing`].

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot, watch};

use super::ground::{Ground, Holder};
use super::guard::{Guard, Word};
use super::term::{Effect, Event, Term};
use super::timer::Timer;
use super::zookeeper::{self, Renewed};
use super::{Lease, Office, Order, Reason, Standing, TermView};
use crate::api::PromiseRequest;
use crate::breaks::Broken;
use crate::client::Client;
use crate::clock::since_boot;
use crate::record::{Lease as Content, Paths, Peer};
use crate::redis::connection::Connection;
use crate::server::Server;
use crate::timing::{self, PAUSE_BOUND, PROBE_EVERY};
use crate::zk::{self, Keeper};

/// Its ZooKeeper session holds nothing, so it is short: a new one is made soon after a long outage.
const SESSION: Duration = Duration::from_secs(2);
/// A stop of writes must not end by itself, however long everything is frozen and however its clock is set: ten years. What it holds back is
/// carried out when it ends, and since 7.2 without passing by the module's filter again.
const PAUSE: &str = "CLIENT PAUSE 315360000000 WRITE";
const UNPAUSE: &str = "CLIENT UNPAUSE";
/// Longest wait for the answer to a sign of life; the server is judged long before.
const PING_LIMIT: Duration = Duration::from_secs(60);
/// A lease shorter than this cannot be kept.
const SHORTEST: Duration = Duration::from_secs(1);

/// What the thread needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub zookeeper: String,
    pub session: Duration,
    pub paths: Paths,
    pub task_id: String,
    pub token: Option<String>,
    /// Tests only: what does not hold.
    pub broken: Broken,
}

/// Starts the thread. It ends with the process.
pub(crate) fn start(setup: Setup) -> io::Result<Lease> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (orders, queue) = mpsc::unbounded_channel();
    let (standing, seen) = watch::channel(Standing::default());
    std::thread::Builder::new().name("lease".into()).spawn(move || {
        let _silent = tracing::subscriber::set_default(tracing::subscriber::NoSubscriber::default());
        runtime.block_on(async {
            let (desk, returned) = Desk::new(setup, standing);
            desk.run(queue, returned).await;
        });
    })?;
    Ok(Lease { orders, standing: seen })
}

/// What comes back from the tasks of the thread; the number is the term's.
enum Back {
    Event(Event),
    Renewed(u64, Renewed),
    Ping { alive: bool },
    Said { word: Word, taken: bool },
}

type Backs = mpsc::UnboundedSender<(u64, Back)>;
type Returned = mpsc::UnboundedReceiver<(u64, Back)>;

struct Desk {
    setup: Setup,
    keeper: Keeper,
    http: Client,
    backs: Backs,
    standing: watch::Sender<Standing>,
    terms: u64,
    office: Option<InOffice>,
}

/// A term under way and what belongs to it.
struct InOffice {
    number: u64,
    term: Term,
    holder: Holder,
    server: Arc<Server>,
    link: Link,
    guard: Guard,
    /// Version of the lease node.
    node: Option<i32>,
    trouble: String,
    /// When an unanswered sign of life was asked for, and the processor time of the server then.
    ping: Option<u64>,
    next_ping: Duration,
    waiting: Option<(Duration, oneshot::Sender<Result<(), String>>)>,
    /// The server may have been taking writes when the term began: then only this term keeps them back, until it is laid down.
    open: bool,
    /// Who waits for the begin (true) or the end of a hold.
    planning: Option<(bool, oneshot::Sender<Result<(), String>>)>,
}

/// The connection to the server: one, so that what is sent over it happens in order.
#[derive(Clone)]
struct Link {
    server: Arc<Server>,
    open: Arc<Mutex<Option<Connection>>>,
}

impl Link {
    fn new(server: &Arc<Server>) -> Link {
        Link { server: server.clone(), open: Arc::default() }
    }

    /// Whether the server answered within `limit`, and not with an error unless `any` answer will do.
    async fn ask(&self, words: &str, limit: Duration, any: bool) -> bool {
        let call = async {
            let mut open = self.open.lock().await;
            let mut connection = match &*open {
                Some(connection) => connection.clone(),
                None => {
                    let made = self.server.connect().await?;
                    open.insert(made).clone()
                }
            };
            drop(open);
            let result = connection.call::<redis::Value>(words, limit).await;
            if result.as_ref().is_err_and(|error| error.is_broken()) {
                *self.open.lock().await = None;
            }
            result
        };
        match tokio::time::timeout(limit, call).await {
            Ok(Ok(_)) => true,
            Ok(Err(error)) => any && error.is_reply(),
            Err(_) => false,
        }
    }
}

impl Desk {
    /// To be called within the thread's runtime.
    fn new(setup: Setup, standing: watch::Sender<Standing>) -> (Desk, Returned) {
        let (backs, returned) = mpsc::unbounded_channel();
        let keeper = Keeper::start(&setup.zookeeper, setup.session.min(SESSION));
        let http = Client::new(setup.token.clone());
        (Desk { setup, keeper, http, backs, standing, terms: 0, office: None }, returned)
    }

    async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>, mut returned: Returned) {
        let mut records = zk::watch_node(&self.keeper, &self.setup.paths.record());
        let mut timer = Timer::new().expect("the kernel has timers on the time since boot");
        loop {
            let due = self.due();
            tokio::select! {
                biased;
                () = wait(&mut timer, due) => self.on(Event::Tick),
                Some((number, back)) = returned.recv() => self.back(number, back),
                order = orders.recv() => match order {
                    Some(order) => self.order(order),
                    None => return,
                },
                Ok(()) = records.changed() => {
                    let node = records.borrow_and_update().node.clone();
                    self.record(node);
                }
            }
            self.publish();
        }
    }

    /// When something has to be done even if nothing happens; absent without an office.
    fn due(&self) -> Option<Duration> {
        let office = self.office.as_ref()?;
        let due = office.term.due(since_boot()).min(office.next_ping);
        Some(office.waiting.as_ref().map_or(due, |(deadline, _)| due.min(*deadline)))
    }

    fn order(&mut self, order: Order) {
        match order {
            Order::TakeOffice { office, reply } => self.take_office(office, reply),
            Order::Hold { pid, length, reply } => self.plan(pid, Some(length), reply),
            Order::Release { pid, reply } => self.plan(pid, None, reply),
            Order::LayDown { pid, lift, reply } => self.lay_down(pid, lift, reply),
        }
    }

    fn take_office(&mut self, wanted: Office, reply: oneshot::Sender<Result<(), String>>) {
        let Office { server, record: seen, asks, open } = wanted;
        let (record, record_version) = (&seen.record, seen.version);
        let run_id = server.run_id().to_owned();
        let holder = Holder { cluster_id: record.cluster_id.clone(), task_id: self.setup.task_id.clone(), run_id };
        let ground = Ground::of(record, record_version, &holder.task_id);
        if !record.has_in_office(&holder.task_id, &holder.run_id) {
            let _ = reply.send(Err(format!("record version {record_version} does not name this server")));
            return;
        }
        if ground.lease < SHORTEST {
            let _ = reply.send(Err(format!("the record's lease of {:?} is too short: {SHORTEST:?} are needed", ground.lease)));
            return;
        }
        let now = since_boot();
        // A commit that comes later leaves too little time to open in.
        let deadline = now + ground.lease / 2;
        let before = self.office.take().filter(|office| office.server.pid == server.pid);
        let same = |office: &InOffice| {
            let stands = office.term.ground();
            stands.epoch == ground.epoch && stands.generation == ground.generation && !office.term.is_deposed()
        };
        let office = match before {
            Some(office) if same(&office) => InOffice { waiting: Some((deadline, reply)), ..office },
            before => {
                self.terms += 1;
                InOffice {
                    number: self.terms,
                    term: Term::begin(now, ground.clone(), asks, open),
                    holder,
                    guard: Guard::new(server.is_guarded()),
                    link: before.map_or_else(|| Link::new(&server), |office| office.link),
                    server,
                    node: record.pinned.as_ref().map(|pinned| pinned.version),
                    trouble: String::new(),
                    ping: None,
                    next_ping: now,
                    waiting: Some((deadline, reply)),
                    open,
                    planning: None,
                }
            }
        };
        self.office = Some(office);
        self.on(Event::Stands(ground));
    }

    /// Begins or ends a hold.
    fn plan(&mut self, pid: u32, length: Option<Duration>, reply: oneshot::Sender<Result<(), String>>) {
        let Some(office) = self.office.as_mut().filter(|office| office.server.pid == pid) else {
            return drop(reply.send(Err("this server holds no office".into())));
        };
        office.planning = Some((length.is_some(), reply));
        self.on(length.map_or(Event::Release, |length| Event::Hold(since_boot() + length)));
    }

    fn lay_down(&mut self, pid: u32, lift: bool, reply: oneshot::Sender<()>) {
        let office = self.office.take_if(|office| office.server.pid == pid);
        // Before the answer, so that whoever has it sees that nothing is held any more.
        self.publish();
        match office.filter(|office| lift && (!office.term.is_open() || office.guard.is_present())) {
            Some(office) => drop(tokio::spawn(async move {
                if office.guard.is_present() {
                    office.link.ask(&Word::Fence.command(office.number), PAUSE_BOUND, true).await;
                }
                if !office.term.is_open() {
                    office.link.ask(UNPAUSE, PAUSE_BOUND, true).await;
                }
                let _ = reply.send(());
            })),
            None => drop(reply.send(())),
        }
    }

    fn record(&mut self, node: Option<zk::Node>) {
        let (Some(office), Some(node)) = (&self.office, node) else { return };
        let event = zookeeper::judge(&node, &self.setup.paths.record(), &office.holder, office.term.ground());
        // What cannot be understood is found when a renewal fails.
        if event != Event::Unreadable {
            self.on(event);
        }
    }

    fn back(&mut self, number: u64, back: Back) {
        let Some(office) = self.office.as_mut().filter(|office| office.number == number) else { return };
        let event = match back {
            Back::Event(event) => event,
            Back::Ping { alive } => {
                office.ping = None;
                if alive { Event::Answered } else { Event::Silent { running: false } }
            }
            Back::Said { word, taken } => {
                office.guard.answered(since_boot(), word, taken);
                Event::Tick
            }
            Back::Renewed(renewal, Renewed { outcome, version, trouble }) => {
                office.node = version;
                office.trouble = trouble;
                Event::Renewed(renewal, outcome)
            }
        };
        self.on(event);
    }

    /// Hands an event to the term, carries out what it wants, and until it wants nothing more.
    fn on(&mut self, event: Event) {
        let Some(office) = &mut self.office else { return };
        let now = since_boot();
        let mut events = VecDeque::from([Event::Connected(self.keeper.connected()), event]);
        events.extend(office.life(now, &self.backs));
        while let Some(event) = events.pop_front() {
            let effects = office.term.on(now, event);
            // Before an end of the pause: it goes over the same connection.
            office.tell_module(now, &self.backs);
            for effect in effects {
                events.extend(self.setup.carry_out(office, effect, &self.keeper, &self.http, &self.backs));
            }
        }
        self.publish();
        if self.office.as_mut().is_some_and(|office| office.settle(now)) {
            self.office = None;
        }
    }

    fn publish(&self) {
        let term = self.office.as_ref().map(InOffice::view);
        self.standing.send_if_modified(|standing| {
            let changed = standing.term != term;
            standing.term = term;
            changed
        });
    }
}

async fn wait(timer: &mut Timer, due: Option<Duration>) {
    match due {
        Some(due) => timer.until(due).await.expect("a timer of this process works"),
        None => std::future::pending().await,
    }
}

impl InOffice {
    fn view(&self) -> TermView {
        TermView {
            run_id: self.holder.run_id.clone(),
            ground: self.term.ground().clone(),
            committed: self.term.committed_version(),
            end: self.term.end(),
            on_promises: self.term.on_promises(),
            reason: self.term.reason(),
            paused: self.term.is_paused(),
            trouble: self.trouble.clone(),
        }
    }

    /// Asks the server for a sign of life when that is due; while it owes one, says whether it runs.
    fn life(&mut self, now: Duration, backs: &Backs) -> Option<Event> {
        if now < self.next_ping {
            return None;
        }
        self.next_ping = now + PROBE_EVERY;
        let effort = self.server.effort();
        if let Some(before) = self.ping {
            let running = effort.is_some_and(|(ticks, state)| ticks > before || state == 'R');
            return Some(Event::Silent { running });
        }
        self.ping = Some(effort.map_or(0, |(ticks, _)| ticks));
        let (link, backs, number) = (self.link.clone(), backs.clone(), self.number);
        tokio::spawn(async move {
            let alive = link.ask("PING", PING_LIMIT, true).await;
            let _ = backs.send((number, Back::Ping { alive }));
        });
        None
    }

    /// Says to the module in the server what is due.
    fn tell_module(&mut self, now: Duration, backs: &Backs) {
        while let Some(word) = self.guard.next(now, &self.term) {
            let (link, backs, number) = (self.link.clone(), backs.clone(), self.number);
            tokio::spawn(async move {
                let taken = link.ask(&word.command(number), PAUSE_BOUND, false).await;
                let _ = backs.send((number, Back::Said { word, taken }));
            });
        }
    }

    /// Answers who waits for the office. Whether the term has to end, because it did not begin in time and holds nothing back.
    fn settle(&mut self, now: Duration) -> bool {
        self.settle_hold();
        let Some((deadline, _)) = self.waiting else { return false };
        let rests = self.term.committed_version() == Some(self.term.ground().record_version);
        let answer = if self.term.is_open() && rests && self.term.end() > now && self.guard.lets_through(now) {
            Ok(())
        } else if self.term.is_deposed() {
            Err("the record names another master now, or none".to_owned())
        } else if now >= deadline {
            Err(if self.trouble.is_empty() {
                "no answer of ZooKeeper, or of the server".to_owned()
            } else {
                self.trouble.clone()
            })
        } else {
            return false;
        };
        let failed = answer.is_err();
        if let Some((_, reply)) = self.waiting.take() {
            let _ = reply.send(answer);
        }
        failed && !self.term.has_begun() && !self.open
    }
}

impl InOffice {
    /// Answers who waits for the begin or the end of a hold.
    fn settle_hold(&mut self) {
        let Some((begins, _)) = self.planning else { return };
        let answer = match (begins, self.term.reason()) {
            (true, Some(Reason::Planned)) if self.term.is_paused() => Ok(()),
            (true, Some(Reason::Planned)) => return,
            (true, None) => Err("the server did not confirm in time that it holds writes back".to_owned()),
            (false, None) if self.term.is_open() => Ok(()),
            (false, None) => return,
            (false, Some(Reason::Planned)) => return,
            (_, Some(reason)) => Err(format!("writes are held back for another reason: {reason:?}")),
        };
        if let Some((_, reply)) = self.planning.take() {
            let _ = reply.send(answer);
        }
    }
}

impl Setup {
    /// Carries out an effect; what is known at once comes back as an event.
    fn carry_out(&self, office: &InOffice, effect: Effect, keeper: &Keeper, http: &Client, backs: &Backs) -> Option<Event> {
        let (backs, number) = (backs.clone(), office.number);
        let back = move |back| drop(backs.send((number, back)));
        match effect {
            Effect::Renew { number, asks } => {
                let (keeper, paths, node, content) =
                    (keeper.clone(), self.paths.clone(), office.node, self.content(office, asks));
                tokio::spawn(async move { back(Back::Renewed(number, zookeeper::renew(&keeper, &paths, &content, node).await)) });
            }
            Effect::Probe(peers) => {
                for peer in peers {
                    let (request, http, back) = (self.request(office, &peer, 0, Duration::ZERO), http.clone(), back.clone());
                    let limit = timing::renew_every(office.term.ground().lease);
                    tokio::spawn(async move {
                        if promises(&http, &peer, &request, limit).await {
                            back(Back::Event(Event::Probed(peer)));
                        }
                    });
                }
            }
            Effect::Ask { round, peers, length } => {
                for peer in peers {
                    let (request, http, back) = (self.request(office, &peer, round, length), http.clone(), back.clone());
                    let limit = office.term.ground().lease / 2;
                    tokio::spawn(async move {
                        if promises(&http, &peer, &request, limit).await {
                            back(Back::Event(Event::Promised(round, peer)));
                        }
                    });
                }
            }
            Effect::ReadRecord => {
                let (keeper, paths) = (keeper.clone(), self.paths.clone());
                let (holder, ground) = (office.holder.clone(), office.term.ground().clone());
                tokio::spawn(async move {
                    back(Back::Event(zookeeper::read_record(&keeper, &paths, &holder, &ground).await));
                });
            }
            Effect::Pause if self.ignores(office.term.reason()) => {
                return Some(Event::Paused(true));
            }
            Effect::Kill if self.broken.lease => {}
            Effect::Pause => {
                let link = office.link.clone();
                tokio::spawn(async move { back(Back::Event(Event::Paused(link.ask(PAUSE, PAUSE_BOUND, false).await))) });
            }
            Effect::Unpause => {
                let link = office.link.clone();
                tokio::spawn(async move { back(Back::Event(Event::Unpaused(link.ask(UNPAUSE, PAUSE_BOUND, false).await))) });
            }
            Effect::Kill => office.server.send_kill(),
        }
        None
    }

    /// Whether a promise is broken on purpose.
    fn ignores(&self, reason: Option<Reason>) -> bool {
        match reason {
            Some(Reason::Expired) => self.broken.lease,
            Some(Reason::Deposed) => self.broken.fence,
            _ => false,
        }
    }

    fn content(&self, office: &InOffice, asks: Vec<Peer>) -> Content {
        let ground = office.term.ground();
        Content {
            task_id: office.holder.task_id.clone(),
            run_id: office.holder.run_id.clone(),
            generation: ground.generation.clone(),
            epoch: ground.epoch,
            record_version: ground.record_version,
            asks,
            guarded: office.guard.is_present(),
        }
    }

    fn request(&self, office: &InOffice, peer: &Peer, round: u64, length: Duration) -> PromiseRequest {
        PromiseRequest {
            cluster_id: office.holder.cluster_id.clone(),
            generation: office.term.ground().generation.clone(),
            epoch: office.term.ground().epoch,
            task_id: peer.task_id.clone(),
            round,
            for_ms: length.as_millis() as u64,
        }
    }
}

/// Whether a member promises, or would.
async fn promises(http: &Client, peer: &Peer, request: &PromiseRequest, limit: Duration) -> bool {
    let answer = http.promise(&peer.agent, request, limit).await;
    answer.is_ok_and(|answer| {
        answer.promised && answer.task_id == request.task_id && answer.epoch == request.epoch && answer.round == request.round
    })
}
