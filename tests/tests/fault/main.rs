//! Faults from outside on whole clusters of real parts: a file per fault. What must hold is checked on the log of a client's acknowledged writes
//! and on what the cluster says of itself; times are limits for hanging, never figures.

mod address_reused;
mod agent_frozen;
mod agent_killed;
mod all_killed;
mod clock_jumps;
mod controller_killed;
mod controllers_gone;
mod cut_from_replicas;
mod cut_from_zookeeper;
mod everything_lost;
mod first_sync;
mod foreign_cluster;
mod garbage_in_zookeeper;
mod hdfs_down;
mod hdfs_faults;
mod hdfs_secured;
mod host_cut_off;
mod host_lost;
mod leader_killed_between_steps;
mod one_way_loss;
mod quorum_lost;
mod replica_killed;
mod restarted_empty;
mod restore_broken;
mod scheduler_down;
mod server_frozen;
mod server_killed;
mod spoilt_snapshot;
mod stale_command;
mod switchover;
mod task_killed;
mod two_leaders;
mod zookeeper_down;
