//! Which history a copy belongs to, where a history ends, and ways out that people have consented to.

use super::*;

pub(super) fn consent(kind: OperationKind) -> Operation {
    Operation {
        id: "o".into(),
        kind,
        owner: "me".into(),
        epoch: 5,
        step: String::new(),
        started_ms: 1,
        deadline_ms: u64::MAX,
        outcome: None,
        cause: String::new(),
        steps: Vec::new(),
    }
}

fn at(replid: &'static str, offset: u64) -> impl Fn(&mut State) {
    move |s| {
        let redis = s.redis.as_mut().unwrap();
        (redis.replid, redis.offset) = (replid.into(), offset);
    }
}

/// Epoch 3 wrote OLD up to 50, epoch 4 goes on in NEW; its master is dead and the others are cut.
fn two_histories() -> Case {
    Case::stable().master_dead().deposing().cut(1).cut(2).record(|r| {
        let history = |epoch, replid: &str, from, to| History { epoch, replid: replid.into(), from, to, next: None };
        r.histories = vec![history(3, OLD, 1, Some(50)), history(4, NEW, 51, None)];
    })
}

fn winner(case: &Case) -> (Option<u32>, Vec<Option<u64>>) {
    let plan = case.plan();
    let next = committed(&plan);
    (next.master.as_ref().map(|m| m.instance), next.histories.iter().map(|h| h.to).collect())
}

#[test]
fn naming_a_winner_ends_the_history_that_it_continues() {
    let case = two_histories().state(1, at(NEW, 90)).state(2, at(NEW, 80));
    assert_eq!(winner(&case), (Some(1), vec![Some(50), Some(90)]));
}

#[test]
fn nothing_counts_of_a_history_that_began_after_the_winners() {
    let case = two_histories().state(1, at(OLD, 40)).state(2, at(OLD, 30));
    assert_eq!(winner(&case), (Some(1), vec![Some(40), Some(40)]));
}

#[test]
fn naming_again_takes_back_an_end_that_a_winner_who_was_given_up_had_moved() {
    let moved = |r: &mut Record| {
        (r.histories[0].to, r.histories[0].next) = (Some(71), Some(NEW.into()));
        r.histories[1].from = 44;
    };
    let case = two_histories().record(moved).state(1, at(NEW, 50)).state(2, at(NEW, 45));
    assert_eq!(winner(&case), (Some(1), vec![Some(43), Some(50)]), "what both share ends before the first of the later one");
    let case = two_histories().record(moved).state(1, at(OLD, 40)).state(2, at(OLD, 30));
    let plan = case.plan();
    assert_eq!(committed(&plan).histories.iter().map(|h| h.to).collect::<Vec<_>>(), [Some(40), Some(40)]);
    let at_the_fork = agent::lineage::is_ahead(NEW, 43, None, Some(committed(&plan)));
    assert!(at_the_fork, "a copy at the fork of a history that came to nothing holds more than the winner");
}

#[test]
fn a_winner_of_an_unknown_history_shares_nothing_with_the_lineage() {
    let started = |s: &mut State| {
        let redis = s.redis.as_mut().unwrap();
        (redis.source, redis.started_epoch, redis.replid, redis.offset) = ("local:x".into(), 5, "zzzz".into(), 95);
    };
    let case = two_histories().state(1, started).state(2, at(NEW, 80));
    assert_eq!(winner(&case), (Some(1), vec![Some(0), Some(0)]), "whatever the others hold is set aside before they follow");
}

#[test]
fn a_replica_that_names_the_new_history_before_it_has_any_of_it_does_not_win_over_a_longer_copy() {
    let case = two_histories().state(1, at(NEW, 30)).state(2, at(OLD, 45));
    assert_eq!(winner(&case).0, Some(2));
    let case = two_histories().state(1, at(NEW, 50)).state(2, at(OLD, 60));
    assert_eq!(winner(&case).0, Some(1), "60 is beyond the fork: it diverged");
}

#[test]
fn consent_is_not_turned_against_the_winner_that_it_made_way_for() {
    let opening = Case::stable()
        .record(|r| (r.epoch, r.phase, r.master_epoch) = (5, Phase::Promoting, 5))
        .seen(|s| s.operation = Some(consent(OperationKind::Failover { consent_epoch: Some(5) })));
    assert_eq!(opening.actions(), ["promote instance 0"]);
    assert_eq!(committed(&opening.silent(0).plan()).phase, Phase::Deposing, "one that is silent may be given up");
}

#[test]
fn a_record_made_anew_finds_a_server_that_was_started_and_never_assigned() {
    let case = Case::stable()
        .record(|r| {
            (r.epoch, r.phase, r.master) = (5, Phase::Deposing, None);
            r.histories.clear();
            r.known_replicas.clear();
        })
        .all_fresh()
        .state(1, |s| {
            *s = state(1, 70);
            (s.task_id, s.assigned_epoch, s.fenced_epoch, s.epoch) = ("fresh-1".into(), 0, Some(5), 5);
            let redis = s.redis.as_mut().unwrap();
            (redis.source, redis.started_epoch, redis.keys, redis.replid) = ("local:x".into(), 4, 1, "zzzz".into());
        });
    assert_eq!(winner(&case).0, Some(1));
}

#[test]
fn a_start_without_data_that_somebody_consented_to_is_not_vetoed() {
    let empty = OperationKind::Restore { snapshot: None, consent_epoch: Some(5), empty: true };
    let case = Case::stable().deposing().all_fresh().seen(|s| s.operation = Some(consent(empty)));
    assert_eq!(orders(&case.plan()), [(0, Order::Start { source: Source::Empty })]);
}

#[test]
fn a_copy_that_is_ahead_in_an_ending_instance_is_waited_for() {
    let ending = |s: &mut State| {
        (s.stopping, s.fenced_epoch, s.epoch) = (true, Some(5), 5);
        s.redis.as_mut().unwrap().offset = 200;
    };
    let case = Case::stable().deposing().cut(1).cut(2).state(0, ending);
    assert_eq!(case.actions(), Vec::<String>::new());
    assert!(case.plan().waits.iter().any(|w| w.message.contains("asked to end")));
}
