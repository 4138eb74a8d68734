//! A master's term of office: until when its server may acknowledge writes, and what has to be done about it next. Pure: no IO, no clock.
//!
//! The caller hands in what happened, with the time since boot, carries out every effect, and calls again at [`Term::due`] at the latest.
//!
//! Invariants, with L the lease length. The lease ends L after the *sending* of a renewal that was committed, or of a round in which
//! everybody whom a stored renewal may name has promised to bear no witness; by promises never later than the longest failsafe after the
//! last committed renewal was sent. The stop of writes is asked for so early that it is proven at that end, or the server killed. Writes go
//! on only while no reason to hold them back is left and the lease runs; once it has run out, only a committed renewal lets them go on.

use std::collections::BTreeSet;
use std::time::Duration;

use super::ground::Ground;
use crate::record::Peer;
use crate::timing::{self, BUSY_AFTER, HUNG_AFTER, KILL_TIME, PAUSE_BOUND, STOP_BOUND};

/// Pause before an unanswered stop of writes is tried again.
const PAUSE_AGAIN: Duration = Duration::from_millis(50);

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Time passed.
    Tick,
    /// Whether ZooKeeper can be spoken to now.
    Connected(bool),
    /// What came of a renewal.
    Renewed(u64, Outcome),
    /// The record was read: it names this master.
    Stands(Ground),
    /// The record was read: it names somebody else, or nobody.
    Deposed,
    /// The record could not be read, is absent, or cannot be understood.
    Unreadable,
    /// A member's agent answered that it is there and would promise.
    Probed(Peer),
    /// A member promised, in this round.
    Promised(u64, Peer),
    /// The server answered something.
    Answered,
    /// The server owes an answer; whether its process has been running meanwhile.
    Silent {
        /// It is busy rather than hung.
        running: bool,
    },
    /// Whether the server confirmed that it holds writes back.
    Paused(bool),
    /// Whether the server confirmed that it lets writes go on.
    Unpaused(bool),
    /// Writes are to be held back until then, for a planned change.
    Hold(Duration),
    /// Such a hold is over.
    Release,
}

/// What came of a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It stands.
    Committed,
    /// The record is no longer the one it was sent against; nothing was changed.
    CheckFailed,
    /// Certainly nothing was changed, for another reason.
    NotApplied,
    /// Perhaps it stands, perhaps it will.
    Unknown,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Commit a renewal against the ground, naming whom to ask.
    Renew {
        /// Its number, for [`Event::Renewed`].
        number: u64,
        /// Stored with it.
        asks: Vec<Peer>,
    },
    /// Ask these agents whether they are there.
    Probe(Vec<Peer>),
    /// Ask these for a promise.
    Ask {
        /// The round, for [`Event::Promised`].
        round: u64,
        /// Everybody who has to promise.
        peers: Vec<Peer>,
        /// For how long, from the arrival of the request.
        length: Duration,
    },
    /// Read the record.
    ReadRecord,
    /// Have the server hold writes back.
    Pause,
    /// Have the server let writes go on.
    Unpause,
    /// Kill the server.
    Kill,
}

/// Why writes are held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The record names another master, or none.
    Deposed,
    /// The lease has run out.
    Expired,
    /// A planned change of master is under way.
    Planned,
}

/// A renewal sent and, as far as is known, possibly stored.
#[derive(Clone, Debug)]
struct Sent {
    number: u64,
    at: Duration,
    generation: String,
    lease: Duration,
    failsafe_max: Duration,
    record_version: i32,
    asks: Vec<Peer>,
}

impl Sent {
    fn end(&self) -> Duration {
        self.at + self.lease
    }
    /// The end of the longest time on promises after this one.
    fn failsafe_end(&self) -> Duration {
        self.at + self.failsafe_max.max(self.lease)
    }
}

#[derive(Clone, Debug)]
struct Round {
    number: u64,
    at: Duration,
    promised: BTreeSet<Peer>,
}

/// What the server was last told about writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    Open,
    Pausing,
    Paused,
    Unpausing,
    /// It has not answered to a stop, or a stop was refused; since when.
    PauseFailed(Duration),
    /// It has not answered to the end of a stop; since when. Writes may go on.
    UnpauseFailed(Duration),
}

/// A term of office.
#[derive(Clone, Debug)]
pub struct Term {
    ground: Ground,
    began: Duration,
    /// Renewals that may be stored: the last one known to be, first, and those sent since.
    sent: Vec<Sent>,
    /// Number of the last one known to be stored.
    committed: Option<u64>,
    in_flight: Option<u64>,
    numbers: u64,
    next_renewal: Duration,
    /// Renewing does not work at present.
    failing: bool,
    connected: bool,
    end: Duration,
    on_promises: bool,
    round: Option<Round>,
    next_round: Duration,
    probed: Vec<(Peer, Duration)>,
    answered: Duration,
    running: bool,
    gate: Gate,
    expired: bool,
    deposed: bool,
    planned: Option<Duration>,
    killed: bool,
}

impl Term {
    /// Begins a term that rests on nothing yet: writes stay held back until the first renewal is committed. `open` says whether the server
    /// may be taking writes now. `asks` are named by the first renewal.
    pub fn begin(now: Duration, ground: Ground, asks: Vec<Peer>, open: bool) -> Term {
        let probed = asks.into_iter().map(|peer| (peer, now)).collect();
        Term {
            ground,
            began: now,
            sent: Vec::new(),
            committed: None,
            in_flight: None,
            numbers: 0,
            next_renewal: now,
            failing: false,
            connected: true,
            end: now,
            on_promises: false,
            round: None,
            next_round: now,
            probed,
            answered: now,
            running: false,
            gate: if open { Gate::Open } else { Gate::Paused },
            expired: true,
            deposed: false,
            planned: None,
            killed: false,
        }
    }

    /// The record it stands on.
    pub fn ground(&self) -> &Ground {
        &self.ground
    }

    /// End of the lease, time since boot; in the past when there is none.
    pub fn end(&self) -> Duration {
        self.end
    }

    /// Record version of the last committed renewal; absent before one in the generation of the ground.
    pub fn committed_version(&self) -> Option<i32> {
        self.committed().filter(|sent| sent.generation == self.ground.generation).map(|sent| sent.record_version)
    }

    /// Whether a renewal was ever committed.
    pub fn has_begun(&self) -> bool {
        self.committed.is_some()
    }

    /// Whether the lease runs on promises.
    pub fn on_promises(&self) -> bool {
        self.on_promises
    }

    /// Whether the record names somebody else.
    pub fn is_deposed(&self) -> bool {
        self.deposed
    }

    /// The first reason for which writes are held back.
    pub fn reason(&self) -> Option<Reason> {
        let reasons =
            [(self.deposed, Reason::Deposed), (self.expired, Reason::Expired), (self.planned.is_some(), Reason::Planned)];
        reasons.into_iter().find(|(holds, _)| *holds).map(|(_, reason)| reason)
    }

    /// Whether the server has confirmed that it takes no writes.
    pub fn is_paused(&self) -> bool {
        self.gate == Gate::Paused
    }

    /// Whether writes go on.
    pub fn is_open(&self) -> bool {
        self.gate == Gate::Open && self.reason().is_none()
    }

    /// Everybody whom a stored renewal may name: those of the last committed one, and of each sent since.
    pub fn asked(&self) -> BTreeSet<Peer> {
        self.sent.iter().flat_map(|sent| sent.asks.iter().cloned()).collect()
    }

    /// Takes in what happened and says what to do.
    pub fn on(&mut self, now: Duration, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Tick => {}
            Event::Connected(connected) => self.connected = connected,
            Event::Renewed(number, outcome) => self.renewed(now, number, outcome, &mut effects),
            Event::Stands(ground) => self.stands(now, ground),
            Event::Deposed => self.deposed = true,
            Event::Unreadable => self.failing = true,
            Event::Probed(peer) => self.probed(now, peer),
            Event::Promised(round, peer) => self.promised(round, peer),
            Event::Answered => (self.answered, self.running) = (now, false),
            Event::Silent { running } => self.running = running,
            Event::Paused(done) => self.paused(now, done, &mut effects),
            Event::Unpaused(done) => self.gate = if done { Gate::Open } else { Gate::UnpauseFailed(now) },
            Event::Hold(until) => self.planned = Some(until),
            Event::Release => self.planned = None,
        }
        self.keep_lease(now, &mut effects);
        self.keep_gate(now, &mut effects);
        effects
    }

    /// When the term wants to be called again, even if nothing happens.
    pub fn due(&self, now: Duration) -> Duration {
        let soon = now + Duration::from_millis(1);
        let mut due = now + timing::renew_every(self.ground.lease);
        let mut at = |time: Duration| due = due.min(time.max(soon));
        if !self.expired {
            at(self.end.saturating_sub(STOP_BOUND));
        }
        if !self.deposed && !self.killed && self.is_server_fit(now) {
            match self.flying() {
                None => at(self.next_renewal),
                Some(sent) if !self.failing => at(sent.at + timing::renew_every(sent.lease)),
                Some(_) => {}
            }
            if self.failing && !self.expired && self.committed.is_some() {
                at(self.round.as_ref().map_or(self.next_round, |round| round.at + self.ground.lease / 2));
            }
        }
        if let Gate::PauseFailed(since) | Gate::UnpauseFailed(since) = self.gate {
            at(since + PAUSE_AGAIN);
        }
        if matches!(self.gate, Gate::Pausing | Gate::PauseFailed(_)) && !self.killed {
            at(self.last_moment());
        }
        if let Some(until) = self.planned {
            at(until);
        }
        due
    }

    fn committed(&self) -> Option<&Sent> {
        self.sent.iter().find(|sent| Some(sent.number) == self.committed)
    }

    fn flying(&self) -> Option<&Sent> {
        self.sent.iter().find(|sent| Some(sent.number) == self.in_flight)
    }

    /// The latest time at which a server that does not confirm its stop is killed, whoever may be asked.
    fn last_moment(&self) -> Duration {
        let end = self.committed().map_or(self.began + self.ground.failsafe_max, Sent::failsafe_end);
        end.saturating_sub(KILL_TIME)
    }

    fn renewed(&mut self, now: Duration, number: u64, outcome: Outcome, effects: &mut Vec<Effect>) {
        if self.in_flight != Some(number) {
            return;
        }
        self.in_flight = None;
        let again = now + timing::renew_every(self.ground.lease) / 4;
        match outcome {
            Outcome::Committed => {
                // It was stored at the version that everything sent before would have needed: none of that can be stored any more.
                self.sent.retain(|sent| sent.number >= number);
                self.committed = Some(number);
                (self.failing, self.on_promises, self.round) = (false, false, None);
                let Some(end) = self.committed().map(Sent::end) else { return };
                self.end = self.end.max(end);
                if end > now + timing::office_bound(self.ground.lease) {
                    self.expired = false;
                }
            }
            Outcome::CheckFailed => {
                self.sent.retain(|sent| sent.number != number);
                self.next_renewal = again;
                effects.push(Effect::ReadRecord);
            }
            Outcome::NotApplied => {
                self.sent.retain(|sent| sent.number != number);
                (self.failing, self.next_renewal) = (true, again);
                effects.push(Effect::ReadRecord);
            }
            Outcome::Unknown => (self.failing, self.next_renewal) = (true, again),
        }
    }

    fn stands(&mut self, now: Duration, ground: Ground) {
        let same = ground.generation == self.ground.generation;
        if (same && ground.record_version <= self.ground.record_version) || ground == self.ground {
            return;
        }
        self.ground = ground;
        self.next_renewal = now;
    }

    fn probed(&mut self, now: Duration, peer: Peer) {
        self.probed.retain(|(known, _)| known.task_id != peer.task_id);
        self.probed.push((peer, now));
    }

    fn promised(&mut self, number: u64, peer: Peer) {
        if let Some(round) = self.round.as_mut().filter(|round| round.number == number) {
            round.promised.insert(peer);
        }
        self.count_promises();
    }

    /// With the last promise the lease runs on from the beginning of the round.
    fn count_promises(&mut self) {
        let Some(round) = &self.round else { return };
        let Some(committed) = self.committed().filter(|_| self.asked().is_subset(&round.promised)) else { return };
        // The shortest of the lengths under which a controller may count: the ground may have changed since the commit.
        let end = (round.at + committed.lease.min(self.ground.lease)).min(committed.failsafe_end());
        self.round = None;
        if end > self.end && !self.expired {
            (self.end, self.on_promises) = (end, true);
        }
    }

    fn paused(&mut self, now: Duration, done: bool, effects: &mut Vec<Effect>) {
        if done {
            self.gate = Gate::Paused;
            return;
        }
        // A planned change needs a server that answers; it is called off, and what was asked for undone.
        self.planned = None;
        let held = self.reason().is_some();
        self.gate = if held { Gate::PauseFailed(now) } else { Gate::UnpauseFailed(now) };
        if held && !self.asked().is_empty() {
            self.kill(effects);
        }
    }

    fn kill(&mut self, effects: &mut Vec<Effect>) {
        if !std::mem::replace(&mut self.killed, true) {
            effects.push(Effect::Kill);
        }
    }

    /// Whether the server has answered lately enough to lead: one that runs without answering gets longer than one that hangs.
    fn is_server_fit(&self, now: Duration) -> bool {
        let silence = now.saturating_sub(self.answered);
        silence <= if self.running { BUSY_AFTER } else { HUNG_AFTER }
    }

    fn keep_lease(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        if self.deposed || self.killed {
            return;
        }
        let every = timing::renew_every(self.ground.lease);
        let late = self.flying().is_some_and(|sent| now >= sent.at + timing::renew_every(sent.lease));
        if late || !self.connected {
            self.failing = true;
        }
        if !self.is_server_fit(now) {
            return;
        }
        if self.in_flight.is_none() && now >= self.next_renewal {
            if self.connected {
                self.renew(now, effects);
            } else {
                self.next_renewal = now + every / 4;
            }
        }
        if self.failing && !self.expired && self.committed.is_some() && now < self.end.saturating_sub(STOP_BOUND) {
            self.ask(now, effects);
        }
    }

    fn renew(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        self.numbers += 1;
        let number = self.numbers;
        // The first names whom it was told to; later ones those of the list who answered lately.
        let recent = |at: Duration| now.saturating_sub(at) <= self.ground.lease / 2;
        let listed = |peer: &Peer| self.committed.is_none() || self.ground.members.contains(peer);
        let named = self.probed.iter().filter(|(peer, at)| recent(*at) && listed(peer));
        let asks: Vec<Peer> = named.map(|(peer, _)| peer.clone()).collect();
        self.sent.push(Sent {
            number,
            at: now,
            generation: self.ground.generation.clone(),
            lease: self.ground.lease,
            failsafe_max: self.ground.failsafe_max,
            record_version: self.ground.record_version,
            asks: asks.clone(),
        });
        self.in_flight = Some(number);
        self.next_renewal = now + timing::renew_every(self.ground.lease);
        effects.push(Effect::Renew { number, asks });
        if !self.ground.members.is_empty() {
            effects.push(Effect::Probe(self.ground.members.clone()));
        }
    }

    /// Begins a round of promises when one is due; one that lasts too long is given up for another.
    fn ask(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        let running = self.round.as_ref().is_some_and(|round| now < round.at + self.ground.lease / 2);
        if running || now < self.next_round {
            return;
        }
        self.numbers += 1;
        self.next_round = now + timing::renew_every(self.ground.lease);
        self.round = Some(Round { number: self.numbers, at: now, promised: BTreeSet::new() });
        let peers: Vec<Peer> = self.asked().into_iter().collect();
        if peers.is_empty() {
            self.count_promises();
        } else {
            // For the longest lease that this round can give.
            let longest = self.sent.iter().map(|sent| sent.lease).fold(self.ground.lease, Duration::max);
            effects.push(Effect::Ask { round: self.numbers, peers, length: timing::with_margin(longest) });
        }
    }

    fn keep_gate(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        if now + STOP_BOUND >= self.end {
            self.expired = true;
        }
        if self.planned.is_some_and(|until| now >= until) {
            self.planned = None;
        }
        let held = self.reason().is_some();
        // An unpause that is not answered in time must leave the time for the stop.
        let needed = timing::office_bound(self.ground.lease).max(PAUSE_BOUND + STOP_BOUND);
        let runs = self.end > now + needed;
        match self.gate {
            Gate::Pausing | Gate::PauseFailed(_) if held && now >= self.last_moment() => self.kill(effects),
            Gate::PauseFailed(since) if now < since + PAUSE_AGAIN => {}
            Gate::Open | Gate::PauseFailed(_) | Gate::UnpauseFailed(_) if held => {
                self.gate = Gate::Pausing;
                effects.push(Effect::Pause);
            }
            Gate::UnpauseFailed(since) if now < since + PAUSE_AGAIN => {}
            Gate::Paused | Gate::PauseFailed(_) | Gate::UnpauseFailed(_) if !held && runs => {
                self.gate = Gate::Unpausing;
                effects.push(Effect::Unpause);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
