//! The three movements there are.

use modchain_types::{AccountId, JobId, Micro, SubmitKey, Text};

use super::account::Account;
use super::transfer::{Leg, Transfer, TransferId};
use crate::event::Settlement;

fn out(account: Account, amount: Micro) -> Leg {
    Leg { account, amount: -i128::from(amount.0) }
}

fn into(account: Account, amount: Micro) -> Leg {
    Leg { account, amount: i128::from(amount.0) }
}

/// Money comes in.
pub fn deposit(provider: &Text<32>, key: &SubmitKey, account: &AccountId, amount: Micro) -> Transfer {
    Transfer {
        id: TransferId::Deposit(provider.clone(), key.clone()),
        legs: vec![out(Account::Custody, amount), into(Account::Available(account.clone()), amount)],
    }
}

/// The most that a job may cost goes into escrow.
pub fn hold(job: JobId, account: &AccountId, amount: Micro) -> Transfer {
    Transfer {
        id: TransferId::Hold(job),
        legs: vec![out(Account::Available(account.clone()), amount), into(Account::Held(job), amount)],
    }
}

/// The escrow is closed: the owner and the platform get their parts, the rest goes back. Nothing earned means all of it.
pub fn close(job: JobId, account: &AccountId, settlement: &Settlement) -> Transfer {
    let held = i128::from(settlement.gross.0) + i128::from(settlement.refund.0);
    let mut legs = vec![Leg { account: Account::Held(job), amount: -held }];
    if let Some(owner) = &settlement.owner {
        legs.push(into(Account::Earnings(owner.clone()), settlement.net));
    }
    legs.push(into(Account::Fees, settlement.fee));
    legs.push(into(Account::Available(account.clone()), settlement.refund));
    Transfer { id: TransferId::Close(job), legs }
}
