//! One job: what it is, where it ran, what it cost, and why it is where it is.

use modchain_types::JobId;
use ratatui::Frame;

use super::super::app::{App, Ctx};
use super::super::keys::Action;
use super::super::layout::Layout;
use super::super::msg::Effect;
use super::Title;

/// Draws it.
pub(crate) fn draw(_app: &App, ctx: &Ctx<'_>, layout: &Layout, frame: &mut Frame<'_>, id: JobId) {
    super::pane(ctx, layout, 0, frame, Title { left: &id.short(), right: "", focused: true });
}

/// Moves in it.
pub(crate) fn perform(_app: &mut App, _action: Action) -> Vec<Effect> {
    Vec::new()
}

/// Asks why it is where it is.
pub(crate) fn explain(_app: &mut App) -> Vec<Effect> {
    Vec::new()
}
