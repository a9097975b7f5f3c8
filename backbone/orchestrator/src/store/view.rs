//! The view: ended jobs, entries of statements and events, indexed for queries. The one file that knows sled.
//!
//! It is written behind the journal, each batch with the number of its last event in one atomic write, and can be lost: where it
//! is missing, broken, of another journal or of another format it is begun anew, and what it lacks of the journal is written
//! again. It never decides anything.
//!
//! One tree holds everything; the first byte of a key says what it is. Numbers are big endian, so that order is age.
//!
//! | key | value |
//! |---|---|
//! | `J` number of the event that made the job | the job ([`JobRow`]) |
//! | `I` job | number |
//! | `A` account 0 number | – |
//! | `S` state number | – |
//! | `T` account 0 state number | – |
//! | `N` name 0 number | account |
//! | `L` label 0 value 0 number | account |
//! | `C` account 0 state | how many |
//! | `E` account 0 number, place in its event | entry |
//! | `D` account 0 number, place in its event | –, for deposits |
//! | `V` number of the first of some events | the events |
//! | `M` word | about the view itself |

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use modchain_types::{AccountId, JobId, JobState, JournalId, Text, WallTime};
use modchain_wire::WIRE_VERSION;
use modchain_wire::view::{EventView, JobView, LedgerEntryView, LedgerKind};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::record::{decode_row, encode_row};

/// Raised whenever keys or rows change.
const FORMAT: u32 = 1;
/// Memory that the store may take for its pages.
const CACHE_BYTES: u64 = 64 << 20;
/// Rows that one question looks at: what matches less than one in so many is found page by page.
const ROWS_PER_QUESTION: usize = 20_000;
/// Events under one key.
const EVENTS_PER_KEY: usize = 64;

const JOB: u8 = b'J';
const JOB_ID: u8 = b'I';
const OF_ACCOUNT: u8 = b'A';
const OF_STATE: u8 = b'S';
const OF_ACCOUNT_AND_STATE: u8 = b'T';
const NAMED: u8 = b'N';
const LABELLED: u8 = b'L';
const COUNT: u8 = b'C';
const ENTRY: u8 = b'E';
const DEPOSIT: u8 = b'D';
const EVENTS: u8 = b'V';
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

fn garbled(why: String) -> ViewError {
    ViewError(why)
}

/// A job that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRow {
    /// Number of the event that made it.
    pub number: u64,
    /// Number of the event that ended it.
    pub finished: u64,
    /// Numbers of all events about it.
    pub events: Vec<u64>,
    /// What people see.
    pub view: JobView,
}

/// An event and the account that may see it besides operators; `None` is nobody, the empty one is everybody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRow {
    /// Who.
    pub audience: Option<Text<32>>,
    /// What people see.
    pub view: EventView,
}

/// What some events of the journal led to.
#[derive(Debug, Default)]
pub struct Rows {
    /// The last of the events.
    pub upto: u64,
    /// Jobs that they ended.
    pub jobs: Vec<JobRow>,
    /// Entries of statements, in order.
    pub entries: Vec<(AccountId, LedgerEntryView)>,
    /// The events, in order and without a gap.
    pub events: Vec<EventRow>,
}

/// Which ended jobs are wanted.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Only those of this account.
    pub account: Option<AccountId>,
    /// Only in these states; empty means all.
    pub states: Vec<JobState>,
    /// Only with all of these labels.
    pub labels: Vec<(Text<64>, Text<256>)>,
    /// Only those whose name or id begins so; empty means all.
    pub prefix: String,
    /// Only those created at or after this moment.
    pub since: Option<WallTime>,
    /// Only those made by events before this one.
    pub below: u64,
    /// At most this many.
    pub limit: usize,
}

/// Ended jobs, newest first.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct JobsFound {
    /// At most as many as were wanted.
    pub items: Vec<JobRow>,
    /// How many there are in all, wherever the page begins; at least so many where very many had to be looked at.
    pub total: u64,
    /// Whether there are more after the last one.
    pub more: bool,
}

/// Which entries of a statement are wanted.
#[derive(Debug, Clone, Default)]
pub struct EntriesWanted {
    /// Only at or after this moment.
    pub since: Option<WallTime>,
    /// Only of this kind.
    pub kind: Option<LedgerKind>,
    /// Only about this job.
    pub job: Option<JobId>,
    /// Only of events before this one.
    pub below: Option<u64>,
    /// At most this many; those of one event stay together, so it can be three more.
    pub limit: usize,
}

/// How many jobs have ended how, by account.
type Counts = BTreeMap<(AccountId, u8), u64>;

/// The view. One thread writes; anybody reads, blocking.
#[derive(Debug)]
pub struct View {
    tree: sled::Tree,
    db: sled::Db,
    /// For making durable what sled has only handed to the kernel.
    file: Option<File>,
    applied: AtomicU64,
    counts: Mutex<Counts>,
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

/// An index whose keys end with the numbers of jobs, walked from the newest on.
struct Ages<'a> {
    tree: &'a sled::Tree,
    prefixes: Vec<Vec<u8>>,
    /// The next of each prefix.
    heads: Vec<Option<u64>>,
    iterators: Vec<Box<dyn Iterator<Item = sled::Result<sled::IVec>> + 'a>>,
}

impl<'a> Ages<'a> {
    fn new(tree: &'a sled::Tree, prefixes: Vec<Vec<u8>>, below: u64) -> Result<Self, ViewError> {
        let mut ages = Self { tree, heads: Vec::new(), iterators: Vec::new(), prefixes };
        for prefix in &ages.prefixes {
            let from = prefix.clone();
            let to = [&prefix[..], &below.to_be_bytes()].concat();
            ages.iterators.push(Box::new(ages.tree.range(from..to).keys().rev()));
            ages.heads.push(None);
        }
        for at in 0..ages.heads.len() {
            ages.advance(at)?;
        }
        Ok(ages)
    }

    /// Of numbers that are known, newest first.
    fn of(tree: &'a sled::Tree, numbers: Vec<u64>) -> Result<Self, ViewError> {
        let keys = numbers.into_iter().map(|number| Ok(sled::IVec::from(&number.to_be_bytes())));
        let mut ages = Self { tree, prefixes: Vec::new(), heads: vec![None], iterators: vec![Box::new(keys)] };
        ages.advance(0)?;
        Ok(ages)
    }

    fn advance(&mut self, at: usize) -> Result<(), ViewError> {
        self.heads[at] = match self.iterators[at].next() {
            None => None,
            Some(key) => Some(number_at_end(&key?)?),
        };
        Ok(())
    }

    fn next(&mut self) -> Result<Option<u64>, ViewError> {
        let newest = self.heads.iter().enumerate().filter_map(|(at, head)| head.map(|number| (number, at))).max();
        let Some((number, at)) = newest else { return Ok(None) };
        self.advance(at)?;
        Ok(Some(number))
    }
}

impl View {
    /// Opens the view of a journal whose last event is `last`, or begins an empty one where there is none that can be used.
    /// Tells it with a warning. Blocks.
    pub fn open(dir: &Path, journal: JournalId) -> io::Result<Self> {
        match Self::try_open(dir, journal) {
            Ok(view) => Ok(view),
            Err(why) => {
                tracing::warn!(%why, "the view of ended jobs is made anew from the journal");
                match fs::remove_dir_all(dir) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
                Self::try_open(dir, journal).map_err(io::Error::other)
            }
        }
    }

    fn try_open(dir: &Path, journal: JournalId) -> Result<Self, ViewError> {
        let config = sled::Config::new().path(dir).cache_capacity(CACHE_BYTES).mode(sled::Mode::HighThroughput);
        // It may panic on damage.
        let db = catch_unwind(AssertUnwindSafe(|| config.open())).map_err(|_| garbled("it is damaged".into()))??;
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
        let mut counts = Counts::new();
        for row in tree.scan_prefix([COUNT]) {
            let (key, count) = row?;
            let (account, state) = key[1..].split_at(key.len().saturating_sub(3));
            let account = std::str::from_utf8(account).ok().and_then(|account| account.parse().ok());
            let account = account.ok_or_else(|| garbled("an account is garbled".into()))?;
            counts.insert((account, *state.last().unwrap_or(&0)), number_at_end(&count)?);
        }
        let file = File::open(dir.join("db")).ok();
        Ok(Self { tree, db, file, applied: AtomicU64::new(applied), counts: Mutex::new(counts) })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().expect("no holder of this lock panics")
    }

    /// The last event that is in it.
    pub fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    /// Writes what came of the events after the last ones, all or nothing. Rows that it has already are passed over, so that
    /// the journal can be replayed into it. One caller at a time.
    pub fn apply(&self, rows: &Rows) -> Result<(), ViewError> {
        let applied = self.applied();
        if rows.upto <= applied {
            return Ok(());
        }
        let mut batch = sled::Batch::default();
        let mut counts = self.counts().clone();
        for row in rows.jobs.iter().filter(|row| row.finished > applied) {
            add_job(&mut batch, row)?;
            let count = counts.entry((row.view.account.clone(), state_code(row.view.state))).or_insert(0);
            *count += 1;
            let at = account_key(COUNT, &row.view.account, &[&[state_code(row.view.state)]]);
            batch.insert(at, &count.to_be_bytes());
        }
        let (mut before, mut place) = (0, 0u8);
        for (account, entry) in rows.entries.iter().filter(|(_, entry)| entry.number > applied) {
            place = if entry.number == before { place + 1 } else { 0 };
            before = entry.number;
            let at = [&entry.number.to_be_bytes()[..], &[place]];
            batch.insert(account_key(ENTRY, account, &at), encode_row(entry).map_err(garbled)?);
            if entry.kind == LedgerKind::Deposit {
                batch.insert(account_key(DEPOSIT, account, &at), &[]);
            }
        }
        let fresh: Vec<&EventRow> = rows.events.iter().filter(|row| row.view.number > applied).collect();
        for some in fresh.chunks(EVENTS_PER_KEY) {
            let at = key(EVENTS, &[&some[0].view.number.to_be_bytes()]);
            batch.insert(at, encode_row(&some).map_err(garbled)?);
        }
        batch.insert(key(META, &[b"applied"]), &rows.upto.to_be_bytes());
        self.tree.apply_batch(batch)?;
        *self.counts() = counts;
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

    /// A job that has ended.
    pub fn job(&self, id: JobId) -> Result<Option<JobRow>, ViewError> {
        match self.tree.get(key(JOB_ID, &[&id.0]))? {
            Some(number) => self.row(number_at_end(&number)?),
            None => Ok(None),
        }
    }

    fn row(&self, number: u64) -> Result<Option<JobRow>, ViewError> {
        let row = self.tree.get(key(JOB, &[&number.to_be_bytes()]))?;
        row.map(|bytes| self.decoded(&bytes)).transpose()
    }

    /// A row from its bytes. Where they are garbled the view no longer says what it is of, so that the next start makes it anew.
    fn decoded<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, ViewError> {
        decode_row(bytes).map_err(|why| match self.tree.remove(key(META, &[b"made by"])) {
            Ok(_) => garbled(why),
            Err(error) => error.into(),
        })
    }

    /// Numbers of the jobs of this name, of all accounts or of one, newest first, at most `max`.
    pub fn named(&self, account: Option<&AccountId>, name: &str, max: usize) -> Result<Vec<JobId>, ViewError> {
        let mut found = Vec::new();
        for row in self.tree.scan_prefix(key(NAMED, &[name.as_bytes(), &[0]])).rev().take(ROWS_PER_QUESTION) {
            let (key, of) = row?;
            if account.is_none_or(|account| of == account.as_str().as_bytes())
                && let Some(row) = self.row(number_at_end(&key)?)?
            {
                found.push(row.view.id);
                if found.len() == max {
                    break;
                }
            }
        }
        Ok(found)
    }

    /// Jobs between two ids, both included, of all accounts or of one, at most `max`.
    pub fn between(
        &self,
        account: Option<&AccountId>,
        (first, last): (JobId, JobId),
        max: usize,
    ) -> Result<Vec<JobId>, ViewError> {
        let mut found = Vec::new();
        for row in self.tree.range(key(JOB_ID, &[&first.0])..=key(JOB_ID, &[&last.0])).take(ROWS_PER_QUESTION) {
            let (_, number) = row?;
            let Some(row) = self.row(number_at_end(&number)?)? else { continue };
            if account.is_none_or(|account| row.view.account == *account) {
                found.push(row.view.id);
                if found.len() == max {
                    break;
                }
            }
        }
        Ok(found)
    }

    /// A page of ended jobs.
    pub fn jobs(&self, wanted: &Wanted) -> Result<JobsFound, ViewError> {
        if wanted.labels.is_empty() && wanted.prefix.is_empty() && wanted.since.is_none() {
            let mut found = self.page(wanted, self.ages(wanted, wanted.below)?, false, false)?;
            found.total = self.counted(wanted);
            return Ok(found);
        }
        // How many there are in all does not depend on where the page begins.
        let everything = Wanted { below: u64::MAX, ..wanted.clone() };
        let first = wanted.below == u64::MAX;
        let mut found = self.page(wanted, self.ages(&everything, u64::MAX)?, true, first)?;
        if found.items.is_empty() && found.more {
            let total = found.total;
            found = self.page(wanted, self.ages(wanted, wanted.below)?, true, true)?;
            found.total += total;
        }
        // Nobody can go on after nothing.
        found.more &= !found.items.is_empty();
        Ok(found)
    }

    /// Numbers of the jobs whose name begins with what is wanted, newest first. `None` if they are very many, or if ids may begin
    /// so too: then a walk over all jobs finds some soon.
    fn begins(&self, wanted: &Wanted, below: u64) -> Result<Option<Vec<u64>>, ViewError> {
        if wanted.prefix.starts_with("j-") || "j-".starts_with(&wanted.prefix) {
            return Ok(None);
        }
        let mut numbers = BTreeSet::new();
        for found in self.tree.scan_prefix(key(NAMED, &[wanted.prefix.as_bytes()])).keys().take(ROWS_PER_QUESTION) {
            numbers.insert(number_at_end(&found?)?);
        }
        let few = numbers.len() < ROWS_PER_QUESTION;
        Ok(few.then(|| numbers.into_iter().rev().filter(|number| *number < below).collect()))
    }

    fn counted(&self, wanted: &Wanted) -> u64 {
        let counts = self.counts();
        let states: Vec<u8> = wanted.states.iter().copied().map(state_code).collect();
        let of = |(account, state): &(AccountId, u8)| {
            wanted.account.as_ref().is_none_or(|wanted| wanted == account)
                && (states.is_empty() || states.contains(state))
        };
        counts.iter().filter(|(key, _)| of(key)).map(|(_, count)| count).sum()
    }

    /// The index that leaves least to look at.
    fn ages(&self, wanted: &Wanted, below: u64) -> Result<Ages<'_>, ViewError> {
        if let Some(numbers) = self.begins(wanted, below)? {
            return Ages::of(&self.tree, numbers);
        }
        let prefixes = if let Some((label, value)) = wanted.labels.first() {
            vec![key(LABELLED, &[label.as_bytes(), &[0], value.as_bytes(), &[0]])]
        } else if wanted.states.is_empty() {
            vec![match &wanted.account {
                Some(account) => account_key(OF_ACCOUNT, account, &[]),
                None => key(JOB, &[]),
            }]
        } else {
            // Each once, whatever the question says.
            let codes: BTreeSet<u8> = wanted.states.iter().copied().map(state_code).collect();
            let of = |code: u8| match &wanted.account {
                Some(account) => account_key(OF_ACCOUNT_AND_STATE, account, &[&[code]]),
                None => key(OF_STATE, &[&[code]]),
            };
            codes.into_iter().map(of).collect()
        };
        Ages::new(&self.tree, prefixes, below)
    }

    /// Walks an index; with `count` it goes on behind the page, as far as one question goes. With `patient` it goes further
    /// until it has found something.
    fn page(&self, wanted: &Wanted, mut ages: Ages<'_>, count: bool, patient: bool) -> Result<JobsFound, ViewError> {
        /// How far the calendar may have been set back between two jobs.
        const CALENDAR_SLACK_MS: i64 = 24 * 3600 * 1000;
        let (mut found, mut looked) = (JobsFound::default(), 0);
        while looked < ROWS_PER_QUESTION || (patient && found.items.is_empty()) {
            looked += 1;
            let Some(number) = ages.next()? else { return Ok(found) };
            let Some(row) = self.row(number)? else { continue };
            let made = row.view.created_at.0.saturating_add(CALENDAR_SLACK_MS);
            if wanted.since.is_some_and(|since| made < since.0) {
                return Ok(found); // nor does any older one
            }
            if !matches(&row, wanted) {
                continue;
            }
            found.total += 1;
            if row.number >= wanted.below {
                continue;
            }
            if found.items.len() < wanted.limit {
                found.items.push(row);
            } else {
                found.more = true;
                if !count {
                    return Ok(found);
                }
            }
        }
        found.more |= ages.next()?.is_some();
        Ok(found)
    }

    /// A page of a statement, newest first, and whether there is more.
    pub fn entries(
        &self,
        account: &AccountId,
        wanted: &EntriesWanted,
    ) -> Result<(Vec<LedgerEntryView>, bool), ViewError> {
        let below = wanted.below.unwrap_or(u64::MAX);
        let index = if wanted.kind == Some(LedgerKind::Deposit) { DEPOSIT } else { ENTRY };
        let mut keys: Box<dyn Iterator<Item = Result<Vec<u8>, ViewError>>> = match wanted.job {
            Some(job) => {
                let Some(row) = self.job(job)? else { return Ok((Vec::new(), false)) };
                let about = [row.finished, row.number].into_iter().filter(move |number| *number < below);
                Box::new(about.flat_map(|number| {
                    let prefix = account_key(ENTRY, account, &[&number.to_be_bytes()]);
                    self.tree.scan_prefix(prefix).keys().rev().map(|key| Ok(key?.to_vec()))
                }))
            }
            None => {
                let from = account_key(index, account, &[]);
                let to = account_key(index, account, &[&below.to_be_bytes()]);
                Box::new(self.tree.range(from..to).keys().rev().map(|key| Ok(key?.to_vec())))
            }
        };
        let mut items: Vec<LedgerEntryView> = Vec::new();
        for mut key in keys.by_ref().take(ROWS_PER_QUESTION) {
            let key = key.as_mut().map_err(|error| error.clone())?;
            key[0] = ENTRY;
            let Some(bytes) = self.tree.get(&*key)? else { continue };
            let entry: LedgerEntryView = self.decoded(&bytes)?;
            if wanted.kind.is_some_and(|kind| entry.kind != kind)
                || wanted.job.is_some_and(|job| entry.job != Some(job))
                || wanted.since.is_some_and(|since| entry.at < since)
            {
                continue;
            }
            if items.len() >= wanted.limit && items.last().is_some_and(|last| last.number != entry.number) {
                return Ok((items, true));
            }
            items.push(entry);
        }
        let more = keys.next().is_some();
        Ok((items, more))
    }

    /// Events after `after` up to `upto` that `takes` takes, at most `max`, and how far the answer goes.
    pub fn events(
        &self,
        after: u64,
        upto: u64,
        max: usize,
        takes: impl Fn(&EventRow) -> bool,
    ) -> Result<(Vec<EventView>, u64), ViewError> {
        let mut found = Vec::new();
        let first = after.saturating_add(1);
        let start = self.tree.get_lt(key(EVENTS, &[&first.saturating_add(1).to_be_bytes()]))?;
        let start = start.filter(|(at, _)| at[0] == EVENTS).map_or_else(|| key(EVENTS, &[]), |(at, _)| at.to_vec());
        let mut seen = after;
        for row in self.tree.range(start..=key(EVENTS, &[&upto.to_be_bytes()])).values().take(ROWS_PER_QUESTION) {
            let rows: Vec<EventRow> = self.decoded(&row?)?;
            for row in rows.into_iter().filter(|row| row.view.number >= first && row.view.number <= upto) {
                seen = row.view.number;
                if takes(&row) {
                    found.push(row.view);
                    if found.len() == max {
                        return Ok((found, seen));
                    }
                }
            }
        }
        Ok((found, seen))
    }
}

fn add_job(batch: &mut sled::Batch, row: &JobRow) -> Result<(), ViewError> {
    let JobView { id, name, account, state, labels, .. } = &row.view;
    let number = row.number.to_be_bytes();
    batch.insert(key(JOB, &[&number]), encode_row(row).map_err(garbled)?);
    batch.insert(key(JOB_ID, &[&id.0]), &number);
    batch.insert(account_key(OF_ACCOUNT, account, &[&number]), &[]);
    batch.insert(key(OF_STATE, &[&[state_code(*state)], &number]), &[]);
    batch.insert(account_key(OF_ACCOUNT_AND_STATE, account, &[&[state_code(*state)], &number]), &[]);
    batch.insert(key(NAMED, &[name.as_bytes(), &[0], &number]), account.as_str().as_bytes());
    for (label, value) in labels.iter() {
        let at = key(LABELLED, &[label.as_bytes(), &[0], value.as_bytes(), &[0], &number]);
        batch.insert(at, account.as_str().as_bytes());
    }
    Ok(())
}

fn matches(row: &JobRow, wanted: &Wanted) -> bool {
    let view = &row.view;
    let id_begins = || view.id.to_string().starts_with(&wanted.prefix);
    wanted.account.as_ref().is_none_or(|account| view.account == *account)
        && (wanted.states.is_empty() || wanted.states.contains(&view.state))
        && wanted.labels.iter().all(|(label, value)| view.labels.get(label) == Some(value))
        && (wanted.prefix.is_empty() || view.name.starts_with(&wanted.prefix) || id_begins())
        && wanted.since.is_none_or(|since| view.created_at >= since)
}

/// Where the view of a data directory is.
pub fn view_dir(data: &Path) -> PathBuf {
    data.join("view")
}
