//! The profile of the certificates that people and programs hold.

use std::time::Duration;

use modchain_types::{CertificateSerial, IdentityId, Role, WallTime};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType, SerialNumber,
};
use ring::rand::{SecureRandom, SystemRandom};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;

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

/// What a certificate will say, decided before it is signed: whoever issues for a journal writes this down first, and
/// can then sign it as often as it takes, because every time it is the same certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CertificatePlan {
    /// Whom it is for.
    pub subject: Subject,
    /// Its number, drawn for it.
    pub serial: CertificateSerial,
    /// Its beginning, dated back by [`BACKDATED`], in whole seconds, because certificates have no finer dates.
    pub not_before: WallTime,
    /// Its end, in whole seconds.
    pub not_after: WallTime,
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
pub(crate) fn params(plan: &CertificatePlan, domain: &TrustDomain) -> Result<CertificateParams, AuthorityError> {
    let subject = plan.subject;
    let mut params = CertificateParams::default();
    params.not_before = date(plan.not_before)?;
    params.not_after = date(plan.not_after)?;
    params.serial_number = Some(SerialNumber::from_slice(&plan.serial.0));
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
    Ok(params)
}

fn date(time: WallTime) -> Result<OffsetDateTime, AuthorityError> {
    match time.0 {
        // Dates before 1970 and after 9999 are a broken clock's, and not every library can write them.
        milliseconds @ 0.. if milliseconds % 1000 == 0 => {
            OffsetDateTime::from_unix_timestamp(milliseconds / 1000).map_err(|_| AuthorityError::Dates)
        }
        _ => Err(AuthorityError::Dates),
    }
}

pub(crate) fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}
