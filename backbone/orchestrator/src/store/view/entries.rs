//! Statements.

use modchain_types::AccountId;
use modchain_wire::view::{LedgerEntryView, LedgerKind};

use super::super::record::encode_row;
use super::rows::EntriesWanted;
use super::{ENTRY, ENTRY_OF_KIND, View, ViewError, account_key, garbled};

type Keys<'a> = Box<dyn Iterator<Item = Result<Vec<u8>, ViewError>> + 'a>;

impl View {
    /// A page of a statement, newest first, and whether there is more. It looks at the entries on it and at one more; with a
    /// moment, also at those that are dated before it because the calendar was set back.
    pub fn entries(
        &self,
        account: &AccountId,
        wanted: &EntriesWanted,
    ) -> Result<(Vec<LedgerEntryView>, bool), ViewError> {
        let below = wanted.below.unwrap_or(u64::MAX);
        let keys: Keys<'_> = match (wanted.job, wanted.kind) {
            (Some(job), _) => {
                let ended = self.job(job)?.map(|row| (row.finished, row.number));
                let about = ended.map_or([wanted.made, None], |(finished, number)| [Some(finished), Some(number)]);
                let about = about.into_iter().flatten().filter(move |number| *number < below);
                Box::new(about.flat_map(|number| {
                    let prefix = account_key(ENTRY, account, &[&number.to_be_bytes()]);
                    self.tree.scan_prefix(prefix).keys().rev().map(|key| Ok(key?.to_vec()))
                }))
            }
            (None, None) => {
                let range = account_key(ENTRY, account, &[])..account_key(ENTRY, account, &[&below.to_be_bytes()]);
                Box::new(self.tree.range(range).keys().rev().map(|key| Ok(key?.to_vec())))
            }
            (None, Some(kind)) => {
                let kind = [kind_code(kind)];
                let from = account_key(ENTRY_OF_KIND, account, &[&kind]);
                let to = account_key(ENTRY_OF_KIND, account, &[&kind, &below.to_be_bytes()]);
                let before = from.len();
                Box::new(self.tree.range(from..to).keys().rev().map(move |key| {
                    let key = key?;
                    let place = key.get(before..).ok_or_else(|| garbled("a key is too short".into()))?;
                    Ok(account_key(ENTRY, account, &[place]))
                }))
            }
        };
        let mut items: Vec<LedgerEntryView> = Vec::new();
        for key in keys {
            let Some(bytes) = self.tree.get(key?)? else { continue };
            let entry: LedgerEntryView = self.decoded(&bytes)?;
            if let Some(since) = wanted.since
                && entry.at < since
            {
                if self.none_before(entry.at.0, since) {
                    break;
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
        Ok((items, false))
    }
}

fn kind_code(kind: LedgerKind) -> u8 {
    kind as u8
}

/// Adds entries, which are in order.
pub(super) fn add_entries<'a>(
    batch: &mut sled::Batch,
    entries: impl Iterator<Item = &'a (AccountId, LedgerEntryView)>,
) -> Result<(), ViewError> {
    let (mut before, mut place) = (0, 0u8);
    for (account, entry) in entries {
        place = if entry.number == before { place + 1 } else { 0 };
        before = entry.number;
        let at = [&entry.number.to_be_bytes()[..], &[place]];
        batch.insert(account_key(ENTRY, account, &at), encode_row(entry).map_err(garbled)?);
        let of_kind = [&[kind_code(entry.kind)][..], at[0], at[1]];
        batch.insert(account_key(ENTRY_OF_KIND, account, &of_kind), &[]);
    }
    Ok(())
}
