//! Every number of the transport, in one place, with its reason. The functions at the end turn them into what quinn wants.

use std::sync::Arc;
use std::time::Duration;

use modchain_types::Role;
use modchain_wire::{ALPN_AGENT, ALPN_CONSOLE};
use quinn::{IdleTimeout, TransportConfig, ValidationTokenConfig, VarInt};

use crate::keys::EndpointKeys;

/// Silence after which a connection is given up. Heartbeats decide sooner whether a node is gone; this is for the transport.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// How often an agent or console sends something on an idle connection, so that address translators keep the path. One side
/// is enough; the orchestrator sends none.
pub const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Longest handshake: a slow or silent stranger holds a place no longer than this.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Handshakes at once. What comes above it waits in the endpoint, see [`INCOMING_MAX`].
pub const HANDSHAKES_MAX: usize = 256;

/// Handshakes in progress from which on a newcomer must first prove its address by a retry, which costs it a round trip.
pub const HANDSHAKES_BEFORE_RETRY: usize = 64;

/// Handshakes in progress from one IPv4 address or one IPv6 network of 64 bits, so that one place cannot hold all of
/// [`HANDSHAKES_MAX`] with slow ones. Nobody is counted on loopback addresses. A building full of nodes behind one address
/// is served: a handshake takes milliseconds, and who is refused comes back.
pub const HANDSHAKES_PER_SOURCE: usize = HANDSHAKES_MAX / 4;

/// Connection attempts that may wait; more are refused. quinn's default of 65,536 is 100 MiB of strangers' packets.
pub const INCOMING_MAX: usize = 4096;
/// Bytes kept for one waiting attempt: a handshake's first flight is far below it.
pub const INCOMING_BUFFER_BYTES: u64 = 64 * 1024;
/// Bytes kept for all waiting attempts together.
pub const INCOMING_BUFFER_TOTAL_BYTES: u64 = 16 * 1024 * 1024;

/// Connections that are admitted but not yet taken by [`crate::Endpoint::accept`]. Full, handshakes wait in turn.
pub const ACCEPTED_QUEUE: usize = 64;

/// Longest that anybody may stay on the join port, from the first packet on. Joining is two exchanges and one write to disk.
pub const JOIN_LIFE: Duration = Duration::from_secs(10);
/// As [`IDLE_TIMEOUT`], on the join port: longer than anybody may stay, so that who is silent too long is told so and
/// does not merely lose its connection.
pub const JOIN_IDLE: Duration = Duration::from_secs(15);
/// Newcomers on the join port at once, in handshake or after. What comes above it waits, see [`JOIN_INCOMING_MAX`].
pub const JOINS_MAX: usize = 256;
/// Newcomers whose handshake is over but who are not yet taken by [`crate::JoinEndpoint::accept`].
pub const JOIN_QUEUE: usize = 64;
/// All bytes that a newcomer may send in its streams' life, windows included: a signing request and facts about a machine.
pub const JOIN_BYTES: u32 = 64 * 1024;
/// Streams that a newcomer may open, one after the other included.
pub const JOIN_STREAMS: u32 = 1;
/// As [`INCOMING_MAX`], on the join port, which has no thousand old friends that come back at once.
pub const JOIN_INCOMING_MAX: usize = 1024;
/// As [`INCOMING_BUFFER_BYTES`]: a newcomer has no certificate to send.
pub const JOIN_INCOMING_BUFFER_BYTES: u64 = 16 * 1024;
/// As [`INCOMING_BUFFER_TOTAL_BYTES`].
pub const JOIN_INCOMING_BUFFER_TOTAL_BYTES: u64 = 4 * 1024 * 1024;

/// How long the proof of address of a retry is good.
pub const RETRY_TOKEN_LIFETIME: Duration = Duration::from_secs(15);

/// Shortest time between two stateless resets. With quinn's 20 ms a thousand agents learn of a restart over 20 s.
pub const RESET_INTERVAL: Duration = Duration::from_millis(1);

/// Asked of the system for the orchestrator's socket, each way. With the usual 208 KiB, 500 agents that connect at once lose
/// thousands of packets and need 42 s instead of 6 s.
pub const SOCKET_BUFFER_BYTES: usize = 8 * 1024 * 1024;

/// Streams that a peer may open before [`crate::Connection::authorise`].
pub const STREAMS_BEFORE_WELCOME: u32 = 1;
/// Most streams that an agent may be given: one an attempt, two for control and heartbeats, and a margin.
pub const AGENT_STREAMS_MAX: u32 = 60;
/// Most streams that a console may be given: one each for state, followed outputs and running commands.
pub const CONSOLE_STREAMS_MAX: u32 = 32;

/// Bytes that one stream may be ahead of its reader. Fixed before the peer's role is known.
pub const STREAM_WINDOW_BYTES: u32 = 512 * 1024;
/// Bytes that all streams of an agent's connection may be ahead. Must exceed streams × window, or one set of unread streams
/// would stop the control stream.
pub const AGENT_WINDOW_BYTES: u32 = 32 * 1024 * 1024;
/// As [`AGENT_WINDOW_BYTES`], for a console.
pub const CONSOLE_WINDOW_BYTES: u32 = 20 * 1024 * 1024;
/// The window until the role is known: twice what the one stream of a stranger may use.
pub const STRANGER_WINDOW_BYTES: u32 = 2 * STREAM_WINDOW_BYTES;
/// Bytes that are kept for sending until they are acknowledged: memory per connection.
pub const SEND_WINDOW_BYTES: u64 = 8 * 1024 * 1024;

const _: () = assert!(AGENT_STREAMS_MAX * STREAM_WINDOW_BYTES < AGENT_WINDOW_BYTES);
const _: () = assert!(CONSOLE_STREAMS_MAX * STREAM_WINDOW_BYTES < CONSOLE_WINDOW_BYTES);

/// Connections of one node at once: the old and the new one while its certificate is renewed.
pub const NODE_CONNECTIONS_MAX: usize = 2;
/// Connections of one client or operator at once: every command is one.
pub const CLIENT_CONNECTIONS_MAX: usize = 128;

/// Longest wait for a stream when the other side's limit is used up.
pub const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest silence in the middle of a frame. Between frames a stream may be silent for ever.
pub const FRAME_STALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Two bad frames within this time close the connection; one closes its stream alone.
pub const BAD_FRAME_WINDOW: Duration = Duration::from_secs(10);

/// So many bad frames of one identity, on all its connections, within [`COOL_OFF_WINDOW`] put it on a [`COOL_OFF`]: whoever
/// comes back at once after each close is not one that errs now and then.
pub const COOL_OFF_FRAMES: usize = 5;
/// See [`COOL_OFF_FRAMES`].
pub const COOL_OFF_WINDOW: Duration = Duration::from_secs(60);
/// How long after its last bad frame an identity that sent too many is not admitted.
pub const COOL_OFF: Duration = Duration::from_secs(60);

/// Longest wait for one address to answer.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Addresses of one name that are tried in turn.
pub const ADDRESSES_TRIED_MAX: usize = 4;

/// Longest wait, when closing, for the other side to hear of it.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// An application protocol of the main port, negotiated in TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Agents, with the role node.
    Agent,
    /// Consoles and command lines, with the role client or operator.
    Console,
}

impl Protocol {
    /// Every protocol, in the orchestrator's order of preference.
    pub const ALL: [Self; 2] = [Self::Agent, Self::Console];

    /// The name that TLS negotiates, with its major version.
    pub fn alpn(self) -> &'static [u8] {
        match self {
            Self::Agent => ALPN_AGENT,
            Self::Console => ALPN_CONSOLE,
        }
    }

    /// The protocol of this name.
    pub fn from_alpn(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.alpn() == name)
    }

    /// Whether somebody of this role may speak it.
    pub fn admits(self, role: Role) -> bool {
        match (self, role) {
            (Self::Agent, Role::Node) | (Self::Console, Role::Client | Role::Operator) => true,
            (Self::Agent, Role::Client | Role::Operator | Role::Orchestrator)
            | (Self::Console, Role::Node | Role::Orchestrator) => false,
        }
    }

    /// Most streams that [`crate::Connection::authorise`] gives.
    pub fn streams_max(self) -> u32 {
        match self {
            Self::Agent => AGENT_STREAMS_MAX,
            Self::Console => CONSOLE_STREAMS_MAX,
        }
    }

    /// Bytes that all streams of a connection may be ahead of their readers.
    pub fn window_bytes(self) -> u32 {
        match self {
            Self::Agent => AGENT_WINDOW_BYTES,
            Self::Console => CONSOLE_WINDOW_BYTES,
        }
    }

    /// Connections that one identity may have at once.
    pub fn connections_max(self) -> usize {
        match self {
            Self::Agent => NODE_CONNECTIONS_MAX,
            Self::Console => CLIENT_CONNECTIONS_MAX,
        }
    }
}

/// Which stream's bytes go first when there are more than the path takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i32)]
pub enum Priority {
    /// Blobs and other transfers that nobody watches.
    Bulk = -2,
    /// Output and input of jobs.
    JobOutput = -1,
    /// The picture of the pool that a console shows.
    State = 0,
    /// A person waits for the answer.
    Commands = 1,
    /// Assignments, stops, reports.
    Control = 2,
    /// A late heartbeat makes a sound node look lost.
    Heartbeat = 3,
}

fn base() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(IdleTimeout::try_from(IDLE_TIMEOUT).expect("30 s fits")))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .send_window(SEND_WINDOW_BYTES)
        .datagram_receive_buffer_size(None);
    transport
}

/// The orchestrator's side. Windows and streams grow once the peer's role is known.
pub fn server_transport() -> TransportConfig {
    let mut transport = base();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_BEFORE_WELCOME))
        .receive_window(VarInt::from_u32(STRANGER_WINDOW_BYTES))
        .keep_alive_interval(None);
    transport
}

/// The side of agents and consoles. All streams are opened by them, so the orchestrator may open none.
pub fn client_transport(protocol: Protocol) -> TransportConfig {
    let mut transport = base();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .receive_window(VarInt::from_u32(protocol.window_bytes()))
        .keep_alive_interval(Some(KEEP_ALIVE));
    transport
}

/// The orchestrator's side of the join port: little of everything, and not for long.
pub fn join_server_transport() -> TransportConfig {
    let mut transport = join_base();
    transport.max_concurrent_bidi_streams(VarInt::from_u32(JOIN_STREAMS));
    transport
}

/// A newcomer's side of the join port.
pub fn join_client_transport() -> TransportConfig {
    let mut transport = join_base();
    transport.max_concurrent_bidi_streams(VarInt::from_u32(0));
    transport
}

fn join_base() -> TransportConfig {
    let mut transport = base();
    transport
        .max_idle_timeout(Some(IdleTimeout::try_from(JOIN_IDLE).expect("15 s fit")))
        .stream_receive_window(VarInt::from_u32(JOIN_BYTES))
        .receive_window(VarInt::from_u32(JOIN_BYTES))
        .send_window(JOIN_BYTES.into())
        .keep_alive_interval(None);
    transport
}

/// The orchestrator's endpoint: its keys outlive a restart, so peers that still talk to the program that was before learn of
/// it from the first packet they send instead of waiting for [`IDLE_TIMEOUT`].
pub fn endpoint_config(keys: &EndpointKeys) -> quinn::EndpointConfig {
    let mut config = quinn::EndpointConfig::new(Arc::new(keys.reset_key()));
    let cid_key = keys.cid_key();
    config
        .cid_generator(move || Box::new(quinn_proto::HashedConnectionIdGenerator::from_key(cid_key)))
        .min_reset_interval(RESET_INTERVAL);
    config
}

/// What the orchestrator's endpoint does with newcomers.
pub fn server_config(crypto: Arc<dyn quinn::crypto::ServerConfig>) -> quinn::ServerConfig {
    let mut config = quinn::ServerConfig::with_crypto(crypto);
    config
        .transport_config(Arc::new(server_transport()))
        .validation_token_config(no_tokens())
        .retry_token_lifetime(RETRY_TOKEN_LIFETIME)
        .migration(true)
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BUFFER_BYTES)
        .incoming_buffer_size_total(INCOMING_BUFFER_TOTAL_BYTES);
    config
}

/// What the join port does with newcomers. Nobody stays long enough to move, so nobody may.
pub fn join_server_config(crypto: Arc<dyn quinn::crypto::ServerConfig>) -> quinn::ServerConfig {
    let mut config = quinn::ServerConfig::with_crypto(crypto);
    config
        .transport_config(Arc::new(join_server_transport()))
        .validation_token_config(no_tokens())
        .retry_token_lifetime(RETRY_TOKEN_LIFETIME)
        .migration(false)
        .max_incoming(JOIN_INCOMING_MAX)
        .incoming_buffer_size(JOIN_INCOMING_BUFFER_BYTES)
        .incoming_buffer_size_total(JOIN_INCOMING_BUFFER_TOTAL_BYTES);
    config
}

/// A retry proves the address; tokens for later connections would only be another thing to steal.
fn no_tokens() -> ValidationTokenConfig {
    let mut tokens = ValidationTokenConfig::default();
    tokens.sent(0);
    tokens
}
