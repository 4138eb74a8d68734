//! Visits every state of a model within its bounds and says what came out.

use crate::protocol::Protocol;
use stateright::{Checker, Expectation, HasDiscoveries, Path};
use std::fmt::{self, Display};
use std::time::{Duration, Instant};

/// What a run found.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Different states visited.
    pub states: usize,
    /// Steps taken from them.
    pub steps: usize,
    /// States on the longest way taken, the first included.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
    /// The run was not ended by its limit of time: without a broken promise, every state within the bounds was visited.
    pub complete: bool,
    /// A broken promise.
    pub broken: Option<Broken>,
    /// What was to be reached and was not.
    pub missed: Vec<&'static str>,
}

/// A promise that does not hold.
#[derive(Clone, Debug)]
pub struct Broken {
    /// Its name.
    pub promise: &'static str,
    /// A way to break it, step by step.
    pub steps: Vec<String>,
}

impl Outcome {
    /// Whether every state was visited, every promise held and everything to be reached was.
    pub fn holds(&self) -> bool {
        self.complete && self.broken.is_none() && self.missed.is_empty()
    }

    /// The name of the promise that does not hold.
    pub fn breaks(&self) -> Option<&'static str> {
        self.broken.as_ref().map(|broken| broken.promise)
    }

    /// The way to the broken promise, a step on each line.
    pub fn way(&self) -> String {
        self.broken.iter().flat_map(|broken| &broken.steps).map(|step| format!("    {step}\n")).collect()
    }
}

impl Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let states = grouped(self.states);
        match &self.broken {
            Some(broken) => write!(f, "broken ({}) after {} steps, {states} states", broken.promise, broken.steps.len())?,
            None if self.complete => write!(f, "holds: {states} states explored completely, depth {}", self.depth)?,
            None => write!(f, "holds in {states} states, not complete within the time")?,
        }
        if self.broken.is_none() && !self.missed.is_empty() {
            write!(f, "; never reached: {}", self.missed.join(", "))?;
        }
        write!(f, " ({:.1} s)", self.took.as_secs_f32())
    }
}

/// A number with its thousands apart.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev().map(|group| String::from_utf8_lossy(group).into_owned());
    groups.collect::<Vec<_>>().join(",")
}

/// Explores a model breadth first, with so many threads and for so long at most. With one thread the way to a broken promise is a shortest one.
pub fn explore<P: Protocol>(model: P, threads: usize, limit: Duration) -> Outcome {
    let begin = Instant::now();
    let expected = model.properties();
    let checker = model.checker().threads(threads).timeout(limit).finish_when(HasDiscoveries::AnyFailures);
    let checker = checker.spawn_bfs().join();
    let took = begin.elapsed();
    let mut found = checker.discoveries();
    let mut outcome = Outcome {
        states: checker.unique_state_count(),
        steps: checker.state_count(),
        depth: checker.max_depth(),
        took,
        complete: took < limit,
        broken: None,
        missed: Vec::new(),
    };
    for property in expected {
        match (property.expectation, found.remove(property.name)) {
            (Expectation::Sometimes, None) => outcome.missed.push(property.name),
            (Expectation::Always, Some(way)) if outcome.broken.is_none() => {
                outcome.broken = Some(Broken { promise: property.name, steps: told::<P>(way) });
            }
            _ => {}
        }
    }
    outcome
}

/// A way in words: each step, and what clients would see when that changes.
fn told<P: Protocol>(way: Path<P::State, P::Action>) -> Vec<String> {
    let states = way.into_vec();
    let mut seen = states.first().map(|(state, _)| P::view(state)).unwrap_or_default();
    let after = states.iter().skip(1).map(|(state, _)| P::view(state));
    let steps = states.iter().filter_map(|(_, action)| action.as_ref()).zip(after);
    steps
        .map(|(action, view)| {
            let changed = seen != view;
            seen.clone_from(&view);
            if changed { format!("{action}  [{view}]") } else { action.to_string() }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn thousands_stand_apart() {
        assert_eq!(["7", "1,000", "12,345,678"].map(str::to_owned), [7, 1000, 12_345_678].map(grouped));
    }
}
