//! `events`: what happened, from the journal.

use std::time::Duration;

use modchain_link::Backoff;
use modchain_wire::ToConsole;
use modchain_wire::console::EventsOpen;
use modchain_wire::view::{EventKind, EventView};

use super::docs::{self, ListDoc};
use crate::args::{EventsArgs, Format};
use crate::client::config::nearest;
use crate::exit::{self, Failure, Outcome};
use crate::shell::Shell;
use crate::text;

/// Longest time without a connection while following.
const RECONNECT_MAX: Duration = Duration::from_secs(10 * 60);

/// `modchain events`.
pub(crate) async fn events(shell: &Shell, args: EventsArgs) -> Outcome {
    let since = args.since.as_deref().map(|since| text::parse_since(since, text::wall_now())).transpose();
    let mut request = EventsOpen {
        after: None,
        since: since.map_err(Failure::usage)?,
        kind: args.kind.as_deref().map(kind).transpose()?,
        job: args.job.as_deref().map(|job| shell.job_ref(job)).transpose()?,
        node: args.node,
        follow: args.follow,
    };
    // One document holds everything, so it can be printed only at the end.
    let mut collected = (shell.format() == Format::Json).then(Vec::new);
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
                                Some(events) if !args.follow => events.push(event.clone()),
                                Some(_) | None => print(shell, event)?,
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
    if let Some(events) = collected {
        let items: Vec<_> = events.iter().map(docs::event).collect();
        shell.print_document(&ListDoc { schema: "modchain.events/v1", items, total: None })?;
    }
    Ok(exit::OK)
}

fn print(shell: &Shell, event: &EventView) -> Result<(), Failure> {
    match shell.format() {
        Format::Json | Format::Jsonl => shell.print_document(&docs::event(event)),
        Format::Name => shell.print(&format!("{}\n", event.number)),
        Format::Table => {
            let about = match (&event.job, &event.node, &event.account) {
                (Some(job), _, _) => shell.id(job),
                (None, Some(node), _) => node.to_string(),
                (None, None, Some(account)) => account.to_string(),
                (None, None, None) => String::new(),
            };
            let at = text::date_time(event.at, shell.utc());
            // Lines come one by one, so the column is as wide as what it mostly holds.
            let width = text::job_id_width(shell.stdout_tty());
            let line = format!("{at}  {:<7}  {about:<width$}  {}", event.kind.word(), event.text);
            shell.print(&(text::one_line(line.trim_end()) + "\n"))
        }
    }
}

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
