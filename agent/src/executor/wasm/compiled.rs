//! Modules as they were compiled before: `DATA/compiled/DIGEST-COMPILER`, so that only the first job of a module compiles it.
//!
//! What is taken from here is run as machine code, so only the agent writes here. A child compiles a module that it runs
//! anyway and hands the result over before the guest begins; the agent keeps it with a digest over it, its module and its
//! compiler. Where the kernel has no lock that keeps children from files, nothing is kept and nothing is used.
//!
//! A name says for which compiler it is: its version, its settings and the processor. Which one that is, and what locks there
//! are, the agent learns from the first child that it starts.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use modchain_types::WasmTask;

use super::protocol::{COMPILED_BYTES_MAX, LockdownReport};
use crate::files;

/// Bytes on disk at most; above it what was used longest ago goes.
const CACHE_BYTES_MAX: u64 = 1 << 30;

/// Bytes of those used last that are held in memory too.
const RECENT_BYTES_MAX: usize = 16 << 20;

/// Bytes of the digest that a file begins with.
const DIGEST_BYTES: usize = 32;

/// What the name of a file ends with that is being written.
const PART: &str = ".part";

/// Compiled modules on disk. Its methods wait for it.
#[derive(Debug)]
pub(super) struct CompiledCache {
    dir: PathBuf,
    /// `None` inside where nothing may be kept.
    compiler: OnceLock<Option<u64>>,
    /// The one used last first.
    recent: Mutex<VecDeque<(String, Bytes)>>,
    /// Tells temporary files apart.
    number: AtomicU64,
}

impl CompiledCache {
    /// Opens the cache below `data`; what an earlier run left half written is removed.
    pub(super) fn open(data: &Path) -> io::Result<Self> {
        let dir = data.join("compiled");
        files::make_private_dir(&dir)?;
        remove_where(&dir, |name| name.ends_with(PART))?;
        Ok(Self { dir, compiler: OnceLock::new(), recent: Mutex::default(), number: AtomicU64::new(0) })
    }

    /// A child is locked in like this and compiles under this name. The first one counts.
    pub(super) fn learn(&self, compiler: u64, lockdown: LockdownReport) {
        let safe = lockdown.landlock || lockdown.seccomp;
        self.compiler.get_or_init(|| {
            let current = format!("-{compiler:016x}");
            let useless = |name: &str| !safe || !name.ends_with(&current);
            if let Err(error) = remove_where(&self.dir, useless) {
                tracing::warn!(%error, "compiled modules of no use cannot be removed");
            }
            safe.then_some(compiler)
        });
    }

    /// The compiled form of the task's module, if it is in memory. Waits for nothing.
    pub(super) fn get_recent(&self, task: &WasmTask) -> Option<Bytes> {
        let name = name(task, (*self.compiler.get()?)?);
        let mut recent = self.recent();
        let place = recent.iter().position(|(known, _)| *known == name)?;
        let found = recent.remove(place)?;
        let module = found.1.clone();
        recent.push_front(found);
        Some(module)
    }

    /// The compiled form of the task's module, if it is here.
    pub(super) fn get(&self, task: &WasmTask) -> Option<Bytes> {
        if let Some(recent) = self.get_recent(task) {
            return Some(recent);
        }
        let name = name(task, (*self.compiler.get()?)?);
        let path = self.dir.join(&name);
        match read(&path, &name) {
            Ok(module) => {
                self.remember(name, module.clone());
                Some(module)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "a compiled module cannot be used; it is compiled again");
                let _ = fs::remove_file(path);
                None
            }
        }
    }

    /// Keeps what a child that compiles under this name has made of the task's module.
    pub(super) fn put(&self, task: &WasmTask, compiler: u64, module: Bytes) -> io::Result<()> {
        if self.compiler.get() != Some(&Some(compiler)) {
            return Ok(());
        }
        let name = name(task, compiler);
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let part = self.dir.join(format!("{number}{PART}"));
        // Not synced: what a power loss tears does not fit its digest.
        let written = files::create_private(&part).and_then(|mut file| {
            file.write_all(digest(&name, &module).as_bytes())?;
            file.write_all(&module)
        });
        if let Err(error) = written.and_then(|()| fs::rename(&part, self.dir.join(&name))) {
            let _ = fs::remove_file(part);
            return Err(error);
        }
        self.remember(name, module);
        self.evict(CACHE_BYTES_MAX)
    }

    /// Drops the compiled form of the task's module: a child could do nothing with it.
    pub(super) fn forget(&self, task: &WasmTask) {
        let Some(Some(compiler)) = self.compiler.get() else { return };
        let name = name(task, *compiler);
        self.recent().retain(|(known, _)| *known != name);
        let _ = fs::remove_file(self.dir.join(name));
    }

    fn recent(&self) -> MutexGuard<'_, VecDeque<(String, Bytes)>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, name: String, module: Bytes) {
        let mut recent = self.recent();
        recent.retain(|(known, _)| *known != name);
        recent.push_front((name, module));
        let mut room = RECENT_BYTES_MAX;
        let fit = recent.iter().take_while(|(_, module)| {
            let fits = module.len() <= room;
            room = room.saturating_sub(module.len());
            fits
        });
        let fit = fit.count();
        let gone = recent.split_off(fit);
        drop(recent);
        for (name, _) in gone {
            // While it was in memory its file was not looked at.
            touch(&self.dir.join(name));
        }
    }

    /// Removes those used longest ago until the rest fits into so many bytes. Several may do that at once.
    fn evict(&self, bytes_max: u64) -> io::Result<()> {
        // What is in memory was used last, whatever the times of the files say.
        let recent: Vec<String> = self.recent().iter().map(|(name, _)| name.clone()).collect();
        let mut kept = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| !name.ends_with(PART)) else { continue };
            let in_memory = recent.iter().position(|known| known == name).map(Reverse);
            match entry.metadata().and_then(|metadata| Ok((metadata.modified()?, metadata.len()))) {
                Ok((used_at, bytes)) => kept.push((in_memory, used_at, bytes, entry.path())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let mut total: u64 = kept.iter().map(|(_, _, bytes, _)| bytes).sum();
        kept.sort();
        for (_, _, bytes, path) in kept {
            if total <= bytes_max {
                break;
            }
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => total -= bytes,
            }
        }
        Ok(())
    }
}

/// The length is a part of it: a task that says another one is to find out.
fn name(task: &WasmTask, compiler: u64) -> String {
    format!("{}-{}-{compiler:016x}", task.module, task.module_bytes)
}

fn read(path: &Path, name: &str) -> io::Result<Bytes> {
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    if bytes > DIGEST_BYTES as u64 + COMPILED_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is too long"));
    }
    // The order of eviction is a matter of thrift, not of correctness.
    let _ = file.set_modified(SystemTime::now());
    let mut found = Bytes::from(fs::read(path)?);
    if found.len() < DIGEST_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is too short"));
    }
    let said = found.split_to(DIGEST_BYTES);
    match digest(name, &found).as_bytes()[..] == said[..] {
        true => Ok(found),
        false => Err(io::Error::new(io::ErrorKind::InvalidData, "it is not what was written")),
    }
}

/// Over the name, so that no file passes for another one, and what was compiled.
fn digest(name: &str, module: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(name.as_bytes()).update(&[0]).update(module);
    hasher.finalize()
}

/// Notes that it was used now. The order of eviction is a matter of thrift, not of correctness.
fn touch(path: &Path) {
    let _ = File::open(path).and_then(|file| file.set_modified(SystemTime::now()));
}

fn remove_where(dir: &Path, is_useless: impl Fn(&str) -> bool) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_str().is_none_or(&is_useless) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use modchain_types::{Digest, List, Map, Text};

    const LOCKED: LockdownReport = LockdownReport { landlock: true, seccomp: true };

    fn task(module: &[u8]) -> WasmTask {
        WasmTask {
            module: Digest::of(module),
            module_bytes: module.len() as u64,
            module_name: Text::cut("m.wasm"),
            args: List::default(),
            env: Map::default(),
        }
    }

    fn cache(data: &Path, compiler: u64, lockdown: LockdownReport) -> CompiledCache {
        let cache = CompiledCache::open(data).expect("opens");
        assert_eq!(cache.get(&task(b"first")), None, "nothing is used before the compiler is known");
        cache.learn(compiler, lockdown);
        cache
    }

    fn kept(data: &Path) -> usize {
        fs::read_dir(data.join("compiled")).expect("reads").count()
    }

    #[test]
    fn what_was_kept_is_found_again_for_the_same_module_and_compiler_alone() {
        let dir = tempfile::tempdir().expect("dir");
        let (first, second) = (task(b"first"), task(b"second"));
        let code = Bytes::from_static(b"code");
        let old = cache(dir.path(), 1, LOCKED);
        old.put(&first, 1, code.clone()).expect("keeps");
        old.put(&second, 2, code.clone()).expect("a child of another compiler is passed over");
        assert_eq!((old.get(&first), old.get(&second)), (Some(code.clone()), None));
        let other_length = WasmTask { module_bytes: 6, ..task(b"first") };
        assert_eq!(old.get(&other_length), None);
        fs::write(dir.path().join("compiled/7.part"), "half").expect("writes");
        let again = cache(dir.path(), 1, LOCKED);
        again.learn(2, LOCKED);
        assert_eq!((again.get(&first), kept(dir.path())), (Some(code), 1));
        again.forget(&first);
        assert_eq!((again.get(&first), kept(dir.path())), (None, 0));
        again.put(&first, 1, Bytes::from_static(b"code")).expect("keeps");
        let newer = cache(dir.path(), 2, LOCKED);
        assert_eq!((newer.get(&first), kept(dir.path())), (None, 0), "that of another compiler goes");
    }

    #[test]
    fn what_is_not_what_was_written_is_never_given_out() {
        let dir = tempfile::tempdir().expect("dir");
        let (first, second) = (task(b"first"), task(b"second"));
        let code = Bytes::from_static(b"some machine code");
        cache(dir.path(), 1, LOCKED).put(&first, 1, code.clone()).expect("keeps");
        let path = |task: &WasmTask| dir.path().join("compiled").join(name(task, 1));
        let whole = fs::read(path(&first)).expect("reads");
        for at in 0..whole.len() {
            let mut other = whole.clone();
            other[at] ^= 1;
            for bytes in [&other[..], &whole[..at]] {
                fs::write(path(&first), bytes).expect("writes");
                assert_eq!(cache(dir.path(), 1, LOCKED).get(&first), None, "at {at}");
                assert!(!path(&first).exists());
            }
        }
        // Whole, but of another module.
        fs::write(path(&second), &whole).expect("writes");
        assert_eq!(cache(dir.path(), 1, LOCKED).get(&second), None);
        fs::write(path(&first), &whole).expect("writes");
        assert_eq!(cache(dir.path(), 1, LOCKED).get(&first), Some(code));
    }

    #[test]
    fn without_a_lock_on_children_nothing_is_kept_or_used() {
        let dir = tempfile::tempdir().expect("dir");
        let first = task(b"first");
        cache(dir.path(), 1, LOCKED).put(&first, 1, Bytes::from_static(b"code")).expect("keeps");
        let open = cache(dir.path(), 1, LockdownReport { landlock: false, seccomp: false });
        open.put(&first, 1, Bytes::from_static(b"code")).expect("passes over");
        assert_eq!((open.get(&first), kept(dir.path())), (None, 0));
    }

    #[test]
    fn memory_holds_those_used_last() {
        let dir = tempfile::tempdir().expect("dir");
        let cache = cache(dir.path(), 1, LOCKED);
        for number in 0..10u8 {
            cache.put(&task(&[number]), 1, vec![number; RECENT_BYTES_MAX / 4].into()).expect("keeps");
        }
        assert_eq!(cache.recent().len(), 4);
        assert_eq!(cache.get(&task(&[0])).map(|module| module.len()), Some(RECENT_BYTES_MAX / 4));
        cache.put(&task(b"large"), 1, vec![1; RECENT_BYTES_MAX + 1].into()).expect("keeps");
        assert_eq!(cache.recent().len(), 0);
        assert_eq!(kept(dir.path()), 11);
    }
    #[test]
    fn what_is_used_goes_last_from_disk_though_it_is_used_from_memory() {
        let dir = tempfile::tempdir().expect("dir");
        let cache = cache(dir.path(), 1, LOCKED);
        let quarter = RECENT_BYTES_MAX / 4;
        for number in 0..6u8 {
            cache.put(&task(&[number]), 1, vec![number; quarter].into()).expect("keeps");
        }
        // In memory are 5, 4, 3 and 2, and now 2 was used last. Their files are said to be older than the rest.
        assert!(cache.get_recent(&task(&[2])).is_some());
        for number in 0..6u8 {
            let path = dir.path().join("compiled").join(name(&task(&[number]), 1));
            let at = SystemTime::now() - std::time::Duration::from_secs(3600 * u64::from(number));
            File::open(path).and_then(|file| file.set_modified(at)).expect("sets the time");
        }
        let left = |bytes: usize| {
            cache.evict((bytes * (quarter + DIGEST_BYTES)) as u64).expect("evicts");
            let there = |number: &u8| dir.path().join("compiled").join(name(&task(&[*number]), 1)).exists();
            (0..6u8).filter(there).collect::<Vec<_>>()
        };
        assert_eq!(left(6), [0, 1, 2, 3, 4, 5]);
        assert_eq!(left(5), [0, 2, 3, 4, 5]);
        // What leaves memory was used until now: 3 goes out, and is younger than 0.
        cache.put(&task(&[6]), 1, vec![6; quarter].into()).expect("keeps");
        assert_eq!(left(5), [2, 3, 4, 5]);
        assert_eq!(left(4), [2, 4, 5]);
        assert_eq!(left(2), [2]);
    }

    #[test]
    fn several_evict_at_once() {
        let dir = tempfile::tempdir().expect("dir");
        let cache = cache(dir.path(), 1, LOCKED);
        for number in 0..100u32 {
            fs::write(dir.path().join(format!("compiled/{number}")), "code").expect("writes");
        }
        fs::write(dir.path().join("compiled/7.part"), "of another one").expect("writes");
        std::thread::scope(|scope| {
            let evicting: Vec<_> = (0..4).map(|_| scope.spawn(|| cache.evict(0))).collect();
            for one in evicting {
                one.join().expect("no panic").expect("evicts");
            }
        });
        assert_eq!(kept(dir.path()), 1, "what is being written stays");
    }
}
