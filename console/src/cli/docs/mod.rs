//! The JSON documents: `modchain.X/v1`. They are an interface: fields are only ever added within a version, money is
//! `{micro, currency}`, times are RFC 3339 in UTC, durations are milliseconds with `_ms` in the name, ids are written in
//! full, and what is not known is `null`, never 0. The golden files beside the tests pin them; `console/schemas` lists them.

mod about;
mod access;
mod event;
mod job;
mod log;
mod money;
mod pool;
mod quote;

pub(crate) use about::{
    CheckDoc, ConfigDoc, ContextDoc, DoctorDoc, ServerVersionDoc, SettingDoc, UpDoc, certificate, version, whoami,
};
pub(crate) use access::{JoinedDoc, cert, revoked, token};
pub(crate) use event::event;
pub(crate) use job::{cancelled, job, job_change, submitted, tokens_per_second};
pub(crate) use log::{log, log_end, logs_begin, logs_empty, logs_end};
pub(crate) use money::{LedgerDoc, account, account_change, ledger_entry};
#[cfg(test)]
pub(crate) use pool::NODE_STATES;
pub(crate) use pool::{node, node_change, node_history, node_price, pool, status, status_change};
pub(crate) use quote::{explanation, job_spec, percent, quote, spec};

use std::collections::BTreeMap;

use modchain_types::{Asset, Micro, Text, WallTime};
use serde::Serialize;

use crate::text::rfc3339;

/// An amount.
#[derive(Debug, Serialize)]
pub(crate) struct Money {
    micro: u64,
    currency: &'static str,
}

/// A change of a balance.
#[derive(Debug, Serialize)]
pub(crate) struct SignedMoney {
    micro: i64,
    currency: &'static str,
}

/// An amount of this asset.
pub(crate) fn money(amount: Micro, asset: Asset) -> Money {
    Money { micro: amount.0, currency: asset.code() }
}

fn time(at: WallTime) -> String {
    rfc3339(at)
}

fn some<const MAX: usize>(text: &Text<MAX>) -> Option<String> {
    (!text.is_empty()).then(|| text.as_str().to_owned())
}

fn words<const A: usize, const B: usize>(map: &BTreeMap<Text<A>, Text<B>>) -> BTreeMap<String, String> {
    map.iter().map(|(key, value)| (key.as_str().to_owned(), value.as_str().to_owned())).collect()
}

/// A list: `modchain.jobs/v1`, `modchain.nodes/v1` and so on.
#[derive(Debug, Serialize)]
pub(crate) struct ListDoc<T> {
    /// Such as `modchain.jobs/v1`.
    pub(crate) schema: &'static str,
    /// The items, each a document of its own.
    pub(crate) items: Vec<T>,
    /// How many there are in all, where the orchestrator says so.
    pub(crate) total: Option<u64>,
}

#[cfg(test)]
pub(crate) mod tests;
