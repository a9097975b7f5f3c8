//! Streams of frames, one message type in each direction.
//!
//! What a peer sends is checked before it costs anything: the header against the cap of its type before memory is taken, and
//! memory is taken only for bytes that are there. A bad frame ends its stream with a named code; a second within ten seconds
//! ends the connection.
//!
//! Both halves keep their state when a call is cancelled, so both may stand in a `select!`.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use modchain_wire::{FRAME_HEADER_BYTES, FrameHeader, Message, WireError};
use tokio::time::Instant;

use crate::code::{CloseReason, StreamCode};
use crate::connection::Inner;
use crate::settings::{FRAME_STALL_TIMEOUT, Priority};

/// Memory that is taken ahead of a body's bytes. The header's claim is no proof: the rest is taken as it comes.
const BODY_AHEAD_BYTES: usize = 64 * 1024;

/// Why no message can be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The other side sent what is no frame of this stream. The stream has been stopped.
    #[error("bad frame")]
    Frame(#[source] WireError),
    /// The stream ended in the middle of a frame.
    #[error("the stream ended in the middle of a frame")]
    Truncated,
    /// A frame began and did not go on for [`FRAME_STALL_TIMEOUT`]. The stream has been stopped.
    #[error("a frame stopped half-way")]
    Stalled,
    /// The other side gave the stream up.
    #[error("{}", stream_sentence(*.0))]
    Reset(Option<StreamCode>),
    /// The connection ended.
    #[error("the connection ended")]
    Closed(#[source] CloseReason),
}

impl ReadError {
    /// What to reset the other half of the stream with, so that the peer learns why; `None` where it knows.
    pub fn stream_code(&self) -> Option<StreamCode> {
        match self {
            Self::Frame(error) => Some(code_of(error)),
            Self::Truncated => Some(StreamCode::BadFrame),
            Self::Stalled => Some(StreamCode::Stalled),
            Self::Reset(_) | Self::Closed(_) => None,
        }
    }
}

/// Why no message can be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The message is longer than its type allows; nothing was written and the stream goes on.
    #[error("the message cannot be sent")]
    Message(#[source] WireError),
    /// The other side does not want more.
    #[error("{}", stream_sentence(*.0))]
    Stopped(Option<StreamCode>),
    /// This side has finished or reset the stream already.
    #[error("this side has ended the stream already")]
    Ended,
    /// The connection ended.
    #[error("the connection ended")]
    Closed(#[source] CloseReason),
}

fn stream_sentence(code: Option<StreamCode>) -> &'static str {
    code.map_or("the other side gave the stream up for a reason that this program does not know", StreamCode::sentence)
}

fn code_of(error: &WireError) -> StreamCode {
    match error {
        WireError::Unsupported { .. } => StreamCode::Unsupported,
        WireError::Version { .. }
        | WireError::TooLong { .. }
        | WireError::Garbled { .. }
        | WireError::Trailing { .. } => StreamCode::BadFrame,
    }
}

/// The receiving half of a stream.
pub struct FrameReader<M> {
    recv: quinn::RecvStream,
    connection: Arc<Inner>,
    /// Bytes that arrived and are not yet part of a frame.
    arrived: Bytes,
    header: [u8; FRAME_HEADER_BYTES],
    header_filled: usize,
    /// The frame whose header is complete, and as much of its body as is there.
    body: Option<(FrameHeader, Vec<u8>)>,
    /// When the frame that has begun is given up; moves with every byte.
    stalled_at: Option<Instant>,
    ended: Option<Result<(), ReadError>>,
    message: PhantomData<fn() -> M>,
}

impl<M: Message> FrameReader<M> {
    pub(crate) fn new(recv: quinn::RecvStream, connection: Arc<Inner>) -> Self {
        Self {
            recv,
            connection,
            arrived: Bytes::new(),
            header: [0; FRAME_HEADER_BYTES],
            header_filled: 0,
            body: None,
            stalled_at: None,
            ended: None,
            message: PhantomData,
        }
    }

    /// The next message; `None` when the other side has finished the stream after a whole frame. Waits for ever between
    /// frames, and [`FRAME_STALL_TIMEOUT`] for each next byte within one. Safe to cancel: nothing is lost. After an error it
    /// gives the same error again.
    pub async fn read(&mut self) -> Result<Option<M>, ReadError> {
        if let Some(ended) = &self.ended {
            return ended.clone().map(|()| None);
        }
        match self.read_frame().await {
            Ok(Some(message)) => Ok(Some(message)),
            Ok(None) => {
                self.ended = Some(Ok(()));
                Ok(None)
            }
            Err(error) => {
                self.give_up(&error);
                self.ended = Some(Err(error.clone()));
                Err(error)
            }
        }
    }

    /// Tells the other side to stop sending, and why.
    pub fn stop(&mut self, code: StreamCode) {
        // An error means that the stream has ended, which is what is wanted.
        let _ = self.recv.stop(code.into());
        self.ended.get_or_insert(Err(ReadError::Reset(Some(code))));
    }

    async fn read_frame(&mut self) -> Result<Option<M>, ReadError> {
        loop {
            if let Some(message) = self.take_frame().map_err(ReadError::Frame)? {
                return Ok(Some(message));
            }
            if self.header_filled > 0 {
                // It may have begun in the packet that ended the frame before it.
                self.stalled_at.get_or_insert_with(|| Instant::now() + FRAME_STALL_TIMEOUT);
            }
            let chunk = self.recv.read_chunk(usize::MAX, true);
            let chunk = match self.stalled_at {
                Some(at) => tokio::time::timeout_at(at, chunk).await.map_err(|_| ReadError::Stalled)?,
                None => chunk.await,
            };
            match chunk.map_err(read_error)? {
                Some(chunk) => {
                    self.arrived = chunk.bytes;
                    self.stalled_at = Some(Instant::now() + FRAME_STALL_TIMEOUT);
                }
                None if self.header_filled == 0 => return Ok(None),
                None => return Err(ReadError::Truncated),
            }
        }
    }

    /// Moves arrived bytes into the frame; gives the message once it is whole.
    fn take_frame(&mut self) -> Result<Option<M>, WireError> {
        if self.body.is_none() {
            let wanted = &mut self.header[self.header_filled..];
            let count = wanted.len().min(self.arrived.len());
            self.arrived.copy_to_slice(&mut wanted[..count]);
            self.header_filled += count;
            if self.header_filled < FRAME_HEADER_BYTES {
                return Ok(None);
            }
            let header = FrameHeader::read(self.header);
            header.check::<M>()?;
            self.body = Some((header, Vec::new()));
        }
        let (header, body) = self.body.as_mut().expect("it was just filled");
        let missing = header.body_bytes - body.len();
        let piece = self.arrived.split_to(missing.min(self.arrived.len()));
        if missing == piece.len() && body.is_empty() {
            // A frame within one packet is decoded where it lies.
            let kind = header.kind;
            self.frame_done();
            return M::decode_body(kind, &piece).map(Some);
        }
        body.reserve(missing.min(BODY_AHEAD_BYTES));
        body.extend_from_slice(&piece);
        if body.len() < header.body_bytes {
            return Ok(None);
        }
        let (header, body) = self.body.take().expect("it is whole");
        self.frame_done();
        M::decode_body(header.kind, &body).map(Some)
    }

    fn frame_done(&mut self) {
        self.body = None;
        self.header_filled = 0;
        self.stalled_at = None;
    }

    fn give_up(&mut self, error: &ReadError) {
        self.arrived = Bytes::new();
        self.body = None;
        match error {
            // A newer peer may ask for things that are not known here; that is no offence.
            ReadError::Frame(WireError::Unsupported { .. }) | ReadError::Stalled => {}
            ReadError::Frame(error) => self.connection.count_bad_frame(&error.to_string()),
            ReadError::Truncated => self.connection.count_bad_frame("the stream ended in the middle of a frame"),
            ReadError::Reset(_) | ReadError::Closed(_) => {}
        }
        if let Some(code) = error.stream_code() {
            // An error means that the stream has ended, which is what is wanted.
            let _ = self.recv.stop(code.into());
        }
    }
}

fn read_error(error: quinn::ReadError) -> ReadError {
    match error {
        quinn::ReadError::Reset(code) => ReadError::Reset(StreamCode::from_number(code.into_inner())),
        quinn::ReadError::ConnectionLost(error) => ReadError::Closed(error.into()),
        // Reading after a stop of our own; the other two cannot happen without unordered reads and early data.
        quinn::ReadError::ClosedStream | quinn::ReadError::IllegalOrderedRead | quinn::ReadError::ZeroRttRejected => {
            ReadError::Reset(Some(StreamCode::Cancelled))
        }
    }
}

/// The sending half of a stream. Dropped between frames it ends the stream cleanly, dropped in the middle of one it resets
/// the stream, so that half a message never looks like an end.
pub struct FrameWriter<M> {
    send: quinn::SendStream,
    /// Frames, the first perhaps in part, that the transport has not taken yet.
    queue: VecDeque<Bytes>,
    /// As long as a half of a stream is held its connection counts as somebody's.
    _connection: Arc<Inner>,
    message: PhantomData<fn(M)>,
}

impl<M: Message> FrameWriter<M> {
    pub(crate) fn new(send: quinn::SendStream, connection: Arc<Inner>) -> Self {
        Self { send, queue: VecDeque::new(), _connection: connection, message: PhantomData }
    }

    /// Sends one message: returns when the transport has taken it, which waits while the other side does not read. A
    /// cancelled call never leaves half a message: it was not begun, or the next call sends the rest. Where that difference
    /// matters, as in a `select!`, call [`FrameWriter::queue`] and await [`FrameWriter::flush`].
    pub async fn write(&mut self, message: &M) -> Result<(), WriteError> {
        // What an earlier, cancelled call left goes first, so that no more than one frame ever waits here.
        self.flush().await?;
        self.queue(message)?;
        self.flush().await
    }

    /// Adds a message to those that the next [`FrameWriter::flush`] sends together. The caller bounds how many.
    pub fn queue(&mut self, message: &M) -> Result<(), WriteError> {
        self.queue.push_back(message.to_frame().map_err(WriteError::Message)?);
        Ok(())
    }

    /// Sends what is queued. Safe to cancel.
    pub async fn flush(&mut self) -> Result<(), WriteError> {
        while !self.queue.is_empty() {
            let written =
                self.send.write_chunks(self.queue.make_contiguous()).await.map_err(|error| self.failed(error))?;
            self.queue.drain(..written.chunks);
        }
        Ok(())
    }

    /// Sends what is queued and tells the other side that nothing follows.
    pub async fn finish(&mut self) -> Result<(), WriteError> {
        self.flush().await?;
        self.send.finish().map_err(|_| WriteError::Ended)
    }

    /// Waits until the other side has received everything after [`FrameWriter::finish`], or has stopped the stream. Safe to
    /// cancel; put a limit on it.
    pub async fn delivered(&mut self) -> Result<(), WriteError> {
        match self.send.stopped().await {
            Ok(None) => Ok(()),
            Ok(Some(code)) => Err(WriteError::Stopped(StreamCode::from_number(code.into_inner()))),
            Err(quinn::StoppedError::ConnectionLost(error)) => Err(WriteError::Closed(error.into())),
            Err(quinn::StoppedError::ZeroRttRejected) => Err(WriteError::Ended),
        }
    }

    /// Comes back when the other side reads no more of this stream: it has stopped it, or the connection ended. For who has
    /// nothing to write for a long time, and would learn it only then. Safe to cancel, and independent of writes.
    pub fn unwanted(&self) -> impl Future<Output = ()> + Send + 'static {
        let stopped = self.send.stopped();
        async move { drop(stopped.await) }
    }

    /// Gives the stream up: what is not yet delivered may be lost, and the other side learns why.
    pub fn reset(&mut self, code: StreamCode) {
        self.queue.clear();
        // An error means that the stream has ended, which is what is wanted.
        let _ = self.send.reset(code.into());
    }

    /// Which streams' bytes go first.
    pub fn set_priority(&self, priority: Priority) {
        // An error means that the stream has ended, and then there is nothing to put in order.
        let _ = self.send.set_priority(priority as i32);
    }

    /// What [`FrameWriter::set_priority`] has set, as the transport tells it; `None` once the stream has ended.
    pub fn priority(&self) -> Option<i32> {
        self.send.priority().ok()
    }
}

impl<M> FrameWriter<M> {
    fn failed(&mut self, error: quinn::WriteError) -> WriteError {
        // Nothing of it can be sent any more, and `Drop` has nothing left to say.
        self.queue.clear();
        match error {
            quinn::WriteError::Stopped(code) => WriteError::Stopped(StreamCode::from_number(code.into_inner())),
            quinn::WriteError::ConnectionLost(error) => WriteError::Closed(error.into()),
            quinn::WriteError::ClosedStream | quinn::WriteError::ZeroRttRejected => WriteError::Ended,
        }
    }
}

impl<M> Drop for FrameWriter<M> {
    fn drop(&mut self) {
        if !self.queue.is_empty() {
            let _ = self.send.reset(StreamCode::Cancelled.into());
        }
    }
}
