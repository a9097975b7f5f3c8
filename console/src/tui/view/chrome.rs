//! The lines around every view: who and where we are and how the link is, the tabs, what has just happened, the keys.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Widget};
use unicode_width::UnicodeWidthStr;

use super::super::app::{App, Ctx, Place, PromptKind, Tone, View};
use super::super::keys::{BINDINGS, Scope};
use super::super::layout::{Layout, Tier};
use super::super::table;
use super::super::theme::Role;
use crate::client::live::LinkState;
use crate::text;

/// Draws them.
pub(crate) fn draw(app: &App, ctx: &Ctx<'_>, layout: &Layout, frame: &mut Frame<'_>) {
    header(app, ctx, layout, frame);
    if !layout.tabs.is_empty() {
        tabs(app, ctx, layout, frame);
    }
    if !layout.banner.is_empty() {
        banner(app, ctx, layout, frame);
    }
    flash(app, ctx, layout, frame);
    hints(app, ctx, layout, frame);
}

/// The link in a few words, and how it looks.
fn link(app: &App, ctx: &Ctx<'_>) -> (String, Style) {
    let glyph = |unicode, ascii| ctx.glyphs.pick(unicode, ascii);
    if app.caps.replay {
        return (format!("{} recording", glyph("▷", ">")), ctx.theme.style(Role::Warn));
    }
    match &app.mirror.link {
        LinkState::Connecting => (format!("{} connecting", glyph("◌", ".")), ctx.theme.style(Role::Info)),
        LinkState::Live if app.mirror.mark.is_none() => {
            (format!("{} loading", glyph("◔", "o")), ctx.theme.style(Role::Info))
        }
        LinkState::Live => {
            // A smaller unit would be another text every second, and no news.
            let rtt = app.mirror.rtt.map(|rtt| format!("  {} ms", rtt.as_millis().max(1))).unwrap_or_default();
            (format!("{} live{rtt}", glyph("●", "*")), ctx.theme.style(Role::Good))
        }
        LinkState::Silent { since } => {
            let age = text::ago(ctx.local_now.since(*since));
            (format!("{} silent {age}", glyph("●", "*")), ctx.theme.style(Role::Warn))
        }
        LinkState::Lost { retry_at, tries, .. } => {
            let next = match retry_at {
                Some(at) => format!("reconnecting in {} s", (at.0.saturating_sub(app.now.wall.0) + 999).max(0) / 1_000),
                None => "connecting".to_owned(),
            };
            (format!("{} {next} (try {tries})  R now", glyph("○", "o")), ctx.theme.style(Role::Bad))
        }
        LinkState::Refused(_) => (format!("{} refused  R tries again", glyph("○", "o")), ctx.theme.style(Role::Bad)),
    }
}

fn header(app: &App, ctx: &Ctx<'_>, layout: &Layout, frame: &mut Frame<'_>) {
    let small = layout.tier < Tier::Large;
    let bar = match app.caps.accent {
        Some(colour) if ctx.theme.has_colours() => Style::new().bg(colour),
        _ => Style::new(),
    };
    let (state, style) = link(app, ctx);
    let mut left = vec![Span::styled(" MODCHAIN", ctx.theme.style(Role::Title)), Span::raw("  ")];
    let context = text::one_line(&app.caps.context);
    if small {
        left.push(Span::raw(context));
    } else {
        left.extend([Span::styled("ctx ", ctx.theme.style(Role::Dim)), Span::raw(context)]);
        if let Some(me) = &app.mirror.me {
            left.extend([
                Span::styled("  acct ", ctx.theme.style(Role::Dim)),
                Span::raw(me.identity.account.to_string()),
            ]);
        }
    }
    left.extend([Span::raw("  "), Span::styled(state, style)]);
    let left = Line::from(left);
    let room = usize::from(layout.header.width).saturating_sub(left.width() + 2);
    let right = totals(app, ctx, small).into_iter().find(|line| line.width() <= room).unwrap_or_default();
    frame.render_widget(Paragraph::new(table::cut(left, usize::from(layout.header.width))), layout.header);
    let width = u16::try_from(right.width() + 1).unwrap_or(0).min(layout.header.width);
    let area = Rect { x: layout.header.right() - width, width, ..layout.header };
    if right.width() > 0 {
        frame.render_widget(Paragraph::new(right), area);
    }
    frame.buffer_mut().set_style(layout.header, bar);
}

/// The totals, from the longest to the shortest form.
fn totals(app: &App, ctx: &Ctx<'_>, small: bool) -> Vec<Line<'static>> {
    let mirror = ctx.mirror;
    if mirror.mark.is_none() {
        return Vec::new();
    }
    if let LinkState::Lost { since, .. } | LinkState::Silent { since } = &app.mirror.link {
        let age = text::ago(ctx.local_now.since(*since));
        return vec![Line::from(format!("data is {age} old")), Line::from(format!("{age} old"))];
    }
    let totals = mirror.totals();
    let money = mirror.account.as_ref().map(|account| text::money(account.available, ctx.asset()));
    let money = money.unwrap_or_default();
    let gpu = totals.gpu_busy_pct.map(|busy| format!("gpu {busy}%  ")).unwrap_or_default();
    let nodes = format!("{}/{}", totals.nodes_ready, totals.nodes);
    let mut lines = Vec::new();
    if !small {
        lines.push(format!(
            "nodes {nodes}  {gpu}jobs {} run {} wait  {money}",
            totals.jobs_running, totals.jobs_waiting
        ));
    }
    lines.push(format!("n {nodes} {gpu}j {}+{}  {money}", totals.jobs_running, totals.jobs_waiting));
    lines.push(format!("j {}+{}  {money}", totals.jobs_running, totals.jobs_waiting));
    lines.push(money);
    lines.into_iter().map(Line::from).collect()
}

/// The tabs with the columns that they take.
fn tab_places(app: &App, width: u16) -> Vec<(View, String, std::ops::Range<u16>)> {
    let short = width < 110;
    let mut at = 0;
    View::ALL
        .iter()
        .enumerate()
        .map(|(position, view)| {
            let (long, brief) = view.names();
            let name = if short { brief } else { long };
            let label = if *view == app.ui.view {
                format!("[{} {name}]", position + 1)
            } else {
                format!(" {} {name} ", position + 1)
            };
            let taken = u16::try_from(label.width()).unwrap_or(0);
            let range = at..at + taken;
            at += taken;
            (*view, label, range)
        })
        .collect()
}

/// The view whose tab is at a column.
pub(crate) fn tab_at(app: &App, column: u16) -> Option<View> {
    let places = tab_places(app, app.caps.columns);
    places.into_iter().find(|(_, _, range)| range.contains(&column.saturating_sub(1))).map(|(view, ..)| view)
}

fn tabs(app: &App, ctx: &Ctx<'_>, layout: &Layout, frame: &mut Frame<'_>) {
    let mut spans = vec![Span::raw(" ")];
    for (view, label, _) in tab_places(app, layout.tabs.width) {
        let role = if view == app.ui.view { Role::Key } else { Role::Dim };
        spans.push(Span::styled(label, ctx.theme.style(role)));
    }
    let left = Line::from(spans);
    let crumbs = ctx.glyphs.plain(&crumbs(app, ctx));
    let width = u16::try_from(crumbs.width() + 1).unwrap_or(0);
    let free = layout.tabs.width.saturating_sub(u16::try_from(left.width()).unwrap_or(u16::MAX));
    frame.render_widget(Paragraph::new(left), layout.tabs);
    if width < free {
        let area = Rect { x: layout.tabs.right() - width, width, ..layout.tabs };
        frame.render_widget(Paragraph::new(Span::styled(crumbs, ctx.theme.style(Role::Dim))), area);
    }
}

/// Where we are: `Jobs › j-7f3a2b1c › output`.
fn crumbs(app: &App, ctx: &Ctx<'_>) -> String {
    let between = ctx.glyphs.pick(" › ", " > ");
    let (name, _) = app.ui.view.names();
    let mut words = vec![name.to_owned()];
    for place in app.ui.opened.get(&app.ui.view).into_iter().flatten() {
        match place {
            Place::Node(node) => words.push(node.to_string()),
            Place::Job(job) => words.push(job.short()),
            Place::Output(job) if words.last() == Some(&job.short()) => words.push("output".into()),
            Place::Output(job) => words.extend([job.short(), "output".into()]),
            Place::Overview | Place::Nodes | Place::Jobs | Place::Events | Place::Account | Place::Access => {}
        }
    }
    words.join(between)
}

fn banner(app: &App, ctx: &Ctx<'_>, layout: &Layout, frame: &mut Frame<'_>) {
    let text = match &app.mirror.link {
        LinkState::Lost { since, why, .. } => {
            let age = text::ago(ctx.local_now.since(*since));
            let what = if app.mirror.mark.is_some() { " Shown data is old." } else { "" };
            format!(" LINK LOST {age}: {}.{what} What you do waits until the link is back.", text::one_line(why))
        }
        LinkState::Refused(failure) => format!(" NOT LET IN: {}", text::one_line(&failure.said())),
        LinkState::Connecting | LinkState::Live | LinkState::Silent { .. } => return,
    };
    let width = usize::from(layout.banner.width);
    let mut text = table::prefix(&ctx.glyphs.plain(&text), width).to_owned();
    let free = width - text.width();
    if free > 1 {
        text.push(' ');
        text.push_str(&"/".repeat(free - 1));
    }
    frame.render_widget(Paragraph::new(Span::styled(text, ctx.theme.style(Role::Banner))), layout.banner);
}

/// Last but one: what is typed, whether the screen stands still, what has just happened, the filter.
fn flash(app: &App, ctx: &Ctx<'_>, layout: &Layout, frame: &mut Frame<'_>) {
    let area = layout.flash;
    if let Some(prompt) = &app.ui.prompt {
        let sign = match prompt.kind {
            PromptKind::Filter | PromptKind::Search => " /",
            PromptKind::Command => " :",
            PromptKind::Input => " stdin> ",
        };
        let room = usize::from(area.width).saturating_sub(sign.width() + 2);
        let scroll = prompt.input.visual_scroll(room);
        let shown: String = prompt.input.value().chars().skip(scroll).collect();
        let mut spans =
            vec![Span::styled(sign, ctx.theme.style(Role::Key)), Span::raw(table::prefix(&shown, room).to_owned())];
        match (&prompt.fault, prompt.kind) {
            (Some(fault), _) => spans.push(Span::styled(format!("   {fault}"), ctx.theme.style(Role::Bad))),
            (None, PromptKind::Filter) => {
                if let Some(id) = app.focused_table() {
                    let table = app.ui.table(id);
                    spans.push(Span::styled(
                        format!("   {} of {}", table.order.len(), table.total),
                        ctx.theme.style(Role::Dim),
                    ));
                }
            }
            (None, PromptKind::Command) => {
                let offers = super::palette::offers(app, prompt.input.value());
                spans.push(Span::styled(format!("   {}", offers.join("  ")), ctx.theme.style(Role::Dim)));
            }
            (None, PromptKind::Input) => {
                spans.push(Span::styled("   Enter sends the line, Ctrl-d ends the input", ctx.theme.style(Role::Dim)));
            }
            (None, PromptKind::Search) => {}
        }
        frame.render_widget(Paragraph::new(table::cut(Line::from(spans), usize::from(area.width))), area);
        let column = prompt.input.visual_cursor().saturating_sub(scroll).min(room) + sign.width();
        frame.set_cursor_position((area.x + u16::try_from(column).unwrap_or(0), area.y));
        return;
    }
    let line = if let Some((_, changes)) = &app.ui.paused {
        Line::styled(format!(" PAUSED, {changes} changes since · p goes on"), ctx.theme.style(Role::Warn))
    } else if let Some(toast) = app.ui.toasts.last() {
        let role = if toast.tone == Tone::Bad { Role::Bad } else { Role::Info };
        Line::styled(format!(" {}", toast.text), ctx.theme.style(role))
    } else if let Some(line) = app.focused_table().map(|id| app.ui.table(id)).filter(|table| !table.filter.is_empty()) {
        let counts = format!(" filter {}   {} of {}   Esc clears", line.filter.text, line.order.len(), line.total);
        Line::styled(counts, ctx.theme.style(Role::Warn))
    } else if let Some(line) = super::output::status(app, ctx).filter(|_| !super::first::is_done(app)) {
        line
    } else if let Some(text) = super::first::line(app) {
        Line::styled(format!(" {text}"), ctx.theme.style(Role::Info))
    } else {
        Line::default()
    };
    let line = Line {
        spans: line.spans.into_iter().map(|span| Span::styled(ctx.glyphs.plain(&span.content), span.style)).collect(),
        ..line
    };
    Paragraph::new(table::cut(line, usize::from(area.width))).render(area, frame.buffer_mut());
}

/// The keys that matter here, the most useful first, as many as there is room for.
fn hints(app: &App, ctx: &Ctx<'_>, layout: &Layout, frame: &mut Frame<'_>) {
    let pairs: Vec<(String, String)> = match overlay_hints(app) {
        Some(pairs) => pairs,
        None => {
            let scopes = app.scopes();
            let mut shown: Vec<(u8, String, String)> = Vec::new();
            for (depth, scope) in scopes.iter().enumerate() {
                for binding in BINDINGS.iter().filter(|binding| binding.scope == *scope && binding.hint > 0) {
                    let keys = app.caps.keymap.keys(*scope, binding.action);
                    let Some(key) = keys.first() else { continue };
                    let hidden = scopes[..depth].iter().any(|near| near_has(app, *near, key));
                    if !hidden {
                        shown.push((binding.hint, (*key).to_owned(), binding.help.to_owned()));
                    }
                }
            }
            shown.sort_by_key(|(place, ..)| *place);
            shown.into_iter().map(|(_, key, help)| (key, help)).collect()
        }
    };
    let mut spans = vec![Span::raw(" ")];
    let mut used = 1;
    for (key, help) in pairs {
        let width = key.width() + help.width() + 3;
        if used + width > usize::from(layout.hints.width) {
            break;
        }
        used += width;
        spans.push(Span::styled(key, ctx.theme.style(Role::Key)));
        spans.push(Span::raw(format!(" {help}  ")));
    }
    frame.render_widget(Paragraph::new(Line::from(spans)), layout.hints);
}

fn near_has(app: &App, scope: Scope, key: &str) -> bool {
    use super::super::keys::Found;
    app.caps.keymap.find(&[scope], &[key.to_owned()]) != Found::Nothing
}

/// The keys of what lies over the view.
fn overlay_hints(app: &App) -> Option<Vec<(String, String)>> {
    use super::super::app::Overlay;
    let pairs: Vec<(&str, &str)> = match app.ui.overlay.as_ref()? {
        Overlay::Help(_) => vec![("type", "to search keys"), ("j/k", "scroll"), ("Esc", "close")],
        Overlay::Confirm(confirm) => super::confirm::hints(app, confirm),
        Overlay::Picker(_) => vec![("j/k", "move"), ("Enter", "choose"), ("Esc", "close")],
        Overlay::Palette(_) => vec![("type", "to find"), ("Up/Down", "move"), ("Enter", "do it"), ("Esc", "close")],
        Overlay::Form(form) => super::form::hints(form),
        Overlay::Reader(_) => vec![("j/k", "scroll"), ("y", "copy"), ("Esc", "close")],
    };
    Some(pairs.into_iter().map(|(key, help)| (key.to_owned(), help.to_owned())).collect())
}

/// A word with a capital first letter.
pub(crate) fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}
