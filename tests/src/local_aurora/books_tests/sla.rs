//! Kills that an SLA policy has to allow: for updates, and for maintenance.

use aurora::types::CoordinatorSlaPolicy;

use super::*;

fn guarded(version: i32) -> TaskConfig {
    let policy = CoordinatorSlaPolicy { coordinator_url: "http://c".to_owned(), status_key: "drain".to_owned() };
    TaskConfig { sla_policy: Some(SlaPolicy::Coordinator(policy)), ..config(version) }
}

fn aware() -> JobUpdateSettings {
    JobUpdateSettings { sla_aware: Some(true), ..queue(1) }
}

impl World {
    /// Instances that coordinators were asked about, with the countdown of maintenance.
    fn questions(&mut self) -> Vec<(i32, Option<i64>)> {
        let questions = self.asked.drain(..);
        let about = |question: Question| match question.purpose {
            Purpose::Update { .. } => (question.task.assigned_task.instance_id, None),
            Purpose::Drain { countdown_ms } => (question.task.assigned_task.instance_id, Some(countdown_ms)),
        };
        questions.map(about).collect()
    }

    /// The coordinator says yes to the last question.
    fn allow(&mut self) {
        let question = self.asked.pop().expect("a question");
        let effects = self.books.allowed(&question, self.now_ms);
        effects.into_iter().for_each(|effect| self.act(effect));
        self.run();
    }

    fn notes(&self, key: &JobUpdateKey) -> Vec<(i32, String)> {
        let events = self.details(key).instance_events;
        events.into_iter().filter_map(|event| Some((event.instance_id, event.message?))).collect()
    }

    fn mode(&self, host: &str) -> MaintenanceMode {
        self.books.state.maintenance.mode(host)
    }
}

#[test]
fn an_update_asks_before_each_kill_and_again_later_and_later() {
    let mut world = World::with(guarded(1), 2);
    let update = world.update_to(guarded(2), 2, aware());
    assert_eq!(world.questions(), [(0, None)]);
    for wait_ms in [1_000, 2_000, 4_000, 5_000, 5_000] {
        world.wait(wait_ms - 1);
        assert_eq!(world.questions(), []);
        world.wait(1);
        assert_eq!(world.questions(), [(0, None)], "after {wait_ms}");
    }
    world.wait(5_000);
    world.allow();
    assert_eq!((world.questions(), world.versions()), (vec![(1, None)], vec![(0, 2), (1, 1)]));
    let texts = ["Checking SLA before continuing.", "SLA check passed, continuing.", "Checking SLA before continuing."];
    let expected: Vec<(i32, String)> = [0, 0, 1].into_iter().zip(texts.map(str::to_owned)).collect();
    assert_eq!(world.notes(&update), expected);
}

#[test]
fn a_yes_that_comes_too_late_kills_nothing() {
    let mut world = World::with(guarded(1), 1);
    let update = world.update_to(guarded(2), 1, aware());
    world.command(&update, Update::pause).unwrap();
    world.allow();
    assert_eq!(world.versions(), [(0, 1)]);
    world.wait(60_000);
    assert_eq!(world.questions(), [], "a paused update asks nothing");
    world.command(&update, Update::resume).unwrap();
    world.allow();
    assert_eq!((world.versions(), world.statuses(&update)), (vec![(0, 2)], vec![0, 2, 0, 4]));
    let checks = world.notes(&update).iter().filter(|(_, text)| text.starts_with("Checking")).count();
    assert_eq!(checks, 1, "said once");
}

#[test]
fn going_back_asks_the_policy_of_old_and_without_one_nobody() {
    let mut world = World::with(config(1), 1);
    let update = world.update_to(guarded(2), 1, JobUpdateSettings { min_wait_in_instance_running_ms: 1_000, ..aware() });
    world.allow();
    world.command(&update, Update::rollback).unwrap();
    world.wait(1_000);
    assert_eq!((world.questions(), world.versions(), world.statuses(&update)), (vec![], vec![(0, 1)], vec![0, 1, 5]));
}

#[test]
fn a_task_without_a_host_is_replaced_without_a_question_and_plain_updates_ask_nobody() {
    let mut world = World::with(guarded(1), 1);
    world.update_to(guarded(2), 1, queue(1));
    assert_eq!((world.questions(), world.versions()), (vec![], vec![(0, 2)]));
    let hosts = std::mem::take(&mut world.hosts);
    world.books.state.add_instances(&key(), 0, 1, world.now_ms).unwrap();
    world.run();
    world.hosts = hosts;
    let mut settings = aware();
    settings.update_only_these_instances = vec![Range { first: 1, last: 1 }];
    world.update_to(guarded(3), 2, settings);
    assert_eq!((world.questions(), world.versions()), (vec![], vec![(0, 2), (1, 3)]));
}

#[test]
fn a_plain_drain_asks_once_out_of_courtesy_and_then_ends_the_task_anyway() {
    let mut world = World::with(guarded(1), 2);
    let hosts = ["127.0.0.1".to_owned()];
    let (statuses, effects) = world.books.drain(&hosts, None, None, world.now_ms);
    assert_eq!(statuses[0].mode, MaintenanceMode::DRAINING);
    effects.into_iter().for_each(|effect| world.act(effect));
    world.run();
    assert_eq!(world.questions(), [(0, Some(0))]);
    let before = world.task(0).id.clone();
    world.wait(10_000);
    assert_eq!(world.questions(), []);
    let task = world.task(0);
    assert_eq!((task.ancestor.as_deref(), task.place.as_ref().unwrap().address.as_str()), (Some(&*before), "127.0.0.3"));
    assert_eq!(world.mode("127.0.0.1"), MaintenanceMode::DRAINED);
    world.books.set_mode(&hosts, MaintenanceMode::NONE);
    assert_eq!(world.mode("127.0.0.1"), MaintenanceMode::NONE);
}

#[test]
fn a_plain_drain_of_tasks_without_a_policy_and_of_an_empty_host_is_done_at_once() {
    let mut world = World::new(1);
    let hosts = ["127.0.0.1".to_owned(), "127.0.0.7".to_owned()];
    let (statuses, effects) = world.books.drain(&hosts, None, None, world.now_ms);
    let modes: Vec<i32> = statuses.iter().map(|status| status.mode.0).collect();
    assert_eq!(modes, [MaintenanceMode::DRAINING.0, MaintenanceMode::DRAINED.0]);
    effects.into_iter().for_each(|effect| world.act(effect));
    world.run();
    assert_eq!(world.mode("127.0.0.1"), MaintenanceMode::DRAINED);
    assert_eq!(world.versions(), [(0, 1)]);
}

#[test]
fn a_drain_with_policies_begins_at_the_next_look_and_forces_at_the_end_of_its_time() {
    let mut world = World::with(guarded(1), 2);
    let hosts = ["127.0.0.1".to_owned()];
    world.books.drain(&hosts, None, Some(25_000), world.now_ms);
    world.run();
    assert_eq!(world.questions(), []);
    world.wait(10_000);
    assert_eq!(world.questions(), [(0, Some(15_000))]);
    world.wait(10_000);
    assert_eq!(world.questions(), [(0, Some(5_000))]);
    assert_eq!(world.mode("127.0.0.1"), MaintenanceMode::DRAINING);
    world.wait(10_000);
    assert_eq!((world.questions(), world.mode("127.0.0.1")), (vec![], MaintenanceMode::DRAINED));
}

#[test]
fn a_task_that_a_coordinator_lets_go_is_drained_and_replaced_elsewhere() {
    let mut world = World::with(guarded(1), 1);
    world.books.drain(&["127.0.0.1".to_owned()], None, Some(900_000), world.now_ms);
    world.wait(10_000);
    let before = world.task(0).id.clone();
    world.allow();
    let ended = world.books.state.task(&before).unwrap();
    let statuses: Vec<ScheduleStatus> = ended.events.iter().map(|event| event.status).collect();
    assert_eq!(statuses[4..], [ScheduleStatus::DRAINING, ScheduleStatus::KILLED]);
    assert_eq!(ended.events[4].message.as_deref(), Some("Draining machine for maintenance."));
    assert_eq!(world.task(0).place.as_ref().unwrap().address, "127.0.0.2");
    assert_eq!(world.mode("127.0.0.1"), MaintenanceMode::DRAINED);
}
