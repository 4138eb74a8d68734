//! Without any one of its rules the protocol breaks a promise, so neither the rules nor the runs are idle.

use model::check::explore;
use model::protocol::{Protocol, When};
use std::time::Duration;

/// A run takes seconds; a machine that is busy may take longer.
const LIMIT: Duration = Duration::from_secs(600);

fn each_is_needed<P: Protocol>(rules: &[P::Rule]) {
    // Within these bounds the whole protocol is known to hold, by the tests beside.
    let mut held: Vec<P::Bounds> = P::SOUND.iter().filter(|run| run.when == When::Always).map(|run| run.bounds).collect();
    for rule in rules {
        let runs: Vec<_> = P::REMOVALS.iter().filter(|run| run.rule == *rule).collect();
        assert!(!runs.is_empty(), "{}: no run without {rule:?}", P::NAME);
        for run in runs {
            let outcome = explore(P::without(*rule, run.bounds), 1, LIMIT);
            println!("{}, without {rule:?}: {outcome}\n{}", P::NAME, outcome.way());
            assert_eq!(outcome.breaks(), Some(run.breaks), "{}, without {rule:?}", P::NAME);
            if held.contains(&run.bounds) {
                continue;
            }
            held.push(run.bounds);
            let whole = explore(P::sound(run.bounds), 2, LIMIT);
            assert!(whole.complete && whole.breaks().is_none(), "{}, with {rule:?}: {whole}\n{}", P::NAME, whole.way());
        }
    }
}

#[test]
fn lease() {
    each_is_needed::<model::lease::Model>(model::lease::Rule::ALL);
}

#[test]
fn data() {
    each_is_needed::<model::data::Model>(model::data::Rule::ALL);
}
