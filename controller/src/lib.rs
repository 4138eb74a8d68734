//! The controller: observes one cluster, decides what it should look like and has the agents do it.
//!
//! Start reading at [`reconcile`], then [`decide`].

pub mod act;
pub mod check;
pub mod chronicle;
pub mod cli;
pub mod cluster_file;
pub mod config;
pub mod decide;
pub mod doctor;
pub mod examine;
#[cfg(test)]
mod example;
pub mod haproxy;
pub mod http;
pub mod intake;
pub mod metrics;
pub mod model;
pub mod observe;
pub mod operations;
pub mod pace;
pub mod publish;
pub mod reconcile;
pub mod registry;
pub mod schedule;
pub mod view;
