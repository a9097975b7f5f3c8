//! Every setting of the transport read back: from the settings as they were built where they can be asked, otherwise from
//! what a peer sees of them. One row for each; a setting that is in [`ROWS`] and was not read back fails the test, and so
//! does one that was read back and is not there.

mod common;

use std::collections::BTreeSet;
use std::fmt::{Debug, Display};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use common::{World, beat, echo, pair, soon, until};
use modchain_certs::{Credentials, DenyList, ORCHESTRATOR_NAME};
use modchain_link::{
    Endpoint, FrameReader, FrameWriter, JoinEndpoint, Priority, Protocol, connect, join_connect, settings,
};
use modchain_types::{CertificateSerial, IdentityId, Role};
use modchain_wire::{ALPN_JOIN, FromAgent, Message, ToAgent};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn_proto::{ConnectionIdGenerator, DatagramEvent, HashedConnectionIdGenerator};

/// The settings, by the rows of the security design; `main` and `join` are the two ports.
const ROWS: &[&str] = &[
    "ALPN, agents",
    "ALPN, consoles",
    "ALPN, join",
    "ALPN, main and join in common",
    "CID key kept over a restart",
    "NEW_TOKEN sent, join",
    "NEW_TOKEN sent, main",
    "NEW_TOKEN seen by a client, main",
    "NEW_TOKEN seen by a newcomer, join",
    "bidi streams after authorisation, agent",
    "bidi streams after authorisation, console",
    "bidi streams before authorisation, join",
    "bidi streams before authorisation, main",
    "bidi streams that the orchestrator may open, agent",
    "bidi streams that the orchestrator may open, console",
    "bidi streams that the orchestrator may open, join",
    "certificate asked of the client, join",
    "certificate asked of the client, main",
    "connections per client",
    "connections per node",
    "connection window after authorisation, agent",
    "connection window after authorisation, console",
    "connection window before authorisation, main",
    "connection window of an agent",
    "connection window of a console",
    "connection window of a newcomer",
    "connection window, join",
    "datagrams, agent",
    "datagrams, console",
    "datagrams, join",
    "datagrams, main",
    "datagrams, newcomer",
    "early data, clients",
    "early data, join",
    "early data, main",
    "early data, newcomers",
    "handshake timeout",
    "handshakes at once",
    "handshakes before retry",
    "handshakes per source",
    "idle timeout, agent",
    "idle timeout, console",
    "idle timeout, join",
    "idle timeout, main",
    "idle timeout, newcomer",
    "incoming buffer in all, join",
    "incoming buffer in all, main",
    "incoming buffer, join",
    "incoming buffer, main",
    "incoming max, join",
    "incoming max, main",
    "join life",
    "keep-alive, agent",
    "keep-alive, console",
    "keep-alive, join",
    "keep-alive, main",
    "keep-alive, newcomer",
    "migration, join",
    "migration, main",
    "migration as a client sees it, join",
    "migration as a client sees it, main",
    "priority Bulk",
    "priority Commands",
    "priority Control",
    "priority Heartbeat",
    "priority JobOutput",
    "priority State",
    "reset interval",
    "reset key kept over a restart",
    "resumption, clients",
    "resumption, newcomers",
    "retry token lifetime, join",
    "retry token lifetime, main",
    "send window, clients",
    "send window, join",
    "send window, main",
    "send window, newcomers",
    "session storage, join",
    "session storage, main",
    "sessions resumed with one that tries, join",
    "sessions resumed with one that tries, main",
    "socket receive buffer, join",
    "socket receive buffer, main",
    "socket send buffer, join",
    "socket send buffer, main",
    "stream window, agent",
    "stream window, console",
    "stream window, join",
    "stream window, main",
    "stream window, newcomer",
    "tickets, join",
    "tickets, main",
    "uni streams, agent",
    "uni streams, console",
    "uni streams, join",
    "uni streams, main",
    "uni streams, newcomer",
];

#[derive(Default)]
struct Readback {
    rows: Vec<(String, String, String)>,
}

impl Readback {
    fn row(&mut self, name: &str, read: impl Display, wanted: impl Display) {
        self.rows.push((name.into(), read.to_string(), wanted.to_string()));
    }

    fn finish(self) {
        let mut wrong = Vec::new();
        for (name, read, wanted) in &self.rows {
            println!("{name:<60} {read}");
            if read != wanted {
                wrong.push(format!("{name}: {read}, not {wanted}"));
            }
        }
        let seen: BTreeSet<&str> = self.rows.iter().map(|(name, ..)| name.as_str()).collect();
        let rows: BTreeSet<&str> = ROWS.iter().copied().collect();
        wrong.extend(rows.difference(&seen).map(|name| format!("{name}: was not read back")));
        wrong.extend(seen.difference(&rows).map(|name| format!("{name}: has no row")));
        assert_eq!((self.rows.len(), rows.len()), (ROWS.len(), ROWS.len()), "no row twice");
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        println!("{} settings read back", self.rows.len());
    }
}

/// One field of a debug form: quinn has no other way to read most settings.
fn setting(of: &impl Debug, name: &str) -> String {
    let text = format!("{of:?}");
    let start = text.find(&format!(" {name}: ")).unwrap_or_else(|| panic!("no {name} in {text}")) + name.len() + 3;
    let rest = &text[start..];
    let mut depth = 0;
    let end = rest.find(|c| {
        match c {
            '(' | '{' => depth += 1,
            ')' | '}' if depth == 0 => return true,
            ')' | '}' => depth -= 1,
            _ => {}
        }
        depth == 0 && c == ','
    });
    rest[..end.unwrap_or(rest.len())].trim().to_owned()
}

#[tokio::test]
async fn every_setting_reads_back() {
    let world = World::new();
    let mut readback = Readback::default();
    let (main, join) = (world.listen(), world.listen_join());
    constants(&mut readback);
    tls(&world, &mut readback);
    transport_as_built(&world, &mut readback);
    endpoint_keys(&world, &mut readback);
    sockets(&main, &join, &mut readback);
    parameters_of_the_servers(&world, &main, &join, &mut readback).await;
    parameters_of_the_clients(&world, &mut readback).await;
    authorisation(&world, &main, &mut readback).await;
    priorities(&world, &main, &mut readback).await;
    resumption(&world, &mut readback).await;
    readback.finish();
}

/// Numbers that the code counts by; that they do what they say is for other tests.
fn constants(readback: &mut Readback) {
    readback.row("handshake timeout", format!("{:?}", settings::HANDSHAKE_TIMEOUT), "5s");
    readback.row("handshakes at once", settings::HANDSHAKES_MAX, 256);
    readback.row("handshakes before retry", settings::HANDSHAKES_BEFORE_RETRY, 64);
    readback.row("handshakes per source", settings::HANDSHAKES_PER_SOURCE, 64);
    readback.row("join life", format!("{:?}", settings::JOIN_LIFE), "10s");
    readback.row("connections per node", Protocol::Agent.connections_max(), 2);
    readback.row("connections per client", Protocol::Console.connections_max(), 128);
}

fn main_tls(world: &World, deny: Option<Arc<dyn DenyList>>) -> rustls::ServerConfig {
    let protocols = Protocol::ALL.map(Protocol::alpn);
    modchain_certs::server_config(&world.orchestrator(), &protocols, deny).expect("settings")
}

fn join_tls(world: &World) -> rustls::ServerConfig {
    modchain_certs::join_server_config(&world.orchestrator(), &[ALPN_JOIN]).expect("settings")
}

fn client_tls(credentials: &Credentials, protocol: Protocol) -> rustls::ClientConfig {
    modchain_certs::client_config(credentials, &[protocol.alpn()]).expect("settings")
}

fn newcomer_tls(world: &World) -> rustls::ClientConfig {
    modchain_certs::join_client_config(world.pin(), &[ALPN_JOIN]).expect("settings")
}

fn tls(world: &World, readback: &mut Readback) {
    let (main, join) = (main_tls(world, None), join_tls(world));
    for (port, config, judge) in [("main", &main, "MemberVerifier"), ("join", &join, "NoClientAuth")] {
        let tickets = config.send_tls13_tickets + config.max_tls13_tickets + usize::from(config.ticketer.enabled());
        readback.row(&format!("tickets, {port}"), tickets, 0);
        let early = config.max_early_data_size + u32::from(config.send_half_rtt_data);
        readback.row(&format!("early data, {port}"), early, 0);
        readback.row(&format!("session storage, {port}"), config.session_storage.can_cache(), false);
        let asked = setting(config, "verifier");
        let asked = if asked.contains(judge) { judge } else { asked.as_str() };
        readback.row(&format!("certificate asked of the client, {port}"), asked, judge);
    }
    let common = main.alpn_protocols.iter().filter(|name| join.alpn_protocols.contains(name)).count();
    readback.row("ALPN, main and join in common", common, 0);
    let name = |config: &rustls::ClientConfig| {
        config
            .alpn_protocols
            .iter()
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .collect::<Vec<_>>()
            .join(",")
    };
    let node = client_tls(&world.member(Role::Node, 1), Protocol::Agent);
    let newcomer = newcomer_tls(world);
    for (who, config) in [("clients", &node), ("newcomers", &newcomer)] {
        readback.row(&format!("early data, {who}"), config.enable_early_data, false);
        let resumption = setting(config, "resumption");
        let none = if resumption.contains("NoClientSessionStorage") { "none" } else { resumption.as_str() };
        readback.row(&format!("resumption, {who}"), none, "none");
    }
    readback.row("ALPN, agents", name(&node), "modchain-agent/1");
    let console = client_tls(&world.member(Role::Client, 1), Protocol::Console);
    readback.row("ALPN, consoles", name(&console), "modchain-console/1");
    readback.row("ALPN, join", name(&newcomer), "modchain-join/1");
}

fn quic(tls: rustls::ServerConfig) -> Arc<dyn quinn::crypto::ServerConfig> {
    Arc::new(QuicServerConfig::try_from(tls).expect("QUIC"))
}

fn transport_as_built(world: &World, readback: &mut Readback) {
    let main = settings::server_config(quic(main_tls(world, None)));
    let join = settings::join_server_config(quic(join_tls(world)));
    for (port, config, migration, incoming, buffer, in_all) in
        [("main", &main, true, 4096, 65_536, 16_777_216), ("join", &join, false, 1024, 16_384, 4_194_304)]
    {
        readback.row(&format!("retry token lifetime, {port}"), setting(config, "retry_token_lifetime"), "15s");
        readback.row(&format!("NEW_TOKEN sent, {port}"), setting(&config.validation_token, "sent"), 0);
        readback.row(&format!("migration, {port}"), setting(config, "migration"), migration);
        readback.row(&format!("incoming max, {port}"), setting(config, "max_incoming"), incoming);
        readback.row(&format!("incoming buffer, {port}"), setting(config, "incoming_buffer_size"), buffer);
        readback.row(&format!("incoming buffer in all, {port}"), setting(config, "incoming_buffer_size_total"), in_all);
        readback.row(&format!("keep-alive, {port}"), setting(&config.transport, "keep_alive_interval"), "None");
    }
    readback.row("send window, main", setting(&main.transport, "send_window"), 8_388_608);
    readback.row("send window, join", setting(&join.transport, "send_window"), 65_536);
    let (agent, console) = (settings::client_transport(Protocol::Agent), settings::client_transport(Protocol::Console));
    let newcomer = settings::join_client_transport();
    readback.row("keep-alive, agent", setting(&agent, "keep_alive_interval"), "Some(5s)");
    readback.row("keep-alive, console", setting(&console, "keep_alive_interval"), "Some(5s)");
    readback.row("keep-alive, newcomer", setting(&newcomer, "keep_alive_interval"), "None");
    readback.row("send window, clients", setting(&agent, "send_window"), 8_388_608);
    readback.row("send window, newcomers", setting(&newcomer, "send_window"), 65_536);
}

/// A packet for a connection that nobody knows: what comes back, at a moment of our choice.
fn reset(endpoint: &mut quinn_proto::Endpoint, now: Instant, id: quinn_proto::ConnectionId) -> Option<Vec<u8>> {
    let mut packet = vec![0x40];
    packet.extend_from_slice(&id);
    packet.resize(100, 7);
    let (peer, mut answer) = (SocketAddr::from((Ipv4Addr::LOCALHOST, 9)), Vec::new());
    match endpoint.handle(now, peer, None, None, BytesMut::from(packet.as_slice()), &mut answer) {
        Some(DatagramEvent::Response(transmit)) => Some(answer[..transmit.size].to_vec()),
        _ => None,
    }
}

fn endpoint_keys(world: &World, readback: &mut Readback) {
    let server = settings::server_config(quic(main_tls(world, None)));
    let config = settings::endpoint_config(&world.keys());
    let mut endpoint = quinn_proto::Endpoint::new(Arc::new(config), Some(Arc::new(server)), true, None);
    let file = std::fs::read(world.dir.path().join("quic/quic.key")).expect("the keys that were kept");
    let (reset_key, cid_key) = file.split_at(64);
    let kept = u64::from_le_bytes(cid_key.try_into().expect("eight bytes"));
    let own = HashedConnectionIdGenerator::from_key(kept).generate_cid();
    let foreign = HashedConnectionIdGenerator::from_key(!kept).generate_cid();
    let start = Instant::now();
    let answer = reset(&mut endpoint, start, own).expect("a reset");
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, reset_key);
    let signed = ring::hmac::sign(&key, &own);
    readback.row("reset key kept over a restart", answer.ends_with(&signed.as_ref()[..16]), true);
    let later = start + Duration::from_secs(1);
    let answers = (reset(&mut endpoint, later, foreign).is_some(), reset(&mut endpoint, later, own).is_some());
    readback.row("CID key kept over a restart", format!("{answers:?}"), "(false, true)");
    // The last answer was at `later`: how long until the next?
    let interval = (0..100_000).step_by(50).map(Duration::from_micros);
    let next = interval.clone().find(|after| reset(&mut endpoint, later + *after, own).is_some());
    readback.row("reset interval", format!("{:?}", next.expect("some time")), "1ms");
}

/// What the system gives to a socket that asks for as much: our own sockets say what they got, and so much must it be.
fn sockets(main: &Endpoint, join: &JoinEndpoint, readback: &mut Readback) {
    let other = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).expect("a socket");
    let (receive, send) = (other.recv_buffer_size().expect("a size"), other.send_buffer_size().expect("a size"));
    other.set_recv_buffer_size(8 * 1024 * 1024).expect("asks");
    other.set_send_buffer_size(8 * 1024 * 1024).expect("asks");
    let (asked_receive, asked_send) =
        (other.recv_buffer_size().expect("a size"), other.send_buffer_size().expect("a size"));
    println!("socket buffers: {receive} and {send} unasked, {asked_receive} and {asked_send} asked");
    for (port, buffers) in [("main", main.buffers()), ("join", join.buffers())] {
        readback.row(&format!("socket receive buffer, {port}"), buffers.receive_bytes, asked_receive);
        readback.row(&format!("socket send buffer, {port}"), buffers.send_bytes, asked_send);
    }
}

/// The transport parameters that the other side sent, in their debug form.
type Heard = Arc<Mutex<Option<String>>>;

/// A TLS session that keeps what it hears.
struct Spy {
    session: Box<dyn quinn::crypto::Session>,
    heard: Heard,
}

struct SpyingClient(Arc<QuicClientConfig>, Heard);
struct SpyingServer(Arc<QuicServerConfig>, Heard);

impl quinn::crypto::ClientConfig for SpyingClient {
    fn start_session(
        self: Arc<Self>,
        version: u32,
        server_name: &str,
        params: &quinn_proto::transport_parameters::TransportParameters,
    ) -> Result<Box<dyn quinn::crypto::Session>, quinn::ConnectError> {
        let session = quinn::crypto::ClientConfig::start_session(self.0.clone(), version, server_name, params)?;
        Ok(Box::new(Spy { session, heard: self.1.clone() }))
    }
}

impl quinn::crypto::ServerConfig for SpyingServer {
    fn initial_keys(
        &self,
        version: u32,
        id: &quinn_proto::ConnectionId,
    ) -> Result<quinn::crypto::Keys, quinn::crypto::UnsupportedVersion> {
        quinn::crypto::ServerConfig::initial_keys(&*self.0, version, id)
    }

    fn retry_tag(&self, version: u32, id: &quinn_proto::ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.0.retry_tag(version, id, packet)
    }

    fn start_session(
        self: Arc<Self>,
        version: u32,
        params: &quinn_proto::transport_parameters::TransportParameters,
    ) -> Box<dyn quinn::crypto::Session> {
        let session = quinn::crypto::ServerConfig::start_session(self.0.clone(), version, params);
        Box::new(Spy { session, heard: self.1.clone() })
    }
}

impl quinn::crypto::Session for Spy {
    fn transport_parameters(
        &self,
    ) -> Result<Option<quinn_proto::transport_parameters::TransportParameters>, quinn_proto::TransportError> {
        let heard = self.session.transport_parameters()?;
        if let Some(heard) = heard {
            *self.heard.lock().expect("sound") = Some(format!("{heard:?}"));
        }
        Ok(heard)
    }

    fn initial_keys(&self, id: &quinn_proto::ConnectionId, side: quinn::Side) -> quinn::crypto::Keys {
        self.session.initial_keys(id, side)
    }

    fn handshake_data(&self) -> Option<Box<dyn std::any::Any>> {
        self.session.handshake_data()
    }

    fn peer_identity(&self) -> Option<Box<dyn std::any::Any>> {
        self.session.peer_identity()
    }

    fn early_crypto(&self) -> Option<(Box<dyn quinn::crypto::HeaderKey>, Box<dyn quinn::crypto::PacketKey>)> {
        self.session.early_crypto()
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.session.early_data_accepted()
    }

    fn is_handshaking(&self) -> bool {
        self.session.is_handshaking()
    }

    fn read_handshake(&mut self, bytes: &[u8]) -> Result<bool, quinn_proto::TransportError> {
        self.session.read_handshake(bytes)
    }

    fn write_handshake(&mut self, bytes: &mut Vec<u8>) -> Option<quinn::crypto::Keys> {
        self.session.write_handshake(bytes)
    }

    fn next_1rtt_keys(&mut self) -> Option<quinn::crypto::KeyPair<Box<dyn quinn::crypto::PacketKey>>> {
        self.session.next_1rtt_keys()
    }

    fn is_valid_retry(&self, id: &quinn_proto::ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.session.is_valid_retry(id, header, payload)
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), quinn::crypto::ExportKeyingMaterialError> {
        self.session.export_keying_material(output, label, context)
    }
}

/// Text that is its own debug form, so that [`setting`] reads it.
struct Text(String);

impl Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Counts the tokens that a server gives away for later.
#[derive(Default)]
struct Tokens(AtomicUsize);

impl quinn::TokenStore for Tokens {
    fn insert(&self, _server_name: &str, _token: bytes::Bytes) {
        self.0.fetch_add(1, SeqCst);
    }

    fn take(&self, _server_name: &str) -> Option<bytes::Bytes> {
        None
    }
}

/// Dials with quinn's own settings; gives the connection, what the server said of itself, and the tokens it gave.
async fn dial(
    tls: rustls::ClientConfig,
    remote: SocketAddr,
) -> (quinn::Connection, quinn::Endpoint, Text, Arc<Tokens>) {
    let (heard, tokens) = (Heard::default(), Arc::new(Tokens::default()));
    let crypto = SpyingClient(Arc::new(QuicClientConfig::try_from(tls).expect("QUIC")), heard.clone());
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.token_store(tokens.clone());
    let client = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).expect("socket");
    let connecting = client.connect_with(config, remote, ORCHESTRATOR_NAME).expect("connects");
    let connection = soon(connecting).await.expect("connects");
    let heard = heard.lock().expect("sound").take().expect("they come with the handshake");
    (connection, client, Text(heard), tokens)
}

/// A frame and its answer: whatever the server sends behind the handshake has arrived then.
async fn there_and_back<E: Debug>(
    client: &quinn::Connection,
    stream: impl Future<Output = Result<(FrameWriter<ToAgent>, FrameReader<FromAgent>), E>>,
) {
    let (mut send, mut recv) = soon(client.open_bi()).await.expect("opens");
    send.write_all(&beat(1).to_frame().expect("a frame")).await.expect("writes");
    let (mut writer, mut reader) = soon(stream).await.expect("a stream");
    soon(reader.read()).await.expect("reads");
    writer.write(&echo(1)).await.expect("writes");
    soon(recv.read_exact(&mut [0; 6])).await.expect("the answer");
}

async fn parameters_of_the_servers(world: &World, main: &Endpoint, join: &JoinEndpoint, readback: &mut Readback) {
    let tls = client_tls(&world.member(Role::Node, 3), Protocol::Agent);
    let (client, _socket, said, tokens) = dial(tls, main.local_address().expect("bound")).await;
    let accepted = soon(main.accept()).await.expect("accepted");
    for (row, name, wanted) in [
        ("idle timeout, main", "max_idle_timeout", "30000"),
        ("bidi streams before authorisation, main", "initial_max_streams_bidi", "1"),
        ("uni streams, main", "initial_max_streams_uni", "0"),
        ("stream window, main", "initial_max_stream_data_bidi_remote", "524288"),
        ("connection window before authorisation, main", "initial_max_data", "1048576"),
        ("datagrams, main", "max_datagram_frame_size", "None"),
        ("migration as a client sees it, main", "disable_active_migration", "false"),
    ] {
        readback.row(row, setting(&said, name), wanted);
    }
    there_and_back(&client, accepted.connection.accept_bi()).await;
    readback.row("NEW_TOKEN seen by a client, main", tokens.0.load(SeqCst), 0);

    let (client, _socket, said, tokens) = dial(newcomer_tls(world), join.local_address().expect("bound")).await;
    let joining = soon(join.accept()).await.expect("accepted");
    for (row, name, wanted) in [
        ("idle timeout, join", "max_idle_timeout", "15000"),
        ("bidi streams before authorisation, join", "initial_max_streams_bidi", "1"),
        ("uni streams, join", "initial_max_streams_uni", "0"),
        ("stream window, join", "initial_max_stream_data_bidi_remote", "65536"),
        ("connection window, join", "initial_max_data", "65536"),
        ("datagrams, join", "max_datagram_frame_size", "None"),
        ("migration as a client sees it, join", "disable_active_migration", "true"),
    ] {
        readback.row(row, setting(&said, name), wanted);
    }
    there_and_back(&client, joining.accept_bi()).await;
    readback.row("NEW_TOKEN seen by a newcomer, join", tokens.0.load(SeqCst), 0);
}

/// A server that takes whoever comes with this TLS; gives its address and what the next client says of itself.
fn listening(tls: rustls::ServerConfig) -> (String, Heard, quinn::Endpoint) {
    let heard = Heard::default();
    let crypto = SpyingServer(Arc::new(QuicServerConfig::try_from(tls).expect("QUIC")), heard.clone());
    let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    let server = quinn::Endpoint::server(config, (Ipv4Addr::LOCALHOST, 0).into()).expect("listens");
    let taking = server.clone();
    tokio::spawn(async move {
        while let Some(incoming) = taking.accept().await {
            if let Ok(connection) = incoming.await {
                connection.closed().await;
            }
        }
    });
    (server.local_addr().expect("bound").to_string(), heard, server)
}

async fn parameters_of_the_clients(world: &World, readback: &mut Readback) {
    let mut read = |who: &str, said: String, idle: &str, stream: &str, window: (&str, &str)| {
        let said = Text(said);
        readback.row(&format!("idle timeout, {who}"), setting(&said, "max_idle_timeout"), idle);
        let may_open = setting(&said, "initial_max_streams_bidi");
        let named = if who == "newcomer" { "join" } else { who };
        readback.row(&format!("bidi streams that the orchestrator may open, {named}"), may_open, 0);
        readback.row(&format!("uni streams, {who}"), setting(&said, "initial_max_streams_uni"), 0);
        let window_local = setting(&said, "initial_max_stream_data_bidi_local");
        readback.row(&format!("stream window, {who}"), window_local, stream);
        readback.row(&format!("datagrams, {who}"), setting(&said, "max_datagram_frame_size"), "None");
        readback.row(window.0, setting(&said, "initial_max_data"), window.1);
    };
    let (address, heard, _server) = listening(main_tls(world, None));
    let said = || heard.lock().expect("sound").take();
    for (who, role, protocol, window) in [
        ("agent", Role::Node, Protocol::Agent, ("connection window of an agent", "33554432")),
        ("console", Role::Client, Protocol::Console, ("connection window of a console", "20971520")),
    ] {
        let connection = soon(connect(&world.member(role, 4), &address, protocol)).await.expect("connects");
        let said = said().expect("it came with the handshake");
        soon(connection.close_and_wait(modchain_link::CloseCode::Done, "")).await;
        read(who, said, "30000", "524288", window);
    }
    let (address, heard, _server) = listening(join_tls(world));
    let _link = soon(join_connect(world.pin(), &address)).await.expect("connects");
    let said = heard.lock().expect("sound").take().expect("it came with the handshake");
    read("newcomer", said, "15000", "65536", ("connection window of a newcomer", "65536"));
}

/// Longest wait for what must not come.
const A_WHILE: Duration = Duration::from_millis(300);

async fn authorisation(world: &World, main: &Endpoint, readback: &mut Readback) {
    for (who, role, protocol, streams, window) in [
        ("agent", Role::Node, Protocol::Agent, "60 of 60", 33_554_432),
        ("console", Role::Operator, Protocol::Console, "32 of 32", 20_971_520),
    ] {
        let tls = client_tls(&world.member(role, 5), protocol);
        let (client, _socket, ..) = dial(tls, main.local_address().expect("bound")).await;
        let accepted = soon(main.accept()).await.expect("accepted");
        let told = accepted.connection.authorise(u32::MAX);
        let mut opened = Vec::new();
        for _ in 0..told {
            opened.push(soon(client.open_bi()).await.expect("alive"));
        }
        if let Ok(stream) = tokio::time::timeout(A_WHILE, client.open_bi()).await {
            opened.push(stream.expect("alive"));
        }
        readback.row(
            &format!("bidi streams after authorisation, {who}"),
            format!("{} of {told}", opened.len()),
            streams,
        );
        // All but the first as full as they get and nobody reads them; the first must still get through. So the window is
        // larger than all streams' windows together.
        let ((control, _answers), others) = opened.split_first_mut().expect("some");
        control.write_all(&beat(1).to_frame().expect("a frame")).await.expect("writes");
        let full = vec![0; settings::STREAM_WINDOW_BYTES as usize];
        let writes = others.iter_mut().map(|(send, _)| send.write_all(&full));
        let began = Instant::now();
        for write in writes {
            soon(write).await.expect("fits its stream's window");
        }
        println!("{who}: {} streams filled in {:?}", others.len(), began.elapsed());
        control.write_all(&beat(2).to_frame().expect("a frame")).await.expect("writes");
        let (_writer, mut reader) = soon(accepted.connection.accept_bi::<ToAgent, FromAgent>()).await.expect("stream");
        assert_eq!(soon(reader.read()).await, Ok(Some(beat(1))));
        let through = soon(reader.read()).await == Ok(Some(beat(2)));
        let read = format!("{}, the first gets through: {through}", protocol.window_bytes());
        let wanted = format!("{window}, the first gets through: true");
        readback.row(&format!("connection window after authorisation, {who}"), read, wanted);
    }
}

async fn priorities(world: &World, main: &Endpoint, readback: &mut Readback) {
    let (client, _accepted) = pair(world, main, Role::Client, Protocol::Console).await;
    let (writer, _reader): (FrameWriter<FromAgent>, FrameReader<ToAgent>) = client.open_bi().await.expect("opens");
    for (priority, wanted) in [
        (Priority::Heartbeat, 3),
        (Priority::Control, 2),
        (Priority::Commands, 1),
        (Priority::State, 0),
        (Priority::JobOutput, -1),
        (Priority::Bulk, -2),
    ] {
        writer.set_priority(priority);
        readback.row(&format!("priority {priority:?}"), writer.priority().expect("open"), wanted);
    }
}

/// Keeps every session that it is given, and counts them.
#[derive(Debug, Default)]
struct Sessions {
    kept: AtomicUsize,
    tickets: Mutex<Vec<rustls::client::Tls13ClientSessionValue>>,
}

impl rustls::client::ClientSessionStore for Sessions {
    fn set_kx_hint(&self, _name: rustls::pki_types::ServerName<'static>, _group: rustls::NamedGroup) {}

    fn kx_hint(&self, _name: &rustls::pki_types::ServerName<'_>) -> Option<rustls::NamedGroup> {
        None
    }

    fn set_tls12_session(
        &self,
        _name: rustls::pki_types::ServerName<'static>,
        _value: rustls::client::Tls12ClientSessionValue,
    ) {
        self.kept.fetch_add(1, SeqCst);
    }

    fn tls12_session(
        &self,
        _name: &rustls::pki_types::ServerName<'_>,
    ) -> Option<rustls::client::Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _name: &rustls::pki_types::ServerName<'static>) {}

    fn insert_tls13_ticket(
        &self,
        _name: rustls::pki_types::ServerName<'static>,
        value: rustls::client::Tls13ClientSessionValue,
    ) {
        self.kept.fetch_add(1, SeqCst);
        self.tickets.lock().expect("sound").push(value);
    }

    fn take_tls13_ticket(
        &self,
        _name: &rustls::pki_types::ServerName<'static>,
    ) -> Option<rustls::client::Tls13ClientSessionValue> {
        self.tickets.lock().expect("sound").pop()
    }
}

/// Nobody is denied; how often it was asked is how often a certificate was judged.
#[derive(Debug, Default)]
struct Judged(AtomicUsize);

impl DenyList for Judged {
    fn denies(&self, _id: &IdentityId, _serial: &CertificateSerial) -> bool {
        self.0.fetch_add(1, SeqCst);
        false
    }
}

async fn resumption(world: &World, readback: &mut Readback) {
    const VISITS: usize = 3;
    let judged = Arc::new(Judged::default());
    let main = world.listen_with((Ipv4Addr::LOCALHOST, 0).into(), Some(judged.clone()));
    let join = world.listen_join();
    let sessions = Arc::new(Sessions::default());
    let keeping = |mut tls: rustls::ClientConfig| {
        tls.resumption = rustls::client::Resumption::store(sessions.clone());
        tls
    };
    let node = keeping(client_tls(&world.member(Role::Node, 6), Protocol::Agent));
    for _ in 0..VISITS {
        let (client, _socket, ..) = dial(node.clone(), main.local_address().expect("bound")).await;
        let accepted = soon(main.accept()).await.expect("accepted");
        there_and_back(&client, accepted.connection.accept_bi()).await;
        client.close(0u32.into(), b"");
        soon(accepted.connection.closed()).await;
    }
    until("all are judged", || judged.0.load(SeqCst) >= 2 * VISITS).await;
    let kept = sessions.kept.load(SeqCst);
    // In the handshake and at the admission; a resumed session would be judged at the admission alone.
    let resumed = 2 * VISITS - judged.0.load(SeqCst);
    readback.row("sessions resumed with one that tries, main", resumed + kept, 0);
    let newcomer = keeping(newcomer_tls(world));
    for _ in 0..VISITS {
        let (client, _socket, ..) = dial(newcomer.clone(), join.local_address().expect("bound")).await;
        let joining = soon(join.accept()).await.expect("accepted");
        there_and_back(&client, joining.accept_bi()).await;
    }
    readback.row("sessions resumed with one that tries, join", sessions.kept.load(SeqCst), 0);
}
