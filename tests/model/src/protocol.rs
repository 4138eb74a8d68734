//! What the two models have in common: bounds, rules, promises, and the runs that are made of them.

use std::fmt::{self, Debug, Display};
use std::hash::Hash;

/// A model of a part of the protocol, within bounds, whole or without one of its rules.
pub trait Protocol: stateright::Model<State: View, Action: Step> + Clone + Send + Sync + 'static {
    /// How far a run goes.
    type Bounds: Copy + Display + PartialEq + 'static;
    /// The rules that can be taken away.
    type Rule: Copy + Debug + PartialEq + 'static;

    /// What the model is about, in a word.
    const NAME: &'static str;
    /// Bounds within which the whole protocol holds.
    const SOUND: &'static [Sound<Self::Bounds>];
    /// Every rule, with bounds within which the protocol does not hold without it.
    const REMOVALS: &'static [Removal<Self::Rule, Self::Bounds>];

    /// The protocol as it is.
    fn sound(bounds: Self::Bounds) -> Self;
    /// The protocol without one of its rules.
    fn without(rule: Self::Rule, bounds: Self::Bounds) -> Self;
    /// What matters to clients of a state, for the telling of a way.
    fn view(state: &Self::State) -> String;
}

/// What a checker needs of a state.
pub trait View: Clone + Hash + PartialEq + Send + Sync + 'static {}
impl<T: Clone + Hash + PartialEq + Send + Sync + 'static> View for T {}

/// What a checker needs of an action.
pub trait Step: Clone + Display + PartialEq + Send + Sync {}
impl<T: Clone + Display + PartialEq + Send + Sync> Step for T {}

/// When a run is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// In every test run.
    Always,
    /// With `make soak`.
    Soak,
}

/// A run of the whole protocol.
#[derive(Clone, Copy, Debug)]
pub struct Sound<B: 'static> {
    /// What is special about it.
    pub name: &'static str,
    /// Its bounds.
    pub bounds: B,
    /// When it is made.
    pub when: When,
}

/// A run without a rule.
#[derive(Clone, Copy, Debug)]
pub struct Removal<R: 'static, B: 'static> {
    /// The rule taken away.
    pub rule: R,
    /// The bounds of the run.
    pub bounds: B,
    /// The promise that does not hold without it.
    pub breaks: &'static str,
}

/// Goes on with a list of bounds, leaving out those that allow nothing.
pub(crate) fn list(f: &mut fmt::Formatter<'_>, numbers: &[(&str, u8)], flags: &[(&str, bool)]) -> fmt::Result {
    for (name, number) in numbers.iter().filter(|(_, number)| *number > 0) {
        write!(f, ", {name} {number}")?;
    }
    for (name, _) in flags.iter().filter(|(_, on)| *on) {
        write!(f, ", {name}")?;
    }
    Ok(())
}

/// Declares the rules of a model, with the list of all of them.
macro_rules! rules {
    ($(#[$about:meta])* pub enum $name:ident { $($(#[$demand:meta])* $rule:ident,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum $name { $($(#[$demand])* $rule,)* }

        impl $name {
            /// Every rule.
            pub const ALL: &'static [$name] = &[$($name::$rule,)*];
        }
    };
}
pub(crate) use rules;
