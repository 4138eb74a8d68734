//! What is asked of the scheduler.

use super::*;

#[test]
fn instances_follow_the_spec_and_the_master_is_never_removed() {
    for (wanted, expected) in
        [(5, vec!["add 2 instance(s)"]), (3, vec![]), (2, vec!["remove instance(s) [2]"]), (1, vec!["remove instance(s) [2, 1]"])]
    {
        let mut case = Case::stable();
        case.spec.instances = wanted;
        assert_eq!(case.actions(), expected, "{wanted}");
    }
    let mut case = Case::stable().record(|r| r.master.as_mut().unwrap().instance = 2);
    case.spec.instances = 2;
    assert!(case.actions().contains(&"remove instance(s) [1]".to_owned()), "{:?}", case.actions());
}

#[test]
fn a_job_that_is_gone_is_never_made_again() {
    let case = Case::stable().seen(|s| s.scheduler.tasks = Some(Vec::new()));
    assert_eq!(case.actions(), Vec::<String>::new());
    assert!(case.reasons().contains(&Reason::JobGone));
}

#[test]
fn a_job_update_locks_scaling_out() {
    let mut case = Case::stable().seen(|s| s.scheduler.updating = true);
    case.spec.instances = 4;
    assert_eq!(case.actions(), Vec::<String>::new());
    assert!(case.reasons().contains(&Reason::JobUpdating));
}

#[test]
fn a_silent_task_is_restarted_only_after_long_and_not_when_nobody_is_heard() {
    let zombie = |since: u64| {
        Case::stable().silent(2).seen(|s| s.silent_since.extend([("task-2".to_owned(), Duration::from_secs(since))]))
    };
    assert_eq!(zombie(950).actions(), Vec::<String>::new());
    assert_eq!(zombie(800).actions(), ["restart instance 2"]);
    assert_eq!(zombie(800).silent(0).silent(1).actions(), Vec::<String>::new());
}
