//! Ended jobs: one, those of a name, those between two ids, and pages of them.

use std::collections::BTreeSet;

use modchain_types::{AccountId, JobId};
use modchain_wire::view::JobView;

use super::super::record::encode_row;
use super::rows::{JobRow, JobsFound, Wanted};
use super::{
    JOB, JOB_ID, LABELLED, NAMED, OF_ACCOUNT, OF_ACCOUNT_AND_STATE, OF_STATE, ROWS_PER_QUESTION, View, ViewError,
    account_key, garbled, key, number_at_end, state_code,
};

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
}

pub(super) fn add_job(batch: &mut sled::Batch, row: &JobRow) -> Result<(), ViewError> {
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
