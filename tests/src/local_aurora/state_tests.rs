use aurora::types::{Constraint, TaskConstraint};

use super::*;

const STARTING: ScheduleStatus = ScheduleStatus::STARTING;
const RUNNING: ScheduleStatus = ScheduleStatus::RUNNING;
const FAILED: ScheduleStatus = ScheduleStatus::FAILED;
const FINISHED: ScheduleStatus = ScheduleStatus::FINISHED;
const KILLED: ScheduleStatus = ScheduleStatus::KILLED;
const PENDING: ScheduleStatus = ScheduleStatus::PENDING;
const THROTTLED: ScheduleStatus = ScheduleStatus::THROTTLED;

/// A job on three hosts, with a clock.
struct World {
    state: State,
    hosts: Vec<Host>,
    now_ms: i64,
}

fn key() -> JobKey {
    JobKey::new("redis", "prod", "cache")
}

fn world(instances: i32, is_service: bool) -> World {
    let mut next = 0;
    let ids = move || {
        next += 1;
        format!("u{next}")
    };
    let hosts = ["a", "b", "c"].map(|name| Host {
        name: name.to_owned(),
        address: [127, 0, 0, 1].into(),
        wrapper: Vec::new(),
        attributes: BTreeMap::new(),
        host_id: None,
    });
    let mut world = World { state: State::new("me".to_owned(), 1000, Box::new(ids)), hosts: hosts.to_vec(), now_ms: 1_000_000 };
    let task_config = TaskConfig {
        is_service,
        max_task_failures: 1,
        constraints: vec![Constraint { name: "host".to_owned(), constraint: TaskConstraint::Limit(1) }],
        ..TaskConfig::default()
    };
    let program = super::super::thermos::parse(r#"{"task":{"processes":[{"name":"a","cmdline":"b"}]}}"#).unwrap();
    let job = JobConfiguration { key: key(), instance_count: instances, task_config, ..JobConfiguration::default() };
    world.state.create(job, program, world.now_ms).unwrap();
    world
}

impl World {
    /// Places all that fits, as the caller of the state does; returns the ids in order.
    fn place(&mut self) -> Vec<String> {
        let effects = self.state.advance(&self.hosts, self.now_ms);
        let place = |effect| match effect {
            Effect::Place { task, .. } => task,
            other => panic!("{other:?}"),
        };
        let ids: Vec<String> = effects.into_iter().map(place).collect();
        for id in &ids {
            let ports = BTreeMap::from([("redis".to_owned(), 20_000)]);
            assert!(self.state.assigned(id, ports, self.now_ms));
        }
        ids
    }

    fn report(&mut self, id: &str, status: ScheduleStatus) -> Vec<Effect> {
        self.state.report(id, status, "why", self.now_ms)
    }

    /// Places and starts everything that waits.
    fn run(&mut self) -> Vec<String> {
        let ids = self.place();
        for id in &ids {
            self.report(id, STARTING);
            self.report(id, RUNNING);
        }
        ids
    }

    fn active(&self) -> Vec<(i32, ScheduleStatus)> {
        self.state.active(&key()).into_iter().map(|(instance, task)| (instance, task.status)).collect()
    }

    fn active_task(&self, instance: i32) -> Task {
        self.state.active(&key())[&instance].clone()
    }

    fn statuses(&self, id: &str) -> Vec<i32> {
        self.state.task(id).unwrap().events.iter().map(|event| event.status.0).collect()
    }
}

#[test]
fn a_task_goes_through_its_statuses_and_each_is_an_event() {
    let mut world = world(1, true);
    let id = world.run().remove(0);
    assert_eq!(id, "redis-prod-cache-0-u1");
    assert_eq!(world.statuses(&id), [0, 9, 1, 2]);
    let task = world.state.task(&id).unwrap();
    assert_eq!(task.place.as_ref().unwrap().host, "a");
    assert_eq!(task.events[3].message.as_deref(), Some("why"));
}

#[test]
fn a_job_that_exists_is_refused_until_its_last_task_has_ended() {
    let mut world = world(1, true);
    let id = world.run().remove(0);
    let job = JobConfiguration { key: key(), instance_count: 1, ..JobConfiguration::default() };
    let program = (*world.active_task(0).program).clone();
    let again = |world: &mut World| world.state.create(job.clone(), program.clone(), world.now_ms);
    assert_eq!(again(&mut world).unwrap_err().0, "Job redis/prod/cache already exists");
    world.state.kill(&key(), None, "", 0);
    assert!(again(&mut world).is_err());
    world.report(&id, KILLED);
    assert!(again(&mut world).is_ok());
}

#[test]
fn what_does_not_fit_waits_and_is_placed_when_a_host_gets_free() {
    let mut world = world(4, true);
    let ids = world.run();
    assert_eq!(ids.len(), 3);
    assert_eq!(world.active()[3], (3, PENDING));
    assert!(world.place().is_empty());
    let reasons: Vec<(i32, String)> =
        world.state.pending(&world.hosts).into_iter().map(|(task, reason)| (task.instance, reason)).collect();
    assert_eq!(reasons, [(3, "Limit not satisfied: host".to_owned())]);
    world.state.kill(&key(), Some(&[1]), "", world.now_ms);
    assert!(world.place().is_empty());
    world.report(&ids[1], KILLED);
    assert_eq!(world.place().len(), 1);
    assert_eq!(world.active_task(3).place.unwrap().host, "b");
}

#[test]
fn a_service_is_rescheduled_after_any_end_with_a_new_id_on_the_same_host() {
    for end in [FINISHED, FAILED, ScheduleStatus::LOST, KILLED] {
        let mut world = world(2, true);
        let ids = world.run();
        world.report(&ids[1], end);
        let task = world.active_task(1);
        assert_eq!((task.status, task.ancestor.as_deref()), (PENDING, Some(ids[1].as_str())));
        assert_eq!(task.events[0].message.as_deref(), Some("Rescheduled"));
        assert_eq!(task.failures, i32::from(end == FAILED));
        assert_eq!(world.place().len(), 1);
        assert_eq!(world.active_task(1).place.unwrap().host, "b");
    }
}

#[test]
fn other_jobs_end() {
    let mut world = world(2, false);
    let ids = world.run();
    world.report(&ids[0], FINISHED);
    world.report(&ids[1], FAILED);
    assert_eq!(world.active(), []);
    assert_eq!(world.state.task(&ids[1]).unwrap().status, FAILED);
}

#[test]
fn the_second_quick_end_in_a_row_is_penalised() {
    let mut world = world(1, true);
    let first = world.run().remove(0);
    world.report(&first, FAILED);
    let second = world.run().remove(0);
    world.report(&second, FAILED);
    let third = world.active_task(0);
    assert_eq!(third.status, THROTTLED);
    assert_eq!(third.events[0].message.as_deref(), Some("Rescheduled, penalized for 1000 ms for flapping"));
    assert!(world.place().is_empty());
    assert_eq!(world.state.next_due_ms(world.now_ms), Some(world.now_ms + 1000));
    world.now_ms += 1000;
    assert_eq!(world.run(), std::slice::from_ref(&third.id));
    assert_eq!(world.statuses(&third.id), [16, 0, 9, 1, 2]);
}

#[test]
fn a_long_life_and_a_restart_by_request_are_not_flapping() {
    let mut world = world(1, true);
    let first = world.run().remove(0);
    world.now_ms += FLAPPING_THRESHOLD_MS;
    world.report(&first, FAILED);
    let second = world.run().remove(0);
    world.report(&second, FAILED);
    assert_eq!(world.active_task(0).status, PENDING, "the ancestor lived long enough");

    let third = world.run().remove(0);
    world.state.restart(&key(), &[0], "r", world.now_ms).unwrap();
    world.report(&third, KILLED);
    world.now_ms += FLAPPING_THRESHOLD_MS;
    let fourth = world.run().remove(0);
    world.report(&fourth, FAILED);
    assert_eq!(world.active_task(0).status, PENDING, "the ancestor was restarted by request");
}

#[test]
fn killing_is_for_good_and_says_by_whom() {
    let mut world = world(3, true);
    let ids = world.run();
    let (any, effects) = world.state.kill(&key(), Some(&[1, 7]), "Killed by me", world.now_ms);
    assert!(any);
    assert_eq!(effects, [Effect::Kill(ids[1].clone())]);
    assert_eq!(world.active_task(1).status, ScheduleStatus::KILLING);
    assert_eq!(world.active_task(1).events.last().unwrap().message.as_deref(), Some("Killed by me"));
    assert!(world.report(&ids[1], RUNNING).is_empty());
    world.report(&ids[1], KILLED);
    assert_eq!(world.active(), [(0, RUNNING), (2, RUNNING)]);
    let (any, effects) = world.state.kill(&key(), Some(&[1]), "", world.now_ms);
    assert!(!any && effects.is_empty());
}

#[test]
fn killing_without_instances_kills_all_and_waiting_ones_leave_no_record() {
    let mut world = world(4, true);
    world.run();
    let (any, effects) = world.state.kill(&key(), None, "", world.now_ms);
    assert!(any);
    assert_eq!(effects.iter().filter(|e| matches!(e, Effect::Kill(_))).count(), 3);
    assert_eq!(effects.iter().filter(|e| matches!(e, Effect::Forget(_))).count(), 1);
    assert_eq!(world.state.tasks().len(), 3);
}

#[test]
fn a_task_killed_while_its_ports_are_chosen_is_gone() {
    let mut world = world(1, true);
    let effects = world.state.advance(&world.hosts, world.now_ms);
    let Effect::Place { task, .. } = &effects[0] else { panic!("{effects:?}") };
    world.state.kill(&key(), None, "", world.now_ms);
    assert!(!world.state.assigned(task, BTreeMap::new(), world.now_ms));
    world.state.not_placed(task, world.now_ms);
    assert!(world.state.tasks().is_empty());
}

#[test]
fn a_failed_placement_is_tried_again_after_a_pause() {
    let mut world = world(1, true);
    let effects = world.state.advance(&world.hosts, world.now_ms);
    let Effect::Place { task, .. } = &effects[0] else { panic!("{effects:?}") };
    world.state.not_placed(task, world.now_ms);
    assert!(world.place().is_empty());
    world.now_ms = world.state.next_due_ms(world.now_ms).unwrap();
    assert_eq!(world.place(), std::slice::from_ref(task));
}

#[test]
fn restarting_makes_a_new_task_only_when_the_old_one_has_ended() {
    let mut world = world(2, true);
    let ids = world.run();
    let effects = world.state.restart(&key(), &[0], "Restarted", world.now_ms).unwrap();
    assert_eq!(effects, [Effect::Kill(ids[0].clone())]);
    assert_eq!(world.active_task(0).status, ScheduleStatus::RESTARTING);
    assert!(world.place().is_empty());
    assert_eq!(world.state.restart(&key(), &[0], "again", world.now_ms).unwrap(), [], "already under way");
    world.report(&ids[0], KILLED);
    assert_eq!(world.active_task(0).ancestor.as_deref(), Some(ids[0].as_str()));
}

#[test]
fn restarting_needs_every_instance_to_be_active() {
    let mut world = world(2, true);
    world.run();
    let refusal = world.state.restart(&key(), &[0, 5], "", world.now_ms).unwrap_err();
    assert_eq!(refusal.0, "Not all requested shards are active.");
    assert_eq!(world.active(), [(0, RUNNING), (1, RUNNING)]);
}

#[test]
fn instances_are_added_above_the_highest_and_gaps_stay() {
    let mut world = world(3, true);
    let ids = world.run();
    world.state.kill(&key(), Some(&[1]), "", world.now_ms);
    world.report(&ids[1], KILLED);
    world.state.add_instances(&key(), 0, 2, world.now_ms).unwrap();
    assert_eq!(world.active().iter().map(|(id, _)| *id).collect::<Vec<_>>(), [0, 2, 3, 4]);
    let refused =
        |world: &mut World, instance, count| world.state.add_instances(&key(), instance, count, world.now_ms).unwrap_err().0;
    assert_eq!(refused(&mut world, 1, 1), "No active task found for a given instance ID.");
    assert_eq!(refused(&mut world, 0, 0), "Instance count must be positive.");
    assert!(refused(&mut world, 0, i32::MAX).contains("between 1 and 4000"));
}

#[test]
fn history_is_bounded_and_forgotten_tasks_are_named() {
    let mut world = world(1, true);
    let mut forgotten = Vec::new();
    for _ in 0..HISTORY + 3 {
        world.now_ms += FLAPPING_THRESHOLD_MS;
        let id = world.run().remove(0);
        world.now_ms += FLAPPING_THRESHOLD_MS;
        forgotten.extend(world.report(&id, FINISHED));
    }
    assert_eq!(forgotten.len(), 3);
    assert_eq!(forgotten[0], Effect::Forget("redis-prod-cache-0-u1".to_owned()));
    assert_eq!(world.state.tasks().len(), HISTORY + 1);
}

#[test]
fn reports_about_unknown_tasks_are_ignored() {
    let mut world = world(1, true);
    assert!(world.report("nobody", FAILED).is_empty());
    assert_eq!(world.active(), [(0, PENDING)]);
}
