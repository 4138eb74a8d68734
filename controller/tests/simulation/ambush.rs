//! A schedule that chance hardly ever makes: the first renewal of a new master lingers on its way while no controller hears that master, and arrives
//! just before the commit that deposes it for its silence. Then it is cut off from ZooKeeper too, and knows nothing of the commit.

use std::rc::Rc;

use agent::record::Phase;

use super::network::KEEPER;
use super::world::{What, World};
use super::zookeeper::{Client, Message, Request};
use controller::view::Ask;

/// How long the master is cut off, and how long after one ambush none is laid.
const LENGTH: u64 = 4_000_000;

/// What was withheld, and when.
pub(super) struct Ambush {
    renewal: Option<(Client, u64, Rc<Request>)>,
    since: u64,
}

impl World {
    /// Changes of master give an occasion.
    pub fn ask_for_an_occasion(&mut self) {
        if let Some(c) = self.zk.nodes.leader.filter(|_| self.setup.ambush && self.dice.one_in(4)) {
            self.controllers[c].asked = Some(Ask::Switchover { owner: "ambush".into(), to: None, dry_run: false });
        }
    }

    /// Whether a request is withheld: the first renewal of a winner.
    pub fn withholds(&mut self, from: Client, id: u64, request: &Rc<Request>) -> bool {
        let (Request::Renew { lease, .. }, Client::Agent(a, _)) = (&**request, from) else { return false };
        let rests = self.ambush.as_ref().is_some_and(|ambush| self.now < ambush.since + 2 * LENGTH);
        if !self.setup.ambush || !self.faults_on || rests {
            return false;
        }
        let opening = self.zk.nodes.record.as_ref().is_some_and(|(record, _)| {
            record.phase == Phase::Promoting && record.has_in_office(&lease.task_id, &lease.run_id) && record.epoch == lease.epoch
        });
        let renewed =
            self.zk.nodes.lease.1.as_ref().is_some_and(|last| (&last.run_id, last.epoch) == (&lease.run_id, lease.epoch));
        if !opening || renewed {
            return false;
        }
        self.trace(|| format!("ambush: the first renewal of agent {a} is withheld"));
        let (host, until) = (self.node_of(a), self.now + LENGTH);
        for c in [1, 2] {
            self.cut_way(host, c, until);
            self.cut_way(c, host, until);
        }
        self.ambush = Some(Ambush { renewal: Some((from, id, request.clone())), since: self.now });
        true
    }

    /// A commit is about to depose somebody: what was withheld comes first.
    pub fn spring(&mut self) {
        let Some((from, id, request)) = self.ambush.as_mut().and_then(|ambush| ambush.renewal.take()) else { return };
        self.trace(|| "ambush: the renewal arrives before the commit".into());
        let (place, until) = (self.place_of(from), self.now + LENGTH);
        let reply = self.apply(from, &request);
        self.session(KEEPER, place, Message::Reply { to: from, id, reply });
        for (one, other) in [(place, KEEPER), (KEEPER, place)] {
            self.at(self.now + 1_000, What::Cut(one, other, until));
        }
    }
}
