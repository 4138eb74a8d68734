use super::*;
use crate::checker::log::{Failure, Server};

/// A log in the making: times in milliseconds, servers `a`, `b`, … by index.
struct Story {
    log: Log,
    data: Data,
    about: About,
}

impl Story {
    fn new(writers: usize) -> Story {
        let servers = ["a", "b", "c"].map(|name| Server { address: name.into(), run_id: format!("run-{name}") });
        let log = Log {
            origin: std::time::Instant::now(),
            keys: (0..writers).map(|i| format!("w:{i}")).collect(),
            servers: servers.to_vec(),
            acks: Vec::new(),
            failures: Vec::new(),
            unreached: 0,
        };
        Story { log, data: Data(vec![Vec::new(); writers]), about: About::default() }
    }

    /// Value `n` of writer 0, acknowledged by `server`, sent and acknowledged at those times, present in the end.
    fn kept(self, n: u64, server: usize, sent: u64, acked: u64) -> Story {
        let mut story = self.lost(n, server, sent, acked);
        story.data.0[0].push(n);
        story
    }

    /// The same, not present in the end.
    fn lost(mut self, n: u64, server: usize, sent: u64, acked: u64) -> Story {
        let (sent, acked) = (Duration::from_millis(sent), Duration::from_millis(acked));
        self.log.acks.push(Ack { writer: 0, n, length: n, server, sent, acked, confirmed: false });
        self
    }

    /// Changes the last acknowledgement.
    fn with(mut self, change: impl FnOnce(&mut Ack)) -> Story {
        change(self.log.acks.last_mut().unwrap());
        self
    }

    fn failed(mut self, n: u64, refused: Option<&str>) -> Story {
        let at = Duration::from_millis(n);
        self.log.failures.push(Failure { writer: 0, n, server: 0, sent: at, at, refused: refused.map(str::to_owned) });
        self
    }

    fn fault(mut self, at: u64) -> Story {
        self.about.fault = Some(Duration::from_millis(at));
        self
    }

    fn reigns(mut self, servers: &[&str]) -> Story {
        self.about.reigns = servers.iter().map(|name| format!("run-{name}")).collect();
        self
    }

    fn judge(&self) -> Verdict {
        judge(&self.log, &self.data, &self.about)
    }

    /// Values found to be acknowledged in overlapping time.
    fn overlaps(&self) -> Vec<u64> {
        self.judge().overlapping.iter().map(|o| o.ack.n).collect()
    }
}

#[test]
fn nothing_happened() {
    let verdict = Story::new(1).kept(1, 0, 0, 1).kept(2, 0, 2, 3).judge();
    verdict.one_writer().unwrap().nothing_lost().unwrap().confirmed_kept().unwrap().none_refused().unwrap();
    assert_eq!(verdict.longest_pause.map(|p| p.length()), Some(Duration::from_millis(2)));
}

#[test]
fn no_writes_at_all() {
    let verdict = Story::new(2).judge();
    verdict.one_writer().unwrap().nothing_lost().unwrap();
    assert!(verdict.longest_pause.is_none() && verdict.reigns.is_empty());
    assert!(verdict.one_server().is_err());
}

#[test]
fn an_acknowledged_write_that_is_not_there_is_lost() {
    let verdict = Story::new(1).kept(1, 0, 0, 1).lost(2, 0, 2, 3).judge();
    assert_eq!(verdict.lost.iter().map(|a| a.n).collect::<Vec<_>>(), [2]);
    assert!(verdict.nothing_lost().is_err());
    verdict.confirmed_kept().unwrap();
    assert_eq!(verdict.reigns[0].lost, 1);
}

#[test]
fn one_that_wait_had_confirmed_counts_as_that_too() {
    let verdict = Story::new(1).kept(1, 0, 0, 1).lost(2, 0, 2, 3).with(|ack| ack.confirmed = true).judge();
    assert_eq!((verdict.confirmed, verdict.lost_confirmed.len()), (1, 1));
    assert!(verdict.confirmed_kept().is_err());
}

#[test]
fn writes_without_an_acknowledgement_are_not_lost_and_may_be_there() {
    let mut story = Story::new(1).kept(1, 0, 0, 1).failed(2, None).failed(3, Some("READONLY"));
    story.data.0[0].push(2);
    let verdict = story.judge();
    verdict.one_writer().unwrap().nothing_lost().unwrap();
    assert_eq!((verdict.unanswered.len(), verdict.refused.len()), (1, 1));
    assert!(verdict.none_refused().is_err());
}

#[test]
fn a_clean_handover_has_no_overlap() {
    assert_eq!(Story::new(1).kept(1, 0, 0, 1).kept(2, 1, 5, 6).kept(3, 1, 7, 8).overlaps(), [0_u64; 0]);
}

#[test]
fn an_acknowledgement_by_the_old_server_of_a_write_sent_after_the_new_ones_first_is_an_overlap() {
    let story = Story::new(1).kept(1, 0, 0, 1).kept(2, 1, 5, 6).lost(3, 0, 7, 8).kept(4, 1, 9, 10);
    assert_eq!(story.overlaps(), [3]);
    let overlap = story.judge().overlapping[0];
    assert_eq!((overlap.other, overlap.late), (1, Duration::from_millis(1)));
    assert!(story.judge().one_writer().is_err());
}

#[test]
fn an_old_write_whose_acknowledgement_comes_late_proves_nothing() {
    // Sent before the new server's first acknowledgement was read: it may have been executed before that.
    assert_eq!(Story::new(1).kept(1, 0, 0, 1).kept(2, 1, 5, 6).kept(3, 0, 2, 9).overlaps(), [0_u64; 0]);
    assert_eq!(Story::new(1).kept(1, 0, 0, 1).kept(2, 1, 5, 6).kept(3, 0, 6, 9).overlaps(), [0_u64; 0]);
}

#[test]
fn a_new_write_sent_early_and_acknowledged_late_proves_nothing() {
    // The new server executed it somewhere in 0..20; the old one's in 5..6 may have come before.
    assert_eq!(Story::new(1).kept(1, 0, 5, 6).kept(2, 1, 0, 20).kept(3, 0, 7, 8).overlaps(), [0_u64; 0]);
}

#[test]
fn two_that_write_all_the_time_are_found_whoever_was_first() {
    let story = Story::new(1).kept(1, 0, 0, 1).kept(2, 1, 2, 3).kept(3, 0, 4, 5).kept(4, 1, 6, 7);
    assert_eq!(story.overlaps(), [3]);
    assert_eq!(Story::new(1).kept(2, 1, 2, 3).kept(1, 0, 0, 1).kept(4, 1, 6, 7).kept(3, 0, 4, 5).overlaps(), [3]);
}

#[test]
fn who_led_twice_is_excused_only_outside_the_others_time() {
    let story = || Story::new(1).kept(1, 0, 0, 1).kept(2, 1, 5, 6).kept(3, 1, 9, 10).kept(4, 0, 15, 16).kept(5, 0, 17, 18);
    assert_eq!(story().overlaps(), [4, 5], "without being told that it led again");
    assert_eq!(story().reigns(&["a", "b", "a"]).overlaps(), [0_u64; 0]);
    // 9 by a, sent between two of b's: no placing of the ends excuses all.
    let crossed = story().kept(9, 0, 7, 8).reigns(&["a", "b", "a"]);
    assert!(!crossed.overlaps().is_empty());
}

#[test]
fn who_never_led_may_not_acknowledge() {
    assert_eq!(Story::new(1).kept(1, 0, 0, 1).kept(2, 2, 5, 6).reigns(&["a", "b"]).overlaps(), [2]);
}

#[test]
fn a_restarted_server_is_another_one() {
    let mut story = Story::new(1).kept(1, 0, 0, 1).kept(2, 1, 5, 6).lost(3, 0, 7, 8);
    story.log.servers[1].address = "a".into();
    assert_eq!(story.overlaps(), [3]);
}

#[test]
fn a_server_without_earlier_writes_is_found_out_although_they_are_there_in_the_end() {
    let story = Story::new(1).kept(1, 0, 0, 1).kept(2, 0, 2, 3).kept(3, 1, 5, 6).with(|ack| ack.length = 1);
    let verdict = story.judge();
    verdict.nothing_lost().unwrap();
    assert_eq!(verdict.hidden.iter().map(|(before, later)| (before.n, later.n)).collect::<Vec<_>>(), [(2, 3)]);
    assert!(verdict.one_writer().is_err());
}

#[test]
fn a_shorter_list_after_a_loss_is_that_loss_only() {
    let verdict = Story::new(1).kept(1, 0, 0, 1).lost(2, 0, 2, 3).kept(3, 1, 5, 6).with(|ack| ack.length = 2).judge();
    assert!(verdict.hidden.is_empty());
}

#[test]
fn foreign_double_and_swapped_values_are_strange() {
    for (what, list) in [("nobody sent", vec![1, 2, 7]), ("twice", vec![1, 2, 2]), ("out of order", vec![2, 1])] {
        let mut story = Story::new(1).kept(1, 0, 0, 1).kept(2, 0, 2, 3);
        story.data.0[0] = list;
        let verdict = story.judge();
        assert!(verdict.strange.len() == 1 && verdict.strange[0].contains(what), "{what}: {:?}", verdict.strange);
        assert!(verdict.one_writer().is_err());
    }
}

#[test]
fn times_around_a_fault() {
    let story = Story::new(1).kept(1, 0, 0, 1).kept(2, 0, 10, 12).kept(3, 0, 30, 31).kept(4, 1, 40, 45).kept(5, 1, 46, 47);
    let verdict = story.fault(11).judge();
    let millis = |at: Option<Duration>| at.map(|at| at.as_millis());
    assert_eq!(millis(verdict.longest_pause.map(|p| p.length())), Some(19));
    assert_eq!(millis(verdict.first_after_fault), Some(31));
    assert_eq!(millis(verdict.first_by_successor), Some(45));
    verdict.pause_within(Duration::from_millis(19)).unwrap();
    assert!(verdict.pause_within(Duration::from_millis(18)).is_err());
}

#[test]
fn only_young_writes_of_the_dead_may_be_lost() {
    let young = Story::new(1).kept(1, 0, 0, 1).lost(2, 0, 8, 9).kept(3, 1, 20, 21).fault(10);
    young.judge().lost_only_within(Duration::from_millis(5)).unwrap();
    let old = Story::new(1).lost(1, 0, 0, 1).kept(2, 0, 8, 9).fault(10);
    assert!(old.judge().lost_only_within(Duration::from_millis(5)).is_err());
    let late = Story::new(1).kept(1, 0, 0, 1).lost(2, 1, 20, 21).fault(10);
    assert!(late.judge().lost_only_within(Duration::from_millis(5)).is_err());
}

#[test]
fn the_verdict_can_be_read() {
    let text = Story::new(1).kept(1, 0, 0, 1).kept(2, 1, 5, 6).lost(3, 0, 7, 8).fault(4).judge().to_string();
    for part in
        ["3 writes acknowledged", "a run run-a: 2 acknowledged, -3.0 ms to +4.0 ms, 1 lost", "overlapping time: 1, up to 1.0 ms"]
    {
        assert!(text.contains(part), "{part}:\n{text}");
    }
}

#[test]
fn logs_of_two_places_are_judged_as_one() {
    // Each alone sees one server; together they see that both wrote. The second log began 100 ms later.
    let first = Story::new(1).kept(1, 0, 0, 1).kept(2, 0, 150, 151).log;
    let mut second = Story::new(1).kept(1, 1, 0, 1).kept(2, 1, 2, 3).log;
    second.servers.swap(0, 1);
    second.acks.iter_mut().for_each(|ack| ack.server = 0);
    second.origin = first.origin + Duration::from_millis(100);
    for both in [first.clone().and(second.clone()), second.and(first)] {
        let data = Data(vec![vec![1, 2], vec![1, 2]]);
        let verdict = judge(&both, &data, &About::default());
        assert_eq!(both.servers.len(), 3);
        let late: Vec<u128> = verdict.overlapping.iter().map(|o| o.late.as_millis()).collect();
        assert_eq!((verdict.acknowledged, late), (4, vec![49]));
        verdict.nothing_lost().unwrap();
    }
}
