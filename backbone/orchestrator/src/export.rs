//! `ledger export`: every posting there ever was, one line for each leg, from the journal alone. Reads only, and works beside a
//! running orchestrator.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use anyhow::Context;
use modchain_core::ledger::{self, Account, Transfer, TransferId};
use modchain_core::{Event, EventBody};
use modchain_types::{AccountId, JobId, Timestamp, WallTime};
use serde_json::json;

use crate::engine::journal_dir;
use crate::store::journal::{identify, walk};

/// How the lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportFormat {
    /// A line of names, then fields between commas (RFC 4180).
    Csv,
    /// One JSON object on each line.
    JsonLines,
}

/// Names of the fields.
const COLUMNS: &str = "number,at,transfer,subject,account,amount_micro,currency";

/// Where the journal has come to, and what a line needs from before.
struct Books {
    currency: &'static str,
    /// Where the timeline last met the calendar.
    anchor: (Timestamp, WallTime),
    /// Who pays for the jobs that are open.
    payers: BTreeMap<JobId, AccountId>,
}

/// Writes every posting of a data directory's journal; tells how many lines. Blocks.
pub fn export(data: &Path, format: ExportFormat, out: &mut impl Write) -> anyhow::Result<u64> {
    let dir = journal_dir(data);
    let (_, asset) = identify(&dir)?;
    let anchor = (Timestamp::ZERO, WallTime(0));
    let mut books = Books { currency: asset.code(), anchor, payers: BTreeMap::new() };
    if format == ExportFormat::Csv {
        writeln!(out, "{COLUMNS}").context("the postings cannot be written")?;
    }
    let (mut lines, mut written) = (0, Ok(()));
    walk(&dir, |events| {
        for event in &events {
            if written.is_ok()
                && let Some(transfer) = books.transfer(event)
            {
                written = books.write(event, &transfer, format, out);
                lines += transfer.legs.len() as u64;
            }
        }
    })?;
    written.and_then(|()| out.flush()).context("the postings cannot be written")?;
    Ok(lines)
}

impl Books {
    /// The transfer that an event is, if it is one.
    fn transfer(&mut self, event: &Event) -> Option<Transfer> {
        match &event.body {
            EventBody::EngineStarted { wall, .. } => {
                self.anchor = (event.at, *wall);
                None
            }
            EventBody::Deposited { provider, key, account, amount, .. } => {
                Some(ledger::deposit(provider, key, account, *amount))
            }
            EventBody::JobQueued { job, account, spec, .. } => {
                self.payers.insert(*job, account.clone());
                Some(ledger::hold(*job, account, spec.max_cost))
            }
            EventBody::JobFinished { job, settlement, .. } => {
                self.payers.remove(job).map(|payer| ledger::close(*job, &payer, settlement))
            }
            _ => None,
        }
    }

    fn write(&self, event: &Event, transfer: &Transfer, format: ExportFormat, out: &mut impl Write) -> io::Result<()> {
        let (kind, subject) = match &transfer.id {
            TransferId::Deposit(provider, key) => ("deposit", format!("{provider}/{key}")),
            TransferId::Hold(job) => ("hold", job.to_string()),
            TransferId::Close(job) => ("close", job.to_string()),
        };
        let wall = self.anchor.1.plus(event.at.since(self.anchor.0));
        let at = jiff::Timestamp::from_millisecond(wall.0).map_or_else(|_| wall.0.to_string(), |at| at.to_string());
        for leg in &transfer.legs {
            let account = match &leg.account {
                Account::Available(account) => format!("available:{account}"),
                Account::Held(job) => format!("held:{job}"),
                Account::Earnings(account) => format!("earnings:{account}"),
                Account::Fees => "fees".to_owned(),
                Account::Custody => "custody".to_owned(),
            };
            match format {
                ExportFormat::Csv => {
                    let (number, amount, currency) = (event.number, leg.amount, self.currency);
                    writeln!(out, "{number},{at},{kind},{},{},{amount},{currency}", field(&subject), field(&account))?;
                }
                ExportFormat::JsonLines => {
                    // Far below the largest whole number that JSON's readers keep exactly, for each of them.
                    let amount = i64::try_from(leg.amount).map_err(io::Error::other)?;
                    let line = json!({
                        "schema": "modchain.posting/v1",
                        "number": event.number,
                        "at": at,
                        "transfer": kind,
                        "subject": subject,
                        "account": account,
                        "amount": { "micro": amount, "currency": self.currency },
                    });
                    writeln!(out, "{line}")?;
                }
            }
        }
        Ok(())
    }
}

/// A field of CSV: between quotes where it could be taken for more than one.
fn field(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}
