//! The TLS settings of both ends, built by hand, because a library's helper may turn on what must be off: sessions that are
//! resumed skip the check of the certificate, so a revoked peer would walk back in; early data can be replayed.

use std::sync::Arc;

use modchain_types::Role;
use rustls::client::{ClientConfig, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::server::{NoServerSessionStorage, ServerConfig, VerifierBuilderError};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use crate::credentials::Credentials;
use crate::identity::RootPin;
use crate::verify::{DenyList, JoinVerifier, MemberVerifier, OrchestratorVerifier};

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// These credentials are not for this side.
    #[error("a certificate of the role {role} cannot be used on this side of a connection")]
    Role {
        /// The role in them.
        role: Role,
    },
    /// The TLS library refused the key, the certificate or the root.
    #[error("the TLS library refused the credentials")]
    Rustls(#[from] rustls::Error),
    /// The TLS library refused the root.
    #[error("the TLS library refused the root certificate")]
    Verifier(#[from] VerifierBuilderError),
}

/// Makes ring the process's provider of cryptography. Call it first thing in `main`: a library that builds TLS settings of
/// its own asks for the default. Harmless when repeated.
pub fn install_crypto_provider() {
    // An error means that one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The orchestrator's side: TLS 1.3 only, a certificate of a member is mandatory from the first packet on, no tickets, no
/// stored sessions, no early data. `protocols` in order of preference.
pub fn server_config(
    credentials: &Credentials,
    protocols: &[&[u8]],
    deny: Option<Arc<dyn DenyList>>,
) -> Result<ServerConfig, TlsError> {
    orchestrator_only(credentials)?;
    let provider = provider();
    let verifier = MemberVerifier::new(credentials.root(), credentials.trust_domain().clone(), deny, provider.clone())?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(credentials.certified_key()?)));
    forget_sessions(&mut config, protocols);
    Ok(config)
}

/// The orchestrator's side of the join port: as [`server_config`], but no certificate is asked of the other side, and the
/// root goes with our own, last: a newcomer has nothing of it yet but the digest of its public key.
pub fn join_server_config(credentials: &Credentials, protocols: &[&[u8]]) -> Result<ServerConfig, TlsError> {
    orchestrator_only(credentials)?;
    let own = credentials.certified_key()?;
    let mut chain = own.cert.clone();
    chain.push(credentials.root().clone());
    let shown = CertifiedKey::new(chain, own.key.clone());
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(shown)));
    forget_sessions(&mut config, protocols);
    Ok(config)
}

/// Everybody else's side: TLS 1.3 only, our own certificate, no resumption, no early data; the other side must be the
/// orchestrator of the root in `credentials`.
pub fn client_config(credentials: &Credentials, protocols: &[&[u8]]) -> Result<ClientConfig, TlsError> {
    match credentials.identity().role {
        Role::Operator | Role::Client | Role::Node => {}
        role @ Role::Orchestrator => return Err(TlsError::Role { role }),
    }
    let provider = provider();
    let verifier = OrchestratorVerifier::new(credentials.root(), credentials.trust_domain().clone(), provider.clone())?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous() // a verifier of our own, which asks for more than the library's
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(credentials.certified_key()?)));
    resume_nothing(&mut config, protocols);
    Ok(config)
}

/// As [`client_config`], but with no certificate to show, for whoever wants to know nothing but whether the orchestrator is
/// there and is the one of `credentials`: it refuses such a connection, and counts it among nobody's.
pub fn anonymous_client_config(credentials: &Credentials, protocols: &[&[u8]]) -> Result<ClientConfig, TlsError> {
    let provider = provider();
    let verifier = OrchestratorVerifier::new(credentials.root(), credentials.trust_domain().clone(), provider.clone())?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous() // a verifier of our own, which asks for more than the library's
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    resume_nothing(&mut config, protocols);
    Ok(config)
}

/// A newcomer's side of the join port: as [`client_config`], but without a certificate. The other side must send its root
/// last, that root must be the one that `pin` names, and the other side must be that root's orchestrator;
/// otherwise the handshake ends before a byte of what the program has to say is sent.
pub fn join_client_config(pin: RootPin, protocols: &[&[u8]]) -> Result<ClientConfig, TlsError> {
    let provider = provider();
    let verifier = JoinVerifier::new(pin, provider.clone());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous() // a verifier of our own, which learns the root in the handshake
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    resume_nothing(&mut config, protocols);
    Ok(config)
}

fn orchestrator_only(credentials: &Credentials) -> Result<(), TlsError> {
    match credentials.identity().role {
        Role::Orchestrator => Ok(()),
        role @ (Role::Operator | Role::Client | Role::Node) => Err(TlsError::Role { role }),
    }
}

/// What every server of ours has in common: each connection is judged from the beginning.
fn forget_sessions(config: &mut ServerConfig, protocols: &[&[u8]]) {
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    config.send_tls13_tickets = 0;
    config.max_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    config.send_half_rtt_data = false;
}

/// What every client of ours has in common.
fn resume_nothing(config: &mut ClientConfig, protocols: &[&[u8]]) {
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
