//! What one program holds to prove who it is: a key, its certificate with the issuer's, and the root that it trusts.
//!
//! In a directory these are `key.pem` (0600), `cert.pem` and `ca.pem`. New ones are written beside the old ones first, and
//! the key is renamed last: whoever loads them after a crash finds the old three, or can finish the move.
//!
//! ```text
//! key.pem.new   before anything is asked for: a key without a certificate (see `request`)
//!      │ the certificate came
//! ca.pem.new
//! cert.pem      replaced at once; from here on key.pem.new and ca.pem.new are the ones that belong to it
//! ca.pem        ← ca.pem.new
//! key.pem       ← key.pem.new
//! ```
//!
//! Programs that load or change the same directory take turns (a lock on the directory), because a person's commands
//! run side by side and any of them may renew.
//!
//! What the files leave room for. *Another issuing authority*: `cert.pem` carries the certificate's issuer, and up to
//! two more between it and the root, so that certificates of the old and of the new issuing authority are good side by
//! side, and a holder needs nothing but the root. *Late renewal*: nothing is removed when a certificate ends; the key
//! that was certified last stays in `key.pem` with its certificate until another has come, and can still sign.

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
pub(crate) const CHAIN_MAX: usize = 4;

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

    /// Keeps the credentials in `dir`, which is made with mode 0700. Replaces those that are there. Durable when this
    /// returns.
    pub fn save(&self, dir: &Path) -> Result<(), CredentialsError> {
        self.save_through(&SaveStep::ALL, dir)
    }

    fn save_through(&self, steps: &[SaveStep], dir: &Path) -> Result<(), CredentialsError> {
        files::ensure_private_dir(dir)?;
        let _lock = files::lock_dir(dir)?;
        // Else the key that is about to be replaced could be the only one that fits the certificate there.
        finish_earlier(dir)?;
        steps.iter().try_for_each(|step| self.take(*step, dir))
    }

    /// Each step is whole or not at all and on disk when it returns; a crash comes between two of them.
    fn take(&self, step: SaveStep, dir: &Path) -> Result<(), CredentialsError> {
        match step {
            SaveStep::Key => match read_key(dir, KEY_FILE_NEW) {
                // It has waited there for its certificate.
                Ok(waiting) if waiting.public_key_der() == self.key.public_key_der() => {}
                Ok(_) | Err(_) => {
                    files::write_atomic(&dir.join(KEY_FILE_NEW), self.key.pem().as_bytes(), KEY_MODE)?;
                }
            },
            SaveStep::Root => {
                let root = encoding::certificate_pem(&self.root);
                files::write_atomic(&dir.join(CA_FILE_NEW), root.as_bytes(), CERT_MODE)?;
            }
            SaveStep::Chain => {
                let chain: String = self.chain.iter().map(|der| encoding::certificate_pem(der)).collect();
                files::write_atomic(&dir.join(CERT_FILE), chain.as_bytes(), CERT_MODE)?;
            }
            SaveStep::MoveRoot => move_over(dir, CA_FILE_NEW, CA_FILE)?,
            SaveStep::MoveKey => move_over(dir, KEY_FILE_NEW, KEY_FILE)?,
        }
        Ok(())
    }

    /// Loads the credentials that [`Credentials::save`] left, and finishes what it could not. Refuses a key that others
    /// may read, and a key that does not fit its certificate. Says nothing about the certificate's dates: see
    /// [`PeerIdentity::not_after`].
    pub fn load(dir: &Path) -> Result<Self, CredentialsError> {
        files::check_private_dir(dir)?;
        let _lock = files::lock_dir(dir)?;
        finish_earlier(dir)?;
        Self::read(dir, false)
    }

    /// Whether [`Credentials::load`] would find them whole. Only reads: what an earlier one could not finish stays as it is.
    pub fn check(dir: &Path) -> Result<(), CredentialsError> {
        files::check_private_dir(dir)?;
        let _lock = files::lock_dir(dir)?;
        Self::read(dir, is_unfinished(dir)).map(drop)
    }

    /// Reads them, also where they were not moved into place to the end.
    fn read(dir: &Path, unfinished: bool) -> Result<Self, CredentialsError> {
        let chain = read_certificates(dir, CERT_FILE)?;
        let leaf = chain.first().ok_or(CredentialsError::Certificates { file: CERT_FILE })?;
        let key = if unfinished { read_key(dir, KEY_FILE_NEW)? } else { fitting_key(dir, leaf)? };
        let file = if unfinished && dir.join(CA_FILE_NEW).exists() { CA_FILE_NEW } else { CA_FILE };
        let root = match read_certificates(dir, file)?.as_slice() {
            [root] => root.clone(),
            _ => return Err(CredentialsError::Certificates { file }),
        };
        let domain = TrustDomain::of_root(&root)?;
        let identity = PeerIdentity::from_certificate(leaf, &domain)?;
        Ok(Self { key, chain, root, identity, domain })
    }

    pub(crate) fn certified_key(&self) -> Result<Arc<CertifiedKey>, rustls::Error> {
        Ok(Arc::new(CertifiedKey::new(self.chain.clone(), self.key.signer()?)))
    }
}

/// What [`Credentials::save`] does, in this order.
#[derive(Debug, Clone, Copy)]
enum SaveStep {
    Key,
    Root,
    /// From here on the new key is the one that fits, and whoever comes next finishes the move.
    Chain,
    MoveRoot,
    MoveKey,
}

impl SaveStep {
    const ALL: [Self; 5] = [Self::Key, Self::Root, Self::Chain, Self::MoveRoot, Self::MoveKey];
}

/// The key in `dir` that waits for its certificate, or a new one that waits from now on.
pub(crate) fn waiting_key(dir: &Path) -> Result<PrivateKey, CredentialsError> {
    files::ensure_private_dir(dir)?;
    let _lock = files::lock_dir(dir)?;
    finish_earlier(dir)?;
    match read_key(dir, KEY_FILE_NEW) {
        Ok(waiting) => Ok(waiting),
        Err(CredentialsError::Key(_) | CredentialsError::File(FileError::Missing { .. })) => {
            let key = PrivateKey::generate();
            files::write_atomic(&dir.join(KEY_FILE_NEW), key.pem().as_bytes(), KEY_MODE)?;
            Ok(key)
        }
        Err(error) => Err(error),
    }
}

/// Removes the key in `dir` that waits for its certificate.
pub(crate) fn discard_waiting_key(dir: &Path) -> Result<(), CredentialsError> {
    files::check_private_dir(dir)?;
    let _lock = files::lock_dir(dir)?;
    finish_earlier(dir)?;
    let path = dir.join(KEY_FILE_NEW);
    match std::fs::remove_file(&path) {
        Ok(()) => Ok(files::sync_dir(dir)?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(FileError::Io { action: "remove", path, source }.into()),
    }
}

/// Finishes the move of somebody who did not get to its end. Harmless when repeated.
fn finish_earlier(dir: &Path) -> Result<(), CredentialsError> {
    if is_unfinished(dir) {
        move_over(dir, CA_FILE_NEW, CA_FILE)?;
        move_over(dir, KEY_FILE_NEW, KEY_FILE)?;
    }
    Ok(())
}

/// Whether somebody did not get to the end of a move: where `key.pem.new` is the key that `cert.pem` certifies, that key and
/// the root beside it belong in place. Where either cannot be read there is nothing to finish.
fn is_unfinished(dir: &Path) -> bool {
    let (Ok(chain), Ok(waiting)) = (read_certificates(dir, CERT_FILE), read_key(dir, KEY_FILE_NEW)) else {
        return false;
    };
    chain.first().is_some_and(|leaf| matches!(belongs(&waiting, leaf), Ok(true)))
}

/// The key of `leaf`, after [`finish_earlier`].
fn fitting_key(dir: &Path, leaf: &CertificateDer<'_>) -> Result<PrivateKey, CredentialsError> {
    let error = match read_key(dir, KEY_FILE) {
        Ok(key) if belongs(&key, leaf)? => return Ok(key),
        Ok(_) => CredentialsError::Mismatch,
        Err(error) => error,
    };
    // The right one may be in the other file, and refused: that is then what to tell.
    match read_key(dir, KEY_FILE_NEW) {
        Err(CredentialsError::File(FileError::Missing { .. })) | Ok(_) => Err(error),
        Err(refused) => Err(refused),
    }
}

/// Renames and syncs, so that no later step is on disk before this one. Harmless when repeated.
fn move_over(dir: &Path, from: &str, to: &str) -> Result<(), FileError> {
    let from = dir.join(from);
    match std::fs::rename(&from, dir.join(to)) {
        Ok(()) => files::sync_dir(dir),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(FileError::Io { action: "rename", path: from, source }),
    }
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::thread;
    use std::time::{Duration, SystemTime};

    use modchain_types::{IdentityId, Role};
    use tempfile::TempDir;

    use super::*;
    use crate::authority::Authority;
    use crate::leaf::Subject;

    const LIFETIME: Duration = Duration::from_secs(3600);

    struct World {
        dir: TempDir,
        authority: Authority,
    }

    fn world() -> World {
        let dir = tempfile::tempdir().expect("directory");
        let authority = Authority::create(&dir.path().join("ca"), SystemTime::now()).expect("an authority");
        World { dir, authority }
    }

    impl World {
        fn member(&self) -> Credentials {
            let subject = Subject::member(Role::Client, IdentityId([7; 16])).expect("a member");
            self.authority.issue(subject, LIFETIME, SystemTime::now()).expect("issues")
        }
    }

    /// What makes two of them the same in every file.
    fn content(
        credentials: &Credentials,
    ) -> (KeyDigestAndSerial, &[CertificateDer<'static>], &CertificateDer<'static>) {
        let identity = credentials.identity();
        assert_eq!(crate::identity::key_digest(&credentials.key.public_key_der()), identity.key);
        ((identity.key, identity.serial), credentials.chain(), credentials.root())
    }

    fn files_of(dir: &Path) -> std::collections::BTreeMap<std::path::PathBuf, Vec<u8>> {
        let paths = fs::read_dir(dir).expect("lists").map(|entry| entry.expect("an entry").path());
        paths.map(|path| (path.clone(), fs::read(path).expect("reads"))).collect()
    }

    type KeyDigestAndSerial = (modchain_types::KeyDigest, modchain_types::CertificateSerial);

    #[test]
    fn a_crash_at_any_step_of_a_replacement_leaves_the_old_or_the_new() {
        let (world, other) = (world(), world());
        let (old, new) = (world.member(), other.member());
        for done in 0..=SaveStep::ALL.len() {
            let dir = world.dir.path().join(format!("at-{done}"));
            old.save(&dir).expect("saves");
            new.save_through(&SaveStep::ALL[..done], &dir).expect("saves a part");
            let expected = if done < 3 { &old } else { &new };
            let left = files_of(&dir);
            Credentials::check(&dir).expect("whole");
            assert_eq!(files_of(&dir), left, "a look changes nothing after {done} steps");
            for _ in 0..2 {
                assert_eq!(content(&Credentials::load(&dir).expect("whole")), content(expected), "after {done} steps");
            }
            new.save(&dir).expect("saves after the crash");
            assert_eq!(content(&Credentials::load(&dir).expect("whole")), content(&new), "after {done} steps");
            assert_eq!(fs::read_dir(&dir).expect("lists").count(), 3, "nothing is left over after {done} steps");
        }
    }

    #[test]
    fn a_second_crash_in_the_next_replacement_leaves_one_of_the_three() {
        let (world, other) = (world(), world());
        let (old, new, newest) = (world.member(), other.member(), world.member());
        for first in 0..=SaveStep::ALL.len() {
            for second in 0..=SaveStep::ALL.len() {
                let dir = world.dir.path().join(format!("at-{first}-{second}"));
                old.save(&dir).expect("saves");
                new.save_through(&SaveStep::ALL[..first], &dir).expect("saves a part");
                newest.save_through(&SaveStep::ALL[..second], &dir).expect("saves a part");
                let expected = match (first, second) {
                    (_, 3..) => &newest,
                    (3.., _) => &new,
                    _ => &old,
                };
                let loaded = Credentials::load(&dir).expect("whole");
                assert_eq!(content(&loaded), content(expected), "after {first} and {second} steps");
            }
        }
    }

    #[test]
    fn a_crash_at_any_step_of_the_first_save_leaves_nothing_or_the_new() {
        let world = world();
        let new = world.member();
        for done in 0..=SaveStep::ALL.len() {
            let dir = world.dir.path().join(format!("at-{done}"));
            new.save_through(&SaveStep::ALL[..done], &dir).expect("saves a part");
            assert_eq!(Credentials::exist(&dir), done >= 3, "after {done} steps");
            if done >= 3 {
                assert_eq!(content(&Credentials::load(&dir).expect("whole")), content(&new), "after {done} steps");
            }
        }
    }

    #[test]
    fn half_a_file_that_was_never_renamed_disturbs_nobody() {
        let world = world();
        let (dir, credentials) = (world.dir.path().join("dir"), world.member());
        credentials.save(&dir).expect("saves");
        for name in [".key.pem.new.0123456789abcdef", ".ca.pem.new.0123456789abcdef", ".cert.pem.0123456789abcdef"] {
            fs::write(dir.join(name), "-----BEGIN").expect("writes");
        }
        assert_eq!(content(&Credentials::load(&dir).expect("whole")), content(&credentials));
    }

    #[test]
    fn the_new_key_that_fits_is_named_when_it_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let world = world();
        let dir = world.dir.path().join("dir");
        world.member().save_through(&SaveStep::ALL[..3], &dir).expect("saves a part");
        fs::set_permissions(dir.join(KEY_FILE_NEW), fs::Permissions::from_mode(0o644)).expect("opens");
        let error = Credentials::load(&dir).err().expect("refused");
        assert!(matches!(error, CredentialsError::File(FileError::LooseMode { mode: 0o644, .. })), "{error}");
    }

    #[test]
    fn programs_side_by_side_never_see_half_a_replacement() {
        const ROUNDS: usize = 20;
        let world = world();
        // In memory where there is such a place: a save waits for the disk many times while it holds the lock, which is not given
        // out in turn, and those who load wait only so long for it.
        let memory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("directory");
        let dir = memory.path().join("dir");
        world.member().save(&dir).expect("saves");
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| (0..ROUNDS).for_each(|_| world.member().save(&dir).expect("saves")));
                scope.spawn(|| (0..4 * ROUNDS).for_each(|_| drop(Credentials::load(&dir).expect("loads"))));
            }
        });
        Credentials::load(&dir).expect("loads in the end");
    }
}
