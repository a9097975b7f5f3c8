//! `account`, `ledger` and `credit`: money.

use modchain_types::{Asset, Text};
use modchain_wire::console::{AccountQuery, Credit, LedgerQuery};
use modchain_wire::view::{AccountView, LedgerEntryView, LedgerKind};

use super::docs::{self, LedgerDoc};
use super::table::{self, Column, Columns, or_none, pairs};
use super::watch::{self, AccountWatch};
use crate::args::{AccountArgs, CreditArgs, Format, LedgerArgs};
use crate::client::config::nearest;
use crate::client::state::random_key;
use crate::exit::{self, Failure, Outcome};
use crate::filter::{Kind, Unit};
use crate::shell::Shell;
use crate::text;

/// Entries asked for at once.
const PAGE: u32 = 1000;
/// Entries that are looked at to find out which are first by another order, at most.
const SORTED_MAX: usize = 100_000;

/// `modchain account`.
pub(crate) async fn account(shell: &Shell, args: AccountArgs) -> Outcome {
    let client = shell.connect().await?;
    if args.watch {
        let asset = client.welcome().asset;
        return watch::watch(shell, client, AccountWatch { asset }).await;
    }
    let view = client.account(AccountQuery { account: args.account }).await?;
    show_account(shell, &view, client.welcome().asset)
}

/// `modchain credit`.
pub(crate) async fn credit(shell: &Shell, args: CreditArgs) -> Outcome {
    let why = Text::new(args.reason).map_err(|error| Failure::usage(format!("reason: {error}")))?;
    let key = match args.id {
        Some(key) => key,
        None => random_key()?,
    };
    let client = shell.connect().await?;
    let request = Credit { account: args.account, amount: args.amount, key: key.clone(), why };
    let view = client.credit(request).await.map_err(|failure| {
        if failure.lost {
            return failure.hint(format!("it may have been given: repeat it with --id {key}, which gives it once"));
        }
        failure
    })?;
    show_account(shell, &view, client.welcome().asset)
}

fn show_account(shell: &Shell, view: &AccountView, asset: Asset) -> Outcome {
    match shell.format() {
        Format::Json | Format::Jsonl => shell.print_document(&docs::account(view, asset))?,
        Format::Name => shell.print(&format!("{}\n", view.id))?,
        Format::Table => shell.print(&account_text(view, asset))?,
    }
    Ok(exit::OK)
}

/// An account, for a person.
pub(super) fn account_text(view: &AccountView, asset: Asset) -> String {
    let jobs = match view.open_jobs {
        0 => String::new(),
        1 => "  1 job".into(),
        more => format!("  {more} jobs"),
    };
    let mut lines = vec![
        ("account", view.id.to_string()),
        ("available", text::money(view.available, asset)),
        ("in escrow", text::money(view.held, asset) + &jobs),
        ("earned", text::money(view.earned, asset)),
    ];
    if let Some(hours) = view.available.0.checked_div(view.burn_per_hour.0) {
        lines.push(("burn rate", format!("{}/h  {hours} h left", text::money(view.burn_per_hour, asset))));
    }
    pairs(&lines)
}

/// `modchain ledger`.
pub(crate) async fn ledger(shell: &Shell, args: LedgerArgs) -> Outcome {
    let look = shell.look();
    let columns = Columns::new(&COLUMNS, &args.table, look.wide)?;
    let filter = table::filter(&args.filter, &COLUMNS)?;
    let since = args.since.as_deref().map(|since| text::parse_since(since, text::wall_now())).transpose();
    let mut query = LedgerQuery {
        account: args.account,
        since: since.map_err(Failure::usage)?,
        kind: args.kind.as_deref().map(kind).transpose()?,
        job: args.job.as_deref().map(|job| shell.job_ref(job)).transpose()?,
        limit: PAGE,
        before: None,
    };
    let client = shell.connect().await?;
    let asset = client.welcome().asset;
    let limit = if columns.sorts() { SORTED_MAX } else { args.limit as usize };
    let mut entries: Vec<LedgerEntryView> = Vec::new();
    let account = loop {
        // Nobody knows how many of a page will fit.
        let wanted = if filter.is_empty() { limit - entries.len() } else { PAGE as usize };
        query.limit = u32::try_from(wanted).unwrap_or(PAGE).min(PAGE);
        let page = client.ledger(query.clone()).await?;
        query.before = page.items.last().map(|entry| entry.number);
        let over = !page.more || page.items.is_empty();
        entries.extend(page.items.into_iter().filter(|entry| columns.fits(&filter, entry, &look)));
        if over || entries.len() >= limit {
            break page.account;
        }
    };
    columns.sort(&mut entries, &look);
    entries.truncate(args.limit as usize);
    match shell.format() {
        Format::Json => {
            let items = entries.iter().map(|entry| docs::ledger_entry(entry, asset)).collect();
            shell.print_document(&LedgerDoc { schema: "modchain.ledger/v1", account: account.to_string(), items })?;
        }
        Format::Jsonl => {
            entries.iter().try_for_each(|entry| shell.print_document(&docs::ledger_entry(entry, asset)))?
        }
        Format::Name => shell.print(&entries.iter().map(|entry| format!("{}\n", entry.number)).collect::<String>())?,
        Format::Table => shell.print(&columns.text(&entries, &look))?,
    }
    Ok(exit::OK)
}

fn kind(word: &str) -> Result<LedgerKind, Failure> {
    LedgerKind::ALL.into_iter().find(|kind| kind.word() == word).ok_or_else(|| {
        let words = LedgerKind::ALL.map(LedgerKind::word);
        let failure = Failure::usage(format!("`{word}` is not a type of ledger entries"));
        match nearest(word, words.into_iter()) {
            Some(near) => failure.hint(format!("did you mean `{near}`?")),
            None => failure.hint(format!("types: {}", words.join(", "))),
        }
    })
}

/// The words of every kind of entries.
pub(crate) const KINDS: &[&str] = &["deposit", "hold", "settle", "release", "earning", "fee"];

/// One of them.
type EntryColumn = Column<LedgerEntryView>;

/// The columns of a statement.
pub(crate) static COLUMNS: [EntryColumn; 7] = [
    EntryColumn::number(
        "number",
        "NUMBER",
        Unit::Plain,
        |entry, _| entry.number.to_string(),
        |entry, _| Some(entry.number as f64),
    ),
    EntryColumn::text("time", "TIME", |entry, look| text::date_time(entry.at, look.utc)),
    EntryColumn::text("type", "TYPE", |entry, _| entry.kind.word().into()).of(Kind::Words(KINDS)),
    EntryColumn::number(
        "amount",
        "AMOUNT",
        Unit::Micro,
        |entry, _| text::signed(entry.amount),
        |entry, _| Some(entry.amount as f64),
    ),
    EntryColumn::number(
        "balance",
        "BALANCE",
        Unit::Micro,
        |entry, _| entry.balance.to_string(),
        |entry, _| Some(entry.balance.0 as f64),
    ),
    EntryColumn::text("job", "JOB", |entry, look| or_none(entry.job.map(|job| text::job_id(&job, look.short))))
        .of(Kind::Name),
    EntryColumn::text("text", "TEXT", |entry, _| entry.text.to_string()),
];
