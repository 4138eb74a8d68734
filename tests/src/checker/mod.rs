//! The acknowledged-write checker: did a cluster keep its promises to its clients?
//!
//! [`Writers`] are clients that log every acknowledged write with its times and the server that acknowledged it ([`Log`]). [`judge`] holds the log
//! against the final data and answers what was lost, what was lost although replicas had confirmed it, and what two servers acknowledged in
//! overlapping time ([`Verdict`]). Used by the fault tests, the demo and the benchmark. Kept: the judge is a pure function, and it accuses nobody
//! of what the clients' log does not prove.

mod door;
mod judge;
mod log;
mod of_cluster;
mod verdict;
mod writer;

pub use door::{Door, Told};
pub use judge::{About, judge};
pub use log::{Ack, Data, Failure, Log, Server};
pub use of_cluster::Load;
pub use verdict::{Overlap, Pause, Reign, Verdict};
pub use writer::{Plan, Writers};
