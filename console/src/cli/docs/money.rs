//! Documents of money: an account and its statement.

use modchain_types::Asset;
use modchain_wire::view::{AccountView, LedgerEntryView};
use serde::Serialize;

use super::{Money, SignedMoney, money, some, time};

/// `modchain.account/v1`.
#[derive(Debug, Serialize)]
pub(crate) struct AccountDoc {
    schema: &'static str,
    id: String,
    available: Money,
    held: Money,
    earned: Money,
    open_jobs: u64,
    burn_per_hour: Money,
}

/// The document of one account.
pub(crate) fn account(view: &AccountView, asset: Asset) -> AccountDoc {
    AccountDoc {
        schema: "modchain.account/v1",
        id: view.id.to_string(),
        available: money(view.available, asset),
        held: money(view.held, asset),
        earned: money(view.earned, asset),
        open_jobs: view.open_jobs,
        burn_per_hour: money(view.burn_per_hour, asset),
    }
}

/// `modchain.ledger/v1`.
#[derive(Debug, Serialize)]
pub(crate) struct LedgerDoc {
    /// `modchain.ledger/v1`.
    pub(crate) schema: &'static str,
    /// Whose.
    pub(crate) account: String,
    /// Newest first.
    pub(crate) items: Vec<LedgerEntryDoc>,
}

/// `modchain.ledger_entry/v1`.
#[derive(Debug, Serialize)]
pub(crate) struct LedgerEntryDoc {
    schema: &'static str,
    number: u64,
    at: String,
    #[serde(rename = "type")]
    kind: &'static str,
    amount: SignedMoney,
    balance: Money,
    job: Option<String>,
    text: Option<String>,
}

/// The document of one line of a statement.
pub(crate) fn ledger_entry(view: &LedgerEntryView, asset: Asset) -> LedgerEntryDoc {
    LedgerEntryDoc {
        schema: "modchain.ledger_entry/v1",
        number: view.number,
        at: time(view.at),
        kind: view.kind.word(),
        amount: SignedMoney { micro: view.amount, currency: asset.code() },
        balance: money(view.balance, asset),
        job: view.job.map(|job| job.to_string()),
        text: some(&view.text),
    }
}

/// `modchain.account_change/v1`: what became of an account while somebody watched.
#[derive(Debug, Serialize)]
pub(crate) struct AccountChangeDoc {
    schema: &'static str,
    op: &'static str,
    account: AccountDoc,
}

/// An account was seen for the first time, or changed.
pub(crate) fn account_change(op: &'static str, view: &AccountView, asset: Asset) -> AccountChangeDoc {
    AccountChangeDoc { schema: "modchain.account_change/v1", op, account: account(view, asset) }
}
