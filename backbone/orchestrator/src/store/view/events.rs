//! Events.

use modchain_wire::view::EventView;

use super::rows::EventRow;
use super::{EVENTS, ROWS_PER_QUESTION, View, ViewError, key};

impl View {
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
