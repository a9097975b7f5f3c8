//! One node: its GPUs, five minutes of them, facts, its jobs.

use modchain_types::Name;
use ratatui::Frame;

use super::super::app::{App, Ctx};
use super::super::keys::Action;
use super::super::layout::Layout;
use super::super::msg::Effect;
use super::Title;

/// Draws it.
pub(crate) fn draw(_app: &App, ctx: &Ctx<'_>, layout: &Layout, frame: &mut Frame<'_>, name: &Name) {
    super::pane(ctx, layout, 0, frame, Title { left: name.as_str(), right: "", focused: true });
}

/// Moves in it.
pub(crate) fn perform(_app: &mut App, _action: Action) -> Vec<Effect> {
    Vec::new()
}
