//! What the tests, the demo, the benchmark and the stand-in scheduler share: real processes, faults from outside, waits with reasons.

pub mod bench;
pub mod checker;
pub mod demo;
pub mod harness;
pub mod local_aurora;
