//! Brings up the real parts of a cluster as processes and breaks them from outside.
//!
//! Used by the end-to-end and fault tests and by the demo. Kept: everything started here is ended here, by id, also after a panic; ports,
//! directories and network namespaces belong to one [`Bench`] and go with it; nothing sleeps for luck ([`wait::until`]).

pub mod bench;
pub mod binaries;
pub mod browser;
pub mod clock;
pub mod cluster;
pub mod data;
pub mod haproxy;
pub mod hdfs;
pub mod kdc;
pub mod local_aurora;
pub mod netns;
pub mod ports;
pub mod process;
pub mod redis;
pub mod wait;
pub mod zookeeper;

pub use bench::Bench;
pub use clock::Clock;
pub use netns::Host;
