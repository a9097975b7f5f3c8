//! What the console does when its user wants it: goes somewhere, opens something, changes how it is looked at.

use super::super::act;
use super::super::app::{App, Ask, Overlay, Place, Prompt, PromptKind, Times, Tone, View};
use super::super::keys::Action;
use super::super::msg::Effect;
use super::super::table::{RowId, TableId};
use super::super::view;
use super::typed::interrupt;
use crate::client::live::ToLive;

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
fn open_row(app: &mut App, row: &RowId) -> Vec<Effect> {
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

pub(super) fn touch(app: &mut App, tables: &[TableId]) {
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
