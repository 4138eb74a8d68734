//! Who reaches whom, and how late. Messages are delayed, lost, doubled and overtake each other; what runs over one connection keeps its order.

use std::collections::BTreeMap;

use super::world::{What, World};
use super::zookeeper::Message;

/// A place in the network.
pub(super) type Place = usize;

/// The ZooKeeper ensemble.
pub(super) const KEEPER: Place = 0;
/// The first host of instances; before come the controllers.
pub(super) const FIRST_HOST: Place = 3;

/// Directed cuts, each for its own reason.
#[derive(Default)]
pub(super) struct Network {
    cuts: BTreeMap<(Place, Place), u32>,
    /// Latest arrival on an ordered connection.
    arrivals: BTreeMap<(Place, Place, u8), u64>,
}

impl Network {
    pub fn cut(&mut self, from: Place, to: Place) {
        *self.cuts.entry((from, to)).or_default() += 1;
    }

    pub fn heal(&mut self, from: Place, to: Place) {
        if let Some(n) = self.cuts.get_mut(&(from, to)) {
            *n = n.saturating_sub(1);
        }
    }

    pub fn heal_all(&mut self) {
        self.cuts.clear();
    }

    pub fn passes(&self, from: Place, to: Place) -> bool {
        from == to || self.cuts.get(&(from, to)).is_none_or(|n| *n == 0)
    }

    pub fn joined(&self, a: Place, b: Place) -> bool {
        self.passes(a, b) && self.passes(b, a)
    }

    /// A new connection does not wait for what is late on an old one.
    pub fn forget(&mut self, place: Place) {
        self.arrivals.retain(|(from, to, _), _| *from != place && *to != place);
    }
}

impl World {
    fn delay(&mut self) -> u64 {
        let base = self.dice.between(50, 900);
        match self.faults_on && self.dice.one_in(30) {
            true if self.dice.one_in(6) => base + self.dice.roll(3_000_000),
            true => base + self.dice.roll(60_000),
            false => base,
        }
    }

    /// A request of its own: late, lost, doubled, overtaken.
    pub fn send(&mut self, from: Place, to: Place, message: Message) {
        let copies = if self.faults_on && self.dice.one_in(40) { self.dice.roll(3) } else { 1 };
        for _ in 0..copies {
            let mut late = self.delay();
            if !self.net.passes(from, to) {
                // Some are sent again by TCP until the way is free, perhaps much later.
                late += self.dice.between(200_000, 5_000_000);
            }
            self.at(self.now + late, What::Deliver(from, to, message.clone()));
        }
    }

    fn ordered(&mut self, from: Place, to: Place, kind: u8, message: Message) {
        if !self.net.passes(from, to) {
            return;
        }
        let due = self.now + self.delay();
        let last = self.net.arrivals.entry((from, to, kind)).or_default();
        *last = due.max(*last + 1);
        let due = *last;
        self.at(due, What::Deliver(from, to, message));
    }

    /// A piece of a replication stream, or an acknowledgement on it.
    pub fn stream(&mut self, from: Place, to: Place, message: Message) {
        self.ordered(from, to, 0, message);
    }

    /// A line of an agent's stream of states.
    pub fn line(&mut self, from: Place, to: Place, message: Message) {
        self.ordered(from, to, 1, message);
    }

    /// A request to ZooKeeper or its answer: in order within a session.
    pub fn session(&mut self, from: Place, to: Place, message: Message) {
        self.ordered(from, to, 2, message);
    }
}
