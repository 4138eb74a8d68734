//! What the module in the server is told of the lease. Pure.
//!
//! The module takes writes only until the time it was told last. It is told each new end of the lease as soon as there is one, and to close
//! at once when the record names another master: so what was told never goes beyond a lease that was held.

use std::time::Duration;

use super::term::Term;

/// Pause before a word that was not taken is said again.
const AGAIN: Duration = Duration::from_millis(50);

/// One word to the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// Writes until then, time since boot.
    Extend(Duration),
    /// No more writes in this term.
    Fence,
}

impl Word {
    /// As the module takes it, for a term of this number.
    pub fn command(self, term: u64) -> String {
        match self {
            Word::Extend(until) => format!("AURORA.LEASE EXTEND {term} {}", until.as_nanos()),
            Word::Fence => format!("AURORA.LEASE FENCE {term}"),
        }
    }
}

/// What was said in one term.
#[derive(Debug)]
pub(super) struct Guard {
    /// Whether the server runs with the module.
    present: bool,
    told: Duration,
    fenced: bool,
    saying: Option<Word>,
    not_before: Duration,
}

impl Guard {
    /// Nothing was said yet.
    pub fn new(present: bool) -> Guard {
        Guard { present, told: Duration::ZERO, fenced: false, saying: None, not_before: Duration::ZERO }
    }

    /// The next word that is due.
    pub fn next(&mut self, now: Duration, term: &Term) -> Option<Word> {
        let word = match term.is_deposed() {
            true => Word::Fence,
            false => Word::Extend(term.end()),
        };
        let due = match word {
            Word::Fence => !self.fenced && self.saying != Some(word),
            Word::Extend(until) => term.has_begun() && until > self.told && self.saying.is_none(),
        };
        if !self.present || !due || now < self.not_before {
            return None;
        }
        self.saying = Some(word);
        Some(word)
    }

    /// Whether the module took a word.
    pub fn answered(&mut self, now: Duration, word: Word, taken: bool) {
        if self.saying == Some(word) {
            self.saying = None;
        }
        match word {
            _ if !taken => self.not_before = now + AGAIN,
            Word::Extend(until) => self.told = until,
            Word::Fence => self.fenced = true,
        }
    }

    /// Whether the server takes writes now, as far as the module is concerned.
    pub fn lets_through(&self, now: Duration) -> bool {
        !self.present || self.told > now
    }

    /// Whether there is a module.
    pub fn is_present(&self) -> bool {
        self.present
    }
}

#[cfg(test)]
mod tests {
    use super::super::ground::Ground;
    use super::super::term::{Event, Outcome};
    use super::*;

    fn begun(now: Duration) -> Term {
        let ground = Ground {
            generation: "g".into(),
            epoch: 2,
            record_version: 1,
            lease: Duration::from_secs(2),
            failsafe_max: Duration::from_secs(600),
            members: Vec::new(),
        };
        Term::begin(now, ground, Vec::new(), false)
    }

    #[test]
    fn the_module_is_told_each_end_of_a_committed_lease_once() {
        let now = Duration::from_secs(100);
        let (mut term, mut guard) = (begun(now), Guard::new(true));
        term.on(now, Event::Tick);
        assert_eq!(guard.next(now, &term), None, "nothing is committed");
        assert!(!guard.lets_through(now));
        term.on(now, Event::Renewed(1, Outcome::Committed));
        let word = Word::Extend(now + Duration::from_secs(2));
        assert_eq!(word.command(7), "AURORA.LEASE EXTEND 7 102000000000");
        assert_eq!((guard.next(now, &term), guard.next(now, &term)), (Some(word), None));
        guard.answered(now, word, false);
        assert_eq!(guard.next(now, &term), None, "not at once");
        assert_eq!(guard.next(now + AGAIN, &term), Some(word));
        guard.answered(now, word, true);
        assert!(guard.lets_through(now) && !guard.lets_through(now + Duration::from_secs(2)));
        assert_eq!(guard.next(now + AGAIN, &term), None);
    }

    #[test]
    fn a_deposed_master_is_closed_even_while_another_word_is_on_its_way() {
        let now = Duration::from_secs(100);
        let (mut term, mut guard) = (begun(now), Guard::new(true));
        term.on(now, Event::Tick);
        term.on(now, Event::Renewed(1, Outcome::Committed));
        let extend = guard.next(now, &term).unwrap();
        term.on(now, Event::Deposed);
        assert_eq!((guard.next(now, &term), guard.next(now, &term)), (Some(Word::Fence), None));
        guard.answered(now, extend, true);
        assert_eq!(guard.next(now, &term), None);
        guard.answered(now, Word::Fence, true);
        assert_eq!(guard.next(now + AGAIN, &term), None);
    }

    #[test]
    fn without_a_module_nothing_is_said_and_nothing_waits() {
        let now = Duration::from_secs(100);
        let (mut term, mut guard) = (begun(now), Guard::new(false));
        term.on(now, Event::Tick);
        term.on(now, Event::Renewed(1, Outcome::Committed));
        assert_eq!(guard.next(now, &term), None);
        assert!(guard.lets_through(now));
    }
}
