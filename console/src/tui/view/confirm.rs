//! The question before something that cannot be taken back. `N` has the focus: Enter means no.

use ratatui::Frame;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::super::act::{Confirm, Demand};
use super::super::app::{App, Ctx};
use super::super::command;
use super::super::layout::Layout;
use super::super::theme::Role;

/// Columns of the text.
const WIDTH: u16 = 64;

/// Draws it.
pub(crate) fn draw(app: &App, ctx: &Ctx<'_>, layout: &Layout, frame: &mut Frame<'_>, confirm: &Confirm) {
    let mut lines: Vec<Line<'_>> = vec![Line::default()];
    lines.extend(confirm.lines.iter().map(|line| Line::from(ctx.glyphs.plain(line))));
    lines.push(Line::default());
    let shown = command::shown(&confirm.command);
    lines.push(Line::styled(ctx.glyphs.plain(&shown), ctx.theme.style(Role::Dim)));
    lines.push(Line::default());
    lines.push(match (confirm.moot(app), &confirm.demand) {
        (Some(why), _) => Line::styled(format!("{why}.  [ Esc  close ]"), ctx.theme.style(Role::Warn)),
        (None, Demand::Yes) => Line::from(vec![
            Span::raw(format!("[ y  {} ]    ", confirm.yes)),
            Span::styled("[ N  leave it ]", ctx.theme.style(Role::Selected)),
        ]),
        (None, Demand::Type(wanted)) => Line::from(vec![
            Span::raw(format!("type {wanted} and Enter to {}: ", confirm.yes)),
            Span::styled(confirm.typed.value().to_owned(), ctx.theme.style(Role::Key)),
            Span::styled(" ", ctx.theme.style(Role::Selected)),
        ]),
    });
    lines.push(Line::default());
    let width = lines.iter().map(Line::width).max().unwrap_or(0).clamp(usize::from(WIDTH / 2), usize::from(WIDTH));
    let width = u16::try_from(width).unwrap_or(WIDTH);
    let wrapped: u16 =
        lines.iter().map(|line| u16::try_from(line.width().max(1).div_ceil(usize::from(width))).unwrap_or(1)).sum();
    let inner = super::dialog(ctx, layout, frame, (width, wrapped), &confirm.title);
    frame.render_widget(Paragraph::new(lines).wrap(ratatui::widgets::Wrap { trim: false }), inner);
}

/// Its keys.
pub(crate) fn hints<'a>(app: &App, confirm: &'a Confirm) -> Vec<(&'a str, &'a str)> {
    match (&confirm.demand, confirm.moot(app)) {
        (_, Some(_)) => vec![("Esc", "close")],
        (Demand::Yes, None) => vec![("y", confirm.yes.as_str()), ("n", "leave it"), ("Enter", "leaves it")],
        (Demand::Type(_), None) => vec![("type", "and Enter"), ("Esc", "leave it")],
    }
}
