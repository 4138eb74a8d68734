//! Client of the Apache Aurora scheduler's API, and of the serversets that schedulers and executors write to ZooKeeper.
//!
//! - [`types`]: the structs of the API that we use, with the field names of its IDL.
//! - [`wire`]: those types as thrift binary messages, calls and replies, both directions. A test's scheduler uses it too.
//! - [`client`]: [`Client`], one method per call; deadline, retry and the search for the leader in one place.
//! - [`serverset`]: member nodes in ZooKeeper, parsed, formatted and chosen from.
//!
//! Two traps of the API are closed by type: an empty instance set, which the scheduler takes for "the whole job", cannot be
//! built ([`types::InstanceSet`]); and every error says whether the call was certainly not applied ([`Error::is_definite`]).

pub mod client;
pub mod error;
pub mod serverset;
pub mod types;
pub mod wire;

pub use client::Client;
pub use error::Error;
