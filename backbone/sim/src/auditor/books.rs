//! Who has how much.

use std::collections::BTreeMap;

use modchain_core::Settlement;
use modchain_types::{AccountId, JobId, Micro};

use super::{Breach, Rule, rule};

/// Every balance, in micro-units.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Books {
    /// Free money of each client.
    pub available: BTreeMap<AccountId, i128>,
    /// In escrow for each open job.
    pub held: BTreeMap<JobId, i128>,
    /// Earned by each owner.
    pub earnings: BTreeMap<AccountId, i128>,
    /// Earned by the platform.
    pub fees: i128,
    /// All that ever came in.
    pub deposited: i128,
}

impl Books {
    pub(super) fn deposit(&mut self, account: &AccountId, amount: Micro) {
        *self.available.entry(account.clone()).or_default() += i128::from(amount.0);
        self.deposited += i128::from(amount.0);
    }

    pub(super) fn hold(&mut self, account: &AccountId, job: JobId, amount: Micro) {
        *self.available.entry(account.clone()).or_default() -= i128::from(amount.0);
        *self.held.entry(job).or_default() += i128::from(amount.0);
    }

    pub(super) fn close(&mut self, account: &AccountId, job: JobId, settlement: &Settlement) {
        self.held.remove(&job);
        *self.available.entry(account.clone()).or_default() += i128::from(settlement.refund.0);
        self.fees += i128::from(settlement.fee.0);
        if let Some(owner) = &settlement.owner {
            *self.earnings.entry(owner.clone()).or_default() += i128::from(settlement.net.0);
        }
    }

    /// What a client may spend.
    pub fn free(&self, account: &AccountId) -> i128 {
        self.available.get(account).copied().unwrap_or(0)
    }

    /// Adds everything up.
    pub(super) fn check(&self) -> Result<(), Breach> {
        let accounts = self.available.iter().chain(&self.earnings);
        for (account, balance) in accounts {
            rule(Rule::NoOverdraft, *balance >= 0, || format!("{account} is at {balance}"))?;
        }
        let there = self.available.values().sum::<i128>()
            + self.held.values().sum::<i128>()
            + self.earnings.values().sum::<i128>()
            + self.fees;
        rule(Rule::MoneyConserved, there == self.deposited, || {
            format!("{} came in and {there} are there", self.deposited)
        })
    }
}
