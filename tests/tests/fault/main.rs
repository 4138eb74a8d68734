//! Faults from outside on whole clusters of real parts: a file per fault. What must hold is checked on the log of a client's acknowledged writes
//! and on what the cluster says of itself; times are limits for hanging, never figures.

mod agent_killed;
mod controller_killed;
mod everything_lost;
mod foreign_cluster;
mod garbage_in_zookeeper;
mod hdfs_down;
mod host_cut_off;
mod replica_killed;
mod scheduler_down;
mod server_killed;
mod spoilt_snapshot;
mod stale_command;
mod task_killed;
mod zookeeper_down;
