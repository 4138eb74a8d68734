//! A small set of instances or members, as bits.

use std::fmt;

/// A set of at most eight small numbers.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Set(pub u8);

impl Set {
    /// The empty set.
    pub const NONE: Set = Set(0);

    /// The set of 0 to `n` - 1.
    pub const fn first(n: u8) -> Set {
        Set(((1u16 << n) - 1) as u8)
    }

    /// The set of one element.
    pub const fn of(element: u8) -> Set {
        Set(1 << element)
    }

    /// Whether `element` belongs to it.
    pub const fn has(self, element: u8) -> bool {
        self.0 & (1 << element) != 0
    }

    /// This set and `element`.
    pub const fn with(self, element: u8) -> Set {
        Set(self.0 | (1 << element))
    }

    /// This set but for `element`.
    pub const fn without(self, element: u8) -> Set {
        Set(self.0 & !(1 << element))
    }

    /// What belongs to either.
    pub const fn union(self, other: Set) -> Set {
        Set(self.0 | other.0)
    }

    /// Whether every element of `other` belongs to it.
    pub const fn covers(self, other: Set) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether nothing belongs to it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many elements it has.
    pub const fn len(self) -> u8 {
        self.0.count_ones() as u8
    }

    /// Its elements, ascending.
    pub fn iter(self) -> impl Iterator<Item = u8> {
        (0..8).filter(move |e| self.has(*e))
    }

    /// Every subset, itself included.
    pub fn subsets(self) -> impl Iterator<Item = Set> {
        (0..=self.0).filter(move |bits| bits & !self.0 == 0).map(Set)
    }
}

impl fmt::Debug for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}
