//! `account --watch`: one's own; of nobody else's is one told.

use modchain_types::Asset;
use modchain_wire::view::AccountView;
use serde::Serialize;

use super::super::docs;
use super::super::money::account_text;
use super::super::table::{Align, Table};
use super::Watched;
use crate::client::mirror::Mirror;

/// One's own account.
pub(crate) struct AccountWatch {
    pub(crate) asset: Asset,
}

impl Watched for AccountWatch {
    type Item = AccountView;

    fn items(&self, mirror: &Mirror) -> Vec<(String, AccountView)> {
        mirror.account.iter().map(|account| (account.id.to_string(), account.clone())).collect()
    }

    fn screen(&self, _mirror: &Mirror, items: &[AccountView]) -> String {
        items.iter().map(|account| account_text(account, self.asset)).collect()
    }

    fn rows(&self, items: &[AccountView]) -> Table {
        let mut table = Table::new(&[
            ("ACCOUNT", Align::Left),
            ("AVAILABLE", Align::Right),
            ("HELD", Align::Right),
            ("EARNED", Align::Right),
            ("JOBS", Align::Right),
            ("BURN/H", Align::Right),
        ]);
        for account in items {
            table.row(vec![
                account.id.to_string(),
                account.available.to_string(),
                account.held.to_string(),
                account.earned.to_string(),
                account.open_jobs.to_string(),
                account.burn_per_hour.to_string(),
            ]);
        }
        table
    }

    fn document(&self, op: &'static str, item: &AccountView) -> impl Serialize {
        docs::account_change(op, item, self.asset)
    }
}
