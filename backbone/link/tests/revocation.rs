//! Whoever is revoked is out: those who are connected, those who are in the middle of connecting, and those who kept a
//! session of before.

mod common;

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use common::{World, address, id, pair, soon, until};
use modchain_certs::{Credentials, DenyList, ORCHESTRATOR_NAME};
use modchain_link::{CloseCode, CloseReason, ConnectError, Endpoint, Protocol, Refusal, connect, settings};
use modchain_types::{CertificateSerial, IdentityId, Role};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};

/// Says yes once it was told to, and counts how often it was asked.
#[derive(Debug, Default)]
struct Switch {
    revoked: AtomicBool,
    asked: AtomicUsize,
}

impl DenyList for Switch {
    fn denies(&self, _id: &IdentityId, _serial: &CertificateSerial) -> bool {
        self.asked.fetch_add(1, SeqCst);
        self.revoked.load(SeqCst)
    }
}

/// Asked first in the TLS handshake and a second time when the connection is admitted; there, in the middle of the judging,
/// `meanwhile` happens.
struct Interrupted {
    asked: AtomicUsize,
    endpoint: OnceLock<Endpoint>,
    meanwhile: fn(&Endpoint) -> (usize, bool),
    closed: Mutex<Option<usize>>,
}

impl std::fmt::Debug for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Interrupted")
    }
}

impl DenyList for Interrupted {
    fn denies(&self, _id: &IdentityId, _serial: &CertificateSerial) -> bool {
        if self.asked.fetch_add(1, SeqCst) != 1 {
            return false;
        }
        let (closed, answer) = (self.meanwhile)(self.endpoint.get().expect("bound"));
        *self.closed.lock().expect("sound") = Some(closed);
        answer
    }
}

/// A node connects while `meanwhile` happens; what it hears, how many the revocation closed, and the endpoint.
async fn interrupted(
    world: &World,
    meanwhile: fn(&Endpoint) -> (usize, bool),
) -> (CloseReason, Option<usize>, Arc<Interrupted>) {
    let list = Arc::new(Interrupted {
        asked: AtomicUsize::new(0),
        endpoint: OnceLock::new(),
        meanwhile,
        closed: Mutex::new(None),
    });
    let endpoint = world.listen_with((Ipv4Addr::LOCALHOST, 0).into(), Some(list.clone()));
    let address = address(&endpoint);
    assert!(list.endpoint.set(endpoint).is_ok());
    let connection = soon(connect(&world.member(Role::Node, 1), &address, Protocol::Agent)).await.expect("connects");
    let reason = soon(connection.closed()).await;
    assert_eq!(list.asked.load(SeqCst), 2, "in the handshake and at the admission");
    let closed = *list.closed.lock().expect("sound");
    (reason, closed, list)
}

/// The list is read just before it changes, and the whole revocation runs before the newcomer goes on: its closing must find
/// the newcomer, or nobody would ever close it.
#[tokio::test]
async fn a_revocation_that_the_deny_list_missed_closes_the_newcomer() {
    let world = World::new();
    let (reason, closed, _list) =
        interrupted(&world, |endpoint| (endpoint.close_identity(&id(1), CloseCode::Revoked, ""), false)).await;
    assert_eq!(closed, Some(1), "the closing saw it");
    assert_eq!(reason.code(), Some(CloseCode::Revoked));
    assert!(reason.sentence().contains("ask the operator for a new token"), "{}", reason.sentence());
}

/// The identity is revoked while the handshake runs, after TLS has asked the list: there is nothing to close yet, so the
/// list must be asked again.
#[tokio::test]
async fn a_revocation_in_the_middle_of_the_handshake_is_seen_at_its_end() {
    let world = World::new();
    let (reason, _closed, list) = interrupted(&world, |_| (0, true)).await;
    assert_eq!(reason.code(), Some(CloseCode::Revoked));
    let endpoint = list.endpoint.get().expect("bound");
    assert_eq!(endpoint.stats().refused_for(Refusal::Revoked), 1);
    until("it is forgotten", || endpoint.stats().connections == 0).await;
    assert_eq!(endpoint.close_identity(&id(1), CloseCode::Revoked, ""), 0);
    assert!(tokio::time::timeout(Duration::from_millis(100), endpoint.accept()).await.is_err(), "nobody got in");
}

/// Whoever waits to be taken is among those who are closed.
#[tokio::test]
async fn a_connection_that_nobody_has_taken_yet_is_closed_and_counted() {
    let world = World::new();
    let endpoint = world.listen();
    let client =
        soon(connect(&world.member(Role::Node, 1), &address(&endpoint), Protocol::Agent)).await.expect("connects");
    until("it is admitted", || endpoint.stats().connections == 1).await;
    assert_eq!(endpoint.close_identity(&id(1), CloseCode::Revoked, ""), 1);
    assert_eq!(soon(client.closed()).await.code(), Some(CloseCode::Revoked));
    assert_eq!(endpoint.stats().connections, 0);
}

#[tokio::test]
async fn an_identity_that_is_revoked_gets_revoked_and_not_another_reason() {
    let world = World::new();
    let list = Arc::new(Switch::default());
    let endpoint = world.listen_with((Ipv4Addr::LOCALHOST, 0).into(), Some(list.clone()));
    let (client, _accepted) = pair(&world, &endpoint, Role::Node, Protocol::Agent).await;
    list.revoked.store(true, SeqCst);
    assert_eq!(endpoint.close_identity(&id(1), CloseCode::Revoked, "lost laptop"), 1);
    let error = soon(client.why_refused()).await;
    assert!(error.to_string().contains("ask the operator for a new token") && !error.retryable(), "{error}");
    let error = refusal(&world.member(Role::Node, 1), &address(&endpoint)).await;
    assert!(error.to_string().contains("ask the operator for a new token") && !error.retryable(), "{error}");
    until("it is counted", || endpoint.stats().refused_for(Refusal::Revoked) == 1).await;
}

async fn refusal(credentials: &Credentials, address: &str) -> ConnectError {
    soon(async {
        match connect(credentials, address, Protocol::Agent).await {
            Ok(connection) => connection.why_refused().await,
            Err(error) => error,
        }
    })
    .await
}

/// A client that keeps sessions, offers them again, and sends early data, as ours never does.
fn keeping(world: &World) -> quinn::ClientConfig {
    let mut tls =
        modchain_certs::client_config(&world.member(Role::Node, 1), &[Protocol::Agent.alpn()]).expect("settings");
    tls.resumption = rustls::client::Resumption::in_memory_sessions(16);
    tls.enable_early_data = true;
    quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).expect("QUIC")))
}

/// Connects and exchanges a byte, so that whatever the other side sends after the handshake has arrived; with a kept session
/// before the handshake is over. Tells whether the other side took it so early.
async fn visit(config: &quinn::ClientConfig, remote: std::net::SocketAddr) -> Result<bool, quinn::ConnectionError> {
    let client = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).expect("socket");
    let connecting = client.connect_with(config.clone(), remote, ORCHESTRATOR_NAME).expect("connects");
    let (connection, early) = match connecting.into_0rtt() {
        Ok((connection, taken)) => (connection, Some(taken)),
        Err(connecting) => (soon(connecting).await?, None),
    };
    if let Some(taken) = early
        && let (Some(()), true) = soon(async { tokio::join!(exchange(&connection), taken) }).await
    {
        connection.close(0u32.into(), b"");
        return Ok(true);
    }
    match soon(exchange(&connection)).await {
        Some(()) => connection.close(0u32.into(), b""),
        None => return Err(soon(connection.closed()).await),
    }
    Ok(false)
}

async fn exchange(connection: &quinn::Connection) -> Option<()> {
    let (mut send, mut recv) = connection.open_bi().await.ok()?;
    send.write_all(b"x").await.ok()?;
    recv.read_exact(&mut [0; 1]).await.ok()
}

/// A server with our transport and any TLS, which gives every byte back.
fn echoing(mut tls: rustls::ServerConfig, change: impl FnOnce(&mut rustls::ServerConfig)) -> quinn::Endpoint {
    change(&mut tls);
    let crypto = QuicServerConfig::try_from(tls).expect("QUIC");
    let config = settings::server_config(Arc::new(crypto));
    let endpoint = quinn::Endpoint::server(config, ([127, 0, 0, 1], 0).into()).expect("listens");
    let listening = endpoint.clone();
    tokio::spawn(async move {
        while let Some(incoming) = listening.accept().await {
            let Ok(connection) = incoming.await else { continue };
            if let Ok((mut send, mut recv)) = connection.accept_bi().await {
                let mut byte = [0];
                if recv.read_exact(&mut byte).await.is_ok() && send.write_all(&byte).await.is_ok() {
                    connection.closed().await;
                }
            }
        }
    });
    endpoint
}

/// Shows first that it can see the hole: with tickets on, a kept session gets past the verifier after its holder was revoked,
/// and what it says is heard before the handshake is over. With our own settings the same client, which offers the same session, is judged and refused.
#[tokio::test]
async fn a_kept_session_gets_a_revoked_peer_in_with_tickets_on_and_never_with_ours() {
    let world = World::new();
    let tls = |list: &Arc<Switch>| {
        let list: Arc<dyn DenyList> = list.clone();
        modchain_certs::server_config(&world.orchestrator(), &[Protocol::Agent.alpn()], Some(list)).expect("settings")
    };
    let with_tickets = |config: &mut rustls::ServerConfig| {
        config.send_tls13_tickets = 2;
        config.max_tls13_tickets = 2;
        config.max_early_data_size = u32::MAX;
        config.session_storage = rustls::server::ServerSessionMemoryCache::new(16);
    };
    let list = Arc::new(Switch::default());
    let open = echoing(tls(&list), with_tickets);
    let client = keeping(&world);
    let remote = open.local_addr().expect("bound");
    assert!(!visit(&client, remote).await.expect("a member gets in"));
    assert_eq!(list.asked.load(SeqCst), 1);
    list.revoked.store(true, SeqCst);
    assert!(
        visit(&client, remote).await.expect("the hole: revoked, and in"),
        "and heard before the handshake was over"
    );
    assert_eq!(list.asked.load(SeqCst), 1, "nobody was asked");

    // Our settings, at first with nobody revoked: every time it is judged.
    let list = Arc::new(Switch::default());
    let ours = echoing(tls(&list), |_| {});
    let remote = ours.local_addr().expect("bound");
    for visits in 1..=3 {
        assert!(!visit(&client, remote).await.expect("a member gets in"), "nothing is taken early");
        assert_eq!(list.asked.load(SeqCst), visits, "a full handshake every time");
    }
    list.revoked.store(true, SeqCst);
    let error = visit(&client, remote).await.expect_err("revoked, and out");
    let error = ConnectError::from_close("x", error.into());
    assert!(error.to_string().contains("the certificate was revoked"), "{error}");

    // And the endpoint as it is.
    let list = Arc::new(Switch::default());
    let endpoint = world.listen_with((Ipv4Addr::LOCALHOST, 0).into(), Some(list.clone()));
    list.revoked.store(true, SeqCst);
    let error = visit(&client, endpoint.local_address().expect("bound")).await.expect_err("out");
    assert!(ConnectError::from_close("x", error.into()).to_string().contains("the certificate was revoked"));
    assert_eq!(list.asked.load(SeqCst), 1);
}
