//! How each side judges the other's certificate during the handshake: the chain as usual, and then the identity in it.

use std::fmt;
use std::sync::Arc;

use modchain_types::{CertificateSerial, IdentityId, Role};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::identity::{IdentityError, PeerIdentity, RootPin, TrustDomain};
use crate::tls::TlsError;

/// The identities and certificates that are no longer welcome. Asked during every handshake, so it must answer at once and
/// must not block.
pub trait DenyList: fmt::Debug + Send + Sync {
    /// Whether this identity, or this one certificate of it, is revoked.
    fn denies(&self, id: &IdentityId, serial: &CertificateSerial) -> bool;
}

/// The orchestrator's judge: a certificate is mandatory, must chain to our root, must name a member, must not be denied.
#[derive(Debug)]
pub(crate) struct MemberVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    domain: TrustDomain,
    deny: Option<Arc<dyn DenyList>>,
}

impl MemberVerifier {
    pub(crate) fn new(
        root: &CertificateDer<'static>,
        domain: TrustDomain,
        deny: Option<Arc<dyn DenyList>>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let chain = WebPkiClientVerifier::builder_with_provider(roots(root)?, provider).build()?;
        Ok(Self { chain, domain, deny })
    }
}

impl ClientCertVerifier for MemberVerifier {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        true
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // None: a client has one certificate, and the hint would tell strangers whose orchestrator this is.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        let peer = PeerIdentity::from_certificate(end_entity, &self.domain).map_err(refused)?;
        match peer.role {
            Role::Operator | Role::Client | Role::Node => {}
            Role::Orchestrator => return Err(refused(IdentityError::Usage { role: peer.role })),
        }
        if self.deny.as_ref().is_some_and(|deny| deny.denies(&peer.id, &peer.serial)) {
            return Err(CertificateError::Revoked.into());
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// Everybody else's judge: the other side must chain to our root, carry the orchestrator's name, and be it by its URI.
#[derive(Debug)]
pub(crate) struct OrchestratorVerifier {
    chain: Arc<WebPkiServerVerifier>,
    domain: TrustDomain,
}

impl OrchestratorVerifier {
    pub(crate) fn new(
        root: &CertificateDer<'static>,
        domain: TrustDomain,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let chain = WebPkiServerVerifier::builder_with_provider(roots(root)?, provider).build()?;
        Ok(Self { chain, domain })
    }
}

impl ServerCertVerifier for OrchestratorVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        let peer = PeerIdentity::from_certificate(end_entity, &self.domain).map_err(refused)?;
        match peer.role {
            Role::Orchestrator => Ok(verified),
            Role::Operator | Role::Client | Role::Node => Err(refused(IdentityError::Usage { role: peer.role })),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// A newcomer's judge. It has no root yet, only the digest of the root's public key, so the other side sends the root as its
/// last certificate. Whoever copies our root, which is no secret, still has to show a certificate that it leads to.
#[derive(Debug)]
pub(crate) struct JoinVerifier {
    pin: RootPin,
    provider: Arc<CryptoProvider>,
}

impl JoinVerifier {
    pub(crate) fn new(pin: RootPin, provider: Arc<CryptoProvider>) -> Self {
        Self { pin, provider }
    }
}

impl ServerCertVerifier for JoinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let (root, issuers) = intermediates.split_last().ok_or(CertificateError::UnknownIssuer)?;
        if RootPin::of_root(root).map_err(|_| CertificateError::BadEncoding)? != self.pin {
            return Err(CertificateError::UnknownIssuer.into());
        }
        // From here on it is an orchestrator's certificate as any other, with this root as the only one.
        let domain = TrustDomain::of_root(root).map_err(refused)?;
        let verifier = OrchestratorVerifier::new(&root.clone().into_owned(), domain, self.provider.clone())
            .map_err(|_| CertificateError::BadEncoding)?;
        verifier.verify_server_cert(end_entity, issuers, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn roots(root: &CertificateDer<'static>) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone())?;
    Ok(Arc::new(roots))
}

fn refused(error: IdentityError) -> Error {
    CertificateError::Other(OtherError(Arc::new(error))).into()
}
