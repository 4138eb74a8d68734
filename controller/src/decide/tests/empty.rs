//! When a start without any data may be asked for: where nothing is left that could lead.

use super::*;
use crate::operations::{Judgement, judge};
use crate::view::Ask;

/// Nothing is left: fresh sandboxes, no snapshot.
fn lost() -> Case {
    Case::stable().deposing().all_fresh()
}

/// Why the start is refused; none when it begins.
fn refusal(case: &Case) -> Option<String> {
    let ask = Ask::Restore { owner: "me".into(), snapshot: None, consent_epoch: Some(5), empty: true, dry_run: false };
    let view = View { spec: &case.spec, policy: &Policy::default(), timing: &Timing::default(), seen: &case.seen, now: NOW };
    match judge(&ask, view, "o".into()) {
        Judgement::Begin(..) => None,
        Judgement::Refuse(why) => Some(why),
        other => panic!("{other:?}"),
    }
}

/// A server as it runs in a fresh sandbox, cut off for epoch 5.
fn serving(replid: &'static str, keys: u64) -> impl Fn(&mut State) {
    move |s| {
        let task_id = s.task_id.clone();
        *s = state(s.instance, 30);
        (s.task_id, s.fenced_epoch, s.epoch) = (task_id, Some(5), 5);
        let redis = s.redis.as_mut().unwrap();
        (redis.replid, redis.keys) = (replid.into(), keys);
    }
}

#[test]
fn an_empty_start_may_be_asked_for_once_nothing_is_left() {
    assert_eq!(refusal(&lost()), None);
    assert!(refusal(&lost().seen(|s| s.store.snapshots = Some(vec![row(SNAPSHOT, 4, None)]))).is_some());
    assert!(refusal(&lost().seen(|s| s.store.snapshots = None)).is_some());
    assert!(refusal(&lost().state(1, serving(OLD, 3))).is_some());
}

#[test]
fn the_last_words_of_tasks_that_have_ended_are_no_copy() {
    let words = |task: &str| {
        let mut last = State { task_id: task.into(), ..state(0, 900) };
        last.redis.as_mut().unwrap().keys = 3;
        let address = Address { host: "gone".into(), port: 8080 };
        AgentView { address, shard: Some(0), state: Some(last), heard: Some(Duration::ZERO), problem: None }
    };
    assert_eq!(refusal(&lost().seen(|s| s.agents.push(words("task-0")))), None);
    assert!(refusal(&lost().seen(|s| s.agents.push(words("fresh-0")))).is_some(), "one that runs and is silent may hold data");
}

#[test]
fn a_server_that_holds_nothing_is_no_copy() {
    assert_eq!(refusal(&lost().state(1, serving(OLD, 0))), None);
    for change in [(|r: &mut Redis| r.loading = true) as fn(&mut Redis), |r| r.answering = false] {
        let case = lost().state(1, serving(OLD, 0)).state(1, |s| change(s.redis.as_mut().unwrap()));
        assert!(refusal(&case).is_some(), "nobody knows what it holds");
    }
}

#[test]
fn a_copy_of_a_history_that_nobody_knows_is_no_copy_once_it_is_cut() {
    assert_eq!(refusal(&lost().state(1, serving("zzzz", 3))), None);
    assert!(refusal(&lost().state(1, serving("zzzz", 3)).state(1, |s| s.fenced_epoch = None)).is_some());
}
