//! Authorities in temporary directories, and a forger who has stolen the issuing key.

// Each test file uses a part of it.
#![allow(dead_code, unused_macros, unused_imports)]

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use modchain_certs::{Authority, Credentials, Subject, TrustDomain};
use modchain_types::{IdentityId, Role, WallTime};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
    SerialNumber,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tempfile::TempDir;

/// Does not compile when the type has the trait: then there are two ways to read the last line.
macro_rules! lacks {
    ($type:ty: $trait:path) => {
        const _: fn() = || {
            trait Either<Marker> {
                fn check() {}
            }
            struct Has;
            impl<T: ?Sized> Either<()> for T {}
            impl<T: ?Sized + $trait> Either<Has> for T {}
            <$type as Either<_>>::check();
        };
    };
}
pub(crate) use lacks;

pub(crate) const LIFETIME: Duration = Duration::from_secs(3600);
pub(crate) const ID: IdentityId = IdentityId(*b"0123456789abcdef");

pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) authority: Authority,
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let authority = Authority::create(&dir.path().join("ca"), SystemTime::now()).expect("makes an authority");
        Self { dir, authority }
    }

    pub(crate) fn ca_dir(&self) -> std::path::PathBuf {
        self.dir.path().join("ca")
    }

    pub(crate) fn domain(&self) -> &TrustDomain {
        self.authority.trust_domain()
    }

    pub(crate) fn orchestrator(&self) -> Credentials {
        self.authority.issue(Subject::ORCHESTRATOR, LIFETIME, SystemTime::now()).expect("issues")
    }

    pub(crate) fn member(&self, role: Role) -> Credentials {
        let subject = Subject::member(role, ID).expect("a member");
        self.authority.issue(subject, LIFETIME, SystemTime::now()).expect("issues")
    }

    pub(crate) fn forger(&self) -> Forger {
        Forger::new(&self.ca_dir())
    }
}

/// Signs anything with the real issuing key.
pub(crate) struct Forger {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) issuing: CertificateDer<'static>,
}

impl Forger {
    fn new(ca_dir: &Path) -> Self {
        let text = std::fs::read_to_string(ca_dir.join("issuing.pem")).expect("reads");
        let issuing = CertificateDer::from_pem_slice(text.as_bytes()).expect("certificate");
        let key = KeyPair::from_pem(&text).expect("key");
        Self { issuer: Issuer::from_ca_cert_der(&issuing, key).expect("issuer"), issuing }
    }

    pub(crate) fn sign(&self, params: &CertificateParams, key: &KeyPair) -> CertificateDer<'static> {
        params.signed_by(key, &self.issuer).expect("signs").into()
    }

    pub(crate) fn forge(&self, change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        let mut params = node_like();
        change(&mut params);
        self.sign(&params, &KeyPair::generate().expect("key"))
    }
}

/// A certificate as a node's, but for its names.
pub(crate) fn node_like() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = (SystemTime::now() - LIFETIME).into();
    params.not_after = (SystemTime::now() + LIFETIME).into();
    params.serial_number = Some(SerialNumber::from_slice(&[1; 16]));
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

pub(crate) fn wall(time: SystemTime) -> WallTime {
    WallTime::default().plus(time.duration_since(UNIX_EPOCH).expect("after 1970").into())
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().expect("ASCII"))
}

pub(crate) fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().expect("ASCII"))
}

pub(crate) fn any_ca() -> IsCa {
    IsCa::Ca(BasicConstraints::Unconstrained)
}
