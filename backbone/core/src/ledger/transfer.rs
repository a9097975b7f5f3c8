//! Transfers: what moves, and what for.

use modchain_types::{JobId, SubmitKey, Text};

use super::account::Account;

/// What a transfer is for. There is no second one with the same id, for as long as what it is for is remembered: deposits for
/// ever, jobs until they are forgotten.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum TransferId {
    /// Money came in from a provider under this key.
    Deposit(Text<32>, SubmitKey),
    /// The price of a job went into escrow.
    Hold(JobId),
    /// The escrow of a job was closed: settled or released, never both.
    Close(JobId),
}

/// One side of a transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leg {
    /// Where.
    pub account: Account,
    /// How much comes in, or goes out if it is negative.
    pub amount: i128,
}

/// Two or more legs that sum to zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// What it is for.
    pub id: TransferId,
    /// The legs.
    pub legs: Vec<Leg>,
}
