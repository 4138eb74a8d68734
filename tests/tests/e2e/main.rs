//! End to end: real Redis, ZooKeeper, HDFS and HAProxy, our own binaries, and local-aurora in the scheduler's place. A file per scenario.

mod consent;
mod demo;
mod doors;
mod fetched;
mod hosts;
mod imports;
mod life;
mod migrate;
mod parts;
mod restore;
mod snapshots;
mod switchover;
mod versions;
