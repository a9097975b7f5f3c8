//! Modules and other blobs that assignments name: fetched once, kept by digest, and evicted when there is no room.
//!
//! An attempt never uses a file of the cache itself: it gets a link of its own, so that eviction takes nothing from it. The
//! cache is written by the agent alone; what stands under a digest was verified before it got there.

mod fetch;

pub(crate) use fetch::DOWNLOADS_MAX;
pub use fetch::{BlobFetcher, BlobRequest, FetchError};

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use modchain_types::Digest;

use crate::files;

/// Bytes kept at most: room for dozens of the largest modules, and little of any disk that runs jobs. Above it the blobs that
/// were used longest ago go.
pub const CACHE_BYTES_MAX: u64 = 1 << 30;

/// Blobs on disk, by digest. Its methods wait for the disk.
#[derive(Debug)]
pub struct BlobCache {
    dir: PathBuf,
    bytes_max: u64,
    /// Tells the temporary files of concurrent downloads apart.
    number: AtomicU64,
}

impl BlobCache {
    /// Opens the cache below `data`; what an earlier run left half written is removed.
    pub fn open(data: &Path, bytes_max: u64) -> io::Result<Self> {
        let dir = data.join("blobs");
        files::make_private_dir(&dir)?;
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "part") {
                fs::remove_file(path)?;
            }
        }
        Ok(Self { dir, bytes_max, number: AtomicU64::new(0) })
    }

    /// Puts the blob at `place` and gives its size, or `None` if it is not here. `place` is replaced.
    pub fn place(&self, digest: Digest, place: &Path) -> io::Result<Option<u64>> {
        let file = match File::open(self.path(digest)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        // The order of eviction is a matter of thrift, not of correctness.
        let _ = file.set_modified(SystemTime::now());
        match fs::remove_file(place) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        match fs::hard_link(self.path(digest), place) {
            Ok(()) => Ok(Some(file.metadata()?.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            // Not every file system has links.
            Err(_) => io::copy(&mut &file, &mut files::create_private(place)?).map(Some),
        }
    }

    /// Whether the blob is here.
    fn has(&self, digest: Digest) -> io::Result<bool> {
        self.path(digest).try_exists()
    }

    /// Begins to take a blob in.
    fn begin(&self, digest: Digest) -> io::Result<BlobWriter> {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.join(format!("{digest}-{number}.part"));
        let file = files::create_private(&path)?;
        Ok(BlobWriter { path, file, hasher: blake3::Hasher::new(), kept: false })
    }

    /// Takes the blob over if it is what it should be: `false` if its digest is another.
    fn finish(&self, mut writer: BlobWriter, digest: Digest) -> io::Result<bool> {
        if writer.hasher.finalize().as_bytes() != &digest.0 {
            return Ok(false);
        }
        writer.file.sync_all()?;
        fs::rename(&writer.path, self.path(digest))?;
        writer.kept = true;
        files::sync_dir(&self.dir)?;
        if let Err(error) = self.evict(digest) {
            // The blob is in place all the same; the next one tries again.
            tracing::warn!(%error, "the cache of blobs holds more than it should, and nothing can be removed from it now");
        }
        Ok(true)
    }

    /// Removes the blobs used longest ago until the rest fits; the newcomer stays. Several may do that at once.
    fn evict(&self, newcomer: Digest) -> io::Result<()> {
        let mut blobs = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let Some(digest) = entry.file_name().to_str().and_then(|name| name.parse::<Digest>().ok()) else {
                continue;
            };
            match entry.metadata().and_then(|metadata| Ok((metadata.modified()?, metadata.len()))) {
                Ok((used_at, bytes)) => blobs.push((used_at, bytes, digest)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let mut total: u64 = blobs.iter().map(|(_, bytes, _)| bytes).sum();
        blobs.sort();
        for (_, bytes, digest) in blobs {
            if total <= self.bytes_max {
                break;
            }
            if digest != newcomer {
                match fs::remove_file(self.path(digest)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => total -= bytes,
                }
            }
        }
        Ok(())
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.dir.join(digest.to_string())
    }
}

/// A blob on its way in. Dropped, it leaves nothing.
#[derive(Debug)]
struct BlobWriter {
    path: PathBuf,
    file: File,
    hasher: blake3::Hasher,
    kept: bool,
}

impl BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.file.write_all(bytes)
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        if !self.kept {
            // What stays is removed at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn put(cache: &BlobCache, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let mut writer = cache.begin(digest).expect("begins");
        bytes.chunks(3).for_each(|piece| writer.write(piece).expect("writes"));
        assert!(cache.finish(writer, digest).expect("finishes"));
        digest
    }

    #[test]
    fn a_blob_is_placed_and_survives_its_eviction_there() {
        let dir = tempfile::tempdir().expect("dir");
        let cache = BlobCache::open(dir.path(), 10).expect("opens");
        let place = dir.path().join("module");
        let first = put(&cache, b"12345");
        assert_eq!(cache.place(first, &place).expect("places"), Some(5));
        assert_eq!(cache.place(first, &place).expect("again"), Some(5));
        // Time stamps tell apart what was used before and after.
        let old = SystemTime::now() - Duration::from_secs(60);
        File::open(cache.path(first)).and_then(|file| file.set_modified(old)).expect("ages");
        let second = put(&cache, b"abcdef");
        assert_eq!(cache.place(first, &dir.path().join("other")).expect("looks"), None, "no room for both");
        assert_eq!(cache.place(second, &dir.path().join("other")).expect("places"), Some(6));
        assert_eq!(fs::read(&place).expect("reads"), b"12345");
        let large = put(&cache, b"larger than the cache");
        assert_eq!(cache.place(large, &dir.path().join("large")).expect("places"), Some(21));
    }

    #[test]
    fn what_is_not_what_it_should_be_is_not_kept() {
        let dir = tempfile::tempdir().expect("dir");
        let cache = BlobCache::open(dir.path(), 100).expect("opens");
        let digest = Digest::of(b"right");
        let mut writer = cache.begin(digest).expect("begins");
        writer.write(b"wrong").expect("writes");
        assert!(!cache.finish(writer, digest).expect("judges"));
        assert_eq!(cache.place(digest, &dir.path().join("module")).expect("looks"), None);
        assert_eq!(fs::read_dir(dir.path().join("blobs")).expect("reads").count(), 0);
    }

    #[test]
    fn half_a_download_is_removed_at_the_next_start() {
        let dir = tempfile::tempdir().expect("dir");
        let cache = BlobCache::open(dir.path(), 100).expect("opens");
        let kept = put(&cache, b"kept");
        fs::write(dir.path().join("blobs").join("half.part"), "ha").expect("writes");
        let cache = BlobCache::open(dir.path(), 100).expect("opens");
        assert_eq!(fs::read_dir(dir.path().join("blobs")).expect("reads").count(), 1);
        assert_eq!(cache.place(kept, &dir.path().join("module")).expect("places"), Some(4));
    }

    #[test]
    fn several_evict_at_once() {
        let dir = tempfile::tempdir().expect("dir");
        let cache = BlobCache::open(dir.path(), 0).expect("opens");
        let newcomer = Digest::of(b"newcomer");
        for number in 0..100u32 {
            fs::write(cache.path(Digest::of(&number.to_le_bytes())), "blob").expect("writes");
        }
        fs::write(cache.path(newcomer), "newcomer").expect("writes");
        std::thread::scope(|scope| {
            let evicting: Vec<_> = (0..4).map(|_| scope.spawn(|| cache.evict(newcomer))).collect();
            for one in evicting {
                one.join().expect("no panic").expect("evicts");
            }
        });
        assert_eq!(fs::read_dir(dir.path().join("blobs")).expect("reads").count(), 1);
    }

    #[test]
    fn what_cannot_be_evicted_fails_no_download() {
        let dir = tempfile::tempdir().expect("dir");
        let cache = BlobCache::open(dir.path(), 1).expect("opens");
        // A folder is no file that could be removed.
        fs::create_dir(cache.path(Digest::of(b"in the way"))).expect("makes a folder");
        let blob = put(&cache, b"blob");
        assert_eq!(cache.place(blob, &dir.path().join("module")).expect("places"), Some(4));
    }
}
