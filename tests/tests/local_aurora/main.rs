//! The stand-in scheduler as a program, through the client of the real one, with a real ZooKeeper and real processes.

mod coordinator;
mod http;
mod tasks;
mod updates;
mod world;

use std::time::Duration;

/// For everything that only takes as long as starting a few processes.
const SOON: Duration = Duration::from_secs(30);
