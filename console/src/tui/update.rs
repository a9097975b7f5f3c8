//! The one function that changes the console: a message in, effects out. Reads no clock, does no I/O.

use modchain_wire::ToConsole;

use super::act::{self, Demand};
use super::app::{App, Ask, Overlay, Place, Prompt, PromptKind, Times, Tone, View};
use super::keys::{Action, Found};
use super::msg::{Effect, Mouse, Msg};
use super::table::{RowId, TableId};
use super::view;
use crate::client::live::{AskId, FromLive, LinkState, ToLive};
use crate::exit::Failure;

/// While a key was pressed within this time, rows do not change places under the cursor.
const HOLD_MS: u64 = 1_000;
/// Time for the second Ctrl-C.
const QUIT_MS: u64 = 2_000;
/// Large tables are arranged no more often than this.
const ARRANGE_MS: u64 = 500;
/// Rows from which on a table is large.
const LARGE: usize = 5_000;
/// Lines that a prompt remembers.
const HISTORY_MAX: usize = 100;

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

fn on_paste(app: &mut App, text: &str) -> Vec<Effect> {
    if let Some(Overlay::Form(_)) = &app.ui.overlay {
        return view::form::paste(app, text);
    }
    if let Some(prompt) = &mut app.ui.prompt {
        for c in text.chars().filter(|c| !c.is_control()) {
            prompt.input.handle(tui_input::InputRequest::InsertChar(c));
        }
        return prompt_changed(app);
    }
    Vec::new()
}

fn on_mouse(app: &mut App, mouse: Mouse) -> Vec<Effect> {
    match mouse {
        Mouse::WheelUp(..) => perform(app, Action::Up),
        Mouse::WheelDown(..) => perform(app, Action::Down),
        Mouse::Click(column, row) => click(app, column, row),
    }
}

fn click(app: &mut App, column: u16, row: u16) -> Vec<Effect> {
    if app.ui.overlay.is_some() || app.ui.prompt.is_some() {
        return Vec::new();
    }
    let layout = app.layout();
    let at = ratatui::layout::Position::new(column, row);
    if layout.tabs.contains(at) {
        if let Some(view) = view::chrome::tab_at(app, column) {
            return go(app, view);
        }
        return Vec::new();
    }
    let Some(pane) = layout.panes.iter().position(|area| area.contains(at)) else { return Vec::new() };
    let view = app.ui.view;
    app.ui.focus.insert(view, pane);
    let inner = layout.inner(pane);
    let Some(id) = app.focused_table().filter(|_| inner.contains(at)) else { return Vec::new() };
    match usize::from(row - inner.y) {
        0 => {
            if let Some(column) = view::column_at(app, id, inner, column) {
                let table = app.ui.table_mut(id);
                (table.descending, table.sort) = (table.sort == column && !table.descending, column);
                table.touch();
            }
        }
        line => {
            let table = app.ui.table_mut(id);
            table.select(table.top + line - 1);
        }
    }
    Vec::new()
}

fn on_key(app: &mut App, key: &str) -> Vec<Effect> {
    app.ui.key_ms = Some(app.now.ms);
    app.ui.awaited = None;
    if app.is_tiny() {
        return match key {
            "q" => vec![Effect::Quit(crate::exit::OK)],
            "Ctrl-c" => interrupt(app),
            _ => Vec::new(),
        };
    }
    // These work whatever lies over the view.
    match key {
        "Ctrl-z" if !matches!(app.ui.overlay, Some(Overlay::Form(_))) => return vec![Effect::Suspend],
        "Ctrl-l" => return vec![Effect::Repaint],
        "Ctrl-c" => return interrupt(app),
        _ => {}
    }
    if app.ui.overlay.is_some() {
        return overlay_key(app, key);
    }
    if app.ui.prompt.is_some() {
        return prompt_key(app, key);
    }
    app.ui.typed.push(key.to_owned());
    let scopes = app.scopes();
    match app.caps.keymap.find(&scopes, &app.ui.typed) {
        Found::Action(action) => {
            app.ui.typed.clear();
            perform(app, action)
        }
        Found::Prefix => Vec::new(),
        Found::Nothing => {
            // What was no beginning of anything may be one by itself.
            let again = app.ui.typed.len() > 1;
            app.ui.typed.clear();
            if again { on_key(app, key) } else { Vec::new() }
        }
    }
}

/// Closes what is open; in a view the second one within two seconds leaves.
fn interrupt(app: &mut App) -> Vec<Effect> {
    // What was typed into a form is not thrown away by one key.
    if matches!(app.ui.overlay, Some(Overlay::Form(_))) {
        return view::form::key(app, "Ctrl-c");
    }
    if matches!(app.ui.overlay, Some(Overlay::Reader(_))) {
        return view::reader::key(app, "Esc");
    }
    if app.ui.overlay.take().is_some() || app.ui.prompt.take().is_some() {
        return Vec::new();
    }
    if app.ui.quit_armed_ms.is_some() {
        return vec![Effect::Quit(crate::exit::OK)];
    }
    app.ui.quit_armed_ms = Some(app.now.ms + QUIT_MS);
    app.toast(Tone::Info, "Ctrl-C again, or :q, to quit");
    Vec::new()
}

fn overlay_key(app: &mut App, key: &str) -> Vec<Effect> {
    match &mut app.ui.overlay {
        Some(Overlay::Confirm(_)) => confirm_key(app, key),
        Some(Overlay::Help(_)) => view::help::key(app, key),
        Some(Overlay::Picker(_)) => view::picker::key(app, key),
        Some(Overlay::Palette(_)) => view::palette::key(app, key),
        Some(Overlay::Form(_)) => view::form::key(app, key),
        Some(Overlay::Reader(_)) => view::reader::key(app, key),
        None => Vec::new(),
    }
}

fn confirm_key(app: &mut App, key: &str) -> Vec<Effect> {
    let Some(Overlay::Confirm(confirm)) = &app.ui.overlay else { return Vec::new() };
    // Not meant for it: it was not on the screen yet.
    if !confirm.seen {
        return Vec::new();
    }
    let moot = confirm.moot(app).is_some();
    let Some(Overlay::Confirm(confirm)) = &mut app.ui.overlay else { return Vec::new() };
    let granted = match (&confirm.demand, key) {
        (_, "Esc") => false,
        _ if moot => false,
        (Demand::Yes, "y" | "Y") => true,
        (Demand::Yes, "n" | "N" | "Enter" | "q") => false,
        (Demand::Yes, _) => return Vec::new(),
        (Demand::Type(wanted), "Enter") => confirm.typed.value() == wanted,
        (Demand::Type(_), key) => {
            type_into(&mut confirm.typed, key);
            return Vec::new();
        }
    };
    let Some(Overlay::Confirm(confirm)) = app.ui.overlay.take() else { return Vec::new() };
    if !granted {
        if matches!(&confirm.demand, Demand::Type(_)) && key == "Enter" && !moot {
            app.toast(Tone::Info, "not done: that was not the text that was asked for");
        }
        return Vec::new();
    }
    if let Some(id) = app.focused_table() {
        app.ui.table_mut(id).marks.clear();
    }
    act::send(app, confirm.requests)
}

/// Edits a line by a key; tells whether it was one that edits.
pub(crate) fn type_into(input: &mut tui_input::Input, key: &str) -> bool {
    use tui_input::InputRequest as Edit;
    let edit = match key {
        "Backspace" | "Ctrl-h" => Edit::DeletePrevChar,
        "Delete" => Edit::DeleteNextChar,
        "Left" | "Ctrl-b" => Edit::GoToPrevChar,
        "Right" | "Ctrl-f" => Edit::GoToNextChar,
        "Home" | "Ctrl-a" => Edit::GoToStart,
        "End" | "Ctrl-e" => Edit::GoToEnd,
        "Ctrl-w" | "Alt-Backspace" => Edit::DeletePrevWord,
        "Ctrl-u" => Edit::DeleteLine,
        "Ctrl-k" => Edit::DeleteTillEnd,
        "Ctrl-Left" | "Alt-b" => Edit::GoToPrevWord,
        "Ctrl-Right" | "Alt-f" => Edit::GoToNextWord,
        "Space" => Edit::InsertChar(' '),
        key => {
            let mut chars = key.chars();
            match (chars.next(), chars.next()) {
                (Some(c), None) => Edit::InsertChar(c),
                _ => return false,
            }
        }
    };
    input.handle(edit);
    true
}

fn prompt_key(app: &mut App, key: &str) -> Vec<Effect> {
    let Some(prompt) = &mut app.ui.prompt else { return Vec::new() };
    match key {
        "Esc" => {
            let kind = prompt.kind;
            app.ui.prompt = None;
            match kind {
                PromptKind::Filter => drop(set_filter(app, "")),
                PromptKind::Search => drop(view::output::clear_search(app)),
                PromptKind::Command | PromptKind::Input => {}
            }
            Vec::new()
        }
        "Enter" => {
            let Some(prompt) = app.ui.prompt.take() else { return Vec::new() };
            let text = prompt.input.value().to_owned();
            if !text.is_empty() {
                let history = app.ui.history.entry(prompt.kind).or_default();
                history.retain(|known| *known != text);
                history.push(text.clone());
                let surplus = history.len().saturating_sub(HISTORY_MAX);
                history.drain(..surplus);
            }
            match prompt.kind {
                PromptKind::Filter => Vec::new(),
                PromptKind::Search => Vec::new(),
                PromptKind::Command => view::palette::command(app, &text),
                PromptKind::Input => view::output::send_line(app, &text),
            }
        }
        "Up" | "Down" => {
            recall(app, key == "Up");
            prompt_changed(app)
        }
        "Tab" if prompt.kind == PromptKind::Command => {
            view::palette::complete(app);
            Vec::new()
        }
        "Ctrl-d" if prompt.kind == PromptKind::Input && prompt.input.value().is_empty() => {
            app.ui.prompt = None;
            view::output::end_input(app)
        }
        key => {
            if type_into(&mut prompt.input, key) {
                prompt.recalled = None;
                return prompt_changed(app);
            }
            Vec::new()
        }
    }
}

fn recall(app: &mut App, older: bool) {
    let Some(prompt) = &mut app.ui.prompt else { return };
    let Some(history) = app.ui.history.get(&prompt.kind) else { return };
    let next = match (prompt.recalled, older) {
        (None, true) => Some(0),
        (Some(place), true) => Some((place + 1).min(history.len() - 1)),
        (Some(0) | None, false) => None,
        (Some(place), false) => Some(place - 1),
    };
    let text = next.and_then(|place| history.iter().rev().nth(place)).cloned().unwrap_or_default();
    (prompt.recalled, prompt.input) = (next, text.into());
}

fn prompt_changed(app: &mut App) -> Vec<Effect> {
    let Some(prompt) = &app.ui.prompt else { return Vec::new() };
    let text = prompt.input.value().to_owned();
    let fault = match prompt.kind {
        PromptKind::Filter => set_filter(app, &text),
        PromptKind::Search => {
            view::output::search(app, &text);
            None
        }
        PromptKind::Command | PromptKind::Input => None,
    };
    if let Some(prompt) = &mut app.ui.prompt {
        prompt.fault = fault;
    }
    Vec::new()
}

/// Filters the table that has the keys; gives back what is wrong with the text.
pub(crate) fn set_filter(app: &mut App, text: &str) -> Option<String> {
    let id = app.focused_table()?;
    let outcome = view::set_filter(app.ui.table_mut(id), id, text);
    if outcome.is_ok() {
        let table = app.ui.table_mut(id);
        table.touch();
        table.top = 0;
    }
    outcome.err()
}

/// Opens a line to type in.
pub(crate) fn prompt(app: &mut App, kind: PromptKind, text: &str) {
    app.ui.prompt = Some(Prompt { kind, input: text.to_owned().into(), fault: None, recalled: None });
}

/// Goes to a view.
pub(crate) fn go(app: &mut App, view: View) -> Vec<Effect> {
    if view != app.ui.view {
        app.ui.last_view = app.ui.view;
        app.ui.view = view;
        app.ui.zoomed = false;
    }
    Vec::new()
}

/// Opens something in the view where it belongs.
pub(crate) fn open(app: &mut App, place: Place) {
    let view = match place {
        Place::Overview => View::Overview,
        Place::Nodes | Place::Node(_) => View::Nodes,
        Place::Jobs | Place::Job(_) | Place::Output(_) => View::Jobs,
        Place::Events => View::Events,
        Place::Account => View::Account,
        Place::Access => View::Access,
    };
    go(app, view);
    app.ui.zoomed = false;
    match &place {
        Place::Node(node) => {
            app.ui.table_mut(TableId::Nodes).select_id(&RowId::Node(node.clone()));
        }
        Place::Job(job) | Place::Output(job) => {
            app.ui.table_mut(TableId::Jobs).select_id(&RowId::Job(*job));
        }
        Place::Overview | Place::Nodes | Place::Jobs | Place::Events | Place::Account | Place::Access => {}
    }
    let opened = app.ui.opened.entry(view).or_default();
    if place == view.root() {
        opened.clear();
    } else if opened.last() != Some(&place) {
        opened.push(place);
    }
}

/// Opens what a row is about.
pub(crate) fn open_row(app: &mut App, row: &RowId) -> Vec<Effect> {
    match row {
        RowId::Job(job) => open(app, Place::Job(*job)),
        RowId::Node(node) => open(app, Place::Node(node.clone())),
        RowId::Event(number) => {
            let event = app.mirror.events.iter().find(|event| event.number == *number).cloned();
            match event {
                Some(event) if event.job.is_some() => open(app, Place::Job(event.job.expect("just looked at"))),
                Some(event) if event.node.is_some() => open(app, Place::Node(event.node.expect("just looked at"))),
                Some(_) => open(app, Place::Account),
                None => {}
            }
        }
        RowId::Entry(number, kind) => {
            let mut entries = app.mirror.ledger.iter();
            let entry = entries.find(|entry| entry.number == *number && entry.kind == *kind);
            if let Some(job) = entry.and_then(|entry| entry.job) {
                open(app, Place::Job(job));
            }
        }
        RowId::Identity(_) | RowId::Token(_) => view::access::open(app, row),
    }
    Vec::new()
}

/// Does what a key means.
pub(crate) fn perform(app: &mut App, action: Action) -> Vec<Effect> {
    match action {
        Action::ViewOverview => go(app, View::Overview),
        Action::ViewNodes => go(app, View::Nodes),
        Action::ViewJobs => go(app, View::Jobs),
        Action::ViewEvents => go(app, View::Events),
        Action::ViewAccount => go(app, View::Account),
        Action::ViewAccess => go(app, View::Access),
        Action::LastView => {
            let view = app.ui.last_view;
            go(app, view)
        }
        Action::NextPane | Action::PreviousPane => {
            next_pane(app, action == Action::NextPane);
            Vec::new()
        }
        Action::Back => back(app),
        Action::Command => {
            prompt(app, PromptKind::Command, "");
            Vec::new()
        }
        Action::Palette => {
            view::palette::open_palette(app);
            Vec::new()
        }
        Action::Help => {
            app.ui.overlay = Some(Overlay::Help(view::help::Help::default()));
            Vec::new()
        }
        Action::Log => {
            view::reader::open_log(app);
            Vec::new()
        }
        Action::Pause => {
            app.ui.paused = match app.ui.paused.take() {
                Some(_) => None,
                None => Some((Box::new(app.mirror.clone()), 0)),
            };
            Vec::new()
        }
        Action::Times => {
            (app.ui.times, app.ui.utc) = match (app.ui.times, app.ui.utc) {
                (Times::Ago, _) => (Times::Clock, false),
                (Times::Clock, false) => (Times::Clock, true),
                (Times::Clock, true) => (Times::Ago, false),
            };
            Vec::new()
        }
        Action::Export => view::export::export(app),
        Action::Zoom => view::zoom(app),
        Action::Reconnect => vec![Effect::Send(ToLive::Reconnect)],
        Action::Theme => {
            view::picker::open_themes(app);
            Vec::new()
        }
        Action::Repaint => vec![Effect::Repaint],
        Action::Suspend => vec![Effect::Suspend],
        Action::Quit => vec![Effect::Quit(crate::exit::OK)],
        Action::Interrupt => interrupt(app),
        Action::NewJob => view::form::new_job(app),
        Action::RunAgain => view::form::run_again(app),
        Action::SampleJob => view::form::sample(app),
        Action::Cancel => act::cancel(app),
        Action::Cordon => act::cordon(app),
        Action::Drain => act::drain(app),
        Action::Resume => act::resume(app),
        Action::Explain => view::job::explain(app),
        Action::Output => {
            if let Some(job) = act::target_jobs(app).first() {
                open(app, Place::Output(*job));
            }
            Vec::new()
        }
        Action::Mine => {
            app.ui.mine = !app.ui.mine;
            touch(app, &[TableId::Jobs, TableId::Events]);
            app.toast(Tone::Info, if app.ui.mine { "only mine" } else { "all" });
            Vec::new()
        }
        Action::Ended => {
            app.ui.ended = !app.ui.ended;
            touch(app, &[TableId::Jobs]);
            app.toast(Tone::Info, if app.ui.ended { "ended jobs too" } else { "only jobs that have not ended" });
            Vec::new()
        }
        Action::Hide => view::overview::hide(app),
        Action::Credit => view::form::credit(app),
        Action::TokenCreate => view::form::token(app),
        Action::TokenRevoke => view::access::revoke_token(app),
        Action::Revoke => view::access::revoke_member(app),
        Action::Follow
        | Action::Wrap
        | Action::Timestamps
        | Action::Streams
        | Action::MarkLine
        | Action::Input
        | Action::Search
        | Action::SearchNext
        | Action::SearchPrevious => view::output::perform(app, action),
        Action::Down
        | Action::Up
        | Action::First
        | Action::Last
        | Action::HalfPageDown
        | Action::HalfPageUp
        | Action::PageDown
        | Action::PageUp
        | Action::Left
        | Action::Right
        | Action::Open
        | Action::Filter
        | Action::Sort
        | Action::Reverse
        | Action::SortLeft
        | Action::SortRight
        | Action::Columns
        | Action::Mark
        | Action::MarkAll
        | Action::CopyId
        | Action::CopyJson => match app.focused_table() {
            Some(id) => in_table(app, id, action),
            None => view::in_text(app, action),
        },
    }
}

fn touch(app: &mut App, tables: &[TableId]) {
    for id in tables {
        app.ui.table_mut(*id).touch();
    }
}

fn next_pane(app: &mut App, forward: bool) {
    let layout = app.layout();
    let panes = layout.panes.len();
    let mut pane = app.focus();
    for _ in 0..panes {
        pane = if forward { (pane + 1) % panes } else { (pane + panes - 1) % panes };
        if layout.shows(pane) && view::takes_keys(&app.place(), pane) {
            break;
        }
    }
    let view = app.ui.view;
    app.ui.focus.insert(view, pane);
}

/// Closes what is nearest: a filter, marks, a search, what was opened. Never leaves the console.
fn back(app: &mut App) -> Vec<Effect> {
    if let Some(id) = app.focused_table() {
        let table = app.ui.table_mut(id);
        if !table.filter.is_empty() {
            set_filter(app, "");
            return Vec::new();
        }
        if !table.marks.is_empty() {
            table.marks.clear();
            return Vec::new();
        }
    }
    if view::output::clear_search(app) {
        return Vec::new();
    }
    if app.ui.zoomed {
        app.ui.zoomed = false;
        return Vec::new();
    }
    let view = app.ui.view;
    app.ui.opened.entry(view).or_default().pop();
    Vec::new()
}

fn in_table(app: &mut App, id: TableId, action: Action) -> Vec<Effect> {
    let layout = app.layout();
    let pane = app.focus();
    let page = isize::try_from(layout.inner(pane).height.saturating_sub(1).max(1)).unwrap_or(1);
    let columns = view::column_count(id);
    let table = app.ui.table_mut(id);
    match action {
        Action::Down => table.step(1),
        Action::Up => table.step(-1),
        Action::First => table.select(0),
        Action::Last => table.select(usize::MAX),
        Action::HalfPageDown => table.step(page / 2),
        Action::HalfPageUp => table.step(-(page / 2)),
        Action::PageDown => table.step(page),
        Action::PageUp => table.step(-page),
        Action::Left => table.scrolled = table.scrolled.saturating_sub(1),
        Action::Right => table.scrolled = (table.scrolled + 1).min(columns.saturating_sub(2)),
        Action::Reverse => {
            table.descending = !table.descending;
            table.touch();
        }
        Action::SortLeft | Action::SortRight => {
            let step = if action == Action::SortRight { 1 } else { columns - 1 };
            table.sort = (table.sort + step) % columns;
            table.touch();
        }
        Action::Columns => {
            table.width = table.width.next();
            table.scrolled = 0;
            table.touch();
            let word = table.width.word();
            app.toast(Tone::Info, format!("columns: {word}"));
        }
        Action::Mark => {
            if let Some(selected) = table.selected.clone() {
                if !table.marks.remove(&selected) {
                    table.marks.insert(selected);
                }
                table.step(1);
            }
        }
        Action::MarkAll => {
            if table.marks.is_empty() {
                table.marks = table.order.iter().cloned().collect();
            } else {
                table.marks.clear();
            }
        }
        Action::Open => {
            if let Some(row) = table.selected.clone() {
                return open_row(app, &row);
            }
        }
        Action::Filter => {
            let text = table.filter.text.clone();
            prompt(app, PromptKind::Filter, &text);
        }
        Action::Sort => view::picker::open_sort(app, id),
        Action::CopyId => {
            let ids: Vec<String> = table.targets().iter().map(view::copied).collect();
            return copy(app, &ids.join("\n"), &format!("{} copied", ids.join(" ")));
        }
        Action::CopyJson => {
            let rows = table.targets();
            let text = view::json(app, &rows);
            return copy(app, &text, "copied as JSON");
        }
        _ => {}
    }
    Vec::new()
}

/// Copies a text and says so.
pub(crate) fn copy(app: &mut App, text: &str, said: &str) -> Vec<Effect> {
    if text.is_empty() {
        return Vec::new();
    }
    app.toast(Tone::Info, said);
    vec![Effect::Copy(text.to_owned())]
}

/// A question that nobody need hear the answer of: it goes into the mirror.
pub(crate) fn quietly(app: &mut App, request: impl Into<modchain_wire::FromConsole>) -> Effect {
    let id = app.ask(Ask { what: String::new(), edit: None, about: None });
    Effect::Send(ToLive::Ask(id, Box::new(request.into())))
}
