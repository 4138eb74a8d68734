//! Runs the model check by hand: `cargo run -p model -- sound|soak|rules|ways [WORD]`. `WORD` picks the runs whose name contains it; `ways` tells how
//! a promise is broken without a rule, step by step.

use model::check::explore;
use model::protocol::{Protocol, When};
use std::process::ExitCode;
use std::time::Duration;

const USAGE: &str = "usage: model sound|soak|rules|ways [WORD]";
const LIMIT: Duration = Duration::from_secs(3600);

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let what = args.next().unwrap_or_default();
    let word = args.next().unwrap_or_default();
    let ok = match what.as_str() {
        "sound" => sound::<model::lease::Model>(When::Always, &word) & sound::<model::data::Model>(When::Always, &word),
        "soak" => sound::<model::lease::Model>(When::Soak, &word) & sound::<model::data::Model>(When::Soak, &word),
        "rules" | "ways" => {
            let ways = what == "ways";
            removals::<model::lease::Model>(ways, &word) & removals::<model::data::Model>(ways, &word)
        }
        _ => {
            eprintln!("{USAGE}");
            false
        }
    };
    if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn sound<P: Protocol>(when: When, word: &str) -> bool {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut ok = true;
    for run in P::SOUND.iter().filter(|run| run.when == when && run.name.contains(word)) {
        let outcome = explore(P::sound(run.bounds), threads, LIMIT);
        println!("{}, {}: {outcome}; {}", P::NAME, run.name, run.bounds);
        print!("{}", outcome.way());
        ok &= outcome.holds();
    }
    ok
}

fn removals<P: Protocol>(ways: bool, word: &str) -> bool {
    let mut ok = true;
    for run in P::REMOVALS.iter().filter(|run| format!("{:?}", run.rule).contains(word)) {
        let outcome = explore(P::without(run.rule, run.bounds), 1, LIMIT);
        println!("{}, without {:?}: {outcome}; {}", P::NAME, run.rule, run.bounds);
        if ways {
            print!("{}", outcome.way());
        }
        ok &= outcome.breaks() == Some(run.breaks);
    }
    ok
}
