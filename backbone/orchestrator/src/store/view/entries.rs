//! Statements.

use modchain_types::AccountId;
use modchain_wire::view::{LedgerEntryView, LedgerKind};

use super::rows::EntriesWanted;
use super::{DEPOSIT, ENTRY, ROWS_PER_QUESTION, View, ViewError, account_key};

impl View {
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
}
