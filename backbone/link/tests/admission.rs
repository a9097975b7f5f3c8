//! Who gets in over real QUIC, and what those who do not are told.

mod common;

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use common::{PATIENCE, World, address, beat, echo, id, pair, soon};
use modchain_certs::{Credentials, DenyList, Subject};
use modchain_link::settings::{IDLE_TIMEOUT, NODE_CONNECTIONS_MAX};
use modchain_link::{
    CertificateRefusal, CloseCode, CloseReason, ConnectError, Connection, Endpoint, Protocol, connect,
};
use modchain_types::{CertificateSerial, IdentityId, Role};
use modchain_wire::{FromAgent, ToAgent};

/// Connects and waits for the verdict: a refusal comes after the handshake has succeeded here.
async fn refusal(endpoint: &Endpoint, credentials: &Credentials, protocol: Protocol) -> ConnectError {
    let address = address(endpoint);
    soon(async {
        match connect(credentials, &address, protocol).await {
            Ok(connection) => connection.why_refused().await,
            Err(error) => error,
        }
    })
    .await
}

#[tokio::test]
async fn peers_know_each_other_and_what_they_speak() {
    let world = World::new();
    let endpoint = world.listen();
    for (role, protocol) in
        [(Role::Node, Protocol::Agent), (Role::Client, Protocol::Console), (Role::Operator, Protocol::Console)]
    {
        let (client, accepted) = pair(&world, &endpoint, role, protocol).await;
        assert_eq!((accepted.peer.role, accepted.peer.id, accepted.protocol), (role, id(1), protocol));
        assert_eq!(accepted.connection.peer(), &accepted.peer);
        assert_eq!((client.peer().role, client.protocol()), (Role::Orchestrator, protocol));
        assert!(client.rtt() < PATIENCE && client.remote_address().ip().is_loopback());
        assert_eq!(client.close_reason(), None);
        client.close_and_wait(CloseCode::Done, "").await;
        assert!(matches!(soon(accepted.connection.closed()).await, CloseReason::There { code: CloseCode::Done, .. }));
    }
}

#[tokio::test]
async fn a_role_on_the_wrong_protocol_is_refused_by_name() {
    let world = World::new();
    let endpoint = world.listen();
    for (role, protocol) in
        [(Role::Node, Protocol::Console), (Role::Client, Protocol::Agent), (Role::Operator, Protocol::Agent)]
    {
        let error = refusal(&endpoint, &world.member(role, 1), protocol).await;
        assert!(matches!(error, ConnectError::WrongRole), "{role}: {error:?}");
        assert!(!error.retryable());
    }
}

#[tokio::test]
async fn a_foreign_authority_is_named_from_both_sides() {
    let (world, other) = (World::new(), World::new());
    let endpoint = world.listen();
    let error = refusal(&endpoint, &other.member(Role::Node, 1), Protocol::Agent).await;
    // The client judges first: this orchestrator is not the one of its root.
    assert!(matches!(&error, ConnectError::NotTrusted { .. }), "{error:?}");
    assert!(error.to_string().contains("another certificate authority") && !error.retryable());
    // A client that trusts our root but shows a foreign certificate gets to the orchestrator's verdict.
    let dir = world.dir.path().join("mixed");
    other.member(Role::Node, 1).save(&dir).expect("saves");
    let trusted = world.dir.path().join("own");
    world.member(Role::Node, 1).save(&trusted).expect("saves");
    let error = raw_refusal(&endpoint, &dir, &trusted).await;
    let expected = ConnectError::CertificateRefused { address: "x".into(), why: CertificateRefusal::OtherAuthority };
    assert_eq!(ConnectError::from_close("x", error).to_string(), expected.to_string());
}

#[tokio::test]
async fn no_certificate_is_refused_with_a_clear_error() {
    let world = World::new();
    let endpoint = world.listen();
    let trusted = world.dir.path().join("own");
    world.member(Role::Node, 1).save(&trusted).expect("saves");
    let reason = raw_refusal(&endpoint, std::path::Path::new(""), &trusted).await;
    let error = ConnectError::from_close("x", reason);
    assert!(matches!(error, ConnectError::CertificateRefused { why: CertificateRefusal::Missing, .. }), "{error:?}");
    assert!(error.to_string().contains("wants a certificate and got none"), "{error}");
}

/// A client made of quinn alone: its certificate from one directory (none if it is empty), its root from another.
async fn raw_refusal(endpoint: &Endpoint, own: &std::path::Path, trusted: &std::path::Path) -> CloseReason {
    use quinn::rustls::pki_types::pem::PemObject;
    use quinn::rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(trusted.join("ca.pem")).expect("root")).expect("root");
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("versions")
        .with_root_certificates(roots);
    let mut tls = if own.as_os_str().is_empty() {
        builder.with_no_client_auth()
    } else {
        let chain = CertificateDer::pem_file_iter(own.join("cert.pem")).expect("chain").map(|der| der.expect("PEM"));
        let key = PrivateKeyDer::from_pem_file(own.join("key.pem")).expect("key");
        builder.with_client_auth_cert(chain.collect(), key).expect("certificate")
    };
    tls.alpn_protocols = vec![Protocol::Agent.alpn().to_vec()];
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).expect("QUIC");
    let client = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).expect("socket");
    let remote = endpoint.local_address().expect("bound");
    let connecting = client
        .connect_with(quinn::ClientConfig::new(Arc::new(crypto)), remote, modchain_certs::ORCHESTRATOR_NAME)
        .expect("connects");
    soon(async {
        match connecting.await {
            Ok(connection) => connection.closed().await.into(),
            Err(error) => error.into(),
        }
    })
    .await
}

#[tokio::test]
async fn an_expired_certificate_is_refused_with_a_clear_error() {
    let world = World::new();
    let endpoint = world.listen();
    let expired = world.member_at(Role::Node, 1, SystemTime::now() - Duration::from_secs(7200));
    let error = refusal(&endpoint, &expired, Protocol::Agent).await;
    assert!(matches!(error, ConnectError::CertificateRefused { why: CertificateRefusal::Expired, .. }), "{error:?}");
}

#[derive(Debug)]
struct Denied(IdentityId);

impl DenyList for Denied {
    fn denies(&self, id: &IdentityId, _serial: &CertificateSerial) -> bool {
        *id == self.0
    }
}

#[tokio::test]
async fn a_denied_identity_is_told_so_and_others_get_in() {
    let world = World::new();
    let endpoint = world.listen_with(([127, 0, 0, 1], 0).into(), Some(Arc::new(Denied(id(9)))));
    let error = refusal(&endpoint, &world.member(Role::Node, 9), Protocol::Agent).await;
    assert!(matches!(error, ConnectError::CertificateRefused { why: CertificateRefusal::Revoked, .. }), "{error:?}");
    assert!(!error.retryable());
    pair(&world, &endpoint, Role::Node, Protocol::Agent).await;
}

#[tokio::test]
async fn one_connection_too_many_is_refused_for_now_and_a_closed_one_makes_room() {
    let world = World::new();
    let endpoint = world.listen();
    let mut held = Vec::new();
    for _ in 0..NODE_CONNECTIONS_MAX {
        held.push(pair(&world, &endpoint, Role::Node, Protocol::Agent).await);
    }
    let error = refusal(&endpoint, &world.member(Role::Node, 1), Protocol::Agent).await;
    assert!(matches!(error, ConnectError::TooManyConnections) && error.retryable(), "{error:?}");
    // Another identity has its own limit.
    let other = world.member(Role::Node, 2);
    let address = address(&endpoint);
    let (client, accepted) =
        soon(async { tokio::join!(connect(&other, &address, Protocol::Agent), endpoint.accept()) }).await;
    let _kept = (client.expect("connects"), accepted.expect("accepted"));
    // A closed one makes room while both its ends are still held.
    let (client, accepted) = &held[0];
    client.close(CloseCode::Done, "");
    soon(accepted.connection.closed()).await;
    pair(&world, &endpoint, Role::Node, Protocol::Agent).await;
    // Every command of a client is a connection, so it may have more of them.
    for _ in 0..2 * NODE_CONNECTIONS_MAX {
        held.push(pair(&world, &endpoint, Role::Client, Protocol::Console).await);
    }
}

#[tokio::test]
async fn every_connection_of_an_identity_is_closed_at_once_and_no_other() {
    let world = World::new();
    let endpoint = world.listen();
    let one = pair(&world, &endpoint, Role::Client, Protocol::Console).await;
    let two = pair(&world, &endpoint, Role::Client, Protocol::Console).await;
    assert_eq!(endpoint.close_identity(&id(7), CloseCode::Revoked, ""), 0);
    assert_eq!(one.0.close_reason(), None);
    assert_eq!(endpoint.close_identity(&id(1), CloseCode::Revoked, ""), 2);
    for (client, _) in [one, two] {
        assert_eq!(soon(client.closed()).await.code(), Some(CloseCode::Revoked));
    }
    assert_eq!(endpoint.close_identity(&id(1), CloseCode::Revoked, ""), 0);
}

#[tokio::test]
async fn a_closing_orchestrator_tells_its_peers_and_takes_nobody() {
    let world = World::new();
    let endpoint = world.listen();
    let (client, _accepted) = pair(&world, &endpoint, Role::Node, Protocol::Agent).await;
    soon(endpoint.close(CloseCode::GoingAway, "upgrade", Duration::from_secs(5))).await;
    let reason = soon(client.closed()).await;
    assert_eq!(reason.sentence(), "the other side is shutting down; try again in a moment (upgrade)");
    assert!(reason.retryable());
    assert!(soon(endpoint.accept()).await.is_none());
}

#[tokio::test]
async fn nobody_at_the_address_is_said_at_once_when_the_system_knows() {
    let world = World::new();
    let credentials = world.member(Role::Client, 1);
    let free = UdpSocket::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let error = soon(connect(&credentials, &free.to_string(), Protocol::Console)).await.err().expect("nobody");
    assert!(matches!(error, ConnectError::Refused { .. }) && error.retryable(), "{error:?}");
    assert!(error.to_string().contains(&free.to_string()));
    // Somebody who does not answer.
    let mute = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let silent = mute.local_addr().expect("bound").to_string();
    let error = soon(connect(&credentials, &silent, Protocol::Console)).await.err().expect("no answer");
    assert!(matches!(error, ConnectError::Silent { .. }) && error.retryable(), "{error:?}");
    for nonsense in ["no-port", "127.0.0.1", "127.0.0.1:x", ""] {
        let error = soon(connect(&credentials, nonsense, Protocol::Console)).await.err().expect("no address");
        assert!(matches!(error, ConnectError::Resolve { .. }), "{nonsense}: {error:?}");
    }
}

#[tokio::test]
async fn an_address_in_use_is_an_error_that_names_it() {
    let world = World::new();
    let endpoint = world.listen();
    let taken = endpoint.local_address().expect("bound");
    let orchestrator =
        world.authority.issue(modchain_certs::Subject::ORCHESTRATOR, Duration::from_secs(60), SystemTime::now());
    let result = Endpoint::bind(taken, &orchestrator.expect("issues"), &world.keys(), None);
    assert!(result.err().expect("taken").to_string().contains(&taken.to_string()));
    assert!(endpoint.buffers().receive_bytes > 0 && endpoint.buffers().send_bytes > 0);
}

/// Runs an endpoint on a runtime of its own, so that all of it can die without a word, as in a crash.
fn crash_after_one_connection(world: &World, client: &tokio::runtime::Runtime) -> (Connection, std::net::SocketAddr) {
    let doomed = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime");
    let endpoint = doomed.block_on(async { world.listen() });
    let port = endpoint.local_address().expect("bound");
    let credentials = world.member(Role::Node, 1);
    let accepting = doomed.spawn(async move { (endpoint.accept().await, endpoint) });
    let connection =
        client.block_on(soon(connect(&credentials, &port.to_string(), Protocol::Agent))).expect("connects");
    let (accepted, endpoint) = client.block_on(soon(accepting)).expect("accepts");
    let accepted = accepted.expect("accepted");
    // Before the program dies it has acknowledged the client's handshake.
    client.block_on(async {
        let (mut writer, _reader) = connection.open_bi::<FromAgent, ToAgent>().await.expect("opens");
        writer.write(&beat(1)).await.expect("writes");
        let (mut answer, mut reader) =
            soon(accepted.connection.accept_bi::<ToAgent, FromAgent>()).await.expect("stream");
        soon(reader.read()).await.expect("reads");
        answer.write(&echo(1)).await.expect("writes");
    });
    doomed.shutdown_timeout(Duration::from_secs(5));
    drop((accepted, endpoint));
    (connection, port)
}

#[test]
fn a_restarted_orchestrator_is_noticed_long_before_the_idle_timeout() {
    let world = World::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime");
    let (connection, port) = crash_after_one_connection(&world, &runtime);
    assert_eq!(connection.close_reason(), None, "it died without a word");
    runtime.block_on(async {
        let _again = world.listen_with(port, None);
        let started = std::time::Instant::now();
        // The next heartbeat meets a program that does not know the connection.
        if let Ok((mut writer, _reader)) = connection.open_bi::<FromAgent, ToAgent>().await {
            let _ = writer.write(&beat(2)).await;
        }
        let reason = soon(connection.closed()).await;
        assert_eq!(reason, CloseReason::Restarted);
        assert!(reason.retryable() && started.elapsed() < IDLE_TIMEOUT / 5, "{:?}", started.elapsed());
    });
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_newcomers_and_disturbs_nobody() {
    let world = World::new();
    let endpoint = world.listen();
    let (before, _accepted) = pair(&world, &endpoint, Role::Client, Protocol::Console).await;
    let fresh =
        world.authority.issue(Subject::ORCHESTRATOR, Duration::from_secs(3600), SystemTime::now()).expect("issues");
    endpoint.show(&fresh).expect("shows");
    let (after, _accepted) = pair(&world, &endpoint, Role::Client, Protocol::Console).await;
    assert_eq!(after.peer().serial, fresh.identity().serial);
    assert_ne!(before.peer().serial, after.peer().serial);
    assert_eq!(before.close_reason(), None);
    // It is judged as before: a certificate is still wanted.
    let other = World::new();
    let error = refusal(&endpoint, &other.member(Role::Node, 1), Protocol::Agent).await;
    assert!(matches!(error, ConnectError::NotTrusted { .. }), "{error:?}");
}
