//! Client of the Apache Aurora scheduler's API, and of the serversets that schedulers and executors write to ZooKeeper.
//!
//! - [`types`]: the structs of the API that we use, with the field names of its IDL.
//! - [`wire`]: those types as thrift binary messages, calls and replies, both directions. A test's scheduler uses it too.

pub mod types;
pub mod wire;
