//! The certificate authority: a root that signs nothing but the issuing authority, and the issuing authority that signs
//! everybody's certificates.
//!
//! On disk each of the two is one file of key and certificate together, `root.pem` and `issuing.pem`, mode 0400 in a
//! directory of mode 0700: one file cannot be half replaced, so a crash never leaves a key without its certificate. The
//! issuing authority lives for a year and is replaced at half its life; certificates carry their issuer with them, so those
//! of the old one stay good to their end.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use modchain_types::{Span, WallTime};
use rcgen::{
    BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, SerialNumber, SubjectPublicKeyInfo,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use crate::credentials::Credentials;
use crate::encoding;
use crate::files::{self, CA_KEY_MODE, FileError};
use crate::identity::{IdentityError, PeerIdentity, TrustDomain};
use crate::key::{KeyError, PrivateKey};
use crate::leaf::{self, BACKDATED, CertificatePlan, Issued, Subject};
use crate::request::{KeyRequest, RequestedKey};

/// Life of the root.
pub const ROOT_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Life of the issuing authority.
pub const ISSUING_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);

const ROOT_FILE: &str = "root.pem";
const ISSUING_FILE: &str = "issuing.pem";

/// Why the authority cannot be used, or does not issue.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file is missing, too open, or unreadable.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is one already; it is never overwritten, because everything that it issued would be worthless.
    #[error("a certificate authority exists already in {dir}")]
    Exists {
        /// Its directory.
        dir: String,
    },
    /// A file does not hold a key and its certificate.
    #[error("{file} does not hold a certificate authority: {why}")]
    Damaged {
        /// The file.
        file: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The authority's own certificate has ended.
    #[error("the certificate authority's {file} has expired")]
    Expired {
        /// Which one.
        file: &'static str,
    },
    /// A plan's dates are not whole seconds between 1970 and 9999, or in the wrong order, or it ends after its issuer.
    #[error("the certificate's dates cannot be: not whole seconds, out of order, or beyond its issuer's end")]
    Dates,
    /// The library refused to build a certificate.
    #[error("cannot build a certificate")]
    Build(#[from] rcgen::Error),
    /// What was built does not read back as what was asked for.
    #[error("the certificate that was built is not the one that was asked for")]
    ReadBack(#[from] IdentityError),
    /// What was built reads well, but as something else.
    #[error("the certificate that was built says something else than was planned")]
    NotAsPlanned,
}

/// A key with its certificate.
struct Signer {
    key: PrivateKey,
    certificate: CertificateDer<'static>,
}

/// The certificate authority of one orchestrator.
pub struct Authority {
    root: Signer,
    issuing: Signer,
    domain: TrustDomain,
}

impl Authority {
    /// Makes a new authority and keeps it in `dir`, which is made with mode 0700. Refuses where one exists.
    pub fn create(dir: &Path, now: SystemTime) -> Result<Self, AuthorityError> {
        files::ensure_private_dir(dir)?;
        if dir.join(ROOT_FILE).exists() {
            return Err(AuthorityError::Exists { dir: dir.display().to_string() });
        }
        let root = Signer::root(now)?;
        root.save(&dir.join(ROOT_FILE))?;
        Self::load(dir, now)
    }

    /// Whether [`Authority::create`] has been here.
    pub fn exists(dir: &Path) -> bool {
        dir.join(ROOT_FILE).exists()
    }

    /// Loads the authority. Makes a new issuing authority where there is none (a crash in [`Authority::create`]) or where
    /// it is past half its life. One whose life begins only later than now is kept: a clock may be behind for a moment, as after the
    /// start of a machine.
    pub fn load(dir: &Path, now: SystemTime) -> Result<Self, AuthorityError> {
        Self::load_if(dir, now, |issuing| issuing.is_young(now))
    }

    /// The same for a clock that has had time to be set: one whose life begins only later was made by a clock that was ahead, and is
    /// of no use to anybody before. It is replaced, too.
    pub fn load_in_time(dir: &Path, now: SystemTime) -> Result<Self, AuthorityError> {
        Self::load_if(dir, now, |issuing| Ok(issuing.is_young(now)? && issuing.has_begun(now)?))
    }

    fn load_if(
        dir: &Path,
        now: SystemTime,
        is_good: impl Fn(&Signer) -> Result<bool, AuthorityError>,
    ) -> Result<Self, AuthorityError> {
        files::check_private_dir(dir)?;
        let root = Signer::load(dir, ROOT_FILE)?;
        let (_, root_end) = root.validity(ROOT_FILE)?;
        if root_end <= now {
            return Err(AuthorityError::Expired { file: ROOT_FILE });
        }
        let issuing = match Signer::load_issuing(dir, &root)? {
            Some(issuing) if is_good(&issuing)? => issuing,
            Some(_) | None => {
                let issuing = Signer::issuing(&root, now, root_end)?;
                issuing.save(&dir.join(ISSUING_FILE))?;
                issuing
            }
        };
        let domain = TrustDomain::of_root(&root.certificate)?;
        Ok(Self { root, issuing, domain })
    }

    /// Whether [`Authority::load`] would find what is in `dir` whole, whatever its dates. Only reads.
    pub fn check(dir: &Path) -> Result<(), AuthorityError> {
        files::check_private_dir(dir)?;
        let root = Signer::load(dir, ROOT_FILE)?;
        Signer::load_issuing(dir, &root)?;
        TrustDomain::of_root(&root.certificate)?;
        Ok(())
    }

    /// The name of everything that it issues.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// The root's certificate, which everybody else pins.
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root.certificate
    }

    /// Makes a key on this machine and issues a certificate for it, for programs on the orchestrator's own machine.
    /// Dates as [`Authority::plan`] gives them.
    pub fn issue(&self, subject: Subject, lifetime: Duration, now: SystemTime) -> Result<Credentials, AuthorityError> {
        let request = KeyRequest::generate();
        let key = RequestedKey::read(request.der()).expect("a request of ours is sound");
        let issued = self.sign(&key, &self.plan(subject, lifetime.into(), wall(now))?)?;
        let root = self.root.certificate.clone();
        Ok(Credentials::new(request.into_key(), issued.chain, root, issued.identity, self.domain.clone()))
    }

    /// Decides what a certificate will say: a number of its own, from ten minutes before `now` to `lifetime` after it,
    /// or to the issuing authority's end where that is sooner; all in whole seconds, rounded down, and at least one
    /// second long.
    pub fn plan(&self, subject: Subject, lifetime: Span, now: WallTime) -> Result<CertificatePlan, AuthorityError> {
        let begin = whole_seconds(now);
        let issuer_end = self.issuing_end()?;
        if issuer_end <= begin {
            return Err(AuthorityError::Expired { file: ISSUING_FILE });
        }
        let back = i64::try_from(BACKDATED.as_millis()).expect("ten minutes");
        Ok(CertificatePlan {
            subject,
            serial: leaf::random_serial(),
            not_before: WallTime(begin.0.saturating_sub(back)),
            not_after: whole_seconds(begin.plus(lifetime.max(Span::from_secs(1)))).min(issuer_end),
        })
    }

    /// Signs what was planned. The same plan and key give the same certificate again, but for the bytes of the
    /// signature, and for its issuer where the issuing authority was replaced in between.
    pub fn sign(&self, key: &RequestedKey, plan: &CertificatePlan) -> Result<Issued, AuthorityError> {
        if plan.not_after <= plan.not_before || plan.not_after > self.issuing_end()? {
            return Err(AuthorityError::Dates);
        }
        let public_key = SubjectPublicKeyInfo::from_der(key.public_key_der())?;
        let params = leaf::params(plan, &self.domain)?;
        let certificate: CertificateDer<'static> = params.signed_by(&public_key, &self.issuing.issuer()?)?.into();
        // Read as every peer will: what does not say what was meant is not handed out.
        let identity = PeerIdentity::from_certificate(&certificate, &self.domain)?;
        let planned = PeerIdentity {
            role: plan.subject.role(),
            id: plan.subject.id(),
            serial: plan.serial,
            key: key.key_digest(),
            not_before: plan.not_before,
            not_after: plan.not_after,
        };
        if identity != planned {
            return Err(AuthorityError::NotAsPlanned);
        }
        Ok(Issued { chain: vec![certificate, self.issuing.certificate.clone()], identity })
    }

    fn issuing_end(&self) -> Result<WallTime, AuthorityError> {
        Ok(wall(self.issuing.validity(ISSUING_FILE)?.1))
    }
}

fn wall(time: SystemTime) -> WallTime {
    WallTime::default().plus(time.duration_since(UNIX_EPOCH).unwrap_or_default().into())
}

fn whole_seconds(time: WallTime) -> WallTime {
    WallTime(time.0.div_euclid(1000).saturating_mul(1000))
}

impl Signer {
    fn root(now: SystemTime) -> Result<Self, AuthorityError> {
        let key = PrivateKey::generate();
        let domain = TrustDomain::of_public_key(&key.public_key_der());
        let params = ca_params(&format!("Modchain root {domain}"), 1, now - BACKDATED, now + ROOT_LIFETIME);
        let certificate = params.self_signed(&*key.pair())?.into();
        Ok(Self { key, certificate })
    }

    fn issuing(root: &Self, now: SystemTime, root_end: SystemTime) -> Result<Self, AuthorityError> {
        let key = PrivateKey::generate();
        let domain = TrustDomain::of_root(&root.certificate)?;
        let end = root_end.min(now + ISSUING_LIFETIME);
        let params = ca_params(&format!("Modchain issuing {domain}"), 0, now - BACKDATED, end);
        let certificate = params.signed_by(&*key.pair(), &root.issuer()?)?.into();
        Ok(Self { key, certificate })
    }

    fn issuer(&self) -> Result<Issuer<'static, Pair>, AuthorityError> {
        Ok(Issuer::from_ca_cert_der(&self.certificate, Pair(self.key.pair()))?)
    }

    fn save(&self, path: &Path) -> Result<(), AuthorityError> {
        let text = self.key.pem();
        // Grown once, so that no copy of the key is left behind in freed memory.
        let certificate = encoding::certificate_pem(&self.certificate);
        let mut whole = Zeroizing::new(String::with_capacity(text.len() + certificate.len()));
        whole.push_str(&text);
        whole.push_str(&certificate);
        Ok(files::write_atomic(path, whole.as_bytes(), CA_KEY_MODE)?)
    }

    fn load(dir: &Path, file: &'static str) -> Result<Self, AuthorityError> {
        let damaged = |why: String| AuthorityError::Damaged { file, why };
        let text = files::read_private(&dir.join(file), CA_KEY_MODE)?;
        let key = PrivateKey::from_pem(&text).map_err(|error: KeyError| damaged(error.to_string()))?;
        let certificate =
            CertificateDer::from_pem_slice(&text).map_err(|_| damaged("it holds no certificate".into()))?;
        let signer = Self { key, certificate };
        let parsed = signer.parse(file)?;
        if parsed.tbs_certificate.subject_pki.raw != signer.key.public_key_der() {
            return Err(damaged("its key and its certificate do not belong together".into()));
        }
        if !parsed.is_ca() {
            return Err(damaged("its certificate is not an authority's".into()));
        }
        Ok(signer)
    }

    /// The issuing authority, if there is one.
    fn load_issuing(dir: &Path, root: &Self) -> Result<Option<Self>, AuthorityError> {
        match Self::load(dir, ISSUING_FILE) {
            Ok(issuing) if issuing.is_issued_by(root)? => Ok(Some(issuing)),
            Ok(_) => {
                let why = format!("it was not issued by {ROOT_FILE}");
                Err(AuthorityError::Damaged { file: ISSUING_FILE, why })
            }
            Err(AuthorityError::File(FileError::Missing { .. })) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn parse(&self, file: &'static str) -> Result<X509Certificate<'_>, AuthorityError> {
        match X509Certificate::from_der(&self.certificate) {
            Ok(([], parsed)) => Ok(parsed),
            Ok(_) | Err(_) => Err(AuthorityError::Damaged { file, why: "its certificate does not parse".into() }),
        }
    }

    /// Beginning and end.
    fn validity(&self, file: &'static str) -> Result<(SystemTime, SystemTime), AuthorityError> {
        let parsed = self.parse(file)?;
        let validity = parsed.validity();
        Ok((validity.not_before.to_datetime().into(), validity.not_after.to_datetime().into()))
    }

    fn is_issued_by(&self, root: &Self) -> Result<bool, AuthorityError> {
        let (issuing, root) = (self.parse(ISSUING_FILE)?, root.parse(ROOT_FILE)?);
        Ok(issuing.issuer() == root.subject() && issuing.verify_signature(Some(root.public_key())).is_ok())
    }

    fn has_begun(&self, now: SystemTime) -> Result<bool, AuthorityError> {
        Ok(self.validity(ISSUING_FILE)?.0 <= now)
    }

    fn is_young(&self, now: SystemTime) -> Result<bool, AuthorityError> {
        let (from, to) = self.validity(ISSUING_FILE)?;
        let life = to.duration_since(from).unwrap_or_default();
        Ok(now < from + life / 2)
    }
}

/// A key pair that is wiped when dropped and that rcgen takes as a signer.
struct Pair(Zeroizing<KeyPair>);

impl rcgen::PublicKeyData for Pair {
    fn der_bytes(&self) -> &[u8] {
        self.0.der_bytes()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        rcgen::PublicKeyData::algorithm(&*self.0)
    }
}

impl rcgen::SigningKey for Pair {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0.sign(message)
    }
}

/// The profile of both authorities. No name constraints: the verifier that everybody uses refuses them on URIs.
fn ca_params(name: &str, path_len: u8, from: SystemTime, to: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = OffsetDateTime::from(from);
    params.not_after = OffsetDateTime::from(to);
    params.serial_number = Some(SerialNumber::from_slice(&leaf::random_serial().0));
    params.distinguished_name = leaf::common_name(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_len));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.use_authority_key_identifier_extension = true;
    params
}
