//! Replies: what a scheduler writes and a client reads.

use std::fmt;

use thrift::protocol::{TInputProtocol, TMessageIdentifier, TMessageType, TOutputProtocol, TType};

use super::Error;
use super::io::{
    Maybe, Plain, Reader, Slot, Wire, Writer, read_fields, slot_type, wire_struct, write_field, write_fields, writer,
};
use crate::types::Response;

/// What comes back for a call.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// The scheduler understood the call; see its response code.
    Response(Response),
    /// It did not, or failed to answer.
    Exception(ApplicationException),
}

/// The thrift layer of the scheduler refuses or fails a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApplicationException {
    /// In words.
    pub message: Option<String>,
    /// What is wrong, as a number: see the constants.
    pub kind: i32,
}

impl ApplicationException {
    /// `kind`: no such method.
    pub const UNKNOWN_METHOD: i32 = 1;
    /// `kind`: the method raised an exception.
    pub const INTERNAL_ERROR: i32 = 6;
    /// `kind`: the message is malformed.
    pub const PROTOCOL_ERROR: i32 = 7;

    /// The exception for a method that does not exist, in the scheduler's words.
    pub fn unknown_method(method: &str) -> ApplicationException {
        ApplicationException { message: Some(format!("Invalid method name: '{method}'")), kind: Self::UNKNOWN_METHOD }
    }
}

impl fmt::Display for ApplicationException {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (type {})", self.message.as_deref().unwrap_or("no message"), self.kind)
    }
}

wire_struct!(ApplicationException { 1 => message: Maybe<Plain>, 2 => kind: Plain, });

#[derive(Default)]
struct Returned {
    success: Option<Response>,
}

wire_struct!(Returned { 0 => success: Maybe<Plain>, });

/// The message that answers a call of `method` with number `seqid`.
///
/// # Errors
/// Only [`Error::Unwritable`]: a union that was read with a kind we do not know.
pub fn encode_reply(method: &str, seqid: i32, reply: &Reply) -> Result<Vec<u8>, Error> {
    let mut writer = writer();
    let message_type = match reply {
        Reply::Response(_) => TMessageType::Reply,
        Reply::Exception(_) => TMessageType::Exception,
    };
    writer.write_message_begin(&TMessageIdentifier::new(method, message_type, seqid))?;
    match reply {
        Reply::Response(response) => write_fields(&mut writer, |writer| write_field::<_, Plain>(writer, 0, response))?,
        Reply::Exception(exception) => exception.write(&mut writer)?,
    }
    writer.write_message_end()?;
    Ok(writer.transport)
}

/// The reply in a message that should answer `method` with number `seqid`.
///
/// # Errors
/// Any but those about calls: the bytes are no message, or answer something else, or are empty of a response.
pub fn decode_reply(method: &'static str, seqid: i32, bytes: &[u8]) -> Result<Reply, Error> {
    let mut reader = Reader::new(bytes);
    let header = reader.input.read_message_begin()?;
    match header.message_type {
        TMessageType::Exception => Ok(Reply::Exception(ApplicationException::read(&mut reader)?)),
        TMessageType::Reply if header.name == method && header.sequence_number == seqid => {
            let returned = Returned::read(&mut reader)?;
            returned.success.map(Reply::Response).ok_or(Error::EmptyReply { method })
        }
        other => {
            let name: String = header.name.chars().take(100).collect();
            let found = format!("{name} ({other:?} {})", header.sequence_number);
            Err(Error::WrongReply { wanted: method, found })
        }
    }
}
