//! A key on its way to a certificate, as its holder sees it ([`KeyRequest`]) and as the orchestrator does
//! ([`RequestedKey`]).
//!
//! The holder makes the key on its own machine, keeps it in `key.pem.new` before it asks anybody for anything, and
//! takes no certificate but one for this key, this identity and the root that it trusts. The orchestrator takes from a
//! signing request the public key, in the one form that it has, and nothing else: no name, no extension, no attribute.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use modchain_types::{IdentityId, KeyDigest, Role, WallTime};
use rcgen::{CertificateParams, DistinguishedName, SigningKey};
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError, RootCertStore};
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::OID_SIG_ECDSA_WITH_SHA256;
use x509_parser::prelude::FromDer;

use crate::channel::Exporter;
use crate::credentials::{self, CHAIN_MAX, Credentials, CredentialsError};
use crate::identity::{IdentityError, PeerIdentity, TrustDomain, key_digest, sha256};
use crate::key::PrivateKey;

/// Largest signing request that is read, in bytes: ours have about 190.
pub const REQUEST_BYTES_MAX: usize = 2048;

/// Goes before what a renewal's proof signs, so that the signature fits nothing else.
const RENEWAL_LABEL: &[u8] = b"modchain renew v1";

/// Everything in the DER `SubjectPublicKeyInfo` of a P-256 key (RFC 5480) before its two coordinates: the lengths, the
/// two algorithm identifiers, and the 4 of an uncompressed point. One key has one form, and so one digest.
const P256_PREFIX: [u8; 27] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];
/// Bytes of it with the coordinates.
const P256_BYTES: usize = P256_PREFIX.len() + 64;

/// Why a certificate that came is not taken.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// None, or more than a chain of ours has.
    #[error("{found} certificates came instead of 1 to {CHAIN_MAX}")]
    Count {
        /// How many.
        found: usize,
    },
    /// The root itself is none.
    #[error("the root certificate cannot be used")]
    Root(#[source] rustls::Error),
    /// It is not good now, by this machine's clock.
    #[error("the certificate is not valid now by this machine's clock: set the clock and try again")]
    Dates(#[source] rustls::Error),
    /// Not issued under the root, or for another use.
    #[error("the certificate does not lead to the orchestrator's root")]
    Chain(#[source] rustls::Error),
    /// It names nobody that we know how to treat.
    #[error("the certificate cannot be used")]
    Identity(#[from] IdentityError),
    /// It names another than it was asked for.
    #[error("the certificate is for the {role} {id}, which is not whom it was asked for")]
    Other {
        /// The role in it.
        role: Role,
        /// The id in it.
        id: IdentityId,
    },
    /// It certifies a key that was not made here.
    #[error("the certificate is for another key than the one that was made here")]
    Key,
}

/// A key that was made here and has no certificate yet. Has no `Debug`, cannot be cloned, and is wiped when dropped.
pub struct KeyRequest {
    key: PrivateKey,
    der: Vec<u8>,
}

impl KeyRequest {
    /// A new key, in memory only.
    pub fn generate() -> Self {
        Self::for_key(PrivateKey::generate())
    }

    /// The key in `dir` that waits for its certificate (`key.pem.new`, mode 0600), or a new one that is kept there,
    /// durable when this returns. A key that is found is used again: the certificate for it may have been issued
    /// already and its delivery lost. A file that holds no key is replaced, because nothing can have been certified for
    /// it; one that is too open, of another user, or not a plain file is refused.
    pub fn load_or_create(dir: &Path) -> Result<Self, CredentialsError> {
        Ok(Self::for_key(credentials::waiting_key(dir)?))
    }

    /// Forgets the key in `dir` that waits for its certificate, if there is one, because what comes back for it is of no use. A
    /// key that its certificate is there for already is not waiting, and stays.
    pub fn discard(dir: &Path) -> Result<(), CredentialsError> {
        credentials::discard_waiting_key(dir)
    }

    fn for_key(key: PrivateKey) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&*key.pair()).expect("a request that wishes for nothing can be written");
        Self { key, der: request.der().to_vec() }
    }

    /// The signing request: PKCS #10 in DER, with an empty subject and without extensions. The same for as long as this
    /// value lives, which proofs depend on.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Of the public key.
    pub fn key_digest(&self) -> KeyDigest {
        key_digest(&self.key.public_key_der())
    }

    /// Proves that this key is asked to be certified on this TLS channel, exported with
    /// [`RENEWAL_CONTEXT`](crate::channel::RENEWAL_CONTEXT): ECDSA on P-256 in ASN.1, up to 72 bytes.
    pub fn prove_renewal(&self, exporter: &Exporter) -> Vec<u8> {
        let message = renewal_message(exporter, &sha256(&[&self.der]));
        self.key.pair().sign(&message).expect("the system's random numbers do not run out")
    }

    /// Takes the certificate that came for this key: `chain` with the certificate first, without `root`. Nothing that
    /// came is believed: the chain must lead to the root and be good at `now`, the key must be this one, and the
    /// certificate must name exactly this role and id.
    pub fn accept(
        self,
        chain: Vec<CertificateDer<'static>>,
        root: CertificateDer<'static>,
        role: Role,
        id: IdentityId,
        now: WallTime,
    ) -> Result<Credentials, AcceptError> {
        let found = chain.len();
        let [leaf, issuers @ ..] = chain.as_slice() else { return Err(AcceptError::Count { found }) };
        if found > CHAIN_MAX {
            return Err(AcceptError::Count { found });
        }
        verify(leaf, issuers, &root, now)?;
        let domain = TrustDomain::of_root(&root)?;
        let identity = PeerIdentity::from_certificate(leaf, &domain)?;
        if identity.key != self.key_digest() {
            return Err(AcceptError::Key);
        }
        if (identity.role, identity.id) != (role, id) {
            return Err(AcceptError::Other { role: identity.role, id: identity.id });
        }
        Ok(Credentials::new(self.key, chain, root, identity, domain))
    }

    pub(crate) fn into_key(self) -> PrivateKey {
        self.key
    }
}

fn verify(
    leaf: &CertificateDer<'_>,
    issuers: &[CertificateDer<'_>],
    root: &CertificateDer<'static>,
    now: WallTime,
) -> Result<(), AcceptError> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).map_err(AcceptError::Root)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .expect("there is a root, and no list of revoked certificates that could be damaged");
    let now = UnixTime::since_unix_epoch(Duration::from_millis(u64::try_from(now.0).unwrap_or(0)));
    match verifier.verify_client_cert(leaf, issuers, now) {
        Ok(_) => Ok(()),
        Err(
            error @ rustls::Error::InvalidCertificate(
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. },
            ),
        ) => Err(AcceptError::Dates(error)),
        Err(error) => Err(AcceptError::Chain(error)),
    }
}

/// A signing request that is not one, is not signed by its own key, or asks for a key that is not on P-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signing request is not a sound one for a P-256 key")]
pub struct BadRequest;

/// The public key of a signing request, whose sender holds the private one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestedKey {
    public_key_der: [u8; P256_BYTES],
    request_digest: [u8; 32],
}

impl RequestedKey {
    /// Reads a signing request (PKCS #10, DER) and checks its signature. Whatever else it asks for is ignored.
    pub fn read(request_der: &[u8]) -> Result<Self, BadRequest> {
        if request_der.len() > REQUEST_BYTES_MAX {
            return Err(BadRequest);
        }
        let Ok(([], request)) = X509CertificationRequest::from_der(request_der) else { return Err(BadRequest) };
        let info = &request.certification_request_info;
        let public_key_der: [u8; P256_BYTES] = info.subject_pki.raw.try_into().map_err(|_| BadRequest)?;
        if !public_key_der.starts_with(&P256_PREFIX)
            || request.signature_algorithm.algorithm != OID_SIG_ECDSA_WITH_SHA256
        {
            return Err(BadRequest);
        }
        let requested = Self { public_key_der, request_digest: sha256(&[request_der]) };
        // The signature is over the first part as it was sent.
        match requested.has_signed(info.raw, &request.signature_value.data) {
            true => Ok(requested),
            false => Err(BadRequest),
        }
    }

    /// The key in DER (`SubjectPublicKeyInfo`).
    pub fn public_key_der(&self) -> &[u8] {
        &self.public_key_der
    }

    /// Of the key.
    pub fn key_digest(&self) -> KeyDigest {
        key_digest(&self.public_key_der)
    }

    /// Whether `proof` is what [`KeyRequest::prove_renewal`] gives for this very request on this TLS channel.
    pub fn is_possessed(&self, exporter: &Exporter, proof: &[u8]) -> bool {
        self.has_signed(&renewal_message(exporter, &self.request_digest), proof)
    }

    fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        // The point with its leading 4; ring checks that it is on the curve.
        let point = &self.public_key_der[P256_PREFIX.len() - 1..];
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).verify(message, signature).is_ok()
    }
}

fn renewal_message(exporter: &Exporter, request_digest: &[u8; 32]) -> Vec<u8> {
    [RENEWAL_LABEL, &exporter.0, request_digest].concat()
}
