//! What there is, what is wrong, what runs, what it costs, what happened.

use modchain_types::JobId;
use ratatui::Frame;

use super::super::app::{App, Ctx};
use super::super::keys::Action;
use super::super::layout::Layout;
use super::super::msg::Effect;
use super::super::table::{RowId, TableId};
use super::events::Events;
use super::jobs::Jobs;

/// The job that is selected here.
pub(crate) fn selected_job(app: &App) -> Option<JobId> {
    if let Some(RowId::Job(job)) = &app.ui.table(TableId::Jobs).selected { Some(*job) } else { None }
}

/// Draws the five panes.
pub(crate) fn draw(app: &App, ctx: &Ctx<'_>, layout: &Layout, frame: &mut Frame<'_>) {
    super::draw_table::<Jobs>(app, ctx, layout, 2, frame);
    super::draw_table::<Events>(app, ctx, layout, 4, frame);
}

/// Hides the selected problem until it changes.
pub(crate) fn hide(_app: &mut App) -> Vec<Effect> {
    Vec::new()
}

/// Moves among the problems.
pub(crate) fn in_problems(_app: &mut App, _action: Action) -> Vec<Effect> {
    Vec::new()
}
