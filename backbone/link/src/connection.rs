//! One connection to an authenticated peer.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use modchain_certs::channel::{EXPORTER_LABEL, RENEWAL_CONTEXT};
use modchain_certs::{Exporter, PeerIdentity};
use modchain_types::IdentityId;
use modchain_wire::Message;
use quinn::VarInt;
use tokio::sync::oneshot;

use crate::admission::Admission;
use crate::bad_frames::{BadFrames, Penalty};
use crate::code::{CloseCode, CloseReason};
use crate::dial::ConnectError;
use crate::gate::Place;
use crate::settings::{CLOSE_TIMEOUT, OPEN_TIMEOUT, Protocol};
use crate::stream::{FrameReader, FrameWriter};

/// A connection; cheap to clone. It is closed when the last clone and the last of its streams are dropped.
#[derive(Clone)]
pub struct Connection {
    inner: Arc<Inner>,
    peer: PeerIdentity,
    protocol: Protocol,
}

/// What the holders and the streams of one connection share: the way to open streams, and the account of bad frames. It
/// knows nothing of a peer's identity, because on the join port there is none.
pub(crate) struct Inner {
    pub(crate) quinn: quinn::Connection,
    origin: Origin,
    bad_frames: Mutex<BadFrames>,
}

/// Who opened the connection, and what that needs.
pub(crate) enum Origin {
    /// A member; the orchestrator counts its connections.
    Member { id: IdentityId, admission: Arc<Admission> },
    /// Somebody who joins. Dropped with the connection, the place is free for another, and whoever limits its life hears of
    /// the end.
    Newcomer { _place: Place, _held: oneshot::Sender<()> },
    /// This program, which has an endpoint for it alone.
    Dialed { address: String, endpoint: quinn::Endpoint },
}

/// Why a stream could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// All streams that the other side allows were in use for [`OPEN_TIMEOUT`].
    #[error("the other side allows no further stream")]
    NoStream,
    /// The connection ended.
    #[error("the connection ended")]
    Closed(#[source] CloseReason),
}

impl Connection {
    pub(crate) fn new(quinn: quinn::Connection, peer: PeerIdentity, protocol: Protocol, origin: Origin) -> Self {
        Self { inner: Arc::new(Inner::new(quinn, origin)), peer, protocol }
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &PeerIdentity {
        &self.peer
    }

    /// What was negotiated.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Opens a stream: `Out` is what this side sends on it, `In` what comes back. The other side hears of it with the first
    /// frame, so whoever opens must speak first. Waits [`OPEN_TIMEOUT`] at most.
    pub async fn open_bi<Out: Message, In: Message>(&self) -> Result<(FrameWriter<Out>, FrameReader<In>), OpenError> {
        self.inner.open_bi().await
    }

    /// Waits for the next stream that the other side opens. Safe to cancel.
    pub async fn accept_bi<Out: Message, In: Message>(
        &self,
    ) -> Result<(FrameWriter<Out>, FrameReader<In>), CloseReason> {
        self.inner.accept_bi().await
    }

    /// Bytes that both ends of this one connection know and nobody else: a proof that is bound to them is worth nothing on
    /// another connection.
    pub fn exporter(&self) -> Exporter {
        self.inner.exporter(RENEWAL_CONTEXT)
    }

    /// Lets the peer have this many streams at once, up to the protocol's most; before, it has one. Gives the number, which
    /// the frame of welcome tells. Call it when the peer has said who it is and may go on.
    pub fn authorise(&self, streams: u32) -> u32 {
        let streams = streams.min(self.protocol.streams_max());
        self.inner.quinn.set_max_concurrent_bi_streams(VarInt::from_u32(streams));
        streams
    }

    /// Closes the connection and all its streams at once. What was written but not yet acknowledged may be lost. The reason
    /// is for the other side's people; none is sent that could not be shown to them.
    pub fn close(&self, code: CloseCode, reason: &str) {
        self.inner.close(code, reason);
    }

    /// As [`Connection::close`], and waits until the other side has heard of it, [`CLOSE_TIMEOUT`] at most. For a program
    /// that ends right after.
    pub async fn close_and_wait(&self, code: CloseCode, reason: &str) {
        self.inner.close_and_wait(code, reason).await;
    }

    /// Waits for the end of the connection.
    pub async fn closed(&self) -> CloseReason {
        self.inner.quinn.closed().await.into()
    }

    /// How it ended, or `None` while it lives.
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.inner.quinn.close_reason().map(CloseReason::from)
    }

    /// Waits for the end and puts it as the failure to connect that it is, when it comes before the frame of welcome: the
    /// orchestrator judges our certificate only after [`crate::connect`] has returned. Call it once a read or write failed,
    /// with a limit on the wait.
    pub async fn why_refused(&self) -> ConnectError {
        let address = match &self.inner.origin {
            Origin::Dialed { address, .. } => address.clone(),
            Origin::Member { .. } | Origin::Newcomer { .. } => self.remote_address().to_string(),
        };
        ConnectError::from_close(&address, self.closed().await)
    }

    /// The path's current round trip.
    pub fn rtt(&self) -> Duration {
        self.inner.quinn.rtt()
    }

    /// Datagrams that have come from the peer so far, and only ever more. While the other side lives, one comes in every
    /// [`KEEP_ALIVE`](crate::settings::KEEP_ALIVE) and the round trip, even if nobody has anything to say.
    pub fn datagrams_received(&self) -> u64 {
        self.inner.quinn.stats().udp_rx.datagrams
    }

    /// Where the peer is now. It may change while the connection lives, so it identifies nobody.
    pub fn remote_address(&self) -> SocketAddr {
        self.inner.quinn.remote_address()
    }

    /// A number that no other live connection of this program has.
    pub fn id(&self) -> usize {
        self.inner.quinn.stable_id()
    }
}

impl Inner {
    pub(crate) fn new(quinn: quinn::Connection, origin: Origin) -> Self {
        Self { quinn, origin, bad_frames: Mutex::default() }
    }

    pub(crate) async fn open_bi<Out: Message, In: Message>(
        self: &Arc<Self>,
    ) -> Result<(FrameWriter<Out>, FrameReader<In>), OpenError> {
        match tokio::time::timeout(OPEN_TIMEOUT, self.quinn.open_bi()).await {
            Ok(Ok((send, recv))) => Ok(self.typed(send, recv)),
            Ok(Err(error)) => Err(OpenError::Closed(error.into())),
            Err(_) => Err(OpenError::NoStream),
        }
    }

    pub(crate) async fn accept_bi<Out: Message, In: Message>(
        self: &Arc<Self>,
    ) -> Result<(FrameWriter<Out>, FrameReader<In>), CloseReason> {
        let (send, recv) = self.quinn.accept_bi().await?;
        Ok(self.typed(send, recv))
    }

    fn typed<Out: Message, In: Message>(
        self: &Arc<Self>,
        send: quinn::SendStream,
        recv: quinn::RecvStream,
    ) -> (FrameWriter<Out>, FrameReader<In>) {
        (FrameWriter::new(send, self.clone()), FrameReader::new(recv, self.clone()))
    }

    pub(crate) fn exporter(&self, context: &[u8]) -> Exporter {
        let mut bytes = [0; 32];
        let exported = self.quinn.export_keying_material(&mut bytes, EXPORTER_LABEL, context);
        exported.expect("the handshake is over, and 32 bytes are few");
        Exporter(bytes)
    }

    pub(crate) fn close(&self, code: CloseCode, reason: &str) {
        self.quinn.close(code.into(), reason.as_bytes());
    }

    pub(crate) async fn close_and_wait(&self, code: CloseCode, reason: &str) {
        self.close(code, reason);
        match &self.origin {
            // Giving up early costs the other side nothing but the time until it notices the silence.
            Origin::Dialed { endpoint, .. } => drop(tokio::time::timeout(CLOSE_TIMEOUT, endpoint.wait_idle()).await),
            Origin::Member { .. } | Origin::Newcomer { .. } => {}
        }
    }

    /// Counts a bad frame, and closes the connection if it is one too many.
    pub(crate) fn count_bad_frame(&self, what: &str) {
        let kept_out = match &self.origin {
            Origin::Member { id, admission } => admission.offended(*id),
            Origin::Newcomer { .. } | Origin::Dialed { .. } => false,
        };
        let penalty = match self.bad_frames.lock().unwrap_or_else(PoisonError::into_inner).record(Instant::now()) {
            Penalty::Stream if kept_out => Penalty::Connection,
            penalty => penalty,
        };
        let (remote, peer) = (self.quinn.remote_address(), self.member().map(tracing::field::display));
        tracing::warn!(%remote, peer, ?penalty, what, "bad frame");
        match penalty {
            Penalty::Stream => {}
            Penalty::Connection => self.close(CloseCode::BadFrame, what),
        }
    }

    fn member(&self) -> Option<IdentityId> {
        match &self.origin {
            Origin::Member { id, .. } => Some(*id),
            Origin::Newcomer { .. } | Origin::Dialed { .. } => None,
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        match &self.origin {
            Origin::Member { id, admission } => admission.forget(id),
            Origin::Newcomer { .. } | Origin::Dialed { .. } => {}
        }
    }
}
