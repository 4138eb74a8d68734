//! A coordinated update recorded from the real scheduler, replayed: pauses, resumes, pulses that come and stay away.

use aurora::types::{JobUpdateDetails, Payload};
use aurora::wire::{Reply, decode_reply};

use super::*;

fn recorded() -> JobUpdateDetails {
    let path = format!("{}/../aurora/tests/recorded/139-details-pulse.resp.bin", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    match decode_reply("getJobUpdateDetails", 0, &bytes).expect("a reply") {
        Reply::Response(response) => match response.result {
            Some(Payload::UpdateDetails(mut details)) => details.remove(0),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_recorded_update_has_the_same_history_here() {
    let real = recorded();
    let instructions = &real.update.instructions;
    let begin_ms = real.update_events[0].timestamp_ms;
    let mut world = World::with(instructions.initial_state[0].task.clone(), 3);
    world.obedient = false;
    world.now_ms = begin_ms;
    let desired = instructions.desired_state.as_ref().expect("something to change").task.clone();
    let (start, _) = world.books.start(
        accepted(desired, 3, instructions.settings.clone()),
        By { user: Some("UNSECURE".to_owned()), message: Some("v3".to_owned()) },
        begin_ms,
    );
    let Start::Update(summary) = start else { panic!("{start:?}") };
    let key = summary.key;
    let command = |world: &mut World, ms: i64, message: &str, command: Command| {
        world.now_ms = begin_ms + ms;
        let message = Some(message.to_owned()).filter(|message| !message.is_empty());
        let by = By { user: Some("UNSECURE".to_owned()), message };
        world.command_by(&key, by, command).expect("allowed");
    };
    let pulse = |world: &mut World, ms: i64| {
        world.now_ms = begin_ms + ms;
        assert_eq!(world.pulse(&key), JobUpdatePulseStatus::OK.0);
    };
    let end_all = |world: &mut World, ms: i64| {
        world.now_ms = begin_ms + ms;
        world.end_all();
    };
    command(&mut world, 1525, "hold", Update::pause);
    pulse(&mut world, 1530);
    command(&mut world, 1541, "go", Update::resume);
    command(&mut world, 1552, "hold2", Update::pause);
    // The old task of instance 0 ends, which a paused update does not mind.
    end_all(&mut world, 3000);
    command(&mut world, 4760, "", Update::resume);
    pulse(&mut world, 4767);
    // Instance 0 is done; then instance 1; the old task of instance 2 ends too late for the pulse.
    end_all(&mut world, 6500);
    end_all(&mut world, 8422);
    world.obedient = true;
    pulse(&mut world, 16793);
    let ours = world.details(&key);
    let history = |details: &JobUpdateDetails| {
        let updates = details.update_events.iter().map(|event| (event.status, event.user.clone(), event.message.clone()));
        let instances = details.instance_events.iter().map(|event| (event.instance_id, event.action, event.message.clone()));
        (updates.collect::<Vec<_>>(), instances.collect::<Vec<_>>())
    };
    assert_eq!(history(&ours), history(&real));
    assert_eq!(ours.update.instructions.settings, real.update.instructions.settings);
}
