//! The profile of the certificates that people and programs hold.

use std::time::{Duration, SystemTime};

use modchain_types::{CertificateSerial, IdentityId, Role};
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use ring::rand::{SecureRandom, SystemRandom};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};
use time::OffsetDateTime;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use crate::authority::AuthorityError;
use crate::identity::{ORCHESTRATOR_ID, ORCHESTRATOR_NAME, PeerIdentity, TrustDomain};

/// How far back a certificate's beginning is dated, because clocks differ.
pub const BACKDATED: Duration = Duration::from_secs(10 * 60);

/// Life of a certificate that is issued on the orchestrator's own machine, by `init` and `up`.
pub const LOCAL_LIFETIME: Duration = Duration::from_secs(90 * 24 * 3600);

/// Characters of an id in a certificate's common name, which is for people only.
const COMMON_NAME_ID_CHARS: usize = 8;

/// Whom a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject {
    role: Role,
    id: IdentityId,
}

impl Subject {
    /// The orchestrator itself.
    pub const ORCHESTRATOR: Self = Self { role: Role::Orchestrator, id: ORCHESTRATOR_ID };

    /// A node, client or operator. `None` for the orchestrator's role or id, which nobody else may have.
    pub fn member(role: Role, id: IdentityId) -> Option<Self> {
        (role != Role::Orchestrator && id != ORCHESTRATOR_ID).then_some(Self { role, id })
    }

    /// The role.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The id.
    pub fn id(&self) -> IdentityId {
        self.id
    }
}

/// A certificate that was issued for somebody else's key.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The certificate and the issuing authority's, in the order in which TLS sends them.
    pub chain: Vec<CertificateDer<'static>>,
    /// What it says.
    pub identity: PeerIdentity,
}

pub(crate) fn random_serial() -> CertificateSerial {
    let mut serial = [0; 16];
    SystemRandom::new().fill(&mut serial).expect("the system's random numbers do not run out");
    serial[0] &= 0x7f;
    CertificateSerial(serial)
}

/// Every field is set here; nothing is left to a default and nothing comes from a request.
pub(crate) fn params(subject: Subject, domain: &TrustDomain, from: SystemTime, to: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = OffsetDateTime::from(from);
    params.not_after = OffsetDateTime::from(to);
    params.serial_number = Some(SerialNumber::from_slice(&random_serial().0));
    params.distinguished_name = common_name(&match subject.role {
        Role::Orchestrator => subject.role.to_string(),
        Role::Operator | Role::Client | Role::Node => {
            format!("{} {}", subject.role, &subject.id.to_string()[..COMMON_NAME_ID_CHARS])
        }
    });
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    let uri = domain.uri(subject.role, subject.id).try_into().expect("a URI of ours is ASCII");
    params.subject_alt_names = vec![SanType::URI(uri)];
    match subject.role {
        Role::Orchestrator => {
            let name = ORCHESTRATOR_NAME.try_into().expect("the name is ASCII");
            params.subject_alt_names.push(SanType::DnsName(name));
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        }
        Role::Operator | Role::Client | Role::Node => {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        }
    }
    params
}

pub(crate) fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// Reads a signing request: its signature proves that the sender holds the key. Of all that it asks for only the public key
/// is used, and it must be on P-256; the caller replaces the parameters.
pub(crate) fn read_request(der: &[u8]) -> Result<CertificateSigningRequestParams, AuthorityError> {
    let bad = |_| AuthorityError::BadRequest;
    let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(der)).map_err(bad)?;
    // The library takes the key's kind from the signature; the key itself must say the same.
    let (_, parsed) = X509CertificationRequest::from_der(der).map_err(|_| AuthorityError::BadRequest)?;
    let is_p256 = request.public_key.algorithm() == &rcgen::PKCS_ECDSA_P256_SHA256
        && request.public_key.subject_public_key_info() == parsed.certification_request_info.subject_pki.raw;
    if is_p256 { Ok(request) } else { Err(AuthorityError::BadRequest) }
}
