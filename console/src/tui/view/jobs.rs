//! The table of jobs, and below it the output of the selected one.

use modchain_types::{JobId, JobState, Span as Interval, WallTime};
use modchain_wire::view::JobView;
use ratatui::Frame;
use ratatui::layout::Alignment;
use ratatui::text::{Line, Span};

use super::super::app::{App, Ctx, Place};
use super::super::layout::Layout;
use super::super::table::{Column, RowId, Source, TableId, Width, text};
use super::super::theme::Role;
use super::MINUTE_MS;
use crate::client::mirror::Mirror;
use crate::filter::{Kind, Unit, Value};
use crate::text as words;

/// The table of jobs.
pub(crate) struct Jobs;

/// The words of every state, for filters.
const STATES: &[&str] = &[
    "queued",
    "assigned",
    "starting",
    "running",
    "unreachable",
    "cancelling",
    "completed",
    "failed",
    "timed_out",
    "cancelled",
    "expired",
];

const COLUMNS: &[Column<JobView>] = &[
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
        width: (10, 22),
        priority: 90,
        shown: Width::Default,
        align: Alignment::Left,
        cell: |_, job, _| text(called(job)),
        kind: Kind::Name,
        value: |_, job| Some(Value::from(called(job))),
    },
    Column {
        key: "state",
        title: "STATE",
        width: (11, 14),
        priority: 200,
        shown: Width::Default,
        align: Alignment::Left,
        cell: state_cell,
        kind: Kind::Words(STATES),
        value: |_, job| Some(Value::from(job.state.word())),
    },
    Column {
        key: "node",
        title: "NODE",
        width: (9, 16),
        priority: 60,
        shown: Width::Default,
        align: Alignment::Left,
        cell: place,
        kind: Kind::Text,
        value: |_, job| node(job).map(Value::from),
    },
    Column {
        key: "gpu",
        title: "GPU%",
        width: (5, 5),
        priority: 55,
        shown: Width::Default,
        align: Alignment::Right,
        cell: |ctx, job, _| match (busy(ctx, job), holds_gpus(job)) {
            (Some(percent), _) => text(percent.to_string()),
            (None, true) => text("?"),
            (None, false) => text("-"),
        },
        kind: Kind::Number(Unit::Percent),
        value: |ctx, job| busy(ctx, job).map(|percent| Value::Number(f64::from(percent))),
    },
    Column {
        key: "line",
        title: "5 MIN",
        width: (8, 8),
        priority: 25,
        shown: Width::Default,
        align: Alignment::Left,
        cell: |ctx, job, _| {
            let spark = ctx.glyphs.spark(&line(ctx, job), 8);
            Line::styled(spark, ctx.theme.style(Role::Good))
        },
        kind: Kind::Number(Unit::Percent),
        value: |ctx, job| {
            let known: Vec<u8> = line(ctx, job).into_iter().flatten().collect();
            let sum: f64 = known.iter().map(|percent| f64::from(*percent)).sum();
            (!known.is_empty()).then(|| Value::Number(sum / known.len() as f64))
        },
    },
    Column {
        key: "time",
        title: "TIME",
        width: (7, 8),
        priority: 70,
        shown: Width::Default,
        align: Alignment::Right,
        cell: |ctx, job, _| text(ran_for(job, ctx.now).unwrap_or_else(|| "-".into())),
        kind: Kind::Number(Unit::Millis),
        value: |ctx, job| words::ran(job, ctx.now).map(|span| Value::Number(span.as_millis() as f64)),
    },
    Column {
        key: "cost",
        title: "COST",
        width: (7, 10),
        priority: 100,
        shown: Width::Default,
        align: Alignment::Right,
        cell: |_, job, _| text(job.cost.to_string()),
        kind: Kind::Number(Unit::Micro),
        value: |_, job| Some(Value::Number(job.cost.0 as f64)),
    },
    Column {
        key: "hold",
        title: "CAP",
        width: (7, 10),
        priority: 40,
        shown: Width::Default,
        align: Alignment::Right,
        cell: |_, job, room| {
            // What it costs stands before it: `0.24  /  2.00`.
            let slash = if room == u16::MAX { "" } else { "/ " };
            text(format!("{slash}{:>width$}", job.hold.to_string(), width = usize::from(room.clamp(2, 12)) - 2))
        },
        kind: Kind::Number(Unit::Micro),
        value: |_, job| Some(Value::Number(job.hold.0 as f64)),
    },
    Column {
        key: "account",
        title: "OWNER",
        width: (6, 12),
        priority: 30,
        shown: Width::Default,
        align: Alignment::Left,
        cell: |_, job, _| text(job.account.to_string()),
        kind: Kind::Whole,
        value: |_, job| Some(Value::from(job.account.to_string())),
    },
    Column {
        key: "age",
        title: "AGE",
        width: (5, 8),
        priority: 80,
        shown: Width::Default,
        align: Alignment::Right,
        cell: |ctx, job, _| text(super::super::table::moment(ctx, job.created_at)),
        kind: Kind::Number(Unit::Millis),
        // Below zero where the clocks are not quite the same: the order is right all the same.
        value: |ctx, job| Some(Value::Number((ctx.now.0 - job.created_at.0) as f64)),
    },
    Column {
        key: "type",
        title: "TYPE",
        width: (6, 6),
        priority: 20,
        shown: Width::Wide,
        align: Alignment::Left,
        cell: |_, job, _| text(job.adapter.word()),
        kind: Kind::Text,
        value: |_, job| Some(Value::from(job.adapter.word())),
    },
    Column {
        key: "gpus",
        title: "GPUS",
        width: (4, 4),
        priority: 20,
        shown: Width::Wide,
        align: Alignment::Right,
        cell: |_, job, _| text(if job.gpus.is_empty() { "-".into() } else { job.gpus.len().to_string() }),
        kind: Kind::Number(Unit::Plain),
        value: |_, job| Some(Value::Number(job.gpus.len() as f64)),
    },
    Column {
        key: "attempts",
        title: "TRY",
        width: (4, 4),
        priority: 20,
        shown: Width::Wide,
        align: Alignment::Right,
        cell: |_, job, _| text(tries(job).to_string()),
        kind: Kind::Number(Unit::Plain),
        value: |_, job| Some(Value::Number(f64::from(tries(job)))),
    },
    Column {
        key: "exit",
        title: "EXIT",
        width: (5, 5),
        priority: 18,
        shown: Width::Wide,
        align: Alignment::Right,
        cell: |_, job, _| text(job.exit.map_or_else(|| "-".into(), |exit| exit.code.to_string())),
        kind: Kind::Number(Unit::Plain),
        value: |_, job| job.exit.map(|exit| Value::Number(f64::from(exit.code))),
    },
    Column {
        key: "reason",
        title: "REASON",
        width: (8, 16),
        priority: 18,
        shown: Width::Wide,
        align: Alignment::Left,
        cell: |_, job, _| text(job.reason.map_or_else(|| "-".into(), |reason| reason.to_string())),
        kind: Kind::Text,
        value: |_, job| job.reason.map(|reason| Value::from(reason.to_string())),
    },
    Column {
        key: "price",
        title: "PRICE/H",
        width: (7, 10),
        priority: 18,
        shown: Width::Wide,
        align: Alignment::Right,
        cell: |_, job, _| text(job.price_per_hour.map_or_else(|| "-".into(), |price| price.to_string())),
        kind: Kind::Number(Unit::Micro),
        value: |_, job| job.price_per_hour.map(|price| Value::Number(price.0 as f64)),
    },
    Column {
        key: "what",
        title: "WHAT",
        width: (20, 80),
        priority: 10,
        shown: Width::Wide,
        align: Alignment::Left,
        cell: |_, job, _| text(words::one_line(&job.what)),
        kind: Kind::Text,
        value: |_, job| Some(Value::from(words::one_line(&job.what))),
    },
    Column {
        key: "model",
        title: "MODEL",
        width: (12, 40),
        priority: 10,
        shown: Width::All,
        align: Alignment::Left,
        cell: |_, job, _| text(job.model.as_ref().map_or_else(|| "-".into(), |model| words::one_line(model))),
        kind: Kind::Text,
        value: |_, job| job.model.as_ref().map(|model| Value::from(words::one_line(model))),
    },
    Column {
        key: "submitted",
        title: "SUBMITTED",
        width: (19, 19),
        priority: 10,
        shown: Width::All,
        align: Alignment::Left,
        cell: |ctx, job, _| text(words::date_time(job.created_at, ctx.utc)),
        kind: Kind::Text,
        value: |ctx, job| Some(Value::from(words::date_time(job.created_at, ctx.utc))),
    },
    Column {
        key: "label",
        title: "LABELS",
        width: (10, 60),
        priority: 10,
        shown: Width::All,
        align: Alignment::Left,
        cell: |_, job, _| {
            let pairs =
                job.labels.iter().map(|(key, value)| words::one_line(&format!("{}={}", key.as_str(), value.as_str())));
            text(pairs.collect::<Vec<_>>().join(" "))
        },
        kind: Kind::Pairs,
        value: |_, _| None,
    },
    Column {
        key: "message",
        title: "MESSAGE",
        width: (20, 100),
        priority: 10,
        shown: Width::All,
        align: Alignment::Left,
        cell: |_, job, _| text(words::one_line(&job.message)),
        kind: Kind::Text,
        value: |_, job| Some(Value::from(words::one_line(&job.message))),
    },
];

impl Source for Jobs {
    type Row = JobView;
    const TABLE: TableId = TableId::Jobs;
    const NOUNS: (&'static str, &'static str) = ("job", "jobs");

    fn columns() -> &'static [Column<JobView>] {
        COLUMNS
    }

    fn also() -> &'static [(&'static str, &'static str)] {
        &[("cap", "hold"), ("owner", "account"), ("try", "attempts")]
    }

    fn order() -> (&'static str, bool) {
        ("age", false)
    }

    fn rows<'a>(ctx: &Ctx<'a>) -> Box<dyn Iterator<Item = &'a JobView> + 'a> {
        let ctx = *ctx;
        Box::new(ctx.mirror.jobs.values().map(|job| &**job).filter(move |job| Self::shows(&ctx, job)))
    }

    fn shows(ctx: &Ctx<'_>, job: &JobView) -> bool {
        (ctx.ui.ended || !job.state.is_ended()) && (!ctx.ui.mine || Some(&job.account) == ctx.mirror.my_account())
    }

    fn find<'a>(mirror: &'a Mirror, id: &RowId) -> Option<&'a JobView> {
        if let RowId::Job(id) = id { mirror.jobs.get(id).map(|job| &**job) } else { None }
    }

    fn id(job: &JobView) -> RowId {
        RowId::Job(job.id)
    }

    fn revision(mirror: &Mirror) -> u64 {
        mirror.job_changes.revision()
    }

    fn changes(ctx: &Ctx<'_>, since: u64) -> Option<Vec<RowId>> {
        Some(ctx.mirror.job_changes.since(since)?.map(|job| RowId::Job(*job)).collect())
    }

    /// What runs gets older and what has ended does not; what GPUs do is no change of a job.
    fn drifts(key: &str) -> bool {
        matches!(key, "time" | "gpu" | "line")
    }

    fn value(ctx: &Ctx<'_>, job: &JobView, name: &str) -> Option<Value<'static>> {
        match name.strip_prefix("label.") {
            Some(label) => {
                let value = job.labels.iter().find(|(key, _)| key.as_str() == label).map(|(_, value)| value)?;
                Some(Value::from(value.as_str().to_owned()))
            }
            None => COLUMNS.iter().find(|column| column.key == name).and_then(|column| (column.value)(ctx, job)),
        }
    }
}

/// What people call it: its name, or what it runs.
pub(crate) fn called(job: &JobView) -> String {
    words::one_line(if job.name.is_empty() { &job.what } else { &job.name })
}

/// The state for a column: in a file in the word alone.
pub(crate) fn state_cell(ctx: &Ctx<'_>, job: &JobView, room: u16) -> Line<'static> {
    if room == u16::MAX { text(job.state.word()) } else { state(ctx, job, room) }
}

/// The state in a character and a word, with the exit code where there is one.
pub(crate) fn state(ctx: &Ctx<'_>, job: &JobView, room: u16) -> Line<'static> {
    let sending = ctx.ui.asks.values().any(|ask| ask.about == Some(RowId::Job(job.id)));
    if sending {
        return Line::styled(format!("{} sending", ctx.glyphs.pick("…", ".")), ctx.theme.style(Role::Info));
    }
    let exit = match (job.state, job.exit) {
        (JobState::Completed | JobState::Failed, Some(exit)) => format!(" {}", exit.code),
        _ => String::new(),
    };
    let whole = room == u16::MAX;
    let (glyph, word) = match job.state {
        JobState::Queued if tries(job) > 0 && !whole => {
            (ctx.glyphs.pick("↻", "@"), format!("try {}", tries(job).saturating_add(1)))
        }
        // As wide as the longest word is no column on a small screen.
        JobState::Completed if room < 13 => (ctx.glyphs.job(job.state), "done".to_owned()),
        state => (ctx.glyphs.job(state), state.word().to_owned()),
    };
    let style = ctx.theme.job(job.state);
    Line::from(Span::styled(format!("{glyph} {word}{exit}"), style))
}

/// How many attempts there were.
fn tries(job: &JobView) -> u32 {
    job.attempts.last().map_or(0, |attempt| attempt.number)
}

fn node(job: &JobView) -> Option<String> {
    job.node.as_ref().filter(|_| job.state != JobState::Queued).map(ToString::to_string)
}

/// The node, or why there is none.
fn place(ctx: &Ctx<'_>, job: &JobView, _room: u16) -> Line<'static> {
    match node(job) {
        Some(node) => text(node),
        None if job.state == JobState::Queued => Line::styled(why(job), ctx.theme.style(Role::Dim)),
        None => text("-"),
    }
}

/// Why a job waits, in a word or two.
fn why(job: &JobView) -> String {
    let message = words::one_line(&job.message).to_lowercase();
    let short = [
        ("there are no nodes", "no nodes"),
        ("no node", "no fit"),
        ("not before", "not yet"),
        ("fee", "no money"),
        ("ahead", "in line"),
        ("go before", "in line"),
    ];
    match short.iter().find(|(part, _)| message.contains(part)) {
        Some((_, short)) => (*short).to_owned(),
        None if tries(job) > 0 => match job.attempts.last().and_then(|attempt| attempt.reason) {
            Some(reason) => reason.to_string(),
            None => "-".to_owned(),
        },
        None if message.is_empty() => "-".to_owned(),
        None => words::one_line(&job.message),
    }
}

/// Whether GPUs are its own now.
fn holds_gpus(job: &JobView) -> bool {
    !job.gpus.is_empty() && !job.state.is_ended() && job.state != JobState::Queued
}

/// Mean busy share of the GPUs that it holds, in percent; `None` where it holds none, or none says so.
fn busy(ctx: &Ctx<'_>, job: &JobView) -> Option<u8> {
    let node = ctx.mirror.nodes.get(job.node.as_ref().filter(|_| holds_gpus(job))?)?;
    let infos = &node.offer.as_ref()?.capabilities.gpus;
    let own =
        infos.iter().zip(node.gpus.iter()).filter(|(info, _)| job.gpus.iter().any(|(uuid, _)| *uuid == info.uuid));
    let known: Vec<u32> = own.filter_map(|(_, gpu)| super::nodes::heard(node, gpu.busy_pct)).map(u32::from).collect();
    let sum: u32 = known.iter().sum();
    u8::try_from(sum.checked_div(u32::try_from(known.len()).ok()?)?).ok()
}

/// The last five minutes of the GPUs of its node, if it holds some of them.
fn line(ctx: &Ctx<'_>, job: &JobView) -> Vec<Option<u8>> {
    let node = job.node.as_ref().filter(|_| holds_gpus(job)).and_then(|node| ctx.mirror.nodes.get(node));
    node.map(|node| super::node::line(ctx, node)).unwrap_or_default()
}

/// How long it has run, or did.
pub(crate) fn ran(job: &JobView, now: WallTime) -> Option<Interval> {
    let ran = words::ran(job, now)?;
    // What still runs does not change ten times a second.
    Some(if job.state.is_ended() { ran } else { Interval::from_secs(ran.0 / 1_000_000) })
}

/// The same as people read it.
pub(crate) fn ran_for(job: &JobView, now: WallTime) -> Option<String> {
    let span = ran(job, now)?;
    Some(if span == Interval::ZERO && !job.state.is_ended() { "0s".to_owned() } else { words::lasted(span) })
}

/// Draws the table and what belongs to the selected job.
pub(crate) fn draw(app: &App, ctx: &Ctx<'_>, layout: &Layout, frame: &mut Frame<'_>) {
    super::draw_table::<Jobs>(app, ctx, layout, 0, frame);
    if layout.shows(1) {
        super::output::draw_below(app, ctx, layout, frame);
    }
}

/// The job whose output is shown beside the table, or on the whole screen.
pub(crate) fn output_shown(app: &App) -> Option<JobId> {
    match app.place() {
        Place::Output(job) => Some(job),
        Place::Jobs if app.layout().shows(1) => match &app.ui.table(TableId::Jobs).selected {
            Some(RowId::Job(job)) => Some(*job),
            _ => None,
        },
        _ => None,
    }
}

/// Milliseconds until an age in the table reads otherwise.
pub(crate) fn next_age(app: &App) -> Option<u64> {
    let table = app.ui.table(TableId::Jobs);
    let rows = usize::from(app.caps.rows);
    let shown = table.order.iter().skip(table.top).take(rows);
    shown.filter_map(|id| if let RowId::Job(job) = id { next_age_of(app, *job) } else { None }).min()
}

/// Milliseconds until an age of this job reads otherwise.
pub(crate) fn next_age_of(app: &App, job: JobId) -> Option<u64> {
    let job = app.shown().jobs.get(&job)?;
    let age = app.ctx().now.since(job.created_at).as_millis();
    let ticking = matches!(job.state, JobState::Running | JobState::Unreachable | JobState::Cancelling);
    Some(if ticking || age < MINUTE_MS { 1_000 - age % 1_000 } else { MINUTE_MS - age % MINUTE_MS })
}
