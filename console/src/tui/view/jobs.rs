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
        width: (10, 40),
        priority: 90,
        shown: Width::Default,
        align: Alignment::Left,
        cell: |_, job, _| text(called(job)),
        kind: Kind::Text,
        value: |_, job| Some(Value::from(called(job))),
    },
    Column {
        key: "state",
        title: "STATE",
        width: (11, 14),
        priority: 200,
        shown: Width::Default,
        align: Alignment::Left,
        cell: state,
        kind: Kind::Words(STATES),
        value: |_, job| Some(Value::from(job.state.word())),
    },
    Column {
        key: "node",
        title: "NODE",
        width: (8, 16),
        priority: 60,
        shown: Width::Default,
        align: Alignment::Left,
        cell: |_, job, _| text(node(job).unwrap_or_else(|| "-".into())),
        kind: Kind::Name,
        value: |_, job| node(job).map(Value::from),
    },
    Column {
        key: "time",
        title: "TIME",
        width: (7, 8),
        priority: 70,
        shown: Width::Default,
        align: Alignment::Right,
        cell: |ctx, job, _| {
            text(ran(job, ctx.now).map_or_else(
                || "-".into(),
                |span| if span.as_millis() == 0 { "<1ms".into() } else { span.to_string() },
            ))
        },
        kind: Kind::Number(Unit::Millis),
        value: |ctx, job| ran(job, ctx.now).map(|span| Value::Number(span.as_millis() as f64)),
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
        key: "cap",
        title: "CAP",
        width: (6, 10),
        priority: 40,
        shown: Width::Default,
        align: Alignment::Right,
        cell: |_, job, _| text(job.hold.to_string()),
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
        value: |ctx, job| Some(Value::Number(ctx.now.since(job.created_at).as_millis() as f64)),
    },
    Column {
        key: "type",
        title: "TYPE",
        width: (6, 6),
        priority: 20,
        shown: Width::Wide,
        align: Alignment::Left,
        cell: |_, job, _| text(job.adapter.word()),
        kind: Kind::Whole,
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
        key: "try",
        title: "TRY",
        width: (3, 3),
        priority: 20,
        shown: Width::Wide,
        align: Alignment::Right,
        cell: |_, job, _| text(job.attempts.last().map_or_else(|| "-".into(), |attempt| attempt.number.to_string())),
        kind: Kind::Number(Unit::Plain),
        value: |_, job| job.attempts.last().map(|attempt| Value::Number(f64::from(attempt.number))),
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

    fn order() -> (&'static str, bool) {
        ("age", false)
    }

    fn rows<'a>(ctx: &Ctx<'a>) -> Box<dyn Iterator<Item = &'a JobView> + 'a> {
        let (mine, ended) = (ctx.ui.mine, ctx.ui.ended);
        let account = ctx.mirror.my_account();
        let jobs = ctx.mirror.jobs.values().map(|job| &**job);
        Box::new(jobs.filter(move |job| (ended || !job.state.is_ended()) && (!mine || Some(&job.account) == account)))
    }

    fn find<'a>(mirror: &'a Mirror, id: &RowId) -> Option<&'a JobView> {
        if let RowId::Job(id) = id { mirror.jobs.get(id).map(|job| &**job) } else { None }
    }

    fn id(job: &JobView) -> RowId {
        RowId::Job(job.id)
    }

    fn revision(mirror: &Mirror) -> u64 {
        mirror.jobs_revision
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

/// The state in a character and a word, with the exit code where there is one.
pub(crate) fn state(ctx: &Ctx<'_>, job: &JobView, _room: u16) -> Line<'static> {
    let sending = ctx.ui.asks.values().any(|ask| ask.about == Some(RowId::Job(job.id)));
    if sending {
        return Line::styled(format!("{} sending", ctx.glyphs.pick("…", ".")), ctx.theme.style(Role::Info));
    }
    let exit = match (job.state, job.exit) {
        (JobState::Completed | JobState::Failed, Some(exit)) => format!(" {}", exit.code),
        _ => String::new(),
    };
    let style = ctx.theme.job(job.state);
    Line::from(Span::styled(format!("{} {}{exit}", ctx.glyphs.job(job.state), job.state.word()), style))
}

fn node(job: &JobView) -> Option<String> {
    job.node.as_ref().map(ToString::to_string)
}

/// How long it has run, or did.
pub(crate) fn ran(job: &JobView, now: WallTime) -> Option<Interval> {
    let started = job.started_at?;
    let until = job.ended_at.unwrap_or(now);
    Some(Interval::from_secs(until.since(started).0 / 1_000_000))
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
