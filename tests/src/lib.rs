//! What the tests, the demo and the stand-in scheduler share: real processes, faults from outside, waits with reasons.

pub mod checker;
pub mod demo;
pub mod harness;
pub mod local_aurora;
