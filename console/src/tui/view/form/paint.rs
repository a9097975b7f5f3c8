//! How a form looks.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph};
use unicode_width::UnicodeWidthStr;

use super::super::super::app::{App, Ctx};
use super::super::super::command;
use super::super::super::layout::{Layout, Tier, centred};
use super::super::super::table::{cut, prefix};
use super::super::super::theme::Role;
use super::super::Title;
use super::field::{Control, Field, Value, visible, window};
use super::{Button, Form, Purpose, Stop, job};
use crate::text;

/// Columns of what stands before a box.
const LABEL: usize = 13;
/// Columns of the widest box.
const BOX_MAX: usize = 64;
/// Columns of a form that has all the room it wants.
const COLUMNS: u16 = 108;

/// Draws it.
pub(crate) fn draw(app: &App, ctx: &Ctx<'_>, layout: &Layout, frame: &mut Frame<'_>, form: &Form) {
    let large = layout.tier == Tier::Large;
    let columns = if large { COLUMNS } else { layout.body.width };
    let columns = if matches!(form.purpose, Purpose::Job(_)) { columns } else { columns.min(86) };
    let inner_columns = usize::from(columns.saturating_sub(6)).min(usize::from(layout.body.width.saturating_sub(4)));
    let rows = rows_of(form, inner_columns);
    let quote = quote_lines(app, ctx, form, inner_columns, large);
    // Help, command line, buttons, a line to breathe, and the frame.
    let wanted = rows.len() + quote.len() + 6;
    let rows_wanted = u16::try_from(wanted).unwrap_or(u16::MAX);
    let area = centred(layout.body, columns, rows_wanted.min(layout.body.height));
    super::super::clear(frame, area);
    let (left, right) = job::title(form);
    super::super::framed(ctx, area, frame, Title { left: &left, right: &right, focused: true });
    let inner = Rect {
        x: area.x + 3.min(area.width),
        y: area.y + 1,
        width: area.width.saturating_sub(6),
        height: area.height.saturating_sub(2),
    };
    if inner.is_empty() {
        return;
    }
    // From below: buttons, the command line, the quote, one line of help; the fields have the rest.
    let mut left = inner.height;
    let mut take = |wanted: u16, keep: u16| {
        let rows = wanted.min(left.saturating_sub(keep));
        left -= rows;
        Rect { y: inner.y + left, height: rows, ..inner }
    };
    let buttons = take(1, 0);
    let shown = take(1, 3);
    let quoted = take(u16::try_from(quote.len()).unwrap_or(u16::MAX), 4);
    let help = take(1, 1);
    let fields = Rect { height: left, ..inner };

    draw_fields(ctx, frame, form, &rows, fields);
    frame.render_widget(Paragraph::new(cut(help_line(ctx, form), usize::from(help.width))), help);
    draw_quote(ctx, frame, quote, quoted, large);
    let line = form.line().map_or_else(|why| why, |line| command::shown(&line));
    let line = visible(&text::one_line(&line), ctx.glyphs.ascii);
    let line = Line::styled(format!("$ {line}"), ctx.theme.style(Role::Dim));
    frame.render_widget(Paragraph::new(cut(line, usize::from(shown.width))), shown);
    frame.render_widget(Paragraph::new(cut(button_line(ctx, form), usize::from(buttons.width))), buttons);
}

/// The fields of each row.
fn rows_of(form: &Form, columns: usize) -> Vec<Vec<usize>> {
    let mut rows: Vec<Vec<usize>> = Vec::new();
    let mut used = 0;
    for place in form.on_screen() {
        let field = &form.fields[place];
        let own = box_width(field, columns) + 3;
        let joined = field.spec.label.width() + own + 3;
        match rows.last_mut() {
            Some(row) if field.spec.joined && used + joined <= columns => {
                used += joined;
                row.push(place);
            }
            _ => {
                used = LABEL + own;
                rows.push(vec![place]);
            }
        }
    }
    rows
}

/// Columns of a field's box, without its brackets.
fn box_width(field: &Field, columns: usize) -> usize {
    let room = columns.saturating_sub(LABEL + 2).max(1);
    match field.spec.control {
        Control::Switch => 1,
        Control::Choice(words) => words.iter().map(|(_, label)| label.width() + 7).sum(),
        Control::Text | Control::Words | Control::Rest | Control::Positional => match usize::from(field.spec.width) {
            0 => room.min(BOX_MAX),
            width => width.min(room),
        },
    }
}

fn draw_fields(ctx: &Ctx<'_>, frame: &mut Frame<'_>, form: &Form, rows: &[Vec<usize>], area: Rect) {
    let focused = match form.focus {
        Stop::Field(place) => rows.iter().position(|row| row.contains(&place)).unwrap_or(0),
        Stop::Button(_) => rows.len().saturating_sub(1),
    };
    let shown = usize::from(area.height);
    if shown == 0 {
        return;
    }
    let top =
        if rows.len() <= shown { 0 } else { (focused + 1).saturating_sub(shown.div_ceil(2)).min(rows.len() - shown) };
    for (line, row) in rows.iter().skip(top).take(shown).enumerate() {
        let at = Rect { y: area.y + u16::try_from(line).unwrap_or(0), height: 1, ..area };
        draw_row(ctx, frame, form, row, at);
    }
    // What is above and below is announced at the edge.
    let edge = |frame: &mut Frame<'_>, y: u16, sign: &'static str| {
        let at = Rect { x: area.right(), y, width: 1, height: 1 };
        frame.render_widget(Paragraph::new(Span::styled(sign, ctx.theme.style(Role::Warn))), at);
    };
    if top > 0 {
        edge(frame, area.y, ctx.glyphs.pick("↑", "^"));
    }
    if top + shown < rows.len() {
        edge(frame, area.bottom() - 1, ctx.glyphs.pick("↓", "v"));
    }
}

fn draw_row(ctx: &Ctx<'_>, frame: &mut Frame<'_>, form: &Form, row: &[usize], area: Rect) {
    let columns = usize::from(area.width);
    let mut spans: Vec<Span<'static>> = Vec::new();
    let mut used = 0;
    let mut cursor = None;
    let mut fault = None;
    for (position, place) in row.iter().enumerate() {
        let field = &form.fields[*place];
        let here = form.focus == Stop::Field(*place);
        let role = if here { Role::Key } else { Role::Text };
        let label = match (position, field.spec.control) {
            (0, Control::Switch) => " ".repeat(LABEL),
            (0, _) => format!("{:<LABEL$}", prefix(field.spec.label, LABEL - 1)),
            (_, Control::Switch) => "   ".to_owned(),
            (_, _) => format!("  {} ", field.spec.label),
        };
        used += label.width();
        spans.push(Span::styled(label, ctx.theme.style(if here { Role::Key } else { Role::Dim })));
        match (&field.value, field.spec.control) {
            (Value::Text(input), _) => {
                let width = box_width(field, columns);
                let text = visible(input.value(), ctx.glyphs.ascii);
                let at = if here { input.cursor() } else { 0 };
                let (shown, column) = window(&text, at, width);
                if here {
                    cursor = Some(used + 1 + column);
                }
                let fill = width - shown.width();
                let edge = if field.fault.is_some() { Role::Bad } else { role };
                spans.push(Span::styled("[", ctx.theme.style(edge)));
                spans.push(Span::raw(format!("{shown}{}", " ".repeat(fill))));
                spans.push(Span::styled("]", ctx.theme.style(edge)));
                used += width + 2;
            }
            (Value::Choice(chosen), Control::Choice(words)) => {
                for (place, (_, label)) in words.iter().enumerate() {
                    let on = place == *chosen;
                    let text = format!("({}) {label}   ", if on { "o" } else { " " });
                    used += text.width();
                    spans.push(Span::styled(text, ctx.theme.style(if on { role } else { Role::Dim })));
                }
            }
            (Value::Choice(_), _) => {}
            (Value::Switch(on), _) => {
                let text = format!("[{}] {}", if *on { "x" } else { " " }, field.spec.label);
                if here {
                    cursor = Some(used + 1);
                }
                used += text.width();
                spans.push(Span::styled(text, ctx.theme.style(role)));
            }
        }
        fault = fault.or(field.fault.as_ref());
    }
    if let Some(fault) = fault {
        spans.push(Span::styled(format!("  {}", text::one_line(fault)), ctx.theme.style(Role::Bad)));
    }
    frame.render_widget(Paragraph::new(cut(Line::from(spans), columns)), area);
    if let Some(column) = cursor.filter(|column| *column < columns) {
        frame.set_cursor_position((area.x + u16::try_from(column).unwrap_or(0), area.y));
    }
}

/// What the field that has the keys is for, or what is wrong with it.
fn help_line(ctx: &Ctx<'_>, form: &Form) -> Line<'static> {
    if form.leaving {
        return Line::styled("What was typed is lost. Close the form? [y/N]", ctx.theme.style(Role::Warn));
    }
    if form.sent {
        let line = "On its way: the answer is waited for, over as many connections as it takes.";
        return Line::styled(line, ctx.theme.style(Role::Info));
    }
    let Stop::Field(place) = form.focus else { return Line::default() };
    let Some(field) = form.fields.get(place) else { return Line::default() };
    match &field.fault {
        Some(fault) => Line::styled(text::one_line(fault), ctx.theme.style(Role::Bad)),
        None => Line::styled(ctx.glyphs.plain(field.spec.help), ctx.theme.style(Role::Dim)),
    }
}

fn button_line(ctx: &Ctx<'_>, form: &Form) -> Line<'static> {
    let mut spans = Vec::new();
    for button in form.buttons() {
        let word = match (button, &form.purpose) {
            (Button::Submit, Purpose::Job(_)) => "Submit",
            (Button::Submit, Purpose::Token) => "Make it",
            (Button::Submit, Purpose::Credit) => "Give",
            (Button::Save, _) => "Save as job.toml",
            (Button::Cancel, _) => "Cancel",
        };
        let role = if form.focus == Stop::Button(*button) { Role::Selected } else { Role::Text };
        spans.push(Span::styled(format!("[ {word} ]"), ctx.theme.style(role)));
        spans.push(Span::raw("   "));
    }
    Line::from(spans)
}

/// The lines of the quote.
fn quote_lines(app: &App, ctx: &Ctx<'_>, form: &Form, columns: usize, large: bool) -> Vec<Line<'static>> {
    if !matches!(form.purpose, Purpose::Job(_)) {
        let fault = form.fault.as_ref().map(|fault| Line::styled(text::one_line(fault), ctx.theme.style(Role::Bad)));
        return fault.into_iter().collect();
    }
    let quoted = job::quoted(form, &app.mirror.link, ctx.asset());
    let columns = if large { columns.saturating_sub(4) } else { columns };
    let wide = columns >= 90;
    let mut lines = Vec::new();
    for [first, second] in quoted.rows {
        let word = |(word, said): &(&'static str, String)| {
            vec![Span::styled(format!("{word:<15}"), ctx.theme.style(Role::Dim)), Span::raw(ctx.glyphs.plain(said))]
        };
        let mut left = word(&first);
        if wide {
            let used: usize = left.iter().map(Span::width).sum();
            left.push(Span::raw(" ".repeat(53usize.saturating_sub(used).max(2))));
            left.extend([
                Span::styled(format!("{:<11}", second.0), ctx.theme.style(Role::Dim)),
                Span::raw(ctx.glyphs.plain(&second.1)),
            ]);
        } else if !second.0.is_empty() && second.0 != "fee" {
            left.push(Span::styled(format!("  {} ", second.0), ctx.theme.style(Role::Dim)));
            left.push(Span::raw(ctx.glyphs.plain(&second.1)));
        }
        lines.push(cut(Line::from(left), columns));
    }
    for (role, note) in quoted.notes {
        lines.push(cut(Line::styled(ctx.glyphs.plain(&note), ctx.theme.style(role)), columns));
    }
    // Room for an ordinary quote, so that the form does not jump while it comes.
    while large && lines.len() < 5 {
        lines.push(Line::default());
    }
    if large {
        // The frame.
        lines.insert(0, Line::default());
        lines.push(Line::default());
    }
    lines
}

fn draw_quote(ctx: &Ctx<'_>, frame: &mut Frame<'_>, lines: Vec<Line<'static>>, area: Rect, large: bool) {
    if area.is_empty() || lines.is_empty() {
        return;
    }
    if !large || area.height < 3 || lines.len() < 3 {
        frame.render_widget(Paragraph::new(lines), area);
        return;
    }
    let block = Block::bordered()
        .border_set(ctx.glyphs.border())
        .border_style(ctx.theme.style(Role::Border))
        .title_top(Line::styled(" Quote ", ctx.theme.style(Role::Title)))
        .title_top(Line::styled(" live, from the nodes ", ctx.theme.style(Role::Dim)).right_aligned());
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let inner = Rect { x: inner.x + 1, width: inner.width.saturating_sub(2), ..inner };
    let inside = lines.len() - 2;
    frame.render_widget(Paragraph::new(lines.into_iter().skip(1).take(inside).collect::<Vec<_>>()), inner);
}
