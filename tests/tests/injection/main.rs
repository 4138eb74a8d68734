//! The faults themselves: each does to processes, networks and clocks what it says, and nothing else. Without this a fault test that passes may have
//! had no fault.

mod clocks;
mod networks;
mod processes;
mod zookeepers;
