//! One node: its GPUs, five minutes of them, facts, its jobs and what happened on it.

use modchain_types::Name;
use modchain_wire::agent::GpuSample;
use modchain_wire::view::NodeView;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::super::app::{App, Ctx, Tone};
use super::super::keys::Action;
use super::super::layout::Layout;
use super::super::msg::Effect;
use super::super::table::{RowId, cut, moment};
use super::super::theme::Role;
use super::super::update::copy;
use super::{Title, nodes};
use crate::client::mirror::price;
use crate::client::series::{self, POINTS, share};
use crate::text;

/// Events that are listed.
const EVENTS_SHOWN: usize = 50;
/// Rows of the picture of the last five minutes.
const CHART_ROWS: usize = 4;

/// Its busy share in the last five minutes, the newest last: of its GPUs, or of its processors where it has none. What was heard
/// lately goes before what the orchestrator remembers.
pub(crate) fn line(ctx: &Ctx<'_>, node: &NodeView) -> Vec<Option<u8>> {
    let has_gpus = node.offer.as_ref().is_none_or(|offer| !offer.capabilities.gpus.is_empty());
    let heard = ctx.mirror.series.of(&node.name);
    let mut points = match (heard, has_gpus) {
        (Some(series), true) => series.gpu.points(ctx.local_now),
        (Some(series), false) => series.cpu.points(ctx.local_now),
        (None, _) => Vec::new(),
    };
    if let (Some(history), true) = (ctx.mirror.histories.get(&node.name), has_gpus) {
        let mut remembered = series::Line::default();
        for tick in history.ticks.iter() {
            if let Some(percent) = mean(&tick.gpus) {
                remembered.put(tick.at, percent);
            }
        }
        let remembered = remembered.points(ctx.now);
        let missing = remembered.len().saturating_sub(points.len());
        points.splice(0..0, std::iter::repeat_n(None, missing));
        for (point, older) in points.iter_mut().rev().zip(remembered.iter().rev()) {
            *point = point.or(*older);
        }
    }
    // Each moment has its place, whether something was heard then or not.
    let missing = POINTS.saturating_sub(points.len());
    points.splice(0..0, std::iter::repeat_n(None, missing));
    points
}

fn mean(gpus: &[GpuSample]) -> Option<u8> {
    let known: Vec<u32> = gpus.iter().filter_map(|gpu| gpu.busy_pct.map(u32::from)).collect();
    let sum: u32 = known.iter().sum();
    sum.checked_div(u32::try_from(known.len()).ok()?).and_then(|mean| u8::try_from(mean).ok())
}

/// How a temperature looks.
pub(crate) fn heat(ctx: &Ctx<'_>, degrees: u8) -> Style {
    ctx.theme.style(match degrees {
        0..80 => Role::Text,
        80..90 => Role::Warn,
        _ => Role::Bad,
    })
}

/// `398 W`, `1.5 kW`, from thousandths of a watt.
pub(crate) fn watts(milliwatts: u64) -> String {
    match milliwatts.saturating_add(500) / 1_000 {
        watts @ 0..1_000 => format!("{watts} W"),
        watts => format!("{}.{} kW", watts / 1_000, watts % 1_000 / 100),
    }
}

/// `40/512 GiB`; with tenths below 100 GiB.
pub(crate) fn gib(used: u64, total: u64) -> String {
    if total < 100 << 30 {
        return format!("{}/{} GiB", tenths(used), tenths(total));
    }
    format!("{}/{} GiB", used >> 30, total >> 30)
}

/// What it has: `4x A100-80GB`, or its cores and memory.
pub(crate) fn hardware(node: &NodeView) -> String {
    let Some(offer) = &node.offer else { return String::new() };
    let gpus = &offer.capabilities.gpus;
    match gpus.first() {
        Some(first) => {
            let kinds = if gpus.iter().all(|gpu| gpu.model == first.model) { "" } else { " and others" };
            format!("{}x {}{kinds}", gpus.len(), text::one_line(&first.model))
        }
        None => {
            let cores = text::cpus(offer.capabilities.cpu_milli);
            format!("{cores} cores, {}", text::bytes(offer.capabilities.memory_bytes))
        }
    }
}

/// What it measures: a line for each GPU, or bars of its processors and memory, and a picture of the last five minutes where
/// `rows` has room for it.
pub(crate) fn measured(ctx: &Ctx<'_>, node: &NodeView, width: u16, rows: Option<u16>) -> Vec<Line<'static>> {
    let width = usize::from(width);
    let gpus = node.offer.as_ref().map_or(0, |offer| offer.capabilities.gpus.len());
    let mut lines = if gpus == 0 { processors(ctx, node, width) } else { gpu_lines(ctx, node, width) };
    if let Some(rows) = rows {
        let rows = usize::from(rows);
        if lines.len() > rows {
            let hidden = lines.len() + 1 - rows;
            lines.truncate(rows.saturating_sub(1));
            lines.push(Line::styled(format!("{hidden} more: Enter"), ctx.theme.style(Role::Dim)));
            return lines;
        }
        if rows < lines.len() + 4 {
            return lines;
        }
    }
    let room = rows.map_or(CHART_ROWS, |rows| (usize::from(rows) - lines.len() - 2).min(CHART_ROWS));
    let what = if gpus == 0 { "busy, all cores, last 5 min" } else { "busy, all GPUs, last 5 min" };
    lines.push(Line::default());
    lines.push(Line::styled(what, ctx.theme.style(Role::Title)));
    lines.extend(chart(ctx, &line(ctx, node), width, room));
    lines
}

/// A picture of percentages over the last five minutes, with its scale at the right.
fn chart(ctx: &Ctx<'_>, points: &[Option<u8>], width: usize, rows: usize) -> Vec<Line<'static>> {
    let columns = POINTS.min(width.saturating_sub(6));
    let values = points[points.len() - columns.min(points.len())..].iter();
    let values: Vec<Option<u32>> = values.map(|point| point.map(|percent| u32::from(percent) * 10)).collect();
    let pictures = ctx.glyphs.chart(&values, rows);
    let last = pictures.len().saturating_sub(1);
    let lines = pictures.into_iter().enumerate().map(|(row, picture)| {
        let scale = match row {
            0 => " 100%",
            row if row == last => "   0%",
            _ => "",
        };
        Line::from(vec![
            Span::styled(picture, ctx.theme.style(Role::Good)),
            Span::styled(scale, ctx.theme.style(Role::Dim)),
        ])
    });
    lines.collect()
}

/// A line for each GPU: how busy, how full, how hot, how much it draws, which job holds it.
fn gpu_lines(ctx: &Ctx<'_>, node: &NodeView, width: usize) -> Vec<Line<'static>> {
    let Some(offer) = &node.offer else { return Vec::new() };
    let with_job = width >= 58;
    let bar = width.saturating_sub(if with_job { 52 } else { 42 }).min(40);
    let mut title = format!("{:<5}{:>5}  {:<bar$}  {:<13}  {:>5}  {:>6}", "GPU", "BUSY", "", "VRAM", "TEMP", "POWER");
    if with_job {
        title.push_str("  JOB");
    }
    let mut lines = vec![cut(Line::styled(title, ctx.theme.style(Role::Title)), width)];
    for (number, info) in offer.capabilities.gpus.iter().enumerate() {
        let sample = nodes::heard(node, node.gpus.get(number).copied()).unwrap_or_default();
        let busy = sample.busy_pct.map_or_else(|| "?".into(), |percent| format!("{percent}%"));
        let filled = ctx.glyphs.bar(sample.busy_pct.map_or(0, |percent| u32::from(percent) * 10), bar);
        let vram = match sample.memory_used_bytes {
            Some(used) => format!("{}/{}", tenths(used), gigabytes(info.memory_bytes)),
            None => format!("?/{}", gigabytes(info.memory_bytes)),
        };
        let temperature = sample.temperature_c.map_or_else(|| "?".into(), |degrees| format!("{degrees} C"));
        let power = sample.power_mw.map_or_else(|| "?".into(), |milliwatts| watts(u64::from(milliwatts)));
        let mut spans = vec![
            Span::raw(format!("{number:<5}{busy:>5}  ")),
            Span::styled(filled, ctx.theme.style(Role::Good)),
            Span::raw(format!("  {vram:<13}  ")),
            Span::styled(format!("{temperature:>5}"), sample.temperature_c.map(|at| heat(ctx, at)).unwrap_or_default()),
            Span::raw(format!("  {power:>6}")),
        ];
        if with_job {
            let holder = ctx.ui.known.node_jobs.iter().filter_map(|id| ctx.mirror.jobs.get(id));
            let holder = holder.into_iter().find(|job| job.gpus.iter().any(|(uuid, _)| *uuid == info.uuid));
            let reserved = node.reserved.gpus.iter().any(|(uuid, _)| *uuid == info.uuid);
            let (role, holder) = match (holder, reserved) {
                (Some(job), _) => (Role::Info, job.id.short()),
                (None, true) => (Role::Dim, "held".into()),
                (None, false) => (Role::Dim, "free".into()),
            };
            spans.extend([Span::raw("  "), Span::styled(holder, ctx.theme.style(role))]);
        }
        lines.push(cut(Line::from(spans), width));
    }
    lines
}

/// `78.1`, in GiB.
fn tenths(bytes: u64) -> String {
    let tenths = (u128::from(bytes) * 10) >> 30;
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// `80 GiB`.
fn gigabytes(bytes: u64) -> String {
    format!("{} GiB", bytes >> 30)
}

/// Bars of the processors and of memory.
fn processors(ctx: &Ctx<'_>, node: &NodeView, width: usize) -> Vec<Line<'static>> {
    let load = nodes::heard(node, node.load);
    let bar = width.saturating_sub(34).clamp(4, 40);
    let cpu = load.and_then(|load| load.cpu_permille);
    let memory = load.and_then(|load| share(load.memory_used_bytes, load.memory_total_bytes));
    let (cores, reserved, memory_reserved) = match &node.offer {
        Some(offer) => (
            format!("of {} cores", text::cpus(offer.capabilities.cpu_milli)),
            (u64::from(node.reserved.cpu_milli), u64::from(offer.capabilities.cpu_milli)),
            (node.reserved.memory_bytes, offer.capabilities.memory_bytes),
        ),
        None => (String::new(), (0, 0), (0, 0)),
    };
    let used = load.map_or_else(String::new, |load| gib(load.memory_used_bytes, load.memory_total_bytes));
    let bars = [
        ("CPU", cpu.map(|permille| u32::from(permille.min(1_000))), cores),
        ("memory", memory.map(|percent| u32::from(percent) * 10), used),
        ("reserved", share(reserved.0, reserved.1).map(|percent| u32::from(percent) * 10), "of the cores".into()),
        (
            "",
            share(memory_reserved.0, memory_reserved.1).map(|percent| u32::from(percent) * 10),
            "of the memory".into(),
        ),
    ];
    let line = |(name, permille, more): (&str, Option<u32>, String)| {
        let percent = permille.map_or_else(|| "?".into(), |permille| format!("{}%", permille / 10));
        let style = permille.map_or_else(Style::new, |permille| ctx.theme.load(permille / 10));
        let filled = ctx.glyphs.bar(permille.unwrap_or(0), bar);
        let spans = vec![
            Span::raw(format!("{name:<9} {percent:>4}  ")),
            Span::styled(filled, style),
            Span::raw(format!("  {more}")),
        ];
        cut(Line::from(spans), width)
    };
    bars.into_iter().map(line).collect()
}

/// A fact with its name.
fn fact(ctx: &Ctx<'_>, name: &str, value: String, width: u16) -> Line<'static> {
    let spans =
        vec![Span::styled(format!("{name:<10}"), ctx.theme.style(Role::Dim)), Span::raw(ctx.glyphs.plain(&value))];
    cut(Line::from(spans), usize::from(width))
}

/// Whose it is, what runs there, what it costs, since when.
pub(crate) fn facts(ctx: &Ctx<'_>, node: &NodeView, width: u16) -> Vec<Line<'static>> {
    let fact = |name: &str, value: String| fact(ctx, name, value, width);
    let mut lines = vec![fact("owner", node.account.to_string())];
    let Some(offer) = &node.offer else {
        lines.push(fact("", "has not connected since the orchestrator began".into()));
        return lines;
    };
    let capabilities = &offer.capabilities;
    let driver = capabilities.gpus.first().filter(|gpu| !gpu.driver.is_empty());
    let driver = driver.map(|gpu| format!("  driver {}", text::one_line(&gpu.driver))).unwrap_or_default();
    lines.push(fact("agent", format!("{}{driver}", text::one_line(&offer.agent_version))));
    lines.push(fact("runs", nodes::types(node).unwrap_or_default()));
    if !capabilities.models.is_empty() {
        let names = capabilities.models.iter().map(|model| text::one_line(&model.name)).collect::<Vec<_>>().join(" ");
        lines.push(fact("models", format!("{}: {names}", capabilities.models.len())));
    }
    let load = nodes::heard(node, node.load);
    let busy =
        load.and_then(|load| load.cpu_permille).map_or_else(|| "?".into(), |permille| format!("{}%", permille / 10));
    let reserved = text::cpus(node.reserved.cpu_milli);
    lines.push(fact("cpu", format!("{busy} of {} cores, {reserved} held", text::cpus(capabilities.cpu_milli))));
    let used = load.map_or_else(|| "?".into(), |load| gib(load.memory_used_bytes, load.memory_total_bytes));
    lines.push(fact("memory", format!("{used}, {} held", text::bytes(node.reserved.memory_bytes))));
    let disk = load.map_or_else(|| "?".into(), |load| text::bytes(load.disk_free_bytes));
    lines.push(fact("disk free", disk));
    let mut prices = vec![format!("{}/core h", offer.tariff.core_hour)];
    if !capabilities.gpus.is_empty() {
        prices.insert(0, format!("{}/GPU h", price(offer)));
    }
    lines.push(fact("price", prices.join("  ")));
    if !capabilities.region.is_empty() {
        lines.push(fact("region", text::one_line(&capabilities.region)));
    }
    let labels = nodes::labels(node).unwrap_or_default();
    if !labels.is_empty() {
        lines.push(fact("labels", labels));
    }
    lines.push(match (node.connected_at, node.seen_at) {
        (Some(at), _) => fact("connected", format!("for {}", ctx.now.since(at))),
        (None, Some(at)) => fact("last seen", format!("{} ago", text::ago(ctx.now.since(at)))),
        (None, None) => fact("last seen", "never".into()),
    });
    if let Some(at) = node.drains_at {
        let left = if at > ctx.now { format!("in {}", at.since(ctx.now)) } else { "now".into() };
        let value = format!("{left}: what runs moves to other nodes");
        lines.push(fact("drained", value).style(ctx.theme.style(Role::Warn)));
    }
    lines
}

/// The jobs that are on the node that is looked at.
pub(crate) fn jobs(ctx: &Ctx<'_>) -> Vec<Line<'static>> {
    let jobs = ctx.ui.known.node_jobs.iter().filter_map(|id| ctx.mirror.jobs.get(id));
    let mut lines: Vec<Line<'static>> = jobs
        .enumerate()
        .map(|(number, job)| {
            let ran = super::jobs::ran_for(job, ctx.now).unwrap_or_else(|| "-".into());
            let mut name = super::jobs::called(job);
            if unicode_width::UnicodeWidthStr::width(name.as_str()) > 16 {
                name = format!("{}..", super::super::table::prefix(&name, 14));
            }
            let free = 16usize.saturating_sub(unicode_width::UnicodeWidthStr::width(name.as_str()));
            Line::from(vec![
                Span::styled(if number == 0 { "jobs  " } else { "      " }, ctx.theme.style(Role::Dim)),
                Span::styled(job.id.short(), ctx.theme.job(job.state)),
                Span::raw(ctx.glyphs.plain(&format!("  {name}{}  {ran}", " ".repeat(free)))),
            ])
        })
        .collect();
    if lines.is_empty() {
        lines.push(Line::styled("no job that you may see is on it", ctx.theme.style(Role::Dim)));
    }
    lines
}

/// All of it, as lines of this width.
pub(crate) fn page(ctx: &Ctx<'_>, name: &Name, width: u16) -> Vec<Line<'static>> {
    let Some(node) = ctx.mirror.nodes.get(name) else {
        let why =
            if ctx.mirror.mark.is_some() { "there is no such node any more" } else { "waiting for the orchestrator" };
        return vec![Line::styled(why, ctx.theme.style(Role::Dim))];
    };
    let mut lines = vec![nodes::state(ctx, node, width)];
    lines.push(Line::default());
    lines.extend(measured(ctx, node, width, None));
    lines.push(Line::default());
    lines.extend(facts(ctx, node, width));
    lines.push(Line::default());
    lines.extend(jobs(ctx));
    let events = ctx.mirror.events.iter().rev().filter(|event| event.node.as_ref() == Some(name));
    let mut events = events.take(EVENTS_SHOWN).peekable();
    if events.peek().is_some() {
        lines.extend([Line::default(), Line::styled("events", ctx.theme.style(Role::Title))]);
    }
    lines.extend(events.map(|event| {
        let text = format!("{:<8}  {}", moment(ctx, event.at), text::one_line(&event.text));
        cut(Line::from(ctx.glyphs.plain(&text)), usize::from(width))
    }));
    lines
}

/// Lines that are scrolled away, of the page that is shown.
fn top(app: &App, name: &Name) -> usize {
    app.ui.node_top.as_ref().filter(|(known, _)| known == name).map_or(0, |(_, top)| *top)
}

/// Where the page is, inside its frame.
fn inside(layout: &Layout) -> Rect {
    let inner = layout.inner(0);
    Rect { x: inner.x + 1, width: inner.width.saturating_sub(2), ..inner }
}

/// Draws it.
pub(crate) fn draw(app: &App, ctx: &Ctx<'_>, layout: &Layout, frame: &mut Frame<'_>, name: &Name) {
    let stale = if app.mirror.is_stale() && app.mirror.mark.is_some() { "STALE" } else { "" };
    let right = ctx.mirror.nodes.get(name).map(|node| hardware(node)).unwrap_or_default();
    let right = if stale.is_empty() { right } else { format!("{right} {stale}") };
    super::pane(ctx, layout, 0, frame, Title { left: name.as_str(), right: right.trim(), focused: true });
    let area = inside(layout);
    let lines = page(ctx, name, area.width);
    let rows = usize::from(area.height);
    let from = top(app, name).min(lines.len().saturating_sub(rows));
    let lines: Vec<Line<'static>> = lines.into_iter().skip(from).take(rows).collect();
    frame.render_widget(Paragraph::new(lines), area);
}

/// Moves in it.
pub(crate) fn perform(app: &mut App, action: Action) -> Vec<Effect> {
    let super::super::app::Place::Node(name) = app.place() else { return Vec::new() };
    let area = inside(&app.layout());
    let most = page(&app.ctx(), &name, area.width).len().saturating_sub(usize::from(area.height));
    let screen = usize::from(area.height.saturating_sub(1).max(1));
    let from = top(app, &name).min(most);
    let to = match action {
        Action::Down => from + 1,
        Action::Up => from.saturating_sub(1),
        Action::First => 0,
        Action::Last => most,
        Action::HalfPageDown => from + screen / 2,
        Action::HalfPageUp => from.saturating_sub(screen / 2),
        Action::PageDown => from + screen,
        Action::PageUp => from.saturating_sub(screen),
        Action::CopyId => return copy(app, name.as_str(), &format!("{name} copied")),
        Action::CopyJson => {
            let text = super::json(app, &[RowId::Node(name)]);
            return copy(app, &text, "copied as JSON");
        }
        Action::Search | Action::SearchNext | Action::SearchPrevious => {
            app.toast(Tone::Info, "there is nothing to search here");
            from
        }
        _ => from,
    };
    app.ui.node_top = Some((name, to.min(most)));
    Vec::new()
}
