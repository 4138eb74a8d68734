//! The controller: observes one cluster, decides what it should look like and has the agents do it.

pub mod check;
pub mod config;
pub mod decide;
#[cfg(test)]
mod example;
pub mod haproxy;
pub mod http;
pub mod intake;
pub mod metrics;
pub mod model;
pub mod registry;
pub mod view;
