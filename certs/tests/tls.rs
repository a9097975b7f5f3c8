//! The settings read back, and handshakes in memory between honest and dishonest sides.

mod common;

use std::sync::Arc;
use std::time::SystemTime;

use common::{ID, LIFETIME, World, dns, node_like, uri};
use modchain_certs::{
    Credentials, DenyList, ORCHESTRATOR_ID, ORCHESTRATOR_NAME, Subject, TlsError, client_config, server_config,
};
use modchain_types::{CertificateSerial, IdentityId, Role};
use rcgen::{ExtendedKeyUsagePurpose, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, Error, HandshakeKind, RootCertStore,
    ServerConfig, ServerConnection,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};

const PROTOCOL: &[u8] = b"test/1";

fn server(world: &World) -> ServerConfig {
    server_config(&world.orchestrator(), &[PROTOCOL], None).expect("server settings")
}

fn client(credentials: &Credentials) -> ClientConfig {
    client_config(credentials, &[PROTOCOL]).expect("client settings")
}

/// Runs a handshake to its end: what each side says of it.
fn shake(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> (Result<HandshakeKind, Error>, Result<(), Error>) {
    let name = ServerName::try_from(ORCHESTRATOR_NAME).expect("a name");
    let mut client = ClientConnection::new(client, name).expect("client");
    let mut server = ServerConnection::new(server).expect("server");
    let (mut client_error, mut server_error) = (None, None);
    for _ in 0..10 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).expect("in memory");
        }
        feed(&bytes, |part| server.read_tls(part).map(drop));
        if server_error.is_none() {
            server_error = server.process_new_packets().err();
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).expect("in memory");
        }
        feed(&bytes, |part| client.read_tls(part).map(drop));
        if client_error.is_none() {
            client_error = client.process_new_packets().err();
        }
    }
    let kind = client.handshake_kind();
    let client_result = match client_error {
        Some(error) => Err(error),
        None => Ok(kind.expect("it has ended")),
    };
    let server_result = match server_error {
        Some(error) => Err(error),
        None => {
            assert!(!server.is_handshaking());
            Ok(())
        }
    };
    (client_result, server_result)
}

fn feed(mut bytes: &[u8], mut read: impl FnMut(&mut &[u8]) -> std::io::Result<()>) {
    while !bytes.is_empty() {
        read(&mut bytes).expect("in memory");
    }
}

fn alert(error: &Error) -> Option<AlertDescription> {
    match error {
        Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}

#[test]
fn the_server_resumes_nothing_and_demands_a_certificate() {
    let world = World::new();
    let config = server(&world);
    assert_eq!((config.send_tls13_tickets, config.max_tls13_tickets, config.max_early_data_size), (0, 0, 0));
    assert!(!config.session_storage.can_cache());
    assert!(!config.ticketer.enabled());
    assert!(!config.send_half_rtt_data && !config.enable_secret_extraction);
    assert_eq!(config.alpn_protocols, [PROTOCOL]);
    assert!(format!("{config:?}").contains("MemberVerifier"));
}

#[test]
fn the_client_resumes_nothing_and_sends_nothing_early() {
    let world = World::new();
    let config = client(&world.member(Role::Node));
    assert!(format!("{:?}", config.resumption).contains("NoClientSessionStorage"), "{:?}", config.resumption);
    assert!(!config.enable_early_data && !config.enable_secret_extraction);
    assert_eq!(config.alpn_protocols, [PROTOCOL]);
    assert!(config.client_auth_cert_resolver.has_certs());
}

#[test]
fn every_member_gets_in_and_every_handshake_is_a_full_one() {
    let world = World::new();
    let server = Arc::new(server(&world));
    for role in [Role::Node, Role::Client, Role::Operator] {
        let client = Arc::new(client(&world.member(role)));
        for _ in 0..3 {
            let (at_client, at_server) = shake(client.clone(), server.clone());
            assert_eq!((at_client, at_server), (Ok(HandshakeKind::Full), Ok(())));
        }
    }
}

#[test]
fn each_side_takes_only_its_own_credentials() {
    let world = World::new();
    assert!(matches!(client_config(&world.orchestrator(), &[]), Err(TlsError::Role { role: Role::Orchestrator })));
    let result = server_config(&world.member(Role::Node), &[], None);
    assert!(matches!(result, Err(TlsError::Role { role: Role::Node })));
}

#[test]
fn a_client_without_certificate_is_refused() {
    let world = World::new();
    let mut config = client(&world.member(Role::Node));
    config.client_auth_cert_resolver = bare().client_auth_cert_resolver;
    let (at_client, at_server) = shake(Arc::new(config), Arc::new(server(&world)));
    assert_eq!(at_server, Err(Error::NoCertificatesPresented));
    assert_eq!(at_client.err().as_ref().and_then(alert), Some(AlertDescription::CertificateRequired));
}

#[test]
fn a_client_of_another_authority_is_refused() {
    let (world, other) = (World::new(), World::new());
    let mut config = client(&world.member(Role::Node));
    config.client_auth_cert_resolver = client(&other.member(Role::Node)).client_auth_cert_resolver;
    let (at_client, at_server) = shake(Arc::new(config), Arc::new(server(&world)));
    assert_eq!(at_server, Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)));
    assert_eq!(at_client.err().as_ref().and_then(alert), Some(AlertDescription::UnknownCA));
}

#[test]
fn a_server_of_another_authority_is_refused() {
    let (world, other) = (World::new(), World::new());
    let (at_client, _) = shake(Arc::new(client(&world.member(Role::Node))), Arc::new(server(&other)));
    assert_eq!(at_client, Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)));
}

#[test]
fn a_member_that_plays_the_orchestrator_is_refused() {
    let world = World::new();
    let honest = world.member(Role::Node);
    let resolver = |chain, key| bare_server(&world, chain, key);
    // A node's own certificate.
    let dir = world.dir.path().join("node");
    honest.save(&dir).expect("saves");
    let key = KeyPair::from_pem(&std::fs::read_to_string(dir.join("key.pem")).expect("reads")).expect("key");
    let (at_client, _) = shake(Arc::new(client(&honest)), Arc::new(resolver(honest.chain().to_vec(), key)));
    assert!(matches!(at_client, Err(Error::InvalidCertificate(_))), "{at_client:?}");
    // A forged one that is right in everything but its URI.
    let forged = |names: Vec<rcgen::SanType>| {
        let forger = world.forger();
        let key = KeyPair::generate().expect("key");
        let mut params = node_like();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.subject_alt_names = names;
        let leaf = forger.sign(&params, &key);
        shake(Arc::new(client(&honest)), Arc::new(resolver(vec![leaf, forger.issuing.clone()], key))).0
    };
    let orchestrator = world.domain().uri(Role::Orchestrator, ORCHESTRATOR_ID);
    let node = world.domain().uri(Role::Node, ID);
    assert_eq!(forged(vec![dns(ORCHESTRATOR_NAME), uri(&orchestrator)]), Ok(HandshakeKind::Full), "the forger is able");
    for names in [
        vec![dns(ORCHESTRATOR_NAME), uri(&node)],
        vec![dns(ORCHESTRATOR_NAME)],
        vec![dns(ORCHESTRATOR_NAME), uri(&orchestrator), uri(&node)],
        vec![dns("evil.modchain"), uri(&orchestrator)],
    ] {
        let result = forged(names);
        assert!(matches!(result, Err(Error::InvalidCertificate(_))), "{result:?}");
    }
}

#[test]
fn a_forged_member_is_refused_even_with_a_sound_signature() {
    let world = World::new();
    let forger = world.forger();
    let key = KeyPair::generate().expect("key");
    let mut params = node_like();
    params.subject_alt_names =
        vec![uri(&world.domain().uri(Role::Node, ID)), uri(&world.domain().uri(Role::Operator, ID))];
    let leaf = forger.sign(&params, &key);
    let mut config = client(&world.member(Role::Node));
    config.client_auth_cert_resolver = with_certificate(vec![leaf, forger.issuing.clone()], &key);
    let (at_client, at_server) = shake(Arc::new(config), Arc::new(server(&world)));
    assert!(matches!(at_server, Err(Error::InvalidCertificate(CertificateError::Other(_)))), "{at_server:?}");
    assert!(at_client.is_err());
}

#[test]
fn expired_certificates_are_refused_by_both_sides() {
    let world = World::new();
    let long_ago = SystemTime::now() - 3 * LIFETIME;
    let expired = |subject| world.authority.issue(subject, LIFETIME, long_ago).expect("issues");
    let node = expired(Subject::member(Role::Node, ID).expect("a member"));
    let (at_client, at_server) = shake(Arc::new(client(&node)), Arc::new(server(&world)));
    assert!(matches!(
        at_server,
        Err(Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }))
    ));
    assert_eq!(at_client.err().as_ref().and_then(alert), Some(AlertDescription::CertificateExpired));
    let orchestrator = server_config(&expired(Subject::ORCHESTRATOR), &[PROTOCOL], None).expect("settings");
    let (at_client, _) = shake(Arc::new(client(&world.member(Role::Node))), Arc::new(orchestrator));
    assert!(matches!(at_client, Err(Error::InvalidCertificate(_))));
}

#[derive(Debug)]
struct Denied(IdentityId);

impl DenyList for Denied {
    fn denies(&self, id: &IdentityId, _serial: &CertificateSerial) -> bool {
        *id == self.0
    }
}

#[test]
fn a_denied_identity_is_refused_as_revoked_and_others_are_not() {
    let world = World::new();
    let server = server_config(&world.orchestrator(), &[PROTOCOL], Some(Arc::new(Denied(ID)))).expect("settings");
    let server = Arc::new(server);
    let (at_client, at_server) = shake(Arc::new(client(&world.member(Role::Node))), server.clone());
    assert_eq!(at_server, Err(Error::InvalidCertificate(CertificateError::Revoked)));
    assert_eq!(at_client.err().as_ref().and_then(alert), Some(AlertDescription::CertificateRevoked));
    let other = Subject::member(Role::Node, IdentityId([7; 16])).expect("a member");
    let other = world.authority.issue(other, LIFETIME, SystemTime::now()).expect("issues");
    assert_eq!(shake(Arc::new(client(&other)), server).1, Ok(()));
}

#[test]
fn sides_without_a_common_protocol_part() {
    let world = World::new();
    let config = client_config(&world.member(Role::Node), &[b"other/1"]).expect("settings");
    let (_, at_server) = shake(Arc::new(config), Arc::new(server(&world)));
    assert_eq!(at_server, Err(Error::NoApplicationProtocol));
}

/// Shows that the handshakes above could see a resumption, were there one.
#[test]
fn the_librarys_own_settings_would_resume_a_session() {
    let world = World::new();
    let mut server = server(&world);
    server.send_tls13_tickets = 2;
    server.session_storage = rustls::server::ServerSessionMemoryCache::new(8);
    let mut client = client(&world.member(Role::Node));
    client.resumption = rustls::client::Resumption::default();
    let (client, server) = (Arc::new(client), Arc::new(server));
    assert_eq!(shake(client.clone(), server.clone()).0, Ok(HandshakeKind::Full));
    assert_eq!(shake(client, server).0, Ok(HandshakeKind::Resumed));
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn bare() -> ClientConfig {
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth()
}

fn private(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(key.serialize_der()).into()
}

fn with_certificate(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Arc<dyn rustls::client::ResolvesClientCert> {
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(RootCertStore::empty())
        .with_client_auth_cert(chain, private(key))
        .expect("certificate")
        .client_auth_cert_resolver
}

/// A server that trusts our root and shows any certificate.
fn bare_server(world: &World, chain: Vec<CertificateDer<'static>>, key: KeyPair) -> ServerConfig {
    let mut roots = RootCertStore::empty();
    roots.add(world.authority.root().clone()).expect("root");
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build().expect("verifier");
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, private(&key))
        .expect("certificate");
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config
}
