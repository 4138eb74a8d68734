//! How far a run goes. Within its bounds every order of events is visited.

use crate::protocol::list;
use crate::set::Set;
use std::fmt;

/// The bounds of one run. A number of faults is the most that happen in one history; they may happen at any moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Length of a lease, in ticks.
    pub lease: u8,
    /// What is added for drift wherever somebody waits, in ticks.
    pub margin: u8,
    /// How long failsafe lasts at most, in ticks; none: for ever, and then its end is no evidence.
    pub failsafe_max: Option<u8>,
    /// The highest epoch.
    pub epochs: u8,
    /// The most versions of the record.
    pub versions: u8,
    /// Controllers that both believe they lead: 1 or 2.
    pub controllers: u8,
    /// The replicas that the record lists at first.
    pub members: Set,
    /// The record gains members that it does not list yet.
    pub adding: bool,
    /// The record loses members.
    pub removing: bool,
    /// Masters choose whom of the members they would ask (those that answer them); otherwise all.
    pub choosing: bool,
    /// A controller counts from the renewal it first saw; otherwise always from its own commit.
    pub watching: bool,
    /// A renewal that was given up may still arrive.
    pub strays: bool,
    /// Restarts of an agent and its server, with its data.
    pub restarts: u8,
    /// Ticks that a lease holder's clock misses.
    pub skips: u8,
    /// Planned changes: writes are held, and resumed if the change is given up.
    pub holds: u8,
    /// How often ZooKeeper loses everything.
    pub losses: u8,
    /// Agents that go for ever.
    pub deaths: u8,
}

impl Bounds {
    /// The smallest run with one failover: instance 1 is a member, one controller, no fault but silence, loss and delay.
    pub const fn small() -> Bounds {
        Bounds {
            lease: 1,
            margin: 0,
            failsafe_max: None,
            epochs: 2,
            versions: 3,
            controllers: 1,
            members: Set(0b010),
            adding: true,
            removing: false,
            choosing: false,
            watching: false,
            strays: false,
            restarts: 0,
            skips: 0,
            holds: 0,
            losses: 0,
            deaths: 0,
        }
    }
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lease {}, epochs {}, versions {}, controllers {}", self.lease, self.epochs, self.versions, self.controllers)?;
        write!(f, ", members {:?}", self.members)?;
        let numbers = [
            ("margin", self.margin),
            ("failsafe.max", self.failsafe_max.unwrap_or(0)),
            ("restarts", self.restarts),
            ("skips", self.skips),
            ("holds", self.holds),
            ("losses", self.losses),
            ("deaths", self.deaths),
        ];
        let flags = [
            ("adding", self.adding),
            ("removing", self.removing),
            ("choosing", self.choosing),
            ("watching", self.watching),
            ("strays", self.strays),
        ];
        list(f, &numbers, &flags)
    }
}
