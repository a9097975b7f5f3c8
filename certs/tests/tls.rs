//! The settings read back, and handshakes in memory between honest and dishonest sides.

mod common;

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::SystemTime;

use common::{ID, LIFETIME, World, dns, node_like, uri};
use modchain_certs::{
    Credentials, DenyList, ORCHESTRATOR_ID, ORCHESTRATOR_NAME, RootPin, Subject, TlsError, client_config,
    join_client_config, join_server_config, server_config,
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

/// What a newcomer says once it trusts the other side.
const SECRET: &[u8] = b"the token's proof";

/// A newcomer's pin of this root.
fn pin(root: &CertificateDer<'_>) -> RootPin {
    use x509_parser::prelude::{FromDer, X509Certificate};
    let (_, root) = X509Certificate::from_der(root).expect("a certificate");
    let digest = ring::digest::digest(&ring::digest::SHA256, root.tbs_certificate.subject_pki.raw);
    RootPin(digest.as_ref().try_into().expect("32 bytes"))
}

fn newcomer(pin: RootPin) -> ClientConfig {
    join_client_config(pin, &[PROTOCOL]).expect("settings")
}

fn join_server(credentials: &Credentials) -> ServerConfig {
    join_server_config(credentials, &[PROTOCOL]).expect("settings")
}

/// A newcomer joins: what it says of the handshake, the certificates that it saw, and what the other side could read.
fn join(client: ClientConfig, server: ServerConfig) -> (Result<(), Error>, Vec<CertificateDer<'static>>, Vec<u8>) {
    let name = ServerName::try_from(ORCHESTRATOR_NAME).expect("a name");
    let mut client = ClientConnection::new(Arc::new(client), name).expect("client");
    let mut server = ServerConnection::new(Arc::new(server)).expect("server");
    client.writer().write_all(SECRET).expect("waits for the end of the handshake");
    let (mut verdict, mut heard) = (Ok(()), Vec::new());
    for _ in 0..10 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).expect("in memory");
        }
        feed(&bytes, |part| server.read_tls(part).map(drop));
        // What it says to a newcomer's refusal is not of interest.
        let _ = server.process_new_packets();
        // Nothing to read, or the end.
        let _ = server.reader().read_to_end(&mut heard);
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).expect("in memory");
        }
        feed(&bytes, |part| client.read_tls(part).map(drop));
        if verdict.is_ok() {
            verdict = client.process_new_packets().map(drop);
        }
    }
    let seen = client.peer_certificates().unwrap_or_default().iter().map(|der| der.clone().into_owned()).collect();
    assert!(verdict.is_err() || !client.is_handshaking());
    (verdict, seen, heard)
}

#[test]
fn the_join_ports_settings_read_back() {
    let world = World::new();
    let config = join_server(&world.orchestrator());
    assert_eq!((config.send_tls13_tickets, config.max_tls13_tickets, config.max_early_data_size), (0, 0, 0));
    assert!(!config.session_storage.can_cache() && !config.ticketer.enabled());
    assert!(!config.send_half_rtt_data && !config.enable_secret_extraction);
    assert_eq!(config.alpn_protocols, [PROTOCOL]);
    assert!(format!("{config:?}").contains("NoClientAuth"));
    let client = newcomer(RootPin([0; 32]));
    assert!(format!("{:?}", client.resumption).contains("NoClientSessionStorage"), "{:?}", client.resumption);
    assert!(!client.enable_early_data && !client.enable_secret_extraction && client.enable_sni);
    assert!(!client.client_auth_cert_resolver.has_certs());
    let refused = join_server_config(&world.member(Role::Operator), &[PROTOCOL]);
    assert!(matches!(refused, Err(TlsError::Role { role: Role::Operator })));
}

#[test]
fn a_newcomer_learns_the_root_that_it_pinned_and_only_then_speaks() {
    let world = World::new();
    let root = world.authority.root();
    let (verdict, seen, heard) = join(newcomer(pin(root)), join_server(&world.orchestrator()));
    assert_eq!(verdict, Ok(()));
    assert_eq!(heard, SECRET, "what the refusals below are measured by");
    assert_eq!((seen.len(), seen.last()), (3, Some(root)));
}

/// The attacks on a newcomer by somebody who has everything that is public, or who is a member.
#[test]
fn a_newcomer_says_nothing_to_anybody_but_the_orchestrator_of_its_pin() {
    let (world, other) = (World::new(), World::new());
    let ours = pin(world.authority.root());
    let unknown = Error::InvalidCertificate(CertificateError::UnknownIssuer);
    let refused = |server: ServerConfig| {
        let (verdict, _, heard) = join(newcomer(ours), server);
        assert_eq!(heard, b"", "{verdict:?}");
        verdict.expect_err("refused")
    };
    assert_eq!(refused(join_server(&other.orchestrator())), unknown, "another authority's orchestrator");
    let mut without_root = join_server(&world.orchestrator());
    without_root.cert_resolver = server(&world).cert_resolver;
    assert_eq!(refused(without_root), unknown, "the last certificate is not the pinned root");
    let forger = world.forger();
    let signed = |names: Vec<rcgen::SanType>, usage, root: &CertificateDer<'static>| {
        let key = KeyPair::generate().expect("key");
        let mut params = node_like();
        params.extended_key_usages = vec![usage];
        params.subject_alt_names = names;
        let chain = vec![forger.sign(&params, &key), forger.issuing.clone(), root.clone()];
        open_server(chain, &key)
    };
    let orchestrator = uri(&world.domain().uri(Role::Orchestrator, ORCHESTRATOR_ID));
    let named = || vec![dns(ORCHESTRATOR_NAME), orchestrator.clone()];
    let (root, server_auth) = (world.authority.root(), ExtendedKeyUsagePurpose::ServerAuth);
    assert_eq!(join(newcomer(ours), signed(named(), server_auth.clone(), root)).0, Ok(()), "the forger is able");
    assert_eq!(refused(signed(named(), server_auth.clone(), other.authority.root())), unknown, "another root");
    for (what, names, usage) in [
        ("a client's usage", named(), ExtendedKeyUsagePurpose::ClientAuth),
        ("another name", vec![dns("evil.modchain"), orchestrator.clone()], server_auth.clone()),
        ("no URI", vec![dns(ORCHESTRATOR_NAME)], server_auth.clone()),
        ("a node's URI", vec![dns(ORCHESTRATOR_NAME), uri(&world.domain().uri(Role::Node, ID))], server_auth.clone()),
        (
            "another domain's orchestrator",
            vec![dns(ORCHESTRATOR_NAME), uri(&other.domain().uri(Role::Orchestrator, ORCHESTRATOR_ID))],
            server_auth.clone(),
        ),
    ] {
        let error = refused(signed(names, usage, root));
        assert!(matches!(error, Error::InvalidCertificate(_)), "{what}: {error:?}");
    }
    // Another authority's chain with our root behind it: the pin fits, the path does not.
    let key = KeyPair::generate().expect("key");
    let mut params = node_like();
    params.extended_key_usages = vec![server_auth];
    params.subject_alt_names = named();
    let foreign = other.forger();
    let chain = vec![foreign.sign(&params, &key), foreign.issuing.clone(), root.clone()];
    assert!(matches!(refused(open_server(chain, &key)), Error::InvalidCertificate(_)));
    // Our own orchestrator with a certificate whose time is over.
    let long_ago = SystemTime::now() - 3 * LIFETIME;
    let expired = world.authority.issue(Subject::ORCHESTRATOR, LIFETIME, long_ago).expect("issues");
    assert!(matches!(
        refused(join_server(&expired)),
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. })
    ));
}

#[test]
fn every_bit_of_the_pin_counts() {
    let world = World::new();
    let right = pin(world.authority.root());
    for bit in [0, 7, 100, 255] {
        let mut wrong = right;
        wrong.0[bit / 8] ^= 1 << (bit % 8);
        let (verdict, _, heard) = join(newcomer(wrong), join_server(&world.orchestrator()));
        assert_eq!((verdict.is_err(), heard.len()), (true, 0), "bit {bit}");
    }
}

/// A server that asks for no certificate and shows any.
fn open_server(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> ServerConfig {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, private(key))
        .expect("certificate");
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config
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
