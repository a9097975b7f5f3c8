//! The statement of one account: balances, and every entry that led to them.

use std::collections::VecDeque;

use modchain_core::Settlement;
use modchain_types::{JobId, Micro, Text, WallTime};
use modchain_wire::view::{LedgerEntryView, LedgerKind};

/// Balances and entries of one account. The ledger of `modchain-core` decides; this repeats its postings for people.
#[derive(Debug, Default)]
pub(super) struct Statement {
    pub(super) available: u64,
    pub(super) held: u64,
    /// By its nodes and, for the platform's account, fees.
    pub(super) earned: u64,
    /// Those that the view may not have yet, oldest first.
    pub(super) entries: VecDeque<LedgerEntryView>,
}

impl Statement {
    /// As they were behind the last of the events whose entries are elsewhere.
    pub(super) fn balances(&mut self, available: u64, held: u64, earned: u64) {
        (self.available, self.held, self.earned) = (available, held, earned);
    }

    pub(super) fn deposited(&mut self, number: u64, at: WallTime, amount: Micro, why: &str) {
        self.available = self.available.saturating_add(amount.0);
        self.enter(number, at, LedgerKind::Deposit, signed(amount), self.available, None, why.to_owned());
    }

    pub(super) fn held(&mut self, number: u64, at: WallTime, job: JobId, hold: Micro) {
        self.available = self.available.saturating_sub(hold.0);
        self.held = self.held.saturating_add(hold.0);
        let text = format!("held for {}", job.short());
        self.enter(number, at, LedgerKind::Hold, -signed(hold), self.available, Some(job), text);
    }

    /// Paying for a job does not change the available balance, which the hold lowered before; what comes back does.
    pub(super) fn closed(&mut self, number: u64, at: WallTime, job: JobId, hold: Micro, settlement: &Settlement) {
        self.held = self.held.saturating_sub(hold.0);
        if settlement.gross > Micro::ZERO {
            let text = format!("{} cost {} of {} held", job.short(), settlement.gross, hold);
            self.enter(number, at, LedgerKind::Settle, 0, self.available, Some(job), text);
        }
        if settlement.refund > Micro::ZERO || settlement.gross == Micro::ZERO {
            self.available = self.available.saturating_add(settlement.refund.0);
            let text = format!("came back from {}", job.short());
            self.enter(number, at, LedgerKind::Release, signed(settlement.refund), self.available, Some(job), text);
        }
    }

    /// The job is its client's business: an owner learns what was earned, not for whom.
    pub(super) fn earned(&mut self, number: u64, at: WallTime, net: Micro) {
        if net == Micro::ZERO {
            return;
        }
        self.earned = self.earned.saturating_add(net.0);
        let text = "earned by a node".to_owned();
        self.enter(number, at, LedgerKind::Earning, signed(net), self.earned, None, text);
    }

    pub(super) fn fee(&mut self, number: u64, at: WallTime, job: JobId, fee: Micro) {
        if fee == Micro::ZERO {
            return;
        }
        self.earned = self.earned.saturating_add(fee.0);
        let text = format!("fee of {}", job.short());
        self.enter(number, at, LedgerKind::Fee, signed(fee), self.earned, Some(job), text);
    }

    #[expect(clippy::too_many_arguments, reason = "one line of a statement has as many columns")]
    fn enter(
        &mut self,
        number: u64,
        at: WallTime,
        kind: LedgerKind,
        amount: i64,
        balance: u64,
        job: Option<JobId>,
        text: String,
    ) {
        let (balance, text) = (Micro(balance), Text::cut(text));
        self.entries.push_back(LedgerEntryView { number, at, kind, amount, balance, job, text });
    }

    /// Entries of an event, which are the last ones.
    pub(super) fn entries_of(&self, number: u64) -> impl Iterator<Item = &LedgerEntryView> {
        let first = self.entries.partition_point(|entry| entry.number < number);
        self.entries.range(first..)
    }

    /// Forgets the entries up to an event: the view has them.
    pub(super) fn forget(&mut self, upto: u64) {
        while self.entries.front().is_some_and(|entry| entry.number <= upto) {
            self.entries.pop_front();
        }
    }
}

/// Amounts are bounded far below the largest `i64`.
fn signed(amount: Micro) -> i64 {
    i64::try_from(amount.0).unwrap_or(i64::MAX)
}
