//! The controller: observes one cluster, decides what it should look like and has the agents do it.

pub mod check;
pub mod config;
pub mod decide;
pub mod intake;
pub mod model;
pub mod view;
