//! The simulation: the real decision, check, pace and memory of controllers, and the real gate and term of office of agents, against a
//! made-up world in virtual time: whatever can go wrong with machines, networks, ZooKeeper and clocks goes wrong, chosen by a seed. A failing seed is printed
//! and replays exactly: `AURORA_REDIS_SIM_FIRST` and `AURORA_REDIS_SIM_SEEDS` choose seeds, `AURORA_REDIS_SIM_TRACE` tells what happens.
//!
//! Asserted at every step: at most one server takes writes; no plan is vetoed; a copy that is replaced lies aside as far as it was ahead;
//! whoever begins to write holds every write that `WAIT` confirmed (while things are lost one at a time), and after a planned change every
//! write. In the end, once faults have stopped: one master serves, everybody follows it; then a planned change loses nothing, and
//! ZooKeeper's absence changes no master and refuses no write.

#![allow(clippy::unwrap_used)] // test code: a panic is the report

use std::sync::atomic::{AtomicU64, Ordering};

use controller::view::Ask;
use dice::Dice;
use mutation::Mutation;
use world::{Setup, What, World};

mod agents;
mod ambush;
mod controllers;
mod data;
mod dice;
mod faults;
mod mutation;
mod network;
mod office;
mod orders;
mod properties;
mod server;
mod world;
mod zookeeper;

const SECOND: u64 = 1_000_000;

/// Restores into a cluster that served, of all worlds of this process: the simulation must come to where they are past their point of no return.
static RESTORES: AtomicU64 = AtomicU64::new(0);

fn setup(seed: u64, mutation: Option<Mutation>) -> Setup {
    let mut dice = Dice(seed ^ 0x5EED);
    let acks = dice.roll(3) as u32;
    let instances = dice.between(u64::from(acks) + 1, 5).max(2) as u32;
    let (lease_ms, more_ms, single) = (dice.between(1000, 2500), dice.roll(5000), dice.one_in(2));
    let ambush = mutation == Some(Mutation::LeaseUnpinned) || dice.one_in(10);
    // A renewal that meets the commit must still be in time.
    let lease_ms = if ambush { 2600 } else { lease_ms };
    Setup { acks, instances, most: 4, lease_ms, failsafe_ms: lease_ms * 2 + more_ms, single, ambush, mutation }
}

/// A cluster's whole life under one seed. The first thing that broke, if anything did.
fn run(seed: u64, mutation: Option<Mutation>) -> Option<String> {
    let mut world = World::new(seed, setup(seed, mutation));
    settle(&mut world, 40, "at the beginning");
    world.faults_on = true;
    world.at(world.now, What::Fault);
    world.run_until(world.now + 25 * SECOND);
    world.heal_all();
    settle(&mut world, 150, "after the faults");
    if world.is_born_again() {
        return world.checks.broken;
    }
    world.run_until(world.now + 5 * SECOND);
    settle(&mut world, 60, "after Aurora ended what it had given up");
    if !world.consented && world.setup.single {
        end_with_everything(&mut world);
    }
    restore(&mut world);
    RESTORES.fetch_add(world.checks.restores, Ordering::Relaxed);
    hand_over(&mut world);
    lose_zookeeper(&mut world);
    world.checks.broken
}

/// Runs until one master serves and everybody follows.
fn settle(world: &mut World, seconds: u64, when: &str) {
    let end = world.now + seconds * SECOND;
    let mut asked = world.now + 20 * SECOND;
    while world.checks.broken.is_none() && !world.settled() {
        if world.now >= end && world.is_born_again() {
            return;
        }
        if world.now >= end {
            let waits: Vec<_> = world.controllers.iter().map(|c| (c.leads, c.summary.clone(), c.waits.clone())).collect();
            world.checks.fail_unless(false, || format!("not settled {when}: {waits:?}"));
            world.trace_everything();
            return;
        }
        world.run_until(world.now + SECOND / 5);
        if world.now > asked {
            asked = world.now + 8 * SECOND;
            world.operator();
        }
    }
}

fn end_with_everything(world: &mut World) {
    let held = world.agents.iter().filter_map(|x| x.server.as_ref()).find(|s| s.takes_writes(world.now)).map(|s| s.head);
    let missing = world.checks.confirmed.iter().any(|c| held.is_some_and(|held| !world.tree.holds(held, *c)));
    world.checks.fail_unless(!missing, || "a confirmed write is gone in the end".into());
}

/// A snapshot is restored into the cluster that serves, while things go wrong: either everything is replaced by it, or nothing is.
fn restore(world: &mut World) {
    let mut dice = Dice(world.setup.lease_ms ^ world.now);
    let stored: Vec<_> = world.store.iter().map(|s| s.row.id.clone()).collect();
    let which: Vec<usize> = (0..stored.len()).collect();
    let picked = dice.pick(&which).filter(|_| world.checks.broken.is_none());
    let Some(snapshot) = picked.filter(|_| dice.one_in(2)).map(|at| &stored[at]) else { return };
    for _ in 0..3 {
        let Some((record, _)) = world.zk.nodes.record.clone() else { return };
        if let Some(c) = world.zk.nodes.leader {
            world.controllers[c].asked = Some(Ask::Restore {
                owner: "proof".into(),
                snapshot: Some(snapshot.clone()),
                consent_epoch: Some(record.epoch),
                empty: false,
                dry_run: false,
            });
        }
        if dice.one_in(2) {
            lose_whoever_was_restored(world);
        }
        world.faults_on = dice.one_in(2);
        world.at(world.now + dice.between(100_000, 2_000_000), What::Fault);
        world.run_until(world.now + dice.between(1, 8) * SECOND);
        world.heal_all();
        settle(world, 150, "after a restore");
        world.run_until(world.now + 5 * SECOND);
        settle(world, 60, "after Aurora ended what it had given up, and a restore");
        if world.checks.broken.is_some() || world.checks.restores > 0 {
            return;
        }
    }
}

/// As soon as there is no way back, and nobody else has the restored data yet, the one that has it is lost.
fn lose_whoever_was_restored(world: &mut World) {
    let end = world.now + 20 * SECOND;
    while world.checks.restores == 0 && world.now < end && world.checks.broken.is_none() {
        world.run_until(world.now + SECOND / 200);
    }
    let master = world.zk.nodes.record.as_ref().and_then(|(r, _)| r.master.clone());
    let named = master.filter(|_| world.checks.restores > 0);
    if let Some(a) = named.and_then(|m| world.agents.iter().position(|x| x.task_id == m.task_id)) {
        world.lose_task(a, true);
    }
}

/// Without faults a planned change is carried out, and loses nothing.
fn hand_over(world: &mut World) {
    world.run_until(world.now + 3 * SECOND);
    settle(world, 20, "before the planned change");
    if world.checks.broken.is_some() || world.tasks.len() < 2 || world.checks.failed_winners {
        return;
    }
    let old = world.zk.nodes.record.as_ref().and_then(|(r, _)| r.master.clone());
    world.checks.measure_from(world.now);
    for _ in 0..20 {
        if let Some(c) = world.zk.nodes.leader {
            world.controllers[c].asked = Some(Ask::Switchover { owner: "proof".into(), to: None, dry_run: false });
        }
        world.run_until(world.now + 2 * SECOND);
        settle(world, 20, "after the planned change");
        let master = world.zk.nodes.record.as_ref().and_then(|(r, _)| r.master.clone());
        if world.checks.broken.is_some() || master.map(|m| m.run_id) != old.as_ref().map(|m| m.run_id.clone()) {
            break;
        }
    }
    let new = world.zk.nodes.record.as_ref().and_then(|(r, _)| r.master.clone());
    let outcome = world.zk.nodes.operation.as_ref().and_then(|o| o.outcome.clone());
    world.checks.fail_unless(old.map(|m| m.run_id) != new.map(|m| m.run_id), || {
        format!("the planned change was not carried out: {outcome:?}, {:?}", world.answers.last())
    });
    if world.checks.broken.is_some() {
        world.trace_everything();
    }
    let pause = world.checks.longest_pause;
    world.checks.fail_unless(pause < 2 * SECOND, || format!("a planned change held writes for {pause} µs"));
}

/// ZooKeeper is away for less than the longest failsafe: nobody changes, no write is refused.
fn lose_zookeeper(world: &mut World) {
    world.run_until(world.now + 2 * SECOND);
    settle(world, 20, "before ZooKeeper goes away");
    if world.checks.broken.is_some() {
        return;
    }
    let (epoch, away) = (world.checks.epochs, world.setup.failsafe_ms * 1000);
    world.checks.measure_from(world.now);
    world.zk.up = false;
    world.notice_all();
    let margin = world.setup.lease_ms * 1000;
    world.run_until(world.now + away - margin);
    world.quorum_back();
    world.run_until(world.now + 2 * SECOND);
    let (after, pause) = (world.checks.epochs, world.checks.longest_pause);
    world.checks.fail_unless(after == epoch, || "ZooKeeper was away and the master changed".into());
    world.checks.fail_unless(pause < SECOND / 5, || format!("ZooKeeper was away and writes were held for {pause} µs"));
}

fn number_from(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(otherwise)
}

#[test]
fn a_cluster_survives_random_faults() {
    let first = number_from("AURORA_REDIS_SIM_FIRST", 0);
    let seeds = number_from("AURORA_REDIS_SIM_SEEDS", 10_000);
    let began = std::time::Instant::now();
    let failed = in_threads(first..first + seeds, None, "");
    let restores = RESTORES.load(Ordering::Relaxed);
    eprintln!("{seeds} seeds in {:?}, {} failed, {restores} restores", began.elapsed(), failed.len());
    for (seed, what) in failed.iter().take(number_from("AURORA_REDIS_SIM_SHOW", 5) as usize) {
        eprintln!("seed {seed}: {what}");
    }
    assert!(seeds < 1000 || restores > seeds / 20, "hardly any restore came to its end: {restores}");
    assert!(failed.is_empty(), "replay one with AURORA_REDIS_SIM_FIRST={} AURORA_REDIS_SIM_SEEDS=1", failed[0].0);
}

/// Without any one of the rules the simulation fails within so many seeds.
#[test]
fn each_rule_that_is_left_out_is_missed() {
    const WRITERS: &str = "two writers";
    const CONFIRMED: &str = "confirm";
    const ASIDE: &str = "lies nowhere aside";
    let table = [
        (Mutation::LeaseOff, 100, WRITERS),
        (Mutation::PauseAtTheEnd, 1000, WRITERS),
        (Mutation::FenceOff, 100, WRITERS),
        (Mutation::NoWitness, 400, WRITERS),
        (Mutation::PromisesIgnored, 400, WRITERS),
        (Mutation::RestartForgetsPromises, 500, WRITERS),
        (Mutation::RenewalUnchecked, 400, WRITERS),
        (Mutation::LeaseUnpinned, 200, WRITERS),
        (Mutation::NoEvidence, 100, WRITERS),
        (Mutation::NoCut, 2000, CONFIRMED),
        (Mutation::NoQuorum, 1000, CONFIRMED),
        (Mutation::NoAdmission, 1000, CONFIRMED),
        (Mutation::GateOff, 500, ASIDE),
        (Mutation::NothingSetAside, 100, ASIDE),
    ];
    let mut missed = Vec::new();
    for (mutation, seeds, how) in table {
        match in_threads(0..seeds, Some(mutation), how).first() {
            Some((seed, what)) => eprintln!("{mutation:?}: seed {seed} of {seeds}: {what}"),
            None => missed.push(mutation),
        }
    }
    assert_eq!(missed, Vec::new(), "the simulation does not miss these rules");
}

/// Runs seeds on all processors; those that failed. With a mutation only failures of this kind count, and one is enough.
fn in_threads(seeds: std::ops::Range<u64>, mutation: Option<Mutation>, how: &str) -> Vec<(u64, String)> {
    use std::sync::Mutex;
    let next = AtomicU64::new(seeds.start);
    let failed = Mutex::new(Vec::new());
    let work = || loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= seeds.end || (mutation.is_some() && !failed.lock().unwrap().is_empty()) {
            return;
        }
        if let Some(what) = run(seed, mutation).filter(|what| what.contains(how)) {
            failed.lock().unwrap().push((seed, what));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let mut failed = failed.into_inner().unwrap();
    failed.sort();
    failed
}
