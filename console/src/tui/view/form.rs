//! Forms: a new job, a token, a credit. A form makes a command line, and what that means is what it does.

use modchain_wire::ToConsole;
use ratatui::Frame;

use super::super::app::{App, Ask, Ctx};
use super::super::layout::Layout;
use super::super::msg::Effect;
use crate::cli::spec::Plan;
use crate::exit::Failure;

/// A form while it is open.
#[derive(Debug)]
pub(crate) struct Form {}

/// Opens the form of a new job.
pub(crate) fn new_job(_app: &mut App) -> Vec<Effect> {
    Vec::new()
}

/// Opens it filled in from the job that is selected.
pub(crate) fn run_again(_app: &mut App) -> Vec<Effect> {
    Vec::new()
}

/// Runs the sample job at once.
pub(crate) fn sample(_app: &mut App) -> Vec<Effect> {
    Vec::new()
}

/// Opens the form of a credit.
pub(crate) fn credit(_app: &mut App) -> Vec<Effect> {
    Vec::new()
}

/// Opens the form of a token.
pub(crate) fn token(_app: &mut App) -> Vec<Effect> {
    Vec::new()
}

/// A command line was looked at.
pub(crate) fn planned(_app: &mut App, _edit: u64, _plan: Result<Plan, Failure>) -> Vec<Effect> {
    Vec::new()
}

/// An editor was closed.
pub(crate) fn edited(_app: &mut App, _text: Result<String, Failure>) -> Vec<Effect> {
    Vec::new()
}

/// An answer came that may be the form's.
pub(crate) fn answered(_app: &mut App, _ask: &Ask, _reply: &Result<Box<ToConsole>, Failure>) -> Vec<Effect> {
    Vec::new()
}

/// Its time has come: what was typed is looked at.
pub(crate) fn due(_app: &mut App) -> Vec<Effect> {
    Vec::new()
}

/// When that is.
pub(crate) fn deadline(_app: &App) -> Option<u64> {
    None
}

/// Text was pasted.
pub(crate) fn paste(_app: &mut App, _text: &str) -> Vec<Effect> {
    Vec::new()
}

/// Takes a key.
pub(crate) fn key(app: &mut App, _key: &str) -> Vec<Effect> {
    app.ui.overlay = None;
    Vec::new()
}

/// Its keys.
pub(crate) fn hints(_form: &Form) -> Vec<(&'static str, &'static str)> {
    vec![("Esc", "close")]
}

/// Draws it.
pub(crate) fn draw(_app: &App, ctx: &Ctx<'_>, layout: &Layout, frame: &mut Frame<'_>, _form: &Form) {
    super::dialog(ctx, layout, frame, (60, 12), "New job");
}
