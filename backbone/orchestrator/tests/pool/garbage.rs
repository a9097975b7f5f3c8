//! What hostile peers send: streams that make no sense, and handshakes that never go on.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use modchain_certs::ORCHESTRATOR_NAME;
use modchain_link::{CloseCode, CloseReason};
use modchain_wire::WIRE_VERSION;
use quinn::crypto::rustls::QuicClientConfig;
use tokio::task::JoinSet;

use super::raw::Raw;
use crate::peers::{BUSY_PAUSE, PATIENCE};

/// Connections that an offender makes before it sends anything, so that much is under way before it is kept out.
const CONNECTIONS_AT_ONCE: usize = 16;
/// Streams that a console may have at once, beside its hello.
const STREAMS_AT_ONCE: usize = 32;
/// Handshakes that are begun from one port.
const HANDSHAKES_PER_PORT: usize = 20;

/// What came of it all.
#[derive(Debug, Default)]
pub(crate) struct Damage {
    /// Streams that were opened and written to.
    pub(crate) streams: AtomicUsize,
    /// Connections that were let in.
    pub(crate) connections: AtomicUsize,
    /// Connections that were closed because of what was sent on them.
    pub(crate) cut: AtomicUsize,
    /// Connections that were refused because their identity was kept out.
    pub(crate) kept_out: AtomicUsize,
}

/// Kinds of garbage that count as bad frames.
const BAD_KINDS: usize = 6;
/// Kinds that an honest but newer or clumsy peer might send, which cost nobody its connection.
const MILD_KINDS: usize = 4;

/// A frame's header, followed by so many bytes as it says or not.
fn header(body_bytes: u32, version: u8, kind: u8) -> Vec<u8> {
    let length = body_bytes.to_le_bytes();
    [length[0], length[1], length[2], length[3], version, kind].to_vec()
}

/// The bytes of a bad stream.
fn bad(kind: usize, seed: usize) -> Vec<u8> {
    let noise = |bytes: usize| (0..bytes).map(|at| (at.wrapping_mul(167) ^ seed.wrapping_mul(59)) as u8).collect();
    let [job, submit, status] = [0x58, 0x50, 0x65];
    let (start, rest): (Vec<u8>, Vec<u8>) = match kind % BAD_KINDS {
        0 => (header(u32::MAX, WIRE_VERSION, job), noise(100)), // longer than any frame
        1 => (header(8, !WIRE_VERSION, job), noise(8)),         // of another version
        2 => (header(40, WIRE_VERSION, job), vec![0xff; 40]),   // a body that does not decode
        3 => (header(256, WIRE_VERSION, submit), noise(64)),    // the end in the middle of a frame
        4 => (header(64, WIRE_VERSION, status), vec![0; 64]),   // bytes behind the message
        _ => (header(1 << 20, 0xff, 0xff), noise(200)),         // noise from the first byte on
    };
    [start, rest].concat()
}

/// Sends one stream of garbage; tells whether the connection took it.
async fn bad_stream(connection: &quinn::Connection, kind: usize, seed: usize) -> bool {
    let Ok((mut send, mut recv)) = connection.open_bi().await else { return false };
    let sent = send.write_all(&bad(kind, seed)).await.is_ok() && send.finish().is_ok();
    let _ = recv.read_to_end(64 * 1024).await;
    sent
}

/// As [`bad_stream`], with what is no offence.
async fn mild_stream(connection: &quinn::Connection, kind: usize) -> bool {
    let Ok((mut send, mut recv)) = connection.open_bi().await else { return false };
    let sent = match kind % MILD_KINDS {
        // A type that is not known there.
        0 => {
            send.write_all(&[header(4, WIRE_VERSION, 0xf3), vec![0; 4]].concat()).await.is_ok() && send.finish().is_ok()
        }
        // Nothing at all.
        1 => send.finish().is_ok(),
        // Given up at once, in the middle of a frame.
        2 => send.write_all(&header(9, WIRE_VERSION, 0x58)[..5]).await.is_ok() && send.reset(7u32.into()).is_ok(),
        // Half a header, and the answer is not wanted.
        _ => send.write_all(&[0, 0]).await.is_ok() && recv.stop(7u32.into()).is_ok() && send.reset(7u32.into()).is_ok(),
    };
    let _ = recv.read_to_end(64 * 1024).await;
    sent
}

/// Comes in, again and again where it was too slow or the orchestrator too busy. An error means that it is kept out.
async fn enter(raw: &Raw) -> Result<quinn::Connection, CloseReason> {
    let until = Instant::now() + PATIENCE;
    loop {
        match raw.enter().await {
            Err(reason) if !is_for_frames(&reason) => {
                assert!(reason.retryable() && Instant::now() < until, "{reason:?}");
                tokio::time::sleep(BUSY_PAUSE).await;
            }
            entered => return entered,
        }
    }
}

/// Whether it is what bad frames come to.
fn is_for_frames(reason: &CloseReason) -> bool {
    reason.code() == Some(CloseCode::BadFrame)
}

/// Sends bad frames on as many connections as it gets, until it is kept out.
///
/// Where this process is so far behind that the orchestrator has forgotten a connection that it closed, what this side goes
/// on sending is answered by a reset, which hides the reason for the close.
pub(crate) async fn offend(raw: &Raw, damage: &Arc<Damage>) {
    loop {
        let mut open = Vec::new();
        for _ in 0..CONNECTIONS_AT_ONCE {
            let Ok(connection) = enter(raw).await else {
                damage.kept_out.fetch_add(1, Relaxed);
                return;
            };
            open.push(connection);
        }
        damage.connections.fetch_add(open.len(), Relaxed);
        let mut streams = JoinSet::new();
        for (seed, connection) in open.iter().enumerate() {
            for kind in 0..STREAMS_AT_ONCE {
                let (connection, damage) = (connection.clone(), damage.clone());
                streams.spawn(async move {
                    if bad_stream(&connection, kind, seed).await {
                        damage.streams.fetch_add(1, Relaxed);
                    }
                });
            }
        }
        streams.join_all().await;
        for connection in open {
            let reason = CloseReason::from(connection.closed().await);
            if is_for_frames(&reason) || reason == CloseReason::Restarted {
                damage.cut.fetch_add(1, Relaxed);
            } else {
                assert_eq!(reason, CloseReason::Silent, "it may be too slow, and nothing else");
            }
        }
    }
}

/// Goes on with what is no offence until there have been so many streams in all.
pub(crate) async fn pester(raw: &Raw, damage: &Arc<Damage>, streams_in_all: usize) {
    let connection = enter(raw).await.expect("it has not offended");
    damage.connections.fetch_add(1, Relaxed);
    let mut loops = JoinSet::new();
    for kind in 0..STREAMS_AT_ONCE {
        let (connection, damage) = (connection.clone(), damage.clone());
        loops.spawn(async move {
            while damage.streams.load(Relaxed) < streams_in_all {
                assert!(mild_stream(&connection, kind).await, "{:?}", connection.close_reason());
                damage.streams.fetch_add(1, Relaxed);
            }
        });
    }
    loops.join_all().await;
    assert!(connection.close_reason().is_none(), "what is no offence costs no connection");
}

/// Begins so many handshakes, each with another first packet, and goes on with none. Blocks.
pub(crate) fn begin_handshakes(tls: quinn::rustls::ClientConfig, remote: SocketAddr, count: usize) {
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).expect("QUIC")));
    let mut begun = 0;
    while begun < count {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        for _ in 0..HANDSHAKES_PER_PORT.min(count - begun) {
            let own = Arc::new(quinn_proto::EndpointConfig::default());
            let mut client = quinn_proto::Endpoint::new(own, None, true, None);
            let now = Instant::now();
            let (_, mut connection) =
                client.connect(now, config.clone(), remote, ORCHESTRATOR_NAME).expect("a connection");
            let mut packet = Vec::new();
            let transmit = connection.poll_transmit(now, 1, &mut packet).expect("a first packet");
            socket.send_to(&packet[..transmit.size], remote).expect("sends");
            begun += 1;
        }
    }
}
