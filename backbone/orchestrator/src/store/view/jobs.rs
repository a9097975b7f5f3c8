//! Ended jobs: one, those of a name, those between two ids, and pages of them.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use modchain_types::{AccountId, JobId, WallTime};
use modchain_wire::view::JobView;

use super::super::record::encode_row;
use super::blocks::{
    self, COLUMN_SPAN, Edits, ID_CHARS_KNOWN, Places, SPAN, Walk, block_of, column_of, columns_of, ids_that_begin,
};
use super::rows::{JobRow, JobsFound, Wanted};
use super::{
    ENDED, EVENTS_TOGETHER, JOB, JOB_ID, LABELLED, MOMENTS, NAMED, NAMES, OF_ACCOUNT, OF_STATE, View, ViewError,
    account_key, garbled, key, number_at_end, state_code,
};

/// Blocks that a question goes through only to count: those of some ten million jobs. What is on a page is looked for in all.
const BLOCKS_COUNTED: u64 = 2_048;

/// Jobs whose id begins as it is asked for.
enum Ids {
    /// Whatever their names.
    Any,
    /// Those whose id has a beginning between these two.
    Within(u32, u32),
    /// These, by number.
    These(BTreeSet<u64>),
}

/// A question, as the blocks answer it.
struct Search<'a> {
    wanted: &'a Wanted,
    /// A job belongs to one set of each group. The sets of the first are walked along.
    groups: Vec<Vec<Vec<u8>>>,
    ids: Ids,
    /// Whether there is a name that begins as it is asked for.
    named: bool,
    /// Events none of which is dated before the moment that is asked for, as far as that is known without looking at each.
    young: RangeInclusive<u64>,
}

impl View {
    /// A job that has ended.
    pub fn job(&self, id: JobId) -> Result<Option<JobRow>, ViewError> {
        match self.tree.get(key(JOB_ID, &[&id.0]))? {
            Some(of) => self.row(number_at_start(&of)?),
            None => Ok(None),
        }
    }

    pub(super) fn row(&self, number: u64) -> Result<Option<JobRow>, ViewError> {
        let row = self.tree.get(key(JOB, &[&number.to_be_bytes()]))?;
        row.map(|bytes| self.decoded(&bytes)).transpose()
    }

    /// The row of a job that is to be forgotten; `None` if it is not here.
    pub(super) fn row_to_forget(&self, id: JobId) -> Result<Option<JobRow>, ViewError> {
        let Some(of) = self.tree.get(key(JOB_ID, &[&id.0]))? else { return Ok(None) };
        let number = number_at_start(&of)?;
        self.row(number)?.map_or_else(|| Err(garbled(format!("job {number} is in no row"))), |row| Ok(Some(row)))
    }

    /// The jobs of this name, of all accounts or of one, newest first, at most `max`.
    pub fn named(&self, account: Option<&AccountId>, name: &str, max: usize) -> Result<Vec<JobId>, ViewError> {
        let accounts: BTreeSet<AccountId> = match account {
            Some(account) => BTreeSet::from([account.clone()]),
            None => self.known().counts.keys().map(|(account, _)| account.clone()).collect(),
        };
        let mut found = Vec::new();
        for account in accounts {
            for row in self.tree.scan_prefix(named_key(name, &account, &[])).rev().take(max) {
                let (key, id) = row?;
                let id = id.as_ref().try_into().map_err(|_| garbled("an id is garbled".into()))?;
                found.push((number_at_end(&key)?, JobId(id)));
            }
        }
        found.sort_unstable_by(|one, other| other.cmp(one));
        Ok(found.into_iter().map(|(_, id)| id).take(max).collect())
    }

    /// Jobs between two ids, both included, of all accounts or of one, at most `max`.
    pub fn between(
        &self,
        account: Option<&AccountId>,
        (first, last): (JobId, JobId),
        max: usize,
    ) -> Result<Vec<JobId>, ViewError> {
        let mut found = Vec::new();
        for row in self.tree.range(key(JOB_ID, &[&first.0])..=key(JOB_ID, &[&last.0])) {
            let (key, of) = row?;
            if account.is_none_or(|account| of.get(8..) == Some(account.as_str().as_bytes())) {
                let id = key[1..].try_into().map_err(|_| garbled("an id is garbled".into()))?;
                found.push(JobId(id));
                if found.len() == max {
                    break;
                }
            }
        }
        Ok(found)
    }

    /// The last jobs of an account to end, at most `max`, the last first.
    pub fn last_ended(&self, account: &AccountId, max: usize) -> Result<Vec<JobRow>, ViewError> {
        let mut found = Vec::new();
        for ended in self.tree.scan_prefix(account_key(ENDED, account, &[])).values().rev() {
            let mut ended = self.checked(blocks::ended(&ended?))?;
            ended.sort_unstable();
            for (_, number) in ended.into_iter().rev().take(max - found.len()) {
                found.extend(self.row(number)?);
            }
            if found.len() >= max {
                break;
            }
        }
        Ok(found)
    }

    /// A page of ended jobs. It reads the rows of those on the page and of no other, and goes through the blocks as far as it must
    /// to fill the page and to know whether there are more; then on to count them, if they are not counted already. What is
    /// written meanwhile is seen or not, block by block; a job that is forgotten meanwhile is not on the page.
    pub fn jobs(&self, wanted: &Wanted) -> Result<JobsFound, ViewError> {
        let mut found = JobsFound::default();
        let search = self.search(wanted)?;
        let counted = wanted.labels.is_empty() && wanted.prefix.is_empty() && wanted.since.is_none();
        let page_from = block_of(wanted.below.saturating_sub(1));
        let mut counting = !counted;
        let mut walk = self.walk(&search, if counting { u64::MAX } else { page_from })?;
        while let Some((block, values)) = walk.next()? {
            found.blocks += 1;
            let (places, past) = self.places(&search, block, &values)?;
            if counting {
                found.total += places.len();
            }
            if block <= page_from && !found.more {
                self.fill(&mut found, places.numbers(block), wanted)?;
            }
            if past || (found.more && !counting) {
                break;
            }
            if counting && found.blocks >= BLOCKS_COUNTED {
                counting = false;
                if found.more {
                    break;
                }
                if block > page_from {
                    walk = self.walk(&search, page_from)?;
                }
            }
        }
        if counted {
            found.total = self.counted(wanted);
        }
        Ok(found)
    }

    /// Puts jobs on the page until it is full.
    fn fill(
        &self,
        found: &mut JobsFound,
        numbers: impl Iterator<Item = u64>,
        wanted: &Wanted,
    ) -> Result<(), ViewError> {
        for number in numbers.filter(|number| *number < wanted.below) {
            if found.items.len() >= wanted.limit.max(1) {
                found.more = true;
                break;
            }
            match self.row(number)? {
                Some(row) => found.items.push(row),
                None => self.checked(self.was_forgotten(number))?,
            }
        }
        Ok(())
    }

    /// A job that had no row when it was looked for was forgotten after its block was read, with all that was known of it; if
    /// its column has it even now, its row is lost.
    fn was_forgotten(&self, number: u64) -> Result<(), ViewError> {
        let column = self.tree.get(key(MOMENTS, &[&column_of(number).to_be_bytes()]))?.unwrap_or_default();
        let (places, _) = blocks::places_of_moments(&column, |_, _| true)?;
        if places.has(number) { Err(garbled(format!("job {number} is in no row"))) } else { Ok(()) }
    }

    /// The question in terms of blocks.
    fn search<'a>(&self, wanted: &'a Wanted) -> Result<Search<'a>, ViewError> {
        let mut groups = Vec::new();
        groups.extend(wanted.account.as_ref().map(|account| vec![account_key(OF_ACCOUNT, account, &[])]));
        groups.extend(wanted.labels.iter().map(|(label, value)| vec![label_key(label, value, &[])]));
        // Each once, whatever the question says.
        let mut codes: BTreeSet<u8> = wanted.states.iter().copied().map(state_code).collect();
        if codes.is_empty() && groups.is_empty() {
            codes = self.known().counts.keys().map(|(_, state)| *state).collect();
        }
        if !codes.is_empty() {
            groups.push(codes.into_iter().map(|code| key(OF_STATE, &[&[code]])).collect());
        }
        let ids = self.ids(&wanted.prefix)?;
        let named =
            !wanted.prefix.is_empty() && self.tree.scan_prefix(name_key(&wanted.prefix)).next().transpose()?.is_some();
        if !named && matches!(&ids, Ids::These(numbers) if numbers.is_empty()) {
            groups.clear(); // there is no such job
        }
        let young = wanted.since.map_or(Ok(0..=u64::MAX), |since| self.young(since))?;
        Ok(Search { wanted, groups, ids, named, young })
    }

    /// Jobs whose id begins so.
    fn ids(&self, prefix: &str) -> Result<Ids, ViewError> {
        let (first, last) = match ids_that_begin(prefix) {
            _ if prefix.is_empty() => return Ok(Ids::Any),
            None => return Ok(Ids::These(BTreeSet::new())),
            Some((0, u128::MAX)) => return Ok(Ids::Any),
            Some(range) => range,
        };
        // Ids are made by a hash: each beginning is as frequent as any other; the first character has three bits, the others five.
        // Few are looked up, for many the columns are read; a column costs as much as some look-ups.
        let kept: u64 = self.known().counts.values().sum();
        let (columns, chars) = (column_of(self.applied()) + 1, prefix.len() - "j-".len());
        if chars <= ID_CHARS_KNOWN && kept >> (5 * chars - 2) > 4 * columns {
            return Ok(Ids::Within((first >> 96) as u32, (last >> 96) as u32));
        }
        let ids = key(JOB_ID, &[&first.to_be_bytes()])..=key(JOB_ID, &[&last.to_be_bytes()]);
        let numbers = self.tree.range(ids).values().map(|of| number_at_start(&of?));
        Ok(Ids::These(numbers.collect::<Result<_, ViewError>>()?))
    }

    /// Events that cannot be dated before `since`: those after one that is dated so much later as the calendar was ever set
    /// back. What is written from now on is not among them.
    fn young(&self, since: WallTime) -> Result<RangeInclusive<u64>, ViewError> {
        let applied = self.applied();
        let (mut young, mut from, mut to) = (u64::MAX, 0, column_of(applied) + 1);
        while from < to {
            let middle = from + (to - from) / 2;
            let column = self.tree.get_lt(key(MOMENTS, &[&(middle + 1).to_be_bytes()]))?;
            let Some((at, column)) = column.filter(|(at, _)| at[0] == MOMENTS) else {
                from = middle + 1;
                continue;
            };
            let mut latest = i64::MIN;
            self.checked(blocks::moments(&column, |_, moment, _| {
                latest = latest.max(moment);
                Ok(())
            }))?;
            if self.none_after(latest, since) {
                to = number_at_end(&at)?;
                young = (to + 1) * COLUMN_SPAN;
            } else {
                from = middle + 1;
            }
        }
        Ok(young..=applied)
    }

    fn walk(&self, search: &Search<'_>, newest: u64) -> Result<Walk<'_>, ViewError> {
        Walk::new(&self.tree, search.groups.first().map_or(&[][..], |prefixes| &prefixes[..]), newest)
    }

    /// The columns of a block.
    fn columns(&self, kind: u8, block: u64) -> impl Iterator<Item = sled::Result<sled::IVec>> {
        let (first, last) = columns_of(block);
        self.tree.range(key(kind, &[&first.to_be_bytes()])..=key(kind, &[&last.to_be_bytes()])).values()
    }

    /// Where in a block jobs are that are asked for, and whether all older ones are too old. `values` is what the walk found.
    fn places(&self, search: &Search<'_>, block: u64, values: &[sled::IVec]) -> Result<(Places, bool), ViewError> {
        let Search { wanted, groups, ids, named, young } = search;
        let mut places = Places::NONE;
        for value in values {
            places.join(&self.checked(Places::decode(value))?);
        }
        let (first, last) = (block * SPAN, block * SPAN + (SPAN - 1));
        let mut past = false;
        if let Some(since) = wanted.since
            && !(young.contains(&first) && young.contains(&last))
        {
            let mut of_moments = Places::NONE;
            for column in self.columns(MOMENTS, block) {
                let (some, earliest) = self.checked(blocks::places_of_moments(&column?, |at, _| at >= since.0))?;
                of_moments.join(&some);
                past |= earliest.is_some_and(|earliest| self.none_before(earliest, since));
            }
            places.meet(&of_moments);
        }
        for group in groups.iter().skip(1) {
            if places.is_empty() {
                return Ok((places, past));
            }
            let mut of_group = Places::NONE;
            for prefix in group {
                if let Some(value) = self.tree.get([&prefix[..], &block.to_be_bytes()].concat())? {
                    of_group.join(&self.checked(Places::decode(&value))?);
                }
            }
            places.meet(&of_group);
        }
        let mut begin_so = Places::NONE;
        match ids {
            _ if places.is_empty() => return Ok((places, past)),
            Ids::Any => return Ok((places, past)),
            Ids::These(numbers) => numbers.range(first..=last).for_each(|number| begin_so.add(*number)),
            Ids::Within(first, last) => {
                for column in self.columns(MOMENTS, block) {
                    let within = |_, id| *first <= id && id <= *last;
                    begin_so.join(&self.checked(blocks::places_of_moments(&column?, within))?.0);
                }
            }
        }
        if *named {
            for column in self.columns(NAMES, block) {
                self.checked(blocks::add_places_of_names(&mut begin_so, &column?, &wanted.prefix))?;
            }
        }
        places.meet(&begin_so);
        Ok((places, past))
    }

    fn counted(&self, wanted: &Wanted) -> u64 {
        let known = self.known();
        let states: Vec<u8> = wanted.states.iter().copied().map(state_code).collect();
        let of = |(account, state): &(AccountId, u8)| {
            wanted.account.as_ref().is_none_or(|wanted| wanted == account)
                && (states.is_empty() || states.contains(state))
        };
        known.counts.iter().filter(|(key, _)| of(key)).map(|(_, count)| count).sum()
    }
}

/// The number that an id leads to.
fn number_at_start(of: &[u8]) -> Result<u64, ViewError> {
    let bytes = of.first_chunk::<8>().ok_or_else(|| garbled("an id leads nowhere".into()))?;
    Ok(u64::from_be_bytes(*bytes))
}

/// With its length before it, because any character may be in it.
fn measured(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
}

/// What all keys of names begin with that begin so. Every other name ends before the next part of the key.
fn name_key(prefix: &str) -> Vec<u8> {
    let mut at = vec![NAMED];
    for byte in prefix.bytes() {
        at.push(byte);
        if byte == 0 {
            at.push(0xff);
        }
    }
    at
}

fn named_key(name: &str, account: &AccountId, number: &[u8]) -> Vec<u8> {
    [&name_key(name)[..], &[0, 0], account.as_str().as_bytes(), &[0], number].concat()
}

fn label_key(label: &str, value: &str, block: &[u8]) -> Vec<u8> {
    key(LABELLED, &[&measured(label), &measured(value), block])
}

fn ended_key(row: &JobRow) -> Vec<u8> {
    account_key(ENDED, &row.view.account, &[&(row.finished / EVENTS_TOGETHER).to_be_bytes()])
}

/// The keys of the sets that a job belongs to.
fn sets_of(row: &JobRow) -> Vec<Vec<u8>> {
    let JobView { account, state, labels, .. } = &row.view;
    let block = block_of(row.number).to_be_bytes();
    let mut sets = vec![account_key(OF_ACCOUNT, account, &[&block]), key(OF_STATE, &[&[state_code(*state)], &block])];
    sets.extend(labels.iter().map(|(label, value)| label_key(label, value, &block)));
    sets
}

pub(super) fn add_job(batch: &mut sled::Batch, edits: &mut Edits<'_>, row: &JobRow) -> Result<(), ViewError> {
    let JobView { id, name, account, created_at, .. } = &row.view;
    let (number, column) = (row.number.to_be_bytes(), column_of(row.number).to_be_bytes());
    batch.insert(key(JOB, &[&number]), encode_row(row).map_err(garbled)?);
    batch.insert(key(JOB_ID, &[&id.0]), [&number[..], account.as_str().as_bytes()].concat());
    batch.insert(named_key(name, account, &number), &id.0);
    blocks::add_ended(edits.column(ended_key(row))?, row.finished, row.number);
    for set in sets_of(row) {
        edits.set(set)?.add(row.number);
    }
    blocks::add_moment(edits.column(key(MOMENTS, &[&column]))?, row.number, created_at.0, *id);
    blocks::add_name(edits.column(key(NAMES, &[&column]))?, row.number, name)
}

/// Takes out all that [`add_job`] put in.
pub(super) fn remove_job(batch: &mut sled::Batch, edits: &mut Edits<'_>, row: &JobRow) -> Result<(), ViewError> {
    let JobView { id, name, account, .. } = &row.view;
    let (number, column) = (row.number.to_be_bytes(), column_of(row.number).to_be_bytes());
    batch.remove(key(JOB, &[&number]));
    batch.remove(key(JOB_ID, &[&id.0]));
    batch.remove(named_key(name, account, &number));
    blocks::remove_ended(edits.column(ended_key(row))?, row.number);
    for set in sets_of(row) {
        edits.set(set)?.remove(row.number);
    }
    blocks::remove_moment(edits.column(key(MOMENTS, &[&column]))?, row.number);
    blocks::remove_name(edits.column(key(NAMES, &[&column]))?, row.number, name)
}
