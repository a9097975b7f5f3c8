//! A choice among a few: the column to sort by, a theme, a context.

use ratatui::Frame;
use ratatui::text::Line;
use ratatui::widgets::Paragraph;

use super::super::app::{App, Ctx, Overlay};
use super::super::layout::Layout;
use super::super::msg::Effect;
use super::super::table::TableId;
use super::super::theme::{Role, Theme, ThemeName};

/// The choice while it is open.
#[derive(Debug)]
pub(crate) struct Picker {
    title: &'static str,
    items: Vec<(String, Choice)>,
    selected: usize,
    /// What it was before: Esc brings it back.
    before: Option<Choice>,
}

/// What is chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Choice {
    Sort(TableId, usize),
    Theme(ThemeName),
    Context(String),
}

/// Opens the choice of the column to sort by.
pub(crate) fn open_sort(app: &mut App, id: TableId) {
    let names = super::column_names(id);
    let items = names.iter().enumerate().map(|(place, (_, title))| ((*title).to_owned(), Choice::Sort(id, place)));
    let selected = app.ui.table(id).sort;
    app.ui.overlay = Some(Overlay::Picker(Picker { title: "Sort by", items: items.collect(), selected, before: None }));
}

/// Opens the choice of a theme; each is shown as it is looked at.
pub(crate) fn open_themes(app: &mut App) {
    let items = ThemeName::ALL.iter().map(|name| (name.word().to_owned(), Choice::Theme(*name)));
    let selected = ThemeName::ALL.iter().position(|name| *name == app.ui.theme.name).unwrap_or(0);
    let before = Some(Choice::Theme(app.ui.theme.name));
    app.ui.overlay = Some(Overlay::Picker(Picker { title: "Theme", items: items.collect(), selected, before }));
}

/// Opens the choice of a context.
pub(crate) fn open_contexts(app: &mut App) {
    let names = app.caps.contexts.clone();
    let selected = names.iter().position(|name| *name == app.caps.context).unwrap_or(0);
    let items = names.into_iter().map(|name| (name.clone(), Choice::Context(name)));
    app.ui.overlay = Some(Overlay::Picker(Picker { title: "Context", items: items.collect(), selected, before: None }));
}

/// Takes a key.
pub(crate) fn key(app: &mut App, key: &str) -> Vec<Effect> {
    let Some(Overlay::Picker(picker)) = &mut app.ui.overlay else { return Vec::new() };
    let last = picker.items.len().saturating_sub(1);
    match key {
        "j" | "Down" => picker.selected = (picker.selected + 1).min(last),
        "k" | "Up" => picker.selected = picker.selected.saturating_sub(1),
        "g" | "Home" => picker.selected = 0,
        "G" | "End" => picker.selected = last,
        "Esc" | "q" => {
            if let Some(Choice::Theme(name)) = picker.before {
                app.ui.theme = Theme { name };
            }
            app.ui.overlay = None;
            return Vec::new();
        }
        "Enter" => {
            let choice = picker.items.get(picker.selected).map(|(_, choice)| choice.clone());
            app.ui.overlay = None;
            return choice.map(|choice| choose(app, choice)).unwrap_or_default();
        }
        _ => return Vec::new(),
    }
    if let Some((_, Choice::Theme(name))) = picker.items.get(picker.selected) {
        app.ui.theme = Theme { name: *name };
    }
    Vec::new()
}

fn choose(app: &mut App, choice: Choice) -> Vec<Effect> {
    match choice {
        Choice::Sort(id, place) => {
            let table = app.ui.table_mut(id);
            (table.descending, table.sort) = (table.sort == place && !table.descending, place);
            table.touch();
            Vec::new()
        }
        Choice::Theme(name) => {
            app.ui.theme = Theme { name };
            Vec::new()
        }
        Choice::Context(name) => vec![Effect::UseContext(name)],
    }
}

/// Draws it.
pub(crate) fn draw(ctx: &Ctx<'_>, layout: &Layout, frame: &mut Frame<'_>, picker: &Picker) {
    let width = picker.items.iter().map(|(name, _)| name.len()).max().unwrap_or(0).max(24);
    let height = u16::try_from(picker.items.len()).unwrap_or(u16::MAX);
    let inner = super::dialog(ctx, layout, frame, (u16::try_from(width + 2).unwrap_or(40), height), picker.title);
    let rows = usize::from(inner.height).max(1);
    let top = picker.selected.saturating_sub(rows - 1);
    let lines: Vec<Line<'_>> = picker
        .items
        .iter()
        .enumerate()
        .skip(top)
        .take(rows)
        .map(|(place, (name, _))| {
            let line = format!("{}{}", if place == picker.selected { "> " } else { "  " }, crate::text::one_line(name));
            let role = if place == picker.selected { Role::Selected } else { Role::Text };
            Line::styled(line, ctx.theme.style(role))
        })
        .collect();
    frame.render_widget(Paragraph::new(lines), inner);
}
