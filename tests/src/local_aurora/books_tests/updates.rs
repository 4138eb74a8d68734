//! Updates from their start to their end.

use aurora::types::{BatchStrategy, JobUpdateAction};

use super::*;

const UPDATED: i32 = JobUpdateAction::INSTANCE_UPDATED.0;
const ROLLED_BACK: i32 = JobUpdateAction::INSTANCE_ROLLED_BACK.0;
const UPDATING: i32 = JobUpdateAction::INSTANCE_UPDATING.0;
const ROLLING_BACK: i32 = JobUpdateAction::INSTANCE_ROLLING_BACK.0;
const FAILED: i32 = JobUpdateAction::INSTANCE_UPDATE_FAILED.0;

fn batch(group_size: i32, autopause_after_batch: bool) -> JobUpdateSettings {
    let strategy = JobUpdateStrategy::Batch(BatchStrategy { group_size, autopause_after_batch });
    JobUpdateSettings { update_strategy: Some(strategy), ..queue(1) }
}

fn coordinated(limit_ms: i32) -> JobUpdateSettings {
    JobUpdateSettings { block_if_no_pulses_after_ms: Some(limit_ms), ..queue(1) }
}

#[test]
fn instances_are_started_then_changed_then_ended_each_in_ascending_order() {
    let mut world = World::new(6);
    world.books.state.kill(&key(), Some(&[2, 4]), "", 0).1.into_iter().for_each(|effect| world.act(effect));
    world.run();
    let update = world.update(4, queue(1));
    let order: Vec<i32> = world.steps(&update).chunks(2).map(|pair| pair[0].0).collect();
    assert_eq!(order, [2, 0, 1, 3, 5]);
    assert_eq!(world.versions(), [(0, 2), (1, 2), (2, 2), (3, 2)]);
    assert_eq!(world.statuses(&update), [0, 4]);
}

#[test]
fn strategies_say_how_many_change_at_a_time() {
    let begun_before_the_first_is_done = |settings: JobUpdateSettings| {
        let mut world = World::new(5);
        world.obedient = false;
        let update = world.update(5, settings);
        let begun = world.steps(&update).iter().filter(|(_, action)| *action == UPDATING).count();
        assert_eq!(begun, world.ending.len());
        world.end_all();
        (begun, world.ending.len())
    };
    assert_eq!(begun_before_the_first_is_done(queue(2)), (2, 2));
    assert_eq!(begun_before_the_first_is_done(batch(3, false)), (3, 2));
    assert_eq!(begun_before_the_first_is_done(queue(9)), (5, 0));
}

#[test]
fn instances_that_are_as_they_should_be_are_left_alone() {
    let mut world = World::new(3);
    let update = world.update(3, only(1, 1));
    assert_eq!(world.steps(&update), [(1, UPDATING), (1, UPDATED)]);
    assert_eq!(world.versions(), [(0, 1), (1, 2), (2, 1)]);
    let before = world.task(1).id.clone();
    let second = world.update(3, queue(1));
    let touched: Vec<i32> = world.steps(&second).iter().map(|(id, _)| *id).collect();
    assert_eq!((touched, world.task(1).id.clone()), (vec![0, 0, 2, 2], before));
    assert_eq!(world.books.start(accepted(config(2), 3, queue(1)), by(""), world.now_ms).0, Start::Unchanged);
}

#[test]
fn what_cannot_be_updated_is_refused() {
    let mut world = World::new(2);
    let refused = |world: &mut World, count, settings| match world.books.start(accepted(config(2), count, settings), by(""), 0).0
    {
        Start::Refused(text) => text,
        other => panic!("{other:?}"),
    };
    assert!(refused(&mut world, 2, only(1, 4)).ends_with("current job state: {2, 3, 4}"));
    assert!(refused(&mut world, 2, only(0, i32::MAX)).ends_with("(too many)"));
    assert!(refused(&mut world, 0, queue(1)).contains("between 1 and 4000"));
    assert!(refused(&mut world, i32::MAX, queue(1)).contains("between 1 and 4000"));
    let update = world.update(2, coordinated(1));
    let (conflict, _) = world.books.start(accepted(config(3), 2, queue(1)), by(""), 0);
    assert!(matches!(conflict, Start::Conflict(summary) if summary.key == update));
}

#[test]
fn an_instance_is_done_when_it_has_run_long_enough() {
    let mut world = World::new(2);
    let update = world.update(2, JobUpdateSettings { min_wait_in_instance_running_ms: 500, ..queue(1) });
    assert_eq!(world.steps(&update), [(0, UPDATING)]);
    assert_eq!(world.books.next_due_ms(world.now_ms), Some(world.now_ms + 500));
    world.wait(499);
    assert_eq!(world.steps(&update).len(), 1);
    world.wait(1);
    assert_eq!(world.steps(&update), [(0, UPDATING), (0, UPDATED), (1, UPDATING)]);
    world.wait(500);
    assert_eq!(world.statuses(&update), [0, 4]);
}

#[test]
fn failures_are_tolerated_as_often_as_the_settings_say() {
    /// Failures per instance, failed instances, rollback; then statuses and the instances given up.
    type Case = (i32, i32, bool, &'static [i32], &'static [i32]);
    // Version 2 always fails.
    let table: [Case; 5] = [
        (0, 0, true, &[0, 1, 5], &[0]),
        (0, 0, false, &[0, 8], &[0]),
        (2, 0, false, &[0, 8], &[0]),
        (0, 1, false, &[0, 8], &[0, 1]),
        (0, 3, false, &[0, 4], &[0, 1, 2]),
    ];
    for (per_instance, instances, rollback_on_failure, statuses, given_up) in table {
        let mut world = World::new(3);
        world.sick.insert(2);
        world.books.state.set_flapping_delay_ms(60_000);
        let settings = JobUpdateSettings {
            max_per_instance_failures: per_instance,
            max_failed_instances: instances,
            min_wait_in_instance_running_ms: 100,
            rollback_on_failure,
            ..queue(1)
        };
        let update = world.update(3, settings);
        // Long enough for every task that is throttled or watched.
        for _ in 0..10 {
            world.wait(60_000);
        }
        let failed: Vec<i32> =
            world.steps(&update).into_iter().filter(|(_, action)| *action == FAILED).map(|(id, _)| id).collect();
        assert_eq!((&*world.statuses(&update), &*failed), (statuses, given_up), "{per_instance} {instances}");
    }
}

#[test]
fn an_instance_that_fails_just_as_often_as_tolerated_is_done_in_the_end() {
    let mut world = World::new(1);
    world.books.state.set_flapping_delay_ms(60_000);
    world.sick.insert(2);
    let settings = JobUpdateSettings { max_per_instance_failures: 2, min_wait_in_instance_running_ms: 100, ..queue(1) };
    let update = world.update(1, settings);
    assert_eq!(world.task(0).failures, 2, "the second failure in a row is throttled");
    world.sick.clear();
    world.wait(60_000);
    world.wait(100);
    assert_eq!((world.statuses(&update), world.versions()), (vec![0, 4], vec![(0, 2)]));
}

#[test]
fn a_task_that_no_longer_runs_when_it_is_looked_at_is_not_done() {
    let mut world = World::new(1);
    world.sick.insert(2);
    world.unseen = true;
    let update = world.update(1, queue(1));
    assert_eq!(world.statuses(&update), [0, 1, 5]);
}

#[test]
fn a_rollback_says_nothing_of_instances_that_were_never_changed() {
    let mut world = World::new(3);
    world.obedient = false;
    let update = world.update(3, queue(1));
    world.command(&update, Update::rollback).unwrap();
    world.end_all();
    assert_eq!(world.statuses(&update), [0, 1, 5]);
    assert_eq!(world.steps(&update), [(0, UPDATING), (0, ROLLING_BACK), (0, ROLLED_BACK)]);
}

#[test]
fn a_failed_update_rolls_back_what_it_has_changed_in_reverse_order() {
    let mut world = World::new(2);
    let update = world.update(2, JobUpdateSettings { min_wait_in_instance_running_ms: 100, ..queue(1) });
    world.sick.insert(2);
    world.wait(100);
    world.wait(100);
    world.wait(100);
    let expected = [(0, UPDATING), (0, UPDATED), (1, UPDATING), (1, FAILED), (1, ROLLING_BACK), (1, ROLLED_BACK)];
    let steps = world.steps(&update);
    assert_eq!((&steps[..6], &steps[6..]), (&expected[..], &[(0, ROLLING_BACK), (0, ROLLED_BACK)][..]));
    assert_eq!((world.statuses(&update), world.versions()), (vec![0, 1, 5], vec![(0, 1), (1, 1)]));
    let message = world.details(&update).update_events[1].message.clone();
    assert_eq!(message.as_deref(), Some("Latest failure: instance 1 exited."));
}

#[test]
fn a_rollback_restores_ended_instances_and_ends_started_ones() {
    let mut world = World::new(3);
    world.obedient = false;
    let update = world.update(2, queue(1));
    world.end_all();
    world.end_all();
    // Instance 2 is being ended.
    assert_eq!(world.steps(&update).last(), Some(&(2, UPDATING)));
    world.command(&update, Update::rollback).unwrap();
    world.obedient = true;
    world.end_all();
    assert_eq!((world.statuses(&update), world.versions()), (vec![0, 1, 5], vec![(0, 1), (1, 1), (2, 1)]));
}

#[test]
fn a_pause_between_kill_and_start_leaves_the_instance_down_until_the_resume() {
    let mut world = World::new(2);
    world.obedient = false;
    let update = world.update(2, queue(1));
    world.command(&update, Update::pause).unwrap();
    world.end_all();
    assert_eq!(world.versions(), [(1, 1)]);
    world.obedient = true;
    world.command(&update, Update::resume).unwrap();
    assert_eq!((world.versions(), world.statuses(&update)), (vec![(0, 2), (1, 2)], vec![0, 2, 0, 4]));
    assert_eq!(world.steps(&update), [(0, UPDATING), (0, UPDATED), (1, UPDATING), (1, UPDATED)]);
}

#[test]
fn an_instance_that_was_given_up_is_not_tried_again_after_a_pause() {
    let mut world = World::new(3);
    world.books.state.set_flapping_delay_ms(3_600_000);
    let settings = JobUpdateSettings { max_failed_instances: 1, min_wait_in_instance_running_ms: 100, ..queue(1) };
    world.sick.insert(2);
    world.obedient = false;
    let update = world.update(3, settings);
    world.end_all();
    assert_eq!(world.steps(&update), [(0, UPDATING), (0, FAILED), (1, UPDATING)]);
    world.command(&update, Update::pause).unwrap();
    world.sick.clear();
    world.obedient = true;
    world.end_all();
    world.command(&update, Update::resume).unwrap();
    world.wait(100);
    world.wait(100);
    assert_eq!(world.statuses(&update), [0, 2, 0, 4]);
    let failed = world.steps(&update).into_iter().filter(|(_, action)| *action == FAILED).count();
    assert_eq!(failed, 1);
}

#[test]
fn an_abort_leaves_an_instance_missing_and_another_update_brings_it_back() {
    let mut world = World::new(2);
    world.obedient = false;
    let update = world.update(2, queue(1));
    world.command(&update, Update::abort).unwrap();
    world.end_all();
    assert_eq!((world.versions(), world.statuses(&update)), (vec![(1, 1)], vec![0, 6]));
    assert!(!world.books.is_updating(&key()));
    world.update_to(config(1), 2, queue(1));
    assert_eq!(world.versions(), [(0, 1), (1, 1)]);
}

#[test]
fn an_update_pauses_by_itself_after_each_group_but_the_last() {
    let mut world = World::new(5);
    let update = world.update(5, batch(2, true));
    assert_eq!((world.versions()[..3].to_vec(), world.statuses(&update)), (vec![(0, 2), (1, 2), (2, 1)], vec![0, 2]));
    assert_eq!(world.details(&update).update_events[1].message.as_deref(), Some("Update auto paused"));
    world.command(&update, Update::resume).unwrap();
    assert_eq!((world.versions()[4], world.statuses(&update)), ((4, 1), vec![0, 2, 0, 2]));
    world.command(&update, Update::resume).unwrap();
    assert_eq!((world.versions()[4], world.statuses(&update)), ((4, 2), vec![0, 2, 0, 2, 0, 4]));
}

#[test]
fn a_coordinated_update_stands_still_without_pulses_and_goes_on_with_them() {
    let mut world = World::new(3);
    world.obedient = false;
    let update = world.update(3, coordinated(1_000));
    world.wait(5_000);
    assert_eq!((world.statuses(&update), world.steps(&update)), (vec![9], vec![]));
    assert_eq!(world.pulse(&update), 1);
    assert_eq!((world.statuses(&update), world.steps(&update)), (vec![9, 0], vec![(0, UPDATING)]));
    // Missing pulses show only when something happens: here, that the old task has ended.
    world.wait(1_000);
    assert_eq!(world.statuses(&update), [9, 0]);
    world.end_all();
    assert_eq!((world.statuses(&update), world.versions()), (vec![9, 0, 9], vec![(1, 1), (2, 1)]));
    let event = world.details(&update).update_events[2].clone();
    assert_eq!((event.user, event.message.as_deref()), (None, Some("Pulses from external service have timed out.")));
    world.obedient = true;
    world.pulse(&update);
    assert_eq!((world.statuses(&update), world.versions()), (vec![9, 0, 9, 0, 4], vec![(0, 2), (1, 2), (2, 2)]));
    assert_eq!(world.pulse(&update), 2);
}

#[test]
fn pulses_are_finished_for_updates_that_need_none() {
    let mut world = World::new(1);
    world.obedient = false;
    let update = world.update(1, queue(1));
    assert_eq!(world.pulse(&update), 2);
    assert_eq!(world.pulse(&JobUpdateKey { id: "unknown".to_owned(), ..update }), 2);
}

#[test]
fn pauses_resumes_and_rollbacks_of_a_coordinated_update_mind_the_pulse() {
    let mut world = World::new(2);
    world.obedient = false;
    let update = world.update(2, coordinated(1_000));
    world.command(&update, Update::pause).unwrap();
    // A pulse refreshes a paused update but does not resume it.
    assert_eq!((world.pulse(&update), world.statuses(&update)), (1, vec![9, 2]));
    world.command(&update, Update::resume).unwrap();
    assert_eq!(world.statuses(&update), [9, 2, 0]);
    world.command(&update, Update::pause).unwrap();
    world.wait(1_000);
    world.command(&update, Update::resume).unwrap();
    assert_eq!(world.statuses(&update), [9, 2, 0, 2, 9]);
    world.command(&update, Update::rollback).unwrap();
    assert_eq!(world.statuses(&update), [9, 2, 0, 2, 9, 1, 10]);
    world.obedient = true;
    world.end_all();
    assert_eq!(world.versions(), [(1, 1)]);
    world.pulse(&update);
    assert_eq!((world.statuses(&update)[7..].to_vec(), world.versions()), (vec![1, 5], vec![(0, 1), (1, 1)]));
}

#[test]
fn commands_that_lead_nowhere_are_refused_and_repeated_ones_do_nothing() {
    let mut world = World::new(1);
    world.obedient = false;
    let update = world.update(1, queue(1));
    let refusal = |world: &mut World, command| world.command(&update, command).unwrap_err();
    assert_eq!(world.command(&update, Update::resume), Ok(()));
    world.command(&update, Update::pause).unwrap();
    assert_eq!(world.command(&update, Update::pause), Ok(()));
    assert_eq!(world.statuses(&update), [0, 2]);
    world.command(&update, Update::abort).unwrap();
    assert_eq!(world.command(&update, Update::abort), Ok(()));
    assert_eq!(refusal(&mut world, Update::pause), "Cannot transition update from ABORTED to null");
    assert_eq!(refusal(&mut world, Update::resume), "Cannot transition update from ABORTED to null");
    assert_eq!(refusal(&mut world, Update::rollback), "Cannot transition update from ABORTED to ROLLING_BACK");
    let unknown = JobUpdateKey { id: "unknown".to_owned(), ..update.clone() };
    assert!(world.command(&unknown, Update::abort).unwrap_err().starts_with("Update does not exist"));
}

#[test]
fn a_task_that_waits_for_a_host_is_no_failure_and_holds_the_update_up() {
    let mut world = World::new(1);
    world.hosts.clear();
    let update = world.update(2, queue(1));
    world.wait(3_600_000);
    assert_eq!((world.statuses(&update), world.steps(&update)), (vec![0], vec![(1, UPDATING)]));
}

#[test]
fn ended_updates_are_forgotten_from_the_eleventh_on_and_the_newest_is_first() {
    let mut world = World::new(1);
    let keys: Vec<JobUpdateKey> = (2..14)
        .map(|version| {
            world.now_ms += 1;
            world.update_to(config(version), 1, queue(1))
        })
        .collect();
    let query = aurora::types::JobUpdateQuery { job_key: Some(key()), ..Default::default() };
    let found: Vec<&JobUpdateKey> = world.books.updates.query(&query).into_iter().map(Update::key).collect();
    let expected: Vec<&JobUpdateKey> = keys.iter().rev().take(found.len()).collect();
    assert_eq!(found, expected);
    // The last one was still active when the others were counted.
    assert_eq!(found.len(), 11);
    let limited = aurora::types::JobUpdateQuery { limit: Some(2), offset: Some(1), ..query };
    assert_eq!(world.books.updates.query(&limited).len(), 2);
}
