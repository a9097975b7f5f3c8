//! The palette, and the commands of the `:` prompt.

use ratatui::Frame;

use super::super::app::{App, Ctx, Tone};
use super::super::layout::Layout;
use super::super::msg::Effect;

/// The palette while it is open.
#[derive(Debug, Default)]
pub(crate) struct Palette {}

/// Takes a key.
pub(crate) fn key(app: &mut App, _key: &str) -> Vec<Effect> {
    app.ui.overlay = None;
    Vec::new()
}

/// Does what was typed after `:`.
pub(crate) fn command(app: &mut App, text: &str) -> Vec<Effect> {
    match text.trim() {
        "q" | "quit" => vec![Effect::Quit(crate::exit::OK)],
        other => {
            app.toast(Tone::Bad, format!("there is no command `{other}`"));
            Vec::new()
        }
    }
}

/// Completes what was typed after `:`.
pub(crate) fn complete(_app: &mut App) {}

/// What could complete it.
pub(crate) fn offers(_app: &App, _text: &str) -> Vec<String> {
    Vec::new()
}

/// Draws it.
pub(crate) fn draw(_app: &App, ctx: &Ctx<'_>, layout: &Layout, frame: &mut Frame<'_>, _palette: &Palette) {
    super::dialog(ctx, layout, frame, (60, 12), "Find");
}
