//! Those on the line: one that only listens, and one that answers in the orchestrator's place.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use modchain_certs::{Authority, Subject};
use modchain_types::Span;
use modchain_wire::join::JoinChallenge;
use modchain_wire::{ALPN_JOIN, Message, ToJoiner, WIRE_VERSION};
use quinn::crypto::rustls::QuicServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::UdpSocket;
use tokio::task::{AbortHandle, JoinSet};

use super::joiner::now;

/// Longest datagram.
const DATAGRAM_BYTES_MAX: usize = 64 * 1024;
/// Most that is recorded, so that a test that goes round in circles ends.
const RECORDED_BYTES_MAX: usize = 256 << 20;

/// Passes datagrams on both ways, and keeps them.
pub(crate) struct Wiretap {
    pub(crate) address: String,
    recorded: Arc<Mutex<Recorded>>,
    task: AbortHandle,
}

#[derive(Default)]
struct Recorded {
    up: Vec<u8>,
    down: Vec<u8>,
    datagrams: usize,
}

impl Drop for Wiretap {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Wiretap {
    pub(crate) async fn before(target: &str) -> Self {
        let target: SocketAddr = target.parse().expect("an address");
        let front = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a socket"));
        let address = front.local_addr().expect("bound").to_string();
        let recorded: Arc<Mutex<Recorded>> = Arc::default();
        let task = tokio::spawn(pass_on(front, target, recorded.clone())).abort_handle();
        Self { address, recorded, task }
    }

    /// Every byte of both ways.
    pub(crate) fn recorded(&self) -> Vec<u8> {
        let recorded = self.recorded.lock().expect("sound");
        [&recorded.up[..], &recorded.down].concat()
    }

    /// Bytes up and down.
    pub(crate) fn bytes(&self) -> (usize, usize) {
        let recorded = self.recorded.lock().expect("sound");
        (recorded.up.len(), recorded.down.len())
    }

    /// Datagrams up and down together.
    pub(crate) fn datagrams(&self) -> usize {
        self.recorded.lock().expect("sound").datagrams
    }
}

impl Recorded {
    fn add(&mut self, up: bool, datagram: &[u8]) {
        let side = if up { &mut self.up } else { &mut self.down };
        assert!(side.len() < RECORDED_BYTES_MAX, "too much is said");
        side.extend_from_slice(datagram);
        self.datagrams += 1;
    }
}

async fn pass_on(front: Arc<UdpSocket>, target: SocketAddr, recorded: Arc<Mutex<Recorded>>) {
    // Each caller gets a socket of its own, as behind an address translator.
    let mut callers: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut answers = JoinSet::new();
    let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
    while let Ok((length, caller)) = front.recv_from(&mut datagram).await {
        recorded.lock().expect("sound").add(true, &datagram[..length]);
        if let Entry::Vacant(place) = callers.entry(caller) {
            let back = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a socket"));
            back.connect(target).await.expect("it connects");
            place.insert(back.clone());
            let (front, recorded) = (front.clone(), recorded.clone());
            answers.spawn(async move {
                let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
                // Nobody may be there any more.
                while let Ok(length) = back.recv(&mut datagram).await {
                    recorded.lock().expect("sound").add(false, &datagram[..length]);
                    let _ = front.send_to(&datagram[..length], caller).await;
                }
            });
        }
        // What is lost is sent again.
        let _ = callers[&caller].send(&datagram[..length]).await;
    }
}

/// A key with the certificates to show for it, the holder's own first.
pub(crate) struct Shown {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Shown {
    /// What an orchestrator shows at the join port, from the folder of its identity.
    pub(crate) fn load(dir: &Path) -> Self {
        let read = |file: &str| std::fs::read(dir.join(file)).expect("it is there");
        let certificates = |file: &str| {
            CertificateDer::pem_slice_iter(&read(file)).collect::<Result<Vec<_>, _>>().expect("certificates")
        };
        let key = PrivateKeyDer::from_pem_slice(&read("key.pem")).expect("a key");
        Self { chain: [certificates("cert.pem"), certificates("ca.pem")].concat(), key }
    }

    /// An orchestrator's, of an authority of the attacker's own.
    pub(crate) fn of_other_authority(dir: &Path) -> (Self, Authority) {
        let now = std::time::SystemTime::now();
        let authority = Authority::create(&dir.join("ca"), now).expect("an authority");
        let life = Span::from_secs(3600).into();
        authority
            .issue(Subject::ORCHESTRATOR, life, now)
            .expect("it issues")
            .save(&dir.join("tls"))
            .expect("it is kept");
        (Self::load(&dir.join("tls")), authority)
    }
}

/// Ends TLS in the orchestrator's place, and keeps what it can read. It answers whatever comes with a challenge, so
/// that a joiner goes on.
pub(crate) struct Impostor {
    pub(crate) address: String,
    read: Arc<Mutex<Vec<u8>>>,
    joined: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
    task: AbortHandle,
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Impostor {
    pub(crate) fn listen(shown: Shown) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(shown.chain, shown.key)
            .expect("a key and its certificate");
        tls.alpn_protocols = vec![ALPN_JOIN.to_vec()];
        // Also what a careless client sends early.
        tls.max_early_data_size = u32::MAX;
        let crypto = QuicServerConfig::try_from(tls).expect("QUIC");
        let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        let endpoint = quinn::Endpoint::server(config, (Ipv4Addr::LOCALHOST, 0).into()).expect("it listens");
        let address = endpoint.local_addr().expect("bound").to_string();
        let (read, joined, refused) = (Arc::<Mutex<Vec<u8>>>::default(), Arc::default(), Arc::default());
        let task = tokio::spawn(impersonate(endpoint, read.clone(), Arc::clone(&joined), Arc::clone(&refused)));
        Self { address, read, joined, refused, task: task.abort_handle() }
    }

    /// Every byte that it could read.
    pub(crate) fn read(&self) -> Vec<u8> {
        self.read.lock().expect("sound").clone()
    }

    /// Whose handshakes came to their end, and who broke theirs off.
    pub(crate) fn seen(&self) -> (usize, usize) {
        (self.joined.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed))
    }
}

async fn impersonate(
    endpoint: quinn::Endpoint,
    read: Arc<Mutex<Vec<u8>>>,
    joined: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
) {
    let mut victims = JoinSet::new();
    while let Some(incoming) = endpoint.accept().await {
        let (read, joined, refused) = (read.clone(), joined.clone(), refused.clone());
        victims.spawn(async move {
            let Ok(connecting) = incoming.accept() else { return };
            let Ok(connection) = connecting.await else {
                refused.fetch_add(1, Ordering::Relaxed);
                return;
            };
            joined.fetch_add(1, Ordering::Relaxed);
            while let Ok((mut out, mut input)) = connection.accept_bi().await {
                let mut asked = false;
                while let Ok(Some(chunk)) = input.read_chunk(DATAGRAM_BYTES_MAX, true).await {
                    read.lock().expect("sound").extend_from_slice(&chunk.bytes);
                    if !asked {
                        asked = true;
                        let _ = out.write_all(&frame(&JoinChallenge { nonce: [1; 32], wall: now() }.into())).await;
                    }
                }
            }
        });
    }
}

/// As it goes over the wire.
fn frame(message: &ToJoiner) -> Vec<u8> {
    let mut body = Vec::new();
    message.encode_body(&mut body).expect("it can be written");
    let length = u32::try_from(body.len()).expect("short").to_le_bytes();
    [&length[..], &[WIRE_VERSION, message.kind()], &body].concat()
}
