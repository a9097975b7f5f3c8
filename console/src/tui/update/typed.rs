//! What keys, the mouse, pasted text and typed lines mean.

use super::super::act::{self, Demand};
use super::super::app::{App, Overlay, PromptKind, Tone};
use super::super::keys::{Action, Found};
use super::super::msg::{Effect, Mouse};
use super::super::view;
use super::{go, perform, set_filter};

/// Time for the second Ctrl-C.
const QUIT_MS: u64 = 2_000;
/// Lines that a prompt remembers.
const HISTORY_MAX: usize = 100;

pub(super) fn on_paste(app: &mut App, text: &str) -> Vec<Effect> {
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

pub(super) fn on_mouse(app: &mut App, mouse: Mouse) -> Vec<Effect> {
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

pub(super) fn on_key(app: &mut App, key: &str) -> Vec<Effect> {
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
pub(super) fn interrupt(app: &mut App) -> Vec<Effect> {
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
