//! `events`: what happened, from the journal.

use std::time::Duration;

use modchain_link::Backoff;
use modchain_wire::ToConsole;
use modchain_wire::console::EventsOpen;
use modchain_wire::view::{EventKind, EventView};

use super::docs::{self, ListDoc};
use super::table::{Column, Columns, or_none};
use crate::args::{EventsArgs, Format};
use crate::client::config::nearest;
use crate::exit::{self, Failure, Outcome};
use crate::filter::{Kind, Unit};
use crate::shell::Shell;
use crate::text;

/// Longest time without a connection while following.
const RECONNECT_MAX: Duration = Duration::from_secs(10 * 60);

/// `modchain events`.
pub(crate) async fn events(shell: &Shell, args: EventsArgs) -> Outcome {
    let look = shell.look();
    let columns = Columns::new(&COLUMNS, &args.table, look.wide)?;
    if args.follow && columns.sorts() {
        return Err(Failure::usage("what is still to come cannot be sorted").hint("leave out -f or --sort"));
    }
    let since = args.since.as_deref().map(|since| text::parse_since(since, text::wall_now())).transpose();
    let mut request = EventsOpen {
        after: None,
        since: since.map_err(Failure::usage)?,
        kind: args.kind.as_deref().map(kind).transpose()?,
        job: args.job.as_deref().map(|job| shell.job_ref(job)).transpose()?,
        node: args.node,
        follow: args.follow,
    };
    // One document holds everything, and the first of an order may come last: those are printed only at the end.
    let mut collected = (!args.follow && (shell.format() == Format::Json || columns.sorts())).then(Vec::new);
    let mut first = true;
    let mut client = Some(shell.connect().await?);
    let mut backoff = Backoff::new();
    let mut lost_since = None;
    loop {
        let round = async {
            let client = match client.take() {
                Some(client) => client,
                None => shell.connect().await?,
            };
            let mut replies = client.open(request.clone()).await?;
            loop {
                match replies.next().await? {
                    ToConsole::Events(page) => {
                        for event in &page.items {
                            match &mut collected {
                                Some(events) => events.push(event.clone()),
                                None => print(shell, &columns, event, std::mem::take(&mut first))?,
                            }
                            request.after = Some(event.number);
                        }
                        lost_since = None;
                    }
                    ToConsole::CaughtUp(_) if !args.follow => return Ok(()),
                    ToConsole::CaughtUp(_) => {
                        lost_since = None;
                        backoff.reset();
                    }
                    other => return Err(crate::client::link::unexpected(Some(&other))),
                }
            }
        };
        match round.await {
            Ok(()) => break,
            Err(failure) if failure.lost && args.follow => {
                let since = *lost_since.get_or_insert_with(tokio::time::Instant::now);
                if since.elapsed() > RECONNECT_MAX {
                    return Err(failure);
                }
                tokio::time::sleep(backoff.next_delay()).await;
            }
            Err(failure) => return Err(failure),
        }
    }
    let Some(mut events) = collected else { return Ok(exit::OK) };
    columns.sort(&mut events, &look);
    match shell.format() {
        Format::Json => {
            let items: Vec<_> = events.iter().map(docs::event).collect();
            shell.print_document(&ListDoc { schema: "modchain.events/v1", items, total: None })?;
        }
        Format::Table => shell.print(&columns.text(&events, &look))?,
        Format::Jsonl | Format::Name => events.iter().try_for_each(|event| print(shell, &columns, event, false))?,
    }
    Ok(exit::OK)
}

fn print(shell: &Shell, columns: &Columns<EventView>, event: &EventView, first: bool) -> Result<(), Failure> {
    match shell.format() {
        Format::Json | Format::Jsonl => shell.print_document(&docs::event(event)),
        Format::Name => shell.print(&format!("{}\n", event.number)),
        Format::Table => shell.print(&columns.text_growing([event], first, &shell.look())),
    }
}

/// The words of every kind of events.
pub(crate) const KINDS: &[&str] = &["job", "node", "account", "system"];

/// One of them.
type EventColumn = Column<EventView>;

/// The columns of events. Lines come one by one, so a column is as wide as what it mostly holds.
pub(crate) static COLUMNS: [EventColumn; 12] = [
    EventColumn::text("time", "TIME", |event, look| text::date_time(event.at, look.utc)).least(19),
    EventColumn::text("kind", "KIND", |event, _| event.kind.word().into()).of(Kind::Words(KINDS)).least(7),
    EventColumn::text("about", "ABOUT", |event, look| match (&event.job, &event.node, &event.account) {
        (Some(job), _, _) => text::job_id(job, look.short),
        (None, Some(node), _) => node.to_string(),
        (None, None, Some(account)) => account.to_string(),
        (None, None, None) => String::new(),
    })
    .least(8),
    EventColumn::text("text", "TEXT", |event, _| event.text.to_string()),
    EventColumn::number(
        "number",
        "NUMBER",
        Unit::Plain,
        |event, _| event.number.to_string(),
        |event, _| Some(event.number as f64),
    )
    .extra()
    .least(6),
    EventColumn::text("job", "JOB", |event, look| or_none(event.job.map(|job| text::job_id(&job, look.short))))
        .of(Kind::Name)
        .extra()
        .least(8),
    EventColumn::number(
        "attempt",
        "ATTEMPT",
        Unit::Plain,
        |event, _| or_none(event.attempt.map(|attempt| attempt.number)),
        |event, _| event.attempt.map(|attempt| f64::from(attempt.number)),
    )
    .extra(),
    EventColumn::text("node", "NODE", |event, _| or_none(event.node.as_ref())).of(Kind::Name).extra().least(10),
    EventColumn::text("account", "ACCOUNT", |event, _| or_none(event.account.as_ref()))
        .of(Kind::Whole)
        .extra()
        .least(10),
    EventColumn::text("from", "FROM", |event, _| or_none(event.from)).extra().least(11),
    EventColumn::text("to", "TO", |event, _| or_none(event.to)).extra().least(11),
    EventColumn::text("reason", "REASON", |event, _| or_none(event.reason)).extra(),
];

fn kind(word: &str) -> Result<EventKind, Failure> {
    EventKind::ALL.into_iter().find(|kind| kind.word() == word).ok_or_else(|| {
        let words = EventKind::ALL.map(EventKind::word);
        let failure = Failure::usage(format!("`{word}` is not a kind of events"));
        match nearest(word, words.into_iter()) {
            Some(near) => failure.hint(format!("did you mean `{near}`?")),
            None => failure.hint(format!("kinds: {}", words.join(", "))),
        }
    })
}
