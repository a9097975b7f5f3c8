//! The identities that `join` made: a folder each, named as the identity is, in the data directory.
//!
//! What an identity is called shows only when the orchestrator has answered, so its folder begins under the name of its token:
//!
//! ```text
//! .joining-mzxw6ytb/   key.pem.new: made here, before anything is sent
//!      │ joined.json: what the orchestrator said
//!      │ key.pem, cert.pem, ca.pem
//! alice/               renamed as a whole
//! ```
//!
//! Whoever is stopped anywhere on that way repeats the command with the same token. Before the certificate is there the key is
//! the same one, and the orchestrator gives the same answer again; afterwards nobody needs to be asked. Somebody else's folder
//! is never overwritten: another name is taken.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use modchain_certs::{Credentials, PeerIdentity, TrustDomain};
use modchain_types::{AccountId, IdentityId, JournalId, Name, Role, TokenId};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::config::{create_private_dir, replace_file};
use crate::exit::Failure;

/// What the orchestrator said when it took us in.
const JOINED_FILE: &str = "joined.json";
/// Begins the name of a folder whose identity has no name yet.
const PENDING_PREFIX: &str = ".joining-";
const KEY_FILE: &str = "key.pem";
const KEY_FILE_NEW: &str = "key.pem.new";
/// Folders looked at for an earlier use of a token: more identities than a person has.
const FOLDERS_MAX: usize = 1000;
/// Names tried for a folder or a context before giving up.
const NAMES_MAX: usize = 100;

/// What the orchestrator said when it took us in; beside the key and the certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Joined {
    /// The token that was used.
    pub(crate) token: String,
    /// Whom the certificate names.
    pub(crate) name: Name,
    /// As what.
    pub(crate) role: Role,
    /// Whose money.
    pub(crate) account: AccountId,
    /// What the operator calls the pool.
    pub(crate) pool: Name,
    /// The journal behind it.
    pub(crate) journal: JournalId,
    /// Where everything but joining happens, `HOST:PORT`.
    pub(crate) orchestrator: String,
    /// Where others join, `HOST:PORT`.
    pub(crate) join: String,
}

impl Joined {
    /// What the identity's folder and its context may be called, best first: its name, or that with the pool's before it, or
    /// that with a number.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> + use<> {
        let (name, longer) = (self.name.to_string(), format!("{}-{}", self.pool, self.name));
        let numbered = longer.clone();
        [name, longer].into_iter().chain((2..NAMES_MAX).map(move |number| format!("{numbered}-{number}")))
    }
}

/// Whom a folder's certificate names, and under which root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holder {
    role: Role,
    id: IdentityId,
    domain: TrustDomain,
}

impl Holder {
    /// Whom the certificate in this folder names; `None` if there is none that can be used.
    pub(crate) fn of(folder: &Path) -> Option<Self> {
        // Looking must not make anything.
        if !Credentials::exist(folder) {
            return None;
        }
        Credentials::load(folder).ok().as_ref().map(Self::of_credentials)
    }

    fn of_credentials(credentials: &Credentials) -> Self {
        let PeerIdentity { role, id, .. } = *credentials.identity();
        Self { role, id, domain: credentials.trust_domain().clone() }
    }
}

/// The folder of all of them.
#[derive(Debug, Clone)]
pub(crate) struct Identities {
    dir: PathBuf,
}

impl Identities {
    /// Those in this folder, which need not be there.
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// The folder for the key of this token: a new one, or that of an earlier try.
    pub(crate) fn pending(&self, token: TokenId) -> Result<PathBuf, Failure> {
        let folder = self.dir.join(format!("{PENDING_PREFIX}{token}"));
        create_private_dir(&folder)?;
        Ok(folder)
    }

    /// Gives the identity in a pending folder, where [`write_joined`] has been, its place for good. An older certificate of the
    /// same identity is replaced.
    pub(crate) fn settle(&self, pending: &Path, joined: &Joined) -> Result<PathBuf, Failure> {
        let credentials = Credentials::load(pending).map_err(anyhow::Error::new)?;
        let holder = Holder::of_credentials(&credentials);
        // Two that join at once may want the same name.
        let _lock = self.lock()?;
        for name in joined.names() {
            let folder = self.dir.join(name);
            if !folder.exists() {
                fs::rename(pending, &folder)
                    .and_then(|()| File::open(&self.dir)?.sync_all())
                    .with_context(|| format!("cannot rename {}", pending.display()))?;
                return Ok(folder);
            }
            if Holder::of(&folder).as_ref() == Some(&holder) {
                credentials.save(&folder).map_err(anyhow::Error::new)?;
                write_joined(&folder, joined)?;
                self.wipe(pending)?;
                return Ok(folder);
            }
        }
        Err(Failure::conflict(format!("every name for this identity is taken in {}", self.dir.display()))
            .hint("modchain logout removes what is no longer needed"))
    }

    /// What came of this token here earlier, at its place.
    pub(crate) fn joined_with(&self, token: TokenId) -> Result<Option<(PathBuf, Joined)>, Failure> {
        let Ok(entries) = fs::read_dir(&self.dir) else { return Ok(None) };
        let mut folders = entries.flatten().take(FOLDERS_MAX).map(|entry| entry.path());
        let found = folders.find_map(|folder| {
            let joined = read_joined(&folder).filter(|joined| joined.token == token.to_string())?;
            Holder::of(&folder).map(|_| (folder, joined))
        });
        match found {
            Some((folder, joined)) if is_pending(&folder) => Ok(Some((self.settle(&folder, &joined)?, joined))),
            found => Ok(found),
        }
    }

    /// Whether this folder is one of them, and not somebody's own one elsewhere.
    pub(crate) fn holds(&self, folder: &Path) -> bool {
        let is_folder = fs::symlink_metadata(folder).is_ok_and(|metadata| metadata.is_dir());
        is_folder && folder.parent().is_some_and(|parent| parent == self.dir)
    }

    /// Removes a folder of ours for good. The keys are overwritten first; on a disk that keeps old blocks that may not reach
    /// them, so whoever fears for a key has it revoked.
    pub(crate) fn wipe(&self, folder: &Path) -> Result<(), Failure> {
        debug_assert!(self.holds(folder), "only our own folders are removed");
        for key in [KEY_FILE, KEY_FILE_NEW] {
            overwrite(&folder.join(key)).with_context(|| format!("cannot overwrite {key}"))?;
        }
        fs::remove_dir_all(folder)
            .and_then(|()| File::open(&self.dir)?.sync_all())
            .with_context(|| format!("cannot remove {}", folder.display()))?;
        Ok(())
    }

    /// Folders of joins that began and did not end.
    pub(crate) fn unfinished(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten().take(FOLDERS_MAX);
        entries.map(|entry| entry.path()).filter(|path| is_pending(path)).collect()
    }

    /// Removes the folder of a token that will never give an identity. What cannot be removed is in nobody's way.
    pub(crate) fn forget(&self, pending: &Path) {
        if self.holds(pending) && is_pending(pending) {
            let _ = self.wipe(pending);
        }
    }

    fn lock(&self) -> Result<File, Failure> {
        let path = self.dir.join(".lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        flock(&lock, FlockOperation::LockExclusive).with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(lock)
    }
}

fn is_pending(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PENDING_PREFIX))
}

/// Writes down what the orchestrator said.
pub(crate) fn write_joined(folder: &Path, joined: &Joined) -> anyhow::Result<()> {
    let text = serde_json::to_string(joined)? + "\n";
    replace_file(&folder.join(JOINED_FILE), text.as_bytes())
}

/// What the orchestrator said when the identity in this folder joined, wherever the folder is.
pub(crate) fn read_joined(folder: &Path) -> Option<Joined> {
    serde_json::from_slice(&fs::read(folder.join(JOINED_FILE)).ok()?).ok()
}

fn overwrite(path: &Path) -> std::io::Result<()> {
    use std::io::Write;
    let mut file = match OpenOptions::new().write(true).open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(0);
    file.write_all(&vec![0; length])?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::{Duration, SystemTime};

    use modchain_certs::{Authority, Subject};
    use modchain_types::IdentityId;

    use super::*;

    struct Pool {
        _folder: tempfile::TempDir,
        authority: Authority,
        name: &'static str,
    }

    impl Pool {
        fn new(name: &'static str) -> Self {
            let folder = tempfile::tempdir().expect("folder");
            let authority = Authority::create(&folder.path().join("ca"), SystemTime::now()).expect("makes one");
            Self { _folder: folder, authority, name }
        }

        /// What joining leaves in a pending folder.
        fn join(&self, identities: &Identities, token: u8, id: u8, name: &str) -> (PathBuf, Joined) {
            let token = TokenId([token; 5]);
            let pending = identities.pending(token).expect("makes it");
            let joined = Joined {
                token: token.to_string(),
                name: name.parse().expect("a name"),
                role: Role::Client,
                account: name.parse().expect("an account"),
                pool: self.name.parse().expect("a name"),
                journal: JournalId([1; 16]),
                orchestrator: "h:7443".into(),
                join: "h:7444".into(),
            };
            write_joined(&pending, &joined).expect("writes");
            let subject = Subject::member(Role::Client, IdentityId([id; 16])).expect("a member");
            let issued = self.authority.issue(subject, Duration::from_secs(3600), SystemTime::now()).expect("issues");
            issued.save(&pending).expect("saves");
            (pending, joined)
        }
    }

    fn identities() -> (tempfile::TempDir, Identities) {
        let folder = tempfile::tempdir().expect("folder");
        let identities = Identities::new(&folder.path().join("identities"));
        (folder, identities)
    }

    #[test]
    fn an_identity_gets_its_own_name_and_anothers_folder_is_never_taken() {
        let (_folder, identities) = identities();
        let (lab, other) = (Pool::new("lab"), Pool::new("other"));
        for (pool, token, id, folder) in [
            (&lab, 1, 1, "alice"),
            // The same name in another pool, and another identity of that name there.
            (&other, 2, 1, "other-alice"),
            (&other, 3, 2, "other-alice-2"),
            // The first one once more: it joined again.
            (&lab, 4, 1, "alice"),
        ] {
            let (pending, joined) = pool.join(&identities, token, id, "alice");
            let settled = identities.settle(&pending, &joined).expect("settles");
            assert_eq!(settled.file_name().and_then(|name| name.to_str()), Some(folder));
            assert!(!pending.exists() && Holder::of(&settled).is_some());
            assert_eq!(read_joined(&settled), Some(joined), "the newest token is the one that is known");
            let mode = fs::metadata(&settled).expect("metadata").permissions().mode();
            assert_eq!(mode & 0o077, 0, "others cannot look inside");
        }
    }

    #[test]
    fn who_was_stopped_before_the_folder_had_its_name_needs_nobody_to_go_on() {
        let (_folder, identities) = identities();
        let (pending, joined) = Pool::new("lab").join(&identities, 1, 1, "alice");
        let token = TokenId([1; 5]);
        assert_eq!(identities.unfinished(), [pending]);
        let found = identities.joined_with(token).expect("looks").expect("is there");
        assert_eq!(found, (identities.dir.join("alice"), joined));
        assert_eq!(identities.joined_with(token).expect("looks"), Some(found), "and again");
        assert_eq!(identities.joined_with(TokenId([2; 5])).expect("looks"), None);
        assert!(identities.unfinished().is_empty());
    }

    #[test]
    fn who_was_stopped_before_the_certificate_came_keeps_the_key() {
        let (_folder, identities) = identities();
        let token = TokenId([1; 5]);
        let folder = identities.pending(token).expect("makes it");
        let key = modchain_certs::KeyRequest::load_or_create(&folder).expect("a key").key_digest();
        assert_eq!(identities.joined_with(token).expect("looks"), None);
        let again = identities.pending(token).expect("is there");
        assert_eq!(modchain_certs::KeyRequest::load_or_create(&again).expect("a key").key_digest(), key);
        identities.forget(&folder);
        assert!(!folder.exists());
    }

    #[test]
    fn only_our_own_folders_are_wiped() {
        let (folder, identities) = identities();
        let (pending, joined) = Pool::new("lab").join(&identities, 1, 1, "alice");
        let settled = identities.settle(&pending, &joined).expect("settles");
        let elsewhere = folder.path().join("elsewhere");
        fs::create_dir(&elsewhere).expect("makes it");
        let link = identities.dir.join("link");
        std::os::unix::fs::symlink(&elsewhere, &link).expect("links");
        assert!(!identities.holds(&elsewhere) && !identities.holds(&link) && !identities.holds(&identities.dir));
        assert!(identities.holds(&settled));
        identities.forget(&settled);
        assert!(settled.exists(), "an identity with a name is not forgotten by the way");
        identities.wipe(&settled).expect("wipes");
        assert!(!settled.exists());
    }
}
