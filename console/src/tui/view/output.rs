//! A job's output: followed, paused, searched.

use modchain_types::JobId;
use ratatui::Frame;
use ratatui::text::Line;

use super::super::app::{App, Ctx};
use super::super::keys::Action;
use super::super::layout::Layout;
use super::super::msg::Effect;
use super::Title;

/// How one output is looked at.
#[derive(Debug, Default)]
pub(crate) struct OutputUi {}

/// Draws the output of the selected job below the table.
pub(crate) fn draw_below(_app: &App, ctx: &Ctx<'_>, layout: &Layout, frame: &mut Frame<'_>) {
    super::pane(ctx, layout, 1, frame, Title { left: "output", right: "", focused: false });
}

/// Draws the output of one job on the whole screen.
pub(crate) fn draw(_app: &App, ctx: &Ctx<'_>, layout: &Layout, frame: &mut Frame<'_>, id: JobId) {
    super::pane(ctx, layout, 0, frame, Title { left: &id.short(), right: "", focused: true });
}

/// Brings what is shown up to date with what has come.
pub(crate) fn settle(_app: &mut App) {}

/// What the last line but one says of the output that is shown.
pub(crate) fn status(_app: &App, _ctx: &Ctx<'_>) -> Option<Line<'static>> {
    None
}

/// Does what a key means in the output.
pub(crate) fn perform(_app: &mut App, _action: Action) -> Vec<Effect> {
    Vec::new()
}

/// Looks for a text while it is typed; gives back what is wrong with it.
pub(crate) fn search(_app: &mut App, _text: &str) -> Option<String> {
    None
}

/// Goes to the next find, or the one before.
pub(crate) fn search_next(_app: &mut App, _backwards: bool) {}

/// Ends a search; tells whether there was one.
pub(crate) fn clear_search(_app: &mut App) -> bool {
    false
}

/// Sends a line to the job's standard input.
pub(crate) fn send_line(_app: &mut App, _text: &str) -> Vec<Effect> {
    Vec::new()
}

/// Ends the job's standard input.
pub(crate) fn end_input(_app: &mut App) -> Vec<Effect> {
    Vec::new()
}
