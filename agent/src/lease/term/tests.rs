use super::*;

const L: Duration = Duration::from_secs(2);
const FAILSAFE: Duration = Duration::from_secs(20);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn peer(name: &str) -> Peer {
    Peer { task_id: name.into(), agent: format!("{name}:1").parse().unwrap() }
}

fn ground(version: i32, members: &[&str]) -> Ground {
    Ground {
        generation: "g".into(),
        epoch: 3,
        record_version: version,
        lease: L,
        failsafe_max: FAILSAFE,
        members: members.iter().map(|name| peer(name)).collect(),
    }
}

/// A term that was begun at 10 s and whose first renewal was committed at once; the server takes writes.
struct Office {
    term: Term,
    now: Duration,
}

impl Office {
    fn begun(members: &[&str]) -> Office {
        let now = ms(10_000);
        let asks = members.iter().map(|name| peer(name)).collect();
        let mut office = Office { term: Term::begin(now, ground(7, members), asks, false), now };
        let number = number_of(&office.on(Event::Tick));
        assert_eq!(office.on(Event::Renewed(number, Outcome::Committed)), [Effect::Unpause]);
        assert_eq!(office.on(Event::Unpaused(true)), []);
        assert!(office.term.is_open());
        office
    }

    fn on(&mut self, event: Event) -> Vec<Effect> {
        self.term.on(self.now, event)
    }

    /// Lets time pass until then, each time the term wants to be called; the server answers all the while.
    fn until(&mut self, end: Duration) -> Vec<Effect> {
        let mut effects = Vec::new();
        while self.now < end {
            self.now = self.term.due(self.now).min(end);
            effects.extend(self.on(Event::Answered));
        }
        effects
    }

    /// The same without an answer of the server.
    fn silent_until(&mut self, end: Duration, running: bool) -> Vec<Effect> {
        let mut effects = Vec::new();
        while self.now < end {
            self.now = self.term.due(self.now).min(end);
            effects.extend(self.on(Event::Silent { running }));
        }
        effects
    }
}

fn number_of(effects: &[Effect]) -> u64 {
    let found = effects.iter().find_map(|effect| match effect {
        Effect::Renew { number, .. } => Some(*number),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("no renewal in {effects:?}"))
}

fn asked_by(effects: &[Effect]) -> Vec<(u64, Vec<Peer>)> {
    let ask = |effect: &Effect| match effect {
        Effect::Ask { round, peers, .. } => Some((*round, peers.clone())),
        _ => None,
    };
    effects.iter().filter_map(ask).collect()
}

#[test]
fn nothing_opens_before_the_first_renewal_is_committed() {
    let mut term = Term::begin(ms(10_000), ground(7, &["b"]), vec![peer("b")], false);
    let effects = term.on(ms(10_000), Event::Tick);
    assert_eq!(effects[0], Effect::Renew { number: 1, asks: vec![peer("b")] });
    assert_eq!((term.reason(), term.is_open()), (Some(Reason::Expired), false));
    assert_eq!(term.on(ms(10_010), Event::Renewed(1, Outcome::Committed)), [Effect::Unpause]);
    assert_eq!(term.end(), ms(12_000), "counted from the sending");
}

#[test]
fn a_server_that_may_be_open_is_held_back_first() {
    let mut term = Term::begin(ms(10_000), ground(7, &[]), vec![], true);
    assert_eq!(term.on(ms(10_000), Event::Tick), [Effect::Renew { number: 1, asks: vec![] }, Effect::Pause]);
}

#[test]
fn a_first_renewal_that_comes_too_late_opens_nothing() {
    let mut term = Term::begin(ms(10_000), ground(7, &[]), vec![], false);
    term.on(ms(10_000), Event::Tick);
    term.on(ms(11_400), Event::Answered);
    assert_eq!(term.on(ms(11_500), Event::Renewed(1, Outcome::Committed)), [Effect::Renew { number: 2, asks: vec![] }]);
    assert!(!term.is_open());
}

#[test]
fn renewals_go_out_every_quarter_and_prolong_from_their_sending() {
    let mut office = Office::begun(&[]);
    for n in 1..20 {
        let at = ms(10_000 + n * 500);
        let number = number_of(&office.until(at));
        office.now += ms(20);
        assert_eq!(office.on(Event::Renewed(number, Outcome::Committed)), []);
        assert_eq!(office.term.end(), at + L);
    }
    assert!(office.term.is_open());
}

#[test]
fn a_renewal_names_the_listed_members_who_answered_lately() {
    let mut office = Office::begun(&["b", "c"]);
    let effects = office.until(ms(10_500));
    assert!(effects.contains(&Effect::Probe(vec![peer("b"), peer("c")])));
    let number = number_of(&effects);
    office.on(Event::Renewed(number, Outcome::Committed));
    office.on(Event::Probed(peer("c")));
    office.on(Event::Probed(peer("stranger")));
    office.until(ms(11_000));
    let asked = office.term.asked();
    assert!(asked.contains(&peer("c")) && !asked.contains(&peer("stranger")), "{asked:?}");
}

#[test]
fn without_commits_or_promises_writes_stop_before_the_lease_ends() {
    let mut office = Office::begun(&["b"]);
    office.on(Event::Connected(false));
    let effects = office.until(ms(12_000).saturating_sub(STOP_BOUND).saturating_sub(ms(1)));
    assert!(!effects.contains(&Effect::Pause), "{effects:?}");
    let effects = office.until(ms(12_000).saturating_sub(STOP_BOUND));
    assert!(effects.contains(&Effect::Pause), "{effects:?}");
    assert_eq!(office.term.reason(), Some(Reason::Expired));
    assert_eq!(office.on(Event::Paused(true)), []);
    assert!(!office.until(ms(30_000)).contains(&Effect::Kill));
}

#[test]
fn a_stop_that_is_not_confirmed_is_a_kill_where_somebody_may_be_asked() {
    let mut office = Office::begun(&["b"]);
    office.on(Event::Connected(false));
    office.until(ms(11_800));
    office.now = ms(11_950);
    assert_eq!(office.on(Event::Paused(false)), [Effect::Kill]);
    assert!(!office.until(ms(13_000)).contains(&Effect::Kill), "once");
}

#[test]
fn alone_a_server_that_does_not_confirm_its_stop_is_asked_again_and_killed_at_the_last_moment() {
    let mut office = Office::begun(&[]);
    let effects = office.silent_until(ms(12_800), false);
    assert!(effects.contains(&Effect::Pause));
    let last = ms(10_000) + FAILSAFE - KILL_TIME;
    let committed = number_of(&effects);
    office.on(Event::Renewed(committed, Outcome::Unknown));
    let mut pauses = 0;
    while office.now < last - ms(1) {
        let effects = office.on(Event::Paused(false));
        assert!(!effects.contains(&Effect::Kill), "at {:?}", office.now);
        let effects = office.silent_until((office.now + PAUSE_AGAIN).min(last - ms(1)), false);
        pauses += effects.iter().filter(|effect| **effect == Effect::Pause).count();
        office.silent_until((office.now + PAUSE_BOUND).min(last - ms(1)), false);
    }
    assert!(pauses > 30, "{pauses}");
    assert!(office.silent_until(last, false).contains(&Effect::Kill));
}

#[test]
fn alone_a_master_goes_on_without_zookeeper_until_failsafe_ends() {
    let mut office = Office::begun(&[]);
    office.on(Event::Connected(false));
    let effects = office.until(ms(10_000) + FAILSAFE - STOP_BOUND - ms(1));
    assert_eq!(effects, [], "{effects:?}");
    assert!(office.term.is_open() && office.term.on_promises());
    assert_eq!(office.until(ms(10_000) + FAILSAFE - STOP_BOUND), [Effect::Pause]);
}

#[test]
fn promises_of_everybody_prolong_and_one_missing_does_not() {
    let mut office = Office::begun(&["b", "c"]);
    office.until(ms(10_400));
    let (round, peers) = asked_by(&office.on(Event::Connected(false))).pop().unwrap();
    assert_eq!(peers.len(), 2);
    office.now = ms(10_450);
    office.on(Event::Promised(round, peer("b")));
    office.on(Event::Promised(round + 9, peer("c")));
    assert_eq!(office.term.end(), ms(12_000), "one is missing, or promised in another round");
    office.on(Event::Promised(round, peer("c")));
    assert_eq!((office.term.end(), office.term.on_promises()), (ms(12_400), true), "from the beginning of the round");
    office.until(ms(12_400).saturating_sub(STOP_BOUND));
    assert!(!office.term.is_open(), "nobody promised again");
}

#[test]
fn everybody_named_by_a_renewal_that_may_be_stored_is_asked() {
    let mut office = Office::begun(&["b"]);
    office.on(Event::Probed(peer("c")));
    let number = number_of(&office.on(Event::Stands(ground(8, &["b", "c"]))));
    let effects = office.on(Event::Renewed(number, Outcome::Unknown));
    let (_, peers) = asked_by(&effects).pop().unwrap();
    assert_eq!(peers, [peer("b"), peer("c")]);
    // What is known not to be stored names nobody.
    let mut office = Office::begun(&["b"]);
    office.on(Event::Probed(peer("c")));
    let number = number_of(&office.on(Event::Stands(ground(8, &["b", "c"]))));
    office.on(Event::Renewed(number, Outcome::CheckFailed));
    assert_eq!(office.term.asked().into_iter().collect::<Vec<_>>(), [peer("b")]);
}

#[test]
fn a_late_reply_begins_a_round_beside_it_and_still_counts_from_its_sending() {
    let mut office = Office::begun(&["b"]);
    let number = number_of(&office.until(ms(10_500)));
    assert_eq!(asked_by(&office.until(ms(10_999))), []);
    assert_eq!(asked_by(&office.until(ms(11_000))).len(), 1);
    office.now = ms(11_300);
    office.on(Event::Renewed(number, Outcome::Committed));
    assert_eq!((office.term.end(), office.term.on_promises()), (ms(12_500), false));
}

#[test]
fn a_failed_check_reads_the_record_and_obeys_it() {
    let mut office = Office::begun(&[]);
    let number = number_of(&office.until(ms(10_500)));
    assert_eq!(office.on(Event::Renewed(number, Outcome::CheckFailed)), [Effect::ReadRecord]);
    assert!(office.term.is_open());
    let effects = office.on(Event::Stands(ground(8, &[])));
    assert_eq!(office.term.ground().record_version, 8);
    let number = number_of(&effects);
    office.now += ms(10);
    office.on(Event::Renewed(number, Outcome::CheckFailed));
    assert_eq!(office.on(Event::Deposed), [Effect::Pause], "at once, although the lease has not ended");
    office.on(Event::Paused(true));
    assert_eq!(office.until(ms(20_000)), [], "and nothing is renewed any more");
}

#[test]
fn an_emptied_zookeeper_is_a_failed_renewal() {
    let mut office = Office::begun(&["b"]);
    let number = number_of(&office.until(ms(10_500)));
    let effects = office.on(Event::Renewed(number, Outcome::NotApplied));
    assert!(effects.contains(&Effect::ReadRecord) && asked_by(&effects).len() == 1);
    office.on(Event::Unreadable);
    assert!(office.term.is_open());
}

#[test]
fn once_run_out_only_a_commit_lets_writes_go_on() {
    let mut office = Office::begun(&["b"]);
    office.on(Event::Connected(false));
    let rounds = asked_by(&office.until(ms(11_900)));
    office.on(Event::Paused(true));
    for (round, _) in rounds {
        office.on(Event::Promised(round, peer("b")));
    }
    office.until(ms(12_500));
    assert!(!office.term.is_open());
    office.on(Event::Connected(true));
    let number = number_of(&office.until(ms(12_700)));
    assert_eq!(office.on(Event::Renewed(number, Outcome::Committed)), [Effect::Unpause]);
}

#[test]
fn a_hung_server_is_not_kept_in_office_and_a_busy_one_is_for_a_while() {
    let mut office = Office::begun(&["b"]);
    let mut renewals = Vec::new();
    while office.now < ms(13_000) {
        for effect in office.silent_until(office.now + ms(10), true) {
            if let Effect::Renew { number, .. } = effect {
                renewals.push(office.now);
                office.on(Event::Renewed(number, Outcome::Committed));
            }
        }
    }
    assert!(renewals.len() >= 6, "{renewals:?}");
    let before = renewals.len();
    while office.now < ms(17_000) {
        for effect in office.silent_until(office.now + ms(10), false) {
            if let Effect::Renew { number, .. } = effect {
                renewals.push(office.now);
                office.on(Event::Renewed(number, Outcome::Committed));
            }
        }
    }
    assert_eq!(renewals.len(), before, "it hangs");
    assert_eq!(office.term.reason(), Some(Reason::Expired));
}

#[test]
fn a_hold_pauses_and_its_end_lets_writes_go_on() {
    let mut office = Office::begun(&[]);
    assert_eq!(office.on(Event::Hold(ms(10_300))), [Effect::Pause]);
    assert_eq!(office.on(Event::Paused(true)), []);
    assert_eq!(office.term.reason(), Some(Reason::Planned));
    assert_eq!(office.on(Event::Release), [Effect::Unpause]);
    office.on(Event::Unpaused(true));
    office.on(Event::Hold(ms(10_300)));
    office.on(Event::Paused(true));
    assert!(!office.until(ms(10_299)).contains(&Effect::Unpause));
    assert!(office.until(ms(10_300)).contains(&Effect::Unpause));
}

#[test]
fn a_hold_that_is_not_confirmed_is_called_off_and_kills_nobody() {
    let mut office = Office::begun(&["b"]);
    office.on(Event::Hold(ms(13_000)));
    office.now = ms(10_150);
    assert_eq!(office.on(Event::Paused(false)), []);
    assert_eq!(office.term.reason(), None);
    assert!(office.until(ms(10_150) + PAUSE_AGAIN).contains(&Effect::Unpause), "it may come into force late");
}

#[test]
fn the_end_of_a_hold_does_not_end_another_reason() {
    let mut office = Office::begun(&["b"]);
    office.on(Event::Hold(ms(60_000)));
    office.on(Event::Paused(true));
    office.on(Event::Deposed);
    assert_eq!(office.on(Event::Release), []);
    assert_eq!(office.term.reason(), Some(Reason::Deposed));
}

mod random;
