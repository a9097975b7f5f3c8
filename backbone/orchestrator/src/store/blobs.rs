//! Blobs: `DATA/blobs/ACCOUNT/DIGEST`, content-addressed per account, so that a digest alone opens nothing.
//!
//! A blob is durable before the event that names it. It goes when no open job of its account names it and it has not been
//! put or asked for during [`GRACE`]: a blob that was put just before its submit must not be taken from under it. Which open
//! job names what is kept in memory and told again at each start.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use modchain_types::{AccountId, Digest, JobId};

use super::space::is_full;

/// Largest blob: 32 MiB, larger than any sensible WebAssembly module.
pub const BLOB_BYTES_MAX: u64 = 32 << 20;
/// Most that one account may keep, in bytes: some dozens of its largest modules.
pub const ACCOUNT_BYTES_MAX: u64 = 1 << 30;
/// Most blobs that one account may keep: each is a file, however small it is.
pub const ACCOUNT_BLOBS_MAX: u64 = 16_384;
/// How long a blob stays without a job: time enough between putting it and submitting, also by hand.
pub const GRACE: Duration = Duration::from_secs(3600);

const TEMPORARY_SUFFIX: &str = ".tmp";

/// Why a blob could not be kept or read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BlobError {
    /// Larger than one blob may be, or than was asked for.
    #[error("a blob may have {limit} bytes, this one has {bytes}")]
    TooLarge {
        /// What was announced or sent.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The account's store is full.
    #[error("the account's blob store is full: it may hold {limit} bytes, and open jobs still need what is there")]
    Quota {
        /// The limit.
        limit: u64,
    },
    /// The account has as many blobs as it may have.
    #[error("the account's blob store is full: it may hold {limit} blobs, and open jobs still need what is there")]
    TooMany {
        /// The limit.
        limit: u64,
    },
    /// The bytes are not those that were announced.
    #[error("the bytes sent do not match the announced {what}")]
    Mismatch {
        /// `digest` or `size`.
        what: &'static str,
    },
    /// Not in this account's store.
    #[error("there is no such blob")]
    Missing,
    /// The bytes on disk are not those that were put.
    #[error("the blob is damaged on disk")]
    Damaged,
    /// There is no room left on the disk; what was written of it is gone.
    #[error("there is no room for the blob on the orchestrator's disk")]
    Full,
    /// The disk said no.
    #[error("the blob store failed: {0}")]
    Disk(String),
}

fn disk(error: impl Into<io::Error>) -> BlobError {
    let error = error.into();
    if is_full(&error) { BlobError::Full } else { BlobError::Disk(error.to_string()) }
}

fn failed_before() -> BlobError {
    BlobError::Disk("what came before failed".into())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BlobError> + Send + 'static,
) -> Result<T, BlobError> {
    tokio::task::spawn_blocking(work).await.map_err(disk)?
}

type Key = (AccountId, Digest);

#[derive(Debug)]
struct Kept {
    bytes: u64,
    touched: Instant,
}

/// What an account uses.
#[derive(Debug, Clone, Copy, Default)]
struct Used {
    bytes: u64,
    blobs: u64,
}

#[derive(Debug, Default)]
struct Index {
    blobs: BTreeMap<Key, Kept>,
    jobs: BTreeMap<JobId, Vec<Key>>,
    /// How often open jobs name a blob, whether it is there or not: it may have been lost, and comes back.
    needed: BTreeMap<Key, u32>,
    /// How many are making a name for a blob at this moment: nobody collects it meanwhile.
    arriving: BTreeMap<Key, u32>,
    /// What is kept or on its way in, per account.
    used: BTreeMap<AccountId, Used>,
}

/// All blobs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct BlobStore {
    dir: Arc<Path>,
    index: Arc<Mutex<Index>>,
    account_bytes_max: u64,
    grace: Duration,
}

/// How a put goes on.
#[derive(Debug)]
pub enum Put {
    /// It is there already: nothing to send.
    Existing,
    /// Send it.
    Write(BlobWriter),
}

impl BlobStore {
    /// The store in `dir`, which is made if it is missing. Drops what a crash left half written. Blocks.
    pub fn at(dir: &Path) -> io::Result<Self> {
        Self::with_limits(dir, ACCOUNT_BYTES_MAX, GRACE)
    }

    /// As [`BlobStore::at`], with another quota and another grace.
    pub fn with_limits(dir: &Path, account_bytes_max: u64, grace: Duration) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let mut index = Index::default();
        let touched = Instant::now();
        for account_dir in fs::read_dir(dir)? {
            let account_dir = account_dir?;
            let Some(account) = account_dir.file_name().to_str().and_then(|name| name.parse::<AccountId>().ok()) else {
                continue;
            };
            for blob in fs::read_dir(account_dir.path())? {
                let blob = blob?;
                let name = blob.file_name().to_string_lossy().into_owned();
                if name.ends_with(TEMPORARY_SUFFIX) {
                    fs::remove_file(blob.path())?;
                } else if let Ok(digest) = name.parse::<Digest>() {
                    let bytes = blob.metadata()?.len();
                    index.take(&account, bytes);
                    index.blobs.insert((account.clone(), digest), Kept { bytes, touched });
                }
            }
        }
        Ok(Self { dir: dir.into(), index: Arc::new(Mutex::new(index)), account_bytes_max, grace })
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().expect("no holder of this lock panics")
    }

    fn path(&self, (account, digest): &Key) -> PathBuf {
        self.dir.join(account.as_str()).join(digest.to_string())
    }

    /// Begins a put, within the quota. What no job needs counts until [`BlobStore::collect`] removes it.
    pub async fn begin(&self, account: &AccountId, digest: Digest, bytes: u64) -> Result<Put, BlobError> {
        if bytes > BLOB_BYTES_MAX {
            return Err(BlobError::TooLarge { bytes, limit: BLOB_BYTES_MAX });
        }
        let key = (account.clone(), digest);
        if self.size(account, &digest).is_some() {
            let (store, key) = (self.clone(), key.clone());
            blocking(move || {
                store.forget_if_lost(&key);
                Ok(())
            })
            .await?;
        }
        {
            let index = &mut *self.index();
            if let Some(kept) = index.blobs.get_mut(&key) {
                kept.touched = Instant::now();
                return Ok(Put::Existing);
            }
            let used = index.used.get(account).copied().unwrap_or_default();
            if used.bytes + bytes > self.account_bytes_max {
                return Err(BlobError::Quota { limit: self.account_bytes_max });
            }
            if used.blobs >= ACCOUNT_BLOBS_MAX {
                return Err(BlobError::TooMany { limit: ACCOUNT_BLOBS_MAX });
            }
            index.take(account, bytes);
        }
        // From here on dropping the writer gives the room back.
        let room = Room { store: self.clone(), account: account.clone(), bytes };
        let path = self.path(&key);
        let (temporary, file) = blocking(move || open_temporary(&path).map_err(disk)).await?;
        Ok(Put::Write(BlobWriter { key, room, temporary, file: Some(file), hasher: Box::default(), written: 0 }))
    }

    /// Puts bytes that are in memory; tells their digest.
    pub async fn put(&self, account: &AccountId, bytes: Bytes) -> Result<Digest, BlobError> {
        let digest = Digest::of(&bytes);
        if let Put::Write(mut writer) = self.begin(account, digest, bytes.len() as u64).await? {
            writer.write(bytes).await?;
            writer.finish().await?;
        }
        Ok(digest)
    }

    /// The size of a blob if it is there; it stays at least [`GRACE`] longer.
    pub fn size(&self, account: &AccountId, digest: &Digest) -> Option<u64> {
        let index = &mut *self.index();
        let kept = index.blobs.get_mut(&(account.clone(), *digest))?;
        kept.touched = Instant::now();
        Some(kept.bytes)
    }

    /// A small blob whole, checked against its digest.
    pub async fn get(&self, account: &AccountId, digest: &Digest, max_bytes: u64) -> Result<Bytes, BlobError> {
        let mut reader = self.open_blob(account, digest).await?;
        if reader.bytes > max_bytes {
            return Err(BlobError::TooLarge { bytes: reader.bytes, limit: max_bytes });
        }
        let whole = usize::try_from(reader.bytes).map_err(io::Error::other).map_err(disk)?;
        let bytes = reader.next(whole.max(1)).await?.unwrap_or_default();
        if bytes.len() == whole && Digest::of(&bytes) == *digest { Ok(bytes) } else { Err(BlobError::Damaged) }
    }

    /// Opens a blob for reading in pieces. Whoever gets the pieces checks the digest of the whole.
    pub async fn open_blob(&self, account: &AccountId, digest: &Digest) -> Result<BlobReader, BlobError> {
        let bytes = self.size(account, digest).ok_or(BlobError::Missing)?;
        let key = (account.clone(), *digest);
        let store = self.clone();
        let file = blocking(move || match File::open(store.path(&key)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                store.forget_if_lost(&key);
                Err(BlobError::Missing)
            }
            file => file.map_err(disk),
        })
        .await?;
        Ok(BlobReader { file: Some(file), bytes, left: bytes })
    }

    /// If somebody took the file away: without its entry the next client that has the blob is asked for it.
    fn forget_if_lost(&self, key: &Key) {
        // Under the lock, so that a blob that is put at this moment is not forgotten.
        let index = &mut *self.index();
        if let Ok(false) = self.path(key).try_exists()
            && let Some(kept) = index.blobs.remove(key)
        {
            tracing::error!(account = %key.0, digest = %key.1, "the file of a blob is gone");
            index.give_back(&key.0, kept.bytes);
        }
    }

    /// Notes that an open job needs these blobs of its account. Replaces what was noted for the job before.
    pub fn reference(&self, job: JobId, account: &AccountId, digests: &[Digest]) {
        let keys: Vec<Key> = digests.iter().map(|digest| (account.clone(), *digest)).collect();
        let index = &mut *self.index();
        for key in &keys {
            *index.needed.entry(key.clone()).or_default() += 1;
        }
        let before = index.jobs.insert(job, keys);
        index.unreference(before);
    }

    /// The job has ended.
    pub fn release(&self, job: JobId) {
        let index = &mut *self.index();
        let keys = index.jobs.remove(&job);
        index.unreference(keys);
    }

    /// Removes blobs that no open job names and that nobody touched during the grace; tells how many. Call it now and then.
    pub async fn collect(&self) -> Result<usize, BlobError> {
        let store = self.clone();
        blocking(move || {
            let old = store.index().old(store.grace);
            let (mut gone, mut failed) = (0, None);
            for key in old {
                // One at a time: others wait for the lock. One that cannot be removed keeps nobody's behind it.
                match store.collect_one(&key) {
                    Ok(is_gone) => gone += usize::from(is_gone),
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
            failed.map_or(Ok(gone), Err)
        })
        .await
    }

    /// Removes a blob if it may still go; tells whether it did.
    fn collect_one(&self, key: &Key) -> Result<bool, BlobError> {
        // Under the lock, so that nobody finds a blob in the index that is going away.
        let index = &mut *self.index();
        if !index.is_old(key, self.grace) {
            return Ok(false);
        }
        match fs::remove_file(self.path(key)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(disk(error)),
            _ => {}
        }
        if let Some(kept) = index.blobs.remove(key) {
            index.give_back(&key.0, kept.bytes);
        }
        Ok(true)
    }
}

impl Index {
    /// Blobs that no open job names and that nobody touched for so long.
    fn old(&self, grace: Duration) -> Vec<Key> {
        self.blobs.keys().filter(|key| self.is_old(key, grace)).cloned().collect()
    }

    fn is_old(&self, key: &Key, grace: Duration) -> bool {
        let untouched = self.blobs.get(key).is_some_and(|kept| kept.touched.elapsed() >= grace);
        untouched && !self.needed.contains_key(key) && !self.arriving.contains_key(key)
    }

    fn unreference(&mut self, keys: Option<Vec<Key>>) {
        for key in keys.into_iter().flatten() {
            one_less(&mut self.needed, &key);
            if let Some(kept) = self.blobs.get_mut(&key) {
                kept.touched = Instant::now();
            }
        }
    }

    /// One more blob of an account.
    fn take(&mut self, account: &AccountId, bytes: u64) {
        let used = self.used.entry(account.clone()).or_default();
        used.bytes += bytes;
        used.blobs += 1;
    }

    /// One less.
    fn give_back(&mut self, account: &AccountId, bytes: u64) {
        if let Some(used) = self.used.get_mut(account) {
            used.bytes = used.bytes.saturating_sub(bytes);
            used.blobs = used.blobs.saturating_sub(1);
        }
    }
}

/// Takes one off a count, which goes with the last.
fn one_less(counts: &mut BTreeMap<Key, u32>, key: &Key) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// A blob that is getting its name: it is not collected until this is dropped.
struct Arriving<'a> {
    store: &'a BlobStore,
    key: &'a Key,
}

impl<'a> Arriving<'a> {
    fn new(store: &'a BlobStore, key: &'a Key) -> Self {
        *store.index().arriving.entry(key.clone()).or_default() += 1;
        Self { store, key }
    }
}

impl Drop for Arriving<'_> {
    fn drop(&mut self) {
        one_less(&mut self.store.index().arriving, self.key);
    }
}

/// Room that a blob on its way in takes of its account's quota.
#[derive(Debug)]
struct Room {
    store: BlobStore,
    account: AccountId,
    bytes: u64,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.store.index().give_back(&self.account, self.bytes);
    }
}

/// Removes the temporary file unless it was renamed.
#[derive(Debug)]
struct Temporary(Option<PathBuf>);

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = self.0.take() {
            let _ = fs::remove_file(path);
        }
    }
}

/// Two clients may put the same blob at once: each writes a file of its own.
fn open_temporary(path: &Path) -> io::Result<(Temporary, File)> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let temporary = path.with_extension(format!("{}{TEMPORARY_SUFFIX}", NEXT.fetch_add(1, Ordering::Relaxed)));
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    Ok((Temporary(Some(temporary)), file))
}

/// A blob on its way in. Dropping it unfinished leaves nothing behind.
#[derive(Debug)]
pub struct BlobWriter {
    key: Key,
    room: Room,
    temporary: Temporary,
    file: Option<File>,
    /// Two kilobytes: boxed, because writers are moved about.
    hasher: Box<blake3::Hasher>,
    written: u64,
}

impl BlobWriter {
    /// Takes the next bytes. After an error, or when cancelled half way, the writer is good for nothing but dropping.
    pub async fn write(&mut self, data: Bytes) -> Result<(), BlobError> {
        self.written += data.len() as u64;
        if self.written > self.room.bytes {
            return Err(BlobError::Mismatch { what: "size" });
        }
        self.hasher.update(&data);
        let mut file = self.file.take().ok_or_else(failed_before)?;
        let file = blocking(move || file.write_all(&data).map(|()| file).map_err(disk)).await?;
        self.file = Some(file);
        Ok(())
    }

    /// Checks size and digest and makes the blob durable.
    pub async fn finish(mut self) -> Result<(), BlobError> {
        if self.written != self.room.bytes {
            return Err(BlobError::Mismatch { what: "size" });
        }
        if self.hasher.finalize().as_bytes() != &self.key.1.0 {
            return Err(BlobError::Mismatch { what: "digest" });
        }
        let file = self.file.take().ok_or_else(failed_before)?;
        blocking(move || {
            let store = self.room.store.clone();
            let path = store.path(&self.key);
            file.sync_all().map_err(disk)?;
            // The name first, then the index, and nobody collects in between: whoever sees it in the index can open it, and it is
            // durable. Not under the lock: this waits for the disk.
            let _arriving = Arriving::new(&store, &self.key);
            if let Some(temporary) = self.temporary.0.take() {
                fs::rename(temporary, &path).map_err(disk)?;
            }
            for dir in path.ancestors().skip(1).take(2) {
                File::open(dir).and_then(|dir| dir.sync_all()).map_err(disk)?;
            }
            let index = &mut *store.index();
            let (bytes, touched) = (self.written, Instant::now());
            match index.blobs.entry(self.key.clone()) {
                // Somebody else has put it meanwhile.
                Entry::Occupied(kept) => kept.into_mut().touched = touched,
                Entry::Vacant(entry) => {
                    entry.insert(Kept { bytes, touched });
                    index.take(&self.key.0, bytes);
                }
            }
            Ok(())
        })
        .await
    }
}

/// A blob on its way out.
#[derive(Debug)]
pub struct BlobReader {
    file: Option<File>,
    bytes: u64,
    left: u64,
}

impl BlobReader {
    /// Bytes in all.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The next bytes, at most `max_bytes`; `None` at the end.
    pub async fn next(&mut self, max_bytes: usize) -> Result<Option<Bytes>, BlobError> {
        let wanted = self.left.min(max_bytes as u64) as usize;
        if wanted == 0 {
            return Ok(None);
        }
        let mut file = self.file.take().ok_or_else(failed_before)?;
        let (file, bytes) = blocking(move || {
            let mut bytes = BytesMut::zeroed(wanted);
            file.read_exact(&mut bytes).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => BlobError::Damaged,
                _ => disk(error),
            })?;
            Ok((file, bytes.freeze()))
        })
        .await?;
        self.file = Some(file);
        self.left -= bytes.len() as u64;
        Ok(Some(bytes))
    }
}
