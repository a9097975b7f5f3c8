//! The keys that hold here, from the one table; what is typed searches them.

use ratatui::Frame;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::super::app::{App, Ctx, Overlay};
use super::super::keys::{BINDINGS, Scope};
use super::super::layout::Layout;
use super::super::msg::Effect;
use super::super::theme::Role;
use super::super::update::type_into;

/// The help while it is open.
#[derive(Debug, Default)]
pub(crate) struct Help {
    /// What is looked for.
    pub(crate) search: tui_input::Input,
    /// Lines that are scrolled away.
    pub(crate) top: usize,
}

/// Takes a key.
pub(crate) fn key(app: &mut App, key: &str) -> Vec<Effect> {
    let Some(Overlay::Help(help)) = &mut app.ui.overlay else { return Vec::new() };
    match key {
        "Esc" | "?" => app.ui.overlay = None,
        "q" if help.search.value().is_empty() => app.ui.overlay = None,
        "Down" | "PgDn" => help.top += if key == "Down" { 1 } else { 10 },
        "Up" | "PgUp" => help.top = help.top.saturating_sub(if key == "Up" { 1 } else { 10 }),
        key => {
            type_into(&mut help.search, key);
            help.top = 0;
        }
    }
    Vec::new()
}

/// The lines: what holds here first, everything else after it.
fn lines(app: &App, ctx: &Ctx<'_>, search: &str) -> Vec<Line<'static>> {
    let here = app.scopes();
    let others = Scope::ALL.iter().filter(|scope| !here.contains(scope));
    let wanted = search.to_lowercase();
    let mut lines = Vec::new();
    for (position, scope) in here.iter().chain(others).enumerate() {
        let fits = |text: &str| text.to_lowercase().contains(&wanted);
        let rows: Vec<Line<'static>> = BINDINGS
            .iter()
            .filter(|binding| binding.scope == *scope)
            .filter_map(|binding| {
                let keys = app.caps.keymap.keys(*scope, binding.action).join(", ");
                let shown = fits(&keys) || fits(binding.help) || fits(scope.title());
                shown.then(|| {
                    let asks = if binding.dangerous { "  !" } else { "" };
                    Line::from(vec![
                        Span::styled(format!("  {keys:<16}"), ctx.theme.style(Role::Key)),
                        Span::raw(format!("{}{asks}", binding.help)),
                    ])
                })
            })
            .collect();
        if rows.is_empty() {
            continue;
        }
        if position > 0 {
            lines.push(Line::default());
        }
        lines.push(Line::styled(scope.title(), ctx.theme.style(Role::Title)));
        lines.extend(rows);
    }
    lines.push(Line::default());
    lines.push(Line::styled("! asks first", ctx.theme.style(Role::Dim)));
    lines
}

/// Draws it.
pub(crate) fn draw(app: &App, ctx: &Ctx<'_>, layout: &Layout, frame: &mut Frame<'_>, help: &Help) {
    let search = help.search.value();
    let lines = lines(app, ctx, search);
    let title = if search.is_empty() { "Keys".to_owned() } else { format!("Keys with `{search}`") };
    let height = layout.body.height.saturating_sub(2);
    let inner = super::dialog(ctx, layout, frame, (56, height), &title);
    let top = help.top.min(lines.len().saturating_sub(usize::from(inner.height)));
    let shown: Vec<Line<'static>> = lines.into_iter().skip(top).take(usize::from(inner.height)).collect();
    frame.render_widget(Paragraph::new(shown), inner);
}
