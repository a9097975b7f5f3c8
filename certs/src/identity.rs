//! What a certificate says about its holder, and how it is read: one URI, `spiffe://<trust domain>/<role>/<id>`.
//!
//! The reader takes any bytes: a peer's certificate is judged by TLS first, but nothing here depends on that.

use std::fmt;

use modchain_types::{CertificateSerial, IdentityId, KeyDigest, Role, Span, WallTime, base32};
use subtle::ConstantTimeEq;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use crate::leaf::BACKDATED;

/// The name that the orchestrator's certificate carries besides its URI; every client dials by it, never by an address.
pub const ORCHESTRATOR_NAME: &str = "orchestrator.modchain";

/// The orchestrator's id: there is one of it in a trust domain, and its URI names none. Nobody else may have it.
pub const ORCHESTRATOR_ID: IdentityId = IdentityId([0; 16]);

/// Characters of the root key's digest in a trust domain: 80 bits.
const DOMAIN_CHARS: usize = 16;

/// Where in a certificate's life it is renewed: somewhere in the 12 hundredths from 60 on. So wide, because a thousand
/// nodes that joined within a minute then come back over nearly three hours.
const RENEWAL_FROM_PERCENT: u128 = 60;
const RENEWAL_SPREAD_PERCENT: u128 = 12;
/// Goes before the serial number where the renewal's moment is drawn, so that no other use of the number gives the
/// same.
const RENEWAL_LABEL: &[u8] = b"modchain renewal";

/// The SHA-256 of a public key in DER (`SubjectPublicKeyInfo`).
pub fn key_digest(public_key_der: &[u8]) -> KeyDigest {
    KeyDigest(sha256(&[public_key_der]))
}

/// What a join token says of the orchestrator's root: the SHA-256 of its public key. Compared in constant time.
#[derive(Clone, Copy)]
pub struct RootPin(pub [u8; 32]);

impl RootPin {
    /// The pin of this root certificate in DER.
    pub fn of_root(root_der: &[u8]) -> Result<Self, IdentityError> {
        Ok(Self(sha256(&[parse(root_der)?.tbs_certificate.subject_pki.raw])))
    }
}

impl PartialEq for RootPin {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for RootPin {}

/// As in a token: 52 characters of base 32.
impl fmt::Debug for RootPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base32::encode(&self.0))
    }
}

/// The name of everything that one root has issued: 16 characters of base 32 and `.modchain`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TrustDomain(String);

impl TrustDomain {
    /// The domain of the root with this DER `SubjectPublicKeyInfo`.
    pub fn of_public_key(public_key_der: &[u8]) -> Self {
        Self(format!("{}.modchain", &base32::encode(&sha256(&[public_key_der]))[..DOMAIN_CHARS]))
    }

    /// The domain of this root certificate.
    pub fn of_root(root_der: &[u8]) -> Result<Self, IdentityError> {
        Ok(Self::of_public_key(parse(root_der)?.tbs_certificate.subject_pki.raw))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The URI of this identity. The orchestrator's has no id.
    pub fn uri(&self, role: Role, id: IdentityId) -> String {
        match role {
            Role::Orchestrator => format!("spiffe://{self}/orchestrator"),
            Role::Operator | Role::Client | Role::Node => format!("spiffe://{self}/{role}/{id}"),
        }
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Why a certificate names nobody that we know how to treat.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not a certificate.
    #[error("the certificate does not parse")]
    Garbled,
    /// A certificate authority's, which speaks for nobody.
    #[error("the certificate belongs to a certificate authority")]
    Authority,
    /// Not exactly the names that its role may have.
    #[error("the certificate must have exactly one URI and no other name than its role allows")]
    Names,
    /// Issued by another orchestrator's authority.
    #[error("the certificate belongs to another trust domain")]
    ForeignDomain,
    /// The path is none of `/node/<id>`, `/client/<id>`, `/operator/<id>`, `/orchestrator`.
    #[error("the certificate's URI names no known role and id")]
    UnknownPath,
    /// Issued for another use than its role has.
    #[error("the certificate's extended key usage does not fit the role {role}")]
    Usage {
        /// The role of its URI.
        role: Role,
    },
    /// The serial number has more than 16 bytes.
    #[error("the certificate's serial number is too long")]
    Serial,
}

/// The holder of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerIdentity {
    /// What it may do at all.
    pub role: Role,
    /// Which one; [`ORCHESTRATOR_ID`] for the orchestrator.
    pub id: IdentityId,
    /// Of the certificate.
    pub serial: CertificateSerial,
    /// Of the public key that it certifies.
    pub key: KeyDigest,
    /// The certificate's beginning, in milliseconds of the wall clock; dated back, see [`PeerIdentity::begins_at`].
    pub not_before: WallTime,
    /// The certificate's end, in milliseconds of the wall clock.
    pub not_after: WallTime,
}

impl PeerIdentity {
    /// Reads a certificate in DER. Says nothing about its signature or its dates: TLS has judged them, or has yet to.
    pub fn from_certificate(der: &[u8], domain: &TrustDomain) -> Result<Self, IdentityError> {
        let certificate = parse(der)?;
        let constraints = certificate.basic_constraints().map_err(|_| IdentityError::Garbled)?;
        if constraints.is_some_and(|constraints| constraints.value.ca) {
            return Err(IdentityError::Authority);
        }
        let (role, id) = read_names(&certificate, domain)?;
        check_usage(&certificate, role)?;
        Ok(Self {
            role,
            id,
            serial: read_serial(&certificate)?,
            key: key_digest(certificate.tbs_certificate.subject_pki.raw),
            not_before: WallTime(certificate.validity().not_before.timestamp().saturating_mul(1000)),
            not_after: WallTime(certificate.validity().not_after.timestamp().saturating_mul(1000)),
        })
    }

    /// When the certificate was issued, to the second.
    pub fn begins_at(&self) -> WallTime {
        self.not_before.plus(BACKDATED.into())
    }

    /// How long it is good for, from when it was issued.
    pub fn life(&self) -> Span {
        self.not_after.since(self.begins_at())
    }

    /// When its holder renews it: between 60 and 72 hundredths of its life. Follows from the certificate alone, so that
    /// its holder and the orchestrator know it without telling each other; even over all certificates, because serial
    /// numbers are drawn.
    pub fn renews_at(&self) -> WallTime {
        let digest = sha256(&[RENEWAL_LABEL, &self.serial.0]);
        let drawn = u64::from_be_bytes(*digest.first_chunk().expect("a digest has 32 bytes"));
        // Below 2^55 × 72 × 2^64, and so below 2^126.
        let part = (RENEWAL_FROM_PERCENT << 64) + RENEWAL_SPREAD_PERCENT * u128::from(drawn);
        let offset = u128::from(self.life().as_millis()) * part / (100 << 64);
        self.begins_at().plus(Span::from_millis(u64::try_from(offset).expect("less than the life")))
    }
}

/// The SHA-256 of these parts, one after the other.
pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    parts.iter().for_each(|part| context.update(part));
    context.finish().as_ref().try_into().expect("a SHA-256 has 32 bytes")
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, IdentityError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) | Err(_) => Err(IdentityError::Garbled),
    }
}

fn read_names(certificate: &X509Certificate<'_>, domain: &TrustDomain) -> Result<(Role, IdentityId), IdentityError> {
    let names =
        certificate.subject_alternative_name().map_err(|_| IdentityError::Names)?.ok_or(IdentityError::Names)?;
    let mut uri = None;
    let mut dns = None;
    for name in &names.value.general_names {
        match name {
            GeneralName::URI(text) if uri.is_none() => uri = Some(*text),
            GeneralName::DNSName(text) if dns.is_none() => dns = Some(*text),
            _ => return Err(IdentityError::Names),
        }
    }
    let (role, id) = read_uri(uri.ok_or(IdentityError::Names)?, domain)?;
    let dns_wanted = match role {
        Role::Orchestrator => Some(ORCHESTRATOR_NAME),
        Role::Operator | Role::Client | Role::Node => None,
    };
    if dns != dns_wanted {
        return Err(IdentityError::Names);
    }
    Ok((role, id))
}

/// Only the exact form that [`TrustDomain::uri`] writes is read: no upper case, no port, no query, no escapes.
fn read_uri(uri: &str, domain: &TrustDomain) -> Result<(Role, IdentityId), IdentityError> {
    let rest = uri.strip_prefix("spiffe://").ok_or(IdentityError::UnknownPath)?;
    let (host, path) = rest.split_once('/').ok_or(IdentityError::UnknownPath)?;
    if host != domain.as_str() {
        return Err(IdentityError::ForeignDomain);
    }
    let (role, id) = match path.split_once('/') {
        None if path == Role::Orchestrator.word() => return Ok((Role::Orchestrator, ORCHESTRATOR_ID)),
        None => return Err(IdentityError::UnknownPath),
        Some(parts) => parts,
    };
    let role = match role.parse() {
        Ok(role @ (Role::Operator | Role::Client | Role::Node)) => role,
        Ok(Role::Orchestrator) | Err(_) => return Err(IdentityError::UnknownPath),
    };
    let parsed: IdentityId = id.parse().map_err(|_| IdentityError::UnknownPath)?;
    if parsed == ORCHESTRATOR_ID || parsed.to_string() != id {
        return Err(IdentityError::UnknownPath);
    }
    Ok((role, parsed))
}

fn check_usage(certificate: &X509Certificate<'_>, role: Role) -> Result<(), IdentityError> {
    let wrong = IdentityError::Usage { role };
    let usage = match certificate.extended_key_usage() {
        Ok(Some(usage)) => usage.value,
        Ok(None) | Err(_) => return Err(wrong),
    };
    let fits = match role {
        Role::Orchestrator => usage.server_auth && !usage.client_auth,
        Role::Operator | Role::Client | Role::Node => usage.client_auth && !usage.server_auth,
    };
    let more = usage.any || usage.code_signing || usage.email_protection || usage.time_stamping || usage.ocsp_signing;
    if fits && !more && usage.other.is_empty() { Ok(()) } else { Err(wrong) }
}

fn read_serial(certificate: &X509Certificate<'_>) -> Result<CertificateSerial, IdentityError> {
    let raw = certificate.raw_serial();
    // DER puts a zero before a number whose top bit is set.
    let digits = match raw {
        [0, digits @ ..] if digits.len() >= 16 => digits,
        digits => digits,
    };
    let mut serial = [0; 16];
    let start = serial.len().checked_sub(digits.len()).ok_or(IdentityError::Serial)?;
    serial[start..].copy_from_slice(digits);
    Ok(CertificateSerial(serial))
}
