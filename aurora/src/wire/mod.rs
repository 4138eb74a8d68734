//! Thrift binary messages of the scheduler's API, both directions: a client writes calls and reads replies, a stand-in
//! scheduler reads calls and writes replies. No IO, no clock; hostile bytes give an [`Error`].

mod call;
mod error;
mod io;
mod reply;
mod structs;

pub use call::{Call, decode_call, encode_call};
pub use error::Error;
pub use io::MAX_ELEMENTS;
pub use reply::{ApplicationException, Reply, decode_reply, encode_reply};

/// Content type of request and answer. The scheduler answers in JSON unless `Accept` says exactly this.
pub const CONTENT_TYPE: &str = "application/vnd.apache.thrift.binary";
