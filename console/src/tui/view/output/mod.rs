//! A job's output: followed, paused, searched. A position is the number of a line, so forgetting the oldest lines never moves what is
//! on the screen, and drawing costs what the pane holds, whatever comes and however fast.

use modchain_types::{JobId, JobState, WallTime};
use modchain_wire::view::JobView;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;
use unicode_width::UnicodeWidthChar;

mod search;
mod window;

use search::{FINDS_MAX, Search, finds};
use window::{Top, Window};

use super::super::act::refuses;
use super::super::app::{App, Ctx, Place, PromptKind, Tone};
use super::super::keys::Action;
use super::super::layout::Layout;
use super::super::msg::Effect;
use super::super::table;
use super::super::theme::{Role, Theme};
use super::super::update::{copy, prompt};
use super::{Title, jobs};
use crate::client::colour::{Colour, Look, plain, runs};
use crate::client::live::ToLive;
use crate::client::log_buffer::{LineKind, LogBuffer, LogLine};
use crate::text;

/// Columns of one step sideways.
const STEP_COLUMNS: usize = 8;

/// How one output is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OutputUi {
    /// What is at the top of the screen; `None` while the end is followed.
    top: Option<Top>,
    /// Number after the last line when following ended: what is newer is below.
    seen: u64,
    /// Columns that are scrolled away to the left.
    left: usize,
    /// Whether long lines are broken.
    wrap: bool,
    stamps: Stamps,
    streams: Streams,
    search: Option<Search>,
    /// Bytes of standard input that are on the orchestrator's disk, and whether that is all of it.
    input: Option<(u64, bool)>,
}

impl Default for OutputUi {
    fn default() -> Self {
        Self {
            top: None,
            seen: 0,
            left: 0,
            wrap: false,
            stamps: Stamps::None,
            streams: Streams::Both,
            search: None,
            input: None,
        }
    }
}

impl OutputUi {
    /// How outputs are looked at in general, without what belongs to this one.
    fn habits(&self) -> Self {
        Self { wrap: self.wrap, stamps: self.stamps, streams: self.streams, ..Self::default() }
    }
}

/// When a line came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stamps {
    /// Not shown.
    None,
    /// By the clock.
    Clock,
    /// Since the job began to run.
    Since,
}

/// Which lines are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Streams {
    Both,
    Out,
    Err,
}

impl Streams {
    fn shows(self, kind: LineKind) -> bool {
        match kind {
            LineKind::Out => self != Self::Err,
            LineKind::Err => self != Self::Out,
            LineKind::Note => true,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Both => "stdout+stderr",
            Self::Out => "stdout",
            Self::Err => "stderr",
        }
    }
}

/// The job whose output the keys are about.
fn current(app: &App) -> Option<JobId> {
    jobs::output_shown(app).or(match app.place() {
        Place::Job(job) => Some(job),
        _ => None,
    })
}

/// The rectangle that holds the lines.
fn inside(app: &App, layout: &Layout) -> Rect {
    match app.place() {
        Place::Output(_) => {
            let (_, area) = divided(layout);
            if layout.tier.framed() {
                Rect {
                    x: area.x + 1,
                    y: area.y + 1,
                    width: area.width.saturating_sub(2),
                    height: area.height.saturating_sub(2),
                }
            } else {
                area
            }
        }
        _ => layout.inner(1),
    }
}

/// The line about the job, and the pane of its output.
fn divided(layout: &Layout) -> (Rect, Rect) {
    let area = layout.panes.first().copied().unwrap_or_default();
    let line = Rect { height: area.height.min(1), ..area };
    (line, Rect { y: area.y + line.height, height: area.height - line.height, ..area })
}

fn margin(ui: &OutputUi) -> usize {
    match ui.stamps {
        Stamps::None => 0,
        Stamps::Clock => 17,
        Stamps::Since => 14,
    }
}

fn window<'a>(log: &'a LogBuffer, ui: &'a OutputUi, area: Rect) -> Window<'a> {
    let (rows, columns) = (usize::from(area.height).max(1), usize::from(area.width).max(1));
    Window { log, ui, rows, columns, margin: margin(ui) }
}

/// Changes how the output is looked at, knowing what is on the screen.
fn with_window<R>(app: &mut App, change: impl FnOnce(&Window<'_>) -> R) -> Option<(JobId, R)> {
    let job = current(app)?;
    let area = inside(app, &app.layout());
    let ui = app.ui.outputs.entry(job).or_default().clone();
    let log = app.shown().logs.get(&job)?;
    Some((job, change(&window(log, &ui, area))))
}

/// Draws the output of the selected job below the table.
pub(crate) fn draw_below(app: &App, ctx: &Ctx<'_>, layout: &Layout, frame: &mut Frame<'_>) {
    let job = jobs::output_shown(app);
    let ui = job.and_then(|job| app.ui.outputs.get(&job)).cloned().unwrap_or_default();
    let left = job.map_or_else(|| "output".to_owned(), |job| format!("{} output", job.short()));
    let right = ctx.glyphs.plain(&how(&ui));
    let inner = super::pane(ctx, layout, 1, frame, Title { left: &left, right: &right, focused: app.focus() == 1 });
    match job {
        Some(job) => lines(app, ctx, frame, inner, job, &ui),
        None => say(ctx, frame, inner, "no job is selected"),
    }
}

/// Draws the output of one job on the whole screen.
pub(crate) fn draw(app: &App, ctx: &Ctx<'_>, layout: &Layout, frame: &mut Frame<'_>, id: JobId) {
    let ui = app.ui.outputs.get(&id).cloned().unwrap_or_default();
    let (line, area) = divided(layout);
    if let Some(job) = ctx.mirror.jobs.get(&id) {
        frame.render_widget(Paragraph::new(table::cut(summary(ctx, job), usize::from(line.width))), line);
    }
    if layout.tier.framed() && !area.is_empty() {
        let right = ctx.glyphs.plain(&how(&ui));
        super::framed(
            ctx,
            area,
            frame,
            Title { left: &format!("{} output", id.short()), right: &right, focused: true },
        );
    }
    lines(app, ctx, frame, inside(app, layout), id, &ui);
}

/// How it is looked at, in the upper edge of the pane.
fn how(ui: &OutputUi) -> String {
    let mut words = vec![ui.streams.word().to_owned()];
    if let Some(search) = &ui.search {
        let (place, count) = (search.place(), search.finds.len());
        let more = match (count == FINDS_MAX, search.is_done()) {
            (true, _) => "+",
            (false, true) => "",
            (false, false) => "…",
        };
        words.push(format!("search \"{}\" {place}/{count}{more}", text::one_line(&search.wanted)));
    }
    words.push(if ui.top.is_none() { "follow" } else { "paused" }.to_owned());
    words.join(" · ")
}

/// A job on one line.
fn summary(ctx: &Ctx<'_>, job: &JobView) -> Line<'static> {
    let mut spans = vec![Span::raw(format!(" {}  ", jobs::called(job)))];
    spans.extend(jobs::state(ctx, job, u16::MAX).spans);
    let node = job.node.as_ref().map(|node| format!("  {node}")).unwrap_or_default();
    let time = jobs::ran_for(job, ctx.now).map(|ran| format!("  {ran}")).unwrap_or_default();
    spans.push(Span::raw(format!("{node}{time}  {}/{} {}", job.cost, job.hold, ctx.asset())));
    Line::from(spans)
}

/// Why there is no output yet.
fn nothing(app: &App, ctx: &Ctx<'_>, id: JobId) -> String {
    let log = ctx.mirror.logs.get(&id);
    if let Some(failure) = log.and_then(|log| log.refused.as_ref()) {
        return format!("its output cannot be read: {}", text::one_line(&failure.said()));
    }
    let Some(job) = ctx.mirror.jobs.get(&id) else { return "this job is not known here".to_owned() };
    match job.state {
        JobState::Queued if job.message.is_empty() => "no output yet: the job waits for a node; e says why".to_owned(),
        JobState::Queued => format!("no output yet: {}", text::one_line(&job.message)),
        JobState::Assigned | JobState::Starting if job.preparing.is_empty() => {
            "no output yet: the node prepares the job, which is not billed".to_owned()
        }
        JobState::Assigned | JobState::Starting => format!("no output yet: {}", text::one_line(&job.preparing)),
        _ if !app.mirror.link.is_connected() => "not loaded: the link is down".to_owned(),
        _ if log.is_some_and(|log| log.caught_up || log.end.is_some()) => "no output".to_owned(),
        _ => "loading".to_owned(),
    }
}

fn say(ctx: &Ctx<'_>, frame: &mut Frame<'_>, area: Rect, words: &str) {
    let line = Line::styled(format!(" {words}"), ctx.theme.style(Role::Dim));
    frame.render_widget(Paragraph::new(table::cut(line, usize::from(area.width))), area);
}

fn lines(app: &App, ctx: &Ctx<'_>, frame: &mut Frame<'_>, area: Rect, id: JobId, ui: &OutputUi) {
    if area.is_empty() {
        return;
    }
    // What is opened for the first time while the screen stands still has come since.
    let log = ctx.mirror.logs.get(&id).or_else(|| app.mirror.logs.get(&id));
    let Some(log) = log.filter(|log| log.end_number() > log.first()) else {
        say(ctx, frame, area, &nothing(app, ctx, id));
        return;
    };
    let started = ctx.mirror.jobs.get(&id).and_then(|job| job.started_at);
    let window = window(log, ui, area);
    let mut shown: Vec<Line<'static>> = Vec::with_capacity(window.rows);
    for (number, skip) in window.shown() {
        let Some(line) = log.line(number) else { continue };
        let mut rows = paint(ctx, ui, line, started, window.columns, skip + window.rows - shown.len());
        shown.extend(rows.drain(skip.min(rows.len())..));
        if shown.len() >= window.rows {
            break;
        }
    }
    frame.render_widget(Paragraph::new(shown), area);
}

/// A line of output as lines of the screen, at most so many.
fn paint(
    ctx: &Ctx<'_>,
    ui: &OutputUi,
    line: &LogLine,
    started: Option<WallTime>,
    columns: usize,
    rows: usize,
) -> Vec<Line<'static>> {
    let mut out = Vec::new();
    let stamp = stamp(ctx, ui, line, started);
    let room = columns.saturating_sub(margin(ui)).max(1);
    let base = match line.kind {
        LineKind::Out => Style::new(),
        LineKind::Err => ctx.theme.style(Role::Warn),
        LineKind::Note => ctx.theme.style(Role::Dim),
    };
    let marks = ui.search.as_ref().map(|search| finds(&plain(&line.text), &search.wanted)).unwrap_or_default();
    let found = ctx.theme.style(Role::Match);
    let (skip, most) = if ui.wrap { (0, rows) } else { (ui.left, 1) };
    let mut row: Vec<Span<'static>> = vec![Span::styled(stamp, ctx.theme.style(Role::Dim))];
    let (mut column, mut used, mut at) = (0, 0, 0);
    let mut done = 0;
    for (look, piece) in runs(&line.text) {
        let style = base.patch(styled(ctx.theme, look));
        for c in piece.chars() {
            let width = c.width().unwrap_or(0);
            let style = if marks.iter().any(|mark| mark.contains(&at)) { found } else { style };
            at += c.len_utf8();
            column += width;
            if column <= skip {
                continue;
            }
            if used + width > room {
                if !ui.wrap || done + 1 >= most {
                    out.push(Line::from(row));
                    return out;
                }
                out.push(Line::from(std::mem::replace(&mut row, vec![Span::raw(" ".repeat(margin(ui)))])));
                (done, used) = (done + 1, 0);
            }
            used += width;
            let c = if ctx.glyphs.ascii && !c.is_ascii() { '?' } else { c };
            match row.last_mut() {
                Some(last) if last.style == style => last.content.to_mut().push(c),
                _ => row.push(Span::styled(c.to_string(), style)),
            }
        }
    }
    out.push(Line::from(row));
    out
}

/// What stands before a line.
fn stamp(ctx: &Ctx<'_>, ui: &OutputUi, line: &LogLine, started: Option<WallTime>) -> String {
    let kind = match line.kind {
        LineKind::Out => "out",
        LineKind::Err => "err",
        LineKind::Note => "---",
    };
    match ui.stamps {
        Stamps::None => String::new(),
        Stamps::Clock => {
            let millis = line.at.0.rem_euclid(1_000);
            format!("{}.{millis:03} {kind} ", text::time_of_day(line.at, ctx.utc))
        }
        Stamps::Since => {
            let since = started.map_or_else(|| "?".to_owned(), |started| format!("+{}", line.at.since(started)));
            format!("{since:>9} {kind} ")
        }
    }
}

/// What the job wanted its text to look like, as far as the theme shows it.
fn styled(theme: Theme, look: Look) -> Style {
    let mut style = Style::new();
    if theme.has_colours() {
        let colour = |colour| match colour {
            Colour::Default => None,
            Colour::Indexed(index) => Some(Color::Indexed(index)),
            Colour::Rgb(red, green, blue) => Some(Color::Rgb(red, green, blue)),
        };
        (style.fg, style.bg) = (colour(look.foreground), colour(look.background));
    }
    for (is, modifier) in [
        (look.bold, Modifier::BOLD),
        (look.dim, Modifier::DIM),
        (look.italic, Modifier::ITALIC),
        (look.underlined, Modifier::UNDERLINED),
        (look.reversed, Modifier::REVERSED),
        (look.crossed_out, Modifier::CROSSED_OUT),
    ] {
        if is {
            style = style.add_modifier(modifier);
        }
    }
    style
}

/// Brings what is shown up to date with what has come.
pub(crate) fn settle(app: &mut App) {
    let Some(job) = current(app) else { return };
    if !app.ui.outputs.contains_key(&job) {
        // Who wants to see times or only one stream wants it of the next job too.
        let habits = app.ui.habits.clone();
        app.ui.outputs.insert(job, habits);
    }
    let App { mirror, ui, .. } = app;
    let Some(log) = mirror.logs.get(&job) else { return };
    let Some(output) = ui.outputs.get_mut(&job) else { return };
    if output.top.is_none() {
        output.seen = log.end_number();
    }
    let Some(search) = &mut output.search else { return };
    search.look(log);
    if !search.is_done() {
        return;
    }
    let (goes, nothing) = (std::mem::take(&mut search.goes), search.finds.is_empty());
    if goes {
        search_next(app, false);
    }
    if let Some(prompt) = app.ui.prompt.as_mut().filter(|prompt| prompt.kind == PromptKind::Search) {
        let wanted = !prompt.input.value().is_empty();
        prompt.fault = (nothing && wanted).then(|| "not found".to_owned());
    }
}

/// When a search goes on that has not looked at everything yet: after whatever else there is to do.
pub(crate) fn deadline(app: &App) -> Option<u64> {
    let job = current(app).filter(|job| app.mirror.logs.contains_key(job))?;
    let search = app.ui.outputs.get(&job)?.search.as_ref()?;
    (!search.is_done()).then_some(app.now.ms)
}

/// What the last line but one says of the output that is shown.
pub(crate) fn status(app: &App, ctx: &Ctx<'_>) -> Option<Line<'static>> {
    let reads = matches!(app.place(), Place::Output(_)) || (app.place() == Place::Jobs && app.focus() == 1);
    let job = current(app).filter(|_| reads)?;
    let ui = app.ui.outputs.get(&job)?;
    let log = ctx.mirror.logs.get(&job)?;
    let input = match ui.input {
        Some((bytes, true)) => format!(" · stdin {} and its end", text::bytes(bytes)),
        Some((bytes, false)) => format!(" · stdin {}", text::bytes(bytes)),
        None => String::new(),
    };
    let line = match ui.top {
        None => {
            let what = if log.end.is_some() { "all of it" } else { "following" };
            let dropped = ctx.mirror.jobs.get(&job).map_or(0, |job| job.output.dropped);
            let forgotten = match log.forgotten() {
                0 => String::new(),
                count => format!(" · the first {count} lines are not kept here"),
            };
            let size = text::bytes(log.bytes() as u64);
            let words = format!(
                " {what} · {} lines · {size} · {} dropped{forgotten}{input}",
                log.end_number(),
                text::bytes(dropped)
            );
            Line::styled(words, ctx.theme.style(Role::Dim))
        }
        Some(top) => {
            let shows = |number: &u64| log.line(*number).is_some_and(|line| ui.streams.shows(line.kind));
            let below = (ui.seen..log.end_number()).filter(shows).count();
            let words = format!(" PAUSED at line {} · {below} new below · f or G to follow{input}", top.line + 1);
            Line::styled(words, ctx.theme.style(Role::Warn))
        }
    };
    Some(line)
}

/// Does what a key means in the output.
pub(crate) fn perform(app: &mut App, action: Action) -> Vec<Effect> {
    let Some(job) = current(app) else { return Vec::new() };
    let page = isize::try_from(inside(app, &app.layout()).height.max(1)).unwrap_or(1);
    let step = match action {
        Action::Down => Some(1),
        Action::Up => Some(-1),
        Action::PageDown => Some(page),
        Action::PageUp => Some(-page),
        Action::HalfPageDown => Some((page / 2).max(1)),
        Action::HalfPageUp => Some(-(page / 2).max(1)),
        _ => None,
    };
    if let Some(step) = step {
        if let Some((_, top)) = with_window(app, |window| window.moved(step)) {
            app.ui.outputs.entry(job).or_default().top = top;
        }
        return Vec::new();
    }
    let ends = with_window(app, |window| (window.log.first(), window.top())).map(|(_, ends)| ends);
    let output = app.ui.outputs.entry(job).or_default();
    match action {
        Action::First => output.top = ends.map(|(first, _)| Top { line: first, row: 0 }),
        Action::Last => output.top = None,
        Action::Follow => output.top = if output.top.is_none() { ends.map(|(_, top)| top) } else { None },
        Action::Left => output.left = output.left.saturating_sub(STEP_COLUMNS),
        Action::Right if !output.wrap => output.left += STEP_COLUMNS,
        Action::Wrap => {
            output.wrap = !output.wrap;
            app.ui.habits = output.habits();
        }
        Action::Timestamps => {
            output.stamps = match output.stamps {
                Stamps::None => Stamps::Clock,
                Stamps::Clock => Stamps::Since,
                Stamps::Since => Stamps::None,
            };
            app.ui.habits = output.habits();
        }
        Action::Streams => {
            output.streams = match output.streams {
                Streams::Both => Streams::Out,
                Streams::Out => Streams::Err,
                Streams::Err => Streams::Both,
            };
            app.ui.habits = output.habits();
        }
        Action::MarkLine => {
            let now = app.now.wall;
            let words = format!("mark {}", text::time_of_day(now, app.ui.utc));
            if let Some(log) = app.mirror.logs.get_mut(&job) {
                log.remark(now, &words);
            }
        }
        Action::Search => {
            let before = output.search.as_ref().map(|search| search.wanted.clone()).unwrap_or_default();
            prompt(app, PromptKind::Search, &before);
        }
        Action::SearchNext => search_next(app, false),
        Action::SearchPrevious => search_next(app, true),
        Action::Input => {
            if refuses(app) {
                return Vec::new();
            }
            let ended = app.mirror.jobs.get(&job).is_some_and(|job| job.state.is_ended());
            if ended {
                app.toast(Tone::Bad, format!("{} has ended: nothing reads its input any more", job.short()));
            } else {
                prompt(app, PromptKind::Input, "");
            }
        }
        Action::CopyId => return copy(app, &job.to_string(), &format!("{job} copied")),
        Action::CopyJson => {
            let shown = with_window(app, |window| {
                let lines = window.shown().into_iter().filter_map(|(number, _)| window.log.line(number));
                lines.map(|line| plain(&line.text).into_owned()).collect::<Vec<_>>().join("\n")
            });
            let shown = shown.map(|(_, text)| text).unwrap_or_default();
            return copy(app, &shown, "what is shown is copied");
        }
        _ => {}
    }
    Vec::new()
}

/// Looks for a text while it is typed. What is found first is gone to once everything was looked at.
pub(crate) fn search(app: &mut App, wanted: &str) {
    let Some(job) = current(app) else { return };
    let output = app.ui.outputs.entry(job).or_default();
    let before = output.search.take();
    output.search = (!wanted.is_empty()).then(|| Search::new(wanted, before));
}

/// Goes to the next find, or the one before: from what is on the screen at first, from find to find after that.
pub(crate) fn search_next(app: &mut App, backwards: bool) {
    let Some(job) = current(app) else { return };
    let Some(search) = app.ui.outputs.get(&job).and_then(|output| output.search.as_ref()) else { return };
    let wanted = search.wanted.clone();
    let Some((_, top)) = with_window(app, |window| window.top()) else { return };
    let Some(search) = app.ui.outputs.get_mut(&job).and_then(|output| output.search.as_mut()) else { return };
    let Some(find) = search.next(top.line, backwards) else { return };
    let to = with_window(app, |window| {
        let at = Top { line: find, row: window.row_of(find, &wanted) };
        if window.has(at) { None } else { Some(window.centred(at)) }
    });
    let Some(output) = app.ui.outputs.get_mut(&job) else { return };
    match to {
        Some((_, Some(top))) => output.top = Some(top),
        // It is on the screen, and stays there.
        Some((_, None)) if output.top.is_none() => output.top = Some(top),
        Some((_, None)) | None => {}
    }
}

/// Ends a search; tells whether there was one.
pub(crate) fn clear_search(app: &mut App) -> bool {
    let job = current(app);
    let output = job.and_then(|job| app.ui.outputs.get_mut(&job));
    output.is_some_and(|output| output.search.take().is_some())
}

/// Sends a line to the job's standard input, and stays ready for the next one.
pub(crate) fn send_line(app: &mut App, line: &str) -> Vec<Effect> {
    let Some(job) = current(app) else { return Vec::new() };
    prompt(app, PromptKind::Input, "");
    vec![Effect::Send(ToLive::Input(job, format!("{line}\n").into()))]
}

/// Ends the job's standard input.
pub(crate) fn end_input(app: &mut App) -> Vec<Effect> {
    let Some(job) = current(app) else { return Vec::new() };
    app.toast(Tone::Info, format!("{}: standard input is at its end", job.short()));
    vec![Effect::Send(ToLive::Input(job, bytes::Bytes::new()))]
}

/// So much of a job's standard input is on the orchestrator's disk, and whether that is all of it.
pub(crate) fn input_stored(app: &mut App, job: JobId, bytes: u64, done: bool) {
    app.ui.outputs.entry(job).or_default().input = Some((bytes, done));
}
