//! The accounts of the ledger.

use modchain_types::{AccountId, JobId};

/// Where money can be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Account {
    /// A client's, free to spend.
    Available(AccountId),
    /// In escrow for one job; zero once the job has ended.
    Held(JobId),
    /// An owner's, earned by nodes.
    Earnings(AccountId),
    /// The platform's.
    Fees,
    /// The other side of every deposit: minus what the platform owes in all.
    Custody,
}

impl Account {
    /// Whether the account may go below zero.
    pub fn may_be_negative(&self) -> bool {
        match self {
            Self::Available(_) | Self::Held(_) | Self::Earnings(_) | Self::Fees => false,
            Self::Custody => true,
        }
    }
}
