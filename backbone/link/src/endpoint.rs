//! The orchestrator's endpoint: one UDP socket, one task that takes handshakes, and a queue of admitted connections.
//!
//! ```text
//! packets → endpoint → (retry, when many are half open) → place of its source → handshake, 5 s → identity, role, limit,
//!     deny list → accept()
//! ```

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use modchain_certs::{Credentials, DenyList, PeerIdentity, TlsError, TrustDomain};
use modchain_types::IdentityId;
use quinn::crypto::rustls::{HandshakeData, QuicServerConfig};
use quinn::{Incoming, TokioRuntime, VarInt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::admission::Admission;
use crate::code::CloseCode;
use crate::connection::{Connection, Origin};
use crate::dial;
use crate::gate::{self, Classify, Gate, Place, Proof};
use crate::keys::EndpointKeys;
use crate::settings::{ACCEPTED_QUEUE, HANDSHAKES_MAX, Protocol, endpoint_config, server_config};
use crate::socket::{Buffers, bind_socket};
use crate::stats::{EndpointStats, Refusal};

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
    gate: Arc<Gate>,
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
        Self::bind_with(address, credentials, keys, deny, gate::source_of)
    }

    fn bind_with(
        address: SocketAddr,
        credentials: &Credentials,
        keys: &EndpointKeys,
        deny: Option<Arc<dyn DenyList>>,
        classify: Classify,
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
        let gate = Arc::new(Gate::new(HANDSHAKES_MAX, Proof::UnderLoad, classify));
        let domain = credentials.trust_domain().clone();
        let door = Arc::new(Door { gate: gate.clone(), domain, deny, admission: admission.clone(), sender });
        let welcome = move |incoming, place| welcome(incoming, place, door.clone());
        let handshakes = tokio::spawn(gate::take_newcomers(quinn.clone(), gate.clone(), welcome));
        Ok(Self {
            quinn,
            buffers,
            gate,
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

    /// Who is there and who was refused, at this moment.
    pub fn stats(&self) -> EndpointStats {
        self.gate.tally.stats(self.admission.live(), self.gate.places.half_open(), self.buffers)
    }

    /// Closes every connection of one identity, and gives their number. Those that wait for [`Endpoint::accept`] are among
    /// them. Put the identity on the deny list first: then a connection that is not among them, because it is still in its
    /// handshake, is refused at the end of it.
    pub fn close_identity(&self, id: &IdentityId, code: CloseCode, reason: &str) -> usize {
        let connections = self.admission.of(id);
        let live = connections.iter().filter(|connection| connection.quinn.close_reason().is_none());
        live.map(|connection| connection.close(code, reason)).count()
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

/// What decides about newcomers.
struct Door {
    gate: Arc<Gate>,
    domain: TrustDomain,
    deny: Option<Arc<dyn DenyList>>,
    admission: Arc<Admission>,
    sender: mpsc::Sender<Accepted>,
}

async fn welcome(incoming: Incoming, place: Place, door: Arc<Door>) {
    let remote = incoming.remote_address();
    let Some(quinn) = gate::shake_hands(incoming, &door.gate).await else { return };
    drop(place);
    match admit(&quinn, &door) {
        Ok(accepted) => {
            // An error means that the endpoint is going away, and dropping the connection closes it.
            let _ = door.sender.send(accepted).await;
        }
        Err(why) => {
            tracing::info!(%remote, why = why.word(), "connection refused");
            door.gate.tally.refuse(why);
            quinn.close(why.close_code().into(), b"");
        }
    }
}

/// Judges again what TLS has judged, because a peer may have been denied in between, and then what TLS knows nothing of.
fn admit(quinn: &quinn::Connection, door: &Door) -> Result<Accepted, Refusal> {
    let leaf = dial::peer_leaf(quinn).ok_or(Refusal::Certificate)?;
    let peer = PeerIdentity::from_certificate(&leaf, &door.domain).map_err(|_| Refusal::Certificate)?;
    let protocol = negotiated(quinn).ok_or(Refusal::Protocol)?;
    if !protocol.admits(peer.role) {
        return Err(Refusal::WrongRole);
    }
    let origin = Origin::Member { id: peer.id, admission: door.admission.clone() };
    let connection = Connection::new(quinn.clone(), peer, protocol, origin);
    // Registered first, judged by the deny list second; the one who revokes changes the list first and closes what is
    // registered second (`close_identity`). If the list does not deny yet, it was read before the change, so the connection
    // was registered before the closing began, which finds it. If it was registered after the closing had looked, the list
    // was read after the change and denies. The other way round a connection could slip through between the two.
    let registered = door.admission.register(peer.id, connection.inner(), protocol.connections_max());
    if door.deny.as_ref().is_some_and(|deny| deny.denies(&peer.id, &peer.serial)) {
        return Err(Refusal::Revoked);
    }
    registered?;
    quinn.set_receive_window(VarInt::from_u32(protocol.window_bytes()));
    Ok(Accepted { connection, peer, protocol })
}

fn negotiated(quinn: &quinn::Connection) -> Option<Protocol> {
    let data = quinn.handshake_data()?.downcast::<HandshakeData>().ok()?;
    Protocol::from_alpn(&data.protocol?)
}
