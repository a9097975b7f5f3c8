//! Events.

use std::collections::VecDeque;

use modchain_types::WallTime;
use modchain_wire::view::EventView;

use super::rows::EventRow;
use super::{EVENTS, View, ViewError, key};

/// Keys that one question looks at, each with some dozens of events: who asks for more goes on where the answer ends.
const KEYS_PER_QUESTION: usize = 512;

impl View {
    /// Events after `after` up to `upto` that `takes` takes, at most `max`, and how far the answer goes. None that are dated before
    /// `since` are looked at, but for those where the calendar was set back.
    pub fn events(
        &self,
        after: u64,
        upto: u64,
        since: Option<WallTime>,
        max: usize,
        takes: impl Fn(&EventRow) -> bool,
    ) -> Result<(Vec<EventView>, u64), ViewError> {
        let after = match since {
            Some(since) => self.older_than(since, after, upto)?,
            None => after,
        };
        let mut found = Vec::new();
        let first = after.saturating_add(1);
        let mut seen = after;
        let keys = self.key_of(first)?..=key(EVENTS, &[&upto.to_be_bytes()]);
        for row in self.tree.range(keys).values().take(KEYS_PER_QUESTION) {
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

    /// The last events, in order, at most `max`.
    pub fn last_events(&self, max: usize) -> Result<Vec<EventRow>, ViewError> {
        let mut found = VecDeque::new();
        for rows in self.tree.scan_prefix([EVENTS]).values().rev() {
            let rows: Vec<EventRow> = self.decoded(&rows?)?;
            rows.into_iter().rev().for_each(|row| found.push_front(row));
            if found.len() >= max {
                break;
            }
        }
        Ok(found.split_off(found.len().saturating_sub(max)).into())
    }

    /// The key that an event is under.
    fn key_of(&self, number: u64) -> Result<Vec<u8>, ViewError> {
        let at = self.tree.get_lt(key(EVENTS, &[&number.saturating_add(1).to_be_bytes()]))?;
        Ok(at.filter(|(at, _)| at[0] == EVENTS).map_or_else(|| key(EVENTS, &[]), |(at, _)| at.to_vec()))
    }

    /// An event between two that is older than a moment, as are all before it; as late as can be told, or the first of the two.
    fn older_than(&self, since: WallTime, after: u64, upto: u64) -> Result<u64, ViewError> {
        let (mut older, mut end) = (after, upto);
        while older < end {
            let middle = older + (end - older).div_ceil(2);
            let rows = self.tree.get(self.key_of(middle)?)?;
            let rows: Vec<EventRow> = rows.map(|rows| self.decoded(&rows)).transpose()?.unwrap_or_default();
            match rows.iter().find(|row| row.view.number == middle) {
                Some(row) if self.none_before(row.view.at.0, since) => older = middle,
                _ => end = middle - 1,
            }
        }
        Ok(older)
    }
}
