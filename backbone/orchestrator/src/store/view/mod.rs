//! The view: ended jobs, entries of statements and events, indexed for queries. The one folder that knows sled.
//!
//! It is written behind the journal, each batch with the number of its last event in one atomic write, and can be lost: where it
//! is missing, broken, of another journal or of another format it is begun anew, and what it lacks of the journal is written
//! again. It never decides anything.
//!
//! One tree holds everything; the first byte of a key says what it is. Numbers are big endian, so that order is age. Texts that
//! may have any character stand behind their length, or have 0 255 for 0. What blocks and columns are says [`blocks`].
//!
//! | key | value |
//! |---|---|
//! | `J` number of the event that made the job | the job ([`JobRow`]) |
//! | `I` job | number, account |
//! | `N` name 0 0 account 0 number | job |
//! | `F` account 0 some events | numbers of those of them that ended a job, and of those that made it |
//! | `A` account 0 block | jobs of this account |
//! | `S` state block | jobs that ended so |
//! | `L` label value block | jobs with this label |
//! | `B` column | moments and ids of all its jobs |
//! | `W` column | names of all its jobs |
//! | `C` account 0 state | how many |
//! | `E` account 0 some events | entries |
//! | `D` account 0 kind block | events that led to such an entry |
//! | `V` number of the first of some events | the events |
//! | `K` anything | what the feed keeps for itself |
//! | `M` word | about the view itself |

mod blocks;
mod entries;
mod events;
mod jobs;
mod rows;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::thread;
use std::time::Duration;

use modchain_types::{AccountId, JobId, JobState, JournalId, WallTime};
use modchain_wire::WIRE_VERSION;
use serde::de::DeserializeOwned;

use super::record::{decode_row, encode_row};
use blocks::Edits;

pub use rows::{EntriesWanted, EventRow, JobRow, JobsFound, Kept, Rows, Wanted};

/// Raised whenever keys or rows change.
const FORMAT: u32 = 3;
/// A view that was closed in this process lets go of its files only when its last bytes are synced, which a busy disk takes
/// seconds for: half a minute is waited for that. Other processes keep out by the lock of the whole data directory.
const LET_GO_TRIES: u32 = 3_000;
/// Time between two looks whether it has.
const LET_GO_EVERY: Duration = Duration::from_millis(10);
/// Memory that the store may take for its pages.
const CACHE_BYTES: u64 = 64 << 20;
/// Events under one key.
const EVENTS_PER_KEY: usize = 64;
/// Events in a row whose entries for one account are under one key, and whose ended jobs of one account are. The store keeps
/// some dozens of bytes in memory for every key there is, and writes many pages for each: so few keys, and yet short values.
const EVENTS_TOGETHER: u64 = 32;

const JOB: u8 = b'J';
const JOB_ID: u8 = b'I';
const NAMED: u8 = b'N';
const ENDED: u8 = b'F';
const OF_ACCOUNT: u8 = b'A';
const OF_STATE: u8 = b'S';
const LABELLED: u8 = b'L';
const MOMENTS: u8 = b'B';
const NAMES: u8 = b'W';
const COUNT: u8 = b'C';
const ENTRY: u8 = b'E';
const ENTRY_OF_KIND: u8 = b'D';
const EVENTS: u8 = b'V';
const KEPT: u8 = b'K';
const META: u8 = b'M';

/// Why a question has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the view of ended jobs failed: {0}; it is made anew at the next start")]
pub struct ViewError(String);

impl From<sled::Error> for ViewError {
    fn from(error: sled::Error) -> Self {
        Self(error.to_string())
    }
}

impl ViewError {
    /// What is in the view makes no sense.
    pub(crate) fn garbled(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

fn garbled(why: String) -> ViewError {
    ViewError(why)
}

/// What is known of all rows together.
#[derive(Debug, Clone, Default)]
struct Known {
    /// How many jobs have ended how, by account; none of them 0.
    counts: BTreeMap<(AccountId, u8), u64>,
    /// The latest moment of an event, by the calendar.
    latest: WallTime,
    /// How far the calendar was ever set back, in milliseconds: an event can be dated so much later than one behind it.
    set_back_ms: i64,
}

impl Known {
    /// Counts a job, and says with which.
    fn count(&mut self, row: &JobRow) -> (AccountId, u8) {
        let of = (row.view.account.clone(), state_code(row.view.state));
        *self.counts.entry(of.clone()).or_insert(0) += 1;
        of
    }

    /// Counts a job no more, and says with which it was. What there are none of has no count.
    fn discount(&mut self, row: &JobRow) -> Result<(AccountId, u8), ViewError> {
        let of = (row.view.account.clone(), state_code(row.view.state));
        let left = self.counts.remove(&of).and_then(|count| count.checked_sub(1));
        match left.ok_or_else(|| garbled("a job was not counted".into()))? {
            0 => {}
            left => drop(self.counts.insert(of.clone(), left)),
        }
        Ok(of)
    }

    fn dated(&mut self, at: WallTime) {
        self.set_back_ms = self.set_back_ms.max(self.latest.0.saturating_sub(at.0));
        self.latest = self.latest.max(at);
    }

    fn from_bytes(bytes: &[u8]) -> Option<(WallTime, i64)> {
        let (latest, set_back) = bytes.split_first_chunk::<8>()?;
        Some((WallTime(i64::from_be_bytes(*latest)), i64::from_be_bytes(set_back.try_into().ok()?)))
    }

    fn calendar_bytes(&self) -> Vec<u8> {
        [self.latest.0.to_be_bytes(), self.set_back_ms.to_be_bytes()].concat()
    }
}

/// The view. One thread writes; anybody reads, blocking.
#[derive(Debug)]
pub struct View {
    tree: sled::Tree,
    db: sled::Db,
    /// For making durable what sled has only handed to the kernel.
    file: Option<File>,
    applied: AtomicU64,
    known: Mutex<Known>,
    /// Why nothing is written any more.
    failure: OnceLock<String>,
}

fn key(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = vec![kind];
    parts.iter().for_each(|part| key.extend_from_slice(part));
    key
}

fn account_key(kind: u8, account: &AccountId, rest: &[&[u8]]) -> Vec<u8> {
    let mut key = key(kind, &[account.as_str().as_bytes(), &[0]]);
    rest.iter().for_each(|part| key.extend_from_slice(part));
    key
}

fn state_code(state: JobState) -> u8 {
    state as u8
}

fn number_at_end(key: &[u8]) -> Result<u64, ViewError> {
    let bytes = key.last_chunk::<8>().ok_or_else(|| garbled("a key is too short".into()))?;
    Ok(u64::from_be_bytes(*bytes))
}

impl View {
    /// Opens the view of a journal, or begins an empty one where there is none that can be used.
    /// Tells it with a warning. Blocks.
    pub fn open(dir: &Path, journal: JournalId) -> io::Result<Self> {
        Self::try_open(dir, journal).or_else(|why| {
            tracing::warn!(%why, "the view of ended jobs is made anew from the journal");
            Self::anew(dir, journal)
        })
    }

    /// Begins an empty one in the place of whatever is there. Blocks.
    pub fn anew(dir: &Path, journal: JournalId) -> io::Result<Self> {
        let removed = match fs::remove_dir_all(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => fs::remove_file(dir),
            removed => removed,
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Self::try_open(dir, journal).map_err(io::Error::other),
        }
    }

    fn try_open(dir: &Path, journal: JournalId) -> Result<Self, ViewError> {
        let config = sled::Config::new().path(dir).cache_capacity(CACHE_BYTES).mode(sled::Mode::HighThroughput);
        let mut patience = LET_GO_TRIES;
        let db = loop {
            // It may panic on damage.
            match catch_unwind(AssertUnwindSafe(|| config.open())).map_err(|_| garbled("it is damaged".into()))? {
                Err(sled::Error::Io(error)) if error.to_string().contains("acquire lock") && patience > 0 => {
                    patience -= 1;
                    thread::sleep(LET_GO_EVERY);
                }
                opened => break opened?,
            }
        };
        let tree = db.open_tree("view")?;
        let made_by = format!("{FORMAT} {WIRE_VERSION} {} {journal}", env!("CARGO_PKG_VERSION"));
        match tree.get(key(META, &[b"made by"]))? {
            Some(there) if there == made_by.as_bytes() => {}
            Some(_) => return Err(garbled("it is of another journal or program".into())),
            None if tree.is_empty() => drop(tree.insert(key(META, &[b"made by"]), made_by.as_bytes())?),
            None => return Err(garbled("it does not say what it is of".into())),
        }
        let applied = match tree.get(key(META, &[b"applied"]))? {
            Some(bytes) => number_at_end(&bytes)?,
            None => 0,
        };
        let mut known = Known::default();
        for row in tree.scan_prefix([COUNT]) {
            let (key, count) = row?;
            let (account, state) = key[1..].split_at(key.len().saturating_sub(3));
            let account = std::str::from_utf8(account).ok().and_then(|account| account.parse().ok());
            let account = account.ok_or_else(|| garbled("an account is garbled".into()))?;
            known.counts.insert((account, *state.last().unwrap_or(&0)), number_at_end(&count)?);
        }
        if let Some(bytes) = tree.get(key(META, &[b"calendar"]))? {
            let calendar = Known::from_bytes(&bytes).ok_or_else(|| garbled("its calendar is garbled".into()))?;
            (known.latest, known.set_back_ms) = calendar;
        }
        let file = File::open(dir.join("db")).ok();
        Ok(Self {
            tree,
            db,
            file,
            applied: AtomicU64::new(applied),
            known: Mutex::new(known),
            failure: OnceLock::new(),
        })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("no holder of this lock panics")
    }

    /// The last event that is in it.
    pub fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    /// Writes what came of the events after the last ones, all or nothing. Rows that it has already are passed over, and so are
    /// jobs to forget that it does not have, so that the journal can be replayed into it; a job that is both new and to forget
    /// is never there. One caller at a time. After one failure nothing is written any more: what it lacks
    /// would be in the midst of what it has.
    pub fn apply(&self, rows: &Rows) -> Result<(), ViewError> {
        if let Some(why) = self.failure() {
            return Err(garbled(why.to_owned()));
        }
        // It may panic on damage.
        let applied = catch_unwind(AssertUnwindSafe(|| self.try_apply(rows)));
        applied.unwrap_or_else(|_| Err(garbled("it is damaged".into()))).inspect_err(|error| self.fail(error))
    }

    /// Writes nothing any more.
    pub(crate) fn fail(&self, error: &ViewError) {
        let _ = self.failure.set(error.0.clone()); // the first is the one to look at
    }

    /// Why nothing is written any more; `None` as long as all is well.
    pub fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    fn try_apply(&self, rows: &Rows) -> Result<(), ViewError> {
        let applied = self.applied();
        if rows.upto <= applied {
            return Ok(());
        }
        let mut batch = sled::Batch::default();
        let mut edits = Edits::of(&self.tree);
        let mut known = self.known().clone();
        let forgotten: BTreeSet<JobId> = rows.forgotten.iter().copied().collect();
        let mut counted = BTreeSet::new();
        for row in rows.jobs.iter().filter(|row| row.finished > applied && !forgotten.contains(&row.view.id)) {
            self.checked(jobs::add_job(&mut batch, &mut edits, row))?;
            counted.insert(known.count(row));
        }
        for id in forgotten {
            let Some(row) = self.checked(self.row_to_forget(id))? else { continue };
            self.checked(jobs::remove_job(&mut batch, &mut edits, &row))?;
            counted.insert(self.checked(known.discount(&row))?);
        }
        for (account, state) in counted {
            let at = account_key(COUNT, &account, &[&[state]]);
            match known.counts.get(&(account, state)) {
                Some(count) => batch.insert(at, &count.to_be_bytes()),
                None => batch.remove(at),
            }
        }
        let fresh = rows.entries.iter().filter(|(_, entry)| entry.number > applied);
        self.checked(self.add_entries(&mut batch, &mut edits, fresh))?;
        edits.write(&mut batch);
        let fresh: Vec<&EventRow> = rows.events.iter().filter(|row| row.view.number > applied).collect();
        for some in fresh.chunks(EVENTS_PER_KEY) {
            let at = key(EVENTS, &[&some[0].view.number.to_be_bytes()]);
            batch.insert(at, encode_row(&some).map_err(garbled)?);
        }
        for (at, row) in &rows.kept {
            match row {
                Some(row) => batch.insert(key(KEPT, &[at]), &row[..]),
                None => batch.remove(key(KEPT, &[at])),
            }
        }
        fresh.iter().for_each(|row| known.dated(row.view.at));
        batch.insert(key(META, &[b"calendar"]), known.calendar_bytes());
        batch.insert(key(META, &[b"applied"]), &rows.upto.to_be_bytes());
        // Before anybody can see an event that is dated back.
        self.known().set_back_ms = known.set_back_ms;
        self.tree.apply_batch(batch)?;
        *self.known() = known;
        self.applied.store(rows.upto, Ordering::Release);
        Ok(())
    }

    /// Makes what was written survive the loss of power. Nothing depends on it: what is lost is written again.
    pub fn flush(&self) -> Result<(), ViewError> {
        self.db.flush()?;
        if let Some(file) = &self.file {
            file.sync_data().map_err(|error| ViewError(error.to_string()))?;
        }
        Ok(())
    }

    /// Calls `each` with the key and the value of everything that the feed keeps here, in the order of the keys.
    pub fn kept(&self, mut each: impl FnMut(&[u8], &[u8]) -> Result<(), ViewError>) -> Result<(), ViewError> {
        for row in self.tree.scan_prefix([KEPT]) {
            let (key, value) = row?;
            self.checked(each(&key[1..], &value))?;
        }
        Ok(())
    }

    /// Whether no event before one of the moment `at` can be dated `since` or later.
    fn none_before(&self, at: i64, since: WallTime) -> bool {
        at.saturating_add(self.known().set_back_ms) < since.0
    }

    /// Whether every event after one of the moment `at` must be dated `since` or later.
    fn none_after(&self, at: i64, since: WallTime) -> bool {
        at.saturating_sub(self.known().set_back_ms) >= since.0
    }

    /// A row from its bytes.
    fn decoded<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, ViewError> {
        self.checked(decode_row(bytes).map_err(garbled))
    }

    /// Where something is garbled the view no longer says what it is of, so that the next start makes it anew.
    fn checked<T>(&self, read: Result<T, ViewError>) -> Result<T, ViewError> {
        read.map_err(|why| match self.tree.remove(key(META, &[b"made by"])) {
            Ok(_) => why,
            Err(error) => error.into(),
        })
    }
}

/// Where the view of a data directory is.
pub fn view_dir(data: &Path) -> PathBuf {
    data.join("view")
}
