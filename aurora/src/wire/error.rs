//! What can be wrong with a message.

/// A message that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes are not a message of the binary protocol, or end too early.
    #[error("not a thrift message")]
    Malformed(#[from] thrift::Error),
    /// More elements than any answer has.
    #[error("thrift message with more than {} elements", super::MAX_ELEMENTS)]
    TooManyElements,
    /// A list, set or map holds something else than its field should.
    #[error("thrift message with elements of a wrong type")]
    ElementType,
    /// A call of a method that is not in [`super::Call`].
    #[error("call of unknown method `{method}`")]
    UnknownMethod {
        /// The method.
        method: String,
        /// Number to answer with.
        seqid: i32,
    },
    /// A call without an argument that it cannot do without.
    #[error("call of `{method}` without argument `{argument}`")]
    MissingArgument {
        /// The method.
        method: &'static str,
        /// Number to answer with.
        seqid: i32,
        /// Name of the argument in the IDL.
        argument: &'static str,
    },
    /// A reply that is none, or to another call.
    #[error("reply to `{found}`, want one to `{wanted}`")]
    WrongReply {
        /// The method called.
        wanted: &'static str,
        /// What came instead.
        found: String,
    },
    /// A reply without a response in it.
    #[error("reply to `{method}` without a response")]
    EmptyReply {
        /// The method called.
        method: &'static str,
    },
    /// A union of a kind that we know only by number cannot be written.
    #[error("cannot write a {union} of unknown kind {field}")]
    Unwritable {
        /// Name of the union.
        union: &'static str,
        /// Field id that it was read from, 0 for none.
        field: i16,
    },
}
