//! The one function that changes the console: a message in, effects out. Reads no clock, does no I/O. Here stands what comes and what
//! follows from it; [`typed`] says what keys, the mouse and typed lines mean, [`perform`](mod@perform) does it.

mod perform;
mod typed;

use modchain_wire::ToConsole;

pub(crate) use perform::{copy, go, open, perform, prompt, quietly, set_filter};
pub(crate) use typed::type_into;

use super::act;
use super::app::{App, Tone};
use super::msg::{Effect, Msg};
use super::table::{RowId, TableId};
use super::view;
use crate::client::live::{AskId, FromLive, LinkState};
use crate::exit::Failure;
use perform::touch;
use typed::{on_key, on_mouse, on_paste};

/// While a key was pressed within this time, rows do not change places under the cursor.
const HOLD_MS: u64 = 1_000;
/// Large tables are arranged no more often than this.
const ARRANGE_MS: u64 = 500;
/// Rows from which on a table is large.
const LARGE: usize = 5_000;

/// Takes in a message.
pub(crate) fn update(app: &mut App, message: Msg) -> Vec<Effect> {
    let mut effects = match message {
        Msg::Key(key) => on_key(app, &key),
        Msg::Paste(text) => on_paste(app, &text),
        Msg::Mouse(mouse) => on_mouse(app, mouse),
        Msg::Resize(columns, rows) => {
            (app.caps.columns, app.caps.rows) = (columns, rows);
            Vec::new()
        }
        Msg::Live(message) => on_live(app, *message),
        Msg::Planned(edit, plan) => view::form::planned(app, edit, plan.map(|plan| *plan)),
        Msg::Edited(text) => view::form::edited(app, text),
        Msg::Written(path, outcome) => {
            match outcome {
                Ok(()) => app.toast(Tone::Info, format!("written to {}", path.display())),
                Err(failure) => app.toast(Tone::Bad, failure.said()),
            }
            Vec::new()
        }
        Msg::Sent(job) => {
            app.ui.submitted.push(job);
            Vec::new()
        }
        Msg::NotSubmitted(ask, failure) => view::form::not_submitted(app, ask, &failure),
        Msg::Drawn(edit, drawn) => act::drawn(app, edit, drawn),
        Msg::Keyed(edit, line, key) => act::keyed(app, edit, line, key),
        Msg::Said(text) => {
            app.toast(Tone::Info, text);
            Vec::new()
        }
        Msg::Resumed => vec![Effect::Repaint],
        Msg::Deadline => view::form::due(app),
    };
    effects.extend(settle(app));
    effects
}

/// When something on the screen changes by itself, in milliseconds since the start.
pub(crate) fn deadline(app: &App) -> Option<u64> {
    let now = app.now.ms;
    let toast = app.ui.toasts.iter().map(|toast| toast.until_ms).min();
    let behind = TableId::ALL.iter().any(|id| view::is_behind(app, *id));
    let held = behind.then(|| app.ui.key_ms.map_or(now, |pressed| pressed + HOLD_MS).max(arrange_at(app)));
    let countdown = match app.mirror.link {
        LinkState::Lost { .. } | LinkState::Silent { .. } | LinkState::Connecting => Some(now + 1_000),
        LinkState::Live | LinkState::Refused(_) => None,
    };
    // A recording's clock moves with what comes.
    let ages = if app.ui.paused.is_some() || app.caps.replay { None } else { view::next_age(app).map(|ms| now + ms) };
    let asks = view::follow::deadline(app);
    let search = view::output::deadline(app);
    [toast, app.ui.quit_armed_ms, held, countdown, ages, asks, search, view::form::deadline(app)]
        .into_iter()
        .flatten()
        .min()
}

/// When the next large table may be arranged.
fn arrange_at(app: &App) -> u64 {
    let largest = TableId::ALL.iter().map(|id| app.ui.table(*id).total).max().unwrap_or(0);
    if largest > LARGE { app.ui.arranged_ms + ARRANGE_MS } else { 0 }
}

/// Brings everything that follows from the state up to date: what is over, which rows there are, what is to be asked for.
fn settle(app: &mut App) -> Vec<Effect> {
    let now = app.now.ms;
    app.ui.toasts.retain(|toast| toast.until_ms > now);
    app.ui.quit_armed_ms = app.ui.quit_armed_ms.filter(|until| *until > now);
    let held = app.ui.key_ms.is_some_and(|pressed| now < pressed + HOLD_MS);
    let early = now < arrange_at(app);
    // What has just come on the screen, or was empty, has no rows that could jump.
    let place = app.place();
    let arrived = app.ui.settled.as_ref() != Some(&place);
    for id in TableId::ALL {
        let table = app.ui.table(id);
        let calm = (!held && !early) || arrived || table.order.is_empty();
        let wanted = table.is_touched() || (calm && view::is_behind(app, id));
        if wanted {
            view::arrange(app, id);
            app.ui.arranged_ms = now;
        }
    }
    app.ui.settled = Some(place);
    if let Some(job) = app.ui.awaited
        && app.ui.table_mut(TableId::Jobs).select_id(&RowId::Job(job))
    {
        app.ui.awaited = None;
    }
    let layout = app.layout();
    for (pane, area) in layout.panes.iter().enumerate() {
        if let Some(id) = view::table_of(&app.place(), pane)
            && !area.is_empty()
        {
            let rows = usize::from(layout.inner(pane).height).saturating_sub(1);
            app.ui.table_mut(id).scroll_into(rows);
        }
    }
    view::known::settle(app);
    view::output::settle(app);
    view::follow::wants(app)
}

fn on_live(app: &mut App, message: FromLive) -> Vec<Effect> {
    let mut effects = Vec::new();
    if let Some((_, changes)) = &mut app.ui.paused {
        *changes += 1;
    }
    match &message {
        FromLive::Answer(id, asked, reply) => {
            effects.extend(on_answer(app, *id, reply));
            view::follow::answered(app, asked, reply);
        }
        FromLive::Input(job, Ok((bytes, done))) => view::output::input_stored(app, *job, *bytes, *done),
        FromLive::Input(job, Err(failure)) => {
            let text = format!("{}: {}", job.short(), failure.said());
            app.toast(Tone::Bad, text);
        }
        FromLive::Said(text) => {
            let text = text.clone();
            app.toast(Tone::Info, text);
        }
        // Rows of the context before may have come since it was left.
        FromLive::Target(_) => touch(app, &TableId::ALL),
        FromLive::Welcome(_) if matches!(app.mirror.link, LinkState::Lost { .. }) => {
            app.toast(Tone::Info, "connected again");
        }
        _ => {}
    }
    // Remarks in outputs name times as the screen does.
    app.mirror.utc = app.ui.utc;
    app.mirror.apply(message, app.now.wall);
    effects
}

fn on_answer(app: &mut App, id: AskId, reply: &Result<Box<ToConsole>, Failure>) -> Vec<Effect> {
    let Some(ask) = app.ui.asks.remove(&id) else { return Vec::new() };
    let effects = view::form::answered(app, &ask, reply);
    match reply {
        Err(failure) if ask.edit.is_none() => {
            let text = if ask.what.is_empty() { failure.said() } else { format!("{}: {}", ask.what, failure.said()) };
            app.toast(Tone::Bad, text);
        }
        Ok(reply) if !ask.what.is_empty() => {
            let text = match &**reply {
                ToConsole::Job(job) => format!("{} {}", job.id.short(), job.state),
                ToConsole::NodeIs(node) => format!("{} is {}", node.name, node.state),
                ToConsole::Submitted(submitted) => {
                    let again = if submitted.existing { ", it was there already" } else { "" };
                    format!("{} submitted, {} held{again}", submitted.job.short(), submitted.held)
                }
                ToConsole::Account(account) => format!("{} has {} now", account.id, account.available),
                ToConsole::Revoked(revoked) => {
                    format!(
                        "{} revoked, {} connections cut",
                        revoked.identity.identity.name, revoked.connections_closed
                    )
                }
                ToConsole::Token(token) => format!("token {} {}", token.id, token.state.word()),
                // The window that opens says more.
                ToConsole::Spec(_) | ToConsole::Quote(_) => return effects,
                _ => format!("done: {}", ask.what),
            };
            app.toast(Tone::Info, text);
        }
        Ok(_) | Err(_) => {}
    }
    effects
}
