//! Messages on the socket: length, header, payload.
//!
//! ```text
//! length u32 (of all, itself too) | program u32 | version u32 | procedure i32 | type i32 | serial u32 | status i32 | payload
//! ```

use crate::wire::{Decoder, Encode, Encoder, WireError};
use std::time::Duration;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt};

/// The longest message that is accepted, bytes. libvirt's own limit has grown over time, to 32 MiB.
pub const MESSAGE_MAX: usize = 64 << 20;
/// The longest message that is sent, bytes: older daemons' limit. They cut the line on longer ones.
pub const SEND_MAX: usize = 16 << 20;
/// Payload of one message of a stream, bytes.
pub const STREAM_CHUNK: usize = 256 << 10;

const LENGTH: usize = 4;
const HEADER: usize = 24;

/// Who a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Program {
    /// Its number.
    pub number: u32,
    /// Its version.
    pub version: u32,
}

impl Program {
    /// The calls of all hypervisors.
    pub const REMOTE: Program = Program { number: 0x2000_8086, version: 1 };
    /// Calls that only QEMU's driver has.
    pub const QEMU: Program = Program { number: 0x2000_8087, version: 1 };
    /// PING and PONG ("keep").
    pub const KEEPALIVE: Program = Program { number: 0x6b65_6570, version: 1 };
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A call, from the client.
    Call = 0,
    /// Its answer.
    Reply = 1,
    /// An event, or a keepalive.
    Event = 2,
    /// A piece of a stream.
    Stream = 3,
}

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Well; of streams: this is the end.
    Ok = 0,
    /// Badly; of streams: aborted.
    Error = 1,
    /// More follows (streams only).
    Continue = 2,
}

/// The head of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// For whom.
    pub program: Program,
    /// Which procedure of the program.
    pub procedure: i32,
    /// What it is.
    pub kind: Kind,
    /// Of the call that it belongs to; 0 for events.
    pub serial: u32,
    /// How it went.
    pub status: Status,
}

/// A message as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The head.
    pub header: Header,
    /// The rest.
    pub payload: Vec<u8>,
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Lost {
    /// We closed it.
    #[error("closed by us")]
    Closed,
    /// The daemon closed it, or ended.
    #[error("the daemon closed it")]
    Ended,
    /// The system says so.
    #[error("{0}")]
    Failed(String),
    /// The daemon didn't answer keepalives.
    #[error("no sign of life for {0:?}")]
    Silent(Duration),
    /// What came is no message.
    #[error("what came is no message: {0}")]
    Malformed(WireError),
}

/// The bytes of a message.
///
/// # Errors
/// When a value doesn't fit.
pub fn encode(header: Header, payload: impl Encode) -> Result<Vec<u8>, WireError> {
    let mut to = Encoder::new();
    head(&mut to, header);
    payload.encode(&mut to);
    seal(to.finish()?)
}

/// The bytes of a stream's piece.
///
/// # Errors
/// When it is too long.
pub fn encode_chunk(header: Header, chunk: &[u8]) -> Result<Vec<u8>, WireError> {
    let mut to = Encoder::new();
    head(&mut to, header);
    to.raw(chunk);
    seal(to.finish()?)
}

fn head(to: &mut Encoder, header: Header) {
    to.u32(0); // the length, when it is known
    (header.program.number, header.program.version, header.procedure).encode(to);
    (header.kind as i32, header.serial, header.status as i32).encode(to);
}

fn seal(mut bytes: Vec<u8>) -> Result<Vec<u8>, WireError> {
    let too_long = WireError::TooLong { length: bytes.len(), max: SEND_MAX };
    let length = u32::try_from(bytes.len()).ok().filter(|_| bytes.len() <= SEND_MAX).ok_or(too_long)?;
    if let Some(field) = bytes.first_chunk_mut::<LENGTH>() {
        *field = length.to_be_bytes();
    }
    Ok(bytes)
}

/// Puts the serial number into a message that [`encode`] made.
pub fn set_serial(bytes: &mut [u8], serial: u32) {
    if let Some(field) = bytes.get_mut(20..24) {
        field.copy_from_slice(&serial.to_be_bytes());
    }
}

/// The message in these bytes, which are all but the length. `None`: one of a type that we don't know, to be passed over.
///
/// # Errors
/// When they are no message.
pub fn decode(bytes: &[u8]) -> Result<Option<Message>, WireError> {
    let mut from = Decoder::new(bytes);
    let program = Program { number: from.u32()?, version: from.u32()? };
    let (procedure, kind, serial, status) = (from.u32()?.cast_signed(), from.u32()?, from.u32()?, from.u32()?);
    let kind = match kind {
        0 => Kind::Call,
        1 => Kind::Reply,
        2 => Kind::Event,
        3 => Kind::Stream,
        4..=6 => return Ok(None), // with file descriptors, or holes in streams: we ask for neither
        other => return Err(WireError::BadValue { what: "type of message", value: other.into() }),
    };
    let status = match status {
        0 => Status::Ok,
        1 => Status::Error,
        2 => Status::Continue,
        other => return Err(WireError::BadValue { what: "status", value: other.into() }),
    };
    Ok(Some(Message { header: Header { program, procedure, kind, serial, status }, payload: from.rest().to_vec() }))
}

/// Reads the next message. Not cancellation-safe: one task reads, and nothing else.
///
/// # Errors
/// Why there is none.
pub async fn read(from: &mut (impl AsyncRead + Unpin)) -> Result<Option<Message>, Lost> {
    let mut length = [0; LENGTH];
    from.read_exact(&mut length).await.map_err(failed)?;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > MESSAGE_MAX {
        return Err(Lost::Malformed(WireError::TooLong { length, max: MESSAGE_MAX }));
    }
    let body = length.checked_sub(LENGTH).filter(|n| *n >= HEADER).ok_or(Lost::Malformed(WireError::Truncated))?;
    // Grows with what really comes: a length alone costs no memory.
    let mut bytes = Vec::with_capacity(body.min(64 << 10));
    let got = from.take(body as u64).read_to_end(&mut bytes).await.map_err(failed)?;
    if got < body {
        return Err(Lost::Ended);
    }
    decode(&bytes).map_err(Lost::Malformed)
}

/// What an error of the socket means.
pub fn failed(error: std::io::Error) -> Lost {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    match error.kind() {
        UnexpectedEof | BrokenPipe | ConnectionReset => Lost::Ended,
        _ => Lost::Failed(error.to_string()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> Header {
        Header { program: Program::REMOTE, procedure: 1, kind: Kind::Call, serial: 7, status: Status::Ok }
    }

    async fn read_all(bytes: &[u8]) -> Result<Option<Message>, Lost> {
        read(&mut &bytes[..]).await
    }

    #[tokio::test]
    async fn a_message_looks_as_documented_and_comes_back() {
        let mut bytes = encode(Header { serial: 0, ..header() }, (Some("qemu:///system"), 0_u32)).unwrap();
        set_serial(&mut bytes, 7);
        let head = [0, 0, 0, 56, 0x20, 0, 0x80, 0x86, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0];
        assert_eq!(bytes[..28], head);
        assert_eq!(bytes.len(), 56);
        let message = read_all(&bytes).await.unwrap().unwrap();
        assert_eq!(message, Message { header: header(), payload: bytes[28..].to_vec() });
    }

    #[tokio::test]
    async fn lying_lengths_end_the_connection() {
        assert_eq!(read_all(&[0, 0, 0, 27]).await, Err(Lost::Malformed(WireError::Truncated)));
        assert!(matches!(read_all(&[0xff; 40]).await, Err(Lost::Malformed(WireError::TooLong { .. }))));
        assert_eq!(read_all(&[0, 0, 1, 0, 1, 2]).await, Err(Lost::Ended));
        assert_eq!(read_all(&[]).await, Err(Lost::Ended));
    }

    #[test]
    fn what_is_too_long_is_not_sent() {
        let texts = vec!["x".repeat(4 << 20); 4];
        assert!(matches!(encode(header(), texts.as_slice()), Err(WireError::TooLong { .. })));
    }

    #[test]
    fn unknown_types_are_passed_over_and_wrong_ones_refused() {
        let with_kind = |kind: u8| {
            let mut bytes = encode(header(), ()).unwrap();
            bytes[19] = kind;
            decode(&bytes[4..])
        };
        assert_eq!(with_kind(5), Ok(None));
        assert!(matches!(with_kind(9), Err(WireError::BadValue { .. })));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }
    }
}
