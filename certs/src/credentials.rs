//! What one program holds to prove who it is: a key, its certificate with the issuer's, and the root that it trusts.
//!
//! In a directory these are `key.pem` (0600), `cert.pem` and `ca.pem`. New ones are written beside the old ones first, and
//! the key is renamed last: whoever loads them after a crash finds the old three, or can finish the move.

use std::path::Path;
use std::sync::Arc;

use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::encoding;
use crate::files::{self, CERT_MODE, FileError, KEY_MODE};
use crate::identity::{IdentityError, PeerIdentity, TrustDomain};
use crate::key::{KeyError, PrivateKey};

const KEY_FILE: &str = "key.pem";
const CERT_FILE: &str = "cert.pem";
const CA_FILE: &str = "ca.pem";
const KEY_FILE_NEW: &str = "key.pem.new";
const CA_FILE_NEW: &str = "ca.pem.new";

/// Most certificates that are read from `cert.pem`: the holder's and its issuers'.
const CHAIN_MAX: usize = 4;

/// Why credentials cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A file is missing, too open, or unreadable.
    #[error(transparent)]
    File(#[from] FileError),
    /// `key.pem` does not hold a usable key.
    #[error("{KEY_FILE} cannot be used")]
    Key(#[from] KeyError),
    /// A certificate file holds none, or too many.
    #[error("{file} does not hold the certificates that it should")]
    Certificates {
        /// The file.
        file: &'static str,
    },
    /// The certificate says nothing that this program understands.
    #[error("the certificate cannot be used")]
    Identity(#[from] IdentityError),
    /// The certificate was issued for another key.
    #[error("{KEY_FILE} and {CERT_FILE} do not belong together")]
    Mismatch,
}

/// A key, its certificate chain and the root. Has no `Debug`; the key is wiped when dropped.
pub struct Credentials {
    key: PrivateKey,
    chain: Vec<CertificateDer<'static>>,
    root: CertificateDer<'static>,
    identity: PeerIdentity,
    domain: TrustDomain,
}

impl Credentials {
    pub(crate) fn new(
        key: PrivateKey,
        chain: Vec<CertificateDer<'static>>,
        root: CertificateDer<'static>,
        identity: PeerIdentity,
        domain: TrustDomain,
    ) -> Self {
        Self { key, chain, root, identity, domain }
    }

    /// Whom the certificate names.
    pub fn identity(&self) -> &PeerIdentity {
        &self.identity
    }

    /// The trust domain of its root.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// The root that it trusts.
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// The certificate and its issuer's.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// Whether `dir` holds credentials, sound or not.
    pub fn exist(dir: &Path) -> bool {
        dir.join(CERT_FILE).exists()
    }

    /// Keeps the credentials in `dir`, which is made with mode 0700. Replaces those that are there.
    pub fn save(&self, dir: &Path) -> Result<(), CredentialsError> {
        files::ensure_private_dir(dir)?;
        let chain: String = self.chain.iter().map(|der| encoding::certificate_pem(der)).collect();
        files::write_atomic(&dir.join(KEY_FILE_NEW), self.key.pem().as_bytes(), KEY_MODE)?;
        files::write_atomic(&dir.join(CA_FILE_NEW), encoding::certificate_pem(&self.root).as_bytes(), CERT_MODE)?;
        // From here on the new key is the one that fits, and `load` finishes the move if this program does not.
        files::write_atomic(&dir.join(CERT_FILE), chain.as_bytes(), CERT_MODE)?;
        finish_move(dir)
    }

    /// Loads the credentials that [`Credentials::save`] left. Refuses a key that others may read, and a key that does not
    /// fit its certificate. Says nothing about the certificate's dates: see [`PeerIdentity::not_after`].
    pub fn load(dir: &Path) -> Result<Self, CredentialsError> {
        files::check_private_dir(dir)?;
        let chain = read_certificates(dir, CERT_FILE)?;
        let leaf = chain.first().ok_or(CredentialsError::Certificates { file: CERT_FILE })?;
        if let Ok(new) = read_key(dir, KEY_FILE_NEW)
            && belongs(&new, leaf)?
        {
            finish_move(dir)?;
        }
        let key = read_key(dir, KEY_FILE)?;
        if !belongs(&key, leaf)? {
            return Err(CredentialsError::Mismatch);
        }
        let root = match read_certificates(dir, CA_FILE)?.as_slice() {
            [root] => root.clone(),
            _ => return Err(CredentialsError::Certificates { file: CA_FILE }),
        };
        let domain = TrustDomain::of_root(&root)?;
        let identity = PeerIdentity::from_certificate(leaf, &domain)?;
        Ok(Self { key, chain, root, identity, domain })
    }

    pub(crate) fn certified_key(&self) -> Result<Arc<CertifiedKey>, rustls::Error> {
        Ok(Arc::new(CertifiedKey::new(self.chain.clone(), self.key.signer()?)))
    }
}

/// Moves the new root certificate and then the new key over the old ones. Harmless when repeated.
fn finish_move(dir: &Path) -> Result<(), CredentialsError> {
    for (from, to) in [(CA_FILE_NEW, CA_FILE), (KEY_FILE_NEW, KEY_FILE)] {
        let from = dir.join(from);
        match std::fs::rename(&from, dir.join(to)) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(FileError::Io { action: "rename", path: from, source }.into()),
        }
    }
    Ok(files::sync_dir(dir)?)
}

fn read_key(dir: &Path, file: &str) -> Result<PrivateKey, CredentialsError> {
    Ok(PrivateKey::from_pem(&files::read_private(&dir.join(file), KEY_MODE)?)?)
}

fn read_certificates(dir: &Path, file: &'static str) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let bad = CredentialsError::Certificates { file };
    let text = files::read_public(&dir.join(file))?;
    let mut certificates = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        match certificate {
            Ok(certificate) if certificates.len() < CHAIN_MAX => certificates.push(certificate),
            Ok(_) | Err(_) => return Err(bad),
        }
    }
    Ok(certificates)
}

fn belongs(key: &PrivateKey, certificate: &CertificateDer<'_>) -> Result<bool, CredentialsError> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| IdentityError::Garbled)?;
    Ok(parsed.tbs_certificate.subject_pki.raw == key.public_key_der())
}
