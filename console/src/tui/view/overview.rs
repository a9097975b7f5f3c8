//! What there is, what is wrong, what runs, what it costs, what happened.

use modchain_types::{JobId, Micro, Role as Member};
use modchain_wire::view::JobView;
use ratatui::Frame;
use ratatui::layout::{Alignment, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;
use unicode_width::UnicodeWidthStr;

use super::super::app::{App, Ctx, Place, Tone, View};
use super::super::keys::Action;
use super::super::layout::{Layout, Tier};
use super::super::msg::Effect;
use super::super::table::{Column, RowId, Source, TableId, Width, cut, prefix, text};
use super::super::theme::Role;
use super::super::update::{go, open};
use super::events::Events;
use super::known::Pool;
use super::{Title, account, jobs};
use crate::client::live::LinkState;
use crate::client::mirror::{About, Mirror, Problem, Severity};
use crate::client::series::gpu_busy;
use crate::filter::{Kind, Unit, Value};
use crate::text as words;

/// The jobs that have a node, in a few columns.
pub(crate) struct Running;

const RUNNING: &[Column<JobView>] = &[
    Column {
        key: "job",
        title: "JOB",
        width: (8, 8),
        priority: 255,
        shown: Width::Default,
        align: Alignment::Left,
        cell: |_, job, room| text(if room == u16::MAX { job.id.to_string() } else { job.id.short() }),
        kind: Kind::Name,
        value: |_, job| Some(Value::from(job.id.to_string())),
    },
    Column {
        key: "name",
        title: "NAME",
        width: (10, 16),
        priority: 200,
        shown: Width::Default,
        align: Alignment::Left,
        cell: |_, job, _| text(jobs::called(job)),
        kind: Kind::Text,
        value: |_, job| Some(Value::from(jobs::called(job))),
    },
    Column {
        key: "node",
        title: "NODE",
        width: (9, 14),
        priority: 150,
        shown: Width::Default,
        align: Alignment::Left,
        cell: |_, job, _| text(job.node.as_ref().map_or_else(|| "-".into(), ToString::to_string)),
        kind: Kind::Name,
        value: |_, job| job.node.as_ref().map(|node| Value::from(node.to_string())),
    },
    Column {
        key: "gpu",
        title: "GPU",
        width: (12, 13),
        priority: 80,
        shown: Width::Default,
        align: Alignment::Left,
        cell: |ctx, job, room| match busy(ctx, job) {
            Some(percent) => {
                let node = job.node.as_ref().and_then(|node| ctx.mirror.nodes.get(node));
                let points = node.map(|node| super::node::line(ctx, node)).unwrap_or_default();
                let spark = ctx.glyphs.spark(&points, usize::from(room.min(13)).saturating_sub(5));
                Line::from(vec![Span::raw(format!("{percent:>3}% ")), Span::styled(spark, ctx.theme.style(Role::Good))])
            }
            None if job.gpus.is_empty() => text("  -"),
            None => text("  ?"),
        },
        kind: Kind::Number(Unit::Percent),
        value: |ctx, job| busy(ctx, job).map(|percent| Value::Number(f64::from(percent))),
    },
    Column {
        key: "time",
        title: "TIME",
        width: (7, 8),
        priority: 120,
        shown: Width::Default,
        align: Alignment::Right,
        cell: |ctx, job, _| text(jobs::ran_for(job, ctx.now).unwrap_or_else(|| job.state.word().into())),
        kind: Kind::Number(Unit::Millis),
        value: |ctx, job| words::ran(job, ctx.now).map(|span| Value::Number(span.as_millis() as f64)),
    },
    Column {
        key: "cost",
        title: "COST",
        width: (7, 10),
        priority: 180,
        shown: Width::Default,
        align: Alignment::Right,
        cell: |_, job, _| text(job.cost.to_string()),
        kind: Kind::Number(Unit::Micro),
        value: |_, job| Some(Value::Number(job.cost.0 as f64)),
    },
    Column {
        key: "state",
        title: "STATE",
        width: (11, 14),
        priority: 60,
        shown: Width::Wide,
        align: Alignment::Left,
        cell: jobs::state_cell,
        kind: Kind::Whole,
        value: |_, job| Some(Value::from(job.state.word())),
    },
    Column {
        key: "account",
        title: "OWNER",
        width: (6, 12),
        priority: 50,
        shown: Width::Wide,
        align: Alignment::Left,
        cell: |_, job, _| text(job.account.to_string()),
        kind: Kind::Whole,
        value: |_, job| Some(Value::from(job.account.to_string())),
    },
];

impl Source for Running {
    type Row = JobView;
    const TABLE: TableId = TableId::Running;
    const NOUNS: (&'static str, &'static str) = ("running job", "running jobs");

    fn columns() -> &'static [Column<JobView>] {
        RUNNING
    }

    fn order() -> (&'static str, bool) {
        ("time", false)
    }

    fn rows<'a>(ctx: &Ctx<'a>) -> Box<dyn Iterator<Item = &'a JobView> + 'a> {
        let ctx = *ctx;
        Box::new(ctx.mirror.jobs.values().map(|job| &**job).filter(move |job| Self::shows(&ctx, job)))
    }

    fn shows(_: &Ctx<'_>, job: &JobView) -> bool {
        !job.state.is_ended() && job.state != modchain_types::JobState::Queued
    }

    fn find<'a>(mirror: &'a Mirror, id: &RowId) -> Option<&'a JobView> {
        jobs::Jobs::find(mirror, id)
    }

    fn id(job: &JobView) -> RowId {
        RowId::Job(job.id)
    }

    fn revision(mirror: &Mirror) -> u64 {
        mirror.job_changes.revision()
    }

    fn changes(ctx: &Ctx<'_>, since: u64) -> Option<Vec<RowId>> {
        jobs::Jobs::changes(ctx, since)
    }

    /// All of them get older alike; what GPUs do is no change of a job.
    fn drifts(key: &str) -> bool {
        key == "gpu"
    }
}

/// How busy the GPUs that a job holds are, in percent; where it is not known which those are, those of its node.
fn busy(ctx: &Ctx<'_>, job: &JobView) -> Option<u8> {
    if job.gpus.is_empty() {
        return None;
    }
    let node = ctx.mirror.nodes.get(job.node.as_ref()?)?;
    let infos = &node.offer.as_ref()?.capabilities.gpus;
    let held =
        infos.iter().zip(node.gpus.iter()).filter(|(info, _)| job.gpus.iter().any(|(uuid, _)| *uuid == info.uuid));
    let known: Vec<u32> = held.filter_map(|(_, gpu)| gpu.busy_pct.map(u32::from)).collect();
    let sum: u32 = known.iter().sum();
    match sum.checked_div(u32::try_from(known.len()).ok()?) {
        Some(mean) => u8::try_from(mean).ok(),
        None => super::nodes::heard(node, gpu_busy(node)),
    }
}

/// The job that is selected here.
pub(crate) fn selected_job(app: &App) -> Option<JobId> {
    if let Some(RowId::Job(job)) = &app.ui.table(TableId::Running).selected { Some(*job) } else { None }
}

/// What is wrong and was not hidden, the worst first.
pub(crate) fn problems(app: &App) -> Vec<Problem> {
    let problems = app.shown().problems(app.now.wall);
    problems.into_iter().filter(|problem| !app.ui.hidden.contains(&key(problem))).collect()
}

/// What a problem is called while it stays the same. Amounts of money change all the time: with them it stays the same problem.
fn key(problem: &Problem) -> String {
    match problem.about {
        About::Account => "account".to_owned(),
        About::Link | About::Node(_) | About::Nodes | About::Job(_) | About::Jobs => {
            let since = problem.since.map(|at| at.0.to_string()).unwrap_or_default();
            format!("{} {since}", problem.text)
        }
    }
}

/// What is hidden and over is forgotten: it is shown if it comes back.
pub(crate) fn settle(app: &mut App) {
    if !app.ui.hidden.is_empty() {
        let there: Vec<String> = app.shown().problems(app.now.wall).iter().map(key).collect();
        app.ui.hidden.retain(|hidden| there.contains(hidden));
    }
    if app.ui.problem > 0 {
        app.ui.problem = app.ui.problem.min(problems(app).len().saturating_sub(1));
    }
}

/// Draws the five panes.
pub(crate) fn draw(app: &App, ctx: &Ctx<'_>, layout: &Layout, frame: &mut Frame<'_>) {
    if layout.shows(0) {
        capacity(app, ctx, layout, frame);
    }
    if layout.shows(1) {
        attention(app, ctx, layout, frame);
    }
    super::draw_table::<Running>(app, ctx, layout, 2, frame);
    if layout.shows(3) {
        money(app, ctx, layout, frame);
    }
    super::draw_table::<Events>(app, ctx, layout, 4, frame);
}

/// The inside of a pane with a free column at both sides.
fn inside(area: Rect) -> Rect {
    Rect { x: area.x + 1, width: area.width.saturating_sub(2), ..area }
}

/// A name, a percentage and a line of the last five minutes.
fn spark_line(
    ctx: &Ctx<'_>,
    name: &str,
    percent: Option<u64>,
    points: &[Option<u8>],
    columns: usize,
) -> Vec<Span<'static>> {
    let percent = percent.map_or_else(|| "   -".into(), |percent| format!("{percent:>3}%"));
    let spark = ctx.glyphs.spark(points, columns);
    let free = columns.saturating_sub(spark.width());
    vec![
        Span::raw(format!("{name} {percent}  ")),
        Span::styled(spark, ctx.theme.style(Role::Good)),
        Span::raw(" ".repeat(free)),
    ]
}

fn capacity(app: &App, ctx: &Ctx<'_>, layout: &Layout, frame: &mut Frame<'_>) {
    let totals = ctx.mirror.totals();
    let known = &ctx.ui.known;
    let right = if ctx.mirror.mark.is_none() {
        String::new()
    } else {
        ctx.glyphs.plain(&format!(
            "{} · {} · {} waiting",
            counted(totals.nodes, "node"),
            counted(totals.gpus, "GPU"),
            counted(totals.jobs_waiting, "job")
        ))
    };
    let focused = app.focus() == 0;
    let area = super::pane(ctx, layout, 0, frame, Title { left: "Capacity", right: &right, focused });
    if ctx.mirror.mark.is_none() {
        let line = Line::styled("waiting for the orchestrator", ctx.theme.style(Role::Dim));
        frame.render_widget(Paragraph::new(line), inside(area));
        return;
    }
    let area = inside(area);
    let whole = &known.whole;
    let (vram, cpu) = (whole.vram.map(u64::from), whole.cpu.map(u64::from));
    let lines = if layout.tier == Tier::Large || area.height > 6 {
        let columns = usize::from(area.width).saturating_sub(24).min(40);
        let mut sparks = vec![spark_line(ctx, "CPU busy ", cpu, &whole.cpu_line, columns)];
        if totals.gpus > 0 {
            sparks.insert(0, spark_line(ctx, "VRAM used", vram, &whole.vram_line, columns));
            sparks.insert(0, spark_line(ctx, "GPU busy ", totals.gpu_busy_pct, &whole.gpu_line, columns));
        }
        sparks[0].push(Span::styled("  5 min", ctx.theme.style(Role::Dim)));
        let mut lines: Vec<Line<'static>> = sparks.into_iter().map(Line::from).collect();
        lines.push(Line::default());
        let rows = usize::from(area.height).saturating_sub(lines.len());
        lines.extend(pools(ctx, &known.pools, usize::from(area.width), rows));
        lines
    } else {
        let columns = usize::from(area.width).saturating_sub(50).clamp(6, 26);
        let mut gpu = spark_line(ctx, "GPU ", totals.gpu_busy_pct, &whole.gpu_line, columns);
        let busiest = known.pools.iter().filter_map(|pool| Some(format!("{} {}%", called(pool), pool.busy?)));
        gpu.push(Span::raw(format!("   {}", busiest.take(3).collect::<Vec<_>>().join("  "))));
        let (name, percent, points) =
            if totals.gpus > 0 { ("VRAM", vram, &whole.vram_line) } else { ("CPU ", cpu, &whole.cpu_line) };
        let mut second = spark_line(ctx, name, percent, points, columns);
        second.push(Span::raw(format!("   {} run, {} wait", totals.jobs_running, totals.jobs_waiting)));
        vec![Line::from(gpu), Line::from(second), balance(ctx), attention_line(app, ctx)]
    };
    let width = usize::from(area.width);
    let lines: Vec<Line<'static>> = lines.into_iter().map(|line| cut(line, width)).collect();
    frame.render_widget(Paragraph::new(lines), area);
}

/// `1 node`, `3 nodes`.
fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// What a pool is called.
fn called(pool: &Pool) -> &str {
    pool.name.as_deref().unwrap_or("no pool")
}

/// The table of pools.
fn pools(ctx: &Ctx<'_>, pools: &[Pool], width: usize, rows: usize) -> Vec<Line<'static>> {
    let name = width.saturating_sub(38).clamp(8, 20);
    let title =
        format!("{:<name$} {:>7} {:>5} {:>5} {:>5}  {:>10}", "pool", "nodes", "gpus", "free", "busy", "price/h");
    let mut lines = vec![Line::styled(title, ctx.theme.style(Role::Title))];
    let room = rows.saturating_sub(1);
    let shown = if pools.len() > room { room.saturating_sub(1) } else { pools.len() };
    for pool in &pools[..shown] {
        let label = ctx.glyphs.plain(prefix(called(pool), name));
        let free = name - label.width();
        let nodes =
            if pool.ready == pool.nodes { pool.nodes.to_string() } else { format!("{}/{}", pool.ready, pool.nodes) };
        let busy = pool.busy.map_or_else(|| "-".into(), |percent| format!("{percent}%"));
        let gpus =
            if pool.gpus == 0 { ["-".into(), "-".into()] } else { [pool.gpus, pool.free].map(|n| n.to_string()) };
        let unit = if pool.gpus == 0 { "core" } else { "gpu" };
        let price = pool.price.map_or_else(|| "-".into(), |price| format!("{price} {unit}"));
        let line = format!("{} {nodes:>7} {:>5} {:>5} {busy:>5}  {price:>10}", " ".repeat(free), gpus[0], gpus[1]);
        lines.push(Line::from(label + &line));
    }
    if shown < pools.len() {
        lines.push(Line::styled(format!("{} more", pools.len() - shown), ctx.theme.style(Role::Dim)));
    }
    if pools.is_empty() {
        lines.push(Line::styled("no nodes yet", ctx.theme.style(Role::Dim)));
        lines.push(Line::styled("modchain token create --role node", ctx.theme.style(Role::Dim)));
    }
    lines
}

/// The balance in one line.
fn balance(ctx: &Ctx<'_>) -> Line<'static> {
    let Some(account) = &ctx.mirror.account else { return Line::default() };
    let mut line = format!("acct {} free  {} held", account.available, account.held);
    if account.earned > Micro::ZERO {
        line += &format!("  {} earned", account.earned);
    }
    if account.burn_per_hour > Micro::ZERO {
        line += &format!("   burn {}/h", account.burn_per_hour);
        if let Some(left) = account::lasts(account) {
            line += &format!("   {left} left");
        }
    }
    Line::from(line)
}

/// How many problems there are, and the first of them.
fn attention_line(app: &App, ctx: &Ctx<'_>) -> Line<'static> {
    let problems = problems(app);
    let Some(worst) = problems.first() else {
        return Line::styled("nothing is wrong", ctx.theme.style(Role::Dim));
    };
    let count = match problems.len() {
        1 => "1 needs attention".to_owned(),
        several => format!("{several} need attention"),
    };
    Line::styled(ctx.glyphs.plain(&format!("{count}: {}", worst.text)), ctx.theme.style(tone(worst)))
}

fn tone(problem: &Problem) -> Role {
    match problem.severity {
        Severity::Error => Role::Bad,
        Severity::Warning => Role::Warn,
    }
}

fn attention(app: &App, ctx: &Ctx<'_>, layout: &Layout, frame: &mut Frame<'_>) {
    let problems = problems(app);
    let focused = app.focus() == 1;
    let count = if problems.is_empty() { String::new() } else { problems.len().to_string() };
    let inner = super::pane(ctx, layout, 1, frame, Title { left: "Needs attention", right: &count, focused });
    let area = inside(inner);
    let width = usize::from(area.width);
    let rows = usize::from(area.height).saturating_sub(if problems.is_empty() { 0 } else { 2 });
    // The selected one is always among those that are shown.
    let from = (app.ui.problem + 1).saturating_sub(rows.max(1));
    let mut lines: Vec<Line<'static>> = Vec::new();
    for (position, problem) in problems.iter().enumerate().skip(from).take(rows) {
        let age = problem.since.map(|since| format!("  {}", words::ago(ctx.now.since(since)))).unwrap_or_default();
        let mark = if focused && position == app.ui.problem { ctx.glyphs.pick("▸", ">") } else { " " };
        let what = ctx.glyphs.plain(&problem.text);
        let left = cut(Line::from(what), width.saturating_sub(age.width() + 4));
        let free = width.saturating_sub(left.width() + age.width() + 4);
        let line = Line::from(vec![
            Span::styled(format!("{mark} "), ctx.theme.style(Role::Key)),
            Span::styled("! ", ctx.theme.style(tone(problem))),
            Span::raw(left.to_string()),
            Span::styled(format!("{}{age}", " ".repeat(free)), ctx.theme.style(Role::Dim)),
        ]);
        let selected = focused && position == app.ui.problem;
        lines.push(if selected { line.style(ctx.theme.style(Role::Selected)) } else { line });
    }
    let dim = |text: &str| Line::styled(text.to_owned(), ctx.theme.style(Role::Dim));
    let hidden = match app.ui.hidden.len() {
        0 => String::new(),
        count => format!(" {count} hidden."),
    };
    if ctx.mirror.mark.is_none() && problems.is_empty() {
        lines.push(dim("Nothing is known yet."));
    } else if problems.is_empty() {
        lines.push(dim(&format!("Nothing is wrong.{hidden}")));
    } else {
        if from + rows >= problems.len() {
            lines.push(dim(&format!("Nothing else is wrong.{hidden}")));
        }
        lines.push(dim("Enter opens it. x hides it until it changes."));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

fn money(app: &App, ctx: &Ctx<'_>, layout: &Layout, frame: &mut Frame<'_>) {
    let name = ctx.mirror.account.as_ref().map(|account| format!("Account {}", account.id));
    let focused = app.focus() == 3;
    let left = name.unwrap_or_else(|| "Account".into());
    let area = inside(super::pane(ctx, layout, 3, frame, Title { left: &left, right: "", focused }));
    let mut lines = account::balance(ctx, usize::from(area.width), true);
    let rows = usize::from(area.height);
    let role = ctx.mirror.me.as_ref().map(|me| me.identity.role);
    if role == Some(Member::Operator) && ctx.mirror.ledger.is_empty() {
        lines.push(Line::default());
        lines.push(Line::styled("you run this pool: all jobs are shown", ctx.theme.style(Role::Dim)));
    }
    if lines.len() + 2 <= rows {
        lines.push(Line::default());
        for (number, entry) in ctx.mirror.ledger.iter().rev().take(rows - lines.len()).enumerate() {
            let what = entry.job.map_or_else(|| entry.kind.word().to_owned(), |job| job.short());
            let more = if entry.job.is_some() { entry.kind.word() } else { "" };
            let text = format!(
                "{:<5} {what:<8} {:>9}  {more}",
                if number == 0 { "last:" } else { "" },
                words::signed(entry.amount)
            );
            lines.push(Line::from(text));
        }
    }
    let lines: Vec<Line<'static>> = lines.into_iter().map(|line| cut(line, usize::from(area.width))).collect();
    frame.render_widget(Paragraph::new(lines), area);
}

/// Hides the selected problem until it changes.
pub(crate) fn hide(app: &mut App) -> Vec<Effect> {
    if app.ui.view != View::Overview || app.place() != Place::Overview {
        return Vec::new();
    }
    let problems = problems(app);
    match problems.get(app.ui.problem) {
        Some(problem) => {
            let (key, text) = (key(problem), problem.text.clone());
            app.ui.hidden.insert(key);
            app.toast(Tone::Info, format!("hidden until it changes: {text}"));
        }
        None => app.toast(Tone::Info, "there is no problem to hide"),
    }
    Vec::new()
}

/// Moves among the problems.
pub(crate) fn in_problems(app: &mut App, action: Action) -> Vec<Effect> {
    let problems = problems(app);
    let last = problems.len().saturating_sub(1);
    let half = usize::from(app.layout().inner(1).height / 2).max(1);
    let at = app.ui.problem;
    match action {
        Action::Down => app.ui.problem = (at + 1).min(last),
        Action::Up => app.ui.problem = at.saturating_sub(1),
        Action::First => app.ui.problem = 0,
        Action::Last => app.ui.problem = last,
        Action::HalfPageDown | Action::PageDown => app.ui.problem = (at + half).min(last),
        Action::HalfPageUp | Action::PageUp => app.ui.problem = at.saturating_sub(half),
        Action::Open => {
            if let Some(problem) = problems.get(at) {
                return open_problem(app, &problem.about);
            }
        }
        Action::CopyId => {
            let text = problems.get(at).map(|problem| problem.text.clone()).unwrap_or_default();
            return super::super::update::copy(app, &text, "copied");
        }
        _ => {}
    }
    Vec::new()
}

/// Goes to what a problem is about.
fn open_problem(app: &mut App, about: &About) -> Vec<Effect> {
    match about {
        About::Link => {
            let why = match &app.mirror.link {
                LinkState::Lost { why, .. } => format!("{why}; R tries again now"),
                LinkState::Refused(failure) => failure.said(),
                LinkState::Silent { .. } => "it is given up and made anew if nothing comes for much longer".into(),
                LinkState::Connecting | LinkState::Live => "the link is back".into(),
            };
            app.toast(Tone::Info, why);
            Vec::new()
        }
        About::Node(name) => {
            open(app, Place::Node(name.clone()));
            Vec::new()
        }
        About::Job(job) => {
            open(app, Place::Job(*job));
            Vec::new()
        }
        About::Nodes => go(app, View::Nodes),
        About::Jobs => go(app, View::Jobs),
        About::Account => go(app, View::Account),
    }
}

/// Milliseconds until a time among the running jobs reads otherwise.
pub(crate) fn next_age(app: &App) -> Option<u64> {
    let table = app.ui.table(TableId::Running);
    let rows = usize::from(app.caps.rows);
    let shown = table.order.iter().skip(table.top).take(rows);
    let running =
        shown.filter_map(|id| if let RowId::Job(job) = id { jobs::next_age_of(app, *job) } else { None }).min();
    Some(running.unwrap_or(super::MINUTE_MS))
}
