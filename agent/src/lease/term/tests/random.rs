//! A term against a world that delays, loses and refuses: whatever happens, a write is possible only while nobody else can have been given
//! the right to acknowledge one.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// What the world does to the things under way. Times in milliseconds.
#[derive(Clone, Debug)]
struct Fate {
    /// From the sending of a renewal until it is stored; absent: never.
    stored_after: Option<u64>,
    /// From then until the answer; absent: the outcome is unknown.
    answered_after: Option<u64>,
    /// From the request until a member promises; absent: it does not.
    promised_after: Option<u64>,
    /// From then until the answer; absent: the answer is lost.
    heard_after: Option<u64>,
    /// Until the server carries out a command; absent: it hangs.
    carried_out_after: Option<u64>,
    /// Members whose agents answer the probe, as bits.
    there: u8,
    /// Whether the record changes its version now.
    moves: bool,
    /// A planned change is tried.
    holds: bool,
}

fn maybe(range: std::ops::Range<u64>, share: f64) -> impl Strategy<Value = Option<u64>> {
    proptest::option::weighted(share, range)
}

fn fate() -> impl Strategy<Value = Fate> {
    let waits = (maybe(0..3000, 0.7), maybe(0..1500, 0.7), maybe(0..900, 0.8), maybe(0..600, 0.8), maybe(0..160, 0.9));
    (waits, 0u8..8, proptest::bool::weighted(0.1), proptest::bool::weighted(0.1)).prop_map(
        |((stored_after, answered_after, promised_after, heard_after, carried_out_after), there, moves, holds)| Fate {
            stored_after,
            answered_after,
            promised_after,
            heard_after,
            carried_out_after,
            there,
            moves,
            holds,
        },
    )
}

/// Something that happens at a time.
#[derive(Clone, Debug)]
enum Later {
    Store { number: u64, sent: Duration, base: u32, asks: Vec<Peer> },
    Outcome(u64),
    Promise(Peer, Duration),
    Heard(u64, Peer),
    Probed(Peer),
    Applied(bool),
    Confirmed(bool, bool),
    Dead,
}

/// ZooKeeper, the members and the server as they are, not as the term knows them.
struct World {
    queue: Vec<(Duration, u64, Later)>,
    count: u64,
    /// The lease node: its version, and the renewal it holds.
    node: u32,
    stored: Option<(Duration, Vec<Peer>)>,
    outcomes: BTreeMap<u64, bool>,
    promises: BTreeMap<Peer, Duration>,
    takes_writes: bool,
    dead: bool,
    /// Commands to the server are carried out in order.
    server_busy_until: Duration,
    hung: bool,
}

impl World {
    fn later(&mut self, at: Duration, what: Later) {
        self.count += 1;
        self.queue.push((at, self.count, what));
    }

    fn next(&mut self, until: Duration) -> Option<(Duration, Later)> {
        let first = (0..self.queue.len()).min_by_key(|i| (self.queue[*i].0, self.queue[*i].1))?;
        (self.queue[first].0 <= until).then(|| self.queue.remove(first)).map(|(at, _, what)| (at, what))
    }

    /// Whether nobody else can have been given the right to acknowledge writes by `now`: the stored renewal's lease runs, or somebody whom
    /// it names must not bear witness, for everybody there promised; and the time without any witness has not passed.
    fn holds_office(&self, now: Duration) -> bool {
        let Some((sent, asks)) = &self.stored else { return false };
        let promised = asks.iter().all(|peer| self.promises.get(peer).is_some_and(|until| *until >= now));
        now <= *sent + L || (promised && now <= *sent + FAILSAFE)
    }

    fn carry_out(&mut self, now: Duration, effect: Effect, fate: &Fate) {
        let wait = |wait: u64| now + ms(wait);
        match effect {
            Effect::Renew { number, asks } => {
                let base = self.node;
                if let Some(stored) = fate.stored_after {
                    self.later(wait(stored), Later::Store { number, sent: now, base, asks });
                }
                let answer = fate.answered_after.map(|answered| fate.stored_after.unwrap_or(0) + answered);
                self.later(wait(answer.unwrap_or(700)), Later::Outcome(number));
            }
            Effect::Probe(peers) => {
                for (bit, peer) in peers.into_iter().enumerate().filter(|(bit, _)| fate.there & (1 << bit) != 0) {
                    self.later(wait(5 + bit as u64), Later::Probed(peer));
                }
            }
            Effect::Ask { round, peers, length } => {
                for peer in peers {
                    let Some(promised) = fate.promised_after else { continue };
                    self.later(wait(promised), Later::Promise(peer.clone(), length));
                    if let Some(heard) = fate.heard_after {
                        self.later(wait(promised + heard), Later::Heard(round, peer));
                    }
                }
            }
            Effect::ReadRecord => {}
            Effect::Pause | Effect::Unpause => self.order(now, effect == Effect::Pause, fate),
            Effect::Kill => self.later(now + KILL_TIME, Later::Dead),
        }
    }

    fn order(&mut self, now: Duration, pause: bool, fate: &Fate) {
        self.hung |= fate.carried_out_after.is_none();
        let limit = now + PAUSE_BOUND;
        let done = (now + ms(fate.carried_out_after.unwrap_or(0))).max(self.server_busy_until);
        if !self.hung {
            self.server_busy_until = done;
            self.later(done, Later::Applied(pause));
        }
        match !self.hung && done <= limit {
            true => self.later(done, Later::Confirmed(pause, true)),
            false => self.later(limit, Later::Confirmed(pause, false)),
        }
    }

    /// Lets one thing happen; what the term hears of it.
    fn happens(&mut self, at: Duration, what: Later) -> Option<Event> {
        match what {
            Later::Store { number, sent, base, asks } => {
                let stands = base == self.node;
                self.outcomes.insert(number, stands);
                if stands {
                    self.node += 1;
                    self.stored = Some((sent, asks));
                }
                None
            }
            Later::Outcome(number) => {
                let outcome = match self.outcomes.get(&number) {
                    Some(true) => Outcome::Committed,
                    Some(false) => Outcome::NotApplied,
                    None => Outcome::Unknown,
                };
                Some(Event::Renewed(number, outcome))
            }
            Later::Promise(peer, length) => {
                let until = self.promises.entry(peer).or_default();
                *until = (*until).max(at + length);
                None
            }
            Later::Heard(round, peer) => Some(Event::Promised(round, peer)),
            Later::Probed(peer) => Some(Event::Probed(peer)),
            Later::Applied(pause) => {
                self.takes_writes = !pause && !self.dead;
                None
            }
            Later::Confirmed(true, done) => Some(Event::Paused(done)),
            Later::Confirmed(false, done) => Some(Event::Unpaused(done)),
            Later::Dead => {
                (self.dead, self.takes_writes) = (true, false);
                None
            }
        }
    }
}

fn run(fates: &[Fate]) -> Result<bool, TestCaseError> {
    let start = ms(10_000);
    let members = ["b", "c", "d"];
    let mut term = Term::begin(start, ground(1, &members), vec![peer("b"), peer("c")], false);
    let mut world = World {
        queue: Vec::new(),
        count: 0,
        node: 0,
        stored: None,
        outcomes: BTreeMap::new(),
        promises: BTreeMap::new(),
        takes_writes: false,
        dead: false,
        server_busy_until: start,
        hung: false,
    };
    let (mut now, mut version, mut opened) = (start, 1, false);
    for fate in fates {
        let step = loop {
            let due = term.due(now);
            prop_assert!(due > now && due <= now + L, "it wants to be called at {due:?}, now is {now:?}");
            let Some((at, what)) = world.next(due) else { break due };
            now = now.max(at);
            let over = world.takes_writes && !world.holds_office(now);
            prop_assert!(!over, "writes are taken at {now:?} although the office is over: {term:#?}");
            let Some(event) = world.happens(now, what) else { continue };
            for effect in term.on(now, event) {
                world.carry_out(now, effect, fate);
            }
            opened |= world.takes_writes;
        };
        now = now.max(step);
        prop_assert!(!world.takes_writes || world.holds_office(now), "writes are taken at {now:?}: {term:#?}");
        let mut events = vec![if world.hung { Event::Silent { running: false } } else { Event::Answered }];
        if fate.moves {
            version += 1;
            events.push(Event::Stands(ground(version, &members[..1 + version as usize % 3])));
        }
        events.push(if fate.holds { Event::Hold(now + ms(300)) } else { Event::Release });
        for effect in events.into_iter().flat_map(|event| term.on(now, event)).collect::<Vec<_>>() {
            world.carry_out(now, effect, fate);
        }
    }
    Ok(opened)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn writes_are_possible_only_while_nobody_else_can_lead(fates in proptest::collection::vec(fate(), 1..120)) {
        run(&fates)?;
    }
}

/// The world above is not so hostile that nothing ever opens.
#[test]
fn some_terms_open() {
    let fate = Fate {
        stored_after: Some(5),
        answered_after: Some(5),
        promised_after: Some(5),
        heard_after: Some(5),
        carried_out_after: Some(1),
        there: 7,
        moves: false,
        holds: false,
    };
    assert!(run(&vec![fate; 200]).unwrap());
}
