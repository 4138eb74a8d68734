//! The right of a master to acknowledge writes: held by a thread of its own, which nothing else blocks.

pub mod term;
