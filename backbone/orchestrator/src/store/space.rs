//! How much room the disk under the data directory has, and what is done when it runs out.
//!
//! Three levels. With *enough* everything is taken. When it is *low* nothing new is: no jobs, blobs, input or credits; what runs
//! goes on. When it is *full* the last bytes are kept for the journal: a ballast file is given up, so that what runs can still be
//! settled, and once that is used up too, output and input wait where they are until there is room again, and so does the view of
//! what has ended. Everything comes back by itself, the ballast included; but a view that met the full disk before it could wait
//! is written again only by the next start.
//!
//! A file system has room for so many bytes and, as a rule, for so many files; each has a level, and the worse one counts. One that
//! refuses a write although it says that there is room, for a quota perhaps, is not believed for a while.
//!
//! The engine looks at its wake-ups and whenever a write finds no room; nobody polls.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use tokio::sync::Notify;

/// File that is given up when the disk is full, in the data directory.
pub const BALLAST_FILE: &str = "ballast";

const MIB: u64 = 1 << 20;

/// For so long it counts as full that a write was refused for want of room that the file system says is there.
const REFUSED_FOR: Duration = Duration::from_secs(10);

/// How a level is told across threads.
const ENOUGH: u8 = 0;
const LOW: u8 = 1;
const FULL: u8 = 2;

/// How much room there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For everything.
    Enough,
    /// For what runs already.
    Low,
    /// For the journal alone.
    Full,
}

/// Where the levels begin, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    /// Below this many free bytes nothing new is taken.
    pub low: u64,
    /// Below this many free bytes only the journal is written.
    pub full: u64,
    /// Size of the ballast file; 0 for none.
    pub ballast: u64,
}

impl Marks {
    /// Default mark of the low level.
    pub const LOW_BYTES: u64 = 256 * MIB;
    /// Default size of the ballast: room for the events of some ten thousand jobs.
    pub const BALLAST_BYTES: u64 = 32 * MIB;
    /// Most that is kept back for the journal.
    const FULL_BYTES: u64 = 16 * MIB;

    /// Marks that were asked for, or the defaults; on a small disk the defaults are a tenth of it and a fortieth.
    pub fn choose(total: u64, low: Option<u64>, ballast: Option<u64>) -> Self {
        let low = low.unwrap_or(Self::LOW_BYTES.min(total / 10));
        let ballast = ballast.unwrap_or(Self::BALLAST_BYTES.min(total / 40));
        Self { low, full: Self::FULL_BYTES.min(low / 4), ballast }
    }
}

/// What the file system says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes that this program may still use.
    pub free: u64,
    /// Bytes in all.
    pub total: u64,
    /// Files; `None` where there may be as many as there are bytes for.
    pub files: Option<Files>,
}

/// How many files a file system has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Files {
    /// That may still be made.
    pub free: u64,
    /// In all.
    pub total: u64,
}

impl Files {
    /// Most of the low mark: what four thousand jobs that print something take.
    const LOW: u64 = 8192;

    /// Below this many free ones nothing new is taken; on a small disk a twentieth of it.
    pub fn low(self) -> u64 {
        Self::LOW.min(self.total / 20)
    }

    /// Below this many free ones only the journal is written.
    pub fn full(self) -> u64 {
        self.low() / 4
    }
}

/// What is missing to one and a half times the low marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Short {
    /// Bytes.
    pub bytes: u64,
    /// Files.
    pub files: u64,
}

/// Asks the file system that `path` is on.
pub fn room(path: &Path) -> io::Result<Room> {
    let stat = statvfs(path)?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    let files = (stat.f_files > 0).then_some(Files { free: stat.f_favail, total: stat.f_files });
    Ok(Room { free: bytes(stat.f_bavail), total: bytes(stat.f_blocks), files })
}

/// Whether a write failed because there is no room: later it may succeed.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// What the last look found.
#[derive(Debug, Clone, Copy)]
struct Seen {
    room: Room,
    /// The level of bytes.
    bytes: Level,
    /// The level of files.
    files: Level,
    /// When a write was last refused for which there should have been room.
    refused: Option<Instant>,
}

impl Seen {
    const NOTHING: Self = Self {
        room: Room { free: u64::MAX, total: u64::MAX, files: None },
        bytes: Level::Enough,
        files: Level::Enough,
        refused: None,
    };

    /// By what the file system says.
    fn told(&self) -> Level {
        self.bytes.max(self.files)
    }

    /// Whether the file system is not believed.
    fn is_doubted(&self) -> bool {
        self.refused.is_some_and(|at| at.elapsed() < REFUSED_FOR)
    }
}

/// The level of what so much is free of. A low level lasts until there is clearly more than it takes.
fn level(free: u64, low: u64, full: u64, before: Level) -> Level {
    let margin = if before == Level::Enough { 0 } else { low / 4 };
    if free < full {
        Level::Full
    } else if free < low + margin {
        Level::Low
    } else {
        Level::Enough
    }
}

type Gauge = Box<dyn Fn(&Path) -> io::Result<Room> + Send + Sync>;

/// The room under one data directory. Shared by everybody who writes there.
pub struct Space {
    data: PathBuf,
    marks: Marks,
    gauge: Gauge,
    level: AtomicU8,
    seen: Mutex<Seen>,
    /// Whether the ballast is there. Held while it is made or given up.
    ballast: Mutex<bool>,
    /// Told at each look that finds little more room than the low mark.
    tight: Notify,
}

impl std::fmt::Debug for Space {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { data, marks, .. } = self;
        f.debug_struct("Space").field("data", data).field("marks", marks).field("level", &self.level()).finish()
    }
}

impl Space {
    /// Looks for the first time, and makes the ballast if there is room for it. Blocks.
    pub fn open(data: &Path, low: Option<u64>, ballast: Option<u64>) -> io::Result<Self> {
        let marks = Marks::choose(room(data)?.total, low, ballast);
        Ok(Self::with(data, marks, Box::new(room)))
    }

    /// As [`Space::open`], with other marks and another way to measure.
    pub fn with(data: &Path, marks: Marks, gauge: Gauge) -> Self {
        let kept = keeps(&data.join(BALLAST_FILE), marks.ballast);
        let space = Self {
            data: data.to_owned(),
            marks,
            gauge,
            level: AtomicU8::new(ENOUGH),
            seen: Mutex::new(Seen::NOTHING),
            ballast: Mutex::new(kept),
            tight: Notify::new(),
        };
        space.look();
        space
    }

    /// Where the levels begin.
    pub fn marks(&self) -> Marks {
        self.marks
    }

    /// As it was when somebody last looked.
    pub fn level(&self) -> Level {
        match self.level.load(Ordering::Relaxed) {
            ENOUGH => Level::Enough,
            LOW => Level::Low,
            _ => Level::Full,
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("no holder of this lock panics")
    }

    /// What is full and what to do about it, in one sentence for members.
    pub fn complaint(&self) -> String {
        let seen = *self.seen();
        let mib = |bytes: u64| bytes / MIB;
        if seen.told() != Level::Full && seen.is_doubted() {
            let free = mib(seen.room.free);
            return format!(
                "the orchestrator's disk takes no more, although {free} MiB are free: a quota may be used up"
            );
        }
        let files = seen.room.files.filter(|_| seen.files != Level::Enough);
        let files = files.map(|files| {
            format!("{} more files can be made and new work is taken from {} on", files.free, files.low())
        });
        let bytes = (seen.bytes != Level::Enough || files.is_none()).then(|| {
            let (free, low) = (mib(seen.room.free), mib(self.marks.low));
            format!("{free} MiB are free and new work is taken from {low} MiB on")
        });
        let short: Vec<String> = bytes.into_iter().chain(files).collect();
        format!("the orchestrator's disk is nearly full: {}", short.join("; "))
    }

    /// The same for who can do something about it.
    pub fn alarm(&self) -> String {
        let seen = *self.seen();
        let what = if seen.files > seen.bytes { "remove some files" } else { "free some space" };
        format!(
            "{}; {what} where {} is, and it goes on by itself: running jobs do meanwhile",
            self.complaint(),
            self.data.display()
        )
    }

    /// Measures; gives the ballast up or makes it again. Tells the level. Blocks for a moment.
    pub fn look(&self) -> Level {
        let mut ballast = self.ballast();
        let Some(mut seen) = self.measure() else { return self.level() };
        // It has bytes, and hardly helps where there are too many files.
        if seen.bytes == Level::Full && *ballast {
            *ballast = self.give_up();
            seen = self.measure().unwrap_or(seen);
        }
        let level = if seen.is_doubted() { Level::Full } else { seen.told() };
        let margin = self.marks.low / 4;
        if level == Level::Enough
            && !*ballast
            && self.marks.ballast > 0
            && seen.room.free >= self.marks.low + margin + self.marks.ballast
        {
            *ballast = self.make();
        }
        let code = match level {
            Level::Enough => ENOUGH,
            Level::Low => LOW,
            Level::Full => FULL,
        };
        let before = self.level.swap(code, Ordering::Relaxed);
        if before != code {
            let Room { free, files, .. } = seen.room;
            let files = files.map(|files| files.free);
            tracing::warn!(free, files, low = self.marks.low, full = self.marks.full, ?level, "room where the data is");
        }
        if self.short() != Short::default() {
            self.tight.notify_one();
        }
        level
    }

    /// What is missing to one and a half times the low marks, by the last look: what can be removed goes from there on, so that the low
    /// marks are met only once nothing is left to remove.
    pub fn short(&self) -> Short {
        let room = self.seen().room;
        let missing = |free: u64, low: u64| (low + low / 2).saturating_sub(free);
        Short {
            bytes: missing(room.free, self.marks.low),
            files: room.files.map_or(0, |files| missing(files.free, files.low())),
        }
    }

    /// Comes back when a look finds that something is missing so, or has found it since the call before.
    pub async fn tight(&self) {
        self.tight.notified().await;
    }

    /// A write found no room: it counts as full for a while, if the file system says otherwise, and is looked at. Blocks for a moment.
    pub fn refused(&self) {
        self.doubt();
        self.look();
    }

    /// The same for a write that the ballast is for: gives it up, whatever the file system says is free. Tells whether that made room.
    pub fn exhausted(&self) -> bool {
        self.doubt(); // before the ballast makes room
        let made_room = {
            let mut ballast = self.ballast();
            let had = *ballast;
            *ballast = had && self.give_up();
            had && !*ballast
        };
        self.look();
        made_room
    }

    /// After a write that found no room.
    fn doubt(&self) {
        if self.measure().is_some_and(|seen| seen.told() != Level::Full) {
            self.seen().refused = Some(Instant::now());
        }
    }

    /// What is free now.
    fn measure(&self) -> Option<Seen> {
        let room = match (self.gauge)(&self.data) {
            Ok(room) => room,
            Err(error) => {
                tracing::warn!(%error, "the free space where the data is cannot be measured");
                return None;
            }
        };
        let seen = &mut *self.seen();
        seen.room = room;
        seen.bytes = level(room.free, self.marks.low, self.marks.full, seen.bytes);
        seen.files = room.files.map_or(Level::Enough, |files| level(files.free, files.low(), files.full(), seen.files));
        Some(*seen)
    }

    fn ballast(&self) -> MutexGuard<'_, bool> {
        self.ballast.lock().expect("no holder of this lock panics")
    }

    /// Removes the ballast; tells whether it is still there.
    fn give_up(&self) -> bool {
        tracing::warn!(
            bytes = self.marks.ballast,
            "the disk is full: the ballast is given up, so that running jobs can end"
        );
        match fs::remove_file(self.data.join(BALLAST_FILE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::error!(%error, "the ballast cannot be given up");
                true
            }
            _ => false,
        }
    }

    /// Makes the ballast; tells whether it is there.
    fn make(&self) -> bool {
        let path = self.data.join(BALLAST_FILE);
        let made = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .and_then(|file| fill(&file, self.marks.ballast));
        if let Err(error) = &made {
            tracing::warn!(%error, "there is no ballast");
            let _ = fs::remove_file(path);
        }
        made.is_ok()
    }
}

/// Whether the ballast is there and as large as it is to be. One of another size goes, because the setting is another now or the program
/// was killed while it was made; the first look makes it anew where there is room.
fn keeps(path: &Path, bytes: u64) -> bool {
    match fs::metadata(path) {
        Ok(file) if bytes > 0 && file.len() == bytes => true,
        Ok(_) => fs::remove_file(path)
            .inspect_err(|error| tracing::warn!(%error, "a ballast of another size cannot be removed"))
            .is_err(),
        Err(_) => false,
    }
}

/// Takes the blocks of a file; by writing where the file system cannot do it otherwise.
fn fill(file: &File, bytes: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => file.sync_all(),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
            super::journal::write_zeros(file, 0, bytes)?;
            file.sync_all()
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    const MARKS: Marks = Marks { low: 100 * MIB, full: 10 * MIB, ballast: 4 * MIB };

    /// A disk of which the test says how much is free besides the ballast.
    fn disk(dir: &Path) -> (Space, Arc<AtomicU64>) {
        let free = Arc::new(AtomicU64::new(1000 * MIB));
        let told = free.clone();
        let gauge = move |data: &Path| {
            let ballast = fs::metadata(data.join(BALLAST_FILE)).map_or(0, |file| file.len());
            Ok(Room { free: told.load(Ordering::Relaxed) - ballast, total: 1000 * MIB, files: None })
        };
        (Space::with(dir, MARKS, Box::new(gauge)), free)
    }

    #[test]
    fn the_levels_follow_the_room_and_the_ballast_goes_and_comes_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let (space, free) = disk(dir.path());
        let ballast = dir.path().join(BALLAST_FILE);
        let at = |mib: u64| {
            free.store(mib * MIB, Ordering::Relaxed);
            (space.look(), ballast.exists())
        };
        assert_eq!(at(1000), (Level::Enough, true));
        assert_eq!(at(103), (Level::Low, true), "99 MiB besides the ballast");
        assert_eq!(at(120), (Level::Low, true), "it does not flicker around the mark");
        assert_eq!(at(130), (Level::Enough, true));
        assert_eq!(at(13), (Level::Low, false), "the ballast made 9 MiB 13");
        assert_eq!(at(9), (Level::Full, false));
        assert_eq!(at(20), (Level::Low, false));
        assert_eq!(at(126), (Level::Enough, false), "there is no room for the ballast above the mark yet");
        assert_eq!(at(130), (Level::Enough, true));
        let said = space.complaint();
        assert!(said.contains("100 MiB") && said.contains("nearly full"), "{said}");
    }

    #[test]
    fn a_write_that_found_no_room_gets_the_ballast_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let (space, free) = disk(dir.path());
        free.store(50 * MIB, Ordering::Relaxed);
        assert!(space.exhausted(), "a quota may be used up while the disk is not");
        assert!(!space.exhausted());
        assert!(!dir.path().join(BALLAST_FILE).exists());
    }

    #[test]
    fn where_no_more_files_can_be_made_it_is_full_as_well_and_says_so() {
        let dir = tempfile::tempdir().expect("a directory");
        let free = Arc::new(AtomicU64::new(50_000));
        let told = free.clone();
        let gauge = move |_: &Path| {
            let files = Files { free: told.load(Ordering::Relaxed), total: 100_000 };
            Ok(Room { free: 1000 * MIB, total: 1000 * MIB, files: Some(files) })
        };
        let space = Space::with(dir.path(), MARKS, Box::new(gauge));
        let at = |files: u64| {
            free.store(files, Ordering::Relaxed);
            (space.look(), space.short())
        };
        let short = |files| Short { bytes: 0, files };
        assert_eq!(at(7_500), (Level::Enough, short(0)), "a twentieth is low, half more is not short");
        assert_eq!(at(5_000), (Level::Enough, short(2_500)));
        assert_eq!(at(4_999), (Level::Low, short(2_501)));
        assert_eq!(at(6_000), (Level::Low, short(1_500)), "it does not flicker around the mark");
        let said = space.complaint();
        assert!(
            said.contains("nearly full: 6000 more files") && said.contains("5000") && !said.contains("MiB"),
            "{said}"
        );
        assert!(space.alarm().contains("remove some files"), "{}", space.alarm());
        assert_eq!(at(1_249), (Level::Full, short(6_251)));
        assert!(dir.path().join(BALLAST_FILE).exists(), "it has bytes, which are not what is missing");
        assert_eq!(at(6_250), (Level::Enough, short(1_250)));
    }

    #[test]
    fn a_disk_that_refuses_what_it_has_room_for_is_full_for_a_while() {
        let dir = tempfile::tempdir().expect("a directory");
        let (space, free) = disk(dir.path());
        space.refused();
        assert_eq!((space.level(), space.look()), (Level::Full, Level::Full));
        assert!(space.complaint().contains("a quota"), "{}", space.complaint());
        assert!(space.exhausted(), "the journal has the ballast");
        assert!(!dir.path().join(BALLAST_FILE).exists(), "and it is not taken away from it at once");
        space.seen().refused = Instant::now().checked_sub(REFUSED_FOR);
        assert_eq!(space.look(), Level::Enough, "it may have room again: the next write will tell");
        assert!(dir.path().join(BALLAST_FILE).exists());
        // Where it says itself that it is full, it is believed as soon as it says that it is not.
        free.store(5 * MIB, Ordering::Relaxed);
        space.refused();
        free.store(1000 * MIB, Ordering::Relaxed);
        assert_eq!(space.look(), Level::Enough);
    }

    #[test]
    fn a_ballast_that_a_run_before_left_is_known() {
        let dir = tempfile::tempdir().expect("a directory");
        drop(disk(dir.path()));
        assert_eq!(fs::metadata(dir.path().join(BALLAST_FILE)).expect("it is there").len(), MARKS.ballast);
        let (space, free) = disk(dir.path());
        free.store(13 * MIB, Ordering::Relaxed);
        assert_eq!(space.look(), Level::Low);
        assert!(!dir.path().join(BALLAST_FILE).exists());
    }

    #[test]
    fn a_ballast_of_another_size_is_made_anew_or_goes() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(BALLAST_FILE);
        let length = || fs::metadata(&path).ok().map(|file| file.len());
        for left in [0, MIB, MARKS.ballast + 1] {
            fs::write(&path, vec![0; left as usize]).expect("writes");
            drop(disk(dir.path()));
            assert_eq!(length(), Some(MARKS.ballast), "{left} bytes were left");
        }
        let gauge = |_: &Path| Ok(Room { free: 900 * MIB, total: 1000 * MIB, files: None });
        Space::with(dir.path(), Marks { ballast: 0, ..MARKS }, Box::new(gauge));
        assert_eq!(length(), None, "none is asked for any more");
        fs::write(&path, b"").expect("writes");
        let gauge = |_: &Path| Ok(Room { free: 5 * MIB, total: 1000 * MIB, files: None });
        Space::with(dir.path(), MARKS, Box::new(gauge));
        assert_eq!(length(), None, "there is no room for it");
    }

    #[test]
    fn marks_suit_the_size_of_the_disk_unless_they_are_given() {
        let large = Marks::choose(1 << 40, None, None);
        assert_eq!((large.low, large.full, large.ballast), (256 * MIB, 16 * MIB, 32 * MIB));
        let small = Marks::choose(400 * MIB, None, None);
        assert_eq!((small.low, small.full, small.ballast), (40 * MIB, 10 * MIB, 10 * MIB));
        let given = Marks::choose(400 * MIB, Some(8 * MIB), Some(0));
        assert_eq!((given.low, given.full, given.ballast), (8 * MIB, 2 * MIB, 0));
    }
}
