//! Streams of bytes beside a call: screenshots, consoles.
//!
//! A stream carries the serial number of the call that opened it. Pieces with status CONTINUE carry bytes, an empty one means the end of
//! what comes from there; then one side says OK (finish) or ERROR (abort), and the daemon confirms a finish with OK.

use crate::connection::{Connection, Shared, Then};
use crate::errors::{Error, RemoteError, Result};
use crate::message::{self, Header, Kind, Message, Program, STREAM_CHUNK, Status};
use crate::wire::{Decode, Encode, decode_all};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{mpsc, oneshot};

/// Bytes that came and weren't read yet, above which a stream is aborted: a slow reader mustn't hold up the other users of the line.
pub const BUFFER_MAX: usize = 16 << 20;

pub(crate) fn header(procedure: i32, serial: u32, status: Status) -> Header {
    Header { program: Program::REMOTE, procedure, kind: Kind::Stream, serial, status }
}

#[derive(Debug)]
enum Piece {
    Data(Vec<u8>),
    /// Nothing more comes from there.
    End,
    /// The daemon confirms the end.
    Finished,
    Failed(Error),
}

/// What becomes of a stream after a piece.
pub(crate) enum Verdict {
    More,
    End,
    Abort,
}

/// The reader's end of a stream's queue.
#[derive(Clone, Debug)]
pub(crate) struct Sink {
    pieces: mpsc::UnboundedSender<Piece>,
    buffered: Arc<AtomicUsize>,
}

impl Sink {
    pub(crate) fn take(&self, message: Message) -> Verdict {
        let (piece, verdict) = match message.header.status {
            Status::Continue if message.payload.is_empty() => (Piece::End, Verdict::More),
            Status::Continue => {
                let length = message.payload.len();
                if self.buffered.fetch_add(length, Ordering::Relaxed) + length > BUFFER_MAX {
                    (Piece::Failed(Error::TooMuch(BUFFER_MAX)), Verdict::Abort)
                } else {
                    (Piece::Data(message.payload), Verdict::More)
                }
            }
            Status::Ok => (Piece::Finished, Verdict::End),
            Status::Error => {
                let error = decode_all::<RemoteError>(&message.payload);
                (Piece::Failed(error.map_or_else(Error::Malformed, Error::Remote)), Verdict::End)
            }
        };
        if self.pieces.send(piece).is_err() { Verdict::Abort } else { verdict }
    }
}

/// A stream, both ways. Dropping it aborts it.
#[derive(Debug)]
pub struct ByteStream {
    connection: Connection,
    procedure: i32,
    serial: u32,
    pieces: mpsc::UnboundedReceiver<Piece>,
    buffered: Arc<AtomicUsize>,
    over: bool,
}

impl ByteStream {
    /// Makes the call that opens a stream.
    pub(crate) async fn open<R: Decode>(
        at: &Connection,
        procedure: i32,
        arguments: impl Encode,
    ) -> Result<(R, ByteStream)> {
        let (sender, pieces) = mpsc::unbounded_channel();
        let buffered = Arc::new(AtomicUsize::new(0));
        let sink = Sink { pieces: sender, buffered: buffered.clone() };
        let (serial, answer) = at.shared.call(Program::REMOTE, procedure, arguments, Then::Stream(sink)).await?;
        let stream = ByteStream { connection: at.clone(), procedure, serial, pieces, buffered, over: false };
        Ok((decode_all(&answer).map_err(Error::Malformed)?, stream))
    }

    /// The next bytes; `None` when nothing more comes from there. Cancellation-safe.
    ///
    /// # Errors
    /// When the stream was aborted there, wasn't read fast enough ([`BUFFER_MAX`]), or the connection is lost.
    pub async fn read(&mut self) -> Result<Option<Vec<u8>>> {
        if self.over {
            return Ok(None);
        }
        match self.pieces.recv().await {
            Some(Piece::Data(bytes)) => {
                self.buffered.fetch_sub(bytes.len(), Ordering::Relaxed);
                Ok(Some(bytes))
            }
            Some(Piece::End) => Ok(None),
            Some(Piece::Finished) => {
                self.over = true;
                Ok(None)
            }
            Some(Piece::Failed(error)) => {
                self.over = true;
                Err(error)
            }
            None => {
                self.over = true;
                Err(self.shared().why_lost())
            }
        }
    }

    /// All bytes to the end, and the end confirmed.
    ///
    /// # Errors
    /// As [`ByteStream::read`], and [`Error::TooMuch`] above `max` bytes.
    pub async fn read_to_end(mut self, max: usize) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(bytes) = self.read().await? {
            if all.len() + bytes.len() > max {
                return Err(Error::TooMuch(max));
            }
            all.extend_from_slice(&bytes);
        }
        self.finish().await?;
        Ok(all)
    }

    /// Sends bytes; returns when the system took them. When cancelled, they may be sent in part (whole pieces of [`STREAM_CHUNK`]).
    ///
    /// # Errors
    /// When the connection is lost. That the stream was aborted there is told by [`ByteStream::read`].
    pub async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        for chunk in bytes.chunks(STREAM_CHUNK) {
            let header = header(self.procedure, self.serial, Status::Continue);
            let chunk = message::encode_chunk(header, chunk).map_err(Error::BadArgument)?;
            let (written, out) = oneshot::channel();
            self.shared().send(chunk, Some(written));
            out.await.map_err(|_| self.shared().why_lost())?;
        }
        Ok(())
    }

    /// Ends the stream well, and waits until the daemon confirms that it got everything.
    ///
    /// # Errors
    /// When the stream was aborted there, or the connection is lost.
    pub async fn finish(mut self) -> Result<()> {
        if !self.over {
            let end = message::encode(header(self.procedure, self.serial, Status::Ok), ());
            self.shared().send(end.map_err(Error::BadArgument)?, None);
            while !self.over {
                self.read().await?;
            }
        }
        Ok(())
    }

    fn shared(&self) -> &Shared {
        &self.connection.shared
    }
}

impl Drop for ByteStream {
    fn drop(&mut self) {
        if !self.over {
            self.shared().abort_stream(self.procedure, self.serial);
        }
    }
}
