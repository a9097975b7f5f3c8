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
    deny: Option<Arc<dyn DenyList>>,
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
        let server = judged_by(credentials, deny.clone())?;
        let failed = |source| BindError::Socket { address, source };
        let (socket, buffers) = bind_socket(address).map_err(failed)?;
        let quinn = quinn::Endpoint::new(endpoint_config(keys), Some(server), socket, Arc::new(TokioRuntime))
            .map_err(failed)?;
        let (sender, accepted) = mpsc::channel(ACCEPTED_QUEUE);
        let admission = Arc::new(Admission::default());
        let gate = Arc::new(Gate::new(HANDSHAKES_MAX, Proof::UnderLoad, classify));
        let domain = credentials.trust_domain().clone();
        let door =
            Arc::new(Door { gate: gate.clone(), domain, deny: deny.clone(), admission: admission.clone(), sender });
        let welcome = move |incoming, place| welcome(incoming, place, door.clone());
        let handshakes = tokio::spawn(gate::take_newcomers(quinn.clone(), gate.clone(), welcome));
        Ok(Self {
            quinn,
            buffers,
            deny,
            gate,
            admission,
            accepted: tokio::sync::Mutex::new(accepted),
            handshakes: Mutex::new(Some(handshakes)),
        })
    }

    /// Shows newcomers another certificate of the same orchestrator from now on; connections that are there stay.
    pub fn show(&self, credentials: &Credentials) -> Result<(), TlsError> {
        self.quinn.set_server_config(Some(judged_by(credentials, self.deny.clone())?));
        Ok(())
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

    /// How many live connections this identity has.
    pub fn connections_of(&self, id: &IdentityId) -> usize {
        let connections = self.admission.of(id);
        connections.iter().filter(|connection| connection.quinn.close_reason().is_none()).count()
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

/// What newcomers meet: these credentials, and a judge of theirs.
fn judged_by(credentials: &Credentials, deny: Option<Arc<dyn DenyList>>) -> Result<quinn::ServerConfig, TlsError> {
    let tls = modchain_certs::server_config(credentials, &Protocol::ALL.map(Protocol::alpn), deny)?;
    let crypto = QuicServerConfig::try_from(tls).expect("ring has the cipher suite that QUIC begins with");
    Ok(server_config(Arc::new(crypto)))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{HANDSHAKE_TIMEOUT, HANDSHAKES_BEFORE_RETRY, HANDSHAKES_PER_SOURCE};
    use bytes::BytesMut;
    use modchain_certs::{Authority, Subject};
    use modchain_types::Role;
    use quinn::crypto::rustls::QuicClientConfig;
    use quinn_proto::DatagramEvent;
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::{Instant, SystemTime};
    use tokio::net::UdpSocket;

    /// Where the crowd comes from; everybody else comes from 127.0.0.1.
    const CROWDED: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));

    /// Longest wait for anything that must happen.
    const PATIENCE: Duration = Duration::from_secs(60);

    /// How the endpoint answered a client that begins a handshake and falls silent.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Answer {
        /// It went on with the handshake at once.
        GoOn,
        /// It went on after the address was proved.
        GoOnProved,
        /// It refused, after the address was proved.
        Refuse,
    }

    /// Begins a handshake, proves its address if asked to, and says no more.
    async fn begin(config: &quinn::ClientConfig, remote: SocketAddr) -> (UdpSocket, Answer) {
        let socket = UdpSocket::bind((CROWDED, 0)).await.expect("socket");
        socket.connect(remote).await.expect("connects");
        let config_of_endpoint = Arc::new(quinn_proto::EndpointConfig::default());
        let mut client = quinn_proto::Endpoint::new(config_of_endpoint, None, true, None);
        let (_, mut connection) = client
            .connect(Instant::now(), config.clone(), remote, modchain_certs::ORCHESTRATOR_NAME)
            .expect("a connection");
        let mut proved = false;
        loop {
            let mut packet = Vec::new();
            let transmit = connection.poll_transmit(Instant::now(), 1, &mut packet).expect("a first packet");
            socket.send(&packet[..transmit.size]).await.expect("sends");
            let mut answer = [0; 2048];
            let reading = tokio::time::timeout(PATIENCE, socket.recv(&mut answer));
            let length = reading.await.expect("in time").expect("an answer");
            if answer[0] & 0xf0 == 0xf0 {
                proved = true;
                let event =
                    client.handle(Instant::now(), remote, None, None, BytesMut::from(&answer[..length]), &mut packet);
                let Some(DatagramEvent::ConnectionEvent(_, event)) = event else { panic!("the retry is not ours") };
                connection.handle_event(event);
                continue;
            }
            // A refusal is one small packet, the first flight of a handshake fills its datagram.
            let refused = length < 1200;
            assert!(proved || !refused, "nobody is refused who has not been asked for proof");
            let answer = match (proved, refused) {
                (_, true) => Answer::Refuse,
                (true, false) => Answer::GoOnProved,
                (false, false) => Answer::GoOn,
            };
            return (socket, answer);
        }
    }

    #[tokio::test]
    async fn a_crowd_of_slow_handshakes_from_one_address_leaves_room_for_others() {
        let dir = tempfile::tempdir().expect("directory");
        let now = SystemTime::now();
        let authority = Authority::create(&dir.path().join("ca"), now).expect("authority");
        let hour = Duration::from_secs(3600);
        let orchestrator = authority.issue(Subject::ORCHESTRATOR, hour, now).expect("issues");
        let keys = EndpointKeys::load_or_create(&dir.path().join("quic")).expect("keys");
        let member = |number: u8| {
            let subject = Subject::member(Role::Node, IdentityId([number; 16])).expect("a member");
            authority.issue(subject, hour, now).expect("issues")
        };
        let tls = modchain_certs::client_config(&member(1), &[Protocol::Agent.alpn()]).expect("settings");
        let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).expect("QUIC")));
        let first = Instant::now();
        // Each of the crowd has its place until the time for a handshake is over, so all of it must come before that.
        let (endpoint, remote, _crowd, answers, stats) = loop {
            let began = Instant::now();
            // Here loopback addresses count as any other.
            let endpoint = Endpoint::bind_with((Ipv4Addr::LOCALHOST, 0).into(), &orchestrator, &keys, None, Some);
            let endpoint = endpoint.expect("listens");
            let remote = endpoint.local_address().expect("bound");
            let (mut crowd, mut answers) = (Vec::new(), Vec::new());
            for _ in 0..2 * HANDSHAKES_PER_SOURCE + 10 {
                let (socket, answer) = begin(&config, remote).await;
                crowd.push(socket);
                answers.push(answer);
            }
            let stats = endpoint.stats();
            println!("a crowd of {} in {:?}: {stats:?}", crowd.len(), began.elapsed());
            if began.elapsed() < HANDSHAKE_TIMEOUT * 3 / 4 {
                break (endpoint, remote, crowd, answers, stats);
            }
            assert!(first.elapsed() < PATIENCE, "this machine is too slow for so many handshakes");
        };
        let count = |wanted| answers.iter().filter(|answer| **answer == wanted).count();
        assert_eq!(HANDSHAKES_PER_SOURCE, HANDSHAKES_BEFORE_RETRY, "else the two counts below differ");
        let counts = [Answer::GoOn, Answer::GoOnProved, Answer::Refuse].map(count);
        assert_eq!(counts, [HANDSHAKES_PER_SOURCE, HANDSHAKES_PER_SOURCE, 10]);
        assert_eq!((stats.handshakes, stats.refused_for(Refusal::Source)), (2 * HANDSHAKES_PER_SOURCE, 10));
        // Somebody else, while the crowd holds what it has.
        let (node, address) = (member(2), remote.to_string());
        let connected = async { tokio::join!(dial::connect(&node, &address, Protocol::Agent), endpoint.accept()) };
        let (client, accepted) = tokio::time::timeout(PATIENCE, connected).await.expect("in time");
        assert_eq!(client.expect("connects").exporter().0, accepted.expect("accepted").connection.exporter().0);
    }
}
