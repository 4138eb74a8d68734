//! A server as Redis behaves: role, port, pause, lineage, replication, acknowledgements.

use std::collections::BTreeMap;
use std::rc::Rc;

use agent::api::{Address, Position};

use super::data::Head;
use super::world::{What, World};
use super::zookeeper::Message;

/// Index of an agent, one per task ever started.
pub(super) type A = usize;
/// A number of its own for each server process.
pub(super) type Run = u64;

/// Longest time without a word on a replication link.
const LINK_TIMEOUT: u64 = 3_000_000;

/// What a server is told by its agent, in order over one of two connections.
#[derive(Clone)]
pub(super) enum Exec {
    /// `REPLICAOF`; none for `NO ONE`. With the credential's epoch.
    Role(Option<Address>, u64),
    Open,
    Pause,
    Unpause,
    Ping,
    /// Users for exactly these runs; links of others are dropped.
    Admit(Rc<Admission>),
}

/// What a committed renewal allows.
pub(super) struct Admission {
    pub epoch: u64,
    pub version: i32,
    pub admitted: Vec<String>,
    pub removed: Vec<String>,
}

/// Where a replica's link stands.
#[derive(Clone, PartialEq)]
pub(super) enum Link {
    None,
    Connecting,
    /// A full sync: until the dump is here the old data stays.
    Transfer {
        until: u64,
        head: Head,
        replid: Rc<str>,
        master: A,
        run: Run,
    },
    Loading {
        until: u64,
        head: Head,
        replid: Rc<str>,
        master: A,
        run: Run,
    },
    Up {
        master: A,
        run: Run,
        number: u64,
        heard: u64,
    },
}

/// What a master knows of a linked replica.
pub(super) struct Attached {
    pub number: u64,
    pub acked: u64,
}

/// A running redis-server.
pub(super) struct Server {
    pub run: Run,
    pub run_id: String,
    pub replid: Rc<str>,
    /// The previous history and its last offset plus 1.
    pub replid2: Option<(Rc<str>, u64)>,
    pub head: Head,
    pub master: bool,
    pub open: bool,
    pub paused: bool,
    pub following: Option<Address>,
    /// Epoch of the credential it has.
    pub credential: u64,
    pub link: Link,
    /// Whether its copy is whole.
    pub complete: bool,
    /// Not running until then.
    pub hung_until: u64,
    pub hung_since: u64,
    /// Users for replicas, of this epoch.
    pub users: Vec<String>,
    pub users_epoch: u64,
    pub attached: BTreeMap<String, Attached>,
    /// Writes waiting for acknowledgements: place and offset.
    pub waiting: Vec<(Head, u64)>,
    pub source: String,
    pub started_epoch: u64,
    /// The two connections of the agent are busy until then.
    pub busy: [u64; 2],
}

impl Server {
    pub fn loading(&self) -> bool {
        matches!(self.link, Link::Loading { .. })
    }

    pub fn is_up(&self) -> bool {
        matches!(self.link, Link::Up { .. })
    }

    /// Whether it would acknowledge a write at this moment.
    pub fn takes_writes(&self, now: u64) -> bool {
        self.master && self.open && !self.paused && now >= self.hung_until
    }
}

impl World {
    pub fn server(&mut self, a: A, run: Run) -> Option<&mut Server> {
        self.agents[a].server.as_mut().filter(|s| s.run == run)
    }

    /// Carries out what the agent told it.
    pub fn execute(&mut self, a: A, run: Run, exec: Exec) -> bool {
        let now = self.now;
        let offset = self.agents[a].server.as_ref().map_or(0, |s| self.tree.depth(s.head));
        let replid = self.fresh_replid();
        let Some(server) = self.server(a, run) else { return false };
        if server.loading() && matches!(exec, Exec::Role(..)) {
            return false;
        }
        match exec {
            Exec::Role(None, _) => {
                if !server.master {
                    server.replid2 = Some((std::mem::replace(&mut server.replid, replid), offset + 1));
                    (server.master, server.following, server.link) = (true, None, Link::None);
                }
            }
            Exec::Role(Some(address), credential) => {
                server.credential = credential;
                if server.following.as_ref() != Some(&address) {
                    (server.master, server.following, server.link) = (false, Some(address), Link::Connecting);
                    server.attached.clear();
                    server.waiting.clear();
                    self.at(now + 500, What::Sync(a, run));
                }
            }
            Exec::Open => server.open = true,
            Exec::Pause => server.paused = true,
            Exec::Unpause => server.paused = false,
            Exec::Ping => (),
            Exec::Admit(admission) => {
                server.users = admission.admitted.clone();
                server.users_epoch = admission.epoch;
                let stays = |run: &String| admission.admitted.contains(run);
                server.attached.retain(|run, _| stays(run));
                self.agents[a].admission = Some((admission, offset));
            }
        }
        true
    }

    /// Every server that would, takes a write.
    pub fn write(&mut self) {
        let acks = self.setup.acks;
        for a in 0..self.agents.len() {
            let now = self.now;
            if !self.agents[a].server.as_ref().is_some_and(|s| s.takes_writes(now)) {
                continue;
            }
            let head = self.agents[a].server.as_ref().map(|s| s.head).unwrap_or_default();
            let next = self.tree.write(head);
            let depth = self.tree.depth(next);
            let server = self.agents[a].server.as_mut().unwrap();
            server.head = next;
            if acks > 0 {
                server.waiting.push((next, depth));
            }
            self.checks.wrote(now);
        }
        let next = self.dice.between(10_000, 40_000);
        self.at(self.now + next, What::Write);
    }

    /// A replica works on its link.
    pub fn sync(&mut self, a: A, run: Run) {
        let now = self.now;
        let Some(server) = self.server(a, run) else { return };
        let link = server.link.clone();
        if server.master || link == Link::None {
            return;
        }
        let hung = now < server.hung_until;
        let again = match link {
            _ if hung => 50_000,
            Link::None => return,
            Link::Connecting => self.connect(a, run),
            Link::Transfer { until, head, replid, master, run: of } if now >= until => {
                if !self.serves_as_source(a, master, of) {
                    self.server(a, run).unwrap().link = Link::Connecting;
                } else {
                    self.begin_loading(a, run, (head, replid, master, of));
                }
                20_000
            }
            Link::Transfer { .. } => 20_000,
            Link::Loading { until, head, replid, master, run: of } if now >= until => {
                // The rest comes by a partial resync, for the master may have another history by now.
                self.end_loading(a, run, head, replid.clone());
                let same = self.agents[master].server.as_ref().is_some_and(|s| s.replid == replid);
                if same && self.serves_as_source(a, master, of) {
                    self.link_up(a, run, master, of);
                } else if let Some(me) = self.server(a, run) {
                    me.link = Link::Connecting;
                }
                5_000
            }
            Link::Loading { .. } => 20_000,
            Link::Up { master, run: of, number, heard } => self.pull(a, run, (master, of, number, heard)),
        };
        let jitter = self.dice.roll(again / 2 + 1);
        self.at(now + again / 2 + jitter, What::Sync(a, run));
    }

    fn serves_as_source(&self, a: A, master: A, of: Run) -> bool {
        let there = self.agents[master].server.as_ref().filter(|s| s.run == of && s.master && s.open);
        let Some(there) = there else { return false };
        let me = self.agents[a].server.as_ref();
        let admitted = me.is_some_and(|me| self.may_link(me, there));
        self.net.joined(self.node_of(a), self.node_of(master)) && admitted && self.now >= there.hung_until
    }

    fn may_link(&self, replica: &Server, master: &Server) -> bool {
        self.mutated(super::mutation::Mutation::NoAdmission)
            || (replica.credential == master.users_epoch && master.users.contains(&replica.run_id))
    }

    /// Asks the master it follows for a partial or a full resync.
    fn connect(&mut self, a: A, run: Run) -> u64 {
        let Some(target) = self.server(a, run).and_then(|s| s.following.clone()) else { return 100_000 };
        let found = self.agents.iter().position(|x| x.redis == target && x.server.is_some());
        let Some(master) = found.filter(|m| *m != a) else { return 150_000 };
        let of = self.agents[master].server.as_ref().map_or(0, |s| s.run);
        if !self.serves_as_source(a, master, of) {
            return 150_000;
        }
        let source = self.agents[master].server.as_ref().unwrap();
        let (head, replid, second) = (source.head, source.replid.clone(), source.replid2.clone());
        let me = self.agents[a].server.as_ref().unwrap();
        let at = self.tree.depth(me.head);
        let known = me.complete && at <= self.tree.depth(head);
        let same = me.replid == replid || second.is_some_and(|(old, end)| me.replid == old && at < end);
        if known && same && !self.dice.one_in(8) {
            let head_there = self.tree.holds(head, me.head);
            self.checks.fail_unless(head_there, || format!("a partial resync of agent {a} from {master} joins two histories"));
            let me = self.server(a, run).unwrap();
            if me.replid != replid {
                me.replid2 = Some((std::mem::replace(&mut me.replid, replid), at + 1));
            }
            self.link_up(a, run, master, of);
            return 5_000;
        }
        let until = self.now + self.dice.between(20_000, 500_000);
        self.server(a, run).unwrap().link = Link::Transfer { until, head, replid, master, run: of };
        self.touch(a);
        20_000
    }

    fn begin_loading(&mut self, a: A, run: Run, (head, replid, master, of): (Head, Rc<str>, A, Run)) {
        let old = self.agents[a].server.as_ref().map(|s| (s.head, s.complete));
        if let Some((old, true)) = old {
            self.overwritten(a, old, head);
        }
        let until = self.now + self.dice.between(10_000, 150_000);
        let me = self.server(a, run).unwrap();
        me.complete = false;
        me.link = Link::Loading { until, head, replid, master, run: of };
        self.touch(a);
    }

    fn end_loading(&mut self, a: A, run: Run, head: Head, replid: Rc<str>) {
        let offset = self.tree.depth(head);
        let epoch = self.agents[a].duty.epoch;
        let name = self.name("dump-");
        self.agents[a].dump = Some(super::data::Dump { head, replid: replid.clone(), offset, epoch, name });
        let me = self.server(a, run).unwrap();
        (me.head, me.replid, me.replid2, me.complete) = (head, replid, None, true);
    }

    fn link_up(&mut self, a: A, run: Run, master: A, of: Run) {
        let now = self.now;
        self.links += 1;
        let number = self.links;
        let me = self.server(a, run).unwrap();
        me.link = Link::Up { master, run: of, number, heard: now };
        let (id, head) = (me.run_id.clone(), me.head);
        let acked = self.tree.depth(head);
        if let Some(there) = self.server(master, of) {
            there.attached.insert(id, Attached { number, acked });
            self.confirm(master);
        }
        self.touch(a);
    }

    /// The next piece of the stream is on its way, if the master has one.
    fn pull(&mut self, a: A, run: Run, (master, of, number, heard): (A, Run, u64, u64)) -> u64 {
        let now = self.now;
        let (me, there) = (self.node_of(a), self.node_of(master));
        let id = self.agents[a].server.as_ref().map(|s| s.run_id.clone()).unwrap_or_default();
        let source = self.agents[master].server.as_ref().filter(|s| s.run == of && s.master && s.open);
        let attached = source.is_some_and(|s| s.attached.get(&id).is_some_and(|x| x.number == number));
        let reachable = self.net.joined(me, there);
        if (reachable && !attached) || now > heard + LINK_TIMEOUT {
            self.server(a, run).unwrap().link = Link::Connecting;
            self.touch(a);
            return 50_000;
        }
        if let Some((head, running)) = source.map(|s| (s.head, now >= s.hung_until)).filter(|_| attached)
            && running
        {
            self.stream(there, me, Message::Stream { to: (a, run), from: (master, of), number, head });
        }
        30_000
    }

    /// A piece of the stream arrives.
    pub fn streamed(&mut self, (a, run): (A, Run), (master, of): (A, Run), number: u64, head: Head) {
        let now = self.now;
        let Some(old) = self.server(a, run).map(|s| s.head) else { return };
        let newer = self.tree.depth(head) >= self.tree.depth(old);
        let holds = self.tree.holds(head, old);
        let Some(me) = self.server(a, run) else { return };
        let Link::Up { number: mine, heard, .. } = &mut me.link else { return };
        if *mine != number || me.hung_until > now || !newer {
            return;
        }
        *heard = now;
        me.head = head;
        let id = me.run_id.clone();
        self.checks.fail_unless(holds, || format!("a stream from agent {master} replaced what agent {a} held"));
        let ack = Message::Ack { to: (master, of), run: id, number, offset: self.tree.depth(head) };
        self.stream(self.node_of(a), self.node_of(master), ack);
    }

    /// An acknowledgement arrives at the master.
    pub fn acknowledged(&mut self, (a, run): (A, Run), replica: &str, number: u64, offset: u64) {
        let Some(server) = self.server(a, run).filter(|s| s.master) else { return };
        let Some(attached) = server.attached.get_mut(replica).filter(|x| x.number == number) else { return };
        attached.acked = attached.acked.max(offset);
        self.confirm(a);
    }

    /// `WAIT` is answered for writes that enough replicas have.
    fn confirm(&mut self, a: A) {
        let acks = self.setup.acks as usize;
        let Some(server) = self.agents[a].server.as_mut().filter(|s| s.master && acks > 0) else { return };
        let mut acked: Vec<u64> = server.attached.values().map(|x| x.acked).collect();
        acked.sort_unstable_by(|x, y| y.cmp(x));
        let Some(reached) = acked.get(acks - 1).copied() else { return };
        let confirmed = server.waiting.iter().rev().find(|(_, offset)| *offset <= reached).map(|(head, _)| *head);
        server.waiting.retain(|(_, offset)| *offset > reached);
        if let Some(head) = confirmed {
            self.confirmed(a, head);
        }
    }

    /// Where a server stands, as `INFO` tells.
    pub fn position(&self, server: &Server) -> Position {
        Position { replid: server.replid.to_string(), offset: self.tree.depth(server.head) }
    }
}
