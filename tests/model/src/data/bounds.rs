//! How far a run goes. Within its bounds every order of events is visited.

use crate::protocol::list;
use std::fmt;

/// The bounds of one run. A number of faults is the most that happen in one history; they may happen at any moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Replicas that must hold a write before it is confirmed.
    pub acks: u8,
    /// That number is raised by one at some moment.
    pub raise: bool,
    /// Writes, at most 3.
    pub writes: u8,
    /// The highest epoch, at most 3.
    pub epochs: u8,
    /// Servers that crash (and may restart empty), hosts that go silent for ever, agents cut off from the controller (and back).
    pub faults: u8,
    /// Links that break so that a full copy begins again.
    pub flaps: u8,
    /// Planned changes.
    pub switches: u8,
    /// Removals begun.
    pub removals: u8,
    /// A full copy needs the link until it is loaded; otherwise what was received is loaded without it.
    pub diskless: bool,
    /// An instance that must not lead.
    pub unfit: Option<u8>,
}

impl Bounds {
    /// The smallest run: one write confirmed by one replica, one fault, one failover.
    pub const fn small() -> Bounds {
        Bounds {
            acks: 1,
            raise: false,
            writes: 1,
            epochs: 2,
            faults: 1,
            flaps: 0,
            switches: 0,
            removals: 0,
            diskless: false,
            unfit: None,
        }
    }
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "acks {}, writes {}, epochs {}, faults {}", self.acks, self.writes, self.epochs, self.faults)?;
        let numbers =
            [("flaps", self.flaps), ("switches", self.switches), ("removals", self.removals), ("unfit", self.unfit.unwrap_or(0))];
        list(f, &numbers, &[("raise", self.raise), ("diskless", self.diskless)])
    }
}
