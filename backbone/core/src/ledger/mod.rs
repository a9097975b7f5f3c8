//! Money: double entry over a closed set of accounts. A transfer has two or more legs that sum to zero, and its id says what
//! it is for, so that a second one for the same thing cannot exist.
//!
//! ```text
//! custody --deposit--> available(account) --hold--> held(job) --close--> earnings(owner) + fees + available(account)
//! ```
//!
//! [`Ledger::check`] is asked before an event is written, [`Ledger::post`] changes the balances and may not refuse.

mod account;
mod hold;
mod transfer;

pub use account::Account;
pub use hold::{close, deposit, hold};
pub use transfer::{Leg, Transfer, TransferId};

use std::collections::{BTreeMap, BTreeSet};

use modchain_types::{AccountId, JobId, Micro, SubmitKey, Text};

use crate::audit::Breach;

/// Every balance, and the ids of the transfers that must not happen twice.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ledger {
    /// Accounts whose balance is zero are not kept.
    balances: BTreeMap<Account, i128>,
    /// Deposits ever made, with what they were: kept for ever.
    deposits: BTreeMap<(Text<32>, SubmitKey), (AccountId, Micro)>,
    /// Jobs whose hold was closed, for as long as they are remembered.
    closed: BTreeSet<JobId>,
}

impl Ledger {
    /// The balance of an account, in micro-units. Only custody is ever negative.
    pub fn balance(&self, account: &Account) -> i128 {
        self.balances.get(account).copied().unwrap_or(0)
    }

    /// What a client may spend.
    pub fn available(&self, account: &AccountId) -> Micro {
        micro(self.balance(&Account::Available(account.clone())))
    }

    /// What is held for a job.
    pub fn held(&self, job: JobId) -> Micro {
        micro(self.balance(&Account::Held(job)))
    }

    /// The deposit that was made under this key.
    pub fn deposit(&self, provider: &Text<32>, key: &SubmitKey) -> Option<&(AccountId, Micro)> {
        self.deposits.get(&(provider.clone(), key.clone()))
    }

    /// Whether the transfer keeps every rule. Ask before the event that causes it is written.
    pub fn check(&self, transfer: &Transfer) -> Result<(), Breach> {
        let breach = |what: String| Err(Breach { what });
        let sum: i128 = transfer.legs.iter().map(|leg| leg.amount).sum();
        if sum != 0 || transfer.legs.len() < 2 {
            return breach(format!("the legs of {:?} sum to {sum}", transfer.id));
        }
        let repeated = match &transfer.id {
            TransferId::Deposit(provider, key) => self.deposits.contains_key(&(provider.clone(), key.clone())),
            TransferId::Hold(job) => self.closed.contains(job) || self.balance(&Account::Held(*job)) != 0,
            TransferId::Close(job) => self.closed.contains(job),
        };
        if repeated {
            return breach(format!("{:?} would happen twice", transfer.id));
        }
        for leg in &transfer.legs {
            let after = self.balance(&leg.account) + leg.amount;
            if after < 0 && !leg.account.may_be_negative() {
                return breach(format!("{:?} would leave {:?} at {after}", transfer.id, leg.account));
            }
            if let (TransferId::Close(_), Account::Held(job)) = (&transfer.id, &leg.account)
                && after != 0
            {
                return breach(format!("closing {job} would leave {after} held"));
            }
        }
        Ok(())
    }

    /// Changes the balances. The transfer was checked when its event was decided.
    pub fn post(&mut self, transfer: Transfer) {
        match &transfer.id {
            TransferId::Deposit(provider, key) => {
                let to = transfer.legs.iter().find_map(|leg| match &leg.account {
                    Account::Available(account) => Some((account.clone(), micro(leg.amount))),
                    _ => None,
                });
                let to = to.expect("a deposit has a leg to an account");
                self.deposits.insert((provider.clone(), key.clone()), to);
            }
            TransferId::Hold(_) => {}
            TransferId::Close(job) => {
                self.closed.insert(*job);
            }
        }
        #[cfg(feature = "planted")]
        if crate::planted::is(crate::planted::Bug::NothingToGiveBack)
            && matches!(transfer.id, TransferId::Close(_))
            && transfer.legs.last().is_some_and(|refund| refund.amount == 0)
        {
            return;
        }
        for leg in transfer.legs {
            let balance = self.balances.entry(leg.account.clone()).or_insert(0);
            *balance += leg.amount;
            if *balance == 0 {
                self.balances.remove(&leg.account);
            }
        }
    }

    /// These jobs are not remembered any more. Nothing is held for them, so no balance changes; what the same key makes from
    /// here on is another job.
    pub(crate) fn forget(&mut self, jobs: &[JobId]) {
        for job in jobs {
            self.closed.remove(job);
        }
    }

    /// Jobs whose hold was closed and that are remembered, in order.
    pub(crate) fn closed(&self) -> impl Iterator<Item = &JobId> {
        self.closed.iter()
    }

    /// Every deposit that was ever made: provider and key, to whom, how much.
    pub fn deposits(&self) -> impl Iterator<Item = (Text<32>, SubmitKey, AccountId, Micro)> {
        let row = |((provider, key), (account, amount)): (&(Text<32>, SubmitKey), &(AccountId, Micro))| {
            (provider.clone(), key.clone(), account.clone(), *amount)
        };
        self.deposits.iter().map(row)
    }

    /// That of a snapshot.
    pub(crate) fn restore(
        balances: Vec<(Account, i128)>,
        deposits: Vec<(Text<32>, SubmitKey, AccountId, Micro)>,
        closed: BTreeSet<JobId>,
    ) -> Self {
        let deposits =
            deposits.into_iter().map(|(provider, key, account, amount)| ((provider, key), (account, amount)));
        Self { balances: balances.into_iter().collect(), deposits: deposits.collect(), closed }
    }

    /// Every account with a balance, in order.
    pub fn balances(&self) -> impl Iterator<Item = (&Account, i128)> {
        self.balances.iter().map(|(account, balance)| (account, *balance))
    }

    /// Checks that debits equal credits and that no account is below its floor.
    pub fn audit(&self) -> Result<(), Breach> {
        let sum: i128 = self.balances.values().sum();
        if sum != 0 {
            return Err(Breach { what: format!("all balances sum to {sum}") });
        }
        for (account, balance) in &self.balances {
            if *balance < 0 && !account.may_be_negative() {
                return Err(Breach { what: format!("{account:?} is at {balance}") });
            }
        }
        Ok(())
    }
}

/// A balance as an amount; a negative or absurd one shows as nothing, and the audit tells it.
fn micro(balance: i128) -> Micro {
    Micro(u64::try_from(balance).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Settlement;

    fn account(name: &str) -> AccountId {
        name.parse().expect("an account name")
    }

    fn funded(amount: u64) -> Ledger {
        let mut ledger = Ledger::default();
        let key = "k".parse().expect("a key");
        ledger.post(deposit(&Text::cut("credit"), &key, &account("alice"), Micro(amount)));
        ledger
    }

    fn settlement(gross: u64, fee: u64, refund: u64) -> Settlement {
        Settlement {
            gross: Micro(gross),
            fee: Micro(fee),
            net: Micro(gross - fee),
            refund: Micro(refund),
            owner: Some(account("owner")),
        }
    }

    #[test]
    fn a_job_moves_money_from_available_over_held_to_owner_fees_and_back() {
        let (alice, job) = (account("alice"), JobId([1; 16]));
        let mut ledger = funded(1_000);
        for transfer in [hold(job, &alice, Micro(600)), close(job, &alice, &settlement(400, 20, 200))] {
            ledger.check(&transfer).expect("keeps the rules");
            ledger.post(transfer);
            ledger.audit().expect("balanced");
        }
        assert_eq!(ledger.available(&alice), Micro(600));
        assert_eq!(ledger.held(job), Micro::ZERO);
        assert_eq!(ledger.balance(&Account::Earnings(account("owner"))), 380);
        assert_eq!(ledger.balance(&Account::Fees), 20);
        assert_eq!(ledger.balance(&Account::Custody), -1_000);
    }

    #[test]
    fn what_would_break_a_rule_is_refused_beforehand() {
        let (alice, job) = (account("alice"), JobId([1; 16]));
        let mut ledger = funded(1_000);
        assert!(ledger.check(&hold(job, &alice, Micro(1_001))).is_err(), "overdrawn");
        ledger.post(hold(job, &alice, Micro(600)));
        assert!(ledger.check(&hold(job, &alice, Micro(1))).is_err(), "held twice");
        assert!(ledger.check(&close(job, &alice, &settlement(400, 20, 100))).is_err(), "legs do not sum to zero");
        let short = Transfer {
            id: TransferId::Close(job),
            legs: vec![
                Leg { account: Account::Held(job), amount: -500 },
                Leg { account: Account::Available(alice.clone()), amount: 500 },
            ],
        };
        assert!(ledger.check(&short).is_err(), "something stays held");
        ledger.post(close(job, &alice, &settlement(400, 20, 200)));
        assert!(ledger.check(&close(job, &alice, &settlement(0, 0, 0))).is_err(), "closed twice");
        let again = deposit(&Text::cut("credit"), &"k".parse().expect("a key"), &alice, Micro(5));
        assert!(ledger.check(&again).is_err(), "deposited twice");
    }
}
