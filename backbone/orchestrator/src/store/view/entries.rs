//! Statements.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use modchain_types::AccountId;
use modchain_wire::view::{LedgerEntryView, LedgerKind};

use super::super::record::encode_row;
use super::blocks::{Edits, Places, Walk, block_of};
use super::rows::EntriesWanted;
use super::{ENTRY, ENTRY_OF_KIND, EVENTS_TOGETHER, View, ViewError, account_key, garbled};

/// What is under the keys of entries, newest first.
type Found<'a> = Box<dyn Iterator<Item = Result<sled::IVec, ViewError>> + 'a>;

fn entries_key(account: &AccountId, number: u64) -> Vec<u8> {
    account_key(ENTRY, account, &[&(number / EVENTS_TOGETHER).to_be_bytes()])
}

impl View {
    /// A page of a statement, newest first, and whether there is more. It looks at the entries on it and at one more; with a
    /// moment, also at those that are dated before it because the calendar was set back.
    pub fn entries(
        &self,
        account: &AccountId,
        wanted: &EntriesWanted,
    ) -> Result<(Vec<LedgerEntryView>, bool), ViewError> {
        let Some(newest) = wanted.below.unwrap_or(u64::MAX).checked_sub(1) else { return Ok((Vec::new(), false)) };
        let under = move |number: u64| self.tree.get(entries_key(account, number)).map_err(ViewError::from).transpose();
        let found: Found<'_> = match (wanted.job, wanted.kind) {
            (Some(job), _) => {
                let ended = self.job(job)?.map(|row| (row.finished, row.number));
                let mut about = ended.map_or([wanted.made, None], |(finished, number)| [Some(finished), Some(number)]);
                if let [Some(finished), Some(number)] = about
                    && finished / EVENTS_TOGETHER == number / EVENTS_TOGETHER
                {
                    about = [Some(finished), None];
                }
                Box::new(about.into_iter().flatten().filter_map(under))
            }
            (None, None) => {
                let range = account_key(ENTRY, account, &[])..=entries_key(account, newest);
                Box::new(self.tree.range(range).values().rev().map(|bytes| Ok(bytes?)))
            }
            (None, Some(kind)) => {
                let mut before = None;
                let numbers = self.entries_of_kind(account, kind, newest)?.filter(move |number| {
                    let together = number.as_ref().ok().map(|number| number / EVENTS_TOGETHER);
                    together.is_none() || before.replace(together) != Some(together)
                });
                Box::new(numbers.filter_map(move |number| number.map_or_else(|error| Some(Err(error)), under)))
            }
        };
        let mut items: Vec<LedgerEntryView> = Vec::new();
        for bytes in found {
            let entries: Vec<LedgerEntryView> = self.decoded(&bytes?)?;
            for entry in entries.into_iter().rev().filter(|entry| entry.number <= newest) {
                if let Some(since) = wanted.since
                    && entry.at < since
                {
                    if self.none_before(entry.at.0, since) {
                        return Ok((items, false));
                    }
                    continue;
                }
                if wanted.kind.is_some_and(|kind| entry.kind != kind)
                    || wanted.job.is_some_and(|job| entry.job != Some(job))
                {
                    continue;
                }
                if items.len() >= wanted.limit && items.last().is_some_and(|last| last.number != entry.number) {
                    return Ok((items, true));
                }
                items.push(entry);
            }
        }
        Ok((items, false))
    }

    /// Numbers of the events up to `newest` that led to an entry of this kind, newest first.
    fn entries_of_kind(
        &self,
        account: &AccountId,
        kind: LedgerKind,
        newest: u64,
    ) -> Result<impl Iterator<Item = Result<u64, ViewError>>, ViewError> {
        let sets = account_key(ENTRY_OF_KIND, account, &[&[kind_code(kind)]]);
        let mut walk = Walk::new(&self.tree, &[sets], block_of(newest))?;
        let mut numbers = Vec::new().into_iter();
        Ok(std::iter::from_fn(move || {
            loop {
                if let Some(number) = numbers.next() {
                    return Some(Ok(number));
                }
                match self.next_places(&mut walk).transpose()? {
                    Ok((block, places)) => {
                        let of_block: Vec<u64> = places.numbers(block).filter(|number| *number <= newest).collect();
                        numbers = of_block.into_iter();
                    }
                    Err(error) => return Some(Err(error)),
                }
            }
        }))
    }

    fn next_places(&self, walk: &mut Walk<'_>) -> Result<Option<(u64, Places)>, ViewError> {
        let Some((block, values)) = walk.next()? else { return Ok(None) };
        let mut places = Places::NONE;
        for value in values {
            places.join(&self.checked(Places::decode(&value))?);
        }
        Ok(Some((block, places)))
    }
}

fn kind_code(kind: LedgerKind) -> u8 {
    kind as u8
}

impl View {
    /// Adds entries, which are in order and later than those that are there.
    pub(super) fn add_entries<'a>(
        &self,
        batch: &mut sled::Batch,
        edits: &mut Edits<'_>,
        entries: impl Iterator<Item = &'a (AccountId, LedgerEntryView)>,
    ) -> Result<(), ViewError> {
        let mut together: BTreeMap<Vec<u8>, Vec<LedgerEntryView>> = BTreeMap::new();
        for (account, entry) in entries {
            let of_kind = [&[kind_code(entry.kind)][..], &block_of(entry.number).to_be_bytes()].concat();
            edits.set(account_key(ENTRY_OF_KIND, account, &[&of_kind]))?.add(entry.number);
            let of_account = match together.entry(entries_key(account, entry.number)) {
                Entry::Occupied(there) => there.into_mut(),
                Entry::Vacant(place) => {
                    let there = self.tree.get(place.key())?.map(|bytes| self.decoded(&bytes)).transpose()?;
                    place.insert(there.unwrap_or_default())
                }
            };
            of_account.push(entry.clone());
        }
        for (at, entries) in together {
            batch.insert(at, encode_row(&entries).map_err(garbled)?);
        }
        Ok(())
    }
}
