//! Text to read in a window: the console's own log, an explanation.

use ratatui::Frame;
use ratatui::text::Line;
use ratatui::widgets::Paragraph;

use super::super::app::{App, Ctx, Overlay, Tone};
use super::super::layout::Layout;
use super::super::msg::{Effect, Secret};
use super::super::theme::Role;
use super::super::update::copy;
use crate::text;

/// The window while it is open.
#[derive(Debug)]
pub(crate) struct Reader {
    /// What it is.
    pub(crate) title: String,
    /// The text, cleaned.
    pub(crate) lines: Vec<(Tone, String)>,
    /// Lines that are scrolled away.
    pub(crate) top: usize,
    /// The form that lies below it and goes on when this is closed.
    pub(crate) below: Option<Box<super::form::Form>>,
    /// A text that is shown above the others, alone is copied, and is wiped when this is closed.
    pub(crate) secret: Option<Secret>,
}

impl Reader {
    /// A window on cleaned lines, at their beginning.
    pub(crate) fn new(title: impl Into<String>, lines: Vec<String>) -> Self {
        let lines = lines.into_iter().map(|line| (Tone::Info, line)).collect();
        Self { title: title.into(), lines, top: 0, below: None, secret: None }
    }
}

/// Opens the console's own log, at its end.
pub(crate) fn open_log(app: &mut App) {
    let line =
        |(at, tone, text): &(_, Tone, String)| (*tone, format!("{}  {text}", text::time_of_day(*at, app.ui.utc)));
    let mut lines: Vec<(Tone, String)> = app.ui.log.iter().map(line).collect();
    if lines.is_empty() {
        lines.push((Tone::Info, "nothing has been said yet".into()));
    }
    let top = lines.len();
    let title = "What the console said".into();
    app.ui.overlay = Some(Overlay::Reader(Reader { title, lines, top, below: None, secret: None }));
}

/// Takes a key.
pub(crate) fn key(app: &mut App, key: &str) -> Vec<Effect> {
    let page = usize::from(app.layout().body.height.saturating_sub(4)).max(1);
    let Some(Overlay::Reader(reader)) = &mut app.ui.overlay else { return Vec::new() };
    let most = reader.lines.len().saturating_sub(page);
    reader.top = reader.top.min(most);
    match key {
        "j" | "Down" => reader.top = (reader.top + 1).min(most),
        "k" | "Up" => reader.top = reader.top.saturating_sub(1),
        "PgDn" | "Ctrl-f" | "Ctrl-d" => reader.top = (reader.top + page / 2).min(most),
        "PgUp" | "Ctrl-b" | "Ctrl-u" => reader.top = reader.top.saturating_sub(page / 2),
        "g" | "Home" => reader.top = 0,
        "G" | "End" => reader.top = most,
        "y" | "c" if reader.secret.is_some() => {
            let secret = reader.secret.as_ref().map(|Secret(secret)| secret.clone()).unwrap_or_default();
            return copy(app, &secret, "the token is copied");
        }
        "y" | "c" => {
            let lines: Vec<&str> = reader.lines.iter().map(|(_, line)| line.as_str()).collect();
            let text = lines.join("\n");
            return copy(app, &text, "copied");
        }
        // A secret that is gone is gone: only the keys that close everything close it.
        "~" | "e" | "Enter" if reader.secret.is_some() => {}
        "Esc" | "q" | "~" | "e" | "Enter" => app.ui.overlay = reader.below.take().map(Overlay::Form),
        _ => {}
    }
    Vec::new()
}

/// Draws it.
pub(crate) fn draw(ctx: &Ctx<'_>, layout: &Layout, frame: &mut Frame<'_>, reader: &Reader) {
    let width = layout.body.width.saturating_sub(8);
    let extra = if reader.secret.is_some() { 3 } else { 0 };
    let height = u16::try_from(reader.lines.len() + extra)
        .unwrap_or(u16::MAX)
        .clamp(3, layout.body.height.saturating_sub(4).max(3));
    let inner = super::dialog(ctx, layout, frame, (width, height), &reader.title);
    let mut inner = inner;
    if let Some(Secret(secret)) = &reader.secret {
        // As wide as the window: a terminal that is smaller shows it in parts.
        let columns = usize::from(inner.width).max(1);
        let rows = u16::try_from(secret.len().div_ceil(columns)).unwrap_or(u16::MAX).min(inner.height);
        let shown = ratatui::layout::Rect { height: rows, ..inner };
        let style = ctx.theme.style(Role::Key);
        let chars: Vec<char> = secret.chars().collect();
        let parts = chars.chunks(columns).map(|part| Line::styled(part.iter().collect::<String>(), style));
        frame.render_widget(Paragraph::new(parts.collect::<Vec<_>>()), shown);
        inner = ratatui::layout::Rect { y: inner.y + rows, height: inner.height - rows, ..inner };
    }
    let rows = usize::from(inner.height);
    let top = reader.top.min(reader.lines.len().saturating_sub(rows));
    let lines: Vec<Line<'_>> = reader
        .lines
        .iter()
        .skip(top)
        .take(rows)
        .map(|(tone, line)| {
            let role = if *tone == Tone::Bad { Role::Bad } else { Role::Text };
            Line::styled(ctx.glyphs.plain(line), ctx.theme.style(role))
        })
        .collect();
    frame.render_widget(Paragraph::new(lines), inner);
}
