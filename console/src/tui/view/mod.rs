//! What is on the screen. Every view draws from the [`App`] alone; what it needs asked for is in [`follow`].

pub(crate) mod access;
pub(crate) mod account;
pub(crate) mod chrome;
pub(crate) mod confirm;
pub(crate) mod events;
pub(crate) mod export;
pub(crate) mod first;
pub(crate) mod follow;
pub(crate) mod form;
pub(crate) mod help;
pub(crate) mod job;
pub(crate) mod jobs;
pub(crate) mod known;
pub(crate) mod node;
pub(crate) mod nodes;
pub(crate) mod output;
pub(crate) mod overview;
pub(crate) mod palette;
pub(crate) mod picker;
pub(crate) mod reader;

use std::collections::BTreeMap;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::Line;
use ratatui::widgets::{Block, Clear, Paragraph, Widget};

use super::app::{App, Ctx, Overlay, Place};
use super::keys::{Action, Scope};
use super::layout::{COLUMNS_MIN, Layout, ROWS_MIN, Tier};
use super::msg::Effect;
use super::table::{self, RowId, Source, TableId, TableUi};
use super::theme::Role;

/// Runs an expression for the source of a table.
macro_rules! with_source {
    ($id:expr, $source:ident => $body:expr) => {
        match $id {
            TableId::Jobs => {
                type $source = jobs::Jobs;
                $body
            }
            TableId::Running => {
                type $source = overview::Running;
                $body
            }
            TableId::Nodes => {
                type $source = nodes::Nodes;
                $body
            }
            TableId::Events => {
                type $source = events::Events;
                $body
            }
            TableId::Ledger => {
                type $source = account::Ledger;
                $body
            }
            TableId::Identities => {
                type $source = access::Identities;
                $body
            }
            TableId::Tokens => {
                type $source = access::Tokens;
                $body
            }
        }
    };
}

/// Every table as it is at the start.
pub(crate) fn tables() -> BTreeMap<TableId, TableUi> {
    TableId::ALL.iter().map(|id| (*id, with_source!(*id, S => TableUi::new::<S>()))).collect()
}

/// Which table a pane shows.
pub(crate) fn table_of(place: &Place, pane: usize) -> Option<TableId> {
    match (place, pane) {
        (Place::Nodes, 0) => Some(TableId::Nodes),
        (Place::Jobs, 0) => Some(TableId::Jobs),
        (Place::Overview, 2) => Some(TableId::Running),
        (Place::Events, 0) | (Place::Overview, 4) => Some(TableId::Events),
        (Place::Account, 2) => Some(TableId::Ledger),
        (Place::Access, 0) => Some(TableId::Identities),
        (Place::Access, 1) => Some(TableId::Tokens),
        _ => None,
    }
}

/// Whether a pane can have the keys.
pub(crate) fn takes_keys(place: &Place, pane: usize) -> bool {
    table_of(place, pane).is_some()
        || matches!(
            (place, pane),
            (Place::Jobs, 1) | (Place::Overview, 1) | (Place::Job(_) | Place::Output(_) | Place::Node(_), 0)
        )
}

/// The pane that has the keys at first.
pub(crate) fn first_focus(place: &Place) -> usize {
    match place {
        Place::Overview | Place::Account => 2,
        Place::Nodes
        | Place::Node(_)
        | Place::Jobs
        | Place::Job(_)
        | Place::Output(_)
        | Place::Events
        | Place::Access => 0,
    }
}

/// What keys may mean at a place, the nearest first.
pub(crate) fn scopes(place: &Place, pane: usize) -> Vec<Scope> {
    let own: &[Scope] = match (place, pane) {
        (Place::Overview, 2) => &[Scope::Jobs, Scope::Overview, Scope::List],
        (Place::Overview, _) => &[Scope::Overview, Scope::List],
        (Place::Nodes, _) => &[Scope::Nodes, Scope::List],
        (Place::Node(_), _) => &[Scope::Nodes, Scope::Text],
        (Place::Jobs, 0) => &[Scope::Jobs, Scope::List],
        (Place::Jobs, _) | (Place::Output(_), _) => &[Scope::Output, Scope::Text],
        (Place::Job(_), _) => &[Scope::Jobs, Scope::Text],
        (Place::Events, _) => &[Scope::Events, Scope::List],
        (Place::Account, _) => &[Scope::Account, Scope::List],
        (Place::Access, _) => &[Scope::Access, Scope::List],
    };
    own.iter().copied().chain([Scope::Global]).collect()
}

/// Whether a table's order is older than its rows, and the table is on the screen.
pub(crate) fn is_behind(app: &App, id: TableId) -> bool {
    let place = app.place();
    let shown = (0..place.shape().panes()).any(|pane| table_of(&place, pane) == Some(id));
    shown && with_source!(id, S => app.ui.table(id).is_behind(S::revision(app.shown())))
}

/// Makes a table's order anew.
pub(crate) fn arrange(app: &mut App, id: TableId) {
    // No row asks for its own table's state, so it may be out of its place meanwhile.
    let Some(mut table) = app.ui.tables.remove(&id) else { return };
    // What comes in at the top is seen as long as nobody has gone down.
    let newest = table.index() == 0 && matches!(id, TableId::Events | TableId::Ledger);
    with_source!(id, S => table.arrange::<S>(&app.ctx()));
    if newest {
        table.select(0);
    }
    app.ui.tables.insert(id, table);
}

/// Filters a table.
pub(crate) fn set_filter(table: &mut TableUi, id: TableId, text: &str) -> Result<(), String> {
    with_source!(id, S => table.filter.set::<S>(text))
}

/// How many columns a table has.
pub(crate) fn column_count(id: TableId) -> usize {
    with_source!(id, S => S::columns().len())
}

/// Titles and keys of a table's columns.
pub(crate) fn column_names(id: TableId) -> Vec<(&'static str, &'static str)> {
    with_source!(id, S => S::columns().iter().map(|column| (column.key, column.title)).collect())
}

/// What one row of a table is called, and several.
pub(crate) fn nouns(id: TableId) -> (&'static str, &'static str) {
    with_source!(id, S => S::NOUNS)
}

/// The column of a table under a column of the screen.
pub(crate) fn column_at(app: &App, id: TableId, inner: Rect, column: u16) -> Option<usize> {
    let table = app.ui.table(id);
    let shown = with_source!(id, S => table::fit(S::columns(), table.width, table.scrolled, inner.width));
    table::column_under(&shown, column.checked_sub(inner.x)?)
}

/// The titles of a table and all its rows, every column of them.
pub(crate) fn cells(app: &App, id: TableId) -> Vec<Vec<String>> {
    let ctx = app.ctx();
    let table = app.ui.table(id);
    with_source!(id, S => {
        let titles = S::columns().iter().map(|column| column.key.to_owned()).collect();
        let rows = table.order.iter().filter_map(|id| S::find(ctx.mirror, id)).map(|row| {
            S::columns().iter().map(|column| (column.cell)(&ctx, row, u16::MAX).to_string().trim().to_owned()).collect()
        });
        std::iter::once(titles).chain(rows).collect()
    })
}

/// What is copied of a row.
pub(crate) fn copied(row: &RowId) -> String {
    match row {
        RowId::Job(job) => job.to_string(),
        RowId::Node(node) => node.to_string(),
        RowId::Event(number) | RowId::Entry(number, _) => number.to_string(),
        RowId::Identity(id) => id.to_string(),
        RowId::Token(id) => id.to_string(),
    }
}

/// Rows as the JSON documents of the command line, one a line.
pub(crate) fn json(app: &App, rows: &[RowId]) -> String {
    rows.iter().filter_map(|row| export::document(app, row)).collect::<Vec<_>>().join("\n")
}

/// Gives the pane that has the keys the whole screen, or takes it back. A job's output has a place of its own.
pub(crate) fn zoom(app: &mut App) -> Vec<Effect> {
    match (app.place(), app.focus()) {
        (Place::Jobs, _) => super::update::perform(app, Action::Output),
        (Place::Output(_), _) => super::update::perform(app, Action::Back),
        _ => {
            app.ui.zoomed = !app.ui.zoomed;
            Vec::new()
        }
    }
}

/// What moves in a pane that is no table.
pub(crate) fn in_text(app: &mut App, action: Action) -> Vec<Effect> {
    match (app.place(), app.focus()) {
        (Place::Output(_), _) | (Place::Jobs, 1) => output::perform(app, action),
        (Place::Overview, 1) => overview::in_problems(app, action),
        (Place::Job(_), _) => job::perform(app, action),
        (Place::Node(_), _) => node::perform(app, action),
        _ => Vec::new(),
    }
}

/// Milliseconds until an age on the screen reads otherwise; `None` while none does.
pub(crate) fn next_age(app: &App) -> Option<u64> {
    match app.place() {
        Place::Jobs => jobs::next_age(app),
        Place::Overview => overview::next_age(app),
        Place::Job(job) | Place::Output(job) => jobs::next_age_of(app, job),
        Place::Events => events::next_age(app),
        Place::Nodes | Place::Node(_) | Place::Account | Place::Access => Some(MINUTE_MS),
    }
}

/// Ages of more than a minute change once a minute.
pub(crate) const MINUTE_MS: u64 = 60_000;

/// Draws everything.
pub(crate) fn draw(app: &App, frame: &mut Frame<'_>) {
    let layout = app.layout();
    if layout.tier == Tier::Tiny {
        let text = format!("needs {COLUMNS_MIN}x{ROWS_MIN}, is {}x{}", app.caps.columns, app.caps.rows);
        frame.render_widget(Paragraph::new(text), layout.body);
        return;
    }
    let ctx = app.ctx();
    chrome::draw(app, &ctx, &layout, frame);
    match app.place() {
        Place::Overview => overview::draw(app, &ctx, &layout, frame),
        Place::Nodes => nodes::draw(app, &ctx, &layout, frame),
        Place::Node(name) => node::draw(app, &ctx, &layout, frame, &name),
        Place::Jobs => jobs::draw(app, &ctx, &layout, frame),
        Place::Job(id) => job::draw(app, &ctx, &layout, frame, id),
        Place::Output(id) => output::draw(app, &ctx, &layout, frame, id),
        Place::Events => events::draw(app, &ctx, &layout, frame),
        Place::Account => account::draw(app, &ctx, &layout, frame),
        Place::Access => access::draw(app, &ctx, &layout, frame),
    }
    match &app.ui.overlay {
        Some(Overlay::Help(help)) => help::draw(app, &ctx, &layout, frame, help),
        Some(Overlay::Confirm(confirm)) => confirm::draw(app, &ctx, &layout, frame, confirm),
        Some(Overlay::Picker(picker)) => picker::draw(&ctx, &layout, frame, picker),
        Some(Overlay::Palette(palette)) => palette::draw(app, &ctx, &layout, frame, palette),
        Some(Overlay::Form(form)) => form::draw(app, &ctx, &layout, frame, form),
        Some(Overlay::Reader(reader)) => reader::draw(&ctx, &layout, frame, reader),
        None => {}
    }
}

/// Draws the frame of a pane and gives back its inside. `left` and `right` are its titles.
pub(crate) fn pane(ctx: &Ctx<'_>, layout: &Layout, pane: usize, frame: &mut Frame<'_>, title: Title<'_>) -> Rect {
    let area = layout.panes.get(pane).copied().unwrap_or_default();
    if area.is_empty() {
        return area;
    }
    if layout.tier.framed() {
        framed(ctx, area, frame, title);
    }
    layout.inner(pane)
}

/// What stands in the upper edge of a frame.
pub(crate) struct Title<'a> {
    /// What it is.
    pub(crate) left: &'a str,
    /// How much of it, in which order, how old.
    pub(crate) right: &'a str,
    /// Whether it has the keys.
    pub(crate) focused: bool,
}

/// Draws a frame.
pub(crate) fn framed(ctx: &Ctx<'_>, area: Rect, frame: &mut Frame<'_>, title: Title<'_>) {
    let role = if title.focused { Role::Focus } else { Role::Border };
    let mut block = Block::bordered().border_set(ctx.glyphs.border()).border_style(ctx.theme.style(role));
    let room = usize::from(area.width.saturating_sub(4));
    let left = table::prefix(title.left, room);
    if !left.is_empty() {
        block = block.title_top(Line::styled(format!(" {left} "), ctx.theme.style(Role::Title)));
    }
    let used = unicode_width::UnicodeWidthStr::width(left) + 3;
    if !title.right.is_empty() && unicode_width::UnicodeWidthStr::width(title.right) + used <= room {
        let right = Line::styled(format!(" {} ", title.right), ctx.theme.style(Role::Dim));
        block = block.title_top(right.right_aligned());
    }
    frame.render_widget(block, area);
}

/// Draws a table into a pane.
pub(crate) fn draw_table<S: Source>(app: &App, ctx: &Ctx<'_>, layout: &Layout, number: usize, frame: &mut Frame<'_>) {
    if !layout.shows(number) {
        return;
    }
    let table = app.ui.table(S::TABLE);
    let focused = app.focus() == number;
    let name = match S::TABLE {
        TableId::Ledger => "Ledger".to_owned(),
        _ => chrome::capital(S::NOUNS.1),
    };
    let order = S::columns()[table.sort].title;
    // Older ones come when one goes to the end.
    let more = if S::TABLE == TableId::Jobs && app.ui.ended && follow::has_older(app) { "+" } else { "" };
    let counted = if table.filter.is_empty() {
        format!("{}{more} {}", table.total, if table.total == 1 { S::NOUNS.0 } else { S::NOUNS.1 })
    } else {
        format!("{} of {}{more}", table.order.len(), table.total)
    };
    let state = match (app.mirror.is_stale(), app.mirror.mark.is_some()) {
        (true, true) => " · STALE",
        (false, true) if S::TABLE == TableId::Events && app.ui.paused.is_none() => " · live",
        (true | false, _) => "",
    };
    let mine = if app.ui.mine && matches!(S::TABLE, TableId::Jobs | TableId::Events) { " · mine" } else { "" };
    let marked = if table.marks.is_empty() { String::new() } else { format!(" · {} marked", table.marks.len()) };
    let right = ctx.glyphs.plain(&format!("{counted}{marked} · by {order}{mine}{state}"));
    let inner = pane(ctx, layout, number, frame, Title { left: &name, right: &right, focused });
    let lines = table::lines::<S>(ctx, table, inner, focused);
    frame.render_widget(Paragraph::new(lines), inner);
    if table.order.is_empty() && inner.height > 2 {
        let text = empty::<S>(app, table);
        let area = Rect { y: inner.y + 2, height: inner.height - 2, ..inner };
        let lines: Vec<Line<'static>> =
            text.into_iter().map(|line| Line::styled(format!("  {line}"), ctx.theme.style(Role::Dim))).collect();
        frame.render_widget(Paragraph::new(lines), area);
    }
}

/// What a table without rows says.
fn empty<S: Source>(app: &App, table: &TableUi) -> Vec<String> {
    let nouns = S::NOUNS.1;
    if app.mirror.mark.is_none() {
        return vec!["waiting for the orchestrator".to_owned()];
    }
    if !table.filter.is_empty() {
        return vec![
            format!("none of {} {nouns} fits `{}`", table.total, table.filter.text),
            "Esc clears the filter".to_owned(),
        ];
    }
    match S::TABLE {
        TableId::Identities if app.mirror.identities.is_none() => vec!["asking the orchestrator".to_owned()],
        TableId::Tokens if app.mirror.tokens.is_none() => vec!["asking the orchestrator".to_owned()],
        TableId::Jobs => [vec!["no jobs yet".to_owned()], first::invitation(app)].concat(),
        TableId::Running => [vec!["nothing runs now".to_owned()], first::invitation(app)].concat(),
        TableId::Nodes => vec!["no nodes yet".to_owned(), "modchain token create --role node lets one join".to_owned()],
        TableId::Events | TableId::Ledger | TableId::Identities | TableId::Tokens => vec![format!("no {nouns} yet")],
    }
}

/// Takes away what is in a rectangle that something else is drawn into.
pub(crate) fn clear(frame: &mut Frame<'_>, area: Rect) {
    let buffer = frame.buffer_mut();
    Clear.render(area, buffer);
    // A wide character that begins before the edge would cover it.
    for row in area.rows().filter(|row| row.x > 0) {
        let cell = &mut buffer[(row.x - 1, row.y)];
        if unicode_width::UnicodeWidthStr::width(cell.symbol()) > 1 {
            cell.set_symbol(" ");
        }
    }
}

/// Clears a rectangle in the middle of the body and frames it.
pub(crate) fn dialog(ctx: &Ctx<'_>, layout: &Layout, frame: &mut Frame<'_>, size: (u16, u16), title: &str) -> Rect {
    let area = super::layout::centred(layout.body, size.0 + 4, size.1 + 2);
    clear(frame, area);
    let block = Block::bordered()
        .border_set(ctx.glyphs.double_border())
        .border_style(ctx.theme.style(Role::Focus))
        .title_top(Line::styled(format!(" {title} "), ctx.theme.style(Role::Title)));
    let inner = block.inner(area);
    frame.render_widget(block, area);
    Rect { x: inner.x + 1, width: inner.width.saturating_sub(2), ..inner }
}
