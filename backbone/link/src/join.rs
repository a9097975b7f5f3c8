//! The join port, both ends: where somebody who has a token and no certificate yet asks for one.
//!
//! The newcomer knows the orchestrator by the digest of its root's public key, which the token carries; the orchestrator
//! knows nothing of the newcomer but that it is at its address. So a connection has one stream, 64 KiB and 10 s, and what
//! the newcomer claims it must prove in what it says. The main port and this one share no settings: neither takes a
//! connection that was meant for the other.
//!
//! ```text
//! packets → endpoint → retry, always → place of its source → handshake, 5 s → accept() → one stream → closed after 10 s
//! ```

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use modchain_certs::channel::JOIN_CONTEXT;
use modchain_certs::{Credentials, Exporter, RootPin, TlsError};
use modchain_wire::{ALPN_JOIN, Message};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::rustls::pki_types::CertificateDer;
use quinn::{Incoming, TokioRuntime, VarInt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::code::{Alert, CloseCode, CloseReason, Side};
use crate::connection::{Inner, OpenError, Origin};
use crate::dial::{self, ConnectError, Dialed};
use crate::endpoint::BindError;
use crate::gate::{self, Classify, Gate, Place, Proof};
use crate::settings::{JOIN_LIFE, JOIN_QUEUE, JOINS_MAX, join_client_transport, join_server_config};
use crate::socket::{Buffers, bind_socket};
use crate::stats::EndpointStats;
use crate::stream::{FrameReader, FrameWriter};

/// The orchestrator's join port. Dropped, it stops taking newcomers and lets go of those that are there.
pub struct JoinEndpoint {
    quinn: quinn::Endpoint,
    buffers: Buffers,
    gate: Arc<Gate>,
    joining: tokio::sync::Mutex<mpsc::Receiver<Joining>>,
    newcomers: Mutex<Option<JoinHandle<()>>>,
}

/// Somebody who joins. Nothing about it is known but what is here. It is closed when this and its stream are dropped; what
/// was written to it and not yet delivered is then lost, so wait for [`FrameWriter::delivered`] and then
/// [`Joining::close`].
pub struct Joining {
    /// Where it is, which it has proved.
    pub remote: SocketAddr,
    /// Bytes that both ends of this one connection know and nobody else.
    pub exporter: Exporter,
    inner: Arc<Inner>,
}

/// A newcomer's connection to the orchestrator that its token names.
pub struct JoinLink {
    inner: Arc<Inner>,
    root: CertificateDer<'static>,
    exporter: Exporter,
}

impl JoinEndpoint {
    /// Listens on `address`; port 0 takes a free one. Must be called within a tokio runtime.
    pub fn bind(address: SocketAddr, credentials: &Credentials) -> Result<Self, BindError> {
        Self::bind_with(address, credentials, gate::source_of)
    }

    fn bind_with(address: SocketAddr, credentials: &Credentials, classify: Classify) -> Result<Self, BindError> {
        let server = shown(credentials)?;
        let failed = |source| BindError::Socket { address, source };
        let (socket, buffers) = bind_socket(address).map_err(failed)?;
        // Keys of its own, new at every start. Were they the main port's, this port, which does not know the main port's
        // connections, would tell strangers how to reset them (RFC 9000, 21.11).
        let config = quinn::EndpointConfig::default();
        let quinn = quinn::Endpoint::new(config, Some(server), socket, Arc::new(TokioRuntime)).map_err(failed)?;
        let (sender, joining) = mpsc::channel(JOIN_QUEUE);
        let gate = Arc::new(Gate::new(JOINS_MAX, Proof::Always, classify));
        let door = gate.clone();
        let welcome = move |incoming, place| welcome(incoming, place, door.clone(), sender.clone());
        let newcomers = tokio::spawn(gate::take_newcomers(quinn.clone(), gate.clone(), welcome));
        Ok(Self {
            quinn,
            buffers,
            gate,
            joining: tokio::sync::Mutex::new(joining),
            newcomers: Mutex::new(Some(newcomers)),
        })
    }

    /// Shows newcomers another certificate of the same orchestrator from now on.
    pub fn show(&self, credentials: &Credentials) -> Result<(), TlsError> {
        self.quinn.set_server_config(Some(shown(credentials)?));
        Ok(())
    }

    /// The next newcomer; `None` once the endpoint is closed. Safe to cancel.
    pub async fn accept(&self) -> Option<Joining> {
        self.joining.lock().await.recv().await
    }

    /// Where it listens.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.quinn.local_addr()
    }

    /// What the system gave for the socket's buffers.
    pub fn buffers(&self) -> Buffers {
        self.buffers
    }

    /// Who is there and who was refused, at this moment.
    pub fn stats(&self) -> EndpointStats {
        let places = &self.gate.places;
        self.gate.tally.stats(places.established(), places.half_open(), self.buffers)
    }

    /// Closes every connection and takes no more; then waits until the newcomers have heard of it, `limit` at most.
    pub async fn close(&self, code: CloseCode, reason: &str, limit: Duration) {
        self.quinn.close(code.into(), reason.as_bytes());
        self.stop_newcomers();
        if tokio::time::timeout(limit, self.quinn.wait_idle()).await.is_err() {
            tracing::info!("some newcomers did not confirm the close in time");
        }
    }

    fn stop_newcomers(&self) {
        if let Some(task) = self.newcomers.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}

impl Drop for JoinEndpoint {
    fn drop(&mut self) {
        self.quinn.close(CloseCode::GoingAway.into(), b"");
        self.stop_newcomers();
    }
}

fn shown(credentials: &Credentials) -> Result<quinn::ServerConfig, TlsError> {
    let tls = modchain_certs::join_server_config(credentials, &[ALPN_JOIN])?;
    let crypto = QuicServerConfig::try_from(tls).expect("ring has the cipher suite that QUIC begins with");
    Ok(join_server_config(Arc::new(crypto)))
}

/// Has one newcomer from its first packet to its end.
async fn welcome(incoming: Incoming, place: Place, gate: Arc<Gate>, sender: mpsc::Sender<Joining>) {
    let end = Instant::now() + JOIN_LIFE;
    let remote = incoming.remote_address();
    let Some(quinn) = gate::shake_hands(incoming, &gate).await else { return };
    // What TLS let it have, it has; from here on nothing is given in exchange for what was used up. So its one stream is
    // the only one ever, and the first window is all that it may send.
    quinn.set_max_concurrent_bi_streams(VarInt::from_u32(0));
    quinn.set_receive_window(VarInt::from_u32(0));
    let (held, let_go) = oneshot::channel();
    let origin = Origin::Newcomer { _place: place.keep(), _held: held };
    let inner = Arc::new(Inner::new(quinn, origin));
    let exporter = inner.exporter(JOIN_CONTEXT);
    let weak = Arc::downgrade(&inner);
    let life = async {
        // An error means that the endpoint is going away.
        let _ = sender.send(Joining { remote, exporter, inner }).await;
        // Never a value: it ends when the last holder lets go.
        let _ = let_go.await;
    };
    if tokio::time::timeout_at(end, life).await.is_err()
        && let Some(inner) = weak.upgrade()
    {
        tracing::info!(%remote, "joining took too long");
        inner.close(CloseCode::TimeUp, "");
    }
}

impl Joining {
    /// Waits for the newcomer's one stream. Safe to cancel.
    pub async fn accept_bi<Out: Message, In: Message>(
        &self,
    ) -> Result<(FrameWriter<Out>, FrameReader<In>), CloseReason> {
        self.inner.accept_bi().await
    }

    /// Closes the connection at once. What was written but not yet acknowledged may be lost.
    pub fn close(&self, code: CloseCode, reason: &str) {
        self.inner.close(code, reason);
    }

    /// Waits for the end of the connection; it comes within [`JOIN_LIFE`].
    pub async fn closed(&self) -> CloseReason {
        self.inner.quinn.closed().await.into()
    }
}

/// Connects to the join port at `address`, written as `HOST:PORT` with the brackets of IPv6, of the orchestrator whose root
/// has a public key of this digest. Returns only when it has proved to be that one. Tries addresses as [`crate::connect`].
pub async fn join_connect(pin: RootPin, address: &str) -> Result<JoinLink, ConnectError> {
    let tls = modchain_certs::join_client_config(pin, &[ALPN_JOIN])?;
    let crypto = QuicClientConfig::try_from(tls).expect("ring has the cipher suite that QUIC begins with");
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(join_client_transport()));
    let Dialed { quinn, endpoint } = dial::dial(&config, address, meaning).await?;
    let root = dial::peer_chain(&quinn).and_then(|mut chain| chain.pop());
    let root = root.ok_or_else(|| ConnectError::OtherThanToken { address: address.to_owned() })?;
    let inner = Arc::new(Inner::new(quinn, Origin::Dialed { address: address.to_owned(), endpoint }));
    let exporter = inner.exporter(JOIN_CONTEXT);
    Ok(JoinLink { inner, root, exporter })
}

/// What the end of a newcomer's handshake means.
fn meaning(address: &str, reason: CloseReason) -> ConnectError {
    let address = address.to_owned();
    match reason {
        CloseReason::Handshake { alert: Alert::NO_APPLICATION_PROTOCOL, .. } => ConnectError::NotJoinPort { address },
        CloseReason::Handshake { alert: Alert::CERTIFICATE_EXPIRED, by: Side::Here } => {
            ConnectError::OrchestratorExpired { address }
        }
        CloseReason::Handshake { alert, by: Side::Here } if alert.about_certificate() => {
            ConnectError::OtherThanToken { address }
        }
        reason => ConnectError::from_close(&address, reason),
    }
}

impl JoinLink {
    /// The orchestrator's root, whose public key is the one that was asked for.
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// Bytes that both ends of this one connection know and nobody else.
    pub fn exporter(&self) -> Exporter {
        self.exporter
    }

    /// Where the orchestrator is.
    pub fn remote_address(&self) -> SocketAddr {
        self.inner.quinn.remote_address()
    }

    /// Opens the one stream that there may be; a second call fails with [`OpenError::NoStream`], after a wait. The other
    /// side hears of it with the first frame.
    pub async fn open_bi<Out: Message, In: Message>(&self) -> Result<(FrameWriter<Out>, FrameReader<In>), OpenError> {
        self.inner.open_bi().await
    }

    /// Closes the connection and waits until the other side has heard of it, [`crate::settings::CLOSE_TIMEOUT`] at most.
    pub async fn close_and_wait(&self, code: CloseCode, reason: &str) {
        self.inner.close_and_wait(code, reason).await;
    }

    /// Waits for the end of the connection.
    pub async fn closed(&self) -> CloseReason {
        self.inner.quinn.closed().await.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::HANDSHAKES_PER_SOURCE;
    use crate::stats::Refusal;
    use modchain_certs::{Authority, Subject};
    use std::net::Ipv4Addr;
    use std::time::{Instant, SystemTime};

    const PATIENCE: Duration = Duration::from_secs(60);

    async fn soon<T>(future: impl Future<Output = T>) -> T {
        tokio::time::timeout(PATIENCE, future).await.expect("in time")
    }

    #[tokio::test]
    async fn one_address_cannot_take_every_place_and_another_still_gets_in() {
        let dir = tempfile::tempdir().expect("directory");
        let authority = Authority::create(&dir.path().join("ca"), SystemTime::now()).expect("authority");
        let credentials =
            authority.issue(Subject::ORCHESTRATOR, Duration::from_secs(3600), SystemTime::now()).expect("issues");
        let root = quinn::rustls::server::ParsedCertificate::try_from(authority.root()).expect("a certificate");
        let digest = ring::digest::digest(&ring::digest::SHA256, &root.subject_public_key_info());
        let pin = RootPin(digest.as_ref().try_into().expect("32 bytes"));
        let first = Instant::now();
        // Each has its place as long as a newcomer may stay, so all must come before the first one has to go.
        let (endpoint, address, mut held, one_more, stats) = loop {
            let began = Instant::now();
            // Here loopback addresses count as any other.
            let endpoint = JoinEndpoint::bind_with((Ipv4Addr::LOCALHOST, 0).into(), &credentials, Some);
            let endpoint = endpoint.expect("listens");
            let address = endpoint.local_address().expect("bound").to_string();
            let mut held = Vec::new();
            for _ in 0..HANDSHAKES_PER_SOURCE {
                let both = async { tokio::join!(join_connect(pin, &address), endpoint.accept()) };
                let (link, joining) = soon(both).await;
                held.push((link.expect("connects"), joining.expect("accepts")));
            }
            let one_more = soon(join_connect(pin, &address)).await;
            let stats = endpoint.stats();
            if began.elapsed() < JOIN_LIFE * 3 / 4 {
                break (endpoint, address, held, one_more, stats);
            }
            assert!(first.elapsed() < PATIENCE, "this machine is too slow for so many newcomers");
        };
        let error = one_more.err().expect("one too many");
        assert!(matches!(error, ConnectError::Busy { .. }) && error.retryable(), "{error:?}");
        assert_eq!((stats.connections, stats.refused_for(Refusal::Source)), (HANDSHAKES_PER_SOURCE, 1));

        let tls = modchain_certs::join_client_config(pin, &[ALPN_JOIN]).expect("settings");
        let crypto = QuicClientConfig::try_from(tls).expect("QUIC");
        let elsewhere = quinn::Endpoint::client((Ipv4Addr::new(127, 0, 0, 2), 0).into()).expect("socket");
        let config = quinn::ClientConfig::new(Arc::new(crypto));
        let remote = endpoint.local_address().expect("bound");
        let connecting = elsewhere.connect_with(config, remote, modchain_certs::ORCHESTRATOR_NAME).expect("connects");
        let (other, joining) = soon(async { tokio::join!(connecting, endpoint.accept()) }).await;
        assert!(other.is_ok() && joining.expect("accepts").remote.ip() == Ipv4Addr::new(127, 0, 0, 2));

        // One goes, and its place is another's.
        held.pop();
        let (link, joining) = soon(async { tokio::join!(join_connect(pin, &address), endpoint.accept()) }).await;
        let link = link.expect("connects");
        assert_eq!(link.exporter().0, joining.expect("accepts").exporter.0);
    }
}
