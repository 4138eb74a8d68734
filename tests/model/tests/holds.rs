//! The whole protocol keeps its promises in every state within the bounds, and the states that give the runs their meaning are reached.

use model::check::explore;
use model::protocol::{Protocol, When};
use std::time::Duration;

/// A run takes seconds, or minutes with `make soak`; a machine that is busy may take longer.
const LIMIT: Duration = Duration::from_secs(3600);

fn holds<P: Protocol>(when: When) {
    let mut states = 0;
    for run in P::SOUND.iter().filter(|run| run.when == when) {
        let outcome = explore(P::sound(run.bounds), 2, LIMIT);
        println!("{}, {}: {outcome}", P::NAME, run.name);
        assert!(outcome.holds(), "{}, {}: {outcome}\n{}", P::NAME, run.name, outcome.way());
        states += outcome.states;
    }
    println!("{}: {states} states in all", P::NAME);
}

#[test]
fn lease() {
    holds::<model::lease::Model>(When::Always);
}

#[test]
fn data() {
    holds::<model::data::Model>(When::Always);
}

#[test]
#[ignore = "takes long: make soak"]
fn lease_further() {
    holds::<model::lease::Model>(When::Soak);
}

#[test]
#[ignore = "takes long: make soak"]
fn data_further() {
    holds::<model::data::Model>(When::Soak);
}
