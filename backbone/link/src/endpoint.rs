//! The orchestrator's endpoint: one UDP socket, one task that takes handshakes, and a queue of admitted connections.
//!
//! ```text
//! packets → endpoint → (retry, when many are half open) → handshake, 5 s → identity, role, deny list, limit → accept()
//! ```

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use modchain_certs::{Credentials, DenyList, PeerIdentity, TlsError, TrustDomain};
use modchain_types::IdentityId;
use quinn::crypto::rustls::{HandshakeData, QuicServerConfig};
use quinn::{Incoming, TokioRuntime, VarInt};
use socket2::{Domain, Socket, Type};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use crate::admission::Admission;
use crate::code::CloseCode;
use crate::connection::{Connection, Origin};
use crate::dial;
use crate::keys::EndpointKeys;
use crate::settings::{
    ACCEPTED_QUEUE, HANDSHAKE_TIMEOUT, HANDSHAKES_BEFORE_RETRY, HANDSHAKES_MAX, Protocol, SOCKET_BUFFER_BYTES,
    endpoint_config, server_config,
};

/// Why the orchestrator cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address is taken, or not this machine's, or not allowed.
    #[error("cannot listen on {address} (UDP)")]
    Socket {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The key and certificate cannot be used.
    #[error("cannot use the orchestrator's certificate")]
    Credentials(#[from] TlsError),
}

/// What the system gave for the socket's buffers, in bytes as it counts them; Linux counts its own overhead and says double.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buffers {
    /// For packets that nobody has read yet.
    pub receive_bytes: usize,
    /// For packets that are not on the wire yet.
    pub send_bytes: usize,
}

impl Buffers {
    /// Whether it is as much as was asked for. If not, raise `net.core.rmem_max` and `net.core.wmem_max`: many agents that
    /// connect at once lose packets otherwise.
    pub fn ample(&self) -> bool {
        self.receive_bytes >= SOCKET_BUFFER_BYTES && self.send_bytes >= SOCKET_BUFFER_BYTES
    }
}

/// A connection whose peer is authenticated, of a fitting role, not denied, and within its limit.
pub struct Accepted {
    /// The connection. Its peer may open one stream until [`Connection::authorise`].
    pub connection: Connection,
    /// Who it is.
    pub peer: PeerIdentity,
    /// What it speaks.
    pub protocol: Protocol,
}

/// The orchestrator's endpoint. Dropped, it stops taking connections.
pub struct Endpoint {
    quinn: quinn::Endpoint,
    buffers: Buffers,
    admission: Arc<Admission>,
    accepted: tokio::sync::Mutex<mpsc::Receiver<Accepted>>,
    handshakes: Mutex<Option<JoinHandle<()>>>,
}

impl Endpoint {
    /// Listens on `address`; port 0 takes a free one. Must be called within a tokio runtime.
    pub fn bind(
        address: SocketAddr,
        credentials: &Credentials,
        keys: &EndpointKeys,
        deny: Option<Arc<dyn DenyList>>,
    ) -> Result<Self, BindError> {
        let tls = modchain_certs::server_config(credentials, &Protocol::ALL.map(Protocol::alpn), deny.clone())?;
        let crypto = QuicServerConfig::try_from(tls).expect("ring has the cipher suite that QUIC begins with");
        let failed = |source| BindError::Socket { address, source };
        let (socket, buffers) = bind_socket(address).map_err(failed)?;
        let quinn = quinn::Endpoint::new(
            endpoint_config(keys),
            Some(server_config(Arc::new(crypto))),
            socket,
            Arc::new(TokioRuntime),
        )
        .map_err(failed)?;
        let (sender, accepted) = mpsc::channel(ACCEPTED_QUEUE);
        let admission = Arc::new(Admission::default());
        let door = Door { domain: credentials.trust_domain().clone(), deny, admission: admission.clone(), sender };
        let handshakes = tokio::spawn(take_handshakes(quinn.clone(), Arc::new(door)));
        Ok(Self {
            quinn,
            buffers,
            admission,
            accepted: tokio::sync::Mutex::new(accepted),
            handshakes: Mutex::new(Some(handshakes)),
        })
    }

    /// The next connection; `None` once the endpoint is closed. Safe to cancel.
    pub async fn accept(&self) -> Option<Accepted> {
        self.accepted.lock().await.recv().await
    }

    /// Where it listens.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.quinn.local_addr()
    }

    /// What the system gave for the socket's buffers.
    pub fn buffers(&self) -> Buffers {
        self.buffers
    }

    /// Closes every connection of one identity, and gives their number.
    pub fn close_identity(&self, id: &IdentityId, code: CloseCode, reason: &str) -> usize {
        let connections = self.admission.of(id);
        let live = connections.iter().filter(|connection| connection.quinn.close_reason().is_none());
        live.map(|connection| Connection::from_inner(connection.clone()).close(code, reason)).count()
    }

    /// Closes every connection and takes no more; then waits until the peers have heard of it, `limit` at most.
    pub async fn close(&self, code: CloseCode, reason: &str, limit: Duration) {
        self.quinn.close(code.into(), reason.as_bytes());
        self.stop_handshakes();
        if tokio::time::timeout(limit, self.quinn.wait_idle()).await.is_err() {
            tracing::info!("some peers did not confirm the close in time");
        }
    }

    fn stop_handshakes(&self) {
        if let Some(task) = self.handshakes.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.stop_handshakes();
    }
}

fn bind_socket(address: SocketAddr) -> io::Result<(std::net::UdpSocket, Buffers)> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(socket2::Protocol::UDP))?;
    if address.is_ipv6() {
        // The address for everybody takes IPv4 as well.
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // The system gives what it allows, and says so below.
    socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.bind(&address.into())?;
    let buffers = Buffers { receive_bytes: socket.recv_buffer_size()?, send_bytes: socket.send_buffer_size()? };
    let Buffers { receive_bytes, send_bytes } = buffers;
    tracing::info!(
        receive_bytes,
        send_bytes,
        asked_bytes = SOCKET_BUFFER_BYTES,
        ample = buffers.ample(),
        "UDP buffers"
    );
    Ok((socket.into(), buffers))
}

/// What decides about newcomers.
struct Door {
    domain: TrustDomain,
    deny: Option<Arc<dyn DenyList>>,
    admission: Arc<Admission>,
    sender: mpsc::Sender<Accepted>,
}

/// Owns every handshake: they end with it.
async fn take_handshakes(endpoint: quinn::Endpoint, door: Arc<Door>) {
    let mut handshakes = JoinSet::new();
    loop {
        tokio::select! {
            // Above the limit newcomers wait in the endpoint, whose queue is bounded.
            incoming = endpoint.accept(), if handshakes.len() < HANDSHAKES_MAX => match incoming {
                Some(incoming) if must_prove_address(&incoming, handshakes.len()) => {
                    // It may retry, so this cannot fail; if it did, the newcomer would send again.
                    let _ = incoming.retry();
                }
                Some(incoming) => drop(handshakes.spawn(handshake(incoming, door.clone()))),
                None => return,
            },
            Some(ended) = handshakes.join_next() => {
                if let Err(error) = ended && error.is_panic() {
                    tracing::error!(%error, "a handshake panicked");
                }
            }
        }
    }
}

/// Answers to an address that somebody else wrote on the packet must stay few.
fn must_prove_address(incoming: &Incoming, half_open: usize) -> bool {
    half_open > HANDSHAKES_BEFORE_RETRY && !incoming.remote_address_validated() && incoming.may_retry()
}

async fn handshake(incoming: Incoming, door: Arc<Door>) {
    let remote = incoming.remote_address();
    let connecting = match incoming.accept() {
        Ok(connecting) => connecting,
        Err(error) => {
            tracing::debug!(%remote, %error, "refused before the handshake");
            return;
        }
    };
    let quinn = match tokio::time::timeout(HANDSHAKE_TIMEOUT, connecting).await {
        Ok(Ok(quinn)) => quinn,
        Ok(Err(error)) => {
            tracing::info!(%remote, %error, "handshake failed");
            return;
        }
        Err(_) => {
            tracing::info!(%remote, "handshake too slow");
            return;
        }
    };
    match admit(&quinn, &door) {
        Ok(accepted) => {
            // An error means that the endpoint is going away, and dropping the connection closes it.
            let _ = door.sender.send(accepted).await;
        }
        Err(code) => {
            tracing::info!(%remote, %code, "connection refused");
            quinn.close(code.into(), b"");
        }
    }
}

/// Judges again what TLS has judged, because a peer may have been denied in between, and then what TLS knows nothing of.
fn admit(quinn: &quinn::Connection, door: &Door) -> Result<Accepted, CloseCode> {
    let leaf = dial::peer_leaf(quinn).ok_or(CloseCode::WrongRole)?;
    let peer = PeerIdentity::from_certificate(&leaf, &door.domain).map_err(|_| CloseCode::WrongRole)?;
    let protocol = negotiated(quinn).ok_or(CloseCode::Version)?;
    if !protocol.admits(peer.role) {
        return Err(CloseCode::WrongRole);
    }
    if door.deny.as_ref().is_some_and(|deny| deny.denies(&peer.id, &peer.serial)) {
        return Err(CloseCode::Revoked);
    }
    let origin = Origin::Accepted { admission: door.admission.clone() };
    let connection = Connection::new(quinn.clone(), peer, protocol, origin);
    door.admission.admit(connection.inner(), protocol.connections_max())?;
    quinn.set_receive_window(VarInt::from_u32(protocol.window_bytes()));
    Ok(Accepted { connection, peer, protocol })
}

fn negotiated(quinn: &quinn::Connection) -> Option<Protocol> {
    let data = quinn.handshake_data()?.downcast::<HandshakeData>().ok()?;
    Protocol::from_alpn(&data.protocol?)
}
