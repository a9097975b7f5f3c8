//! One job: what it is, where it ran, what it cost, and why it is where it is.

use modchain_types::{Asset, JobId, Text, WallTime};
use modchain_wire::console::ExplainQuery;
use modchain_wire::view::{AttemptView, ExplanationView, JobView};
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;
use unicode_width::UnicodeWidthStr;

use super::super::app::{App, Ctx, Overlay, Place, Tone};
use super::super::keys::Action;
use super::super::layout::Layout;
use super::super::msg::Effect;
use super::super::table::{RowId, moment, prefix};
use super::super::theme::Role;
use super::super::update::{copy, quietly};
use super::reader::Reader;
use super::{Title, jobs};
use crate::cli::follow as said;
use crate::text;

/// Events that are listed.
const EVENTS_SHOWN: usize = 50;
/// Columns of the names of facts.
const NAMES: usize = 11;

/// The lines of a page while it is put together.
struct Page<'a> {
    ctx: &'a Ctx<'a>,
    width: usize,
    lines: Vec<Line<'static>>,
}

impl Page<'_> {
    /// A fact, on as many lines as it takes.
    fn fact(&mut self, name: &str, value: &str) {
        self.styled(name, value, Role::Text);
    }

    /// A fact that looks like something.
    fn styled(&mut self, name: &str, value: &str, role: Role) {
        let value = self.ctx.glyphs.plain(&text::one_line(value));
        for (number, part) in wrapped(&value, self.width.saturating_sub(NAMES)).into_iter().enumerate() {
            let name = if number == 0 { name } else { "" };
            self.lines.push(Line::from(vec![
                Span::styled(format!("{name:<NAMES$}"), self.ctx.theme.style(Role::Dim)),
                Span::styled(part, self.ctx.theme.style(role)),
            ]));
        }
    }

    /// Text over the whole width.
    fn text(&mut self, text: &str, role: Role) {
        let text = self.ctx.glyphs.plain(&text::one_line(text));
        let style = self.ctx.theme.style(role);
        self.lines.extend(wrapped(&text, self.width).into_iter().map(|part| Line::styled(part, style)));
    }

    /// A new part of the page.
    fn title(&mut self, title: &'static str) {
        self.lines.extend([Line::default(), Line::styled(title, self.ctx.theme.style(Role::Title))]);
    }
}

/// A text in lines of so many columns, broken between words where there are any.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let width = width.max(2);
    let mut lines = Vec::new();
    let mut rest = text;
    while rest.width() > width {
        let fits = prefix(rest, width);
        // A word that begins in the middle of the line and does not end there begins the next one.
        let cut = fits.rfind(' ').filter(|at| fits[..*at].width() > width / 3).map_or(fits.len(), |at| at + 1);
        lines.push(rest[..cut].trim_end().to_owned());
        rest = &rest[cut..];
    }
    lines.push(rest.to_owned());
    lines
}

/// A moment by the clock, with its day, and how long ago it is.
fn when(ctx: &Ctx<'_>, at: WallTime) -> String {
    format!("{}, {} ago", text::date_time(at, ctx.utc), text::ago(ctx.now.since(at)))
}

/// All of it, as lines of this width.
fn page(app: &App, ctx: &Ctx<'_>, id: JobId, width: u16) -> Vec<Line<'static>> {
    let mut page = Page { ctx, width: usize::from(width), lines: Vec::new() };
    let Some(job) = ctx.mirror.jobs.get(&id) else {
        match super::follow::refused(app, id) {
            Some(why) => page.text(why, Role::Bad),
            None if ctx.mirror.mark.is_some() && !app.caps.replay => page.text("asking for the job", Role::Dim),
            None if ctx.mirror.mark.is_some() => page.text("the recording does not have this job", Role::Dim),
            None => page.text("waiting for the orchestrator", Role::Dim),
        }
        page.text("Esc goes back", Role::Dim);
        return page.lines;
    };
    state(&mut page, job);
    page.lines.push(Line::default());
    what(&mut page, job);
    page.title("money");
    money(&mut page, job);
    page.title("times");
    times(&mut page, job);
    page.title("attempts");
    if job.attempts.is_empty() {
        page.text(&format!("none yet, of at most {}", job.attempts_max), Role::Dim);
    }
    job.attempts.iter().for_each(|one| attempt(&mut page, job, one));
    events(&mut page, id);
    page.lines
}

/// Its state in a line, and what there is to say about it.
fn state(page: &mut Page<'_>, job: &JobView) {
    let mut line = jobs::state(page.ctx, job, u16::MAX);
    let place = match (&job.node, jobs::ran_for(job, page.ctx.now)) {
        (Some(node), Some(span)) if !job.state.is_ended() => format!(" on {node} for {span}"),
        (Some(node), None) if !job.state.is_ended() => format!(" on {node}"),
        _ => said::place(job),
    };
    line.spans.push(Span::raw(page.ctx.glyphs.plain(&text::one_line(&place))));
    page.lines.push(line);
    if !job.message.is_empty() {
        page.text(&job.message, if job.state.is_ended() { Role::Bad } else { Role::Warn });
    }
}

/// What it is and where it runs.
fn what(page: &mut Page<'_>, job: &JobView) {
    page.fact("job", &job.id.to_string());
    if !job.name.is_empty() {
        page.fact("name", &job.name);
    }
    page.fact("runs", &format!("{} {}", job.adapter, &*job.what));
    if let Some(model) = &job.model {
        page.fact("model", model);
    }
    if let Some(image) = &job.image {
        page.fact("image", &image.to_string());
    }
    match (&job.node, job.state.is_ended()) {
        (Some(node), _) => page.fact("node", node.as_str()),
        (None, false) => page.fact("node", "none yet: e says why"),
        (None, true) => page.fact("node", "it never had one"),
    }
    match said::gpus(job).join(", ") {
        gpus if gpus.is_empty() => {}
        gpus => page.fact("gpus", &gpus),
    }
    if !job.preparing.is_empty() {
        page.styled("preparing", &job.preparing, Role::Info);
    }
    if let Some(exit) = job.exit {
        let reason = job.reason.map(|reason| format!(", {reason}")).unwrap_or_default();
        page.fact("exit", &format!("{} from {}{reason}", exit.code, exit.from.word()));
    } else if let Some(reason) = job.reason {
        page.fact("reason", &reason.to_string());
    }
    let output = &job.output;
    let sizes = format!("{} out, {} err", text::bytes(output.stdout), text::bytes(output.stderr));
    if output.dropped > 0 {
        page.styled("output", &format!("{sizes}, {} cut off", text::bytes(output.dropped)), Role::Warn);
    } else {
        page.fact("output", &sizes);
    }
    if let Some(tokens) = said::tokens(job) {
        page.fact("tokens", &tokens);
    }
    if job.usage.fuel > 0 {
        page.fact("fuel", &job.usage.fuel.to_string());
    }
    if !job.labels.is_empty() {
        let labels = job.labels.iter().map(|(key, value)| format!("{}={}", key.as_str(), value.as_str()));
        page.fact("labels", &labels.collect::<Vec<_>>().join(" "));
    }
}

/// What it costs.
fn money(page: &mut Page<'_>, job: &JobView) {
    let asset: Asset = page.ctx.asset();
    let ended = job.state.is_ended();
    let so_far = if ended { "" } else { " so far" };
    page.fact("cost", &format!("{}{so_far}", text::money(job.cost, asset)));
    page.fact(if ended { "was held" } else { "held" }, &text::money(job.hold, asset));
    if ended {
        page.fact("fee", &format!("{}, in the cost", text::money(job.fee, asset)));
        page.fact("came back", &text::money(job.refund, asset));
    }
    let price = job.price_per_hour.map_or_else(|| "-".to_owned(), |price| format!("{}/h", text::money(price, asset)));
    page.fact("price", &price);
    page.fact("account", job.account.as_str());
}

/// When it was what, and how long it may be.
fn times(page: &mut Page<'_>, job: &JobView) {
    let ctx = page.ctx;
    page.fact("submitted", &when(ctx, job.created_at));
    if let Some(at) = job.started_at {
        page.fact("started", &when(ctx, at));
    }
    if let Some(at) = job.ended_at {
        page.fact("ended", &when(ctx, at));
    }
    if let Some(ran) = jobs::ran_for(job, ctx.now) {
        let limit = job.run_limit.map(|limit| format!(" of at most {limit}")).unwrap_or_default();
        page.fact("ran", &format!("{ran}{limit}"));
    }
    if let Some(limit) = job.time_limit {
        page.fact("limit", &format!("{limit}, as submitted"));
    }
}

/// One attempt, and how it ended.
fn attempt(page: &mut Page<'_>, job: &JobView, attempt: &AttemptView) {
    let utc = page.ctx.utc;
    let mut line = format!("{} on {}", attempt.state, attempt.node);
    if let Some(reason) = attempt.reason {
        line.push_str(&format!(" ({reason})"));
    }
    let moments =
        [("assigned", Some(attempt.assigned_at)), ("started", attempt.started_at), ("ended", attempt.ended_at)];
    for (what, at) in moments {
        if let Some(at) = at {
            line.push_str(&format!(", {what} {}", text::time_of_day(at, utc)));
        }
    }
    if let (Some(started), Some(ended)) = (attempt.started_at, attempt.ended_at) {
        line.push_str(&format!(", took {}", text::lasted(ended.since(started))));
    }
    if !attempt.message.is_empty() {
        line.push_str(&format!(": {}", &*attempt.message));
    }
    page.fact(&format!("{} of {}", attempt.number, job.attempts_max), &line);
}

/// What happened to it, the newest first.
fn events(page: &mut Page<'_>, id: JobId) {
    let ctx = page.ctx;
    let mut events = ctx.mirror.events.iter().rev().filter(|event| event.job == Some(id)).take(EVENTS_SHOWN).peekable();
    if events.peek().is_some() {
        page.title("events");
    }
    for event in events {
        page.fact(&moment(ctx, event.at), &event.text);
    }
}

/// Lines that are scrolled away, of the page that is shown.
fn top(app: &App, id: JobId) -> usize {
    app.ui.job_top.filter(|(known, _)| *known == id).map_or(0, |(_, top)| top)
}

/// Where the page is, inside its frame.
fn inside(layout: &Layout) -> Rect {
    let inner = layout.inner(0);
    Rect { x: inner.x + 1, width: inner.width.saturating_sub(2), ..inner }
}

/// Draws it.
pub(crate) fn draw(app: &App, ctx: &Ctx<'_>, layout: &Layout, frame: &mut Frame<'_>, id: JobId) {
    let area = inside(layout);
    let lines = page(app, ctx, id, area.width);
    let rows = usize::from(area.height);
    let from = top(app, id).min(lines.len().saturating_sub(rows));
    let called = ctx.mirror.jobs.get(&id).map(|job| jobs::called(job)).unwrap_or_default();
    let left = ctx.glyphs.plain(format!("{}  {called}", id.short()).trim_end());
    let stale = if app.mirror.is_stale() && app.mirror.mark.is_some() { " STALE" } else { "" };
    let more =
        if lines.len() > rows { format!("{}-{} of {}", from + 1, from + rows, lines.len()) } else { String::new() };
    let right = format!("{more}{stale}");
    super::pane(ctx, layout, 0, frame, Title { left: &left, right: right.trim(), focused: true });
    let lines: Vec<Line<'static>> = lines.into_iter().skip(from).take(rows).collect();
    frame.render_widget(Paragraph::new(lines), area);
}

/// Moves in it.
pub(crate) fn perform(app: &mut App, action: Action) -> Vec<Effect> {
    let Place::Job(id) = app.place() else { return Vec::new() };
    let area = inside(&app.layout());
    let most = page(app, &app.ctx(), id, area.width).len().saturating_sub(usize::from(area.height));
    let screen = usize::from(area.height.saturating_sub(1).max(1));
    let from = top(app, id).min(most);
    let to = match action {
        Action::Down => from + 1,
        Action::Up => from.saturating_sub(1),
        Action::First => 0,
        Action::Last => most,
        Action::HalfPageDown => from + screen / 2,
        Action::HalfPageUp => from.saturating_sub(screen / 2),
        Action::PageDown => from + screen,
        Action::PageUp => from.saturating_sub(screen),
        Action::CopyId => return copy(app, &id.to_string(), &format!("{id} copied")),
        Action::CopyJson => {
            let text = super::json(app, &[RowId::Job(id)]);
            return copy(app, &text, "copied as JSON");
        }
        _ => from,
    };
    app.ui.job_top = Some((id, to.min(most)));
    Vec::new()
}

/// Asks why it is where it is; a window shows the answer when it comes.
pub(crate) fn explain(app: &mut App) -> Vec<Effect> {
    let Some(id) = super::super::act::target_jobs(app).first().copied() else {
        app.toast(Tone::Info, "no job is selected");
        return Vec::new();
    };
    if app.caps.replay {
        match app.shown().explanations.get(&id).cloned() {
            Some(view) => open(app, &view),
            None => app.toast(Tone::Bad, "this is a recording: nobody asked that while it was made"),
        }
        return Vec::new();
    }
    if !app.mirror.link.is_connected() {
        app.toast(Tone::Info, "the link is down: the answer comes when it is back");
    }
    app.ui.asked.explained = Some(id);
    vec![quietly(app, ExplainQuery { job: Text::cut(id.to_string()) })]
}

/// Why a job is where it is has come.
pub(super) fn explained(app: &mut App, view: &ExplanationView) {
    if app.ui.asked.explained != Some(view.job.id) {
        return;
    }
    app.ui.asked.explained = None;
    // What is being asked or written meanwhile is not covered.
    if matches!(app.ui.overlay, None | Some(Overlay::Reader(_))) && app.ui.prompt.is_none() {
        open(app, view);
    } else {
        app.toast(Tone::Info, format!("{}: {}", view.job.id.short(), &*view.summary));
    }
}

/// Shows why, and the command that says the same.
fn open(app: &mut App, view: &ExplanationView) {
    if matches!(&app.ui.overlay, Some(Overlay::Reader(reader)) if reader.secret.is_some() || reader.below.is_some()) {
        return;
    }
    let width = usize::from(app.layout().body.width.saturating_sub(8));
    let said = crate::cli::jobs::explanation(view, &view.job.id.short());
    let mut lines: Vec<String> = said.lines().flat_map(|line| wrapped(line, width)).collect();
    let command = ["job", "explain", &view.job.id.to_string()].map(str::to_owned);
    lines.extend([String::new(), super::super::command::shown(&command)]);
    app.ui.overlay = Some(Overlay::Reader(Reader::new(format!("Why {} is where it is", view.job.id.short()), lines)));
}
