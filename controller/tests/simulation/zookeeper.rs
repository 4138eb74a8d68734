//! ZooKeeper: the nodes of one cluster, changed by compare-and-set; sessions, watches, a quorum that may be away, and an ensemble that may
//! be emptied. What is on its way when the quorum is lost may still be applied when it comes back.

use std::collections::BTreeSet;
use std::rc::Rc;

use agent::api::{Command, PromiseRequest, State};
use agent::record::{Lease, Peer, Phase, Record};

use super::data::Head;
use super::mutation::Mutation;
use super::network::{KEEPER, Place};
use super::server::{A, Run};
use super::world::{What, World};
use controller::model::{Outcome, Spec};
use controller::view::Operation;

/// Session of a controller, microseconds.
const SESSION: u64 = 3_000_000;

/// Who speaks with ZooKeeper.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Client {
    Agent(A, u32),
    Controller(usize, u64),
}

/// Everything that travels.
#[derive(Clone)]
pub(super) enum Message {
    State { to: usize, from: A, number: u64, state: Rc<State> },
    Command { to: A, from: Option<(usize, u64)>, key: Rc<str>, command: Rc<Command> },
    Answered { to: usize, leadership: u64, key: Rc<str>, outcome: Outcome },
    Ask { to: A, from: A, incarnation: u32, term: u64, request: Rc<PromiseRequest> },
    Promised { to: A, incarnation: u32, term: u64, round: u64, probe: bool, peer: Peer },
    Stream { to: (A, Run), from: (A, Run), number: u64, head: Head },
    Ack { to: (A, Run), run: String, number: u64, offset: u64 },
    Request { from: Client, id: u64, request: Rc<Request> },
    Reply { to: Client, id: u64, reply: Reply },
    Watch { to: Client, nodes: Nodes },
}

/// The nodes as somebody may see them.
#[derive(Clone)]
pub(super) struct Nodes {
    pub zxid: u64,
    pub record: Option<(Rc<Record>, i32)>,
    pub lease: (i32, Option<Rc<Lease>>),
    pub operation: Option<Rc<Operation>>,
    pub operation_version: i32,
    pub spec: Rc<Spec>,
    /// Which controller holds the first election node.
    pub leader: Option<usize>,
    /// Counts elections.
    pub election: u64,
}

/// What ZooKeeper can be asked.
pub(super) enum Request {
    Read,
    LeaseVersion,
    Renew { lease: Lease, version: i32 },
    Create(Record),
    Commit { record: Record, version: i32, lease_version: Option<i32>, operation: Option<Box<Operation>> },
    SetOperation(Box<Operation>),
    SetSpec(Box<Spec>),
}

#[derive(Clone)]
pub(super) enum Reply {
    Read(Nodes),
    LeaseVersion(i32),
    Done(i32),
    /// The record has another version.
    CheckFailed,
    /// Nothing was changed for another reason.
    Refused,
}

pub(super) struct ZooKeeper {
    pub nodes: Nodes,
    pub generations: BTreeSet<String>,
    /// Whether there is a quorum.
    pub up: bool,
    /// Writes under way when the quorum was lost.
    limbo: Vec<(Client, Rc<Request>)>,
    /// When each controller was last reachable.
    pub heard: [u64; 2],
    pub emptied: bool,
}

impl ZooKeeper {
    pub fn new(spec: Spec) -> ZooKeeper {
        let nodes = Nodes {
            zxid: 0,
            record: None,
            lease: (0, None),
            operation: None,
            operation_version: 0,
            spec: Rc::new(spec),
            leader: None,
            election: 0,
        };
        ZooKeeper { nodes, generations: BTreeSet::new(), up: true, limbo: Vec::new(), heard: [0; 2], emptied: false }
    }
}

impl World {
    pub fn place_of(&self, client: Client) -> Place {
        match client {
            Client::Agent(a, _) => self.node_of(a),
            Client::Controller(c, _) => 1 + c,
        }
    }

    /// Whether the two can speak, as it is.
    pub fn reaches_keeper(&self, place: Place) -> bool {
        self.zk.up && self.net.joined(place, KEEPER)
    }

    pub fn request(&mut self, from: Client, id: u64, request: Request) {
        self.session(self.place_of(from), KEEPER, Message::Request { from, id, request: Rc::new(request) });
    }

    /// A request arrives.
    pub fn requested(&mut self, from: Client, id: u64, request: Rc<Request>) {
        if !self.zk.up {
            if !matches!(*request, Request::Read | Request::LeaseVersion) && self.dice.one_in(2) {
                self.zk.limbo.push((from, request));
            }
            return;
        }
        if self.withholds(from, id, &request) {
            return;
        }
        if matches!(&*request, Request::Commit { record, .. } if record.phase == Phase::Deposing) {
            self.spring();
        }
        let reply = self.apply(from, &request);
        // The commit takes its time.
        let place = self.place_of(from);
        if self.faults_on && self.dice.one_in(60) {
            return;
        }
        self.session(KEEPER, place, Message::Reply { to: from, id, reply });
    }

    /// The quorum is back: what it had agreed on before becomes visible.
    pub fn quorum_back(&mut self) {
        self.zk.up = true;
        for (from, request) in std::mem::take(&mut self.zk.limbo) {
            self.apply(from, &request);
        }
        self.notice_all();
    }

    pub fn apply(&mut self, from: Client, request: &Request) -> Reply {
        let leads = matches!(from, Client::Controller(c, _) if self.zk.nodes.leader == Some(c));
        let record_version = self.zk.nodes.record.as_ref().map(|(_, version)| *version);
        let reply = match request {
            Request::Read => return Reply::Read(self.zk.nodes.clone()),
            Request::LeaseVersion => return Reply::LeaseVersion(self.zk.nodes.lease.0),
            Request::Renew { lease, version } => match self.renewal(lease, *version, record_version) {
                Reply::Done(version) => Reply::Done(version),
                refusal => return refusal,
            },
            _ if !leads => return Reply::Refused,
            Request::Create(record) => {
                if record_version.is_some() {
                    return Reply::Refused;
                }
                self.zk.generations.insert(record.generation.clone());
                self.zk.nodes.record = Some((Rc::new(record.clone()), 0));
                Reply::Done(0)
            }
            Request::Commit { record, version, lease_version, operation } => {
                let unpinned = self.mutated(Mutation::LeaseUnpinned);
                let checked = unpinned || lease_version.is_none_or(|v| v == self.zk.nodes.lease.0);
                if record_version != Some(*version) || !checked || !self.zk.generations.contains(&record.generation) {
                    return Reply::Refused;
                }
                self.trace(|| {
                    format!(
                        "record {}: epoch {} {:?} master {:?} evidence {:?} members {:?}",
                        version + 1,
                        record.epoch,
                        record.phase,
                        record.master.as_ref().map(|m| &m.run_id),
                        record.evidence,
                        record.known_replicas.iter().map(|m| (&m.run_id, m.removing)).collect::<Vec<_>>()
                    ) + &record.histories.iter().map(|h| format!(" {}:{}-{:?}", h.epoch, h.replid, h.to)).collect::<String>()
                });
                let before = self.zk.nodes.record.as_ref().and_then(|(r, _)| r.restored.clone());
                self.zk.nodes.record = Some((Rc::new(record.clone()), version + 1));
                if let Some(restored) = record.restored.as_ref().filter(|restored| before.as_ref() != Some(*restored)) {
                    self.data_replaced(restored);
                }
                if let Some(operation) = operation {
                    self.zk.nodes.operation = Some(Rc::new((**operation).clone()));
                    self.zk.nodes.operation_version += 1;
                }
                self.checks.committed(record);
                Reply::Done(version + 1)
            }
            Request::SetOperation(operation) => {
                self.trace(|| format!("operation {operation:?}"));
                self.zk.nodes.operation = Some(Rc::new((**operation).clone()));
                self.zk.nodes.operation_version += 1;
                Reply::Done(0)
            }
            Request::SetSpec(spec) => {
                self.zk.nodes.spec = Rc::new((**spec).clone());
                Reply::Done(0)
            }
        };
        self.changed();
        reply
    }

    /// A renewal: the generation and the record stand, and nobody else has written the lease.
    fn renewal(&mut self, lease: &Lease, version: i32, record_version: Option<i32>) -> Reply {
        let unchecked = self.mutated(Mutation::RenewalUnchecked);
        let stands = unchecked || self.zk.generations.contains(&lease.generation);
        if !unchecked && stands && record_version.is_some_and(|v| v != lease.record_version) {
            return Reply::CheckFailed;
        }
        if !stands || record_version.is_none() || self.zk.nodes.lease.0 != version {
            return Reply::Refused;
        }
        self.zk.nodes.lease = (version + 1, Some(Rc::new(lease.clone())));
        Reply::Done(version + 1)
    }

    /// Watches fire.
    fn changed(&mut self) {
        self.zk.nodes.zxid += 1;
        for client in self.clients() {
            let late = if self.faults_on && self.dice.one_in(20) { self.dice.roll(800_000) } else { self.dice.roll(2_000) };
            self.at(self.now + late, What::Watch(client));
        }
    }

    /// A session is told what the nodes hold now.
    pub fn watch(&mut self, client: Client) {
        // Only a renewal proves that the record stands: where it proves nothing, no watch may stand in for it.
        let in_office = matches!(client, Client::Agent(a, _) if self.agents[a].office.is_some());
        if self.zk.up && !(in_office && self.mutated(Mutation::RenewalUnchecked)) {
            let nodes = self.zk.nodes.clone();
            self.session(KEEPER, self.place_of(client), Message::Watch { to: client, nodes });
        }
    }

    fn clients(&self) -> Vec<Client> {
        let agents = self.agents.iter().enumerate().filter(|(_, x)| x.alive).map(|(a, x)| Client::Agent(a, x.incarnation));
        agents.chain(self.controllers.iter().enumerate().map(|(c, x)| Client::Controller(c, x.leadership))).collect()
    }

    /// Everything that connects finds out, each in its own time, whether it is connected.
    pub fn notice_all(&mut self) {
        for client in self.clients() {
            let late = self.dice.between(1_000, 1_300_000);
            self.at(self.now + late, What::Notice(client));
            self.at(self.now + late / 8, What::Notice(client));
        }
    }

    /// Election nodes go with their sessions.
    pub fn elect(&mut self) {
        let now = self.now;
        for c in 0..2 {
            if self.reaches_keeper(1 + c) {
                self.zk.heard[c] = now;
            }
        }
        if self.zk.up {
            let gone = self.zk.nodes.leader.is_some_and(|c| now > self.zk.heard[c] + SESSION);
            if gone {
                self.zk.nodes.leader = None;
            }
            if self.zk.nodes.leader.is_none() {
                let first = self.dice.roll(2) as usize;
                self.zk.nodes.leader = [first, 1 - first].into_iter().find(|c| self.zk.heard[*c] == now);
                self.zk.nodes.election += 1;
                self.changed();
            }
        }
        self.at(now + 200_000, What::Elect);
    }

    /// Every node is gone; somebody writes the specification again.
    pub fn empty_keeper(&mut self) {
        let spec = self.zk.nodes.spec.clone();
        let (zxid, election) = (self.zk.nodes.zxid, self.zk.nodes.election);
        self.zk = ZooKeeper { heard: self.zk.heard, ..ZooKeeper::new((*spec).clone()) };
        (self.zk.nodes.zxid, self.zk.nodes.election) = (zxid, election);
        self.zk.emptied = true;
        self.changed();
    }
}
