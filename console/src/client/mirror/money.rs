//! What was spent, from the statement.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use modchain_types::{JobId, Micro, WallTime};
use modchain_wire::view::LedgerKind;

use super::Mirror;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// What was spent on jobs that have ended. As complete as the statement that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Spending {
    /// In each of the last 24 hours; the last one is not over.
    pub(crate) hours: [Micro; 24],
    /// Since the beginning of the day.
    pub(crate) today: Micro,
    /// In the last 7 days.
    pub(crate) week: Micro,
    /// In the last 30 days.
    pub(crate) month: Micro,
}

/// The beginning of the day of `now`: of the local one, or of UTC's.
pub(crate) fn midnight(now: WallTime, utc: bool) -> WallTime {
    let zone = if utc { TimeZone::UTC } else { TimeZone::system() };
    let moment = jiff::Timestamp::from_millisecond(now.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_zoned(zone);
    WallTime(moment.start_of_day().map_or(now.0, |start| start.timestamp().as_millisecond()))
}

impl Mirror {
    /// What was spent up to `now`, with `midnight` the beginning of the day, both by the orchestrator's clock. Looks at the whole
    /// statement: ask again when [`Mirror::ledger_revision`] or the hour has changed.
    pub(crate) fn spending(&self, now: WallTime, midnight: WallTime) -> Spending {
        let mut spending = Spending::default();
        for (at, cost) in self.costs() {
            let ago = now.0.saturating_sub(at.0).max(0);
            let add = |sum: &mut Micro| *sum = Micro(sum.0.saturating_add(cost.0));
            if at >= midnight {
                add(&mut spending.today);
            }
            if ago < 7 * DAY_MS {
                add(&mut spending.week);
            }
            if ago < 30 * DAY_MS {
                add(&mut spending.month);
            }
            // Hours of the clock, so that a bar does not change once its hour is over.
            let hours_ago = now.0.div_euclid(HOUR_MS) - at.0.div_euclid(HOUR_MS);
            if let Some(hour) = usize::try_from(hours_ago.max(0)).ok().and_then(|ago| 23usize.checked_sub(ago)) {
                add(&mut spending.hours[hour]);
            }
        }
        spending
    }

    /// When each job was paid, and what it cost: the statement says what was held for it and what came back.
    fn costs(&self) -> Vec<(WallTime, Micro)> {
        let mut holds: BTreeMap<JobId, u64> = BTreeMap::new();
        let mut released: BTreeMap<u64, u64> = BTreeMap::new();
        let mut settled = Vec::new();
        for entry in &self.ledger {
            match (entry.kind, entry.job) {
                (LedgerKind::Hold, Some(job)) => drop(holds.insert(job, entry.amount.unsigned_abs())),
                (LedgerKind::Release, _) => drop(released.insert(entry.number, entry.amount.unsigned_abs())),
                (LedgerKind::Settle, Some(job)) => settled.push((entry.at, job, entry.number)),
                (LedgerKind::Hold | LedgerKind::Settle, None)
                | (LedgerKind::Deposit | LedgerKind::Earning | LedgerKind::Fee, _) => {}
            }
        }
        let cost = |(at, job, number)| {
            let by_statement =
                holds.get(&job).map(|hold| Micro(hold.saturating_sub(released.get(&number).copied().unwrap_or(0))));
            // The hold is older than the statement that is known.
            let by_job = || self.jobs.get(&job).filter(|job| job.state.is_ended()).map(|job| job.cost);
            Some((at, by_statement.or_else(by_job)?))
        };
        settled.into_iter().filter_map(cost).collect()
    }
}
