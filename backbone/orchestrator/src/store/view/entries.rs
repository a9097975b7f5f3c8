//! Statements.

use std::collections::BTreeMap;

use modchain_types::AccountId;
use modchain_wire::view::{LedgerEntryView, LedgerKind};

use super::super::record::encode_row;
use super::blocks::{Edits, Places, Walk, block_of};
use super::rows::EntriesWanted;
use super::{ENTRY, ENTRY_OF_KIND, View, ViewError, account_key, garbled};

/// What is under the keys of entries, newest first.
type Found<'a> = Box<dyn Iterator<Item = Result<sled::IVec, ViewError>> + 'a>;

impl View {
    /// A page of a statement, newest first, and whether there is more. It looks at the entries on it and at one more; with a
    /// moment, also at those that are dated before it because the calendar was set back.
    pub fn entries(
        &self,
        account: &AccountId,
        wanted: &EntriesWanted,
    ) -> Result<(Vec<LedgerEntryView>, bool), ViewError> {
        let below = wanted.below.unwrap_or(u64::MAX);
        let under = move |number: u64| account_key(ENTRY, account, &[&number.to_be_bytes()]);
        let found: Found<'_> = match (wanted.job, wanted.kind) {
            (Some(job), _) => {
                let ended = self.job(job)?.map(|row| (row.finished, row.number));
                let about = ended.map_or([wanted.made, None], |(finished, number)| [Some(finished), Some(number)]);
                let about = about.into_iter().flatten().filter(move |number| *number < below);
                Box::new(
                    about.filter_map(move |number| self.tree.get(under(number)).map_err(ViewError::from).transpose()),
                )
            }
            (None, None) => {
                let range = account_key(ENTRY, account, &[])..under(below);
                Box::new(self.tree.range(range).values().rev().map(|bytes| Ok(bytes?)))
            }
            (None, Some(kind)) => {
                let numbers = self.entries_of_kind(account, kind, below)?;
                Box::new(
                    numbers.filter_map(move |number| {
                        number.and_then(|number| Ok(self.tree.get(under(number))?)).transpose()
                    }),
                )
            }
        };
        let mut items: Vec<LedgerEntryView> = Vec::new();
        for bytes in found {
            let entries: Vec<LedgerEntryView> = self.decoded(&bytes?)?;
            for entry in entries.into_iter().rev() {
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

    /// Numbers of the events before `below` that led to an entry of this kind, newest first.
    fn entries_of_kind(
        &self,
        account: &AccountId,
        kind: LedgerKind,
        below: u64,
    ) -> Result<impl Iterator<Item = Result<u64, ViewError>>, ViewError> {
        let newest = block_of(below.saturating_sub(1));
        let mut walk = Walk::new(&self.tree, &[account_key(ENTRY_OF_KIND, account, &[&[kind_code(kind)]])], newest)?;
        let mut numbers = Vec::new().into_iter();
        Ok(std::iter::from_fn(move || {
            loop {
                if let Some(number) = numbers.next() {
                    return Some(Ok(number));
                }
                match self.next_places(&mut walk).transpose()? {
                    Ok((block, places)) => {
                        let of_block: Vec<u64> = places.numbers(block).filter(|number| *number < below).collect();
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

/// Adds entries, which are in order.
pub(super) fn add_entries<'a>(
    batch: &mut sled::Batch,
    edits: &mut Edits<'_>,
    entries: impl Iterator<Item = &'a (AccountId, LedgerEntryView)>,
) -> Result<(), ViewError> {
    let mut together: BTreeMap<(u64, &AccountId), Vec<&LedgerEntryView>> = BTreeMap::new();
    for (account, entry) in entries {
        together.entry((entry.number, account)).or_default().push(entry);
        let of_kind =
            account_key(ENTRY_OF_KIND, account, &[&[kind_code(entry.kind)], &block_of(entry.number).to_be_bytes()]);
        edits.set(of_kind)?.add(entry.number);
    }
    for ((number, account), entries) in together {
        batch.insert(account_key(ENTRY, account, &[&number.to_be_bytes()]), encode_row(&entries).map_err(garbled)?);
    }
    Ok(())
}
